"""Move one thing, hold another: trajectories beside every straight method and the paper's baselines, at matched change.

    python benchmarks/holding.py [--quick] [--pairs "background | face box,pose | identity"] [--keep pairs.json] [--jobs 2]
                                 [--figure holding.png]

For each pair, faces that nothing was tuned on (seeds 1000 on) are moved until what moves has changed by the same amount, and what counts is
the squared change of what is held. How many faces get there is reported beside it, for a method that stops early drifts little.

    trajectory         as it is by default: recomputed at every step, settled where it arrives, a drift of 8 % of the move allowed (both in
                       deviations); a face that gets there neither way may drift by 25, then by 50 and 100 %
    paper              the eigenvector of every way-point (Rayleigh EigenDirections), without corrections; at most 12 way-points. On the
                       first 16 faces only: it takes as long as everything else
    first kept         the trajectory's first direction of each face, followed straight
    axis, projected    one direction for all: the moved feature's first component regressed on z, free of what eight held ones regress to
    PCA                one for all: the best of 20 components of the images, regressed on z (GANSpace's way)
    SeFa               one for all: the best of 20 right singular vectors of the generator's first layer
    most change, least change, random      the baselines of the paper's released code

Directions are fitted and chosen on other latents than the faces. By every method both signs are walked, and of those that get there the
one that leaks less counts. Bands are 95 % of 2,000 bootstrap draws of the faces. Goals: a fifth of the best straight method's drift on the
faces that both bring there, and on the box pairs a hundredth of the moved change. A whole run takes hours of processor time, which --jobs
shares out: with --keep, every few faces are added to the file as soon as they are done, what it has is not measured again, and an
interrupted run goes on there.
The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable import files, load_generator, named, render
from steerable.controls import growth
from steerable.controls.sides import Sides, missing
from steerable.controls.trajectory import Path as Way
from steerable.controls.trajectory import Trajectory
from steerable.features.regions import PartPixels
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Latents
from steerable.sampling import latents_of

BOX = "16,18,52,46"  # the face
DIGIT = "8,0,24,32"  # the middle of a digit
FIRST = 1000  # held-out seeds begin here
LOOKED_AT, CHOSEN_ON, HELD_PARTS, COMPONENTS = 512, 16, 8, 20  # latents that directions are fitted and chosen on
DRAWS = 2000
ALLOWED = (0.08, 0.25, 0.5, 1.0)  # drift, as a share of the move
PAPER = 16  # faces
LONGEST = 12  # way-points of the paper's course
STRAIGHT = ("first kept", "axis, projected", "PCA", "SeFa")
BASELINES = ("most change", "least change", "random")
FEW = 2  # faces that one of several processes takes at a time
COARSE, FINE = 10, 4  # places looked at on a line, and then between two of them


@dataclass(frozen=True)
class Pair:
    """What moves by how much and what is held, in the words of the command line."""

    name: str
    move: str
    hold: str
    amount: float | None = None  # rms of what moves, in its unit; None: half a population deviation
    generator: str = "faces64"
    goal: float | None = None  # most drift, as a share of the moved change, both squared


PAIRS = (
    Pair("background | face box", f"outside:{BOX}", f"inside:{BOX}", 0.1**0.5, goal=0.01),
    Pair("face box | background", f"inside:{BOX}", f"outside:{BOX}", 0.1**0.5, goal=0.01),
    Pair("hair | face", "inside:hair", "inside:face"),
    Pair("identity | pose", "identity", "pose"),
    Pair("pose | identity", "pose", "identity"),
    Pair("high | low", "high:4", "low:4"),
    Pair("low | high", "low:4", "high:4"),
    Pair("digit: outside | middle", f"outside:{DIGIT}", f"inside:{DIGIT}", generator="digits32"),
)


@dataclass(frozen=True, eq=False)
class Reached:
    """Of each face: whether it got to the amount, and squared changes where it ended, in squared deviations."""

    there: Tensor  # (n,) of bool
    moved: Tensor
    drift: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 faces and two pairs instead of 64 and all")
    parser.add_argument("--pairs", help="only these, by name, with commas")
    parser.add_argument("--n", type=int, help="how many faces")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="JSON file of pairs measured so far, read and added to")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the faces, one thread each; 1 by default")
    parser.add_argument("--figure", type=Path, help="also draw drift and reach of every pair into this PNG")
    asked = parser.parse_args()
    if asked.jobs < 1:
        parser.error(f"--jobs is 1 or more processes, got {asked.jobs}")
    if asked.n is not None and asked.n < 1:
        parser.error(f"--n is 1 or more faces, got {asked.n}")
    count = asked.n or (2 if asked.quick else 64)
    quick = ("background | face box", "high | low")
    names = [one.strip() for one in asked.pairs.split(",")] if asked.pairs else quick if asked.quick else [one.name for one in PAIRS]
    if missing := [name for name in names if name not in {one.name for one in PAIRS}]:
        parser.error(f"no pair {missing[0]!r}; there are {', '.join(one.name for one in PAIRS)}")
    try:
        kept = json.loads(asked.keep.read_text()) if asked.keep and asked.keep.is_file() else {}
    except ValueError:
        parser.error(f"--keep {asked.keep} is there already, and nothing that --keep wrote: name another file")
    whole = {}
    for pair in [one for one in PAIRS if one.name in names]:
        for found in compared(pair, count, kept.get(pair.name), asked.jobs):
            kept[pair.name] = found
            if asked.keep:
                files.write_text(asked.keep, json.dumps(kept) + "\n")
        whole[pair.name] = measured(kept[pair.name])
        told(pair, whole[pair.name])
    if asked.figure:
        print(f"written: {files.write_bytes(asked.figure, render.figure_png(drawn(whole)))}")
    print(json.dumps({"benchmark": "holding", "n": count, "seed": FIRST, "load": os.getloadavg()[0], "pairs": whole}))


def compared(pair: Pair, count: int, kept: dict[str, Any] | None, jobs: int) -> Iterator[dict[str, Any]]:
    """Every method on so many faces, eight at a time, by several processes two; after each what is known so far, as JSON values."""
    done = len(kept["faces"]["random"]["there"]) if kept is not None else 0
    if kept is not None and done >= count:
        rows = {name: {key: values[:count] for key, values in one.items()} for name, one in kept["faces"].items()}
        yield {**kept, "faces": rows, "allowed": kept["allowed"][:count]}
        return
    if jobs > 1:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from added(kept, pool.map(some, repeat(pair), range(done, count, FEW), repeat(FEW), repeat(count)))
    else:
        yield from added(kept, (some(pair, i, 8, count) for i in range(done, count, 8)))


def added(kept: dict[str, Any] | None, found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is known of a pair after each few more faces."""
    known = kept
    for one in found:
        if known is None:
            known = one
        else:
            known["seconds"] += one["seconds"]
            known["allowed"].extend(one["allowed"])
            for name, rows in one["faces"].items():
                for key, values in rows.items():
                    known["faces"][name][key].extend(values)
        yield known


