"""Moments of bars and squares whose place, size and lean are known by eye."""

import pytest
import torch

from steerable.features.geometry import GEOMETRY, geometry
from steerable.features.network import measure


def scene(rows, columns, *, channels=3, size=40):
    images = torch.full((1, channels, size, size), -1.0)
    images[:, :, rows, columns] = 1
    return images


def read(images, name):
    return next(one for one in GEOMETRY if name in one.columns)(images)[0].tolist()


def test_a_square_to_the_right_and_down_has_a_positive_centre():
    assert read(scene(slice(25, 35), slice(28, 38)), "centre-x") == pytest.approx([13 / 40, 10 / 40], abs=0.01)


def test_the_area_is_the_share_of_the_image():
    assert read(scene(slice(10, 30), slice(10, 30)), "area") == pytest.approx([0.25], abs=0.02)


def test_a_square_twice_as_wide_has_twice_the_extent():
    (small,), (large,) = read(scene(slice(15, 25), slice(15, 25)), "extent"), read(scene(slice(10, 30), slice(10, 30)), "extent")
    assert large / small == pytest.approx(2, abs=0.02)


def test_an_upright_bar_has_no_tilt():
    assert read(scene(slice(5, 35), slice(18, 22)), "tilt") == pytest.approx([0], abs=0.1)


def test_leaning_to_the_left_is_a_positive_tilt():
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(40) - 19.5, indexing="ij")
    across, along = x * 0.9397 - y * 0.3420, x * 0.3420 + y * 0.9397  # a bar turned counter-clockwise by 20 degrees
    bar = ((across.abs() < 3) & (along.abs() < 15)).float() * 2 - 1
    assert read(bar.expand(1, 3, 40, 40), "tilt") == pytest.approx([20], abs=1)


def test_grey_images_have_the_same_moments():
    assert read(scene(slice(25, 35), slice(28, 38), channels=1), "centre-x") == pytest.approx([0.325, 0.25], abs=0.01)


@pytest.mark.parametrize("feature", GEOMETRY, ids=lambda one: one.name)
@pytest.mark.parametrize("level", [-1.0, 0.3])
def test_a_flat_image_gives_zeros_and_finite_gradients(feature, level):
    images = torch.full((1, 3, 16, 16), level).requires_grad_()
    values = feature(images)
    values.sum().backward()
    assert values.abs().max() < 1e-3
    assert images.grad.isfinite().all()


def test_a_users_mask_is_the_foreground():
    centre, *_ = geometry(lambda images: (images[:, :1] > 5).float(), prefix="hat")
    images = torch.zeros(1, 3, 10, 10)
    images[:, :, 0, 9] = 9
    assert centre.columns == ("hat-centre-x", "hat-centre-y")
    assert centre(images)[0].tolist() == pytest.approx([0.45, -0.45], abs=1e-3)


def test_the_foreground_is_computed_once_for_all_features():
    calls = []

    def foreground(images):
        calls.append(1)
        return images[:, :1] * 0 + 1

    measure(geometry(foreground), torch.zeros(2, 3, 8, 8))
    assert len(calls) == 1


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"a weight for each pixel, \(2, 1, 8, 8\); got \(2, 8, 8\)"):
        measure(geometry(lambda images: images[:, 0]), torch.zeros(2, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, at its first forward-mode call
def test_moments_have_forward_gradients_under_vmap():
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    tangents = torch.rand(3, 2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    slopes = torch.func.vmap(lambda tangent: torch.func.jvp(GEOMETRY[0], (images,), (tangent,))[1])(tangents)
    assert slopes.shape == (3, 2, 2) and slopes.isfinite().all()
