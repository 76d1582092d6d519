"""steer fit controllers, evaluate and apply on a small generator with groups: from a file to pictures of asked values."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from steerable import load_feature, load_generator, store
from steerable.cli import execute
from steerable.generators.dcgan_discriminator import initialised
from steerable.generators.grouped_dcgan import GroupedDCGAN
from steerable.generators.module import generator_of
from steerable.training.domains import judges, measured

FIT = ["--n=300", "--steps=150", "--refine=80", "--device=cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A generator of random weights whose group "brightness" moves the brightness some, and its controllers."""
    folder = tmp_path_factory.mktemp("grouped")
    rng = torch.Generator().manual_seed(0)
    network = GroupedDCGAN([["brightness", [8, 8, 8]], ["rest", [4, 8, 4]]], [8, 4, 1])
    initialised(network.synthesis, rng)
    network.initialise(rng)
    with torch.no_grad():
        for parameter in network.synthesis.parameters():
            parameter.mul_(6)
    path = store.save_generator(
        generator_of(network, name="grouped"), folder / "generator.safetensors", origin={"groups": [["brightness", 8], ["rest", 4]]}
    )
    assert execute(["fit", "controllers", f"--generator={path}", f"--out={folder / 'controllers.safetensors'}", *FIT]) == 0
    return folder


def knob_of(made):
    return store.load_control(made / "controllers.safetensors").knobs[0]


def test_what_was_fitted_is_told_and_can_be_sampled(made, capsys):
    generator = store.load_generator_file(made / "generator.safetensors")
    control = store.load_control(made / "controllers.safetensors", generator=generator)
    knob = control.knobs[0]
    assert (knob.name, knob.unit) == ("brightness", "of full scale") and knob.low < knob.high
    latents = generator.controlled(control).sample(4, seed=0, values={"brightness": (knob.low + knob.high) / 2})
    assert torch.equal(latents.part("rest"), generator.sample(4, seed=0).part("rest"))
    assert json.loads((made / "controllers.json").read_text())["command"] == "fit controllers"


def test_evaluate_prints_shares_precision_and_writes_a_grid(made, tmp_path, capsys):
    line = [
        "evaluate",
        str(made / "controllers.safetensors"),
        f"--generator={made / 'generator.safetensors'}",
        f"--out={tmp_path / 'e'}",
        "--n=32",
    ]
    assert execute([*line, "--device=cpu"]) == 0
    said = capsys.readouterr().out
    assert "share of each measurement's spread" in said and "by brightness" in said and "by rest" in said
    assert "requested against measured" in said and "the features that it was trained with" in said
    names = {path.name for path in (tmp_path / "e").iterdir()}
    assert names == {"evaluation.json", "grid.png", "precision-brightness.png", "options.json"}
    report = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert set(report["shares"]["brightness"]) == {"brightness", "rest"} and -1 <= report["precision"]["brightness"]["value"] <= 1


def test_apply_sets_the_value_and_its_picture_is_made_again(made, tmp_path, capsys):
    knob = knob_of(made)
    value = f"{(knob.low + knob.high) / 2:.6f}"
    line = [f"--generator={made / 'generator.safetensors'}", "--seeds=0-1", "--device=cpu"]
    asked = [
        "apply",
        str(made / "controllers.safetensors"),
        f"--set=brightness={value}",
        "--features=brightness",
        f"--out={tmp_path / 'a'}",
    ]
    assert execute([*asked, *line]) == 0
    assert f"brightness set to {float(value):.3g}" in capsys.readouterr().out
    again = ["apply", f"--recipe={tmp_path / 'a' / 'seed-000001.png'}", f"--out={tmp_path / 'b'}", line[0], "--device=cpu"]
    assert execute(again) == 0
    assert (tmp_path / "b" / "seed-000001.png").read_bytes() == (tmp_path / "a" / "seed-000001.png").read_bytes()


def test_sampling_with_a_value_gives_each_seed_its_own_answer_and_the_same_as_python(tmp_path):
    """The recipe makes the picture again."""
    assert execute(["sample", "-g", "digits32-control", "--set", "slant=15", "--seeds=3-4", f"--out={tmp_path / 's'}", "--device=cpu"]) == 0
    generator = load_generator("digits32-control")
    slants = load_feature("slant")(generator(generator.sample(64, seed=0, values={"slant": 15})))
    assert abs(float(slants.mean()) - 15) < 4 and float(slants.std()) < 4
    for seed in (3, 4):
        (expected,) = generator(generator.sample(1, seed=seed, values={"slant": 15}))
        shown = np.asarray(Image.open(tmp_path / "s" / f"seed-{seed:06d}.png").convert("L"), dtype=np.float32)
        assert np.abs(shown - (expected[0].numpy() + 1) * 127.5).max() <= 1
    again = ["apply", f"--recipe={tmp_path / 's' / 'seed-000004.png'}", f"--out={tmp_path / 'b'}", "--device=cpu"]
    assert execute(again) == 0
    assert (tmp_path / "b" / "seed-000004.png").read_bytes() == (tmp_path / "s" / "seed-000004.png").read_bytes()


def test_heads_turn_as_far_as_asked_and_keep_everything_else_as_different_as_it_was():
    """Judged by the network of another seed, which was trained on exact numbers."""
    generator, judged = load_generator("heads32-control"), measured(judges("heads"))
    free, turned = (generator(generator.sample(64, seed=0, values=values)) for values in ({}, {"yaw": 25, "background": 0.8}))
    spread = {name: (float(one(free).std()), float(one(turned).std())) for name, one in judged.items()}
    assert abs(float(judged["yaw"](turned).mean()) - 25) < 4 and abs(float(judged["background"](turned).mean()) - 0.8) < 0.05
    assert all(after < 0.4 * before for before, after in (spread["yaw"], spread["background"]))
    assert all(after > 0.75 * before for name, (before, after) in spread.items() if name not in ("yaw", "background"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "apply {control} --generator {generator} --set brightness=9",
            "brightness = 9 (of full scale) is out of reach: this generator shows",
        ),
        (
            "apply {control} --generator {generator} --set brightness=dark",
            'brightness is a number (of full scale) or a percentile like "p90"',
        ),
        ("apply {control} --generator {generator} --turn brightness=1", "sets values by number: brightness. Use --set alone"),
        ("apply {control} --generator {generator}", "sets values by number: brightness. Use --set alone"),
        ("apply {control} --generator {generator} --set birghtness=0.5", 'unknown value "birghtness": did you mean "brightness"'),
        ("sample --generator digits32-control --set slant=80", "slant = 80 (deg) is out of reach: this generator shows"),
        ("sample --generator digits32-control --set slnat=8", 'unknown value "slnat": did you mean "slant"'),
        ("sample --generator {generator} --set brightness=p50", "grouped ships without controllers"),
        ("evaluate {control} --generator {generator} --knobs smile", 'unknown value "smile"'),
        ("evaluate {control} --generator digits32", "was fitted on grouped"),
        ("fit controllers --generator digits32", "digits32 was not trained with groups"),
        ("fit controllers --generator {generator} --groups rest", 'unknown group that measures something "rest"'),
        ("fit controllers --generator gone.safetensors", "gone.safetensors does not exist"),
    ],
)
def test_bad_input_is_one_line(made, tmp_path, capsys, line, message):
    words = line.format(control=made / "controllers.safetensors", generator=made / "generator.safetensors").split()
    out = [] if words[0] == "fit" else ["--out", str(tmp_path / "x")]
    assert execute([*words, *out, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()
