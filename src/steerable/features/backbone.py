"""EfficientNet-Lite0 as a feature extractor: what a picture shows, in 1280 numbers.

Neighbours: ``fitting`` trains small heads on these features, ``evaluation`` measures kernel and perceptual distances with them. Weights:
``weights/efficientnet-lite0.safetensors``, trained on ImageNet (see NOTICE); batch norms are folded into the convolutions, the
classifier is left out.

Source: Tan & Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019; the Lite variant drops
squeeze-and-excite and uses ReLU6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from steerable import shipped as weights
from steerable.features.layers import in_pieces, load, same
from steerable.features.resize import coloured, resized

STAGES = (  # blocks, kernel, stride, expansion, inputs, outputs
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class Inverted(nn.Module):
    """Widen, filter each channel, narrow; added to the input where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = inputs * expansion
        self.widen = nn.Conv2d(inputs, inside, 1) if expansion > 1 else None
        self.filter = same(inside, inside, kernel, stride=stride, groups=inside)
        self.narrow = nn.Conv2d(inside, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.widen(x)) if self.widen is not None else x
        y = self.narrow(F.relu6(self.filter(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Images in [-1, 1] -> ``(n, 1280)``.

    Args:
        size: images are resized to this many pixels a side, a multiple of 32. The network was trained at 224; 64 is 12 times
            faster and keeps a 64 px image as it is. Features of different sizes do not compare.
    """

    num_features = 1280  # the name by which torchmetrics asks

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        if size < 32 or size % 32:
            raise ValueError(f"the backbone's input size is a multiple of 32 from 32 on, got {size}.")
        self.size = size
        self.stem = same(3, 32, 3, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Inverted(outputs if i else inputs, outputs, kernel, 1 if i else stride, expansion) for i in range(blocks)))
            for blocks, kernel, stride, expansion, inputs, outputs in STAGES
        )
        self.head = nn.Conv2d(320, 1280, 1)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], *, size: int = 64) -> EfficientNetLite0:
        return load(cls(size), tensors)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1280"]:
        return in_pieces(lambda piece: self.pooled(self._maps(piece)), images)

    def pooled(self, maps: Sequence[Tensor]) -> Float[Tensor, "n 1280"]:
        """What a call returns, from the maps of ``activations``: for those who need both."""
        return F.relu6(self.head(maps[-1])).mean((2, 3))

    def activations(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, ...]:
        """The map after each of the seven stages, from fine (16 channels, half the size) to coarse (320, a 32nd)."""
        return tuple(self._maps(images))

    def _maps(self, images: Tensor) -> list[Tensor]:
        x = resized(coloured(images), self.size, self.size)
        x = F.relu6(self.stem(x * (127.5 / 128) + 0.5 / 128))  # trained on (byte - 127) / 128
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


@cache
def shipped(size: int = 64) -> EfficientNetLite0:
    """The network with its weights; the same object at every call."""
    return EfficientNetLite0.from_state(weights.tensors("efficientnet-lite0"), size=size)
