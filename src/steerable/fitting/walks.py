"""Self-supervised linear walks: directions that imitate an edit, learned without labels.

``edits`` says what an image should look like, ``controls.directions`` applies the result, ``descent`` solves the least squares problem;
``curved`` does the same with a step that depends on where it is taken. The unit of a fitted walk is what the generator really does:
``calibrate`` reads it back from images.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, eq. 1:

    w* = argmin_w  E_{z, a}  || M(a) . (G(z + a w) - edit(G(z), a)) ||^2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.controls.directions import Directions
from steerable.edits import check_visible, in_turn, masked_error, narrowed
from steerable.edits import edit as named_edits
from steerable.features.perceptual import Perceptual
from steerable.fitting.calibrate import calibrate
from steerable.fitting.descent import WIDEST, Adam, Eigenbasis, Residual, blocks, products
from steerable.generators import processor
from steerable.generators.module import ModuleGenerator
from steerable.progress import track
from steerable.protocols import Amounts, Control, Edit, Generator, Images, Knob, Latents, Mask, home
from steerable.sampling import in_batches

FRACTIONS = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)  # of the range's ends, where the held-out loss is measured
RATES = {"eigenbasis": 0.8, "adam": 0.1}
SETTLED, LEAST = 64, 0.25  # steps below which the first of them is lowered in proportion, to this share: eigenvectors are hardly known
Loss = str | Perceptual  # "l2", or a distance


class Diverged(ValueError):
    """A loss that is no longer finite. ``last`` is the control of the last step whose loss was, None where there was no such step."""

    def __init__(self, message: str, last: Control | None) -> None:
        super().__init__(message)
        self.last = last


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a fit. ``last`` is the control as far as it was learned, None before the first step."""

    def __init__(self, last: Control | None) -> None:
        super().__init__()
        self.last = last


