"""Controllable training on bars: its terms, its start, the same weights after a kill, the same losses on two processes."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from training.bars import SMALL, bars, groups, idx_folder

from steerable import store
from steerable.cli import execute
from steerable.features.digits import SLANT
from steerable.features.network import CLASSES, feature
from steerable.generators.module import ModuleGenerator
from steerable.sources import read_source
from steerable.training import controllable
from steerable.training.backbones import BACKBONES
from steerable.training.contrastive import disagreement, pairwise
from steerable.training.controllable import Training, calibrate, train_controllable
from steerable.training.groups import Groups

SOURCE = read_source(bars(), size=16)
OPTIONS = {"backbone": "dcgan", "size": 16, "channels": 1, "batch": 16, "width": 4, "hidden": 8, "contrast": 0.5, "variety": 1.0,
           "population": 0.5, "agreement": 8.0, "warm_up": 2, "lr": 2e-4, "r1": 0.1, "path_length": 1.0, "ema": 0.9, "precision": "float32",
           "seed": 0}  # fmt: skip
WATCHES = calibrate(SOURCE, groups(), size=16)
TERMS = {"discriminator", "generator", "slant", "slant spread", "brightness", "brightness spread", "rest"}


def training(**changed) -> Training:
    return Training(SOURCE, groups(), WATCHES, {**OPTIONS, **changed})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return idx_folder(tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, train_controllable(SOURCE, groups(), out=out, steps=30, **SMALL)


def test_what_is_too_dark_for_a_measured_group_is_no_variety():
    clipped = Groups(
        tuple(
            replace(one, contrast=one.contrast and replace(one.contrast, clipped=0.3 if one.name == "slant" else 0.1)) for one in groups()
        )
    )
    haze = torch.linspace(-1, -0.5, 4)[:, None, None, None].expand(-1, 1, 16, 16)  # up to a quarter of white
    for watch, least, most in ((calibrate(SOURCE, clipped, size=16)["rest"], 0, 1e-5), (WATCHES["rest"], 0.1, 10)):
        assert least <= float(watch.distances(watch.values(haze)).max()) <= most


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_backbone_has_every_term(backbone):
    one = training(backbone=backbone)
    losses = one.step(0)
    assert set(losses) == TERMS | {"r1", "path"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["discriminator"].item() == pytest.approx(2 * 0.6931, rel=0.3)  # undecided
    assert set(one.step(1)) == TERMS


@pytest.mark.parametrize("backbone", BACKBONES)
def test_fused_adam_steps_as_the_ordinary_one_does(backbone):
    """It goes through memory, and the gradients of a penalty on gradients lie otherwise than the weights."""
    ours, ordinary = training(backbone=backbone), training(backbone=backbone)
    for optimiser in (ordinary.makers, ordinary.judges):
        optimiser.param_groups[0]["fused"] = False
    for one in (ours, ordinary):
        one.step(0)
    for (name, a), b in zip(ours.tensors().items(), ordinary.tensors().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_without_contrast_it_is_the_plain_training():
    one = training(contrast=0.0, path_length=0.0)
    assert set(one.step(1)) == {"discriminator", "generator"}


def test_the_contrast_is_warmed_up():
    one = training(contrast=0.3, warm_up=10)
    assert [one.weight(number) for number in (0, 4, 9, 99)] == pytest.approx([0.03, 0.15, 0.3, 0.3])


def test_a_group_s_loss_is_the_sum_over_its_pairs():
    """Slant, with the groups' rows looked up pair by pair on pictures of the data."""
    one, images = training(), SOURCE.batch(torch.arange(16))[0]
    owners = groups().owners(16)
    watch = WATCHES["slant"]
    values = watch.values(images)
    distances = pairwise("l1", values, values) / watch.unit
    same, others = [], []
    for i in range(16):
        for j in range(i):
            distance = distances[i, j].item()
            if owners["slant"][i] == owners["slant"][j]:
                same.append(max(distance - watch.near, 0))
            else:
                others.append(max(watch.far - distance, 0))
    assert len(same) == 3 + 2  # three pairs of its own block, two of the rest's
    assert one.contrast(images, owners)["slant"].item() == pytest.approx(sum(same) / len(same) + sum(others) / len(others), rel=1e-4)


