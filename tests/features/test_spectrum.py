"""Bands of spatial frequency: waves of a known number of cycles, and squares that add up."""

import pytest
import torch

from steerable.features.spectrum import fourier_band, gaussian_band

SHAPE = (3, 32, 32)


def wave(cycles):
    across = torch.sin(2 * torch.pi * cycles * (torch.arange(32) + 0.5) / 32)
    return across.expand(1, 3, 32, 32).contiguous()


def size(feature, images):
    return feature(images).square().mean().sqrt().item()


@pytest.mark.parametrize(("cycles", "low", "high"), [(2, 1, 0), (5, 1, 0), (6, 0, 1), (12, 0, 1)])
def test_a_wave_stands_in_the_band_of_its_cycles(cycles, low, high):
    strength = 0.5**0.5  # of a sine
    assert size(fourier_band(SHAPE, "low", 5), wave(cycles)) == pytest.approx(low * strength, abs=1e-5)
    assert size(fourier_band(SHAPE, "high", 5), wave(cycles)) == pytest.approx(high * strength, abs=1e-5)


def test_the_squares_of_both_fourier_bands_add_up_to_those_of_the_pixels():
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    whole = sum(fourier_band(SHAPE, band, 7)(images).square().mean(1) for band in ("low", "high"))
    assert torch.allclose(whole, images.square().mean((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("sigma", [1, 4])
def test_a_flat_picture_is_all_low(sigma):
    flat = torch.full((1, *SHAPE), 0.4)
    assert size(gaussian_band(SHAPE, "low", sigma), flat) == pytest.approx(0.4, rel=1e-5)
    assert size(gaussian_band(SHAPE, "high", sigma), flat) == pytest.approx(0, abs=1e-6)


def test_a_fine_wave_is_nearly_all_high_and_a_coarse_one_nearly_all_low():
    fine, coarse = wave(10), wave(1)
    low, high = gaussian_band(SHAPE, "low", 3), gaussian_band(SHAPE, "high", 3)
    assert size(high, fine) > 10 * size(low, fine)
    assert size(low, coarse) > 3 * size(high, coarse)


@pytest.mark.parametrize("made", [gaussian_band(SHAPE, "low", 3.5), gaussian_band(SHAPE, "high", 2), fourier_band(SHAPE, "low", 4)])
def test_a_band_has_the_columns_it_promises(made):
    assert made(wave(3)).shape == (1, len(made.columns)) and len(set(made.columns)) == len(made.columns)


@pytest.mark.parametrize(("make", "size"), [(gaussian_band, 0.1), (gaussian_band, 17), (fourier_band, 0.5), (fourier_band, 23)])
def test_a_limit_that_leaves_nothing_is_refused(make, size):
    with pytest.raises(ValueError, match=r"(blur|limit) of a low band is .* got"):
        make(SHAPE, "low", size)


def test_pictures_of_another_size_are_refused_by_both_sizes():
    with pytest.raises(ValueError, match=r'"low-4-cycles" reads images of \(3, 32, 32\), got \(1, 3, 16, 16\)'):
        fourier_band(SHAPE, "low", 4)(torch.zeros(1, 3, 16, 16))
