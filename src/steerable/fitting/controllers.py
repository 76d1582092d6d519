"""From samples to controllers: for every group of a latent the networks from values to its share of w.

    E_k   min | E_k(y) - w_k |_1                                    the one answer: a conditional median
    S_k   min | S(y, e) - w_k | - 1/2 | S(y, e) - S(y, e') |        the many: the energy score, least where S draws from p(w_k | y)

Both are then refined on what counts, the picture: values are asked of random latents, and what is measured is to be what was asked, beside
the terms above. Values are in deviations of the population, so that degrees and shares of full scale weigh alike. ``controls.groups`` has
what comes out; ``evaluation.precision`` how good it is, by judges that were not fitted with.

Sources: Shoshan et al., "GAN-Control: explicitly controllable GANs", ICCV 2021, section 3.2, for E_k; Gneiting & Raftery, "Strictly proper
scoring rules, prediction, and estimation", JASA 2007, eq. 22, for the energy score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steerable import checks, progress
from steerable.controls.groups import Controllers, GroupController
from steerable.features.network import CLASSES
from steerable.generators.module import row_seed
from steerable.protocols import Feature, Generator, Knob, Latents
from steerable.sampling import observe

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
SURE = 0.8  # a picture teaches its class where its probability is higher than this
ENDS = 256  # latents whose ends of the range are measured
LEAST = 200  # samples to fit on


@dataclass(frozen=True, eq=False)
class _Pool:
    """What one group is fitted on.

    Attributes:
        part: the controller so far; its tensors are trained in place.
        values: (n, k) measured, or (n, 1) numbers of classes.
        shares: (n, d) of w.
    """

    part: GroupController
    feature: Feature
    values: Float[Tensor, "n k"]
    shares: Float[Tensor, "n d"]

    @property
    def weights(self) -> list[Tensor]:
        return [*self.part.point, *self.part.drawn]

    def fit_loss(self, rows: Tensor, rng: torch.Generator) -> Float[Tensor, ""]:
        """The error of the one answer plus the energy score of the many."""
        values, shares = self.values[rows], self.shares[rows]
        one, two = (self.part.draw(values, torch.randn(len(rows), self.part.noise, generator=rng)) for _ in range(2))
        score = (_length(one - shares) + _length(two - shares) - _length(one - two)).mean() / 2
        return (self.part.answer(values) - shares).abs().mean() + score / shares.shape[1] ** 0.5

    def picture_loss(self, measured: Tensor, asked: Tensor) -> Float[Tensor, ""]:
        """How far what is measured is from what was asked, in deviations; for classes minus the log of the probability."""
        if self.part.classes:
            return F.nll_loss((measured + 1e-6).log(), asked[:, 0].long())
        return ((measured - asked) / self.part.spread).square().mean()


def fit_controllers(
    generator: Generator,
    readings: Mapping[str, Feature],
    *,
    n: int = 8192,
    seed: int = 0,
    steps: int = 1500,
    refine: int = 600,
    batch: int = 256,
    pictures: int = 64,
    hidden: int = 96,
    noise: int = 8,
    lr: float = 2e-3,
) -> Controllers:
    """Sample, measure, and fit the controllers of some groups.

    Args:
        generator: with a space w that has parts.
        readings: group -> the feature whose columns are set by value; a feature of the unit "probability" asks for the number of a class.
        n: samples; the first of ``seed``.
        steps: of the fit to the samples.
        refine: steps after them on pictures, ``pictures`` at a time; 0 leaves them out, and needs no differentiable feature.
        hidden: width of the networks.
        noise: numbers that the many answers depend on.

    Returns:
        Controllers whose knobs know the percentiles of unsteered pictures and the reachable interval: from the 1st to the 99th of them,
        less what does not come out on average when those ends are asked for.

    Raises:
        ValueError: no w with parts, an unknown group, a feature that is constant or NaN, too few samples of a class, a group that does not
            move its measurement.
    """
    if n < LEAST or min(steps, batch, pictures, hidden, noise) < 1 or refine < 0 or not lr > 0 or seed < 0:
        raise ValueError(
            f"controllers take n >= {LEAST} samples, steps, batch, pictures, hidden and noise of 1 or more, refine and seed of 0 or more; "
            f"got n={n}, steps={steps}, batch={batch}, pictures={pictures}, hidden={hidden}, noise={noise}, refine={refine}, seed={seed}."
        )
    space = generator.spaces.get("w")
    name = next(iter(generator.spaces.values())).generator or "the generator"
    if space is None or not space.parts:
        raise ValueError(f"{name} has no groups to set by value: train some with steer train controllable, or fit axes.")
    if not readings:
        raise ValueError("name at least one group to set by value.")
    for group in readings:
        space.part(group)
    latents = generator.sample(n, seed=seed, space="w")
    rng = torch.Generator().manual_seed(row_seed(seed, n))
    features = list(readings.values())
    columns = observe(generator, features, latents, batch=64).split([len(feature.columns) for feature in features], 1)
    pools = [
        _pool(latents, group, feature, values, hidden=hidden, noise=noise, rng=rng)
        for (group, feature), values in zip(readings.items(), columns, strict=True)
    ]
    for pool in pools:
        _fit(pool, steps, batch, lr, rng)
    if refine:
        _refine(generator, latents, pools, refine, pictures, lr / 4, rng)
    fit = {"method": "controllers", "n": n, "seed": seed, "steps": steps, "refine": refine, "batch": batch, "pictures": pictures,
           "hidden": hidden, "noise": noise, "lr": lr, "measured_by": {group: one.name for group, one in readings.items()}}  # fmt: skip
    done = Controllers(tuple(_frozen(pool.part) for pool in pools), space, fit)
    return _reachable(generator, done, readings, seed + 1)


def _pool(latents: Latents, group: str, feature: Feature, values: Tensor, *, hidden: int, noise: int, rng: torch.Generator) -> _Pool:
    """The samples of a group and its untrained networks."""
    values = checks.finite(values, f'"{feature.name}" of the samples')
    shares = latents.part(group).detach().float().cpu()
    if feature.unit == CLASSES and values.shape[1] > 1:
        sure, number = values.max(1)
        values, classes = number[:, None].float(), values.shape[1]
        keep = sure > SURE
        counts = torch.bincount(number[keep], minlength=classes)
        if int(counts.min()) < 8:
            raise ValueError(
                f'"{feature.name}": {int(counts.min())} of {len(values)} samples show class {int(counts.argmin())} for sure, 8 are needed: '
                "give a larger n, or train longer."
            )
        values, shares = values[keep], shares[keep]
        knobs: tuple[Knob, ...] = (Knob(group, "", 0, classes - 1, None),)
        centre, spread, inputs = torch.zeros(1), torch.ones(1), classes
    else:
        classes, inputs = 0, values.shape[1]
        centre, spread = values.mean(0), values.std(0)
        if float(spread.min()) <= 1e-6 * max(1.0, float(values.abs().max())):
            raise ValueError(f'"{feature.name}" reads {float(values[0, 0]):.4g} from every sample: a constant cannot be set by value.')
        knobs = tuple(_knob(one, feature.unit, column) for one, column in zip(feature.columns, values.unbind(1), strict=True))
    width = shares.shape[1]
    point, drawn = (_layers([inputs + more, hidden, hidden, width], rng) for more in (0, noise))
    spherical = bool((shares.square().mean(1) - 1).abs().max() < 1e-2)
    return _Pool(GroupController(group, knobs, classes, centre, spread, point, drawn, noise, spherical), feature, values, shares)


def _knob(name: str, unit: str, values: Tensor) -> Knob:
    found = torch.quantile(values, torch.tensor(PERCENTILES) / 100).tolist()
    return Knob(
        name, unit, found[0], found[-1], None, tuple((float(p), float(f"{v:.6g}")) for p, v in zip(PERCENTILES, found, strict=True))
    )


def _layers(widths: list[int], rng: torch.Generator) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    for wide, narrow in pairwise(widths):
        found += [torch.randn(narrow, wide, generator=rng) * (2 / wide) ** 0.5, torch.zeros(narrow)]
    return tuple(one.requires_grad_() for one in found)


def _fit(pool: _Pool, steps: int, batch: int, lr: float, rng: torch.Generator) -> None:
    adam = torch.optim.Adam(pool.weights, lr=lr)
    for number in progress.track(range(steps), f"fit the controllers of {pool.part.group}"):
        _step(adam, pool.fit_loss(torch.randint(len(pool.values), (batch,), generator=rng), rng), lr * (1 - number / steps))


def _refine(generator: Generator, latents: Latents, pools: list[_Pool], steps: int, pictures: int, lr: float, rng: torch.Generator) -> None:
    """Ask values of random latents, all groups at once, half of the rows by the one answer and half by the many; measure what comes out."""
    adam = torch.optim.Adam([weight for pool in pools for weight in pool.weights], lr=lr)
    for number in progress.track(range(steps), "refine the controllers on pictures"):
        rows = torch.randint(len(latents), (pictures,), generator=rng)
        w, asked = latents.values[rows].clone(), []
        half = pictures // 2
        for pool in pools:
            values = pool.values[torch.randint(len(pool.values), (pictures,), generator=rng)]
            parts = [
                pool.part.answer(values[:half]),
                pool.part.draw(values[half:], torch.randn(pictures - half, pool.part.noise, generator=rng)),
            ]
            w[:, latents.space.part(pool.part.group)] = torch.cat(parts).to(w)
            asked.append(values)
        images = generator(Latents(w, latents.space))
        loss = sum(
            (
                pool.picture_loss(pool.feature(images).float().cpu(), values)
                + pool.fit_loss(torch.randint(len(pool.values), (pictures,), generator=rng), rng)
                for pool, values in zip(pools, asked, strict=True)
            ),
            torch.zeros(()),
        )
        _step(adam, loss, lr * (1 - number / steps))


def _step(adam: torch.optim.Adam, loss: Tensor, lr: float) -> None:
    for group in adam.param_groups:
        group["lr"] = lr
    adam.zero_grad()
    loss.backward()
    adam.step()


def _frozen(part: GroupController) -> GroupController:
    layers = {what: tuple(one.detach().clone() for one in getattr(part, what)) for what in ("point", "drawn")}
    return replace(part, **layers)


def _reachable(generator: Generator, controllers: Controllers, readings: Mapping[str, Feature], seed: int) -> Controllers:
    """Each knob's interval cut to what comes out, on average over other latents, where its ends are asked for."""
    latents = generator.sample(ENDS, seed=seed, space="w")
    seeds = [row_seed(seed, row) for row in range(ENDS)]
    parts: list[GroupController] = []
    for part in controllers.parts:
        if part.classes:
            parts.append(part)
            continue
        one, knobs = replace(controllers, parts=(part,)), []
        middle = torch.tensor([knob.value_at(50) for knob in part.knobs])
        for column, knob in enumerate(part.knobs):
            ends: list[float] = []
            for end in (knob.low, knob.high):
                asked = middle.repeat(ENDS, 1)
                asked[:, column] = end
                read = observe(generator, [readings[part.group]], one.draw(latents, asked, seeds=seeds))[:, column]
                ends.append(float(read.mean()))
            low, high = max(knob.low, ends[0]), min(knob.high, ends[1])
            if not high - low > 0.1 * (knob.high - knob.low):
                raise ValueError(
                    f'the group "{part.group}" does not set {knob.name}: asked for {knob.low:.4g} and {knob.high:.4g} {knob.unit}, '
                    f"{ends[0]:.4g} and {ends[1]:.4g} come out on average. Train the generator longer."
                )
            knobs.append(replace(knob, low=float(f"{low:.6g}"), high=float(f"{high:.6g}")))
        parts.append(replace(part, knobs=tuple(knobs)))
    return replace(controllers, parts=tuple(parts))


def _length(x: Tensor) -> Tensor:
    return (x.square().sum(1) + 1e-12).sqrt()
