"""``steer limits`` and ``steer variability``: what they write, and each mistake's one line. On DCGANs of 16 pixels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import dcgan_file

from steerable import store
from steerable.controls.directions import Directions
from steerable.generators.dcgan import DCGAN
from steerable.generators.module import generator_of
from steerable.protocols import Knob

OWN = """
import steerable as st

AREA = st.feature(lambda images: (images > 0).float().mean((1, 2, 3)), name="white", unit="of the image")
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "toy.safetensors").write_bytes(dcgan_file())
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    walk("toy.safetensors", folder, "brightness", "shift-x")
    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        network = DCGAN(widths=[10, 8, 4, 1], first=4, classes=4, embedding=2)
    state = network.state_dict()
    drawn = {key: 0.3 * torch.randn(value.shape, generator=rng) for key, value in network.named_parameters()}
    network.load_state_dict(state | drawn)
    store.save_generator(generator_of(network, name="four"), folder / "four.safetensors")
    walk("four.safetensors", folder, "brightness")
    labels = np.arange(80) % 4
    levels = np.random.default_rng(0).normal(size=80) * (1 + labels) * 20 + 128
    images = np.broadcast_to(levels.clip(0, 255).astype(np.uint8)[:, None, None], (80, 16, 16))
    np.savez(folder / "data.npz", images=images, labels=labels)
    np.savez(folder / "plain.npz", images=images)
    np.savez(folder / "three.npz", images=images, labels=labels % 3)
    (folder / "empty").mkdir()
    return folder


def walk(file: str, folder: Path, *names: str) -> None:
    """A direction for each name; nothing is fitted here."""
    generator = store.load_generator_file(folder / file)
    space = generator.spaces["z"]
    vectors = torch.randn(len(names), *space.shape, generator=torch.Generator().manual_seed(1))
    knobs = tuple(Knob(name, "units", -0.5, 0.5) for name in names)
    store.save_control(Directions(knobs, space, vectors, fit={"method": "by hand"}), folder / f"{Path(file).stem}-walk.safetensors")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


LIMITS = "limits toy-walk.safetensors -g toy.safetensors --n 16 --threshold 1000"


def test_limits_are_written_back_into_the_control_and_repeat_themselves(steer, work):
    whole = (work / "toy-walk.safetensors").read_bytes()
    said = steer(f"{LIMITS} --amounts brightness=-1:1:3 --out one")
    assert "usable ranges" in said and "the ranges in toy-walk.safetensors" in said
    control = store.load_control(work / "toy-walk.safetensors")
    report = {one["knob"]: one for one in json.loads((work / "one" / "limits.json").read_text(encoding="utf-8"))}
    for knob in control.knobs:
        assert [knob.low, knob.high] == [report[knob.name]["usable"][end] for end in ("low", "high")]
        assert control.fit["limits"][knob.name]["range_before"] == [-0.5, 0.5]
    table = rows(work / "one" / "limits.csv")
    assert [float(row["amount"]) for row in table if row["knob"] == "brightness"] == [-1, 0, 1]
    assert len([row for row in table if row["knob"] == "shift-x"]) == 9
    assert (work / "one" / "limits.png").read_bytes()[:4] == b"\x89PNG"
    steer(f"{LIMITS} --amounts brightness=-1:1:3 --out two")
    assert (work / "two" / "limits.csv").read_bytes() == (work / "one" / "limits.csv").read_bytes()
    (work / "toy-walk.safetensors").write_bytes(whole)


def test_a_control_may_stay_as_it_is(steer, work):
    whole = (work / "toy-walk.safetensors").read_bytes()
    said = steer(f"{LIMITS} --knobs shift-x --amounts shift-x=0.5 --keep --out kept")
    assert "the ranges in kept/toy-walk.safetensors" in said and (work / "toy-walk.safetensors").read_bytes() == whole
    kept = store.load_control(work / "kept" / "toy-walk.safetensors")
    assert list(kept.fit["limits"]) == ["shift-x"] and kept.knobs[0] == store.load_control(work / "toy-walk.safetensors").knobs[0]


