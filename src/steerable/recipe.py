"""One serialised edit: the same in Python, on the command line and inside a PNG.

A recipe names the generator by fingerprint and carries the directions that it turns, so that a picture brings everything that made it
but the generator's weights. ``draw`` is a pure function from a recipe and its generator to a picture: the same bytes on the same machine.
Seeds are steered one at a time, because sums over a batch may round differently from those over one row.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from steerable import checks, files, progress, render, store, zoo
from steerable.controls.controller import AlongAxis
from steerable.controls.directions import Directions, amounts
from steerable.controls.trajectory import Trajectory
from steerable.features.network import select
from steerable.features.pixels import Box, RegionPixels
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Generator, Images, Latents
from steerable.sampling import latents_of

if TYPE_CHECKING:
    import PIL.Image

Finite = Annotated[float, Field(allow_inf_nan=False)]
Pixel = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Turn(BaseModel):
    """Knobs of one control, turned by amounts, with others held, or set to values."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    control: str = Field(description="the knobs that are used, as a control file in base64")
    amounts: dict[str, Finite] = {}
    values: dict[str, Finite] = {}
    hold: tuple[str, ...] = ()


class Drive(BaseModel):
    """A trajectory: hold the pixels of a box and move the rest by a root-mean-square amount (in [-1, 1] units)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    box: tuple[Pixel, Pixel, Pixel, Pixel] = Field(description="top, left, bottom, right")
    amount: Finite


class Sweep(BaseModel):
    """One knob at several amounts: the columns of a strip."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    knob: str
    amounts: tuple[Finite, ...] = Field(min_length=1, max_length=100)


class Recipe(BaseModel):
    """Generator, seeds and everything that was done to them, in the order turn, drive, offset, sweep."""

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
    scale: int = Field(1, ge=1, le=32)


def parse(text: str, *, what: str) -> Recipe:
    """A recipe from its JSON; ``what`` names the source in errors."""
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{what} holds no recipe of ours: {where}: {first['msg'].lower()}.") from None


def turn(
    control: Directions,
    *,
    amounts: Mapping[str, float] | None = None,
    values: Mapping[str, float] | None = None,
    hold: Sequence[str] = (),
    swept: Sequence[str] = (),
) -> Turn:
    """A turn that carries the knobs it uses (``swept`` ones too) and no others."""
    used: list[str] = list(dict.fromkeys([*(amounts or {}), *(values or {}), *hold, *swept]))
    small = control[used]
    small = replace(small, fit={"method": control.fit.get("method", "")})
    data = base64.b64encode(store.control_bytes(small)).decode()
    return Turn(control=data, amounts=dict(amounts or {}), values=dict(values or {}), hold=tuple(hold))


def steer(recipe: Recipe, generator: Generator) -> list[Latents]:
    """The steered latents of all seeds: one batch, or one for each amount of the sweep.

    Row i depends on seed i alone, to the last bit: the picture of one seed is the same from its own recipe and from that of many.

    Raises:
        ValueError: the generator is another one than the recipe's, or the recipe's control does not fit it.
    """
    if generator.fingerprint != recipe.fingerprint:
        raise ValueError(
            f"this recipe belongs to {recipe.generator} ({recipe.fingerprint[:4]}…), the generator is ({generator.fingerprint[:4]}…)."
        )
    generator = as_made(recipe, generator)
    control = None if recipe.turn is None else unpack(recipe.turn, generator)
    if recipe.sweep is not None and control is None:
        raise ValueError(f'this recipe sweeps "{recipe.sweep.knob}" but carries no control.')
    start = begin(recipe, generator, None if control is None else control.space.name)
    if recipe.turn is None and recipe.drive is None and recipe.offset is None:
        return [start]
    rows = [_one(recipe, generator, control, start[i : i + 1]) for i in progress.track(range(len(start)), "steering")]
    return [start.at(torch.cat([one.values for one in column])) for column in zip(*rows, strict=True)]


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


