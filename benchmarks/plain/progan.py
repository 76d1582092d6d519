"""The published ProGAN on a CPU, over the weights of our network: what speed is compared with.

Every kernel is scaled at every run; up-sampling copies pixels, then a 3 x 3 convolution reads them (Karras et al., ICLR 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def plain(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """z (n, size) -> images (n, c, h, w), at lod 0."""

    def images(z: Tensor) -> Tensor:
        with torch.no_grad():
            first = network.first
            x = convolution(normed(normed(z[:, :, None, None])), first.weight.flip(2, 3), first.bias, first.weight.shape[-1] - 1)
            x = F.leaky_relu(x, 0.2)
            for layer in network.layers:
                x = normed(x)
                x = F.interpolate(x, scale_factor=2, mode="nearest") if layer.doubles else x
                x = F.leaky_relu(convolution(x, layer.weight, layer.bias, 1), 0.2)
            last = network.outputs[str(len(network.widths) - 1)]
            return convolution(normed(x), last.weight, last.bias, 0, gain=1.0)

    return images


def convolution(x: Tensor, weight: Tensor, bias: Tensor, padding: int, gain: float = math.sqrt(2)) -> Tensor:
    return F.conv2d(x, weight * (gain / math.sqrt(weight[0].numel())), bias, padding=padding)


def normed(x: Tensor) -> Tensor:
    return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)
