"""What a person asks for, as numbers and features: 20, "p90", one value a picture; "yaw", "identity", a feature of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.features import ready
from steerable.features.network import column
from steerable.protocols import Feature, Knob


def number(value: Any, knob: Knob) -> float:
    """A value of a knob: a finite number in its unit, or a percentile of the population, "p90".

    Raises:
        ValueError: anything else.
    """
    rank = rank_of(value, knob)
    if rank is not None:
        return knob.value_at(rank)
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if isinstance(value, bool) or found - found != 0:
        raise ValueError(_kind(knob, value))
    return found


def rank_of(value: Any, knob: Knob) -> float | None:
    """90 of "p90"; None of what is no percentile."""
    text = value.strip().lower() if isinstance(value, str) else ""
    if not text.startswith("p"):
        return None
    try:
        rank = float(text[1:])
    except ValueError:
        raise ValueError(_kind(knob, value)) from None
    if not 0 <= rank <= 100:
        raise ValueError(f"{knob.name}: a percentile is p0 to p100, got {value}.")
    return rank


def numbers(value: Any, knob: Knob) -> Float[Tensor, " n"]:
    """One value, or one a picture: (1,) or (n,)."""
    return torch.tensor([number(one, knob) for one in each(value, knob)])


def each(value: Any, knob: Knob) -> list[Any]:
    """The values asked for one by one, each of a kind that can be set: what can be refused before anything is measured.

    Raises:
        ValueError: none at all, or one that is neither a finite number nor a percentile.
    """
    many = isinstance(value, list | tuple) or (hasattr(value, "shape") and len(value.shape) > 0)
    given = list(value) if many else [value]
    if not given:
        raise ValueError(f"{knob.name} got an empty list of values: give one, or one a picture.")
    for one in given:
        if rank_of(one, knob) is None:
            number(one, knob)
    return given


def _kind(knob: Knob, value: Any) -> str:
    shown = f'"{value}"' if isinstance(value, str) else str(value)[:40]
    return f"{knob.name} is set to a finite number of {knob.unit or 'its unit'}, or to a percentile like p90; got {shown}."


def named(name: str, given: Sequence[Feature], device: str = "cpu") -> Feature:
    """The feature of a name, or its one column of that name: of those given, or else of the ready ones, on the device.

    Raises:
        ValueError: neither has it; the error has the nearest known one.
    """
    found = _among(name, given)
    if found is not None:
        return found
    if name in ready.HOLDS:
        return ready.load_feature(name, device=device)
    for ready_name in ready.feature_names()["all"]:  # one after the other: the first ones need no network
        one = _among(name, [ready.load_feature(ready_name, device=device)])
        if one is not None:
            return one
    known = {text for one in (*given, *ready.load_features(device=device)) for text in (one.name, *one.columns)}
    checks.known(name, {*known, *ready.HOLDS}, "feature or column")
    raise AssertionError("checks.known has refused the name")


def _among(name: str, given: Sequence[Feature]) -> Feature | None:
    for one in given:
        if one.name == name:
            return one
    return next((column(one, name) for one in given if name in one.columns), None)


def as_one(name: str, feature: Feature) -> Feature:
    """The column that a value can be set of.

    Raises:
        ValueError: a feature of several columns.
    """
    if len(feature.columns) == 1:
        return column(feature, feature.columns[0])
    some = ", ".join(feature.columns[:6])
    raise ValueError(f'"{name}" has the columns {some}{", …" if len(feature.columns) > 6 else ""}: set one of them.')


def mapping(given: Any) -> Mapping[str, Any]:
    """``set=`` as it has to be: names and values."""
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f'set names what is set and to what value, set={{"yaw": 20}}; got {given!r}.')
    return given
