"""Toys whose answers are known by hand: a linear generator, a feature that is one pixel, an edit that adds a constant.

On ``image = A z + b`` a Jacobian is a slice of A, the best walk for "add a" is the least-squares solution of
``A w = 1``, and holding a pixel means being orthogonal to one row of A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from steerable.generators.module import ModuleGenerator, generator_of, wrap
from steerable.generators.stages import Stage, class_weights
from steerable.protocols import Knob, Latents, LatentSpace


@dataclass(frozen=True)
class LinearGenerator:
    """``images = (matrix @ z + offset)`` reshaped; the matrix is (c*h*w, d)."""

    matrix: Tensor
    offset: Tensor
    image_shape: tuple[int, int, int]
    fingerprint: str = "00toy000"
    name: str = "toy"

    @cached_property
    def spaces(self) -> dict[str, LatentSpace]:
        return {"z": LatentSpace("z", (self.matrix.shape[1],), self.fingerprint, self.name)}

    def sample(
        self, n: int, *, seed: int, space: str = "z", labels: int | Sequence[int] | Tensor | None = None, psi: float = 1.0
    ) -> Latents:
        rows = [np.random.default_rng([seed, row]).standard_normal(self.matrix.shape[1]) for row in range(n)]
        values = torch.tensor(np.array(rows).reshape(n, -1), dtype=torch.float32)
        tags = None if labels is None else torch.as_tensor(labels).expand(n)
        return Latents(psi * values, self.spaces[space], tags)

    def to_space(self, latents: Latents, name: str) -> Latents:
        return Latents(latents.values, self.spaces[name], latents.labels)

    def __call__(self, latents: Latents) -> Tensor:
        return (latents.values @ self.matrix.T + self.offset).unflatten(1, self.image_shape)


def linear_generator(
    latent_size: int = 6, image_shape: tuple[int, int, int] = (3, 4, 4), *, seed: int = 0, scale: float = 0.2
) -> LinearGenerator:
    """A linear generator with a random full-rank matrix and no offset."""
    matrix = np.random.default_rng(seed).standard_normal((prod(image_shape), latent_size)) * scale
    return LinearGenerator(torch.tensor(matrix, dtype=torch.float32), torch.zeros(prod(image_shape)), image_shape)


def linear_module(latent_size: int = 6, image_shape: tuple[int, int, int] = (3, 4, 4), *, seed: int = 0) -> ModuleGenerator:
    """The same as a wrapped network, as the studio takes it."""
    toy = linear_generator(latent_size, image_shape, seed=seed)
    layer = nn.Linear(latent_size, prod(image_shape), bias=False)
    layer.weight = nn.Parameter(toy.matrix)
    return wrap(nn.Sequential(layer, nn.Unflatten(1, image_shape)), latent_size=latent_size, name="toy", value_range=(-1, 1))


@dataclass(frozen=True)
class OnePixel:
    """The value of one pixel of one channel."""

    row: int = 0
    col: int = 0
    channel: int = 0
    unit: str = "levels"
    metric: str = "l2"
    differentiable: bool = True

    @property
    def name(self) -> str:
        return f"pixel-{self.channel}-{self.row}-{self.col}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    def __call__(self, images: Tensor) -> Tensor:
        return images[:, self.channel, self.row, self.col, None]


@dataclass(frozen=True)
class Brighten:
    """Adds the amount to every pixel, of which all are known."""

    knob: Knob = Knob("brighten", "levels", -0.5, 0.5)  # noqa: RUF009 - frozen

    def __call__(self, images: Tensor, amounts: Tensor) -> tuple[Tensor, Tensor]:
        return images + amounts[:, None, None, None], torch.ones_like(images[:, :1])


class LayeredNetwork(nn.Module):
    """z (on a sphere) -> w -> w+ (three layers) -> s -> a 2 x 2 image, by small known matrices; options: a gain.

    The image's channel i is the sum of layer i's two styles, so what a layer drives is known by hand.
    """

    family, config, classes, image_shape = "layered", {}, None, (3, 2, 2)
    options = {"gain": 1.0}  # noqa: RUF012

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.classes = classes
        self.matrix = nn.Parameter(torch.randn(4, 4, generator=rng))
        self.w_avg = nn.Parameter(torch.tensor([1.0, 0.0, -1.0, 0.5]))
        self.styles = nn.Parameter(torch.randn(3, 4, 2, generator=rng))

    @property
    def stages(self) -> tuple[Stage, ...]:
        rows = tuple((f"layer{i}", i, i + 1) for i in range(3))
        return (
            Stage("z", (4,), self.mapping, labelled=self.classes is not None, spheres=(("z", 0, 4),)),
            Stage("w", (4,), self.broadcast, centre=lambda: self.w_avg, parts=(("left", 0, 2), ("right", 2, 4))),
            Stage("w+", (3, 4), self.affine, centre=lambda: self.w_avg, layers=rows),
            Stage("s", (6,), self.paint, takes=("gain",), layers=tuple((f"style{i}", 2 * i, 2 * i + 2) for i in range(3))),
        )

    def prepare(self) -> None:
        pass

    def mapping(self, z: Tensor, labels: Tensor | None) -> Tensor:
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        shift = 0 if self.classes is None else class_weights(labels, self.classes, z).argmax(1, keepdim=True)
        return torch.tanh(z @ self.matrix + shift)

    def broadcast(self, w: Tensor, labels: Tensor | None) -> Tensor:
        return w[:, None].expand(-1, 3, -1)

    def affine(self, w: Tensor, labels: Tensor | None) -> Tensor:
        return torch.einsum("nld,lds->nls", w, self.styles).flatten(1)

    def paint(self, s: Tensor, labels: Tensor | None, *, gain: float) -> Tensor:
        return gain * s.unflatten(1, (3, 2)).sum(2)[:, :, None, None].expand(-1, -1, 2, 2)


def layered_generator(classes: int | None = None) -> ModuleGenerator:
    """A generator with every space of a style-based one."""
    return generator_of(LayeredNetwork(classes), name="layered")


def dcgan_file(*, seed: int = 0) -> bytes:
    """A small DCGAN as others publish theirs: safetensors without a word about what it is."""
    from safetensors.torch import save

    rng = torch.Generator().manual_seed(seed)
    shapes = {"main.0.weight": (16, 12, 4, 4), "main.2.weight": (12, 8, 4, 4), "main.4.weight": (8, 3, 4, 4)}
    return save({key: 0.2 * torch.randn(shape, generator=rng) for key, shape in shapes.items()})


class PartedNetwork(nn.Module):
    """z on three spheres = w, in parts a, b and c of four numbers, -> a 2 x 2 grey image whose pixels are known by hand.

    Pixel 0 0 is a's first number, 0 1 is b's, 1 0 is .6 a + .8 b, 1 1 is a's second number, each times .3.
    """

    family, config, classes, image_shape, options = "parted", {}, None, (1, 2, 2), {}

    def __init__(self) -> None:
        super().__init__()
        one = torch.eye(12)
        self.matrix = nn.Parameter(0.3 * torch.stack([one[0], one[4], 0.6 * one[0] + 0.8 * one[4], one[1]]))
        self.parts = (("a", 0, 4), ("b", 4, 8), ("c", 8, 12))

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("z", (12,), lambda z, labels: z, spheres=self.parts, parts=self.parts),
            Stage("w", (12,), lambda w, labels: (w @ self.matrix.T).view(-1, 1, 2, 2), parts=self.parts),
        )

    def prepare(self) -> None:
        pass


def parted_generator() -> ModuleGenerator:
    """A generator whose parts decide pixels in known shares."""
    return generator_of(PartedNetwork(), name="parted")
