"""Move one thing, hold another: trajectories beside every straight method and the paper's baselines, at matched change.

    python benchmarks/holding.py [--quick] [--pairs "background | face box,pose | identity"] [--figure holding.png]

For each pair, faces that nothing was tuned on (seeds 1000 on) are moved until what moves has changed by the same amount, and what counts is
the squared change of what is held. How many faces get there is reported beside it, for a method that stops early drifts little.

    trajectory         recomputed at every step, with a drift of 3 % of the move allowed (both in deviations); a face that does not get
                       there goes the other way, then with the 8 % that are the default, then along the second direction
    paper              the eigenvector of every way-point (Rayleigh EigenDirections), without corrections
    first kept         the trajectory's first direction of each face, followed straight
    axis, projected    one direction for all: the moved feature's first component regressed on z, free of what eight held ones regress to
    PCA                one for all: the best of 20 components of the images, regressed on z (GANSpace's way)
    SeFa               one for all: the best of 20 right singular vectors of the generator's first layer
    most change, least change, random      the baselines of the paper's released code

Directions are fitted and chosen on other latents than the faces. Of each straight line both signs are walked, and the one that leaks less
counts. Bands are 95 % of 2,000 bootstrap draws of the faces. Goals: a fifth of the best straight method's drift on the faces that both
bring there, and on the box pairs a hundredth of the moved change. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steerable import files, load_generator, named, render
from steerable.controls import growth
from steerable.controls.sides import Sides
from steerable.controls.trajectory import Path as Way
from steerable.controls.trajectory import Trajectory, joined_paths
from steerable.features.regions import PartPixels
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Latents
from steerable.sampling import latents_of

BOX = "16,18,52,46"  # the face
DIGIT = "8,0,24,32"  # the middle of a digit
FIRST = 1000  # held-out seeds begin here
LOOKED_AT, CHOSEN_ON, HELD_PARTS, COMPONENTS = 512, 16, 8, 20  # latents that directions are fitted and chosen on
DRAWS = 2000
TRIES = ((0.03, 1, 1.0), (0.03, 1, -1.0), (0.08, 1, 1.0), (0.08, 1, -1.0), (0.08, 2, 1.0), (0.08, 2, -1.0))  # leak, rank, sign
STRAIGHT = ("first kept", "axis, projected", "PCA", "SeFa")
BASELINES = ("most change", "least change", "random")
COARSE, FINE = 14, 6  # places looked at on a line, and halvings


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
    parser.add_argument("--quick", action="store_true", help="4 faces and four pairs instead of 64 and all")
    parser.add_argument("--pairs", help="only these, by name, with commas")
    parser.add_argument("--n", type=int, help="how many faces")
    parser.add_argument("--figure", type=Path, help="also draw drift and reach of every pair into this PNG")
    asked = parser.parse_args()
    count = asked.n or (4 if asked.quick else 64)
    quick = ("background | face box", "face box | background", "high | low", "low | high")
    names = [one.strip() for one in asked.pairs.split(",")] if asked.pairs else quick if asked.quick else [one.name for one in PAIRS]
    if missing := [name for name in names if name not in {one.name for one in PAIRS}]:
        parser.error(f"no pair {missing[0]!r}; there are {', '.join(one.name for one in PAIRS)}")
    whole = {}
    for pair in [one for one in PAIRS if one.name in names]:
        began = time.perf_counter()
        results, control = compared(pair, count)
        whole[pair.name] = told(pair, control, results, count, time.perf_counter() - began)
    if asked.figure:
        figure = files.write_bytes(asked.figure, render.figure_png(drawn(whole, count)))
        print(f"written: {figure}")
    print(json.dumps({"benchmark": "holding", "n": count, "seed": FIRST, "load": os.getloadavg()[0], "pairs": whole}))


def compared(pair: Pair, count: int) -> tuple[dict[str, Reached], Trajectory]:
    generator = load_generator(pair.generator)
    shape = generator.image_shape
    move, hold = (named.features([text], shape) for text in (pair.move, pair.hold))
    control = Trajectory(generator, move=move, hold=hold, judge=None)
    amount = control.unit / 2 if pair.amount is None else pair.amount
    faces = latents_of(generator, range(FIRST, FIRST + 2 * count), labels=0 if generator.classes else None)
    faces = faces[shown(control, generator, faces).nonzero()[:count, 0]]  # the first that show what is named
    results = {"trajectory": walked(control, faces, amount), "paper": paper(control, faces, amount)}
    shared = shared_directions(generator, control)
    rng = torch.Generator().manual_seed(0)
    parts: dict[str, list[Reached]] = {}
    for i in range(0, count, 8):
        some = faces[i : i + 8]
        sides = control.around(some)
        around = growth.derivatives(sides, some.values, control.steps)
        first = growth.first_directions(sides, around, control.steps)[:, 0]
        own = {
            "first kept": first,
            **{name: direction.expand_as(first) for name, direction in shared.items()},
            "most change": torch.linalg.eigh(around.moves.total)[1][..., -1],
            "least change": torch.linalg.eigh(around.holds.total)[1][..., 0],
            "random": torch.randn(first.shape, generator=rng),
        }
        for name, direction in own.items():
            parts.setdefault(name, []).append(straightened(sides, direction, amount / control.unit))
    for name, found in parts.items():
        results[name] = Reached(*(torch.cat([getattr(one, field) for one in found]) for field in ("there", "moved", "drift")))
    return results, control


def shown(control: Trajectory, generator: ModuleGenerator, latents: Latents) -> Tensor:
    """(n,) which pictures show every part that is moved or held: a bald head has no hair."""
    there = []
    for i in range(0, len(latents), 64):
        with torch.no_grad():
            images = generator(latents[i : i + 64])
        rows = torch.ones(len(images), dtype=torch.bool)
        for feature in (*control.move, *control.hold):
            rows &= feature.shown(images) if isinstance(feature, PartPixels) else True
        there.append(rows)
    return torch.cat(there)


def walked(control: Trajectory, faces: Latents, amount: float) -> Reached:
    """Every face to the amount by the first of ``TRIES`` that brings it there."""
    whole: Way | None = None
    places = torch.arange(len(faces))
    for leak, rank, sign in TRIES:
        using = ranked(control, rank, leak=leak)
        path = using.path(faces[places], torch.full((len(places), 1), sign * amount))
        if whole is None:
            whole = path
        else:
            got = path.reached.nonzero()[:, 0]
            order = torch.arange(len(faces))
            order[places[got]] = len(faces) + got
            whole = joined_paths([whole, path]).rows(order)
        places = (~whole.reached).nonzero()[:, 0]
        if not len(places):
            break
    assert whole is not None
    return Reached(whole.reached, *squares(control, whole))


def ranked(control: Trajectory, rank: int, **options: object) -> Trajectory:
    """The same trajectory along another direction, or another course."""
    weights = control.weights
    move = list(zip(control.move, weights, strict=False))
    hold = list(zip(control.hold, weights[len(move) :], strict=True))
    return Trajectory(control.generator, move=move, hold=hold, judge=None, rank=rank, **options)


def paper(control: Trajectory, faces: Latents, amount: float) -> Reached:
    """The paper's course: held to no tolerance, as its code is; the better sign."""
    free = ranked(control, 1, course="recomputed", leak=10.0)
    both = []
    for sign in (1.0, -1.0):
        path = free.path(faces, torch.full((len(faces), 1), sign * amount))
        there = (path.moved[-1] - amount).abs() <= 0.02 * amount
        both.append(Reached(there, *squares(control, path)))
    return better(*both)


