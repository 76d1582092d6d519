"""Measurements of a face: pose, mouth, eyes, smile, expression, identity, age, and the colours of skin, hair, person and background.

Neighbours: the networks are in ``face_mesh``, ``face_networks`` and ``person``; ``zoo.load_feature("pose")`` puts their weights in and
calls the functions below. Each makes one feature of one network; features that share a network share its run (``network.measure``).

More is always more of what the name says. Directions are the viewer's:

    yaw > 0      the face turns to the viewer's right        x    grows to the right
    pitch > 0    the face looks down                         y    grows downwards
    roll > 0     the head tilts clockwise

Pose and mouth have two independent judges: the mesh (``pose``, ``mouth``) and the 68 landmarks (``pose68``, ``mouth68``). An edit that was
optimised against one is reported by the other. Colours are means of the images mapped to [0, 1]; brightness is .299 red + .587 green +
.114 blue, as in ``pixels``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from steerable.features.face_mesh import MARGIN, SIZE
from steerable.features.face_networks import EXPRESSIONS
from steerable.features.network import NetworkFeature
from steerable.features.pixels import LEVELS, LUMA
from steerable.protocols import Images, Values

COLOURS = ("brightness", "red", "green", "blue")
Mesh = Float[Tensor, "n 468 3"]
Plane = Float[Tensor, "n 68 2"]


@dataclass(frozen=True)
class Beside:
    """Images -> (images, network(images)): for measurements of the pixels that a network points at."""

    network: Callable[[Images], Tensor]

    def __call__(self, images: Images) -> tuple[Images, Tensor]:
        return images, self.network(images)


# --- the face mesh: the primary judge. ``seen`` is Beside(FaceMesh)


def pose(seen: Beside) -> NetworkFeature:
    """Head pose in degrees, from the outer eye corners and the line from forehead to chin; see above for the signs."""
    return NetworkFeature("pose", ("yaw", "pitch", "roll"), "deg", "l2", seen, lambda output: angles(output[1]))


def mouth(seen: Beside) -> NetworkFeature:
    """Opening over the face's height, and width over the distance between the outer eye corners."""
    return NetworkFeature("mouth", ("mouth-open", "mouth-width"), "ratio", "l2", seen, lambda output: mouth_shape(output[1]))


def eyes(seen: Beside) -> NetworkFeature:
    """Opening over each eye's width, both eyes' mean; and the height of the brows over the eyes, over the face's height."""
    return NetworkFeature("eyes", ("eye-open", "brow-raise"), "ratio", "l2", seen, lambda output: eye_shape(output[1]))


def place(seen: Beside) -> NetworkFeature:
    """Where the middle of the face is in the picture, and how large the face is from forehead to chin."""
    return NetworkFeature("face-place", ("face-x", "face-y", "face-size"), "image widths", "l2", seen, lambda output: face_place(output[1]))


def skin_colour(seen: Beside) -> NetworkFeature:
    """The colour of both cheeks."""
    return NetworkFeature("skin-colour", _names("skin"), LEVELS, "l2", seen, lambda output: _spots(output[0], _cheeks(output[1]), 0.08))


def hair_colour(seen: Beside) -> NetworkFeature:
    """The colour above the middle of the forehead, an eighth of the face's height up: hair, on heads that have some."""
    return NetworkFeature("hair-colour", _names("hair"), LEVELS, "l2", seen, lambda output: _spots(output[0], _above(output[1]), 0.06))


def angles(mesh: Mesh) -> Float[Tensor, "n 3"]:
    """Yaw, pitch and roll in degrees."""
    across = F.normalize(mesh[:, 263] - mesh[:, 33], dim=1)
    down = mesh[:, 152] - mesh[:, 10]
    down = F.normalize(down - (down * across).sum(1, keepdim=True) * across, dim=1)
    yaw = torch.atan2(across[:, 2], across[:, 0].clamp(min=1e-3))
    pitch = torch.atan2(down[:, 2], down[:, 1])
    roll = torch.atan2(across[:, 1], across[:, 0])
    return torch.stack([yaw, pitch, roll], 1) * (180 / math.pi)


def mouth_shape(mesh: Mesh) -> Float[Tensor, "n 2"]:
    opening = _gap(mesh, 13, 14) / _gap(mesh, 10, 152)
    width = _gap(mesh, 61, 291) / _gap(mesh, 33, 263)
    return torch.stack([opening, width], 1)


