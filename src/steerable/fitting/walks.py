"""Self-supervised linear walks: directions that imitate an edit, learned without labels.

``edits`` says what an image should look like, ``controls.directions`` applies the result. The unit of a fitted
walk is what the generator really does: ``calibrate`` reads it back from images.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, eq. 1:

    w* = argmin_w  E_{z, a}  || M(a) . (G(z + a w) - edit(G(z), a)) ||^2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steerable.controls.directions import Directions
from steerable.edits import edit as named_edits
from steerable.edits import narrowed
from steerable.fitting.calibrate import calibrate
from steerable.progress import track
from steerable.protocols import Amounts, Edit, Generator, Images, Knob, Latents, Mask, home

FRACTIONS = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)  # of the range's ends, where the held-out loss is measured


def fit_directions(
    generator: Generator,
    edits: str | Edit | Sequence[Any],
    *,
    seed: int = 0,
    n: int = 1024,
    batch: int = 16,
    lr: float = 0.1,
    space: str | None = None,
    amounts: tuple[float, float] | None = None,
    held_out: int = 32,
    calibration: int = 32,
) -> Directions:
    """One direction for each edit, such that walking ``a`` along it looks like the edit by ``a``.

    Args:
        edits: a name ("zoom"; "colour" stands for red, green and blue), an edit, or several to be fitted jointly: their
            amounts are drawn independently and their targets applied one after the other.
        n: latents, a fresh one for each sample. On faces64 ten times as many lower the
            held-out loss by up to .06 (zoom, shift-x); the paper takes 20,000.
        batch: latents a step.
        lr: Adam's, for the move at the far end of the range, in latent units; it decays to zero on a cosine.
        space: where the directions live; by default w where the generator has one, its first space otherwise.
        amounts: train on these instead of the knobs' own ranges, which the fitted knobs then have.
        held_out: further latents, on which the relative loss is measured.
        calibration: still further ones, for the unit and the usable range: the amount is read back from the images
            (``edits.measured_edit``), so that one unit asked is one unit done on average. 0 keeps the unit of the training.

    Returns:
        Directions whose ``fit`` has the arguments, the training loss of the last tenth, and ``held_out``: for each knob, the
        masked squared error of walking divided by that of doing nothing (0 is perfect, 1 is useless), at several amounts.

    Raises:
        ValueError: unknown edit or space, numbers out of range, or a loss that is no longer finite.
    """
    edits = _as_edits(edits)
    _check_numbers(n=n, batch=batch, lr=lr, held_out=held_out)
    knobs = tuple(_ranged(edit, amounts) for edit in edits)
    everything = generator.sample(n + held_out + calibration, seed=seed, space=space or home(generator))
    latents, unseen, last = everything[:n], everything[n : n + held_out], everything[n + held_out :]
    like = latents.values
    low, high = (like.new_tensor([getattr(knob, end) for knob in knobs]) for end in ("low", "high"))
    scale = torch.maximum(low.abs(), high.abs())

    moves = torch.zeros(len(knobs), *everything.space.shape, dtype=like.dtype, device=like.device, requires_grad=True)
    optimiser = torch.optim.Adam([moves], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, math.ceil(n / batch))
    rng = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for start in track(range(0, n, batch), f"walk: {', '.join(knob.name for knob in knobs)}"):
        some = latents[start : start + batch]
        drawn = torch.rand(len(some), len(knobs), generator=rng).to(like) * (high - low) + low
        with torch.no_grad():
            targets, mask = _edited(edits, generator(some), drawn)
        loss = _masked(generator(some.at(_moved(some, drawn / scale, moves))), targets, mask).mean()
        if not math.isfinite(loss.item()):
            raise ValueError(
                f"the loss of {', '.join(k.name for k in knobs)} is {loss.item()} after {start} samples: "
                f"lower lr (now {lr:g}), or look for NaN in the generator's images and the edit's targets."
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())

    vectors = moves.detach() / scale.view(-1, *[1] * len(everything.space.shape))
    tail = losses[-max(1, len(losses) // 10) :]
    fit: dict[str, Any] = {
        "method": "walk",
        "edits": [knob.name for knob in knobs],
        "seed": seed,
        "n": n,
        "batch": batch,
        "lr": lr,
        "space": everything.space.name,
        "range": [[knob.low, knob.high] for knob in knobs],
        "training_loss": sum(tail) / len(tail),
        "held_out_n": held_out,
        "held_out": {
            knob.name: relative_loss(generator, edit, vectors[row], unseen, knob.low, knob.high)
            for row, (edit, knob) in enumerate(zip(edits, knobs, strict=True))
        },
    }
    walk = Directions(knobs, everything.space, vectors, fit=fit)
    if not calibration:
        return walk
    measures = {one.knob.name: one if amounts is None else narrowed(one, *amounts) for one in edits}
    return calibrate(generator, walk, measures, latents=last)


def relative_loss(generator: Generator, edit: Edit, vector: Tensor, latents: Latents, low: float, high: float) -> dict[str, float]:
    """Masked squared error of walking over that of doing nothing, at fractions of the range's ends; "mean" is over all.

    0 is a perfect imitation, 1 is as bad as not moving. Keys are the amounts.
    """
    walked, nothing = {}, {}
    with torch.no_grad():
        before = torch.cat([generator(latents[i : i + 32]) for i in range(0, len(latents), 32)])
        for fraction in FRACTIONS:
            amount = abs(fraction) * (high if fraction > 0 else low)
            if amount == 0:
                continue
            targets, mask = edit(before, before.new_full((len(before),), amount))
            moved = latents.at(latents.values + amount * vector)
            after = torch.cat([generator(moved[i : i + 32]) for i in range(0, len(moved), 32)])
            walked[f"{amount:.4g}"] = float(_masked(after, targets, mask).mean())
            nothing[f"{amount:.4g}"] = float(_masked(before, targets, mask).mean())
    ratios = {amount: walked[amount] / max(nothing[amount], 1e-12) for amount in walked}
    return {**ratios, "mean": sum(walked.values()) / max(sum(nothing.values()), 1e-12)}


def _moved(latents: Latents, fractions: Amounts, moves: Tensor) -> Tensor:
    return latents.values + torch.einsum("nk,k...->n...", fractions, moves)


def _edited(edits: Sequence[Edit], images: Images, amounts: Amounts) -> tuple[Images, Mask]:
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


def _masked(images: Images, targets: Images, mask: Mask) -> Tensor:
    """Mean squared error over the known pixels of each image, (n,)."""
    squared = (images - targets).square().mean(1, keepdim=True) * mask
    return squared.sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)


def _as_edits(edits: str | Edit | Sequence[Any]) -> tuple[Edit, ...]:
    if isinstance(edits, str):
        return named_edits(edits)
    given = tuple(edits) if isinstance(edits, Sequence) else (edits,)
    wrong = [one for one in given if not isinstance(one, Edit)]
    if wrong or not given:
        what = type(wrong[0]).__name__ if wrong else "none"
        raise TypeError(f'expected a name such as "zoom", an edit, or a list of edits, got {what}. A function: as_edit(function, knob).')
    return given


def _ranged(edit: Edit, amounts: tuple[float, float] | None) -> Knob:
    knob = edit.knob
    low, high = (knob.low, knob.high) if amounts is None else amounts
    if not low <= (knob.neutral or 0.0) <= high or low == high or not math.isfinite(high - low):
        raise ValueError(f"training amounts of {knob.name} go from low to high with 0 between ({knob.unit}); got {low} to {high}.")
    return replace(knob, low=float(low), high=float(high))


def _check_numbers(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0 or not math.isfinite(number):
            raise ValueError(f"{name} has to be a number above 0, got {number}.")
