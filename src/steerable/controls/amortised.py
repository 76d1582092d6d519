"""Values set in one pass: a small network from a latent and the wanted values to the offset that a search would have found.

    offset = U' (A x + E(x)),   x = [z, y]        U: the few directions that the solutions lie in

``fitting.amortised`` makes one of solutions of ``solve``; how far it falls behind the search, on latents that neither was fitted on, is
in ``errors`` and travels with the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.controls.groups import Layers, layered
from steerable.protocols import Amounts, Knob, Latents, LatentSpace


@dataclass(frozen=True, eq=False)
class Controller:
    """A control whose amounts are the values themselves, without a search.

    Attributes:
        knobs: k of them, neutral None; their range is that of the values that it was fitted on.
        space: of the latents.
        basis: (r, d) directions that the offsets lie in.
        straight: (r, d + k + 1) the linear part A, its last column constant.
        layers: E, weights and biases from d + k numbers to r, SiLU between them.
        centre, spread: (d + k,) that latents and values are normalised by.
        fit: how it was fitted; JSON only, saved with the control. ``fit["errors"]`` has a row for each knob: mean absolute error in its
            unit on held-out latents, its standard error, the 90th percentile, the second network's, and the search's own.
    """

    knobs: tuple[Knob, ...]
    space: LatentSpace
    basis: Float[Tensor, "r d"]
    straight: Float[Tensor, "r j"]
    layers: Layers
    centre: Float[Tensor, " i"]
    spread: Float[Tensor, " i"]
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs = self.space_size + len(self.knobs)
        if self.basis.shape[1] != self.space_size or len(self.centre) != inputs or self.layers[0].shape[1] != inputs:
            raise ValueError(
                f"a controller of {len(self.knobs)} values in {self.space} takes {inputs} numbers, "
                f"its layers take {self.layers[0].shape[1]}."
            )

    @property
    def space_size(self) -> int:
        return torch.Size(self.space.shape).numel()

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """One pass, no image.

        Args:
            latents: n of them, in this control's space.
            amounts: (n, k) values in the knobs' units. Beyond a knob's range the network extrapolates, and ``errors`` says nothing.

        Raises:
            ValueError: latents of another space or generator, or values that are not finite.
        """
        checks.lives_in(latents, self.space, "this controller")
        wanted = checks.amounts(amounts, len(latents), self.knobs)
        values = latents.values.flatten(1)
        seen = (torch.cat([values, wanted.to(values)], 1) - self.centre.to(values)) / self.spread.to(values)
        places = along(self.straight.to(values), seen) + layered(tuple(layer.to(values) for layer in self.layers), seen)
        offset = places @ self.basis.to(values)
        return latents.at(self.space.normalised((values + offset).view_as(latents.values)))

    @property
    def errors(self) -> Mapping[str, Mapping[str, float]]:
        """By knob: mean, standard error and 90th percentile of the absolute error on held-out latents; empty where not measured."""
        return self.fit.get("errors", {})

    def said(self) -> list[str]:
        """One line a knob: ``yaw: off by 2.1 ± 0.2 deg (the search: 0.4), n 64 held-out latents``."""
        lines = []
        for knob in self.knobs:
            row = self.errors.get(knob.name)
            if row:
                unit = f" {knob.unit}" if knob.unit else ""
                lines.append(
                    f"{knob.name}: off by {row['mean']:.2g} ± {row['standard error']:.1g}{unit} (the search: {row['search']:.2g}), "
                    f"n {row['n']:g} held-out latents"
                )
        return lines


def along(straight: Float[Tensor, "r j"], seen: Float[Tensor, "n i"]) -> Float[Tensor, "n r"]:
    """The linear part."""
    return seen @ straight[:, :-1].T + straight[:, -1]
