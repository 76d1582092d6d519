"""ProGANs: equal to the reference's images at every level of detail, whatever code base stored them."""

import re

import pytest
import torch
import torch.nn.functional as F
from generators.parity import assert_equal, assert_gradient, cases, gradient_of, load, unread

from steerable.generators import families
from steerable.generators.progan import ProGAN, doubling
from steerable.protocols import Latents

CASES = cases("pggan")


def images_of(generator, z):
    return generator(Latents(z, generator.spaces["z"]))


def random_state(latent=6, widths=(5, 4, 3), channels=3, *, side=4, seed=0):
    """genforce's names with nothing at its initial value."""
    rng = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=rng)

    state = {"lod": torch.zeros(()), "layer0.weight": drawn(widths[0], latent, side, side)}
    for k, width in enumerate(widths):
        if k:
            state[f"layer{2 * k}.weight"] = drawn(width, widths[k - 1], 3, 3)
        state[f"layer{2 * k + 1}.weight"] = drawn(width, width, 3, 3)
        state |= {f"layer{i}.bias": drawn(width) for i in (2 * k, 2 * k + 1)}
        state |= {f"output{k}.weight": drawn(channels, width, 1, 1), f"output{k}.bias": drawn(channels)}
    return state


@pytest.fixture(scope="module")
def generator():
    return families.from_tensors(random_state(), name="grown")


# ------------------------------------------------------------------ the reference


@pytest.mark.parametrize("case", CASES)
def test_images_equal_the_references_at_every_level_of_detail(case):
    case = load(case)
    generator = families.from_tensors(case.state, name=case.name)
    assert generator.image_shape == (case.facts["image_channels"], case.facts["resolution"], case.facts["resolution"])
    assert generator.spaces["z"].shape == (case.facts["z_dim"],)
    z = case.inputs["z"]
    read = {"z_normalised", "vjp_z"}
    for key, expected in case.outputs.items():
        if match := re.fullmatch(r"image_(const|lod(\d+)(p\d+)?)", key):
            lod = float(key[9:].replace("p", ".")) if match[2] else None
            assert_equal(images_of(generator.configured(lod=lod), z[: len(expected)]), expected, "image", what=key)
            read.add(key)
    assert not unread(case, read)
    if "z_normalised" in case.outputs:
        assert_equal(generator.spaces["z"].normalised(z), case.outputs["z_normalised"], "w")


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_references(case):
    case = load(case)
    generator = families.from_tensors(case.state, name=case.name)
    expected = case.outputs["vjp_z"]
    z = case.inputs["z"][: len(expected)].clone().requires_grad_()
    assert_gradient(gradient_of(images_of(generator, z), z, case.inputs["cotangent"]), expected)


# ------------------------------------------------------------------ laws


def test_up_sampling_and_convolution_are_one_transposed_convolution():
    rng = torch.Generator().manual_seed(0)
    x, kernel = torch.randn(2, 3, 5, 5, generator=rng), torch.randn(4, 3, 3, 3, generator=rng)
    two_steps = F.conv2d(F.interpolate(x, scale_factor=2.0), kernel, padding=1)
    assert torch.allclose(F.conv_transpose2d(x, doubling(kernel), stride=2, padding=1), two_steps, atol=1e-5)


def test_the_length_of_z_does_not_show(generator):
    latents = generator.sample(2, seed=0)
    assert torch.allclose(generator(latents.at(3 * latents.values)), generator(latents), atol=1e-5)


def test_truncation_is_refused_because_the_length_of_z_is_divided_out(generator):
    with pytest.raises(ValueError, match=r"grown divides the length of z out, so truncation shows nothing there; leave psi at 1\."):
        generator.sample(2, seed=0, psi=0.5)


def test_a_fraction_of_a_level_lies_between_its_neighbours(generator):
    latents = generator.sample(2, seed=0)
    at = {lod: generator.configured(lod=lod)(latents) for lod in (0, 0.25, 1, 2)}
    assert torch.allclose(at[0.25], 0.75 * at[0] + 0.25 * at[1], atol=1e-5)
    assert torch.equal(at[2], F.interpolate(at[2][..., ::4, ::4], scale_factor=4.0))


def test_the_files_own_level_holds_until_another_is_asked_for(generator):
    stored = families.from_tensors({**random_state(), "lod": torch.tensor(1.0)})
    z = generator.sample(2, seed=0).values
    assert torch.equal(images_of(stored, z), images_of(generator.configured(lod=1), z))
    assert torch.equal(images_of(stored.configured(lod=0), z), images_of(generator, z))


def test_rows_do_not_depend_on_the_batch(generator):
    latents = generator.sample(3, seed=0)
    assert torch.allclose(generator(latents)[1:2], generator(latents[1:2]), atol=1e-5)


def test_forward_and_reverse_mode_agree_and_vmap_runs(generator):
    rng = torch.Generator().manual_seed(0)
    z, step = torch.randn(2, 2, 6, generator=rng)
    images, moved = torch.func.jvp(lambda z: images_of(generator, z), (z,), (step,))
    cotangent = torch.randn(images.shape, generator=rng)
    (pulled,) = torch.func.vjp(lambda z: images_of(generator, z), z)[1](cotangent)
    assert torch.allclose((moved * cotangent).sum(), (pulled * step).sum(), rtol=1e-3)
    assert torch.allclose(torch.func.vmap(lambda row: images_of(generator, row[None])[0])(z), images, atol=1e-4)


