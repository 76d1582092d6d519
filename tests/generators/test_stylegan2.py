"""StyleGAN 2 in every layout: equal to the published code's outputs, differentiable both ways, and clear about bad files."""

import re

import pytest
import torch
from generators.parity import assert_equal, assert_gradient, cases, gradient_of, load, numbered, unread
from torch.func import jacrev, jvp, vjp, vmap

from steerable.generators import families, processor, winograd
from steerable.generators.module import generator_of
from steerable.generators.stylegan2 import StyleGAN2
from steerable.protocols import Latents

CASES = cases("stylegan2-", "gan-control")


def read(case):
    """The case's generator, from its tensors and the constructor arguments that were published with such files."""
    arguments = {**case.facts["constructor"], **{key: case.facts[key] for key in ("sub_groups_dict",) if key in case.facts}}
    mean = next((case.inputs[key] for key in ("latent_avg", "mean_w_latent") if key in case.inputs), None)
    tensors = case.state if mean is None else {**case.state, "latent_avg": mean}
    return families.from_tensors(tensors, arguments, name=case.name)


def in_space(generator, name, values, labels=None):
    return Latents(values, generator.spaces[name], labels)


@pytest.fixture(scope="module")
def opened():
    """Case by name -> (case, generator, its latents in z)."""
    made = {}

    def get(name):
        if name not in made:
            case = load(name)
            generator = read(case)
            made[name] = case, generator, in_space(generator, "z", case.inputs["z"], case.inputs.get("c"))
        return made[name]

    return get


# ------------------------------------------------------------------ the references


@pytest.mark.parametrize("name", CASES)
def test_w_and_its_truncations_equal_the_references(opened, name):
    case, generator, z = opened(name)
    w, out, rule = generator.to_space(z, "w"), case.outputs, case.facts["truncation"]
    assert_equal(w.values, out["w"], "w")
    if "w_psi07" in out:
        assert_equal(generator.truncate(w, rule["psi"]).values, out["w_psi07"], "w", what="w_psi07")
    if "w_group_resampled" in out:
        assert_equal(generator.to_space(z.at(case.inputs["z_group_resampled"]), "w").values, out["w_group_resampled"], "w")
    ws = generator.to_space(w, "w+")
    assert ws.values.shape[1] == case.facts["num_ws"]
    for key, cutoff in (("ws", None), ("ws_psi07", None), ("ws_psi07_cutoff", rule.get("cutoff"))):
        if key in out:
            got = ws if key == "ws" else generator.truncate(ws, rule["psi"], cutoff=cutoff)
            assert_equal(got.values, out[key], "w", what=key)


@pytest.mark.parametrize("name", CASES)
def test_the_styles_of_every_layer_equal_the_references(opened, name):
    case, generator, z = opened(name)
    s = generator.to_space(z, "s")
    spans = {layer: (start, end) for layer, start, end in s.space.layers}
    styles = {key.removeprefix("style/"): value for key, value in case.outputs.items() if key.startswith("style/")}
    for theirs, expected in styles.items():
        start, end = spans.pop(our_name(theirs))
        assert_equal(s.values[:, start:end], expected, "style", what=theirs)
    assert not styles or not spans


