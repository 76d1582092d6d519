"""Walks at the command line: what they are fitted to, panels, films, each mistake's one line. On a DCGAN of 16 pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import dcgan_file

from steerable import recipe, store
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

def stopping(images, amounts, calls=[]):
    calls.append(1)
    if len(calls) > 5:
        raise KeyboardInterrupt
    return images

def crooked(images, amounts):
    return images[:, :, 1:]

def failing(images, amounts):
    return images @ amounts

STOPPING, CROOKED, FAILING = (st.as_edit(one, st.Knob(one.__name__, "", -1, 1)) for one in (stopping, crooked, failing))
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


FIT = "fit walks {edits} -g toy.safetensors --n 16 --out {out}.safetensors"


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
        ("zoom --precision half", ['"half"', "auto, bfloat16, float32"]),
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
        ("own.py:CROOKED", ['the edit "crooked" must return targets (1, 3, 16, 16)', "got (1, 3, 15, 16)"]),
        ("own.py:FAILING", ['the edit "failing" fails: RuntimeError']),
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


def test_a_fit_that_is_interrupted_keeps_what_was_learned_under_another_name(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    capsys.readouterr()
    code = execute(["fit", "walks", "brightness,own.py:STOPPING", "-g", "toy.safetensors", "--n", "96", "--out", "stopped.safetensors"])
    assert code == 130 and "kept in stopped-kept.safetensors" in capsys.readouterr().err
    assert [knob.name for knob in store.load_control(work / "stopped-kept.safetensors").knobs] == ["brightness", "stopping"]
    assert not (work / "stopped.safetensors").exists()


# ------------------------------------------------------------------ panels and films

APPLY = "-g toy.safetensors --features pixels --seeds 0-1 --out applied"


def film_of(path: Path) -> tuple[int, tuple[int, int], float]:
    """Frames, size, pictures a second."""
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
        return len(frames), frames[0].size, float(container.streams.video[0].average_rate)


def test_a_strip_by_the_name_of_a_knob_covers_its_range(steer, work):
    control = fitted(steer, work, "alone", "brightness,zoom")
    knobs = (replace(control.knobs[0], low=-0.1, high=0.3), control.knobs[1])
    store.save_control(replace(control, knobs=knobs), work / "ranged.safetensors")
    said = steer(f"apply ranged.safetensors --strip brightness {APPLY}")
    swept = recipe.read(work / "applied" / "strip-brightness.png").sweep
    assert swept.amounts == pytest.approx([-0.1, -0.2 / 3, -0.1 / 3, 0, 0.1, 0.2, 0.3]) and "at brightness" in said


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_film_goes_through_its_keyframes_and_carries_its_recipe(suffix, steer, work):
    fitted(steer, work, "alone", "brightness,zoom")
    keyframes = "brightness=0;brightness=.2;zoom=.1"
    said = steer(
        f"apply alone.safetensors --video a.{suffix} --keyframes {keyframes} --seconds 0.5 --fps 10 --loop once --easing linear {APPLY}"
    )
    frames, _, rate = film_of(work / f"a.{suffix}")
    assert (frames, rate) == (11, pytest.approx(10)) and "11 frames" in said
    assert recipe.read(work / f"a.{suffix}").film.filled()[2] == {"brightness": 0.2, "zoom": 0.1}
    steer(f"apply --recipe a.{suffix} --out again")
    assert (work / "again" / f"a.{suffix}").read_bytes() == (work / f"a.{suffix}").read_bytes()


@pytest.mark.parametrize("out", ["alone", "curved"])
def test_straight_walks_and_chains_of_curved_ones_are_filmed_from_nothing_to_what_is_turned(out, steer, work):
    fitted(steer, work, "alone", "brightness,zoom")
    fitted(steer, work, "curved", "brightness,zoom", "--curved --steps 3")
    steer(f"apply {out}.safetensors --turn brightness=.1 --video turned.mp4 --seconds 0.5 --fps 8 {APPLY}")
    assert film_of(work / "turned.mp4")[0] == 8  # four there, three back, and the end
    first, last = recipe.read(work / "turned.mp4").film.keyframes
    assert first == {"brightness": 0.0} and last == pytest.approx({"brightness": 0.1})


def test_a_drive_is_filmed_on_its_way(steer, work):
    steer("apply --hold-box 4,4,12,12 --rest 0.05 --video driven.gif --seconds 0.5 --fps 8 --loop once --seeds 0 "
          "-g toy.safetensors --features pixels --out driven")  # fmt: skip
    film = recipe.read(work / "driven.gif")
    assert film.film.keyframes == ({"rest": 0.0}, {"rest": 0.05}) and film_of(work / "driven.gif")[0] == 5


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("alone.safetensors --keyframes zoom=0", ["--keyframes are those of a film", "--video film.mp4"]),
        ("alone.safetensors --turn zoom=.1 --video a.avi", ["written as .mp4 or .gif, got a.avi", "a.mp4"]),
        ("alone.safetensors --video a.mp4 --keyframes zoom=1;zom=2", ['unknown knob "zom"', '"zoom"']),
        ("alone.safetensors --video a.mp4 --keyframes zoom=1;;zoom=2", ['keyframe 2 of --keyframes, ""', "semicolon"]),
        ("alone.safetensors --video a.mp4 --keyframes zoom=a", ['keyframe 1 of --keyframes, "zoom=a"']),
        ("alone.safetensors --video a.mp4 --keyframes zoom=nan", ['"zoom=nan"']),
        ("alone.safetensors --video a.mp4 --keyframes rest=1", ['"rest" in --keyframes', "--hold-box"]),
        ("alone.safetensors --turn zoom=.1 --video a.mp4 --keyframes zoom=1", ['"zoom" stands in two of']),
        ("alone.safetensors --turn zoom=.1 --video a.mp4 --easing bouncy", ['unknown easing "bouncy"']),
        ("alone.safetensors --turn zoom=.1 --video a.mp4 --loop twice", ['unknown loop "twice"']),
        ("alone.safetensors --turn zoom=.1 --video a.mp4 --seconds 0", ["more than 0 seconds"]),
        ("alone.safetensors --turn zoom=.1 --video a.mp4 --seconds 2000", ["frames, at most 20000"]),
        ("alone.safetensors --turn zoom=.1 --label 2", ["toy has no classes"]),
        ("alone.safetensors --strip zom", ['unknown knob "zom"']),
        ("alone.safetensors --strip zoom=1:2", ["--strip takes up to 100 amounts"]),
        ("curved.safetensors --hold zoom --turn brightness=.1", ["--hold is for straight controls"]),
        ("curved.safetensors --set brightness=.5 --by axis", ["--set is for straight controls"]),
        ("--recipe text.png --video a.mp4", ["--recipe makes a picture as it was"]),
    ],
)
def test_a_film_that_cannot_be_made_is_refused_in_one_line(line, parts, refused, steer, work):
    fitted(steer, work, "alone", "brightness,zoom")
    fitted(steer, work, "curved", "brightness,zoom", "--curved --steps 3")
    said = refused(f"apply {line} {APPLY}")
    assert all(part in said for part in parts), said
