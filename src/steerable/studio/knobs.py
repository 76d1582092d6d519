"""The sliders: a row for each knob, with its range, its number, its ends, where it stands, and its lock with the leak beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from nicegui import ui

from steerable.controls.directions import Directions
from steerable.controls.groups import Controllers
from steerable.protocols import Control, Knob
from steerable.studio import pictures, session
from steerable.studio.live import Range, grid
from steerable.studio.pictures import number
from steerable.studio.road import Road
from steerable.studio.visit import Visit

ROOM = 0.4  # of the usable range, on either side of it


def kind(control: Control) -> str:
    """What a group is, in words."""
    if isinstance(control, Directions):
        return "straight lines"
    if isinstance(control, Road):
        return "trajectory, walked when first turned"
    return "sets values" if isinstance(control, Controllers) else "curved"


def reach(knob: Knob) -> tuple[float, float]:
    """The ends of a slider: the usable range and some room beyond it."""
    if knob.neutral is None:
        return knob.low, knob.high
    low, high = min(knob.low, 0.0), max(knob.high, 0.0)
    room = ROOM * (high - low) or 1.0
    return low - room, high + room


class Rows:
    """All rows, by the groups of the bench."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self.rows = visit, dict[str, Row]()
        self._ends = visit.latest()
        with ui.element("section").classes("pane column").props('aria-label="Controls"'):
            with ui.row().classes("items-center justify-between w-full no-wrap"):
                ui.html("<h2>Controls</h2>", sanitize=False)
                self.search = ui.input(placeholder="search", on_change=self._filter).props("dense outlined clearable").classes("w-40")
                self.search.props('aria-label="search controls" debounce=150')
                ui.button("Reset all", on_click=self._reset).props("flat dense no-caps size=sm")
            ui.label("Shaded: usable range. Double-click resets. Numbers beyond the slider work and are marked.").classes("soft")
            self.place = ui.column().classes("scroll knobs no-wrap")
        visit.on("state", self._follow)
        visit.on("measured", self._read)
        visit.on("bench", self._build)
        visit.on("seed", self._thumbnails)
        self._build()

    def _build(self) -> None:
        self.rows.clear()
        self.place.clear()
        lockable = set(self.visit.bench.lockable)
        with self.place:
            for group, control in self.visit.bench.groups.items():
                header = ui.label(f"{group} · {len(control.knobs)}, {kind(control)}").classes("group")
                for knob in control.knobs:
                    self.rows[knob.name] = Row(self.visit, knob, knob.name in lockable, header)
            if not self.rows:
                ui.label("This generator has no controls yet: make one, at Make a control, or open a control file.").classes("soft")
        self._follow()
        self._thumbnails()

    def _filter(self) -> None:
        words = (self.search.value or "").lower().split()
        seen = set()
        for name, row in self.rows.items():
            there = all(word in f"{name} {row.knob.unit}".lower() for word in words)
            row.place.set_visibility(there)
            seen |= {row.header} if there else set()
        for row in self.rows.values():
            row.header.set_visibility(row.header in seen)

    def _follow(self) -> None:
        for row in self.rows.values():
            row.follow()

    def _read(self) -> None:
        leaks = {leak.name: leak for leak in self.visit.leaks}
        for name, row in self.rows.items():
            row.read(leaks.get(name))

    def _reset(self) -> None:
        self.visit.keep("reset", self.visit.state.still())

    def _thumbnails(self) -> None:
        """Both ends of every knob, of the person who is shown, unsteered."""
        bench, state = self.visit.bench, self.visit.state.still()
        if self.rows:
            self._ends.ask(functools.partial(_ends_of, bench, session.State(state.seed, state.psi, state.label)), self._ended)

    def _ended(self, urls: dict[str, tuple[str, str]]) -> None:
        for name, (low, high) in urls.items():
            if name in self.rows:
                self.rows[name].low.props(f'src="{low}"')
                self.rows[name].high.props(f'src="{high}"')


def _ends_of(bench: session.Bench, state: session.State) -> dict[str, tuple[str, str]]:
    import torch

    points, names = [], list(bench.knobs)
    names = [name for name in names if not bench.is_road(name)]  # whose ends take seconds each
    for name in names:
        knob = bench.knobs[name]
        points += [session.latents(state.turned(name, end, neutral=knob.neutral), bench) for end in (knob.low, knob.high)]
    if not points:
        return {}
    batch = points[0].at(torch.cat([point.values for point in points])) if points[0].labels is None else None
    images = [session.pixels(point, bench)[0] for point in points] if batch is None else session.pixels(batch, bench)
    urls = [pictures.thumbnail(image, side=48) for image in images]
    return {name: (urls[2 * i], urls[2 * i + 1]) for i, name in enumerate(names)}


