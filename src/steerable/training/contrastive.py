"""What gives a group of the latent its meaning: pictures that share it measure alike, and all others do not.

    L_k = mean over pairs that share z_k of max(d_k - near, 0)  +  mean over all other pairs of max(far - d_k, 0)

d_k compares what one measurement reads from two pictures. Columns are divided by their spread over real pictures and the distance by its
mean over pairs of them, so that 1 is "as different as two real pictures" whatever is measured, and one weight suits all groups.
``calibrated`` takes near and far (tau+ and tau-) from real pictures. ``variety_loss`` keeps the groups that measure nothing alive.
``Population`` keeps the measurements spread as those of real pictures are: "as different as can be" is no wish of the data, and half a
digit none either. ``disagreement`` is of classes: embeddings can be near each other on two sides of a border.

All pairs of a batch are compared at once. Source: Shoshan et al., "GAN-Control: explicitly controllable GANs", ICCV 2021, eq. 1 and 2
and its supplement for the thresholds; the variety term follows Mao et al., "Mode seeking generative adversarial networks for diverse
image synthesis", CVPR 2019, with a threshold in place of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from steerable import checks
from steerable.features.network import CLASSES, measure
from steerable.protocols import Feature, Images, Values

Distances = Float[Tensor, "n k"]  # of n rows to k rows
Comparison = Literal["squared-l2", "l1", "cosine"]
Scaling = Literal["column", "feature"]
COMPARISONS = ("squared-l2", "l1", "cosine")
CALIBRATED_ON = 1000  # real pictures, as in the paper's tool
PERCENTILES = (20, 50, 80)


@dataclass(frozen=True, eq=False)
class Contrast:
    """One measurement as a predictor of a training.

    Attributes:
        feature: differentiable; any of the package's or of a user's own.
        metric: how two of its readings are compared; by default the feature's own, its "l2" being the squared one.
        crop: share of the picture's side around its middle that the feature is shown.
        resolution: side in pixels that it is shown it at; the picture's own by default.
        smoothed: whether it is shown the picture through the binomial filter (1, 2, 1) / 4 along both sides, which lets no checkerboard
            through: a network is fooled by one long before a person sees it.
        clipped: what is darker than this, from 0 for black to 1 for white, is shown black, and what is brighter darker in proportion: no
            gradient reaches a black background, where every measurement that adds pixels up would raise a haze.
        weight: of its loss.
        scaling: whether every column is divided by its own spread, or all by their common one, as pixels are.
        near, far: tau+ and tau-, in mean distances of two real pictures; measured where left out.
    """

    feature: Feature
    metric: Comparison | None = None
    crop: float = 1.0
    resolution: int | None = None
    smoothed: bool = False
    clipped: float = 0.0
    weight: float = 1.0
    scaling: Scaling = "column"
    near: float | None = None
    far: float | None = None

    def __post_init__(self) -> None:
        name = self.feature.name
        if not self.feature.differentiable:
            raise ValueError(f'"{name}" has no gradients: a training needs a differentiable feature. Train a small network to predict it.')
        if self.metric is not None:
            checks.known(self.metric, COMPARISONS, "metric")
        if not 0 < self.crop <= 1 or (self.resolution is not None and self.resolution < 4):
            raise ValueError(
                f'"{name}": crop is a share above 0 up to 1, resolution 4 pixels or more; got {self.crop} and {self.resolution}.'
            )
        if not 0 <= self.clipped < 1:
            raise ValueError(f'"{name}": clipped is a level from 0 up to below 1, got {self.clipped}.')
        if not self.weight > 0 or not math.isfinite(self.weight):
            raise ValueError(f'"{name}": the weight of a loss is a number above 0, got {self.weight}.')
        check_thresholds(name, self.near, self.far)

    @property
    def comparison(self) -> Comparison:
        own: dict[str, Comparison] = {"l1": "l1", "l2": "squared-l2", "cosine": "cosine"}
        return self.metric or own[self.feature.metric]

    def read(self, images: Images) -> Values:
        """The feature's values of what it is shown of the pictures, in float32."""
        return self.feature(self.shown(images)).float()

    @property
    def view(self) -> tuple[float, int | None, bool, float]:
        """What decides ``shown``: contrasts of one view are shown the same."""
        return self.crop, self.resolution, self.smoothed, self.clipped

    def shown(self, images: Images) -> Float[Tensor, "n c side side"]:
        """The part of the pictures that the feature is shown, as it is shown it."""
        side = images.shape[-1]
        shown = max(4, round(side * self.crop))
        if shown < side:
            start = (side - shown) // 2
            images = images[..., start : start + shown, start : start + shown]
        if self.resolution is not None and images.shape[-1] != self.resolution:
            images = F.interpolate(images, (self.resolution, self.resolution), mode="bilinear", antialias=True, align_corners=False)
        images = binomial(images) if self.smoothed else images
        return F.relu((images + 1) / 2 - self.clipped) * (2 / (1 - self.clipped)) - 1 if self.clipped else images


