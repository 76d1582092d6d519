"""How far a knob can be turned before its images stop looking like unsteered ones: one threshold, and the largest amount below it.

The paper bounds its walks by a Fréchet distance of 22, which means nothing for other networks, images and n. Here the bound is by default a
picture that everybody can imagine: steered images may be no further from the unsteered ones than these are when they are reduced to
half their size. ``limits`` measures many amounts against it, ``variability`` takes the largest that stays below for all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from steerable import checks, progress
from steerable.controls.directions import amounts as turned
from steerable.edits import EDITS
from steerable.evaluation.quality import kernel_distance, pooled
from steerable.protocols import Control, Generator, Images, Knob, Values

HALF = "unsteered images reduced to half their size"
SHUFFLES = 19
CHANCE = "two sets of unsteered images, by chance (those reduced to half their size differ less)"
BEYOND = 2.0  # times the knob's range, as far as default amounts go
TRIED = (1 / 32, 1 / 16, *(i / 8 for i in range(1, 9)))  # amounts by default, of the furthest


def knob_of(control: Control, name: str | None) -> Knob:
    """The knob of that name, or the only one.

    Raises:
        ValueError: several and no name, none of that name, one without a neutral amount.
    """
    names = [knob.name for knob in control.knobs]
    if name is None and len(names) > 1:
        raise ValueError(f"this control has the knobs {', '.join(names)}: say which one.")
    knob = control.knobs[names.index(checks.known(name, names, "knob")) if name is not None else 0]
    if knob.neutral is None:
        raise ValueError(f'"{knob.name}" sets a value and has no neutral amount: only knobs that shift an attribute have limits.')
    return knob


def reach(knob: Knob) -> tuple[float, float]:
    """The ends of the knob's range from its neutral amount, of the edit's where it has none; a missing side mirrors the other."""
    neutral = knob.neutral or 0.0
    low, high = min(knob.low - neutral, 0.0), max(knob.high - neutral, 0.0)
    if low == high == 0:
        if knob.name not in EDITS:
            raise ValueError(f'"{knob.name}" has no usable range to start from: give amounts, in {knob.unit or "its unit"}.')
        low, high = EDITS[knob.name].knob.low / BEYOND, EDITS[knob.name].knob.high / BEYOND
    return low or -high, high or -low


def halved(images: Images) -> Images:
    """The images at half their size, brought back to it."""
    small = [max(side // 2, 1) for side in images.shape[2:]]
    return F.interpolate(F.interpolate(images, size=small, mode="area"), size=images.shape[2:], mode="bilinear", align_corners=False)


def by_chance(reference: Values, plain: Values, *, seed: int) -> float:
    """The largest kernel distance of 19 random halvings of both sets: what lies above is no chance, at the level of 5 %."""
    both, rng = torch.cat([reference, plain]), torch.Generator().manual_seed(seed)
    halvings = (both[torch.randperm(len(both), generator=rng)].split(len(reference)) for _ in range(SHUFFLES))
    return max(kernel_distance(*parts) for parts in halvings)


def threshold_over(given: float | None, halved: float, chance: float, n: int) -> tuple[float, str]:
    """The threshold given, else that of halved images, or of chance where that is larger; and which it is, in words.

    Raises:
        ValueError: one was given that two sets of unsteered images exceed by chance.
    """
    if given is None:
        return (halved, HALF) if halved > chance else (chance, CHANCE)
    if not given > chance:
        raise ValueError(
            f"two sets of {n} unsteered images differ by a kernel distance of up to {chance:.3g} by chance, so the threshold {given:.3g} "
            "says nothing: give a larger one, or more images."
        )
    return given, "given"


def largest_amount(
    generator: Generator,
    control: Control,
    knob: Knob,
    *,
    network: Callable[[Images], Values],
    threshold: float | None = None,
    candidates: Sequence[float] | None = None,
    classes: Sequence[int] | None = None,
    n: int = 256,
    seed: int = 1,
    psi: float = 1.0,
    batch: int = 32,
) -> tuple[float, float, tuple[tuple[float, float, float], ...]]:
    """The largest amount whose steered images stay plausible on both sides, over all classes together: alpha* of eq. 6.

    Args:
        candidates: amounts above 0, tried from the smallest on; by default ten up to twice the knob's range.
        classes: of a class-conditional generator; they take turns.
        threshold, n, seed: as in ``limits``.

    Returns:
        The amount, the threshold, and (amount, distance below, distance above) of those tried.

    Raises:
        ValueError: not even the smallest candidate stays below the threshold.
    """
    if n < 16:
        raise ValueError(f"a kernel distance takes 16 images or more, got {n}.")
    furthest = max(abs(side) for side in reach(knob)) * BEYOND if candidates is None else 0.0
    wanted = sorted(float(one) for one in candidates or [furthest * share for share in TRIED])
    if not all(0 < one < float("inf") for one in wanted):
        raise ValueError(f"amounts to choose from are above 0, got {wanted}.")
    labels = None if classes is None else [classes[i % len(classes)] for i in range(2 * n)]
    latents = generator.sample(2 * n, seed=seed, space=control.space.name, psi=psi, labels=labels)
    others, moved = latents[:n], latents[n:]
    reference, plain = (pooled(generator, network, one, batch=batch).cpu() for one in (others, moved))
    coarse = 0.0
    if threshold is None:
        coarse = kernel_distance(reference, pooled(generator, lambda images: network(halved(images)), moved, batch=batch).cpu())
    limit, _ = threshold_over(threshold, coarse, by_chance(reference, plain, seed=seed), n)
    tried = []
    for amount in progress.track(wanted, f"plausibility of {knob.name}"):
        ends = []
        for sign in (-1, 1):
            rows = turned(control, moved, {knob.name: (knob.neutral or 0.0) + sign * amount}).to(moved.values)
            ends.append(kernel_distance(reference, pooled(generator, network, control.steer(moved, rows), batch=batch).cpu()))
        tried.append((amount, *ends))
        if max(ends) > limit:
            break
    good = [amount for amount, below, above in tried if max(below, above) <= limit]
    if not good:
        raise ValueError(
            f'"{knob.name}" by {tried[0][0]:g} {knob.unit} is already at kernel distance {max(tried[0][1:]):.3g}, over the threshold '
            f"{limit:.3g}: try smaller amounts or a larger threshold."
        )
    return good[-1], limit, tuple(tried)
