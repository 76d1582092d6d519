"""Grids and their low-pass filters, and the nonlinearity between two of them that makes StyleGAN 3 free of aliasing.

A pointwise nonlinearity makes frequencies that its grid cannot hold. So a layer goes to a finer grid, applies it there,
and filters before it comes back: upsample, leaky ReLU, downsample (section 3.2, figure 4b). ``stylegan3`` is the network.

Nothing here inserts zeros, or computes samples to throw them away. A run of samples depends on a short window of the
input, through the same small matrix everywhere (the filter in polyphase form). So a pass along an axis is that matrix
times all windows, channels last, and a strip of rows stays in the cache from the convolution to the fine grid and back.

Source: Karras et al., "Alias-free generative adversarial networks", NeurIPS 2021, sections 2 and 3, appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RUN = 8  # samples that one window makes along a row
CACHED = 2**23  # bytes that are worked on at once, half-way to the fine grid
FINE = 2**21  # and on the fine grid
GRAIN = 4  # rows that are best asked for together

Rows = Callable[[int, int], Tensor]  # first, last -> the rows first..last-1 of an image, (last - first, width, c)


@dataclass(frozen=True)
class Grid:
    """What the samples of a layer can hold: sizes in samples, frequencies in periods an image width (section 3.2)."""

    size: int
    rate: int
    cutoff: float
    half_width: float


def grids(
    resolution: int,
    *,
    layers: int = 14,
    critical: int = 2,
    cutoff: float = 2.0,
    stopband: float = 2**2.1,
    last_stopband: float = 2**0.3,
    margin: int = 10,
) -> list[Grid]:
    """One grid for each layer but the last, and one for the image: cutoffs grow geometrically up to the critical layers.

    Args:
        critical: the last layers that use all frequencies of the image, up to half the resolution.
        cutoff, stopband: of the first layer, where its filter passes half the amplitude, and nothing.
        last_stopband: of the last layer, in units of its cutoff.
        margin: samples beyond each edge of the image.
    """
    found = []
    for layer in range(layers + 1):
        share = min(layer / (layers - critical), 1.0)
        f_c = cutoff * (resolution / 2 / cutoff) ** share
        f_t = stopband * (resolution / 2 * last_stopband / stopband) ** share
        rate = 2 ** math.ceil(math.log2(min(f_t * 2, resolution)))
        size = resolution if layer >= layers - 1 else rate + 2 * margin
        found.append(Grid(size, rate, f_c, max(f_t, rate / 2) - f_c))
    return found


def lowpass(taps: int, *, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor:
    """A windowed sinc of unit sum, (taps,); or a windowed jinc, (taps, taps), whose passband is a disc (appendix C.1).

    Args:
        cutoff, width, rate: half-amplitude frequency, width of the transition band and sampling rate, in one unit.
    """
    beta = _kaiser_beta(2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95)
    places = torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2
    window = torch.special.i0(beta * (1 - (2 * places / max(taps - 1, 1)).square()).clamp(min=0).sqrt())
    if radial:
        distance = torch.hypot(places[:, None], places[None, :]).clamp(min=1e-9) / rate
        kernel = torch.special.bessel_j1(2 * math.pi * cutoff * distance) / (math.pi * distance) * torch.outer(window, window)
    else:
        kernel = torch.sinc(2 * cutoff / rate * places) * window
    return (kernel / kernel.sum()).float()


def _kaiser_beta(attenuation: float) -> float:
    """Kaiser's formula: the shape of the window for an attenuation in dB."""
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation > 21 else 0.0


