"""Walks at the command line: what they are fitted to, panels, films, each mistake's one line. On a DCGAN of 16 pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import dcgan_file

from steerable import store
from steerable.cli import execute
from steerable.controls.chain import Chain
from steerable.controls.directions import Directions
from steerable.controls.walk import Walk

OWN = """
import steerable as st

def gamma(images, amounts):
    return images.add(1).div(2).clamp(0).pow(2 ** -amounts[:, None, None, None]) * 2 - 1

def breaking(images, amounts, calls=[]):
    calls.append(1)
    return images * (1 if len(calls) < 6 else float("nan"))

GAMMA = st.as_edit(gamma, st.Knob("gamma", "stops", -1, 1))
BREAKING = st.as_edit(breaking, st.Knob("breaking", "", -1, 1))
OTHER = 3
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walks")
    (folder / "toy.safetensors").write_bytes(dcgan_file())
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    (folder / "broken.py").write_text("1 / 0", encoding="utf-8")
    region = np.zeros((16, 16), dtype=np.uint8)
    region[4:9, 2:7] = 255
    Image.fromarray(region).save(folder / "Left_eye.png")
    Image.fromarray(region[:8]).save(folder / "small.png")
    Image.fromarray(region * 0).save(folder / "black.png")
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    return folder


@pytest.fixture
def steer(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a command line that goes well; what it printed."""
    monkeypatch.chdir(work)

    def run(line: str) -> str:
        capsys.readouterr()
        code = execute(line.split())
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def refused(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a command line that is refused: its one line. No file may have come or gone but those under ``-kept``."""
    monkeypatch.chdir(work)

    def run(line: str) -> str:
        before = {path for path in work.rglob("*") if "-kept" not in path.name}
        capsys.readouterr()
        code = execute(line.split())
        captured = capsys.readouterr()
        assert code == 2 and captured.err.count("\n") == 1 and "Traceback" not in captured.err, captured.err
        assert {path for path in work.rglob("*") if "-kept" not in path.name} == before
        return captured.err

    return run


FIT = "fit walks {edits} -g toy.safetensors --n 32 --out {out}.safetensors"


def fitted(steer: Callable[[str], str], work: Path, out: str, edits: str, more: str = "") -> object:
    if not (work / f"{out}.safetensors").exists():
        steer(FIT.format(edits=edits, out=out) + f" {more}")
    return store.load_control(work / f"{out}.safetensors")


# ------------------------------------------------------------------ fitting


def test_straight_walks_fitted_alone_are_one_control_that_adds_them_up(steer, work):
    control = fitted(steer, work, "alone", "brightness,zoom")
    assert isinstance(control, Directions) and [knob.name for knob in control.knobs] == ["brightness", "zoom"]


def test_a_joint_fit_has_one_record_for_all_of_its_knobs(steer, work):
    control = fitted(steer, work, "joint", "brightness,zoom", "--joint --optimiser adam --lr 0.05")
    assert control.fit["edits"] == ["brightness", "zoom"] and control.fit["optimiser"] == "adam" and control.fit["lr"] == 0.05


def test_curved_walks_are_a_chain_and_a_single_one_is_a_walk(steer, work):
    control = fitted(steer, work, "curved", "brightness,zoom", "--curved --steps 3")
    assert isinstance(control, Chain) and [part.fit["steps"] for part in control.parts] == [3, 3]
    assert all("calibration" in part.fit for part in control.parts)
    assert isinstance(fitted(steer, work, "single", "brightness", "--curved"), Walk)


@pytest.mark.parametrize(("region", "name"), [("2,3,9,12", "box-red"), ("Left_eye.png", "left-eye-red")])
def test_a_region_names_the_knobs(region, name, steer, work):
    control = fitted(steer, work, name, "colour", f"--within {region}")
    assert control.knobs[0].name == name and len(control.knobs) == 3


def test_the_person_may_be_the_region_and_the_look_the_loss(steer, work):
    text = steer("fit walks brightness -g toy.safetensors --n 16 --within person --loss perceptual --out person.safetensors")
    assert "person-brightness" in text
    assert store.load_control(work / "person.safetensors").fit["loss"] == "perceptual"
    assert json.loads((work / "person.json").read_text(encoding="utf-8"))["within"] == "person"


def test_a_function_of_the_user_s_is_an_edit(steer, work):
    control = fitted(steer, work, "gamma", "own.py:GAMMA")
    assert (control.knobs[0].name, control.knobs[0].unit) == ("gamma", "stops")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("zoom,zoom", ["name each edit once"]),
        ("red,colour", ["name each edit once"]),
        ("zom", ['did you mean "zoom"']),
        ("shift-x --reach 2", ['"shift-x" by -2 image widths leaves 0.0 % of a 16 x 16 picture known', "usual range is -0.5 to 0.5"]),
        ("brightness,shift-x --reach 2 --within 2,2,9,9", ["leaves 0.0 %"]),
        ("zoom --reach 0", ["--reach is a finite amount above 0"]),
        ("zoom --label 3", ["toy has no classes: leave out --label 3"]),
        ("zoom --loss lpips", ['unknown loss "lpips"', "perceptual, squared"]),
        ("zoom --optimiser sgd", ['unknown optimiser "sgd"']),
        ("zoom --curved --optimiser eigenbasis", ["which adam fits"]),
        ("zoom --curved --joint", ["imitates one edit"]),
        ("zoom --curved --steps 0", ["--steps", "--help"]),
        ("zoom --lr 0", ["--lr is a finite rate above 0"]),
        ("zoom --space w", ['unknown latent space "w"']),
        ("red --within 2,2,99,9", ["the box 2,2,99,9", "16 x 16"]),
        ("red --within somewhere", ["--within takes person, a box", '"somewhere"']),
        ("red --within lost.png", ["lost.png does not exist"]),
        ("red --within text.png", ["text.png is no picture"]),
        ("red --within small.png", ["small.png is 16 x 8 pixels", "16 x 16: resize it"]),
        ("red --within black.png", ["black everywhere"]),
        ("own.py:NOTHING", ['own.py has no "NOTHING"', "GAMMA, BREAKING"]),
        ("own.py:OTHER", ["OTHER of own.py is of the type int, not an edit"]),
        ("lost.py:GAMMA", ["lost.py does not exist"]),
        ("broken.py:GAMMA", ["broken.py does not run: ZeroDivisionError"]),
    ],
)
def test_a_walk_that_cannot_be_fitted_is_refused_in_one_line(line, parts, refused):
    said = refused(f"fit walks {line} -g toy.safetensors --n 16 --out refused.safetensors")
    assert all(part in said for part in parts), said


def test_a_fit_that_diverges_keeps_the_last_good_state_under_another_name(refused, work):
    said = refused("fit walks brightness,own.py:BREAKING -g toy.safetensors --n 96 --out gone.safetensors")
    assert "the loss of breaking is nan after" in said and "The last good state is kept in gone-kept.safetensors" in said
    assert [knob.name for knob in store.load_control(work / "gone-kept.safetensors").knobs] == ["brightness", "breaking"]
