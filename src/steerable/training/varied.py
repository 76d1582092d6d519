"""Data whose variability is set by us: every class at several levels of how much it was shifted, scaled, dimmed.

Each class of a labelled source becomes ``levels`` classes that hold the same pictures and differ in nothing but the standard deviation
of each edit's amount in them. Levels of different edits are set independently, by orthogonal Latin squares: edit number j of class d at
level k has its level (k + j d) mod L. For a prime L and a multiple of L classes every pair of levels of two edits then occurs equally
often, so the spreads are uncorrelated with each other and with the class, exactly, and one class-conditional generator tests the
influence of each alone. This is the experiment behind the question of the paper, whether a generator can be steered as far as its data
vary: there the variability of classes was found, here it is set.

Amounts are evenly spaced and in an order of their own for each edit: their standard deviation in a class is the one set, not an estimate,
and none lies further out than sqrt(3) times that. Pictures are first made smaller and paler, so that there is room to move in.

``sources`` reads the pictures; ``steerable`` trains on them.

Source for the question: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerable import progress
from steerable.edits import EDITS, edit
from steerable.generators.module import row_seed
from steerable.protocols import Edit, Images
from steerable.sources import ImageSource

SMALLER = -0.6  # log2 of what every picture is scaled by at first
PALER = 0.5  # and what its levels in [-1, 1] are multiplied by
SPREADS: Mapping[str, float] = {"zoom": 0.32, "shift-x": 0.1, "brightness": 0.12}  # of the last level, in the edit's unit
BATCH = 500


@dataclass(frozen=True)
class Design:
    """Which class has how much of what.

    Attributes:
        classes: of the source; class number ``d * levels + k`` of the new data is class d at level k.
        spreads: an edit's name -> its standard deviation at the last level, in its unit; at the first one it is 0. In the order given
            the edits are applied: a picture is to be scaled before it is shifted.
        levels: a prime number, at least as many as edits.
    """

    classes: tuple[str, ...]
    spreads: Mapping[str, float]
    levels: int = 5

    def __post_init__(self) -> None:
        prime = self.levels > 1 and all(self.levels % i for i in range(2, self.levels))
        if not self.classes:
            raise ValueError("classes are varied, and these pictures have none: give labels, or folders of pictures for classes.")
        if not prime or not 1 <= len(self.spreads) <= self.levels:
            raise ValueError(
                f"{len(self.spreads)} edits at {self.levels} levels cannot be set independently: levels are a prime number, at least as "
                "many as edits: 2, 3, 5, 7."
            )
        for name, spread in self.spreads.items():
            edit(name)
            if name not in EDITS or not spread > 0 or not math.isfinite(spread):
                raise ValueError(f"the spread of one edit is a number above 0 in its unit, got {name}={spread}: {text(SPREADS)}.")

    @property
    def level(self) -> Int[Tensor, "c e"]:
        """The level of each edit in each new class."""
        d, k = (one.flatten()[:, None] for one in torch.meshgrid(torch.arange(len(self.classes)), torch.arange(self.levels), indexing="ij"))
        return (k + torch.arange(len(self.spreads)) * d) % self.levels

    @property
    def sigma(self) -> Float[Tensor, "c e"]:
        """The standard deviation that is set, in the edits' units."""
        return self.level * torch.tensor(list(self.spreads.values())) / (self.levels - 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the new classes: the old one and the levels, as in "7 zoom 3, shift-x 0"."""
        marks = [", ".join(f"{name} {one}" for name, one in zip(self.spreads, row, strict=True)) for row in self.level.tolist()]
        return tuple(f"{self.classes[i // self.levels]} {mark}" for i, mark in enumerate(marks))


def varied(source: ImageSource, spreads: Mapping[str, float] = SPREADS, *, levels: int = 5, each: int = 2000, seed: int = 0) -> ImageSource:
    """The data of a ``Design``: ``classes * levels`` classes of up to ``each`` pictures.

    Args:
        spreads: see ``Design``.
        each: pictures a class, the same ones at all its levels.
        seed: of which pictures and of the order of their amounts.

    Raises:
        ValueError: a source without classes, an unknown edit, levels that are not prime, a class with less than two pictures, or a
            spread that drives the pictures' levels out of range.
    """
    design = Design(source.classes, dict(spreads), levels)
    if each < 2:
        raise ValueError(f"a class varies from two pictures on, got {each} each.")
    images, labels = [], []
    with torch.no_grad():
        kept = [_kept(source, d, each, seed) for d in range(len(source.classes))]
        ready = [_ready(source.images[rows]) for rows in progress.track(kept, "make pictures smaller")]
        for number, sigma in enumerate(progress.track(design.sigma, "vary pictures", total=len(design.sigma))):
            base = ready[number // levels]
            drawn = amounts(sigma, len(base), seed=seed, number=number)
            images.append(torch.cat([_edited(design, base[i : i + BATCH], drawn[i : i + BATCH]) for i in range(0, len(base), BATCH)]))
            labels.append(torch.full((len(base),), number))
    return ImageSource(torch.cat(images), torch.cat(labels), design.names, f"{source.name}, varied by {text(design.spreads)}")


def amounts(sigma: Float[Tensor, " e"], n: int, *, seed: int, number: int) -> Float[Tensor, "n e"]:
    """Amounts of class ``number``: mean 0 and standard deviations ``sigma``, exactly, evenly spaced, in unrelated orders."""
    even = (torch.arange(n) - (n - 1) / 2) * math.sqrt(12 / (n * n - 1))  # standard deviation 1
    rng = torch.Generator().manual_seed(row_seed(seed, 1 + number))
    return torch.stack([one * even[torch.randperm(n, generator=rng)] for one in sigma], 1)


def parsed(given: str) -> dict[str, float]:
    """``"zoom=0.32,shift-x=0.1"`` as spreads.

    Raises:
        ValueError: something else.
    """
    try:
        pairs = [one.split("=") for one in given.split(",")]
        return {name.strip(): float(number) for name, number in pairs}
    except ValueError:
        raise ValueError(f'how much to vary is given as edits and spreads, {text(SPREADS)}; got "{given}".') from None


def text(spreads: Mapping[str, float]) -> str:
    return ",".join(f"{name}={spread:g}" for name, spread in spreads.items())


def _kept(source: ImageSource, label: int, each: int, seed: int) -> Tensor:
    """Rows of some pictures of a class."""
    rows = (source.labels == label).nonzero()[:, 0]
    if len(rows) < 2:
        raise ValueError(f'class "{source.classes[label]}" of {source.name} has {len(rows)} pictures: a class varies from two on.')
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(row_seed(seed, 0)))
    return rows[order[:each].sort().values]


def _ready(pixels: Tensor) -> Images:
    images = pixels.float() * (2 / 255) - 1
    return PALER * torch.cat([_filled(EDITS["zoom"], some, some.new_full((len(some),), SMALLER)) for some in images.split(BATCH)])


def _edited(design: Design, images: Images, drawn: Tensor) -> Tensor:
    for name, column in zip(design.spreads, drawn.unbind(1), strict=True):
        if bool(column.any()):
            images = _filled(EDITS[name], images, column)
            if float(images.abs().max()) > 1 + 1e-3:
                raise ValueError(f"{name}={design.spreads[name]:g} drives pictures out of the levels that there are: set it lower.")
    return ((images + 1) * 127.5 + 0.5).floor().clamp(0, 255).to(torch.uint8)


def _filled(edit: Edit, images: Images, amounts: Tensor) -> Images:
    """The edit's targets; what it cannot know gets the colour of the picture's border."""
    targets, mask = edit(images, amounts)
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], 2).median(2).values
    return torch.where(mask > 0, targets, border[:, :, None, None])