class Row:
    """One knob."""

    def __init__(self, visit: Visit, knob: Knob, lockable: bool, header: ui.label) -> None:
        self.visit, self.knob, self.header = visit, knob, header
        low, high, step = grid(*reach(knob), session.rest(knob))
        self.ends, self.near = (low, high), step / 2
        share: Callable[[float], float] = lambda x: 100 * (x - low) / (high - low)  # noqa: E731
        with ui.element("div").classes("knob").props(f'data-knob="{knob.name}"') as self.place:
            with ui.element("div").classes("name"):
                ui.html(f"<b>{_plain(knob.name)}</b>", sanitize=False)
                ui.label(f"{knob.unit or 'units'}, {number(knob.low, 2)} to {number(knob.high, 2)}").classes("unit num")
                ui.label("beyond its range").classes("mark")
            self.reading = ui.label("").classes("reading num")
            self.low = ui.element("img").classes("end").props(f'alt="{_plain(knob.name)} low"')
            with ui.element("div").classes("rail"):
                ui.element("div").classes("range").style(f"left:{share(knob.low):.1f}%;width:{share(knob.high) - share(knob.low):.1f}%")
                ui.element("div").classes("zero").style(f"left:{share(session.rest(knob)):.1f}%")
                self.slider = Range(low, high, step=step, value=session.rest(knob), moved=self._moved, let_go=self._let_go)
                self.slider.props(f'aria-label="{_plain(knob.name)}"').on("dblclick", self._reset)
            self.high = ui.element("img").classes("end").props(f'alt="{_plain(knob.name)} high"')
            self.number = ui.number(value=session.rest(knob), step=float(f"{(high - low) / 50:.1g}"), format="%.4g").props("dense outlined")
            self.number.props(f'aria-label="{_plain(knob.name)} amount, {_plain(knob.unit)}"')
            self.number.on("keydown.enter", self._typed).on("blur", self._typed)
            self.lock: ui.button | None = None
            if lockable:
                self.lock = ui.button(icon="lock_open", on_click=self._lock).props("flat dense round size=sm")
                self.lock.props(f'aria-label="lock {_plain(knob.name)}" aria-pressed=false')
                with ui.element("div").classes("leak") as self.leak:
                    ui.label("leak").classes("soft")
                    with ui.element("div").classes("meter"):
                        self.bar = ui.element("div")
                    self.says = ui.label("").classes("says num")
                    self.tolerance = ui.number(
                        value=session.tolerance(visit.bench, knob.name), min=0, format="%.3g", on_change=self._tolerate
                    )
                    self.tolerance.props(f'dense outlined prefix="±" aria-label="tolerance of {_plain(knob.name)}"')
        self._amount, self._moving = 0.0, False
        self.neutral = session.rest(knob)

    # -------------------------------------------------------------- the hand

    def _moved(self, value: float) -> None:
        if value != self._clamped(self._amount):
            self._moving = True
            self.visit.turn(self.knob.name, self.neutral if abs(value - self.neutral) < self.near else value)

    def _let_go(self, _: float) -> None:
        self._moving = False
        self._numbered()
        self.visit.keep(f"{self.knob.name} {number(self._amount, 3)}")

    def _reset(self) -> None:
        if self.knob.name not in self.visit.state.locks:
            self.visit.keep(f"{self.knob.name} reset", self.visit.state.without(self.knob.name))

    def _typed(self) -> None:
        value = self.number.value
        if value is None or float(value) == float(f"{self._amount:.4g}") or self.knob.name in self.visit.state.locks:
            return
        if abs(float(value)) > 1e6:
            return self.visit.complain(f"{self.knob.name} takes amounts up to a million, got {value:g}.")
        self.visit.turn(self.knob.name, float(value))
        self.visit.keep(f"{self.knob.name} {number(float(value), 3)}")

    def _lock(self) -> None:
        on = self.knob.name not in self.visit.state.locks
        self.visit.keep(f"{'lock' if on else 'free'} {self.knob.name}", self.visit.state.locked(self.knob.name, on))

    def _tolerate(self) -> None:
        value = self.tolerance.value
        if value is not None and value >= 0:
            self.visit.tolerances[self.knob.name] = float(value)
            self.read(next((leak for leak in self.visit.leaks if leak.name == self.knob.name), None))

    # -------------------------------------------------------------- what is shown

    def _clamped(self, amount: float) -> float:
        return min(max(amount, self.ends[0]), self.ends[1])

    def _numbered(self) -> None:
        self.number.set_value(float(f"{self._amount:.4g}"))

    def follow(self) -> None:
        """The state's amount and lock."""
        amount = self.visit.state.amounts.get(self.knob.name, self.neutral)
        if amount != self._amount:
            self._amount = amount
            if self.slider.value != self._clamped(amount):
                self.slider.set_value(self._clamped(amount))
            if not self._moving:  # while a hand moves, the browser writes it
                self._numbered()
            self.place.classes(**{"add" if not self.knob.low <= amount <= self.knob.high else "remove": "beyond"})
        if self.lock is not None:
            locked = self.knob.name in self.visit.state.locks
            if locked == self.slider.enabled:
                self.slider.set_enabled(not locked)
                self.number.set_enabled(not locked)
                self.lock.props(f"icon={'lock' if locked else 'lock_open'} aria-pressed={'true' if locked else 'false'}")
                self.place.classes(**{"add" if locked else "remove": "locked"})

    def read(self, leak: session.Leak | None) -> None:
        """Where the attribute stands, and what a lock leaked."""
        measured = self.visit.measured
        if measured is None:
            return
        if self._moving:
            self._numbered()
        value, rank = measured.now.get(self.knob.name), self.visit.percentile(self.knob.name)
        words = [] if value is None else [f"now {number(value, 3)}"]
        words += [] if rank is None else [f"p{rank:.0f}"]
        self.reading.set_text(" · ".join(words))
        if leak is not None:
            share = min(abs(leak.drift) / leak.tolerance, 1.0) if leak.tolerance else float(leak.drift != 0)
            self.bar.style(f"width:{100 * share:.0f}%")
            told = "held" if leak.holds else "did not hold"
            self.says.set_text(f"{told}: {'+' if leak.drift > 0 else ''}{number(leak.drift, 2)} {leak.unit}")
            self.leak.classes(**{"remove" if leak.holds else "add": "bad"})


def _plain(text: str) -> str:
    """A name inside markup."""
    return "".join(c if c.isalnum() or c in " -_.+()%" else " " for c in text)
