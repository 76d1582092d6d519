"""One serialised edit: the same in Python, on the command line and inside a PNG or a film.

A recipe names the generator by fingerprint and carries the directions that it turns, so that a picture brings everything that made it
but the generator's weights. ``steer`` is a pure function from a recipe and its generator to latents; ``drawing`` makes pictures of them.
Seeds are steered one at a time, because sums over a batch may round differently from those over one row.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from torch import Tensor

from steerable import checks, files, films, named, progress, render, store, zoo
from steerable.controls.controller import AlongAxis
from steerable.controls.directions import Directions, amounts
from steerable.controls.groups import Controllers
from steerable.controls.solution import Solution
from steerable.controls.solve import Solve
from steerable.controls.trajectory import Path as Course
from steerable.controls.trajectory import Trajectory, joined_paths
from steerable.features.network import NetworkFeature, select
from steerable.features.pixels import Box, RegionPixels
from steerable.generators.module import ModuleGenerator, row_seed
from steerable.protocols import Control, Generator, Latents, device_of
from steerable.sampling import latents_of

Finite = Annotated[float, Field(allow_inf_nan=False)]
Pixel = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
REST = "rest"  # in a film: the amount of the drive


class Turn(BaseModel):
    """Knobs of one control, turned by amounts, with others held; or columns of features, set to values."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    control: str = Field("", description="the knobs that are used, as a control file in base64; none where values are set without one")
    amounts: dict[str, Finite] = {}
    values: dict[str, Finite] = {}
    hold: tuple[str, ...] = Field(default=(), description="knobs; where values are solved for, any features")
    by: Literal["axis", "solve", "draw"] = Field(
        default="axis",
        description="how values are set: along the axis, by controls.solve, or drawn: one of a group's answers a seed",
    )
    heads: tuple[str, ...] = Field(default=(), description="features of a user's own that are set or held, as files in base64")


class Drive(BaseModel):
    """A trajectory: some features move by an amount while others are held, both as they are typed (``named``).

    A box alone holds its pixels and moves all others; the amount is then a root-mean-square change, images in [-1, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    box: tuple[Pixel, Pixel, Pixel, Pixel] | None = Field(default=None, description="top, left, bottom, right")
    move: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    amount: Finite = Field(description="in the unit of what moves; the sign says which way")
    course: str = "growing"
    solver: str = "soft"
    rank: int = Field(default=1, ge=1, le=64)
    leak: float = Field(default=0.08, gt=0, le=10)

    @model_validator(mode="after")
    def _one_way(self) -> Drive:
        if (self.box is None) == (not self.move or not self.hold):
            raise ValueError("a drive has a box, or something to move and something to hold")
        return self


class Sweep(BaseModel):
    """One knob at several amounts: the columns of a strip."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    knob: str
    amounts: tuple[Finite, ...] = Field(min_length=1, max_length=100)


class Film(BaseModel):
    """Amounts at the keyframes of a film. What a keyframe does not name stays as it was, and is 0 before the first that does."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    keyframes: tuple[dict[str, Finite], ...] = Field(min_length=2, max_length=50, description='of knobs; "rest" is that of the drive')
    seconds: float = Field(1.0, gt=0, le=3600, description="from one to the next")
    fps: int = Field(24, ge=1, le=100)
    easing: Literal["linear", "ease", "ease-in", "ease-out", "hold"] = "ease"
    loop: Literal["once", "return", "boomerang"] = "once"

    @property
    def pace(self) -> films.Pace:
        return films.Pace(self.seconds, self.fps, self.easing, self.loop)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in self.keyframes for name in one))

    def filled(self) -> list[dict[str, float]]:
        """Every keyframe with the amounts of all names."""
        last, rows = dict.fromkeys(self.names, 0.0), []
        for one in self.keyframes:
            last = {**last, **one}
            rows.append(last)
        return rows

    def frames(self) -> list[dict[str, float]]:
        """The amounts of every frame."""
        table = torch.tensor([[row[name] for name in self.names] for row in self.filled()], dtype=torch.float64)
        return [dict(zip(self.names, row, strict=True)) for row in films.course(table, self.pace).tolist()]


class Recipe(BaseModel):
    """Generator, seeds and everything that was done to them, in the order turn, drive, offset, and then a sweep or a film."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: Literal[1] = 1
    generator: str
    fingerprint: str
    seeds: tuple[Seed, ...] = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default={}, description="of the generator: noise, truncation, lod, a transform")
    psi: float = Field(1.0, ge=0, le=2)
    cutoff: int | None = Field(default=None, ge=0)
    label: int | None = None
    turn: Turn | None = None
    drive: Drive | None = None
    offset: str | None = Field(default=None, max_length=4_000_000, description="where the studio was driven to: float32 in base64")
    sweep: Sweep | None = None
    film: Film | None = None
    scale: int = Field(default=1, ge=1, le=32)


