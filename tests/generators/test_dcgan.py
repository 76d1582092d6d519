"""DCGANs of every size, read from checkpoints of every habit, equal to the reference's images."""

import copy
from itertools import pairwise

import pytest
import torch
from generators.parity import assert_equal, assert_gradient, cases, gradient_of, load, unread
from torch import nn

from steerable.generators import dcgan, families
from steerable.generators.dcgan import from_state_dict, is_dcgan
from steerable.protocols import Latents

CASES = cases("dcgan")


def tutorial(widths, *, first=4, bias=False, norm=True):
    """The network as the PyTorch tutorial spells it, with nothing at its initial value."""
    layers = []
    for i, (wide, narrow) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        layers.append(nn.ConvTranspose2d(wide, narrow, first if i == 0 else 4, 1 if i == 0 else 2, 0 if i == 0 else 1, bias=bias))
        layers += [nn.Tanh()] if last else [nn.BatchNorm2d(narrow), nn.ReLU()] if norm else [nn.ReLU()]
    network = nn.Module()
    network.main = nn.Sequential(*layers)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=rng)
                tensor.copy_(1 + 0.1 * noise.abs() if key.endswith("running_var") else 0.1 * noise)
    return network.eval()


def images_of(generator, z):
    return generator(Latents(z.flatten(1), generator.spaces["z"]))


NETWORK = tutorial((16, 64, 32, 16, 8, 3))
STATE = NETWORK.state_dict()
Z = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))


# ------------------------------------------------------------------ the references


@pytest.mark.parametrize("name", CASES)
def test_images_and_gradients_equal_the_references(name):
    case = load(name)
    z, expected = case.inputs["z"], case.outputs
    for read in (from_state_dict(case.state, name=name), families.from_tensors(case.state, name=name)):
        assert_equal(images_of(read, z), expected["image_const"], "image")
        assert (images_of(read, z) - expected["image_batch_stats"]).abs().max() > 0.1  # no statistics of the batch
        some = z[: len(case.inputs["cotangent"])].flatten(1).requires_grad_()
        assert_gradient(gradient_of(images_of(read, some), some, case.inputs["cotangent"]), expected["vjp_z"].flatten(1))
    assert not unread(case, ("image_const", "image_batch_stats", "vjp_z"))


@pytest.mark.parametrize("name", CASES)
def test_all_sizes_are_read_from_the_weights(name):
    case = load(name)
    read = from_state_dict(case.state)
    assert read.spaces["z"].shape == (case.facts["constructor"]["nz"],) and read.classes is None
    assert read.image_shape == (case.facts["image_channels"], case.facts["resolution"], case.facts["resolution"])


@pytest.fixture(scope="module")
def reference():
    return from_state_dict(STATE, name="reference")


# ------------------------------------------------------------------ folding


def test_folding_changes_images_by_rounding_only(reference):
    with torch.no_grad():
        assert torch.allclose(images_of(reference, Z), NETWORK.main(Z[:, :, None, None]), rtol=0, atol=2e-6)


def test_folding_leaves_the_state_dict_as_it_was(reference):
    assert {key: value.shape for key, value in reference.network.state_dict().items()} == {
        key: value.shape for key, value in dcgan.DCGAN(**reference.network.config).state_dict().items()
    }
    reference.network.prepare()
    assert from_state_dict(reference.network.state_dict()).fingerprint == reference.fingerprint


def test_a_network_that_is_trained_uses_its_norms():
    network = dcgan.DCGAN((16, 32, 16, 12, 3))
    network.prepare()
    network.train()(Z).sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_images_lie_in_memory_as_usual(reference):
    assert images_of(reference, Z).is_contiguous()


def test_forward_and_reverse_products_agree_and_equal_differences(reference):
    network, z = copy.deepcopy(reference.network).double(), Z.double()
    rng = torch.Generator().manual_seed(1)
    move = torch.randn(z.shape, generator=rng, dtype=torch.float64)
    images, forward = torch.func.jvp(network, (z,), (move,))
    weight = torch.randn(images.shape, generator=rng, dtype=torch.float64)
    assert torch.allclose((forward * weight).sum(), (torch.func.vjp(network, z)[1](weight)[0] * move).sum())
    assert torch.allclose(forward, (network(z + 1e-6 * move) - network(z - 1e-6 * move)) / 2e-6, atol=1e-6)


