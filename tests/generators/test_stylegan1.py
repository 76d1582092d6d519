"""StyleGANs of the first version: equal to the reference's codes, styles and images, whatever code base stored them."""

import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from generators.parity import assert_equal, assert_gradient, cases, gradient_of, load, numbered, unread

from steerable.generators import families
from steerable.generators.stylegan1 import StyleGAN1
from steerable.protocols import Latents

CASES = cases("stylegan1")
BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16


def latents_of(generator, values, space, labels=None):
    return Latents(values, generator.spaces[space], labels)


def random_state(mapping=(6, 7, 5), widths=(5, 4, 3), channels=3, *, classes=0, side=4, seed=0):
    """genforce's names with nothing at its initial value."""
    rng = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=rng)

    state = {"truncation.w_avg": drawn(mapping[-1]), "synthesis.lod": torch.zeros(())}
    for i, (wide, narrow) in enumerate(pairwise(mapping)):
        wide = 2 * wide if classes and i == 0 else wide
        state |= {f"mapping.dense{i}.weight": 100 * drawn(narrow, wide), f"mapping.dense{i}.bias": 10 * drawn(narrow)}
    if classes:
        state["mapping.label_weight"] = drawn(classes, mapping[0])
    for i in range(2 * len(widths)):
        k, layer = i // 2, f"synthesis.layer{i}"
        if i == 0:
            state[f"{layer}.const"] = drawn(1, widths[0], side, side)
        else:
            state[f"{layer}.weight"] = drawn(widths[k], widths[k - 1 if i % 2 == 0 else k], 3, 3)
        if i and i % 2 == 0:
            state[f"{layer}.blur.kernel"] = BLUR.expand(widths[k], 1, 3, 3)
        size = side * 2**k
        state |= {f"{layer}.bias": drawn(widths[k]), f"{layer}.apply_noise.weight": drawn(widths[k])}
        state[f"{layer}.apply_noise.noise"] = drawn(1, 1, size, size)
        state |= {f"{layer}.style.weight": drawn(2 * widths[k], mapping[-1]), f"{layer}.style.bias": drawn(2 * widths[k])}
    for k, width in enumerate(widths):
        state |= {f"synthesis.output{k}.weight": drawn(channels, width, 1, 1), f"synthesis.output{k}.bias": drawn(channels)}
    return state


@pytest.fixture(scope="module")
def generator():
    return families.from_tensors(random_state(), name="faces")


# ------------------------------------------------------------------ the reference


