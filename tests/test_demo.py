"""A shortened demo, run once: what it writes is whole, self-contained, and says where its numbers come from."""

from __future__ import annotations

import base64
import csv
import json
import re

import pytest

from steerable import demo, drawing, files, recipe, render, store, zoo


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of one quick run."""
    folder = tmp_path_factory.mktemp("demo")
    assert demo.run(folder, plan=demo.QUICK) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(out) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_report_links_to_nothing_outside(page):
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*', page) == [] and "http" not in re.sub(r'src="data:[^"]*"', "", page)


def test_every_figure_of_the_report_is_embedded_and_captioned(page):
    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', page)]
    assert len(pictures) == page.count("<figure") == page.count("<figcaption>") >= 18
    assert all(picture.startswith(b"\x89PNG") and b"IEND" in picture[-12:] for picture in pictures)


def test_every_table_row_has_its_n_seeds_and_judge(page):
    for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
        header = re.findall(r"<th[^>]*>(.*?)</th>", table)
        places = [header.index(name) for name in ("n", "seeds", "judge")]
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table) if "<td" in row]
        assert rows and all(row[place] for row in rows for place in places)


def test_every_sentence_with_a_result_has_its_n(page):
    said = re.findall(r'<p class="result">(.*?)</p>', page, re.DOTALL)
    assert said and all(re.search(r"n = \d+", one) for one in said)


def test_every_contents_entry_leads_somewhere(page):
    assert set(re.findall(r'href="#([^"]+)"', page)) == set(re.findall(r'<section id="([^"]+)"', page))


def test_only_whole_files_are_left(out):
    kinds = {".png": "a PNG image", ".safetensors": "a safetensors file", ".parquet": "a Parquet file"}
    written = [path for path in out.rglob("*") if path.is_file()]
    assert [path for path in written if path.name.endswith(".part") or files.sniff(path) != kinds.get(path.suffix, files.sniff(path))] == []


def test_the_saved_controls_load_for_the_generator(out):
    generator = zoo.load_generator("faces64")
    names = [
        [knob.name for knob in store.load_control(out / "controls" / f"{one}.safetensors", generator=generator).knobs]
        for one in ("axes", "walks")
    ]
    assert {"yaw", "smile", "brightness"} <= set(names[0]) and names[1][-1] == "rotate" and len(names[1]) == 9


def test_a_picture_with_a_recipe_is_drawn_again_byte_for_byte(out, tmp_path):
    first = next((out / "figures").glob("seed-*-smile.png"))
    again = drawing.write(recipe.parse(render.read_recipe(first), what=str(first)), zoo.load_generator("faces64"), tmp_path / "again.png")
    assert again.read_bytes() == first.read_bytes()


def test_every_measured_face_has_its_seed_and_judge(out):
    with (out / "measured.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 100 and all(row["seed"] and row["judge"] and row["unit"] and row["measured"] for row in rows)


def test_the_options_say_how_long_each_stage_took(out):
    options = json.loads((out / "options.json").read_text(encoding="utf-8"))
    assert options["seed"] == 0 and options["plan"]["population"] == demo.QUICK.population and min(options["seconds"].values()) >= 0
