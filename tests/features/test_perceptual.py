"""The perceptual distance: zero for equal pictures, more for more, blind to what is masked, smooth in both modes."""

import pytest
import torch
from torch.func import jvp, vjp

from steerable import load_backbone
from steerable.features.perceptual import Perceptual


@pytest.fixture(scope="module")
def distance():
    return Perceptual(load_backbone(size=64))


@pytest.fixture(scope="module")
def pictures():
    rng = torch.Generator().manual_seed(0)
    return torch.nn.functional.interpolate(torch.rand(4, 3, 9, 9, generator=rng) * 1.8 - 0.9, (64, 64), mode="bicubic").clamp(-1, 1)


def test_equal_pictures_are_at_distance_zero(distance, pictures):
    assert distance(pictures, pictures).tolist() == [0] * 4


def test_the_distance_is_the_same_both_ways(distance, pictures):
    assert torch.allclose(distance(pictures, pictures.flip(0)), distance(pictures.flip(0), pictures), rtol=1e-4)


def test_more_noise_is_further_away(distance, pictures):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    near, middle, far = (distance(pictures, pictures + strength * noise) for strength in (0.02, 0.1, 0.4))
    assert (near < middle).all() and (middle < far).all()


def test_a_blur_counts_more_than_a_shade_of_the_same_squared_error(distance, pictures):
    """What the squared error cannot tell apart: the reason to have this distance."""
    texture = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2)) - 0.5
    blurred = torch.nn.functional.avg_pool2d(texture, 5, 1, 2)
    shade = (blurred - texture).square().mean((1, 2, 3), keepdim=True).sqrt()
    assert (distance(texture, blurred) > distance(texture, texture + shade)).all()


def test_masked_pixels_make_no_difference(distance, pictures):
    mask = torch.ones(4, 1, 64, 64)
    mask[..., 32:] = 0
    other = torch.where(mask > 0, pictures, -pictures)
    assert distance(pictures, other, mask).tolist() == [0] * 4
    assert (distance(pictures, other) > 0.01).all()


def test_a_row_does_not_depend_on_its_batch(distance, pictures):
    together = distance(pictures, pictures.flip(0))
    assert distance(pictures[1:2], pictures.flip(0)[1:2]).item() == pytest.approx(together[1].item(), rel=1e-3)


def test_grey_pictures_and_flat_ones_have_finite_gradients(distance):
    flat = torch.zeros(1, 1, 28, 28).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(flat, flat.detach() + 0.1).sum(), flat)
    assert gradient.isfinite().all()


def test_forward_and_reverse_mode_agree(distance, pictures):
    def residual(images):
        return distance.residual(images, pictures[1:2], torch.ones(1, 1, 64, 64))

    rng = torch.Generator().manual_seed(0)
    tangent = torch.randn(1, 3, 64, 64, generator=rng)
    values, pushed = jvp(residual, (pictures[:1],), (tangent,))
    weights = torch.randn(values.shape, generator=rng)
    _, pull = vjp(residual, pictures[:1])
    assert (pushed * weights).sum().item() == pytest.approx((pull(weights)[0] * tangent).sum().item(), rel=1e-3)


def test_something_that_is_no_backbone_is_refused():
    with pytest.raises(Exception, match="Linear"):
        Perceptual(torch.nn.Linear(3, 3))


def test_depths_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"depths are stages 0 to 6 of the backbone, got \(7,\)"):
        Perceptual(load_backbone(size=64), (7,))


def test_the_distance_is_the_squared_distance_of_points_made_once(distance, pictures):
    here, there = (distance.placed(distance.backbone.activations(one)) for one in (pictures, pictures.flip(3)))
    assert torch.allclose((here - there).square().sum(1), distance(pictures, pictures.flip(3)), rtol=1e-4)


def test_pooled_maps_are_what_the_backbone_returns(distance, pictures):
    pooled = distance.backbone.pooled(distance.backbone.activations(pictures))
    assert torch.allclose(pooled, distance.backbone(pictures), atol=1e-4)
