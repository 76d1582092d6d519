"""The command line on a style-based generator: cutoff, options, spaces, layers, and pictures made again from all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steerable import store
from steerable.cli import execute
from steerable.generators.module import generator_of
from steerable.generators.stylegan2 import StyleGAN2


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``style.safetensors``: a random StyleGAN 2 of 16 px."""
    folder = tmp_path_factory.mktemp("styles")
    network = StyleGAN2([["z", [12, 16, 16]]], [8, 8, 6])
    network.initialise(torch.Generator().manual_seed(0))
    for layer in network.modules():
        if hasattr(layer, "strength"):
            layer.strength.data.fill_(0.3)
    store.save_generator(generator_of(network, name="style"), folder / "style.safetensors")
    return folder


@pytest.fixture
def steer(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line on that generator; what it printed."""
    monkeypatch.chdir(work)

    def run(line: str, code: int = 0) -> str:
        capsys.readouterr()
        got = execute(line.replace("STYLE", "--generator style.safetensors").split())
        captured = capsys.readouterr()
        assert got == code, captured.err
        return captured.err if code else captured.out

    return run


def picture(work: Path, folder: str) -> bytes:
    return (work / folder / "seed-000003.png").read_bytes()


@pytest.mark.parametrize("options", ["--psi 0.5", "--psi 0.5 --cutoff 2", "--with noise=none", "--with precision=bfloat16"])
def test_every_way_to_sample_changes_the_picture_and_is_made_again_from_it(steer, work, options):
    steer("sample STYLE --seeds 3 --out plain")
    steer(f"sample STYLE --seeds 3 --out other {options}")
    steer("apply --recipe other/seed-000003.png --out again")
    assert picture(work, "other") != picture(work, "plain")
    assert picture(work, "again") == picture(work, "other")


def test_a_cutoff_of_no_layers_is_no_truncation(steer, work):
    steer("sample STYLE --seeds 3 --out plain")
    steer("sample STYLE --seeds 3 --out none --psi 0.5 --cutoff 0")
    from PIL import Image

    assert Image.open(work / "none/seed-000003.png").tobytes() == Image.open(work / "plain/seed-000003.png").tobytes()


@pytest.mark.parametrize(("space", "where"), [("", "w"), ("--space w+", "w+"), ("--space z", "z"), ("--space s", "s")])
def test_axes_live_in_the_space_that_was_asked_for(steer, work, space, where):
    steer(f"fit axes STYLE --features brightness --n 60 {space} --out axes.safetensors")
    assert store.load_control(work / "axes.safetensors").space.name == where


def test_a_control_turns_in_some_layers_only(steer, work):
    steer("fit axes STYLE --features brightness --n 60 --out bright.safetensors")
    for layers, out in (("", "all"), ("--layers 4-5", "late"), ("--layers b4.conv1", "early")):
        steer(f"apply bright.safetensors STYLE --turn brightness=0.1 --seeds 3 --features brightness --out {out} {layers}")
    steer("apply --recipe late/seed-000003.png --out late-again")
    assert len({picture(work, out) for out in ("all", "late", "early")}) == 3
    assert picture(work, "late-again") == picture(work, "late")


def test_a_walk_is_learned_in_w(steer, work):
    steer("fit walks brightness STYLE --n 32 --out walk.safetensors")
    assert store.load_control(work / "walk.safetensors").space.name == "w"


@pytest.mark.parametrize(
    ("line", "say"),
    [
        ("sample STYLE --seeds 3 --with noisy=1", 'unknown option of style "noisy": did you mean "noise"?'),
        ("sample STYLE --seeds 3 --with noise", "--with takes NAME=VALUE"),
        ("sample STYLE --seeds 3 --with noise=none --with noise=fixed", "stands in two --with"),
        ("sample STYLE --seeds 3 --with noise=loud", 'noise is "fixed", "none" or a list'),
        ("sample STYLE --seeds 3 --psi 0.5 --cutoff 99", "cutoff is 0 to 6 layers"),
        ("sample --seeds 3 --psi 0.5 --cutoff 2", 'unknown latent space "w+"'),
        ("sample STYLE --seeds 3 --label 1", "has no classes"),
        ("fit axes STYLE --features brightness --n 60 --space v", 'unknown latent space "v"'),
        ("apply bright.safetensors STYLE --turn brightness=0.1 --layers 4-9 --out bad", "layers are 0 to 5"),
    ],
)
def test_what_cannot_be_is_one_line(steer, work, line, say):
    steer("fit axes STYLE --features brightness --n 60 --out bright.safetensors")
    error = steer(line, code=2)
    assert say in error and len(error.strip().splitlines()) == 1
