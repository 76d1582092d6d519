"""The search behind ``solve``: from n latents along trusted lines to their values, then held features drawn back, and a last step at hand.

Everything is in deviations of the population. Let ``G`` (k, d) be the lines' gradients and ``C`` the metric of a step,

    C = 1/s^2 + weight (J'J + u E[H'H]),      D = C^-1 G' (G C^-1 G')^-1

with J of held features that are narrow, here, and H of those that are wide, over the population: what usually changes a person is moved
less, before anybody looks at this one. Columns of D are the shortest moves by one deviation of each value. Then

1. the k coordinates along D are found by a scan, which also says what is reachable, and by Broyden's secant steps (1965, eq. 4.5);
2. what is held and wide (an identity of 128 numbers bends too much for one linear model) is drawn back by conjugate gradients of its
   squared drift in the null space of G (Polak & Ribiere 1969), each step as long as the last ones were worth, while the values are kept;
3. what is still missing is asked from the set columns' own gradients here, Gauss-Newton, for a limited way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable.controls.sides import Sides
from steerable.features.network import measure
from steerable.sensitivity import Generated, jacobian, operator

REACH = 4.0  # deviations of a column that the scan looks to either side, as the line predicts them
NARROW = 8  # columns up to which a held feature is held by its Jacobian at the start
FARTHEST = 1.2  # from the mean latent, in the distance that 99 of 100 latents keep
USUALLY = 0.3  # u
PROBES = 12  # mixes of the columns at each latent
ONSET = 0.2  # first step that draws drift back, as a fraction of the way so far


@dataclass(frozen=True)
class Effort:
    """How long it searches.

    Attributes:
        points: of the scan along each line.
        rounds: of secant steps.
        holding: steps that draw held drift back.
        trust: of the last steps, by the gradients at hand: how far they may go, as a fraction of the way so far.
        weight: of held drift in squared deviations, beside the latent's own change in squared deviations.
        tolerance: of a value that counts as reached.
        mirror: weight, beside 1 of each held feature, of what set columns read otherwise in the mirror image (``ready.MIRRORED``).
    """

    points: int = 9
    rounds: int = 5
    holding: int = 24
    trust: float = 0.25
    weight: float = 60.0
    tolerance: float = 0.03
    mirror: float = 0.2


@dataclass(frozen=True, eq=False)
class Found:
    """Where the search ended (n, *space.shape), and the lowest and highest values (n, k, 2) that it met."""

    point: Tensor
    reachable: Tensor


class Search:
    """n latents, flattened, and the lines that start there.

    Args:
        sides: set columns as what moves, held features as what is held.
        gradients: (k, d) of the set columns, in deviations.
        size: deviation of a latent's numbers.
        usual: E[H'H] of wide held features, see ``usually``; None where there are none.
    """

    def __init__(
        self, sides: Sides, gradients: Float[Tensor, "k d"], size: float, effort: Effort, usual: Float[Tensor, "d d"] | None = None
    ) -> None:
        self.sides, self.effort, self.size = sides, effort, size
        self.start = sides.latents.values.flatten(1)  # (n, d)
        self.count = len(sides.move)
        scales = sides.scales[self.count :]
        self.narrow = [i for i, one in enumerate(sides.hold) if len(one.columns) <= NARROW]
        self.held = Generated(sides.generator, sides.hold, sides.latents, scales)
        n, d = self.start.shape
        metric = (torch.eye(d).to(self.start) / size**2).expand(n, -1, -1)
        holds = bool(sides.hold) and effort.weight > 0
        if holds and self.narrow:
            local = self.held.only([i in self.narrow for i in range(len(sides.hold))])
            self.rows = jacobian(local, sides.latents.values)[1].detach() / self._columns**0.5  # (n, m, d)
            metric = metric + effort.weight * self.rows.mT @ self.rows
        if holds and usual is not None:
            metric = metric + effort.weight * USUALLY * usual.to(metric)
        self.factor = torch.linalg.cholesky(metric)
        self.trusted = gradients.to(self.start).expand(n, -1, -1)  # (n, k, d)
        self.lines = self._moves(self.trusted)  # (n, d, k)
        self.holds = holds
        with torch.no_grad():
            self.before = self.held(sides.latents.values) if holds else self.start[:, :0]

    @property
    def _columns(self) -> int:
        return sum(self.sides.widths[self.count :])

    def found(self, target: Float[Tensor, "n k"]) -> Found:
        """Search for the values, each row for itself."""
        effort = self.effort
        scan, grid = self._scanned()
        own = torch.stack([scan[:, i, :, i] for i in range(self.count)], 1)  # (n, k, points)
        low, high = own.amin(2), own.amax(2)
        along, slopes = crossing(grid, scan, target)
        best, error, aside = self.start, torch.full_like(target[:, 0], torch.inf), torch.zeros_like(self.start)
        last: tuple[Tensor, Tensor] | None = None
        for _ in range(effort.rounds):
            point = self._plausible(self.start + (self.lines @ along[..., None])[..., 0] + aside)
            values = self.values(point)
            miss = target - values
            better = (miss.abs().amax(1) < error) & (error > effort.tolerance / 3)
            best, error = torch.where(better[:, None], point, best), torch.where(better, miss.abs().amax(1), error)
            low, high = torch.minimum(low, values), torch.maximum(high, values)
            if last is not None:
                slopes = secant(slopes, along - last[0], values - last[1])
            last = along, values
            along = along + damped(slopes, miss)
            aside = aside - self._pulled(point)
        if self.holds and len(self.narrow) < len(self.sides.hold):
            best = self._held(best, target)
        for _ in range(2 if effort.trust else 0):
            values = self.values(best)
            low, high = torch.minimum(low, values), torch.maximum(high, values)
            trial = self._plausible(best + self._at_hand(best, target - values))
            better = (target - self.values(trial)).abs().amax(1) < (target - values).abs().amax(1)
            short = (target - values).abs().amax(1) > effort.tolerance / 3
            best = torch.where((better & short)[:, None], trial, best)
        values = self.values(best)
        low, high = torch.minimum(low, values), torch.maximum(high, values)
        return Found(best.view_as(self.sides.latents.values), torch.stack([low, high], 2))

    def values(self, point: Tensor) -> Float[Tensor, "n k"]:
        """Set columns, in deviations; a network that several share runs once."""
        with torch.no_grad():
            read = measure(self.sides.move, self.sides.images(point.view_as(self.sides.latents.values)))
        scales = self.sides.scales[: self.count]
        return torch.cat([scale * read[one.name] for scale, one in zip(scales, self.sides.move, strict=True)], 1)

    def _held(self, best: Tensor, target: Tensor) -> Tensor:
        """Down the held drift by conjugate gradients, on the set of latents that keep the values."""
        share = torch.full_like(target[:, :1], ONSET)
        miss = target - self.values(best)
        within = miss.abs().amax(1).clamp(min=self.effort.tolerance)  # no value may get worse than it is
        cost, slope = self._cost(best)
        down, way, turn = self._free(slope), torch.zeros_like(best), torch.zeros_like(cost)
        for _ in range(self.effort.holding):
            way = down + turn[:, None] * way
            step = -way
            length = share * (best - self.start).norm(dim=1, keepdim=True)
            trial = best + length * step / step.norm(dim=1, keepdim=True).clamp(min=1e-12)
            trial = self._plausible(trial + (self.lines @ miss.clamp(-0.5, 0.5)[..., None])[..., 0])
            off, (dear, steeper) = target - self.values(trial), self._cost(trial)
            better = ((dear < cost) & (off.abs().amax(1) <= within))[:, None]
            free, fell = self._free(steeper), (down * slope).sum(1).clamp(min=1e-12)
            turn = torch.where(better[:, 0], (free * (steeper - slope)).sum(1).clamp(min=0) / fell, 0)  # 0: steepest descent again
            best, slope, down = (torch.where(better, new, old) for new, old in ((trial, best), (steeper, slope), (free, down)))
            cost = torch.where(better[:, 0], dear, cost)
            # a step that only missed the values tells where they are: the next one starts with that
            miss = torch.where(better, off, torch.where((dear < cost)[:, None], miss + off, miss))
            share = torch.where(better, share * 1.3, share * 0.6)
        return best

    def _free(self, slope: Tensor) -> Float[Tensor, "n d"]:
        """What goes down fastest by the metric, where the set columns do not notice."""
        step = torch.cholesky_solve(slope[..., None], self.factor)
        return (step - self.lines @ (self.trusted @ step))[..., 0]

    def _cost(self, point: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Held drift and way so far, and the gradient of both."""
        model = operator(self.held, point.view_as(self.sides.latents.values))
        drift = (model.features - self.before).detach()
        away = (point - self.start) / self.size**2
        pull = model.pull(drift[:, None])[:, 0].detach() / self._columns
        cost = self.effort.weight * drift.square().mean(1) + ((point - self.start) / self.size).square().sum(1)
        return cost, self.effort.weight * pull + away

    def _pulled(self, point: Tensor) -> Float[Tensor, "n d"]:
        """The Gauss-Newton step that takes the drift of narrow holds back where the set columns do not notice."""
        if not (self.holds and self.narrow):
            return torch.zeros_like(self.start)
        local = self.held.only([i in self.narrow for i in range(len(self.sides.hold))])
        with torch.no_grad():
            now, then = (local(at.view_as(self.sides.latents.values)) for at in (point, self.start))
        back = self.effort.weight * self.rows.mT @ (now - then)[..., None] / self._columns**0.5
        step = torch.cholesky_solve(back, self.factor)
        return (step - self.lines @ (self.trusted @ step))[..., 0]

    def _at_hand(self, point: Tensor, miss: Tensor) -> Float[Tensor, "n d"]:
        """A Gauss-Newton step by the set columns' gradients at a point, no longer than half of what is trusted."""
        local = Generated(self.sides.generator, self.sides.move, self.sides.latents, self.sides.scales[: self.count])
        gradients = jacobian(local, point.view_as(self.sides.latents.values))[1].detach()
        step = (self._moves(gradients) @ miss[..., None])[..., 0]
        most = self.effort.trust * (point - self.start).norm(dim=1, keepdim=True) / 2
        return step * (most / step.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)

    def _moves(self, gradients: Float[Tensor, "n k d"]) -> Float[Tensor, "n d k"]:
        spread = torch.cholesky_solve(gradients.mT, self.factor)  # C^-1 G'
        return spread @ torch.linalg.pinv(gradients @ spread, hermitian=True, rtol=1e-6)

    def _plausible(self, point: Tensor) -> Tensor:
        return self.sides.plausible(point.view_as(self.sides.latents.values), FARTHEST).flatten(1)

    def _scanned(self) -> tuple[Float[Tensor, "n k p k"], Float[Tensor, " p"]]:
        """Set columns along every line, from -REACH to REACH."""
        grid = torch.linspace(-REACH, REACH, self.effort.points).to(self.start)
        rows = [
            torch.stack([self.values(self._plausible(self.start + step * self.lines[..., i])) for step in grid], 1)
            for i in range(self.count)
        ]
        return torch.stack(rows, 1), grid


def usually(held: Generated, columns: int, *, seed: int = 0) -> Float[Tensor, "d d"]:
    """E[H'H] in mean squares over ``columns``, of g g' with g the gradients of random mixes of columns at the latents of ``held``.

    Every latent counts the same, as if its trace were the median one: a few whose networks are at their limits would outweigh all others.
    """
    values = held.latents.values
    model, rng = operator(held, values), torch.Generator().manual_seed(seed)
    rows = [model.pull(torch.randn(len(values), 1, model.features.shape[1], generator=rng).to(values))[:, 0] for _ in range(PROBES)]
    gradients = torch.stack(rows, 1).detach().flatten(2)  # (n, PROBES, d)
    traces = gradients.square().sum((1, 2))
    gradients = gradients * (traces.median() / traces.clamp(min=1e-30)).sqrt()[:, None, None]
    return torch.einsum("npi,npj->ij", gradients, gradients) / (PROBES * len(values) * columns)


def crossing(grid: Float[Tensor, " p"], scan: Float[Tensor, "n k p k"], target: Float[Tensor, "n k"]) -> tuple[Tensor, Tensor]:
    """For each column the step along its own line at which it crosses its target, nearest to the start; and the slopes (n, k, k) there.

    Where it never does, the step that comes nearest.
    """
    n, k = target.shape
    along, slopes = torch.zeros_like(target), target.new_zeros(n, k, k)
    rows, width = torch.arange(n, device=target.device), grid[1] - grid[0]
    middle = (grid[:-1] + grid[1:]) / 2
    for i in range(k):
        off = scan[:, i, :, i] - target[:, i, None]  # (n, p)
        crosses = off[:, :-1] * off[:, 1:] <= 0
        wrong_way = middle * off[:, grid.abs().argmin(), None] > 1e-9  # more is ahead, less behind; elsewhere only if there is no other
        cost = torch.where(crosses, middle.abs() + wrong_way * 2 * grid.abs().max(), torch.inf)
        nearest = off.abs().argmin(1)
        place = torch.where(crosses.any(1), cost.argmin(1), nearest.clamp(max=len(grid) - 2))
        low, rise = off[rows, place], off[rows, place + 1] - off[rows, place]
        share = (-low / torch.where(rise.abs() > 1e-9, rise, torch.ones_like(rise))).clamp(0, 1)
        along[:, i] = torch.where(crosses.any(1), grid[place] + share * width, grid[nearest])
        slopes[:, :, i] = (scan[rows, i, place + 1] - scan[rows, i, place]) / width
    return along, slopes


def secant(slopes: Float[Tensor, "n k k"], moved: Float[Tensor, "n k"], changed: Float[Tensor, "n k"]) -> Float[Tensor, "n k k"]:
    """Slopes after a step did what it did (Broyden 1965, eq. 4.5)."""
    surprise = changed - (slopes @ moved[..., None])[..., 0]
    return slopes + surprise[..., None] * moved[:, None] / moved.square().sum(1).clamp(min=1e-6)[:, None, None]


def damped(slopes: Float[Tensor, "n k k"], miss: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The step that the slopes ask for, damped where they vanish and never longer than one deviation."""
    normal = slopes.mT @ slopes + 1e-3 * torch.eye(slopes.shape[1]).to(slopes)
    step = torch.linalg.solve(normal, slopes.mT @ miss[..., None])[..., 0]
    return step / step.norm(dim=1, keepdim=True).clamp(min=1)
