"""Features as they are typed: ``steer apply --move outside:16,18,52,46 --hold identity``. What recipes store, too.

    pose, yaw, identity, colour, all of 'steer zoo'    a feature, or one column of it
    inside:WHERE, outside:WHERE                        the pixels of a region, or all others. WHERE is
                                                         top,left,bottom,right     a box, in pixels
                                                         y,x,y,x,y,x,...           a polygon
                                                         person, face, hair, eyes, mouth, nose   where each picture shows it
                                                         mask.png                  white is inside
    low:4, high:4                                      below and above a Gaussian blur of 4 pixels
    low-fourier:8, high-fourier:8                      at most, and more than, 8 cycles per picture
    glasses.safetensors                                your own label ('steer fit label')

with ``=2`` after any of them for its weight. ``background`` is ``outside:person``; ``pixels`` are all of them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from steerable import checks, store, zoo
from steerable.features import regions
from steerable.features.network import column
from steerable.features.pixels import Box, Region, RegionPixels
from steerable.features.regions import PartPixels, Polygon
from steerable.features.spectrum import fourier_band, gaussian_band
from steerable.protocols import Feature, Images, Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape = tuple[int, int, int]
Weighted = tuple[Feature, float]
ALIASES = {"background": "outside:person"}
HINT = "Regions are inside:WHERE and outside:WHERE, bands low:4, high:4, low-fourier:8, high-fourier:8."


def split(text: str) -> list[str]:
    """``"pose, outside:16,18,52,46, high:4=2"`` -> the single features: a comma before a digit belongs to the numbers."""
    return [part.strip() for part in re.split(r",(?!\s*-?[\d.])", text) if part.strip()]


def features(texts: Sequence[str], image_shape: Shape, *, device: str = "cpu") -> list[Weighted]:
    """Features with their weights, as ``Trajectory`` takes them; each text may hold several, with commas.

    Raises:
        ValueError: a name that is neither a feature nor a region nor a band, with the nearest known one.
    """
    return [one(text, image_shape, device=device) for given in texts for text in split(given)]


def one(text: str, image_shape: Shape, *, device: str = "cpu") -> Weighted:
    """The feature of one text, and its weight (1 unless it is given)."""
    name, weight = _weighed(text)
    return _read(name, image_shape, device), weight


def is_more_than_a_name(text: str) -> bool:
    """Whether a text is a region, a band, or has a weight: not the plain name of a feature, a column or a knob."""
    return ":" in text or "=" in text or text in (*ALIASES, "pixels") or text.startswith("head-")


def portable(text: str) -> str:
    """The same text with what it names on this disk put into it, so that a recipe brings it along: masks and heads."""
    name, weight = _weighed(text)
    tail = "" if weight == 1 else f"={weight:g}"
    side, _, where = name.partition(":")
    if side in ("inside", "outside") and where.lower().endswith(".png"):
        inside = _picture(where)
        return f"{side}:mask-{inside.shape[0]}x{inside.shape[1]}-{_encoded(np.packbits(inside).tobytes())}{tail}"
    return f"head-{_encoded(store.read_bytes(Path(name)))}{tail}" if name.endswith(".safetensors") else text


def _weighed(text: str) -> tuple[str, float]:
    name, equals, given = text.partition("=")
    try:
        weight = float(given) if equals else 1.0
    except ValueError:
        weight = float("nan")
    if not 0 < weight < float("inf"):
        raise ValueError(f'a weight is a number above 0, for example {name}=2; got "{text}".')
    return name.strip(), weight


def _read(text: str, shape: Shape, device: str) -> Feature:
    text = ALIASES.get(text, text)
    side, colon, where = text.partition(":")
    if not colon:
        return _known(text, shape, device)
    if side in ("inside", "outside"):
        return _region(text, where.strip(), side == "outside", shape, device)
    bands: Mapping[str, Callable[[float], Feature]] = {
        "low": lambda size: gaussian_band(shape, "low", size),
        "high": lambda size: gaussian_band(shape, "high", size),
        "low-fourier": lambda size: fourier_band(shape, "low", size),
        "high-fourier": lambda size: fourier_band(shape, "high", size),
    }
    make = bands[checks.known(side, [*bands, "inside", "outside"], "kind of feature")]
    try:
        size = float(where)
    except ValueError:
        raise ValueError(f'a band is {side}:NUMBER, for example {side}:{8 if "fourier" in side else 4}; got "{text}".') from None
    return make(size)


def _known(text: str, shape: Shape, device: str) -> Feature:
    if text == "pixels":
        return RegionPixels(Box(0, 0, *shape[1:]), shape, name="pixels")
    if text.startswith("head-"):
        return store.feature_of(_decoded(text.removeprefix("head-")), zoo.load_backbone().to(device), what="the label in this recipe")
    if text.endswith(".safetensors"):
        return store.load_feature(text, zoo.load_backbone().to(device))
    names = zoo.feature_names()
    wide = set(names["all"]) | set(zoo.HOLDS)
    if text in wide:
        return zoo.load_feature(text, device=device)
    owners = _columns()
    if text not in owners:
        try:
            checks.known(text, wide | set(owners) | {*ALIASES, "pixels"}, "feature")
        except ValueError as error:
            raise ValueError(f"{error} {HINT}") from None
    return column(zoo.load_feature(owners[text], device=device), text)


@cache
def _columns() -> Mapping[str, str]:
    """The feature of every column that is turned or held by itself."""
    return {name: feature.name for feature in zoo.load_features() for name in feature.columns}


def _region(text: str, where: str, invert: bool, shape: Shape, device: str) -> Feature:
    if re.fullmatch(r"[\d.,\s-]+", where):
        return RegionPixels(_numbers(where), shape, invert=invert, name=text)
    if where.startswith("mask-"):
        return RegionPixels(_mask(where), shape, invert=invert, name=f"{text.partition(':')[0]}:mask")
    if where.lower().endswith(".png"):
        return RegionPixels(torch.from_numpy(_picture(where)), shape, invert=invert, name=text)
    mesh, person = zoo.load_network("facemesh").to(device), zoo.load_network("person").to(device)
    found: Mapping[str, Callable[[Images], Mask]] = regions.parts(mesh, person)
    find = found[checks.known(where, found, "part of a picture")]
    return PartPixels(text, shape, find, invert=invert)


def _numbers(where: str) -> Region:
    try:
        numbers = [float(part) for part in where.split(",")]
    except ValueError:
        numbers = []
    whole = all(number == int(number) for number in numbers)
    if len(numbers) == 4 and whole:
        return Box(*(int(number) for number in numbers))
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return Polygon(tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    raise ValueError(
        f'a region is four whole numbers (top,left,bottom,right) or six or more (y,x,y,x,y,x) for a polygon, in pixels; got "{where}".'
    )


def _picture(path: str) -> NDArray[np.bool_]:
    """(h, w): where a picture is brighter than half."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            return np.asarray(picture.convert("L")) > 127
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no picture that could be a mask: {' '.join(str(error).split())}.") from None


def _mask(text: str) -> Tensor:
    """``mask-64x64-...`` as (h, w) of bool."""
    match = re.fullmatch(r"mask-(\d{1,5})x(\d{1,5})-([\w-]*)", text)
    bits = np.unpackbits(np.frombuffer(_decoded(match[3]), np.uint8)) if match else np.zeros(0, np.uint8)
    height, width = (int(match[1]), int(match[2])) if match else (1, 1)
    if not 0 <= len(bits) - height * width < 8:
        raise ValueError("the mask inside this recipe does not have the size that it states: it was changed by hand or cut.")
    return torch.from_numpy(bits[: height * width].reshape(height, width).astype(bool))


def _encoded(content: bytes) -> str:
    """Base64 of letters, digits, - and _ only, so that no comma, colon or = is in the way."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ValueError("a part of this recipe is not base64: it was changed by hand or cut.") from None
