"""StyleGAN 2: z -> w -> w+ -> styles -> image. One network for every published code base.

``modulation`` holds its layers, ``stylegan2_layouts`` reads checkpoints. GAN-Control's variant, whose z and w are split
into groups with a mapping MLP each, is the same network with more than one group. Its three architectures (figure 7 of
the paper) differ in what leads to the image: a sum of colours of every resolution ("skip"), the colours of the last one
("orig"), or these with a path around each block ("resnet").

Sources: Karras et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020; Karras et al., "Training
generative adversarial networks with limited data", NeurIPS 2020 (labels, clamp); Shoshan et al., "GAN-Control:
explicitly controllable GANs", ICCV 2021 (groups); Wu, Lischinski & Shechtman, "StyleSpace analysis", CVPR 2021 (s).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from steerable.generators import processor
from steerable.generators.modulation import Around, Colours, Convolution, Linear, Mapping, doubled, unit
from steerable.generators.stages import Options, Stage, class_weights

Noise = Tensor | Literal["fixed"] | None
ARCHITECTURES = ("skip", "orig", "resnet")
SAMPLES_OF_MEAN = 16384
HALF_FROM = 64  # the side from which precision="bfloat16" acts: below, little time is saved and every error reaches all sides
ALONE_FROM = 64  # the side from which a CPU works on one image of a batch after the other


class Block(nn.Module):
    """The layers of one resolution; which of them there are depends on the resolution and the architecture."""

    conv0: Convolution
    conv1: Convolution
    torgb: Colours
    skip: Around


class StyleGAN2(nn.Module):
    """A constant, doubled until it is an image; each convolution is steered by an affine function of w.

    Args:
        mapping: for each group of z, in the order of their slices: its name and the widths of its MLP, from the input
            (with the label's embedding) to its slice of w. ``[["z", [512, 512, 512]]]``.
        widths: channels at 4 x 4, 8 x 8, ...
        channels: of the image.
        classes: number of classes, or None; ``embedding`` is the width that a label is embedded in.
        rate: learning-rate multiplier of the mapping, which its stored weights are divided by.
        clamp: largest magnitude of activations; None for code bases without.
        scaled: see ``modulation.Convolution``.
        averaged: whether the mean w comes with the weights; otherwise it is estimated when first asked for.
        residual: whether each slice of w is ``unit(z + M(z))`` of its slice of z, as in ``grouped_dcgan``, and not M(z) alone.
        architecture: one of ``ARCHITECTURES``.
        joined: whether z and the label's embedding, a row of a table, have one length together that is divided out, as in the first
            code, and not one each.
    """

    family = "stylegan2"
    options: Options = {"noise": "fixed", "precision": "float32"}  # noqa: RUF012 - never written

    def __init__(
        self,
        mapping: Sequence[Sequence[Any]],  # (name, widths)
        widths: Sequence[int],
        *,
        channels: int = 3,
        classes: int | None = None,
        embedding: int = 0,
        rate: float = 0.01,
        clamp: float | None = None,
        scaled: bool = False,
        averaged: bool = True,
        residual: bool = False,
        architecture: str = "skip",
        joined: bool = False,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f'architecture is one of {", ".join(ARCHITECTURES)}; got "{architecture}".')
        self.config: dict[str, Any] = {
            "mapping": [[name, list(layers)] for name, layers in mapping],
            "widths": list(widths),
            "channels": channels,
            "classes": classes,
            "embedding": embedding,
            "rate": rate,
            "clamp": clamp,
            "scaled": scaled,
            "averaged": averaged,
            **({"residual": True} if residual else {}),  # files of before have no such entries
            **({"architecture": architecture} if architecture != "skip" else {}),
            **({"joined": True} if joined else {}),
        }
        self.residual, self.architecture, self.joined = residual, architecture, joined
        self.classes = classes
        self.embed = None if not classes else nn.Linear(classes, embedding, bias=False) if joined else Linear(classes, embedding)
        self.mapping = nn.ModuleList(Mapping(layers, rate=rate) for _, layers in mapping)
        names = [name for name, _ in mapping]
        self.z_groups = _spans(names, [layers[0] - (embedding if classes else 0) for _, layers in mapping])
        self.w_groups = _spans(names, [layers[-1] for _, layers in mapping])
        self.z_dim, self.w_dim = self.z_groups[-1][2], self.w_groups[-1][2]
        self.w_avg: Tensor | None
        self.register_buffer("w_avg", torch.zeros(self.w_dim) if averaged else None)
        self._mean: Tensor | None = None

        self.const = nn.Parameter(torch.zeros(widths[0], 4, 4))
        self.layers: list[tuple[str, int]] = []  # name of each layer that has styles, and the row of w+ that it reads
        for i, width in enumerate(widths):
            side, block = 4 * 2**i, Block()
            settings: dict[str, Any] = {"clamp": clamp, "scaled": scaled}
            if i:
                block.conv0 = Convolution(widths[i - 1], width, side, self.w_dim, doubles=True, **settings)
                self.layers.append((f"b{side}.conv0", 2 * i - 1))
                if architecture == "resnet":
                    block.skip = Around(widths[i - 1], width)
            block.conv1 = Convolution(width, width, side, self.w_dim, doubles=False, **settings)
            self.layers.append((f"b{side}.conv1", 2 * i))
            if architecture == "skip" or i == len(widths) - 1:
                block.torgb = Colours(width, channels, self.w_dim, clamp=clamp)
                self.layers.append((f"b{side}.torgb", 2 * i + 1))
            self.add_module(f"b{side}", block)
        self.sides = [4 * 2**i for i in range(len(widths))]
        self.image_shape = (channels, self.sides[-1], self.sides[-1])

    @property
    def stages(self) -> tuple[Stage, ...]:
        rows = 2 * len(self.sides)
        firsts: dict[int, str] = {}
        for name, row in self.layers:
            firsts[row] = name if name.endswith(("conv0", "conv1")) else firsts.get(row, name)
        styles = _spans([name for name, _ in self.layers], self._style_widths())
        groups = len(self.mapping) > 1
        return (
            Stage(
                "z",
                (self.z_dim,),
                self.mapped,
                labelled=self.classes is not None,
                spheres=() if self.joined else self.z_groups,
                parts=self.z_groups if groups else (),
            ),
            Stage("w", (self.w_dim,), self.broadcast, centre=self.mean, parts=self.w_groups if groups else ()),
            Stage(
                "w+",
                (rows, self.w_dim),
                self.styles,
                centre=lambda: self.mean().expand(rows, -1),
                layers=tuple((firsts[row], row, row + 1) for row in range(rows)),
                parts=self.w_groups if groups else (),
            ),
            Stage("s", (styles[-1][2],), self.images, takes=("noise", "precision"), layers=styles),
        )

    def prepare(self) -> None:
        for layer in self._convolutions():
            layer.prepare()

    def initialise(self, rng: torch.Generator) -> None:
        """The random weights that training starts from; a new network's are zero."""
        with torch.no_grad():
            for key, tensor in self.state_dict().items():
                if key.endswith(("weight", "const", "noise")):
                    rate = self.config["rate"] if key.startswith("mapping") else 1
                    tensor.copy_(torch.randn(tensor.shape, generator=rng) / rate)

    def mapped(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z -> w, group by group; lengths are divided out, and the label's embedding has a length of its own."""
        given = []
        if self.embed is not None:
            given = [self.embed(class_weights(labels, len(self.embed.weight.T), z))]
        if self.joined:
            parts = [unit(torch.cat([z[:, start:end], *given], 1)) for _, start, end in self.z_groups]
        else:
            parts = [torch.cat([unit(z[:, start:end]), *map(unit, given)], 1) for _, start, end in self.z_groups]
        made = [mapping(part) for mapping, part in zip(self.mapping, parts, strict=True)]
        if self.residual:
            made = [unit(part[:, : one.shape[1]] + one) for part, one in zip(parts, made, strict=True)]
        return torch.cat(made, 1)

    def broadcast(self, w: Tensor, labels: Tensor | None = None) -> Tensor:
        """w -> w+."""
        return w[:, None].repeat(1, 2 * len(self.sides), 1)

    def styles(self, ws: Tensor, labels: Tensor | None = None) -> Tensor:
        """w+ -> s: the affine function of every layer, side by side."""
        return torch.cat([self._layer(name).affine(ws[:, row]) for name, row in self.layers], 1)

    def images(self, s: Tensor, labels: Tensor | None = None, *, noise: Any = "fixed", precision: str = "float32") -> Tensor:
        """s -> (n, c, h, w). In "bfloat16" convolutions are rounded where the processor has instructions for it; see ``processor``."""
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f'precision is "float32" or "bfloat16", got {precision!r}.')
        x = self.const.expand(len(s), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = x.to(s.dtype)
        half = precision == "bfloat16" and processor.half(s.device.type)
        styles = dict(zip((name for name, _ in self.layers), s.split(self._style_widths(), 1), strict=True))
        return self._drawn(x, None, styles, self._noises(noise, len(s), s), half)

    def mean(self) -> Tensor:
        """The mean w: of the file, or over ``SAMPLES_OF_MEAN`` latents of a fixed seed where a file has none."""
        if self.w_avg is not None:
            return self.w_avg
        if self._mean is None:
            rng = torch.Generator().manual_seed(0)
            with torch.no_grad():
                z = torch.randn((SAMPLES_OF_MEAN, self.z_dim), generator=rng).to(self.const)
                labels = None if self.classes is None else torch.arange(len(z), device=z.device) % self.classes
                self._mean = self.mapped(z, labels).mean(0)
        return self._mean

    def _drawn(self, x: Tensor, image: Tensor | None, styles: dict[str, Tensor], noises: list[Noise], half: bool, first: int = 0) -> Tensor:
        """The blocks from ``first`` on."""
        for i in range(first, len(self.sides)):
            side = self.sides[i]
            if len(x) > 1 and side >= ALONE_FROM and x.device.type == "cpu":
                return torch.cat([self._drawn(*_row(row, x, image, styles, noises), half, i) for row in range(len(x))])
            dtype = torch.bfloat16 if half and side >= HALF_FROM else torch.float32
            name, block = f"b{side}", cast(Block, self.get_submodule(f"b{side}"))
            around = block.skip(x) if i and self.architecture == "resnet" else None
            if i:
                x = block.conv0(x, styles[f"{name}.conv0"], noises[2 * i - 1], dtype=dtype)
            x = block.conv1(x, styles[f"{name}.conv1"], noises[2 * i], dtype=dtype)
            x = x if around is None else sqrt(0.5) * (x + around)
            if f"{name}.torgb" in styles:
                share = block.torgb(x, styles[f"{name}.torgb"])
                image = share if image is None else doubled(image) + share
        assert image is not None
        return image

    def _noises(self, noise: Any, n: int, like: Tensor) -> list[Noise]:
        """One map (1 or n, 1, side, side) for each convolution."""
        convolutions = self._convolutions()
        if noise == "none" if isinstance(noise, str) else noise is None:
            return [None] * len(convolutions)
        if isinstance(noise, str):
            if noise != "fixed":
                raise ValueError(f'noise is "fixed", "none" or a list of {len(convolutions)} tensors, got "{noise}".')
            return ["fixed"] * len(convolutions)
        if not isinstance(noise, Sequence) or not all(hasattr(given, "__array__") for given in noise):
            raise ValueError(f'noise is "fixed", "none" or a list of {len(convolutions)} tensors, got {str(noise)[:60]}.')
        maps = [torch.as_tensor(given) for given in noise]
        if len(maps) != len(convolutions):
            raise ValueError(f"noise is one tensor for each of {len(convolutions)} convolutions, got {len(maps)}.")
        for i, (given, layer) in enumerate(zip(maps, convolutions, strict=True)):
            side = len(layer.noise)
            if tuple(given.shape) not in {(side, side), (1, 1, side, side), (n, 1, side, side)}:
                raise ValueError(f"noise {i} is ({side}, {side}) or (1 or {n}, 1, {side}, {side}), got {tuple(given.shape)}.")
        return [given.to(like).reshape(-1, 1, *given.shape[-2:]) for given in maps]

    def _convolutions(self) -> list[Convolution]:
        return [cast(Convolution, self._layer(name)) for name, _ in self.layers if not name.endswith("torgb")]

    def _style_widths(self) -> list[int]:
        return [len(self._layer(name).affine.bias) for name, _ in self.layers]

    def _layer(self, name: str) -> Convolution | Colours:
        return cast("Convolution | Colours", self.get_submodule(name))


def _spans(names: Sequence[str], widths: Sequence[int]) -> tuple[tuple[str, int, int], ...]:
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return tuple((name, end - width, end) for name, width, end in zip(names, widths, ends, strict=True))


def _row(
    i: int, x: Tensor, image: Tensor | None, styles: dict[str, Tensor], noises: list[Noise]
) -> tuple[Tensor, Tensor | None, dict[str, Tensor], list[Noise]]:
    """Everything of one image of a batch."""
    rows = slice(i, i + 1)
    own: list[Noise] = [noise[rows] if isinstance(noise, Tensor) and len(noise) > 1 else noise for noise in noises]
    return x[rows], None if image is None else image[rows], {name: style[rows] for name, style in styles.items()}, own
