"""Several spaces behind one generator: the way from z to styles, truncation, layers, parts, options and mixed classes."""

from __future__ import annotations

import pytest
import torch
from toys import layered_generator

from steerable import store
from steerable.controls.directions import Directions, amounts, layer_numbers
from steerable.protocols import Knob, Latents


@pytest.fixture
def generator():
    return layered_generator()


def control(generator, name="w", k=1, seed=0):
    space = generator.spaces[name]
    rng = torch.Generator().manual_seed(seed)
    knobs = tuple(Knob(f"knob{i}", "", -1, 1) for i in range(k))
    return Directions(knobs, space, torch.randn(k, *space.shape, generator=rng))


# ------------------------------------------------------------------ spaces


def test_w_is_where_it_is_sampled_unless_another_space_is_asked_for(generator):
    assert generator.sample(2, seed=0).space.name == "w"


@pytest.mark.parametrize("space", ["z", "w", "w+", "s"])
def test_one_seed_is_one_image_in_every_space(generator, space):
    images = generator(generator.sample(3, seed=4, space=space))
    torch.testing.assert_close(images, generator(generator.sample(3, seed=4, space="z")))


def test_a_sample_lies_on_the_sphere_of_its_space(generator):
    z = generator.sample(5, seed=1, space="z").values
    torch.testing.assert_close(z.square().mean(1), torch.ones(5))


def test_there_is_no_way_back(generator):
    with pytest.raises(ValueError, match=r'w\+ latents of layered cannot go back to w: sample them there.*space="w"'):
        generator.to_space(generator.sample(1, seed=0, space="w+"), "w")


def test_a_code_for_each_layer_needs_its_batch_dimension(generator):
    with pytest.raises(ValueError, match=r"Add the batch dimension: values\[None\]"):
        Latents(torch.zeros(3, 4), generator.spaces["w+"])


# ------------------------------------------------------------------ truncation


def test_psi_0_is_the_mean_latent(generator):
    values = generator.sample(3, seed=0, psi=0).values
    torch.testing.assert_close(values, generator.network.w_avg.detach().expand(3, -1))


def test_psi_is_the_share_of_the_way_that_is_kept(generator):
    full, centre = generator.sample(3, seed=0).values, generator.network.w_avg.detach()
    torch.testing.assert_close(generator.sample(3, seed=0, psi=0.7).values, centre + 0.7 * (full - centre))


def test_a_cutoff_truncates_the_first_layers_only(generator):
    full = generator.sample(2, seed=0, space="w+").values
    cut = generator.sample(2, seed=0, space="w+", psi=0.5, cutoff=2).values
    assert torch.equal(cut[:, 2:], full[:, 2:])
    torch.testing.assert_close(cut[:, :2], generator.sample(2, seed=0, space="w+", psi=0.5).values[:, :2])


def test_styles_can_be_truncated_on_the_way(generator):
    direct = generator.to_space(generator.sample(2, seed=0, space="w+", psi=0.5, cutoff=1), "s")
    assert torch.equal(generator.sample(2, seed=0, space="s", psi=0.5, cutoff=1).values, direct.values)


def test_one_part_can_be_truncated_alone(generator):
    full = generator.sample(2, seed=0)
    some = generator.truncate(full, 0.0, part="left").values
    assert torch.equal(some[:, 2:], full.values[:, 2:])
    torch.testing.assert_close(some[:, :2], torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("asked", "say"),
    [
        ({"space": "z", "psi": 0.5}, r'divides the length of z out.*acts in "w", "w\+"'),
        ({"space": "w", "psi": 0.5, "cutoff": 1}, r'cutoff counts layers, and w has none: use space="w\+"'),
        ({"space": "w+", "psi": 0.5, "cutoff": 4}, r"cutoff is 0 to 3 layers of w\+ of layered .*, got 4"),
        ({"space": "w", "psi": 2.5}, r"psi is the distance .* got 2.5"),
        ({"space": "v"}, r'unknown latent space "v"'),
    ],
)
def test_truncation_that_means_nothing_is_refused(generator, asked, say):
    with pytest.raises(ValueError, match=say):
        generator.sample(1, seed=0, **asked)


def test_an_unknown_part_is_refused_by_the_known_ones(generator):
    with pytest.raises(ValueError, match=r'unknown part of w of layered .* "lift": did you mean "left"\?'):
        generator.truncate(generator.sample(1, seed=0), 0.5, part="lift")


