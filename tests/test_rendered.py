"""Rendered heads: what each number does is seen in the pixels, a head does not depend on its batch, and gradients reach every number."""

import pytest
import torch

from steerable.rendered import FACTORS, REST, drawn_numbers, heads, rendered_heads

MIDDLE = {"yaw": 0.0, "pitch": 0.0, "light": 0.0, "hue": 20.0, "size": 0.9, "background": 0.5, "hair": 0.4, "mouth": 0.16}


def head(**changed):
    return heads(torch.tensor([list((MIDDLE | changed).values())]), size=32)[0]


def test_heads_are_pictures():
    images = heads(drawn_numbers(6, seed=0))
    assert images.shape == (6, 3, 32, 32) and images.min() >= -1 and images.max() <= 1
    assert torch.allclose(images[2:3], heads(drawn_numbers(6, seed=0)[2:3]), atol=1e-5)


def test_turning_to_either_side_is_a_mirror_image():
    assert torch.allclose(head(yaw=30.0), head(yaw=-30.0).flip(2), atol=1e-3)
    assert not torch.allclose(head(yaw=30.0), head(yaw=-30.0), atol=0.3)
    assert torch.allclose(head(light=50.0), head(light=-50.0).flip(2), atol=1e-3)


def test_the_lamp_s_side_is_brighter():
    right = head(light=60.0)[:, 8:24, 16:22].mean()
    assert right > head(light=60.0)[:, 8:24, 10:16].mean() + 0.1


def test_more_yaw_moves_the_eyes_to_the_right_and_more_pitch_up():
    """Seen by the darkest pixels of the middle of the face, rows 10 to 17 and columns 10 to 21."""

    def eyes(image):
        dark = (-0.5 - image[:, 10:18, 10:22].mean(0)).clamp(min=0)
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
        return float((dark * x).sum() / dark.sum()), float((dark * y).sum() / dark.sum())

    assert eyes(head(yaw=10.0))[0] > eyes(head(yaw=-10.0))[0] + 1
    assert eyes(head(pitch=12.0))[1] < eyes(head(pitch=-12.0))[1] - 0.5


def test_size_background_and_hue_are_what_they_say():
    assert head(background=1.0)[:, 0, 0].tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    assert head(background=0.0)[:, 0, 0].tolist() == pytest.approx([-1.0] * 3, abs=1e-3)
    covered = [float((head(size=size, background=1.0).mean(0) < 0.9).float().sum()) for size in (0.7, 1.05)]
    assert covered[1] / covered[0] == pytest.approx((1.05 / 0.7) ** 2, rel=0.15)
    red, green = head(hue=0.0)[:, 17, 16], head(hue=120.0)[:, 17, 16]
    assert red[0] > red[1] + 0.3 and green[1] > green[0] + 0.3


def test_every_number_has_a_finite_gradient():
    numbers = drawn_numbers(2, seed=3).requires_grad_()
    target = heads(drawn_numbers(2, seed=4))
    (slope,) = torch.autograd.grad((heads(numbers) - target).square().mean(), numbers)
    assert torch.isfinite(slope).all() and (slope.abs().sum(0) > 0).all()


def test_a_data_set_has_the_numbers_it_was_drawn_from():
    source, numbers = rendered_heads(20, seed=5, size=16)
    again, _ = rendered_heads(20, seed=5, size=16)
    assert source.images.shape == (20, 3, 16, 16) and numbers.shape == (20, len(FACTORS) + len(REST))
    assert source.digest() == again.digest() != rendered_heads(20, seed=6, size=16)[0].digest()
    assert torch.allclose(source.batch(torch.arange(20))[0], heads(numbers, size=16), atol=0.01)
    for factor, column in zip((*FACTORS, *REST), numbers.unbind(1), strict=True):
        assert factor.low <= column.min() and column.max() <= factor.high
