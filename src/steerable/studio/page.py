"""The page: which panels there are and where they stand. Each panel is a file of its own, by its noun.

One ``Visit`` is made for every page that is opened, so that two visitors share nothing but what nobody changes. NiceGUI draws the elements and
brings the events; the panels say what they mean; ``session`` works it out.
"""

from __future__ import annotations

from pathlib import Path

from nicegui import ui
from nicegui.events import KeyEventArguments

from steerable.studio import knobs, people, readings, stage
from steerable.studio.visit import Visit
from steerable.studio.workshop import Workshop

STYLE = Path(__file__).parent / "studio.css"


def build(workshop: Workshop, asked: str | None = None) -> Visit:
    """Everything on one page.

    Args:
        asked: the state in a link, as the address carries it; what cannot be restored is said on the page.
    """
    bench = workshop.benches[workshop.first]
    visit = Visit(workshop, bench)
    ui.add_css(STYLE)
    dark = ui.dark_mode(None)
    with ui.header(elevated=False).classes("studio-head items-center no-wrap row"):
        ui.label("steerable studio").classes("title")
        chooser = ui.select(list(workshop.benches), value=workshop.first).props('dense outlined options-dense aria-label="generator"')
        ui.label("Every picture here is synthetic: a generator made it; it shows nobody.").classes("note")
        ui.space()
        ui.button(icon="brightness_6", on_click=lambda: dark.set_value(not dark.value)).props('flat dense round aria-label="light or dark"')
    with ui.element("main").classes("studio"):
        with ui.column().classes("gap-3 no-wrap"):
            shown = stage.Stage(visit)
            people.People(visit)
        knobs.Rows(visit)
        with ui.column().classes("gap-3 no-wrap side"):
            with ui.element("section").classes("pane column").props('aria-label="Tools"'):
                with ui.tabs().props("dense no-caps align=left inline-label").classes("w-full") as tabs:
                    measured = ui.tab("Measured")
                with ui.tab_panels(tabs, value=measured).props("keep-alive"):
                    with ui.tab_panel(measured):
                        readings.Readings(visit)
    chooser.on_value_change(lambda event: visit.put_on(workshop.benches[event.value], None, f"open {event.value}"))
    ui.keyboard(on_key=lambda event: _key(visit, event))
    del shown
    visit.keep("start")
    return visit


def _key(visit: Visit, event: KeyEventArguments) -> None:
    """Ctrl+Z and Ctrl+Shift+Z, outside of fields."""
    if not event.action.keydown or not (event.modifiers.ctrl or event.modifiers.meta):
        return
    if event.key == "z" and not event.modifiers.shift:
        visit.go(visit.history.undo())
    elif event.key in ("y", "Z") or (event.key == "z" and event.modifiers.shift):
        visit.go(visit.history.redo())
