"""The picture: large, with its start beside it, the wipe between the two, the box that is held, and the way that led here."""

from __future__ import annotations

import functools
from dataclasses import replace

from nicegui import ui
from nicegui.events import MouseEventArguments

from steerable.studio import live, pictures, session
from steerable.studio.live import Board, pick
from steerable.studio.visit import Visit

MOST = 16  # boxes
WAY, SHOWN = 6, 24  # way-points, and steps of the history
PATIENCE = 0.7  # seconds after which a picture that is not there yet is said to be worked on
HAND = ["pointerdown", "pointermove", "pointerup", "pointerleave"]
WIPED = "(share) => { getHtmlElement(%d).style.clipPath = `inset(0 ${100 - share}%% 0 0)`; }"
SYNTHETIC = "Synthetic image: made by a generator; it shows nobody."


class Stage:
    """The image and what is done to it with a hand."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.corner: tuple[float, float] | None = None
        self.troubled = visit.state
        self._extra = visit.latest(patience="measurement")
        with ui.element("section").classes("pane column stage").props('aria-label="Picture"'):
            with ui.row().classes("w-full no-wrap items-start gap-2 showing"):
                with ui.element("div").classes("big").props('tabindex=0 role="group" aria-label="picture"') as self.frame:
                    self.image = ui.interactive_image(content="", on_mouse=self._mouse, events=[], sanitize=False).classes("w-full")
                    self.image.props('alt="the steered picture" role="img"')
                    self.busy = Board().classes("busy").props('role="status"')
                    self.wipe = ui.element("img").classes("wipe").props('alt=""').style("clip-path: inset(0 100% 0 0); width:100%")
                with ui.column().classes("beside"):
                    ui.label("start").classes("soft")
                    self.start = ui.element("img").props('alt="the picture before steering"')
                    ui.label(SYNTHETIC).classes("soft")
            with ui.row().classes("w-full items-center no-wrap gap-1"):
                self.undo = ui.button(icon="undo", on_click=lambda: visit.go(visit.history.undo())).props('flat dense aria-label="undo"')
                self.redo = ui.button(icon="redo", on_click=lambda: visit.go(visit.history.redo())).props('flat dense aria-label="redo"')
                ui.label("compare").classes("soft q-ml-sm")
                self.compare = ui.slider(min=0, max=100, step=1, value=0).props('aria-label="compare with the start"')
                self.compare.classes("flex-grow compare").on("update:model-value", js_handler=WIPED % self.wipe.id)
            self.trouble = ui.label("").classes("trouble").props('role="alert"')
            ui.html("<h2>Way here</h2>", sanitize=False)
            self.film = Board(hears={"pick": self._way_point}).classes("film").props('role="group" aria-label="last way-points"')
            ui.html("<h2>History</h2>", sanitize=False)
            self.steps = Board(hears={"pick": lambda place, _: visit.go(visit.history.go(place))}).classes("steps")
            self.steps.props('role="group" aria-label="history"')
        self.pictures: dict[int, tuple[session.State, str]] = {}  # small ones, of the steps
        visit.steered_by(self.frame)
        visit.on("draw", self._drawing)
        visit.on("frame", self._framed)
        visit.on("history", self._history)
        visit.on("seed", self._begin)
        visit.on("state", self._boxed)
        visit.on("state", lambda: live.expect(self.image.client))
        visit.on("trouble", self._troubled)
        ui.timer(0.4, self._waiting)
        self._begin()

    def _waiting(self) -> None:
        """Say so where a picture takes longer than a moment: a trajectory that is walked, a large generator."""
        self.busy.put("", textContent="working …" if self.visit.late > PATIENCE else "")

    def _framed(self) -> None:
        frame = self.visit.frame
        assert frame is not None
        live.show(self.image, frame.url)
        if self.trouble.text and frame.state != self.troubled:
            self.trouble.set_text("")
        history = self.visit.history
        if frame.state == history.state and self.pictures.get(history.at, (None, ""))[0] is not history.state:
            self.pictures = {place: one for place, one in self.pictures.items() if place < history.at}
            self.pictures[history.at] = history.state, frame.thumbnail
            self._history()

    def _troubled(self, words: str) -> None:
        self.troubled = self.visit.state  # a later state that is shown takes the words away
        self.trouble.set_text(words)

    def _begin(self) -> None:
        still = session.State(self.visit.state.seed, self.visit.state.psi, self.visit.state.label)
        self._extra.ask(functools.partial(_still_url, still, self.visit.bench), self._begun)

    def _begun(self, url: str) -> None:
        for element in (self.start, self.wipe):
            element.props(f'src="{url}"')

    def _history(self) -> None:
        history = self.visit.history
        self.undo.set_enabled(history.at > 0)
        self.redo.set_enabled(history.at < len(history.steps) - 1)
        shown = range(max(0, len(history.steps) - SHOWN), len(history.steps))
        words = [history.steps[place][0] for place in shown]
        self.steps.write(
            "".join(
                pick(place, f"step {place}: {what}", self.pictures.get(place, (None, ""))[1], words=what, on=place == history.at)
                for place, what in zip(shown, words, strict=True)
            )
        )
        self.steps.put("", scrollLeft=1_000_000)  # the newest is in sight
        self.film.write("".join(pick(i, "way-point", url) for i, (_, url) in enumerate(self.visit.film[-WAY:])))

    def _way_point(self, place: int, _: object) -> None:
        way = self.visit.film[-WAY:]
        if place < len(way):
            self.visit.keep("way-point", way[place][0])

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
