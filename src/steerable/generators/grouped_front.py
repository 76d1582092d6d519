"""Groups in front of a generator that is not trained at all: z -> w by one network a group, w -> a latent of the frozen generator.

    w_k = z_k + M_k(z_k),    x = centre + scale R w,    R = exp(T - T')

R is a rotation: it decides which directions of the frozen latent a group owns, and leaves a Gaussian a Gaussian, so that with M = 0 the
pictures are those of the frozen generator, whatever T. ``centre`` and ``scale`` are the moments of the space that is entered: none for z,
those of sampled w for w. ``training.controllable`` gives the groups their meaning; ``grouped_dcgan`` is a generator that is trained whole.

Sources: Shoshan et al., "GAN-Control: explicitly controllable GANs", ICCV 2021, section 3.1, for the groups; the rest is ours.
"""

from __future__ import annotations

from collections.abc import Mapping as Named
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from steerable.generators.modulation import Linear, Mapping
from steerable.generators.stages import Options, Stage

INNER = "inner-"  # before the names of the frozen generator's spaces


class GroupedFront(nn.Module):
    """z -> w -> the frozen generator.

    Args:
        mapping: name and widths of each group's network, in the order of their slices; the first and the last width are equal.
        family, config: of the frozen network; see ``families.FAMILIES``.
        space: of the frozen generator, that is entered.

    Raises:
        ValueError: widths that do not add up to the entered space's, a class-conditional generator, a space that is no vector.
    """

    family = "grouped-front"

    def __init__(self, mapping: Sequence[Sequence[Any]], family: str, config: Named[str, Any], *, space: str = "z") -> None:
        super().__init__()
        from steerable.generators.families import FAMILIES  # a family made of another one

        self.config = {
            "mapping": [[name, list(layers)] for name, layers in mapping],
            "family": family,
            "config": dict(config),
            "space": space,
        }
        self.inner: Any = FAMILIES[family](**config)
        self.entered = [stage.name for stage in self.inner.stages].index(space)
        shape = self.inner.stages[self.entered].shape
        ends = [sum(layers[0] for _, layers in mapping[: i + 1]) for i in range(len(mapping))]
        if self.inner.classes is not None or len(shape) != 1 or ends[-1] != shape[0]:
            what = "has classes" if self.inner.classes is not None else f"has {space} of {' x '.join(map(str, shape))} numbers"
            raise ValueError(f"the frozen generator {what}, the groups have {ends[-1]}: make them add up to a latent without classes.")
        self.groups = tuple((str(name), end - layers[0], end) for (name, layers), end in zip(mapping, ends, strict=True))
        self.width = ends[-1]
        self.mapping = nn.ModuleList(Mapping(layers, rate=1.0) for _, layers in mapping)
        self.turn = nn.Parameter(torch.zeros(self.width, self.width))
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("scale", torch.eye(self.width))
        self.inner.requires_grad_(False)
        self.classes, self.image_shape = None, self.inner.image_shape
        self.options: Options = self.inner.options

    @property
    def stages(self) -> tuple[Stage, ...]:
        rest = [replace(stage, name=f"{INNER}{stage.name}") for stage in self.inner.stages[self.entered :]]
        return (
            Stage("z", (self.width,), self.mapped, parts=self.groups),
            Stage("w", (self.width,), self.entering, centre=lambda: torch.zeros(self.width), parts=self.groups),
            *rest,
        )

    def prepare(self) -> None:
        self.inner.prepare()

    def train(self, mode: bool = True) -> GroupedFront:
        """The frozen generator stays as it is used: its norms do not follow batches."""
        super().train(mode)
        self.inner.eval()
        return self

    def initialise(self, rng: torch.Generator) -> None:
        """The weights that training starts from: last layers of zero, so that M = 0 and the pictures are the frozen generator's."""
        with torch.no_grad():
            for network in self.mapping:
                for layer in cast("list[Linear]", list(cast(Mapping, network))[:-1]):
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng))

    def mapped(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z -> w, group by group."""
        parts = [z[:, start:end] for _, start, end in self.groups]
        return torch.cat([part + network(part) for part, network in zip(parts, self.mapping, strict=True)], 1)

    def entering(self, w: Tensor, labels: Tensor | None = None) -> Tensor:
        """w -> the latent of the frozen generator."""
        rotation = torch.matrix_exp(self.turn - self.turn.T)
        return self.get_buffer("centre") + w @ rotation.T @ self.get_buffer("scale").T

    def drawn(self, w: Tensor, labels: Tensor | None = None) -> Tensor:
        """w -> (n, c, h, w) with the frozen generator's own options."""
        x = self.entering(w)
        for stage in self.inner.stages[self.entered :]:
            x = stage.step(x, None, **{option: self.options[option] for option in stage.takes})
        return x

    def strangeness(self, rng: torch.Generator, *, rows: int = 1024) -> Tensor:
        """How far the moments of w are from a Gaussian's: squared mean and squared error of the covariance, each a number of w."""
        z = torch.randn(rows, self.width, generator=rng).to(self.turn)
        w = self.mapped(z)
        centred = w - w.mean(0)
        covariance = centred.T @ centred / (rows - 1)
        expected = torch.cov(z.T)  # the sample's own, which the chance of the draw is divided out with
        return (w.mean(0).square().sum() + (covariance - expected).square().sum()) / self.width
