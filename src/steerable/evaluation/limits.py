"""How far a walk goes, and what ends it: figure 5 of the paper for one knob, with numbers.

At each amount the same latents are steered and four things are asked: where the measured attribute is (``attribute``); how much of its
distribution is still that of unsteered images (the area under both densities); whether the images still look like unsteered ones, of other
latents than those that are steered (kernel distance, and Fréchet distance where n allows it); and how much each step still changes the
picture (perceptual distance to the amount before). ``usable`` makes a range of it.

Neighbours: ``variability`` says why a walk ends there, ``steerability`` how well it imitates its edit, ``plots.limits_plot`` draws this.
Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, sections 3 and 4.1, figures 5, 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from steerable import checks, progress
from steerable.controls.directions import amounts as turned
from steerable.evaluation.attribute import Attribute, image_means, resolved
from steerable.evaluation.plausible import BEYOND, by_chance, halved, knob_of, reach, threshold_over
from steerable.evaluation.quality import FULL_RANK, frechet_distance, kernel_distance
from steerable.evaluation.usable import Usable, range_before, usable_range, with_range
from steerable.features import backbone
from steerable.features.perceptual import Perceptual
from steerable.protocols import Control, Feature, Generator, Knob, Latents, device_of

STEPS = 9  # default amounts: evenly on either side of the neutral one, so that a step is compared with steps of its own size
GRID = 512  # points of a density


@dataclass(frozen=True, eq=False)
class Limits:
    """One knob at a amounts.

    Attributes:
        knob: that was turned, with the range that it had.
        amounts: (a,) ascending, the neutral one among them.
        attribute, unit, judge: what was measured, and by what.
        values: (a, n, s) of the steered images: s values an image; NaN where nothing was found.
        reference: (n, s) of unsteered images of other latents.
        distances: (a,) kernel distance to those images. That at the neutral amount is what two unsteered sets differ by.
        frechet: (a,) Fréchet distance to them; None where n does not allow it.
        steps: (a - 1, n) perceptual distance of each image to the same latent's at the amount before.
        threshold: the kernel distance that a usable amount stays below; ``threshold_from`` says why this one.
        n, seed: latents, in each of the two sets.
    """

    knob: Knob
    amounts: Float[Tensor, " a"]
    attribute: str
    unit: str
    judge: str
    values: Float[Tensor, "a n s"]
    reference: Float[Tensor, "n s"]
    distances: Float[Tensor, " a"]
    frechet: Float[Tensor, " a"] | None
    steps: Float[Tensor, "b n"]
    threshold: float
    threshold_from: str
    n: int
    seed: int

    @property
    def start(self) -> int:
        """The place of the neutral amount."""
        return int((self.amounts - (self.knob.neutral or 0.0)).abs().argmin())

    @property
    def means(self) -> Float[Tensor, " a"]:
        """Of the attribute, over what was found."""
        return self.values.flatten(1).nanmean(1)

    @property
    def spreads(self) -> Float[Tensor, " a"]:
        """Its standard deviations."""
        return torch.stack([_std(one) for one in self.values])

    @property
    def found(self) -> Float[Tensor, " a"]:
        """The share of images in which it was found."""
        return (~self.values.isnan()).any(2).float().mean(1)

    def densities(self) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"], Float[Tensor, "a g"]]:
        """(grid, unsteered, steered): histograms smoothed by one Gaussian, Silverman's width for the unsteered values; each sums to 1."""
        there = [_there(one) for one in (self.reference, *self.values)]
        whole = torch.cat(there)
        if not len(whole):
            empty = torch.full((GRID,), torch.nan)
            return torch.linspace(0, 1, GRID), empty, empty.repeat(len(self.values), 1)
        width = _bandwidth(there[0] if len(there[0]) > 1 else whole)
        low, high = float(whole.min()) - 3 * width, float(whole.max()) + 3 * width
        grid = torch.linspace(low, high, GRID)
        kernel = torch.exp(-0.5 * ((torch.arange(GRID) - GRID // 2) * (high - low) / (GRID - 1) / width) ** 2)
        smooth = [_smoothed(one, low, high, kernel) for one in there]
        return grid, smooth[0], torch.stack(smooth[1:])

    @property
    def usable(self) -> Usable:
        """The range that all this implies; the rule is ``usable.usable_range``."""
        means = torch.stack([image_means(one) for one in self.values])
        neutral = self.knob.neutral or 0.0
        return usable_range(self.amounts.tolist(), means, self.distances.tolist(), threshold=self.threshold, neutral=neutral)

    def written(self, control: Any) -> Any:
        """The control with this range in its knob and what it rests on in its record; see ``usable.with_range``."""
        record = {
            "attribute": self.attribute,
            "judge": self.judge,
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
            "amounts": self.amounts.tolist(),
            "kernel_distances": self.distances.tolist(),
            "n": self.n,
            "seed": self.seed,
        }
        return with_range(control, self.knob.name, self.usable, record)

    @property
    def intersections(self) -> Float[Tensor, " a"]:
        """The area under both the unsteered and the steered density: 1 is the same distribution, 0 is another one altogether."""
        _, unsteered, steered = self.densities()
        return torch.minimum(unsteered, steered).sum(1)


def _there(values: Tensor) -> Tensor:
    flat = values.flatten()
    return flat[~flat.isnan()]


def _std(values: Tensor) -> Tensor:
    there = _there(values)
    return there.std() if len(there) > 1 else torch.tensor(torch.nan)


def _bandwidth(values: Float[Tensor, " v"]) -> float:
    """Silverman's rule of thumb: 0.9 min(deviation, interquartile range / 1.34) v^(-1/5)."""
    ranks = values.double().sort().values
    quarter, three = (float(ranks[int(share * (len(ranks) - 1))]) for share in (0.25, 0.75))
    deviation = float(ranks.std())
    narrow = min(deviation, (three - quarter) / 1.34) or deviation
    return max(0.9 * narrow * len(values) ** -0.2, 1e-3 * deviation, 1e-6 * max(1.0, abs(float(ranks[-1]))))


def _smoothed(values: Float[Tensor, " v"], low: float, high: float, kernel: Float[Tensor, " g"]) -> Float[Tensor, " g"]:
    if not len(values):
        return torch.full((GRID,), torch.nan)
    bins = ((values - low) / (high - low) * (GRID - 1)).round().long().clamp(0, GRID - 1)
    counts = torch.bincount(bins, minlength=GRID).to(kernel)
    smooth = F.conv1d(F.pad(counts[None, None], (GRID // 2, GRID - GRID // 2 - 1)), kernel[None, None])[0, 0]
    return smooth / smooth.sum()


def limits(
    generator: Generator,
    control: Control,
    attribute: Attribute | Feature | None = None,
    *,
    amounts: Sequence[float] | None = None,
    knob: str | None = None,
    network: Any = None,
    threshold: float | None = None,
    fid: bool | None = None,
    n: int = 256,
    seed: int = 1,
    psi: float = 1.0,
    labels: int | None = None,
    batch: int = 32,
) -> Limits:
    """Turn one knob to each amount, and measure what that does to the images.

    Args:
        control: a walk or any other control whose knob has a neutral amount.
        attribute: what is measured; by default what belongs to the edit of the knob's name, see ``attribute.attribute_of``. Any
            feature of one column: a detector, a person's area. Where it finds nothing it returns NaN.
        amounts: in the knob's unit; the neutral one is added. By default nine from twice the lower to twice the upper end of its range.
        knob: which, where the control has several.
        network: judges plausibility and perceptual distance; the shipped backbone by default.
        threshold: largest kernel distance of a usable amount; by default that of unsteered images reduced to half their size, or what
            chance does where n is so small that this is more.
        fid: also the Fréchet distance: True asks for it, None (the default) takes it where n allows, False leaves it out.
        n, seed: latents that are steered, and as many others that are not; take a seed that nothing was fitted on.
        labels: one class of a class-conditional generator; drawn by default.

    Raises:
        ValueError: no such knob, one that sets a value instead of shifting it, no amount besides the neutral one, n too small for the
            kernel distance (16) or the Fréchet distance (1281), a class that the generator lacks.
    """
    turning = knob_of(control, knob)
    low, high = range_before(control, turning.name)  # so that default amounts are the same once a range was written
    measured, asked = resolved(attribute, turning.name), _asked(replace(turning, low=low, high=high), amounts)
    judge = network or backbone.shipped().to(device_of(generator))
    wide = int(getattr(judge, "num_features", FULL_RANK))
    if n < 16 or batch < 1:
        raise ValueError(f"a kernel distance takes 16 images or more, got n={n}, in batches of {batch}.")
    if fid and n <= wide:
        frechet_distance(torch.zeros(n, wide), torch.zeros(n, wide))  # says why it is refused
    latents = generator.sample(2 * n, seed=seed, space=control.space.name, psi=psi, labels=labels)
    others, moved = latents[:n], latents[n:]
    places = measured.places(2 * n, generator.image_shape, seed=seed)
    first = _pass(generator, others, measured, places[:n], judge, control, turning, [None], batch, f"unsteered images for {turning.name}")
    label = f"limits of {turning.name}"
    there = _pass(generator, moved, measured, places[n:], judge, control, turning, [*asked, None], batch, label)
    reference = first.seen[0]
    distances = [kernel_distance(reference, one) for one in there.seen[:-1]]
    coarse = kernel_distance(reference, there.seen[-1])
    chance = by_chance(reference, there.seen[asked.index(turning.neutral or 0.0)], seed=seed)
    (limit, source), frechet = threshold_over(threshold, coarse, chance, n), None
    if fid or (fid is None and n > reference.shape[1]):
        frechet = torch.tensor([frechet_distance(reference, one) for one in progress.track(there.seen[:-1], "Fréchet distances")])
    return Limits(
        knob=turning,
        amounts=torch.tensor(asked, dtype=torch.float64).float(),
        attribute=measured.name,
        unit=measured.unit,
        judge=measured.judge,
        values=torch.stack(there.values[:-1]),
        reference=first.values[0],
        distances=torch.tensor(distances),
        frechet=frechet,
        steps=torch.stack(there.steps),
        threshold=limit,
        threshold_from=source,
        n=n,
        seed=seed,
    )


def _asked(knob: Knob, amounts: Sequence[float] | None) -> list[float]:
    neutral = knob.neutral or 0.0
    if amounts is None:
        amounts = [neutral + BEYOND * end * i / (STEPS // 2) for end in reach(knob) for i in range(STEPS // 2 + 1)]
    given = checks.finite(torch.tensor([float(one) for one in amounts], dtype=torch.float64), "amounts").tolist()
    asked = sorted({one for one in given if abs(one - neutral) > 1e-9} | {neutral})
    if len(asked) < 2:
        raise ValueError(f'limits of "{knob.name}" take at least one amount besides the neutral {neutral:g}, got {given}.')
    return asked


@dataclass(frozen=True)
class _Seen:
    """Of each amount: attribute (n, s), features (n, f); and the perceptual distances between neighbours (n,)."""

    values: list[Tensor]
    seen: list[Tensor]
    steps: list[Tensor]


def _pass(
    generator: Generator,
    latents: Latents,
    measured: Attribute,
    places: Tensor,
    judge: Any,
    control: Control,
    knob: Knob,
    asked: Sequence[float | None],
    batch: int,
    label: str,
) -> _Seen:
    """Every image once: a batch of latents goes through all amounts, its maps are compared with those of the amount before.

    None asks for the unsteered images: as they are where it is alone, at half their size where it is last.
    """
    looks = Perceptual(judge) if hasattr(judge, "activations") else None
    values: list[list[Tensor]] = [[] for _ in asked]
    seen: list[list[Tensor]] = [[] for _ in asked]
    steps: list[list[Tensor]] = [[] for amount in asked[1:] if amount is not None]
    with torch.inference_mode():
        for start in progress.track(range(0, len(latents), batch), label):
            some, spots, before = latents[start : start + batch], places[start : start + batch], None
            for i, amount in enumerate(asked):
                if amount is None:
                    images = halved(generator(some)) if i else generator(some)
                else:
                    rows = turned(control, some, {knob.name: amount}).to(some.values)
                    images = generator(control.steer(some, rows))
                    checks.finite(images, f"images at {knob.name} {amount:g} {knob.unit}")
                values[i].append(measured(images, spots))
                if looks is None:
                    seen[i].append(judge(images).float().cpu())
                    continue
                maps = judge.activations(images)
                seen[i].append(judge.pooled(maps).float().cpu())
                if amount is not None:
                    points = looks.placed(maps)
                    if before is not None:
                        steps[i - 1].append((points - before).square().sum(1).float().cpu())
                    before = points
    if looks is None:
        steps = [[torch.full((len(latents),), torch.nan)] for _ in steps]
    return _Seen(*([torch.cat(parts).clone() for parts in side] for side in (values, seen, steps)))


COLUMNS = ("knob", "amount", "mean", "sd", "intersection", "kernel_distance", "frechet_distance", "step", "step_sd", "found", "usable")


def table(result: Limits) -> list[tuple[Any, ...]]:
    """A row for each amount; see ``COLUMNS``. ``step`` is the perceptual distance to the amount before; None where there is none."""
    found = result.usable
    rows = []
    for i, amount in enumerate(result.amounts.tolist()):
        step = result.steps[i - 1] if i else torch.tensor([torch.nan, torch.nan])
        rows.append(
            (
                result.knob.name,
                amount,
                *(_number(one[i]) for one in (result.means, result.spreads, result.intersections, result.distances)),
                None if result.frechet is None else _number(result.frechet[i]),
                _number(step.mean()),
                _number(step.std()),
                _number(result.found[i]),
                found.low - 1e-6 * abs(found.low) <= amount <= found.high + 1e-6 * abs(found.high),
            )
        )
    return rows


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)
