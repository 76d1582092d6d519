"""Edits: target changes of an image, from which walks are learned without labels.

An edit takes images and one amount each and returns what the images should look like, and a mask of the pixels
that it can know: the part that a shift moves in from outside the frame is unknown. An amount of 0 changes
nothing. The signs, as seen on the screen:

    brightness, red, green, blue   what is added to the [0, 1]-scaled colour; > 0 is lighter, redder, ...
    lab-lightness, lab-red, lab-yellow
                                   what is added to L*, a* and b* of CIE Lab; > 0 is lighter, redder (less green), yellower (less blue)
    contrast                       stops, log2 of the factor about the image's mean luminance; > 0 is harder
    zoom                           log2 of the magnification about the centre; > 0 enlarges
    shift-x, shift-y               in image widths and heights; > 0 moves to the right, down
    rotate                         degrees about the centre; > 0 turns counter-clockwise
    rotate3d                       degrees about the vertical axis, as a billboard is; > 0 faces the viewer's right: its right side recedes

``within`` restricts any of them to a part of the picture, ``as_edit`` makes one of any function, ``in_turn`` does several.

Targets of colour edits may leave [-1, 1], as in the paper: a clipped target would teach clipping.
``fitting.walks`` learns directions from edits; ``measured_edit`` reads an amount back from two images.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, A.1.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.protocols import Amounts, Edit, Images, Knob, Mask

LUMA = (0.299, 0.587, 0.114)
KNOWN_ABOVE = 0.999  # a warped mask of ones is below this where a target pixel mixes in something from outside the frame
DISTANCE = 2.0  # of the camera from a billboard that turns, in image widths
VISIBLE = 0.01  # the least share of a picture that an edit has to leave known
BLUR = 13  # pixels; wide enough for the low-pass before a reduction to a quarter


@dataclass(frozen=True)
class ImageEdit:
    """A knob and ``change(images, amounts) -> (targets, mask)``."""

    knob: Knob
    change: Callable[[Images, Tensor], tuple[Images, Mask]]

    def __call__(self, images: Images, amounts: Tensor) -> tuple[Images, Mask]:
        checks.images(images)
        if amounts.shape != (len(images),):
            raise ValueError(f'"{self.knob.name}" takes one amount an image: expected ({len(images)},), got {tuple(amounts.shape)}.')
        return self.change(images, amounts.to(images))


def edit(name: str) -> tuple[ImageEdit, ...]:
    """The edits of that name: one, or the three that ``colour`` or ``colour-lab`` stands for (they are fitted jointly).

    Raises:
        ValueError: no such edit; the error has the nearest known name.
    """
    checks.known(name, EDIT_NAMES, "edit")
    return tuple(EDITS[one] for one in GROUPS.get(name, (name,)))


def as_edit(change: Callable[..., Any], knob: Knob) -> ImageEdit:
    """An edit of the user's: ``change(images, amounts (n,))`` returns the targets, or the targets and a mask.

    Example:
        >>> gamma = as_edit(lambda x, a: x.add(1).div(2).pow(2 ** -a[:, None, None, None]) * 2 - 1, Knob("gamma", "stops", -1, 1))

    Raises:
        ValueError: the knob has no neutral amount; at the call: targets or mask of another shape than the images, or what the
            function itself raises.
    """
    if knob.neutral is None:
        raise ValueError(f'an edit shifts an image from where it is, so "{knob.name}" needs a neutral amount: Knob(..., neutral=0.0).')

    def checked(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
        try:
            result = change(images, amounts)
        except Exception as error:
            raise ValueError(f'the edit "{knob.name}" fails: {type(error).__name__}: {error}.') from error
        pair: Any = result if isinstance(result, tuple) and len(result) == 2 else (result, torch.ones_like(images[:, :1]))
        targets, mask = pair
        expected = (len(images), 1, *images.shape[2:])
        got = [tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in (targets, mask)]
        if got != [tuple(images.shape), expected]:
            raise ValueError(
                f'the edit "{knob.name}" must return targets {tuple(images.shape)} and, if any, a mask {expected}; '
                f"got {got[0]} and {got[1]}."
            )
        return targets, mask.to(images)

    return ImageEdit(knob, checked)


def within(edit: Edit, region: Tensor | Callable[[Images], Tensor] | Any, *, name: str | None = None) -> ImageEdit:
    """The edit inside a region; outside, the picture is to stay as it is. The segmented walk of the paper.

    Args:
        region: a mask (h, w), (1, h, w) or (1, 1, h, w) of 0 to 1; a box with ``top, left, bottom, right`` in pixels, such as
            ``Box``; or a function images -> masks (n, 1, h, w), such as the person mask. What it gives is not differentiated.
        name: of the knob; the edit's own by default.

    Raises:
        ValueError: at the call: a region of another size than the images, numbers outside 0 to 1, a box outside the picture.

    Example:
        >>> lighter_person = within(EDITS["brightness"], person_mask, name="person-brightness")
    """

    found = _Latest(lambda images: _region(region, images))

    def change(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
        inside = found(images)
        targets, mask = edit(images, amounts)
        return images + inside * (targets - images), torch.where(inside > 0, mask.to(images), torch.ones_like(inside))

    return ImageEdit(edit.knob if name is None else replace(edit.knob, name=name), change)


class _Latest:
    """A function of images that remembers its last answer: an amount is read back by editing the same images fifty times."""

    def __init__(self, function: Callable[[Images], Tensor]) -> None:
        self.function = function
        self._last: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def __call__(self, images: Images) -> Tensor:
        if images.is_inference():  # these do not say when they were changed in place
            return self.function(images)
        if self._last is not None and self._last[0]() is images and self._last[1] == images._version:
            return self._last[2]
        answer = self.function(images)
        self._last = (weakref.ref(images), images._version, answer)
        return answer


def _region(region: Any, images: Images) -> Float[Tensor, "n 1 h w"]:
    height, width = images.shape[2:]
    if not isinstance(region, Tensor) and not callable(region):
        top, left, bottom, right = (int(getattr(region, side)) for side in ("top", "left", "bottom", "right"))
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise ValueError(
                f"the box {top},{left},{bottom},{right} (top, left, bottom, right) is not inside images of {height} x {width}."
            )
        inside = torch.zeros(height, width)
        inside[top:bottom, left:right] = 1
    elif isinstance(region, Tensor):
        inside = region
    else:
        with torch.no_grad():
            inside = region(images)
        if not isinstance(inside, Tensor):
            raise ValueError(f"the region of an edit is a mask, a tensor; its function gives {type(inside).__name__}.")
    inside = inside.detach().to(images)
    if inside.shape[-2:] != (height, width) or inside.numel() not in (height * width, len(images) * height * width):
        expected = f"({height}, {width}) or ({len(images)}, 1, {height}, {width})"
        raise ValueError(f"the region of an edit is a mask {expected}, got {tuple(inside.shape)}.")
    if not bool(((inside >= 0) & (inside <= 1)).all()):
        raise ValueError("the region of an edit is a mask of numbers from 0 (outside) to 1 (inside): got others.")
    return inside.reshape(-1, 1, height, width).expand(len(images), -1, -1, -1)


def in_turn(edits: Sequence[Edit], images: Images, amounts: Amounts) -> tuple[Images, Mask]:
    """The targets of several edits, one after the other, and what is known of them.

    A later edit moves the pixels that an earlier one left unknown: those of its target that depend on what they are
    (filled with white or with black) are unknown as well.
    """
    mask = torch.ones_like(images[:, :1])
    for edit, column in zip(edits, amounts.unbind(1), strict=True):
        carried = None
        if not bool(mask.all()):
            white, black = (edit(torch.where(mask > 0, images, images.new_tensor(fill)), column)[0] for fill in (1.0, -1.0))
            carried = (white - black).abs().amax(1, keepdim=True) < 2e-3
        images, known = edit(images, column)
        mask = known.to(images) if carried is None else known * carried
    return images, mask


def masked_error(images: Images, targets: Images, mask: Mask) -> Float[Tensor, " n"]:
    """Mean squared error over the known pixels of each image; 0 where none is known.

    Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, eq. 4.
    """
    squared = (images - targets).square().mean(1, keepdim=True) * mask
    return squared.sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)


def check_visible(edit: Edit, images: Images, amounts: Sequence[float]) -> None:
    """Refuse amounts that move (nearly) everything out of sight: there is no target to learn from.

    Args:
        images: one or more of the size that will be edited.
        amounts: the furthest ones that will be asked for.

    Raises:
        ValueError: an amount whose mask leaves less than 1 % of the picture.
    """
    for amount in amounts:
        _, mask = edit(images[:1], images.new_full((1,), amount))
        share = float(mask.to(images).mean())
        if share < VISIBLE:
            knob = edit.knob
            raise ValueError(
                f'"{knob.name}" by {amount:g} {knob.unit} leaves {100 * share:.1f} % of a {images.shape[3]} x {images.shape[2]} picture '
                f"known, at least {100 * VISIBLE:.0f} % are needed: ask for less, its usual range is {knob.low:g} to {knob.high:g}."
            )


def luminance(images: Images) -> Float[Tensor, "n 1 h w"]:
    """Rec. 601 luma of colour images; the channels' mean of any other number of channels."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


