"""What holds for every generator, feature, edit and control, whoever wrote it.

Neutral changes nothing; rows do not depend on the batch; inputs are not written to; gradients are finite; what is
saved and loaded has the same bytes; latents of another space or generator are refused by both names.
"""

import dataclasses
import re
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import jvp, vjp, vmap
from toys import Brighten, LinearGenerator, OnePixel, linear_generator

from steerable import store, zoo
from steerable.controls.chain import Chain
from steerable.controls.controller import AlongAxis
from steerable.controls.directions import Directions, amounts
from steerable.controls.groups import Controllers, GroupController
from steerable.controls.solve import Solve
from steerable.controls.trajectory import Trajectory
from steerable.edits import EDITS, as_edit
from steerable.features.network import column, feature
from steerable.features.pixels import Box, RegionPixels
from steerable.fitting.amortised import fit_controller
from steerable.fitting.axes import fit_axes
from steerable.fitting.curved import fit_walk
from steerable.fitting.walks import fit_directions
from steerable.generators.dcgan import from_state_dict
from steerable.generators.module import wrap
from steerable.protocols import Control, Edit, Feature, Generator, Knob, Latents, LatentSpace

# ------------------------------------------------------------------ every generator


def dcgan_state(widths=(6, 8, 6, 3)):
    rng = torch.Generator().manual_seed(0)
    state = {}
    for i, (wide, narrow) in enumerate(pairwise(widths)):
        state[f"main.{3 * i}.weight"] = torch.randn(wide, narrow, 4, 4, generator=rng) / wide**0.5
        if i < len(widths) - 2:
            for key, value in nn.BatchNorm2d(narrow).state_dict().items():
                state[f"main.{3 * i + 1}.{key}"] = value
    return state


class Perceptron(nn.Module):
    """z, and one-hot labels where it has classes, -> (n, 3, 8, 8)."""

    def __init__(self, classes=0):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(5 + classes, 192, generator=rng) / 2)

    def forward(self, z, labels=None):
        inputs = z.flatten(1) if labels is None else torch.cat([z.flatten(1), labels], 1)
        return torch.tanh(inputs @ self.matrix).view(-1, 3, 8, 8)


GENERATORS = {
    "faces64": lambda: zoo.load_generator("faces64"),
    "dcgan": lambda: from_state_dict(dcgan_state(), name="tiny"),
    "conditional dcgan": lambda: from_state_dict({**dcgan_state(), "embedding.weight": torch.eye(4, 2)}, name="tiny with classes"),
    "wrapped": lambda: wrap(Perceptron(), latent_size=5, name="perceptron"),
    "wrapped, deep latents": lambda: wrap(Perceptron(), latent_size=(5, 1, 1), name="perceptron"),
    "wrapped, conditional": lambda: wrap(Perceptron(3), latent_size=5, classes=3, labels="one-hot", name="shades"),
    "linear toy": lambda: linear_generator(6, (3, 4, 4)),
}
OURS = [name for name in GENERATORS if "toy" not in name]


@cache
def generator_of(name):
    return GENERATORS[name]()


def close(a, b, limit=1e-4):
    return torch.allclose(a, b, rtol=limit, atol=limit * max(1.0, float(b.abs().max())))


def elsewhere(latents):
    """The same values, said to be of another generator."""
    return dataclasses.replace(latents, space=dataclasses.replace(latents.space, fingerprint="a8010000", generator="digits32"))


def in_w(latents):
    """The same values, said to be of another space of the same generator."""
    return dataclasses.replace(latents, space=dataclasses.replace(latents.space, name="w"))


every_generator = pytest.mark.parametrize("name", GENERATORS)
every_generator_of_ours = pytest.mark.parametrize("name", OURS)


@every_generator
def test_a_generator_is_one(name):
    generator = generator_of(name)
    images = generator(generator.sample(3, seed=0))
    assert isinstance(generator, Generator)
    assert images.shape == (3, *generator.image_shape) and images.dtype == torch.float32


