"""StyleGAN 2's synthesis as the published code runs it on a CPU, over the weights of our network: what speed is compared with.

Each image of a batch gets kernels of its own, modulated, demodulated and run as one grouped convolution; doubling is a
transposed convolution; every filter is a depthwise convolution over a padded (and for the image zero-filled) grid;
noise, bias, activation, gain and clamp are passes of their own (Karras et al., CVPR 2020, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def plain(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """w+ (n, rows, w_dim) -> images (n, c, h, w)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    filter_ = torch.outer(taps, taps) / taps.sum() ** 2

    def images(ws: Tensor) -> Tensor:
        x = network.const[None].repeat(len(ws), 1, 1, 1)
        image = None
        for i, side in enumerate(network.sides):
            block = getattr(network, f"b{side}")
            if i:
                x = convolution(x, ws[:, 2 * i - 1], block.conv0)
            x = convolution(x, ws[:, 2 * i], block.conv1)
            share = colours(x, ws[:, 2 * i + 1], block.torgb)
            image = share if image is None else filtered(filled(image), filter_ * 4, (2, 1, 2, 1)) + share
        return image

    def convolution(x: Tensor, w: Tensor, layer: nn.Module) -> Tensor:
        styles = affine(w, layer.affine)
        kernels = layer.weight[None] * styles[:, None, :, None, None]  # (n, narrow, wide, 3, 3)
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + layer.epsilon).rsqrt()
        n, narrow, wide, *_ = kernels.shape
        x = x.reshape(1, n * wide, *x.shape[2:])
        if layer.doubles:
            kernels = kernels.transpose(1, 2).reshape(n * wide, narrow, 3, 3)
            x = F.conv_transpose2d(x, kernels, stride=2, groups=n)
            x = filtered(x, filter_ * 4, (1, 1, 1, 1))
        else:
            x = F.conv2d(x, kernels.reshape(n * narrow, wide, 3, 3), padding=1, groups=n)
        x = x.reshape(n, narrow, *x.shape[2:])
        x = x.add_(layer.noise * layer.strength)
        x = F.leaky_relu(x + layer.bias[None, :, None, None], 0.2) * 2**0.5
        return x if layer.clamp is None else x.clamp(-layer.clamp, layer.clamp)

    def colours(x: Tensor, w: Tensor, layer: nn.Module) -> Tensor:
        styles = affine(w, layer.affine) * layer.gain
        kernels = layer.weight[None] * styles[:, None, :, None, None]
        n, channels, wide, *_ = kernels.shape
        image = F.conv2d(x.reshape(1, n * wide, *x.shape[2:]), kernels.reshape(n * channels, wide, 1, 1), groups=n)
        image = image.reshape(n, channels, *x.shape[2:]) + layer.bias[None, :, None, None]
        return image if layer.clamp is None else image.clamp(-layer.clamp, layer.clamp)

    return images


def affine(w: Tensor, layer: nn.Module) -> Tensor:
    return torch.addmm(layer.bias[None], w, (layer.weight * layer.gain).T)


def filled(x: Tensor) -> Tensor:
    """Zeros between the pixels."""
    n, channels, height, width = x.shape
    x = F.pad(x.reshape(n, channels, height, 1, width, 1), [0, 1, 0, 0, 0, 1])
    return x.reshape(n, channels, 2 * height, 2 * width)


def filtered(x: Tensor, kernel: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Every channel by one filter."""
    channels = x.shape[1]
    return F.conv2d(F.pad(x, padding), kernel.flip(0, 1)[None, None].repeat(channels, 1, 1, 1), groups=channels)
