"""The StyleGAN 3 family: t (translation equivariant) and r (rotation equivariant too).

An image is a signal in the plane: Fourier features that a style turns and moves, then layers of modulated convolutions
whose nonlinearities (``filters``) make no frequency that their grid cannot hold. So a 3 x 3 matrix, given as the option
``transform``, turns, moves or zooms the picture. There is no noise. ``stylegan3_layouts`` reads the published files.

Inside, channels come last. Activations are modulated instead of kernels, so that one kernel serves all rows.

Source: Karras et al., "Alias-free generative adversarial networks", NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable import checks
from steerable.generators import processor, winograd_strips
from steerable.generators.filters import FilteredNonlinearity, Grid, grids, lowpass
from steerable.generators.stages import Options, Stage, class_weights

WIDE = 64  # channels from which on Winograd's transforms pay
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # None: that of the weights


def motion(*, rotate: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), zoom: float = 0.0) -> Tensor:
    """The matrix (3, 3) that, given as the option ``transform``, moves the picture: about its centre, then the shift.

    Args:
        rotate: degrees, > 0 counter-clockwise. The layers of t do not turn with it, those of r do.
        shift: in image widths and heights, > 0 to the right and down.
        zoom: log2 of the magnification, > 0 enlarges.

    The matrix is the INVERSE of that motion: it says for each place of the new picture where the old one is looked up.
    """
    angle, size = math.radians(rotate), 2.0**-zoom
    back = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * size
    moved = back @ -torch.tensor(shift, dtype=back.dtype)
    return torch.cat([torch.cat([back, moved[:, None]], dim=1), torch.tensor([[0.0, 0.0, 1.0]])])


class StyleGAN3(nn.Module):
    """z -> w -> w+ (a row for the Fourier features, and one a layer) -> s (what all affine maps give) -> image.

    Args:
        latent_size, width: of z and of w.
        classes: number of classes; None has none.
        mapping_layers: layers between z and w.
        kernel: side of the convolutions: 3 for t, 1 for r.
        radial: whether filters down pass a disc of frequencies, but for the critically sampled layers: r.
        channels: that leave each layer, the image's last. Left out, they fall with the cutoff from ``channel_max`` on.
        resolution, layers, critical, cutoff, stopband, last_stopband, margin: see ``grids``.
        taps: of the filters, for each sample of the coarser grid.
        upsampling: how much finer the grid of the nonlinearities is than the finer one around it.
        clamp: largest magnitude of what leaves a layer; None has none.
        scale: of the image.

    Options:
        transform: (3, 3), a tensor or nested lists, in place of the file's: see ``motion``.
        precision: of the convolutions, "float32", or "bfloat16" where the processor has instructions for it; see ``processor``.
    """

    family = "stylegan3"
    options: Options = {"transform": None, "precision": "float32"}  # noqa: RUF012 - never written

    def __init__(
        self,
        *,
        resolution: int,
        latent_size: int = 512,
        width: int = 512,
        classes: int | None = None,
        mapping_layers: int = 2,
        kernel: int = 3,
        radial: bool = False,
        channels: Sequence[int] | None = None,
        layers: int = 14,
        critical: int = 2,
        cutoff: float = 2.0,
        stopband: float = 2**2.1,
        last_stopband: float = 2**0.3,
        margin: int = 10,
        taps: int = 6,
        upsampling: int = 2,
        clamp: float | None = 256.0,
        scale: float = 0.25,
        channel_base: int = 32768,
        channel_max: int = 512,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        if not 0 <= critical < layers:
            raise ValueError(f"of {layers} layers, 0 to {layers - 1} can be critically sampled; got {critical}.")
        plan = grids(
            resolution,
            layers=layers,
            critical=critical,
            cutoff=cutoff,
            stopband=stopband,
            last_stopband=last_stopband,
            margin=margin,
        )
        if plan[-2].rate != plan[-1].rate:
            raise ValueError(f"the image's grid has rate {plan[-1].rate}, the layer before it {plan[-2].rate}: use critical >= 1.")
        channels = list(channels) if channels else [*widths(plan[:-1], channel_base, channel_max), image_channels]
        if len(channels) != layers + 1:
            raise ValueError(f"{layers} layers and the image have {layers + 1} numbers of channels, got {len(channels)}: {channels}.")
        self.config = {
            "resolution": resolution,
            "latent_size": latent_size,
            "width": width,
            "classes": classes,
            "mapping_layers": mapping_layers,
            "kernel": kernel,
            "radial": radial,
            "channels": channels,
            "layers": layers,
            "critical": critical,
            "cutoff": cutoff,
            "stopband": stopband,
            "last_stopband": last_stopband,
            "margin": margin,
            "taps": taps,
            "upsampling": upsampling,
            "clamp": clamp,
            "scale": scale,
        }
        self.grids, self.classes, self.clamp, self.scale = plan, classes, clamp, scale
        self.image_shape = (channels[-1], resolution, resolution)
        self.mapping = MappingNetwork(latent_size, width, mapping_layers, classes)
        self.input = FourierFeatures(plan[0], channels[0], width)
        self.layers = nn.ModuleList()
        for i, (grid, finer) in enumerate(zip([plan[0], *plan[:-2]], plan[:-1], strict=True)):
            rate = max(grid.rate, finer.rate) * upsampling
            up, down = rate // grid.rate, rate // finer.rate
            nonlinearity = FilteredNonlinearity(
                grid.size + kernel - 1,
                finer.size,
                lowpass(taps * up if up > 1 else 1, cutoff=grid.cutoff, width=2 * grid.half_width, rate=rate),
                lowpass(
                    taps * down if down > 1 else 1,
                    cutoff=finer.cutoff,
                    width=2 * finer.half_width,
                    rate=rate,
                    radial=radial and down > 1 and i < layers - critical,
                ),
                up_factor=up,
                down_factor=down,
                clamp=clamp,
            )
            self.layers.append(Layer(channels[max(i - 1, 0)], channels[i], kernel, width, nonlinearity))
        self.image = ToImage(channels[-2], channels[-1], width)
        sizes = [*(grid.size for grid in plan[:-1]), resolution]
        self.names = ["input", *(f"L{i}_{size}_{count}" for i, (size, count) in enumerate(zip(sizes, channels, strict=True)))]

    @property
    def _layers(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    @property
    def affines(self) -> list[Linear]:
        return [self.input.affine, *(layer.affine for layer in self._layers), self.image.affine]

    @property
    def stages(self) -> tuple[Stage, ...]:
        latent, width, rows = self.config["latent_size"], self.config["width"], len(self.names)
        styles, start = [], 0
        for name, affine in zip(self.names, self.affines, strict=True):
            styles.append((f"{name}.affine", start, start + len(affine.bias)))
            start += len(affine.bias)
        return (
            Stage("z", (latent,), self.mapping, labelled=self.classes is not None, spheres=(("z", 0, latent),)),
            Stage("w", (width,), lambda w, labels: w[:, None].repeat(1, rows, 1), centre=lambda: self.mapping.mean),
            Stage(
                "w+",
                (rows, width),
                self.styles,
                centre=lambda: self.mapping.mean.expand(rows, -1),
                layers=tuple((name, i, i + 1) for i, name in enumerate(self.names)),
            ),
            Stage("s", (start,), self.synthesis, takes=("transform", "precision"), layers=tuple(styles)),
        )

    def prepare(self) -> None:
        """Normalise kernels and lay filters out as matrices."""
        for layer in self._layers:
            layer.prepare()

    def initialise(self, rng: torch.Generator) -> None:
        """The random weights that training starts from; a new network's are zero."""
        cutoff = self.input.grid.cutoff
        with torch.no_grad():
            for key, tensor in self.state_dict().items():
                if key.endswith("weight") and key != "input.affine.weight":
                    spread = 1 if tensor.ndim == 4 else 1 / math.sqrt(tensor.shape[1])  # a layer's kernel is normalised anyway
                    tensor.copy_(torch.randn(tensor.shape, generator=rng) * spread)
            drawn = torch.randn(self.input.frequencies.shape, generator=rng)
            radii = drawn.norm(dim=1, keepdim=True)
            self.input.frequencies.copy_(drawn / (radii * radii.square().exp().pow(0.25)) * cutoff)
            self.input.phases.copy_(torch.rand(self.input.phases.shape, generator=rng) - 0.5)

    def styles(self, ws: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, rows, width) -> the styles of all layers side by side; those of the input are (cos, sin, x, y)."""
        return torch.cat([affine(w) for affine, w in zip(self.affines, ws.unbind(1), strict=True)], dim=1)

    def synthesis(self, styles: Tensor, labels: Tensor | None = None, *, transform: Any = None, precision: str = "float32") -> Tensor:
        """(n, all styles) -> images (n, c, h, w)."""
        dtype = PRECISIONS[checks.known(precision, PRECISIONS, "precision")]
        dtype = dtype if dtype is None or processor.half(styles.device.type) else None
        first, *rest, last = styles.split([len(affine.bias) for affine in self.affines], dim=1)
        features = self.input(first, None if transform is None else matrix(transform, like=styles))
        made = []
        for x, image_style, *of_layers in zip(features, last, *rest, strict=True):
            strips = [x]
            for layer, style in zip(self._layers, of_layers, strict=True):
                strips = layer(strips, style, dtype)
            made.append(self.image(strips, image_style))
        images = torch.stack(made)
        return (images if self.clamp is None else images.clamp(-self.clamp, self.clamp)) * self.scale

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        ws = self.mapping(z, labels)[:, None].expand(-1, len(self.names), -1)
        return self.synthesis(self.styles(ws))


def widths(plan: Sequence[Grid], channel_base: float, channel_max: int) -> list[int]:
    """Channels of each layer: fewer the higher its cutoff (appendix D)."""
    return [round(min(channel_base / 2 / grid.cutoff, channel_max)) for grid in plan]


def matrix(transform: Any, *, like: Tensor) -> Tensor:
    """The option ``transform`` as a tensor (3, 3)."""
    try:
        given = transform if isinstance(transform, Tensor) else torch.tensor(transform, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        given = torch.zeros(0)
    if given.shape != (3, 3) or not (isinstance(transform, Tensor) or bool(torch.isfinite(given).all())):
        got = tuple(given.shape) if isinstance(transform, Tensor) else transform
        raise ValueError(f"transform is a 3 x 3 matrix of finite numbers, motion(rotate=10) for example; got {got}.")
    return given.to(like)


class Linear(nn.Module):
    """x @ weight.T + bias; the bias begins at ``bias``."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.full((outputs,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class MappingNetwork(nn.Module):
    """z and the class -> w. The lengths of z and of the class's embedding are divided out."""

    mean: Tensor

    def __init__(self, latent_size: int, width: int, layers: int, classes: int | None) -> None:
        super().__init__()
        self.embed = Linear(classes, width) if classes else None
        sizes = [latent_size + (width if classes else 0), *[width] * layers]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = _normalised(z)
        if self.embed is not None:
            x = torch.cat([x, _normalised(self.embed(class_weights(labels, self.embed.weight.shape[1], z)))], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2) * math.sqrt(2)
        return x


