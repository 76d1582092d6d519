"""bfloat16 is used where a processor has instructions for it, and never where it would be emulated."""

import logging

import pytest
import torch

from steerable.generators import processor
from steerable.generators.module import generator_of
from steerable.generators.stylegan2 import StyleGAN2
from steerable.generators.stylegan3 import StyleGAN3


@pytest.fixture
def told(monkeypatch):
    """A processor of which it is told whether it has the instructions."""

    def tell(answer):
        monkeypatch.setattr(processor, "has_bfloat16", lambda device: answer)
        processor.half.cache_clear()

    yield tell
    processor.half.cache_clear()


def networks():
    two = StyleGAN2([["z", [8, 8]]], [16, 16, 16, 8, 8])
    return [two, StyleGAN3(resolution=32, latent_size=8, width=10, channel_base=256, channel_max=16)]


@pytest.mark.parametrize("network", networks(), ids=lambda network: network.family)
def test_without_the_instructions_bfloat16_is_float32_to_the_bit_and_said_once(network, told, caplog):
    told(False)
    network.initialise(torch.Generator().manual_seed(0))
    generator = generator_of(network, name="it")
    latents = generator.sample(1, seed=0)
    with caplog.at_level(logging.INFO):
        rounded = generator.configured(precision="bfloat16")
        assert torch.equal(rounded(latents), generator(latents)) and torch.equal(rounded(latents), generator(latents))
    assert [record.message for record in caplog.records if "bfloat16" in record.message] == [
        "this processor has no instructions for bfloat16: float32 is used, which is faster here."
    ]


@pytest.mark.parametrize("network", networks(), ids=lambda network: network.family)
def test_with_the_instructions_convolutions_are_rounded(network, told):
    told(True)
    network.initialise(torch.Generator().manual_seed(0))
    generator = generator_of(network, name="it")
    latents = generator.sample(1, seed=0)
    off = (generator.configured(precision="bfloat16")(latents) - generator(latents)).abs().max() / generator(latents).abs().max()
    assert 1e-5 < float(off) < 0.05


@pytest.mark.parametrize(("answer", "auto"), [(True, "bfloat16"), (False, "float32")])
def test_a_training_takes_what_is_faster_when_left_to_choose(answer, auto, told):
    told(answer)
    assert processor.chosen("auto", "cpu") == auto
    assert processor.chosen("float32", "cpu") == "float32"


def test_a_training_asked_for_bfloat16_keeps_it_and_says_what_it_costs(told, caplog):
    told(False)
    assert processor.chosen("bfloat16", "cpu") == "bfloat16"
    assert "precision auto or float32 is faster" in caplog.text
    with pytest.raises(ValueError, match='unknown precision "half"'):
        processor.chosen("half", "cpu")


def test_this_processor_is_known():
    assert processor.has_bfloat16("cpu") in (True, False)