@pytest.mark.parametrize("name", CASES)
def test_images_equal_the_references(opened, name):
    case, generator, z = opened(name)
    inputs, rule = case.inputs, case.facts["truncation"]
    w = generator.to_space(z, "w")
    ws = generator.to_space(w, "w+")
    noisy, clean = generator.configured(noise=numbered(inputs, "noise_")), generator.configured(noise="none")
    made = {
        "image_const": lambda: generator(z),
        "image_none": lambda: clean(z),
        "image_in_noise": lambda: noisy(z),
        "image_psi07": lambda: generator(generator.truncate(w, rule["psi"])),
        "image_psi07_cutoff": lambda: generator(generator.truncate(ws, rule["psi"], cutoff=rule["cutoff"])),
        "image_psi07_one_group": lambda: generator(generator.truncate(w, rule["psi"], part=case.facts["resampled_group"])),
        "image_wplus": lambda: generator(ws.at(inputs["wplus"])),
        "image_group_resampled": lambda: generator(z.at(inputs["z_group_resampled"])),
    }
    for key, expected in case.outputs.items():
        if match := re.fullmatch(r"image_mix(\d+)", key):
            k, half = int(match[1]), len(ws) // 2
            images = generator(ws[:half].at(torch.cat([ws.values[:half, :k], ws.values[half:, k:]], 1)))
        elif key in made:
            images = made[key]()
        else:
            assert not key.startswith("image"), f"{key} is compared by no test"
            continue
        assert_equal(images[: len(expected)], expected, "image", what=key)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_the_references(opened, name):
    case, generator, z = opened(name)
    assert not {key for key in unread(case, ["vjp_w", "vjp_ws"]) if key.startswith("vjp")}
    for key, space in (("vjp_w", "w"), ("vjp_ws", "w+")):
        if key in case.outputs:
            latents = generator.to_space(z, space)[:2]
            values = latents.values.clone().requires_grad_()
            assert_gradient(gradient_of(generator(latents.at(values)), values, case.inputs["cotangent"]), case.outputs[key])


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_read_from_the_tensors(opened, name):
    case, generator, _ = opened(name)
    facts, groups = case.facts, case.facts.get("sub_groups_dict", {})
    assert generator.image_shape == (facts["image_channels"], facts["resolution"], facts["resolution"])
    assert generator.spaces["z"].shape == (facts["z_dim"],) and generator.spaces["w"].shape == (facts["w_dim"],)
    assert (generator.classes or 0) == facts.get("c_dim", 0)
    assert generator.spaces["w"].parts == generator.spaces["z"].parts
    assert {part: list(place) for part, *place in generator.spaces["z"].parts} == {part: g["place_in_latent"] for part, g in groups.items()}


@pytest.mark.parametrize("name", CASES)
def test_changing_one_group_of_z_leaves_the_w_of_the_others_as_they_are(opened, name):
    _, generator, z = opened(name)
    for part, start, end in generator.spaces["z"].parts:
        moved = z.values.clone()
        moved[:, start:end] = moved[:, start:end].flip(0)
        changed = (generator.to_space(z, "w").values != generator.to_space(z.at(moved), "w").values).any(0)
        assert changed[start:end].all() and not changed[:start].any() and not changed[end:].any(), part


@pytest.mark.parametrize("name", CASES)
def test_arguments_are_only_needed_for_what_tensors_cannot_tell(opened, name):
    case, generator, z = opened(name)
    constructor = case.facts["constructor"]
    told = {"sub_groups_dict": case.facts["sub_groups_dict"]} if "sub_groups_dict" in case.facts else {}
    again = families.from_tensors(case.state, told, name=case.name)
    if constructor.get("synthesis_kwargs", {}).get("conv_clamp") is None:
        assert torch.equal(again(in_space(again, "z", z.values, z.labels)), generator(z))
    assert again.network.config["widths"] == generator.network.config["widths"] and again.network.config["clamp"] is None


@pytest.mark.parametrize("name", CASES)
def test_a_stored_generator_is_the_same_again(opened, name):
    case, generator, z = opened(name)
    network = generator.network
    again = families.build(network.family, network.config, network.state_dict(), name=case.name)
    assert again.fingerprint == generator.fingerprint and torch.equal(again(z), generator(z))


@pytest.mark.parametrize("name", cases("stylegan2-genforce"))
@pytest.mark.parametrize("built", [{"demodulate": False}, {"final_tanh": True}, {"use_wscale": False}])
def test_another_network_of_genforces_under_the_same_names_is_refused(opened, name, built):
    case, _, _ = opened(name)
    with pytest.raises(
        ValueError, match=rf"it was built with {next(iter(built))}={next(iter(built.values()))}, which is not supported here"
    ):
        families.from_tensors(case.state, {**case.facts["constructor"], **built})