@every_generator_of_ours
def test_images_lie_in_minus_one_to_one(name):
    assert generator_of(name)(generator_of(name).sample(8, seed=1)).abs().max() <= 1


@every_generator
def test_an_image_does_not_depend_on_its_batch(name):
    generator = generator_of(name)
    latents = generator.sample(5, seed=0)
    images = generator(latents)
    for row in range(5):
        assert close(generator(latents[row : row + 1]), images[row : row + 1])


@every_generator
def test_a_sampled_row_does_not_depend_on_n(name):
    few, many = (generator_of(name).sample(n, seed=4) for n in (2, 6))
    assert torch.equal(few.values, many.values[:2])
    assert few.labels is None or torch.equal(few.labels, many.labels[:2])


@every_generator
def test_two_seeds_share_no_row(name):
    rows = torch.cat([generator_of(name).sample(5, seed=seed).values for seed in range(4)]).flatten(1)
    assert len(rows.unique(dim=0)) == 20


@every_generator
def test_one_latent_gives_one_image(name):
    latents = generator_of(name).sample(2, seed=0)
    assert torch.equal(generator_of(name)(latents), generator_of(name)(latents))


@every_generator
def test_a_generator_does_not_write_to_its_latents(name):
    latents = generator_of(name).sample(2, seed=0)
    before = latents.values.clone()
    generator_of(name)(latents)
    assert torch.equal(latents.values, before)


@every_generator
def test_gradients_of_an_image_are_finite_and_not_all_zero(name):
    latents = generator_of(name).sample(2, seed=0)
    values = latents.values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(generator_of(name)(latents.at(values)).square().sum(), values)
    assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()


@every_generator_of_ours
def test_a_generator_refuses_latents_of_another_generator_by_both_names(name):
    generator = generator_of(name)
    with pytest.raises(ValueError, match=rf"{re.escape(generator.spaces['z'].owner)}.*digits32 \(a801…\)"):
        generator(elsewhere(generator.sample(1, seed=0)))


@every_generator_of_ours
def test_a_generator_refuses_latents_of_another_space_by_both_names(name):
    with pytest.raises(ValueError, match=r'lives in z of .*, got w latents\. Convert them first: generator\.to_space\(latents, "z"\)'):
        generator_of(name)(in_w(generator_of(name).sample(1, seed=0)))


@pytest.mark.parametrize("name", ["faces64", "dcgan", "conditional dcgan"])
def test_a_saved_and_loaded_generator_is_the_same_to_the_byte(name, tmp_path):
    generator = generator_of(name)
    first = store.save_generator(generator, tmp_path / "first.safetensors")
    loaded = store.load_generator_file(first)
    second = store.save_generator(loaded, tmp_path / "second.safetensors")
    assert first.read_bytes() == second.read_bytes()
    assert loaded.fingerprint == generator.fingerprint and loaded.name == generator.name
    assert torch.equal(loaded(loaded.sample(2, seed=0)), generator(generator.sample(2, seed=0)))


# ------------------------------------------------------------------ every feature


@cache
def features():
    ready = (*zoo.load_features("all"), zoo.load_feature("identity"), zoo.load_feature("landmarks68"))
    mixed = feature(lambda images: torch.stack([images.mean((1, 2, 3)), images[:, 0].amax((1, 2))], 1), name="mixed", columns=("a", "b"))
    own = (
        OnePixel(),
        mixed,
        column(zoo.load_feature("pose"), "yaw"),
        feature(lambda images: images.detach().numpy().mean((1, 2, 3)), name="black-box"),
        RegionPixels(Box(16, 18, 52, 46), (3, 64, 64), name="box"),
    )
    return {**{one.name: one for one in ready}, **{f"own {one.name}": one for one in own}}


@cache
def faces(n=4):
    generator = generator_of("faces64")
    with torch.no_grad():
        return generator(generator.sample(n, seed=3))


every_feature = pytest.mark.parametrize("name", features())
every_differentiable_feature = pytest.mark.parametrize("name", [name for name, one in features().items() if one.differentiable])


