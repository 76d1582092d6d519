"""What a person has chosen, as data, and what follows from it: pure functions from a recipe or a state to images and measurements.

A ``Bench`` is what all visitors share and nobody changes: a generator, its controls, the features that measure it. A ``State`` is
everything one visitor has chosen; ``latents`` says where it leads, ``recipe_of`` writes it as the recipe of the command line, and both
come to the same bytes. ``History`` is undo and redo: states in order, and which one is shown. The page keeps one of them for each
visitor and nothing else.

Source of the locks: Guan, "TL-GAN: transparent latent-space GAN", 2018, whose projection ``Directions.held`` makes exact.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from steerable import checks, recipe, render, sampling, store
from steerable.controls.chain import Chain
from steerable.controls.directions import Directions, amounts, join
from steerable.controls.groups import Controllers
from steerable.features.network import select
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Control, Feature, Knob, Latents
from steerable.recipe import Recipe, offset_of
from steerable.studio.road import Road

STEPS = 200  # of history that are kept
REMEMBERED = 512  # controls and spreads that a bench keeps
LOOKED_AT = 64  # images behind the spread of a column without a knob
Pixels = UInt8[np.ndarray, "h w 3"]
Corners = tuple[int, int, int, int]  # top, left, bottom, right in pixels
REGIONS = ("person", "background")


def kept(work: Callable[..., Any]) -> Callable[..., Any]:
    """Worked out once for each bench, and gone with it: a cache of this module would keep what visitors brought long after they left."""

    @functools.wraps(work)
    def once(bench: Bench, *arguments: Any) -> Any:
        key = (work.__name__, *arguments)
        if key not in bench.memory:
            if len(bench.memory) >= REMEMBERED:
                bench.memory.clear()
            bench.memory[key] = work(bench, *arguments)
        return bench.memory[key]

    return once


@dataclass(frozen=True, eq=False)
class Bench:
    """A generator, the controls that steer it and the features that measure it.

    Attributes:
        source: the name or file that loads the generator again, for recipes and command lines.
        groups: controls by the words of their group ("axes", "walks"), all of one space; every knob has a name of its own.
        memory: what was worked out for this bench, and goes with it.
    """

    generator: ModuleGenerator
    groups: Mapping[str, Control]
    features: tuple[Feature, ...] = ()
    source: str = ""
    memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        names = [knob.name for control in self.groups.values() for knob in control.knobs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f'two controls have a knob "{twice[0]}": give each knob a name of its own.')
        spaces = {control.space for control in self.groups.values()}
        if len(spaces) > 1:
            raise ValueError(f"the controls of one page live in one space, got {' and '.join(map(str, spaces))}.")
        for group, control in self.groups.items():
            checks.same_generator(control.space, self.generator.fingerprint, self.generator.name, group)

    @property
    def knobs(self) -> dict[str, Knob]:
        return {knob.name: knob for control in self.groups.values() for knob in control.knobs}

    @property
    def straight(self) -> Directions | None:
        """All straight knobs side by side."""
        parts = [control for control in self.groups.values() if isinstance(control, Directions)]
        return join(parts) if parts else None

    @property
    def columns(self) -> dict[str, str]:
        """Every measured column and its unit."""
        return dict(zip(*sampling.columns_of(self.features), strict=True))

    @property
    def lockable(self) -> list[str]:
        """Knobs whose attribute is measured and has a gradient, so that others can be freed of it."""
        straight = self.straight
        return [] if straight is None else [knob.name for knob in straight.knobs if knob.name in self.columns]

    @property
    def space(self) -> str | None:
        return next((control.space.name for control in self.groups.values()), None)

    def control(self, names: Sequence[str], locks: Sequence[str]) -> Control:
        """The knobs of these names, freed of what is locked; exactly what a recipe carries."""
        return _control(self, tuple(names), tuple(locks))

    def freeable(self, locks: Sequence[str]) -> tuple[str, ...]:
        """The locks that have an axis, so that straight knobs can be freed of them exactly."""
        there = self.lockable
        return tuple(lock for lock in locks if lock in there)

    def is_road(self, name: str) -> bool:
        """Whether a knob follows a trajectory, which is of one person."""
        return any(isinstance(control, Road) and control.name == name for control in self.groups.values())


@kept
def _control(bench: Bench, names: tuple[str, ...], locks: tuple[str, ...]) -> Control:
    free = bench.freeable(locks)
    used = list(dict.fromkeys([*names, *free]))
    straight = bench.straight
    of_straight = [] if straight is None else [knob.name for knob in straight.knobs]
    for name in used:
        checks.known(name, bench.knobs, "knob")
    parts: list[Control] = []
    if straight is not None and (lines := [name for name in used if name in of_straight]):
        parts.append(straight[lines].held(list(free)) if free else straight[lines])
    for control in bench.groups.values():
        own = [knob.name for knob in control.knobs if knob.name in used]
        if isinstance(control, Directions) or not own:
            continue
        if isinstance(control, Road):
            control = control.holding(select(bench.features, [lock for lock in locks if lock in bench.columns]))
        parts.append(control[own] if isinstance(control, Chain | Controllers) else control)
    return parts[0] if len(parts) == 1 else Chain(tuple(parts))


@dataclass(frozen=True)
class State:
    """Everything one visitor has chosen.

    Attributes:
        amounts: of the knobs that are not neutral, by name, in the order they were first turned.
        locks: columns that nothing else may move: straight knobs are freed of those that have an axis; driving and trajectories hold all.
        boxes: held while driving, each top, left, bottom, right in pixels.
        region: held while driving besides: "person", "background" or "" for neither.
        offset: where driving has led: float32 numbers in base64, added to the latent after the knobs; "" for nowhere.
    """

    seed: int = 0
    psi: float = 1.0
    label: int | None = None
    amounts: Mapping[str, float] = field(default_factory=dict)
    locks: tuple[str, ...] = ()
    boxes: tuple[Corners, ...] = ()
    region: str = ""
    offset: str = ""

    def turned(self, name: str, amount: float, *, neutral: float | None = 0.0) -> State:
        """The same with one knob at an amount; neutral ones are left out."""
        rest = {**self.amounts, name: float(amount)}
        return replace(self, amounts={key: value for key, value in rest.items() if key != name or value != neutral})

    def without(self, name: str) -> State:
        """The same with one knob at rest."""
        return replace(self, amounts={key: value for key, value in self.amounts.items() if key != name})

    def locked(self, name: str, on: bool) -> State:
        locks = tuple(one for one in self.locks if one != name)
        return replace(self, locks=(*locks, name) if on else locks)

    def still(self) -> State:
        """The same person, unsteered."""
        return replace(self, amounts={}, offset="")

    def held_part(self) -> State:
        """What the locks are judged against: only the locked knobs themselves turned."""
        return replace(self, amounts={name: value for name, value in self.amounts.items() if name in self.locks}, offset="")


def start(state: State, bench: Bench) -> Latents:
    """The latent before anything is steered, in the space of the controls."""
    return sampling.latents_of(bench.generator, [state.seed], space=bench.space, psi=state.psi, labels=state.label)


def latents(state: State, bench: Bench) -> Latents:
    """Where a state leads: the knobs, freed of the locks, then what was driven.

    Raises:
        ValueError: a knob that the bench lacks, or locks that leave a knob no way to go.
    """
    point = start(state, bench)
    if state.amounts:
        control = bench.control(tuple(state.amounts), state.locks)
        resting = {knob.name: rest(knob) for knob in control.knobs}
        point = control.steer(point, amounts(control, point, {**resting, **state.amounts}))
    return recipe.displaced(point, state.offset) if state.offset else point


def ledger(state: State, bench: Bench) -> tuple[list[tuple[float, float]], float] | None:
    """What the trajectory that was turned last has cost on the way to its amount; see ``Road.curve``. None where none is turned."""
    turned = [name for name in state.amounts if bench.is_road(name)]
    if not turned:
        return None
    control = bench.control(tuple(state.amounts), state.locks)  # the one that steered, which remembers its ways
    parts = control.parts if isinstance(control, Chain) else (control,)
    road = next(part for part in parts if isinstance(part, Road) and part.name == turned[-1])
    before = replace(state, offset="", amounts={**state.amounts, **dict.fromkeys(turned, 0.0)})
    return road.curve(latents(before, bench), state.amounts[road.name])


def rest(knob: Knob) -> float:
    """Where a knob stands that nobody turned; one that sets a value, in the middle of what it reaches."""
    return (knob.low + knob.high) / 2 if knob.neutral is None else knob.neutral


def pixels(point: Latents, bench: Bench) -> list[Pixels]:
    """The pictures of latents.

    Raises:
        ValueError: a latent that is not finite, or a generator that makes no picture of it.
    """
    checks.finite(point.values, "this latent")
    with torch.inference_mode():
        return list(render.to_uint8(bench.generator(point)))


def measure(point: Latents, bench: Bench) -> dict[str, float]:
    """Every column of every feature, for one latent."""
    if not bench.features:
        return {}
    values = sampling.observe(bench.generator, bench.features, point)[0].tolist()
    return dict(zip(bench.columns, values, strict=True))


# ------------------------------------------------------------------ recipes


def recipe_of(state: State, bench: Bench, seeds: Sequence[int] = (), *, scale: int = 1) -> Recipe:
    """The state as a recipe: ``drawing.draw`` makes the same picture, on the command line or in Python."""
    used = tuple(state.amounts)
    whole = Recipe(
        generator=bench.source or bench.generator.name,
        fingerprint=bench.generator.fingerprint,
        seeds=tuple(seeds) or (state.seed,),
        psi=state.psi,
        label=state.label,
        offset=state.offset or None,
        scale=scale,
    )
    if not used:
        return whole
    if any(bench.is_road(name) for name in used):  # of this person alone: where it led
        still = start(replace(state, offset=""), bench)
        return whole.model_copy(update={"offset": offset_of(latents(state, bench).values[0] - still.values[0])})
    straight, free = bench.straight, bench.freeable(state.locks)
    if straight is not None and set(used) <= {knob.name for knob in straight.knobs}:
        return whole.model_copy(update={"turn": recipe.turn(straight, amounts=state.amounts, hold=free)})
    carried = base64.b64encode(store.control_bytes(bench.control(used, state.locks))).decode()
    return whole.model_copy(update={"turn": recipe.Turn(control=carried, amounts=dict(state.amounts))})


def state_of(one: Recipe, bench: Bench) -> tuple[State, Bench]:
    """A recipe as a state, with a bench that has its knobs: those of the bench where they are the same, else in a group of their own.

    Raises:
        ValueError: the recipe belongs to another generator, or its parts do not fit.
    """
    if one.fingerprint != bench.generator.fingerprint:
        raise ValueError(
            f"this recipe belongs to {one.generator[:40]} ({one.fingerprint[:4]}…), "
            f"this page has {bench.generator.name} ({bench.generator.fingerprint[:4]}…). Choose its generator first."
        )
    if one.options and dict(one.options) != dict(bench.generator.options):
        raise ValueError("this recipe sets options of the generator: open it with steer apply --recipe FILE.")
    state = State(seed=one.seeds[0], psi=one.psi, label=one.label, offset=one.offset or "")
    simple = one.cutoff is None and one.drive is None and not (one.turn and one.turn.values)
    if simple and one.turn is None:
        return state, bench
    if simple and one.turn is not None:
        carried = recipe.unpack(one.turn.model_copy(update={"hold": ()}), bench.generator)
        if bench.space in (None, carried.space.name):
            bench, names = adopted(bench, carried, "from a recipe")
            turned = {names[name]: value for name, value in one.turn.amounts.items()}
            return replace(state, amounts=turned, locks=tuple(names[name] for name in one.turn.hold)), bench
    end = recipe.steer(recipe.of_seeds(one, slice(1)).model_copy(update={"sweep": None}), bench.generator)[0]
    begun = start(replace(state, offset=""), bench)
    if end.space != begun.space:
        raise ValueError(
            f"this recipe ends in {end.space.name}, this page steers in {begun.space.name}: open it with steer apply --recipe."
        )
    boxes = tuple(recipe.boxes_of(one.drive))
    return replace(state, boxes=boxes, offset=offset_of(end.values[0] - begun.values[0])), bench


def adopted(bench: Bench, control: Control, group: str) -> tuple[Bench, dict[str, str]]:
    """The bench with another control, and what its knobs are called there; knobs that the bench already has are not doubled."""
    names, fresh = {}, []
    straight = bench.straight
    for i, knob in enumerate(control.knobs):
        same = (
            straight is not None
            and isinstance(control, Directions)
            and knob.name in (own := [one.name for one in straight.knobs])
            and torch.equal(straight.vectors[own.index(knob.name)], control.vectors[i])
        )
        names[knob.name] = knob.name if same or knob.name not in bench.knobs else _free(f"{knob.name} ({group})", bench.knobs)
        fresh += [] if same else [knob.name]
    if not fresh:
        return bench, names
    if isinstance(control, Directions):
        part: Control = control[fresh]
        part = replace(part, knobs=tuple(replace(knob, name=names[knob.name]) for knob in part.knobs))
    elif any(names[name] != name for name in names):
        raise ValueError(
            f'a curved control cannot be renamed, and this page already has a knob "{next(n for n in names if names[n] != n)}".'
        )
    else:
        part = control
    return replace(bench, groups={**bench.groups, _free(group, bench.groups): part}), names


def _free(name: str, taken: Mapping[str, object]) -> str:
    number, found = 2, name
    while found in taken:
        number, found = number + 1, f"{name} {number}"
    return found


@dataclass(frozen=True)
class Look:
    """What ``look`` saw: the picture of every seed and, where it was asked for, its values before and after."""

    images: list[Pixels]
    before: list[dict[str, float]]
    after: list[dict[str, float]]


def look(one: Recipe, bench: Bench, *, measured: bool = False) -> Look:
    """The images and measurements of a recipe's seeds; a pure function. Sweeps are ``drawing.draw``'s business."""
    one = one.model_copy(update={"sweep": None})
    generator = recipe.as_made(one, bench.generator)
    bench = replace(bench, generator=generator) if generator is not bench.generator else bench  # type: ignore[arg-type]
    (end,), begun = recipe.steer(one, generator), recipe.begin(one, generator)
    rows = [slice(i, i + 1) for i in range(len(one.seeds))]
    images = [pixels(end[row], bench)[0] for row in rows]
    if not measured:
        return Look(images, [], [])
    return Look(images, [measure(begun[row], bench) for row in rows], [measure(end[row], bench) for row in rows])


# ------------------------------------------------------------------ history


@dataclass(frozen=True)
class History:
    """Undo and redo as data: ``steps`` are (what was done, the state after it), ``at`` is the one that is shown."""

    steps: tuple[tuple[str, State], ...]
    at: int = 0

    @classmethod
    def begun(cls, state: State) -> History:
        return cls((("start", state),))

    @property
    def state(self) -> State:
        return self.steps[self.at][1]

    def then(self, what: str, state: State) -> History:
        """One step further; what was undone is gone. A state like the present one is no step."""
        if state == self.state:
            return self
        steps = (*self.steps[: self.at + 1], (what, state))[-STEPS:]
        return History(steps, len(steps) - 1)

    def undo(self) -> History:
        return self.go(self.at - 1)

    def redo(self) -> History:
        return self.go(self.at + 1)

    def go(self, place: int) -> History:
        return replace(self, at=min(max(place, 0), len(self.steps) - 1))


# ------------------------------------------------------------------ locks


@dataclass(frozen=True)
class Leak:
    """How far a locked attribute moved although it was held, in its own unit."""

    name: str
    unit: str
    drift: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return abs(self.drift) <= self.tolerance


@kept
def deviation(bench: Bench, name: str) -> float:
    """A column's spread over unsteered images, the middle half over 1.349: from its knob, or from 64 images where it has none."""
    knob = bench.knobs.get(name)
    if knob is not None and knob.percentiles:
        return (knob.value_at(75) - knob.value_at(25)) / 1.349
    if name not in bench.columns:
        return 1.0
    points = sampling.latents_of(bench.generator, list(range(LOOKED_AT)), space=bench.space)
    values = sampling.observe(bench.generator, select(bench.features, [name]), points, batch=8)
    low, high = values[:, 0].quantile(torch.tensor([0.25, 0.75])).tolist()
    return max(high - low, 1e-6) / 1.349


def tolerance(bench: Bench, name: str) -> float:
    """What a lock may drift unless somebody says otherwise: a quarter of a population deviation, in the column's unit."""
    return float(f"{0.25 * deviation(bench, name):.2g}")


def leaks(state: State, bench: Bench, now: Mapping[str, float], before: Mapping[str, float], tolerances: Mapping[str, float]) -> list[Leak]:
    """One for every lock: measured now against the same person with only the locked knobs turned.

    Args:
        tolerances: in the attribute's own unit; ``tolerance`` where there is none.
    """
    return [
        Leak(name, bench.columns[name], now[name] - before[name], tolerances[name] if name in tolerances else tolerance(bench, name))
        for name in state.locks
        if name in now and name in before
    ]