@pytest.mark.parametrize("name", CASES)
def test_missing_left_over_and_contradicting_keys_are_named(opened, name):
    case, _, _ = opened(name)
    told = {**case.facts["constructor"], "sub_groups_dict": case.facts.get("sub_groups_dict")}
    victim = next(key for key in case.state if key.endswith(("b4.conv1.bias", "conv1.activate.bias", "layer0.bias")))
    with pytest.raises(ValueError, match=r"^[^\n]*keys missing: b4\.conv1\.bias[^\n]*$"):
        families.from_tensors({key: tensor for key, tensor in case.state.items() if key != victim}, told)
    with pytest.raises(ValueError, match=r"^[^\n]*keys left over[^\n]*surplus\.weight[^\n]*$"):
        families.from_tensors({**case.state, "surplus.weight": torch.zeros(3)}, told)
    with pytest.raises(ValueError, match=rf"^[^\n]*b4\.conv1\.bias is \({len(case.state[victim]) + 1},\), expected[^\n]*$"):
        families.from_tensors({**case.state, victim: torch.zeros(len(case.state[victim]) + 1)}, told)
    size = next(key for key in ("size", "resolution", "img_resolution") if key in told)
    with pytest.raises(ValueError, match=rf"^[^\n]*the arguments say {size}={2 * told[size]}, the tensors {told[size]}[^\n]*$"):
        families.from_tensors(case.state, {**told, size: 2 * told[size]})


@pytest.mark.parametrize("name", cases("stylegan2-rosinality", "gan-control"))
def test_old_files_without_mean_noise_or_filters_still_load(opened, name):
    case, _, z = opened(name)
    told = {"sub_groups_dict": case.facts["sub_groups_dict"]} if "sub_groups_dict" in case.facts else {}
    bare = families.from_tensors({key: tensor for key, tensor in case.state.items() if "kernel" not in key and "noises" not in key}, told)
    again = families.from_tensors({key: tensor for key, tensor in case.state.items() if "kernel" not in key and "noises" not in key}, told)
    z = in_space(bare, "z", z.values)
    assert_equal(bare.configured(noise="none")(z), read(case).configured(noise="none")(in_space(read(case), "z", z.values)), "image")
    assert bare.fingerprint == again.fingerprint and torch.equal(bare(z), again(in_space(again, "z", z.values)))
    w = bare.sample(2000, seed=0, space="w").values
    mean = bare.truncate(bare.sample(1, seed=0, space="w"), 0.0).values[0]
    assert (mean - w.mean(0)).abs().max() < 6 * float(w.std(0).max()) / 2000**0.5


@pytest.mark.parametrize("name", cases("stylegan2-rosinality", "stylegan2-ada"))
def test_another_filter_than_the_usual_is_refused_by_name(opened, name):
    case, _, _ = opened(name)
    key = next(key for key in case.state if key.endswith(("kernel", "resample_filter")))
    with pytest.raises(ValueError, match=rf"{re.escape(key)} is another filter"):
        families.from_tensors({**case.state, key: torch.ones(4, 4)}, case.facts["constructor"])


@pytest.mark.parametrize("name", cases("gan-control"))
def test_groups_without_their_places_are_refused(opened, name):
    case, _, _ = opened(name)
    with pytest.raises(ValueError, match=r"their order in the latent is in its args\.json only"):
        families.from_tensors(case.state)
    shifted = {
        group: {"place_in_latent": [p["place_in_latent"][0] + 1, p["place_in_latent"][1] + 1]}
        for group, p in case.facts["sub_groups_dict"].items()
    }
    with pytest.raises(ValueError, match=r"sub_groups_dict says \[1, "):
        families.from_tensors(case.state, {"training_config": {"sub_groups_dict": shifted}})
    with pytest.raises(ValueError, match=r"sub_groups_dict has the groups other_one, the tensors have"):
        families.from_tensors(case.state, {"sub_groups_dict": {"other_one": {"place_in_latent": [0, 4]}}})