@every_feature
def test_a_feature_is_one(name):
    one = features()[name]
    with torch.no_grad():
        values = one(faces())
    assert isinstance(one, Feature) and values.shape == (4, len(one.columns)) and values.dtype == torch.float32
    assert one.metric in ("l1", "l2", "cosine")


@every_feature
def test_a_column_is_a_lowercase_name_with_hyphens(name):
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", column) for column in features()[name].columns)


@every_feature
def test_a_measured_value_does_not_depend_on_its_batch(name):
    with torch.no_grad():
        together = features()[name](faces())
        alone = torch.cat([features()[name](faces()[row : row + 1]) for row in range(4)])
    assert close(alone, together)


@every_feature
def test_a_feature_does_not_write_to_its_images(name):
    before = faces().clone()
    with torch.no_grad():
        features()[name](faces())
    assert torch.equal(faces(), before)


@every_differentiable_feature
@pytest.mark.parametrize("shade", [None, -1.0, 0.0, 1.0], ids=["faces", "black", "grey", "white"])
def test_gradients_of_a_feature_are_finite(name, shade):
    images = faces()[:2].clone() if shade is None else torch.full((1, 3, 64, 64), shade)
    images.requires_grad_()
    values = features()[name](images)
    (gradient,) = torch.autograd.grad(values.sum(), images)
    assert values.isfinite().all() and gradient.isfinite().all()


