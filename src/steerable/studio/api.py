"""The studio's operations as JSON over HTTP: a recipe comes in, a PNG or measured values go out.

``recipe.Recipe`` is the schema, the one that PNGs carry and ``steer apply --recipe`` reads. FastAPI describes it at ``/openapi.json``.
A recipe that cannot be followed is answered with 422 and one line that says why; nothing that is sent can make the server fail or read
a file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import anyio
from fastapi import APIRouter, HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, Field

import steerable
from steerable import drawing, render
from steerable.protocols import home
from steerable.recipe import Recipe
from steerable.studio import limits, session
from steerable.studio.scheduling import run
from steerable.studio.workshop import Workshop

T = TypeVar("T")
AT_ONCE = 8  # requests that are worked on; the others wait their turn


class Refusal(BaseModel):
    """Why a request was not followed."""

    detail: str


class Health(BaseModel):
    """That the studio is there, and what it has."""

    status: str
    version: str
    generators: list[str]


class KnobEntry(BaseModel):
    """One knob: its unit, its usable range, and the population's percentiles as [percentile, value] pairs."""

    name: str
    group: str
    unit: str
    low: float
    high: float
    neutral: float | None
    lockable: bool
    percentiles: list[tuple[float, float]]


class GeneratorEntry(BaseModel):
    """A generator, its knobs and the columns that are measured."""

    name: str
    fingerprint: str
    image_shape: tuple[int, int, int]
    classes: int | None
    space: str = Field(description="where latents are steered")
    latent_shape: list[int] = Field(description="of one latent there, and of a recipe's offset")
    forward_seconds: float = Field(description="of one forward pass, measured when the studio started")
    knobs: list[KnobEntry]
    columns: dict[str, str] = Field(description="measured column and its unit")


class SeedValues(BaseModel):
    """What was measured on one seed, before and after it was steered."""

    seed: int
    before: dict[str, float]
    after: dict[str, float]


class Measurements(BaseModel):
    """A row for each seed, and the unit of each column."""

    units: dict[str, str]
    rows: list[SeedValues]


REFUSED = {422: {"model": Refusal, "description": "the recipe cannot be followed; says why"}}


def routes(workshop: Workshop) -> APIRouter:
    """The four requests."""
    router = APIRouter(prefix="/api")
    turns = anyio.Semaphore(AT_ONCE)

    async def worked(work: Callable[[], T]) -> T:
        async with turns:
            try:
                return await run(workshop.workers, work, patience="seconds")
            except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, RuntimeError, MemoryError, OSError) as error:
                words = " ".join(str(error).split())[:500] or type(error).__name__
                raise HTTPException(422, words) from None

    @router.get("/health", summary="Whether the studio is there")
    async def health() -> Health:
        return Health(status="ok", version=steerable.__version__, generators=list(workshop.benches))

    @router.get("/controls", summary="Generators, their knobs, and what is measured")
    async def controls() -> list[GeneratorEntry]:
        return [described(name, workshop) for name in workshop.benches]

    @router.post(
        "/render",
        summary="Draw a recipe: a PNG that carries it",
        response_class=Response,
        responses={200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}, **REFUSED},
    )
    async def render_recipe(one: Recipe) -> Response:
        return Response(await worked(functools.partial(picture, one, workshop)), media_type="image/png")

    @router.post("/measure", summary="Measure a recipe's seeds before and after", responses={**REFUSED})
    async def measure_recipe(one: Recipe) -> Measurements:
        return await worked(functools.partial(measured, one, workshop))

    return router


def picture(one: Recipe, workshop: Workshop) -> bytes:
    """The PNG of a recipe, with the recipe inside."""
    bench = workshop.of(one.fingerprint)
    image = drawing.draw(limits.bounded(one, bench), bench.generator)
    return render.png(image, recipe=one.model_dump_json(exclude_defaults=True))


def measured(one: Recipe, workshop: Workshop) -> Measurements:
    """Every column of every seed, before and after."""
    bench = workshop.of(one.fingerprint)
    if one.sweep is not None or one.film is not None:
        raise ValueError("a sweep and a film are drawn, not measured: leave them out.")
    seen = session.look(limits.bounded(one, bench), bench, measured=True)
    rows = [SeedValues(seed=s, before=b, after=a) for s, b, a in zip(one.seeds, seen.before, seen.after, strict=True)]
    return Measurements(units=bench.columns, rows=rows)


def described(name: str, workshop: Workshop) -> GeneratorEntry:
    bench = workshop.benches[name]
    lockable, space = set(bench.lockable), bench.space or home(bench.generator)
    return GeneratorEntry(
        name=name,
        fingerprint=bench.generator.fingerprint,
        image_shape=bench.generator.image_shape,
        classes=bench.generator.classes,
        space=space,
        latent_shape=list(bench.generator.spaces[space].shape),
        forward_seconds=workshop.seconds.get(name, 0.0),
        columns=bench.columns,
        knobs=[
            KnobEntry(
                name=knob.name,
                group=group,
                unit=knob.unit,
                low=knob.low,
                high=knob.high,
                neutral=knob.neutral,
                lockable=knob.name in lockable,
                percentiles=list(knob.percentiles),
            )
            for group, control in bench.groups.items()
            for knob in control.knobs
        ],
    )