# ------------------------------------------------------------------ options and labels


def test_an_option_changes_the_images_and_not_the_generator(generator):
    latents = generator.sample(2, seed=0)
    doubled = generator.configured(gain=2.0)
    torch.testing.assert_close(doubled(latents), 2 * generator(latents))
    assert generator.options == {"gain": 1.0}


def test_an_unknown_option_is_refused_by_the_known_ones(generator):
    with pytest.raises(ValueError, match=r'unknown option of layered "gian": did you mean "gain"\?'):
        generator.configured(gian=2)


def test_labels_are_needed_where_they_enter_and_nowhere_else():
    generator = layered_generator(classes=4)
    z = generator.sample(2, seed=0, space="z", labels=3)
    w = generator.to_space(z, "w")
    assert torch.equal(generator(Latents(w.values, w.space)), generator(z))
    with pytest.raises(ValueError, match="has 4 classes: its latents need labels"):
        generator(Latents(z.values, z.space))


def test_classes_can_be_mixed():
    generator = layered_generator(classes=3)
    mixed = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.0, 0.8]])
    assert torch.equal(generator.sample(2, seed=0, labels=mixed).values, generator.sample(2, seed=0, labels=[1, 2]).values)


def test_labels_for_a_generator_without_classes_are_refused(generator):
    z = generator.sample(2, seed=0, space="z")
    with pytest.raises(ValueError, match="has no classes, got latents with labels"):
        generator(Latents(z.values, z.space, torch.tensor([0, 1])))


# ------------------------------------------------------------------ directions


def test_a_lifted_direction_moves_the_same_image(generator):
    axis, start = control(generator), generator.sample(3, seed=2)
    turned = axis.steer(start, amounts(axis, start, knob0=0.7))
    for name in ("w+", "s"):
        high = axis.lifted(generator, name)
        latents = generator.to_space(start, name)
        torch.testing.assert_close(generator(high.steer(latents, amounts(high, latents, knob0=0.7))), generator(turned))


def test_a_direction_of_z_cannot_be_lifted(generator):
    with pytest.raises(ValueError, match="the way from z to w bends"):
        control(generator, "z").lifted(generator, "w")


@pytest.mark.parametrize("space", ["w+", "s"])
@pytest.mark.parametrize(("layers", "channels"), [("1", [1]), ("0-1", [0, 1]), ([2], [2])])
def test_a_direction_in_some_layers_moves_what_they_drive(generator, space, layers, channels):
    axis = control(generator).lifted(generator, space).in_layers(layers)
    start = generator.sample(2, seed=0, space=space)
    moved = (generator(axis.steer(start, amounts(axis, start, knob0=1.0))) - generator(start)).abs().amax((0, 2, 3))
    assert [channel for channel in range(3) if moved[channel] > 0] == channels


def test_layers_have_names(generator):
    axis = control(generator, "w+")
    assert torch.equal(axis.in_layers("layer1").vectors, axis.in_layers([1]).vectors)


@pytest.mark.parametrize(
    ("layers", "say"),
    [("4", "layers are 0 to 2"), ("2-1", "layers count upwards"), ("layr1", 'did you mean "layer1"'), ([], "got none"), ([-1], "got -1")],
)
def test_layers_that_do_not_exist_are_refused(layers, say):
    with pytest.raises(ValueError, match=say):
        layer_numbers(layers, ["layer0", "layer1", "layer2"])


def test_w_drives_all_layers_at_once(generator):
    with pytest.raises(ValueError, match=r'lift the control first, \.lifted\(generator, "w\+"\)'):
        control(generator).in_layers("1")


def test_a_step_on_a_sphere_stays_there_and_no_step_changes_nothing(generator):
    axis, start = control(generator, "z"), generator.sample(2, seed=0, space="z")
    end = axis.steer(start, torch.tensor([[0.0], [2.0]]))
    assert torch.equal(end.values[0], start.values[0])
    torch.testing.assert_close(end.values[1].square().mean(), torch.tensor(1.0))


def test_a_saved_control_knows_its_layers_again(generator, tmp_path):
    axis = control(generator, "w+")
    again = store.load_control(store.save_control(axis, tmp_path / "axis.safetensors"))
    assert again.space.layers == axis.space.layers and again.in_layers("1").vectors.abs().sum() > 0
