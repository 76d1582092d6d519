"""Joint training on squares that a test can draw: terms, results, and the same weights after a kill."""

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from steerable import store
from steerable.cli import execute
from steerable.edits import EDITS
from steerable.sources import read_source
from steerable.training.amounts import ranged
from steerable.training.steerable import WAYS, _Training, train_steerable

SMALL = {"size": 16, "width": 4, "batch": 8, "latent": 12, "embedding": 4, "log_every": 5, "save_every": 10, "sample_every": 30}


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """An idx folder: 60 grey pictures of 16 pixels with a bright square whose column is the class."""
    folder = tmp_path_factory.mktemp("squares")
    labels = np.arange(60, dtype=np.uint8) % 3
    images = np.zeros((60, 16, 16), np.uint8)
    for row, label in enumerate(labels):
        images[row, 5 + row % 4 : 10 + row % 4, 3 * label + 2 : 3 * label + 6] = 255
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        (folder / name).write_bytes(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())
    return folder


def training(squares, way="joint", **changed):
    options = {"way": way, "size": 16, "channels": 1, "batch": 8, "width": 4, "latent": 12, "embedding": 4, "lr": 2e-4, "walk_lr": 1e-3,
               "edit_weight": 1.0, "r1": 0.1, "ema": 0.9, "precision": "float32", "seed": 0, **changed}  # fmt: skip
    edit = None if way == "plain" else ranged("shift-x", None)
    return _Training(read_source(squares, size=16), options, edit, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    out = tmp_path_factory.mktemp("joint")
    return out, train_steerable(squares, out=out, edit="shift-x", steps=60, **SMALL)


def test_a_short_training_has_finite_terms_and_results_that_load(trained, tmp_path):
    out, result = trained
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()[1:]]
    assert len(lines) == 12 and all({"discriminator", "generator", "edit", "seconds"} <= set(line) for line in lines)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    store.save_generator(result.generator, tmp_path / "generator.safetensors", half=result.half)
    store.save_control(result.walk, tmp_path / "walk.safetensors")
    generator = store.load_generator_file(tmp_path / "generator.safetensors")
    walk = store.load_control(tmp_path / "walk.safetensors", generator=generator)
    assert result.half and generator.fingerprint == result.generator.fingerprint and generator.classes == 3
    latents = generator.sample(4, seed=0)
    assert torch.equal(generator(latents), result.generator(latents))
    knob = walk.knobs[0]
    assert (knob.name, knob.unit, knob.low, knob.high) == ("shift-x", "image widths", -0.5, 0.5)
    assert not torch.equal(generator(walk.steer(latents, torch.full((4, 1), 0.5))), generator(latents))


def test_sample_grids_are_written(trained):
    assert sorted(path.name for path in (trained[0] / "samples").iterdir()) == ["step-000030.png", "step-000060.png"]


