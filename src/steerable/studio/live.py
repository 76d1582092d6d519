"""What moves while a hand moves: the picture and the sliders, past the redrawing of everything else.

NiceGUI draws all elements of a page anew for every one that changes. With sixty rows that takes a browser as long as the generator takes
for its picture, several times for each event of a slider. These two change in place instead; everything else on the page is NiceGUI's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from nicegui import ui
from nicegui.events import GenericEventArguments

THROTTLE = 0.02  # seconds between two events of a slider under a hand
PLACE = "(event) => emit(event.target.valueAsNumber)"
MOVED = """(event) => {
  const at = event.target.valueAsNumber, field = event.target.closest('[data-knob]')?.querySelector('.q-field input');
  if (field) field.value = String(Math.abs(at) < 1e-9 * (event.target.max - event.target.min) ? 0 : Number(at.toPrecision(4)));
  emit(at);
}"""  # the number of the row goes along

REPLACED = """{
  const one = getHtmlElement(%d)?.querySelector('img');
  if (one) {
    const next = () => { const url = one.waiting; one.waiting = null; one.since = url ? performance.now() : -1e9; if (url) one.src = url; };
    if (one.since === undefined) { one.addEventListener('load', next); one.addEventListener('error', next); one.since = -1e9; }
    one.waiting = %s;
    if (performance.now() - one.since > 500) next();
  }
}"""  # a picture that is on its way is shown before the newest one takes its place: else a quick hand would see none


def grid(low: float, high: float, at: float, *, steps: int = 240) -> tuple[float, float, float]:
    """Ends that are no nearer than these, and a step of two digits, so that a slider can stand at a value exactly."""
    step = float(f"{(high - low) / steps:.2g}")
    below, above = math.ceil((at - low) / step - 1e-9), math.ceil((high - at) / step - 1e-9)
    return float(f"{at - below * step:.10g}"), float(f"{at + above * step:.10g}"), step


class Range(ui.element):
    """A slider that the browser moves by itself; the server hears of it at most fifty times a second, and always of its last place.

    Args:
        moved: called with the value while a hand moves.
        let_go: called with the value when the hand has let go, or a key was pressed.
    """

    def __init__(
        self,
        low: float,
        high: float,
        *,
        step: float,
        value: float,
        moved: Callable[[float], None],
        let_go: Callable[[float], None],
    ) -> None:
        super().__init__("input")
        self.value, self.enabled = value, True
        self._ends, self._moved, self._let_go = (low, high), moved, let_go
        self._props.update({"type": "range", "min": low, "max": high, "step": step, "^value": value})
        self.on("input", self._heard, js_handler=MOVED, throttle=THROTTLE)
        # an event that was held back may arrive after this one, so this one brings the value too
        self.on("change", self._ended, js_handler=PLACE)

    def _heard(self, event: GenericEventArguments) -> None:
        if self.enabled:
            self.value = min(max(float(event.args), self._ends[0]), self._ends[1])
            self._moved(self.value)

    def _ended(self, event: GenericEventArguments) -> None:
        if self.enabled:
            self._heard(event)
            self._let_go(self.value)

    def set_value(self, value: float) -> None:
        """Move it from here."""
        self.value = value
        with self._props.suspend_updates():
            self._props["^value"] = value
        self.client.run_javascript(f"const one = getHtmlElement({self.id}); if (one) one.value = {value!r}")

    def set_enabled(self, on: bool) -> None:
        self.enabled = on
        self._props["disabled"] = not on


def show(image: ui.interactive_image, url: str) -> None:
    """Another picture in the place of the one that is shown."""
    if not image.source:
        return image.set_source(url)
    with image._props.suspend_updates():
        image.set_source(url)
    image.client.run_javascript(REPLACED % (image.id, json.dumps(url)))
