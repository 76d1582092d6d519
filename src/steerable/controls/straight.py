"""Straight courses of a trajectory: one direction of each latent, kept, and followed until the moved features have changed enough.

What a recomputed path is compared with. The first direction kept (``straight``) and three that the released code of Rayleigh
EigenDirections compares with: ``most-change`` of what moves, whatever happens to the rest; ``least-change`` of what is held, whatever
moves; ``random``. Nothing is corrected and nothing stops at the hold: the ledger says what it cost. ``growth`` has the recomputed paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerable.controls import growth, rayleigh
from steerable.controls.growth import Steps, Walked
from steerable.controls.sides import Sides

COARSE = 48  # places looked at along a line
FINE = 10  # halvings of the last of them


def direction_of(sides: Sides, course: str, steps: Steps, seed: int) -> Float[Tensor, "n d"]:
    """The unit direction of a straight course, of every row; the ``rank``-th of its kind, its largest component positive."""
    values = sides.latents.values
    if course == "random":
        rng = torch.Generator().manual_seed(seed)
        drawn = torch.randn(steps.rank, values[0].numel(), generator=rng)[-1].to(values)
        return rayleigh.signed(drawn / drawn.norm()).expand(len(values), -1)
    if course == "straight":
        around = growth.derivatives(sides, values, steps)
        return rayleigh.signed(around.outside(growth.first_directions(sides, around, steps)[:, -1]))
    around = growth.derivatives(sides, values, replace(steps, solver="soft"))
    gram, place = (around.moves.total, -steps.rank) if course == "most-change" else (around.holds.total, steps.rank - 1)
    return rayleigh.signed(torch.linalg.eigh(gram)[1][..., place])


def along(sides: Sides, direction: Float[Tensor, "n d"], target: Float[Tensor, " n"], steps: Steps) -> Walked:
    """Go along the direction until the moved features have first changed by ``target`` deviations; way-points a stride apart.

    A row that does not get there within ``plausible`` usual distances of the mean latent ends where it had moved farthest.
    """
    z, start = sides.latents.values, sides.measured(sides.latents.values)
    unit = direction.view_as(z)
    end = 2 * steps.plausible * sides.population.radius
    lengths = torch.linspace(0, end, COARSE + 1).tolist()

    def at(length: Tensor) -> Tensor:
        return z + length.view(-1, *[1] * (z.ndim - 1)) * unit

    def changed(length: Tensor) -> tuple[Tensor, Tensor]:
        columns = sides.measured(at(length)) - start
        worst = sides.deviations(columns)[..., len(sides.move) :].amax(-1)
        return columns[:, : sides.width].square().mean(1).sqrt(), worst

    def near(length: Tensor) -> Tensor:
        pulled = sides.plausible(at(length), steps.plausible) - at(length)
        return (pulled.flatten(1).norm(dim=1) < 1e-4 * sides.population.radius) | (len(sides.latents.space.spheres) > 0)

    every = [target.new_full(target.shape, length) for length in lengths]
    usual = torch.stack([near(length) for length in every]).cummin(0).values
    moved = torch.where(usual, torch.stack([changed(length)[0] for length in every]), -1.0)  # (s, n)
    aims = [torch.minimum(target, target.new_full((), steps.stride * i)) for i in range(1, int(float(target.max()) / steps.stride) + 2)]
    walked = Walked([z], [torch.zeros_like(target)], [torch.zeros_like(target)], [])
    grid = torch.tensor(lengths, dtype=target.dtype, device=target.device)
    for aim in aims:
        length = _reached(moved, grid, aim, lambda one: changed(one)[0])
        length = torch.where(target > 0, length, 0.0)
        far, drift = changed(length)
        walked.points.append(torch.where((target > 0).view(-1, *[1] * (z.ndim - 1)), at(length), z))
        walked.moved.append(far)
        walked.drift.append(drift)
    short = (walked.moved[-1] - target).abs() > 0.02 * target
    walked.ends.extend("the line does not get there" if bool(one) else "arrived" for one in short)
    return walked


def _reached(moved: Float[Tensor, "s n"], grid: Float[Tensor, " s"], aim: Float[Tensor, " n"], far: Callable[[Tensor], Tensor]) -> Tensor:
    """The first length at which a row has moved by its aim, by halvings; where it never does, the one of its largest move."""
    over = moved >= aim
    first = over.int().argmax(0).clamp(min=1)
    low, high = grid[first - 1], grid[first]
    for _ in range(FINE):
        middle = (low + high) / 2
        there = far(middle) >= aim
        low, high = torch.where(there, low, middle), torch.where(there, middle, high)
    return torch.where(over.any(0), high, grid[moved.argmax(0)])
