"""Make a control while somebody waits: an axis for a measured column, or for yes and no on thirty faces, or a trajectory.

``making`` is its panel.

The fits are those of ``fitting.axes`` and ``fitting.labels``; progress comes through ``progress.shown_by``, and whoever cancels finds
what was measured so far in the cache of the visit: the same fit goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from steerable import files, progress, zoo
from steerable.controls.directions import Directions
from steerable.controls.trajectory import Trajectory
from steerable.evaluation.response import response
from steerable.evaluation.summary import largest_leaks, leakage
from steerable.features.network import AllColumns, column, select
from steerable.fitting.axes import fit_axes, score_of
from steerable.fitting.labels import fit_feature
from steerable.protocols import Feature, device_of
from steerable.studio import session
from steerable.studio.road import Road
from steerable.studio.session import Bench

CALIBRATION, LEAKS = 48, 16  # latents at most: for unit and range, for what else moves
FEWEST, EACH = 12, 4  # labels in all, and of either answer
FOLDS = 5


class Cancelled(Exception):
    """Somebody pressed cancel. What was measured stays in the cache."""


@dataclass(eq=False)
class Job:
    """One fit that is under way: how far it is, and the way to stop it."""

    share: float = 0.0
    words: str = "starting"

    def __post_init__(self) -> None:
        self._stop = threading.Event()

    def cancel(self) -> None:
        self._stop.set()

    def track(self, items: Iterable[Any], label: str, total: int) -> Iterator[Any]:
        """A tracker of ``progress``: keeps the share, and stops between two items."""
        for done, item in enumerate(items):
            if self._stop.is_set():
                raise Cancelled
            self.share, self.words = done / max(total, 1), f"{label}: {done} of {total}"
            yield item
        self.share = 1.0


@dataclass(frozen=True, eq=False)
class Made:
    """A fitted axis with its evidence, on a bench that has it."""

    bench: Bench
    name: str
    words: str


def axis_of(bench: Bench, name: str, cache: Path, job: Job, *, n: int) -> Made:
    """An axis for one measured column.

    Raises:
        Cancelled, ValueError: see ``fit_axes``.
    """
    owner = next(feature for feature in bench.features if name in feature.columns)
    return _made(bench, column(owner, name), cache, job, n, about="")


def axis_of_labels(bench: Bench, name: str, answers: Mapping[int, bool], cache: Path, job: Job, *, n: int) -> Made:
    """An axis for an attribute that somebody labelled on seeds, yes or no.

    Raises:
        ValueError: too few labels, or too few of one answer.
    """
    yes = sum(answers.values())
    if len(answers) < FEWEST or min(yes, len(answers) - yes) < EACH:
        raise ValueError(f"label at least {FEWEST} faces, {EACH} of them yes and {EACH} no; so far {yes} yes and {len(answers) - yes} no.")
    table = files.write_text(cache / "labels.csv", "seed,label\n" + "".join(f"{seed},{int(on)}\n" for seed, on in answers.items()))
    with progress.shown_by(job.track):
        # thirty labels are too few for the thousand numbers of the backbone: the head reads the columns that are measured anyway
        backbone = AllColumns(bench.features) if bench.features else zoo.load_backbone().to(device_of(bench.generator))
        feature = fit_feature(table, backbone=backbone, name=name, generator=bench.generator, folds=FOLDS)
    report: Any = feature.report
    about = (
        f"Labels: accuracy {report['score']:.2f} on {report['rows']} faces, each judged by a head that did not see it "
        f"({report['folds']} folds), always naming the commoner answer {report['baseline']:.2f}. "
    )
    return _made(replace(bench, features=(*bench.features, feature)), feature, cache, job, n, about=about)


def road_of(bench: Bench, name: str, holds: Sequence[str], cache: Path, job: Job) -> Made:
    """A trajectory that moves one measured column or feature while others are held, as a slider.

    Raises:
        ValueError: nothing to hold, or what moves would be held.
    """
    del cache
    job.words = f"measuring {name} and what is held on unsteered images"
    held = select(bench.features, [one for one in holds if one != name])
    if not held:
        raise ValueError("a trajectory holds something: choose what stays, or lock a feature.")
    road = Road(
        Trajectory(bench.generator, move=select(bench.features, [name]), hold=held, space=bench.space, judge=None, settling=0),
        f"{name} moved",
    )
    renamed, _ = session.adopted(bench, road, "trajectories")
    knob = road.knobs[0]
    words = f"A trajectory, holding {', '.join(one.name for one in held)}; one population deviation is {knob.high:.3g} {knob.unit}."
    return Made(renamed, road.name, f"{words} Its way is walked when the slider is first turned.")


def _made(bench: Bench, feature: Feature, cache: Path, job: Job, n: int, *, about: str) -> Made:
    name = feature.columns[0]
    with progress.shown_by(job.track):
        space = bench.space
        axis = fit_axes(bench.generator, [feature], n=n, calibration=min(CALIBRATION, max(LEAKS, n // 8)), space=space, cache=cache)
        knob, (kind, score) = axis.knobs[0], score_of(axis, name)
        leak = _leaks(bench, axis, job) if knob.high > knob.low else ""
    if not knob.high > knob.low:
        raise ValueError(
            f'"{name}": no usable direction was found ({kind} {score:.2f} on held-out faces, n {n}): label more, or other faces.'
        )
    renamed, names = session.adopted(bench, axis, "made here")
    reach = f"range {knob.low:.3g} to {knob.high:.3g} {knob.unit}"
    words = f"{about}Axis: {kind} {score:.2f}, ten-fold over n {n}, seed 0; {reach}. {leak}"
    return Made(renamed, names[name], words)


def _leaks(bench: Bench, axis: Directions, job: Job) -> str:
    """The columns that move most beside the axis's own, per deviation of it."""
    features = [feature for feature in bench.features if axis.knobs[0].name in feature.columns or feature.name in SHOWN]
    seen = response(bench.generator, axis, features, n=LEAKS, seed=1)
    spread = seen.start.std(0)
    if not bool((spread > 0).any()) or axis.knobs[0].name not in seen.columns:
        return ""
    most = largest_leaks(leakage(seen, spread), seen, axis.knobs[0].name)
    return f"Moves most beside it, in deviations per deviation (n {LEAKS}, seed 1): " + ", ".join(f"{n} {v:+.2f}" for n, v in most) + "."


SHOWN = ("brightness", "pose", "mouth", "smile", "face-place", "person", "skin-colour")


def worked(work: Callable[[], Made]) -> Made | str:
    """The result of a fit, or the one line that says why there is none."""
    try:
        with torch.enable_grad():
            return work()
    except Cancelled:
        return "Cancelled. What was measured is kept: the same fit goes on from there."
