"""The page: everything inside, nothing outside, and no number without where it comes from."""

from __future__ import annotations

import re

import pytest

from steerable import report
from steerable.report import Figure, Section, Table, Text

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (640).to_bytes(4, "big") + (480).to_bytes(4, "big") + b"pixels"


def page() -> str:
    table = Table("Errors.", ("asked", "n", "seeds", "judge"), (("20", "24", "1000–1023", "face mesh"),))
    sections = [Section("Yaw, set by number!", (Text("a < b & c", "result"), Figure("yaw", PNG, 'said "so"'), table))]
    return report.html("Title", "Opening", sections, [("Seconds", "12")])


def test_text_from_outside_is_escaped():
    assert "a &lt; b &amp; c" in page()


def test_a_figure_is_inside_the_page():
    assert Figure("yaw", PNG, "").source in page()


def test_the_page_links_to_nothing_outside():
    assert re.findall(r'(?:src|href)="(?!#|data:)', page()) == []


def test_the_contents_lead_to_the_sections():
    assert 'href="#yaw-set-by-number"' in page() and 'id="yaw-set-by-number"' in page()


def test_a_table_without_provenance_is_refused():
    with pytest.raises(ValueError, match='"Leak." has no column seeds, judge'):
        Table("Leak.", ("axis", "n"), (("yaw", "24"),))


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="the header's 3 cells, got 2"):
        Table("Leak.", ("n", "seeds", "judge"), (("24", "1"),))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00065, "0.00065"), (0.1, "0.10"), (12.34, "12"), (1240.4, "1240"), (-3.36, "−3.4"), (0.0, "0"), (-1e-12, "0"), (float("nan"), "–")],
)
def test_numbers_have_two_digits_and_no_exponent(value, text):
    assert report.number(value, 2) == text


@pytest.mark.parametrize(("value", "text"), [(2.0, "+2.0"), (-2.0, "−2.0"), (0.0, "0")])
def test_changes_carry_their_sign(value, text):
    assert report.signed(value) == text


def test_the_width_of_a_figure_is_read_from_its_file():
    assert Figure("yaw", PNG, "").width == 640
