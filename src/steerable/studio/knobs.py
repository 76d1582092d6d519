"""The sliders: a row for each knob, with its range, its number, its ends, where it stands, and its lock with the leak beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from nicegui import ui

from steerable.controls.directions import Directions
from steerable.controls.groups import Controllers
from steerable.protocols import Control, Knob
from steerable.studio import pictures, session
from steerable.studio.live import Board, grid, icon_button, plain
from steerable.studio.pictures import number
from steerable.studio.road import Road
from steerable.studio.visit import Visit

ROOM = 0.4  # of the usable range, on either side of it
LARGEST = 1e6  # amount that can be typed
NONE = '<p class="soft">This generator has no controls yet: make one, at Make, or open a control file, at Share.</p>'


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
        self.visit, self.rows, self.groups = visit, list[Row](), list[list[Row]]()
        self._ends = visit.latest()
        hears = {"moved": self._moved, "let go": self._let_go, "typed": self._typed}
        hears |= {"lock": self._locked, "reset": self._resets, "tolerated": self._tolerated}
        with ui.element("section").classes("pane column").props('aria-label="Controls"'):
            with ui.row().classes("items-center justify-between w-full no-wrap"):
                ui.html("<h2>Controls</h2>", sanitize=False)
                self.search = ui.input(placeholder="search", on_change=self._filter).props("dense outlined clearable").classes("w-40")
                self.search.props('aria-label="search controls" debounce=150')
                ui.button("Reset all", on_click=lambda: visit.keep("reset", visit.state.still())).props("flat dense no-caps size=sm")
            ui.label("Shaded: usable range. Double-click resets. Numbers beyond the slider work and are marked.").classes("soft")
            self.board = Board(self._laid_out(), hears=hears, events=("input", "change", "click", "dblclick")).classes("scroll knobs")
        visit.on("state", self._follow)
        visit.on("measured", self._read)
        visit.on("leaks", self._leaked)
        visit.on("bench", self._build)
        visit.on("seed", self._thumbnails)
        visit.on("begun", self._thumbnails)
        self._follow()

    def _laid_out(self) -> str:
        """The markup of all rows."""
        lockable, parts = set(self.visit.bench.lockable), []
        self.rows, self.groups = [], []
        for group, control in self.visit.bench.groups.items():
            parts.append(f'<div class="group">{plain(group)} · {len(control.knobs)}, {kind(control)}</div>')
            rows = [Row(self, len(self.rows) + i, knob, knob.name in lockable) for i, knob in enumerate(control.knobs)]
            parts += [row.markup() for row in rows]
            self.rows += rows
            self.groups.append(rows)
        return "".join(parts) or NONE

    def _build(self) -> None:
        self.board.write(self._laid_out())
        self._follow()
        self._filter()
        self._thumbnails()

    def _filter(self) -> None:
        words = (self.search.value or "").lower().split()
        for row in self.rows:
            row.hidden = not all(word in f"{row.knob.name} {row.knob.unit}".lower() for word in words)
            self.board.put(row.place(), hidden=row.hidden)
        for place, rows in enumerate(self.groups):
            self.board.put(f".group:nth-child({1 + place + sum(map(len, self.groups[:place]))})", hidden=all(row.hidden for row in rows))

    def _follow(self) -> None:
        for row in self.rows:
            row.follow()

    def _read(self) -> None:
        for row in self.rows:
            row.read()

    def _leaked(self, leaks: Mapping[str, session.Leak]) -> None:
        for row in self.rows:
            if row.knob.name in leaks:
                row.leaked(leaks[row.knob.name])

    # -------------------------------------------------------------- the hand

    def _moved(self, place: int, value: float | None) -> None:
        if place < len(self.rows) and value is not None:
            self.rows[place].moved(value)

    def _let_go(self, place: int, value: float | None) -> None:
        if place < len(self.rows) and value is not None:
            self.rows[place].let_go(value)

    def _typed(self, place: int, value: float | None) -> None:
        if place < len(self.rows):
            self.rows[place].typed(value)

    def _locked(self, place: int, _: object) -> None:
        if place < len(self.rows):
            name = self.rows[place].knob.name
            on = name not in self.visit.state.locks
            self.visit.keep(f"{'lock' if on else 'free'} {name}", self.visit.state.locked(name, on))

    def _resets(self, place: int, _: object) -> None:
        if place < len(self.rows) and (name := self.rows[place].knob.name) not in self.visit.state.locks:
            self.visit.keep(f"{name} reset", self.visit.state.without(name))

    def _tolerated(self, place: int, value: float | None) -> None:
        if place < len(self.rows) and value is not None and value >= 0:
            name = self.rows[place].knob.name
            self.visit.tolerances[name] = value
            self._leaked({leak.name: leak for leak in self.visit.leaks if leak.name == name})

    # -------------------------------------------------------------- the ends

    def _thumbnails(self) -> None:
        """Both ends of every knob, of the person who is shown, unsteered."""
        bench, state = self.visit.bench, self.visit.state.still()
        if self.rows and self.visit.begun:
            self._ends.ask(functools.partial(_ends_of, bench, session.State(state.seed, state.psi, state.label)), self._ended)

    def _ended(self, urls: dict[str, tuple[str, str]]) -> None:
        for row in self.rows:
            for side, url in zip((".low", ".high"), urls.get(row.knob.name, ()), strict=False):
                self.board.put(row.place(side), src=url)


def _ends_of(bench: session.Bench, state: session.State) -> dict[str, tuple[str, str]]:
    import torch

    names = [name for name in bench.knobs if not bench.is_road(name)]  # a road's ends take seconds each
    points = []
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
    """One knob: what a hand does to it, and what is shown of it."""

    def __init__(self, rows: Rows, order: int, knob: Knob, lockable: bool) -> None:
        self.rows, self.visit, self.order, self.knob, self.lockable = rows, rows.visit, order, knob, lockable
        self.neutral = session.rest(knob)
        low, high, self.step = grid(*reach(knob), self.neutral)
        self.ends = low, high
        self.amount, self.moving, self.locked, self.hidden, self.classes = self.neutral, False, False, False, "knob"

    def place(self, part: str = "") -> str:
        """Where it stands on the board."""
        return f'[data-row="{self.order}"] {part}'.rstrip()

    def put(self, part: str, **news: object) -> None:
        self.rows.board.put(self.place(part), **news)

    def markup(self) -> str:
        knob, (low, high), name = self.knob, self.ends, plain(self.knob.name)
        left, right, rest = (100 * (at - low) / (high - low) for at in (knob.low, knob.high, self.neutral))
        step = f"{(high - low) / 50:.1g}"
        return (
            f'<div class="knob" data-row="{self.order}" data-knob="{name}"><div class="name"><b>{name}</b>'
            f'<span class="unit num">{plain(knob.unit or "units")}, {number(knob.low, 2)} to {number(knob.high, 2)}</span>'
            f'<span class="mark">beyond its range</span></div><span class="reading num"></span>'
            f'<img class="end low" alt=""><div class="rail">'
            f'<div class="range" style="left:{left:.1f}%;width:{right - left:.1f}%"></div><div class="zero" style="left:{rest:.1f}%"></div>'
            f'<input type="range" min="{low:.10g}" max="{high:.10g}" step="{self.step:.10g}" value="{self.neutral:.10g}"'
            f' aria-label="{name}" data-input="moved" data-change="let go" data-dblclick="reset"></div><img class="end high" alt="">'
            f'<input type="number" class="amount" step="{step}" value="{self.neutral:.4g}" data-change="typed"'
            f' aria-label="{name} amount, {plain(knob.unit)}">{self._lock_markup() if self.lockable else ""}</div>'
        )

    def _lock_markup(self) -> str:
        name = plain(self.knob.name)
        return (
            f"{icon_button('lock_open', 'lock', f'lock {self.knob.name}')}"
            f'<div class="leak"><span class="soft">leak</span><div class="meter"><div></div></div><span class="says num"></span>'
            f'<label class="allowed">±<input type="number" class="tolerance" min="0" step="any" data-input="tolerated"'
            f' value="{session.tolerance(self.visit.bench, self.knob.name):.3g}" aria-label="tolerance of {name}"></label></div>'
        )

    # -------------------------------------------------------------- the hand

    def moved(self, value: float) -> None:
        value = self._clamped(value)
        if not self.locked and value != self._clamped(self.amount):
            self.moving = True
            self.visit.turn(self.knob.name, self.neutral if abs(value - self.neutral) < self.step / 2 else value)

    def let_go(self, value: float) -> None:
        if not self.locked:
            self.moved(value)  # an event that was held back may arrive after this one
            self.moving = False
            self._written()
            self.visit.keep(f"{self.knob.name} {number(self.amount, 3)}")

    def typed(self, value: float | None) -> None:
        if value is None:
            return self._written()
        if value == float(f"{self.amount:.4g}") or self.locked:
            return
        if not abs(value) <= LARGEST:
            self._written()
            return self.visit.complain(f"{self.knob.name} takes amounts up to a million, got {value:g}.")
        self.visit.turn(self.knob.name, value)
        self.visit.keep(f"{self.knob.name} {number(value, 3)}")

    # -------------------------------------------------------------- what is shown

    def _clamped(self, amount: float) -> float:
        return min(max(amount, self.ends[0]), self.ends[1])

    def _written(self) -> None:
        self.put(".amount", value=f"{self.amount:.4g}")

    def follow(self) -> None:
        """The state's amount and lock."""
        amount, locked = self.visit.state.amounts.get(self.knob.name, self.neutral), self.knob.name in self.visit.state.locks
        if amount != self.amount:
            self.amount = amount
            if not self.moving:  # while a hand moves, the browser writes both
                self.put("input", value=f"{self._clamped(amount):.10g}")
                self._written()
        if locked != self.locked and self.lockable:
            self.locked = locked
            self.put("input", disabled=locked)
            self.put(".amount", disabled=locked)
            self.put(".lock", ariaPressed=str(locked).lower())
            self.put(".lock i", textContent="lock" if locked else "lock_open")
        self._classed("beyond", not self.knob.low <= amount <= self.knob.high)
        self._classed("locked", self.locked)

    def _classed(self, name: str, on: bool) -> None:
        """Of all its classes, one."""
        names = [one for one in self.classes.split() if one != name] + ([name] if on else [])
        if on != (name in self.classes.split()):
            self.classes = " ".join(names)
            self.put("", className=self.classes)

    def read(self) -> None:
        """Where the attribute stands."""
        measured = self.visit.measured
        if measured is None:
            return
        value, rank = measured.now.get(self.knob.name), self.visit.percentile(self.knob.name)
        words = [] if value is None else [f"now {number(value, 3)}"]
        words += [] if rank is None else [f"p{rank:.0f}"]
        self.put(".reading", textContent=" · ".join(words))

    def leaked(self, leak: session.Leak) -> None:
        """What a lock leaked."""
        share = min(abs(leak.drift) / leak.tolerance, 1.0) if leak.tolerance else float(leak.drift != 0)
        told = "held" if leak.holds else "did not hold"
        self.put(".meter > div", style=f"width:{100 * share:.0f}%")
        self.put(".says", textContent=f"{told}: {'+' if leak.drift > 0 else ''}{number(leak.drift, 2)} {leak.unit}")
        self.put(".leak", className="leak" if leak.holds else "leak bad")
