"""Make a control: choose a measured column, or say yes or no on some thirty faces.

Then fit, watch, and find its slider among the others.
"""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

from nicegui import ui

from steerable.studio import fitting, people
from steerable.studio.fitting import Job, Made
from steerable.studio.live import Board, pick
from steerable.studio.visit import Visit

FACES = 30
USUAL = ("yaw", "pitch", "brightness")  # what a trajectory holds where nothing is locked
FIRST = 5000  # seeds that nobody else looks at


class Making:
    """The panel."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self.job = visit, None
        self._folder = tempfile.TemporaryDirectory(prefix="studio-")
        visit.on("closed", self._close)
        self._work, self._faces = visit.latest(patience="minutes"), visit.latest()
        self.answers: dict[int, bool] = {}
        self.shown = ""  # fingerprint of the generator whose faces are there to label
        with ui.column().classes("w-full gap-2 no-wrap"):
            ui.html("<h2>From a measured feature</h2>", sanitize=False)
            with ui.row().classes("items-center w-full gap-2 no-wrap"):
                self.column = ui.select([], label="feature", with_input=True).props("dense outlined options-dense").classes("flex-grow")
                self.form = ui.toggle(["axis", "trajectory"], value="axis", on_change=self._formed).props("dense no-caps unelevated")
                self.form.props('aria-label="an axis for everybody, or a trajectory for the person who is shown"')
                self.fit = ui.button("Fit", on_click=self._fit).props("unelevated no-caps")
            self.holds = ui.select([], label="hold", multiple=True).props("dense outlined options-dense use-chips").classes("w-full")
            self.holds.set_visibility(False)
            ui.html("<h2>From your own yes and no</h2>", sanitize=False)
            ui.label("Click a face once for yes, twice for no. Thirty are enough for a first axis.").classes("soft")
            self.name = ui.input("what is it?", placeholder="beard").props("dense outlined maxlength=40").classes("w-full")
            self.board = Board(hears={"pick": self._label}).classes("crowd").props('role="group" aria-label="faces to label"')
            with ui.row().classes("items-center w-full justify-between no-wrap"):
                self.count = ui.label("").classes("soft num")
                self.learn = ui.button("Fit from labels", on_click=self._learn).props("unelevated no-caps")
            with ui.row().classes("items-center w-full gap-2 no-wrap") as self.going:
                self.bar = ui.linear_progress(0.0, show_value=False).props('aria-label="progress"').classes("flex-grow")
                self.cancel = ui.button("Cancel", on_click=self._cancel).props("outline dense no-caps")
            self.going.set_visibility(False)
            self.said = ui.label("").classes("answer").props('role="status"')
            self.said.set_visibility(False)
        self.timer = ui.timer(0.3, self._watch, active=False)
        visit.on("bench", self._offer)
        self._offer()

    def _offer(self) -> None:
        columns = list(self.visit.bench.columns)
        self.column.set_options(columns, value=self.column.value if self.column.value in columns else None)
        self.holds.set_options(columns, value=[name for name in self.holds.value or [] if name in columns])
        if self.shown != self.visit.bench.generator.fingerprint:
            self.shown = self.visit.bench.generator.fingerprint
            seeds = list(range(FIRST, FIRST + FACES))
            self._faces.ask(functools.partial(people.crowd, self.visit.bench, seeds, 1.0, None), self._drawn)

    def _formed(self) -> None:
        self.holds.set_visibility(self.form.value == "trajectory")
        if self.form.value == "trajectory" and not self.holds.value:
            state, there = self.visit.state, self.visit.bench.columns
            self.holds.set_value([name for name in state.locks or USUAL if name in there])

    def _drawn(self, urls: dict[int, str]) -> None:
        self.answers.clear()
        self.board.write("".join(pick(seed, f"face {seed}, not labelled", url) for seed, url in urls.items()))
        self._counted()

    def _label(self, seed: int, _: object) -> None:
        """Nothing, yes, no, and nothing again."""
        was = self.answers.pop(seed, None)
        if was is not False:
            self.answers[seed] = was is None
        words = {None: "", True: "yes", False: "no"}[self.answers.get(seed)]
        told = f"face {seed}, {words or 'not labelled'}"
        self.board.put(f'[data-row="{seed}"]', className=f"pick {words}", ariaLabel=told, title=told)
        self._counted()

    def _counted(self) -> None:
        yes = sum(self.answers.values())
        self.count.set_text(f"{yes} yes, {len(self.answers) - yes} no of {FACES}")

    # -------------------------------------------------------------- the fit

    def _fit(self) -> None:
        name = self.column.value
        if not name:
            return self.visit.complain("choose the feature that the control shall move.")
        bench, cache = self.visit.bench, Path(self._folder.name)
        if self.form.value == "trajectory":
            return self._begin(functools.partial(fitting.road_of, bench, name, list(self.holds.value or []), cache))
        self._begin(functools.partial(fitting.axis_of, bench, name, cache, n=self.visit.workshop.population))

    def _learn(self) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", (self.name.value or "").lower()).strip("-")
        if not name or name in self.visit.bench.columns:
            return self.visit.complain(f'give it a name of its own, in letters; got "{(self.name.value or "")[:40]}".')
        work = functools.partial(fitting.axis_of_labels, self.visit.bench, name, dict(self.answers), Path(self._folder.name))
        self._begin(functools.partial(work, n=self.visit.workshop.population))

    def _begin(self, work) -> None:  # type: ignore[no-untyped-def]
        if self.job is not None:
            return self.visit.complain("a fit is under way: cancel it first.")
        self.job = job = Job()
        self.going.set_visibility(True)
        self._say("fitting …")
        self.timer.activate()
        self._work.failed = self._failed
        self._work.ask(lambda: fitting.worked(lambda: work(job=job)), self._done)

    def _watch(self) -> None:
        if self.job is not None:
            self.bar.set_value(round(self.job.share, 3))
            self._say(self.job.words)

    def _cancel(self) -> None:
        if self.job is not None:
            self.job.cancel()

    def _failed(self, error: Exception) -> None:
        self._ended()
        self._say(" ".join(str(error).split()))

    def _done(self, made: Made | str) -> None:
        self._ended()
        if isinstance(made, str):
            return self._say(made)
        self.visit.put_on(made.bench, None, f"made {made.name}")
        self._say(f"{made.name}: its slider stands at the end of the controls. {made.words}")

    def _ended(self) -> None:
        self.job = None
        self.timer.deactivate()
        self.going.set_visibility(False)

    def _say(self, words: str) -> None:
        self.said.set_visibility(True)
        self.said.set_text(words)

    def _close(self) -> None:
        self._cancel()
        self._folder.cleanup()
