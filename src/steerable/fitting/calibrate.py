"""Calibration: one unit of amount becomes one unit of measured change, on average, on latents that nothing was fitted on.

A direction is followed to several lengths on both sides; the change is measured by the feature of the knob's name, or, for a
walk, by reading the edit's amount back from the images. Its slope rescales the direction, and how far it stays near that slope is
the knob's usable range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerable import checks, progress
from steerable.controls.directions import Directions
from steerable.edits import measured_edit
from steerable.features.network import column
from steerable.protocols import Edit, Feature, Generator, Latents
from steerable.sampling import in_batches, observe

LENGTHS = (1.0, 2.0, 3.5)  # of the move, in standard deviations of the latents
MODERATE = 0.6  # of the longest move: up to here the slope is fitted
TOLERANCE = 0.25  # a mean change within 25 % of what was asked is still usable
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
Change = Callable[[Int[Tensor, " r"], Latents], Float[Tensor, " r"]]


@dataclass(frozen=True)
class Curve:
    """Mean measured change against the length of the move."""

    lengths: tuple[float, ...]
    changes: tuple[float, ...]
    errors: tuple[float, ...]
    n: int


def calibrate(
    generator: Generator,
    directions: Directions,
    measured_by: Sequence[Feature] | Mapping[str, Feature | Edit],
    *,
    n: int = 96,
    seed: int = 1,
    latents: Latents | None = None,
    batch: int = 32,
) -> Directions:
    """Rescale every direction to the unit that is measured, and write range and percentiles into its knob.

    Args:
        measured_by: features with a column of each knob's name, or a mapping from knobs to what measures them: a feature with
            one column, or the edit that a walk imitates.
        n, seed: of the latents; take a seed that was not fitted on.
        latents: calibrate on these instead.

    Returns:
        The same directions with new lengths. A knob whose measured change has the wrong sign or none keeps its length and gets
        the range 0 to 0: it does not do what its name says.

    Raises:
        ValueError: a knob that nothing measures.
    """
    latents = generator.sample(n, seed=seed, space=directions.space.name) if latents is None else latents
    before = _images_of(generator)
    changes: dict[str, Change] = {}
    populations: dict[str, Tensor] = {}
    limits: dict[str, float] = {}
    features = _by_knob(directions, measured_by)
    for name, measure in features.items():
        if hasattr(measure, "knob"):
            changes[name] = _edit_change(before, measure, latents, batch)  # type: ignore[arg-type]
            limits[name] = max(abs(measure.knob.low), abs(measure.knob.high))  # type: ignore[union-attr]
        else:
            start = observe(generator, [measure], latents, batch=batch)[:, 0]  # type: ignore[list-item]
            changes[name] = _feature_change(generator, measure, start, batch)  # type: ignore[arg-type]
            populations[name] = start
    return rescaled(directions, changes, latents, populations, limits)


def rescaled(
    directions: Directions,
    changes: Mapping[str, Change],
    latents: Latents,
    populations: Mapping[str, Tensor],
    limits: Mapping[str, float] | None = None,
) -> Directions:
    """``calibrate`` with the measurements given as functions of (rows of the latents, where these were moved to).

    ``limits`` are amounts of a direction's present unit that no move exceeds: an edit's range, beyond which nothing can be read back.
    """
    knobs, vectors, records = [], [], {}
    spread = latents.values.flatten(1).std(0).mean() if len(latents) > 1 else torch.tensor(1.0)
    for knob, vector in progress.track(list(zip(directions.knobs, directions.vectors, strict=True)), "calibrate"):
        unit = vector / vector.norm().clamp(min=1e-12) * spread
        limit = (limits or {}).get(knob.name, math.inf) * float(vector.norm() / spread)
        curve = follow(unit, changes[knob.name], latents, longest=limit)
        slope, low, high = usable(curve)
        if slope > 0:
            vectors.append(unit / slope)
            calibrated = replace(knob, low=slope * low, high=slope * high)
        else:
            vectors.append(vector)
            calibrated = replace(knob, low=0.0, high=0.0)
        values = populations.get(knob.name, coordinates(latents, vectors[-1]))
        knobs.append(replace(calibrated, percentiles=percentiles(values)))
        records[knob.name] = _record(curve, slope, populations.get(knob.name))
    fit = {**directions.fit, "calibration": records}
    return replace(directions, knobs=tuple(knobs), vectors=torch.stack(vectors), fit=fit)


def follow(unit: Tensor, change: Change, latents: Latents, *, longest: float = math.inf) -> Curve:
    """Mean change of the same latents at each length on both sides; all are shortened where the longest is too long."""
    shorter = min(1.0, longest / max(LENGTHS))
    lengths = [sign * length * shorter for sign in (-1, 1) for length in LENGTHS]
    rows = torch.arange(len(latents))
    moved = [change(rows, latents.at(latents.values + length * unit.to(latents.values))) for length in lengths]
    means = [float(one.mean()) for one in moved]
    errors = [float(one.std()) / math.sqrt(len(latents)) if len(latents) > 1 else math.inf for one in moved]
    return Curve(tuple(lengths), tuple(means), tuple(errors), len(latents))


def usable(curve: Curve) -> tuple[float, float, float]:
    """Slope of the change per length, and the lengths between which it holds: (slope, low, high).

    The slope is fitted through zero over moderate moves to both sides, up to two standard deviations. Where the sides differ by more than
    the tolerance allows (a closed mouth cannot close further), it is the slope of the side on which the attribute moves. The range ends
    where the mean change leaves the asked one by more than a quarter, beyond what the measurement's own error explains.
    """
    sides = {
        sign: [(abs(t), sign * y, e) for t, y, e in zip(curve.lengths, curve.changes, curve.errors, strict=True) if sign * t > 0]
        for sign in (-1, 1)
    }
    slopes = {sign: _slope(side) for sign, side in sides.items()}
    slope = _slope([*sides[-1], *sides[1]])
    if max(slopes.values()) <= 0 or slope <= 0:
        return slope, 0.0, 0.0
    if any(abs(one / slope - 1) > TOLERANCE for one in slopes.values()):
        slope = max(slopes.values())
    return slope, 0.0 - _end(sides[-1], slope), _end(sides[1], slope)


def _slope(side: Sequence[tuple[float, float, float]]) -> float:
    near = [(t, y) for t, y, _ in side if t <= MODERATE * max(t for t, _, _ in side)]
    return sum(t * y for t, y in near) / sum(t * t for t, _ in near)


def percentiles(values: Float[Tensor, " n"]) -> tuple[tuple[float, float], ...]:
    ranks = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
    return tuple((float(p), float(v)) for p, v in zip(PERCENTILES, torch.quantile(values.double(), ranks), strict=True))


def coordinates(latents: Latents, vector: Tensor) -> Float[Tensor, " n"]:
    """Where each latent stands along a direction, in units of the direction."""
    flat = vector.flatten().to(latents.values)
    return (latents.values.flatten(1) @ flat / flat.square().sum()).cpu()


def _end(side: list[tuple[float, float, float]], slope: float) -> float:
    """The length up to which the change stays near ``slope * length``; linear between the last good and first bad one."""
    good, last = 0.0, 0.0
    for length, change, error in sorted(side):
        excess = max(abs(change / (slope * length) - 1) - min(error / (slope * length), 0.1), 0)
        if excess > TOLERANCE:
            if good == 0:
                return 0.0
            return good + (length - good) * (TOLERANCE - last) / (excess - last)
        good, last = length, excess
    return good


def _by_knob(directions: Directions, measured_by: Sequence[Feature] | Mapping[str, Feature | Edit]) -> dict[str, Feature | Edit]:
    if isinstance(measured_by, Mapping):
        return {knob.name: measured_by[checks.known(knob.name, measured_by, "measure of a knob")] for knob in directions.knobs}
    owners = {name: feature for feature in measured_by for name in feature.columns}
    return {k.name: column(owners[checks.known(k.name, owners, "measured column")], k.name) for k in directions.knobs}


def _images_of(generator: Generator) -> Callable[[Latents], Tensor]:
    def images(latents: Latents) -> Tensor:
        with torch.no_grad():
            return generator(latents)

    return images


def _feature_change(generator: Generator, feature: Feature, start: Tensor, batch: int) -> Change:
    return lambda rows, moved: observe(generator, [feature], moved, batch=batch)[:, 0] - start[rows]


def _edit_change(images: Callable[[Latents], Tensor], edit: Edit, latents: Latents, batch: int) -> Change:
    def change(rows: Tensor, moved: Latents) -> Tensor:
        pairs = zip(in_batches(latents[rows], batch), in_batches(moved, batch), strict=True)
        return torch.cat([measured_edit(edit, images(before), images(after)).cpu() for before, after in pairs])

    return change


def _record(curve: Curve, slope: float, population: Tensor | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "change_per_deviation": slope,
        "lengths": list(curve.lengths),
        "changes": list(curve.changes),
        "errors": [error if math.isfinite(error) else None for error in curve.errors],
        "n": curve.n,
    }
    if population is not None:
        record |= {"mean": float(population.mean()), "deviation": float(population.std())}
    return record