def squares(control: Trajectory, path: Way) -> tuple[Tensor, Tensor]:
    """Moved and held change at the end, squared, in deviations."""
    return (path.moved[-1] / control.unit).square(), (path.drift[-1] / control.held_unit).square()


def shared_directions(generator: ModuleGenerator, control: Trajectory) -> dict[str, Tensor]:
    """One direction for all faces of every kind, fitted on 512 latents of seed 7 and chosen on 16 of seed 8."""
    labels = 0 if generator.classes else None
    latents = generator.sample(LOOKED_AT, seed=7, labels=labels)
    latents = latents[shown(control, generator, latents)]
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


def straightened(sides: Sides, directions: Tensor, target: float) -> Reached:
    """The better sign of each row's direction, where what moves has first changed by the target."""
    unit = torch.nn.functional.normalize(directions, dim=1)
    return better(*(matched(sides, sign * unit, target) for sign in (1, -1)))


def better(a: Reached, b: Reached) -> Reached:
    second = (b.there & ~a.there) | ((a.there == b.there) & (b.drift < a.drift))
    return Reached(*(torch.where(second, getattr(b, name), getattr(a, name)) for name in ("there", "moved", "drift")))


def matched(sides: Sides, unit: Tensor, target: float) -> Reached:
    """The first length at which the target is reached: a walk of growing strides until it is, then halvings."""
    z = sides.latents.values
    start = sides.measured(z)
    farthest = 1.2 * sides.population.radius
    lengths = farthest * (torch.arange(1, COARSE + 1) / COARSE) ** 1.5

    def changed(length: Tensor) -> tuple[Tensor, Tensor]:
        columns = sides.measured(z + length[:, None] * unit) - start
        return columns[:, : sides.width].square().mean(1), columns[:, sides.width :].square().mean(1)

    low, high = torch.zeros(len(z)), torch.full((len(z),), float(farthest))
    open_ = torch.ones(len(z), dtype=torch.bool)
    for length in lengths.tolist():
        over = changed(torch.full((len(z),), length))[0] >= target**2
        high = torch.where(open_ & over, length, high)
        low = torch.where(open_ & ~over, length, low)
        open_ &= ~over
        if not bool(open_.any()):
            break
    for _ in range(FINE):
        middle = (low + high) / 2
        over = changed(middle)[0] >= target**2
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    moved, drift = changed(high)
    return Reached(moved >= (0.98 * target) ** 2, moved, drift)