def test_a_group_of_classes_is_told_the_same_once_groups_have_settled():
    """Bars that lean left or right, told by a sigmoid of their slant."""

    def sides(images):
        left = torch.sigmoid(0.2 * SLANT(images))
        return torch.cat([left, 1 - left], 1)

    told = feature(sides, name="side", columns=["left", "right"], unit=CLASSES, differentiable=True)
    slant, *others = groups()
    classed = Groups((replace(slant, reading=told), *others))
    one = Training(SOURCE, classed, calibrate(SOURCE, classed, size=16), {**OPTIONS, "warm_up": 3})
    images, owners = SOURCE.batch(torch.arange(16))[0], classed.owners(16)
    found = one.contrast(images, owners)
    same = owners["slant"][:, None] == owners["slant"][None]
    assert found["slant told"].item() == pytest.approx(8 * float(disagreement(sides(images), same)), rel=1e-4)
    assert "brightness told" not in found
    assert [one.settled(number) for number in (0, 47, 49, 50, 99)] == pytest.approx([0, 0, 2 / 3, 1, 1])
    assert one.contrast(images, owners, settled=0.5)["slant told"].item() == pytest.approx(found["slant told"].item() / 2, rel=1e-4)
    assert "slant spread" not in Training(SOURCE, classed, one.watches, {**OPTIONS, "population": 0.0}).contrast(images, owners)


def test_pairs_of_the_rest_share_all_that_is_measured():
    """Two equal pictures in the rest's block are what its term complains of."""
    one, images = training(), SOURCE.batch(torch.arange(16))[0]
    before = one.contrast(images, groups().owners(16))["rest"]
    images[13], images[15] = images[12], images[14]
    after = one.contrast(images, groups().owners(16))["rest"]
    assert after > before and after.item() == pytest.approx(WATCHES["rest"].far, rel=1e-4)


def test_a_step_depends_on_its_number_and_the_tensors_only():
    one, two = training(), training()
    for number in range(2):
        one.step(number)
    with torch.no_grad():
        for name, tensor in two.tensors().items():
            tensor.copy_(one.tensors()[name])
    one.step(2), two.step(2)
    assert all(torch.equal(tensor, two.tensors()[name]) for name, tensor in one.tensors().items())


