"""BigGAN and BigGAN-deep: residual blocks whose batch norms are driven by the class and by z.

One network for both: they differ in the kind of block (two 3 x 3 convolutions, or a bottleneck of four) and in what each
block is told. ``biggan_layouts`` reads the published checkpoints; spectral norms are divided out there, so the weights
here are those that the convolutions use.

A block is told the class embedding, a slice of z of its own, or all of z. What is told stands side by side in the space
"s", one layer a block, so a direction can be restricted to some of the blocks.

Source: Brock, Donahue & Simonyan, "Large scale GAN training for high fidelity natural image synthesis", ICLR 2019,
appendix B; attention of Zhang et al., "Self-attention generative adversarial networks", ICML 2019, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.generators.stages import Options, Stage, class_weights
from steerable.protocols import Span

CONDITIONS = ("split", "whole", "class")


class BigGAN(nn.Module):
    """z and a class -> "s", what each block is told -> image.

    Args:
        latent: numbers in z.
        classes, embedding: size of the table of class embeddings.
        condition: what a block is told: "split", the class and its own slice of z (the first slice makes the first map);
            "whole", the class and all of z, as the first map is; "class" alone, and z makes the first map.
        blocks: (doubles, channels in, channels inside, channels out) for each. Deep ones bottleneck.
        deep: BigGAN-deep's blocks.
        attention: how many blocks go before each self-attention.
        first: side of the first map.
        channels: of the image.
        rows: of the tables of batch-norm statistics: 1, or statistics for so many truncations from 0 to 1.
        eps, last_eps: in the variance of the blocks' norms and of the last one.
        truncation: in force until ``configured`` says otherwise, where there is more than one row.
        replicated: whether the norms were shared over several devices, whose published code adds the gain in eval mode: then there is
            the option ``published_gain``.
    """

    family = "biggan"

    def __init__(
        self,
        latent: int,
        classes: int,
        embedding: int,
        condition: str,
        blocks: Sequence[Sequence[Any]],
        *,
        deep: bool,
        attention: Sequence[int] = (),
        first: int = 4,
        channels: int = 3,
        rows: int = 1,
        eps: float = 1e-5,
        last_eps: float = 1e-5,
        truncation: float = 1.0,
        replicated: bool = False,
    ) -> None:
        super().__init__()
        if condition not in CONDITIONS:
            raise ValueError(f"condition is one of {', '.join(CONDITIONS)}; got {condition}.")
        self.config = {
            "latent": latent,
            "classes": classes,
            "embedding": embedding,
            "condition": condition,
            "blocks": [list(block) for block in blocks],
            "deep": deep,
            "attention": list(attention),
            "first": first,
            "channels": channels,
            "rows": rows,
            "eps": eps,
            "last_eps": last_eps,
            "truncation": truncation,
            **({"replicated": True} if replicated else {}),  # files of before have no such entry
        }
        self.latent, self.classes, self.condition, self.first = latent, classes, condition, first
        told = {"split": embedding + latent // (len(blocks) + 1), "whole": embedding + latent, "class": embedding}[condition]
        heard = {"split": latent // (len(blocks) + 1), "whole": told, "class": latent}[condition]
        self.embedding = nn.ParameterDict(
            {"weight": torch.zeros(classes, embedding)}
        )  # nn.Embedding draws, slowly while sizes are compared
        self.linear = nn.Linear(heard, blocks[0][1] * first**2)
        kind = DeepBlock if deep else PlainBlock
        self.blocks = nn.ModuleList(kind(told, bool(up), wide, inner, out, rows, eps) for up, wide, inner, out in blocks)
        widths = [blocks[0][1], *(block[3] for block in blocks)]
        self.attention = nn.ModuleDict({str(i): Attention(widths[i]) for i in attention})
        self.norm = Norm(widths[-1], None, rows, last_eps)
        self.to_rgb = nn.Conv2d(widths[-1], channels, 3, padding=1)
        side = first * 2 ** sum(bool(block[0]) for block in blocks)
        self.image_shape = (channels, side, side)
        self.sizes = [heard, *[told] * len(blocks)]
        self.options: Options = {"truncation": truncation, "published_interpolation": False} if rows > 1 else {}
        if replicated:
            self.options = {**self.options, "published_gain": False}

    @property
    def _blocks(self) -> list[PlainBlock | DeepBlock]:
        return cast("list[PlainBlock | DeepBlock]", list(self.blocks))

    @property
    def stages(self) -> tuple[Stage, ...]:
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes))]
        names = ["linear", *(f"blocks.{i}" for i in range(len(self.blocks)))]
        layers: tuple[Span, ...] = tuple((name, end - size, end) for name, size, end in zip(names, self.sizes, ends, strict=True))
        zero = torch.zeros(self.latent)
        return (
            Stage("z", (self.latent,), self.styles, labelled=True, draw=draw, centre=lambda: zero),
            Stage("s", (ends[-1],), self.synthesis, takes=tuple(self.options), layers=layers),
        )

    def prepare(self) -> None:
        """Merge each up-sampling with the 3 x 3 convolution after it. The state dict stays as it is."""
        for block in self._blocks:
            if block.up:
                block.phases = _phases(_doubling(block).weight.detach()).contiguous(memory_format=torch.channels_last)

    def styles(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the first map and each block are told, side by side; the class stands before z."""
        told = class_weights(labels, self.classes, z) @ self.embedding["weight"]  # (n, embedding)
        if self.condition == "class":
            return torch.cat([z, *[told] * len(self.blocks)], dim=1)
        if self.condition == "whole":
            return torch.cat([told, z] * len(self.sizes), dim=1)
        head, *slices = z.split(self.sizes[0], dim=1)
        return torch.cat([head, *(part for own in slices for part in (told, own))], dim=1)

    def synthesis(
        self,
        s: Tensor,
        labels: Tensor | None = None,
        truncation: Any = 1.0,
        published_interpolation: bool = False,
        published_gain: bool = False,
    ) -> Tensor:
        """What the blocks are told -> images. The published code of shared norms multiplies by the gain while it trains on several
        devices, and adds it in eval mode and on a single one; ``published_gain`` adds it too."""
        head, *told = s.split(self.sizes, dim=1)
        row = (*mixing(truncation, len(self.norm.means), published=published_interpolation), published_gain)
        x = self.linear(head).unflatten(1, (-1, self.first, self.first))
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # channels last, in words that vmap knows
        for i, block in enumerate(self._blocks):
            x = block(self._attended(x, i), told[i], row)
        x = self._attended(x, len(self.blocks))
        return torch.tanh(self.to_rgb(self.norm(x, None, row)))

    def forward(self, z: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
        return self.synthesis(self.styles(z, labels), **options)

    def _attended(self, x: Tensor, i: int) -> Tensor:
        return self.attention[str(i)](x) if str(i) in self.attention else x


Row = tuple[int, float, bool]  # the row below, the weight of the row above it, whether the gain is added rather than multiplied by


def mixing(truncation: Any, rows: int, *, published: bool) -> tuple[int, float]:
    """Which rows of the tables of statistics a truncation lies between.

    Row i belongs to the truncation i / (rows - 1). The published code gives the row below the weight that belongs to
    the row above, and loses a whole row at 0.14, 0.28, 0.56, 0.58 and 0.94 of 51 rows, where the quotient of two
    floats is not the integer that is meant; ``published`` does the same.

    Raises:
        ValueError: a truncation outside (0, 1].
    """
    if rows == 1:
        return 0, 0.0
    if isinstance(truncation, bool) or not isinstance(truncation, int | float) or not 0 < truncation <= 1:
        raise ValueError(f"truncation is a number above 0 and up to 1, got {truncation!r}.")
    if published:
        above, below = math.modf(truncation / (1.0 / (rows - 1)))
        return int(below), 1 - above if above else 0.0
    place = truncation * (rows - 1)
    if abs(place - round(place)) < 1e-6:
        return round(place), 0.0
    return int(place), place - int(place)


def draw(shape: tuple[int, ...], rng: torch.Generator, options: Options) -> Tensor:
    """One latent: standard normal; with truncation t, normal numbers in [-2, 2] only, times t."""
    z = torch.randn(shape, generator=rng)
    if "truncation" not in options:
        return z
    mixing(options["truncation"], 2, published=False)  # refuses what is no truncation
    while (beyond := z.abs() > 2).any():
        z = torch.where(beyond, torch.randn(shape, generator=rng), z)
    return z * options["truncation"]


class Norm(nn.Module):
    """Batch norm with stored statistics, its gain and offset linear in what the block is told, and a ReLU.

    Args:
        told: numbers the gain and offset depend on; None for a gain and offset of its own.
        rows: of the statistics.
    """

    means: Tensor
    variances: Tensor

    def __init__(self, channels: int, told: int | None, rows: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("means", torch.zeros(rows, channels))
        self.register_buffer("variances", torch.ones(rows, channels))
        if told is None:
            self.gain, self.offset = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        else:
            self.gain, self.offset = nn.Linear(told, channels, bias=False), nn.Linear(told, channels, bias=False)

    def forward(self, x: Tensor, told: Tensor | None, row: Row) -> Tensor:
        below, weight, adds = row
        mean, variance = _at(self.means, below, weight), _at(self.variances, below, weight)  # (c,)
        scale = torch.rsqrt(variance + self.eps)
        gain, offset = self._told(told)
        a, b = (scale.expand_as(gain), gain + offset) if adds else (gain * scale, offset)
        return torch.addcmul(b[..., None, None], x - mean[:, None, None], a[..., None, None]).relu()

    def _told(self, told: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gain and offset, (c,) each, or (n, c) where a block is told something."""
        if told is None:
            return cast(Tensor, self.gain), cast(Tensor, self.offset)
        return 1 + cast(nn.Linear, self.gain)(told), cast(nn.Linear, self.offset)(told)


def _at(table: Tensor, below: int, weight: float) -> Tensor:
    return table[below] if weight == 0 else torch.lerp(table[below], table[below + 1], weight)


class PlainBlock(nn.Module):
    """BigGAN's block (figure 15b): norm, up, 3 x 3, norm, 3 x 3, beside a 1 x 1 convolution."""

    phases: Tensor | None

    def __init__(self, told: int, up: bool, wide: int, inner: int, out: int, rows: int, eps: float) -> None:
        super().__init__()
        self.up, self.doubling = up, 0
        self.register_buffer("phases", None, persistent=False)
        self.norms = nn.ModuleList([Norm(wide, told, rows, eps), Norm(inner, told, rows, eps)])
        self.convs = nn.ModuleList([nn.Conv2d(wide, inner, 3, padding=1), nn.Conv2d(inner, out, 3, padding=1)])
        self.shortcut = nn.Conv2d(wide, out, 1) if up or wide != out else None

    def forward(self, x: Tensor, told: Tensor, row: Row) -> Tensor:
        h = _doubled(self, self.norms[0](x, told, row))
        h = self.convs[1](self.norms[1](h, told, row))
        return h + _up(x if self.shortcut is None else self.shortcut(x), self.up)  # 1 x 1 and nearest neighbours commute


class DeepBlock(nn.Module):
    """BigGAN-deep's block (figure 16b): a bottleneck beside a path that only drops channels."""

    phases: Tensor | None

    def __init__(self, told: int, up: bool, wide: int, inner: int, out: int, rows: int, eps: float) -> None:
        super().__init__()
        self.up, self.out, self.doubling = up, out, 1
        self.register_buffer("phases", None, persistent=False)
        self.norms = nn.ModuleList(Norm(c, told, rows, eps) for c in (wide, inner, inner, inner))
        self.convs = nn.ModuleList(
            nn.Conv2d(c, d, k, padding=k // 2) for c, d, k in ((wide, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, out, 1))
        )

    def forward(self, x: Tensor, told: Tensor, row: Row) -> Tensor:
        h = self.convs[0](self.norms[0](x, told, row))
        h = _doubled(self, self.norms[1](h, told, row))
        h = self.convs[2](self.norms[2](h, told, row))
        h = self.convs[3](self.norms[3](h, told, row))
        return h + _up(x[:, : self.out], self.up)


def _up(x: Tensor, up: bool) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest") if up else x


def _doubled(block: PlainBlock | DeepBlock, x: Tensor) -> Tensor:
    """A block's first 3 x 3 convolution, on the map at twice its size where the block doubles.

    Nearest neighbours repeat every pixel, so a 3 x 3 kernel on them sees 2 x 2 pixels: four kernels of 2 x 2, one for each
    pixel made of one, give the same with 16 products where there were 36.
    """
    conv = _doubling(block)
    if not block.up or block.phases is None or block.training:
        return conv(_up(x, block.up))
    assert conv.bias is not None
    x = F.conv2d(x, block.phases, conv.bias.repeat(4), padding=1).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
    h, w = x.shape[1] - 1, x.shape[2] - 1  # (n, h + 1, w + 1, 2, 2, c)
    rows = [torch.stack([x[:, p : p + h, q : q + w, p, q] for q in (0, 1)], dim=3) for p in (0, 1)]  # (n, h, w, 2, c)
    return torch.stack(rows, dim=2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _doubling(block: PlainBlock | DeepBlock) -> nn.Conv2d:
    """The convolution of a block that sees the map at twice its size, where the block doubles."""
    return cast(nn.Conv2d, block.convs[block.doubling])


def _phases(kernel: Tensor) -> Tensor:
    """A 3 x 3 kernel (out, in, 3, 3) on repeated pixels as four 2 x 2 ones (4 out, in, 2, 2), row by row of the four pixels."""

    def halves(kernel: Tensor, dim: int) -> list[Tensor]:
        a, b, c = kernel.unbind(dim)
        return [torch.stack([a, b + c], dim), torch.stack([a + b, c], dim)]

    return torch.cat([phase for rows in halves(kernel, 2) for phase in halves(rows, 3)])


class Attention(nn.Module):
    """Self-attention over places; keys and values on every second row and column's maximum (no 1/sqrt(d))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.amount = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # (n, c/8, hw)
        key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.key, self.value))  # (n, ., hw/4)
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        attended = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.amount * self.out(attended)