@pytest.mark.parametrize("case", CASES)
def test_codes_styles_and_images_equal_the_references(case):
    case = load(case)
    facts, outputs, z = case.facts, case.outputs, case.inputs["z"]
    generator = families.from_tensors(case.state, name=case.name)
    assert generator.image_shape == (facts["image_channels"], facts["resolution"], facts["resolution"])
    assert {name: space.shape for name, space in generator.spaces.items() if name != "s"} == {
        "z": (facts["z_dim"],),
        "w": (facts["w_dim"],),
        "w+": (facts["num_ws"], facts["w_dim"]),
    }
    z = latents_of(generator, z, "z")
    codes = generator.to_space(z, "w+")
    psi, cutoff = facts["truncation"]["psi"], facts["truncation"]["cutoff"]
    truncated, cut = generator.truncate(codes, psi), generator.truncate(codes, psi, cutoff=cutoff)
    assert_equal(generator.to_space(z, "w").values, outputs["w"], "w")
    for key, latents in (("ws", codes), ("ws_psi07", truncated), ("ws_psi07_cutoff", cut)):
        assert_equal(latents.values, outputs[key], "w", what=key)
    for key, latents in (("image_const", codes), ("image_psi07", truncated), ("image_psi07_cutoff", cut)):
        assert_equal(generator(latents[: len(outputs[key])]), outputs[key], "image", what=key)
    read = {"w", "ws", "ws_psi07", "ws_psi07_cutoff", "image_const", "image_psi07", "image_psi07_cutoff", "vjp_ws"}
    if "image_none" in outputs:
        assert_equal(generator.configured(noise="none")(codes[: len(outputs["image_none"])]), outputs["image_none"], "image")
    if "image_wplus" in outputs:
        assert_equal(generator(latents_of(generator, case.inputs["wplus"], "w+")), outputs["image_wplus"], "image")
    if "image_in_noise" in outputs:
        given = generator.configured(noise=numbered(case.inputs, "noise_"))
        assert_equal(given(codes[: len(outputs["image_in_noise"])]), outputs["image_in_noise"], "image")
    for key, expected in outputs.items():
        if match := re.fullmatch(r"image_lod(\d+(p\d+)?)", key):
            lod = float(match[1].replace("p", "."))
            assert_equal(generator.configured(lod=lod)(codes[: len(expected)]), expected, "image", what=key)
            read.add(key)
    styles = generator.to_space(z, "s")
    for name, start, end in generator.spaces["s"].layers:
        key = f"style/style{int(name.split('.')[1]):02d}"
        if key in outputs:
            assert_equal(styles.values[:, start:end], outputs[key], "style", what=key)
            read.add(key)
    assert not unread(case, read | {"image_none", "image_wplus", "image_in_noise"})


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_references(case):
    case = load(case)
    if "vjp_ws" not in case.outputs:
        pytest.skip("this case has no gradient")
    generator = families.from_tensors(case.state, name=case.name)
    expected = case.outputs["vjp_ws"]
    codes = case.outputs["ws"][: len(expected)].clone().requires_grad_()
    assert_gradient(gradient_of(generator(latents_of(generator, codes, "w+")), codes, case.inputs["cotangent"]), expected)


# ------------------------------------------------------------------ laws


def test_styles_replace_the_mean_and_deviation_of_each_layers_channels(generator):
    latents = generator.sample(3, seed=0, space="s")
    layer, (_, start, end) = generator.network.layers[3], generator.spaces["s"].layers[3]
    style = latents.values[:, start:end]
    x = torch.randn(3, layer.channels, layer.side, layer.side, generator=torch.Generator().manual_seed(0))
    scale, shift = style.chunk(2, dim=1)
    made = layer(x, style, layer.noise)
    assert torch.allclose(made.mean((2, 3)), shift, atol=1e-4)
    assert torch.allclose(made.std((2, 3), correction=0), (scale + 1).abs(), atol=1e-3)


def test_truncation_to_nothing_leaves_the_mean_image(generator):
    gone = generator.sample(2, seed=0, space="w+", psi=0)
    assert torch.allclose(gone.values, generator.network.mean.expand_as(gone.values))
    part = generator.sample(2, seed=0, space="w+", psi=0, cutoff=2)
    assert torch.equal(part.values[:, 2:], generator.sample(2, seed=0, space="w+").values[:, 2:])


def test_the_length_of_z_does_not_show(generator):
    latents = generator.sample(2, seed=0, space="z")
    assert torch.allclose(generator(latents.at(3 * latents.values)), generator(latents), atol=1e-4)


def test_a_style_reaches_the_image_from_its_own_layer_on(generator):
    latents = generator.sample(1, seed=0, space="w+")
    moved = latents.values.clone()
    moved[:, 3:] += 1
    at = {lod: generator.configured(lod=lod) for lod in (0, 1, 2)}
    assert torch.equal(at[2](latents), at[2](latents.at(moved)))  # the coarsest image ends with layer 1
    assert not torch.allclose(at[1](latents), at[1](latents.at(moved)), atol=0.1)


def test_noise_may_be_fixed_given_or_none(generator):
    latents = generator.sample(2, seed=0)
    sides = [layer.side for layer in generator.network.layers]
    stored = [layer.noise for layer in generator.network.layers]
    assert torch.equal(generator.configured(noise=stored)(latents), generator(latents))
    silent = generator.configured(noise=[torch.zeros(1, 1, side, side) for side in sides])
    assert torch.allclose(generator.configured(noise="none")(latents), silent(latents), atol=1e-5)
    assert not torch.allclose(silent(latents), generator(latents), atol=0.1)