def binomial(images: Images) -> Images:
    """The mean of every pixel and its neighbours, weighted 1, 2, 1 along both sides: nothing of the highest frequencies is left."""
    kernel = torch.tensor([0.25, 0.5, 0.25]).to(images)
    channels = images.shape[1]
    for shape, pad in (((3, 1), (0, 0, 1, 1)), ((1, 3), (1, 1, 0, 0))):
        images = F.conv2d(F.pad(images, pad, mode="replicate"), kernel.view(1, 1, *shape).expand(channels, 1, -1, -1), groups=channels)
    return images


def check_thresholds(name: str, near: float | None, far: float | None) -> None:
    """tau+ below tau-, both 0 or above."""
    if near is not None and far is not None and not 0 <= near < far:
        raise ValueError(
            f'"{name}": pictures that share it come nearer than tau+, others stay further than tau-: 0 <= {near:g} < {far:g} fails.'
        )


@dataclass(frozen=True, eq=False)
class Population:
    """Readings of real pictures, which those of generated ones are to be spread like.

    Attributes:
        contrast: reads what is asked of a group by value: the classes of an embedding, or the numbers themselves.
        ordered: (k, m) readings, each column in order.
    """

    contrast: Contrast
    ordered: Float[Tensor, "k m"]

    @property
    def classes(self) -> bool:
        """Whether the columns are the probabilities of classes."""
        return self.contrast.feature.unit == CLASSES

    def loss(self, values: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
        """Wasserstein-1 of each column over its real spread, mean: the n values in order against as many quantiles of the real ones."""
        places = (torch.arange(len(values), device=values.device) + 0.5) / len(values)
        real, spread = torch.quantile(self.ordered.to(values), places, dim=0), self.ordered.std(0).clamp(min=1e-6).to(values)
        return ((values.sort(0).values - real).abs().mean(0) / spread).mean()


@dataclass(frozen=True, eq=False)
class Watch:
    """A contrast with what was measured on real pictures: ready for a loss.

    Attributes:
        spread: (m,) standard deviation of every column over real pictures; ones for cosines.
        unit: the mean distance of two real pictures, in spreads.
        near, far: in that unit.
        population: how what is asked of the group by value is spread over real pictures.
        nearest, others: (n,) and (p,) distances of real pictures in that unit: to the nearest other one, or for a group that measures
            nothing to the one that measures most alike, and to all others.
    """

    contrast: Contrast
    spread: Float[Tensor, " m"]
    unit: float
    near: float
    far: float
    population: Population
    nearest: Float[Tensor, " n"]
    others: Float[Tensor, " p"]

    def ranks(self) -> tuple[list[float], list[float]]:
        """The percentiles 20, 50 and 80 of both kinds of distances."""
        nearest, others = ([_percentile(found, p) for p in PERCENTILES] for found in (self.nearest, self.others))
        return nearest, others

    def scaled(self, values: Values) -> Values:
        """What was read, (n, m), with the columns in spreads."""
        return values / self.spread.to(values)

    def values(self, images: Images) -> Values:
        """(n, m), the columns in spreads."""
        return self.scaled(self.contrast.read(images))

    def distances(self, values: Float[Tensor, "n m"], others: Float[Tensor, "k m"] | None = None) -> Distances:
        """Between all rows of one and all rows of the other, by default of itself."""
        return pairwise(self.contrast.comparison, values, values if others is None else others) / self.unit

    def loss(self, values: Values, same: Bool[Tensor, "n n"]) -> Float[Tensor, ""]:
        """L_k of pictures of which ``same`` says who shares the group with whom."""
        return contrastive_loss(self.distances(values), same, near=self.near, far=self.far)


def read_all(contrasts: Mapping[str, Contrast], images: Images) -> dict[str, Values]:
    """``read`` of every contrast; a view is made once, and a network that several features share runs once for each view."""
    found: dict[str, Values] = {}
    for view in dict.fromkeys(one.view for one in contrasts.values()):
        of_view = {name: one for name, one in contrasts.items() if one.view == view}
        features = {id(one.feature): one.feature for one in of_view.values()}
        read = measure(list(features.values()), next(iter(of_view.values())).shown(images))
        found |= {name: read[one.feature.name].float() for name, one in of_view.items()}
    return found


def pairwise(metric: Comparison, a: Float[Tensor, "n m"], b: Float[Tensor, "k m"]) -> Distances:
    """All distances of rows at once: a matrix product for squared l2 and cosine; means over the columns."""
    if metric == "cosine":
        return 1 - F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    if metric == "l1":
        return torch.cdist(a, b, p=1) / a.shape[1]
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    return squares.clamp(min=0) / a.shape[1]


def contrastive_loss(distances: Float[Tensor, "n n"], same: Bool[Tensor, "n n"], *, near: float, far: float) -> Float[Tensor, ""]:
    """The two means of a batch, each over its own pairs; a row is no pair with itself.

    Args:
        same: symmetric; who shares the group with whom.
    """
    pairs = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    return _mean((distances - near).relu(), same & pairs) + _mean((far - distances).relu(), ~same & pairs)


def variety_loss(distances: Float[Tensor, "n n"], pairs: Bool[Tensor, "n n"], *, far: float) -> Float[Tensor, ""]:
    """How much pairs that share all that is measured fall short of the difference of real ones, mean over them."""
    return _mean((far - distances).relu(), pairs)


def disagreement(probabilities: Float[Tensor, "n c"], same: Bool[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Total variation distance of the classes of two pictures, (1/2) sum_c |p_c - q_c|, mean over the pairs that ``same`` names.

    It is how often both cannot be told the same, whoever tells them from these probabilities.
    """
    pairs = ~torch.eye(len(probabilities), dtype=torch.bool, device=probabilities.device)
    return _mean(torch.cdist(probabilities, probabilities, p=1) / 2, same & pairs)


def _mean(terms: Tensor, chosen: Tensor) -> Tensor:
    return (terms * chosen).sum() / chosen.sum().clamp(min=1)


@torch.no_grad()
def calibrated(
    contrast: Contrast,
    images: Images,
    *,
    asked: Feature | None = None,
    near_percentile: float = 50.0,
    far_percentile: float = 5.0,
    device: torch.device | None = None,
) -> Watch:
    """Measure real pictures, and set near and far where they were left out.

    Near is a percentile of the distance to the nearest other picture, far one of the distances to all others, or the least above near where
    both fall on pictures that measure exactly alike.

    Args:
        images: real ones, at least 16; the paper's tool takes 1,000.
        asked: what a person asks for by value, where that is not the contrast's own feature.

    Raises:
        ValueError: a measurement that is constant, NaN or infinite on real pictures, thresholds in the wrong order.
    """
    name = contrast.feature.name
    if len(images) < 16 or not 0 < near_percentile < 100 or not 0 < far_percentile < 100:
        raise ValueError(
            f"thresholds take 16 real pictures or more, percentiles 0 to 100; got {len(images)}, {near_percentile:g}, {far_percentile:g}."
        )
    values = torch.cat([contrast.read(part.to(device or part.device)) for part in images.split(250)])
    if values.ndim != 2 or len(values) != len(images):
        raise ValueError(f'"{name}" gave {tuple(values.shape)} for {len(images)} pictures: expected (n, columns).')
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise ValueError(
            f'"{name}" gives NaN or infinite numbers on {bad} of {values.numel()} readings of real pictures: it cannot be trained by.'
        )
    spread = values.std(0)
    if float(spread.max()) <= 1e-6 * max(1.0, float(values.abs().max())):
        raise ValueError(f'"{name}" reads {float(values.flatten()[0]):.4g} from every real picture: a constant cannot be trained by.')
    cosine = contrast.comparison == "cosine"
    if contrast.scaling == "feature":
        spread = spread.square().mean().sqrt().expand_as(spread)
    spread = torch.ones_like(spread) if cosine else spread.clamp(min=1e-3 * float(spread.max()))
    distances = pairwise(contrast.comparison, values / spread, values / spread)
    others = ~torch.eye(len(values), dtype=torch.bool, device=values.device)
    unit = float(distances[others].mean())
    nearest = distances.masked_fill(~others, torch.inf).amin(1) / unit
    everything = distances[others] / unit
    near = _percentile(nearest, near_percentile) if contrast.near is None else contrast.near
    far = _percentile(everything, far_percentile) if contrast.far is None else contrast.far
    if contrast.far is None and far == near:  # many pictures measure exactly alike, as where something is counted
        far = float(everything[everything > near].min())
    check_thresholds(name, near, far)
    as_asked = contrast if asked is None else replace(contrast, feature=asked)
    ordered = values if asked is None else torch.cat([as_asked.read(part.to(device or part.device)) for part in images.split(250)])
    return Watch(contrast, spread, unit, near, far, Population(as_asked, ordered.sort(0).values), nearest, everything)


@torch.no_grad()
def calibrated_variety(contrast: Contrast, watches: Sequence[Watch], images: Images, *, percentile: float = 50.0) -> Watch:
    """The same for a group that measures nothing: far is a percentile of the difference of real pictures that measure alike.

    Every picture's partner is the one whose readings, over all the measured groups together, are nearest.
    """
    watch = calibrated(contrast, images, near_percentile=1, far_percentile=99)
    total = sum(one.distances(one.values(images)) for one in watches)
    assert isinstance(total, Tensor)
    partner = total.fill_diagonal_(torch.inf).argmin(1)
    values = watch.values(images)
    rows = torch.arange(len(values), device=values.device)
    alike = watch.distances(values)[rows, partner]
    far = _percentile(alike, percentile) if contrast.far is None else contrast.far
    return replace(watch, near=0.0, far=far, nearest=alike)


def _percentile(values: Tensor, percentile: float) -> float:
    ordered = values.flatten().sort().values
    place = percentile / 100 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
