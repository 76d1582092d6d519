"""Variables of TensorFlow-era pickles read as the networks that they are.

There is no such file here: the tests write TensorFlow's names and orders from weights whose images are known, the parity
cases' among them, and read them back. So they check that reading undoes what the published networks' source says about
names, orders and flips, as understood here; they do not check a real file.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from generators.parity import assert_equal, cases, load
from generators.test_progan import random_state as progan_state
from generators.test_stylegan1 import random_state as stylegan_state

from steerable.generators import families
from steerable.protocols import Latents

# ------------------------------------------------------------------ TensorFlow's names, written


def progan_variables(state, *, fused):
    """From genforce's names. A fused kernel is (3, 3, out, in), turned by 180 degrees; the first layer is a matrix."""
    last = max(int(match[1]) for key in state if (match := re.match(r"output(\d+)", key)))
    variables = {"lod": state["lod"]}
    for key, value in state.items():
        if match := re.fullmatch(r"layer(\d+)\.(weight|bias)", key):
            i, kind = int(match[1]), match[2]
            side = 4 * 2 ** (i // 2)
            up = "Conv0_up" if fused else "Conv0"
            name = "Dense" if i == 0 else "Conv" if i == 1 else "Conv1" if i % 2 else up
            if kind == "weight":
                if i == 0:
                    value = value.flip(2, 3).permute(1, 0, 2, 3).flatten(1)
                elif name == "Conv0_up":
                    value = value.flip(2, 3).permute(2, 3, 0, 1)
                else:
                    value = value.permute(2, 3, 1, 0)
            variables[f"{side}x{side}/{name}/{kind}"] = value
        elif match := re.fullmatch(r"output(\d+)\.(weight|bias)", key):
            value = value.permute(2, 3, 1, 0) if match[2] == "weight" else value
            variables[f"ToRGB_lod{last - int(match[1])}/{match[2]}"] = value
    return variables


def stylegan1_variables(state):
    """From genforce's names; its kernels only have another order."""
    last = max(int(match[1]) for key in state if (match := re.match(r"synthesis\.output(\d+)", key)))
    variables = {"lod": state["synthesis.lod"], "G_synthesis/lod": torch.ones(()), "dlatent_avg": state["truncation.w_avg"]}
    for key, value in state.items():
        if match := re.fullmatch(r"mapping\.dense(\d+)\.(weight|bias)", key):
            variables[f"G_mapping/Dense{match[1]}/{match[2]}"] = value.t() if match[2] == "weight" else value
        elif key == "mapping.label_weight":
            variables["G_mapping/LabelConcat/weight"] = value
        elif match := re.fullmatch(r"synthesis\.layer(\d+)\.(.*)", key):
            i, part = int(match[1]), match[2]
            side = 4 * 2 ** (i // 2)
            name = ("Const" if i == 0 else "Conv") if i < 2 else ("Conv1" if i % 2 else "Conv0_up")
            if part == "apply_noise.noise":
                variables[f"G_synthesis/noise{i}"] = value
            elif part != "blur.kernel":
                value = value.permute(2, 3, 1, 0) if part == "weight" else value.t() if part == "style.weight" else value
                part = part.replace("apply_noise.weight", "Noise/weight").replace("style.", "StyleMod/")
                variables[f"G_synthesis/{side}x{side}/{name}/{part}"] = value
        elif match := re.fullmatch(r"synthesis\.output(\d+)\.(weight|bias)", key):
            value = value.permute(2, 3, 1, 0) if match[2] == "weight" else value
            variables[f"G_synthesis/ToRGB_lod{last - int(match[1])}/{match[2]}"] = value
    return variables


def stylegan2_variables(state):
    """From NVIDIA's names: style biases lose their 1, up-sampling kernels are turned by 180 degrees."""
    variables = {"lod": torch.zeros(()), "dlatent_avg": state["mapping.w_avg"]}
    for key, value in state.items():
        if match := re.fullmatch(r"mapping\.(fc(\d+)|embed)\.(weight|bias)", key):
            name = "LabelEmbed" if match[1] == "embed" else f"Dense{match[2]}"
            variables[f"G_mapping/{name}/{match[3]}"] = value.t() if match[3] == "weight" else value
        elif key == "synthesis.b4.const":
            variables["G_synthesis/4x4/Const/const"] = value[None]
        elif match := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.*)", key):
            side, part = int(match[1]), match[3]
            name = {"conv0": "Conv0_up", "conv1": "Conv" if side == 4 else "Conv1", "torgb": "ToRGB"}[match[2]]
            if part == "noise_const":
                i = 2 * (side.bit_length() - 3) - (match[2] == "conv0")
                variables[f"G_synthesis/noise{i}"] = value[None, None]
            elif part != "resample_filter":
                if part == "weight":
                    value = (value.flip(2, 3) if name == "Conv0_up" else value).permute(2, 3, 1, 0)
                value = value.t() if part == "affine.weight" else value - 1 if part == "affine.bias" else value
                variables[f"G_synthesis/{side}x{side}/{name}/{part.replace('affine.', 'mod_')}"] = value
    return variables


def images_of(generator, z, labels=None):
    return generator(Latents(z, generator.spaces["z"], labels))


# ------------------------------------------------------------------ the reference's weights


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("case", cases("pggan"))
def test_a_progan_in_tensorflows_names_gives_the_references_images(case, fused):
    case = load(case)
    generator = families.from_tensors(progan_variables(case.state, fused=fused), name=case.name)
    assert_equal(images_of(generator, case.inputs["z"]), case.outputs["image_const"], "image")


@pytest.mark.parametrize("case", cases("stylegan1"))
def test_a_stylegan_in_tensorflows_names_gives_the_references_images(case):
    case = load(case)
    generator = families.from_tensors(stylegan1_variables(case.state), name=case.name)
    assert generator.fingerprint == families.from_tensors(case.state).fingerprint
    assert_equal(images_of(generator, case.inputs["z"][: len(case.outputs["image_const"])]), case.outputs["image_const"], "image")


@pytest.mark.parametrize("case", cases("stylegan2-ada"))
def test_a_stylegan2_in_tensorflows_names_is_the_same_network(case):
    case = load(case)
    settings = case.facts["constructor"]
    published = families.from_tensors(case.state, settings, name="published")
    clamp = settings.get("synthesis_kwargs", settings).get("conv_clamp")
    generator = families.from_tensors(stylegan2_variables(case.state), {"conv_clamp": clamp}, name="pickled")
    assert generator.network.config == published.network.config
    assert all(
        torch.allclose(value, published.network.state_dict()[key], atol=1e-6) for key, value in generator.network.state_dict().items()
    )
    latents = published.sample(2, seed=0, space="z")
    images = published(latents)
    assert_equal(images_of(generator, latents.values, latents.labels), images, "image")


# ------------------------------------------------------------------ by hand


def test_the_first_layer_of_a_progan_is_a_matrix_and_fused_kernels_are_those_of_transposed_convolutions():
    state = progan_state(latent=6, widths=(5, 4))
    variables = progan_variables(state, fused=True)
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))

    def normed(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    def scaled(weight, fan_in):
        return weight * (2 / fan_in) ** 0.5

    def conv(x, name):
        weight, bias = variables[f"{name}/weight"], variables[f"{name}/bias"]
        return normed(F.leaky_relu(F.conv2d(x, scaled(weight.permute(3, 2, 0, 1), 9 * x.shape[1]), bias, padding=1), 0.2))

    x = (normed(z) @ scaled(variables["4x4/Dense/weight"], 6 * 16)).view(2, 5, 4, 4) + variables["4x4/Dense/bias"][:, None, None]
    x = conv(normed(F.leaky_relu(x, 0.2)), "4x4/Conv")
    kernel = F.pad(scaled(variables["8x8/Conv0_up/weight"], 9 * 5), (0, 0, 0, 0, 1, 1, 1, 1))  # (5, 5, out, in)
    kernel = kernel[1:, 1:] + kernel[:-1, 1:] + kernel[1:, :-1] + kernel[:-1, :-1]
    x = F.conv_transpose2d(x, kernel.permute(3, 2, 0, 1), variables["8x8/Conv0_up/bias"], stride=2, padding=1)
    x = conv(normed(F.leaky_relu(x, 0.2)), "8x8/Conv1")
    image = F.conv2d(x, variables["ToRGB_lod0/weight"].permute(3, 2, 0, 1) / 2, variables["ToRGB_lod0/bias"])
    assert torch.allclose(images_of(families.from_tensors(variables), z), image, atol=1e-4)


def test_labels_of_a_progan_share_zs_norm():
    state = progan_variables(progan_state(latent=9), fused=True)
    generator = families.from_tensors(state, {"label_size": 3}, name="classes")
    assert generator.classes == 3 and not generator.spaces["z"].spheres
    z = generator.sample(1, seed=0, space="z", labels=1)
    joint = families.from_tensors(state)
    given = torch.cat([z.values, torch.tensor([[0.0, 1, 0]])], dim=1)
    assert torch.allclose(generator(z), images_of(joint, given), atol=1e-5)


def test_labels_of_a_stylegan_come_from_its_table():
    state = stylegan_state(classes=3)
    assert families.from_tensors(stylegan1_variables(state)).fingerprint == families.from_tensors(state).fingerprint


def test_the_whole_networks_level_of_detail_goes_before_its_parts():
    variables = stylegan1_variables(stylegan_state())
    assert families.from_tensors(variables).network.lod == 0
    del variables["lod"]
    assert families.from_tensors(variables).network.lod == 1


def test_a_part_may_be_named_without_its_g():
    variables = stylegan1_variables(stylegan_state())
    short = {key.removeprefix("G_"): value for key, value in variables.items()}
    assert families.from_tensors(short).fingerprint == families.from_tensors(variables).fingerprint


def test_what_tensorflow_pickles_state_is_compared_with_the_tensors():
    variables = stylegan1_variables(stylegan_state())
    stated = {"resolution": 16, "num_channels": 3, "label_size": 0, "mapping_layers": 2, "blur_filter": (1, 2, 1), "fused_scale": "auto"}
    assert families.from_tensors(variables, stated).fingerprint == families.from_tensors(variables).fingerprint
    with pytest.raises(ValueError, match=r"the arguments say resolution=32, the tensors 16: they belong to two different networks\."):
        families.from_tensors(variables, {"resolution": 32})


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"12x12/Conv1/weight": torch.zeros(3, 3, 4, 4)}, r"it has variables of 12x12; blocks are 4, 8, 16, \.\.\. wide"),
        ({"16x16/Extra/weight": torch.zeros(2)}, r"variables left over that the TensorFlow layout does not know: 16x16/Extra/weight"),
        ({"4x4/Dense/weight": torch.zeros(6, 81)}, r"4x4/Dense/weight is \(6, 81\), its bias has 5 channels: 80 columns were expected"),
        ({"8x8/Conv1/weight": torch.zeros(3)}, r"8x8/Conv1/weight is \(3,\), expected 4 dimensions"),
        ({"8x8/Conv0_up/bias": None}, r"8x8/Conv0_up/bias is missing from this TensorFlow checkpoint"),
        ({"8x8/Conv1/weight": None}, r"layers\.2\.weight is missing"),
    ],
)
def test_a_damaged_progan_is_refused_in_one_line(change, say):
    variables = {k: v for k, v in {**progan_variables(progan_state(), fused=True), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=say) as caught:
        families.from_tensors(variables, name="damaged")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"use_pixelnorm": False}, {"use_leakyrelu": False}, {"use_wscale": False}])
def test_arguments_of_another_progan_are_refused(arguments):
    with pytest.raises(ValueError, match="which is not supported here"):
        families.from_tensors(progan_variables(progan_state(), fused=True), arguments)


@pytest.mark.parametrize("arguments", [{"use_pixel_norm": True}, {"blur_filter": [1, 3, 3, 1]}, {"nonlinearity": "relu"}])
def test_arguments_of_another_stylegan_are_refused(arguments):
    with pytest.raises(ValueError, match="which is not supported here"):
        families.from_tensors(stylegan1_variables(stylegan_state()), arguments)
