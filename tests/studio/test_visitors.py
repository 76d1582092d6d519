"""Several people at once, each in a browser of their own: nobody's state is seen by another, and the last thing asked is what is shown."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from hand import PICTURE, STEPS, picture, settled, shows
from playwright.sync_api import Page, expect

# What a hand does to a slider, without the hand: so many events in so many milliseconds, then it lets go at the last place.
DRAG = """async ([name, places, pause]) => {
  const slider = document.querySelector(`input[type=range][aria-label="${name}"]`);
  for (const place of places) {
    slider.value = place;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    await new Promise(resolve => setTimeout(resolve, pause));
  }
  slider.dispatchEvent(new Event('change', {bubbles: true}));
  return slider.valueAsNumber;
}"""


def drag(page: Page, name: str, places: list[float], *, pause: int = 20) -> float:
    return page.evaluate(DRAG, [name, places, pause])


def test_a_page_shows_a_picture_and_says_that_it_is_synthetic(page, shot):
    expect(page.get_by_text("synthetic").first).to_be_visible()
    assert page.locator(PICTURE).first.evaluate("image => image.naturalWidth") == 64
    shot(page, "first")


def test_fifty_events_in_a_second_end_on_the_last_value_in_one_step(page):
    first = settled(page)
    end = drag(page, "yaw", [0.3 * i for i in range(1, 51)])
    expect(page.locator(STEPS)).to_have_count(2, timeout=30_000)
    last = settled(page)
    assert last != first
    expect(page.get_by_label(re.compile("^yaw amount"))).to_have_value(f"{end:.4g}")
    page.get_by_label("undo").click()
    shows(page, first)
    page.get_by_label("redo").click()
    shows(page, last)


def test_two_visitors_share_nothing(visitor):
    one, two = visitor(), visitor()
    before = settled(two)
    drag(one, "yaw", [10.0, 20.0])
    expect(one.locator(STEPS)).to_have_count(2, timeout=30_000)
    assert settled(one) != before
    assert picture(two) == before and two.locator(STEPS).count() == 1
    drag(two, "brightness", [0.05])
    expect(two.locator(STEPS)).to_have_count(2, timeout=30_000)
    assert one.get_by_label("brightness", exact=True).input_value() == "0" and two.get_by_label("yaw", exact=True).input_value() == "0"


def link(**fields: object) -> str:
    packed = zlib.compress(json.dumps({"generator": "faces64", "seed": 0, **fields}).encode())
    return "/?state=" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def test_a_latent_that_is_not_finite_is_said_and_disturbs_nobody(visitor, studio):
    with urllib.request.urlopen(f"{studio.url}/api/controls") as answer:
        (entry, *_) = json.load(answer)
    offset = base64.b64encode(np.full(entry["latent_shape"], np.nan, dtype="<f4").tobytes()).decode()
    other = visitor()
    page = visitor(link(fingerprint=entry["fingerprint"], offset=offset), shown=False)
    expect(page.get_by_role("alert").first).to_contain_text("finite", timeout=30_000)
    before = settled(other)
    drag(other, "yaw", [15.0])
    expect(other.locator(STEPS)).to_have_count(2, timeout=30_000)
    assert settled(other) != before


def test_a_request_that_fails_disturbs_nobody(page, studio):
    before = settled(page)
    wrong = urllib.request.Request(f"{studio.url}/api/render", b'{"seeds": [0]}', {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="422"):
        urllib.request.urlopen(wrong)
    drag(page, "yaw", [15.0])
    expect(page.locator(STEPS)).to_have_count(2, timeout=30_000)
    page.wait_for_function("url => document.querySelector('.big img').src !== url", arg=before)
