"""What a population says about measured columns: how widely each varies, its percentiles, and the line along which it grows.

A value is set along directions in which pictures really vary. One network's gradient at one latent also knows pixels that please that
network and nobody else; the regression of a column on many latents does not, because no single picture decides it.

Neighbours: ``solve`` steps along these lines; ``fitting.axes`` fits them with cross-validation, scores and units, as a control to keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks, progress
from steerable.controls.directions import Directions
from steerable.features.network import measure
from steerable.protocols import Feature, Generator, Latents

RANKS = (1, 5, 10, 25, 50, 75, 90, 95, 99)  # percentiles that a knob carries
STRENGTHS = torch.logspace(-3, 4, 29, dtype=torch.float64)  # of the ridge, in the mean variance of the latents' coordinates


@dataclass(frozen=True, eq=False)
class Census:
    """n latents of a seed and what was measured on their pictures.

    Attributes:
        latents: n of them, in the space that is steered in.
        values: (n, m); ``columns`` and ``units`` name them.
        starts: of each feature's columns, which stand side by side.
        gradients: of some columns, known already from axes; flattened.
        percentiles: of some columns, known from larger populations.
    """

    latents: Latents
    values: Float[Tensor, "n m"]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    starts: Mapping[str, int]
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    percentiles: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)

    places: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {name: i for i, name in reversed(list(enumerate(self.columns)))})

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> Float[Tensor, " n"]:
        return self.values[:, self.places[name if name in self.places else checks.known(name, self.columns, "column")]]

    def unit(self, name: str) -> str:
        return self.units[self.places[name]]

    def deviation(self, name: str) -> float:
        """One population deviation; 1 of a column that never varies."""
        spread = float(self.column(name).std())
        return spread if spread > 1e-9 else 1.0

    def spread(self, feature: Feature) -> float:
        """One deviation of a whole feature: root-mean-square over its columns."""
        spread = float(self.own(feature).std(0).square().mean().sqrt())
        return spread if spread > 1e-9 else 1.0

    def own(self, feature: Feature) -> Float[Tensor, "n m"]:
        """All columns of a feature."""
        start = self.starts[feature.name]
        return self.values[:, start : start + len(feature.columns)]

    def ranks(self, name: str) -> tuple[tuple[float, float], ...]:
        """``((1, -33.9), (5, ...), ...)`` as a knob carries them."""
        if self.percentiles.get(name):
            return self.percentiles[name]
        values = self.column(name).quantile(torch.tensor([rank / 100 for rank in RANKS]).to(self.values))
        return tuple((float(rank), float(value)) for rank, value in zip(RANKS, values, strict=True))

    def gradient(self, name: str) -> Float[Tensor, " d"]:
        """Change of a column for a small step, by regression: its values fall on no single picture's pixels.

        Raises:
            ValueError: a column that is the same for all latents.
        """
        if name in self.gradients:
            return self.gradients[name].to(self.values)
        values = self.column(name)
        if float(values.std()) <= 1e-9:
            raise ValueError(f'"{name}" is {float(values[0]):g} for all {len(values)} latents: nothing moves it. Leave it out.')
        return ridge(self.latents.values.flatten(1), values)


def census(
    generator: Generator,
    features: Sequence[Feature],
    space: str,
    *,
    n: int = 400,
    seed: int = 0,
    axes: Directions | None = None,
    batch: int = 32,
) -> Census:
    """Measure n latents of a seed; lines and percentiles of ``axes`` stand before those measured here.

    Raises:
        ValueError: a value that is not finite, or axes of another generator or space.
    """
    known: dict[str, Tensor] = {}
    ranks: dict[str, tuple[tuple[float, float], ...]] = {}
    if axes is not None:
        checks.same_generator(axes.space, generator.fingerprint, "this one", "these axes")
        if axes.space != generator.spaces[space]:
            raise ValueError(
                f"values are set in {generator.spaces[space]}, these axes live in {axes.space}: give space={axes.space.name!r}."
            )
        known = {
            knob.name: _scaled(gradient, vector) for knob, gradient, vector in zip(axes.knobs, axes.gradients, axes.vectors, strict=True)
        }
        ranks = {knob.name: knob.percentiles for knob in axes.knobs if knob.percentiles}
    latents = generator.sample(n, seed=seed, space=space)
    parts = []
    with torch.no_grad():
        for start in progress.track(range(0, n, batch), "measure a population"):
            found = measure(features, generator(latents[start : start + batch]))
            parts.append(torch.cat([found[feature.name].to(latents.values) for feature in features], dim=1))
    columns = tuple(name for feature in features for name in feature.columns)
    units = tuple(feature.unit for feature in features for _ in feature.columns)
    starts = dict(zip((one.name for one in features), accumulate((len(one.columns) for one in features), initial=0), strict=False))
    return Census(latents, checks.finite(torch.cat(parts), "this population"), columns, units, starts, known, ranks)


def ridge(x: Float[Tensor, "n d"], y: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
    """Gradient of the ridge regression whose strength generalised cross-validation chooses.

    Source: Golub, Heath & Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter", 1979, eq. 1.3.
    """
    rows, target = (x - x.mean(0)).double(), (y - y.mean()).double()
    left, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    share = sizes.square() / (sizes.square() + STRENGTHS.to(x.device)[:, None] * sizes.square().mean())  # (strengths, d)
    along = left.T @ target
    rest = target.square().sum() - along.square().sum() + ((1 - share) * along).square().sum(1)
    best = (rest / (len(x) - share.sum(1)).clamp(min=1).square()).argmin()
    return (right.T @ (share[best] * along / sizes.clamp(min=1e-12))).to(x.dtype)


def _scaled(gradient: Tensor, vector: Tensor) -> Tensor:
    """An axis's gradient, of such a length that one unit along its calibrated vector is one unit."""
    effect = (gradient * vector.flatten()).sum()
    return gradient / effect if float(effect.abs()) > 1e-9 else gradient