def test_a_finished_training_is_not_trained_again_and_can_be_prolonged(trained, squares, tmp_path):
    out, result = trained
    again = train_steerable(squares, out=out, edit="shift-x", steps=60, **SMALL)
    assert again.generator.fingerprint == result.generator.fingerprint and again.steps == 60
    for name in ("checkpoint.safetensors", "log.jsonl"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    assert train_steerable(squares, out=tmp_path, edit="shift-x", steps=65, **SMALL).steps == 65


@pytest.mark.parametrize("way", WAYS)
def test_each_way_has_its_terms(squares, way):
    one = training(squares, way)
    with torch.no_grad():  # an undecided discriminator: log 2 for each kind of image
        one.judge.scores.weight.zero_()
    direction = one.direction.detach().clone()
    losses = one.step(0)
    assert set(losses) == {"discriminator", "generator", "r1"} | ({"edit"} if way.startswith("joint") else set())
    assert "r1" not in one.step(1)
    parts = 2 if way.startswith("joint") else 1
    assert losses["discriminator"].item() == pytest.approx((1 + parts) * np.log(2), rel=1e-5)
    assert losses["generator"].item() == pytest.approx(parts * np.log(2), rel=0.05)
    assert torch.equal(direction, one.direction) != way.startswith("joint")


def test_only_the_augmented_ways_edit_the_data(squares):
    real = read_source(squares, size=16).batch(torch.arange(8))[0]
    amounts = torch.full((8,), 0.25)
    for way in WAYS:
        one = training(squares, way)
        seen, _, _ = one._edited(real, torch.zeros_like(real), amounts, amounts)
        if way in ("plain", "joint-only"):
            assert torch.equal(seen, real)
        else:
            assert torch.allclose(seen[..., 4:], real[..., :-4], atol=1e-3)
            assert (seen[..., :4] == -1).all()  # the background, not the grey of nothing known


def test_the_target_is_the_edited_image_of_the_unsteered_latent(squares):
    one = training(squares)
    images = read_source(squares, size=16).batch(torch.arange(16))[0]
    a, b = torch.full((8,), 0.25), torch.full((8,), -0.25)
    _, targets, mask = one._edited(images[:8], images, a, b)
    expected, known = EDITS["shift-x"](images[:8], a)
    assert torch.equal(targets, expected) and torch.equal(mask, known)


def test_the_first_layer_as_a_product_makes_the_same_images(squares):
    one = training(squares)
    z, labels = torch.randn(8, 12, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    assert torch.allclose(one._made(z, labels), one.maker(z, labels), atol=1e-5)


def test_images_of_one_batch_are_judged_alone(squares):
    one = training(squares)
    images, labels = read_source(squares, size=16).batch(torch.arange(6))
    assert torch.allclose(one.judge(images, labels)[:1], one.judge(images[:1], labels[:1]), atol=1e-6)
    others = one.judge(images[:1], (labels[:1] + 1) % 3)
    assert not torch.allclose(one.judge(images[:1], labels[:1]), others)  # the class counts


def test_the_average_has_the_statistics_of_the_norms(squares):
    one = training(squares)
    for number in range(3):
        one.step(number)
    slow, fast = one.average.main[1].running_mean, one.maker.main[1].running_mean
    assert slow.abs().sum() > 0 and not torch.equal(slow, fast)


def test_a_step_depends_on_its_number_and_the_tensors_only(squares):
    one, two = training(squares), training(squares)
    for number in range(3):
        one.step(number)
    with torch.no_grad():
        for name, tensor in two.tensors().items():
            tensor.copy_(one.tensors()[name])
    one.step(3), two.step(3)
    assert all(torch.equal(tensor, two.tensors()[name]) for name, tensor in one.tensors().items())


def test_the_global_random_state_is_left_alone(squares):
    before = torch.random.get_rng_state()
    training(squares).step(0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_convolutions_may_be_in_bfloat16(squares):
    losses = training(squares, precision="bfloat16").step(0)
    exact = training(squares).step(0)
    assert losses["generator"].item() == pytest.approx(exact["generator"].item(), rel=0.02)


def test_a_training_that_was_killed_ends_with_the_very_same_weights(squares, tmp_path):
    """SIGKILL at a random moment after the first checkpoint, twice; then to the end."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = ["train", "steerable", f"--data={squares}", "--edit=shift-x", f"--out={tmp_path / 'killed'}", "--device=cpu", "--steps=100"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": os.pathsep.join(sys.path)}
    checkpoint, moments = tmp_path / "killed" / "checkpoint.safetensors", []
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        runner = "import sys; from steerable.cli import main; main(sys.argv[1:])"
        process = subprocess.Popen([sys.executable, "-c", runner, *command, *options], env=environment, stdout=subprocess.PIPE)
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(0.01)
        moments.append(random.uniform(0, 0.3))
        time.sleep(moments[-1])
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # before its end
    assert execute([*command, *options]) == 0
    train_steerable(squares, out=tmp_path / "whole", edit="shift-x", steps=100, **SMALL)
    killed, whole = load_file(checkpoint), load_file(tmp_path / "whole" / "checkpoint.safetensors")
    assert killed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == [], moments
    assert store.load_generator_file(tmp_path / "killed" / "generator.safetensors").classes == 3


def test_a_diverging_training_says_so_and_keeps_the_last_good_state(squares, tmp_path):
    with pytest.raises(ValueError, match=r"training diverges\. .*begin anew with a lower --lr") as caught:
        train_steerable(squares, out=tmp_path, way="plain", steps=20, lr=1e30, **SMALL)
    assert "\n" not in str(caught.value)


def test_another_edit_than_before_is_refused(trained, squares):
    with pytest.raises(ValueError, match='begun with edit "shift-x", now edit is "rotate": give it the options it had, or another --out'):
        train_steerable(squares, out=trained[0], edit="rotate", steps=70, **SMALL)


def test_other_data_than_before_are_refused(trained):
    other = (np.zeros((9, 16, 16), np.uint8), np.arange(9) % 3)
    with pytest.raises(ValueError, match="begun with data"):
        train_steerable(other, out=trained[0], edit="shift-x", steps=70, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"way": "jiont"}, 'unknown way of training "jiont": did you mean "joint"'),
        ({"edit": "roatte"}, 'did you mean "rotate"'),
        ({"size": 20}, "got size 20"),
        ({"batch": 0}, "batch has to be a number above 0"),
        ({"lr": float("nan")}, "lr has to be a number above 0, got nan"),
        ({"ema": 1.0}, "ema is 0 to below 1"),
        ({"precision": "float16"}, 'unknown precision "float16"'),
        ({"save_every": 7}, "save_every 7 is no multiple"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(squares, tmp_path, arguments, message, no_annotation_checks):
    with pytest.raises(ValueError, match=message) as caught:
        train_steerable(squares, out=tmp_path / "x", **SMALL | arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--data nowhere", "nowhere is not there"),
        ("--data {squares} --edit roatte --size 16", 'unknown edit "roatte"'),
        ("--data {squares} --low 1 --size 16", "with 0 between"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(squares, tmp_path, capsys, line, message):
    assert execute(["train", "steerable", *line.format(squares=squares).split(), "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_two_processes_share_every_batch(squares, tmp_path):
    """As ``accelerate launch`` or ``torchrun`` start them; the terms of the first step are those of one process with the whole batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        "import sys; from steerable.training.steerable import train_steerable as train; "
        f"print(train(sys.argv[1], out=sys.argv[2], edit='shift-x', steps=2, **{SMALL | {'log_every': 1, 'save_every': 1}!r}).writes)"
    )
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join(sys.path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(squares), str(tmp_path / "two")],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=100) for process in processes]
    assert [out.strip() for out, _ in said] == ["True", "False"], said
    train_steerable(squares, out=tmp_path / "one", edit="shift-x", steps=2, **SMALL | {"log_every": 1, "save_every": 1})
    two, one = ([json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("two", "one"))
    assert (two[0]["options"]["processes"], one[0]["options"]["processes"]) == (2, 1)
    assert two[1]["discriminator"] == pytest.approx(one[1]["discriminator"], rel=1e-3)
