"""Set values by number on faces: the solver beside the straight axis, judged by a network that is in no loss.

    python benchmarks/setting.py [--quick] [--only yaw] [--n 64] [--ways axis,solve] [--others] [--groups control/faces64-groups]

Faces that nothing was fitted on (seeds 1000 on) are set to yaw -25, 0, 25, to two values each of pitch, smile and brightness, and to
yaw and smile at once, by

    axis        AlongAxis: along the attribute's straight axis until its network reads the value; of several, one after the other
    solve       Solve with the identity held (and pitch moved in the mirror image as well, which is its default)
    at once     the controller that was fitted on solutions of the latter: one pass, no image (yaw, not with --quick)
    gradients   with --others: Gauss-Newton steps by the network's own gradients, what a sketch would do
    free        with --others: Solve with nothing held
    groups      with --groups: the controllers of groups that were learned in front of the generator (make control-faces), which replace the
                whole group of the value; the group's other values stay what they measure, and what is out of reach goes to its end

and for each: the mean absolute error by the network that was asked, and by the second judge, which is in no loss (68 landmarks, given the
mean and the spread of the first on unedited faces; brightness is counted, so it needs none); the identity's drift over the axis's drift at
the same change of the second judge on the same face; how many values were reached; seconds. Intervals: 95 % over faces, by bootstrap.
The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable import AlongAxis, Solve, column, fit_axes, fit_controller, load_control, load_feature, load_generator
from steerable.controls.directions import Directions
from steerable.controls.groups import Controllers
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Feature, Generator, Latents
from steerable.sampling import Table, latents_of, measure, observe
from steerable.sensitivity import Generated, jacobian

TASKS: tuple[tuple[tuple[str, ...], tuple[tuple[float, ...], ...]], ...] = (
    (("yaw",), ((-25.0,), (0.0,), (25.0,))),
    (("pitch",), ((0.0,), (20.0,))),
    (("smile",), ((-8.0,), (6.0,))),
    (("brightness",), ((0.2,), (0.5,))),
    (("yaw", "smile"), ((-20.0, -6.0), (20.0, 4.0))),
)
JUDGES = {"yaw": "yaw68", "pitch": "pitch68", "smile": "mouth-width68", "brightness": "brightness"}
Row = dict[str, float | None]
WAYS = ("axis", "solve", "at once", "gradients", "free", "groups")
AMORTISED = (("yaw",),)
SEED = 1000
LEAST = 0.3  # deviations of the second judge that a face has to move for its drift to be compared
DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Bench:
    """What every task shares: faces, networks, axes, and the second judges' calibration."""

    generator: Generator
    features: tuple[Feature, ...]
    table: Table
    axes: Directions
    latents: Latents
    identity: Feature
    groups: tuple[ModuleGenerator, Controllers] | None = None

    def read(self, latents: Latents) -> tuple[dict[str, Tensor], Tensor]:
        """All columns, and the identity."""
        rows = observe(self.generator, (*self.features, self.identity), latents)
        names = [name for one in self.features for name in one.columns]
        return dict(zip(names, rows.unbind(1), strict=False)), rows[:, len(names) :]

    def second(self, name: str, read: dict[str, Tensor]) -> Tensor:
        """The second judge in the unit of the first: with its mean and spread on unedited faces."""
        judge, own = self.table.column(JUDGES[name]), self.table.column(name)
        sign = torch.corrcoef(torch.stack([judge, own]))[0, 1].sign()
        return (read[JUDGES[name]] - judge.mean()) / judge.std() * own.std() * sign + own.mean()

    def deviation(self, name: str) -> float:
        return float(self.table.column(name).std())

    def feature(self, name: str) -> Feature:
        return column(next(one for one in self.features if name in one.columns), name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 faces and axes of 200 latents, not 64 and 2,000; yaw alone, no controller")
    parser.add_argument("--only", metavar="NAMES", help="one task: yaw, pitch, smile, brightness or yaw+smile")
    parser.add_argument("--n", type=int, help="how many faces; 64 by default")
    parser.add_argument("--ways", metavar="NAMES", help="only these ways, with commas")
    parser.add_argument(
        "--groups", type=Path, metavar="FOLDER", help="generator.safetensors and controllers.safetensors of make control-faces"
    )
    parser.add_argument("--others", action="store_true", help="also the network's own gradients, and the solver with nothing held")
    given = parser.parse_args()
    if given.n is not None and given.n < 1:
        parser.error(f"--n is 1 or more faces, got {given.n}")
    tasks = ["+".join(names) for names, _ in TASKS]
    if given.only and given.only not in tasks:
        parser.error(f"no task {given.only!r}; there are {', '.join(tasks)}")
    count, size = given.n or (6 if given.quick else 64), 200 if given.quick else 2000
    chosen = [one.strip() for one in given.ways.split(",")] if given.ways else []
    if unknown := [one for one in chosen if one not in WAYS]:
        parser.error(f"no way {unknown[0]!r}; there are {', '.join(WAYS)}")
    if "groups" in chosen and not given.groups:
        parser.error("the way groups takes --groups FOLDER, what make control-faces wrote")
    if given.groups and not (given.groups / "controllers.safetensors").is_file():
        parser.error(f"{given.groups} has no controllers.safetensors: make control-faces writes it")
    began = time.perf_counter()
    bench = prepared(count, size)
    if given.groups:
        made = load_generator(str(given.groups / "generator.safetensors"))
        bench = replace(bench, groups=(made, load_control(given.groups / "controllers.safetensors", generator=made)))
    print(f"faces64; n = {count} faces, seeds {SEED}-{SEED + count - 1}; axes fitted on {size} latents of seed 0")
    print(
        "errors: mean absolute, with 95 % intervals over faces; drift: identity's, over the axis's at the same change of the second judge\n"
    )
    print(f"{'':12}{'value':12}{'own network':>22}{'second judge':>22}{'drift ratio':>22}{'reached':>9}{'seconds':>9}")
    asked = chosen or [
        "axis",
        "solve",
        *([] if given.quick else ["at once"]),
        *(["gradients", "free"] if given.others else []),
        *(["groups"] if given.groups else []),
    ]
    figures: dict[str, dict[str, Row]] = {}
    for names, targets in TASKS:
        task = "+".join(names)
        if (given.only and task != given.only) or (given.quick and not given.only and task != "yaw"):
            continue
        figures[task] = compared(bench, names, targets, asked)
    seconds = time.perf_counter() - began
    print(f"\n{seconds:.0f} s in all; load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"benchmark": "setting", "n": count, "seed": SEED, "seconds": seconds, "load": os.getloadavg()[0], **figures}))


def prepared(count: int, size: int) -> Bench:
    generator = load_generator("faces64")
    features = tuple(load_feature(name) for name in ("pose", "smile", "brightness", "pose68", "mouth68"))
    axes = fit_axes(generator, features, columns=["yaw", "pitch", "smile", "brightness"], n=size, calibration=96)
    table = measure(generator, features, n=min(size, 600) // 2, seed=0)
    return Bench(generator, features, table, axes, latents_of(generator, range(SEED, SEED + count)), load_feature("identity"))


def compared(bench: Bench, names: tuple[str, ...], targets: Sequence[tuple[float, ...]], asked: Sequence[str]) -> dict[str, Row]:
    """The ways that are asked for to set these names to these values, one line each."""
    axes = bench.axes[list(names)]
    solve = Solve(bench.generator, set=dict.fromkeys(names, 0.0), hold=[bench.identity], features=bench.features, axes=axes)
    ways = {"axis": lambda wanted: straight(bench, names, wanted), "solve": lambda wanted: solve.solve(bench.latents, wanted).latents}
    if "at once" in asked and names in AMORTISED:
        began = time.perf_counter()
        controller = fit_controller(solve, n=192, held_out=32)
        fitting = time.perf_counter() - began
        ways["at once"] = lambda wanted: controller.steer(bench.latents, wanted)
    if "free" in asked:
        free = Solve(bench.generator, set=dict.fromkeys(names, 0.0), features=bench.features, axes=axes)
        ways["free"] = lambda wanted: free.solve(bench.latents, wanted).latents
    if bench.groups is not None and set(names) <= {knob.name for knob in bench.groups[1].knobs}:
        ways["groups"] = lambda wanted: in_groups(bench, names, wanted)
    ways["gradients"] = lambda wanted: steepest(bench, names, wanted)
    start, identity = bench.read(bench.latents)
    curves = {name: curve(bench, name, start, identity) for name in names}
    rows: dict[str, Row] = {}
    for way, find in ((way, ways[way]) for way in asked if way in ways):
        own, second, drifts, usual, seconds = [], [], [], [], 0.0
        for target in targets:
            wanted = torch.tensor([target]).expand(len(bench.latents), -1)
            began = time.perf_counter()
            found = find(wanted)
            seconds += time.perf_counter() - began
            after, who = bench.read(found)
            own.append(torch.stack([after[name] - wanted[:, k] for k, name in enumerate(names)], 1).abs())
            second.append(torch.stack([bench.second(name, after) - wanted[:, k] for k, name in enumerate(names)], 1).abs())
            drift, axis = matched(bench, names, curves, start, after, (who - identity).norm(dim=1))
            drifts.append(drift)
            usual.append(axis)
        off, judged = torch.stack(own, 1), torch.stack(second, 1)  # (n, targets, k)
        tolerance = torch.tensor([0.06 * bench.deviation(name) for name in names])
        row: Row = {"reached": float((off <= tolerance).all(2).float().mean()), "seconds": seconds}
        for k, name in enumerate(names):
            row |= interval(f"own {name}", off[..., k].mean(1)) | interval(f"second {name}", judged[..., k].mean(1))
        row |= ratio("drift", torch.stack(drifts, 1), torch.stack(usual, 1))
        if way == "at once":
            row |= {"fitting seconds": fitting}
            row |= {f"held out {name}": value for name, errors in controller.errors.items() for value in [errors["mean"]]}
        rows[way] = row
        printed(way, names, row)
    return rows


def straight(bench: Bench, names: Sequence[str], wanted: Tensor) -> Latents:
    """Along each axis, one after the other, as the command line's --by axis does."""
    latents = bench.latents
    for k, name in enumerate(names):
        latents = AlongAxis(bench.generator, bench.axes[name], bench.feature(name)).steer(latents, wanted[:, k, None])
    return latents


def steepest(bench: Bench, names: Sequence[str], wanted: Tensor, *, steps: int = 8) -> Latents:
    """Gauss-Newton by the gradients of the asked networks alone, a deviation a step at most."""
    local = Generated(bench.generator, tuple(bench.feature(name) for name in names), bench.latents)
    values = bench.latents.values
    for _ in range(steps):
        read, jac = jacobian(local, values)
        miss = (wanted - read).detach()
        most = torch.tensor([bench.deviation(name) for name in names])
        step = (torch.linalg.pinv(jac.detach()) @ miss.clamp(-most, most)[..., None])[..., 0]
        values = values + step.view_as(values)
    return bench.latents.at(values)


def in_groups(bench: Bench, names: Sequence[str], wanted: Tensor) -> Latents:
    """The controllers' one answer for the group of these names, in the latent of the frozen generator that the group stands before."""
    assert bench.groups is not None
    generator, controllers = bench.groups
    front: Any = generator.network
    chosen, space = controllers[list(names)], generator.spaces["w"]
    with torch.no_grad():
        centre = front.entering(torch.zeros(1, front.width))
        into = front.entering(torch.eye(front.width)) - centre  # w -> latent is affine: each face has its w
        w = Latents(torch.linalg.solve(into.T, (bench.latents.values - centre).T).T, space)
        now = bench.read(bench.latents)[0]
        columns = [wanted[:, names.index(knob.name)] if knob.name in names else now[knob.name] for knob in chosen.knobs]
        amounts = torch.stack([column.clamp(knob.low, knob.high) for column, knob in zip(columns, chosen.knobs, strict=True)], 1)
        return bench.latents.at(front.entering(chosen.steer(w, amounts).values))


def curve(bench: Bench, name: str, start: dict[str, Tensor], identity: Tensor) -> tuple[Tensor, Tensor]:
    """Along the straight axis: change of the second judge and drift of the identity, (n, 201) each."""
    knob = bench.axes[name].knobs[0]
    reach = 1.3 * max(abs(knob.low), abs(knob.high))
    steps = torch.linspace(-reach, reach, 11)
    changes, drifts = [], []
    for step in steps:
        read, who = bench.read(bench.axes[name].steer(bench.latents, step.expand(len(bench.latents), 1)))
        changes.append(bench.second(name, read) - bench.second(name, start))
        drifts.append((who - identity).norm(dim=1))
    return finer(torch.stack(changes, 1)), finer(torch.stack(drifts, 1))


def finer(rows: Tensor) -> Tensor:
    """(n, points) -> (n, 201), straight between the points."""
    return torch.nn.functional.interpolate(rows[:, None], size=201, mode="linear", align_corners=True)[:, 0]


def matched(
    bench: Bench,
    names: Sequence[str],
    curves: dict[str, tuple[Tensor, Tensor]],
    start: dict[str, Tensor],
    after: dict[str, Tensor],
    drift: Tensor,
) -> tuple[Tensor, Tensor]:
    """The identity's drift, and the axis's at the same change of the second judge.

    NaN for faces that hardly moved, or further than the axis can. Of several names the axes' squared drifts add up, as those of directions
    at right angles do.
    """
    total, usable = torch.zeros_like(drift), torch.ones_like(drift, dtype=torch.bool)
    most = torch.zeros_like(drift)
    for name in names:
        change = bench.second(name, after) - bench.second(name, start)
        changes, drifts = curves[name]
        off = (changes - change[:, None]).abs()
        # of all places on the axis with this change the nearest to the start
        near = torch.where(off <= off.amin(1, keepdim=True) + 0.002 * bench.deviation(name), drifts, torch.inf).amin(1)
        usable &= off.amin(1) <= 0.1 * bench.deviation(name)
        most = torch.maximum(most, change.abs() / bench.deviation(name))
        total = total + near.square()
    usable &= most >= LEAST
    return torch.where(usable, drift, torch.nan), torch.where(usable, total.sqrt(), torch.nan)


def interval(name: str, values: Tensor) -> Row:
    """Mean over faces and its 95 % interval."""
    return _summary(name, values[:, None], lambda rows: rows.mean((1, 2)))


def ratio(name: str, above: Tensor, below: Tensor) -> Row:
    """Sum over sum, NaN left out, with the interval over faces."""
    if not bool(above.isfinite().any()):
        return {name: None, f"{name} low": None, f"{name} high": None}
    return _summary(
        name, torch.stack([above, below], 2).flatten(1), lambda rows: rows[..., ::2].nansum((1, 2)) / rows[..., 1::2].nansum((1, 2))
    )


def _summary(name: str, rows: Tensor, statistic) -> Row:
    drawn = torch.randint(len(rows), (DRAWS, len(rows)), generator=torch.Generator().manual_seed(0))
    many = statistic(rows[drawn])
    low, high = many[many.isfinite()].quantile(torch.tensor([0.025, 0.975])).tolist()
    return {name: float(statistic(rows[None])[0]), f"{name} low": low, f"{name} high": high}


def printed(way: str, names: Sequence[str], row: Row) -> None:
    for k, name in enumerate(names):
        texts = [_between(row, f"{what} {name}") for what in ("own", "second")] + [_between(row, "drift") if k == 0 else ""]
        tail = f"{row['reached']:>9.2f}{row['seconds']:>9.1f}" if k == 0 else ""
        print(f"{way if k == 0 else '':12}{name:12}" + "".join(f"{text:>22}" for text in texts) + tail, flush=True)


def _between(row: Row, name: str) -> str:
    value, low, high = (row[key] for key in (name, f"{name} low", f"{name} high"))
    return "-" if value is None else f"{value:.3g} ({low:.3g}–{high:.3g})"


if __name__ == "__main__":
    main()
