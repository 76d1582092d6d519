"""A state as text: in an address, as a command line, as Python. Pure functions.

A link names the generator by its fingerprint and each knob by its name and a checksum of its direction; knobs that only this visitor has
(labelled, dropped) travel inside it. So a link either restores the very picture or says why it cannot.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steerable import store
from steerable.controls.directions import Directions
from steerable.controls.trajectory import Trajectory
from steerable.features.network import select
from steerable.recipe import Finite, Pixel, Recipe, Seed
from steerable.studio import session
from steerable.studio.road import Road
from steerable.studio.session import Bench, State

LONGEST = 48_000  # characters of a link; browsers and servers take about twice that
UNPACKED = 8 * 2**20  # bytes


class RoadLink(BaseModel):
    """A trajectory as it is told: what moves and what is held, by name; it is walked anew where the link is opened."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(max_length=120)
    move: tuple[str, ...] = Field(min_length=1, max_length=8)
    hold: tuple[str, ...] = Field(min_length=1, max_length=32)


class Link(BaseModel):
    """What stands in an address."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    generator: str = Field(max_length=200)
    fingerprint: str = Field(max_length=64)
    seed: Seed
    psi: float = Field(1.0, ge=0, le=2)
    label: int | None = Field(None, ge=0, lt=2**31)
    amounts: dict[str, Finite] = Field({}, max_length=256)
    locks: tuple[str, ...] = Field((), max_length=256)
    boxes: tuple[tuple[Pixel, Pixel, Pixel, Pixel], ...] = Field((), max_length=16)
    region: Literal["", "person", "background"] = ""
    offset: str = Field("", max_length=4_000_000)
    sums: dict[str, str] = Field({}, max_length=512)
    carried: Annotated[str, Field(max_length=4_000_000)] = ""
    roads: tuple[RoadLink, ...] = Field((), max_length=4)


def link_of(state: State, bench: Bench, shared: Bench, *, whole: bool = False) -> str:
    """The state as an address carries it.

    Args:
        shared: the bench that every visitor finds; knobs that it lacks are carried.
        whole: carry the straight knobs and trajectories that the shared bench lacks even where they are not turned.

    Raises:
        ValueError: what would have to be carried is too long for an address.
    """
    used = list(dict.fromkeys([*state.amounts, *bench.freeable(state.locks)]))
    own = [name for name in (bench.knobs if whole else used) if name not in shared.knobs]
    straight = bench.straight
    lines = [] if straight is None else [knob.name for knob in straight.knobs]
    roads = {control.name: control for control in bench.groups.values() if isinstance(control, Road)}
    if curved := [name for name in own if name in used and name not in lines and name not in roads]:
        raise ValueError(f'"{curved[0]}" is a curved control of your own, too long for a link: save the picture, it carries everything.')
    carried = ""
    if straight is not None and (mine := [name for name in own if name in lines]):
        carried = base64.b64encode(store.control_bytes(Directions(*_stripped(straight[mine])))).decode()
    one = Link(
        generator=bench.generator.name,
        fingerprint=bench.generator.fingerprint,
        seed=state.seed,
        psi=state.psi,
        label=state.label,
        amounts=dict(state.amounts),
        locks=state.locks,
        boxes=state.boxes,
        region=state.region,  # type: ignore[arg-type]
        offset=state.offset,
        sums={name: checksum(bench, name) for name in used if name not in own},
        carried=carried,
        roads=tuple(_told(roads[name], bench) for name in own if name in roads),
    )
    packed = zlib.compress(one.model_dump_json(exclude_defaults=True).encode(), 9)
    text = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    if len(text) > LONGEST:
        raise ValueError(
            f"this state needs a link of {len(text)} characters, {LONGEST} are possible: save the picture, it carries everything."
        )
    return text


def parsed(text: str) -> Link:
    """What a link says.

    Raises:
        ValueError: a link that was cut or changed.
    """
    if len(text) > LONGEST:
        raise ValueError(f"this link has {len(text)} characters, at most {LONGEST} are read.")
    try:
        packed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, UNPACKED)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise ValueError("cut")
        return Link.model_validate_json(content)
    except (ValueError, zlib.error, UnicodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f" ({'.'.join(map(str, first['loc']))}: {first['msg'].lower()})" if first else ""
        raise ValueError(f"this link cannot be restored: it was cut or changed on its way{why}.") from None


def restored(text: str, bench: Bench) -> tuple[State, Bench]:
    """The state in a link, and a bench that has its knobs.

    Raises:
        ValueError: as ``parsed``; and a link that belongs to another generator or to knobs that are not here; says which.
    """
    one = parsed(text)
    if one.fingerprint != bench.generator.fingerprint:
        raise ValueError(
            f"this link cannot be restored: it belongs to {one.generator[:60]} ({one.fingerprint[:4]}…), "
            f"this page has {bench.generator.name} ({bench.generator.fingerprint[:4]}…)."
        )
    if one.carried:
        content = base64.b64decode(one.carried.encode("ascii", "replace"))
        control = store.control_of(content, what="the control inside this link", generator=bench.generator)
        bench, names = session.adopted(bench, control, "from a link")
    else:
        names = {}
    for road in one.roads:
        bench = _again(road, bench)
        names[road.name] = road.name
    for name in dict.fromkeys([*one.amounts, *one.locks]):
        if name in names or (name in bench.columns and name not in one.amounts and name not in one.sums):
            continue  # carried, or a lock on a column without an axis
        if name not in bench.knobs:
            raise ValueError(f'this link cannot be restored: it turns "{name[:60]}", which this page does not have.')
        if one.sums.get(name) != checksum(bench, name):
            raise ValueError(f'this link cannot be restored: its "{name[:60]}" is another one than this page\'s; it was fitted anew since.')
    if strange := [name for name in one.locks if names.get(name, name) not in bench.columns]:
        raise ValueError(f'this link cannot be restored: it locks "{strange[0][:60]}", which this page does not measure.')
    amounts = {names.get(name, name): value for name, value in one.amounts.items()}
    locks = tuple(names.get(name, name) for name in one.locks)
    return State(one.seed, one.psi, one.label, amounts, locks, one.boxes, one.region, one.offset), bench


def _told(road: Road, bench: Bench) -> RoadLink:
    """A trajectory by the names of what moves and what is held.

    Raises:
        ValueError: a feature that only this visitor has.
    """
    sides = [[feature.name for feature in side] for side in (road.trajectory.move, road.trajectory.hold)]
    there = {*bench.columns, *(feature.name for feature in bench.features)}
    if missing := [name for side in sides for name in side if name not in there]:
        raise ValueError(f'a link does not carry the feature "{missing[0]}" of your trajectory: save the picture, it carries everything.')
    return RoadLink(name=road.name, move=tuple(sides[0]), hold=tuple(sides[1]))


def _again(told: RoadLink, bench: Bench) -> Bench:
    """The bench with a trajectory that a link tells of."""
    try:
        move, hold = select(bench.features, told.move), select(bench.features, told.hold)
    except ValueError as error:
        raise ValueError(f'this link cannot be restored: of its trajectory "{told.name[:60]}", {error}') from None
    road = Road(Trajectory(bench.generator, move=move, hold=hold, space=bench.space, judge=None, settling=0), told.name)
    return session.adopted(bench, road, "trajectories")[0]


def checksum(bench: Bench, name: str) -> str:
    """Of a knob: the first letters of a digest of its numbers."""
    straight = bench.straight
    if straight is not None and name in [knob.name for knob in straight.knobs]:
        one = straight[name]
        parts = [one.vectors] + ([] if one.normals is None else [one.normals])
        content = torch.cat([part.flatten() for part in parts]).cpu().float().numpy().tobytes()
    else:
        control = next(control for control in bench.groups.values() if name in [knob.name for knob in control.knobs])
        content = control.identity.encode() if isinstance(control, Road) else store.control_bytes(control)
    return hashlib.sha256(content).hexdigest()[:12]


def _stripped(control: Directions) -> tuple:
    return control.knobs, control.space, control.vectors, control.normals, {"method": str(control.fit.get("method", ""))}


def as_command(one: Recipe, bench: Bench, state: State, *, picture: str = "picture.png") -> str:
    """What to type for the same picture.

    Knobs of a control file are turned by name where that is all there is; what was driven comes from the saved picture's recipe.
    """
    base = f"--generator {_word(one.generator)} --seeds {','.join(map(str, one.seeds))}" + (f" --psi {one.psi:g}" if one.psi != 1 else "")
    if one.label is not None:
        base += f" --label {one.label}"
    straight, free = bench.straight, bench.freeable(state.locks)
    lines = [] if straight is None else [knob.name for knob in straight.knobs]
    if state.offset or set(state.amounts) & set(free) or not set(state.amounts) <= set(lines):
        return f"steer apply --recipe {picture} --out applied    # save the image first: it carries the recipe"
    if not state.amounts:
        return f"steer sample {base}"
    turned = " ".join(f"--turn {_word(f'{name}={value!r}')}" for name, value in state.amounts.items())
    held = f" --hold {_word(','.join(free))}" if free else ""
    return f"steer apply controls.safetensors {turned}{held} {base}    # save the controls first"


def as_python(one: Recipe) -> str:
    """A program that draws the same picture."""
    text = json.dumps(json.loads(one.model_dump_json(exclude_defaults=True)), indent=1)
    return (
        "import steerable as st\nfrom steerable import drawing, recipe\n\n"
        f"one = recipe.parse(r'''{text}''', what=\"this text\")\n"
        f'drawing.draw(one, st.load_generator({one.generator!r})).save("picture.png")\n'
    )


def _word(text: str) -> str:
    import shlex

    return shlex.quote(text)
