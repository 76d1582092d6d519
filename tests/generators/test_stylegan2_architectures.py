"""The three architectures of StyleGAN 2 and the labels of its first code, against a plain transcription of the published forward pass.

Files are written here with random weights under NVIDIA's names; the transcription inserts zeros, filters and modulates kernel by kernel.
"""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from generators.test_tensorflow_layouts import stylegan2_variables

from steerable.generators import families
from steerable.generators.layouts import example
from steerable.protocols import Latents

ARCHITECTURES = ("skip", "orig", "resnet")
Z, W, CLASSES, EMBEDDING = 6, 5, 4, 3
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
FILTER = torch.outer(TAPS, TAPS) / 64


def written(architecture, *, widths=(7, 6, 4), labels=None, layers=2, seed=0):
    """A state dict of NVIDIA's; ``labels`` is "embed" (ADA), "table" (the first code) or None."""
    rng = torch.Generator().manual_seed(seed)
    state = {}

    def linear(key, wide, narrow, *, bias=0.0, rate=1.0):
        state[f"{key}.weight"] = torch.randn(narrow, wide, generator=rng) / rate
        state[f"{key}.bias"] = bias + 0.2 * torch.randn(narrow, generator=rng) / rate

    def layer(key, wide, narrow, side):
        state[f"{key}.weight"] = torch.randn(narrow, wide, *((3, 3) if side else (1, 1)), generator=rng)
        state[f"{key}.bias"] = 0.3 * torch.randn(narrow, generator=rng)
        linear(f"{key}.affine", W, wide, bias=1.0)
        if side:
            state[f"{key}.noise_const"] = torch.randn(side, side, generator=rng)
            state[f"{key}.noise_strength"] = torch.tensor(0.4)
            state[f"{key}.resample_filter"] = FILTER

    if labels == "embed":
        linear("mapping.embed", CLASSES, EMBEDDING)
    elif labels == "table":
        state["mapping.label_weight"] = torch.randn(CLASSES, EMBEDDING, generator=rng)
    for i in range(layers):
        linear(f"mapping.fc{i}", W if i else Z + (EMBEDDING if labels else 0), W, rate=0.01)
    state["mapping.w_avg"] = torch.randn(W, generator=rng)
    state["synthesis.b4.const"] = torch.randn(widths[0], 4, 4, generator=rng)
    for i, narrow in enumerate(widths):
        side, wide = 4 * 2**i, widths[max(i - 1, 0)]
        state[f"synthesis.b{side}.resample_filter"] = FILTER
        if i:
            layer(f"synthesis.b{side}.conv0", wide, narrow, side)
        layer(f"synthesis.b{side}.conv1", narrow, narrow, side)
        if architecture == "skip" or i == len(widths) - 1:
            layer(f"synthesis.b{side}.torgb", narrow, 3, None)
        if architecture == "resnet" and i:
            state[f"synthesis.b{side}.skip.weight"] = torch.randn(narrow, wide, 1, 1, generator=rng)
            state[f"synthesis.b{side}.skip.resample_filter"] = FILTER
    return state


