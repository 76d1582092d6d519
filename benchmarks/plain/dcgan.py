"""The published DCGAN: the chain of modules of the PyTorch tutorial, in eval mode, norms and all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def plain(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """z (n, size) -> images, layer by layer, with the weights of our network."""
    chain = nn.Sequential(*network.main).eval()

    def images(z: Tensor) -> Tensor:
        with torch.no_grad():
            return chain(z[:, :, None, None])

    return images
