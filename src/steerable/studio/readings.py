"""What is measured: every feature now and at the start, and a value set by number with what came of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from nicegui import ui

from steerable import checks
from steerable.controls.controller import AlongAxis
from steerable.controls.directions import Directions
from steerable.controls.solve import Solve
from steerable.evaluation.summary import JUDGES
from steerable.features.network import select
from steerable.studio import pictures, session
from steerable.studio.pictures import number
from steerable.studio.session import Bench, Leak, State
from steerable.studio.visit import Visit


@dataclass(frozen=True)
class Answer:
    """What came of setting a value: in words, and the state that came closest."""

    state: State
    name: str
    unit: str
    requested: float
    reached: float
    low: float
    high: float
    found: bool
    judge: str = ""
    second: float | None = None

    @property
    def words(self) -> str:
        second = f"; second judge {self.judge} says {number(self.second)}" if self.second is not None else ""
        reach = f"reachable for this person {number(self.low)} to {number(self.high)} {self.unit}"
        got = f"{self.name}: asked {number(self.requested)} {self.unit}, measured {number(self.reached)}{second}; {reach}."
        return got if self.found else f"Not reached. {got}"


def parse(text: str, names: list[str]) -> tuple[str, float]:
    """``yaw 20`` or ``yaw = 20 deg`` -> the name and the value.

    Raises:
        ValueError: no known name, or no finite number behind it.
    """
    words = text.replace("=", " ").replace("−", "-").split()
    for cut in range(len(words) - 1, 0, -1):
        if (name := " ".join(words[:cut])) in names:
            try:
                value = float(words[cut])
            except ValueError:
                value = float("nan")
            if not abs(value) < 1e6:
                raise ValueError(f'a value is a finite number of {name}\'s unit, got "{" ".join(words[cut:])[:40]}".')
            return name, value
    checks.known(words[0] if words else "", names, "attribute")
    raise ValueError(f'type a name and a value, for example {words[0]} 1.5; got "{text[:40]}".')


def solved(state: State, bench: Bench, name: str, value: float) -> Answer:
    """The state in which a column measures a value, the locks held.

    Its knob is turned where it has a straight one, the locks are those that straight knobs can be freed of, and that gets there; so the
    slider shows what was done. Everything else is ``Solve``'s: columns without a knob, locks without one, values off the line.
    """
    straight = bench.straight
    lines = straight is not None and name in [knob.name for knob in straight.knobs]
    if lines and bench.freeable(state.locks) == state.locks:
        answer = _along(state, bench, name, value)
        if answer.found:
            return answer
    point = session.latents(state, bench)
    solution = _solver(bench, name, state.locks).solve(point, point.values.new_full((1, 1), value))
    there = replace(
        state, offset=session.offset_of(solution.latents.values[0] - session.latents(replace(state, offset=""), bench).values[0])
    )
    judge, second = _second(session.measure(solution.latents, bench), bench, name)
    return Answer(
        state=there,
        name=name,
        unit=bench.columns[name],
        requested=value,
        reached=float(solution.reached[0, 0]),
        low=float(solution.reachable[0, 0, 0]),
        high=float(solution.reachable[0, 0, 1]),
        found=bool(solution.found[0, 0]),
        judge=judge,
        second=second,
    )


def _second(after: Mapping[str, float], bench: Bench, name: str) -> tuple[str, float | None]:
    """The column's second judge, and what it reads, where it is measured in the same unit."""
    judge = JUDGES.get(name, "")
    return judge, after.get(judge) if bench.columns.get(judge) == bench.columns[name] else None


@lru_cache(maxsize=16)
def _solver(bench: Bench, name: str, locks: tuple[str, ...]) -> Solve:
    """Looks at the population once; the bench's axes save most of that."""
    straight = bench.straight
    held = select(bench.features, [lock for lock in locks if lock in bench.columns])
    return Solve(bench.generator, {name: 0.0}, held, features=bench.features, axes=straight, space=bench.space)


def _along(state: State, bench: Bench, name: str, value: float) -> Answer:
    """The straight knob of the column turned as far as that takes."""
    point = session.latents(state, bench)
    control = bench.control((name,), state.locks)
    assert isinstance(control, Directions)
    (feature,) = select(bench.features, [name])
    outcome = AlongAxis(bench.generator, control[name], feature).solve(point, torch.full((1, 1), value))
    there = state.turned(name, state.amounts.get(name, 0.0) + float(outcome.moved[0]))
    after = session.measure(session.latents(there, bench), bench)
    judge, second = _second(after, bench, name)
    low, high = outcome.reachable[0].tolist()
    return Answer(there, name, bench.columns[name], value, after[name], low, high, bool(outcome.found[0]), judge, second)


