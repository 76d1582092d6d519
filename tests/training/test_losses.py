"""Losses whose values are known by hand."""

import math

import pytest
import torch

from steerable.edits import masked_error
from steerable.training.losses import called_generated, called_real, gradient_penalty


def test_an_undecided_score_costs_log_two_either_way():
    assert called_real(torch.zeros(3)).item() == called_generated(torch.zeros(3)).item() == pytest.approx(math.log(2))


def test_being_right_costs_nothing_and_being_wrong_costs_the_score():
    sure = torch.tensor([20.0])
    assert called_real(sure).item() == called_generated(-sure).item() == pytest.approx(0, abs=1e-6)
    assert called_real(-sure).item() == called_generated(sure).item() == pytest.approx(20)


def test_the_penalty_of_a_linear_score_is_half_its_squared_slope():
    images, slope = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(), torch.tensor([1.0, 2.0, 0.0, 2.0])
    assert gradient_penalty(images.flatten(1) @ slope, images).item() == pytest.approx(9 / 2)


def test_unknown_pixels_do_not_count():
    images, targets, mask = torch.zeros(2, 3, 2, 2), torch.full((2, 3, 2, 2), 2.0), torch.zeros(2, 1, 2, 2)
    targets[0, :, 0, 1] = 99
    mask[0, 0, 0, 0] = 1
    assert masked_error(images, targets, mask).tolist() == [4, 0]
