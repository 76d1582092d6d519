"""The batch norms that ajbrock's BigGANs may have, against a plain transcription of what its classes do in eval mode.

Files are written here with random weights under its names; the transcription reads the same tensors, spectral norm, norms and all.
"""

import math
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from steerable.generators import families

CLASSES, SHARED, CHUNK, CH = 5, 6, 4, 8
WIDTHS = [2 * CH, 2 * CH, CH]  # of the maps 4, 8 and 16 wide


def written(norm, *, hier=True, shared=True, attention=(), counter=None, spectral=True, seed=0):
    """A state dict; ``norm`` is "plain", "mybn", "cross_replica" or "nonorm", ``attention`` the sides that have one."""
    rng = torch.Generator().manual_seed(seed)
    state = {}

    def weight(key, *shape, bias=True):
        state[f"{key}.weight"] = torch.randn(shape, generator=rng) / math.prod(shape[1:]) ** 0.5
        if bias:
            state[f"{key}.bias"] = 0.3 * torch.randn(shape[0], generator=rng)
        if spectral:
            state[f"{key}.u0"], state[f"{key}.sv0"] = torch.randn(1, shape[0], generator=rng), torch.ones(1)

    def statistics(owner, channels, norm):
        mean, var = 0.3 * torch.randn(channels, generator=rng), 0.5 + torch.rand(channels, generator=rng)
        if norm == "plain":
            state.update({f"{owner}.stored_mean": mean, f"{owner}.stored_var": var})
        elif norm == "mybn":
            state.update({f"{owner}.bn.stored_mean": mean, f"{owner}.bn.stored_var": var})
            state[f"{owner}.bn.accumulation_counter"] = torch.tensor([counter or 0.0])
        elif norm == "cross_replica":
            state.update({f"{owner}.bn.running_mean": mean, f"{owner}.bn.running_var": var})
            state[f"{owner}.bn.num_batches_tracked"] = torch.tensor(7)

    if shared:
        state["shared.weight"] = torch.randn(CLASSES, SHARED, generator=rng)
    told = SHARED + CHUNK * hier
    weight("linear", WIDTHS[0] * 16, CHUNK)
    for i, (wide, out) in enumerate(pairwise(WIDTHS)):
        for j, (a, b) in enumerate(((wide, out), (out, out)), 1):
            weight(f"blocks.{i}.0.conv{j}", b, a, 3, 3)
        weight(f"blocks.{i}.0.conv_sc", out, wide, 1, 1)
        for j, channels in enumerate((wide, out), 1):
            for part in ("gain", "bias"):
                if shared:
                    weight(f"blocks.{i}.0.bn{j}.{part}", channels, told, bias=False)
                else:
                    state[f"blocks.{i}.0.bn{j}.{part}.weight"] = 0.3 * torch.randn(CLASSES, channels, generator=rng)
            statistics(f"blocks.{i}.0.bn{j}", channels, norm)
        if 8 * 2**i in attention:
            for name, b, a in (("theta", out // 8, out), ("phi", out // 8, out), ("g", out // 2, out), ("o", out, out // 2)):
                weight(f"blocks.{i}.1.{name}", b, a, 1, 1, bias=False)
            state[f"blocks.{i}.1.gamma"] = torch.tensor(0.7)
    state["output_layer.0.gain"] = 1 + 0.3 * torch.randn(CH, generator=rng)
    state["output_layer.0.bias"] = 0.3 * torch.randn(CH, generator=rng)
    statistics("output_layer.0", CH, "plain" if norm == "nonorm" else norm)
    weight("output_layer.2", 3, CH, 3, 3)
    return state


class Transcribed:
    """Generator.forward of BigGAN.py and the forward passes of layers.py in eval mode, written down for a state dict."""

    def __init__(self, state, *, eps=1e-5, standing=False, hier=True):
        self.state, self.eps, self.standing, self.hier = state, eps, standing, hier

    def weight(self, key):
        w = self.state[f"{key}.weight"]
        if f"{key}.u0" not in self.state:
            return w
        matrix = w.reshape(w.size(0), -1)
        v = F.normalize(self.state[f"{key}.u0"] @ matrix, eps=1e-12)
        u = F.normalize(v @ matrix.t(), eps=1e-12)
        return w / (v @ matrix.t() @ u.t()).squeeze()

    def conv(self, key, x, padding=0):
        return F.conv2d(x, self.weight(key), self.state.get(f"{key}.bias"), padding=padding)

    def normalised(self, owner, x, gain, bias, eps):
        state = self.state
        if f"{owner}.bn.running_mean" in state:  # the synchronised norm without a parallel run: it adds both
            return F.batch_norm(x, state[f"{owner}.bn.running_mean"], state[f"{owner}.bn.running_var"], eps=eps) + gain + bias
        if f"{owner}.bn.stored_mean" in state:
            mean, var = (state[f"{owner}.bn.stored_{part}"].view(1, -1, 1, 1) for part in ("mean", "var"))
            if self.standing:
                mean, var = (one / state[f"{owner}.bn.accumulation_counter"] for one in (mean, var))
            scale = torch.rsqrt(var + eps) * gain
            return x * scale - (mean * scale - bias)
        if f"{owner}.stored_mean" in state:
            x = F.batch_norm(x, state[f"{owner}.stored_mean"], state[f"{owner}.stored_var"], eps=eps)
        return x * gain + bias

    def conditional(self, owner, x, y):
        if "shared.weight" in self.state:
            gain, bias = (F.linear(y, self.weight(f"{owner}.{part}")) for part in ("gain", "bias"))
        else:
            gain, bias = (F.embedding(y, self.state[f"{owner}.{part}.weight"]) for part in ("gain", "bias"))
        return self.normalised(owner, x, (1 + gain)[:, :, None, None], bias[:, :, None, None], self.eps)

    def attended(self, key, x):
        n, c, h, w = x.shape
        theta = self.conv(f"{key}.theta", x).view(n, -1, h * w)
        phi = F.max_pool2d(self.conv(f"{key}.phi", x), 2).view(n, -1, h * w // 4)
        g = F.max_pool2d(self.conv(f"{key}.g", x), 2).view(n, -1, h * w // 4)
        beta = F.softmax(torch.bmm(theta.transpose(1, 2), phi), -1)
        o = self.conv(f"{key}.o", torch.bmm(g, beta.transpose(1, 2)).view(n, c // 2, h, w))
        return self.state[f"{key}.gamma"] * o + x

    def __call__(self, z, labels):
        y = F.embedding(labels, self.state["shared.weight"]) if "shared.weight" in self.state else labels
        blocks = len({key.split(".")[1] for key in self.state if key.startswith("blocks.")})
        ys = [y] * blocks
        if self.hier:
            z, *rest = torch.split(z, CHUNK, 1)
            ys = [torch.cat([y, item], 1) for item in rest]
        h = F.linear(z, self.weight("linear"), self.state["linear.bias"]).view(len(z), -1, 4, 4)
        for i in range(blocks):
            x, h = h, F.interpolate(F.relu(self.conditional(f"blocks.{i}.0.bn1", h, ys[i])), scale_factor=2)
            h = F.relu(self.conditional(f"blocks.{i}.0.bn2", self.conv(f"blocks.{i}.0.conv1", h, 1), ys[i]))
            h = self.conv(f"blocks.{i}.0.conv2", h, 1) + self.conv(f"blocks.{i}.0.conv_sc", F.interpolate(x, scale_factor=2))
            if f"blocks.{i}.1.gamma" in self.state:
                h = self.attended(f"blocks.{i}.1", h)
        gain, bias = (self.state[f"output_layer.0.{part}"].view(1, -1, 1, 1) for part in ("gain", "bias"))
        h = F.relu(self.normalised("output_layer.0", h, gain, bias, 1e-5))
        return torch.tanh(self.conv("output_layer.2", h, 1))


def assert_alike(state, arguments=None, *, standing=False, eps=1e-5, hier=True, **options):
    """Our images of a state dict are the transcription's."""
    big = families.from_tensors(state, arguments or {}, name="big")
    latents = big.sample(3, seed=1, space="z", labels=[0, 3, 4])
    with torch.no_grad():
        expected = Transcribed(state, eps=eps, standing=standing, hier=hier)(latents.values, latents.labels)
        got = big.configured(**options)(latents)
    assert float(expected.std()) > 0.1 and float(expected.abs().mean()) < 0.8  # not flat, not saturated
    assert torch.allclose(got, expected, atol=5e-5)
    return big


@pytest.mark.parametrize("hier", [True, False])
@pytest.mark.parametrize("norm", ["plain", "mybn"])
def test_norms_with_running_averages_equal_the_published_code(norm, hier):
    big = assert_alike(written(norm, hier=hier), hier=hier)
    assert not big.options and big.spaces["z"].shape == (12 if hier else 4,)


def test_standing_statistics_are_sums_over_a_counted_number_of_batches():
    state = written("mybn", counter=16.0)
    for key in [key for key in state if ".bn.stored_" in key]:
        state[key] = state[key] * 16
    assert_alike(state, standing=True)


def test_norms_shared_over_devices_multiply_by_the_gain_as_in_training_and_add_it_as_published():
    big = assert_alike(written("cross_replica"), {"cross_replica": True}, published_gain=True)
    latents = big.sample(2, seed=0)
    assert big.options == {"published_gain": False}
    plain = {re.sub(r"\.bn\.running_(mean|var)", r".stored_\1", key): tensor for key, tensor in written("cross_replica").items()}
    trained = families.from_tensors({key: tensor for key, tensor in plain.items() if "num_batches" not in key})
    assert trained.fingerprint == big.fingerprint and torch.equal(trained(latents), big(latents))
    assert (big(latents) - big.configured(published_gain=True)(latents)).abs().max() > 0.1


@pytest.mark.parametrize("shared", [True, False])
def test_blocks_without_norms_only_scale_and_shift(shared):
    assert_alike(written("nonorm", hier=False, shared=shared), {"norm_style": "nonorm"}, hier=False)


def test_norms_may_look_the_class_up_themselves_in_any_of_the_styles():
    for norm in ("plain", "mybn"):
        assert_alike(written(norm, hier=False, shared=False), hier=False)


@pytest.mark.parametrize("attention", [(8,), (16,), (8, 16)])
def test_attention_may_stand_after_any_resolution(attention):
    assert_alike(written("mybn", attention=attention))


def test_weights_without_a_spectral_norm_are_used_as_they_are():
    assert_alike(written("mybn", spectral=False))


def test_the_last_norm_has_an_epsilon_of_its_own():
    assert_alike(written("mybn"), {"BN_eps": 0.1}, eps=0.1)


@pytest.mark.parametrize(
    ("change", "arguments", "say"),
    [
        ({}, {"norm_style": "gn_16"}, 'norm_style is "gn_16"'),
        ({}, {"cross_replica": True}, "cross_replica is True, the statistics of its norms say False"),
        ({"output_layer.0.bn.accumulation_counter": torch.tensor([-1.0])}, {}, "no count of batches"),
        ({"output_layer.0.bn.accumulation_counter": torch.tensor([float("nan")])}, {}, "no count of batches"),
        ({"blocks.0.0.bn1.bn.momentum": torch.zeros(1)}, {}, "left over"),
        ({"blocks.0.0.bn1.bn.stored_mean": None}, {}, "keys missing: blocks.0.norms.0.means"),
    ],
)
def test_norms_that_cannot_be_are_refused_in_one_line(change, arguments, say):
    state = {key: tensor for key, tensor in {**written("mybn"), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=rf"^[^\n]*{re.escape(say)}[^\n]*$"):
        families.from_tensors(state, arguments)
