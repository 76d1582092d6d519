"""Heads that are drawn by a formula: pictures whose yaw, pitch, light, hue, size and background are known exactly.

A signed distance (an ellipsoid for the skull, a nose, two ears, softly joined) is marched along parallel rays, shaded by one lamp, and laid
over a grey background; gradients reach every number. Two more numbers, hair line and mouth, are labelled by nobody: they are what "the
rest" of a head is. ``sources`` reads pictures from disk; ``features.heads`` measures these.

Sources: Hart, "Sphere tracing", The Visual Computer 1996; the bound of an ellipsoid's distance is that of Quilez, "Ellipsoid SDF", 2008.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steerable.progress import track
from steerable.protocols import Images
from steerable.sources import ImageSource

STEPS = 20  # of a ray
NEAR = 1.6  # where rays begin, in half pictures in front of the middle
SHARP = 24.0  # of the outline: a pixel at 32 px
AMBIENT = 0.25
SKULL = (0.52, 0.68, 0.58)  # half axes: across, up, forward


@dataclass(frozen=True)
class Factor:
    """One number that a picture is drawn from, evenly spread between its ends."""

    name: str
    unit: str
    low: float
    high: float


FACTORS = (
    Factor("yaw", "deg", -50, 50),  # to the viewer's right
    Factor("pitch", "deg", -25, 25),  # upwards
    Factor("light", "deg", -70, 70),  # the lamp, to the viewer's right
    Factor("hue", "deg", 0, 120),  # of the skin: red to green
    Factor("size", "of full size", 0.7, 1.05),
    Factor("background", "of full scale", 0, 1),
)
REST = (Factor("hair", "head heights", 0.2, 0.6), Factor("mouth", "head widths", 0.08, 0.26))
Numbers = Float[Tensor, "n 8"]  # FACTORS, then REST


def drawn_numbers(n: int, *, seed: int) -> Numbers:
    """n heads' numbers, each spread evenly over its range."""
    low, high = (torch.tensor([getattr(factor, end) for factor in (*FACTORS, *REST)]) for end in ("low", "high"))
    return low + (high - low) * torch.rand(n, len(low), generator=torch.Generator().manual_seed(seed))