def parse(text: str, *, what: str) -> Recipe:
    """A recipe from its JSON; ``what`` names the source in errors."""
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{what} holds no recipe of ours: {where}: {first['msg'].lower()}.") from None


def turn(
    control: Any,
    *,
    amounts: Mapping[str, float] | None = None,
    values: Mapping[str, float] | None = None,
    hold: Sequence[str] = (),
    swept: Sequence[str] = (),
    by: Literal["axis", "solve", "draw"] = "axis",
    heads: Sequence[bytes] = (),
) -> Turn:
    """A turn that carries the knobs it uses (``swept`` ones too) and no others. Directions, walks and chains of them can be carried;
    values that are solved for need none.

    Args:
        by: "axis", or "solve": values and holds may then be columns and features that the control has no knob of. "draw" is for
            ``Controllers``, which otherwise give the one answer.
        heads: files of features of one's own, as ``store.save_feature`` writes them.
    """
    used: list[str] = list(dict.fromkeys([*(amounts or {}), *(values or {}), *hold, *swept]))
    if by == "solve" and control is not None:
        used = [name for name in used if name in {knob.name for knob in control.knobs}]
    data = ""
    if control is not None and used:
        small = replace(control[used], fit={"method": control.fit.get("method", "")})
        data = base64.b64encode(store.control_bytes(small)).decode()
    carried = tuple(base64.b64encode(head).decode() for head in heads)
    return Turn(control=data, amounts=dict(amounts or {}), values=dict(values or {}), hold=tuple(hold), by=by, heads=carried)


def steer(recipe: Recipe, generator: Generator) -> list[Latents]:
    """The steered latents of all seeds: one batch, or one for each amount of the sweep or each keyframe of the film; see ``steered``."""
    return steered(recipe, generator)[0]


def steered(recipe: Recipe, generator: Generator, *, solutions: list[Solution] | None = None) -> tuple[list[Latents], Course | None]:
    """The same, and where the trajectory of each seed went, if the recipe has one that goes to one amount.

    Row i depends on seed i alone, to the last bit: the picture of one seed is the same from its own recipe and from that of many.

    Args:
        solutions: a list that is filled with what came of values that were solved for, one entry a seed.

    Raises:
        ValueError: the generator is another one than the recipe's, or the recipe's control does not fit it.
    """
    columns: list[dict[str, float]] = [{}]
    if recipe.sweep is not None:
        columns = [{recipe.sweep.knob: amount} for amount in recipe.sweep.amounts]
    elif recipe.film is not None:
        columns = recipe.film.filled()
    return steered_at(recipe, generator, columns, solutions)


def steered_at(
    recipe: Recipe, generator: Generator, columns: Sequence[Mapping[str, float]], solutions: list[Solution] | None = None
) -> tuple[list[Latents], Course | None]:
    """All seeds at each of several sets of amounts, on top of what the recipe does to all of them."""
    if generator.fingerprint != recipe.fingerprint:
        raise ValueError(
            f"this recipe belongs to {recipe.generator} ({recipe.fingerprint[:4]}…), the generator is ({generator.fingerprint[:4]}…)."
        )
    generator = as_made(recipe, generator)
    turn = recipe.turn
    control = None if turn is None or not turn.control else unpack(turn, generator)
    setter = solver(generator, turn) if turn is not None and turn.by == "solve" and turn.values else None
    _all_can_move(recipe, control, {name for column in columns for name in column})
    at = setter if setter is not None else control
    start = begin(recipe, generator, None if at is None else at.space.name)
    if turn is None and recipe.drive is None and recipe.offset is None:
        return [start for _ in columns], None
    trail = None if recipe.drive is None else trajectory(generator, recipe.drive)
    means = Means(control, setter, trail, [] if solutions is None else solutions)
    rows = [
        _one(recipe, generator, means, start[i : i + 1], recipe.seeds[i], columns) for i in progress.track(range(len(start)), "steering")
    ]
    ends = [start.at(torch.cat([one.values for one in column])) for column in zip(*[places for places, _ in rows], strict=True)]
    paths = [path for _, path in rows if path is not None]
    return ends, joined_paths(paths) if paths else None


class Means(NamedTuple):
    """What steers by a recipe: the control that it carries, the solver of its values and what it found, the trajectory of its drive."""

    control: Any
    setter: Solve | None
    trail: Trajectory | None
    solutions: list[Solution]


