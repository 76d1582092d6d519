"""The same on a GPU: pictures, trajectories, values, walks, limits and trainings; skipped where torch sees none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steerable import Solve, Trajectory, load_feature, load_generator
from steerable.features.pixels import Box, RegionPixels
from steerable.generators.module import ModuleGenerator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
FACE = Box(16, 18, 52, 46)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def faces() -> ModuleGenerator:
    return load_generator("faces64", device="cuda")


def test_pictures_are_those_of_the_cpu(faces):
    """tf32, torch's default for convolutions, keeps about three digits."""
    cpu = load_generator("faces64")
    assert torch.allclose(faces(faces.sample(8, seed=0)).cpu(), cpu(cpu.sample(8, seed=0)), atol=5e-3)


def test_a_trajectory_holds_what_it_holds_on_the_cpu(faces):
    def drift(generator: ModuleGenerator) -> torch.Tensor:
        shape = generator.image_shape
        control = Trajectory(
            generator, move=RegionPixels(FACE, shape, invert=True, name="rest"), hold=RegionPixels(FACE, shape, name="face")
        )
        path = control.path(generator.sample(2, seed=1000), torch.full((2, 1), 0.2))
        assert path.reached.all() and path.ledger.perceptual[-1].min() > 0
        return path.drift[-1].cpu()

    assert torch.allclose(drift(faces), drift(load_generator("faces64")), rtol=0.1)


def test_a_value_is_reached(faces):
    solve = Solve(faces, set={"yaw": 10}, hold=["identity"])
    found = solve.solve(faces.sample(2, seed=1000), torch.full((2, 1), 10.0))
    yaw = load_feature("pose", device="cuda")(faces(found.latents))[:, 0]
    assert (yaw.cpu() - 10).abs().max() < 3


@pytest.mark.parametrize(
    "line",
    [
        "doctor faces64 --out sheet.png",
        "measure --seeds 0-3 --out table.csv",
        "apply --set yaw=10 --hold identity --seeds 0-1 --out set",
        "apply --move pose --hold identity --amount 2 --seeds 0-1 --out moved",
        "apply --move inside:hair --hold inside:face --amount 0.1 --seeds 0-1 --out hair",
        "fit axes --n 128 --features pixels --out axes.safetensors",
        "evaluate axes.safetensors --n 4 --quality 16 --out evaluated",
        "fit walks brightness --n 64 --out walk.safetensors",
        "fit walks zoom --n 32 --curved --loss perceptual --out curved.safetensors",
        "limits walk.safetensors --n 32 --out limits",
        "train controllable --domain heads --steps 20 --batch 32 --out heads",
        "train controllable --domain heads --steps 5 --batch 16 --backbone stylegan2 --precision bfloat16 --out styles",
        "fit controllers --generator heads/generator.safetensors --n 256 --out values.safetensors",
    ],
)
def test_a_command_runs_there(steer: Callable[[str], str], line: str):
    assert steer(f"{line} --device cuda")
