"""The controller that answers at once, on a generator whose answers are linear: the network has to find a plane."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import LinearGenerator, OnePixel, linear_generator

from steerable import load_control, save_control
from steerable.controls.amortised import Controller
from steerable.controls.solve import Solve
from steerable.fitting import amortised
from steerable.fitting.amortised import fit_controller

A, B = OnePixel(0, 0), OnePixel(1, 1)


@pytest.fixture(scope="module")
def generator() -> LinearGenerator:
    return linear_generator()


@pytest.fixture(scope="module")
def solve(generator: LinearGenerator) -> Solve:
    return Solve(generator, set={A.name: 0.0}, hold=[B], features=[A], population=80)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("solutions")


@pytest.fixture(scope="module")
def controller(solve: Solve, cache: Path) -> Controller:
    return fit_controller(solve, n=64, population=64, held_out=32, steps=100, cache=cache)


def test_one_pass_reaches_the_asked_value(generator, controller):
    latents = generator.sample(16, seed=9)
    wanted = torch.linspace(controller.knobs[0].low, controller.knobs[0].high, 16)[:, None]
    off = (A(generator(controller.steer(latents, wanted))) - wanted).abs().mean()
    assert float(off) < 0.2 * float(A(generator(latents)).std())


def test_its_error_bars_are_those_of_held_out_latents(generator, solve, controller):
    row = controller.errors[A.name]
    assert row["n"] == 32 and row["seed"] == 1 and 0 <= row["search"] < row["mean"] < row["p90"]
    latents = generator.sample(32, seed=1)
    wanted = amortised._asked(solve, 32, 1)[1]
    measured = (A(generator(controller.steer(latents, wanted))) - wanted).abs().mean()
    assert row["mean"] == pytest.approx(float(measured), rel=1e-4)
    assert controller.said()[0].startswith(f"{A.name}: off by ")


def test_what_was_held_is_held_by_the_imitation_too(generator, controller):
    latents = generator.sample(16, seed=9)
    wanted = torch.full((16, 1), controller.knobs[0].high)
    drift = (B(generator(controller.steer(latents, wanted))) - B(generator(latents))).abs().mean()
    moved = (A(generator(controller.steer(latents, wanted))) - A(generator(latents))).abs().mean()
    assert float(drift) < 0.3 * float(moved)


def test_cached_solutions_are_not_searched_for_again(solve, controller, cache):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("searched again")

    latents, wanted = amortised._asked(solve, 64, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Solve, "solve", refuse)
        offsets, _ = amortised._solved(solve, latents, wanted, 0, cache)
    assert len(offsets) == 64


def test_a_saved_controller_is_the_same(generator, controller, tmp_path):
    again = load_control(save_control(controller, tmp_path / "yaw.safetensors"), generator=generator)
    latents = generator.sample(3, seed=4)
    wanted = torch.tensor([[0.1], [0.0], [-0.1]])
    assert torch.equal(again.steer(latents, wanted).values, controller.steer(latents, wanted).values)
    assert again.errors == controller.errors and again.knobs[0].neutral is None


def test_a_picture_that_has_the_value_is_left_alone(generator, controller):
    latents = generator.sample(16, seed=9)
    there = controller.steer(latents, A(generator(latents)))
    assert float((there.values - latents.values).norm(dim=1).mean()) < 0.05 * float(latents.values.norm(dim=1).mean())


def test_too_few_solutions_are_refused(solve):
    with pytest.raises(ValueError, match="n >= 32 solutions"):
        fit_controller(solve, n=8)


def test_layers_of_another_width_are_refused(controller):
    with pytest.raises(ValueError, match="its layers take"):
        replace(controller, knobs=(*controller.knobs, replace(controller.knobs[0], name="other")))
