"""What is measured: every feature now and at the start, and a value set by number with what came of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from nicegui import ui

from steerable.controls.controller import AlongAxis
from steerable.controls.directions import Directions
from steerable.evaluation.summary import JUDGES
from steerable.features.network import select
from steerable.studio import session
from steerable.studio.pictures import number
from steerable.studio.session import Bench, State
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
    from steerable import checks

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
    """The state in which an attribute measures a value: its knob turned as far as that takes, the locks held."""
    point = session.latents(state, bench)
    control = bench.control((name,), tuple(lock for lock in state.locks if lock != name))
    assert isinstance(control, Directions)
    (feature,) = select(bench.features, [name])
    outcome = AlongAxis(bench.generator, control[name], feature).solve(point, torch.full((1, 1), value))
    there = state.turned(name, state.amounts.get(name, 0.0) + float(outcome.moved[0]))
    after = session.measure(session.latents(there, bench), bench)
    judge = JUDGES.get(name, "")
    second = after.get(judge) if bench.columns.get(judge) == bench.columns[name] else None
    low, high = outcome.reachable[0].tolist()
    found = bool(outcome.found[0])
    return Answer(there, name, bench.columns[name], value, after[name], low, high, found, judge, second)


class Readings:
    """The table of all features, and the line that sets one."""

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
            self.table = ui.html("", sanitize=False).classes("scroll w-full")
        visit.on("measured", self._read)

    def _set(self) -> None:
        state, bench = self.visit.state, self.visit.bench
        try:
            name, value = parse(self.asked.value or "", [name for name in bench.lockable if name not in state.locks])
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

    def _read(self) -> None:
        measured, bench = self.visit.measured, self.visit.bench
        if measured is None:
            return
        columns, rows = bench.columns, []
        first = [*measured.state.amounts, *measured.state.locks]
        order = [name for name in first if name in columns] + [name for name in columns if name not in first]
        for name in dict.fromkeys(order):
            now, before = measured.now[name], measured.before[name]
            asked = measured.state.amounts.get(name)
            kind = "held" if name in measured.state.locks else "turned" if asked else ""
            change = now - before
            sign = "+" if change > 0 else ""
            judge = f" title='second judge of {JUDGES_OF[name]}'" if name in JUDGES_OF else ""
            cells = (f"{name} <span class='soft'>{columns[name]}</span>", number(before), number(now), sign + number(change, 2))
            told = "" if asked is None else ("+" if asked > 0 else "") + number(asked, 2)
            rows.append(f"<tr class='{kind}'{judge}>" + "".join(f"<td>{cell}</td>" for cell in (*cells, told)) + "</tr>")
        head = "<tr><th>feature</th><th>start</th><th>now</th><th>change</th><th>asked</th></tr>"
        self.table.set_content(f"<table class='values'><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")


JUDGES_OF = {second: first for first, second in JUDGES.items()}