@dataclass(frozen=True, eq=False)
class Ready:
    """What all faces of a pair are measured with."""

    control: Trajectory
    amount: float
    faces: Latents
    shared: Mapping[str, Tensor]
    tries: Sequence[Trajectory]
    free: Trajectory


@cache
def ready(pair: Pair, count: int) -> Ready:
    """The trajectories, the faces and the directions of a pair, made once in a process."""
    generator = load_generator(pair.generator)
    shape = generator.image_shape
    move, hold = (named.features([text], shape) for text in (pair.move, pair.hold))
    control = Trajectory(generator, move=move, hold=hold, judge=None)
    seeds = range(FIRST, FIRST + (3 if any(isinstance(one, PartPixels) for one in (*control.move, *control.hold)) else 1) * count)
    faces = latents_of(generator, seeds, labels=0 if generator.classes else None)
    return Ready(
        control,
        control.unit / 2 if pair.amount is None else pair.amount,
        faces[shown(control, generator, faces).nonzero()[:count, 0]],  # the first that show what is named
        shared_directions(generator, control),
        [again(control, leak=leak) for leak in ALLOWED],
        again(control, course="recomputed", leak=10.0, max_steps=LONGEST),
    )


def some(pair: Pair, start: int, size: int, count: int) -> dict[str, Any]:
    """Every method on some of so many faces, as JSON values."""
    began = time.process_time()
    here = ready(pair, count)
    control, faces = here.control, here.faces[start : start + size]
    ours, allowed = walked(here.tries, faces, here.amount)
    results = {"trajectory": ours}
    if start < PAPER:
        results["paper"] = both_ways(here.free, faces, here.amount)
    sides = control.around(faces)
    around = growth.derivatives(sides, faces.values, control.steps)
    first = growth.first_directions(sides, around, control.steps)[:, 0]
    straight = {
        "first kept": first,
        **{name: direction.expand_as(first) for name, direction in here.shared.items()},
        "most change": torch.linalg.eigh(around.moves.total)[1][..., -1],
        "least change": torch.linalg.eigh(around.holds.total)[1][..., 0],
        "random": random_rows(start, len(faces), first.shape[1]),
    }
    results |= straightened(sides, straight, here.amount / control.unit)
    return {
        "amount": here.amount,
        "unit": control.knobs[0].unit,
        "held_unit": control.hold[0].unit,
        "deviations": [control.unit, control.held_unit],
        "seconds": time.process_time() - began,
        "allowed": allowed.tolist(),
        "faces": {name: {key: getattr(one, key).tolist() for key in ("there", "moved", "drift")} for name, one in results.items()},
    }


