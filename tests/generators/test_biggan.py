"""BigGAN and BigGAN-deep in both published layouts, equal to the published code, and the laws that any size of them keeps."""

import re

import pytest
import torch
from generators import parity

from steerable.generators import families
from steerable.generators.biggan import BigGAN, mixing
from steerable.generators.biggan_layouts import LAYOUTS
from steerable.generators.module import generator_of
from steerable.protocols import Latents

CASES = parity.cases("biggan")
PLAIN = {
    "latent": 12,
    "classes": 5,
    "embedding": 3,
    "condition": "split",
    "blocks": [[True, 16, 8, 8], [True, 8, 8, 8]],
    "deep": False,
    "attention": [1],
}
DEEP = {
    "latent": 6,
    "classes": 4,
    "embedding": 5,
    "condition": "whole",
    "blocks": [[False, 16, 4, 16], [True, 16, 4, 8], [False, 8, 2, 8], [True, 8, 2, 8]],
    "deep": True,
    "attention": [2],
}
TABLED = {**DEEP, "rows": 11, "eps": 1e-4, "last_eps": 1e-4}
CONFIGS = {
    "plain": PLAIN,
    "plain, class alone": {**PLAIN, "condition": "class", "latent": 7},
    "deep": DEEP,
    "deep, class alone": {**DEEP, "condition": "class"},
    "deep, tables of statistics": TABLED,
    "grey, from 3 x 3, attention at both ends": {**PLAIN, "channels": 1, "first": 4, "attention": [0, 2]},
}


def shaken(config, seed=0):
    """A network with nothing at its initial value."""
    network = BigGAN(**config)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            noise = torch.randn(tensor.shape, generator=rng)
            tensor.copy_(0.5 + noise.abs() if "variances" in key else 0.6 + 0.1 * noise if "amount" in key else 0.3 * noise)
    return network


def generator(config=PLAIN):
    return generator_of(shaken(config), name="big")


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def any_size(request):
    return generator(request.param)


# ------------------------------------------------------------------ the references


@pytest.mark.parametrize("stated", [True, False], ids=["with arguments", "tensors alone"])
@pytest.mark.parametrize("name", CASES)
def test_images_and_gradients_equal_the_references(name, stated):
    case = parity.load(name)
    facts = case.facts
    if not stated and {"eps": facts["constructor"].get("eps", 1e-4), "BN_eps": facts["constructor"].get("BN_eps", 1e-5)} != {
        "eps": 1e-4,
        "BN_eps": 1e-5,
    }:
        pytest.skip("an epsilon that tensors cannot tell")
    if not stated and any(bool(layer[0]) != bool(i % 2) for i, layer in enumerate(facts["constructor"].get("layers", []))):
        pytest.skip("up-sampling that tensors cannot tell")
    if not stated and facts["constructor"].get("G_depth", 2) != 2:
        pytest.skip("a depth that tensors cannot tell")
    big = families.from_tensors(case.state, facts["constructor"] if stated else {}, name=name)
    z, classes = case.inputs["z"], case.inputs["class_index"]
    assert big.spaces["z"].shape == (facts["z_dim"],) and big.classes == facts["num_classes"]
    assert big.image_shape == (facts["image_channels"], facts["resolution"], facts["resolution"])
    limit = 1e-4 if "truncation" in big.options else 5e-5
    for output, expected in case.outputs.items():
        if output == "class_embedding":
            assert torch.equal(big.network.embedding.weight[classes], expected)
            continue
        scale = float(found[1].replace("p", ".")) if (found := re.search(r"_x(\d+p\d+)$", output)) else 1.0
        values, labels = scale * z, classes
        if "soft_label" in output:
            values, labels = z[:1], case.inputs["soft_label"]
        elif "mixed_embedding" in output:
            values, labels = z[:1], torch.nn.functional.one_hot(classes[:2], big.classes).float().mean(0, keepdim=True)
        elif output == "vjp_z":
            values, labels = z[:2].clone().requires_grad_(), classes[:2]
        made = as_published(big, output, facts)(Latents(values, big.spaces["z"], labels))
        if output == "vjp_z":
            parity.assert_gradient(parity.gradient_of(made, values, case.inputs["cotangent"]), expected)
        else:
            assert parity.error(made, expected) <= limit, output


