"""What of a picture is looked at when a walk is judged: the light of random pixels, where and how large the object is, or any feature.

An ``Attribute`` gives one or several values an image. Walks of colour are looked at through 100 random pixels of each image, as in the
paper; those of place and size through the foreground's moments (``features.geometry``), where the paper has the boxes of a detector: any
feature of one column takes their place. A detector that finds nothing says NaN, and that image does not count.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, section 3 (quantifying
steerability).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.edits import LUMA
from steerable.features.geometry import border_contrast, geometry
from steerable.features.network import select
from steerable.features.pixels import CONTRAST
from steerable.protocols import Feature, Images
from steerable.sampling import columns_of

PIXELS = 100  # random ones of an image
Read = Callable[[Images, Tensor], Tensor]


@dataclass(frozen=True)
class Attribute:
    """Values of images.

    Attributes:
        name: what it is, with its unit beside it in tables and plots.
        judge: what measures it, in words.
        read: images and the places of their random pixels (n, ``draws``) -> (n, s) values; NaN where there is nothing to measure.
        draws: places that are drawn for an image; 0 for what looks at all of it.
    """

    name: str
    unit: str
    judge: str
    read: Read
    draws: int = 0

    def places(self, n: int, image_shape: tuple[int, int, int], *, seed: int) -> Tensor:
        """(n, draws) pixels of n images, numbered row by row; image i has the same for every n."""
        rng = torch.Generator().manual_seed(seed)
        return torch.randint(image_shape[1] * image_shape[2], (n, self.draws), generator=rng)

    def __call__(self, images: Images, places: Tensor) -> Float[Tensor, "n s"]:
        values = self.read(checks.images(images), places.to(images.device)).float().cpu()
        if bool(values.isinf().any()):
            raise ValueError(f'"{self.name}" is infinite on {int(values.isinf().any(1).sum())} of {len(values)} images.')
        return values


def pixel_attribute(name: str, unit: str, read: Callable[[Float[Tensor, "n c s"]], Float[Tensor, "n s"]]) -> Attribute:
    """A function of the colours (n, c, 100) of random pixels, on images scaled to [0, 1]."""

    def values(images: Images, places: Tensor) -> Tensor:
        drawn = images.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1))
        return read(((drawn + 1) / 2).clamp(0, 1))

    return Attribute(name, unit, f"{PIXELS} random pixels an image", values, PIXELS)


def _luminance(colours: Tensor) -> Tensor:
    if colours.shape[1] != 3:
        return colours.mean(1)
    return (colours * colours.new_tensor(LUMA)[:, None]).sum(1)


def _channel(index: int) -> Callable[[Tensor], Tensor]:
    return lambda colours: colours[:, index if colours.shape[1] == 3 else 0]


def _lab(index: int) -> Callable[[Tensor], Tensor]:
    def read(colours: Tensor) -> Tensor:
        from kornia.color import rgb_to_lab

        return rgb_to_lab(colours.expand(-1, 3, -1)[:, :, None])[:, index, 0]

    return read


LEVELS = "of full scale"
LUMINANCE = pixel_attribute("luminance", LEVELS, _luminance)
PIXEL_ATTRIBUTES = {
    "brightness": LUMINANCE,
    "red": pixel_attribute("red", LEVELS, _channel(0)),
    "green": pixel_attribute("green", LEVELS, _channel(1)),
    "blue": pixel_attribute("blue", LEVELS, _channel(2)),
    "lab-lightness": pixel_attribute("lightness", "L*", _lab(0)),
    "lab-red": pixel_attribute("redness", "a*", _lab(1)),
    "lab-yellow": pixel_attribute("yellowness", "b*", _lab(2)),
}
SHAPES = {"zoom": "area", "shift-x": "centre-x", "shift-y": "centre-y", "rotate": "tilt", "rotate3d": "centre-x"}
EDITS_MEASURED = ("contrast", *PIXEL_ATTRIBUTES, *SHAPES)


def attribute_of(knob: str, *, foreground: Callable[[Images], Tensor] = border_contrast) -> Attribute:
    """What the paper looks at for a walk that imitates the edit of this name.

    Brightness: the luminance of 100 random pixels an image; red, green, blue and those of Lab: the channel of such pixels; contrast: the
    deviation of an image's luminance; zoom: the foreground's area; shift-x, shift-y: its centre; rotate: its tilt; rotate3d: its centre
    across, because the side of a billboard that comes nearer grows.

    Args:
        foreground: images -> weights (n, 1, h, w); what differs from the image's border by default.

    Raises:
        ValueError: no edit has that name: give a feature.
    """
    if knob in PIXEL_ATTRIBUTES:
        return PIXEL_ATTRIBUTES[knob]
    if knob == "contrast":
        return feature_attribute(CONTRAST, judge="the luminance of all pixels, its deviation an image")
    if knob not in SHAPES:
        raise ValueError(
            f'"{knob}" is no edit whose attribute is known ({", ".join(EDITS_MEASURED)}): say what measures it, '
            f'attribute=st.column(feature, "{knob}").'
        )
    judge = "foreground against the image's border" if foreground is border_contrast else "foreground, by a mask"
    (found,) = select(geometry(foreground), [SHAPES[knob]])
    return feature_attribute(found, judge=judge)


def feature_attribute(feature: Feature, *, judge: str = "") -> Attribute:
    """A feature of one column as an attribute.

    Raises:
        ValueError: more columns: choose one with ``column``.
    """
    columns, units = columns_of([feature])
    if len(columns) != 1:
        raise ValueError(f'"{feature.name}" has the columns {", ".join(columns)}: choose one, st.column(feature, "{columns[0]}").')
    return Attribute(columns[0], units[0], judge or f"{feature.name}, one value an image", lambda images, _: feature(images))


def resolved(attribute: Attribute | Feature | None, knob: str) -> Attribute:
    """The attribute given, a feature as one, or that of the knob's edit."""
    if attribute is None:
        return attribute_of(knob)
    return attribute if isinstance(attribute, Attribute) else feature_attribute(attribute)


def image_means(values: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    """One value an image; NaN where nothing was found."""
    return values.nanmean(1)