def eye_shape(mesh: Mesh) -> Float[Tensor, "n 2"]:
    left = _gap(mesh, 159, 145) / _gap(mesh, 33, 133)
    right = _gap(mesh, 386, 374) / _gap(mesh, 263, 362)
    brows = (_gap(mesh, 105, 159) + _gap(mesh, 334, 386)) / 2
    return torch.stack([(left + right) / 2, brows / _gap(mesh, 10, 152)], 1)


def face_place(mesh: Mesh) -> Float[Tensor, "n 3"]:
    top, chin = _in_image(mesh, 10), _in_image(mesh, 152)
    return torch.cat([(top + chin) / 2, _length(chin - top)[:, None]], 1)


def _gap(points: Tensor, i: int, j: int) -> Float[Tensor, " n"]:
    return _length(points[:, i] - points[:, j]).clamp(min=1e-6)


def _length(arrows: Tensor) -> Tensor:
    return (arrows.square().sum(1) + 1e-12).sqrt()  # with a gradient at zero


def _in_image(mesh: Mesh, point: int) -> Float[Tensor, "n 2"]:
    """A landmark's x and y as fractions of the image."""
    return mesh[:, point, :2] * ((1 + 2 * MARGIN) / SIZE) - MARGIN


def _cheeks(mesh: Mesh) -> Float[Tensor, "n 2 2"]:
    return torch.stack([_in_image(mesh, 50), _in_image(mesh, 280)], 1)


def _above(mesh: Mesh) -> Float[Tensor, "n 1 2"]:
    top, chin = _in_image(mesh, 10), _in_image(mesh, 152)
    return (top + (top - chin) / 8)[:, None]


def _spots(images: Images, spots: Float[Tensor, "n k 2"], radius: float) -> Float[Tensor, "n 4"]:
    """Mean colour around k places; each spot is a bell with the radius (of the image's width) as standard deviation."""
    weights = _bell(spots[..., 1], images.shape[-2], radius)[..., None] * _bell(spots[..., 0], images.shape[-1], radius)[..., None, :]
    return _colours(images, weights.mean(1, keepdim=True))


def _bell(centres: Float[Tensor, "n k"], size: int, radius: float) -> Float[Tensor, "n k s"]:
    """Sums to 1 along the image even where the centre lies outside: a softmax of the negative squared distance."""
    grid = (torch.arange(size, dtype=centres.dtype, device=centres.device) + 0.5) / size
    return torch.softmax(-(grid - centres[..., None]).square() / (2 * radius**2), dim=-1)


# --- the networks of face-api


def smile(network: Callable[[Images], Tensor]) -> NetworkFeature:
    """Logit of happy minus logit of neutral."""
    return NetworkFeature("smile", ("smile",), "logit", "l2", network, lambda logits: logits[:, 1:2] - logits[:, :1])


def expression(network: Callable[[Images], Tensor]) -> NetworkFeature:
    """The other five expressions' logits, each minus neutral's."""
    return NetworkFeature("expression", EXPRESSIONS[2:], "logit", "l2", network, lambda logits: logits[:, 2:] - logits[:, :1])


def identity(network: Callable[[Images], Tensor]) -> NetworkFeature:
    """128 numbers whose distances compare: on faces64 random pairs are .55 apart. A hold, not a knob."""
    return NetworkFeature("identity", tuple(f"id-{i}" for i in range(128)), "", "l2", network, lambda embedding: embedding)


def age(network: Callable[[Images], Any]) -> NetworkFeature:
    """Apparent age. Weak on generated faces (a ridge from z explains a quarter of it)."""
    return NetworkFeature("age", ("age",), "years", "l2", network, lambda output: output[0][:, None])


def gender_presentation(network: Callable[[Images], Any]) -> NetworkFeature:
    """Logit of female minus male presentation, as one small network sees it. Weak on generated faces; never a headline."""
    name = "gender-presentation"
    return NetworkFeature(name, (name,), "logit", "l2", network, lambda output: output[1][:, 1:] - output[1][:, :1])


def landmarks68(network: Callable[[Images], Tensor]) -> NetworkFeature:
    """68 points as fractions of the image: ``landmark-0-x``, ``landmark-0-y``, ..."""
    columns = tuple(f"landmark-{i}-{axis}" for i in range(68) for axis in "xy")
    return NetworkFeature("landmarks68", columns, "image widths", "l2", network, lambda points: points.flatten(1))


