"""Spatial frequencies of a picture: what is coarse and what is fine, for trajectories that move one and hold the other.

Two ways to part them, and each has a low and a high band whose distances are those of the band-filtered pictures:

    gaussian_band(shape, "low", sigma)    the picture blurred by a Gaussian of ``sigma`` pixels; high: the luminance minus its blur
    fourier_band(shape, "low", cycles)    the Fourier coefficients of at most ``cycles`` periods per picture; high: of more

A blurred picture is read at every ``sigma``-th pixel, which loses less than a hundredth of its contrast (a Gaussian of that width passes
exp(-pi^2 / 2) at the sampling limit). Colour belongs to the low band alone, as in the paper.

Source: Rayleigh EigenDirections, ECCV 2022, whose Fourier features these are; the suffixes _lo and _hi of its code are Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from steerable import checks
from steerable.features.pixels import luminance
from steerable.protocols import Images, Metric, Values

Band = Literal["low", "high"]


@dataclass(frozen=True, eq=False)
class GaussianBand:
    """A Gaussian low-pass (colour, every sigma-th pixel) or high-pass (luminance, every pixel) of the picture; ``gaussian_band``."""

    image_shape: tuple[int, int, int]
    band: Band
    sigma: float
    name: str
    unit: str = "of [-1, 1]"
    metric: Metric = "l2"
    differentiable: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        channels, height, width = self.image_shape
        if self.band == "high":
            return tuple(f"{self.name}-{i}" for i in range(height * width))
        return tuple(f"{self.name}-{i}" for i in range(channels * math.ceil(height / self._stride) * math.ceil(width / self._stride)))

    @property
    def _stride(self) -> int:
        return max(int(self.sigma), 1)

    def __call__(self, images: Images) -> Values:
        _sized(images, self.image_shape, self.name)
        if self.band == "low":
            return self._blurred(images)[..., :: self._stride, :: self._stride].flatten(1)
        grey = luminance(images)[:, None]
        return (grey - self._blurred(grey)).flatten(1)

    def _blurred(self, images: Images) -> Images:
        """By one matrix a side, whose rows sum to 1: at the edge the picture is all there is."""
        rows, columns = (_gaussian(size, self.sigma).to(images) for size in images.shape[2:])
        return rows @ images @ columns.T


def _gaussian(size: int, sigma: float) -> Tensor:
    place = torch.arange(size, dtype=torch.float32)
    return torch.softmax(-(place - place[:, None]).square() / (2 * sigma**2), dim=1)


@dataclass(frozen=True, eq=False)
class FourierBand:
    """Real and imaginary parts of a band's coefficients, their mean squares those of the filtered picture; ``fourier_band``."""

    image_shape: tuple[int, int, int]
    band: Band
    cycles: float
    name: str
    unit: str = "of [-1, 1]"
    metric: Metric = "l2"
    differentiable: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}-{i}" for i in range(self.image_shape[0] * len(self._places[0])))

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Where the band's numbers stand among the (2 * h * half) of one channel, and the weight of each."""
        _, height, width = self.image_shape
        down, across = torch.fft.fftfreq(height, 1 / height)[:, None], torch.fft.rfftfreq(width, 1 / width)
        radius = (down.square() + across.square()).sqrt()
        inside = radius <= self.cycles if self.band == "low" else radius > self.cycles
        twice = torch.where((across == 0) | (across == width / 2), 1.0, 2.0).expand_as(radius)  # half of the plane stands for the other
        kept = inside.flatten().nonzero()[:, 0]
        return torch.cat([kept, kept + radius.numel()]), twice.flatten()[kept].sqrt().repeat(2)

    def __call__(self, images: Images) -> Values:
        _sized(images, self.image_shape, self.name)
        places, weight = (one.to(images.device) for one in self._places)
        spectrum = torch.fft.rfft2(images, norm="ortho")
        parts = torch.cat([spectrum.real.flatten(2), spectrum.imag.flatten(2)], dim=2)
        share = (len(places) / (self.image_shape[1] * self.image_shape[2])) ** 0.5
        return (parts[..., places] * (weight * share)).flatten(1)


def gaussian_band(image_shape: tuple[int, int, int], band: Band, sigma: float) -> GaussianBand:
    """What a blur of ``sigma`` pixels leaves ("low"), or takes away ("high").

    Raises:
        ValueError: another band, or a sigma that is not between 0.3 pixels and half the picture.
    """
    checks.known(band, ("low", "high"), "band")
    most = min(image_shape[1:]) / 2
    if not 0.3 <= sigma <= most:
        raise ValueError(f"the blur of a {band} band is 0.3 to {most:g} pixels of these pictures, got {sigma:g}.")
    return GaussianBand(image_shape, band, float(sigma), f"{band}-{sigma:g}px")


def fourier_band(image_shape: tuple[int, int, int], band: Band, cycles: float) -> FourierBand:
    """Coefficients of at most so many periods per picture ("low"), or of more ("high").

    Raises:
        ValueError: another band, or a limit that leaves nothing on one side.
    """
    checks.known(band, ("low", "high"), "band")
    most = (image_shape[1] ** 2 + image_shape[2] ** 2) ** 0.5 / 2
    if not 1 <= cycles < most:
        raise ValueError(f"the limit of a {band} band is 1 to {most:.0f} cycles per picture here, got {cycles:g}.")
    return FourierBand(image_shape, band, float(cycles), f"{band}-{cycles:g}-cycles")


def _sized(images: Images, shape: tuple[int, int, int], name: str) -> None:
    if tuple(images.shape[1:]) != shape:
        raise ValueError(f'"{name}" reads images of {shape}, got {tuple(images.shape)}.')
