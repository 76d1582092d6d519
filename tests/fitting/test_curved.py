"""Curved walks where a straight one cannot follow, and steps whose result is known by hand."""

import json
import math

import pytest
import torch
from toys import Brighten, LinearGenerator, layered_generator, linear_generator

from steerable.edits import as_edit, measured_edit
from steerable.features.perceptual import Perceptual
from steerable.fitting.calibrate import calibrate
from steerable.fitting.curved import fit_walk
from steerable.fitting.walks import Diverged, fit_directions
from steerable.protocols import Knob


class Compass(LinearGenerator):
    """A latent's two coordinates as the brightness of two pixels: turning the picture turns the latent."""


@pytest.fixture(scope="module")
def compass():
    return Compass(torch.eye(2), torch.zeros(2), (1, 1, 2))


def turning(images, amounts):
    cos, sin = amounts.cos()[:, None], amounts.sin()[:, None]
    x, y = images[:, 0, :, 0], images[:, 0, :, 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], 2)[:, None]


TURN = as_edit(turning, Knob("turn", "rad", -1.2, 1.2))


@pytest.fixture(scope="module")
def turned(compass):
    return fit_walk(compass, TURN, n=6000, batch=32, lr=0.01, calibration=0)


def test_a_straight_walk_cannot_turn(compass):
    assert fit_directions(compass, TURN, n=1000, calibration=0).fit["held_out"]["turn"]["mean"] > 0.9


def test_a_curved_walk_turns(turned):
    assert turned.fit["held_out"]["turn"]["mean"] < 0.2  # two ReLUs in the plane are no exact rotation


@pytest.mark.parametrize("amount", [-0.9, 0.13, 0.6])
def test_amounts_between_whole_steps_are_walked(compass, turned, amount):
    latents = compass.sample(64, seed=9)
    moved = turned.steer(latents, torch.full((64, 1), amount))
    targets, _ = TURN(compass(latents), torch.full((64,), amount))
    left = (compass(moved) - targets).square().mean() / (compass(latents) - targets).square().mean()
    assert left < 0.25


def test_the_length_of_z_is_kept(compass, turned):
    latents = compass.sample(16, seed=3)
    moved = turned.steer(latents, torch.full((16, 1), 0.7))
    assert torch.allclose(moved.values.norm(dim=1), latents.values.norm(dim=1), rtol=1e-5)


@pytest.mark.parametrize("space", ["z", "w", "w+", "s"])
def test_every_space_of_a_layered_generator_has_curved_walks(space):
    generator = layered_generator()
    walk = fit_walk(generator, Brighten(), n=1600, lr=0.01, space=space)
    assert walk.space == generator.spaces[space]
    assert walk.fit["held_out"]["brighten"]["mean"] < (0.95 if space == "z" else 0.2)


def test_one_unit_asked_is_one_unit_done(compass, turned):
    walk = calibrate(compass, turned, {"turn": TURN}, n=64)
    latents = compass.sample(200, seed=9)
    for amount in (0.5 * walk.knobs[0].low, 0.5 * walk.knobs[0].high):
        read = measured_edit(TURN, compass(latents), compass(walk.steer(latents, torch.full((200, 1), amount))))
        assert abs(amount) > 0.3 and float(read.mean()) == pytest.approx(amount, rel=0.3)


def test_a_class_that_the_generator_lacks_is_refused():
    with pytest.raises(ValueError, match="has the classes 0 to 2, got"):
        fit_walk(layered_generator(3), Brighten(), n=16, labels=3)


def test_a_walk_of_one_class_is_learned_on_that_class():
    assert fit_walk(layered_generator(3), Brighten(), n=16, space="w", labels=2).fit["label"] == 2


def test_a_walk_in_layers_has_a_network_for_each_of_them():
    walk = fit_walk(layered_generator(), Brighten(), n=32, space="w+")
    assert tuple(walk.ahead.inner.shape) == (3, 4, 4)


def test_the_same_seed_gives_the_same_walk():
    first, second = (fit_walk(linear_generator(), Brighten(), n=64, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.ahead.tensors.values(), second.ahead.tensors.values(), strict=True))


def test_a_range_on_one_side_only_is_walked_there():
    walk = fit_walk(linear_generator(), Brighten(), n=64, amounts=(0.0, 0.4), calibration=0)
    assert walk.strides[1] == pytest.approx(0.08) and walk.knobs[0].low == 0


def test_the_record_of_the_fit_is_json():
    assert json.loads(json.dumps(fit_walk(linear_generator(), Brighten(), n=32).fit))["steps"] == 5


def test_a_walk_may_be_learned_by_how_pictures_look():
    from steerable import load_backbone

    pictures = LinearGenerator(torch.ones(3 * 64, 1), torch.zeros(3 * 64), (3, 8, 8))
    walk = fit_walk(pictures, Brighten(), n=48, loss=Perceptual(load_backbone(size=32)))
    assert walk.fit["loss"] == "perceptual" and math.isfinite(walk.fit["training_loss"])


def test_a_fit_that_diverges_hands_out_the_last_good_state():
    calls = []

    def breaking(images, amounts):
        calls.append(1)
        return images * (1 if len(calls) < 8 else math.nan)

    with pytest.raises(Diverged, match="the loss of breaking is nan after [0-9]+ samples: lower lr") as caught:
        fit_walk(linear_generator(), as_edit(breaking, Knob("breaking", "", -1, 1)), n=256)
    assert torch.isfinite(caught.value.last.ahead.inner).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edit": "colour"}, "imitates one edit, got red, green, blue"),
        ({"edit": "zoom", "steps": 0}, "steps has to be a number above 0"),
        ({"edit": "zoom", "loss": "perceptual"}, r"loss=Perceptual\(load_backbone\(\)\)"),
        ({"edit": "shift-x", "amounts": (-2.0, 2.0)}, r'"shift-x" by -2 image widths leaves 0.0 % of a 4 x 4 picture known'),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_walk(linear_generator(), **arguments)