def test_folding_changes_no_image(generator):
    plain = ProGAN(**generator.network.config).eval()
    plain.load_state_dict(generator.network.state_dict())
    z = generator.sample(2, seed=0).values
    assert torch.allclose(plain(z), images_of(generator, z), atol=1e-4)


def test_config_and_tensors_build_it_again(generator):
    again = families.build("progan", generator.network.config, generator.network.state_dict(), name="again")
    assert again.fingerprint == generator.fingerprint


@pytest.mark.parametrize(
    ("latent", "widths", "channels", "side"), [(3, (4,), 3, 4), (5, (4, 4), 1, 4), (6, (8, 6, 4, 2), 3, 4), (4, (3, 2), 3, 2)]
)
def test_sizes_are_read_from_the_weights(latent, widths, channels, side):
    generator = families.from_tensors(random_state(latent, widths, channels, side=side))
    size = side * 2 ** (len(widths) - 1)
    assert generator.image_shape == (channels, size, size)
    assert generator(generator.sample(2, seed=0)).shape == (2, channels, size, size)


# ------------------------------------------------------------------ habits of checkpoints


def test_kernels_of_transposed_convolutions_are_known_by_their_shape(generator):
    state = random_state()
    fused = {key: value.transpose(0, 1).flip(2, 3) if re.fullmatch(r"layer[2468]\.weight", key) else value for key, value in state.items()}
    assert families.from_tensors(fused).fingerprint == generator.fingerprint


def test_where_shapes_do_not_tell_the_arguments_do():
    state = random_state(widths=(4, 4))
    fused = {**state, "layer2.weight": state["layer2.weight"].transpose(0, 1).flip(2, 3)}
    assert families.from_tensors(fused, {"fused_scale": True}).fingerprint == families.from_tensors(state).fingerprint
    assert families.from_tensors(fused).fingerprint != families.from_tensors(state).fingerprint


def test_interfacegans_names_give_the_same_images(generator):
    theirs = {}
    for key, value in random_state().items():
        if match := re.fullmatch(r"layer(\d+)\.(weight|bias)", key):
            theirs[f"layer{int(match[1]) + 1}." + {"weight": "conv.weight", "bias": "wscale.bias"}[match[2]]] = value
    theirs |= {"output_16x16.conv.weight": random_state()["output2.weight"], "output_16x16.wscale.bias": random_state()["output2.bias"]}
    other = families.from_tensors(theirs)
    z = generator.sample(2, seed=0).values
    assert torch.equal(images_of(other, z), images_of(generator, z))
    with pytest.raises(ValueError, match=r"lod 1 shows a layer to RGB that this file does not have; it has those of lod 0\."):
        images_of(other.configured(lod=1), z)


def test_labels_are_appended_to_z():
    state = random_state(latent=9)
    labelled = families.from_tensors(state, {"label_size": 3}, name="classes")
    assert labelled.classes == 3 and labelled.spaces["z"].shape == (6,)
    first, second = (labelled(labelled.sample(1, seed=0, labels=label)) for label in (0, 1))
    assert (first - second).abs().max() > 0.1
    soft = labelled(labelled.sample(1, seed=0, labels=torch.tensor([[1.0, 0, 0]])))
    assert torch.allclose(soft, first, atol=1e-6)


def test_a_final_tanh_is_as_the_arguments_say(generator):
    z = generator.sample(2, seed=0).values
    assert torch.allclose(images_of(families.from_tensors(random_state(), {"final_tanh": True}), z), images_of(generator, z).tanh())


# ------------------------------------------------------------------ refusals


@pytest.mark.usefixtures("no_annotation_checks")
@pytest.mark.parametrize("lod", [-0.1, 2.5, float("nan"), "0", True])
def test_a_level_of_detail_that_is_none_is_refused(generator, lod):
    with pytest.raises(ValueError, match=r"lod is how many of 2 doublings are left out, 0 to 2 \(None: as the file says\); got"):
        generator.configured(lod=lod)(generator.sample(1, seed=0))


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"layer3.weight": None}, r"layers\.2\.weight is missing from this genforce checkpoint"),
        ({"layer2.bias": None}, r"keys missing: layers\.1\.bias"),
        ({"extra.weight": torch.zeros(2)}, r"keys left over that the genforce layout does not know: extra\.weight"),
        ({"layer3.weight": torch.zeros(4)}, r"layers\.2\.weight is \(4,\), expected 4 dimensions"),
        ({"layer3.weight": torch.zeros(4, 7, 3, 3)}, r"layers\.2\.weight is \(4, 7, 3, 3\), expected \(4, 4, 3, 3\)"),
        ({"lod": torch.zeros(2)}, r"lod is one number, got \(2,\)"),
        ({"lod": torch.tensor(float("nan"))}, r"lod is how many of 2 doublings"),
        ({"lod": torch.tensor(7.0)}, r"lod is how many of 2 doublings"),
        ({"layer31.weight": torch.zeros(2, 2, 3, 3)}, r"it has 16 resolutions from 4 pixels up"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(change, say):
    state = {key: value for key, value in {**random_state(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=say) as caught:
        families.from_tensors(state, name="damaged")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [7, 6, -1, "three"])
def test_labels_that_leave_no_latent_are_refused(labels):
    with pytest.raises(ValueError, match="leaves nothing of the 6 numbers"):
        families.from_tensors(random_state(), {"label_size": labels})