class Readings:
    """The line that sets a value, the table of all columns with their locks, and the ledger of the path."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self._solve = visit.latest()
        self.lines: dict[str, Line] = {}
        with ui.column().classes("w-full gap-2 no-wrap"):
            with ui.row().classes("w-full items-center no-wrap gap-2"):
                self.asked = ui.input("Set a value", placeholder="yaw 20").props("dense outlined").classes("flex-grow")
                self.asked.on("keydown.enter", self._set)
                ui.button("Set", on_click=self._set).props("unelevated no-caps")
            self.answer = ui.label("").classes("answer").props('role="status"')
            self.answer.set_visibility(False)
            self.ledger = ui.html("", sanitize=False).classes("w-full ledger")
            self.ledger.set_visibility(False)
            with ui.element("div").classes("values head"):
                for words in ("", "feature", "start", "now", "change", "asked"):
                    ui.label(words)
            self.place = ui.element("div").classes("scroll values-all").props('role="table" aria-label="measured features"')
        visit.on("measured", self._read)
        visit.on("state", self._follow)
        visit.on("bench", self._build)
        visit.on("ledger", self._plot)
        self._build()

    def _build(self) -> None:
        self.place.clear()
        self.lines.clear()
        with self.place:
            for name, unit in self.visit.bench.columns.items():
                self.lines[name] = Line(self.visit, name, unit)
        self.ledger.set_visibility(False)
        self._follow()

    def _follow(self) -> None:
        for line in self.lines.values():
            line.follow()

    def _read(self) -> None:
        leaks = {leak.name: leak for leak in self.visit.leaks}
        for name, line in self.lines.items():
            line.read(leaks.get(name))

    def _plot(self, curve: list[tuple[float, float]], tolerance: float) -> None:
        self.ledger.set_content(pictures.ledger_svg(curve, tolerance))
        self.ledger.set_visibility(True)

    def _set(self) -> None:
        state, bench = self.visit.state, self.visit.bench
        try:
            name, value = parse(self.asked.value or "", [name for name in bench.columns if name not in state.locks])
        except ValueError as error:
            return self._say(str(error), bad=True)
        self._say(f"looking for {name} {number(value)} …", bad=False)
        self._solve.ask(functools.partial(solved, state, bench, name, value), self._answered)

    def _answered(self, answer: Answer) -> None:
        self.visit.keep(f"{answer.name} = {number(answer.requested)}", answer.state)
        self._say(answer.words, bad=not answer.found)

    def _say(self, words: str, *, bad: bool) -> None:
        self.answer.set_visibility(True)
        self.answer.set_text(words)
        self.answer.classes(**{"add" if bad else "remove": "bad"})


class Line:
    """One column: its lock, its value at the start and now, the change, and what its knob asks for."""

    def __init__(self, visit: Visit, name: str, unit: str) -> None:
        self.visit, self.name, self.unit = visit, name, unit
        judge = f"second judge of {JUDGES_OF[name]}" if name in JUDGES_OF else ""
        with ui.element("div").classes("values").props(f'role="row" data-column="{name}" title="{judge}"') as self.place:
            self.lock = ui.button(icon="lock_open", on_click=self._lock).props("flat dense round size=xs aria-pressed=false")
            self.lock.props(f'aria-label="hold {name}"')
            ui.html(f"{name} <small>{unit}</small>", sanitize=False).classes("what")
            self.numbers = ui.html("", sanitize=False).classes("numbers")
        self.locked, self.asked, self.told = False, "", ("", "", "")

    def _lock(self) -> None:
        on = self.name not in self.visit.state.locks
        self.visit.keep(f"{'lock' if on else 'free'} {self.name}", self.visit.state.locked(self.name, on))

    def follow(self) -> None:
        locked, asked = self.name in self.visit.state.locks, self.visit.state.amounts.get(self.name)
        if locked != self.locked:
            self.locked = locked
            self.lock.props(f"icon={'lock' if locked else 'lock_open'} aria-pressed={'true' if locked else 'false'}")
            self.place.classes(**{"add" if locked else "remove": "held"})
            if not locked:
                self.place.classes(remove="bad")
        if (asked is not None) != ("turned" in self.place.classes):
            self.place.classes(**{"add" if asked is not None else "remove": "turned"})
        self.asked = "" if asked is None else ("+" if asked > 0 else "") + number(asked, 2)
        self._write()

    def _write(self) -> None:
        self.numbers.set_content("".join(f"<span>{text}</span>" for text in (*self.told, self.asked)))

    def read(self, leak: Leak | None) -> None:
        """The newest measurement, and of a lock what it leaked."""
        measured = self.visit.measured
        if measured is None or self.name not in measured.now:
            return
        now, before = measured.now[self.name], measured.before[self.name]
        change = ("+" if now > before else "") + number(now - before, 2)
        if leak is not None:
            change = f"{'+' if leak.drift > 0 else ''}{number(leak.drift, 2)} of ±{number(leak.tolerance, 2)}"
            if leak.holds == ("bad" in self.place.classes):
                self.place.classes(**{"remove" if leak.holds else "add": "bad"})
                self.place.props(f'title="{"held" if leak.holds else "did not hold"}"')
        self.told = number(before), number(now), change
        self._write()


JUDGES_OF = {second: first for first, second in JUDGES.items()}
