"""The StyleGAN family, first version: a learned constant, grown like ProGAN, each layer restyled by its own code.

z is normalised and mapped to w by an MLP; w is copied to every layer (w+); an affine layer each turns the copies into
scales and shifts (s), which replace the mean and deviation of the layer's channels. Growth and convolutions are those of
``progan``; how code bases store the weights is in ``stylegan1_layouts``.

Source: Karras, Laine & Aila, "A style-based generator architecture for generative adversarial networks", CVPR 2019:
figure 1b, adaptive instance norm eq. 1, truncation appendix B, details appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.generators.progan import EPSILON, Convolution, grow, level_of_detail, pixel_norm, side_of, to_rgb
from steerable.generators.stages import Options, Stage, class_weights

BLUR = [[a * b / 16 for a in (1.0, 2.0, 1.0)] for b in (1.0, 2.0, 1.0)]
MEAN_OF = 4096  # codes that the mean w is taken over where a file has none


class Dense(nn.Module):
    """A linear layer at equalised learning rate: weights times rate * gain / sqrt(fan-in), biases times rate."""

    folded: Tensor | None
    folded_bias: Tensor | None

    def __init__(self, wide: int, narrow: int, *, gain: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(narrow, wide))
        self.bias = nn.Parameter(torch.zeros(narrow))
        self.scale, self.rate = rate * gain / math.sqrt(wide), rate
        self.register_buffer("folded", None, persistent=False)
        self.register_buffer("folded_bias", None, persistent=False)

    def prepare(self) -> None:
        self.folded, self.folded_bias = self.weight * self.scale, self.bias * self.rate

    def forward(self, x: Tensor) -> Tensor:
        if self.folded is None:
            return F.linear(x, self.weight * self.scale, self.bias * self.rate)
        return F.linear(x, self.folded, self.folded_bias)


class StyledLayer(nn.Module):
    """Convolution (the first layer: a constant), noise, bias, leaky ReLU, adaptive instance norm.

    Args:
        wide: channels in; None for the constant.
        narrow: channels out.
        side: of the map that it makes.
        code: width of w.
        doubles: up-sample before the convolution and blur after it.
        noise_stored: whether the noise map comes from the file.
    """

    noise: Tensor
    blur: Tensor

    def __init__(self, wide: int | None, narrow: int, side: int, code: int, *, doubles: bool, noise_stored: bool) -> None:
        super().__init__()
        if wide is None:
            self.const = nn.Parameter(torch.zeros(1, narrow, side, side))
            self.bias = nn.Parameter(torch.zeros(narrow))
        else:
            self.convolution = Convolution(wide, narrow, 3, doubles=doubles)
        self.noise_weight = nn.Parameter(torch.zeros(narrow))
        self.style = Dense(code, 2 * narrow)
        self.channels, self.doubles, self.side, self.first = narrow, doubles, side, wide is None
        self.register_buffer("noise", torch.zeros(1, 1, side, side), persistent=noise_stored)
        if doubles:
            self.register_buffer("blur", torch.tensor([[BLUR]] * narrow), persistent=False)

    def prepare(self) -> None:
        self.style.prepare()
        if not self.first:
            self.convolution.prepare()

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """``(n, wide, ...)``, or the constant -> ``(n, narrow, side, side)``; style (n, 2 narrow) is [scales - 1 | shifts]."""
        if self.first:
            x = x + self.bias[:, None, None]
        elif self.doubles:
            x = self.convolution(x, None)
            x = F.conv2d(x, self.blur, self.convolution.bias, padding=1, groups=self.channels)
        else:
            x = self.convolution(x, self.convolution.bias)
        if noise is not None:
            x = torch.addcmul(x, noise, self.noise_weight[:, None, None])  # a product of its own would lose channels-last
        x = F.leaky_relu(x, 0.2)
        x = x - x.mean(dim=(2, 3), keepdim=True)
        scale, shift = style[:, :, None, None].chunk(2, dim=1)
        scale = (scale + 1) * torch.rsqrt(x.square().mean(dim=(2, 3), keepdim=True) + EPSILON)
        return torch.addcmul(shift, x, scale)  # eq. 1


class StyleGAN1(nn.Module):
    """z -> w -> w+ -> s -> image.

    Args:
        latent_size: of z.
        mapping: widths of the MLP, from what it is given (z, and the label's embedding where there are classes) to w.
        widths: channels of the blocks, from the smallest resolution up.
        image_channels: 3 or 1.
        first: side of the constant.
        outputs: numbers of the blocks whose layer to RGB the file has; None for all.
        classes: labels are embedded in a (classes, mapping[0] - latent_size) table, appended to z, and normalised with it.
        rate: learning rate of the MLP relative to the other layers', by which its stored weights are divided.
        tanh: whether the image ends in one.
        lod: how many of the last doublings the file was trained without; see ``progan.grow``.
        mean_stored: whether the file has a mean w; otherwise it is taken over 4096 codes.
        noise_stored: whether the file has noise maps; otherwise they are drawn, always the same.
    """

    family = "stylegan1"
    options: Options = {"noise": "fixed", "lod": None}  # noqa: RUF012 - never written
    mean: Tensor

    def __init__(
        self,
        latent_size: int,
        mapping: Sequence[int],
        widths: Sequence[int],
        *,
        image_channels: int = 3,
        first: int = 4,
        outputs: Sequence[int] | None = None,
        classes: int | None = None,
        rate: float = 0.01,
        tanh: bool = False,
        lod: float = 0.0,
        mean_stored: bool = True,
        noise_stored: bool = True,
    ) -> None:
        super().__init__()
        self.config = {
            "latent_size": latent_size,
            "mapping": list(mapping),
            "widths": list(widths),
            "image_channels": image_channels,
            "first": first,
            "outputs": None if outputs is None else list(outputs),
            "classes": classes,
            "rate": rate,
            "tanh": tanh,
            "lod": lod,
            "mean_stored": mean_stored,
            "noise_stored": noise_stored,
        }
        side = side_of(first, len(widths))
        code = mapping[-1]
        self.latent_size, self.code_size, self.widths, self.classes = latent_size, code, tuple(widths), classes
        self.tanh, self.lod, self.mean_stored, self.noise_stored = tanh, lod, mean_stored, noise_stored
        self.image_shape = (image_channels, side, side)
        self.mapping = nn.ModuleList([Dense(a, b, gain=math.sqrt(2), rate=rate) for a, b in pairwise(mapping)])
        self.embedding = nn.Parameter(torch.zeros(classes, mapping[0] - latent_size)) if classes else None
        self.register_buffer("mean", torch.zeros(code), persistent=mean_stored)
        layers = []
        for k, width in enumerate(widths):
            wide = widths[k - 1] if k else None
            layers.append(StyledLayer(wide, width, first * 2**k, code, doubles=k > 0, noise_stored=noise_stored))
            layers.append(StyledLayer(width, width, first * 2**k, code, doubles=False, noise_stored=noise_stored))
        self.layers = nn.ModuleList(layers)
        self.outputs = to_rgb(widths, image_channels, outputs)
        ends = [0, *accumulate(2 * layer.channels for layer in layers)]
        self.spans = tuple((f"layers.{i}.style", start, end) for i, (start, end) in enumerate(pairwise(ends)))
        level_of_detail(lod, lod, len(widths), self.outputs)

    @property
    def stages(self) -> tuple[Stage, ...]:
        count, code = len(self.layers), self.code_size
        labelled = self.classes is not None
        sphere = () if labelled else (("z", 0, self.latent_size),)  # with labels, z and its embedding share one length
        rows = tuple((f"layers.{i}", i, i + 1) for i in range(count))
        return (
            Stage("z", (self.latent_size,), self.map, labelled=labelled, spheres=sphere),
            Stage("w", (code,), self.broadcast, centre=lambda: self.mean),
            Stage("w+", (count, code), self.styles, centre=lambda: self.mean.expand(count, code), layers=rows),
            Stage("s", (self.spans[-1][2],), self.synthesise, takes=("noise", "lod"), layers=self.spans),
        )

    def prepare(self) -> None:
        """Weights are scaled, up-sampling merged with the convolution after it; what the file lacks is worked out."""
        layers: list[Any] = [*self.mapping, *self.layers, *self.outputs.values()]
        for layer in layers:
            layer.prepare()
        rng = torch.Generator().manual_seed(0)
        if not self.noise_stored:
            for layer in self._layers():
                layer.noise = torch.randn(layer.noise.shape, generator=rng).to(layer.noise)
        if not self.mean_stored:
            z = torch.randn((MEAN_OF, self.latent_size), generator=rng).to(self.mean)
            labels = torch.arange(MEAN_OF, device=z.device) % self.classes if self.classes else None
            with torch.no_grad():
                self.mean = self.map(z, labels).mean(dim=0)

    def map(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, class_weights(labels, len(self.embedding), z) @ self.embedding], dim=1)
        w = pixel_norm(z)
        for layer in self.mapping:
            w = F.leaky_relu(layer(w), 0.2)
        return w

    def broadcast(self, w: Tensor, labels: Tensor | None) -> Tensor:
        return w[:, None].repeat(1, len(self.layers), 1)

    def styles(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        return torch.cat([layer.style(codes[:, i]) for i, layer in enumerate(self._layers())], dim=1)

    def synthesise(self, styles: Tensor, labels: Tensor | None, *, noise: Any = "fixed", lod: float | None = None) -> Tensor:
        lod = level_of_detail(lod, self.lod, len(self.widths), self.outputs)
        maps = self._noise(noise, len(styles))

        def block(k: int, x: Tensor) -> Tensor:
            for i in (2 * k, 2 * k + 1):
                _, start, end = self.spans[i]
                x = self.layers[i](x, styles[:, start:end], maps[i])
            return x

        image = grow(self._layers()[0].const, lod, block, self.outputs, len(self.widths))
        return torch.tanh(image) if self.tanh else image

    def forward(self, z: Tensor, labels: Tensor | None = None, *, noise: Any = "fixed", lod: float | None = None) -> Tensor:
        codes = self.broadcast(self.map(z, labels), labels)
        return self.synthesise(self.styles(codes, labels), labels, noise=noise, lod=lod)

    def _layers(self) -> list[StyledLayer]:
        return cast("list[StyledLayer]", list(self.layers))

    def _noise(self, noise: Any, n: int) -> list[Tensor | None]:
        """The map of each layer: the file's, none, or the given ones."""
        layers = self._layers()
        if isinstance(noise, str) and noise == "fixed":
            return [layer.noise for layer in layers]
        if isinstance(noise, str) and noise == "none":
            return [None] * len(layers)
        given: list[Any] = list(noise) if isinstance(noise, list | tuple) else []
        if len(given) != len(layers):
            got = f"{len(given)} of them" if isinstance(noise, list | tuple) else repr(noise)[:40]
            raise ValueError(f'noise is "fixed", "none" or a list of {len(layers)} tensors, one a layer; got {got}.')
        for i, (one, layer) in enumerate(zip(given, layers, strict=True)):
            if not isinstance(one, Tensor) or one.shape not in ((1, 1, layer.side, layer.side), (n, 1, layer.side, layer.side)):
                got = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
                raise ValueError(f"noise of layer {i} is (1, 1, {layer.side}, {layer.side}) or one a latent, got {got}.")
        return [one.to(layer.noise) for one, layer in zip(given, layers, strict=True)]
