"""Calibration: one unit of amount becomes one unit of measured change, on average, on latents that nothing was fitted on.

A direction is followed to several lengths on both sides; the change is measured by the feature of the knob's name, or, for a
walk, by reading the edit's amount back from the images. Its slope rescales the direction, and how far it stays near that slope is
the knob's usable range. A curved walk has a network for each sign, so each sign has its own slope: it rescales the amount that one
step is. A chain is calibrated part by part, each turned alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerable import checks, progress
from steerable.controls.chain import Chain
from steerable.controls.directions import Directions
from steerable.controls.walk import Walk
from steerable.edits import measured_edit
from steerable.features.network import column
from steerable.protocols import Edit, Feature, Generator, Latents
from steerable.sampling import in_batches, observe

LENGTHS = (1.0, 2.0, 3.5)  # of the move, in standard deviations of the latents
MODERATE = 0.6  # of the longest move: up to here the slope is fitted
TOLERANCE = 0.25  # a mean change within 25 % of what was asked is still usable
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
Change = Callable[[Int[Tensor, " r"], Latents], Float[Tensor, " r"]]
Calibrated = TypeVar("Calibrated", Directions, Walk, Chain)


@dataclass(frozen=True)
class Curve:
    """Mean measured change against the length of the move."""

    lengths: tuple[float, ...]
    changes: tuple[float, ...]
    errors: tuple[float, ...]
    n: int


def calibrate(
    generator: Generator,
    control: Calibrated,
    measured_by: Sequence[Feature] | Mapping[str, Feature | Edit],
    *,
    n: int = 96,
    seed: int = 1,
    latents: Latents | None = None,
    batch: int = 32,
) -> Calibrated:
    """Rescale every knob to the unit that is measured, and write range and percentiles into it.

    Args:
        control: directions, a curved walk, or a chain of such.
        measured_by: features with a column of each knob's name, or a mapping from knobs to what measures them: a feature with
            one column, or the edit that a walk imitates.
        n, seed: of the latents; take a seed that was not fitted on.
        latents: calibrate on these instead.

    Returns:
        The same control: directions with new lengths, walks with new strides. A knob whose measured change has the wrong sign or
        none keeps its unit and gets the range 0 to 0 (a curved one on that side): it does not do what its name says. A curved walk
        that an edit measures gets no percentiles: an unsteered image has no amount of an edit.

    Raises:
        ValueError: a knob that nothing measures, a curved walk without a range to follow.
        TypeError: another kind of control.
    """
    if not isinstance(control, Directions | Walk | Chain):
        raise TypeError(f"directions, curved walks and chains of them are calibrated, got {type(control).__name__}.")
    latents = generator.sample(n, seed=seed, space=control.space.name) if latents is None else latents
    if isinstance(control, Chain):
        features = _by_knob(control, measured_by)
        parts = cast(Sequence[Any], control.parts)  # each is refused there if it is none of the three
        return replace(control, parts=tuple(calibrate(generator, part, features, latents=latents, batch=batch) for part in parts))
    before = _images_of(generator)
    changes: dict[str, Change] = {}
    populations: dict[str, Tensor] = {}
    limits: dict[str, float] = {}
    for name, measure in _by_knob(control, measured_by).items():
        if hasattr(measure, "knob"):
            changes[name] = _edit_change(before, measure, latents, batch)  # type: ignore[arg-type]
            limits[name] = max(abs(measure.knob.low), abs(measure.knob.high))  # type: ignore[union-attr]
        else:
            start = observe(generator, [measure], latents, batch=batch)[:, 0]  # type: ignore[list-item]
            changes[name] = _feature_change(generator, measure, start, batch)  # type: ignore[arg-type]
            populations[name] = start
    if isinstance(control, Walk):
        return restrided(control, changes[control.knobs[0].name], latents, populations.get(control.knobs[0].name))
    return rescaled(control, changes, latents, populations, limits)


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
    spread = latents.values.flatten(1).std(0).mean() if len(latents) > 1 else latents.values.new_ones(())
    for knob, vector in progress.track(list(zip(directions.knobs, directions.vectors, strict=True)), "calibrate"):
        vector = vector.to(latents.values)  # axes are solved for on the CPU, wherever the pictures are
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
        values = populations.get(knob.name, coordinates(latents, vectors[-1]).cpu())
        knobs.append(replace(calibrated, percentiles=percentiles(values)))
        before = float(vector.norm() / spread)  # deviations that one unit was until now
        records[knob.name] = _record(curve, slope, populations.get(knob.name)) | {"change_per_unit": [slope * before] * 2}
    fit = {**directions.fit, "calibration": records}
    return replace(directions, knobs=tuple(knobs), vectors=torch.stack(vectors).to(directions.vectors), fit=fit)


def restrided(walk: Walk, change: Change, latents: Latents, population: Tensor | None = None) -> Walk:
    """``calibrate`` for a curved walk: followed to shares of its own range, each side to its own slope.

    ``strides`` are amounts a step, so a side that does half of what it is asked gets half the stride, and twice as many steps.
    """
    knob = walk.knobs[0]
    neutral, ends = knob.neutral or 0.0, {-1: (knob.neutral or 0.0) - knob.low, 1: knob.high - (knob.neutral or 0.0)}
    shares = [length / max(LENGTHS) for length in LENGTHS]
    asked = [sign * share * end for sign, end in ends.items() for share in shares if end > 0]
    if not asked:
        raise ValueError(f'"{knob.name}" has the range {knob.low:g} to {knob.high:g}: there is nothing to follow. Fit the walk again.')
    rows, means, errors = torch.arange(len(latents)), [], []
    for amount in progress.track(asked, "calibrate"):
        moved = change(rows, walk.steer(latents, latents.values.new_full((len(latents), 1), neutral + amount)))
        means.append(float(moved.mean()))
        errors.append(float(moved.std()) / math.sqrt(len(latents)) if len(latents) > 1 else math.inf)
    curve = Curve(tuple(asked), tuple(means), tuple(errors), len(latents))
    slopes, reach = {}, {}
    for sign in ends:
        side = _side(curve, sign)
        slopes[sign] = _slope(side) if side else 0.0
        reach[sign] = slopes[sign] * _end(side, slopes[sign]) if slopes[sign] > 0 else 0.0
    new = replace(
        knob,
        low=neutral - reach[-1],
        high=neutral + reach[1],
        percentiles=() if population is None else percentiles(population),
    )
    behind, ahead = (stride * (slopes[sign] if slopes[sign] > 0 else 1.0) for stride, sign in zip(walk.strides, (-1, 1), strict=True))
    record = _record(curve, slopes[1], population) | {"change_per_unit": [slopes[-1], slopes[1]]}
    del record["change_per_deviation"]
    fit = {**walk.fit, "calibration": {knob.name: record}}
    return replace(walk, knobs=(new,), strides=(behind, ahead), fit=fit)


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
    sides = {sign: _side(curve, sign) for sign in (-1, 1)}
    slopes = {sign: _slope(side) for sign, side in sides.items()}
    slope = _slope([*sides[-1], *sides[1]])
    if max(slopes.values()) <= 0 or slope <= 0:
        return slope, 0.0, 0.0
    if any(abs(one / slope - 1) > TOLERANCE for one in slopes.values()):
        slope = max(slopes.values())
    return slope, 0.0 - _end(sides[-1], slope), _end(sides[1], slope)


def _side(curve: Curve, sign: int) -> list[tuple[float, float, float]]:
    """(length, change, error) of the moves to one side, as if it were the positive one."""
    return [(abs(t), sign * y, e) for t, y, e in zip(curve.lengths, curve.changes, curve.errors, strict=True) if sign * t > 0]


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


def _by_knob(
    control: Directions | Walk | Chain, measured_by: Sequence[Feature] | Mapping[str, Feature | Edit]
) -> dict[str, Feature | Edit]:
    if isinstance(measured_by, Mapping):
        return {knob.name: measured_by[checks.known(knob.name, measured_by, "measure of a knob")] for knob in control.knobs}
    owners = {name: feature for feature in measured_by for name in feature.columns}
    return {k.name: column(owners[checks.known(k.name, owners, "measured column")], k.name) for k in control.knobs}


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