class Transcribed:
    """MappingNetwork, SynthesisNetwork and their layers of stylegan2-ada-pytorch with constant noise, written down for a state dict."""

    def __init__(self, state, architecture, clamp=None):
        self.state, self.architecture, self.clamp = state, architecture, clamp

    def linear(self, key, x, rate=1.0):
        weight, bias = self.state[f"{key}.weight"], self.state[f"{key}.bias"]
        return F.linear(x, weight * (rate / math.sqrt(weight.shape[1])), bias * rate)

    def upsampled(self, x):
        """Zeros between the samples, 2 before and 1 after, and the filter with a gain of 4."""
        n, c, h, w = x.shape
        zeros = torch.zeros(n, c, 2 * h, 2 * w)
        zeros[:, :, ::2, ::2] = x
        return F.conv2d(F.pad(zeros, (2, 1, 2, 1)), 4 * FILTER.flip(0, 1).expand(c, 1, 4, 4), groups=c)

    def layer(self, key, x, w, *, gain=1.0, up=False):
        state, styles = self.state, self.linear(f"{key}.affine", w)
        rows = []
        for image, style in zip(x, styles, strict=True):
            weight = state[f"{key}.weight"] * style[None, :, None, None]
            weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
            if up:
                spread = F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)  # 2 h + 1 wide
                rows.append(F.conv2d(F.pad(spread, (1, 1, 1, 1)), 4 * FILTER.expand(len(weight), 1, 4, 4), groups=len(weight)))
            else:
                rows.append(F.conv2d(image[None], weight, padding=1))
        x = torch.cat(rows) + state[f"{key}.noise_const"] * state[f"{key}.noise_strength"]
        x = F.leaky_relu(x + state[f"{key}.bias"][:, None, None], 0.2) * (math.sqrt(2) * gain)
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)

    def torgb(self, key, x, w):
        weight = self.state[f"{key}.weight"]
        styles = self.linear(f"{key}.affine", w) / math.sqrt(weight.shape[1])
        rows = [F.conv2d(image[None], weight * style[None, :, None, None]) for image, style in zip(x, styles, strict=True)]
        x = torch.cat(rows) + self.state[f"{key}.bias"][:, None, None]
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def mapped(self, z, labels=None):
        def normalised(x):
            return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()

        if "mapping.label_weight" in self.state:
            x = normalised(torch.cat([z, F.one_hot(labels, CLASSES).float() @ self.state["mapping.label_weight"]], 1))
        elif "mapping.embed.weight" in self.state:
            x = torch.cat([normalised(z), normalised(self.linear("mapping.embed", F.one_hot(labels, CLASSES).float()))], 1)
        else:
            x = normalised(z)
        for i in range(sum(re.fullmatch(r"mapping\.fc\d+\.weight", key) is not None for key in self.state)):
            x = F.leaky_relu(self.linear(f"mapping.fc{i}", x, rate=0.01), 0.2) * math.sqrt(2)
        return x

    def __call__(self, ws):
        rows, x, image = list(ws.unbind(1)), self.state["synthesis.b4.const"].repeat(len(ws), 1, 1, 1), None
        sides = sorted({int(match[1]) for key in self.state if (match := re.match(r"synthesis\.b(\d+)\.", key))})
        for side in sides:
            name = f"synthesis.b{side}"
            if side == 4:
                x = self.layer(f"{name}.conv1", x, rows.pop(0))
            elif self.architecture == "resnet":
                weight = self.state[f"{name}.skip.weight"]
                around = self.upsampled(F.conv2d(x, weight / math.sqrt(weight.shape[1]))) * math.sqrt(0.5)
                x = self.layer(f"{name}.conv0", x, rows.pop(0), up=True)
                x = around + self.layer(f"{name}.conv1", x, rows.pop(0), gain=math.sqrt(0.5))
            else:
                x = self.layer(f"{name}.conv1", self.layer(f"{name}.conv0", x, rows.pop(0), up=True), rows.pop(0))
            image = None if image is None else self.upsampled(image)
            if side == sides[-1] or self.architecture == "skip":
                share = self.torgb(f"{name}.torgb", x, rows[0])
                image = share if image is None else image + share
        return image


