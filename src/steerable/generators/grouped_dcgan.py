"""A DCGAN whose latent is made of groups: z -> w by one mapping network a group, w -> image by the DCGAN.

    w_k = unit(unit(z_k) + M_k(unit(z_k))),    w = (w_1, ..., w_K)

``unit`` brings a row to root mean square 1. A group so stays as large as it began, whatever the losses of the others do, and its network
changes where on its sphere a point lies; without both, groups of few numbers die in training. ``stylegan2`` has the same mapping in
front of a style-based network; ``training.controllable`` gives the groups their meaning.

Sources: Shoshan, Bhonker, Kviatkovsky & Medioni, "GAN-Control: explicitly controllable GANs", ICCV 2021, section 3.1 (a mapping network
a group); Radford, Metz & Chintala, ICLR 2016 (the DCGAN).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from steerable.generators.dcgan import DCGAN
from steerable.generators.modulation import Linear, Mapping, unit
from steerable.generators.stages import Options, Stage

SAMPLES_OF_MEAN = 16384


class GroupedDCGAN(nn.Module):
    """z -> w -> image.

    Args:
        mapping: name and widths of each group's network, in the order of their slices: ``[["digit", [16, 64, 16]], ...]``; the first
            and the last width are equal.
        widths: channels of the DCGAN from the first map to the image.
        first: side of the first map.
        normed: whether batch norms follow its layers.
    """

    family = "dcgan-groups"
    options: Options = {}  # noqa: RUF012 - never written
    classes = None

    def __init__(self, mapping: Sequence[Sequence[Any]], widths: Sequence[int], *, first: int = 4, normed: bool = True) -> None:
        super().__init__()
        for name, layers in mapping:
            if layers[0] != layers[-1]:
                raise ValueError(f'the mapping network of "{name}" goes from {layers[0]} to {layers[-1]} numbers: both are its width.')
        self.config = {
            "mapping": [[name, list(layers)] for name, layers in mapping],
            "widths": list(widths),
            "first": first,
            "normed": normed,
        }
        self.mapping = nn.ModuleList(Mapping(layers, rate=1.0) for _, layers in mapping)
        ends = [sum(layers[0] for _, layers in mapping[: i + 1]) for i in range(len(mapping))]
        self.groups = tuple((str(name), end - layers[0], end) for (name, layers), end in zip(mapping, ends, strict=True))
        self.width = ends[-1]
        flags = [normed] * (len(widths) - 1)
        self.synthesis = DCGAN([self.width, *widths], first=first, normed=flags, biased=[not normed] * (len(widths)))
        self.image_shape = self.synthesis.image_shape
        self._mean: Tensor | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("z", (self.width,), self.mapped, spheres=self.groups, parts=self.groups),
            Stage("w", (self.width,), self.drawn, centre=self.mean, parts=self.groups),
        )

    def prepare(self) -> None:
        self.synthesis.prepare()

    def initialise(self, rng: torch.Generator) -> None:
        """The random weights of the mapping networks that training starts from; a new network's are zero."""
        with torch.no_grad():
            for network in self.mapping:
                for layer in cast("list[Linear]", list(cast(Mapping, network))):
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng))

    def mapped(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z -> w, group by group."""
        parts = [unit(z[:, start:end]) for _, start, end in self.groups]
        return torch.cat([unit(part + network(part)) for part, network in zip(parts, self.mapping, strict=True)], 1)

    def drawn(self, w: Tensor, labels: Tensor | None = None) -> Tensor:
        """w -> (n, c, h, w). In training the first layer is the product of matrices that it is, with channels last."""
        if not self.training:
            return self.synthesis(w)
        first = self.synthesis.main[0]
        side = self.config["first"]
        x = (w @ first.weight.movedim(1, 3).flatten(1)).unflatten(1, (side, side, -1)).movedim(3, 1)  # type: ignore[operator]
        if first.bias is not None:
            x = x + first.bias[:, None, None]  # type: ignore[index]
        return self.synthesis.main[1:](x)

    def forward(self, z: Tensor) -> Tensor:
        return self.drawn(self.mapped(z))

    def mean(self) -> Tensor:
        """The mean w over ``SAMPLES_OF_MEAN`` latents of a fixed seed."""
        if self._mean is None:
            with torch.no_grad():
                z = torch.randn((SAMPLES_OF_MEAN, self.width), generator=torch.Generator().manual_seed(0))
                self._mean = self.mapped(z.to(next(self.parameters()))).mean(0)
        return self._mean
