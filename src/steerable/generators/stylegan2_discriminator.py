"""The discriminator of a style-based generator: residual halvings, rows compared at the end, one score.

``stylegan2`` has the generator, ``modulation`` the layers that both are made of, ``dcgan_discriminator`` the plainer one.

Source: Karras et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020, section 4.1 and figure 7 (c).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.generators.dcgan_discriminator import compared_rows
from steerable.generators.modulation import GAIN, SLOPE, TAPS, Linear


class StyleGAN2Discriminator(nn.Module):
    """image -> (n,) scores before the sigmoid: above 0 is real.

    Args:
        widths: channels at 4 x 4, 8 x 8, ... up to the image's side, as the generator's.
        channels: of the image.
        compared: rows whose deviation each of them is shown.
    """

    def __init__(self, widths: Sequence[int], *, channels: int = 3, compared: int = 4) -> None:
        super().__init__()
        self.compared = compared
        self.colours = Equalised(channels, widths[-1], 1)
        self.blocks = nn.ModuleList(_Halving(wide, narrow) for wide, narrow in pairwise(reversed(widths)))
        self.last = Equalised(widths[0] + bool(compared), widths[0], 3)
        self.hidden, self.score = Linear(widths[0] * 16, widths[0]), Linear(widths[0], 1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = _activated(self.colours(images))
        for block in self.blocks:
            x = block(x)
        if self.compared:
            x = compared_rows(x, self.compared)
        x = _activated(self.last(x))
        return self.score(_activated(self.hidden(x.flatten(1)))).float()[:, 0]

    def initialise(self, rng: torch.Generator) -> None:
        """The random weights that training starts from; a new network's are zero."""
        with torch.no_grad():
            for key, tensor in self.state_dict().items():
                if key.endswith("weight"):
                    tensor.copy_(torch.randn(tensor.shape, generator=rng))


class Equalised(nn.Module):
    """A convolution whose kernel is stored at unit variance."""

    def __init__(self, wide: int, narrow: int, size: int, *, biased: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(narrow, wide, size, size))
        self.bias = nn.Parameter(torch.zeros(narrow)) if biased else None
        self.gain = 1 / sqrt(wide * size**2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, (self.weight * self.gain).to(x.dtype), None if self.bias is None else self.bias.to(x.dtype), padding="same")


class _Halving(nn.Module):
    """Two convolutions, then the filter and every other pixel; a 1 x 1 convolution of the halved input is added."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.first, self.second = Equalised(wide, wide, 3), Equalised(wide, narrow, 3)
        self.skip = Equalised(wide, narrow, 1, biased=False)

    def forward(self, x: Tensor) -> Tensor:
        y = _activated(self.second(_activated(self.first(x))))
        return (_halved(y) + self.skip(_halved(x))) / sqrt(2)


def _halved(x: Tensor) -> Tensor:
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device) / 8
    return F.conv2d(x, torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4), stride=2, padding=1, groups=x.shape[1])


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE) * GAIN