def as_published(big, output, facts):
    """The generator with the options that an output's name states."""
    told = re.search(r"_t(\d+p\d+)$", output) or (re.search(r"t=([\d.]*\d)", facts["notes"]["vjp"]) if "vjp" in output else None)
    if told is None:
        return big
    return big.configured(truncation=float(told[1].replace("p", ".")), published_interpolation=not output.startswith("fixed"))


@pytest.mark.parametrize("name", CASES)
def test_arguments_that_the_tensors_contradict_are_refused_by_name(name):
    case = parity.load(name)
    for key, value in case.facts["constructor"].items():
        if key in ("z_dim", "dim_z", "num_classes", "n_classes", "channel_width", "n_stats", "output_dim", "resolution", "shared_dim"):
            with pytest.raises(ValueError, match=key):
                families.from_tensors(case.state, {**case.facts["constructor"], key: 2 * value + 32})


@pytest.mark.parametrize("name", CASES)
def test_a_missing_or_unknown_key_is_listed(name):
    case = parity.load(name)
    for key in case.state:
        if re.search(r"\.(bias|weight_u|weight_v|u0|stored_mean|running_vars|gamma)$", key):
            with pytest.raises(ValueError, match=r"missing|left over|lacks|no spectral norm"):
                families.from_tensors({k: v for k, v in case.state.items() if k != key}, case.facts["constructor"])
    with pytest.raises(ValueError, match="mystery"):
        families.from_tensors({**case.state, "generator.mystery": torch.zeros(3)}, case.facts["constructor"])


@pytest.mark.parametrize("name", CASES)
def test_a_tensor_of_another_shape_is_one_clear_line(name):
    case = parity.load(name)
    for key, value in list(case.state.items())[::4]:
        for other in (value.flatten()[:0], value.flatten(), value[None]):
            if other.shape == value.shape or re.search(r"gamma$|_[uv]$|[uv]\d$", key):  # their shape varies between files
                continue
            with pytest.raises(ValueError, match=r"^[^\n]+$"):
                families.from_tensors({**case.state, key: other}, case.facts["constructor"])


# ------------------------------------------------------------------ ajbrock's habits


def ajbrock(network):
    """A network's tensors under ajbrock's names, without spectral norm (its G_param other than "SN")."""
    state = {}
    for key, value in network.state_dict().items():
        key = re.sub(r"attention\.(\d+)\.(\w+)", lambda m: f"blocks.{int(m[1]) - 1}.1.{m[2]}", key)
        key = re.sub(r"(blocks\.\d+)\.(norms|convs)\.(\d)", lambda m: f"{m[1]}.0.{m[2]}.{int(m[3]) + 1}", key)
        for ours, theirs in (
            (".norms.", ".bn"),
            (".convs.", ".conv"),
            ("shortcut", "0.conv_sc"),
            ("embedding", "shared"),
            ("to_rgb", "output_layer.2"),
            (".offset.", ".bias."),
            ("norm.offset", "norm.bias"),
            (r"norm.", "output_layer.0."),
            ("variances", "stored_var"),
            ("means", "stored_mean"),
            ("query", "theta"),
            ("key", "phi"),
            ("value", "g"),
            ("1.out", "1.o"),
            ("amount", "gamma"),
        ):
            key = key.replace(ours, theirs)
        state[key] = value[0] if "stored" in key else value
    return state


@pytest.mark.parametrize("name", ["plain", "plain, class alone", "deep", "deep, class alone"])
def test_sizes_and_what_blocks_are_told_are_read_from_the_tensors(name):
    network = shaken(CONFIGS[name])
    read = families.from_tensors(ajbrock(network))
    assert read.network.config == network.config
    assert read.fingerprint == generator_of(network, name="same").fingerprint


