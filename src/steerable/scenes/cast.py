"""What all scenes of the demo share: how many faces, who measures, the population, the axes, and which people are shown.

Everybody who is steered is a held-out seed, from 1000 on, that no fit has seen. Numbers are over the first n of them, in order; pictures
show four of them that were picked by eye for being easy to recognise (many faces of the generator are dark or turned away).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steerable import recipe, render
from steerable.controls.controller import AlongAxis, Outcome
from steerable.controls.directions import Directions
from steerable.evaluation.summary import JUDGES
from steerable.features.network import column, select
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Feature, Images, Latents
from steerable.report import Block, Figure
from steerable.sampling import Table, latents_of, observe

if TYPE_CHECKING:
    import PIL.Image

FIRST = 1000  # the first held-out seed
PORTRAITS = (1028, 1074, 1056, 1015)  # for pictures, never for numbers
NETWORKS = {  # feature -> who judges it
    "pose": "face mesh",
    "mouth": "face mesh",
    "eyes": "face mesh",
    "face-place": "face mesh",
    "smile": "expression network",
    "pose68": "68 landmarks",
    "mouth68": "68 landmarks",
    "person": "person mask",
    "person-colour": "person mask",
    "background-colour": "person mask",
    "skin-colour": "pixels at the mesh's cheeks",
    "hair-colour": "pixels above the mesh",
}
SECOND = {**JUDGES, "skin-brightness": "person-brightness", "brightness": "person-brightness"}


@dataclass(frozen=True)
class Plan:
    """How many faces each stage looks at."""

    sheet: int = 24
    population: int = 2000
    calibration: int = 48
    walk: int = 448
    walk_calibration: int = 16
    people: int = 48
    response: int = 16
    quality: int = 64
    box: int = 3
    yaw: int = 24
    outside: float = 0.10  # squared pixel change, on the scale [-1, 1], by which everything outside the held box is moved
    beyond: float = 0.20  # the same in the picture on top, to both sides


QUICK = Plan(8, 120, 16, 16, 2, 4, 2, 16, 1, 4, 0.02, 0.02)  # for tests: every stage, nothing precise


@dataclass(frozen=True)
class Move:
    """One attribute, what a person would call it, and what it should leave alone."""

    name: str
    words: str
    hold: tuple[str, ...]


MOVES = (
    Move("smile", "smiling", ("yaw", "pitch", "mouth-open", "skin-brightness", "background-brightness")),
    Move("yaw", "turning", ("pitch", "roll", "smile", "skin-brightness", "background-brightness", "hair-brightness")),
    Move("skin-brightness", "lit differently", ("background-brightness", "yaw", "pitch", "smile", "mouth-open")),
)
MOVE = {move.name: move for move in MOVES}


@dataclass(frozen=True)
class Scene:
    """Blocks for the page, one row a measurement for the table of all of them, and single pictures with their recipes."""

    blocks: tuple[Block, ...]
    rows: tuple[dict[str, Any], ...] = ()
    pictures: tuple[tuple[str, recipe.Recipe], ...] = ()


@dataclass(frozen=True, eq=False)
class Cast:
    """The generator, what measures it, the population, and the axes fitted on it."""

    generator: ModuleGenerator
    features: tuple[Feature, ...]
    table: Table
    axes: Directions
    plan: Plan
    seed: int

    def people(self, n: int) -> Latents:
        """The faces of the first n held-out seeds."""
        return latents_of(self.generator, range(FIRST, FIRST + n))

    def images(self, latents: Latents) -> Images:
        with torch.no_grad():
            return self.generator(latents)

    def read(self, latents: Latents, names: Sequence[str]) -> dict[str, Tensor]:
        """These columns of the images, (n,) each; each network runs once."""
        features = select(self.features, names)
        return dict(zip(names, observe(self.generator, features, latents).unbind(1), strict=True))

    def deviation(self, name: str) -> float:
        return float(self.table.column(name).std())

    def unit(self, name: str) -> str:
        return self.table.units[self.table.columns.index(name)]

    def measured(self, name: str) -> str:
        """A column with its unit, as it stands in a sentence: "yaw (deg)"."""
        return f"{name} ({self.unit(name)})"

    def judge(self, name: str) -> str:
        return NETWORKS.get(self._owner(name).name, "pixels")

    def axis(self, name: str, hold: Sequence[str] = ()) -> Directions:
        """One axis, plain or freed of what is held."""
        return self.axes[[name, *hold]].held(list(hold))[[name]]

    def set_to(self, name: str, axis: Directions, latents: Latents, targets: Tensor, *, points: int = 7, rounds: int = 3) -> Outcome:
        """Along the axis to these values, (n,): forwards to reach more, backwards to reach less, never the other way round."""
        feature, knob = column(self._owner(name), name), axis.knobs[0]
        targets = targets.to(latents.values)
        more = targets >= self.read(latents, [name])[name].to(targets)
        reach = max(abs(knob.low), abs(knob.high))
        low, high = knob.low or -reach / 2, knob.high or reach / 2
        parts: list[tuple[Tensor, Outcome]] = []
        for side, ends in ((more, (0.01 * low, high)), (~more, (low, 0.01 * high))):
            rows = side.nonzero()[:, 0]
            if len(rows):
                one_way = replace(axis, knobs=(replace(knob, low=ends[0], high=ends[1]),))
                setter = AlongAxis(self.generator, one_way, feature, points=points, rounds=rounds)
                parts.append((rows, setter.solve(latents[rows], targets[rows, None])))
        return _merged(latents, parts)

    def _owner(self, name: str) -> Feature:
        return next(one for one in self.features if name in one.columns)


def _merged(latents: Latents, parts: Sequence[tuple[Tensor, Outcome]]) -> Outcome:
    """One outcome of searches over some rows each."""
    order = torch.cat([rows for rows, _ in parts]).argsort()

    def together(name: str) -> Tensor:
        return torch.cat([getattr(outcome, name) for _, outcome in parts])[order]

    ends = latents.at(torch.cat([outcome.latents.values for _, outcome in parts])[order])
    return Outcome(ends, *(together(name) for name in ("requested", "reached", "moved", "reachable", "found")))


def rounded(value: float, unit: str) -> str:
    """A measured value as it stands below a face: whole degrees, tenths of a logit, hundredths of everything else."""
    text = f"{value:.{ {'deg': 0, 'logit': 1}.get(unit, 2) }f}"
    return text.replace("-", "−") if float(text) else text.replace("-", "")


def seeds_text(n: int) -> str:
    """The first n held-out seeds in words."""
    return str(FIRST) if n == 1 else f"{FIRST}–{FIRST + n - 1}"


def listed(seeds: Sequence[int]) -> str:
    """Portraits in words, with how they were chosen."""
    return f"Seeds {', '.join(map(str, seeds))}, held-out ones, picked by eye."


def saved(name: str, image: PIL.Image.Image, caption: str) -> Figure:
    return Figure(name, render.png(image), caption)
