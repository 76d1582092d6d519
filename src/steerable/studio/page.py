"""The page: which panels there are and where they stand. Each panel is a file of its own, by its noun.

One ``Visit`` is made for every page that is opened, so that two visitors share nothing but what nobody changes. NiceGUI draws the
elements and brings the events; the panels say what they mean; ``session`` works it out.
"""

from __future__ import annotations

import functools
from pathlib import Path

from nicegui import ui
from nicegui.events import KeyEventArguments

from steerable.studio import driving, knobs, links, making, people, readings, sharing, stage
from steerable.studio.session import Bench, State
from steerable.studio.visit import Visit
from steerable.studio.workshop import Workshop

STYLE = Path(__file__).parent / "studio.css"
OPENING = 1  # the seed that a page opens with: somebody who looks at the camera
TURN_DARK = "() => setDark(!Quasar.Dark.isActive)"  # NiceGUI's own function; the page begins as the browser prefers


def build(workshop: Workshop, asked: str | None = None, *, origin: str = "") -> Visit:
    """Everything on one page.

    Args:
        asked: the state in a link, as the address carries it; what cannot be restored is said on the page.
        origin: the address of the studio, for links.
    """
    bench, state, trouble = workshop.benches[workshop.first], State(seed=OPENING), ""
    if asked:
        try:
            state, bench = restored(asked, workshop)
        except ValueError as error:
            trouble = str(error)
    visit = Visit(workshop, bench, state)
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
                names = [ui.tab(name) for name in ("Measured", "Drive", "Share", "Make")]
            with ui.tab_panels(tabs, value=names[0]).props("keep-alive"):
                with ui.tab_panel(names[0]):
                    readings.Readings(visit)
                places = {"Drive": ui.tab_panel(names[1]), "Share": ui.tab_panel(names[2]), "Make": ui.tab_panel(names[3])}
    panels: dict[str, object] = {}

    def open_tab(name: str) -> None:
        """A panel is made when it is first looked at, so that the page stands sooner."""
        if name in places and name not in panels:
            with places[name]:
                if name == "Share":
                    panels[name] = sharing.Sharing(visit, origin)
                else:
                    panels[name] = {"Drive": driving.Driving, "Make": making.Making}[name](visit)

    tabs.on_value_change(lambda event: open_tab(event.value))
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
    visit.show(visit.state)
    visit.tell("history")
    if trouble:
        visit.complain(trouble)
    return visit


def restored(text: str, workshop: Workshop) -> tuple[State, Bench]:
    """The state in a link, on the bench of its generator; the error is that of the first bench."""
    errors = []
    for bench in workshop.benches.values():
        try:
            return links.restored(text, bench)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


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