def heads(numbers: Numbers, *, size: int = 32) -> Images:
    """(n, 3, size, size) in [-1, 1]."""
    yaw, pitch, light, hue, scale, background, hair, mouth = numbers.unbind(1)
    turn = _rotation(torch.deg2rad(yaw), torch.deg2rad(pitch))  # head -> world
    places = (torch.arange(size, device=numbers.device, dtype=numbers.dtype) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(-places, places, indexing="ij")
    origin = torch.stack([x, y, torch.full_like(x, NEAR)], 2).flatten(0, 1)  # (p, 3)

    def head(points: Tensor) -> Tensor:
        return (points @ turn) / scale[:, None, None]  # world -> head

    far = torch.zeros(len(numbers), len(origin), device=numbers.device, dtype=numbers.dtype)
    forward = origin.new_tensor([0.0, 0.0, -1.0])
    nearest = torch.full_like(far, 9.0)
    for _ in range(STEPS):
        distance = _distance(head(origin + far[..., None] * forward)) * scale[:, None]
        nearest = torch.minimum(nearest, distance)
        far = far + distance.clamp(min=-0.1, max=0.5)
    at = head(origin + far[..., None] * forward)
    normal = F.normalize(_slope(at) @ turn.transpose(1, 2), dim=2)
    lamp = torch.deg2rad(light)
    towards = F.normalize(torch.stack([lamp.sin(), torch.full_like(lamp, 0.35), lamp.cos()], 1), dim=1)
    shade = AMBIENT + (1 - AMBIENT) * (normal @ towards[:, :, None])[..., 0].clamp(min=0)
    colour = _colour(at, hue, hair, mouth) * shade[..., None]
    cover = torch.sigmoid(-SHARP * 2 * (nearest - 0.02))[..., None]
    picture = background[:, None, None] * (1 - cover) + colour * cover
    return (picture.clamp(0, 1) * 2 - 1).transpose(1, 2).unflatten(2, (size, size))


def rendered_heads(n: int = 12_000, *, seed: int = 0, size: int = 32) -> tuple[ImageSource, Numbers]:
    """A data set of n heads, and the numbers that each was drawn from."""
    numbers = drawn_numbers(n, seed=seed)
    with torch.inference_mode():
        parts = [((heads(part, size=size) + 1) * 127.5).round().byte() for part in track(numbers.split(250), "render heads")]
    return ImageSource(torch.cat(parts).clone(), torch.zeros(n, dtype=torch.long), (), f"rendered heads, seed {seed}"), numbers


def _rotation(yaw: Tensor, pitch: Tensor) -> Float[Tensor, "n 3 3"]:
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    across = torch.stack([yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos()], 1).view(-1, 3, 3)
    up = torch.stack([one, zero, zero, zero, pitch.cos(), pitch.sin(), zero, -pitch.sin(), pitch.cos()], 1).view(-1, 3, 3)
    return across @ up


def _distance(p: Float[Tensor, "n p 3"]) -> Float[Tensor, "n p"]:
    """To the surface, negative inside; a bound near the skull."""
    axes = p.new_tensor(SKULL)
    outer, inner = (p / axes).norm(dim=2), (p / axes.square()).norm(dim=2)
    skull = outer * (outer - 1) / inner.clamp(min=1e-4)
    nose = (p - p.new_tensor([0.0, -0.05, 0.6])).norm(dim=2) - 0.14
    sides = torch.stack([p[..., 0].abs(), p[..., 1], p[..., 2]], 2)
    ears = (sides - p.new_tensor([0.54, 0.02, 0.0])).norm(dim=2) - 0.13
    return _joined(_joined(skull, nose, 0.08), ears, 0.04)


def _joined(a: Tensor, b: Tensor, soft: float) -> Tensor:
    """The union of two distances, rounded where they meet."""
    return -soft * torch.logaddexp(-a / soft, -b / soft)


def _slope(p: Float[Tensor, "n p 3"]) -> Float[Tensor, "n p 3"]:
    """Of the distance, by central differences, which are as symmetric as the head is."""
    ahead = torch.eye(3, device=p.device, dtype=p.dtype) * 0.02
    return torch.stack([_distance(p + step) - _distance(p - step) for step in ahead], 2)


def _colour(p: Tensor, hue: Tensor, hair: Tensor, mouth: Tensor) -> Float[Tensor, "n p 3"]:
    """Skin of a hue, dark hair above its line and behind, two eyes, a mouth."""
    part = (hue / 60)[:, None]
    saturated = torch.stack([(2 - part).clamp(0, 1), part.clamp(0, 1), torch.zeros_like(part)], 2)
    skin = 0.35 + 0.6 * saturated
    x, y, z = p.unbind(2)

    def spot(dx: Tensor, dy: Tensor, wide: Tensor | float, tall: float) -> Tensor:
        inside = 1 - ((dx / wide).square() + (dy / tall).square())
        return torch.sigmoid(8 * inside) * torch.sigmoid(30 * z)

    eyes = spot(x.abs() - 0.2, y - 0.12, 0.1, 0.07)
    lips = spot(x, y + 0.34, mouth[:, None], 0.05)
    top = torch.sigmoid(25 * (y - hair[:, None] - 0.3 * z.clamp(max=0)))
    back = torch.sigmoid(-20 * (z + 0.15)) * torch.sigmoid(12 * (y + 0.3))
    dark = 1 - (1 - top) * (1 - back)
    colour = skin * (1 - eyes[..., None]) + 0.05 * eyes[..., None]
    colour = colour * (1 - lips[..., None]) + p.new_tensor([0.55, 0.08, 0.12]) * lips[..., None]
    return colour * (1 - dark[..., None]) + p.new_tensor([0.16, 0.1, 0.07]) * dark[..., None]