@every_differentiable_feature
def test_forward_and_reverse_mode_agree_on_a_feature(name):
    """Through ``vmap``, as the Jacobians of trajectories take them."""
    one = features()[name]
    rng = torch.Generator().manual_seed(0)
    tangents = torch.randn(2, *faces()[:1].shape, generator=rng)
    pushed = vmap(lambda tangent: jvp(one, (faces()[:1],), (tangent,))[1])(tangents)  # (2, 1, m)
    values, pull = vjp(one, faces()[:1])
    weights = torch.randn(values.shape, generator=rng)
    (pulled,) = pull(weights)
    assert torch.allclose((pushed * weights).sum((1, 2)), (tangents * pulled).sum((1, 2, 3, 4)), rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------ every edit


def gamma(images, amounts):
    return ((images + 1.01) / 2.01) ** torch.exp2(-amounts)[:, None, None, None] * 2.01 - 1.01


ALL_EDITS = {**EDITS, "toy brighten": Brighten(), "own gamma": as_edit(gamma, Knob("gamma", "stops", -1, 1))}
every_edit = pytest.mark.parametrize("one", ALL_EDITS.values(), ids=ALL_EDITS)


@every_edit
def test_an_edit_by_its_neutral_amount_changes_nothing(one):
    targets, mask = one(faces(), torch.full((4,), one.knob.neutral))
    assert isinstance(one, Edit) and torch.allclose(targets, faces(), atol=5e-5) and bool((mask == 1).all())


@every_edit
def test_an_edit_of_one_image_does_not_depend_on_its_batch(one):
    asked = torch.linspace(one.knob.low, one.knob.high, 4)
    targets, mask = one(faces(), asked)
    for row in range(4):
        alone, known = one(faces()[row : row + 1], asked[row : row + 1])
        assert close(alone, targets[row : row + 1]) and torch.equal(known, mask[row : row + 1])


@every_edit
def test_an_edit_does_not_write_to_its_inputs(one):
    images, asked = faces().clone(), torch.full((4,), one.knob.high)
    one(images, asked)
    assert torch.equal(images, faces()) and torch.equal(asked, torch.full((4,), one.knob.high))


@every_edit
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_gradients_of_an_edit_are_finite(one, share):
    images, asked = faces().clone().requires_grad_(), torch.full((4,), share * one.knob.high).requires_grad_()
    targets, _ = one(images, asked)
    for gradient in torch.autograd.grad(targets.square().sum(), (images, asked)):
        assert gradient.isfinite().all()


# ------------------------------------------------------------------ every control


@cache
def linear():
    return linear_generator(6, (3, 4, 4))


@cache
def fitted_axes():
    return fit_axes(linear(), [OnePixel(0, 0), OnePixel(1, 2)], n=80, calibration=32)


def group_controllers():
    """One value for each of two parts of the latent, by networks of random weights."""
    rng = torch.Generator().manual_seed(0)
    parts = []
    for name, width in (("a", 3), ("b", 2)):
        sizes = ((4, 1), (4,), (width, 4), (width,), (4, 3), (4,), (width, 4), (width,))
        layers = tuple(torch.randn(size, generator=rng) for size in sizes)
        knob = (Knob(name, "deg", -1, 1),)
        parts.append(GroupController(name, knob, 0, torch.zeros(1), torch.ones(1), layers[:4], layers[4:], noise=2))
    return Controllers(tuple(parts), dataclasses.replace(linear().spaces["z"], parts=(("a", 0, 3), ("b", 3, 5), ("rest", 5, 6))))


CONTROLS = {
    "directions": lambda: Directions((Knob("a", "", -1, 1), Knob("b", "deg", -9, 9)), linear().spaces["z"], torch.eye(6)[:2]),
    "axes": fitted_axes,
    "axes, held": lambda: fitted_axes().held(["pixel-0-0-0"]),
    "walk": lambda: fit_directions(linear(), Brighten(), n=64),
    "trajectory": lambda: Trajectory(linear(), move=[OnePixel(0, 0), OnePixel(0, 1)], hold=[OnePixel(3, 3)]),
    "trajectory by differences": lambda: Trajectory(
        linear(), move=feature(lambda images: images.detach().numpy()[:, 0, 0, :2], name="two", columns=("a", "b")), hold=OnePixel(3, 3)
    ),
    "curved walk": lambda: fit_walk(linear(), Brighten(), n=96, lr=0.01),
    "chain": lambda: Chain((control_of("directions"), control_of("curved walk"), fitted_axes()["pixel-0-0-0"])),
    "value": lambda: AlongAxis(linear(), fitted_axes()["pixel-0-0-0"], OnePixel(0, 0)),
    "values": lambda: Solve(
        linear(), set={"pixel-0-0-0": 0, "pixel-0-1-2": 0}, hold=OnePixel(3, 3), features=[OnePixel(0, 0), OnePixel(1, 2)], population=40
    ),
    "values at once": lambda: fit_controller(control_of("values"), n=32, population=40, held_out=16, steps=20),
    "values of groups": lambda: group_controllers(),
}
SAVED = ["directions", "axes", "axes, held", "walk", "curved walk", "chain", "values at once", "values of groups"]
RELATIVE = [name for name in CONTROLS if not name.startswith("value")]  # a knob that sets a value has no neutral amount
every_control = pytest.mark.parametrize("name", CONTROLS)


@cache
def control_of(name):
    return CONTROLS[name]()


def turned(control, n):
    """Another amount for every row and knob, within what every toy can do."""
    return torch.linspace(-0.3, 0.3, n * len(control.knobs)).view(n, len(control.knobs))


@every_control
def test_a_control_is_one(name):
    control = control_of(name)
    latents = linear().sample(3, seed=0)
    steered = control.steer(latents, turned(control, 3))
    assert isinstance(control, Control) and steered.space == control.space and len(steered) == 3
    assert not torch.equal(steered.values, latents.values)


@pytest.mark.parametrize("name", RELATIVE)
def test_neutral_amounts_change_nothing(name):
    control, latents = control_of(name), linear().sample(3, seed=0)
    assert torch.equal(control.steer(latents, amounts(control, latents)).values, latents.values)


@every_control
def test_a_steered_row_does_not_depend_on_its_batch(name):
    control, latents = control_of(name), linear().sample(5, seed=0)
    asked = turned(control, 5)
    together = control.steer(latents, asked).values
    for row in range(5):
        assert close(control.steer(latents[row : row + 1], asked[row : row + 1]).values, together[row : row + 1])


@every_control
def test_the_same_request_gives_the_same_latents(name):
    control, latents = control_of(name), linear().sample(3, seed=0)
    first, second = (control.steer(latents, turned(control, 3)).values for _ in range(2))
    assert torch.equal(first, second)


@every_control
def test_a_control_does_not_write_to_its_inputs(name):
    control, latents = control_of(name), linear().sample(3, seed=0)
    asked = turned(control, 3)
    before = latents.values.clone(), asked.clone()
    control.steer(latents, asked)
    assert torch.equal(latents.values, before[0]) and torch.equal(asked, before[1])


@every_control
def test_labels_travel_with_the_latents(name):
    latents = dataclasses.replace(linear().sample(3, seed=0), labels=torch.tensor([2, 0, 1]))
    assert control_of(name).steer(latents, turned(control_of(name), 3)).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("name", SAVED)
def test_gradients_through_a_control_are_finite(name):
    control, latents = control_of(name), linear().sample(3, seed=0)
    values, asked = latents.values.clone().requires_grad_(), turned(control, 3).requires_grad_()
    images = linear()(control.steer(latents.at(values), asked))
    for gradient in torch.autograd.grad(images.square().sum(), (values, asked)):
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


@every_control
def test_a_control_refuses_latents_of_another_generator_by_both_names(name):
    control = control_of(name)
    with pytest.raises(ValueError, match=r"toy \(00to…\), got latents of digits32 \(a801…\)\. Sample them from the same generator"):
        control.steer(elsewhere(linear().sample(1, seed=0)), turned(control, 1))


@every_control
def test_a_control_refuses_latents_of_another_space_by_both_names(name):
    control = control_of(name)
    with pytest.raises(
        ValueError, match=r'lives in z of toy \(00to…\), got w latents\. Convert them first: generator\.to_space\(latents, "z"\)'
    ):
        control.steer(in_w(linear().sample(1, seed=0)), turned(control, 1))


@every_control
@pytest.mark.parametrize("shape", [(2, 0), (2, 5), (3, 1)])
def test_a_control_refuses_amounts_of_another_shape(name, shape):
    control = control_of(name)
    with pytest.raises(ValueError, match=rf"amounts are \(n, knobs\) = \(2, {len(control.knobs)}\)"):
        control.steer(linear().sample(2, seed=0), torch.zeros(shape))


@every_control
def test_a_control_refuses_amounts_that_are_no_numbers(name):
    control = control_of(name)
    with pytest.raises(ValueError, match="NaN or infinite"):
        control.steer(linear().sample(2, seed=0), torch.full((2, len(control.knobs)), torch.nan))


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_and_loaded_control_is_the_same_to_the_byte(name, tmp_path):
    control = control_of(name)
    first = store.save_control(control, tmp_path / "first.safetensors")
    loaded = store.load_control(first, generator=linear())
    assert store.save_control(loaded, tmp_path / "second.safetensors").read_bytes() == first.read_bytes()
    assert loaded.knobs == control.knobs and loaded.space == control.space
    latents = linear().sample(3, seed=0)
    assert torch.equal(loaded.steer(latents, turned(control, 3)).values, control.steer(latents, turned(control, 3)).values)


@pytest.mark.parametrize("name", SAVED)
def test_a_control_of_another_generator_is_refused_at_loading_by_both_names(name, tmp_path):
    path = store.save_control(control_of(name), tmp_path / "one.safetensors")
    other = LinearGenerator(linear().matrix, linear().offset, (3, 4, 4), "a8010000", "digits32")
    with pytest.raises(ValueError, match=r"one\.safetensors was fitted on toy \(00to…\), this generator is digits32 \(a801…\)"):
        store.load_control(path, generator=other)


def test_a_latent_space_of_another_shape_is_another_space():
    """The law that keeps a 512-number z of one network out of a 100-number one, even where fingerprints are missing."""
    space = linear().spaces["z"]
    with pytest.raises(ValueError, match=r"are \(n, 6\), got \(2, 7\)"):
        Latents(torch.zeros(2, 7), space)
    assert LatentSpace("z", (7,), space.fingerprint) != space
