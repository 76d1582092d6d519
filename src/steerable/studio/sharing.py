"""Recipes and files: a link, a command line, Python and JSON of what is shown; images, strips, videos and batches to keep.

And what is dropped here.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import torch
from nicegui import events, ui

from steerable import drawing, films, recipe, render, sampling, store
from steerable.controls.directions import Directions
from steerable.recipe import Recipe
from steerable.studio import limits, links, pictures, session
from steerable.studio.session import Bench, State
from steerable.studio.visit import Visit
from steerable.studio.workshop import bench_of

STRIP = 7  # columns
FPS, KEYFRAMES, FRAMES = 24, 24, 1500  # of a film


class Sharing:
    """The panel of recipes and files; ``origin`` is the address of the studio, for links."""

    def __init__(self, visit: Visit, origin: str) -> None:
        self.visit, self.origin = visit, origin
        self._work = visit.latest()
        with ui.column().classes("w-full gap-2 no-wrap"):
            ui.html("<h2>The recipe of what is shown</h2>", sanitize=False)
            with ui.row().classes("gap-1"):
                for words, make in (("Link", self._link), ("Command line", self._command), ("Python", self._python), ("JSON", self._json)):
                    ui.button(words, on_click=functools.partial(self._copy, words, make)).props("outline dense no-caps size=md").classes(
                        "q-px-sm"
                    )
            self.text = ui.label("").classes("code").props('role="status" aria-label="recipe"')
            self.text.set_visibility(False)
            ui.html("<h2>Save</h2>", sanitize=False)
            with ui.row().classes("gap-1"):
                ui.button("Image", icon="image", on_click=self._save_image).props("unelevated dense no-caps").classes("q-px-sm")
                ui.button("Strip", on_click=self._save_strip).props("outline dense no-caps").classes("q-px-sm")
                ui.button("Controls", on_click=self._save_controls).props("outline dense no-caps").classes("q-px-sm")
            ui.html("<h2>Film the way here</h2>", sanitize=False)
            with ui.row().classes("gap-1"):
                ui.button("MP4", icon="movie", on_click=lambda: self._save_film("mp4")).props("unelevated dense no-caps").classes("q-px-sm")
                ui.button("GIF", on_click=lambda: self._save_film("gif")).props("outline dense no-caps").classes("q-px-sm")
            with ui.row().classes("items-center gap-2 w-full no-wrap"):
                self.seconds = (
                    ui.number("seconds", value=1.0, min=0.1, max=10, step=0.1)
                    .props("dense outlined")
                    .classes("flex-1")
                    .tooltip("from one step of the history to the next")
                )
                self.easing = (
                    ui.select(list(films.EASINGS), value="ease", label="easing").props("dense outlined options-dense").classes("flex-1")
                )
                self.loop = (
                    ui.select(list(films.LOOPS), value="boomerang", label="loop").props("dense outlined options-dense").classes("flex-1")
                )
            ui.html("<h2>Apply to many</h2>", sanitize=False)
            with ui.row().classes("items-center gap-2 no-wrap w-full"):
                self.first = ui.number("from seed", value=0, min=0, precision=0).props("dense outlined").classes("w-24")
                self.count = ui.number("how many", value=16, min=1, max=limits.SEEDS, precision=0).props("dense outlined").classes("w-24")
                ui.button("Batch", icon="grid_view", on_click=self._batch).props("unelevated dense no-caps").classes("q-px-sm")
            ui.label("A contact sheet with the recipe inside, and a CSV of every measured value before and after.").classes("soft")
            self.said = ui.label("").classes("soft").props('role="status"')
            ui.html("<h2>Open</h2>", sanitize=False)
            self.upload = (
                ui.upload(
                    label="Drop a PNG that carries a recipe, or a control or generator as safetensors",
                    on_upload=self._dropped,
                    on_rejected=lambda: visit.complain(f"a file has at most {limits.UPLOAD // 2**20} MB."),
                    max_file_size=limits.UPLOAD,
                    auto_upload=True,
                )
                .props('flat bordered accept=".png,.safetensors,.json"')
                .classes("w-full")
            )

    # -------------------------------------------------------------- as text

    def _copy(self, words: str, make) -> None:  # type: ignore[no-untyped-def]
        try:
            text = make()
        except ValueError as error:
            return self.visit.complain(error)
        self.text.set_visibility(True)
        self.text.set_text(text)
        ui.clipboard.write(text)
        ui.notify(f"{words} copied", position="bottom", timeout=1200)

    def _recipe(self) -> Recipe:
        return session.recipe_of(self.visit.state, self.visit.bench)

    def _link(self) -> str:
        return f"{self.origin}/?state={self.visit.link()}"

    def _command(self) -> str:
        return links.as_command(self._recipe(), self.visit.bench, self.visit.state)

    def _python(self) -> str:
        return links.as_python(self._recipe())

    def _json(self) -> str:
        return json.dumps(json.loads(self._recipe().model_dump_json(exclude_defaults=True)), indent=1)

    # -------------------------------------------------------------- as files

    def _save_image(self) -> None:
        self._keep(functools.partial(image_file, self.visit.state, self.visit.bench), f"seed-{self.visit.state.seed}.png")

    def _save_strip(self) -> None:
        state, bench = self.visit.state, self.visit.bench
        if not state.amounts:
            return self.visit.complain("a strip sweeps the knob that was turned last: turn one first.")
        self._keep(functools.partial(strip_file, state, bench), f"strip-{list(state.amounts)[-1]}.png".replace(" ", "-"))

    def _save_film(self, kind: str) -> None:
        try:
            pace = films.Pace(seconds=float(self.seconds.value or 0), fps=FPS, easing=self.easing.value, loop=self.loop.value)
        except ValueError as error:
            return self.visit.complain(error)
        here = self.visit.state
        steps = [state for _, state in self.visit.history.steps[: self.visit.history.at + 1]]
        states = [state for state in steps if (state.seed, state.label) == (here.seed, here.label)]
        self.said.set_text(f"drawing the {kind} …")
        self._keep(functools.partial(film_file, states, self.visit.bench, kind, pace), f"way.{kind}")

    def _save_controls(self) -> None:
        state, straight = self.visit.state, self.visit.bench.straight
        used = list(dict.fromkeys([*state.amounts, *self.visit.bench.freeable(state.locks)]))
        if straight is None or not set(used) <= {knob.name for knob in straight.knobs}:
            return self.visit.complain("curved controls are saved by the command that fitted them.")
        self._keep(lambda: store.control_bytes(straight[used] if used else straight), "controls.safetensors")

    def _batch(self) -> None:
        first, count = self.first.value, self.count.value
        if first is None or count is None or not 1 <= count <= limits.SEEDS or not 0 <= first < 2**53:
            return self.visit.complain(f"a batch has 1 to {limits.SEEDS} seeds from 0 on, got {count} from {first}.")
        seeds = list(range(int(first), int(first) + int(count)))
        self.said.set_text(f"applying to {len(seeds)} seeds …")
        self._keep(functools.partial(batch_file, self.visit.state, self.visit.bench, seeds), "batch.zip")

    def _keep(self, make, name: str) -> None:  # type: ignore[no-untyped-def]
        with self.upload.client:
            self._work.ask(make, lambda content: self._kept(content, name))

    def _kept(self, content: bytes, name: str) -> None:
        with self.upload.client:
            ui.download(content, name)
        self.said.set_text(f"saved {name}, {len(content) / 1000:.0f} kB")

    # -------------------------------------------------------------- what is dropped

    async def _dropped(self, event: events.UploadEventArguments) -> None:
        content = await event.file.read()
        self.upload.reset()
        self._work.ask(functools.partial(opened, content, self.visit.bench), self._opened)

    def _opened(self, found: tuple[str, State | None, Bench]) -> None:
        what, state, bench = found
        with self.upload.client:
            self.visit.put_on(bench, state, what)
        self.said.set_text(what)


def image_file(state: State, bench: Bench) -> bytes:
    """The PNG of a state, byte for byte that of ``steer apply --recipe``."""
    one = session.recipe_of(state, bench)
    return render.png(drawing.draw(one, bench.generator), recipe=one.model_dump_json(exclude_defaults=True))


def strip_file(state: State, bench: Bench) -> bytes:
    """The knob that was turned last, swept over its range, the others as they are. Carries the recipe of the picture that is shown."""
    name = list(state.amounts)[-1]
    knob = bench.knobs[name]
    amounts = [knob.low + (knob.high - knob.low) * i / (STRIP - 1) for i in range(STRIP)]
    points = [session.latents(state.turned(name, amount, neutral=None), bench) for amount in amounts]
    with torch.inference_mode():
        columns = [bench.generator(point)[0] for point in points]
    picture = render.strip(
        [torch.stack(columns)],
        row_labels=[f"seed {state.seed}"],
        column_labels=[f"{amount:+.3g}" if amount else "0" for amount in amounts],
        title=f"change of {name} ({knob.unit})" if knob.unit else f"change of {name}",
        scale=max(1, 128 // bench.generator.image_shape[1]),
    )
    return render.png(picture, recipe=session.recipe_of(state, bench).model_dump_json(exclude_defaults=True))


def film_file(states: list[State], bench: Bench, kind: str, pace: films.Pace) -> bytes:
    """The way through some states as a GIF or an MP4, in latent space; it carries the recipe of the last one.

    Raises:
        ValueError: states that all look the same.
    """
    from PIL import Image

    points = [session.latents(state, bench) for state in states[-KEYFRAMES:]]
    points = [point for i, point in enumerate(points) if i == 0 or not torch.equal(point.values, points[i - 1].values)]
    if len(points) < 2:
        raise ValueError("a film shows the way that was taken: turn or drive something first.")
    frames = points[0].at(films.course(torch.cat([point.values for point in points]), pace))
    if frames.labels is not None:
        frames = replace(frames, labels=frames.labels.expand(len(frames.values), *frames.labels.shape[1:]))
    if len(frames) > FRAMES:
        raise ValueError(f"a film has at most {FRAMES} pictures here, this one would have {len(frames)}: fewer seconds a step.")
    side = max(1, 256 // bench.generator.image_shape[1])
    shown = (
        Image.fromarray(image).resize((image.shape[1] * side, image.shape[0] * side), Image.Resampling.BICUBIC)
        for batch in sampling.in_batches(frames, 8)
        for image in session.pixels(batch, bench)
    )
    last = session.recipe_of(states[-1], bench)
    return films.content(shown, kind, pace, recipe=last.model_dump_json(exclude_defaults=True))


def batch_file(state: State, bench: Bench, seeds: list[int]) -> bytes:
    """A zip of the contact sheet and the measured values of every seed as CSV; the sheet carries the recipe.

    A trajectory is walked anew for each seed; where one is turned, the sheet carries the recipe of the picture that is shown.
    """
    if any(bench.is_road(name) for name in state.amounts):
        one, everybody = session.recipe_of(state, bench), [replace(state, seed=seed) for seed in seeds]
        points = [session.latents(each, bench) for each in everybody]
        before = [session.measure(session.start(each, bench), bench) for each in everybody]
        after = [session.measure(point, bench) for point in points]
        with torch.inference_mode():
            images = torch.cat([bench.generator(point) for point in points])
        picture = render.grid(images, captions=[f"seed {seed}" for seed in seeds], scale=2)
    else:
        one = session.recipe_of(state, bench, seeds)
        picture, seen = drawing.draw(one, bench.generator), session.look(one, bench, measured=True)
        before, after = seen.before, seen.after
    sheet = render.png(picture, recipe=one.model_dump_json(exclude_defaults=True))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("sheet.png", sheet), ("measured.csv", pictures.csv_text(seeds, before, after).encode())):
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.writestr(zipfile.ZipInfo("units.json"), json.dumps(bench.columns, indent=1))
    return buffer.getvalue()


def opened(content: bytes, bench: Bench) -> tuple[str, State | None, Bench]:
    """What was dropped: a picture's or a JSON's recipe, a control, or a generator. Decided by content; nothing is unpickled.

    Raises:
        ValueError: anything else, or something damaged; one line.
    """
    with tempfile.TemporaryDirectory(prefix="studio-") as folder:
        path = Path(folder) / "what-was-dropped"  # a name of ours: the client's is never used
        path.write_bytes(content)
        try:
            return _opened(path, content, bench)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), "what was dropped")) from None


def _opened(path: Path, content: bytes, bench: Bench) -> tuple[str, State | None, Bench]:
    from steerable import files

    kind = files.sniff(path)
    if kind in ("a PNG image", "text"):
        if len(content) > limits.BODY:
            raise ValueError(f"a picture or a recipe has at most {limits.BODY // 2**20} MB, this one has {len(content) / 2**20:.1f}.")
        one = limits.bounded(recipe.read(path), bench) if kind == "text" else limits.bounded(_of_picture(path), bench)
        state, bench = session.state_of(one.model_copy(update={"film": None}), bench)
        return f"recipe of seed {state.seed}", state, bench
    if kind != "a safetensors file":
        raise ValueError(f"what was dropped is {kind}; expected a PNG with a recipe, or a control or generator as safetensors.")
    described = store.described(path)
    if described.get("kind") in store.CONTROLS:
        control = store.load_control(path, generator=bench.generator)
        group = f"dropped {'directions' if isinstance(control, Directions) else 'walks'}"
        bench, names = session.adopted(bench, control, group)
        return f"{len(names)} knobs opened", None, bench
    generator = store.load_generator_file(path)
    return f"generator {generator.name}", State(), bench_of(generator, generator.name)


def _of_picture(path: Path) -> Recipe:
    """The recipe in a picture that is no larger than the studio draws."""
    with path.open("rb") as file:  # its own words, before anything is unpacked
        width, height = struct.unpack(">II", file.read(24)[16:].ljust(8, b"\0"))
    if width * height > limits.PIXELS:
        raise ValueError(f"a picture has at most {limits.PIXELS} pixels, this one is {width} × {height}.")
    return recipe.read(path)
