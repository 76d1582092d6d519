"""Measurements of drawn digits: which digit, how slanted, how much ink.

``SLANT`` and ``INK`` are moments of the pixels and need no network. ``DigitNetwork`` tells digits apart: its embedding is what "the same
digit" means to a training, its probabilities are what a person reads. ``training.classifier`` trains one; two of other seeds ship, one
to train by and one to judge by. Neighbours: ``pixels`` and ``geometry``, which work on any picture.

Strokes are taken to be light on black, as in MNIST. Source of the moments: Hu, "Visual pattern recognition by moment invariants", IRE
Transactions on Information Theory, 1962; of the embedding on a sphere: Wang et al., "NormFace: L2 hypersphere embedding for face
verification", ACM Multimedia 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.features.network import CLASSES, NetworkFeature
from steerable.features.pixels import LEVELS, PixelFeature, luminance
from steerable.protocols import Images, Values

SCALE = 16.0  # of the cosines before the softmax
SIDE = 32  # the side that the network reads; others are resized


def _slant(images: Images) -> Values:
    """The angle of the sheared upright, atan(mu11 / mu02), from central moments; to the right is positive. Blank pictures read 0."""
    ink = luminance(images).clamp(min=0)
    height, width = ink.shape[1:]
    y, x = torch.arange(height, device=ink.device, dtype=ink.dtype), torch.arange(width, device=ink.device, dtype=ink.dtype)
    mass = ink.sum((1, 2)) + 1e-4
    across, down = (ink.sum(1) * x).sum(1) / mass, (ink.sum(2) * y).sum(1) / mass
    dx, dy = x - across[:, None], down[:, None] - y  # y points up
    shear = ((ink @ dx[:, :, None])[:, :, 0] * dy).sum(1)  # mu11
    tall = (ink.sum(2) * dy.square()).sum(1)  # mu02
    return torch.rad2deg(torch.atan(shear / (tall + 1e-2)))[:, None]


def _ink(images: Images) -> Values:
    return luminance(images).mean((1, 2))[:, None]


SLANT = PixelFeature("slant", ("slant",), _slant, unit="deg")
INK = PixelFeature("ink", ("ink",), _ink, unit=LEVELS)


class DigitNetwork(nn.Module):
    """Grey images -> ``(embedding (n, size) of length 1, logits (n, classes))``.

    A logit is ``SCALE`` times the cosine of the embedding and the direction of a class. Smooth activations: its gradients train generators.
    """

    def __init__(self, classes: int = 10, size: int = 16, widths: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(narrow, wide, 5 if i == 0 else 3, 2, 2 if i == 0 else 1)
            for i, (narrow, wide) in enumerate(zip((1, *widths[:-1]), widths, strict=True))
        )
        self.embed = nn.Linear(widths[-1] * (SIDE // 2 ** len(widths)) ** 2, size)
        self.directions = nn.Parameter(torch.zeros(classes, size))

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> DigitNetwork:
        """The network of these weights, frozen."""
        widths = [tensors[f"layers.{i}.weight"].shape[0] for i in range(sum(key.endswith("bias") for key in tensors) - 1)]
        classes, size = tensors["directions"].shape
        network = cls(classes, size, widths)
        network.load_state_dict(dict(tensors))
        return network.eval().requires_grad_(False)

    def maps(self, images: Images) -> list[Tensor]:
        """The activations of every layer, from fine to coarse: what two pictures of one digit are told apart by."""
        x = images.mean(1, keepdim=True)
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        found = []
        for layer in self.layers:
            x = F.silu(layer(x))
            found.append(x)
        return found

    def forward(self, images: Images) -> tuple[Tensor, Tensor]:
        embedding = F.normalize(self.embed(self.maps(images)[-1].flatten(1)), dim=1)
        return embedding, SCALE * embedding @ F.normalize(self.directions, dim=1).T


def digit(network: DigitNetwork, name: str = "digit") -> NetworkFeature:
    """The embedding: near for two pictures of one digit, whatever their slant and stroke; columns ``digit-1`` ..., of no unit."""
    columns = tuple(f"{name}-{i + 1}" for i in range(network.embed.out_features))
    return NetworkFeature(name, columns, "", "cosine", network, lambda output: output[0])


def digit_class(network: DigitNetwork, name: str = "digit-class", *, prefix: str = "is") -> NetworkFeature:
    """The probability of each digit; columns ``is-0`` to ``is-9``."""
    columns = tuple(f"{prefix}-{i}" for i in range(len(network.directions)))
    return NetworkFeature(name, columns, CLASSES, "l1", network, lambda output: output[1].softmax(1))
