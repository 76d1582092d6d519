"""What a recipe looks like: a picture, a sheet, a labelled strip or a film that carries it.

``draw`` is a pure function from a recipe and its generator to a picture, ``write_film`` one to a film: the same bytes on the same machine.
``recipe`` has what a recipe is and where it leads; ``render`` and ``films`` put pictures beside each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steerable import films, progress, render, zoo
from steerable import recipe as recipes
from steerable.edits import EDITS, measured_edit
from steerable.features.network import select
from steerable.protocols import Generator, Images, Knob, Latents
from steerable.recipe import Film, Recipe, Sweep

if TYPE_CHECKING:
    import PIL.Image

WALKS = ("walk", "curved walk", "joined", "chained")  # methods whose knobs are measured by reading their edit back
RMS = "rms change of the pixels"
WIDE = 6  # seeds side by side in a film, before a second row begins


def draw(recipe: Recipe, generator: Generator, steered: Sequence[Latents] | None = None) -> PIL.Image.Image:
    """The picture of a recipe: one image, a sheet of several seeds, or a strip with a row for each seed and a column for each amount.

    A strip's columns are labelled with what was asked, and every picture with the change that was measured on it. That of a film has
    a column for each keyframe; ``write_film`` makes it move.

    Args:
        steered: what ``steer`` gives for this recipe, where that is known already.
    """
    made = recipes.as_made(recipe, generator)
    steered = recipes.steer(recipe, generator) if steered is None else steered
    with torch.no_grad():
        columns: list[Images] = [made(latents) for latents in steered]
    boxes = recipes.boxes_of(recipe.drive)
    if recipe.sweep is not None:
        return _strip(recipe, recipe.sweep, generator, columns, boxes)
    if recipe.film is not None:
        return _keyframes(recipe, recipe.film, columns, boxes)
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


def _keyframes(recipe: Recipe, film: Film, columns: Sequence[Images], boxes: Sequence[render.Box]) -> PIL.Image.Image:
    rows, labels = _by_seed(recipe, columns)
    words = [", ".join(f"{name} {render.amount(value)}" for name, value in one.items()) for one in film.filled()]
    return render.strip(rows, row_labels=labels, column_labels=words, title="keyframes", scale=max(recipe.scale, 2), boxes=boxes)


def _by_seed(recipe: Recipe, columns: Sequence[Images]) -> tuple[list[Tensor], list[str]]:
    """Columns of images as rows, a seed each, and what these are called."""
    return [torch.stack([column[i] for column in columns]) for i in range(len(recipe.seeds))], [f"seed {seed}" for seed in recipe.seeds]


def _strip(recipe: Recipe, sweep: Sweep, generator: Generator, columns: Sequence[Images], boxes: Sequence[render.Box]) -> PIL.Image.Image:
    if recipe.turn is None or sweep.knob == recipes.REST:
        raise ValueError(f'a strip shows a knob of the control that its recipe carries, and "{sweep.knob}" is none: a film shows it.')
    control = recipes.unpack(recipe.turn, generator)
    rows, labels = _by_seed(recipe, columns)
    (knob,) = [one for one in control.knobs if one.name == sweep.knob]
    judge, change = reading(knob, str(control.fit.get("method", "")), max(abs(amount) for amount in sweep.amounts))
    neutral = [column for column, amount in zip(columns, sweep.amounts, strict=True) if amount == knob.neutral]
    if neutral:
        before = neutral[0]
    else:
        with torch.no_grad():
            before = recipes.as_made(recipe, generator)(recipes.steered_at(recipe, generator, [{}])[0][0])
    plain = "" if judge != RMS else "+"  # a size has no sign
    measured = [
        ["–" if value != value else render.amount(value).removeprefix(plain) for value in change(before, column).tolist()]
        for column in columns
    ]
    return render.strip(
        rows,
        row_labels=labels,
        column_labels=[render.amount(amount) for amount in sweep.amounts],
        captions=[list(row) for row in zip(*measured, strict=True)],
        title=f"change of {knob.name}" + (f" ({knob.unit})" if knob.unit else ""),
        note=f"above: asked; below: measured, {judge}{_beyond(knob, sweep.amounts)}",
        scale=max(recipe.scale, 2),
        boxes=boxes,
    )


def _beyond(knob: Knob, amounts: Sequence[float]) -> str:
    """What has to be said of a strip that leaves the range in which the knob does what it is asked."""
    room = 1e-6 * max(1.0, abs(knob.high - knob.low))
    if all(knob.low - room <= amount <= knob.high + room for amount in amounts):
        return ""
    usable = f"{render.amount(knob.low)} to {render.amount(knob.high)}" if knob.low < knob.high else "none"
    return f"; usable range: {usable}, beyond it the generator no longer follows"


def reading(knob: Knob, method: str, furthest: float) -> tuple[str, Callable[[Images, Images], Tensor]]:
    """What measures how far a knob moved images, in words, and ``(before, after) -> (n,)`` in the knob's unit.

    The edit of its name for walks, a shipped feature with a column of its name for others, the edit again where there is no such column;
    for any other the root-mean-square change of the pixels, on [-1, 1].

    Args:
        furthest: the largest amount that is asked. A walk is read back up to twice as far; NaN where the nearest amount lies at that end,
            because then none of them explains the picture.
    """
    owners = [] if knob.name in EDITS and method in WALKS else [one for one in zoo.load_features() if knob.name in one.columns]
    if owners:
        (feature,) = select(owners, [knob.name])

        def change(before: Images, after: Images) -> Tensor:
            with torch.no_grad():
                return (feature(after) - feature(before))[:, 0]

        return f"by {owners[0].name}", change
    if knob.name in EDITS:
        edit, end = EDITS[knob.name], 2 * furthest or 1.0

        def read_back(before: Images, after: Images) -> Tensor:
            found = measured_edit(edit, before, after, low=-end, high=end)
            return torch.where(found.abs() > 0.98 * end, torch.nan, found)

        return "the edit read back from the pictures", read_back
    return RMS, lambda before, after: (after - before).square().mean((1, 2, 3)).sqrt()


def write_film(recipe: Recipe, generator: Generator, path: str | os.PathLike[str]) -> Path:
    """Draw the film of a recipe, its seeds side by side under the amounts of the moment, as MP4 or GIF; it carries the recipe.

    Raises:
        ValueError: a recipe without a film, a name that ends in neither ``.mp4`` nor ``.gif``.
    """
    films.kind_of(path)
    if recipe.film is None:
        raise ValueError("this recipe has no film in it: give it keyframes, or draw its picture.")
    moments = recipe.film.frames()
    steered, _ = recipes.steered_at(recipe, generator, moments)
    text = recipe.model_dump_json(exclude_defaults=True)
    return films.write(path, _pictures(recipe, generator, moments, steered), recipe.film.pace, recipe=text)


def _pictures(
    recipe: Recipe, generator: Generator, moments: Sequence[Mapping[str, float]], steered: Sequence[Latents]
) -> Iterator[PIL.Image.Image]:
    made = recipes.as_made(recipe, generator)
    control = None if recipe.turn is None else recipes.unpack(recipe.turn, made)
    units = {knob.name: knob.unit for knob in (control.knobs if control else ())}
    if recipe.drive is not None:
        knob = recipes.trajectory(made, recipe.drive).knobs[0]
        units[recipes.REST] = "rms outside the box" if recipe.drive.box is not None else f"{knob.unit} of {knob.name}"
    widest = {name: max(abs(one[name]) for one in moments) for name in moments[0]}
    scale = max(recipe.scale, min(4, 256 // made.image_shape[1]), 1)
    captions = [f"seed {seed}" for seed in recipe.seeds]
    boxes = recipes.boxes_of(recipe.drive)
    for moment, latents in zip(progress.track(moments, "film"), steered, strict=True):
        with torch.no_grad():
            sheet = render.grid(made(latents), columns=min(len(latents), WIDE), captions=captions, scale=scale, boxes=boxes)
        lines = [f"{name} {render.amount(value, widest[name])} {units[name]}" for name, value in moment.items()]
        yield render.headed(sheet, lines)


def write(recipe: Recipe, generator: Generator, path: str | os.PathLike[str], steered: Sequence[Latents] | None = None) -> Path:
    """Draw a recipe into a PNG that carries it; ``steered`` as in ``draw``."""
    return render.write_png(path, draw(recipe, generator, steered), recipe=recipe.model_dump_json(exclude_defaults=True))