def test_blocks_without_a_shared_embedding_are_told_the_class_as_one_hot_numbers():
    network = shaken({**PLAIN, "condition": "class", "latent": 7, "embedding": 5})
    network.embedding.weight.data = torch.eye(5)
    state = {key: value for key, value in ajbrock(network).items() if key != "shared.weight"}
    for key in [key for key in state if re.search(r"bn\d\.(gain|bias)\.weight", key)]:
        state[key] = state[key].T
    assert families.from_tensors(state).fingerprint == generator_of(network, name="same").fingerprint


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_deep_blocks_double_at_the_end_of_each_group(depth):
    blocks = [[i % depth == depth - 1, 16, 4, 16] for i in range(6)]
    network = shaken({**DEEP, "blocks": blocks, "attention": [6]})
    for arguments in ({"G_depth": depth}, {"resolution": 4 * 2 ** (6 // depth)}):
        assert families.from_tensors(ajbrock(network), arguments).network.config["blocks"] == blocks


def test_widths_tell_the_depth_where_they_change():
    blocks = [[i % 3 == 2, 16, 4, 8 if i % 3 == 2 else 16] for i in range(3)]
    assert families.from_tensors(ajbrock(shaken({**DEEP, "blocks": blocks, "attention": []}))).image_shape[1] == 8


@pytest.mark.parametrize(
    ("arguments", "say"),
    [
        ({"G_depth": 3}, "G_depth 3"),
        ({"resolution": 128}, "resolution 128"),
        ({"G_nl": "leakyrelu"}, "leakyrelu"),
        ({"hier": False}, "hier"),
        ({"dim_z": 99}, "dim_z 99"),
        ({"dim_z": "many"}, "dim_z has to be a number"),
        ({"BN_eps": None}, "BN_eps has to be a number"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, say):
    with pytest.raises(ValueError, match=say):
        families.from_tensors(ajbrock(shaken(DEEP)), arguments)


# ------------------------------------------------------------------ truncation


def test_each_truncation_has_its_row():
    assert mixing(0.14, 51, published=False) == (7, 0)
    row, weight = mixing(0.433, 51, published=False)
    assert row == 21 and weight == pytest.approx(0.65)
    assert mixing(1.0, 51, published=False) == mixing(1, 51, published=True) == (50, 0)


@pytest.mark.parametrize("step", range(1, 51))
def test_every_multiple_of_a_row_is_that_row(step):
    assert mixing(step * 0.02, 51, published=False) == mixing(step / 50, 51, published=False) == (step, 0)


def test_the_published_code_swaps_the_weights_and_loses_rows():
    row, weight = mixing(0.433, 51, published=True)
    assert row == 21 and weight == pytest.approx(0.35)
    high = {t for t in range(1, 51) if sum(mixing(t / 50, 51, published=True)) > t + 0.5}
    low = {t for t in range(1, 51) if sum(mixing(t / 50, 51, published=True)) < t - 0.5}
    assert high == {7, 14, 28} and low == {29, 47}


@pytest.mark.parametrize("bad", [0, -0.1, 1.01, float("nan"), "half", True, None])
def test_a_truncation_that_is_none_is_refused_in_one_line(bad):
    big = generator(TABLED).configured(truncation=bad)
    with pytest.raises(ValueError, match=r"^truncation is a number above 0 and up to 1"):
        big.sample(1, seed=0)
    with pytest.raises(ValueError, match=r"^truncation is a number above 0 and up to 1"):
        big(generator(TABLED).sample(1, seed=0))


def test_latents_stay_within_twice_the_truncation_and_fill_it():
    z = generator(TABLED).configured(truncation=0.5).sample(400, seed=0).values
    assert 0.9 < float(z.abs().max()) <= 1 and 0.41 < float(z.std()) < 0.47  # 0.5 * 0.88


def test_latents_of_two_truncations_differ_in_scale_only():
    big = generator(TABLED)
    assert torch.allclose(
        2 * big.configured(truncation=0.4).sample(3, seed=0).values, big.configured(truncation=0.8).sample(3, seed=0).values
    )


def test_one_row_of_statistics_has_no_truncation():
    assert not generator(PLAIN).options
    with pytest.raises(ValueError, match="unknown option"):
        generator(PLAIN).configured(truncation=0.5)


def test_psi_scales_z():
    big = generator(PLAIN)
    assert torch.allclose(big.sample(3, seed=0, psi=0.5).values, 0.5 * big.sample(3, seed=0).values)


# ------------------------------------------------------------------ spaces


def test_s_says_what_each_block_is_told(any_size):
    latents = any_size.sample(2, seed=1)
    s = any_size.to_space(latents, "s")
    assert [name for name, *_ in s.space.layers] == ["linear", *(f"blocks.{i}" for i in range(len(any_size.network.blocks)))]
    assert s.space.layers[0][1] == 0 and s.space.layers[-1][2] == s.space.shape[0]
    assert torch.equal(any_size(s), any_size(latents))


def test_in_split_latents_each_block_has_a_slice_of_its_own():
    big = generator(PLAIN)
    latents = big.sample(1, seed=0, labels=2)
    values = latents.values.clone()
    values[:, 8:] += 1  # the last of three slices
    moved = (big.to_space(latents.at(values), "s").values != big.to_space(latents, "s").values)[0]
    _, start, end = big.spaces["s"].layers[-1]
    assert moved[start + 3 : end].all() and not moved[: start + 3].any()


def test_each_layer_of_s_moves_the_image(any_size):
    latents = any_size.to_space(any_size.sample(1, seed=0), "s")
    values = latents.values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(any_size(latents.at(values)).square().sum(), values)
    assert all(float(gradient[:, start:end].abs().max()) > 0 for _, start, end in latents.space.layers)


def test_latents_without_labels_are_refused():
    big = generator(PLAIN)
    with pytest.raises(ValueError, match="5 classes"):
        big(Latents(torch.zeros(1, 12), big.spaces["z"]))


def test_mixed_classes_lie_between(any_size):
    latents = any_size.sample(1, seed=0)
    pure = torch.nn.functional.one_hot(latents.labels, any_size.classes).float()
    assert torch.allclose(any_size(Latents(latents.values, latents.space, pure)), any_size(latents), atol=1e-6)


# ------------------------------------------------------------------ laws


def test_a_row_does_not_depend_on_its_batch(any_size):
    latents = any_size.sample(3, seed=0)
    assert torch.allclose(any_size(latents)[1:2], any_size(latents[1:2]), atol=1e-5)


def test_forward_and_reverse_products_agree_and_equal_differences(any_size):
    network, latents = any_size.network.double(), any_size.sample(2, seed=0)
    z, labels = latents.values.double(), latents.labels
    rng = torch.Generator().manual_seed(3)
    move = torch.randn(z.shape, generator=rng, dtype=torch.float64)
    images, forward = torch.func.jvp(lambda v: network(v, labels), (z,), (move,))
    weight = torch.randn(images.shape, generator=rng, dtype=torch.float64)
    _, pull = torch.func.vjp(lambda v: network(v, labels), z)
    assert torch.allclose((forward * weight).sum(), (pull(weight)[0] * move).sum())
    near = (network(z + 1e-6 * move, labels) - network(z - 1e-6 * move, labels)) / 2e-6
    assert torch.allclose(forward, near, atol=1e-4 * float(forward.abs().max()))


def test_merging_up_sampling_and_convolution_changes_rounding_only(any_size):
    latents = any_size.sample(2, seed=0)
    plain = BigGAN(**any_size.network.config).eval()
    plain.load_state_dict(any_size.network.state_dict())  # and no prepare()
    with torch.no_grad():
        assert torch.allclose(plain(latents.values, latents.labels), any_size(latents), atol=2e-5)


def test_vmap_gives_the_same_images(any_size):
    latents = any_size.sample(3, seed=0)
    s = any_size.to_space(latents, "s").values
    rows = torch.func.vmap(lambda one: any_size.network.synthesis(one[None])[0])(s)
    assert torch.allclose(rows, any_size(latents), atol=1e-5)


def test_config_and_tensors_build_the_same_generator_again(any_size):
    again = families.build("biggan", any_size.network.config, any_size.network.state_dict(), name="again")
    latents = any_size.sample(2, seed=0)
    assert again.fingerprint == any_size.fingerprint
    assert torch.equal(again(Latents(latents.values, again.spaces["z"], latents.labels)), any_size(latents))


def test_an_unknown_condition_is_refused():
    with pytest.raises(ValueError, match="condition is one of split, whole, class"):
        BigGAN(**{**PLAIN, "condition": "all"})


def test_layouts_are_told_apart():
    assert [layout.share(ajbrock(shaken(PLAIN))) == 1 for layout in LAYOUTS] == [False, True]