class FilteredNonlinearity(nn.Module):
    """(in_size, in_size, c) -> (out_size, out_size, c): upsample, sqrt 2 times leaky ReLU, clamp, downsample.

    Zeros lie around the input, and the output's frame is centred on it. Channels come last.

    Args:
        in_size, out_size: samples a side.
        up, down: filters with unit sum, (taps,); ``down`` may be (taps, taps).
        up_factor, down_factor: to the fine grid and back.
        clamp: the largest magnitude that leaves the nonlinearity; None has none.
    """

    up: Tensor
    down: Tensor
    widen: Tensor | None
    heighten: Tensor | None
    flatten: Tensor | None
    narrow: Tensor | None

    def __init__(
        self, in_size: int, out_size: int, up: Tensor, down: Tensor, *, up_factor: int, down_factor: int, clamp: float | None = 256.0
    ) -> None:
        super().__init__()
        self.in_size, self.out_size, self.clamp = in_size, out_size, clamp
        self.up_factor, self.down_factor = up_factor, down_factor
        self.register_buffer("up", up)
        self.register_buffer("down", down)
        fine = (out_size - 1) * down_factor + len(down)  # samples a side of the fine grid
        zeros = fine + len(up) - 1 - in_size * up_factor  # around the input there; negative where some of it is cut off
        before = (zeros + up_factor) // 2
        self.phase = before % up_factor
        unit = up_factor // math.gcd(up_factor, down_factor)  # a strip begins where a coarse sample lies
        self.strip = min(range(unit * -(-4 // unit), 13 + unit, unit), key=self._cost)
        self.step = self.strip * down_factor // up_factor  # input rows from strip to strip
        self.strips = -(-out_size // self.strip)
        self.fine_strip = (self.strip - 1) * down_factor + len(down)
        run = math.lcm(up_factor * RUN, down_factor * RUN)
        self.fine_width = -(-(fine + len(up)) // run) * run
        self.strip_rows = self._reach(self.fine_strip)
        self.top = before // up_factor  # rows of zeros above the input, and columns left of it; negative: cut off
        self.right = self.fine_width // up_factor - in_size - self.top
        for name in ("widen", "heighten", "flatten", "narrow"):
            self.register_buffer(name, None, persistent=False)

    def _cost(self, strip: int) -> int:
        """Multiplications along the columns if strips have this height."""
        fine = (strip - 1) * self.down_factor + len(self.down)
        return -(-self.out_size // strip) * fine * (self._reach(fine) + strip + 8)

    def _reach(self, fine: int) -> int:
        """How many input samples the first ``fine`` samples of the fine grid depend on."""
        return (fine - 1 + len(self.up) - 1 - self.phase) // self.up_factor + 1

    def prepare(self) -> None:
        """Lay the filters out as matrices; sqrt 2 goes with the filter up, for leaky ReLU keeps positive factors."""
        self.widen, self.heighten, self.flatten, self.narrow = self._matrices()

    def _matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        up = self.up * self.up_factor
        widen = self._upwards(up, self.up_factor * RUN)
        heighten = self._upwards(up * math.sqrt(2), self.fine_strip)
        if self.down.ndim == 2:
            return widen, heighten, self.down.flip(0, 1)[None, None], self.down
        down = self.down.flip(0)
        rows = F.pad(_banded(down, self.strip, self.down_factor), (0, 0, 0, 1))  # one row of zeros: the last window is whole
        return widen, heighten, rows, _banded(down, RUN, self.down_factor)

    def _laid_out(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What ``prepare`` has kept, or the same anew."""
        if self.widen is None or self.heighten is None or self.flatten is None or self.narrow is None:
            return self._matrices()
        return self.widen, self.heighten, self.flatten, self.narrow

    def _upwards(self, kernel: Tensor, fine: int) -> Tensor:
        """(fine, reach): fine[j] = sum over i of kernel[j - factor i + taps - 1 - phase] coarse[i]."""
        taps, reach = len(kernel), self._reach(fine)
        places = (
            torch.arange(fine, device=kernel.device)[:, None]
            - self.up_factor * torch.arange(reach, device=kernel.device)[None, :]
            + (taps - 1 - self.phase)
        )
        return torch.where((places >= 0) & (places < taps), kernel[places.clamp(0, taps - 1)], 0.0)

    def forward(self, rows: Rows, channels: int) -> list[Tensor]:
        """The output in strips, (a few rows, out_size, c) each, of an input that is asked for a few rows at a time."""
        widen, heighten, flatten, narrow = self._laid_out()
        made: list[Tensor] = []
        coarse, top = self._margined(rows, channels, 0, self._ahead(self.strip_rows + 1, channels)), 0
        some, most = self._at_once(channels) if heighten.device.type == "cpu" else (channels, self.strips)
        for first in range(0, self.strips, most):
            count = min(most, self.strips - first)
            begin, height = first * self.step, (count - 1) * self.step + self.strip_rows
            bottom = top + len(coarse)
            if bottom <= begin + height:  # one row more than what is read: the last window ends in it
                more = self._margined(rows, channels, bottom, self._ahead(begin + height + 1, channels, bottom))
                coarse, top = torch.cat([coarse[begin - top :], more]), begin
            samples = height * coarse.shape[1] + widen.shape[1] - RUN
            parts = []
            for part in coarse[begin - top :].split(some, dim=2):
                wide = _windows(widen, part.flatten(0, 1)[:samples], RUN).view(height, -1)
                strips = (heighten @ wide[i : i + self.strip_rows] for i in range(0, count * self.step, self.step))
                parts.append([self._down(self._nonlinearity(fine), part.shape[2], flatten, narrow) for fine in strips])
            made += [torch.cat(strip, dim=2) for strip in zip(*parts, strict=True)]
        made[-1] = made[-1][: self.out_size - (self.strips - 1) * self.strip]
        return made

    def _ahead(self, needed: int, channels: int, read: int = 0) -> int:
        """Up to which row to ask for at once: as much as the cache holds, in steps of GRAIN rows of the input."""
        if self.up.device.type != "cpu":
            return max(needed, self.in_size + self.top)
        ahead = max(needed, read + CACHED // (4 * self.in_size * channels)) - self.top
        return -(-ahead // GRAIN) * GRAIN + self.top

    def _margined(self, rows: Rows, channels: int, first: int, last: int) -> Tensor:
        """Rows with the zeros around the input, counted from the first row of zeros."""
        first, last = first - self.top, last - self.top
        begin, end = max(first, 0), min(last, self.in_size)
        if begin >= end:
            return self.up.new_zeros(last - first, self.fine_width // self.up_factor, channels)
        return F.pad(rows(begin, end), (0, 0, self.top, self.right, begin - first, last - end))

    def _at_once(self, channels: int) -> tuple[int, int]:
        """Channels of which a strip of the fine grid stays in the cache, and strips of them half-way to it, shared out evenly."""
        fine = 4 * self.fine_width * self.fine_strip
        some = 16 * -(-channels // (16 * -(-fine * channels // FINE)))
        height = CACHED // (4 * self.fine_width * some)
        most = min(max(1, (height - self.strip_rows) // self.step + 1), self.strips)
        return some, -(-self.strips // -(-self.strips // most))

    def _nonlinearity(self, x: Tensor) -> Tensor:
        if self.clamp is None:
            return F.leaky_relu(x, 0.2)
        return F.leaky_relu_(x.clamp(-self.clamp / 0.2, self.clamp), 0.2)  # clamps to the same as afterwards, in memory of its own

    def _down(self, fine: Tensor, channels: int, flatten: Tensor, narrow: Tensor) -> Tensor:
        """(fine rows, fine width * c) -> (strip, out_size, c)."""
        if flatten.ndim == 4:
            image = fine.view(1, self.fine_strip, self.fine_width, channels).permute(0, 3, 1, 2)
            kernel = flatten.expand(channels, 1, -1, -1)
            return F.conv2d(image, kernel, stride=self.down_factor, groups=channels)[0].permute(1, 2, 0)[:, : self.out_size]
        flat = (flatten @ fine).view(-1, channels)
        hop = self.down_factor * RUN
        windows = self.strip * self.fine_width // hop
        flat = flat[: (windows - 1) * hop + narrow.shape[1]]
        return _windows(narrow, flat, hop).view(self.strip, -1, channels)[:, : self.out_size]


def _banded(kernel: Tensor, rows: int, stride: int) -> Tensor:
    """(rows, window): the kernel, moved by ``stride`` from row to row."""
    window = (rows - 1) * stride + len(kernel)
    return torch.stack([F.pad(kernel, (row * stride, window - len(kernel) - row * stride)) for row in range(rows)])


def _windows(matrix: Tensor, x: Tensor, hop: int) -> Tensor:
    """The matrix (rows, window) times each window of x (samples, c), one every ``hop`` samples: (windows, rows, c)."""
    windows = windows_of(x, matrix.shape[1], hop)
    return torch.bmm(matrix.expand(len(windows), -1, -1), windows)


def windows_of(x: Tensor, size: int, hop: int) -> Tensor:
    """(samples, c) -> (windows, size, c), one every ``hop`` samples: a view, or a copy where gradients flow back.

    The gradient of torch's own view knows no ``vmap``; that of blocks side by side does.
    """
    if not x.requires_grad:
        return x.unfold(0, size, hop).transpose(1, 2)
    count, blocks = (len(x) - size) // hop + 1, -(-size // hop)
    x = F.pad(x, (0, 0, 0, (count + blocks - 1) * hop - len(x))).unflatten(0, (-1, hop))
    return torch.cat([x[i : i + count, : size - i * hop] for i in range(blocks)], dim=1)
