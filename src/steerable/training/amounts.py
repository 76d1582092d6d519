"""The amounts of an edit that a training draws, and their range.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, A.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerable.edits import edit as named_edits
from steerable.protocols import Edit, Images, Knob


def reach(knob: Knob) -> float:
    """The far end of a knob's range: amounts are fractions of it in training, the paper's a_g."""
    return max(abs(knob.low), abs(knob.high))


def draw_amounts(knob: Knob, n: int, size: int, rng: torch.Generator) -> Float[Tensor, " n"]:
    """Amounts as the paper draws them (A.1), in the knob's unit: either side with the same probability where there are two.

    Magnifications: the scale of the crop is uniform, U(1/4, 1) or U(1, 4) for the range of two octaves. Shifts: whole pixels from 1 on.
    Angles: whole degrees from 1 on. Everything else is uniform over the side.
    """
    up = torch.rand(n, generator=rng) < 0.5 if knob.low < 0 < knob.high else torch.full((n,), knob.high > 0)
    end = torch.where(up, knob.high, -knob.low)  # how far that side goes
    u = torch.rand(n, generator=rng)
    if knob.unit == "log2":
        crop = torch.where(up, 1 - u * (1 - torch.exp2(-end)), 1 + u * (torch.exp2(end) - 1))
        return -crop.log2()
    grain = {"image widths": size, "image heights": size, "deg": 1}.get(knob.unit)
    if grain is not None:
        last = (end * grain).floor().clamp(min=1)
        u = ((u * last).floor() + 1) / grain / end
    return torch.where(up, 1.0, -1.0) * (u * end).minimum(end)


def ranged(edit: str | Edit | None, amounts: tuple[float, float] | None) -> Edit:
    """One edit by name, or the one given, with the amounts of the training as its range.

    Raises:
        ValueError: none, an unknown one, one that stands for several, or a range without 0.
    """
    if edit is None:
        raise ValueError("this way of training needs an edit: zoom, shift-x, rotate, ... Only a plain one has none.")
    if isinstance(edit, str):
        found = named_edits(edit)
        if len(found) != 1:
            raise ValueError(f"{edit} stands for {len(found)} edits: train one of {', '.join(one.knob.name for one in found)}.")
        edit = found[0]
    low, high = (edit.knob.low, edit.knob.high) if amounts is None else amounts
    if not low <= 0 <= high or low == high or not math.isfinite(high - low):
        raise ValueError(f"amounts of {edit.knob.name} go from low to high with 0 between ({edit.knob.unit}); got {low} to {high}.")
    return _Ranged(replace(edit.knob, low=float(low), high=float(high)), edit)


@dataclass(frozen=True)
class _Ranged:
    """An edit with another range."""

    knob: Knob
    edit: Edit

    def __call__(self, images: Images, amounts: Tensor) -> tuple[Images, Tensor]:
        return self.edit(images, amounts)
