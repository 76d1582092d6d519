"""Resizing by matrices gives what torch's interpolation gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from steerable.features.resize import coloured, resized

IMAGES = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(50, 31), (20, 24), (9, 12)])
def test_linear_is_torchs_bilinear(size: tuple[int, int]) -> None:
    torch.testing.assert_close(resized(IMAGES, *size), F.interpolate(IMAGES, size, mode="bilinear", antialias=size[0] < 20))


def test_cubic_is_torchs_bicubic() -> None:
    torch.testing.assert_close(resized(IMAGES, 50, 60, kernel="cubic"), F.interpolate(IMAGES, (50, 60), mode="bicubic"))


def test_a_margin_repeats_the_border() -> None:
    padded = F.pad(IMAGES, (3, 3, 2, 2), mode="replicate")
    torch.testing.assert_close(resized(IMAGES, 48, 60, kernel="cubic", margin=0.125), F.interpolate(padded, (48, 60), mode="bicubic"))


def test_a_constant_stays_constant() -> None:
    torch.testing.assert_close(resized(torch.ones(1, 1, 37, 37), 11, 90, kernel="cubic", margin=0.2), torch.ones(1, 1, 11, 90))


def test_the_same_size_is_the_same_image() -> None:
    assert resized(IMAGES, 20, 24) is IMAGES


def test_grey_becomes_three_equal_channels() -> None:
    assert torch.equal(coloured(IMAGES[:, :1]), IMAGES[:, :1].repeat(1, 3, 1, 1))