def test_the_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    training().step(0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_result_has_parts_that_share_swap_and_resample(trained, tmp_path):
    result = trained[1]
    store.save_generator(result.generator, tmp_path / "made.safetensors", half=result.half)
    made = store.load_generator_file(tmp_path / "made.safetensors")
    assert made.fingerprint == result.generator.fingerprint
    assert [part[0] for part in made.spaces["w"].parts] == ["slant", "brightness", "rest"]
    for space in ("z", "w"):
        rows, same = made.sample(4, seed=1, space=space), made.sample(4, seed=1, space=space, share={"slant": 2})
        assert torch.equal(same.part("rest"), rows.part("rest"))
        assert torch.allclose(same.part("slant"), rows.part("slant")[2:3].expand(4, -1), atol=1e-6)
        swapped = rows.swapped("brightness", made.sample(1, seed=5, space=space))
        assert torch.equal(swapped.part("slant"), rows.part("slant"))
        assert not torch.equal(swapped.part("brightness"), rows.part("brightness"))
        again = made.resampled(rows, "rest", seed=9)
        assert torch.equal(again.part("slant"), rows.part("slant")) and not torch.equal(again.part("rest"), rows.part("rest"))
        assert made(again).shape == (4, 1, 16, 16)


def test_a_mapped_group_depends_on_its_own_numbers_only(trained):
    made: ModuleGenerator = trained[1].generator
    z = made.sample(6, seed=3, space="z")
    w, moved = made.to_space(z, "w"), made.to_space(made.resampled(z, "slant", seed=4), "w")
    assert torch.equal(w.part("brightness"), moved.part("brightness")) and torch.equal(w.part("rest"), moved.part("rest"))
    assert not torch.allclose(w.part("slant"), moved.part("slant"))
    size = w.part("slant").square().mean(1)
    assert torch.allclose(size, torch.ones(6), atol=1e-4)  # a group stays as large as it began


def test_sample_grids_have_two_rows_a_group_in_which_it_alone_varies(trained):
    assert sorted(path.name for path in (trained[0] / "samples").iterdir()) == ["step-000030.png"]
    images = training().samples()
    assert images.shape == (60, 1, 16, 16)


def test_a_finished_training_is_not_trained_again_and_other_options_are_refused(trained):
    out, result = trained
    again = train_controllable(SOURCE, groups(), out=out, steps=30, **SMALL)
    assert again.generator.fingerprint == result.generator.fingerprint and again.steps == 30
    with pytest.raises(ValueError, match=r"begun with contrast 0\.4, now contrast is 0\.5: give it the options it had, or another --out"):
        train_controllable(SOURCE, groups(), out=out, steps=35, contrast=0.5, **SMALL)


@pytest.mark.parametrize(("off", "goes_on"), [(1e-5, True), (1e-2, False)])
def test_thresholds_that_differ_by_rounding_alone_do_not_stop_a_training(trained, off, goes_on, monkeypatch):
    """With another number of threads the predictors' sums are rounded otherwise."""
    found = calibrate(SOURCE, groups(), size=16)
    found = {name: replace(watch, near=watch.near * (1 + off)) for name, watch in found.items()}
    monkeypatch.setattr(controllable, "calibrate", lambda *args, **options: found)
    with contextlib.nullcontext() if goes_on else pytest.raises(ValueError, match="begun with thresholds"):
        train_controllable(SOURCE, groups(), out=trained[0], steps=30, **SMALL)


def test_a_plain_generator_of_the_same_kind_is_a_start(trained, tmp_path):
    one, start = training(seed=7), trained[1].generator
    count = one.start_from(start)
    ours, theirs = one.maker.state_dict(), start.network.state_dict()
    taken = [key for key in ours if not key.startswith("mapping")]
    assert count == len(taken) and all(torch.equal(ours[key], theirs[key]) for key in taken)
    assert not torch.equal(ours["mapping.0.0.weight"], theirs["mapping.0.0.weight"])
    assert torch.equal(one.average.state_dict()[taken[0]], ours[taken[0]])
    with pytest.raises(ValueError, match=r"is a dcgan-groups: this training starts from a stylegan2"):
        training(backbone="stylegan2").start_from(start)
    with pytest.raises(ValueError, match="has other sizes than this training"):
        training(width=8).start_from(start)


COMMAND = ["train", "controllable", "--groups=slant:4,brightness:4,rest:4", "--device=cpu", "--steps=40"]
SIZES = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


def test_a_training_that_was_killed_ends_with_the_very_same_weights(folder, tmp_path):
    """SIGKILL at a random moment after the first checkpoint; then to the end, and once without."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": os.pathsep.join(sys.path)}
    runner = "import sys; from steerable.cli import main; main(sys.argv[1:])"
    command = [*COMMAND, f"--data={folder}", f"--out={tmp_path / 'killed'}", *SIZES]
    process = subprocess.Popen([sys.executable, "-c", runner, *command], env=environment, stdout=subprocess.PIPE)
    checkpoint, moment = tmp_path / "killed" / "checkpoint.safetensors", random.uniform(0, 0.2)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # before its end
    assert execute(command) == 0
    assert execute([*COMMAND, f"--data={folder}", f"--out={tmp_path / 'whole'}", *SIZES]) == 0
    killed, whole = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == [], moment
    origin = store.described(tmp_path / "whole" / "generator.safetensors")["origin"]
    assert origin["groups"] == [["slant", 4], ["brightness", 4], ["rest", 4]] and origin["seed"] == 0


def test_two_processes_have_the_losses_of_one_on_the_same_batch(tmp_path):
    """As ``accelerate launch`` starts them: all terms of three steps, pairs across the processes included."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    small = SMALL | {"log_every": 1, "save_every": 1, "path_length": 1.0, "lr": 2e-4, "population": 0.5}
    script = (
        "import sys; from training.bars import bars, groups; from steerable.training.controllable import train_controllable as train; "
        f"print(train(bars(), groups(), out=sys.argv[1], steps=3, **{small!r}).writes)"
    )
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join(sys.path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "two")],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [out.strip() for out, _ in said] == ["True", "False"], said
    train_controllable(bars(), groups(), out=tmp_path / "one", steps=3, **small)
    two, one = ([json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("two", "one"))
    assert (two[0]["options"]["processes"], one[0]["options"]["processes"]) == (2, 1)
    for line, other in zip(two[1:], one[1:], strict=True):
        assert set(line) >= TERMS and set(line) == set(other)
        for name in line.keys() - {"step", "seconds"}:
            before = (
                line["step"] == 1 and name != "generator"
            )  # anything was trained: Adam's first steps make much of a gradient's rounding
            near = 1e-4 if before else 2e-2
            assert line[name] == pytest.approx(other[name], rel=near, abs=near / 10), (line["step"], name)


def test_calibration_prints_distances_and_trains_nothing(folder, tmp_path, capsys):
    assert execute([*COMMAND, f"--data={folder}", f"--out={tmp_path / 'none'}", "--size=16", "--metric=slant=l1", "--calibrate"]) == 0
    said = capsys.readouterr().out
    assert "distances of n 64 pictures" in said and "tau+" in said and said.count("| 0 to 2.5") == 6
    assert f"{calibrate(folder, groups(), size=16)['slant'].far:.3g}" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--data {data}", "name the groups: --domain digits, or --groups"),
        ("--data {data} --domain digts", 'unknown domain "digts": did you mean "digits"'),
        ("--data {data} --groups slant:4,rest:4 --latent 64", "slant 4 + rest 4 = 8 numbers, the latent has 64"),
        ("--data {data} --groups slant:4,brihgtness:4", 'unknown group "brihgtness": did you mean "brightness"'),
        ("--data {data} --groups slant:4,rest:4 --batch 3", "a batch of 3 does not hold a pair for each of the 2 groups"),
        ("--data {data} --groups slant:4,rest:4 --threshold slant=0.5:0.2", "0 <= 0.5 < 0.2 fails"),
        ("--data {data} --groups slant:4,rest:4 --threshold slant=0.5", "--threshold takes GROUP=NEAR:FAR"),
        ("--data {data} --groups slant:4,rest:4 --threshold rest=0.1:0.2", 'unknown group that measures something "rest"'),
        ("--data {data} --groups slant:4,rest:4 --metric slant=l3", 'unknown metric "l3"'),
        ("--data {data} --groups slant:4,rest:4 --weight slant=-1", "the weight of a loss is a number above 0, got -1.0"),
        ("--data {data} --groups slant:4,rest:4 --weight slant=x", '--weight takes numbers, got "x"'),
        ("--data nowhere --groups slant:4,rest:4", "nowhere is not there"),
        ("--data {data} --groups slant:4,rest:4 --backbone vit", 'unknown backbone "vit"'),
        ("--data {data} --groups slant:4,rest:4 --near 99 --far 1", "fails"),
        ("--data {data} --groups slant:4,rest:4 --start digits32 --size 16", "digits32 has other sizes than this training"),
        ("--data {data} --groups slant:4,rest:4 --feature gone.py:mine", "gone.py does not exist. A feature of your own is FILE.py:NAME"),
        ("--data {data} --groups flat:4,rest:4 --feature {own}:flat", '"flat" reads 0.5 from every real picture'),
        ("--data {data} --groups flat:4,rest:4 --feature {own}:nan", 'has no feature "nan"; its features: flat, steps'),
        ("--data {data} --groups steps:4,rest:4 --feature {own}:steps", '"steps" sends no gradient back to the pictures'),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_trained(no_annotation_checks, folder, tmp_path, capsys, line, message):
    own = tmp_path / "own.py"
    own.write_text(
        "import steerable as st\n"
        "flat = st.feature(lambda x: x.mean((1, 2, 3)) * 0 + 0.5, name='flat', differentiable=True)\n"
        "steps = st.feature(lambda x: (x > 0).float().mean((1, 2, 3)), name='steps', differentiable=True)\n"
    )
    arguments = line.format(data=folder, own=own).split()
    size = [] if "--size" in arguments else ["--size", "16"]
    assert execute(["train", "controllable", *arguments, *size, "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 20}, "got size 20"),
        ({"ema": 1.0}, "0 to below 1; got 1.0"),
        ({"contrast": -1.0}, "contrast has to be a number of 0 or above, got -1.0"),
        ({"steps": 0}, "steps has to be a number above 0"),
        ({"precision": "float16"}, 'unknown precision "float16"'),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, arguments, message, no_annotation_checks):
    with pytest.raises(ValueError, match=message):
        train_controllable(SOURCE, groups(), out=tmp_path / "x", **{"steps": 2, **SMALL, **arguments})
    assert not (tmp_path / "x").exists()
