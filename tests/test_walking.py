"""The report of walks, run once on a small generator: whole, self-contained, and every sentence made from its measurements."""

from __future__ import annotations

import base64
import json
import re

import pytest
from toys import dcgan_file

from steerable import store, walking
from steerable.scenes.steerability import Plan, Reach, in_words

TINY = Plan(
    fit=16,
    calibration=8,
    people=4,
    limits=16,
    limit_knobs=1,
    spread=4,
    classes=4,
    combined=4,
    trained=8,
    trained_fit=16,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "toy.safetensors").write_bytes(dcgan_file())
    generator = store.load_generator_file(folder / "toy.safetensors")
    assert walking.run(folder / "out", generator=generator, edits=("brightness", "zoom"), plan=TINY) == folder / "out" / "report.html"
    return folder / "out"


@pytest.fixture(scope="module")
def page(out) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_report_links_to_nothing_outside(page):
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*', page) == [] and "http" not in re.sub(r'src="data:[^"]*"', "", page)


def test_every_part_has_its_section_and_every_figure_is_inside(page, out):
    assert all(title in page for title in walking.PARTS.values())
    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', page)]
    assert len(pictures) == page.count("<figcaption>") == len(list((out / "figures").glob("*.png")))
    names = {path.stem for path in (out / "figures").glob("*.png")}
    assert {"walk-zoom", "limits", "variability", "combined-strip", "combined-zoom-brightness", "digits-zoom", "digits-zoom-strip"} <= names


def test_every_result_has_its_n_and_seed(page):
    said = re.findall(r'<p class="result">(.*?)</p>', page, re.DOTALL)
    assert len(said) >= 5 and all(re.search(r"n = \d+", one) and "seed" in one for one in said)


def test_every_figure_says_its_n_seed_and_judge(page):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert [one for one in captions if not (re.search(r"n = \d+", one) and re.search("[Ss]eed", one))] == []


def test_every_sentence_and_table_is_in_a_file_too(out, page):
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert list(found) == list(walking.PARTS.values()) and sum(len(part["tables"]) for part in found.values()) == page.count("<table>")
    assert sum(len(part["said"]) for part in found.values()) == page.count('<p class="result">')


def test_the_walks_with_their_measured_ranges_and_the_options_lie_beside(out):
    control = store.load_control(out / "walks.safetensors")
    assert [knob.name for knob in control.knobs] == ["brightness", "zoom"] and "brightness" in control.fit["limits"]
    assert json.loads((out / "options.json").read_text(encoding="utf-8"))["plan"]["limits"] == 16


def test_the_report_says_in_words_which_edits_a_generator_follows():
    def one(name: str, share: float) -> Reach:
        return Reach(name, "units", 0.25, (share - 0.01, share + 0.01), 0.01, None, "–", 0.5, 48)

    said = in_words("faces64", [one("shift-x", 0.14), one("brightness", 0.75), one("zoom", 0.2)], 1)
    assert said.startswith(
        "faces64 can be brightened to 75 % of the target but zoomed only to about 20 % and shifted sideways only to about 14 %."
    )
    assert "n = 48, seed 1" in said
    assert in_words("x", [one("shift-x", 0.14)], 1).startswith("x can be shifted sideways only to about 14 % of the target.")
    assert in_words("x", [one("red", 0.9), one("zoom", 0.6)], 1).startswith("x can be reddened to 90 % of the target and zoomed to 60 %.")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"edits": ("zom",)}, 'unknown edit "zom": did you mean "zoom"'),
        ({"parts": ("limts",)}, 'unknown part of the report "limts": did you mean "limits"'),
        ({"edits": ()}, "about one edit or more"),
        ({"edits": ("zoom",), "parts": ("combined",)}, "several edits at once are two or more, got zoom"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_before_anything_is_fitted(how, words, out, tmp_path):
    generator = store.load_generator_file(out.parent / "toy.safetensors")
    with pytest.raises(ValueError, match=words):
        walking.run(tmp_path, generator=generator, plan=TINY, **how)
    assert not list(tmp_path.iterdir())
