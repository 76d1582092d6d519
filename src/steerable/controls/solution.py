"""What came of setting values: asked, reached, what other networks say, what moved besides, and how far each picture could have gone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable.protocols import Knob, Latents


@dataclass(frozen=True, eq=False)
class Solution:
    """Values set on n pictures.

    Attributes:
        latents: n of them, where the search ended.
        knobs: k of them, one for each value that was set.
        requested, reached: (n, k), reached as measured by the features that were asked.
        second: (n, k) the same by a second network that is in no loss, in its own unit; NaN where there is none.
        judges: k columns that ``second`` was read from, "" where there is none; ``judge_units`` are theirs.
        reachable: (n, k, 2) lowest and highest value that each picture could be brought to, the others aside.
        found: (n, k) whether the reached value is the asked one, to the tolerance of the search.
        columns, units: of everything measured; a feature of many columns (identity) is one distance from the start.
        before, after: (n, m) of them.
        deviations: (m,) of a population.
        held: names among ``columns`` that were held.
        stayed: rows that were left as they are, and why: "no inside:hair in its picture".
    """

    latents: Latents
    knobs: tuple[Knob, ...]
    requested: Float[Tensor, "n k"]
    reached: Float[Tensor, "n k"]
    second: Float[Tensor, "n k"]
    judges: tuple[str, ...]
    judge_units: tuple[str, ...]
    reachable: Float[Tensor, "n k 2"]
    found: Bool[Tensor, "n k"]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    before: Float[Tensor, "n m"]
    after: Float[Tensor, "n m"]
    deviations: Float[Tensor, " m"]
    held: tuple[str, ...] = ()
    stayed: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reached)

    @property
    def error(self) -> Float[Tensor, "n k"]:
        """Reached less requested, in the knobs' units."""
        return self.reached - self.requested

    @property
    def gap(self) -> Float[Tensor, "n k"]:
        """What the second network reads beyond the first; far from zero, the picture may please the first alone. NaN in other units."""
        same = torch.tensor([unit == knob.unit for unit, knob in zip(self.judge_units, self.knobs, strict=True)])
        return torch.where(same.to(self.second.device), self.second - self.reached, torch.nan)

    @property
    def moved(self) -> Float[Tensor, "n m"]:
        """Change of every measured column, in its unit."""
        return self.after - self.before

    @property
    def in_deviations(self) -> Float[Tensor, "n m"]:
        """``moved`` in population deviations."""
        return self.moved / self.deviations.to(self.moved)

    def besides(self, row: int = 0) -> list[tuple[str, str, float, float]]:
        """What moved that was not asked for, the furthest first: (column, unit, change, change in deviations)."""
        own = {knob.name for knob in self.knobs} | set(self.judges)
        rows = [
            (name, unit, float(self.moved[row, i]), float(self.in_deviations[row, i]))
            for i, (name, unit) in enumerate(zip(self.columns, self.units, strict=True))
            if name not in own
        ]
        return sorted(rows, key=lambda one: -abs(one[3]))

    def said(self, row: int = 0) -> list[str]:
        """One line for each value of a picture: asked, reached, what the second network reads, reachable where it was not reached."""
        lines = []
        for k, knob in enumerate(self.knobs):
            unit = f" {knob.unit}" if knob.unit else ""
            text = f"{knob.name}: {self._sentence(row, k, unit)}"
            if self.judges[k] and bool(self.second[row, k].isfinite()):
                text += f"; {self.judges[k]} reads {float(self.second[row, k]):.3g} {self.judge_units[k]}".rstrip()
            lines.append(text)
        return lines

    def _sentence(self, row: int, k: int, unit: str) -> str:
        asked, got = float(self.requested[row, k]), float(self.reached[row, k])
        if bool(self.found[row, k]):
            return f"{asked:.3g}{unit} asked, {got:.3g}{unit} reached"
        if row in self.stayed:
            return f"{asked:.3g}{unit} asked, left at {got:.3g}{unit}: {self.stayed[row]}"
        low, high = self.reachable[row, k].tolist()
        return f"{asked:.3g}{unit} asked, {got:.3g}{unit} reached on this image, reachable here {low:.3g} … {high:.3g}"

    def messages(self) -> list[str]:
        """For each request that was not met: ``row 3, yaw: 60 deg asked, 34 deg reached on this image, reachable here -31 … 38``."""
        return [
            f"row {row}, {self.knobs[k].name}: {self._sentence(row, k, f' {self.knobs[k].unit}'.rstrip())}"
            for row, k in (~self.found).nonzero().tolist()
        ]

    def rows(self, keep: Sequence[int]) -> Solution:
        """The solutions of some rows."""
        picked = list(keep)
        parts = {name: getattr(self, name)[picked] for name in _ROWS}
        stayed = {place: self.stayed[row] for place, row in enumerate(picked) if row in self.stayed}
        return Solution(**{**self.__dict__, **parts, "latents": self.latents[picked], "stayed": stayed})

    def plain(self) -> dict[str, Any]:
        """Everything but the latents as JSON values; NaN is null."""
        return {
            "knobs": [{"name": knob.name, "unit": knob.unit} for knob in self.knobs],
            "columns": list(self.columns),
            "units": list(self.units),
            "judges": list(self.judges),
            "held": list(self.held),
            "stayed": {str(row): why for row, why in self.stayed.items()},
            "deviations": self.deviations.tolist(),
            **{name: json.loads(json.dumps(getattr(self, name).tolist()).replace("NaN", "null")) for name in (*_ROWS, "error")},
        }


_ROWS = ("requested", "reached", "second", "reachable", "found", "before", "after")


def joined(parts: Sequence[Solution]) -> Solution:
    """The solutions of several batches as one."""
    labels = [part.latents.labels for part in parts if part.latents.labels is not None]
    values = torch.cat([part.latents.values for part in parts])
    latents = Latents(values, parts[0].latents.space, torch.cat(labels) if labels else None)
    rows = {name: torch.cat([getattr(part, name) for part in parts]) for name in _ROWS}
    starts = accumulate((len(part) for part in parts), initial=0)
    stayed = {start + row: why for start, part in zip(starts, parts, strict=False) for row, why in part.stayed.items()}
    return Solution(**{**parts[0].__dict__, **rows, "latents": latents, "stayed": stayed})
