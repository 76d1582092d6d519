"""Kernel distances of sets whose distance is known."""

import pytest
import torch
from toys import linear_generator

from steerable.controls.directions import Directions
from steerable.evaluation.quality import kernel_distance, path_quality, pooled
from steerable.protocols import Knob


def normal(n, seed, width=8):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_two_halves_of_one_distribution_are_near_zero():
    assert abs(kernel_distance(normal(500, 0), normal(500, 1))) < 0.05


def test_the_estimate_has_no_bias():
    """Over many pairs of small sets it is zero on average, so it is sometimes negative."""
    distances = torch.tensor([kernel_distance(normal(32, 2 * seed), normal(32, 2 * seed + 1)) for seed in range(60)])
    assert distances.min() < 0 and abs(distances.mean()) < 3 * distances.std() / 60**0.5


def test_the_distance_grows_with_the_shift():
    distances = [kernel_distance(normal(300, 0), normal(300, 1) + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert distances == sorted(distances) and distances[1] > 3 * abs(distances[0])


def test_it_is_the_squared_mmd_of_the_cubic_kernel():
    x, y = normal(20, 0).double(), normal(20, 1).double() + 1
    k = [(a @ b.T / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    off = [(part.sum() - part.diagonal().sum()) / (20 * 19) for part in k[:2]]
    assert kernel_distance(x.float(), y.float()) == pytest.approx(float(off[0] + off[1] - 2 * k[2].mean()), rel=1e-4)


def test_the_larger_set_is_cut_to_the_smaller():
    assert kernel_distance(normal(40, 0), normal(100, 1)) == kernel_distance(normal(40, 0), normal(100, 1)[:40])


@pytest.mark.parametrize(("n", "m"), [(15, 100), (100, 15)])
def test_fewer_than_sixteen_images_are_refused(n, m):
    with pytest.raises(ValueError, match=rf"at least 16 images in each set, got {n} and {m}"):
        kernel_distance(normal(n, 0), normal(m, 1))


@pytest.fixture(scope="module")
def along():
    generator = linear_generator(6, (3, 4, 4))
    control = Directions((Knob("along", "", -4, 4),), generator.spaces["z"], torch.eye(6)[:1])
    return path_quality(generator, control, "along", [0.0, 2.0, 8.0], network=lambda images: images.flatten(1), n=64)


def test_without_steering_the_distance_is_the_floor(along):
    assert along.distances[0] == pytest.approx(along.floor)


def test_along_a_path_the_distance_grows(along):
    assert along.distances[0] < along.distances[1] < along.distances[2]


def test_the_result_says_what_was_measured(along):
    assert (along.knob, along.amounts, along.n, along.seed) == ("along", (0, 2, 8), 64, 1)


def test_pooling_does_not_depend_on_the_batch():
    generator = linear_generator(6, (3, 4, 4))
    latents = generator.sample(10, seed=0)
    first, second = (pooled(generator, lambda images: images.flatten(1), latents, batch=batch) for batch in (3, 32))
    assert torch.allclose(first, second, atol=1e-6)
