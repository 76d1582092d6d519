"""PersonMask: which pixels show the person, hair included, and which the background.

Neighbours: ``faces`` measures colours and brightness of both regions; the weights are in ``weights/person.safetensors``.

A MobileNetV3-like encoder (squeeze-and-excite, hard swish) halves a 256 px input four times; three decoder steps enlarge it
again, each gated by the encoder's map of that size.

Source: MediaPipe selfie segmentation (general model), in the conversion of npm's human-models (see NOTICE). That conversion rounds the hard
swish's 1/6 to half precision; here it is 1/6.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from steerable.features.layers import in_pieces, load, same
from steerable.features.resize import coloured, resized

SIZE = 256


class Excite(nn.Module):
    """One weight a channel, from the channels' means."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, squeezed)
        self.expand = nn.Linear(squeezed, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.expand(F.relu(self.squeeze(x.mean((2, 3))))))[..., None, None]


class Bottleneck(nn.Module):
    """Widen, filter each channel, weigh the channels, narrow; added to the input where the shapes allow it."""

    def __init__(
        self, inputs: int, inside: int, outputs: int, *, kernel: int, stride: int = 1, squeezed: int = 0, hard: bool = False
    ) -> None:
        super().__init__()
        self.widen = nn.Conv2d(inputs, inside, 1)
        self.filter = same(inside, inside, kernel, stride=stride, groups=inside)
        self.excite = Excite(inside, squeezed) if squeezed else None
        self.narrow = nn.Conv2d(inside, outputs, 1)
        self.activation = nn.Hardswish() if hard else nn.ReLU()
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.filter(self.activation(self.widen(x))))
        y = self.narrow(y * self.excite(y) if self.excite is not None else y)
        return x + y if self.residual else y


class Enlarge(nn.Module):
    """Twice the size, merged with the encoder's map of that size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, outputs, 1)
        self.excite = Excite(outputs, outputs)
        self.mix = nn.Conv2d(outputs, outputs, 1)
        self.filter = same(outputs, outputs, 3, groups=outputs)

    def forward(self, x: Tensor, encoded: Tensor) -> Tensor:
        x = F.interpolate(self.narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
        x = F.relu(self.mix(encoded * self.excite(encoded + x) + x))
        return x + F.relu(self.filter(x))


class PersonMask(nn.Module):
    """Images in [-1, 1] -> a soft mask ``(n, 1, h, w)`` in [0, 1] at the images' own size: 1 on the person."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = same(3, 16, 3, stride=2)
        self.to_64 = Bottleneck(16, 16, 16, kernel=3, stride=2, squeezed=8)
        self.to_32 = nn.Sequential(Bottleneck(16, 72, 24, kernel=3, stride=2), Bottleneck(24, 88, 24, kernel=3))
        self.to_16 = nn.Sequential(
            Bottleneck(24, 96, 32, kernel=5, stride=2, squeezed=24, hard=True),
            *(Bottleneck(32, 128, 32, kernel=5, squeezed=32, hard=True) for _ in range(2)),
            *(Bottleneck(32, 96, 32, kernel=5, squeezed=24, hard=True) for _ in range(2)),
        )
        self.inner = nn.Conv2d(32, 128, 1)
        self.inner_gate = nn.Linear(32, 128)
        self.from_16 = Enlarge(128, 24)
        self.from_32 = Enlarge(24, 16)
        self.from_64 = Enlarge(16, 16)
        self.mask = nn.ConvTranspose2d(16, 1, 2, 2)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> PersonMask:
        return load(cls(), tensors)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
        return in_pieces(self._mask, images, 2)

    def _mask(self, images: Tensor) -> Tensor:
        x128 = F.hardswish(self.stem(resized((coloured(images) + 1) / 2, SIZE, SIZE)))
        x64 = self.to_64(x128)
        x32 = self.to_32(x64)
        x = self.to_16(x32)
        x = F.relu(self.inner(x)) * torch.sigmoid(self.inner_gate(x.mean((2, 3))))[..., None, None]
        x = self.from_64(self.from_32(self.from_16(x, x32), x64), x128)
        return resized(torch.sigmoid(self.mask(x)), *images.shape[-2:]).clamp(0, 1)  # rounding