def random_rows(start: int, size: int, width: int) -> Tensor:
    """Directions (size, width) that a face has whichever others are measured beside it."""
    return torch.stack(
        [torch.randn(8, width, generator=torch.Generator().manual_seed(i - i % 8))[i % 8] for i in range(start, start + size)]
    )


def shown(control: Trajectory, generator: ModuleGenerator, latents: Latents) -> Tensor:
    """(n,) which pictures show every part that is moved or held: a bald head has no hair."""
    batches = [latents[i : i + 64] for i in range(0, len(latents), 64)]
    hidden = [missing(generator, some, (*control.move, *control.hold)) for some in batches]
    return torch.tensor([row not in one for one, some in zip(hidden, batches, strict=True) for row in range(len(some))])


def walked(tries: Sequence[Trajectory], faces: Latents, amount: float) -> tuple[Reached, Tensor]:
    """Every face to the amount by the first of ``ALLOWED`` that brings it there, and the drift that one allowed; 0 where none did."""
    whole: Reached | None = None
    places, allowed = torch.arange(len(faces)), torch.zeros(len(faces))
    for control in tries:
        ours = both_ways(control, faces[places], amount)
        if whole is None:
            whole = ours
        got = ours.there
        for mine, theirs in ((whole.there, ours.there), (whole.moved, ours.moved), (whole.drift, ours.drift)):
            mine[places[got]] = theirs[got]
        allowed[places[got]] = control.steps.leak
        places = (~whole.there).nonzero()[:, 0]
        if not len(places):
            break
    assert whole is not None
    return whole, allowed


def both_ways(control: Trajectory, faces: Latents, amount: float) -> Reached:
    """The better sign of a trajectory. The paper's is held to no tolerance, as its code is."""
    found = []
    for sign in (1.0, -1.0):
        path = control.path(faces, torch.full((len(faces), 1), sign * amount))
        there = path.reached if control.course == "growing" else (path.moved[-1] - amount).abs() <= 0.02 * amount
        found.append(Reached(there, *squares(control, path)))
    return better(*found)


def again(control: Trajectory, **options: object) -> Trajectory:
    """The same trajectory with other options."""
    weights = control.weights
    move = list(zip(control.move, weights, strict=False))
    hold = list(zip(control.hold, weights[len(move) :], strict=True))
    return Trajectory(control.generator, move=move, hold=hold, judge=None, **options)


def squares(control: Trajectory, path: Way) -> tuple[Tensor, Tensor]:
    """Moved and held change at the end, squared, in deviations."""
    return (path.moved[-1] / control.unit).square(), (path.drift[-1] / control.held_unit).square()