def _all_can_move(recipe: Recipe, control: Control | None, names: set[str]) -> None:
    if REST in names and recipe.drive is None:
        raise ValueError(f'this recipe moves "{REST}" but drives nowhere: give it a drive, a box to hold.')
    knobs = names - {REST}
    if knobs and control is None:
        raise ValueError(f'this recipe moves "{min(knobs)}" but carries no control.')
    for name in sorted(knobs):
        checks.known(name, [knob.name for knob in control.knobs] if control else [], "knob of this recipe")


def as_made(recipe: Recipe, generator: Generator) -> Generator:
    """The generator with the options of the recipe in force.

    Raises:
        ValueError: options that it does not have.
    """
    if not recipe.options:
        return generator
    if not isinstance(generator, ModuleGenerator):
        raise ValueError(f"this recipe sets {', '.join(recipe.options)}, options that a generator of your own cannot take.")
    return generator.configured(**recipe.options)


def begin(recipe: Recipe, generator: Generator, space: str | None = None) -> Latents:
    """The latents of the recipe's seeds before anything is steered, in the space of the control that will."""
    space = space or ("w+" if recipe.cutoff is not None else None)
    return latents_of(generator, recipe.seeds, space=space, psi=recipe.psi, cutoff=recipe.cutoff, labels=recipe.label)


def solver(generator: Generator, turn: Turn, values: Mapping[str, float | str] | None = None) -> Solve:
    """What sets the values of a turn that solves for them: the lines of its control, and its own features beside the ready ones.

    Args:
        values: other ones than the turn's, percentiles among them.
    """
    wanted = dict(turn.values) if values is None else dict(values)
    control = unpack(turn, generator) if turn.control else None
    lines = [knob.name for knob in control.knobs if knob.name in wanted] if control is not None else []
    axes = control[lines] if isinstance(control, Directions) and lines else None
    device = str(device_of(generator))
    hold = [named.one(text, generator.image_shape, device=device) if named.is_more_than_a_name(text) else text for text in turn.hold]
    return Solve(generator, set=wanted, hold=hold, features=own_features(turn, device), axes=axes)


def own_features(turn: Turn, device: str = "cpu") -> list[NetworkFeature]:
    """The features that a turn carries.

    Raises:
        ValueError: the recipe was changed by hand or cut.
    """
    found = []
    for text in turn.heads:
        try:
            content = base64.b64decode(text, validate=True)
        except ValueError:
            raise ValueError("a feature inside this recipe is not base64: the recipe was changed by hand or cut.") from None
        found.append(store.feature_of(content, zoo.load_backbone().to(device), what="a feature inside this recipe"))
    return found


def _one(
    recipe: Recipe, generator: Generator, means: Means, latents: Latents, seed: int, columns: Sequence[Mapping[str, float]]
) -> tuple[Sequence[Latents], Course | None]:
    """One seed, steered: as many latents as there are columns, and the path of its trajectory."""
    control, setter, trail, solutions = means
    if recipe.turn is not None and control is not None and recipe.turn.amounts:
        latents = control.steer(latents, amounts(control, latents, recipe.turn.amounts))
    if recipe.turn is not None and isinstance(control, Controllers):
        latents = control.set(latents, recipe.turn.values, seeds=[row_seed(seed, 0)] if recipe.turn.by == "draw" else None)
    elif setter is not None:
        solutions.append(setter.solve(latents))
        latents = solutions[-1].latents
    elif recipe.turn is not None and control is not None:
        for name, value in recipe.turn.values.items():
            (feature,) = select(zoo.load_features(device=str(latents.values.device)), [name])
            latents = AlongAxis(generator, control[name], feature).steer(latents, latents.values.new_full((1, 1), value))
    places, path = [latents for _ in columns], None
    if recipe.drive is not None and trail is not None:
        wanted = [column.get(REST, recipe.drive.amount) for column in columns]
        places, path = _driven(trail, latents, wanted)
    if recipe.offset is not None:
        places = [displaced(place, recipe.offset) for place in places]
    turned = [{name: amount for name, amount in column.items() if name != REST} for column in columns]
    ends = [
        control.steer(place, amounts(control, place, column)) if column and control is not None else place
        for place, column in zip(places, turned, strict=True)
    ]
    return ends, path


def _driven(trail: Trajectory, latents: Latents, wanted: Sequence[float]) -> tuple[list[Latents], Course | None]:
    """One latent driven to several amounts: each side's path is found once, to its furthest one, and met on the way for the others."""
    if len(set(wanted)) == 1:
        path = trail.path(latents, latents.values.new_full((1, 1), wanted[0]))
        return [path.end] * len(wanted), path
    ends = {sign: max((sign * amount for amount in wanted), default=0.0) for sign in (-1, 1)}
    paths = {sign: trail.path(latents, latents.values.new_full((1, 1), sign * end)) for sign, end in ends.items() if end > 0}
    return [latents if amount == 0 else _met(paths[1 if amount > 0 else -1], abs(amount)) for amount in wanted], None


