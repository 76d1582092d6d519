"""The parts of StyleGAN 2: mapping MLP, modulated convolution, the path around a block, colours of a resolution, doubling of an image.

``stylegan2`` joins them to a network. A modulated convolution is written in two ways that give the same numbers: the
style scales the kernel (as published) or, the same by linearity, the activations before and after an ordinary
convolution. Whichever of the two is smaller is scaled.

What makes it faster than the published form on a CPU, most first: no grouped convolutions (one image at a time where
each has kernels of its own, all at once where they share them; three times at a batch of 8); Winograd's algorithm for
wide layers (see ``winograd``; 14 % of an image at 256 px); activations and kernels kept in
channels-last order, so that nothing is copied (the largest doubling convolution and its blur then take a third of the
time); bias, noise and activation in place, their gains folded. Where bfloat16 is asked for and the processor multiplies
tiles of it (AMX), a doubling and its blur are one convolution (10 % of an image at 256 px), and wide layers leave
Winograd's algorithm to it.

Source: Karras, Laine, Aittala, Hellsten, Lehtinen & Aila, "Analyzing and improving the image quality of StyleGAN",
CVPR 2020, section 2.2 (eq. 1 to 3) and appendix B; Karras et al., "Training generative adversarial networks with limited
data", NeurIPS 2020, for the clamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steerable.generators import processor, winograd

EPSILON = 1e-8
SLOPE, GAIN = 0.2, sqrt(2)  # of the leaky ReLU, which is followed by a gain that keeps the variance
TAPS = (1.0, 3.0, 3.0, 1.0)  # the low-pass filter of all resampling, along each axis


def unit(x: Tensor) -> Tensor:
    """Each row at root mean square 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


def doubled(image: Tensor) -> Tensor:
    """An image at twice the size: zeros between the pixels, then the filter. One transposed convolution does both."""
    channels = image.shape[1]
    taps = torch.tensor(TAPS, dtype=image.dtype, device=image.device) / 4
    return F.conv_transpose2d(image, torch.outer(taps, taps).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


class Linear(nn.Module):
    """``x W^T gain + b rate``: the weight is stored at unit variance, divided by the learning-rate multiplier ``rate``."""

    def __init__(self, wide: int, narrow: int, *, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(narrow, wide))
        self.bias = nn.Parameter(torch.zeros(narrow))
        self.rate, self.gain = rate, rate / sqrt(wide)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x * self.gain, self.weight, self.bias * self.rate)