@pytest.mark.parametrize("space", ["z", "w", "w+", "s"])
def test_forward_and_reverse_mode_agree_and_vmap_runs(generator, space):
    values = generator.sample(2, seed=0, space=space).values
    step = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    images, moved = torch.func.jvp(lambda x: generator(latents_of(generator, x, space)), (values,), (step,))
    cotangent = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    (pulled,) = torch.func.vjp(lambda x: generator(latents_of(generator, x, space)), values)[1](cotangent)
    assert torch.allclose((moved * cotangent).sum(), (pulled * step).sum(), rtol=1e-3)
    mapped = torch.func.vmap(lambda row: generator(latents_of(generator, row[None], space))[0])(values)
    assert torch.allclose(mapped, images, atol=1e-4)


def test_rows_do_not_depend_on_the_batch(generator):
    latents = generator.sample(3, seed=0)
    assert torch.allclose(generator(latents)[1:2], generator(latents[1:2]), atol=1e-4)


def test_folding_changes_no_image(generator):
    plain = StyleGAN1(**generator.network.config).eval()
    plain.load_state_dict(generator.network.state_dict())
    latents = generator.sample(2, seed=0, space="z")
    assert torch.allclose(plain(latents.values), generator(latents), atol=1e-4)


def test_config_and_tensors_build_it_again(generator):
    again = families.build("stylegan1", generator.network.config, generator.network.state_dict(), name="again")
    assert again.fingerprint == generator.fingerprint


@pytest.mark.parametrize(
    ("mapping", "widths", "channels", "side"),
    [((4, 4), (3,), 3, 4), ((6, 5, 5, 5, 7), (4, 4), 1, 4), ((5, 3), (6, 5, 4, 3), 3, 4), ((5, 3), (4, 4), 3, 2)],
)
def test_sizes_are_read_from_the_weights(mapping, widths, channels, side):
    generator = families.from_tensors(random_state(mapping, widths, channels, side=side))
    size = side * 2 ** (len(widths) - 1)
    assert generator.image_shape == (channels, size, size)
    assert generator.spaces["w+"].shape == (2 * len(widths), mapping[-1])
    assert generator(generator.sample(2, seed=0)).shape == (2, channels, size, size)


# ------------------------------------------------------------------ labels


def test_the_labels_embedding_is_appended_to_z_and_normalised_with_it():
    state = random_state(classes=3)
    generator = families.from_tensors(state, name="kinds")
    assert generator.classes == 3 and generator.spaces["z"].shape == (6,) and not generator.spaces["z"].spheres
    z = generator.sample(2, seed=0, space="z", labels=[2, 0])
    x = torch.cat([z.values, state["mapping.label_weight"][[2, 0]]], dim=1)
    x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(2):
        weight, bias = state[f"mapping.dense{i}.weight"], state[f"mapping.dense{i}.bias"]
        x = F.leaky_relu(x @ weight.T * (0.01 * (2 / weight.shape[1]) ** 0.5) + 0.01 * bias, 0.2)
    assert torch.allclose(generator.to_space(z, "w").values, x, atol=1e-5)
    soft = latents_of(generator, z.values, "z", torch.eye(3)[[2, 0]])
    assert torch.allclose(generator(soft), generator(z), atol=1e-5)


def test_a_label_table_that_leaves_no_latent_is_refused():
    with pytest.raises(ValueError, match="its mapping takes 12 numbers, its label table has 12: nothing is left for z"):
        families.from_tensors({**random_state(classes=3), "mapping.label_weight": torch.zeros(3, 12)})


# ------------------------------------------------------------------ other code bases


