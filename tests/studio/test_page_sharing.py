"""Links, pictures with a recipe, batches and what is dropped, in a browser."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

from hand import settled, shows, turned
from playwright.sync_api import Page, expect

from steerable import recipe


def shared(page: Page) -> None:
    page.get_by_role("tab", name="Share").click()


def test_a_link_restores_the_state_for_somebody_else_and_a_cut_one_says_why(page, visitor, shot):
    turned(page, "yaw", "18")
    page.get_by_role("button", name="lock brightness", exact=True).click()
    expect(page.locator(".steps .pick.on")).to_contain_text("lock brightness")
    shared(page)
    page.get_by_role("button", name="Link", exact=True).click()
    text = page.get_by_label("recipe", exact=True)
    expect(text).to_contain_text("?state=")
    link = text.inner_text()
    shot(page, "link")
    other = visitor(link)
    expect(other.locator('[data-knob="yaw"] .amount').first).to_have_value("18")
    expect(other.get_by_role("button", name="lock brightness", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(other.locator(".says").first).to_contain_text("held")
    shows(other, settled(page))
    shot(other, "link-restored")
    cut = visitor(link[:-20])
    expect(cut.get_by_role("alert")).to_contain_text("cut or changed")


def test_a_page_that_is_loaded_again_shows_what_it_showed(visitor):
    page = visitor()
    turned(page, "yaw", "18")
    page.get_by_role("button", name="lock brightness", exact=True).click()
    expect(page.locator(".steps .pick.on")).to_contain_text("lock brightness")
    expect(page).to_have_url(re.compile(r"\?state="))
    before = settled(page)
    page.reload()
    expect(page.locator('[data-knob="yaw"] .amount').first).to_have_value("18")
    expect(page.get_by_role("button", name="lock brightness", exact=True)).to_have_attribute("aria-pressed", "true")
    shows(page, before)


def test_two_visitors_share_nothing(page, visitor, shot):
    other = visitor()
    before = settled(other)
    turned(page, "yaw", "25")
    expect(other.locator('[data-knob="yaw"] .amount').first).to_have_value("0")
    turned(other, "smile", "8")
    expect(page.locator('[data-knob="smile"] .amount').first).to_have_value("0")
    assert settled(other) != before
    expect(page.locator(".steps .pick")).to_have_count(2)
    shot(page, "one-visitor")
    shot(other, "another-visitor")


def test_a_saved_picture_carries_its_recipe_and_opens_where_it_is_dropped(page, visitor, shot, tmp_path):
    turned(page, "smile", "9")
    shared(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Image").click()
    path = tmp_path / "steered.png"
    download.value.save_as(path)
    assert recipe.read(path).turn is not None
    assert b"trainedAlgorithmicMedia" in path.read_bytes()
    other = visitor()
    shared(other)
    other.locator("input[type=file]").set_input_files(str(path))
    expect(other.locator('[data-knob="smile"] .amount').first).to_have_value("9")
    expect(other.locator(".steps .pick.on")).to_contain_text("recipe of seed 1")
    shot(other, "picture-opened")


def test_a_broken_file_is_named_and_nothing_is_lost(page, shot, tmp_path):
    turned(page, "yaw", "10")
    shared(page)
    broken = {"half.png": b"\x89PNG\r\n\x1a\n" + 40 * b"\0", "page.safetensors": b"<html>not found</html>", "weights.pkl": b"\x80\x04."}
    for name, content in broken.items():
        path = tmp_path / (name if not name.endswith("pkl") else "weights.safetensors")
        path.write_bytes(content)
        page.locator("input[type=file]").set_input_files(str(path))
        expect(page.get_by_role("alert")).not_to_be_empty()
        expect(page.locator('[data-knob="yaw"] .amount').first).to_have_value("10")
    shot(page, "broken-file")


def test_a_batch_is_a_sheet_and_a_table_of_measured_values(page, shot, tmp_path, slow):
    turned(page, "brightness", "0.2")
    shared(page)
    page.get_by_label("how many").fill("3")
    with page.expect_download(timeout=60_000 * slow) as download:
        page.get_by_role("button", name="Batch").click()
    expect(page.get_by_text("saved batch.zip")).to_be_visible()
    shot(page, "batch")
    with zipfile.ZipFile(download.value.path()) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("measured.csv").decode())))
        sheet = tmp_path / "sheet.png"
        sheet.write_bytes(archive.read("sheet.png"))
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    assert all(float(row["brightness-after"]) > float(row["brightness-before"]) for row in rows)
    assert recipe.read(sheet).seeds == (0, 1, 2)


def test_a_film_of_the_way_is_saved(page, tmp_path, slow):
    turned(page, "yaw", "20")
    shared(page)
    page.get_by_label("seconds").fill("0.5")
    with page.expect_download(timeout=60_000 * slow) as download:
        page.get_by_role("button", name="MP4").click()
    content = Path(download.value.path()).read_bytes()
    assert content[4:8] == b"ftyp"
