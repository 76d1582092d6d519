"""3 x 3 convolutions with a quarter of the multiplications, for wide layers on a CPU.

A tile of 4 x 4 outputs needs 6 x 6 inputs. Both it and the kernel are evaluated as polynomials at six points along each
axis, multiplied there, and interpolated back: 36 products instead of 144. ``modulation`` uses it where the products are
what costs, that is where there are many channels.

Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016, section 4; the points are chosen for small rounding errors as in Barabasz, Anderson, Soodhalter &
Gregg, "Error analysis and improving the accuracy of Winograd convolution for deep neural networks", TOMS 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity
WIDE = 128  # channels from which it is faster than the convolution
CHUNK = 2**15  # tiles x channels worked on at once: their 36 values stay in the cache


def evaluated(kernels: Tensor) -> Tensor:
    """(narrow, wide, 3, 3) kernels at the points: (36, wide, narrow)."""
    transform = KERNEL.to(kernels.device)
    values = torch.einsum("ai,bj,ocij->abco", transform, transform, kernels.double())
    return values.flatten(0, 1).to(kernels.dtype).contiguous()


def convolved(x: Tensor, values: Tensor) -> Tensor:
    """The 3 x 3 convolution, zeros around x, of (n, wide, 4 h, 4 w) with kernels that were ``evaluated``."""
    n, wide, height, width = x.shape
    across = width // 4
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (n, 4 h + 2, 4 w + 2, wide)
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(0, 4, 5, 1, 2, 3)  # (n, 6, 6, down, across, wide)
    inputs, output = INPUT.to(x), OUTPUT.to(x)
    rows = max(1, CHUNK // (across * wide))
    made = x.new_empty(n, height // 4, 4, across, 4, values.shape[2])
    for image, place in zip(tiles, made, strict=True):
        for first in range(0, height // 4, rows):
            points = inputs @ image[:, :, first : first + rows].reshape(36, -1)
            products = torch.bmm(points.view(36, -1, wide), values)
            some = (output @ products.view(36, -1)).view(4, 4, -1, across, values.shape[2])
            place[first : first + rows] = some.permute(2, 0, 3, 1, 4)
    return made.view(n, height, width, -1).permute(0, 3, 1, 2)


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Of a kernel (6, 3), of inputs (36, 36) and of outputs (16, 36), both axes at once; float64.

    The matrices of Toom and Cook's multiplication of polynomials, transposed: evaluation of the kernel's 3 coefficients
    and of the 4 of the output, and the inverse of evaluating all 6.
    """
    points = torch.tensor(POINTS, dtype=torch.float64, device="cpu")

    def evaluation(n: int) -> Tensor:
        infinity = torch.eye(n, dtype=torch.float64, device="cpu")[-1:]
        return torch.cat([points[:, None] ** torch.arange(n, device="cpu"), infinity])

    kernel, inputs, output = evaluation(3), torch.linalg.inv(evaluation(6).T), evaluation(4).T.contiguous()
    length = kernel.abs().sum(1, keepdim=True)  # rows of the kernel's transform at length 1
    return kernel / length, torch.kron(inputs * length, inputs * length), torch.kron(output, output)


KERNEL, INPUT, OUTPUT = _transforms()
