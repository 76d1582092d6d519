"""Resizing as two matrix products, so that it is exact, fast, and differentiable in every mode.

Neighbours: the measuring networks call ``resized`` first, to bring images of any size to the one they were trained on.

Both ways agree with ``torch.nn.functional.interpolate(..., align_corners=False)``: enlarging repeats the border pixel beyond the border;
shrinking (``antialias=True`` there) stretches the kernel over the pixels that it merges and leaves out what lies beyond. The cubic kernel
is Keys' with a = -0.75.

Source: Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Kernel = Literal["linear", "cubic"]


def resized(
    images: Float[Tensor, "n c h w"], height: int, width: int, *, kernel: Kernel = "linear", margin: float = 0.0
) -> Float[Tensor, "n c p q"]:
    """Images at another size.

    Args:
        margin: this fraction of the image's size is added on each side first, by repeating the border pixels.
    """
    h, w = images.shape[-2:]
    if (h, w) == (height, width) and not margin:
        return images
    rows = torch.as_tensor(_matrix(h, height, kernel, int(h * margin)), dtype=images.dtype, device=images.device)
    columns = torch.as_tensor(_matrix(w, width, kernel, int(w * margin)), dtype=images.dtype, device=images.device)
    return rows @ (images @ columns.T)


def coloured(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
    """Three channels: greyscale is repeated."""
    channels = images.shape[-3]
    if channels == 3:
        return images
    if channels != 1:
        raise ValueError(f"expected images of 1 or 3 channels, got {tuple(images.shape)}.")
    return images.expand(*images.shape[:-3], 3, *images.shape[-2:])


@lru_cache(maxsize=64)
def _matrix(size: int, to: int, kernel: Kernel, margin: int) -> np.ndarray:
    """(to, size): each new pixel as a weighted sum of the old ones."""
    scale = (size + 2 * margin) / to
    stretch = max(scale, 1.0)
    centre = (np.arange(to) + 0.5) * scale - 0.5 - margin  # of each new pixel, on the old grid
    reach = int(np.ceil((1 if kernel == "linear" else 2) * stretch))
    taps = np.floor(centre)[:, None].astype(int) + np.arange(-reach, reach + 2)  # (to, taps)
    distance = np.abs(taps - centre[:, None]) / stretch
    weights = np.clip(1 - distance, 0, None) if kernel == "linear" else _cubic(distance)
    if scale > 1:
        weights = np.where((taps >= -margin) & (taps < size + margin), weights, 0.0)
    matrix = np.zeros((to, size))
    np.add.at(matrix, (np.arange(to)[:, None], taps.clip(0, size - 1)), weights / weights.sum(1, keepdims=True))
    return matrix.astype(np.float32)


def _cubic(d: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))
