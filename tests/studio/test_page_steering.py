"""Sliders, locks, values and history, in a browser."""

from __future__ import annotations

import re

from hand import dragged, settled, turned
from playwright.sync_api import expect


def test_a_drag_moves_the_picture_and_is_one_step(page, shot):
    before = settled(page)
    dragged(page, "yaw", 0.75)
    expect(page.locator(".steps .pick")).to_have_count(2)
    expect(page.locator('[data-knob="yaw"] .amount').first).not_to_have_value("0")
    assert settled(page) != before
    expect(page.locator('[data-column="yaw"]')).to_have_class(re.compile("turned"))
    shot(page, "drag")


def test_undo_and_redo_go_one_step(page, shot):
    turned(page, "yaw", "15")
    turned(page, "brightness", "0.2")
    page.get_by_role("button", name="undo").click()
    expect(page.locator('[data-knob="brightness"] .amount').first).to_have_value("0")
    expect(page.locator('[data-knob="yaw"] .amount').first).to_have_value("15")
    shot(page, "undo")
    page.get_by_role("button", name="redo").click()
    expect(page.locator('[data-knob="brightness"] .amount').first).to_have_value("0.2")
    expect(page.locator(".steps .pick")).to_have_count(3)
    shot(page, "redo")


def test_a_lock_shows_its_leak_and_turns_red_beyond_its_tolerance(page, shot):
    page.get_by_role("button", name="lock brightness", exact=True).click()
    turned(page, "yaw", "25")
    row = page.locator('[data-knob="brightness"]')
    expect(row.locator(".says")).to_contain_text("full scale")
    expect(row.locator("input[type=range]")).to_be_disabled()
    shot(page, "lock")
    tolerance = row.get_by_label("tolerance of brightness")
    tolerance.fill("0.0001")
    expect(row.locator(".says")).to_contain_text("did not hold")
    expect(row.locator(".leak")).to_have_class(re.compile("bad"))
    shot(page, "leak-meter")
    tolerance.fill("5")
    expect(row.locator(".says")).to_contain_text("held")


def test_a_column_without_a_slider_is_locked_too(page):
    page.get_by_role("button", name="hold fearful").click()
    line = page.locator('[data-column="fearful"]')
    expect(line).to_have_class(re.compile("held"))
    expect(line).to_contain_text("of ±")


def test_a_number_beyond_the_range_works_and_is_marked_and_a_double_click_resets_it(page):
    turned(page, "yaw", "-70")
    row = page.locator('[data-knob="yaw"]')
    expect(row).to_have_class(re.compile("beyond"))
    expect(row.get_by_text("beyond its range")).to_be_visible()
    row.locator("input[type=range]").dblclick()
    expect(row.locator(".amount").first).to_have_value("0")
    expect(row).not_to_have_class(re.compile("beyond"))


def test_a_value_is_set_and_answered_with_both_judges_and_what_is_reachable(page, shot, slow):
    line = page.get_by_label("Set a value")
    line.fill("yaw 12")
    line.press("Enter")
    answer = page.locator(".answer").first
    expect(answer).to_contain_text("asked 12 deg, measured", timeout=60_000 * slow)
    expect(answer).to_contain_text("yaw68 says")
    expect(answer).to_contain_text("reachable for this person")
    shot(page, "set-a-value")
    line.fill("yaww 12")
    line.press("Enter")
    expect(answer).to_contain_text('did you mean "yaw"')


def test_the_search_leaves_what_it_finds(page):
    page.get_by_label("search controls").fill("mouth")
    expect(page.locator('[data-knob="yaw"]')).to_be_hidden()
    expect(page.locator('[data-knob="mouth-open"]')).to_be_visible()
    page.get_by_label("search controls").fill("")
    expect(page.locator('[data-knob="yaw"]')).to_be_visible()


def test_another_seed_is_picked_from_the_population(page):
    page.get_by_role("button", name="seed 7", exact=True).click()
    expect(page.get_by_label("seed", exact=True)).to_have_value("7")
    expect(page.locator(".steps .pick.on")).to_contain_text("seed 7")


def test_a_page_can_be_read_on_a_phone_in_the_dark_and_everything_has_a_name(visitor, shot):
    page = visitor(width=390, height=844, dark=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, [role=slider]')].filter(e => !(e.ariaLabel || e.textContent.trim() || e.title ||"
        " e.closest('[aria-label]') || e.closest('label')?.textContent.trim())).map(e => e.outerHTML.slice(0, 120))"
    )
    assert nameless == []
    shot(page, "phone", whole=True)
