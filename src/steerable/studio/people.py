"""Who is steered: the seed, truncation and class, and a population to pick from."""

from __future__ import annotations

import functools
import secrets
from dataclasses import replace

from nicegui import ui

from steerable.studio import pictures, session
from steerable.studio.live import Board, pick
from steerable.studio.visit import Visit

CROWD = 24
HIGHEST = 2**32 - 1  # of the seeds that the buttons draw from


class People:
    """Seed box, neighbours, truncation, class and 24 seeds to pick from."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self.first, self.on = visit, 0, visit.state.seed
        self._crowd = visit.latest()
        self.urls: dict[int, str] = {}
        with ui.element("section").classes("pane column").props('aria-label="Person"'):
            with ui.row().classes("items-center w-full gap-1"):
                self.seed = (
                    ui.number("seed", value=visit.state.seed, min=0, max=HIGHEST, precision=0).props("dense outlined").classes("w-32")
                )
                self.seed.on("keydown.enter", self._typed).on("blur", self._typed)
                ui.button(icon="chevron_left", on_click=lambda: self._to(visit.state.seed - 1)).props(
                    'flat dense aria-label="previous seed"'
                )
                ui.button(icon="chevron_right", on_click=lambda: self._to(visit.state.seed + 1)).props('flat dense aria-label="next seed"')
                ui.button(icon="casino", on_click=lambda: self._to(secrets.randbelow(HIGHEST))).props('flat dense aria-label="random seed"')
                self.psi = (
                    ui.number("truncation", value=1.0, min=0, max=2, step=0.05, format="%.2f").props("dense outlined").classes("w-24")
                )
                self.psi.on("keydown.enter", self._typed).on("blur", self._typed)
                self.label = ui.number("class", value=None, min=0, precision=0).props("dense outlined clearable").classes("w-24")
                self.label.on("keydown.enter", self._typed).on("blur", self._typed)
            with ui.row().classes("items-center w-full no-wrap justify-between"):
                self.told = ui.label("").classes("soft num")
                with ui.row().classes("gap-0 no-wrap"):
                    ui.button(icon="arrow_back", on_click=lambda: self._page(-1)).props('flat dense size=sm aria-label="earlier seeds"')
                    ui.button(icon="arrow_forward", on_click=lambda: self._page(1)).props('flat dense size=sm aria-label="later seeds"')
            self.board = Board(
                "".join(pick(seed, f"seed {seed}", "") for seed in range(CROWD)), hears={"pick": lambda seed, _: self._to(seed)}
            )
            self.board.classes("crowd")
        visit.on("state", self._follow)
        visit.on("bench", self._fill)
        visit.on("begun", self._fill)
        self._fill()
        self._follow()

    def _typed(self) -> None:
        state, bench = self.visit.state, self.visit.bench
        seed, psi, label = self.seed.value, self.psi.value, self.label.value
        if seed is None or not 0 <= seed <= HIGHEST or psi is None or not 0 <= psi <= 2:
            self._follow()
            return self.visit.complain(f"a seed is 0 to {HIGHEST} and truncation 0 to 2, got {seed} and {psi}.")
        classes = bench.generator.classes
        if label is not None and classes and not 0 <= label < classes:
            return self.visit.complain(f"classes are 0 to {classes - 1}, got {label:g}.")
        fresh = replace(state, seed=int(seed), psi=float(psi), label=None if label is None or not classes else int(label))
        if fresh != state:
            self.visit.keep(f"seed {fresh.seed}" if fresh.seed != state.seed else "truncation or class", fresh)

    def _to(self, seed: int) -> None:
        seed = min(max(seed, 0), HIGHEST)
        self.visit.keep(f"seed {seed}", replace(self.visit.state, seed=seed))

    def _page(self, way: int) -> None:
        self.first = max(self.first + way * CROWD, 0)
        self._fill()

    def _fill(self) -> None:
        state, seeds = self.visit.state, range(self.first, self.first + CROWD)
        self.told.set_text(f"seeds {seeds[0]} to {seeds[-1]}, unsteered")
        self.label.set_visibility(bool(self.visit.bench.generator.classes))
        if self.visit.begun:
            self._crowd.ask(functools.partial(crowd, self.visit.bench, list(seeds), state.psi, state.label), self._filled)

    def _filled(self, urls: dict[int, str]) -> None:
        self.urls, self.on = urls, self.visit.state.seed
        self.board.write("".join(pick(seed, f"seed {seed}", url, on=seed == self.on) for seed, url in urls.items()))

    def _follow(self) -> None:
        state = self.visit.state
        for element, value in ((self.seed, state.seed), (self.psi, state.psi), (self.label, state.label)):
            if element.value != value:
                element.set_value(value)
        if state.seed != self.on:
            for seed in {self.on, state.seed} & set(self.urls):
                on = seed == state.seed
                self.board.put(f'[data-row="{seed}"]', className="pick on" if on else "pick", ariaCurrent="true" if on else None)
            self.on = state.seed


def crowd(bench: session.Bench, seeds: list[int], psi: float, label: int | None) -> dict[int, str]:
    """Thumbnails of seeds, eight at a time so that others get their turn."""
    from steerable.sampling import in_batches, latents_of

    points = latents_of(bench.generator, seeds, space=bench.space, psi=psi, labels=label)
    images = [image for batch in in_batches(points, 8) for image in session.pixels(batch, bench)]
    return {seed: pictures.thumbnail(image) for seed, image in zip(seeds, images, strict=True)}
