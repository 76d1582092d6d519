"""Which part of a latent decides a measurement: the share of its spread that remains while one group varies and all others are held.

    share(f, k) = sd of f while z_k alone is drawn anew, others fixed   /   sd of f over the population

1 in a row's own column and 0 elsewhere is what training with groups is for. A wide feature (an embedding) has the root of the sum of its
columns' variances, each column divided by its own spread unless the feature compares by cosine. Judge by other networks than those of the
training. ``precision`` says how well values are met.

Source: Deng et al., "Disentangled and controllable face image generation via 3D imitative-contrastive learning", CVPR 2020, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import progress
from steerable.protocols import Feature, Generator, Latents, home
from steerable.sampling import observe

Vary = Callable[[Latents, str, int], Latents]  # latents with one group drawn anew from a seed


@dataclass(frozen=True, eq=False)
class Shares:
    """How much of each feature's spread each group makes.

    Attributes:
        features, groups: names of the rows and of the columns.
        values: one for each feature and group.
        held, each: so many latents were held, each with so many draws of one group.
        seed: of the latents.
    """

    features: tuple[str, ...]
    groups: tuple[str, ...]
    values: Float[Tensor, "f g"]
    held: int
    each: int
    seed: int

    def own(self, feature: str) -> float:
        """The share of the group of the feature's own name."""
        return float(self.values[self.features.index(feature), self.groups.index(feature)])

    def largest_other(self, feature: str) -> tuple[str, float]:
        """The other group with the largest share."""
        row = self.values[self.features.index(feature)]
        found = [(float(row[i]), name) for i, name in enumerate(self.groups) if name != feature]
        share, name = max(found, default=(0.0, ""))
        return name, share


def shares(
    generator: Generator,
    judges: Mapping[str, Feature],
    *,
    held: int = 48,
    each: int = 12,
    seed: int = 1,
    groups: Sequence[str] | None = None,
    vary: Vary | None = None,
) -> Shares:
    """Hold ``held`` latents, draw each group of them ``each`` times anew, and measure.

    Args:
        judges: group -> what it is to decide.
        groups: whose shares; by default all parts of the generator's latent.
        vary: latents, group, seed -> the same latents with that group drawn anew; by default what a generator with parts does. Axes of one
            without: see ``along``.

    Raises:
        ValueError: a generator without parts, and no ``vary``.
    """
    space = generator.spaces[home(generator)]
    names = tuple(groups) if groups is not None else tuple(name for name, _, _ in space.parts)
    if not names:
        raise ValueError(f"{space} has no parts: shares are those of groups, train some with steer train controllable.")
    if held < 2 or each < 2:
        raise ValueError(f"shares take 2 or more latents held, each with 2 or more draws; got {held} and {each}.")
    draw: Vary = vary or (lambda latents, part, s: generator.resampled(latents, part, seed=s))  # type: ignore[attr-defined]
    features = list(judges.values())
    population = observe(generator, features, generator.sample(held * each, seed=seed + 1, space=space.name), batch=64)
    widths = [len(feature.columns) for feature in features]
    scales = [
        torch.ones(len(feature.columns)) if feature.metric == "cosine" else part.std(0).clamp(min=1e-9)
        for feature, part in zip(features, population.split(widths, 1), strict=True)
    ]
    total = _spreads(population[None], widths, scales)
    bases = generator.sample(held, seed=seed, space=space.name)
    rows = []
    for place, name in enumerate(progress.track(list(names), "spread of each group")):
        seen = [observe(generator, features, draw(bases, name, seed + 2 + place * each + i), batch=64) for i in range(each)]
        rows.append(_spreads(torch.stack(seen, 1), widths, scales) / total.clamp(min=1e-9))  # (held, each, m)
    return Shares(tuple(judges), names, torch.stack(rows, 1), held, each, seed)


def _spreads(values: Float[Tensor, "h e m"], widths: list[int], scales: list[Tensor]) -> Float[Tensor, " f"]:
    """For every feature the root of its variance within the rows, mean over them, summed over columns."""
    within = values.var(1).mean(0)  # (m,)
    return torch.stack([(part / scale.square()).sum().sqrt() for part, scale in zip(within.split(widths), scales, strict=True)])


def along(generator: Generator, directions: Mapping[str, Float[Tensor, " d"]], normals: Mapping[str, Float[Tensor, " d"]]) -> Vary:
    """``vary`` for axes: the coordinate along one axis is taken from another latent, everything else stays.

    Args:
        directions: attribute -> where latents move, (d,).
        normals: attribute -> what reads the coordinate, with ``normal @ direction`` = 1.
    """

    def vary(latents: Latents, name: str, seed: int) -> Latents:
        others = generator.sample(len(latents), seed=seed, space=latents.space.name).values
        change = (others - latents.values).flatten(1) @ normals[name].to(others)
        return latents.at(latents.values + (change[:, None] * directions[name].to(others)).view_as(latents.values))

    return vary
