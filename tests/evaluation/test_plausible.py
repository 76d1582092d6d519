"""What is above chance, and how far default amounts go."""

import pytest
import torch

from steerable.evaluation.plausible import CHANCE, HALF, by_chance, halved, reach, threshold_over
from steerable.evaluation.quality import kernel_distance
from steerable.protocols import Knob


def normal(seed, shift=0.0):
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(seed)) + shift


def test_two_draws_of_one_distribution_seldom_differ_by_more_than_chance_and_two_distributions_do():
    above = [kernel_distance(normal(2 * i), normal(2 * i + 1)) > by_chance(normal(2 * i), normal(2 * i + 1), seed=0) for i in range(40)]
    assert sum(above) <= 6  # 5 % are expected
    assert all(kernel_distance(normal(i), normal(50 + i, 0.7)) > by_chance(normal(i), normal(50 + i, 0.7), seed=0) for i in range(10))


def test_the_threshold_is_that_of_half_the_size_or_of_chance_where_that_is_more():
    assert threshold_over(None, 0.5, 0.2, 64) == (0.5, HALF) and threshold_over(None, 0.1, 0.2, 64) == (0.2, CHANCE)
    assert threshold_over(0.3, 0.1, 0.2, 64) == (0.3, "given")


def test_a_given_threshold_that_chance_reaches_is_refused():
    with pytest.raises(ValueError, match=r"of up to 0.2 by chance, so the threshold 0.2 says nothing: give a larger one, or more images"):
        threshold_over(0.2, 9.0, 0.2, 64)


def test_half_the_size_keeps_what_is_flat_and_loses_every_second_pixel():
    flat, lines = torch.full((1, 1, 8, 8), 0.3), torch.tensor([-1.0, 1.0]).repeat(32).view(1, 1, 8, 8)
    assert torch.allclose(halved(flat), flat) and halved(lines).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("knob", "ends"),
    [
        (Knob("zoom", "log2", -1.0, 0.5), (-1.0, 0.5)),
        (Knob("zoom", "log2", 0.0, 0.5), (-0.5, 0.5)),
        (Knob("zoom", "log2", 0.0, 0.0), (-1.0, 1.0)),
        (Knob("own", "u", 10.0, 14.0, 10.0), (-4.0, 4.0)),
    ],
)
def test_a_side_without_a_range_mirrors_the_other_and_a_knob_without_any_has_half_of_its_edit_s(knob, ends):
    assert reach(knob) == ends