def fit_directions(
    generator: Generator,
    edits: str | Edit | Sequence[Any],
    *,
    seed: int = 0,
    n: int = 1024,
    batch: int = 16,
    lr: float | None = None,
    space: str | None = None,
    amounts: tuple[float, float] | None = None,
    loss: Loss = "l2",
    optimiser: Literal["eigenbasis", "adam"] = "eigenbasis",
    precision: str = "float32",
    held_out: int = 32,
    calibration: int = 32,
    labels: int | None = None,
) -> Directions:
    """One direction for each edit, such that walking ``a`` along it looks like the edit by ``a``.

    Args:
        edits: a name ("zoom"; "colour" stands for red, green and blue), an edit, or several to be fitted jointly: their
            amounts are drawn independently and their targets applied one after the other.
        n: latents, a fresh one for each sample.
        batch: latents a step.
        lr: of the move at the far end of the range, in latent units; it falls to zero. By default 0.8, below 64
            steps in proportion, but 0.2 at least; for Adam 0.1.
        space: where the directions live; by default w where the generator has one, its first space otherwise.
        amounts: train on these instead of the knobs' own ranges, which the fitted knobs then have.
        loss: "l2", the masked squared error, or a ``Perceptual`` distance.
        optimiser: "eigenbasis" (see ``descent``), or "adam", what the paper takes: it needs five to ten times as many samples.
            A space with more than 1,024 dimensions and no layers (s) is fitted by Adam.
        precision: of the generator's convolutions during the fit: "float32", "bfloat16", which takes a third of the time where the
            processor has tiles of it, or "auto": bfloat16 where it has instructions for it. The result is measured in float32.
        held_out: further latents, on which the relative loss is measured.
        calibration: still further ones, for the unit and the usable range: the amount is read back from the images
            (``edits.measured_edit``), so that one unit asked is one unit done on average. 0 keeps the unit of the training.
        labels: one class of a class-conditional generator, for a walk of its own; by default one walk for all classes.

    Returns:
        Directions whose ``fit`` has the arguments, the training loss of the last tenth, and ``held_out``: for each knob, the
        masked squared error of walking divided by that of doing nothing (0 is perfect, 1 is useless), at several amounts.

    Raises:
        ValueError: unknown edit or space, numbers out of range, amounts that leave nothing of the picture visible.
        Diverged: a loss that is no longer finite; ``.last`` is the control before it.
        Interrupted: Ctrl-C; ``.last`` is the control so far.
    """
    edits = as_edits(edits)
    checks.known(optimiser, RATES, "optimiser")
    check_numbers(n=n, batch=batch, lr=RATES[optimiser] if lr is None else lr, held_out=held_out)
    steps = math.ceil(n / batch)
    knobs = tuple(ranged(edit, amounts) for edit in edits)
    everything = generator.sample(n + held_out + calibration, seed=seed, space=space or home(generator), labels=labels)
    if math.prod(everything.space.shape) // blocks(everything.space) > WIDEST:
        optimiser = "adam"
    if lr is None:
        lr = RATES[optimiser] * (min(1.0, max(LEAST, steps / SETTLED)) if optimiser == "eigenbasis" else 1.0)
    latents, unseen, last = everything[:n], everything[n : n + held_out], everything[n + held_out :]
    precision = processor.chosen(precision, latents.values.device.type)
    task = Task(rounded(generator, precision), edits, knobs, loss)
    task.check(latents)
    scale = torch.tensor([max(abs(knob.low), abs(knob.high)) for knob in knobs]).to(latents.values)
    descent = {"adam": Adam, "eigenbasis": Eigenbasis}[optimiser](everything.space, len(knobs), lr=lr, steps=steps, like=latents.values)

    def control(moves: Tensor) -> Directions:
        return Directions(knobs, everything.space, moves / scale.view(-1, *[1] * len(everything.space.shape)))

    rng, signs = (torch.Generator().manual_seed(seed + offset) for offset in (0, 1))
    losses: list[float] = []
    before = descent.mean
    try:
        for some, drawn, weights in task.samples(latents, batch, rng, far=descent.rotated):
            fractions = drawn / scale
            residual = task.residual(some, drawn)
            values = some.values + torch.einsum("nk,k...->n...", fractions, descent.moves)
            squared, gradient, sketch = products(residual, values, signs if descent.curious else None)
            value = float((weights * squared).mean())
            if not math.isfinite(value):
                raise Diverged(task.diverged(value, len(losses) * batch, lr), control(before) if losses else None)
            before = descent.mean
            descent.step(fractions, gradient, sketch, weights)
            losses.append(value)
    except KeyboardInterrupt as stop:
        raise Interrupted(control(descent.answer) if losses else None) from stop

    walk = control(descent.answer)
    tail = losses[-max(1, len(losses) // 10) :]
    fit: dict[str, Any] = {
        "method": "walk",
        "edits": [knob.name for knob in knobs],
        "seed": seed,
        "n": n,
        "batch": batch,
        "lr": lr,
        "loss": loss_name(loss),
        "optimiser": optimiser,
        "precision": precision,
        "space": everything.space.name,
        "label": labels,
        "range": [[knob.low, knob.high] for knob in knobs],
        "training_loss": sum(tail) / len(tail),
        "held_out_n": held_out,
        "held_out": {
            knob.name: relative_loss(generator, edit, walk.vectors[row], unseen, knob.low, knob.high)
            for row, (edit, knob) in enumerate(zip(edits, knobs, strict=True))
        },
    }
    walk = replace(walk, fit=fit)
    if not calibration:
        return walk
    measures = {one.knob.name: one if amounts is None else narrowed(one, *amounts) for one in edits}
    return calibrate(generator, walk, measures, latents=last)


@dataclass(frozen=True, eq=False)
class Task:
    """What a walk has to imitate: edits of a generator's images, over ranges, compared by a loss."""

    generator: Callable[[Latents], Images]
    edits: Sequence[Edit]
    knobs: Sequence[Knob]
    loss: Loss

    def check(self, latents: Latents) -> None:
        """Refuse a loss that is none, and amounts beyond what stays visible."""
        if self.loss != "l2" and not isinstance(self.loss, Perceptual):
            how = "loss=Perceptual(load_backbone())" if self.loss == "perceptual" else 'loss="l2", or loss=Perceptual(load_backbone())'
            raise ValueError(f"a walk's loss is the squared error or a perceptual distance, got {self.loss!r}: {how}.")
        with torch.no_grad():
            image = self.generator(latents[:1])
            for edit, knob in zip(self.edits, self.knobs, strict=True):
                check_visible(edit, image, (knob.low, knob.high))

    def samples(
        self, latents: Latents, batch: int, rng: torch.Generator, *, far: bool = False
    ) -> Iterator[tuple[Latents, Amounts, Float[Tensor, " n"]]]:
        """The latents once, in batches, each with amounts drawn independently over the knobs' ranges, and its weight in the loss.

        In a batch of b every b-th of a knob's range has one: the mean over a batch is the same, with less noise. The amounts a are uniform,
        their weights 1; with ``far`` those of a single knob are as frequent as they are large, with weights in proportion to 1 / |a|. The
        expected loss is the same, but its gradient grows with a^2, so that of uniform ones few samples count.
        """
        low, high = (latents.values.new_tensor([getattr(knob, end) for knob in self.knobs]) for end in ("low", "high"))
        for start in track(range(0, len(latents), batch), f"walk: {', '.join(knob.name for knob in self.knobs)}"):
            some = latents[start : start + batch]
            strata = torch.stack([torch.randperm(len(some), generator=rng) for _ in self.knobs], 1)
            shares = ((strata + torch.rand(strata.shape, generator=rng)) / len(some)).to(low)
            if far and len(self.knobs) == 1:
                squares = shares * (low.square() + high.square()) - low.square()  # signed; uniform, as the density of a is |a|
                drawn = squares.sign() * squares.abs().sqrt()
                weights = (low.square() + high.square()) / (2 * (high - low) * drawn.abs().clamp(min=1e-4 * (high - low)))
                yield some, drawn, weights[:, 0]
            else:
                yield some, shares * (high - low) + low, torch.ones_like(low[:1]).expand(len(some))

    def residual(self, latents: Latents, amounts: Amounts) -> Residual:
        """``values -> r`` with ``|r|^2`` the loss of being there instead of at the edit of ``latents`` by ``amounts``."""
        with torch.no_grad():
            targets, mask = in_turn(self.edits, self.generator(latents), amounts)
        compare = squared_residual if isinstance(self.loss, str) else self.loss.residual
        return lambda values: compare(self.generator(latents.at(values)), targets, mask)

    def diverged(self, value: float, samples: int, lr: float) -> str:
        return (
            f"the loss of {', '.join(k.name for k in self.knobs)} is {value} after {samples} samples: "
            f"lower lr (now {lr:g}), or look for NaN in the generator's images and the edit's targets."
        )


def rounded(generator: Generator, precision: str) -> Callable[[Latents], Images]:
    """Its images, with convolutions in "float32" as they are or in "bfloat16": by its own option where it has one, else by autocast."""
    if precision == "float32":
        return generator
    if isinstance(generator, ModuleGenerator) and "precision" in generator.options:
        return generator.configured(precision=precision)

    def images(latents: Latents) -> Images:
        with torch.autocast(latents.values.device.type, torch.bfloat16):
            return generator(latents).to(latents.values.dtype)

    return images


def squared_residual(images: Images, targets: Images, mask: Mask) -> Float[Tensor, "n m"]:
    """Its squared norm is ``masked_error``."""
    share = mask / (mask.sum((1, 2, 3), keepdim=True).clamp(min=1) * images.shape[1])
    return ((images - targets) * share.sqrt()).flatten(1)


def loss_name(loss: Loss) -> str:
    return loss if isinstance(loss, str) else "perceptual"


def relative_loss(generator: Generator, edit: Edit, walk: Tensor | Control, latents: Latents, low: float, high: float) -> dict[str, float]:
    """Masked squared error of walking over that of doing nothing, at fractions of the range's ends; "mean" is over all.

    0 is a perfect imitation, 1 is as bad as not moving. Keys are the amounts.

    Args:
        walk: one vector, or a control with one knob.
    """
    walked, nothing = {}, {}
    with torch.no_grad():
        before = _images(generator, latents)
        for fraction in FRACTIONS:
            amount = abs(fraction) * (high if fraction > 0 else low)
            if amount == 0:
                continue
            asked = before.new_full((len(before), 1), amount)
            targets, mask = edit(before, asked[:, 0])
            moved = latents.at(latents.values + amount * walk) if isinstance(walk, Tensor) else walk.steer(latents, asked)
            walked[f"{amount:.4g}"] = float(masked_error(_images(generator, moved), targets, mask).mean())
            nothing[f"{amount:.4g}"] = float(masked_error(before, targets, mask).mean())
    ratios = {amount: walked[amount] / max(nothing[amount], 1e-12) for amount in walked}
    return {**ratios, "mean": sum(walked.values()) / max(sum(nothing.values()), 1e-12)}


def _images(generator: Generator, latents: Latents) -> Images:
    return torch.cat([generator(some) for some in in_batches(latents, 32)])


def as_edits(edits: str | Edit | Sequence[Any]) -> tuple[Edit, ...]:
    if isinstance(edits, str):
        return named_edits(edits)
    given = tuple(edits) if isinstance(edits, Sequence) else (edits,)
    wrong = [one for one in given if not isinstance(one, Edit)]
    if wrong or not given:
        what = type(wrong[0]).__name__ if wrong else "none"
        raise TypeError(f'expected a name such as "zoom", an edit, or a list of edits, got {what}. A function: as_edit(function, knob).')
    return given


def ranged(edit: Edit, amounts: tuple[float, float] | None) -> Knob:
    knob = edit.knob
    low, high = (knob.low, knob.high) if amounts is None else amounts
    if not low <= (knob.neutral or 0.0) <= high or low == high or not math.isfinite(high - low):
        raise ValueError(f"training amounts of {knob.name} go from low to high with 0 between ({knob.unit}); got {low} to {high}.")
    return replace(knob, low=float(low), high=float(high))


def check_numbers(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0 or not math.isfinite(number):
            raise ValueError(f"{name} has to be a number above 0, got {number}.")
