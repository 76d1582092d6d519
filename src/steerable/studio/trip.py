"""One drive of one visitor: what is held and what moves, as features; and steps under a stick. ``driving`` is its panel.

The stick's two axes are two of the ranked free directions. Between steps each is followed to the free direction that is nearest to it
(``rayleigh.continued``), so that a way that was begun goes on without jumps; what a step does to the hold is the business of
``controls.driving``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from steerable import checks, render, zoo
from steerable.controls import rayleigh
from steerable.controls.driving import Drive, Row
from steerable.features.network import select
from steerable.features.pixels import Box, RegionPixels, region_mask
from steerable.protocols import Feature, Images
from steerable.studio import pictures, session
from steerable.studio.pictures import Frame
from steerable.studio.session import Bench, State

EVERYTHING = "everything else"
PAIRS = ((1, 2), (3, 4), (5, 6))  # ranks of the free directions that a stick may have
SURE = 0.5  # of the person's mask


def regions(state: State, bench: Bench) -> list[str]:
    """What is held by place, in words."""
    return [f"box {i}" for i in range(1, len(state.boxes) + 1)] + ([state.region] if state.region else [])


def held_places(state: State, bench: Bench, images: Images) -> Tensor | None:
    """(h, w) of bool: the pixels that are held in a picture; None where no place is.

    Raises:
        ValueError: a box that does not fit the picture, or no person is found in it.
    """
    _, height, width = bench.generator.image_shape
    places = [region_mask(Box(*box), height, width) for box in state.boxes]
    if state.region:
        checks.known(state.region, session.REGIONS, "region")
        with torch.no_grad():
            person = zoo.load_network("person").to(images.device)(images)[0, 0] > SURE
        found = person if state.region == "person" else ~person
        if not bool(found.any()) or bool(found.all()):
            raise ValueError(
                f"the {state.region} takes {'no' if not bool(found.any()) else 'every'} pixel of this picture: draw a box instead."
            )
        places.append(found.cpu())
    return torch.stack(places).any(0) if places else None


def sides(state: State, bench: Bench, images: Images, move: str) -> tuple[list[Feature], list[Feature]]:
    """What moves and what is held.

    Raises:
        ValueError: nothing is held, or everything is.
    """
    shape = bench.generator.image_shape
    places = held_places(state, bench, images)
    held: list[Feature] = [] if places is None else [RegionPixels(places, shape, name=" + ".join(regions(state, bench)))]
    held += select(bench.features, [lock for lock in state.locks if lock in bench.columns and lock != move])
    if not held:
        raise ValueError("nothing is held yet: draw a box on the picture, choose person or background, or lock a feature.")
    if move != EVERYTHING:
        return select(bench.features, [move]), held
    if places is None:
        return [RegionPixels(torch.ones(shape[1:], dtype=torch.bool), shape, name="the picture")], held
    if bool(places.all()):
        raise ValueError("everything is held: leave some pixels free.")
    return [RegionPixels(places, shape, invert=True, name="the rest")], held


class Trip:
    """A drive that goes on for as long as what is held, what moves and where it stands stay the visitor's choice.

    Attributes:
        rows: the ledger, a line a step; the start first.
    """

    def __init__(self, state: State, bench: Bench, move: str) -> None:
        self.move, self.state, self.bench = move, state, bench
        point = session.latents(state, bench)
        self.base = session.latents(replace(state, offset=""), bench).values
        with torch.no_grad():
            images = bench.generator(point)
        moved, held = sides(state, bench, images, move)
        self.drive = Drive(bench.generator, move=moved, hold=held, space=point.space.name)
        first = self.drive.begin(point)
        self.rows: list[Row] = [first.row]
        self.units = {feature.name: feature.unit for feature in held}
        self.pair, self.axes = PAIRS[0], self._axes(PAIRS[0])

    def goes_on(self, state: State, bench: Bench, move: str) -> bool:
        """Whether a step from this state belongs to this trip."""
        return (state, bench, move) == (self.state, self.bench, self.move)

    def _axes(self, pair: Sequence[int]) -> Tensor:
        ranks = [min(rank, len(self.drive.free)) - 1 for rank in pair]
        return self.drive.free[ranks].clone()

    def step(self, stick: tuple[float, float], pair: tuple[int, int], amount: float) -> Frame:
        """Go on a little.

        Args:
            stick: how far it is pushed along either direction, -1 to 1.
            amount: of a fully pushed stick: change of what moves, in population deviations.
        """
        if pair != self.pair:
            self.pair, self.axes = pair, self._axes(pair)
        push = torch.tensor(stick).to(self.axes)
        found = self.drive.step(push @ self.axes, amount * min(float(push.norm()), 1.0) * self.drive.control.unit)
        self.rows.append(found.row)
        self.axes = torch.stack([rayleigh.continued(self.drive.free[None], axis[None, None])[0, 0] for axis in self.axes])
        offset = session.offset_of(found.latents.values[0] - self.base[0])
        self.state = replace(self.state, offset=offset)
        return pictures.frame(self.state, found.latents, render.to_uint8(found.image)[0])

    @property
    def curve(self) -> list[tuple[float, float]]:
        """The ledger as (moved, largest drift of what is held), in population deviations."""
        return [(row.moved / self.drive.control.unit, max(row.deviations.values())) for row in self.rows]

    def words(self) -> list[tuple[str, bool]]:
        """The newest line of the ledger: a sentence for what moved and each hold, and whether that is trouble."""
        row, unit = self.rows[-1], self.drive.control.knobs[0].unit
        told = [(f"{row.step} steps: moved {pictures.number(row.moved)} {unit}", False)]
        for name, drift in row.drift.items():
            broken, own = name in row.broken, self.units[name]
            allowed = self.drive.tolerance * drift / row.deviations[name] if row.deviations[name] > 0 else 0.0
            verdict = f"hold broken, allowed {pictures.number(allowed, 2)}" if broken else "held"
            told.append((f"{name}: {verdict}, drift {pictures.number(drift, 2)} {own}".rstrip(), broken))
        if row.stuck:
            told.append(("No way on here without breaking the hold: push another way, or choose other directions.", True))
        return told
