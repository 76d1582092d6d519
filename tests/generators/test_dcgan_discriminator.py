"""The discriminator with bounded layers: how steep it can be."""

import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm

from steerable.generators.dcgan_discriminator import DCGANDiscriminator

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def discriminator(**options):
    made = DCGANDiscriminator([3, 8, 16], last=4, **options)
    made.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(50)  # as far as a training that diverges takes them
    return made


def slope(network):
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images).sum(), images)
    return float(gradient.flatten(1).norm(dim=1).max())


def test_bounded_layers_keep_scores_from_rising_whatever_the_weights_are():
    bounded, free = discriminator(bounded=True), discriminator()
    for _ in range(30):
        bounded(IMAGES)
    assert slope(bounded) < 8 < 1e3 < slope(free)  # each of the two convolutions sees a pixel up to four times


@pytest.mark.parametrize("place", [0, 1])
def test_a_bounded_layer_is_torch_s_spectral_norm(place):
    bounded = discriminator(bounded=True)
    for _ in range(60):
        bounded(IMAGES)
    layer = bounded.layers[place]
    exact = layer.weight / torch.linalg.svdvals(layer.weight.flatten(1))[0]
    assert torch.allclose(bounded._weight(place, layer), exact, atol=1e-3)
    theirs = torch.nn.Conv2d(layer.in_channels, layer.out_channels, 4, 2, 1)
    theirs.load_state_dict(layer.state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(0)  # where torch's iteration starts; two near singular values take it many steps to part
        spectral_norm(theirs, n_power_iterations=1000)
    assert torch.allclose(bounded._weight(place, layer), theirs.weight, atol=1e-3)


def test_in_eval_mode_a_bounded_network_stays_what_it_is():
    bounded = discriminator(bounded=True)
    bounded(IMAGES)
    bounded.eval()
    kept = {name: tensor.clone() for name, tensor in bounded.state_dict().items()}
    assert torch.equal(bounded(IMAGES), bounded(IMAGES))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in bounded.state_dict().items())