def told(pair: Pair, control: Trajectory, results: Mapping[str, Reached], count: int, seconds: float) -> dict[str, object]:
    """Print the table of a pair; its figures."""
    amount = control.unit / 2 if pair.amount is None else pair.amount
    scale = control.held_unit**2
    knob, unit = control.knobs[0], control.hold[0].unit
    print(f"\n{pair.name} ({pair.generator}): move {pair.move} by {amount:.3g} {knob.unit}, hold {pair.hold}")
    print(f"n = {count}, seeds {FIRST} on that show both; judge: the features. Squared drift in ({unit or 'its unit'})^2")
    print(f"{'':18}{'reached':>9}{'drift^2':>11}{'95 % band':>22}{'sd^2':>10}{'of moved':>10}{'worst':>10}{'trajectory is':>15}")
    ours = results["trajectory"]
    figures: dict[str, object] = {"amount": amount, "unit": knob.unit, "seconds": seconds}
    ratios = {}
    for name, one in results.items():
        drift = one.drift[one.there]
        mean, low, high = banded(drift)
        both = one.there & ours.there
        ratio = float(ours.drift[both].mean() / one.drift[both].mean().clamp(min=1e-12)) if bool(both.any()) else float("nan")
        ratios[name] = ratio
        share = float((one.drift / one.moved.clamp(min=1e-12))[one.there].mean()) * scale / control.unit**2
        row = (mean * scale, f"{low * scale:.2e} to {high * scale:.2e}", mean, share)
        worst = float(drift.max()) * scale if len(drift) else float("nan")
        against = "" if name == "trajectory" else f"1/{1 / ratio:.1f}" if ratio == ratio and ratio > 0 else "-"
        print(
            f"{name:18}{int(one.there.sum()):>6}/{count}{row[0]:>11.2e}{row[1]:>22}{row[2]:>10.4f}{row[3]:>10.4f}{worst:>10.2e}{against:>15}"
        )
        figures[name] = {
            "reached": int(one.there.sum()),
            "drift": mean * scale,
            "low": low * scale,
            "high": high * scale,
            "deviations": mean,
            "of_moved": share,
            "worst": worst,
            "ratio": ratio,
        }
    known = {name: ratios[name] for name in STRAIGHT if ratios[name] == ratios[name]}
    best = max(known, key=lambda name: known[name]) if known else ""
    figures |= {"best_straight": best, "ratio": known.get(best)}
    if best:
        verdict = "met" if known[best] <= 0.2 else "not met"
        print(f"goal, a fifth of the best straight method: {verdict}, 1/{1 / max(known[best], 1e-9):.1f} of {best} on the faces of both")
    if pair.goal is not None:
        share = figures["trajectory"]["of_moved"]  # type: ignore[index]
        print(f"goal, {pair.goal:g} of the moved change: {'met' if share <= pair.goal else 'not met'}, {share:.4f}")
    print(f"{seconds:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    return figures


def banded(values: Tensor) -> tuple[float, float, float]:
    """Mean, and where 95 % of the means of bootstrap draws lie."""
    if not len(values):
        return (float("nan"),) * 3
    rng = np.random.default_rng(0)
    drawn = values.numpy()[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
    return float(values.mean()), *(float(one) for one in np.quantile(drawn, (0.025, 0.975)))


def drawn(whole: Mapping[str, Mapping[str, object]], count: int):  # type: ignore[no-untyped-def]
    """A panel a pair: drift of every method with its band, on a logarithmic scale, and how many faces got there."""
    names = ("trajectory", "paper", *STRAIGHT, *BASELINES)
    figure = render.new_figure(13, 3.1 * -(-len(whole) // 4) + 0.5, f"What moving one thing costs another, at matched change (n = {count})")
    panels = figure.subplots(-(-len(whole) // 4), min(len(whole), 4), squeeze=False).flatten()
    for panel in panels[len(whole) :]:
        panel.set_axis_off()
    for axes, (pair, found) in zip(panels, whole.items(), strict=False):
        for place, name in enumerate(names):
            one = found[name]
            assert isinstance(one, dict)
            y = len(names) - 1 - place
            colour = render.COLOURS[0] if place == 0 else render.COLOURS[1] if name in STRAIGHT else render.GREY
            axes.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=2.2, alpha=0.5)
            axes.plot([one["drift"]], [y], "o", color=colour, markersize=4.5)
            axes.annotate(f"{one['reached']}/{count}", (1.01, y), xycoords=("axes fraction", "data"), fontsize=6.5, va="center")
        axes.set_xscale("log")
        axes.set_yticks(range(len(names)), names[::-1] if axes in panels[::4] else [""] * len(names), fontsize=7.5)
        axes.set_title(pair, fontsize=9)
        axes.set_xlabel("squared drift of what is held", fontsize=7.5)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", color="#e8eaee")
    return figure


if __name__ == "__main__":
    main()