def our_name(theirs):
    """The layer of ours that a published code base calls so."""
    side = lambda i: 4 * 2**i  # noqa: E731
    if match := re.fullmatch(r"(b\d+\.\w+)\.affine", theirs):
        return match[1]
    if match := re.fullmatch(r"convs\.(\d+)\.conv\.modulation", theirs):
        return f"b{side(int(match[1]) // 2 + 1)}.conv{int(match[1]) % 2}"
    if match := re.fullmatch(r"to_rgbs\.(\d+)\.conv\.modulation", theirs):
        return f"b{side(int(match[1]) + 1)}.torgb"
    if match := re.fullmatch(r"style(\d+)", theirs):
        i = int(match[1])
        return f"b{side((i + 1) // 2)}.conv{(i + 1) % 2}"
    if match := re.fullmatch(r"output_style(\d+)", theirs):
        return f"b{side(int(match[1]))}.torgb"
    return {"conv1.conv.modulation": "b4.conv1", "to_rgb1.conv.modulation": "b4.torgb"}[theirs]


# ------------------------------------------------------------------ laws, on random weights


def random_generator(*, sides=3, classes=None, channels=3, clamp=None, groups=1, averaged=True, prepared=True):
    """A network with nothing at its initial value."""
    embedding = 5 if classes else 0
    mapping = [(f"group{i}", [6 + embedding, 9, 6 + i]) for i in range(groups)]
    network = StyleGAN2(
        mapping, [8, 6, 5, 4, 3][:sides], channels=channels, classes=classes, embedding=embedding, clamp=clamp, averaged=averaged
    )
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            scale = 100 if key.startswith("mapping") and key.endswith("weight") else 1
            tensor.copy_(scale * torch.randn(tensor.shape, generator=rng) + (1 if key.endswith("affine.bias") else 0))
    if prepared:
        return generator_of(network, name="random")
    return network.eval()


@pytest.mark.parametrize("sides", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [None, 4])
def test_networks_of_any_size_draw(sides, channels, classes):
    generator = random_generator(sides=sides, channels=channels, classes=classes, groups=2)
    images = generator(generator.sample(2, seed=0))
    assert images.shape == (2, channels, 4 * 2 ** (sides - 1), 4 * 2 ** (sides - 1)) and torch.isfinite(images).all()


@pytest.mark.parametrize("sides", [2, 5])
@pytest.mark.parametrize("space", ["z", "w", "w+", "s"])
def test_forward_and_reverse_mode_agree_with_each_other_and_with_differences(sides, space):
    generator = random_generator(sides=sides, clamp=50.0)
    latents = generator.sample(2, seed=1, space=space)
    rng = torch.Generator().manual_seed(2)
    tangent = torch.randn(latents.values.shape, generator=rng)

    def draw(values):
        return generator(latents.at(values))

    images, forward = jvp(draw, (latents.values,), (tangent,))
    cotangent = torch.randn(images.shape, generator=rng)
    reverse = vjp(draw, latents.values)[1](cotangent)[0]
    assert (forward * cotangent).sum().item() == pytest.approx((reverse * tangent).sum().item(), rel=1e-3)
    difference = (draw(latents.values + 1e-3 * tangent) - draw(latents.values - 1e-3 * tangent)) / 2e-3
    assert (difference - forward).norm() < 0.02 * forward.norm()
    with torch.no_grad():
        assert torch.allclose(jvp(draw, (latents.values,), (tangent,))[1], forward, atol=1e-4 * float(forward.abs().max()))