def test_vmap_gives_the_same_images(reference):
    rows = torch.func.vmap(lambda one: reference.network(one[None])[0])(Z)
    assert torch.allclose(rows, images_of(reference, Z), atol=1e-6)


# ------------------------------------------------------------------ habits of checkpoints


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"module.{key}",
        lambda key: f"netG.{key}",
        lambda key: f"module.generator.{key}",
        lambda key: key.replace("main", "layers"),
        lambda key: key.removeprefix("main."),
    ],
    ids=["module.", "netG.", "module.generator.", "layers", "bare numbers"],
)
def test_the_prefix_of_the_keys_does_not_matter(reference, rename):
    renamed = from_state_dict({rename(key): value for key, value in STATE.items()})
    assert torch.equal(images_of(renamed, Z), images_of(reference, Z))


def test_the_order_of_the_keys_does_not_matter(reference):
    shuffled = from_state_dict(dict(sorted(STATE.items(), reverse=True)))  # main.9 before main.10
    assert shuffled.fingerprint == reference.fingerprint


def test_one_network_has_one_fingerprint_however_its_checkpoint_is_spelled(reference):
    assert from_state_dict({f"module.{k}": v for k, v in STATE.items() if "num_batches" not in k}).fingerprint == reference.fingerprint


@pytest.mark.parametrize("outer", ["netG_state_dict", "generator", "state_dict", "model"])
def test_a_checkpoint_that_nests_the_generator_is_unwrapped(reference, outer):
    discriminator = {"main.0.weight": torch.randn(8, 3, 4, 4), "main.2.weight": torch.randn(16, 8, 4, 4)}
    nested = {"epoch": 5, outer: STATE, "netD_state_dict": discriminator, "losses": [0.1, 0.2]}
    assert from_state_dict(nested).fingerprint == reference.fingerprint


def test_the_averaged_copy_of_a_generator_goes_first(reference):
    noisy = {key: value + 0.01 if value.is_floating_point() else value for key, value in STATE.items()}
    assert from_state_dict({"generator": noisy, "generator_ema": STATE}).fingerprint == reference.fingerprint


def test_two_generators_of_one_checkpoint_are_refused_by_name():
    with pytest.raises(ValueError, match=r"several generators \(a, b\): pass the one you mean"):
        from_state_dict({"a": STATE, "b": STATE})


def test_half_precision_weights_are_computed_in_float32(reference):
    half = from_state_dict({key: value.half() if value.is_floating_point() else value for key, value in STATE.items()})
    images = images_of(half, Z)
    assert images.dtype == torch.float32
    assert (images - images_of(reference, Z)).abs().max() < 0.02


def test_the_checkpoint_is_not_written_to():
    before = {key: value.clone() for key, value in STATE.items()}
    from_state_dict(STATE)
    assert all(torch.equal(value, before[key]) and not value.requires_grad for key, value in STATE.items())


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("widths", "first", "side"),
    [
        ((5, 6, 3), 4, 8),
        ((5, 8, 6, 4, 3), 4, 32),
        ((5, 8, 8, 6, 4, 3), 4, 64),
        ((5, 8, 8, 6, 6, 4, 3), 4, 128),
        ((5, 8, 6, 4, 1), 4, 32),
        ((5, 8, 6, 1), 7, 28),
        ((12, 6, 6, 3), 2, 8),
    ],
)
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
def test_a_dcgan_of_any_depth_width_and_channels_gives_the_tutorials_images(widths, first, side, bias, norm):
    network = tutorial(widths, first=first, bias=bias, norm=norm)
    generator = from_state_dict(network.state_dict())
    latents = generator.sample(2, seed=0)
    assert generator.image_shape == (widths[-1], side, side)
    with torch.no_grad():
        assert torch.allclose(generator(latents), network.main(latents.values[:, :, None, None]), atol=1e-6)


def test_a_norm_after_only_some_layers_is_kept_there():
    network = tutorial((5, 8, 6, 4, 3))
    network.main[4] = nn.Identity()
    generator = from_state_dict(network.state_dict())
    latents = generator.sample(2, seed=0)
    with torch.no_grad():
        assert torch.allclose(generator(latents), network.main(latents.values[:, :, None, None]), atol=1e-6)


