"""StyleGAN 3's synthesis as the published code runs it on a CPU, over the weights of our network: what speed is compared with.

Each image of a batch gets kernels of its own, normalised, modulated, demodulated and run as one grouped convolution. Its
filters are depthwise convolutions over the whole fine grid: up-sampling fills it with zeros first, down-sampling filters
all of it and then drops samples (Karras et al., NeurIPS 2021, section 3.2 and appendix C.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def plain(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """w+ (n, rows, w_dim) -> images (n, c, h, w)."""

    def images(ws: Tensor) -> Tensor:
        x = network.input(affine(ws[:, 0], network.input.affine)).permute(0, 3, 1, 2).contiguous()
        for layer, w in zip(network.layers, ws[:, 1:].unbind(1), strict=False):
            kernel = layer.weight * layer.weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            styles = affine(w, layer.affine)
            styles = styles * styles.square().mean().rsqrt()
            kernels = kernel[None] * styles[:, None, :, None, None]
            kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
            x = convolution(x, kernels * layer.magnitude.rsqrt())
            x = nonlinearity(x + layer.bias[None, :, None, None], layer.nonlinearity)
        last = network.image
        kernels = last.weight[None] * affine(ws[:, -1], last.affine)[:, None] * last.magnitude.rsqrt()
        x = convolution(x, kernels[..., None, None]) + last.bias[None, :, None, None]
        return (x if network.clamp is None else x.clamp(-network.clamp, network.clamp)) * network.scale

    return images


def affine(w: Tensor, layer: nn.Module) -> Tensor:
    return torch.addmm(layer.bias[None], w, layer.weight.T)


def convolution(x: Tensor, kernels: Tensor) -> Tensor:
    n, narrow, wide, side, _ = kernels.shape
    x = F.conv2d(x.reshape(1, n * wide, *x.shape[2:]), kernels.reshape(n * narrow, wide, side, side), padding=side - 1, groups=n)
    return x.reshape(n, narrow, *x.shape[2:])


def nonlinearity(x: Tensor, layer: nn.Module) -> Tensor:
    up, down = layer.up_factor, layer.down_factor
    total = (layer.out_size - 1) * down + len(layer.down) + len(layer.up) - 1 - x.shape[-1] * up
    before = (total + up) // 2
    x = filtered(F.pad(filled(x, up), (before, total - before) * 2), layer.up * up)
    x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    x = x if layer.clamp is None else x.clamp(-layer.clamp, layer.clamp)
    return filtered(x, layer.down)[:, :, ::down, ::down]


def filled(x: Tensor, up: int) -> Tensor:
    """A grid that is finer by ``up``, zero between the samples."""
    n, channels, height, width = x.shape
    x = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    return x.reshape(n, channels, height * up, width * up)


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel with one kernel, separable (taps,) or not (taps, taps)."""
    channels, kernel = x.shape[1], kernel.flip(list(range(kernel.ndim)))
    if kernel.ndim == 2:
        return F.conv2d(x, kernel[None, None].repeat(channels, 1, 1, 1), groups=channels)
    x = F.conv2d(x, kernel[None, None, :, None].repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(x, kernel[None, None, None, :].repeat(channels, 1, 1, 1), groups=channels)
