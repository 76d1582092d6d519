"""What a visitor's hand does on the studio's page, by Playwright: for the tests in ``studio`` and for ``tools/photograph_studio.py``."""

from __future__ import annotations

import re
import shutil

from playwright.sync_api import Page, expect

PICTURE = ".big img"
STEPS = ".steps .pick"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """The Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def picture(page: Page) -> str:
    """The address of the steered picture: its pixels."""
    return page.locator(PICTURE).first.get_attribute("src") or ""


def settled(page: Page) -> str:
    """The picture of a new step of the history, when it has come: the step has its small picture from then on."""
    expect(page.locator(f"{STEPS}.on img")).to_have_count(1)
    page.wait_for_function("() => { const one = document.querySelector('.big img'); return one.complete && !one.waiting; }")
    return picture(page)


def shows(page: Page, url: str) -> None:
    """Wait until the page shows this picture, byte for byte."""
    page.wait_for_function("url => document.querySelector('.big img').src === url", arg=url)


def turned(page: Page, knob: str, amount: str) -> None:
    """Type an amount, and wait until it is one step of the history."""
    field = page.locator(f'[data-knob="{knob}"] .amount')
    field.fill(amount)
    field.press("Enter")
    expect(page.locator(f"{STEPS}.on")).to_contain_text(knob)


def dragged(page: Page, knob: str, share: float) -> None:
    """Take a slider's thumb and carry it to a share of the rail, in many small moves."""
    rail = page.locator(f'[data-knob="{knob}"] input[type=range]')
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + share * box["width"], y, steps=12)
    page.mouse.up()


def boxed(page: Page) -> None:
    """Draw a box around the eyes and put the pen away."""
    page.get_by_role("tab", name="Drive").click()
    pen = page.get_by_role("button", name="Draw boxes")
    pen.click()
    expect(page.locator(".big")).to_have_class(re.compile("drawing"))
    page.locator(".big").scroll_into_view_if_needed()  # on a phone the pen is far below the picture
    frame = page.locator(".big").bounding_box()
    assert frame is not None
    x, y, side = frame["x"], frame["y"], frame["width"]
    page.mouse.move(x + 0.25 * side, y + 0.3 * side)
    page.mouse.down()
    page.mouse.move(x + 0.75 * side, y + 0.5 * side, steps=6)
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"Held: 1 box"))).to_be_visible()
    pen.click()
    expect(page.locator(".big")).not_to_have_class(re.compile("drawing"))


def driven(page: Page, words: str, *, patience: float) -> None:
    """Hold the button to the right until the drive says so; let go, and wait until it is a step of the history.

    Args:
        words: a regular expression.
        patience: milliseconds.
    """
    page.get_by_role("button", name="drive right").hover()
    page.mouse.down()
    expect(page.locator(".told")).to_contain_text(re.compile(words), timeout=patience)
    page.mouse.up()
    expect(page.locator(f"{STEPS}.on")).to_contain_text("drive", timeout=patience)
