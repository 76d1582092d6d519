"""Self-supervised curved walks: a step that imitates a little of an edit, learned without labels.

``walks`` learns straight ones by the same task; ``controls.walk`` follows what is learned here. As in the paper one network serves
every step of a sign; unlike there, amounts are drawn continuously and every row of a batch has its own, so that the fraction of a
step is learned too, and the outer layer starts at zero, so that the walk starts by standing still.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, eq. 2:

    NN* = argmin  E_{z, n}  || M . (G(f^n(z)) - edit(G(z), n eps)) ||^2,    f(z) = z + NN(z)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from steerable.controls.walk import Step, Walk, rows_of
from steerable.edits import narrowed
from steerable.fitting.calibrate import calibrate
from steerable.fitting.descent import products
from steerable.fitting.walks import Diverged, Interrupted, Loss, Task, as_edits, check_numbers, loss_name, ranged, relative_loss, rounded
from steerable.generators import processor
from steerable.protocols import Edit, Generator, LatentSpace, home

WIDEST = 4096  # dimensions of a row: the networks of more would not fit into memory


def fit_walk(
    generator: Generator,
    edit: str | Edit,
    *,
    seed: int = 0,
    n: int = 2048,
    batch: int = 16,
    lr: float = 1e-3,
    steps: int = 5,
    space: str | None = None,
    amounts: tuple[float, float] | None = None,
    loss: Loss = "l2",
    precision: str = "float32",
    held_out: int = 32,
    calibration: int = 32,
    labels: int | None = None,
) -> Walk:
    """A curved walk for one edit.

    Args:
        edit: a name ("zoom") or an edit. For several fit one each and put them into a ``Chain``.
        n: latents, a fresh one for each sample.
        lr: Adam's, decaying to zero on a cosine.
        steps: to each end of the range.
        space, amounts, loss, precision, held_out, calibration, labels: as in ``fit_directions``.

    Returns:
        A walk whose ``fit`` has the arguments, the training loss of the last tenth, and ``held_out`` as ``fit_directions`` has it.
        Its unit and usable range are those that were measured, see ``calibrate``; without calibration those of the training.

    Raises:
        ValueError: unknown edit or space, several edits, numbers out of range, amounts that leave nothing visible, a space too wide.
        Diverged: a loss that is no longer finite; ``.last`` is the walk before it.
        Interrupted: Ctrl-C; ``.last`` is the walk so far.
    """
    edits = as_edits(edit)
    if len(edits) != 1:
        raise ValueError(
            f"a curved walk imitates one edit, got {', '.join(one.knob.name for one in edits)}: fit one each, then Chain them."
        )
    check_numbers(n=n, batch=batch, lr=lr, steps=steps, held_out=held_out)
    knob = ranged(edits[0], amounts)
    everything = generator.sample(n + held_out + calibration, seed=seed, space=space or home(generator), labels=labels)
    latents, unseen, last, where = everything[:n], everything[n : n + held_out], everything[n + held_out :], everything.space
    if rows_of(where)[1] > WIDEST:
        raise ValueError(f"a curved walk in {where} would need networks of {rows_of(where)[1]} dimensions: fit it in another space.")
    precision = processor.chosen(precision, latents.values.device.type)
    task = Task(rounded(generator, precision), edits, (knob,), loss)
    task.check(latents)
    rng = torch.Generator().manual_seed(seed)
    behind, ahead = (_at_rest(where, rng, latents.values) for _ in range(2))
    widest = max(abs(knob.low), abs(knob.high))
    strides = (max(-knob.low, 1e-3 * widest) / steps, max(knob.high, 1e-3 * widest) / steps)
    walk = Walk((knob,), where, Step(**behind), Step(**ahead), strides)
    parameters = [*behind.values(), *ahead.values()]
    optimiser = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, math.ceil(n / batch))
    losses: list[float] = []
    before = [one.detach().clone() for one in parameters]
    try:
        for some, drawn, _ in task.samples(latents, batch, rng):
            residual = task.residual(some, drawn)
            moved = walk.followed(some.values, drawn[:, 0], steps)
            squared, gradient, _ = products(residual, moved, None)
            value = float(squared.mean())
            if not math.isfinite(value):
                with torch.no_grad():
                    for one, kept in zip(parameters, before, strict=True):
                        one.copy_(kept)
                raise Diverged(task.diverged(value, len(losses) * batch, lr), _frozen(walk, {}) if losses else None)
            before = [one.detach().clone() for one in parameters]
            optimiser.zero_grad()
            if moved.requires_grad:
                moved.backward(gradient / len(some))
                optimiser.step()
            schedule.step()
            losses.append(value)
    except KeyboardInterrupt as stop:
        raise Interrupted(_frozen(walk, {}) if losses else None) from stop

    walk = _frozen(walk, {})
    tail = losses[-max(1, len(losses) // 10) :]
    fit: dict[str, Any] = {
        "method": "curved walk",
        "edits": [knob.name],
        "seed": seed,
        "n": n,
        "batch": batch,
        "lr": lr,
        "steps": steps,
        "loss": loss_name(loss),
        "optimiser": "adam",
        "precision": precision,
        "space": where.name,
        "label": labels,
        "range": [[knob.low, knob.high]],
        "training_loss": sum(tail) / len(tail),
        "held_out_n": held_out,
        "held_out": {knob.name: relative_loss(generator, edits[0], walk, unseen, knob.low, knob.high)},
    }
    walk = _frozen(walk, fit)
    if not calibration:
        return walk
    return calibrate(generator, walk, {knob.name: edits[0] if amounts is None else narrowed(edits[0], *amounts)}, latents=last)


def _at_rest(space: LatentSpace, rng: torch.Generator, like: Tensor) -> dict[str, Tensor]:
    """A step that stays where it is: the outer layer is zero."""
    rows, d = rows_of(space)
    inner = torch.randn(rows, d, d, generator=rng).to(like) / d**0.5
    made = {
        "inner": inner,
        "inner_bias": inner.new_zeros(rows, d),
        "outer": torch.zeros_like(inner),
        "outer_bias": inner.new_zeros(rows, d),
    }
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def _frozen(walk: Walk, fit: dict[str, Any]) -> Walk:
    behind, ahead = (Step(**{name: tensor.detach().clone() for name, tensor in step.tensors.items()}) for step in (walk.behind, walk.ahead))
    return Walk(walk.knobs, walk.space, behind, ahead, walk.strides, fit)
