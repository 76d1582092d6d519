"""The discriminator of a DCGAN: halving convolutions, and one score for each class.

It has no batch norm. Rows then do not see each other, so that real, generated and steered images can go through in one batch without
sharing statistics, and the gradient penalty is that of each image alone. Its weights begin at a scale that lets signals through, which in
DCGAN the norms see to: from N(0, .02) without norms it is blind for its first thousand steps, and the generator comes to draw one picture
a class. Where variety is at stake, ``compared`` rows may also see how much they differ from each other (Karras et al., "Progressive
growing of GANs", ICLR 2018, section 3); where the penalty comes too late, its layers are ``bounded``.
``dcgan`` has the generator; ``training`` the losses.

Sources: Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial networks", ICLR
2016; for the class as one more linear score Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018, eq. 5; for bounded layers
Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018, section 2.1; for the weights at the start He et
al., "Delving deep into rectifiers", ICCV 2015, eq. 15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2


class DCGANDiscriminator(nn.Module):
    """image -> (n,) scores before the sigmoid: above 0 is real.

    Args:
        widths: channels from the image on, each of half the side of the one before, e.g. (1, 32, 64, 128).
        last: side of the last map.
        classes: how many there are, or None.
        compared: rows whose deviation each of them is shown, see ``compared_rows``; 0 leaves it out.
        bounded: every layer divided by its largest singular value, so that no score rises faster than the picture changes. Steps of any
            size then leave it as steep as before, where a penalty may come too late.
    """

    def __init__(
        self, widths: Sequence[int], *, last: int = 4, classes: int | None = None, compared: int = 0, bounded: bool = False
    ) -> None:
        super().__init__()
        self.classes, self.compared, self.bounded = classes, compared, bounded
        self.layers = nn.ModuleList(nn.Conv2d(narrow, wide, 4, 2, 1) for narrow, wide in pairwise(widths))
        self.scores = nn.Linear((widths[-1] + bool(compared)) * last**2, 1 + (classes or 0))
        for i, wide in enumerate((*widths[1:], self.scores.out_features) if bounded else ()):
            self.register_buffer(f"stretched{i}", torch.ones(wide))

    def initialise(self, rng: torch.Generator) -> None:
        """Weights that keep the size of signals from layer to layer, no bias."""
        with torch.no_grad():
            for module in (*self.layers, self.scores):
                gain = math.sqrt(2 / (1 + SLOPE**2)) if isinstance(module, nn.Conv2d) else 1.0
                module.weight.normal_(0, gain / math.sqrt(module.weight[0].numel()), generator=rng)  # type: ignore[operator,index,union-attr]
                module.bias.zero_()  # type: ignore[operator,union-attr]

    def _weight(self, i: int, layer: nn.Module) -> Tensor:
        """The layer's, over its largest singular value where it is bounded: one more iteration of the power method at each step."""
        weight = cast(Tensor, layer.weight)
        if not self.bounded:
            return weight
        matrix, left = weight.flatten(1), self.get_buffer(f"stretched{i}")
        with torch.no_grad():
            right = F.normalize(left @ matrix, dim=0)
            if self.training:
                left.copy_(F.normalize(matrix @ right, dim=0))
            left = left.clone()
        return weight / (left @ matrix @ right)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for i, layer in enumerate(self.layers):
            x = F.leaky_relu(F.conv2d(x, self._weight(i, layer), cast(Tensor, layer.bias), stride=2, padding=1), SLOPE)
        if self.compared:
            x = compared_rows(x, self.compared)
        x = F.linear(x.flatten(1), self._weight(len(self.layers), self.scores), self.scores.bias)
        scores = x.float()  # (n, 1 + classes): of any class, and what each class adds
        if not self.classes:
            return scores[:, 0]
        assert labels is not None
        return scores[:, 0] + scores.gather(1, 1 + labels[:, None])[:, 0]


def compared_rows(x: Tensor, rows: int) -> Tensor:
    """The maps and one more: the mean deviation of a group of so many rows, the same at every place of all of them.

    Groups take every so-many-th row, so that a batch shared by several processes row by row has the same groups as the whole. The largest
    number up to ``rows`` that divides the batch counts.
    """
    n = len(x)
    rows = next(count for count in range(min(rows, n), 0, -1) if n % count == 0)
    parts = x.float().unflatten(0, (rows, n // rows))
    spread = ((parts - parts.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))  # (n / rows,)
    return torch.cat([x, spread.repeat(rows).to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


def initialised(network: nn.Module, rng: torch.Generator) -> nn.Module:
    """The same generator with the weights DCGAN begins with: N(0, .02), norms N(1, .02), no bias, label tables N(0, 1)."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
                module.weight.normal_(float(isinstance(module, nn.BatchNorm2d)), 0.02, generator=rng)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0, 1, generator=rng)
    return network
