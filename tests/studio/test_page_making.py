"""A control made on the page: from thirty labels, or from a measured feature."""

from __future__ import annotations

from playwright.sync_api import expect

FACES = ".crowd .pick[aria-label^=face]"


def test_thirty_labels_become_a_slider_with_its_evidence(page, shot, slow):
    page.get_by_role("tab", name="Make").click()
    faces = page.locator(FACES)
    expect(faces).to_have_count(30)
    dark = page.evaluate(
        """async selector => Promise.all([...document.querySelectorAll(selector + ' img')].map(async image => {
            await image.decode(); const c = document.createElement('canvas').getContext('2d'); c.drawImage(image, 0, 0, 8, 8);
            return [...c.getImageData(0, 0, 8, 8).data].reduce((a, b) => a + b) }))""",
        FACES,
    )
    middle = sorted(dark)[15]
    for place, light in enumerate(dark):
        faces.nth(place).click(click_count=1 if light > middle else 2, delay=20)
    expect(page.get_by_text("14 yes, 16 no of 30")).to_be_visible()
    shot(page, "labels")
    page.get_by_label("what is it?").fill("daylight")
    page.get_by_role("button", name="Fit from labels").click()
    expect(page.get_by_role("progressbar", name="progress")).to_be_visible()
    shot(page, "fitting")
    expect(page.locator('[data-knob="daylight"]')).to_be_visible(timeout=120_000 * slow)
    said = page.locator(".answer", has_text="daylight:")
    for words in ("judged by a head that did not see it (5 folds)", "ten-fold", "range", "Moves most beside it"):
        expect(said).to_contain_text(words)
    shot(page, "made")


def test_a_fit_that_is_cancelled_says_that_its_work_is_kept(page, slow):
    page.get_by_role("tab", name="Make").click()
    page.get_by_label("feature", exact=True).fill("green")
    page.get_by_role("option", name="green", exact=True).click()
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled. What was measured is kept")).to_be_visible(timeout=60_000 * slow)
