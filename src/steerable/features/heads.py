"""Measurements of rendered heads: yaw, pitch, light, hue, size and background, read back from the picture by a small network.

``rendered`` draws the heads and knows the truth; ``training.regressor`` trains the network on both. Two of other seeds are needed, one to
train a generator by and one to judge it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steerable.features.network import NetworkFeature
from steerable.protocols import Images
from steerable.rendered import FACTORS

SIDE = 32  # the side that the network reads; others are resized


class HeadNetwork(nn.Module):
    """Images (n, 3, h, w) -> (n, 6) numbers in the units of ``FACTORS``. Smooth activations: its gradients train generators."""

    def __init__(self, widths: Sequence[int] = (24, 48, 96), hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(narrow, wide, 5 if i == 0 else 3, 2, 2 if i == 0 else 1)
            for i, (narrow, wide) in enumerate(zip((3, *widths[:-1]), widths, strict=True))
        )
        self.joined = nn.Linear(widths[-1] * (SIDE // 2 ** len(widths)) ** 2, hidden)
        self.numbers = nn.Linear(hidden, len(FACTORS))
        ends = torch.tensor([[factor.low, factor.high] for factor in FACTORS])
        self.register_buffer("middle", ends.mean(1), persistent=False)
        self.register_buffer("reach", (ends[:, 1] - ends[:, 0]) / 2, persistent=False)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> HeadNetwork:
        """The network of these weights, frozen."""
        widths = [tensors[f"layers.{i}.weight"].shape[0] for i in range(sum(key.startswith("layers") for key in tensors) // 2)]
        network = cls(widths, len(tensors["joined.weight"]))
        network.load_state_dict(dict(tensors))
        return network.eval().requires_grad_(False)

    def forward(self, images: Images) -> Tensor:
        x = images.expand(-1, 3, -1, -1)
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        for layer in self.layers:
            x = F.silu(layer(x))
        return self.get_buffer("middle") + self.get_buffer("reach") * self.numbers(F.silu(self.joined(x.flatten(1))))


def head_features(network: HeadNetwork) -> tuple[NetworkFeature, ...]:
    """One feature a factor, of its name and unit; they share one run of the network."""
    return tuple(
        NetworkFeature(factor.name, (factor.name,), factor.unit, "l1", network, lambda output, i=i: output[:, i : i + 1])
        for i, factor in enumerate(FACTORS)
    )