def pose68(network: Callable[[Images], Tensor], calibration: Mapping[str, Any]) -> NetworkFeature:
    """The second judge of pose. Roll is the slope of the eye line; yaw and pitch are where the nose stands, linearly calibrated.

    On unedited faces64 faces they correlate .92 (yaw), .80 (pitch) and .61 (roll) with ``pose``; ``landmarks68.json`` has n and seed.

    Args:
        calibration: ``{"yaw68": {"scale": ..., "offset": ...}, "pitch68": {...}}``, made by ``tools/calibrate_landmarks.py``.
    """
    scale = [calibration[name]["scale"] for name in ("yaw68", "pitch68")] + [1.0]
    offset = [calibration[name]["offset"] for name in ("yaw68", "pitch68")] + [0.0]

    def read(points: Plane) -> Values:
        raw = nose_and_eyes(points)
        return raw * raw.new_tensor(scale) + raw.new_tensor(offset)

    return NetworkFeature("pose68", ("yaw68", "pitch68", "roll68"), "deg", "l2", network, read)


def mouth68(network: Callable[[Images], Tensor]) -> NetworkFeature:
    """The second judge of the mouth: inner opening over brows to chin, and width over the distance between the outer eye corners."""
    return NetworkFeature("mouth68", ("mouth-open68", "mouth-width68"), "ratio", "l2", network, mouth_shape68)


def nose_and_eyes(points: Plane) -> Float[Tensor, "n 3"]:
    """How far the nose's tip stands beside and below the middle of the jaw's ends, over the jaw's width; and the slope of the eyes.

    All three as angles, in degrees; the ends of the jaw are at the ears, so that the nose moves against them as the head turns.
    """
    across = points[:, 16] - points[:, 0]
    width = _length(across).clamp(min=1e-3)
    across = across / width[:, None]
    nose = points[:, 30] - (points[:, 0] + points[:, 16]) / 2
    beside = torch.atan2((nose * across).sum(1), width)
    below = torch.atan2(nose[:, 1] * across[:, 0] - nose[:, 0] * across[:, 1], width)
    eyes = points[:, 42:48].mean(1) - points[:, 36:42].mean(1)
    slope = torch.atan2(eyes[:, 1], eyes[:, 0].clamp(min=1e-3))
    return torch.stack([beside, below, slope], 1) * (180 / math.pi)


def mouth_shape68(points: Plane) -> Float[Tensor, "n 2"]:
    """The denominators have a floor: on faces that the network does not understand its points fall together."""
    height = (points[:, 8, 1] - points[:, 17:27, 1].mean(1)).clamp(min=0.4)
    opening = (_gap(points, 61, 67) + _gap(points, 62, 66) + _gap(points, 63, 65)) / 3
    return torch.stack([opening / height, _gap(points, 48, 54) / _gap(points, 36, 45).clamp(min=0.25)], 1)


# --- the person mask: ``masked`` is Beside(PersonMask)


def person(masked: Beside) -> NetworkFeature:
    """The share of the picture that the person takes."""
    return NetworkFeature("person", ("person-area",), "fraction", "l2", masked, lambda output: output[1].mean((2, 3)))


def person_colour(masked: Beside) -> NetworkFeature:
    """The colour of the person, hair and clothes included."""
    return NetworkFeature("person-colour", _names("person"), LEVELS, "l2", masked, lambda output: _colours(output[0], output[1]))


def background_colour(masked: Beside) -> NetworkFeature:
    """The colour of everything but the person."""
    columns = _names("background")
    return NetworkFeature("background-colour", columns, LEVELS, "l2", masked, lambda output: _colours(output[0], 1 - output[1]))


def _names(region: str) -> tuple[str, ...]:
    return tuple(f"{region}-{colour}" for colour in COLOURS)


def _colours(images: Images, mask: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 4"]:
    """Brightness, red, green and blue in [0, 1], weighted by the mask; of an empty mask the whole picture's."""
    mask = mask + 1e-12
    colour = (((images + 1) / 2) * mask).sum((2, 3)) / mask.sum((2, 3))
    if colour.shape[1] == 1:
        colour = colour.expand(-1, 3)
    brightness = colour @ colour.new_tensor(LUMA)
    return torch.cat([brightness[:, None], colour], 1)
