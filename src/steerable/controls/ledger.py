"""What a path cost: at every way-point the move, the drift of everything held, and how far the latent has gone.

Measured anew on the images of the way-points, not carried along from the steps. ``trajectory`` writes one for every path; the command
line prints it, strips draw it, and the report plots it. A hold that was not kept is named by ``broken``: at which step, by how much.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable.protocols import Images, Knob

Judge = Callable[[Images, Images], Tensor]  # two batches of images -> (n,) distances


@dataclass(frozen=True)
class Broken:
    """A hold that was not kept.

    Attributes:
        row: of the latents.
        held: the feature.
        step: the first way-point at which the drift was larger than allowed; ``amount`` is the move there, in the knob's unit.
        drift: the largest on the path, ``allowed`` what it might have been, both in the feature's own unit.
        deviations: ``drift`` in population deviations.
    """

    row: int
    held: str
    step: int
    amount: float
    drift: float
    allowed: float
    deviations: float
    unit: str

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"hold broken: {self.held} drifts {self.drift:.3g}{unit} ({self.deviations:.2g} deviations), allowed {self.allowed:.3g}; "
            f"first at step {self.step}, amount {self.amount:.3g}"
        )


@dataclass(frozen=True, eq=False)
class Ledger:
    """The account of n paths of s way-points, the start first.

    Attributes:
        knob: what was asked for, and its unit.
        moves, holds: names of the features on either side.
        units: of every feature, the moved ones first.
        deviations: population deviation of every feature, in its unit (root-mean-square over its columns).
        asked: (n,) amounts.
        change: (s, n, features) root-mean-square change of every feature since the start, in its own unit.
        moved: (s, n) the change of the moved side in the knob's unit.
        perceptual: (s, n) perceptual distance from the start's image; NaN where there was no judge.
        distance: (s, n) of the latent from the mean one; ``radius`` is what 99 of 100 latents keep.
        allowed: (n,) drift in deviations that was allowed.
        ends: how each row ended: "arrived", or why it did not.
    """

    knob: Knob
    moves: tuple[str, ...]
    holds: tuple[str, ...]
    units: tuple[str, ...]
    deviations: tuple[float, ...]
    asked: Float[Tensor, " n"]
    change: Float[Tensor, "s n f"]
    moved: Float[Tensor, "s n"]
    perceptual: Float[Tensor, "s n"]
    distance: Float[Tensor, "s n"]
    radius: float
    allowed: Float[Tensor, " n"]
    ends: tuple[str, ...]

    def __len__(self) -> int:
        """Rows, not way-points."""
        return len(self.asked)

    @property
    def in_deviations(self) -> Float[Tensor, "s n f"]:
        """``change`` in population standard deviations."""
        return self.change / self.change.new_tensor(self.deviations)

    @property
    def drift(self) -> Float[Tensor, "s n h"]:
        """``change`` of the held features, in their own units."""
        return self.change[..., len(self.moves) :]

    @property
    def broken(self) -> tuple[Broken, ...]:
        """Every hold that was not kept, in the order of rows."""
        found = []
        off = self.in_deviations[..., len(self.moves) :]
        over = off > self.allowed[:, None] * 1.001 + 1e-6  # (s, n, h); rounding
        for row, held in over.any(0).nonzero().tolist():
            step = int(over[:, row, held].int().argmax())
            deviation, worst = self.deviations[len(self.moves) + held], float(off[:, row, held].max())
            found.append(
                Broken(
                    row=row,
                    held=self.holds[held],
                    step=step,
                    amount=float(self.moved[step, row]) * (-1 if float(self.asked[row]) < 0 else 1),
                    drift=worst * deviation,
                    allowed=float(self.allowed[row]) * deviation,
                    deviations=worst,
                    unit=self.units[len(self.moves) + held],
                )
            )
        return tuple(found)

    def rows(self, keep: Sequence[int]) -> Ledger:
        """The account of some rows."""
        picked = list(keep)
        parts = {name: getattr(self, name)[:, picked] for name in ("change", "moved", "perceptual", "distance")}
        return replace(self, asked=self.asked[picked], allowed=self.allowed[picked], ends=tuple(self.ends[i] for i in picked), **parts)

    def drifts(self, points: int = 21) -> tuple[Float[Tensor, " p"], dict[str, Float[Tensor, "n p"]]]:
        """Drift of every hold against the move, for plots: shares of the asked amount, and each row's drift there in deviations.

        Linear between way-points; NaN beyond where a row ended, and where it was asked for nothing.
        """
        shares = torch.linspace(0, 1, points)
        far = (self.moved / self.asked.abs()).cpu()  # (s, n)
        off = self.in_deviations[..., len(self.moves) :].cpu()
        found = {name: torch.full((len(self), points), torch.nan) for name in self.holds}
        for row in range(len(self)):
            for held, name in enumerate(self.holds):
                for place, share in enumerate(shares.tolist()):
                    over = (far[:, row] >= share - 0.02).nonzero()[:, 0]  # the first time it is there; settled at the end
                    if not len(over):
                        break
                    last = int(over[-1] if share == 1 else over[0])
                    if last == 0 or share == 1:
                        found[name][row, place] = off[last, row, held]
                        continue
                    low, high = far[last - 1 : last + 1, row].tolist()
                    part = min((share - low) / max(high - low, 1e-9), 1.0)
                    found[name][row, place] = off[last - 1, row, held] + part * (off[last, row, held] - off[last - 1, row, held])
        return shares, found

    @property
    def header(self) -> tuple[str, ...]:
        """Titles of ``table``."""
        held = [text for name, unit in zip(self.holds, self.units[len(self.moves) :], strict=True) for text in (_titled(name, unit), "sd")]
        moved = _titled("moved", self.knob.unit)
        return ("step", moved, *[f"{title} held" if title != "sd" else title for title in held], "perceptual", "from mean")

    def table(self, row: int = 0) -> list[tuple[float, ...]]:
        """One line a way-point: step, move, every hold's drift in its unit and in deviations, perceptual, distance from the mean."""
        lines = []
        for step in range(len(self.moved)):
            if step and torch.equal(self.change[step, row], self.change[step - 1, row]):
                continue  # a row that has arrived stays
            own, deviated = self.drift[step, row].tolist(), self.in_deviations[step, row, len(self.moves) :].tolist()
            pairs = [number for pair in zip(own, deviated, strict=True) for number in pair]
            tail = (float(self.perceptual[step, row]), float(self.distance[step, row]))
            lines.append((float(step), float(self.moved[step, row]), *pairs, *tail))
        return lines

    def said(self, row: int = 0) -> str:
        """How a row ended, in one line."""
        asked, got = float(self.asked[row]), float(self.moved[-1, row])
        unit = f" {self.knob.unit}" if self.knob.unit else ""
        text = f"{self.knob.name}: asked {asked:.3g}, moved {got:.3g}{unit}"
        text += "" if self.ends[row] in ("arrived", "") else f"; stopped: {self.ends[row]}"
        return "; ".join([text, *[str(one) for one in self.broken if one.row == row]])

    def plain(self) -> dict[str, Any]:
        """Everything as JSON values; NaN is null."""
        return {
            "knob": {"name": self.knob.name, "unit": self.knob.unit},
            "moves": list(self.moves),
            "holds": list(self.holds),
            "units": list(self.units),
            "deviations": list(self.deviations),
            "radius": self.radius,
            "ends": list(self.ends),
            "broken": [{**one.__dict__, "said": str(one)} for one in self.broken],
            **{name: _numbers(getattr(self, name).tolist()) for name in ("asked", "allowed", "change", "moved", "perceptual", "distance")},
        }

    def to_json(self) -> str:
        return json.dumps(self.plain(), allow_nan=False)


def joined(parts: Sequence[Ledger]) -> Ledger:
    """The accounts of several batches as one; shorter paths stay at their end."""
    longest = max(len(part.moved) for part in parts)
    names = ("change", "moved", "perceptual", "distance")
    whole = {name: torch.cat([stretched(getattr(part, name), longest) for part in parts], dim=1) for name in names}
    ends = tuple(end for part in parts for end in part.ends)
    asked, allowed = (torch.cat([getattr(part, name) for part in parts]) for name in ("asked", "allowed"))
    return replace(parts[0], asked=asked, allowed=allowed, ends=ends, **whole)


def stretched(account: Tensor, steps: int) -> Tensor:
    """(s, ...) -> (steps, ...), the last line repeated."""
    return torch.cat([account, account[-1:].expand(steps - len(account), *account.shape[1:])])


def _titled(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _numbers(values: Any) -> Any:
    if isinstance(values, list):
        return [_numbers(one) for one in values]
    return values if values == values else None