def assert_equal(got, expected, limit=5e-5):
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= limit * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("clamp", [None, 1.5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_of_every_architecture_equal_the_published_forward_pass(architecture, clamp):
    state = written(architecture)
    told = {"synthesis_kwargs": {"architecture": architecture, **({} if clamp is None else {"conv_clamp": clamp})}}
    generator = families.from_tensors(state, told, name="published")
    z = torch.randn(2, Z, generator=torch.Generator().manual_seed(1))
    ws = torch.randn(2, 6, W, generator=torch.Generator().manual_seed(2))
    published = Transcribed(state, architecture, clamp)
    assert_equal(generator.to_space(Latents(z, generator.spaces["z"]), "w").values, published.mapped(z), 1e-5)
    images = published(ws)
    assert_equal(generator(Latents(ws, generator.spaces["w+"])), images)
    assert clamp is None or float((Transcribed(state, architecture)(ws) - images).abs().max()) > 0.1  # the clamp is felt


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_architecture_is_read_from_the_tensors_alone(architecture):
    generator = families.from_tensors(written(architecture))
    assert generator.network.config.get("architecture", "skip") == architecture
    assert generator.spaces["w+"].shape == (6, W)
    colours = [name for name, *_ in generator.spaces["s"].layers if name.endswith("torgb")]
    assert colours == (["b4.torgb", "b8.torgb", "b16.torgb"] if architecture == "skip" else ["b16.torgb"])
    again = families.build("stylegan2", generator.network.config, generator.network.state_dict(), name="again")
    assert torch.equal(again(again.sample(2, seed=0)), generator(generator.sample(2, seed=0)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_row_of_w_plus_moves_the_image_in_both_modes_of_differentiation(architecture):
    generator = families.from_tensors(written(architecture))
    latents = generator.sample(1, seed=0, space="w+")

    def draw(values):
        return generator(latents.at(values))

    pulled = torch.func.vjp(draw, latents.values)[1](torch.ones(1, 3, 16, 16))[0]
    assert (pulled[0].abs().amax(1) > 0).all()
    along = torch.func.jvp(draw, (latents.values,), (pulled,))[1]
    assert float(along.sum()) == pytest.approx(float(pulled.square().sum()), rel=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tensorflows_names_give_the_same_network(architecture):
    state = written(architecture)
    variables = stylegan2_variables(state)
    for key in [key for key in state if key.endswith("skip.weight")]:
        side = int(key.split(".b")[1].split(".")[0])
        variables[f"G_synthesis/{side}x{side}/Skip/weight"] = state[key].permute(2, 3, 1, 0)
    read = families.from_tensors(variables, {"architecture": architecture})
    assert read.network.config == families.from_tensors(state).network.config
    ours = families.from_tensors(state).network.state_dict()
    assert all(torch.allclose(tensor, ours[key], atol=1e-6) for key, tensor in read.network.state_dict().items())


@pytest.mark.parametrize("labels", ["embed", "table"])
def test_labels_have_a_length_of_their_own_or_share_zs_as_their_code_does(labels):
    state = written("skip", labels=labels)
    generator = families.from_tensors(state)
    z, classes = torch.randn(3, Z, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 1])
    assert generator.classes == CLASSES and generator.spaces["z"].shape == (Z,)
    assert_equal(
        generator.to_space(Latents(z, generator.spaces["z"], classes), "w").values, Transcribed(state, "skip").mapped(z, classes), 1e-5
    )
    assert bool(generator.spaces["z"].spheres) == (labels == "embed")  # with a shared length, that of z shows
    if labels == "table":
        variables = stylegan2_variables({key: value for key, value in state.items() if key != "mapping.label_weight"})
        variables["G_mapping/LabelConcat/weight"] = state["mapping.label_weight"]
        again = families.from_tensors(variables, {"label_size": CLASSES, "latent_size": Z})
        latents = Latents(z, again.spaces["z"], classes)
        assert_equal(again.to_space(latents, "w").values, Transcribed(state, "skip").mapped(z, classes), 1e-5)


@pytest.mark.parametrize(
    ("stored", "stated", "say"),
    [
        ("resnet", "skip", 'the arguments say architecture="skip", the tensors are those of "resnet"'),
        ("orig", "resnet", 'the arguments say architecture="resnet", the tensors are those of "orig"'),
        ("skip", "orig", 'the arguments say architecture="orig", the tensors are those of "skip"'),
    ],
)
def test_an_architecture_that_the_tensors_contradict_is_refused(stored, stated, say):
    with pytest.raises(ValueError, match=rf"^[^\n]*{re.escape(say)}[^\n]*$"):
        families.from_tensors(written(stored), {"synthesis_kwargs": {"architecture": stated}})


@pytest.mark.parametrize(("architecture", "key"), [("skip", "b4.torgb.weight"), ("resnet", "b8.skip.weight"), ("orig", "b16.torgb.bias")])
def test_a_part_that_is_missing_from_an_architecture_is_named(architecture, key):
    state = written(architecture)
    del state[f"synthesis.{key}"]
    with pytest.raises(ValueError, match=rf"^[^\n]*keys missing: {re.escape(key)}[^\n]*$"):
        families.from_tensors(state)


def test_of_a_file_without_a_sign_of_its_layout_the_missing_keys_are_named():
    state = {key: value for key, value in written("skip").items() if key != "synthesis.b4.const"}
    with pytest.raises(
        ValueError, match=r"^[^\n]*nearest is stylegan2 in the NVIDIA layout, of whose keys synthesis\.b4\.const are missing[^\n]*$"
    ):
        families.from_tensors(state)


@pytest.mark.parametrize("sign", sorted({sign for layout in families.LAYOUTS for sign in layout.signs}))
def test_the_example_of_a_sign_is_a_key_that_it_stands_for(sign):
    assert re.fullmatch(sign, example(sign)) and not set("\\()[]+*?") & set(example(sign))