def _normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class FourierFeatures(nn.Module):
    """The input signal (section 3.1): waves whose frequencies fill the first layer's band, turned and moved by a style."""

    frequencies: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, grid: Grid, channels: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("frequencies", torch.zeros(channels, 2))
        self.register_buffer("phases", torch.zeros(channels))
        self.register_buffer("transform", torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        self.weight = nn.Parameter(torch.zeros(channels, channels))
        self.affine = Linear(width, 4)
        self.affine.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, style: Tensor, transform: Tensor | None = None) -> Tensor:
        """(n, 4) -> (n, size, size, c)."""
        turn, move = (style / style[:, :2].norm(dim=1, keepdim=True)).split(2, dim=1)
        cos, sin = turn.unbind(1)
        rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
        given = self.transform if transform is None else transform
        offset = rotation @ (given[:2, 2] - move)[:, :, None]  # (n, 2, 1)
        phases = self.phases + (self.frequencies @ offset).squeeze(2)  # (n, c)
        frequencies = self.frequencies @ (rotation @ given[:2, :2])  # (n, c, 2)
        rate, band = self.grid.rate, self.grid.cutoff
        length = frequencies.square().sum(dim=2).clamp(min=1e-12).sqrt()  # a finite slope at 0
        amplitudes = (1 - (length - band) / (rate / 2 - band)).clamp(0, 1)
        places = (torch.arange(self.grid.size, device=style.device, dtype=style.dtype) + (1 - self.grid.size) / 2) / rate
        along_x, along_y = (places[:, None] * f[:, None] for f in frequencies.unbind(2))  # (n, size, c) each
        angle = along_y[:, :, None] + along_x[:, None] + phases[:, None, None]
        return (torch.sin(2 * math.pi * angle) * amplitudes[:, None, None]) @ self.weight.T


