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
from steerable.studio.live import Board, icon_button, plain
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
        with ui.column().classes("w-full gap-2 no-wrap"):
            with ui.row().classes("w-full items-center no-wrap gap-2"):
                self.asked = ui.input("Set a value", placeholder="yaw 20").props("dense outlined").classes("flex-grow")
                self.asked.on("keydown.enter", self._set)
                ui.button("Set", on_click=self._set).props("unelevated no-caps")
            self.answer = ui.label("").classes("answer").props('role="status"')
            self.answer.set_visibility(False)
            self.ledger = Board().classes("w-full ledger")
            with ui.element("div").classes("values head"):
                for words in ("", "feature", "start", "now", "change", "asked"):
                    ui.label(words)
            self.board = Board(self._laid_out(), hears={"lock": self._locked}).classes("scroll values-all")
            self.board.props('role="table" aria-label="measured features"')
        visit.on("measured", self._read)
        visit.on("leaks", self._leaked)
        visit.on("state", self._follow)
        visit.on("bench", self._build)
        visit.on("ledger", self._plot)
        self._follow()

    def _laid_out(self) -> str:
        """The markup of all lines."""
        self.lines = [Line(self, order, name, unit) for order, (name, unit) in enumerate(self.visit.bench.columns.items())]
        return "".join(line.markup() for line in self.lines)

    def _build(self) -> None:
        self.board.write(self._laid_out())
        self.ledger.write("")
        self._follow()

    def _locked(self, order: int, _: object) -> None:
        if order < len(self.lines):
            name = self.lines[order].name
            on = name not in self.visit.state.locks
            self.visit.keep(f"{'lock' if on else 'free'} {name}", self.visit.state.locked(name, on))

    def _follow(self) -> None:
        for line in self.lines:
            line.follow()

    def _read(self) -> None:
        for line in self.lines:
            line.read()

    def _leaked(self, leaks: Mapping[str, Leak]) -> None:
        for line in self.lines:
            if line.name in leaks:
                line.leaked(leaks[line.name])

    def _plot(self, curve: list[tuple[float, float]], tolerance: float) -> None:
        self.ledger.write(pictures.ledger_svg(curve, tolerance))

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

    def __init__(self, readings: Readings, order: int, name: str, unit: str) -> None:
        self.readings, self.visit, self.order, self.name, self.unit = readings, readings.visit, order, name, unit
        self.judges = f"second judge of {JUDGES_OF[name]}" if name in JUDGES_OF else ""
        self.locked, self.turned, self.bad = False, False, False

    def put(self, part: str, **news: object) -> None:
        self.readings.board.put(f'[data-row="{self.order}"] {part}'.rstrip(), **news)

    def markup(self) -> str:
        return (
            f'<div class="values" role="row" data-row="{self.order}" data-column="{plain(self.name)}" title="{plain(self.judges)}">'
            f"{icon_button('lock_open', 'lock', f'hold {self.name}')}"
            f'<span class="what" role="rowheader">{plain(self.name)} <small>{plain(self.unit)}</small></span>'
            '<span class="start" role="cell"></span><span class="now" role="cell"></span>'
            '<span class="change" role="cell"></span><span class="asked" role="cell"></span></div>'
        )

    def follow(self) -> None:
        """The state's lock, and the amount that its knob was given."""
        asked, locked = self.visit.state.amounts.get(self.name), self.name in self.visit.state.locks
        if locked != self.locked:
            self.put(".lock", ariaPressed=str(locked).lower())
            self.put(".lock i", textContent="lock" if locked else "lock_open")
            self.put("", title=self.judges)
        if (locked, asked is not None) != (self.locked, self.turned):
            self.locked, self.turned = locked, asked is not None
            self._classed(bad=self.bad and locked)
        self.put(".asked", textContent="" if asked is None else ("+" if asked > 0 else "") + number(asked, 2))

    def _classed(self, *, bad: bool) -> None:
        self.bad = bad
        marks = {"held": self.locked, "turned": self.turned, "bad": bad}
        self.put("", className=" ".join(["values", *(name for name, on in marks.items() if on)]))

    def read(self) -> None:
        """The newest measurement."""
        measured = self.visit.measured
        if measured is not None and self.name in measured.now:
            now, before = measured.now[self.name], measured.before[self.name]
            self.put(".start", textContent=number(before))
            self.put(".now", textContent=number(now))
            self.put(".change", textContent=("+" if now > before else "") + number(now - before, 2))

    def leaked(self, leak: Leak) -> None:
        """What a lock leaked, in the place of the change."""
        if self.locked:
            self.put(".change", textContent=f"{'+' if leak.drift > 0 else ''}{number(leak.drift, 2)} of ±{number(leak.tolerance, 2)}")
            self.put("", title="held" if leak.holds else "did not hold")
            self._classed(bad=not leak.holds)


JUDGES_OF = {second: first for first, second in JUDGES.items()}
