"""How different two pictures look: the LPIPS form on the shipped backbone.

Maps of both pictures are taken at five depths of EfficientNet-Lite0, from half the size down to a 32nd; at every place the channels are
brought to unit length, and what is left of the difference is squared, summed over channels, averaged over places and summed over depths.
Every channel weighs the same: LPIPS has learned weights, which are not ours to ship, and whose gain over uniform ones is small in its
own table. Values are therefore no LPIPS values, and compare only with each other.

Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018, eq. 1 with all w = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from steerable.features import backbone as backbones
from steerable.features.backbone import EfficientNetLite0
from steerable.protocols import Images, Mask

DEPTHS = (0, 1, 2, 4, 6)  # stages: the last of each resolution
TINY = 1e-8  # beside a squared length, so that an all-zero place has a gradient


@dataclass(frozen=True, eq=False)
class Perceptual:
    """Distances of pictures, and the residual whose squared length they are.

    Attributes:
        backbone: of ``zoo.load_backbone()``; its ``size`` is what pictures are resized to.
        depths: which of its stages.
    """

    backbone: EfficientNetLite0
    depths: Sequence[int] = DEPTHS

    def __post_init__(self) -> None:
        stages: Callable[[Images], Sequence[Tensor]] | None = getattr(self.backbone, "activations", None)
        if stages is None:
            raise TypeError(f"a perceptual distance needs the maps of a network, got {type(self.backbone).__name__}: load_backbone().")
        if not self.depths or not set(self.depths) <= set(range(len(self.backbone.stages))):
            raise ValueError(f"depths are stages 0 to {len(self.backbone.stages) - 1} of the backbone, got {tuple(self.depths)}.")

    def __call__(self, images: Images, others: Images, mask: Mask | None = None) -> Float[Tensor, " n"]:
        """(n,) distances, 0 for equal pictures; ``mask`` leaves pixels out of both."""
        return self.residual(images, others, torch.ones_like(images[:, :1]) if mask is None else mask).square().sum(1)

    def residual(self, images: Images, targets: Images, mask: Mask) -> Float[Tensor, "n m"]:
        """``|r|^2`` is the distance. Unknown pixels are grey in both, as in the paper's masked images, and their places do not count."""
        known = mask.to(images)
        ours, theirs = (self.backbone.activations(one * known) for one in (images, targets))
        parts = []
        for depth in self.depths:
            weight = F.adaptive_avg_pool2d(known, (ours[depth].shape[2], ours[depth].shape[3]))
            weight = weight / weight.sum((1, 2, 3), keepdim=True).clamp(min=1e-6)
            parts.append(((_unit(ours[depth]) - _unit(theirs[depth])) * weight.sqrt()).flatten(1))
        return torch.cat(parts, 1)

    def placed(self, maps: Sequence[Tensor]) -> Float[Tensor, "n m"]:
        """Pictures as points, from the backbone's ``activations``: the distance of two pictures is the squared distance of theirs.

        For those who compare a picture with several others: its maps are made once.
        """
        return torch.cat([(_unit(maps[depth]) / maps[depth][0, 0].numel() ** 0.5).flatten(1) for depth in self.depths], 1)


def _unit(maps: Tensor) -> Tensor:
    return maps * torch.rsqrt(maps.square().sum(1, keepdim=True) + TINY)


def shipped(device: torch.device | str = "cpu") -> Perceptual:
    """The distance on the shipped backbone at 64 px: what every ledger is written with unless another is named."""
    return Perceptual(backbones.shipped().to(device))
