"""Boxes to hold, and driving, in a browser."""

from __future__ import annotations

from hand import boxed, driven
from playwright.sync_api import expect


def test_driving_with_nothing_held_says_what_to_do(page):
    page.get_by_role("tab", name="Drive").click()
    page.locator(".wheel").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".told")).to_contain_text("draw a box on the picture")


def test_a_box_is_held_while_a_button_drives_the_rest_as_one_step(page, shot, slow):
    boxed(page)
    assert page.locator(".big svg rect").count() == 2
    shot(page, "box")
    driven(page, r"[2-9] steps: moved", patience=60_000 * slow)
    expect(page.locator(".told")).to_contain_text("box 1: held")
    expect(page.locator(".steps .pick")).to_have_count(3)
    expect(page.locator(".ledger-line:visible").first).to_be_visible()
    shot(page, "drive")
    page.get_by_role("button", name="undo").click()
    expect(page.locator(".steps .pick.on")).to_contain_text("hold box")


def test_arrow_keys_drive_and_a_lock_is_held_with_the_box(page, slow):
    page.get_by_role("button", name="lock brightness", exact=True).click()
    boxed_too = page.get_by_role("tab", name="Drive")
    boxed_too.click()
    expect(page.get_by_text("Held: brightness.")).to_be_visible()
    page.locator(".wheel").focus()
    page.keyboard.down("ArrowUp")
    expect(page.locator(".told")).to_contain_text("steps: moved", timeout=60_000 * slow)
    page.keyboard.up("ArrowUp")
    expect(page.locator(".told")).to_contain_text("brightness: held")
