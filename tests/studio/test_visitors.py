"""Several people at once, each in a browser of their own: nobody's state is seen by another."""

from __future__ import annotations

from playwright.sync_api import expect


def test_a_page_shows_a_picture_and_says_that_it_is_synthetic(page, shot):
    expect(page.get_by_text("synthetic").first).to_be_visible()
    assert page.locator(".big img").first.evaluate("image => image.naturalWidth") == 64
    shot(page, "first")
