"""Regions that a trajectory moves or holds: polygons, and the parts of a face that a picture itself shows.

``pixels.RegionPixels`` reads the pixels of a fixed box, polygon or mask. ``PartPixels`` reads those of a region that lies elsewhere in
every picture, the person or the hair: a network says where. Where a path begins, ``at`` freezes the regions of its pictures, so that what
is held stays the same set of pixels while the face moves on.

    person               the person mask, hair and clothes included; inverted it is the background
    face                 inside the oval of the face mesh
    hair                 of the person, outside the face and above half way from its middle to the chin: hair, hats, and ears
    eyes, mouth, nose    hulls of the mesh around them

Sources: the regions follow Rayleigh EigenDirections (ECCV 2022), which took them from a segmentation network; indices of the mesh are
those of MediaPipe's face mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable.features.face_mesh import MARGIN, SIZE
from steerable.protocols import Images, Mask, Metric, Values

OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
OVAL += (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
LEFT_EYE = (70, 105, 107, 133, 145, 33)  # of the viewer; brow to lower lid
RIGHT_EYE = (336, 334, 300, 263, 374, 362)
NOSE = (168, 193, 129, 98, 2, 327, 358, 417)
LIPS = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91)
GROWN = {"eyes": 1.25, "mouth": 1.35, "nose": 1.15, "face": 1.0}  # hulls are enlarged about their middle: lids and lips have an edge
MIDDLE, CHIN = 6, 152
LEAST = 1e-3  # of the picture: less is no part


def inside_polygon(points: Float[Tensor, "n k 2"], height: int, width: int) -> Float[Tensor, "n 1 h w"]:
    """1 at pixels whose centre lies inside (even-odd rule). Points are (y, x) in pixels; (0, 0) is the image's upper left corner."""
    y = torch.arange(height, device=points.device, dtype=points.dtype)[:, None, None] + 0.5
    x = torch.arange(width, device=points.device, dtype=points.dtype)[None, :, None] + 0.5
    a, b = points[:, None, None], points.roll(-1, 1)[:, None, None]  # (n, 1, 1, k, 2)
    between = (a[..., 0] > y) != (b[..., 0] > y)
    rise = b[..., 0] - a[..., 0]
    crossing = a[..., 1] + (y - a[..., 0]) * (b[..., 1] - a[..., 1]) / torch.where(rise == 0, 1.0, rise)
    return ((between & (x < crossing)).sum(-1) % 2 == 1).to(points)[:, None]


@dataclass(frozen=True)
class Polygon:
    """The pixels inside a polygon of corners (row, column), in pixels from the upper left corner of the image; any number from 3 on."""

    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.corners) < 3 or any(len(corner) != 2 for corner in self.corners):
            raise ValueError(f"a polygon has 3 corners (row, column) or more, got {self.corners}.")

    def mask(self, height: int, width: int) -> Tensor:
        """(h, w) of bool, True inside."""
        beyond = [corner for corner in self.corners if not (0 <= corner[0] <= height and 0 <= corner[1] <= width)]
        if beyond:
            raise ValueError(f"the corner {beyond[0]} of a polygon lies outside the images of height x width {height} x {width}.")
        return inside_polygon(torch.tensor([self.corners], dtype=torch.float32), height, width)[0, 0] > 0.5


@dataclass(frozen=True, eq=False)
class PartPixels:
    """Every value of the pixels of a part that each picture shows elsewhere, (n, c * h * w): zero outside, where nothing is compared.

    Values are weighted by the root of the mask over its mean, so that a mean square over the columns is one over the pixels of the part,
    whatever its size.

    Attributes:
        find: images -> soft masks (n, 1, h, w).
        masks: of the n pictures that the feature is anchored to; None measures every picture by its own mask.
    """

    name: str
    image_shape: tuple[int, int, int]
    find: Callable[[Images], Mask]
    invert: bool = False
    masks: Mask | None = None
    unit: str = "of [-1, 1]"
    metric: Metric = "l2"
    differentiable: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}-{i}" for i in range(torch.Size(self.image_shape).numel()))

    def at(self, images: Images) -> PartPixels:
        """The same feature of the parts of these pictures; n pictures later belong to them in turn.

        Raises:
            ValueError: a picture that does not show the part.
        """
        masks = self._found(images)
        missing = (masks.mean((1, 2, 3)) < LEAST).nonzero()[:, 0].tolist()
        if missing:
            raise ValueError(f"{len(missing)} of {len(masks)} pictures show no {self.name}: the first is number {missing[0]}.")
        return replace(self, masks=masks)

    def shown(self, images: Images) -> Bool[Tensor, " n"]:
        """Which pictures show the part at all."""
        return self._found(images).mean((1, 2, 3)) >= LEAST

    def _found(self, images: Images) -> Mask:
        with torch.no_grad():
            masks = self.find(images)
            return 1 - masks if self.invert else masks

    def rows(self, keep: Tensor) -> PartPixels:
        return self if self.masks is None else replace(self, masks=self.masks[keep])

    def __call__(self, images: Images) -> Values:
        masks = self.at(images.detach()).masks if self.masks is None else self.masks
        assert masks is not None
        weight = (masks / masks.mean((1, 2, 3), keepdim=True)).sqrt()
        return (images * weight.repeat(len(images) // len(weight), 1, 1, 1)).flatten(1)


Mesh = Callable[[Images], Float[Tensor, "n 468 3"]]
Person = Callable[[Images], Mask]


def parts(mesh: Mesh, person: Person) -> Mapping[str, Callable[[Images], Mask]]:
    """Where each part of a face is, by name: images -> soft masks (n, 1, h, w)."""

    def hull(images: Images, *groups: tuple[int, ...], grown: float = 1.0) -> Mask:
        points = corners(mesh(images), images)
        masks = []
        for group in groups:
            corner = points[:, list(group)]
            middle = corner.mean(1, keepdim=True)
            masks.append(inside_polygon(middle + grown * (corner - middle), *images.shape[2:]))
        return torch.stack(masks).amax(0)

    def hair(images: Images) -> Mask:
        points = corners(mesh(images), images)
        down = torch.arange(images.shape[2], device=images.device, dtype=images.dtype)[:, None] + 0.5
        below = (points[:, CHIN, 0] + points[:, MIDDLE, 0]) / 2
        above = (down < below[:, None, None, None]).to(images)  # (n, 1, h, 1)
        return person(images) * (1 - hull(images, OVAL)) * above

    return {
        "person": person,
        "face": lambda images: hull(images, OVAL),
        "hair": hair,
        "eyes": lambda images: hull(images, LEFT_EYE, RIGHT_EYE, grown=GROWN["eyes"]),
        "mouth": lambda images: hull(images, LIPS, grown=GROWN["mouth"]),
        "nose": lambda images: hull(images, NOSE, grown=GROWN["nose"]),
    }


def corners(mesh: Float[Tensor, "n 468 3"], images: Images) -> Float[Tensor, "n 468 2"]:
    """Landmarks as (y, x) in pixels of the images."""
    fractions = mesh[..., :2] * ((1 + 2 * MARGIN) / SIZE) - MARGIN
    return fractions.flip(-1) * fractions.new_tensor(images.shape[2:])