def shared_directions(generator: ModuleGenerator, control: Trajectory) -> dict[str, Tensor]:
    """One direction for all faces of every kind, fitted on 512 latents of seed 7 and chosen on 16 of seed 8."""
    labels = 0 if generator.classes else None
    latents = generator.sample(LOOKED_AT, seed=7, labels=labels)
    latents = latents[shown(control, generator, latents).nonzero()[:, 0]]
    looked_at = len(latents)
    with torch.no_grad():
        images = torch.cat([generator(latents[i : i + 64]) for i in range(0, looked_at, 64)])
        plain = [feature.at(images) if isinstance(feature, PartPixels) else feature for feature in (control.move[0], control.hold[0])]
        moved, held = (torch.cat([feature_of(one, images, i) for i in range(0, looked_at, 64)]) for one in plain)
    z = latents.values.flatten(1)
    z = z - z.mean(0)
    axis = regressed(z, scores(moved, 1))[0]
    blocked = torch.linalg.qr(regressed(z, scores(held, HELD_PARTS)).T)[0]
    chosen = generator.sample(2 * CHOSEN_ON, seed=8, labels=labels)
    chosen = chosen[shown(control, generator, chosen).nonzero()[:CHOSEN_ON, 0]]
    grams = []
    for i in range(0, CHOSEN_ON, 8):
        some = chosen[i : i + 8]
        around = growth.derivatives(control.around(some), some.values, control.steps)
        grams.append((around.moves.total.sum(0), around.holds.total.sum(0)))
    move, hold = (sum(pair[i] for pair in grams) for i in (0, 1))
    components = regressed(z, scores(images.flatten(1), COMPONENTS))
    first = generator.network.main[0].weight.detach()[: z.shape[1]].flatten(1)
    return {
        "axis, projected": axis - blocked @ (blocked.T @ axis),
        "PCA": best_of(components, move, hold),
        "SeFa": best_of(torch.linalg.svd(first)[0].T[:COMPONENTS], move, hold),
    }


def feature_of(feature, images: Tensor, start: int) -> Tensor:  # type: ignore[no-untyped-def]
    """Columns of 64 of the images; anchored features keep each picture's own region."""
    rows = torch.arange(start, min(start + 64, len(images)))
    return (feature.rows(rows) if isinstance(feature, PartPixels) else feature)(images[rows])


def scores(values: Tensor, count: int) -> Tensor:
    """The first principal components of some columns, (n, count), of unit variance."""
    centred = values - values.mean(0)
    u, _, _ = torch.linalg.svd(centred, full_matrices=False)
    return u[:, :count] * len(values) ** 0.5


def regressed(z: Tensor, targets: Tensor) -> Tensor:
    """Ridge regression of each target on z, (count, d)."""
    return torch.linalg.solve(z.T @ z + 0.1 * len(z) * torch.eye(z.shape[1]), z.T @ targets).T


def best_of(candidates: Tensor, move: Tensor, hold: Tensor) -> Tensor:
    """The direction that moves most for what it holds, on average over the latents that are chosen on."""
    unit = torch.nn.functional.normalize(candidates, dim=1)
    quotients = [float((one @ move @ one) / (one @ hold @ one + 1e-9)) for one in unit]
    return unit[int(np.argmax(quotients))]


def straightened(sides: Sides, directions: Mapping[str, Tensor], target: float) -> dict[str, Reached]:
    """The better sign of each row's direction of every kind, where what moves has first changed by the target."""
    unit = torch.nn.functional.normalize(torch.stack([sign * one for one in directions.values() for sign in (1, -1)]), dim=-1)
    found = matched(sides, unit, target)
    ends = [Reached(*(getattr(found, name)[i] for name in ("there", "moved", "drift"))) for i in range(len(unit))]
    return {name: better(ends[2 * i], ends[2 * i + 1]) for i, name in enumerate(directions)}


