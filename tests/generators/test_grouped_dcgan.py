"""A DCGAN behind groups: the two ways of its first layer agree, groups are spheres, files rebuild it."""

import pytest
import torch

from steerable import store
from steerable.generators.dcgan_discriminator import initialised
from steerable.generators.grouped_dcgan import GroupedDCGAN
from steerable.generators.module import generator_of


def network():
    rng = torch.Generator().manual_seed(0)
    found = GroupedDCGAN([["a", [4, 8, 4]], ["b", [8, 8, 8]]], [16, 8, 1])
    initialised(found.synthesis, rng)
    found.initialise(rng)
    return found


def test_w_is_one_sphere_a_group_and_its_norms_fold():
    made = network()
    z = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    w = made.mapped(3 * z)
    assert torch.allclose(w, made.mapped(z), atol=1e-5)  # lengths of z do not show
    for part in (w[:, :4], w[:, 4:]):
        assert torch.allclose(part.square().mean(1), torch.ones(5), atol=1e-4)
    plain = made.eval().drawn(w)
    made.prepare()
    assert torch.allclose(made.drawn(w), plain, atol=1e-5)


def test_the_first_layer_in_training_is_the_same_transposed_convolution():
    made = network().train()
    w = made.mapped(torch.randn(6, 12, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(made.drawn(w), made.synthesis.main(w[:, :, None, None]), atol=1e-5)


def test_truncation_acts_on_one_group_alone():
    made = generator_of(network(), name="grouped")
    latents = made.sample(3, seed=0)
    half = made.truncate(latents, 0.5, part="a")
    assert torch.equal(half.part("b"), latents.part("b")) and not torch.equal(half.part("a"), latents.part("a"))
    centre = made.network.mean()
    assert torch.allclose(half.part("a"), (centre[:4] + latents.part("a")) / 2, atol=1e-6)


def test_a_file_holds_it(tmp_path):
    made = generator_of(network(), name="grouped")
    loaded = store.load_generator_file(store.save_generator(made, tmp_path / "g.safetensors"))
    latents = loaded.sample(2, seed=0)
    assert loaded.fingerprint == made.fingerprint and torch.equal(loaded(latents), made(latents))
    assert loaded.spaces["w"].parts == (("a", 0, 4), ("b", 4, 12))


def test_a_mapping_ends_at_its_own_width():
    with pytest.raises(ValueError, match='the mapping network of "a" goes from 4 to 5 numbers: both are its width'):
        GroupedDCGAN([["a", [4, 8, 5]]], [8, 1])