def _met(path: Course, amount: float) -> Latents:
    """Where a path first has come this far: between two way-points, or its end where it does not come so far."""
    moved = path.moved[:, 0].cummax(0).values.tolist()
    for (a, b), (near, far) in zip(pairwise(path.waypoints), pairwise(moved), strict=True):
        if far >= amount > near:
            return a.at(a.values + (amount - near) / (far - near) * (b.values - a.values))
    return path.end


def offset_of(displacement: Tensor) -> str:
    """A displacement of one latent as a recipe carries it; ``displaced`` puts it back."""
    values = displacement.detach().cpu().float().contiguous().numpy()
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def displaced(latents: Latents, offset: str) -> Latents:
    """Latents moved by the numbers of an offset: float32, little-endian, in base64; one latent's worth of them.

    Raises:
        ValueError: something else than that, or a number that is not finite.
    """
    try:
        values = torch.frombuffer(bytearray(base64.b64decode(offset, validate=True)), dtype=torch.float32)
    except (ValueError, RuntimeError):
        raise ValueError("the offset inside this recipe is no row of float32 numbers in base64: it was changed by hand or cut.") from None
    if values.numel() != latents.values[0].numel():
        raise ValueError(f"an offset in {latents.space} has {latents.values[0].numel()} numbers, this recipe's has {values.numel()}.")
    moved = latents.values + checks.finite(values, "the offset of this recipe").view(latents.space.shape).to(latents.values)
    return latents.at(latents.space.normalised(moved))


def unpack(one: Turn, generator: Generator) -> Any:
    """The control that a turn carries, with its holds applied."""
    try:
        content = base64.b64decode(one.control, validate=True)
    except ValueError:
        raise ValueError("the control inside this recipe is not base64: the recipe was changed by hand or cut.") from None
    control = store.control_of(content, what="the control inside this recipe", generator=generator)
    if one.hold and not isinstance(control, Directions):
        raise ValueError(f"only straight knobs can hold others, {', '.join(knob.name for knob in control.knobs)} are not: leave hold out.")
    known = {knob.name for knob in control.knobs}
    hold = [name for name in one.hold if one.by == "axis" or name in known]
    return control.held(hold) if hold else control


def trajectory(generator: Generator, drive: Drive) -> Trajectory:
    """What a drive follows.

    Raises:
        ValueError: a feature that is unknown or does not fit these pictures, the same one moved and held; see ``Trajectory``.
    """
    options: dict[str, Any] = {"course": drive.course, "solver": drive.solver, "rank": drive.rank, "leak": drive.leak}
    shape = generator.image_shape
    if drive.box is not None:
        region = Box(*drive.box)
        outside, inside = RegionPixels(region, shape, invert=True, name="outside"), RegionPixels(region, shape, name="inside")
        return Trajectory(generator, move=outside, hold=inside, **options)
    device = str(device_of(generator))
    move, hold = (named.features(side, shape, device=device) for side in (drive.move, drive.hold))
    return Trajectory(generator, move=move, hold=hold, **options)


def boxes_of(drive: Drive | None) -> list[tuple[int, int, int, int]]:
    """The boxes among what is held: outlined in pictures."""
    if drive is None:
        return []
    if drive.box is not None:
        return [drive.box]
    held = [re.fullmatch(r"inside:(\d+),(\d+),(\d+),(\d+)(=.*)?", text.replace(" ", "")) for text in drive.hold]
    return [tuple(int(one[i]) for i in range(1, 5)) for one in held if one]  # type: ignore[misc]


def of_seeds(recipe: Recipe, rows: slice) -> Recipe:
    """The same recipe for some of its seeds."""
    return recipe.model_copy(update={"seeds": recipe.seeds[rows]})


def read(path: str | os.PathLike[str]) -> Recipe:
    """The recipe inside a PNG or a film, or in a JSON file.

    Raises:
        ValueError: no such file, or there is no recipe of ours in it.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: name a PNG or a film that steer has written, or a recipe as JSON.")
    kind = files.sniff(path)
    if kind in ("a GIF image", "an MP4 film"):
        return parse(films.read_recipe(path), what=str(path))
    text = path.read_text(encoding="utf-8-sig") if kind == "text" else render.read_recipe(path)
    return parse(text, what=str(path))