def better(a: Reached, b: Reached) -> Reached:
    second = (b.there & ~a.there) | ((a.there == b.there) & (b.drift < a.drift))
    return Reached(*(torch.where(second, getattr(b, name), getattr(a, name)) for name in ("there", "moved", "drift")))


def matched(sides: Sides, unit: Tensor, target: float) -> Reached:
    """Along each line, unit (l, n, d), where the target is first reached: growing strides until it is, then regula falsi; (l, n)."""
    z = sides.latents.values
    start = sides.measured(z)
    farthest = 1.2 * sides.population.radius
    nothing = torch.zeros(unit.shape[:2])

    def changed(length: Tensor, lines: Tensor) -> tuple[Tensor, Tensor]:
        """Root-mean-square change of what moves and mean squared one of what is held; of all rows of some lines, 0 of the others."""
        places = (z + length[lines, :, None] * unit[lines]).flatten(0, 1)
        columns = torch.cat([sides.measured(some) for some in places.split(4 * len(z))]).unflatten(0, (-1, len(z))) - start
        moved, drift = nothing.clone(), nothing.clone()
        moved[lines], drift[lines] = columns[..., : sides.width].square().mean(-1).sqrt(), columns[..., sides.width :].square().mean(-1)
        return moved, drift

    low, high, below, above = nothing, nothing + farthest, nothing, nothing + target
    best, drift, open_ = nothing, nothing, torch.ones_like(nothing, dtype=torch.bool)
    for share in ((torch.arange(1, COARSE + 1) / COARSE) ** 1.5).tolist():
        moved, held = changed(nothing + farthest * share, open_.any(1))
        best, drift = torch.where(open_, moved, best), torch.where(open_, held, drift)
        over = open_ & (moved >= target)
        high, above = torch.where(over, farthest * share, high), torch.where(over, moved, above)
        open_ = open_ & ~over
        low, below = torch.where(open_, farthest * share, low), torch.where(open_, moved, below)
        if not bool(open_.any()):
            break
    for _ in range(FINE):
        share = ((target - below) / (above - below).clamp(min=1e-9)).clamp(0.05, 0.95)
        middle = torch.where(open_, high, low + share * (high - low))
        moved, held = changed(middle, ~open_.all(1))
        nearer = ~open_ & ((moved - target).abs() < (best - target).abs())
        best, drift = torch.where(nearer, moved, best), torch.where(nearer, held, drift)
        over = moved >= target
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        below, above = torch.where(over, below, moved), torch.where(over, moved, above)
    return Reached((best - target).abs() <= 0.02 * target, best.square(), drift)