def test_the_detector_may_be_a_column_or_one_of_the_user_s(steer, work):
    more = "--keep --amounts brightness=0.5 --amounts shift-x=0.5 --out seen"
    steer(f"{LIMITS} {more} --attribute shift-x=extent --attribute brightness=own.py:AREA --foreground person")
    report = {one["knob"]: one for one in json.loads((work / "seen" / "limits.json").read_text(encoding="utf-8"))}
    assert (report["shift-x"]["attribute"], report["brightness"]["attribute"]) == ("extent", "white")
    assert report["brightness"]["attribute_unit"] == "of the image"


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ("--n 15", ["--n takes 16 images or more", "got 15"]),
        ("--n 256 --fid", ["--fid takes --n 1281 or more", "256 images lacks rank", "kernel distance has no such bias"]),
        ("--knobs zoom", ['unknown knob "zoom"']),
        ("--knobs shift-x,shift-x", ["--knobs names one twice"]),
        ("--amounts zoom=1", ['unknown knob "zoom"']),
        ("--amounts shift-x=far", ["--amounts takes up to 100 amounts", "shift-x=far"]),
        ("--amounts shift-x=1 --amounts shift-x=2", ['--amounts names "shift-x" twice']),
        ("--amounts shift-x=0 --knobs shift-x", ["at least one amount besides the neutral 0"]),
        ("--attribute shift-x=nose", ['unknown feature "nose"']),
        ("--attribute zoom=area", ['unknown knob "zoom"']),
        ("--attribute shift-x=own.py:NOSE", ['own.py has no "NOSE", but AREA. A feature of your own is FILE.py:NAME with']),
        ("--attribute shift-x=lost.safetensors", ["lost.safetensors does not exist"]),
        ("--foreground sky", ['unknown foreground "sky"', "border, person"]),
        ("--label 2", ["toy has no classes: leave out --label 2"]),
        ("--threshold -9 --knobs shift-x --amounts shift-x=1", ["says nothing: give a larger one"]),
        ("--out toy.safetensors", ["toy.safetensors is a file"]),
        ("-g four.safetensors", ["toy-walk.safetensors was fitted on toy", "this generator is four"]),
    ],
)
def test_limits_that_cannot_be_measured_are_refused_in_one_line(more, parts, refused):
    said = refused(f"limits toy-walk.safetensors -g toy.safetensors --n 16 {more}")
    assert all(part in said for part in parts), said


def test_a_knob_that_nothing_belongs_to_is_told_what_to_type(refused, work):
    control = store.load_control(work / "toy-walk.safetensors")["shift-x"]
    own = Directions((Knob("sparkle", "", -1, 1),), control.space, control.vectors)
    store.save_control(own, work / "own-walk.safetensors")
    said = refused("limits own-walk.safetensors -g toy.safetensors --n 16")
    assert '"sparkle"' in said and "--attribute sparkle=COLUMN" in said


VARIABILITY = "variability four-walk.safetensors -g four.safetensors --n 8"


def test_variability_relates_classes_to_the_data(steer, work):
    names = "--names nil,eins,zwei,drei --contrast eins,zwei"
    said = steer(f"{VARIABILITY} --data data.npz --amount brightness=0.5 {names} --out var")
    assert "delta mu against sigma: r" in said and "n 4 classes" in said and "eins against zwei, change of luminance" in said
    table = rows(work / "var" / "variability.csv")
    sigma = [float(row["sigma"]) for row in table]
    assert sigma == sorted(sigma) and sigma[3] == pytest.approx(4 * 20 / 255, rel=0.3) and {row["pictures"] for row in table} == {"20"}
    (report,) = json.loads((work / "var" / "variability.json").read_text(encoding="utf-8"))
    assert report["amount"] == 0.5 and report["relation"]["n"] == 4 and report["sigma_from"] == "data.npz" and len(report["contrasts"]) == 2
    assert (work / "var" / "variability.png").read_bytes()[:4] == b"\x89PNG"


def test_without_data_and_amount_both_are_found(steer, work):
    said = steer(f"{VARIABILITY} --quality-n 16 --threshold 5 --classes 0-2 --out found")
    assert "sigma: the generator's own samples" in said and "alpha*" in said and "kernel distance 5 on both sides" in said
    assert len(rows(work / "found" / "variability.csv")) == 3


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ("--classes 0-9", ["has the classes 0 to 3, got 4, 5"]),
        ("--classes 0,1", ["3 different classes or more, got 2"]),
        ("--n 1", ["--n takes 2 images or more, got 1"]),
        ("--quality-n 8", ["--quality-n takes 16 images or more, got 8"]),
        ("--data three.npz", ["three.npz has 3 classes, four", "has 4: class i of the data"]),
        ("--data lost", ["lost is not there"]),
        ("--data empty", ["empty"]),
        ("--data own.py", ["own.py"]),
        ("--data plain.npz", ["plain.npz has no classes"]),
        ("--amount brightness=0", ["an amount above 0"]),
        ("--amount brightness=far", ["--amount takes a number above 0", '"far"']),
        ("--amount zoom=1", ['unknown knob "zoom"']),
        ("--contrast 0", ["--contrast names two classes with a comma", '"0"']),
        ("--contrast 0,robin --amount brightness=0.1", ['unknown class "robin"']),
        ("--names a,b --amount brightness=0.1", ["one name a class: 4 classes, got 2 names"]),
        ("--threshold 1e-9 --quality-n 16", ["threshold"]),
        ("-g toy.safetensors", ["was fitted on four"]),
    ],
)
def test_variability_that_cannot_be_measured_is_refused_in_one_line(more, parts, refused):
    said = refused(f"{VARIABILITY} {more}")
    assert all(part in said for part in parts), said


def test_a_generator_without_classes_has_no_variability(refused):
    assert "has no classes: variability compares" in refused("variability toy-walk.safetensors -g toy.safetensors --knobs shift-x")