def _one(recipe: Recipe, generator: Generator, control: Directions | None, latents: Latents) -> list[Latents]:
    """One seed, steered: as many latents as the sweep has amounts."""
    if recipe.turn is not None and control is not None:
        latents = control.steer(latents, amounts(control, latents, recipe.turn.amounts))
        for name, value in recipe.turn.values.items():
            (feature,) = select(zoo.load_features(device=str(latents.values.device)), [name])
            latents = AlongAxis(generator, control[name], feature).steer(latents, latents.values.new_full((1, 1), value))
    if recipe.drive is not None:
        latents = trajectory(generator, recipe.drive.box).steer(latents, latents.values.new_full((1, 1), recipe.drive.amount))
    if recipe.offset is not None:
        latents = displaced(latents, recipe.offset)
    if recipe.sweep is None or control is None:
        return [latents]
    return [control.steer(latents, amounts(control, latents, {recipe.sweep.knob: amount})) for amount in recipe.sweep.amounts]


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


def unpack(one: Turn, generator: Generator) -> Directions:
    """The control that a turn carries, with its holds applied."""
    try:
        content = base64.b64decode(one.control, validate=True)
    except ValueError:
        raise ValueError("the control inside this recipe is not base64: the recipe was changed by hand or cut.") from None
    control = store.control_of(content, what="the control inside this recipe", generator=generator)
    if one.hold and not isinstance(control, Directions):
        raise ValueError(f"only straight knobs can hold others, {', '.join(knob.name for knob in control.knobs)} are not: leave hold out.")
    return control.held(one.hold) if one.hold else control


def trajectory(generator: Generator, box: tuple[int, int, int, int]) -> Trajectory:
    """Hold the pixels of a box, move all others."""
    region = Box(*box)
    return Trajectory(
        generator,
        move=RegionPixels(region, generator.image_shape, invert=True, name="outside"),
        hold=RegionPixels(region, generator.image_shape, name="inside"),
    )


def draw(recipe: Recipe, generator: Generator, steered: Sequence[Latents] | None = None) -> PIL.Image.Image:
    """The picture of a recipe: one image, a sheet of several seeds, or a strip with a column for each amount.

    Args:
        steered: what ``steer`` gives for this recipe, where that is known already.
    """
    generator = as_made(recipe, generator)
    with torch.no_grad():
        columns: list[Images] = [generator(latents) for latents in (steer(recipe, generator) if steered is None else steered)]
    boxes = [] if recipe.drive is None else [recipe.drive.box]
    if recipe.sweep is not None:
        rows = [torch.stack([column[i] for column in columns]) for i in range(len(recipe.seeds))]
        knob = unpack(recipe.turn, generator).knobs if recipe.turn else ()
        unit = next((k.unit for k in knob if k.name == recipe.sweep.knob), "")
        return render.strip(
            rows,
            row_labels=[f"seed {seed}" for seed in recipe.seeds],
            column_labels=[f"{amount:+.3g}" if amount else "0" for amount in recipe.sweep.amounts],
            title=f"change of {recipe.sweep.knob} ({unit})" if unit else f"change of {recipe.sweep.knob}",
            scale=max(recipe.scale, 2),
            boxes=boxes,
        )
    if len(recipe.seeds) == 1:
        picture = render.to_uint8(columns[0])[0]
        import PIL.Image

        image = PIL.Image.fromarray(picture)
        return (
            image
            if recipe.scale == 1
            else image.resize((image.width * recipe.scale, image.height * recipe.scale), PIL.Image.Resampling.NEAREST)
        )
    return render.grid(columns[0], captions=[f"seed {seed}" for seed in recipe.seeds], scale=max(recipe.scale, 2), boxes=boxes)


def of_seeds(recipe: Recipe, rows: slice) -> Recipe:
    """The same recipe for some of its seeds."""
    return recipe.model_copy(update={"seeds": recipe.seeds[rows]})


def write(recipe: Recipe, generator: Generator, path: str | os.PathLike[str], steered: Sequence[Latents] | None = None) -> Path:
    """Draw a recipe into a PNG that carries it; ``steered`` as in ``draw``."""
    return render.write_png(path, draw(recipe, generator, steered), recipe=recipe.model_dump_json(exclude_defaults=True))


def read(path: str | os.PathLike[str]) -> Recipe:
    """The recipe inside a PNG, or in a JSON file.

    Raises:
        ValueError: no such file, or there is no recipe of ours in it.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: name a PNG that steer has written, or a recipe as JSON.")
    text = path.read_text(encoding="utf-8-sig") if files.sniff(path) == "text" else render.read_recipe(path)
    return parse(text, what=str(path))
