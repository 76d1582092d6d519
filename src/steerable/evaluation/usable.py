"""The usable range that limits imply, by one rule, and what ends it; written into the knob and kept with the control.

Source of the two ends: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, section 4.1: "the
operation either does not transform the image any further, or the image becomes unrealistic".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerable import checks

LAST, IMPLAUSIBLE, STILLED = "last amount measured", "kernel distance", "no further effect"  # what ends a side
LOST, NOTHING, UNMEASURED = "attribute not found", "no effect", "not measured"
STILL = 0.25  # of the quickest rate so far: an attribute that moves more slowly has come to its end


@dataclass(frozen=True)
class Usable:
    """A range, and what ends it on either side, in words."""

    low: float
    high: float
    low_ends: str
    high_ends: str


def usable_range(
    amounts: Sequence[float],
    values: Float[Tensor, "a n"],
    distances: Sequence[float],
    *,
    threshold: float,
    neutral: float = 0.0,
) -> Usable:
    """The range that measurements at some amounts imply.

    From the neutral amount outwards, a side ends

    - where the kernel distance crosses the threshold, on the line between the two amounts around it;
    - at the last amount whose step still moved the attribute: the mean of what it changed, per unit, at least a quarter of the quickest
      rate so far, give or take two standard errors;
    - before the amount at which the attribute is found in less than half of the images in which it was found unsteered;
    - else at the last amount measured. A side on which the attribute never moved by two standard errors is not usable at all.

    Args:
        amounts: ascending, the neutral one among them.
        values: of the attribute, one an image; NaN where it was not found.
        distances: kernel distances to unsteered images.
    """
    start = min(range(len(amounts)), key=lambda i: abs(amounts[i] - neutral))
    sides = (range(start, -1, -1), range(start, len(amounts)))
    (low, low_ends), (high, high_ends) = (_side(amounts, values, distances, list(side), threshold, neutral) for side in sides)
    return Usable(min(low, neutral), max(high, neutral), low_ends, high_ends)


def _side(
    amounts: Sequence[float], values: Tensor, distances: Sequence[float], places: Sequence[int], threshold: float, neutral: float
) -> tuple[float, str]:
    if len(places) < 2:
        return neutral, UNMEASURED
    found = (~values.isnan()).sum(1).tolist()
    quickest, direction, moved = 0.0, 0.0, False
    for before, here in pairwise(places):
        if 2 * found[here] < found[places[0]]:
            return (amounts[before], LOST) if moved else (neutral, NOTHING)
        rate, error = _mean_and_error((values[here] - values[before]) / abs(amounts[here] - amounts[before]))
        if not moved and abs(rate) > 2 * error:
            moved, direction = True, 1.0 if rate > 0 else -1.0
        if moved and direction * rate + 2 * error < STILL * quickest:
            return amounts[before], STILLED
        quickest = max(quickest, direction * rate)
        if distances[here] > threshold:
            share = (threshold - distances[before]) / (distances[here] - distances[before])
            crossing = amounts[before] + min(max(share, 0.0), 1.0) * (amounts[here] - amounts[before])
            return (crossing, IMPLAUSIBLE) if moved else (neutral, NOTHING)
    return (amounts[places[-1]], LAST) if moved else (neutral, NOTHING)


def _mean_and_error(values: Float[Tensor, " n"]) -> tuple[float, float]:
    there = values[~values.isnan()].double()
    return (float(there.mean()), float(there.std()) / len(there) ** 0.5) if len(there) > 1 else (0.0, 0.0)


def with_range(control: Any, name: str, found: Usable, record: Mapping[str, Any]) -> Any:
    """The control with a range in one knob, and ``record`` under ``fit["limits"]``; it is saved like any other.

    Raises:
        ValueError: a knob that the control does not have.
        TypeError: a control whose knobs cannot be replaced: one of your own that is no dataclass with a field ``knobs``.
    """
    checks.known(name, [knob.name for knob in control.knobs], "knob")
    changed = _with_range(control, name, found)
    if "fit" in {field.name for field in fields(changed)}:
        ends = {"low_ends": found.low_ends, "high_ends": found.high_ends, "range_before": list(range_before(control, name))}
        kept = {**dict(changed.fit).get("limits", {}), name: {**ends, **record}}
        changed = replace(changed, fit={**changed.fit, "limits": kept})
    return changed


def range_before(control: Any, name: str) -> tuple[float, float]:
    """The range that a knob had before limits were first written into it; the one that it has, where none were."""
    written = dict(getattr(control, "fit", {})).get("limits", {}).get(name)
    if written:
        low, high = written["range_before"]
        return float(low), float(high)
    return next((knob.low, knob.high) for knob in control.knobs if knob.name == name)


def _with_range(control: Any, name: str, found: Usable) -> Any:
    named = {field.name for field in fields(control)} if hasattr(control, "__dataclass_fields__") else set()
    if "parts" in named:
        parts = [_with_range(part, name, found) if name in {knob.name for knob in part.knobs} else part for part in control.parts]
        return replace(control, parts=tuple(parts))
    if "knobs" not in named:
        raise TypeError(f"the range of a {type(control).__name__} cannot be written: it is no dataclass with a field knobs.")
    knobs = tuple(replace(knob, low=found.low, high=found.high) if knob.name == name else knob for knob in control.knobs)
    return replace(control, knobs=knobs)
