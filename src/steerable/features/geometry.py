"""Where the foreground is, by moments: centre, extent, tilt and area.

The foreground is a weight in [0, 1] for each pixel: by default how far its colour is from what the image's border shows, or any
mask of the user's (a person network's). Coordinates have their origin in the image's centre and are fractions of the
image's width and height, x to the right and y down; angles are in degrees, > 0 is counter-clockwise as seen. An image
without a foreground (flat, or an empty mask) has its centre at 0 and extent, tilt and area 0 instead of NaN.

Source: Hu, "Visual pattern recognition by moment invariants", IRE Transactions on Information Theory, 1962.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.features.network import NetworkFeature
from steerable.protocols import Feature, Images, Values

Weights = Float[Tensor, "n 1 h w"]
Six = Float[Tensor, "n 6"]
SHARPNESS = 4.0  # a colour this many times less than 1 away from the border's, on [-1, 1], is half foreground
EPSILON = 1e-6


def border_contrast(images: Images) -> Weights:
    """How much each pixel belongs to the foreground: d^2 / (d^2 + 1/16) for the colour distance d to the border's.

    The border's colour is its mean over the outermost pixels that are near to their median, so that a face that touches one edge
    does not count as background.
    """
    checks.images(images)
    edge = torch.cat([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], 2)  # (n, c, 2h + 2w)
    off = (edge - edge.median(2, keepdim=True).values).square().mean(1, keepdim=True)
    trust = 1 / (1 + SHARPNESS**2 * off)
    background = (edge * trust).sum(2) / trust.sum(2)
    distance = (SHARPNESS**2) * (images - background[:, :, None, None]).square().mean(1, keepdim=True)
    return distance / (1 + distance)


@dataclass(frozen=True, eq=False)
class Moments:
    """images -> (n, 6): mass and the first and second moments of the foreground's weights, x and y in image widths and heights."""

    foreground: Callable[[Images], Tensor]

    def __call__(self, images: Images) -> Six:
        weight = self.foreground(images)
        height, width = images.shape[2:]
        if weight.shape != (len(images), 1, height, width):
            raise ValueError(f"a foreground is a weight for each pixel, ({len(images)}, 1, {height}, {width}); got {tuple(weight.shape)}.")
        across, down = ((torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size - 0.5 for size in (width, height))
        down = down * (height / width)  # in widths, so that angles are angles
        total = weight.sum((1, 2, 3))
        solid = total + EPSILON * height * width
        x = (weight * across).sum((1, 2, 3)) / solid
        y = (weight * down[:, None]).sum((1, 2, 3)) / solid
        dx, dy = across - x[:, None, None, None], down[:, None] - y[:, None, None, None]
        xx, yy, xy = ((weight * one).sum((1, 2, 3)) / solid for one in (dx * dx, dy * dy, dx * dy))
        return torch.stack([total / (height * width), x, y * (width / height), xx, yy, xy], 1)


def _centre(moments: Six) -> Values:
    return moments[:, 1:3]


def _extent(moments: Six) -> Values:
    return (moments[:, 3] + moments[:, 4] + EPSILON**2).sqrt()[:, None]


def _tilt(moments: Six) -> Values:
    """The principal axis against the vertical: a standing person has 0, one leaning to the left of the picture > 0."""
    xx, yy, xy = moments[:, 3], moments[:, 4], moments[:, 5]
    return torch.rad2deg(0.5 * torch.atan2(2 * xy, yy - xx + EPSILON))[:, None]


def _area(moments: Six) -> Values:
    return moments[:, :1]


def geometry(foreground: Callable[[Images], Tensor] = border_contrast, *, prefix: str = "") -> tuple[Feature, ...]:
    """The four features of a foreground: centre (centre-x, centre-y), extent, tilt and area.

    Args:
        foreground: images -> weights (n, 1, h, w) in [0, 1]; the moments are computed once for all four.
        prefix: put before the names, for a second foreground: ``geometry(person, prefix="person")``.
    """
    moments = Moments(foreground)
    pre = f"{prefix}-" if prefix else ""

    def made(name: str, columns: tuple[str, ...], unit: str, read: Callable[[Six], Values]) -> Feature:
        return NetworkFeature(pre + name, tuple(pre + one for one in columns), unit, "l2", moments, read)

    return (
        made("centre", ("centre-x", "centre-y"), "image sizes", _centre),
        made("extent", ("extent",), "image widths", _extent),  # the root mean square distance from the centre
        made("tilt", ("tilt",), "deg", _tilt),
        made("area", ("area",), "of the image", _area),
    )


GEOMETRY = geometry()
