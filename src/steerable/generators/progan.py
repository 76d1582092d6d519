"""The ProGAN family: an image that was grown by doubling its resolution, one block a resolution.

Each convolution is preceded by pixel norm and scaled at run time ("equalised learning rate"); each block has a layer
to RGB of its own, of which one shows (two while the network grows, see ``grow``). ``stylegan1`` grows the same way and
takes its layers from here; how code bases store the weights is in ``progan_layouts``.

Source: Karras, Aila, Laine & Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation",
ICLR 2018: growth section 2, weight scale 4.1, pixel norm 4.2, layers table 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.generators.stages import Options, Stage, class_weights

EPSILON = 1e-8  # under every root
LARGEST = 8192  # pixels a side; more is a damaged file


# ------------------------------------------------------------------ layers


def pixel_norm(x: Tensor) -> Tensor:
    """Every pixel's channels at root mean square 1 (section 4.2)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def doubling(kernel: Tensor) -> Tensor:
    """``(out, in, 3, 3)`` -> ``(in, out, 4, 4)``: nearest up-sampling and the convolution as one transposed convolution.

    Each of the two columns that a pixel is copied to sees the kernel shifted by one, so the transposed kernel is the sum
    of four shifted copies; stride 2, padding 1. It multiplies 4 taps a pixel where the two steps multiply 9.
    """
    padded = F.pad(kernel.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


class Convolution(nn.Module):
    """A convolution at equalised learning rate: its kernel is multiplied by gain / sqrt(fan-in) (section 4.1).

    Args:
        wide, narrow: channels in and out.
        size: of the kernel; the padding keeps the size of the map.
        gain: sqrt 2 before a leaky ReLU, 1 before nothing.
        doubles: up-sample by 2 (nearest) first.
    """

    kernel: Tensor | None

    def __init__(self, wide: int, narrow: int, size: int, *, gain: float = math.sqrt(2), doubles: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(narrow, wide, size, size))
        self.bias = nn.Parameter(torch.zeros(narrow))
        self.scale, self.doubles, self.padding = gain / math.sqrt(wide * size * size), doubles, size // 2
        self.register_buffer("kernel", None, persistent=False)

    def fold(self) -> Tensor:
        kernel = self.weight * self.scale
        return doubling(kernel) if self.doubles else kernel

    def prepare(self) -> None:
        self.kernel = self.fold().contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        kernel = self.fold() if self.kernel is None else self.kernel
        if self.doubles:
            return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
        return F.conv2d(x, kernel, bias, padding=self.padding)


def to_rgb(widths: Sequence[int], image_channels: int, outputs: Sequence[int] | None) -> nn.ModuleDict:
    """The layers to RGB that a file has, by the number of their resolution."""
    kept = range(len(widths)) if outputs is None else outputs
    return nn.ModuleDict({str(k): Convolution(widths[k], image_channels, 1, gain=1.0) for k in kept})


# ------------------------------------------------------------------ growth


def grow(x: Tensor, lod: float, block: Callable[[int, Tensor], Tensor], outputs: nn.ModuleDict, count: int) -> Tensor:
    """Blocks 0 to the one that ``lod`` ends at, its RGB image, and the way back to full size (section 2, figure 2).

    Args:
        lod: level of detail: how many of the last doublings are left out. A fraction blends two resolutions: lod 1.25
            shows three quarters of level 1 and one of level 2.
        block: ``(k, x)`` -> the next x; ``count`` of them.
        outputs: the layers to RGB, before which ``block`` has done all there is to do.
    """
    whole = math.floor(lod)
    last = count - 1 - whole
    before = x
    for k in range(last + 1):
        before, x = x, block(k, x)
    image = _rgb(outputs, last, x)
    if lod > whole:
        image = torch.lerp(image, F.interpolate(_rgb(outputs, last - 1, before), scale_factor=2.0), lod - whole)
    return F.interpolate(image, scale_factor=2.0**whole) if whole else image


def _rgb(outputs: nn.ModuleDict, k: int, x: Tensor) -> Tensor:
    layer = outputs[str(k)]
    return layer(x, layer.bias)


def level_of_detail(lod: float | None, stored: float, count: int, outputs: nn.ModuleDict) -> float:
    """The lod asked for, or the file's own where it is None.

    Raises:
        ValueError: it is no number of 0 to the number of doublings, or the layers to RGB that it shows are not in the file.
    """
    lod = stored if lod is None else lod
    if isinstance(lod, bool) or not isinstance(lod, int | float) or not 0 <= lod <= count - 1:
        raise ValueError(f"lod is how many of {count - 1} doublings are left out, 0 to {count - 1} (None: as the file says); got {lod}.")
    shown = {count - 1 - math.floor(lod), count - 1 - math.ceil(lod)}
    lacking = [k for k in sorted(shown) if str(k) not in outputs]
    if lacking:
        kept = ", ".join(str(count - 1 - int(k)) for k in reversed(list(outputs.keys())))
        raise ValueError(f"lod {lod:g} shows a layer to RGB that this file does not have; it has those of lod {kept}.")
    return float(lod)


# ------------------------------------------------------------------ the network


def side_of(first: int, count: int) -> int:
    """Pixels a side after ``count`` blocks, the first of them ``first`` wide.

    Raises:
        ValueError: more than any generator makes.
    """
    if count < 1 or count > 14 or first * 2 ** (count - 1) > LARGEST:
        raise ValueError(f"it has {count} resolutions from {first} pixels up; 1 and more were expected, {LARGEST} pixels at most.")
    return first * 2 ** (count - 1)


class ProGAN(nn.Module):
    """z -> image, without tanh unless the file says so.

    Args:
        latent_size: of z.
        widths: channels of the blocks, from the smallest resolution up.
        image_channels: 3 or 1.
        first: side of the first map.
        outputs: numbers of the blocks whose layer to RGB the file has; None for all.
        classes: one-hot labels are appended to z.
        normalised: whether z is normalised before labels are appended; it always is after.
        tanh: whether the image ends in one.
        lod: how many of the last doublings the file was trained without; see ``grow``.
    """

    family = "progan"
    options: Options = {"lod": None}  # noqa: RUF012 - never written
    matrix: Tensor | None

    def __init__(
        self,
        latent_size: int,
        widths: Sequence[int],
        *,
        image_channels: int = 3,
        first: int = 4,
        outputs: Sequence[int] | None = None,
        classes: int | None = None,
        normalised: bool = True,
        tanh: bool = False,
        lod: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = {
            "latent_size": latent_size,
            "widths": list(widths),
            "image_channels": image_channels,
            "first": first,
            "outputs": None if outputs is None else list(outputs),
            "classes": classes,
            "normalised": normalised,
            "tanh": tanh,
            "lod": lod,
        }
        side = side_of(first, len(widths))
        self.latent_size, self.widths, self.classes, self.tanh, self.lod = latent_size, tuple(widths), classes, tanh, lod
        self.normalised = normalised or not classes
        self.image_shape = (image_channels, side, side)
        self.first = Convolution(latent_size + (classes or 0), widths[0], first)
        layers = []
        for k, width in enumerate(widths):
            if k:
                layers.append(Convolution(widths[k - 1], width, 3, doubles=True))
            layers.append(Convolution(width, width, 3))
        self.layers = nn.ModuleList(layers)
        self.outputs = to_rgb(widths, image_channels, outputs)
        level_of_detail(lod, lod, len(widths), self.outputs)

    @property
    def stages(self) -> tuple[Stage, ...]:
        zero = torch.zeros(self.latent_size)
        return (
            Stage(
                "z",
                (self.latent_size,),
                self,
                takes=("lod",),
                labelled=self.classes is not None,
                centre=None if self.normalised else lambda: zero,
                spheres=(("z", 0, self.latent_size),) if self.normalised else (),
            ),
        )

    def prepare(self) -> None:
        """Kernels are scaled, and merged with the up-sampling before them."""
        layers: list[Any] = [self.first, *self.layers, *self.outputs.values()]
        for layer in layers:
            layer.prepare()

    def forward(self, z: Tensor, labels: Tensor | None = None, *, lod: float | None = None) -> Tensor:
        lod = level_of_detail(lod, self.lod, len(self.widths), self.outputs)
        if self.classes is not None:
            z = torch.cat([pixel_norm(z) if self.normalised else z, class_weights(labels, self.classes, z)], dim=1)
        z = pixel_norm(z)
        kernel = self.first.fold() if self.first.kernel is None else self.first.kernel  # (c, z, k, k), one pixel in
        x = torch.einsum("nz,czhw->nchw", z, kernel) + self.first.bias[:, None, None]
        image = grow(_active(x), lod, self._block, self.outputs, len(self.widths))
        return torch.tanh(image) if self.tanh else image

    def _block(self, k: int, x: Tensor) -> Tensor:
        for layer in cast("list[Convolution]", list(self.layers)[max(0, 2 * k - 1) : 2 * k + 1]):
            x = _active(layer(x, layer.bias))
        return x


def _active(x: Tensor) -> Tensor:
    """Leaky ReLU, and the norm that stands before every layer that follows."""
    return pixel_norm(F.leaky_relu(x, 0.2))