def interfacegan(state):
    """The same weights under InterFaceGAN's names; kernels from 128 pixels up are (3, 3, in, out) there."""
    theirs = {}
    for key, value in state.items():
        key = re.sub(r"(mapping\.dense\d+)\.weight", r"\1.linear.weight", key)
        key = re.sub(r"(mapping\.dense\d+)\.bias", r"\1.wscale.bias", key)
        key = re.sub(r"(layer\d+)\.bias$", r"\1.epilogue.bias", key).replace("layer0.const", "layer0.first_layer")
        key = re.sub(r"(layer\d+)\.apply_noise", r"\1.epilogue.apply_noise", key)
        key = re.sub(r"(layer\d+)\.style\.weight", r"\1.epilogue.style_mod.dense.linear.weight", key)
        key = re.sub(r"(layer\d+)\.style\.bias", r"\1.epilogue.style_mod.dense.wscale.bias", key)
        if match := re.fullmatch(r"synthesis\.layer(\d+)\.weight", key):
            fused = int(match[1]) >= 10 and int(match[1]) % 2 == 0
            key, value = (key, value.permute(2, 3, 1, 0)) if fused else (key.replace(".weight", ".conv.weight"), value)
        theirs[re.sub(r"(output\d+)\.weight", r"\1.conv.weight", key)] = value
    return {**theirs, "truncation.truncation": torch.ones(1, 4, 1)}


