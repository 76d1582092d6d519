"""The first StyleGAN's synthesis as published, on a CPU, over the weights of our network: what speed is compared with.

Kernels are scaled at every run; below 128 pixels up-sampling copies pixels before a 3 x 3 convolution, from there on it is
a transposed convolution whose kernel is put together at every run; blur, noise, bias, activation, instance norm and style
are passes of their own (Karras et al., CVPR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def plain(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """w+ (n, rows, w) -> images (n, c, h, w), at lod 0, with the network's fixed noise."""

    def images(codes: Tensor) -> Tensor:
        with torch.no_grad():
            x = network.layers[0].const.repeat(len(codes), 1, 1, 1)
            for i, layer in enumerate(network.layers):
                if i:
                    x = doubled(x, layer) if layer.doubles else F.conv2d(x, scaled(layer.convolution.weight), padding=1)
                x = x + layer.noise * layer.noise_weight.view(1, -1, 1, 1)
                x = x + (layer.convolution.bias if i else layer.bias).view(1, -1, 1, 1)
                x = F.leaky_relu(x, 0.2)
                x = x - x.mean(dim=(2, 3), keepdim=True)
                x = x / torch.sqrt((x**2).mean(dim=(2, 3), keepdim=True) + 1e-8)
                affine = layer.style
                style = F.linear(codes[:, i], affine.weight / math.sqrt(affine.weight.shape[1]), affine.bias)
                style = style.view(-1, 2, layer.channels, 1, 1)
                x = x * (style[:, 0] + 1) + style[:, 1]
            last = network.outputs[str(len(network.widths) - 1)]
            return F.conv2d(x, scaled(last.weight, gain=1.0), last.bias)

    return images


def doubled(x: Tensor, layer: nn.Module) -> Tensor:
    weight = scaled(layer.convolution.weight)
    if layer.side < 128:
        x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    else:
        weight = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
        weight = weight[:, :, 1:, 1:] + weight[:, :, :-1, 1:] + weight[:, :, 1:, :-1] + weight[:, :, :-1, :-1]
        x = F.conv_transpose2d(x, weight.permute(1, 0, 2, 3), stride=2, padding=1)
    return F.conv2d(x, layer.blur, padding=1, groups=layer.channels)


def scaled(weight: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    return weight * (gain / math.sqrt(weight[0].numel()))
