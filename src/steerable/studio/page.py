"""The page: which panels there are and where they stand. Each panel is a file of its own, by its noun.

One ``Visit`` is made for every page that is opened, so that two visitors share nothing but what nobody changes. NiceGUI draws the
elements and brings the events; the panels say what they mean; ``session`` works it out.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

from nicegui import Client, ui
from nicegui.events import KeyEventArguments

from steerable.studio import driving, knobs, links, making, people, readings, sharing, stage
from steerable.studio.session import Bench, State
from steerable.studio.visit import Visit
from steerable.studio.workshop import Workshop

STYLE = Path(__file__).parent / "studio.css"
OPENING = 1  # the seed that a page opens with: somebody who looks at the camera
TABS: dict[str, Any] = {"Measured": readings.Readings, "Drive": driving.Driving, "Share": sharing.Sharing, "Make": making.Making}
TURN_DARK = "() => setDark(!Quasar.Dark.isActive)"  # NiceGUI's own function; the page begins as the browser prefers


def opening(workshop: Workshop, asked: str | None) -> tuple[State, Bench, str]:
    """What a page opens with, and why the link in its address could not be restored, if so. A trajectory in it takes seconds.

    Args:
        asked: the state as the address carries it.
    """
    try:
        if asked:
            return *restored(asked, workshop), ""
        trouble = ""
    except ValueError as error:
        trouble = str(error)
    return State(seed=OPENING), workshop.benches[workshop.first], trouble


def build(workshop: Workshop, state: State, bench: Bench, trouble: str = "", *, origin: str = "") -> Visit:
    """Everything on one page.

    Args:
        state, bench, trouble: of ``opening``; what could not be restored is said on the page.
        origin: the address of the studio, for links.
    """
    visit, client = Visit(workshop, bench, state), ui.context.client
    visit.show(state)  # it is drawn while the page is put together
    ui.add_css(STYLE)
    with ui.header(elevated=False).classes("studio-head items-center no-wrap row"):
        ui.label("steerable studio").classes("title")
        chooser = ui.select(workshop.choices, value=_name_of(bench, workshop)).props('dense outlined options-dense aria-label="generator"')
        ui.label("Every picture here is synthetic: a generator made it; it shows nobody.").classes("note")
        ui.space()
        shade = ui.button(icon="brightness_6").props('flat dense round aria-label="light or dark"')
        shade.on("click", js_handler=TURN_DARK)  # in the browser: ui.dark_mode would style the whole page anew at every update
    with ui.element("main").classes("studio"):
        with ui.column().classes("gap-3 no-wrap"):
            stage.Stage(visit)
            people.People(visit)
        knobs.Rows(visit)
        with ui.column().classes("gap-3 no-wrap side"), ui.element("section").classes("pane column").props('aria-label="Tools"'):
            with ui.tabs().props("dense no-caps align=justify inline-label").classes("w-full") as tabs:
                for name in TABS:
                    ui.tab(name)
            tabs.set_value(next(iter(TABS)))
            places = {name: ui.element("div").classes("w-full").props(f'role="tabpanel" aria-label="{name}"') for name in TABS}
    panels: dict[str, object] = {}

    def open_tab(chosen: str) -> None:
        """A panel is made when it is first looked at, so that the page stands sooner; it stays, out of sight, for what changes in place."""
        for name, place in places.items():
            place.set_visibility(name == chosen)
        if chosen not in panels:
            with places[chosen]:
                panels[chosen] = TABS[chosen](visit, origin) if chosen == "Share" else TABS[chosen](visit)

    tabs.on_value_change(lambda event: open_tab(str(event.value)))
    open_tab(next(iter(TABS)))
    opening = visit.latest()

    def choose(name: str) -> None:
        if name in workshop.choices and workshop.benches.get(name) is not visit.bench:
            opening.ask(functools.partial(workshop.bench, name), lambda bench: visit.put_on(bench, State(), f"open {name}"))

    def named() -> None:
        """What stands in the chooser: the generator of the visit, or that of a file that was dropped."""
        name = next(
            (one for one, bench in workshop.benches.items() if bench.generator is visit.bench.generator), visit.bench.generator.name
        )
        chooser.set_options(list(dict.fromkeys([*workshop.choices, name])), value=name)

    chooser.on_value_change(lambda event: choose(event.value))
    visit.on("bench", named)
    ui.keyboard(on_key=lambda event: _key(visit, event))
    visit.tell("history")
    visit.on("history", functools.partial(_addressed, visit, client))
    if trouble:
        visit.complain(trouble)
    return visit


def _addressed(visit: Visit, client: Client) -> None:
    """The address always leads to what is shown, so that reloading the page loses nothing but the history."""
    link = ""
    for whole in (True, False):
        with contextlib.suppress(ValueError):
            link = link or visit.link(whole=whole)
    client.run_javascript(f"history.replaceState(history.state, '', '{'?state=' + link if link else '/'}')")


def restored(text: str, workshop: Workshop) -> tuple[State, Bench]:
    """The state in a link, on the bench of its generator, which is loaded where nobody chose it yet."""
    one = links.parsed(text)
    bench = next((bench for bench in workshop.benches.values() if bench.generator.fingerprint == one.fingerprint), None)
    if bench is None:
        bench = workshop.bench(one.generator if one.generator in workshop.choices else workshop.first)
    return links.restored(text, bench)


def _name_of(bench: Bench, workshop: Workshop) -> str:
    return next(name for name, one in workshop.benches.items() if one.generator is bench.generator)


def _key(visit: Visit, event: KeyEventArguments) -> None:
    """Ctrl+Z and Ctrl+Shift+Z, outside of fields."""
    if not event.action.keydown or not (event.modifiers.ctrl or event.modifiers.meta):
        return
    if event.key == "z" and not event.modifiers.shift:
        visit.go(visit.history.undo())
    elif event.key in ("y", "Z") or (event.key == "z" and event.modifiers.shift):
        visit.go(visit.history.redo())