def lernapparat(state):
    """The same weights under lernapparat's names, which leave out noise, mean w and the coarser layers to RGB."""
    last = max(int(match[1]) for key in state if (match := re.match(r"synthesis\.output(\d+)", key)))
    theirs = {}
    for key, value in state.items():
        if match := re.fullmatch(r"mapping\.(dense\d+\.\w+)", key):
            theirs[f"g_mapping.{match[1]}"] = value
        elif match := re.fullmatch(r"synthesis\.layer(\d+)\.(.*)", key):
            i, part = int(match[1]), match[2]
            side = 4 * 2 ** (i // 2)
            conv = "" if i == 0 else "conv." if i == 1 else "conv1." if i % 2 else "conv0_up."
            if part == "apply_noise.noise":
                continue
            part = {
                "apply_noise.weight": f"epi{i % 2 + 1}.top_epi.noise.weight",
                "style.weight": f"epi{i % 2 + 1}.style_mod.lin.weight",
                "style.bias": f"epi{i % 2 + 1}.style_mod.lin.bias",
                "blur.kernel": f"{conv}intermediate.kernel",
            }.get(part, conv + part)
            theirs[f"g_synthesis.blocks.{side}x{side}.{part}"] = value
        elif match := re.fullmatch(rf"synthesis\.output{last}\.(\w+)", key):
            theirs[f"g_synthesis.torgb.{match[1]}"] = value
    return theirs


WIDE = {"mapping": (4, 4), "widths": (4, 3, 3, 2, 2, 3)}  # 128 pixels: its last up-sampling is a transposed convolution


@pytest.mark.parametrize("sizes", [{}, WIDE], ids=["16 px", "128 px"])
def test_interfacegans_names_give_the_same_network(sizes):
    state = random_state(**sizes)
    assert families.from_tensors(interfacegan(state)).fingerprint == families.from_tensors(state).fingerprint


@pytest.mark.parametrize("sizes", [{}, WIDE], ids=["16 px", "128 px"])
def test_lernapparats_names_give_the_same_images_but_for_the_noise(sizes):
    state = random_state(**sizes)
    one, other = families.from_tensors(state), families.from_tensors(lernapparat(state), name="for all")
    z = one.sample(2, seed=0, space="z").values
    silent = [g.configured(noise="none")(latents_of(g, z, "z")) for g in (one, other)]
    assert torch.equal(*silent)
    with pytest.raises(ValueError, match=r"lod 1 shows a layer to RGB that this file does not have; it has those of lod 0\."):
        other.configured(lod=1)(other.sample(1, seed=0))


def test_noise_and_mean_that_a_file_lacks_are_always_the_same():
    one, other = (families.from_tensors(lernapparat(random_state())) for _ in range(2))
    latents = one.sample(2, seed=0, psi=0.5)
    assert torch.equal(one(latents), other(other.sample(2, seed=0, psi=0.5)))
    assert one.network.layers[2].noise.std() > 0.5 and not torch.allclose(one.configured(noise="none")(latents), one(latents), atol=0.1)
    codes = one.sample(500, seed=1).values
    assert torch.allclose(codes.mean(0), one.network.mean, atol=0.25 * float(codes.std()))
    assert not {key for key in one.network.state_dict() if key == "mean" or key.endswith(".noise")}


def test_a_mean_that_the_file_has_is_kept():
    mean = torch.arange(5.0)
    assert torch.equal(families.from_tensors({**lernapparat(random_state()), "truncation.avg_latent": mean}).network.mean, mean)


def test_transposed_kernels_are_known_by_resolution_or_by_argument():
    state = random_state(**WIDE)
    key = "synthesis.layer10.weight"
    turned = {**state, key: state[key].flip(2, 3)}
    assert families.from_tensors(turned, {"fused_scale": False}).fingerprint == families.from_tensors(state).fingerprint
    all_turned = {k: v.flip(2, 3) if re.fullmatch(r"synthesis\.layer[2468]\.weight", k) else v for k, v in state.items()}
    assert families.from_tensors(all_turned, {"fused_scale": True}).fingerprint == families.from_tensors(state).fingerprint
    inward = {**state, key: state[key].transpose(0, 1)}  # stored (in, out), as some do
    assert families.from_tensors(inward).fingerprint == families.from_tensors(state).fingerprint


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("noise", "say"),
    [
        ("loud", r"noise is \"fixed\", \"none\" or a list of 6 tensors, one a layer; got 'loud'\."),
        ([torch.zeros(1, 1, 4, 4)], r"or a list of 6 tensors, one a layer; got 1 of them\."),
        ([torch.zeros(1, 1, 4, 4)] * 6, r"noise of layer 2 is \(1, 1, 8, 8\) or one a latent, got \(1, 1, 4, 4\)\."),
        ([None] * 6, r"noise of layer 0 is \(1, 1, 4, 4\) or one a latent, got NoneType\."),
        (3, r"or a list of 6 tensors, one a layer; got 3\."),
    ],
)
def test_noise_that_does_not_fit_is_refused(generator, noise, say):
    with pytest.raises(ValueError, match=say):
        generator.configured(noise=noise)(generator.sample(2, seed=0))


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"mapping.dense1.weight": None}, r"its mapping ends in 7 numbers, its styles take 5"),
        ({"synthesis.layer3.weight": None}, r"layers\.3\.convolution\.weight is missing from this genforce checkpoint"),
        ({"synthesis.layer3.bias": None}, r"keys missing: layers\.3\.convolution\.bias"),
        ({"synthesis.layer3.apply_noise.noise": None}, r"keys missing: layers\.3\.noise"),
        ({"synthesis.extra": torch.zeros(2)}, r"keys left over that the genforce layout does not know: synthesis\.extra"),
        (
            {"synthesis.layer4.weight": torch.zeros(3, 9, 3, 3)},
            r"layers\.4\.convolution\.weight is \(3, 9, 3, 3\), expected \(3, 4, 3, 3\)",
        ),
        ({"synthesis.layer0.const": torch.zeros(5)}, r"layers\.0\.const is \(5,\), expected 4 dimensions"),
        ({"synthesis.layer4.blur.kernel": torch.ones(3, 1, 3, 3) / 9}, r"synthesis\.layer4\.blur\.kernel is no blur by \[1, 2, 1\]"),
        ({"synthesis.lod": torch.tensor(9.0)}, r"lod is how many of 2 doublings are left out"),
        ({"synthesis.layer90.weight": torch.zeros(2, 2, 3, 3)}, r"it has 46 resolutions from 4 pixels up"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(change, say):
    state = {key: value for key, value in {**random_state(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=say) as caught:
        families.from_tensors(state, name="damaged")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"use_wscale": False}, {"repeat_w": False}, {"fused_scale": "maybe"}, {"mapping_lrmul": "slow"}])
def test_arguments_of_another_network_are_refused(arguments):
    with pytest.raises(ValueError, match=r"not supported here|fused_scale is True|learning rate of the mapping"):
        families.from_tensors(random_state(), arguments)
