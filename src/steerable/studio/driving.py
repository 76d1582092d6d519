"""The panel that drives: hold boxes, the person, the background or locked features, and move the rest with a stick, arrow keys or buttons.

While a hand pushes, one step follows the other; each shows its picture and its line of the ledger. Letting go makes one step of history.
What a step is stands in ``trip``.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from nicegui import ui
from nicegui.events import JoystickEventArguments

from steerable.controls.driving import Row
from steerable.studio import pictures, session
from steerable.studio.live import Board, plain
from steerable.studio.pictures import Frame
from steerable.studio.trip import EVERYTHING, PAIRS, Trip
from steerable.studio.visit import PUSHES, Visit

LONGEST = 2000  # steps of one push, should a browser never say that the hand is gone
STILL = 0.15  # of the stick's way is no push


class Driving:
    """The panel.

    Attributes:
        trip: the drive that goes on; None before the first push, and after anything else was done.
    """

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.trip: Trip | None = None
        self.stick, self.pushed, self.before = (0.0, 0.0), 0, visit.state
        self._steps = visit.latest(patience="picture")
        self._steps.failed = self._failed
        with ui.column().classes("w-full gap-2 no-wrap"):
            ui.html("<h2>Hold</h2>", sanitize=False)
            with ui.row().classes("items-center gap-2 w-full"):
                self.draw = ui.button("Draw boxes", icon="highlight_alt", on_click=self._draw).props(
                    "outline dense no-caps aria-pressed=false"
                )
                self.clear = ui.button("Clear", on_click=self._clear).props('flat dense no-caps aria-label="clear all boxes"')
                self.region = ui.toggle({"": "no region", "person": "person", "background": "background"}, value=visit.state.region)
                self.region.props('dense no-caps unelevated aria-label="region to hold"').set_visibility(False)
                self.region.on_value_change(self._chosen)
            self.held = ui.label("").classes("soft")
            with ui.row().classes("items-end gap-2 w-full no-wrap"):
                self.move = (
                    ui.select([EVERYTHING], value=EVERYTHING, label="move").props("dense outlined options-dense").classes("flex-grow")
                )
                self.pair = ui.select({pair: f"{pair[0]} and {pair[1]}" for pair in PAIRS}, value=PAIRS[0], label="free directions")
                self.pair.props("dense outlined options-dense").classes("w-32")
            with (
                ui.element("div")
                .classes("wheel")
                .props('tabindex=0 role="group" aria-label="drive: arrow keys, buttons or stick"') as self.wheel
            ):
                with ui.element("div").classes("pad"):
                    for way, icon in (("up", "north"), ("left", "west"), ("right", "east"), ("down", "south")):
                        button = ui.button(icon=icon).props(f'outline dense aria-label="drive {way}, hold to go on"').classes(f"to-{way}")
                        button.on("pointerdown", functools.partial(self._push, PUSHES[way]))
                        for event in ("pointerup", "pointerleave", "pointercancel"):
                            button.on(event, self._let_go)
                self.joystick = ui.joystick(
                    color="#64748b",
                    size=64,
                    mode="static",
                    position={"left": "50%", "top": "50%"},
                    throttle=0.05,
                    on_move=self._moved,
                    on_end=self._let_go,
                ).classes("stick")
                with ui.element("div").classes("speed"):
                    ui.label("speed").classes("soft")
                    self.speed = ui.slider(min=0.01, max=0.15, step=0.01, value=0.05).props(
                        'aria-label="speed: change at each step, in deviations" label'
                    )
            ui.label("Hold a button, push the stick, or use the arrow keys here or on the picture.").classes("soft")
            self.plot = Board(pictures.ledger_svg([], 0.06)).classes("w-full ledger")
            self.says = Board().classes("w-full told").props('role="status" aria-live=polite')
            visit.steered_by(self.wheel)
        visit.on("push", self._push)
        visit.on("state", self._follow)
        visit.on("bench", self._offer)
        self._offer()
        self._follow()

    # -------------------------------------------------------------- what is held and what moves

    def _draw(self) -> None:
        on = not self.visit.drawing
        self.visit.draw(on)
        self.draw.props(f"aria-pressed={'true' if on else 'false'}").props(**{"remove" if on else "add": "outline"})

    def _clear(self) -> None:
        self.visit.keep("hold no box", replace(self.visit.state, boxes=()))

    def _chosen(self) -> None:
        region = self.region.value or ""
        if region != self.visit.state.region:
            self.visit.keep(f"hold the {region}" if region else "hold no region", replace(self.visit.state, region=region))

    def _offer(self) -> None:
        bench = self.visit.bench
        self.region.set_visibility(bench.generator.image_shape[0] == 3)
        names = [feature.name for feature in bench.features if feature.differentiable and len(feature.columns) > 1]
        columns = [name for feature in bench.features if feature.differentiable for name in feature.columns]
        self.move.set_options([EVERYTHING, *dict.fromkeys([*names, *columns])], value=EVERYTHING)

    def _follow(self) -> None:
        state = self.visit.state
        if self.region.value != state.region:
            self.region.set_value(state.region)
        places = [f"{len(state.boxes)} box{'es' if len(state.boxes) > 1 else ''}"] if state.boxes else []
        places += [f"the {state.region}"] if state.region else []
        held = [*places, *state.locks]
        self.held.set_text(f"Held: {', '.join(held)}." if held else "Nothing is held yet: draw a box, choose a region, or lock a feature.")
        self.clear.set_visibility(bool(state.boxes))

    # -------------------------------------------------------------- the hand

    def _moved(self, event: JoystickEventArguments) -> None:
        x, y = float(event.x or 0.0), float(event.y or 0.0)
        self._push((x, y) if x * x + y * y > STILL**2 else (0.0, 0.0))

    def _push(self, stick: tuple[float, float], _: object = None) -> None:
        going = any(self.stick)
        self.stick = stick
        if not going and any(stick):
            self.pushed = 0
            self.before = self.visit.history.state
            if self.trip is None or not self.trip.goes_on(self.visit.state, self.visit.bench, self.move.value):
                self._say([("looking around: measuring what is free here …", False)])
            self._next()

    def _let_go(self, _: object = None) -> None:
        if any(self.stick):
            self.stick = (0.0, 0.0)

    def _next(self) -> None:
        work = functools.partial(_stepped, self.trip, self.visit.state, self.visit.bench, self.move.value, self.stick, self.pair.value)
        self._steps.ask(functools.partial(work, float(self.speed.value or 0.0)), self._stepped)

    def _stepped(self, found: tuple[Trip, Frame]) -> None:
        trip, frame = found
        if self.visit.history.state is not self.before or self.visit.bench is not trip.bench:
            return self._ended()  # something else was done meanwhile: this step is not wanted
        self.trip = trip
        self.pushed += 1
        self.visit.arrive(frame)
        self.plot.write(pictures.ledger_svg(trip.curve, trip.drive.tolerance))
        self.visit.tell("ledger", trip.curve, trip.drive.tolerance)
        self._say(trip.words())
        row: Row = trip.rows[-1]
        if any(self.stick) and self.pushed < LONGEST and not row.stuck:
            return self._next()
        self._ended()
        if frame.state != self.before:
            self.visit.keep(f"drive {self.pushed} steps", frame.state)

    def _ended(self) -> None:
        self.stick = (0.0, 0.0)

    def _failed(self, error: Exception) -> None:
        self._ended()
        self.trip = None
        self._say([(" ".join(str(error).split()), True)])

    def _say(self, lines: list[tuple[str, bool]]) -> None:
        self.says.write("".join(f"<div{' class=bad' if trouble else ''}>{plain(words)}</div>" for words, trouble in lines))


def _stepped(
    trip: Trip | None,
    state: session.State,
    bench: session.Bench,
    move: str,
    stick: tuple[float, float],
    pair: tuple[int, int],
    amount: float,
) -> tuple[Trip, Frame]:
    if trip is None or not trip.goes_on(state, bench, move):
        trip = Trip(state, bench, move)
    return trip, trip.step(stick, pair, amount)