def measured(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a pair; squares in the features' own units."""
    faces = {name: Reached(*(torch.tensor(one[key]) for key in ("there", "moved", "drift"))) for name, one in kept["faces"].items()}
    ours, (move, hold) = faces["trajectory"], kept["deviations"]
    figures: dict[str, Any] = {name: kept[name] for name in ("amount", "unit", "held_unit", "seconds")}
    figures["n"] = len(ours.there)
    figures["allowed"] = {f"{leak:g}": sum(abs(one - leak) < 1e-6 for one in kept["allowed"]) for leak in ALLOWED}
    for name, one in faces.items():
        drift = one.drift[one.there]
        mean, low, high = banded(drift)
        both = one.there & ours.there[: len(one.there)]
        figures[name] = {
            "reached": int(one.there.sum()),
            "of": len(one.there),
            "drift": mean * hold**2,
            "low": low * hold**2,
            "high": high * hold**2,
            "deviations": mean,
            "of_moved": float((drift / one.moved[one.there]).mean()) * hold**2 / move**2 if len(drift) else None,
            "worst": float(drift.max()) * hold**2 if len(drift) else None,
            "ratio": float(ours.drift[: len(both)][both].mean() / one.drift[both].mean().clamp(min=1e-12)) if bool(both.any()) else None,
        }
    known = {name: figures[name]["ratio"] for name in STRAIGHT if figures[name]["ratio"] is not None}
    best = max(known, key=lambda name: known[name]) if known else ""
    return figures | {"best_straight": best, "ratio": known.get(best)}


def told(pair: Pair, figures: Mapping[str, Any]) -> None:
    """Print the table of a pair."""
    count = figures["n"]
    print(f"\n{pair.name} ({pair.generator}): move {pair.move} by {figures['amount']:.3g} {figures['unit']}, hold {pair.hold}")
    unit = figures["held_unit"] or "its unit"
    print(f"n = {count}, seeds {FIRST} on that show what is named; judge: the features. Squared drift in ({unit})^2")
    print(f"{'':18}{'reached':>9}{'drift^2':>11}{'95 % band':>22}{'sd^2':>10}{'of moved':>10}{'worst':>10}{'trajectory is':>15}")
    for name in ("trajectory", "paper", *STRAIGHT, *BASELINES):
        one = figures[name]
        line = f"{name:18}{one['reached']:>6}/{one['of']}"
        if one["reached"]:
            band = f"{one['low']:.2e} to {one['high']:.2e}"
            line += f"{one['drift']:>11.2e}{band:>22}{one['deviations']:>10.4f}{one['of_moved']:>10.4f}{one['worst']:>10.2e}"
            ratio = None if name == "trajectory" else one["ratio"]
            line += f"{'' if ratio is None else f'1/{1 / max(ratio, 1e-9):.1f}':>15}"
        print(line)
    needed = ", ".join(f"{100 * float(leak):g} % for {number}" for leak, number in figures["allowed"].items() if number)
    print(f"the drift that had to be allowed, of the move: {needed or 'more'}")
    ratio, share = figures["ratio"], figures["trajectory"]["of_moved"]
    if ratio is not None:
        verdict = "met" if ratio <= 0.2 else "not met"
        best = figures["best_straight"]
        print(f"goal, a fifth of the best straight method: {verdict}, 1/{1 / max(ratio, 1e-9):.1f} of {best} on the faces of both")
    if pair.goal is not None and share is not None:
        print(f"goal, {pair.goal:g} of the moved change: {'met' if share <= pair.goal else 'not met'}, {share:.4f}")
    print(f"{figures['seconds']:.0f} s of processor", flush=True)


def banded(values: Tensor) -> tuple[float, float, float]:
    """Mean, and where 95 % of the means of bootstrap draws lie; 0 of none."""
    if not len(values):
        return (0.0,) * 3
    rng = np.random.default_rng(0)
    drawn = values.numpy()[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
    return float(values.mean()), *(float(one) for one in np.quantile(drawn, (0.025, 0.975)))


def drawn(whole: Mapping[str, Mapping[str, Any]]):  # type: ignore[no-untyped-def]
    """A panel a pair: drift of every method with its band, on a logarithmic scale, and how many faces got there."""
    names = ("trajectory", "paper", *STRAIGHT, *BASELINES)
    counts = ", ".join(sorted({str(found["n"]) for found in whole.values()}))
    figure = render.new_figure(
        13, 3.1 * -(-len(whole) // 4) + 0.5, f"What moving one thing costs another, at matched change (n = {counts})"
    )
    panels = figure.subplots(-(-len(whole) // 4), min(len(whole), 4), squeeze=False).flatten()
    for panel in panels[len(whole) :]:
        panel.set_axis_off()
    for axes, (pair, found) in zip(panels, whole.items(), strict=False):
        for place, name in enumerate(names):
            one = found[name]
            y = len(names) - 1 - place
            colour = render.COLOURS[0] if place == 0 else render.COLOURS[1] if name in STRAIGHT else render.GREY
            if one["reached"]:
                axes.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=2.2, alpha=0.5)
                axes.plot([one["drift"]], [y], "o", color=colour, markersize=4.5)
            axes.annotate(f"{one['reached']}/{one['of']}", (1.01, y), xycoords=("axes fraction", "data"), fontsize=6.5, va="center")
        axes.set_xscale("log")
        axes.set_yticks(range(len(names)), names[::-1] if axes in panels[::4] else [""] * len(names), fontsize=7.5)
        axes.set_title(pair, fontsize=9)
        axes.set_xlabel("squared drift of what is held", fontsize=7.5)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", color="#e8eaee")
    return figure


if __name__ == "__main__":
    main()