@pytest.mark.parametrize("sides", [2, 5])
def test_vmap_goes_through(sides):
    generator = random_generator(sides=sides)
    latents = generator.sample(3, seed=1)
    one_by_one = vmap(lambda row: generator(latents[:1].at(row[None]))[0])(latents.values)
    assert torch.allclose(one_by_one, generator(latents), atol=1e-4 * float(one_by_one.abs().max()))
    jacobian = jacrev(lambda row: generator(latents[:1].at(row[None]))[0, 0, 0])(latents.values[0])
    assert jacobian.shape == (generator.image_shape[2], generator.spaces["w"].shape[0]) and torch.isfinite(jacobian).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("sides", [2, 5])
def test_rows_do_not_depend_on_the_batch(sides, precision, monkeypatch):
    monkeypatch.setattr(processor, "half", lambda device: True)
    generator = random_generator(sides=sides).configured(precision=precision)
    latents = generator.sample(3, seed=1)
    images = generator(latents)
    limit = (1e-5 if precision == "float32" else 2e-2) * float(images.abs().max())
    assert torch.allclose(generator(latents[1:2]), images[1:2], rtol=0, atol=limit)


@pytest.mark.parametrize("sides", [2, 5])
def test_gradients_on_and_off_give_the_same_images(sides):
    generator = random_generator(sides=sides, clamp=2.0)
    latents = generator.sample(2, seed=1)
    with torch.no_grad():
        plain = generator(latents)
    with torch.inference_mode():
        inference = generator(latents)
    assert torch.equal(plain, generator(latents)) and torch.equal(plain, inference)


def test_the_kernel_and_the_activations_may_carry_the_style_alike():
    generator = random_generator(sides=5, clamp=50.0)
    latents = generator.sample(1, seed=1)
    images = generator(latents)
    for layer in generator.network._convolutions():
        layer.thin = not layer.thin
    assert torch.allclose(generator(latents), images, atol=1e-5 * float(images.abs().max()))


def test_a_network_that_was_not_prepared_draws_the_same():
    prepared, raw = random_generator(), random_generator(prepared=False)
    latents = prepared.sample(2, seed=1, space="s")
    assert torch.allclose(raw.images(latents.values), prepared(latents), atol=1e-6 * float(prepared(latents).abs().max()))
    raw.images(latents.values).sum().backward()
    assert all(parameter.grad is not None for key, parameter in raw.named_parameters() if "conv" in key and "affine" not in key)


def test_preparing_twice_and_configuring_change_no_weights():
    generator = random_generator()
    before = {key: tensor.clone() for key, tensor in generator.network.state_dict().items()}
    generator.network.prepare()
    generator.configured(noise="none", precision="bfloat16")(generator.sample(2, seed=0))
    after = generator.network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


def test_bfloat16_images_are_close_to_those_of_float32(monkeypatch):
    monkeypatch.setattr(processor, "half", lambda device: True)  # emulated where the processor lacks it
    generator = random_generator(sides=5)
    latents = generator.sample(4, seed=0)
    images, rounded = generator(latents), generator.configured(precision="bfloat16")(latents)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, images)
    assert (rounded - images).square().mean().sqrt() < 0.01 * images.std()


@pytest.mark.parametrize("tiles", [True, False])
def test_bfloat16_is_as_close_whichever_way_a_processor_goes(tiles, monkeypatch):
    """With tiles a doubling and its blur are one convolution; it must be that of the two, so its error is of rounding alone."""
    monkeypatch.setattr(processor, "half", lambda device: True)
    monkeypatch.setattr(processor, "has_tiles", lambda device: tiles)
    generator = random_generator(sides=5)
    doubling = [layer for layer in generator.network._convolutions() if layer.doubles]
    assert all((layer.phases is not None) == tiles for layer in doubling)
    latents = generator.sample(2, seed=0)
    rounded = generator.configured(precision="bfloat16")
    for i in range(2):  # one row has kernels of its own, two share them
        images = generator(latents[: i + 1])
        for layer in doubling:
            layer.thin_phases = False if i else layer.thin_phases
        assert (rounded(latents[: i + 1]) - images).square().mean().sqrt() < 0.01 * images.std()
    seen = vmap(lambda row: rounded(latents[:1].at(row[None]))[0])(latents.values)
    assert torch.allclose(seen, rounded(latents), rtol=0, atol=0.05 * float(seen.std()))
    _, moved = jvp(lambda z: rounded(latents.at(z)), (latents.values,), (torch.ones_like(latents.values),))
    assert torch.isfinite(moved).all()


