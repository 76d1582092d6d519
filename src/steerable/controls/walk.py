"""Curved control: a learned step, followed.

One step imitates an edit by a small amount, ``values + NN(values)`` with a network of two layers; a larger amount is so many steps, the
last one a fraction. There is one network for each sign, and the same one at every step, so that its direction depends on where the
latent is and not on how far it came. In z, whose length a generator was trained with, every step keeps it.

Neighbours: ``directions`` goes straight, ``trajectory`` works its direction out anew instead of having learned it. ``fitting.curved``
learns the steps. Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, eq. 2 and A.4;
the fraction is ours: the paper walks whole steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.protocols import Amounts, Knob, Latents, LatentSpace

FURTHEST = 1000  # steps; more are a slip of the unit


@dataclass(frozen=True, eq=False)
class Step:
    """``Dense(d) + ReLU, Dense(d)``; a space with layers (w+) has a network for each of its rows.

    Attributes:
        inner, outer: (rows, d, d) matrices of the first and the second layer, applied as ``x @ matrix``.
        inner_bias, outer_bias: (rows, d).
    """

    inner: Float[Tensor, "r d d"]
    inner_bias: Float[Tensor, "r d"]
    outer: Float[Tensor, "r d d"]
    outer_bias: Float[Tensor, "r d"]

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            checks.finite(tensor.detach(), f"{name} of this step")

    def __call__(self, x: Float[Tensor, "n r d"]) -> Float[Tensor, "n r d"]:
        inside = torch.relu(torch.einsum("nri,rij->nrj", x, self.inner.to(x)) + self.inner_bias.to(x))
        return torch.einsum("nri,rij->nrj", inside, self.outer.to(x)) + self.outer_bias.to(x)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"inner": self.inner, "inner_bias": self.inner_bias, "outer": self.outer, "outer_bias": self.outer_bias}


def rows_of(space: LatentSpace) -> tuple[int, int]:
    """How a step sees a latent: (rows, d)."""
    rows = space.shape[0] if len(space.layers) == space.shape[0] and len(space.shape) > 1 else 1
    return rows, math.prod(space.shape) // rows


@dataclass(frozen=True, eq=False)
class Walk:
    """One curved knob.

    Attributes:
        knobs: one.
        space: where the latents live that it moves.
        behind, ahead: the steps of negative and of positive amounts.
        strides: amounts of one step to either side, both above 0, in the knob's unit.
        fit: how it was found. JSON only; saved with the control.
    """

    knobs: tuple[Knob, ...]
    space: LatentSpace
    behind: Step
    ahead: Step
    strides: tuple[float, float]
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.knobs) != 1 or self.knobs[0].neutral is None:
            raise ValueError(f"a curved walk has one knob with a neutral amount, got {len(self.knobs)}. Several walks are a Chain.")
        if not all(stride > 0 and math.isfinite(stride) for stride in self.strides):
            raise ValueError(f"the strides of a walk are two amounts above 0, got {self.strides}.")
        rows, d = rows_of(self.space)
        for side, step in (("behind", self.behind), ("ahead", self.ahead)):
            for name, tensor in step.tensors.items():
                expected = (rows, d) if name.endswith("bias") else (rows, d, d)
                if tuple(tensor.shape) != expected:
                    raise ValueError(f"{side}.{name} of a walk in {self.space} is {expected}, got {tuple(tensor.shape)}.")

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """Follow the steps to each latent's own amount.

        Args:
            latents: n of them, in this control's space.
            amounts: (n, 1) in the knob's unit. Beyond its range more steps are taken.

        Returns:
            n new latents with the same labels; neutral amounts return the same values.

        Raises:
            ValueError: latents of another space or generator; an amount of more than 1,000 steps.
        """
        checks.lives_in(latents, self.space, "this control")
        checks.amounts(amounts, len(latents), self.knobs)
        asked = amounts[:, 0].to(latents.values) - (self.knobs[0].neutral or 0.0)
        longest = self._steps(asked.detach())
        if longest > FURTHEST:
            raise ValueError(
                f'"{self.knobs[0].name}" by {float(asked.detach().abs().max()):g} {self.knobs[0].unit} is {longest:.0f} steps, '
                f"at most {FURTHEST} are walked: its range is {self.knobs[0].low:g} to {self.knobs[0].high:g}."
            )
        return latents.at(self.followed(latents.values, asked, math.ceil(longest)))

    def _steps(self, asked: Float[Tensor, " n"]) -> float:
        """The longest way of any row, in steps."""
        return float(torch.stack([-asked / self.strides[0], asked / self.strides[1]]).amax()) if len(asked) else 0.0

    def followed(self, values: Tensor, asked: Float[Tensor, " n"], steps: int) -> Tensor:
        """``steps`` steps, of which each row takes as many as its amount has, and a fraction of one."""
        rows, d = rows_of(self.space)
        start = values.reshape(len(values), rows, d)
        for sign, stride, step in ((-1, self.strides[0], self.behind), (1, self.strides[1], self.ahead)):
            left = sign * asked / stride  # in steps
            if steps and bool((left > 0).any()):
                start = self._one_side(start, left, steps, step)
        return start.view_as(values)

    def _one_side(self, start: Tensor, left: Tensor, steps: int, step: Step) -> Tensor:
        x = start
        for number in range(steps):
            fraction = (left - number).clamp(0, 1)[:, None, None]
            x = torch.where(fraction > 0, self._kept(x + fraction * step(x), start), x)
        return x

    def _kept(self, x: Tensor, start: Tensor) -> Tensor:
        """The length of the start, where the space is one whose points have a length: z, and spheres."""
        if self.space.spheres:
            spans = [(a, b) for _, a, b in self.space.spheres]
        elif self.space.name == "z":
            spans = [(0, x.shape[2])]
        else:
            return x
        parts, last = [], 0
        for a, b in spans:
            share = start[..., a:b].norm(dim=(1, 2), keepdim=True) / x[..., a:b].norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
            parts += [x[..., last:a], x[..., a:b] * share]
            last = b
        return torch.cat([*parts, x[..., last:]], 2)

    def __getitem__(self, names: str | Sequence[str]) -> Walk:
        """Itself, by the name of its knob: as ``Directions`` are asked."""
        for name in [names] if isinstance(names, str) else names:
            checks.known(name, [self.knobs[0].name], "knob")
        return self
