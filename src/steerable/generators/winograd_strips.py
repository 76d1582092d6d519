"""3 x 3 convolution of a strip of rows on processors, by Winograd's minimal filtering: a quarter of the multiplications.

A tile of 4 x 4 outputs is a product of polynomials; evaluated at six points along each axis it is 36 products instead of
144, each of which, over all tiles and channels, is one matrix product. The points 0, 1, -1, 1/2, -2 and infinity keep
rounding near 2e-6 of the output's size. Channels come last. ``stylegan3`` uses it.

Sources: Lavin & Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.1; Barabasz et al.,
"Error analysis and improving the accuracy of Winograd convolution", ACM TOMS 46, 2020, for the points.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.generators.filters import windows_of

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
TILE, TAPS = 4, 3
WINDOW = TILE + TAPS - 1


def transformed(kernel: Tensor) -> Tensor:
    """A kernel (outputs, inputs, 3, 3) at the 36 points: (36, inputs, outputs)."""
    g = _matrices(kernel)[0]
    return torch.einsum("pk,oikl,ql->pqio", g, kernel, g).flatten(0, 1).contiguous()


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """All rows and columns of an image (rows + 2, width, inputs) with two zeros at its left and right: (rows, width + 2, outputs).

    Args:
        kernel: ``transformed``.
    """
    _, b, a = _matrices(x)
    rows, columns, channels = x.shape[0] - 2, x.shape[1] + 2, kernel.shape[2]
    high, wide = -(-rows // TILE), -(-columns // TILE)
    # The last window of a row ends in the zeros that begin the row below; a row more ends the last one.
    x = F.pad(x, (0, 0, 2, TILE * wide - columns, 0, TILE * high + 3 - len(x)))
    pixels = x.flatten(0, 1)[: (TILE * high + 2) * TILE * wide + 2]
    x = _each(b, pixels)  # (rows * wide, 6, inputs)
    x = _each(b, x.view(TILE * high + 2, -1))  # (high, 6, wide * 6 * inputs)
    x = x.view(high, WINDOW, wide, WINDOW, -1).permute(1, 3, 0, 2, 4).reshape(WINDOW**2, high * wide, -1)
    x = torch.bmm(x, kernel)  # (36, tiles, outputs)
    x = a @ x.view(WINDOW, -1)  # (4, 6 * tiles * outputs)
    x = a @ x.view(TILE, WINDOW, -1)  # (4, 4, tiles * outputs)
    x = x.view(TILE, TILE, high, wide, channels).permute(2, 0, 3, 1, 4).reshape(TILE * high, TILE * wide, channels)
    return x[:rows, :columns]


def _each(matrix: Tensor, x: Tensor) -> Tensor:
    """The matrix (6, 6) times the windows of x (samples, values) that a tile each needs: (windows, 6, values)."""
    windows = windows_of(x, WINDOW, TILE)
    return torch.bmm(matrix.expand(len(windows), -1, -1), windows)


def _matrices(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """G, B and A, transposed as they are used: of kernels (6, 3), inputs (6, 6) and outputs (4, 6)."""
    return tuple(torch.tensor(rows, dtype=like.dtype, device=like.device) for rows in (G, B, A))  # type: ignore[return-value]


def _polynomial(roots: tuple[float, ...]) -> list[float]:
    """Coefficients of the product of (x - root), lowest first, six of them."""
    found = [1.0]
    for root in roots:
        found = [low - root * high for low, high in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found + [0.0] * (WINDOW - len(found))


_OTHERS = [tuple(other for other in POINTS if other != point) for point in POINTS]
G = [[p**k / math.prod(p - q for q in others) for k in range(TAPS)] for p, others in zip(POINTS, _OTHERS, strict=True)] + [[0.0, 0.0, 1.0]]
B = [*(_polynomial(others) for others in _OTHERS), _polynomial(POINTS)]
A = [[p**k for p in POINTS] + [float(k == TILE - 1)] for k in range(TILE)]