def test_noise_is_a_choice():
    generator = random_generator()
    latents = generator.sample(2, seed=0)
    maps = [layer.noise for layer in generator.network._convolutions()]
    assert torch.equal(generator.configured(noise=maps)(latents), generator(latents))
    assert torch.equal(generator.configured(noise=[m[None, None].expand(2, 1, -1, -1) for m in maps])(latents), generator(latents))
    zeros = generator.configured(noise=[torch.zeros_like(m) for m in maps])(latents)
    assert torch.allclose(generator.configured(noise="none")(latents), zeros) and not torch.allclose(zeros, generator(latents))


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"noise": "random"}, r'noise is "fixed", "none" or a list of 5 tensors, got "random"'),
        ({"noise": [torch.zeros(4, 4)]}, "noise is one tensor for each of 5 convolutions, got 1"),
        ({"noise": [torch.zeros(4, 4)] * 5}, r"noise 1 is \(8, 8\) or \(1 or 2, 1, 8, 8\), got \(4, 4\)"),
        ({"precision": "float16"}, 'precision is "float32" or "bfloat16", got \'float16\''),
    ],
)
def test_options_that_cannot_be_are_refused(options, say):
    generator = random_generator()
    with pytest.raises(ValueError, match=f"^{say}"):
        generator.configured(**options)(generator.sample(2, seed=0))


def test_the_length_of_z_does_not_show_and_labels_do():
    generator = random_generator(classes=3)
    latents = generator.sample(3, seed=0, space="z", labels=[0, 1, 2])
    assert torch.allclose(generator(latents.at(3 * latents.values)), generator(latents), atol=1e-4)
    other = generator.sample(3, seed=0, space="z", labels=[1, 2, 0])
    assert not torch.allclose(generator(other), generator(latents), atol=1e-2)


def test_a_mean_that_no_file_gives_is_estimated_once_and_always_the_same():
    first, second = random_generator(averaged=False), random_generator(averaged=False)
    assert torch.equal(first.network.mean(), second.network.mean())
    assert first.network.mean() is first.network.mean() and "w_avg" not in first.network.state_dict()


# ------------------------------------------------------------------ speed


@pytest.mark.parametrize("channels", [(3, 5), (128, 130)])
def test_winograds_algorithm_is_the_convolution(channels):
    rng = torch.Generator().manual_seed(0)
    wide, narrow = channels
    x, kernels = torch.randn((2, wide, 16, 24), generator=rng), torch.randn((narrow, wide, 3, 3), generator=rng) / (9 * wide) ** 0.5
    expected = torch.nn.functional.conv2d(x.double(), kernels.double(), padding=1)
    assert (winograd.convolved(x, winograd.evaluated(kernels)) - expected).abs().max() < 3e-5


def test_wide_layers_give_the_same_with_and_without_winograds_algorithm():
    network = StyleGAN2([("z", [8, 8])], [64, 256, 256])
    network.initialise(torch.Generator().manual_seed(0))
    generator = generator_of(network, name="wide")
    assert [layer.points is not None for layer in network._convolutions()] == [False, False, False, False, True]
    latents = generator.sample(2, seed=0)
    with torch.no_grad():
        fast, forward = generator(latents), jvp(lambda values: generator(latents.at(values)), (latents.values,), (latents.values,))[1]
    exact, expected = jvp(lambda values: generator(latents.at(values)), (latents.values,), (latents.values,))
    assert torch.allclose(fast, exact, atol=2e-5 * float(exact.abs().max()))
    assert torch.allclose(forward, expected, atol=1e-4 * float(expected.abs().max()))
