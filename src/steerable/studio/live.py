"""What moves while a hand moves: the picture, the sliders and the numbers, past the redrawing of everything else.

NiceGUI draws all elements of a page anew for every one that changes, which takes a browser longer than the generator takes for its
picture. What changes often is therefore markup on a ``Board``, whose parts are changed in place; all changes of one moment travel in one
message. Everything else on the page is NiceGUI's.
"""

from __future__ import annotations

import asyncio
import html
import json
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import Client, ui
from nicegui.events import GenericEventArguments

NOTHING: Mapping[str, Any] = {}

LATE = 0.1  # seconds after which a slider does not wait for the picture of its last value
LATER = 0.05  # seconds in which changes gather that travel together
WITH = 0.5  # seconds that they wait for a picture that is on its way: a browser lays a page out again for each message

# Properties of elements: [the board, the place on it, {property: value}]. A picture that is on its way is shown before the newest one
# takes its place: else a quick hand would see none.
CHANGED = """{
  const shown = (one, url) => {
    window.hand?.next();
    const next = () => { const url = one.waiting; one.waiting = null; one.since = url ? performance.now() : -1e9; if (url) one.src = url; };
    if (one.since === undefined) { one.addEventListener('load', next); one.addEventListener('error', next); one.since = -1e9; }
    one.waiting = url;
    if (performance.now() - one.since > 500) next();
  };
  for (const [id, place, {picture, ...news}] of %s) {
    const board = getHtmlElement(id), one = place ? board?.querySelector(place) : board;
    if (one && picture) shown(one, picture);
    if (one) Object.assign(one, news);
  }
}"""

# What a hand did, in the words of the markup; a slider takes the number of its row along. Of its values the newest is sent when the picture
# of the last one has come, or is late: else a server that draws for many would read more than it draws. The number beside a slider is
# written then too: a browser takes longer for that field than for the slider itself.
HEARD = """(event) => {
  const one = event.target.closest('[data-%(event)s]'), row = one?.closest('[data-row]');
  if (!one || one.disabled) return;
  const at = 'valueAsNumber' in one ? one.valueAsNumber : null;
  const hand = window.hand ??= {
    asked: -1e9,
    next() { this.asked = -1e9; clearTimeout(this.timer); this.waiting?.(); },
    ask(tell) { this.waiting = null; this.asked = performance.now(); tell(); },
  };
  const tell = () => {
    const field = one.type === 'range' && row.querySelector('.amount');
    if (field) field.value = String(Math.abs(at) < 1e-9 * (one.max - one.min) ? 0 : Number(at.toPrecision(4)));
    emit([one.dataset.%(event)s, Number(row.dataset.row), at]);
  };
  clearTimeout(hand.timer);
  hand.waiting = null;
  if (event.type !== 'input') return tell();
  const wait = hand.asked + %(late)d - performance.now();
  hand.waiting = () => hand.ask(tell);
  if (wait <= 0) hand.waiting(); else hand.timer = setTimeout(hand.waiting, wait);
}"""

Changes = dict[tuple[int, str], dict[str, Any]]
_waiting: weakref.WeakKeyDictionary[Client, Changes] = weakref.WeakKeyDictionary()
_expecting: weakref.WeakSet[Client] = weakref.WeakSet()  # pages that a picture is on its way to


class Board(ui.html):
    """Markup whose parts change in place, and which says what a hand does on it.

    ``<input data-input="moved">`` inside ``<div data-row="3">`` calls ``hears["moved"](3, value)`` at each of its input events, with None
    for what has no value; data-change, data-click and data-dblclick do the same.

    Args:
        hears: by the words of the markup.
        events: that can happen on it.
    """

    def __init__(
        self, markup: str = "", *, hears: Mapping[str, Callable[[int, Any], None]] = {}, events: Sequence[str] = ("click",)
    ) -> None:
        super().__init__(markup, sanitize=False)
        self._hears = dict(hears)
        self._there: dict[tuple[str, str], Any] = {}
        for event in events if hears else ():
            self.on(event, self._heard, js_handler=HEARD % {"event": event, "late": 1000 * LATE})

    def _heard(self, event: GenericEventArguments) -> None:
        what, row, value = event.args
        if what in self._hears:
            self._hears[what](int(row), value)

    def write(self, markup: str) -> None:
        """Other markup in the place of all there is."""
        changes = _changes(self.client)
        for waiting in [place for place in changes if place[0] == self.id]:
            del changes[waiting]
        self._there.clear()
        self.put("", innerHTML=markup)

    def put(self, place: str, **news: Any) -> None:
        """Set properties of the first element that a selector finds here: textContent, className, src, disabled, ariaPressed, value, ...

        What stands there already is not sent again, but for values, which a person may have changed.
        """
        fresh = {name: value for name, value in news.items() if name == "value" or self._there.get((place, name)) != value}
        if not fresh:
            return
        self._there.update({(place, name): value for name, value in fresh.items()})
        _changes(self.client).setdefault((self.id, place), {}).update(fresh)


def _changes(client: Client) -> Changes:
    """What is about to be sent to a page."""
    if client not in _waiting:
        _waiting[client] = {}
        asyncio.get_running_loop().call_later(LATER, _due, client, LATER)
    return _waiting[client]


def _due(client: Client, waited: float) -> None:
    if client in _expecting and client in _waiting and waited < WITH:
        asyncio.get_running_loop().call_later(LATER, _due, client, waited + LATER)
    else:
        _sent(client)


def _sent(client: Client) -> None:
    changes = _waiting.pop(client, {})
    if changes and not client.is_deleted:
        client.run_javascript(CHANGED % json.dumps([[board, place, news] for (board, place), news in changes.items()]))


def plain(text: str) -> str:
    """A text inside markup or an attribute."""
    return html.escape(text, quote=True)


def icon_button(icon: str, does: str, label: str) -> str:
    """A round button with an icon that can be pressed in."""
    mark = f'<i class="q-icon material-icons" aria-hidden="true">{icon}</i>'
    return f'<button type="button" class="lock" data-click="{does}" aria-label="{plain(label)}" aria-pressed="false">{mark}</button>'


def pick(row: int, label: str, url: str, *, words: str = "", on: bool = False) -> str:
    """A picture to click on, on a board that hears ``pick``."""
    image = f'<img src="{url}" alt="">' if url else ""
    told = f"<span>{plain(words)}</span>" if words else ""
    chosen = ' on" aria-current="true' if on else ""
    named = f'title="{plain(label)}" aria-label="{plain(label)}"'
    return f'<button type="button" class="pick{chosen}" data-row="{row}" data-click="pick" {named}>{image}{told}</button>'


def grid(low: float, high: float, at: float, *, steps: int = 240) -> tuple[float, float, float]:
    """Ends that are no nearer than these, and a step of two digits, so that a slider can stand at a value exactly."""
    step = float(f"{(high - low) / steps:.2g}")
    below, above = math.ceil((at - low) / step - 1e-9), math.ceil((high - at) / step - 1e-9)
    return float(f"{at - below * step:.10g}"), float(f"{at + above * step:.10g}"), step


def expect(client: Client) -> None:
    """A picture was asked for: what else changes travels with it."""
    _expecting.add(client)


def show(image: ui.interactive_image, url: str) -> None:
    """Another picture in the place of the one that is shown."""
    _expecting.discard(image.client)
    if not image.source:
        image.set_source(url)
        return
    with image._props.suspend_updates():
        image.set_source(url)
    _changes(image.client).setdefault((image.id, "img"), {})["picture"] = url
    _sent(image.client)
