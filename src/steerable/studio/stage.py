"""The picture: large, with its start beside it, the wipe between the two, the box that is held, and the way that led here."""

from __future__ import annotations

import functools
from dataclasses import replace

from nicegui import ui
from nicegui.events import MouseEventArguments

from steerable.studio import live, pictures, session
from steerable.studio.scheduling import MEASUREMENT
from steerable.studio.visit import Visit

MOST = 16  # boxes
PATIENCE = 0.7  # seconds after which a picture that is not there yet is said to be worked on
HAND = ["pointerdown", "pointermove", "pointerup", "pointerleave"]
SYNTHETIC = "Synthetic image: made by a generator; it shows nobody."


class Stage:
    """The image and what is done to it with a hand."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.corner: tuple[float, float] | None = None
        self.troubled = visit.state
        self._extra = visit.latest(patience=MEASUREMENT)
        with ui.element("section").classes("pane column stage").props('aria-label="Picture"'):
            with ui.row().classes("w-full no-wrap items-start gap-2 showing"):
                with ui.element("div").classes("big").props('tabindex=0 role="group" aria-label="picture"') as self.frame:
                    self.image = ui.interactive_image(content="", on_mouse=self._mouse, events=[], sanitize=False).classes("w-full")
                    self.image.props('alt="the steered picture" role="img"')
                    self.busy = ui.label("working …").classes("busy").props('role="status"')
                    self.busy.set_visibility(False)
                    self.wipe = ui.element("img").classes("wipe").props('alt=""').style("clip-path: inset(0 100% 0 0); width:100%")
                with ui.column().classes("beside"):
                    ui.label("start").classes("soft")
                    self.start = ui.element("img").props('alt="the picture before steering"')
                    ui.label(SYNTHETIC).classes("soft")
            with ui.row().classes("w-full items-center no-wrap gap-1"):
                self.undo = ui.button(icon="undo", on_click=lambda: visit.go(visit.history.undo())).props('flat dense aria-label="undo"')
                self.redo = ui.button(icon="redo", on_click=lambda: visit.go(visit.history.redo())).props('flat dense aria-label="redo"')
                ui.label("compare").classes("soft q-ml-sm")
                self.compare = ui.slider(min=0, max=100, step=1, value=0, on_change=self._wiped).props(
                    'aria-label="compare with the start"'
                )
                self.compare.classes("flex-grow compare")
            self.trouble = ui.label("").classes("trouble").props('role="alert"')
            ui.html("<h2>Way here</h2>", sanitize=False)
            self.film = ui.element("div").classes("film").props('aria-label="last way-points"')
            ui.html("<h2>History</h2>", sanitize=False)
            self.steps = ui.element("div").classes("steps").props('aria-label="history"')
        self.urls: dict[int, str] = {}
        visit.steered_by(self.frame)
        visit.on("draw", self._drawing)
        visit.on("frame", self._framed)
        visit.on("history", self._history)
        visit.on("seed", self._begin)
        visit.on("state", self._boxed)
        visit.on("trouble", self._troubled)
        ui.timer(0.4, self._waiting)
        self._begin()

    def _waiting(self) -> None:
        """Say so where a picture takes longer than a moment: a trajectory that is walked, a large generator."""
        late = self.visit.late > PATIENCE
        if late != self.busy.visible:
            self.busy.set_visibility(late)

    def _framed(self) -> None:
        frame = self.visit.frame
        assert frame is not None
        live.show(self.image, frame.url)
        if self.trouble.text and frame.state != self.troubled:
            self.trouble.set_text("")
        if frame.state == self.visit.history.state and self.urls.get(self.visit.history.at) != frame.url:
            self.urls = {place: url for place, url in self.urls.items() if place < self.visit.history.at}
            self.urls[self.visit.history.at] = frame.url
            self._history()

    def _troubled(self, words: str) -> None:
        self.troubled = self.visit.state  # a later state that is shown takes the words away
        self.trouble.set_text(words)

    def _begin(self) -> None:
        still = session.State(self.visit.state.seed, self.visit.state.psi, self.visit.state.label)
        self._extra.ask(functools.partial(_still_url, still, self.visit.bench), self._begun)

    def _begun(self, url: str) -> None:
        self.start.props(f'src="{url}"')
        self.wipe.props(f'src="{url}"')

    def _wiped(self) -> None:
        self.wipe.style(f"clip-path: inset(0 {100 - (self.compare.value or 0):.0f}% 0 0)")

    def _history(self) -> None:
        history = self.visit.history
        self.undo.set_enabled(history.at > 0)
        self.redo.set_enabled(history.at < len(history.steps) - 1)
        self.steps.clear()
        with self.steps:
            for place in range(max(0, len(history.steps) - 24), len(history.steps)):
                what = history.steps[place][0]
                with ui.element("button").classes("pick" + (" on" if place == history.at else "")) as pick:
                    pick.props(f'type="button" title="{_quoted(what)}" aria-label="step {place}: {_quoted(what)}"')
                    if place in self.urls:
                        ui.element("img").props(f'src="{self.urls[place]}" alt=""').style("width:100%;border-radius:6px")
                    ui.html(f"<span>{_quoted(what)}</span>", sanitize=False)
                pick.on("click", lambda _, place=place: self.visit.go(self.visit.history.go(place)))
        self.film.clear()
        with self.film:
            for state, url in self.visit.film[-6:]:
                with ui.element("button").classes("pick").props('type="button" aria-label="way-point"') as pick:
                    ui.element("img").props(f'src="{url}" alt=""')
                pick.on("click", lambda _, state=state: self.visit.keep("way-point", state))

    # -------------------------------------------------------------- the held box

    def _drawing(self) -> None:
        self.corner = None
        self.frame.classes(**{"add" if self.visit.drawing else "remove": "drawing"})
        self.image.props["events"] = HAND if self.visit.drawing else []

    def _mouse(self, event: MouseEventArguments) -> None:
        if not self.visit.drawing:
            return
        x, y = event.image_x, event.image_y
        if event.type == "pointerdown":
            self.corner = (x, y)
        elif self.corner is not None:
            box, boxes = self.box_of(self.corner, (x, y)), self.visit.state.boxes
            if event.type == "pointermove":
                self.image.set_content(pictures.box_svg((*boxes, box) if box else boxes))
                return
            self.corner = None
            if box is not None and len(boxes) < MOST:
                self.visit.keep(f"hold box {len(boxes) + 1}", replace(self.visit.state, boxes=(*boxes, box)))
            self._boxed()

    def box_of(self, one: tuple[float, float], two: tuple[float, float]) -> tuple[int, int, int, int] | None:
        """The box between two corners in pixels of the image; None where it would be smaller than three pixels."""
        _, height, width = self.visit.bench.generator.image_shape
        left, right = (min(max(round(x), 0), width) for x in sorted((one[0], two[0])))
        top, bottom = (min(max(round(y), 0), height) for y in sorted((one[1], two[1])))
        whole = (bottom - top) * (right - left) == width * height
        return None if right - left < 3 or bottom - top < 3 or whole else (top, left, bottom, right)

    def _boxed(self) -> None:
        svg = pictures.box_svg(self.visit.state.boxes)
        if self.image.content != svg and self.corner is None:
            self.image.set_content(svg)


def _still_url(state: session.State, bench: session.Bench) -> str:
    return pictures.data_url(session.pixels(session.start(state, bench), bench)[0])


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "'").replace("<", "&lt;")