class Layer(nn.Module):
    """A modulated convolution and its filtered nonlinearity.

    Kernels and styles have a root mean square of 1 each, then an output map has an expected one of 1; what the layer's
    input had in training is divided out (``magnitude``, appendix D).
    """

    magnitude: Tensor
    folded: Tensor | None
    power: Tensor | None
    tiled: Tensor | None

    def __init__(self, inputs: int, outputs: int, kernel: int, width: int, nonlinearity: FilteredNonlinearity) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = Linear(width, inputs, 1.0)
        self.nonlinearity = nonlinearity
        self.register_buffer("magnitude", torch.ones(()))
        self.register_buffer("folded", None, persistent=False)
        self.register_buffer("power", None, persistent=False)
        self.register_buffer("tiled", None, persistent=False)

    def prepare(self) -> None:
        """Normalise the kernel once."""
        self.folded, self.power = self._kernel()
        if self.folded.device.type == "cpu" and self.weight.shape[-1] == 3 and min(self.weight.shape[:2]) >= WIDE:
            self.tiled = winograd_strips.transformed(self.folded)
        self.nonlinearity.prepare()

    def _kernel(self) -> tuple[Tensor, Tensor]:
        """The kernel by magnitude, and the power of each pair of maps in it (outputs, inputs)."""
        kernel = self.weight * torch.rsqrt(self.weight.square().mean(dim=(1, 2, 3), keepdim=True))
        folded = kernel * torch.rsqrt(self.magnitude)
        return folded.contiguous(memory_format=torch.channels_last), kernel.square().sum(dim=(2, 3))

    def forward(self, strips: list[Tensor], style: Tensor, dtype: torch.dtype | None) -> list[Tensor]:
        """One image in strips of rows, (rows, width, inputs), and its style (inputs,)."""
        folded, power = self._kernel() if self.folded is None or self.power is None else (self.folded, self.power)
        style = style * torch.rsqrt(style.square().mean() + 1e-20)
        gain = torch.rsqrt(power @ style.square() + 1e-8)
        folded, reach = folded.to(dtype or folded.dtype), self.weight.shape[-1] - 1
        tiled = self.tiled if dtype is None else None

        def convolved(first: int, last: int) -> Tensor:
            x = (_rows(strips, first - reach, last) * style).to(folded.dtype)
            if tiled is None:
                x = F.conv2d(x.permute(2, 0, 1)[None], folded, padding=(0, reach))[0].permute(1, 2, 0)
            else:
                x = winograd_strips.convolved(x, tiled)
            return torch.addcmul(self.bias, x.to(style.dtype), gain)

        return self.nonlinearity(convolved, len(gain))


def _rows(strips: list[Tensor], first: int, last: int) -> Tensor:
    """Rows first..last-1 of an image in strips of the same height (the last one may be lower); zeros lie around it."""
    height, found = len(strips[0]), []
    size = (len(strips) - 1) * height + len(strips[-1])
    for i in range(max(first, 0) // height, -(-min(last, size) // height)):
        found.append(strips[i][max(first - i * height, 0) : last - i * height])
    zeros = [strips[0].new_zeros(count, *strips[0].shape[1:]) for count in (max(-first, 0), max(last - size, 0))]
    return torch.cat([zeros[0], *found, zeros[1]])


class ToImage(nn.Module):
    """The last layer: a modulated 1 x 1 convolution, without demodulation or nonlinearity."""

    magnitude: Tensor

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = Linear(width, inputs, 1.0)
        self.register_buffer("magnitude", torch.ones(()))

    def forward(self, strips: list[Tensor], style: Tensor) -> Tensor:
        """Strips (rows, width, inputs) and a style (inputs,) -> (outputs, height, width)."""
        weight = self.weight * (style * torch.rsqrt(self.magnitude))
        return torch.cat([F.linear(strip, weight, self.bias) for strip in strips]).permute(2, 0, 1)
