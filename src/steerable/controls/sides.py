"""The two sides of a trajectory, what moves and what is held, as one function of latents.

Every feature is scaled by its population deviation, so that degrees can be moved and pixels held, and by the root of its share of the side,
so that the mean square over the columns of a side is the weighted mean of its features' own mean squares: a feature of many columns
weighs no more than one of few. ``growth`` and ``straight`` step on this function; ``trajectory`` asks for it.

A feature whose region depends on the picture (``Anchored``: the person, the hair) is anchored where a path begins: the region of the
first picture is what is held, not whatever the network takes for the person later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable import sensitivity
from steerable.features.network import feature as as_feature
from steerable.protocols import Feature, Generator, Images, Latents

LOOKED_AT = 32  # population images behind a deviation
FARAWAY = 256  # population latents behind the usual distance from the mean
ANCHORS = 4  # population images whose regions an anchored feature's deviation is averaged over


@runtime_checkable
class Anchored(Protocol):
    """A feature of a region that the picture itself decides; ``at`` freezes the regions of n pictures, which all have to show it."""

    def at(self, images: Images) -> Feature: ...

    def shown(self, images: Images) -> Bool[Tensor, " n"]: ...


@dataclass(frozen=True, eq=False)
class Population:
    """What is usual for a generator: the yardstick of a ledger.

    Attributes:
        deviations: of every feature, root-mean-square over its columns, in its own unit; 1 for one that never varies.
        centre: the mean latent.
        radius: distance from it that 99 of 100 latents keep.
    """

    deviations: tuple[float, ...]
    centre: Tensor
    radius: float


@dataclass(frozen=True, eq=False)
class Sides:
    """Row-wise function from latent values (n, *shape) to columns (n, m): the moved ones first, then the held.

    Attributes:
        latents: n of them, where the paths begin; rows of ``values`` belong to them in turn (row i to latent i mod n).
        move, hold: features, with the anchored ones at the latents.
        widths: columns of each feature, the moved ones first.
        scales: of each feature, from its unit to columns.
        weights: of each feature within its side.
    """

    generator: Generator
    latents: Latents
    move: tuple[Feature, ...]
    hold: tuple[Feature, ...]
    population: Population
    weights: tuple[float, ...]
    widths: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def features(self) -> tuple[Feature, ...]:
        return (*self.move, *self.hold)

    @property
    def width(self) -> int:
        """Columns of what moves."""
        return sum(self.widths[: len(self.move)])

    def rows(self, keep: Tensor) -> Sides:
        """Those that belong to some of the latents."""
        if len(keep) == len(self.latents):
            return self
        sides = (tuple(_kept(feature, keep) for feature in side) for side in (self.move, self.hold))
        return replace(self, latents=self.latents[keep], move=next(sides), hold=next(sides))

    def images(self, values: Tensor) -> Images:
        count, labels = len(values) // len(self.latents), self.latents.labels
        if labels is not None:
            labels = labels.repeat(count, *[1] * (labels.ndim - 1))
        return self.generator(Latents(values, self.latents.space, labels))

    def __call__(self, values: Tensor) -> Tensor:
        return self.read(self.images(values))

    def of(self, which: Sequence[int]) -> sensitivity.Generated:
        """Some of the features, scaled, as the local function that ``sensitivity`` differentiates the cheapest way it knows."""
        scales = tuple(self.scales[i] for i in which)
        return sensitivity.Generated(self.generator, tuple(self.features[i] for i in which), self.latents, scales)

    def measured(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            return self(values)

    def read(self, images: Images) -> Tensor:
        """The columns of images of these latents."""
        return torch.cat([scale * feature(images) for scale, feature in zip(self.scales, self.features, strict=True)], dim=1)

    def jacobian(self, values: Tensor) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m d"]]:
        """Columns and their derivatives. Narrow features are differentiated backwards, wide ones forwards, black boxes by differences."""
        parts: dict[int, Tensor] = {}
        for which in self.alike(values[0].numel()):
            made = sensitivity.jacobian(self.of(which), values)[1]
            parts |= dict(zip(which, made.split([self.widths[i] for i in which], dim=1), strict=True))
        return self.measured(values), torch.cat([parts[i] for i in range(len(self.features))], dim=1)

    def operator(self, values: Tensor) -> sensitivity.Operator:
        """All columns as products from both sides."""
        return sensitivity.operator(self.of(range(len(self.features))), values)

    def alike(self, d: int) -> list[list[int]]:
        """Places of the features whose derivatives are made the same way: wide ones, narrow ones, black boxes; no empty group."""
        smooth = [i for i, one in enumerate(self.features) if one.differentiable]
        wide = [i for i in smooth if 2 * self.widths[i] >= d]
        groups = (wide, [i for i in smooth if i not in wide], [i for i in range(len(self.features)) if i not in smooth])
        return [group for group in groups if group]

    def deviations(self, change: Tensor) -> Float[Tensor, "... f"]:
        """Root-mean-square change of each feature, in deviations, from a change of the columns (..., m)."""
        own = [scale * deviation for scale, deviation in zip(self.scales, self.population.deviations, strict=True)]
        parts = change.split(self.widths, dim=-1)
        return torch.stack([part.square().mean(-1).sqrt() / share for part, share in zip(parts, own, strict=True)], -1)

    def plausible(self, values: Tensor, farthest: float) -> Tensor:
        """The latents, drawn back to ``farthest`` usual distances from the mean latent; a start that is farther may stay there."""
        space, centre = self.latents.space, self.population.centre
        values = space.normalised(values.flatten(0, values.ndim - 1 - len(space.shape))).view_as(values) if space.spheres else values
        away, begun = (_length(one - centre, len(space.shape)) for one in (values, self.latents.values))
        limit = begun.clamp(min=farthest * self.population.radius)  # (n, 1...)
        return torch.where(away > limit, centre + (values - centre) * (limit / away.clamp(min=1e-12)), values)


def sides_of(
    generator: Generator,
    latents: Latents,
    move: Sequence[Feature],
    hold: Sequence[Feature],
    weights: Sequence[float],
    population: Population,
) -> Sides:
    """Both sides around the latents: widths are measured, anchored features take the regions of these pictures."""
    with torch.no_grad():
        images = generator(latents)
        move, hold = (tuple(one.at(images) if isinstance(one, Anchored) else one for one in side) for side in (move, hold))
        widths = tuple(feature(images).shape[1] for feature in (*move, *hold))
    shares: list[float] = []
    for side, wide, heavy in ((move, widths[: len(move)], weights[: len(move)]), (hold, widths[len(move) :], weights[len(move) :])):
        shares += [(sum(wide) * w / (sum(heavy) * m)) ** 0.5 for _, m, w in zip(side, wide, heavy, strict=True)]
    scales = tuple(share / deviation for share, deviation in zip(shares, population.deviations, strict=True))
    return Sides(generator, latents, move, hold, population, tuple(weights), widths, scales)


def missing(generator: Generator, latents: Latents, features: Sequence[Feature]) -> dict[int, str]:
    """Rows whose picture does not show a region that is moved or held, each with the first such feature: a bald head has no hair."""
    anchored = [one for one in features if isinstance(one, Anchored)]
    found: dict[int, str] = {}
    if anchored:
        with torch.no_grad():
            images = generator(latents)
        for one in anchored:
            for row in (~one.shown(images)).nonzero()[:, 0].tolist():
                found.setdefault(row, one.name)
    return found


def population_of(generator: Generator, features: Sequence[Feature], space: str) -> Population:
    """Deviations of the features over 32 latents of seed 0, and how far latents usually are from the mean one.

    Raises:
        ValueError: a feature of another shape than it promises, one that is not the same at a second call, or not finite.
    """
    with torch.no_grad():
        latents = generator.sample(LOOKED_AT, seed=0, space=space)
        images = generator(latents)
        again = generator(latents[:2])
        if not torch.allclose(images[:2], again, rtol=1e-3, atol=1e-3):
            raise ValueError(
                "the generator gives two different images for one latent: fix its noise, .configured(noise='const') or the like."
            )
        deviations = tuple(_deviation(feature, images) for feature in features)
        many = generator.sample(FARAWAY, seed=0, space=space).values
        centre = many.mean(0)
        with suppress(ValueError, TypeError):  # a space that has no truncation
            centre = generator.sample(1, seed=0, space=space, psi=0.0).values[0]
        away = _length(many - centre, centre.ndim).flatten()
    return Population(deviations, centre, float(away.quantile(0.99)))


def listed(given: Any, side: str, generator: Generator) -> tuple[tuple[Feature, ...], tuple[float, ...]]:
    """The features and the weights of one side: a feature, a (feature, weight), any callable, or a sequence of these.

    Raises:
        ValueError: nothing given, or a weight that is not above 0.
        TypeError: something that is no feature and cannot be called.
    """
    pair = isinstance(given, Sequence) and len(given) == 2 and isinstance(given[1], int | float)
    items = list(given) if isinstance(given, Sequence) and not pair and not isinstance(given, str) else [given]
    if not items:
        raise ValueError(f"a trajectory needs something to {side}: give at least one feature.")
    features, weights = [], []
    for item in items:
        one, weight = item if isinstance(item, tuple) else (item, 1.0)
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of a feature is a number above 0, got {weight}.")
        features.append(one if isinstance(one, Feature) else _wrapped(one, side, generator))
        weights.append(float(weight))
    return tuple(features), tuple(weights)


def _wrapped(measurement: Any, side: str, generator: Generator) -> Feature:
    if isinstance(measurement, str) or not callable(measurement):
        raise TypeError(
            f"what a trajectory should {side} is a feature or a callable, images -> numbers; got {measurement!r}. "
            'By name: load_feature("pose").'
        )
    with torch.no_grad():
        probe = generator(generator.sample(2, seed=0))
    name = getattr(measurement, "__name__", type(measurement).__name__).strip("<>")
    found = measurement(probe)
    shape = tuple(getattr(found, "shape", ()))
    width = int(shape[1]) if len(shape) > 1 else 1
    columns = [name] if width == 1 else [f"{name}-{i}" for i in range(width)]
    images = probe.clone().requires_grad_()
    with torch.enable_grad():
        result = measurement(images) if isinstance(found, Tensor) else None
    return as_feature(measurement, name=name, columns=columns, differentiable=isinstance(result, Tensor) and result.requires_grad)


def _deviation(feature: Feature, images: Images) -> float:
    views: list[Feature] = [feature]
    if isinstance(feature, Anchored):
        clear = feature.shown(images).nonzero()[:, 0].tolist()[:ANCHORS]
        if not clear:
            raise ValueError(f"none of {len(images)} pictures of this generator shows {feature.name}: move or hold something else.")
        views = [feature.at(images[i : i + 1]) for i in clear]
    squares = []
    for view in views:
        values, again = view(images), view(images[:2])
        if values.ndim != 2 or values.shape != (len(images), len(feature.columns)):
            promised = (len(images), len(feature.columns))
            raise ValueError(f'"{feature.name}" promises (images, columns) = {promised}, got {tuple(values.shape)}: correct its columns.')
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise ValueError(f'"{feature.name}": {bad} of {values.numel()} numbers on unsteered images are NaN or infinite: leave it out.')
        apart, size = float((values[:2] - again).abs().max()), float(values.abs().max())
        if apart > 1e-3 * size + 1e-6:
            raise ValueError(
                f'"{feature.name}" is not deterministic: two calls on one image differ by {apart:.3g}. Fix its randomness, or leave it out.'
            )
        squares.append(float(values.std(0).square().mean()))
    spread = (sum(squares) / len(squares)) ** 0.5
    return spread if spread > 1e-9 else 1.0


def _kept(feature: Feature, keep: Tensor) -> Feature:
    rows: Callable[[Tensor], Feature] | None = getattr(feature, "rows", None)
    return feature if rows is None else rows(keep)


def _length(values: Tensor, dimensions: int) -> Tensor:
    """Norm over the last dimensions, which stay with size 1."""
    return values.square().sum(tuple(range(-dimensions, 0)), keepdim=True).sqrt()
