"""Features of the pixels themselves: light, contrast, colour, and the same of a region.

All numbers are fractions of full scale: 0 is black, 1 is white, on images scaled from [-1, 1] to [0, 1]. Everything is
differentiable and works on grey images (whose red, green and blue are the one value, and whose saturation is 0).
Features of shape are in ``geometry``, those of networks in ``network``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable import checks
from steerable.protocols import Feature, Images, Metric, Values

LUMA = (0.299, 0.587, 0.114)  # Rec. 601
LEVELS = "of full scale"


@dataclass(frozen=True)
class PixelFeature:
    """Columns computed by ``read`` from images scaled to [0, 1]."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Tensor], Tensor]
    unit: str = LEVELS
    metric: Metric = "l2"
    differentiable: bool = True

    def __call__(self, images: Images) -> Values:
        return self.read((checks.images(images) + 1) / 2)


@dataclass(frozen=True)
class Box:
    """The pixels of rows ``top`` to ``bottom`` - 1 and columns ``left`` to ``right`` - 1, counted from the upper left."""

    top: int
    left: int
    bottom: int
    right: int

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom and 0 <= self.left < self.right):
            raise ValueError(f"a box is Box(top, left, bottom, right) with 0 <= top < bottom and 0 <= left < right, got {self}.")

    def mask(self, height: int, width: int) -> Tensor:
        """(h, w) of bool, True inside."""
        if self.bottom > height or self.right > width:
            raise ValueError(
                f"{self} does not fit into images of height x width {height} x {width}: use bottom <= {height}, right <= {width}."
            )
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[self.top : self.bottom, self.left : self.right] = True
        return inside


@runtime_checkable
class Shaped(Protocol):
    """A region that knows its pixels: ``Box``, ``regions.Polygon``."""

    def mask(self, height: int, width: int) -> Tensor: ...


Region = Shaped | Bool[Tensor, "h w"] | Float[Tensor, "h w"] | np.ndarray


def region_mask(region: Region, height: int, width: int, *, invert: bool = False) -> Tensor:
    """(h, w) of bool: the pixels of a box, a polygon or a mask (above 0.5 where it is not boolean).

    Raises:
        ValueError: the box or mask does not fit the images, or no pixel is left.
    """
    if isinstance(region, Shaped):
        inside = region.mask(height, width)
    else:
        given = torch.as_tensor(region)
        if given.shape != (height, width):
            raise ValueError(f"a mask has the images' size ({height}, {width}), got {tuple(given.shape)}.")
        inside = given if given.dtype == torch.bool else given > 0.5
    inside = ~inside if invert else inside
    if not bool(inside.any()):
        raise ValueError(f"no pixel of the {height} x {width} images is {'outside' if invert else 'inside'} this region.")
    return inside


@dataclass(frozen=True, eq=False)
class RegionPixels:
    """Every value of the pixels of a region, as one wide feature: what a trajectory moves or holds.

    Values are (n, c * pixels), on the images' own scale [-1, 1]; the distance of two is the l2 norm of their difference.

    Args:
        region: a box, a polygon, or a mask (h, w).
        image_shape: (c, h, w) of the generator.
        invert: the pixels outside the region instead.
    """

    region: Region
    image_shape: tuple[int, int, int]
    invert: bool = False
    name: str = "region-pixels"
    unit: str = "of [-1, 1]"
    metric: Metric = "l2"
    differentiable: bool = True
    _places: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _, height, width = self.image_shape
        inside = region_mask(self.region, height, width, invert=self.invert)
        object.__setattr__(self, "_places", inside.flatten().nonzero()[:, 0])

    @property
    def columns(self) -> tuple[str, ...]:
        """``name-channel-row-column`` of each value."""
        channels, _, width = self.image_shape
        places = self._places.tolist()
        return tuple(f"{self.name}-{channel}-{place // width}-{place % width}" for channel in range(channels) for place in places)

    def __call__(self, images: Images) -> Values:
        if tuple(images.shape[1:]) != tuple(self.image_shape):
            raise ValueError(f'"{self.name}" reads images of {tuple(self.image_shape)}, got {tuple(images.shape)}.')
        return images.flatten(2)[:, :, self._places.to(images.device)].flatten(1)


def rgb(images: Images) -> Float[Tensor, "n 3 h w"]:
    """Three channels: grey is repeated, an alpha channel and the like are refused."""
    if images.shape[1] not in (1, 3):
        raise ValueError(f"expected grey or RGB images (n, 1 or 3, h, w), got {tuple(images.shape)}.")
    return images.expand(-1, 3, -1, -1)


