"""One visitor: what is shown, what was done, and who has to be told. Nothing in here is shared with another visitor.

A panel calls ``show`` while a hand moves and ``keep`` when it lets go; ``keep`` makes one step of history. Frames and measurements are
worked out by ``session`` in the workers of ``scheduling``; panels that registered with ``on`` are told when they are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nicegui import ui

from steerable.features.network import select
from steerable.fitting.calibrate import coordinates
from steerable.studio import links, pictures, session
from steerable.studio.pictures import Frame
from steerable.studio.scheduling import Latest, Patience
from steerable.studio.session import Bench, History, Leak, State
from steerable.studio.workshop import Workshop

STRIP = 12  # way-points of the filmstrip
PUSHES = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
REST = 0.25  # seconds without an event after which a hand rests
LEAKS_EVERY = 0.5  # seconds between two measurements of what is locked, while a hand moves


@dataclass(frozen=True)
class Measured:
    """All features of a frame: of the face itself, of its start, and of what the locks are judged against."""

    now: Mapping[str, float]
    before: Mapping[str, float]
    reference: Mapping[str, float]
    along: Mapping[str, float]  # where the latent stands along straight knobs that no feature measures
    state: State


class Visit:
    """The state of one open page.

    Attributes:
        bench: the visitor's own: the shared one until something is made or uploaded.
        frame, measured: the newest that arrived; None before the first.
        drawing: whether the hand draws boxes on the picture.
    """

    def __init__(self, workshop: Workshop, bench: Bench, state: State | None = None) -> None:
        self.workshop, self.bench = workshop, bench
        self.state = state or State()
        self.history = History.begun(self.state)
        self.frame: Frame | None = None
        self.measured: Measured | None = None
        self.tolerances: dict[str, float] = {}
        self.film: list[tuple[State, str]] = []
        self.shown = 0
        self._asked = 0.0  # when the picture that is waited for was asked for; 0 where none is
        self.drawing = False
        self._listeners: dict[str, list[Callable[..., None]]] = defaultdict(list)
        self._frames = Latest(workshop.workers, self.complain)
        self._measures = Latest(workshop.workers, self.complain, patience="measurement")
        self.begun = False  # whether the page stands, so that there is time for more than the picture
        self._hand = self._driven = False  # that moves, and whether it drives
        self._moved = 0.0  # when it did last
        self._looked = 0.0  # when the leaks were last asked for
        self._rest: asyncio.TimerHandle | None = None
        self._known: dict[tuple[Any, ...], dict[str, float]] = {}

    # -------------------------------------------------------------- who is told

    def on(self, event: str, listener: Callable[..., None]) -> None:
        """Call at each new one of these: ``begun``, ``state``, ``frame``, ``measured``, ``leaks``, ``history``, ``seed``, ``bench``,
        ``draw``, ``ledger``, ``trouble``."""
        self._listeners[event].append(listener)

    def tell(self, event: str, *arguments: Any) -> None:
        for listener in self._listeners[event]:
            listener(*arguments)

    def complain(self, error: Exception | str) -> None:
        self._asked = 0.0
        self.tell("trouble", " ".join(str(error).split())[:300])

    def latest(self, *, patience: Patience = "seconds") -> Latest:
        """A queue of this visitor for questions of another kind: thumbnails, batches, fits; they hinder no picture."""
        one = Latest(self.workshop.workers, self.complain, patience=patience)
        self.on("closed", one.stop)
        return one

    def begin(self) -> None:
        """The page stands: measure, and make the small pictures."""
        if not self.begun:
            self.begun = True
            self.tell("begun")
            if self.frame is not None:
                self._measure(self.frame)

    def close(self) -> None:
        """The page has gone: forget everything."""
        if self._rest is not None:
            self._rest.cancel()
        self._frames.stop()
        self._measures.stop()
        self.tell("closed")
        self._listeners.clear()
        self._known.clear()
        self.film.clear()
        self.frame = self.measured = None
        self.history = History.begun(State())

    def steered_by(self, element: ui.element) -> None:
        """Arrow keys on an element push the drive, for as long as they are down."""
        for way, push in PUSHES.items():
            element.on(f"keydown.{way}.prevent", functools.partial(self.tell, "push", push))
            element.on(f"keyup.{way}", functools.partial(self.tell, "push", (0.0, 0.0)))

    def draw(self, on: bool) -> None:
        """Whether the hand draws boxes to hold."""
        self.drawing = on
        self.tell("draw")

    def link(self, *, whole: bool = False) -> str:
        """The state as an address carries it.

        Args:
            whole: with the straight knobs and trajectories that were made here, turned or not.

        Raises:
            ValueError: a generator that nobody else finds here, or too much for an address.
        """
        shared = next(
            (one for one in self.workshop.benches.values() if one.generator.fingerprint == self.bench.generator.fingerprint), None
        )
        if shared is None:
            raise ValueError("this generator was dropped here and is not on the server: save the image instead of a link.")
        return links.link_of(self.state, self.bench, shared, whole=whole)

    # -------------------------------------------------------------- what is shown

    def show(self, state: State) -> None:
        """Show a state, without making it a step."""
        fresh = (state.seed, state.psi, state.label) != (self.state.seed, self.state.psi, self.state.label)
        self.state = state
        self._asked = self._asked or time.monotonic()
        self.tell("state")
        if fresh:
            self.tell("seed")
        walked = any(self.bench.is_road(name) for name in state.amounts)  # which takes seconds the first time
        self._frames.ask(functools.partial(self._drawn, state, self.bench), self._framed, patience="seconds" if walked else None)

    def keep(self, what: str, state: State | None = None) -> None:
        """Show a state, by default the present one, and make it one step of history: the hand has let go."""
        self._hand = self._driven = False
        state = self.state if state is None else state
        after = self.history.then(what, state)
        if after is not self.history:
            self.history = after
            if self.frame is not None:
                self.film = [*self.film, (self.frame.state, self.frame.thumbnail)][-STRIP:]
        self.show(state)
        self.tell("history")

    def turn(self, name: str, amount: float) -> None:
        """One knob to an amount, while a hand moves."""
        if name in self.state.locks:
            return
        self._hand, self._moved = True, time.monotonic()
        self.show(self.state.turned(name, amount, neutral=self.bench.knobs[name].neutral))

    def go(self, history: History) -> None:
        """To another step of the history."""
        self._hand = self._driven = False
        self.history = history
        self.show(history.state)
        self.tell("history")

    def put_on(self, bench: Bench, state: State | None = None, what: str = "open") -> None:
        """Another bench: one more control, or another generator."""
        other = bench.generator.fingerprint != self.bench.generator.fingerprint
        self.bench = bench
        self._known.clear()
        if other:
            self.state = state or State()
            self.history, self.film, self.frame, self.measured = History.begun(self.state), [], None, None
        self.tell("bench")
        if other:
            self.tell("seed")
        self.keep(what, state if state is not None else self.state)

    @staticmethod
    def _drawn(state: State, bench: Bench) -> Frame:
        point = session.latents(state, bench)
        return replace(pictures.frame(state, point, session.pixels(point, bench)[0]), ledger=session.ledger(state, bench))

    def arrive(self, frame: Frame) -> None:
        """Show a frame that was made elsewhere: a step of a drive."""
        self.state, self._hand, self._driven, self._moved = frame.state, True, True, time.monotonic()
        self.tell("state")
        self._framed(frame)

    async def drawn(self, seconds: float) -> None:
        """When the picture that was asked for is there, or so many seconds have gone."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._frames.settled(), seconds)

    @property
    def late(self) -> float:
        """Seconds that a picture has been waited for."""
        return time.monotonic() - self._asked if self._asked else 0.0

    def _framed(self, frame: Frame) -> None:
        self.frame, self._asked = frame, 0.0
        self.shown += 1
        self.tell("frame")
        if frame.ledger is not None:
            self.tell("ledger", *frame.ledger)
        if self._rest is not None:
            self._rest.cancel()
        if not self._hand:
            return self._measure(frame)
        # a hand that moves has all processors for its pictures: only its locks are looked at now and then, the rest when it rests
        self._rest = asyncio.get_running_loop().call_later(REST, self._rested, frame)
        if frame.state.locks and not self._driven and time.monotonic() > self._looked + LEAKS_EVERY:
            self._looked = time.monotonic()
            self._measures.ask(functools.partial(self._leaked, frame, self.bench), functools.partial(self.tell, "leaks"))

    def _rested(self, frame: Frame) -> None:
        """Measure, unless the hand went on meanwhile and only its picture has not come yet."""
        if (left := self._moved + REST - time.monotonic()) > 0:
            self._rest = asyncio.get_running_loop().call_later(left, self._rested, frame)
        else:
            self._measure(frame)

    def _measure(self, frame: Frame) -> None:
        if self.begun and frame is self.frame:
            self._measures.ask(functools.partial(self._judged, frame, self.bench), self._heard)

    def _leaked(self, frame: Frame, bench: Bench) -> dict[str, Leak]:
        """What the locks of a frame leak, and nothing else: only the features that they are columns of are measured."""
        state = replace(frame.state.held_part(), boxes=(), region="", locks=())
        features = select(bench.features, [name for name in frame.state.locks if name in bench.columns])
        now, reference = session.measure(frame.point, replace(bench, features=tuple(features))), self._values(state, bench)
        return {leak.name: leak for leak in session.leaks(frame.state, bench, now, reference, self.tolerances)}

    def _judged(self, frame: Frame, bench: Bench) -> Measured:
        now = session.measure(frame.point, bench)
        before = self._values(replace(frame.state.still(), locks=(), boxes=(), region=""), bench)
        held = replace(frame.state.held_part(), locks=(), boxes=(), region="")
        reference = self._values(held, bench) if frame.state.locks else {}
        for lock in frame.state.locks:
            session.tolerance(bench, lock)  # looks at images the first time
        straight, along = bench.straight, {}
        if straight is not None:
            for knob, vector in zip(straight.knobs, straight.vectors, strict=True):
                if knob.name not in now:
                    along[knob.name] = float(coordinates(frame.point, vector)[0])
        return Measured(now, before, reference, along, frame.state)

    def _values(self, state: State, bench: Bench) -> dict[str, float]:
        key = (id(bench), state.seed, state.psi, state.label, tuple(sorted(state.amounts.items())))
        if key not in self._known:
            if len(self._known) > 32:
                self._known.clear()
            self._known[key] = session.measure(session.latents(state, bench), bench)
        return self._known[key]

    def _heard(self, measured: Measured) -> None:
        self.measured = measured
        self.tell("measured")
        self.tell("leaks", {leak.name: leak for leak in self.leaks})

    # -------------------------------------------------------------- what follows

    @property
    def leaks(self) -> list[Leak]:
        """Of every lock, in the newest measurement."""
        one = self.measured
        return [] if one is None else session.leaks(one.state, self.bench, one.now, one.reference, self.tolerances)

    def percentile(self, name: str) -> float | None:
        """Where the knob's attribute stands now among unsteered images."""
        knob, one = self.bench.knobs[name], self.measured
        if one is None or not knob.percentiles:
            return None
        value = one.now.get(name, one.along.get(name))
        return None if value is None else knob.percentile_of(value)
