"""Layers shared by the measuring networks, and how a frozen network gets its weights.

Neighbours: ``resize`` brings images to a network's input size; ``face_networks``, ``face_mesh``, ``person`` and ``backbone``
are built from what is here. Everything is differentiable in forward and in reverse mode and runs under ``torch.func``.

The networks come from TensorFlow, whose strided "same" convolution pads an even-sized map at its end only. Torch pads both
sides alike, so ``strided_same`` gives the kernel a leading row and column of zeros instead: the same numbers, and no padded
copy of the map. Weights are kept channels-last, and batches are cut into small pieces, a few rows a thread: on a CPU that
is up to 4 times faster than one large batch, because a piece's maps stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Network = TypeVar("Network", bound=nn.Module)


def strided_same(inputs: int, outputs: int, kernel: int, *, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """A stride-2 convolution of an even-sized map, padded as TensorFlow's "same" does. ``load`` fits the kernel to it."""
    return nn.Conv2d(inputs, outputs, kernel + 1, 2, padding=kernel // 2, groups=groups, bias=bias)


def same(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the map's size, or halves it."""
    if stride == 2:
        return strided_same(inputs, outputs, kernel, groups=groups, bias=bias)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)


class Separable(nn.Module):
    """A depthwise 3x3 convolution, then a pointwise one with the bias."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = same(inputs, inputs, 3, stride=stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def load(network: Network, tensors: Mapping[str, Tensor]) -> Network:
    """Put the weights in, freeze the network, set it to eval mode and to the fast memory layout.

    Raises:
        ValueError: a name or a shape of the weights is not the network's.
    """
    own = network.state_dict()
    if wrong := sorted(own.keys() ^ tensors.keys()):
        raise ValueError(f"these weights are not of a {type(network).__name__}: {', '.join(wrong[:3])} missing or unexpected.")
    state = {name: _fit(tensor.float(), own[name]) for name, tensor in tensors.items()}
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{type(network).__name__}'s {name} is {tuple(own[name].shape)}, got {tuple(tensor.shape)}.")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _fit(tensor: Tensor, own: Tensor) -> Tensor:
    leading = tensor.ndim == 4 and own.ndim == 4 and own.shape[-1] == tensor.shape[-1] + 1
    return F.pad(tensor, (1, 0, 1, 0)) if leading else tensor


def in_pieces(network: Callable[[Tensor], Tensor], images: Tensor, rows: int = 4) -> Tensor:
    """``network(images)``, a few rows for each thread at a time."""
    rows *= torch.get_num_threads()
    if len(images) <= rows:
        return network(images)
    return torch.cat([network(piece) for piece in images.split(rows)])
