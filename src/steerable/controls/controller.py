"""Set a value by number: "yaw = 20 deg" on a frozen generator.

``AlongAxis`` moves each latent along the attribute's straight axis until the measurement reads the value: a grid to bracket it, then
false position. A straight axis is global, so it cannot hunt for pixels that please the measuring network, as an unrestricted
search would; still, judge the result by a second network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable import checks
from steerable.controls.directions import Directions
from steerable.protocols import Amounts, Feature, Generator, Knob, Latents, LatentSpace


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of setting a value.

    Attributes:
        latents: n of them, where the search ended.
        requested, reached: (n,) in the knob's unit, reached as measured by the feature that was asked.
        moved: (n,) amount along the axis.
        reachable: (n, 2) lowest and highest value on the part of the axis that was searched, of each face.
        found: (n,) whether the reached value is within 2 % of the searched interval's width.
    """

    latents: Latents
    requested: Float[Tensor, " n"]
    reached: Float[Tensor, " n"]
    moved: Float[Tensor, " n"]
    reachable: Float[Tensor, "n 2"]
    found: Bool[Tensor, " n"]

    def messages(self, unit: str) -> list[str]:
        """One line for each request that was not met: ``row 3: 60 deg asked, 34 deg reached, reachable here -31 … 38``."""
        return [
            f"row {row}: {self.requested[row]:.3g} {unit} asked, {self.reached[row]:.3g} {unit} reached, "
            f"reachable here {self.reachable[row, 0]:.3g} … {self.reachable[row, 1]:.3g}"
            for row in (~self.found).nonzero()[:, 0].tolist()
        ]


@dataclass(frozen=True, eq=False)
class AlongAxis:
    """A control whose amount is the attribute's value itself.

    Attributes:
        generator, feature: what is measured: a feature with one column.
        axis: directions with one knob of that column's name.
        points: of the grid that brackets the value, over ``stretch`` times the knob's usable range.
        rounds: of false position inside the bracket.
    """

    generator: Generator
    axis: Directions
    feature: Feature
    points: int = 11
    stretch: float = 1.3
    rounds: int = 5
    knobs: tuple[Knob, ...] = field(init=False)
    space: LatentSpace = field(init=False)

    def __post_init__(self) -> None:
        if len(self.axis.knobs) != 1 or len(self.feature.columns) != 1:
            raise ValueError(
                f"a value is set along one axis by one column, got {len(self.axis.knobs)} axes and the columns "
                f'{", ".join(self.feature.columns)}: take axes["yaw"] and column(feature, "yaw").'
            )
        knob = self.axis.knobs[0]
        checks.same_generator(self.axis.space, self.generator.fingerprint, "this one", f'the axis "{knob.name}"')
        low, high = (knob.percentiles[0][1], knob.percentiles[-1][1]) if knob.percentiles else (knob.low, knob.high)
        object.__setattr__(self, "knobs", (replace(knob, low=low, high=high, neutral=None),))
        object.__setattr__(self, "space", self.axis.space)

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """The latents at which the asked values are measured, or come nearest. ``solve`` says how near."""
        return self.solve(latents, amounts).latents

    def solve(self, latents: Latents, amounts: Amounts) -> Outcome:
        """Search each latent's axis for its value.

        Args:
            latents: n of them, in the axis's space.
            amounts: (n, 1) values, in the knob's unit.
        """
        checks.lives_in(latents, self.space, "this control")
        target = checks.amounts(amounts, len(latents), self.knobs)[:, 0].to(latents.values)
        grid = self._grid().to(latents.values)
        values = torch.stack([self._read(latents, step.expand(len(latents))) for step in grid], dim=1)  # (n, points)
        low, high, at_low, at_high, bracketed = _bracket(grid, values, target)
        nearest = (values - target[:, None]).abs().argmin(1)
        step, value = grid[nearest], values.gather(1, nearest[:, None])[:, 0]
        for _ in range(self.rounds):
            slope = torch.where((at_high - at_low).abs() > 1e-9, at_high - at_low, torch.ones_like(target))
            share = ((target - at_low) / slope).clamp(0.1, 0.9)
            trial = torch.where(bracketed, low + share * (high - low), step)
            read = self._read(latents, trial)
            better = bracketed & ((read - target).abs() < (value - target).abs())
            step, value = torch.where(better, trial, step), torch.where(better, read, value)
            below = (read - target).sign() == (at_low - target).sign()
            low, at_low = torch.where(below, trial, low), torch.where(below, read, at_low)
            high, at_high = torch.where(below, high, trial), torch.where(below, at_high, read)
        reachable = torch.stack([values.amin(1), values.amax(1)], dim=1)
        found = (value - target).abs() <= 0.02 * (reachable[:, 1] - reachable[:, 0])
        return Outcome(self.axis.steer(latents, step[:, None]), target, value, step, reachable, found)

    def _grid(self) -> Tensor:
        """Amounts of the axis in rising order, zero among them."""
        knob = self.axis.knobs[0]
        reach = max(abs(knob.low), abs(knob.high)) or 1.0
        low, high = knob.low or -reach / 2, knob.high or reach / 2
        half = self.points // 2
        below, above = torch.linspace(self.stretch * low, 0, half + 1)[:-1], torch.linspace(0, self.stretch * high, half + 1)
        return torch.cat([below, above])

    def _read(self, latents: Latents, steps: Tensor) -> Float[Tensor, " n"]:
        with torch.no_grad():
            return self.feature(self.generator(self.axis.steer(latents, steps[:, None])))[:, 0]


def _bracket(grid: Tensor, values: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The pair of neighbouring grid points around the target, nearest to the start on the side where more is asked for.

    Returns ends, values there, and whether there is any such pair.
    """
    crosses = (values[:, :-1] - target[:, None]) * (values[:, 1:] - target[:, None]) <= 0  # (n, points - 1)
    middle = (grid[:-1] + grid[1:]) / 2  # (points - 1,)
    start = values[:, grid.abs().argmin(), None]
    wrong_way = middle * (target[:, None] - start).sign() < 0  # more is ahead: only if nothing there crosses, look behind
    cost = middle.abs() + wrong_way * 2 * grid.abs().max()
    place = torch.where(crosses, cost, torch.inf).argmin(1)
    pick = place[:, None]
    return grid[place], grid[place + 1], values.gather(1, pick)[:, 0], values.gather(1, pick + 1)[:, 0], crosses.any(1)