def test_a_label_table_makes_it_class_conditional():
    network = tutorial((7, 8, 6, 3))
    table = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    generator = from_state_dict({"label_emb.weight": table, **network.state_dict()}, name="digits")
    assert generator.classes == 10 and generator.spaces["z"].shape == (4,)
    latents = generator.sample(3, seed=0, labels=[0, 9, 4])
    with torch.no_grad():
        expected = network.main(torch.cat([latents.values, table[[0, 9, 4]]], 1)[:, :, None, None])
    assert torch.allclose(generator(latents), expected, atol=1e-6)


# ------------------------------------------------------------------ refusals


def discriminator(channels=3):
    network = nn.Sequential()
    for i, (wide, narrow) in enumerate([(channels, 8), (8, 16), (16, 32), (32, 1)]):
        network.append(nn.Conv2d(wide, narrow, 4, 2, 1, bias=False))
        if 0 < i < 3:
            network.append(nn.BatchNorm2d(narrow))
        network.append(nn.LeakyReLU(0.2))
    return network.state_dict()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_discriminator_is_no_generator(channels):
    with pytest.raises(ValueError, match=rf"no DCGAN generator in this checkpoint: it holds 0\.weight \(8, {channels}, 4, 4\)"):
        from_state_dict(discriminator(channels))


@pytest.mark.parametrize(
    ("checkpoint", "say"),
    [
        ({}, "it holds nothing"),
        ({"epoch": 3, "losses": []}, "it holds epoch, losses"),
        ({"weight": torch.zeros(3, 4)}, r"it holds weight \(3, 4\)"),
    ],
    ids=["empty", "no tensors", "a matrix"],
)
def test_a_checkpoint_without_a_chain_says_what_it_holds(checkpoint, say):
    assert not is_dcgan(checkpoint)
    with pytest.raises(ValueError, match=say):
        from_state_dict(checkpoint)


def test_what_is_a_dcgan_is_known_before_it_is_built():
    assert is_dcgan(STATE) and is_dcgan({"netG": STATE}) and not is_dcgan(discriminator())


@pytest.mark.parametrize("side", [3, 5, 6])
def test_kernels_that_do_not_double_are_refused_by_name(side):
    state = {**STATE, "main.6.weight": torch.randn(32, 16, side, side)}
    with pytest.raises(ValueError, match=rf"^main\.6\.weight is {side} x {side}; DCGAN layers are square, and 4 x 4 after the first\."):
        from_state_dict(state)


def test_a_first_kernel_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"main\.0\.weight is 4 x 3"):
        from_state_dict({**STATE, "main.0.weight": torch.randn(16, 64, 4, 3)})


def test_a_norm_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"main\.4"):
        from_state_dict({**STATE, "main.4.weight": torch.ones(7)})


def test_a_norm_with_a_part_missing_is_refused_by_the_parts_name():
    with pytest.raises(ValueError, match=r"lacks main\.4\.running_var"):
        from_state_dict({key: value for key, value in STATE.items() if key != "main.4.running_var"})


def test_a_norm_after_the_last_layer_is_refused():
    norm = {f"main.13.{key}": value for key, value in nn.BatchNorm2d(3).state_dict().items()}
    with pytest.raises(ValueError, match="a batch norm after its last layer"):
        from_state_dict({**STATE, **norm})


@pytest.mark.parametrize("wide", [16, 40])
def test_a_label_table_that_leaves_no_latent_is_refused(wide):
    with pytest.raises(ValueError, match=r"label table"):
        from_state_dict({**STATE, "embedding.weight": torch.randn(10, wide)})


def test_two_label_tables_are_refused():
    with pytest.raises(ValueError, match="2 label tables"):
        from_state_dict({**STATE, "a.weight": torch.randn(10, 4), "b.weight": torch.randn(10, 4)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_damaged_weights_are_refused_by_name(bad):
    state = {key: value.clone() for key, value in STATE.items()}
    state["main.6.weight"][0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"has NaN or infinite weights in main\.6\.weight"):
        from_state_dict(state)