def luminance(images: Images) -> Float[Tensor, "n h w"]:
    """(n, h, w), Rec. 601 luma."""
    return (rgb(images) * images.new_tensor(LUMA)[:, None, None]).sum(1)


def _brightness(images: Images) -> Values:
    return luminance(images).mean((1, 2))[:, None]


def _contrast(images: Images) -> Values:
    spread = luminance(images)
    return ((spread - spread.mean((1, 2), keepdim=True)).square().mean((1, 2)) + 1e-12).sqrt()[:, None]


def _saturation(images: Images) -> Values:
    colours = rgb(images)
    return (colours.amax(1) - colours.amin(1)).mean((1, 2))[:, None]


def _colour(images: Images) -> Values:
    return rgb(images).mean((2, 3))


BRIGHTNESS = PixelFeature("brightness", ("brightness",), _brightness)
CONTRAST = PixelFeature("contrast", ("contrast",), _contrast)  # standard deviation of the luminance
SATURATION = PixelFeature("saturation", ("saturation",), _saturation)  # mean of largest minus smallest channel
COLOUR = PixelFeature("colour", ("red", "green", "blue"), _colour)
PIXELS = (BRIGHTNESS, CONTRAST, SATURATION, COLOUR)


@dataclass(frozen=True)
class _Mean:
    """Mean over a region whose mask is made for the size of the images at hand."""

    region: Region
    invert: bool
    of: Callable[[Images], Tensor]  # (n, c, h, w) -> (n, k, h, w)

    def __call__(self, images: Images) -> Values:
        inside = region_mask(self.region, *images.shape[2:], invert=self.invert).to(images)
        return (self.of(images) * inside).sum((2, 3)) / inside.sum()


def thumbnail(side: int) -> Feature:
    """The picture itself, reduced to ``side`` pixels a side, channel after channel; columns ``thumbnail-1`` ..."""
    if side < 1:
        raise ValueError(f"a thumbnail is 1 pixel a side or more, got {side}.")

    def read(images: Images) -> Values:
        return torch.nn.functional.adaptive_avg_pool2d(rgb(images)[:, :1] if images.shape[1] == 1 else images, side).flatten(1)

    return _Thumbnail(side, read)


@dataclass(frozen=True)
class _Thumbnail:
    """As many columns as the pictures have channels at that size; the names are those of grey ones."""

    side: int
    read: Callable[[Tensor], Tensor]
    unit: str = LEVELS
    metric: Metric = "l2"
    differentiable: bool = True

    @property
    def name(self) -> str:
        return f"thumbnail-{self.side}"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"thumbnail-{i + 1}" for i in range(self.side**2))

    def __call__(self, images: Images) -> Values:
        return self.read((checks.images(images) + 1) / 2)


def region_brightness(name: str, region: Region, *, invert: bool = False) -> Feature:
    """Mean luminance of a region; one column, ``name-brightness``."""
    return PixelFeature(f"{name}-brightness", (f"{name}-brightness",), _Mean(region, invert, lambda images: luminance(images)[:, None]))


def region_colour(name: str, region: Region, *, invert: bool = False) -> Feature:
    """Mean red, green and blue of a region; columns ``name-red`` ..."""
    columns = tuple(f"{name}-{one}" for one in COLOUR.columns)
    return PixelFeature(f"{name}-colour", columns, _Mean(region, invert, rgb))


def region_grid(rows: int = 3, columns: int = 3) -> Feature:
    """The brightness of each cell of a grid over the image: ``top-left-brightness``, ``centre-brightness``, ...

    Cells of up to three rows and columns are named in words, of more by numbers from the upper left
    (``row-1-column-4-brightness``).
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid has at least one row and one column, got {rows} x {columns}.")
    names = tuple(f"{_cell(row, column, rows, columns)}-brightness" for row in range(rows) for column in range(columns))

    def read(images: Images) -> Values:
        if rows > images.shape[2] or columns > images.shape[3]:
            raise ValueError(f"a grid of {rows} x {columns} cells does not fit into images of {images.shape[2]} x {images.shape[3]}.")
        return torch.nn.functional.adaptive_avg_pool2d(luminance(images)[:, None], (rows, columns)).flatten(1)

    return PixelFeature(f"brightness-{rows}x{columns}", names, read)


def _cell(row: int, column: int, rows: int, columns: int) -> str:
    words = {1: ("",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}, {1: ("",), 2: ("left", "right"), 3: ("left", "", "right")}
    if rows > 3 or columns > 3:
        return f"row-{row + 1}-column-{column + 1}"
    vertical, horizontal = words[0][rows][row], words[1][columns][column]
    if vertical == "middle" and not horizontal:
        return "centre"
    return "-".join(word for word in (vertical, horizontal) if word) or "whole"
