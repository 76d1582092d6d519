"""Set values by number on a generator that was never trained for it: "yaw = 20 deg, same person, same light".

Around its start a latent moves measured columns by ``G dz`` and held features by ``J dz``. The step that moves the columns by the
asked ``r`` for the least held drift and the least change of the latent is a damped Gauss-Newton step with constraints,

    dz = D r - (1 - D G) C^-1 J'e,      C = 1/s^2 + weight J'J,      D = C^-1 G' (G C^-1 G')^-1,

e being the drift so far and s the deviation of the latents. ``G`` is what keeps it honest. A gradient of the measuring network finds pixels
that please that network and no other; here G holds the lines along which the columns grow over a population (``census``), no picture's
own. Only what they cannot reach is left to the gradients at hand, for a limited way (``trust``). What a second network reads stands beside
every value.

Neighbours: ``controller`` searches one straight axis; ``groups`` sets values of generators that were trained for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks, progress
from steerable.controls import asked, solution
from steerable.controls.census import Census, census
from steerable.controls.directions import Directions
from steerable.controls.sides import Population, Sides, listed, population_of, sides_of
from steerable.controls.solution import Solution
from steerable.features import ready
from steerable.features.network import measure
from steerable.protocols import Amounts, Feature, Generator, Knob, Latents, LatentSpace, home
from steerable.sensitivity import Generated, jacobian

WIDE = 8  # columns from which on a feature is shown as one distance
REACH = 4.0  # deviations of the column that the search looks to either side
KEPT = 32  # principal directions of a wide held feature that its Jacobian keeps


@dataclass(frozen=True, eq=False)
class Solve:
    """A control whose amounts are the values themselves: ``Solve(generator, set={"yaw": 20}, hold=["identity", "brightness"])``.

    Attributes:
        generator: of the latents that will be steered.
        set: names of columns, and what each is set to: a number in its unit, a percentile of the population ("p90"), or a list with one
            of them a picture. ``steer`` and ``solve`` take other values as amounts.
        hold: features that stay: by name, features, (feature, weight), or any callable images -> numbers.
        features: of your own, to set or to hold by name; the ready ones (``load_feature``) are known.
        axes: directions fitted already (``fit_axes``); their lines are used instead of those that 400 latents give.
        judges: column -> a feature of one column that stands beside it; the ready ones have theirs (yaw: yaw68).
        space: where to steer; that of the axes, or w where there is one, the first otherwise.
        weight: of the held drift, in squared deviations, beside the latent's own change, in squared deviations.
        trust: how far the gradients at hand may go on beyond the lines, as a fraction of the way so far.
        points, rounds: of the scan of what is reachable, and of steps after it.
        tolerance: of a value that counts as reached, in population deviations.
        knobs: one a value, neutral None.
    """

    generator: Generator
    set: Mapping[str, Any]
    hold: tuple[Feature, ...]
    features: tuple[Feature, ...]
    axes: Directions | None
    weight: float
    trust: float
    points: int
    rounds: int
    tolerance: float
    knobs: tuple[Knob, ...] = field(init=False)
    space: LatentSpace = field(init=False)
    population: Population = field(init=False)
    census: Census = field(init=False)
    columns: tuple[Feature, ...] = field(init=False)
    watched: tuple[Feature, ...] = field(init=False)
    weights: tuple[float, ...] = field(init=False)
    judges: Mapping[str, Feature] = field(init=False)

    def __init__(
        self,
        generator: Generator,
        set: Mapping[str, Any],
        hold: Any = (),
        *,
        features: Sequence[Feature] = (),
        axes: Directions | None = None,
        judges: Mapping[str, Feature] | None = None,
        space: str | None = None,
        weight: float = 10.0,
        trust: float = 0.25,
        points: int = 9,
        rounds: int = 6,
        tolerance: float = 0.03,
        population: int | None = None,
    ) -> None:
        for name, value in (("weight", weight), ("trust", trust), ("tolerance", tolerance)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} of Solve is a number of 0 or more, got {value}.")
        if points < 3 or rounds < 1:
            raise ValueError(f"Solve looks at 3 points or more and takes 1 step or more, got points={points}, rounds={rounds}.")
        own = tuple(features)
        wanted = asked.mapping(set)
        columns = tuple(asked.as_one(name, asked.named(name, own)) for name in wanted)
        names = tuple(one.name for one in columns)
        held, weights = _held(hold, own, generator)
        clash = {name for one in held for name in (one.name, *one.columns)} & {*names}
        if clash:
            raise ValueError(f"{', '.join(sorted(clash))} cannot be set and held at once: take it out of one of them.")
        where = checks.known(space or (axes.space.name if axes is not None else home(generator)), generator.spaces, "latent space")
        known = _judges(names, own, judges or {})
        watched = _distinct([*columns, *held, *known.values()])
        lines = axes is not None and all(name in {knob.name for knob in axes.knobs} for name in names)
        counted = census(generator, watched, where, n=population or (128 if lines else 400), axes=axes)
        knobs = tuple(_knob(counted, name) for name in names)
        usual = tuple(counted.spread(one) for one in (*columns, *held))
        given = {
            "generator": generator,
            "set": dict(zip(names, (asked.numbers(v, knob) for v, knob in zip(wanted.values(), knobs, strict=True)), strict=True)),
            "hold": held,
            "features": own,
            "axes": axes,
            "weight": weight,
            "trust": trust,
            "points": points,
            "rounds": rounds,
            "tolerance": tolerance,
            "knobs": knobs,
            "space": generator.spaces[where],
            "population": replace(population_of(generator, (*columns, *held), where), deviations=usual),
            "census": counted,
            "columns": columns,
            "watched": watched,
            "weights": weights,
            "judges": known,
        }
        for key, value in given.items():
            object.__setattr__(self, key, value)

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """The latents at which the values are measured, or come nearest. ``solve`` says how near, and at what cost."""
        return self.solve(latents, amounts).latents

    def solve(self, latents: Latents, amounts: Amounts | None = None, *, batch: int = 16) -> Solution:
        """Search for every latent's values.

        Args:
            latents: n of them, in this control's space.
            amounts: (n, k) values in the knobs' units; by default those of ``set``.
            batch: latents whose Jacobians are held in memory at once.

        Raises:
            ValueError: latents of elsewhere, values that are not finite, or another number of them than latents.
        """
        checks.lives_in(latents, self.space, "this control")
        wanted = self.values(len(latents)) if amounts is None else amounts
        checks.amounts(wanted, len(latents), self.knobs)
        starts = progress.track(range(0, len(latents), batch), "set values")
        return solution.joined([self._solve(latents[i : i + batch], wanted[i : i + batch]) for i in starts])

    def options(self) -> dict[str, float]:
        """The numbers that the search was made with."""
        names = ("weight", "trust", "points", "rounds", "tolerance")
        return {name: float(getattr(self, name)) for name in names}

    def values(self, n: int) -> Amounts:
        """(n, k) of what was asked for.

        Raises:
            ValueError: a list of another number of values than n.
        """
        for name, given in self.set.items():
            if len(given) not in (1, n):
                raise ValueError(f"{name} was given {len(given)} values for {n} latents: give one, or one a latent.")
        return torch.stack([given.expand(n) for given in self.set.values()], 1)

    def _solve(self, latents: Latents, wanted: Amounts) -> Solution:
        k = len(self.knobs)
        spread = torch.tensor([self.census.deviation(knob.name) for knob in self.knobs]).to(latents.values)
        target = wanted.to(latents.values) / spread  # (n, k), everything below in deviations
        here = _Around(self, latents)
        scan, grid = here.scanned(self.points)  # (n, k, points, k)
        own = torch.stack([scan[:, i, :, i] for i in range(k)], 1)  # (n, k, points)
        reachable = torch.stack([own.amin(2), own.amax(2)], 2)
        along, slopes = _crossing(grid, scan, target)
        best, error = here.start, torch.full_like(target[:, 0], torch.inf)
        aside = torch.zeros_like(here.start)  # what hold corrections and the gradients at hand add
        values = drift = before = None
        for step in range(self.rounds + (2 if self.trust else 0)):
            point = here.plausible(here.start + (here.lines @ along[..., None])[..., 0] + aside)
            values, drift = here.read(point)
            miss = target - values
            size = miss.abs().amax(1)
            better = size < error
            best, error = torch.where(better[:, None], point, best), torch.where(better, size, error)
            reachable = torch.stack([torch.minimum(reachable[..., 0], values), torch.maximum(reachable[..., 1], values)], 2)
            if bool((error <= self.tolerance / 3).all()):
                break
            if step < self.rounds:
                if before is not None:
                    slopes = _secant(slopes, along - before[0], values - before[1])
                before = along, values
                along = along + _damped(slopes, miss)
                aside = aside - here.pulled(drift)
            else:
                late = here.gradients(best)
                aside = best - here.start + here.limited(best, late, target - here.read(best)[0], self.trust)
                along = torch.zeros_like(along)
        return self.accounted(latents, latents.at(best.view_as(latents.values)), wanted, reachable * spread[:, None])

    def accounted(self, latents: Latents, moved: Latents, wanted: Amounts, reachable: Tensor | None = None) -> Solution:
        """What came of a move, whoever made it: everything measured on the images at both ends.

        Args:
            reachable: (n, k, 2) where that is known; otherwise what both ends read.
        """
        with torch.no_grad():
            pictures = self.generator(latents), self.generator(moved)
            first, last = (measure(self.watched, images) for images in pictures)
        names, units, before, after, deviations = [], [], [], [], []
        for one in self.watched:
            was, now = first[one.name], last[one.name]
            wide = len(one.columns) > WIDE
            usual = torch.stack([self.census.column(name) for name in one.columns], 1).std(0)  # (m,)
            names += [one.name] if wide else one.columns
            units += [one.unit] * (1 if wide else len(one.columns))
            before.append(torch.zeros_like(was[:, :1]) if wide else was)
            after.append((now - was).norm(dim=1, keepdim=True) if wide else now)
            deviations.append(usual.norm()[None] if wide else usual)
        judges = tuple(self.judges[knob.name].columns[0] if knob.name in self.judges else "" for knob in self.knobs)
        table = dict(zip(names, torch.cat(after, 1).unbind(1), strict=True))
        reached = torch.stack([table[knob.name] for knob in self.knobs], 1)
        begun = dict(zip(names, torch.cat(before, 1).unbind(1), strict=True))
        first_read = torch.stack([begun[knob.name] for knob in self.knobs], 1)
        nothing = torch.full_like(reached[:, 0], torch.nan)
        spread = reached.new_tensor([self.census.deviation(knob.name) for knob in self.knobs])
        asked_for = wanted.to(reached)
        return Solution(
            latents=moved,
            knobs=self.knobs,
            requested=asked_for,
            reached=reached,
            second=torch.stack([table.get(name, nothing) for name in judges], 1),
            judges=judges,
            judge_units=tuple(units[names.index(name)] if name else "" for name in judges),
            reachable=torch.stack([torch.minimum(first_read, reached), torch.maximum(first_read, reached)], 2)
            if reachable is None
            else reachable,
            found=(reached - asked_for).abs() <= self.tolerance * spread,
            columns=tuple(names),
            units=tuple(units),
            before=torch.cat(before, 1),
            after=torch.cat(after, 1),
            deviations=torch.cat(deviations).clamp(min=1e-9),
            held=tuple(name for one in self.hold for name in ([one.name] if len(one.columns) > WIDE else one.columns)),
        )


class _Around:
    """n latents, flattened, with their lines (n, d, k): what one deviation of each column costs, the others and the held staying."""

    def __init__(self, control: Solve, latents: Latents) -> None:
        self.latents, self.control = latents, control
        self.start = latents.values.flatten(1)  # (n, d)
        weights = (*[1.0] * len(control.columns), *control.weights)
        self.sides: Sides = sides_of(control.generator, latents, control.columns, control.hold, weights, control.population)
        self.size = float(control.census.latents.values.flatten(1).std(0).square().mean().sqrt())
        n, d = self.start.shape
        metric = torch.eye(d).to(self.start).expand(n, -1, -1) / self.size**2
        self.held = None
        if control.hold and control.weight:
            self.held = self._held_rows()
            metric = metric + control.weight * self.held.mT @ self.held
        self.factor = torch.linalg.cholesky(metric)
        lines = [control.census.gradient(knob.name) / control.census.deviation(knob.name) for knob in control.knobs]
        self.trusted = torch.stack(lines).to(self.start).expand(n, -1, -1)  # (n, k, d)
        self.lines = self._lines(self.trusted)
        with torch.no_grad():
            self.before = self.sides(latents.values)[:, len(control.columns) :]

    def _held_rows(self) -> Float[Tensor, "n m d"]:
        """Jacobian of the held features, in root-mean-square deviations of each; wide ones by their principal directions."""
        control, k = self.control, len(self.control.columns)
        scales = self.sides.scales[k:]
        held = Generated(control.generator, self.sides.hold, self.latents, scales)
        _, rows = jacobian(held, self.latents.values)
        total = sum(self.sides.widths[k:])
        return rows.detach() / total**0.5

    def _lines(self, gradients: Float[Tensor, "n k d"]) -> Float[Tensor, "n d k"]:
        spread = torch.cholesky_solve(gradients.mT, self.factor)  # C^-1 G'
        effect = gradients @ spread  # (n, k, k)
        return spread @ torch.linalg.pinv(effect, hermitian=True, rtol=1e-6)

    def read(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Set columns (n, k) and held drift since the start."""
        with torch.no_grad():
            values = self.sides(point.view_as(self.latents.values))
        k = len(self.control.columns)
        return values[:, :k], values[:, k:] - self.before

    def plausible(self, point: Tensor) -> Tensor:
        return self.sides.plausible(point.view_as(self.latents.values), 1.2).flatten(1)

    def scanned(self, points: int) -> tuple[Float[Tensor, "n k p k"], Float[Tensor, " p"]]:
        """Set columns along every line, at steps from -REACH to REACH deviations as the lines predict them."""
        grid = torch.linspace(-REACH, REACH, points).to(self.start)
        rows = []
        for i in range(self.lines.shape[2]):
            along = [self.read(self.plausible(self.start + step * self.lines[..., i]))[0] for step in grid]
            rows.append(torch.stack(along, 1))  # (n, p, k)
        return torch.stack(rows, 1), grid

    def pulled(self, drift: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
        """The step that takes held drift back where the set columns do not notice."""
        if self.held is None:
            return torch.zeros_like(self.start)
        back = self.control.weight * self.held.mT @ (drift / drift.shape[1] ** 0.5)[..., None]
        step = torch.cholesky_solve(back, self.factor)
        return (step - self.lines @ (self.trusted @ step))[..., 0]

    def gradients(self, point: Tensor) -> Float[Tensor, "n k d"]:
        """Of the set columns at a point: what their networks say there."""
        k = len(self.control.columns)
        local = Generated(self.control.generator, self.sides.move, self.latents, self.sides.scales[:k])
        return jacobian(local, point.view_as(self.latents.values))[1].detach()

    def limited(self, point: Tensor, gradients: Tensor, miss: Tensor, trust: float) -> Tensor:
        """A Gauss-Newton step by the gradients at hand, no longer than a share of the way so far."""
        step = (self._lines(gradients) @ miss[..., None])[..., 0]
        most = trust * (point - self.start).norm(dim=1, keepdim=True) / 2
        return step * (most / step.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)


def _crossing(grid: Float[Tensor, " p"], scan: Float[Tensor, "n k p k"], target: Float[Tensor, "n k"]) -> tuple[Tensor, Tensor]:
    """For each column the step along its own line at which it crosses its target, nearest to the start; and the slopes (n, k, k) there.

    Where it never does, the step that comes nearest.
    """
    n, k = target.shape
    along, slopes = torch.zeros_like(target), target.new_zeros(n, k, k)
    rows = torch.arange(n, device=target.device)
    for i in range(k):
        values = scan[:, i, :, i]  # (n, p)
        off = values - target[:, i, None]
        crosses = off[:, :-1] * off[:, 1:] <= 0
        middle = (grid[:-1] + grid[1:]) / 2
        toward = off[:, grid.abs().argmin(), None].sign() * -1
        cost = middle.abs() + (middle * toward < -1e-9) * 2 * grid.abs().max()
        place = torch.where(crosses, cost, torch.inf).argmin(1)
        nearest = off.abs().argmin(1)
        place = torch.where(crosses.any(1), place, nearest.clamp(max=len(grid) - 2))
        low, high = off[rows, place], off[rows, place + 1]
        share = (-low / torch.where((high - low).abs() > 1e-9, high - low, torch.ones_like(low))).clamp(0, 1)
        width = grid[1] - grid[0]
        between = grid[place] + share * width
        along[:, i] = torch.where(crosses.any(1), between, grid[nearest])
        slopes[:, :, i] = (scan[rows, i, place + 1] - scan[rows, i, place]) / width
    return along, slopes


def _secant(slopes: Float[Tensor, "n k k"], moved: Float[Tensor, "n k"], changed: Float[Tensor, "n k"]) -> Tensor:
    """Broyden's update of the slopes by what a step really did (Broyden 1965, eq. 4.5)."""
    surprise = changed - (slopes @ moved[..., None])[..., 0]
    return slopes + surprise[..., None] * moved[:, None] / moved.square().sum(1).clamp(min=1e-6)[:, None, None]


def _damped(slopes: Float[Tensor, "n k k"], miss: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The step that the slopes ask for, damped where they vanish and never longer than one deviation."""
    normal = slopes.mT @ slopes + 1e-3 * torch.eye(slopes.shape[1]).to(slopes)
    step = torch.linalg.solve(normal, slopes.mT @ miss[..., None])[..., 0]
    return step * (1 / step.norm(dim=1, keepdim=True).clamp(min=1))


def _held(hold: Any, own: Sequence[Feature], generator: Generator) -> tuple[tuple[Feature, ...], tuple[float, ...]]:
    several = isinstance(hold, Sequence) and not isinstance(hold, str) and not (len(hold) == 2 and isinstance(hold[1], int | float))
    items = [asked.named(one, own) if isinstance(one, str) else one for one in (hold if several else [hold])]
    if not items:
        return (), ()
    found, weights = listed(items, "hold", generator)
    return found, weights


def _judges(names: Sequence[str], own: Sequence[Feature], given: Mapping[str, Feature]) -> dict[str, Feature]:
    mine = {name for one in own for name in one.columns}
    known = {name: given[name] for name in names if name in given}
    for name in given:
        checks.known(name, names, "value that is set")
    for name in names:
        if name not in known and name in ready.JUDGES and name not in mine:
            known[name] = asked.named(ready.JUDGES[name], own)
    return known


def _distinct(features: Sequence[Feature]) -> tuple[Feature, ...]:
    found: dict[str, Feature] = {}
    for one in features:
        found.setdefault(one.name, one)
    return tuple(found.values())


def _knob(counted: Census, name: str) -> Knob:
    ranks = counted.ranks(name)
    return Knob(name, counted.unit(name), ranks[0][1], ranks[-1][1], None, ranks)