# ------------------------------------------------------------------ colour


def _all_known(images: Images) -> Mask:
    return torch.ones_like(images[:, :1])


def _brightness(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
    return images + 2 * amounts[:, None, None, None], _all_known(images)


def _channel(index: int, name: str) -> Callable[[Images, Tensor], tuple[Images, Mask]]:
    def change(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
        if images.shape[1] != 3:
            raise ValueError(f'the edit "{name}" needs colour images (n, 3, h, w), got {tuple(images.shape)}. Use brightness.')
        one = torch.zeros(3, 1, 1, dtype=images.dtype, device=images.device)
        one[index] = 2
        return images + amounts[:, None, None, None] * one, _all_known(images)

    return change


def _contrast(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
    middle = luminance(images).mean((2, 3), keepdim=True)
    return middle + (images - middle) * torch.exp2(amounts)[:, None, None, None], _all_known(images)


def _lab(index: int, name: str) -> Callable[[Images, Tensor], tuple[Images, Mask]]:
    def change(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
        from kornia.color import lab_to_rgb, rgb_to_lab

        if images.shape[1] != 3:
            raise ValueError(f'the edit "{name}" needs colour images (n, 3, h, w), got {tuple(images.shape)}. Use brightness.')
        one = torch.zeros(3, 1, 1, dtype=images.dtype, device=images.device)
        one[index] = 1
        lab = rgb_to_lab((images + 1) / 2)
        there, here = (lab_to_rgb(lab + by * one, clip=False) for by in (amounts[:, None, None, None], 0.0))
        return images + 2 * (there - here), _all_known(images)  # the difference: conversions there and back are not quite exact

    return change


# ------------------------------------------------------------------ geometry


def _warp(images: Images, matrix: Float[Tensor, "n 2 2"], offset: Float[Tensor, "n 2"]) -> tuple[Images, Mask]:
    """x' = centre + matrix (x - centre) + offset, in pixels, x to the right and y down.

    ``align_corners=True`` makes kornia's coordinates those of pixel centres, 0 to w - 1, so that these matrices are exact.
    """
    from kornia.geometry.transform import warp_affine

    height, width = images.shape[2:]
    centre = images.new_tensor([(width - 1) / 2, (height - 1) / 2])
    moved = centre - (matrix @ centre[:, None])[:, :, 0] + offset
    affine = torch.cat([matrix, moved[:, :, None]], 2)
    with_ones = torch.cat([images, torch.ones_like(images[:, :1])], 1)
    warped = warp_affine(with_ones, affine, (height, width), mode="bilinear", padding_mode="zeros", align_corners=True)
    return warped[:, :-1], (warped[:, -1:] > KNOWN_ABOVE).to(images)


def _identity(images: Images) -> Tensor:
    return torch.eye(2, dtype=images.dtype, device=images.device).expand(len(images), 2, 2)


def _zoom(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
    factor = torch.exp2(amounts)
    sharp = _low_pass(images, 0.5 * (factor**-2 - 1).clamp(min=1e-6).sqrt())  # against aliasing where it reduces
    return _warp(sharp, _identity(images) * factor[:, None, None], torch.zeros_like(images[:, 0, 0, :1]).expand(-1, 2))


def _low_pass(images: Images, sigma: Float[Tensor, " n"]) -> Images:
    from kornia.filters import gaussian_blur2d

    return gaussian_blur2d(images, (BLUR, BLUR), sigma[:, None].expand(-1, 2), border_type="replicate")


def _shift(axis: int) -> Callable[[Images, Tensor], tuple[Images, Mask]]:
    def change(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
        offset = torch.zeros(len(images), 2, dtype=images.dtype, device=images.device)
        offset[:, axis] = amounts * images.shape[3 - axis]
        return _warp(images, _identity(images), offset)

    return change


def _rotate(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
    angle = torch.deg2rad(amounts)
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)  # y points down
    return _warp(images, matrix, torch.zeros_like(matrix[:, 0]))


def _rotate3d(images: Images, amounts: Tensor) -> tuple[Images, Mask]:
    """The point (x, y) of a billboard one image wide stands at (x cos, y, x sin) and is seen from ``DISTANCE`` before its centre."""
    from kornia.geometry.transform import warp_perspective

    height, width = images.shape[2:]
    angle = torch.deg2rad(amounts)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turned = torch.stack([cos, zero, zero, zero, one, zero, sin / (DISTANCE * width), zero, one], 1).view(-1, 3, 3)
    centring = images.new_tensor([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    moved = centring @ turned @ torch.linalg.inv(centring)
    with_ones = torch.cat([images, torch.ones_like(images[:, :1])], 1)
    warped = warp_perspective(with_ones, moved, (height, width), mode="bilinear", padding_mode="zeros", align_corners=True)
    facing = (cos > 1e-3)[:, None, None, None]  # beyond a quarter turn its back would be seen, of which nothing is known
    return warped[:, :-1], ((warped[:, -1:] > KNOWN_ABOVE) & facing).to(images)


LEVELS = "of full scale"
EDITS: dict[str, ImageEdit] = {
    made.knob.name: made
    for made in (
        ImageEdit(Knob("brightness", LEVELS, -0.25, 0.25), _brightness),
        ImageEdit(Knob("red", LEVELS, -0.25, 0.25), _channel(0, "red")),
        ImageEdit(Knob("green", LEVELS, -0.25, 0.25), _channel(1, "green")),
        ImageEdit(Knob("blue", LEVELS, -0.25, 0.25), _channel(2, "blue")),
        ImageEdit(Knob("lab-lightness", "L*", -25.0, 25.0), _lab(0, "lab-lightness")),
        ImageEdit(Knob("lab-red", "a*", -64.0, 64.0), _lab(1, "lab-red")),
        ImageEdit(Knob("lab-yellow", "b*", -64.0, 64.0), _lab(2, "lab-yellow")),
        ImageEdit(Knob("contrast", "stops", -1.0, 1.0), _contrast),
        ImageEdit(Knob("zoom", "log2", -2.0, 2.0), _zoom),
        ImageEdit(Knob("shift-x", "image widths", -0.5, 0.5), _shift(0)),
        ImageEdit(Knob("shift-y", "image heights", -0.5, 0.5), _shift(1)),
        ImageEdit(Knob("rotate", "deg", -45.0, 45.0), _rotate),
        ImageEdit(Knob("rotate3d", "deg", -45.0, 45.0), _rotate3d),
    )
}
GROUPS = {"colour": ("red", "green", "blue"), "colour-lab": ("lab-lightness", "lab-red", "lab-yellow")}
EDIT_NAMES = (*EDITS, *GROUPS)


# ------------------------------------------------------------------ reading an amount back


def measured_edit(edit: Edit, before: Images, after: Images, *, low: float | None = None, high: float | None = None) -> Float[Tensor, " n"]:
    """The amount whose edit of ``before`` comes nearest to ``after``, image by image, in the knob's unit.

    Nearest is the masked squared error as a fraction of what varies in ``after`` under the same mask. It is searched on
    a grid over the range, then on two finer ones, then by the parabola through the best three. On the first grid what
    varies outside the mask counts as unexplained, so that an amount that leaves only background to compare gains nothing
    by it. Where several amounts are equally near (a flat image), the smallest counts.

    Args:
        low, high: where to search; by default the knob's range and a quarter beyond. Nothing outside can be found.

    Returns:
        (n,), without gradients.
    """
    knob = edit.knob
    neutral = knob.neutral or 0.0
    low = neutral + 1.25 * (knob.low - neutral) if low is None else low
    high = neutral + 1.25 * (knob.high - neutral) if high is None else high
    step = (high - low) / 30
    with torch.no_grad():
        grid = torch.linspace(low, high, 31, dtype=before.dtype, device=before.device)
        candidates = torch.cat([grid, grid.new_tensor([neutral])]).expand(len(before), -1)
        around = torch.arange(-5, 6, dtype=before.dtype, device=before.device)
        for hidden in (1.0, 0.0, 0.0):
            errors = torch.stack([_misfit(edit, before, after, one, hidden) for one in candidates.unbind(1)], 1)
            errors = errors + 1e-7 * ((candidates - neutral) / (high - low)) ** 2
            best = candidates.gather(1, errors.argmin(1, keepdim=True))
            if hidden == 0 and step <= (high - low) / 30 / 16:
                break
            step /= 4
            candidates = (best + around * step).clamp(low, high)
        nothing = torch.full_like(best[:, 0], neutral)
        no_better = _misfit(edit, before, after, nothing, 0.0) <= errors.amin(1) + 1e-9
        return nothing.where(no_better, _parabola(candidates, errors, step))


def _misfit(edit: Edit, before: Images, after: Images, amounts: Tensor, hidden: float) -> Float[Tensor, " n"]:
    targets, mask = edit(before, amounts)
    mask = mask.to(before)
    error = ((targets - after).square() * mask).mean(1).sum((1, 2)) / mask.sum((1, 2, 3)).clamp(min=1)
    everything = _variation(after, torch.ones_like(mask))
    unexplained = error / (_variation(after, mask) + 1e-3 * everything + 1e-8)
    if hidden:
        centred = (after - after.mean((2, 3), keepdim=True)).square().mean(1, keepdim=True)
        unexplained = unexplained + hidden * (centred * (1 - mask)).mean((1, 2, 3)) / (everything + 1e-8)
    return unexplained + 1e3 * (mask.sum((1, 2, 3)) < 1)


def _variation(images: Images, mask: Mask) -> Float[Tensor, " n"]:
    """The masked variance of the pixels, mean over the channels."""
    weight = mask / mask.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (images * weight).sum((2, 3), keepdim=True)
    return ((images - mean).square() * weight).sum((2, 3)).mean(1)


def _parabola(candidates: Tensor, errors: Tensor, step: float) -> Float[Tensor, " n"]:
    """The minimum of the parabola through the best candidate and its neighbours."""
    place = errors.argmin(1, keepdim=True).clamp(1, errors.shape[1] - 2)
    left, middle, right = (errors.gather(1, place + i)[:, 0] for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = (0.5 * (left - right) / bend).where(bend > 0, torch.zeros_like(bend)).clamp(-0.5, 0.5)
    return candidates.gather(1, place)[:, 0] + offset * step


def narrowed(edit: Edit, low: float, high: float) -> ImageEdit:
    """The same edit with another training range."""
    return ImageEdit(replace(edit.knob, low=low, high=high), edit)