class Mapping(nn.ModuleList):
    """z -> w: linear layers, each with a leaky ReLU. ``widths`` from the input to w."""

    def __init__(self, widths: Sequence[int], *, rate: float) -> None:
        super().__init__(Linear(wide, narrow, rate=rate) for wide, narrow in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = F.leaky_relu(layer(x), SLOPE) * GAIN
        return x


class Convolution(nn.Module):
    """A modulated, demodulated convolution with noise, bias and leaky ReLU, at the same or at twice the size.

    Demodulation divides output channel o by ``sqrt(sum_i s_i^2 sum_k w_oik^2 + epsilon)`` (eq. 3), so the sums over k
    are worked out once. The leaky ReLU's gain is positive, so it is moved in front of it, into the demodulation, the
    noise and the bias.

    Args:
        wide, narrow: channels in and out.
        size: of the output's side.
        w_dim: width of w.
        doubles: whether the output is twice as large as the input.
        clamp: largest magnitude of an output.
        scaled: whether epsilon is added to the sums of kernels at variance 1 / (9 wide), as in the first code, and not
            of kernels at variance 1, as in ADA's.
    """

    noise: Tensor
    energy: Tensor | None
    grain: Tensor | None
    points: Tensor | None
    coarse: Tensor | None
    phases: Tensor | None

    def __init__(self, wide: int, narrow: int, size: int, w_dim: int, *, doubles: bool, clamp: float | None, scaled: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(narrow, wide, 3, 3))
        self.bias = nn.Parameter(torch.zeros(narrow))
        self.affine = Linear(w_dim, wide)
        nn.init.ones_(self.affine.bias)
        self.register_buffer("noise", torch.zeros(size, size))
        self.strength = nn.Parameter(torch.zeros(()))
        self.doubles, self.clamp = doubles, clamp
        self.epsilon = EPSILON * 9 * wide if scaled else EPSILON
        inputs = (size // 2) ** 2 if doubles else size**2
        self.thin = self.weight.numel() < wide * inputs + narrow * size**2  # the kernel is smaller than the activations
        self.thin_phases = 4 * self.weight.numel() < wide * inputs
        self.wide_enough = not doubles and min(wide, narrow) >= winograd.WIDE and size >= 16  # for Winograd's algorithm to pay
        for name in ("energy", "grain", "points", "coarse", "phases"):  # worked out by prepare()
            self.register_buffer(name, None, persistent=False)

    def prepare(self) -> None:
        """What depends on the weights alone; kernels in the order of memory that convolutions run in."""
        self.energy = self.weight.detach().square().sum((2, 3))
        self.grain = (GAIN * self.strength * self.noise).detach()[None, None]
        self.points = winograd.evaluated(self.weight.detach()) if self.wide_enough else None
        kernels = self.weight.data.transpose(0, 1) if self.doubles else self.weight.data
        kernels = kernels.contiguous(memory_format=torch.channels_last)
        self.weight.data = kernels.transpose(0, 1) if self.doubles else kernels
        self.coarse = None if self.thin else self.weight.detach().bfloat16()
        phases = _phases(self.weight.detach()) if self.doubles and processor.has_tiles("cpu") else None
        self.phases = phases if phases is None or self.thin_phases else phases.bfloat16()

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | Literal["fixed"] | None, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """(n, wide, ...) activations, (n, wide) styles, (1 or n, 1, size, size) noise -> (n, narrow, size, size).

        ``dtype`` is the convolution's alone: everything else stays in float32.
        """
        energy = self.weight.square().sum((2, 3)) if self.energy is None else self.energy
        demodulation = GAIN * torch.rsqrt(style.square() @ energy.T + self.epsilon)  # (n, narrow)
        bias = GAIN * self.bias
        tiles = dtype == torch.bfloat16 and processor.has_tiles(x.device.type)
        if tiles and self.phases is not None:
            x = _added(self._by_phases(x, style, demodulation, self.phases), bias[:, None, None])
        elif not tiles and self.points is not None and self._by_winograd(x):
            x = winograd.convolved(x * style[:, :, None, None], self.points)
            x = torch.addcmul(bias[:, None, None], x, demodulation[:, :, None, None])
        elif self.thin and len(x) == 1:
            kernel = self.weight * style[0, :, None, None] * demodulation[0, :, None, None, None]
            x = self._convolved(x.to(dtype), kernel.to(dtype), bias)
        else:
            kernel = self.weight.to(dtype) if self.coarse is None or dtype != torch.bfloat16 else self.coarse
            x = self._convolved((x * style[:, :, None, None]).to(dtype), kernel, None)
            x = torch.addcmul(bias[:, None, None], x, demodulation[:, :, None, None])
        if isinstance(noise, Tensor):
            x = x + GAIN * self.strength * noise
        elif noise == "fixed":
            x = _added(x, GAIN * self.strength * self.noise if self.grain is None else self.grain)
        return _activated(x, self.clamp)

    def _by_phases(self, x: Tensor, style: Tensor, demodulation: Tensor, phases: Tensor) -> Tensor:
        """A doubling and its blur in bfloat16, as one convolution that makes the four pixels of each pixel at once.

        It has four times the multiplications, which tiles have to spare, and neither a blur nor what lies before it in memory.
        """
        if self.thin_phases and len(x) == 1:
            kernel = phases * style[0, :, None, None] * demodulation[0].repeat(4)[:, None, None, None]
            return _interleaved(F.conv2d(x.bfloat16(), kernel.bfloat16(), padding=1), self.bias.dtype)
        made = F.conv2d((x * style[:, :, None, None]).bfloat16(), phases.bfloat16(), padding=1)
        return _interleaved(made, self.bias.dtype) * demodulation[:, :, None, None]

    def _convolved(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        if self.doubles:
            x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2).to(self.bias.dtype)
            taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device) / 4
            return F.conv2d(x, torch.outer(taps, taps).expand(len(kernel), 1, 4, 4), bias, padding=1, groups=len(kernel))
        if bias is None or x.dtype == bias.dtype:
            return F.conv2d(x, kernel, bias, padding=1).to(self.bias.dtype)
        return _added(F.conv2d(x, kernel, padding=1).to(bias.dtype), bias[:, None, None])

    def _by_winograd(self, x: Tensor) -> bool:
        """Where it is faster: on a CPU and without a graph. Without tiles it is as fast as a convolution in bfloat16, without its error."""
        return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


def _phases(kernel: Tensor) -> Tensor:
    """A kernel (narrow, wide, 3, 3) of a doubling and the blur after it as four, (4 narrow, wide, 3, 3), one for each pixel made of one.

    Both together are six taps an axis, one for each distance -2 ... 3 of a new pixel from twice the place of an old one.
    """
    taps = torch.tensor(TAPS, dtype=kernel.dtype, device=kernel.device) / 4
    blurred = F.conv2d(kernel.flatten(0, 1)[:, None], torch.outer(taps, taps)[None, None], padding=3).view(*kernel.shape[:2], 6, 6)
    places = ([4, 2, 0], [5, 3, 1])
    kernels = torch.cat([blurred[:, :, rows][:, :, :, columns] for rows in places for columns in places])
    return kernels.contiguous(memory_format=torch.channels_last)


def _interleaved(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, 4 c, h, w) -> (n, c, 2 h, 2 w), channels last."""
    x = x.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1)).transpose(2, 3)  # (n, h, 2, w, 2, c)
    made = x.new_empty(x.shape, dtype=dtype).copy_(x)  # in one pass
    return made.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _added(x: Tensor, constant: Tensor) -> Tensor:
    """x + constant, in place where no graph needs x, which was made in this layer."""
    return x + constant if torch.is_grad_enabled() else x.add_(constant)


class Colours(nn.Module):
    """The share of the image that one resolution draws: modulated 1 x 1 kernels, not demodulated."""

    def __init__(self, wide: int, channels: int, w_dim: int, *, clamp: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, wide, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = Linear(w_dim, wide)
        nn.init.ones_(self.affine.bias)
        self.gain, self.clamp = 1 / sqrt(wide), clamp

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        kernels = (self.gain * style)[:, :, None] * self.weight[:, :, 0, 0].T  # (n, wide, channels)
        image = (x.permute(0, 2, 3, 1).flatten(1, 2).to(kernels.dtype) @ kernels).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        image = image + self.bias[:, None, None]
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)


class Around(nn.Module):
    """The path around a block that doubles: 1 x 1 kernels, which nothing modulates, then the doubling of an image."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(narrow, wide, 1, 1))
        self.gain = 1 / sqrt(wide)

    def forward(self, x: Tensor) -> Tensor:
        return doubled(F.conv2d(x, self.gain * self.weight))


def _activated(x: Tensor, clamp: float | None) -> Tensor:
    if torch.is_grad_enabled():
        x = F.leaky_relu(x, SLOPE)
        return x if clamp is None else x.clamp(-clamp, clamp)
    x = F.leaky_relu_(x, SLOPE)
    return x if clamp is None else x.clamp_(-clamp, clamp)
