"""Set values by number on a generator that was never trained for it: "yaw = 20 deg, same person, same light".

A gradient of the measuring network finds pixels that please that network and no other. So the values are sought along the lines in which
their columns grow over a population (``census``), which are no picture's own; held features are drawn back where the values do not notice;
and only what the lines cannot reach is left to the network's own gradients, for a limited way. ``search`` has the steps. A pitch is moved
in the mirror image by as much as in the picture, where anything is held. What a second network reads stands beside every value
(``Solution.second``).

Neighbours: ``controller`` searches one straight axis; ``groups`` sets values of generators that were trained for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from steerable import checks, progress
from steerable.controls import asked, solution
from steerable.controls.census import Census, census
from steerable.controls.directions import Directions
from steerable.controls.search import NARROW, Effort, Search, usually
from steerable.controls.sides import Anchored, Population, Sides, listed, missing, population_of, sides_of
from steerable.controls.solution import Solution
from steerable.features import ready
from steerable.features.network import in_mirror, measure
from steerable.protocols import Amounts, Feature, Generator, Images, Knob, Latents, LatentSpace, device_of, home
from steerable.sensitivity import Generated

LOOKED_AT = 48  # latents of the census whose Jacobians say what usually changes a wide held feature
WIDE = 8  # columns from which on a feature is shown as one distance


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
        effort: how long it searches, and how it weighs what; its numbers (``weight=20``, ``trust=0``) are arguments of the call.
        knobs: one a value, neutral None.
        mirrored: what is held beside ``hold``: of some set columns the difference between picture and mirror image.
        lines: (k, d) change of each value for a small step, as the population has it.
    """

    generator: Generator
    set: Mapping[str, Any]
    hold: tuple[Feature, ...]
    features: tuple[Feature, ...]
    axes: Directions | None
    effort: Effort
    knobs: tuple[Knob, ...] = field(init=False)
    space: LatentSpace = field(init=False)
    population: Population = field(init=False)
    census: Census = field(init=False)
    columns: tuple[Feature, ...] = field(init=False)
    watched: tuple[Feature, ...] = field(init=False)
    weights: tuple[float, ...] = field(init=False)
    mirrored: tuple[Feature, ...] = field(init=False)
    judges: Mapping[str, Feature] = field(init=False)
    lines: Tensor = field(init=False)
    _usual: dict[str, Tensor | None] = field(init=False, repr=False)

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
        population: int | None = None,
        **effort: float,
    ) -> None:
        own = tuple(features)
        wanted = asked.mapping(set)
        where = checks.known(space or (axes.space.name if axes is not None else home(generator)), generator.spaces, "latent space")
        device = str(device_of(generator))
        columns = tuple(asked.as_one(name, asked.named(name, own, device)) for name in wanted)
        names = tuple(one.name for one in columns)
        tried = _effort(effort)
        for one, value in zip(columns, wanted.values(), strict=True):
            asked.each(value, Knob(one.name, one.unit, 0.0, 0.0, None))
        held, weights = _held(hold, own, generator, device)
        clash = {name for one in held for name in (one.name, *one.columns)} & {*names}
        if clash:
            raise ValueError(f"{', '.join(sorted(clash))} cannot be set and held at once: take it out of one of them.")
        known = _judges(names, own, judges or {}, device)
        watched = _distinct([*columns, *held, *known.values()])
        mirrored = tuple(in_mirror(one) for one in columns if held and tried.mirror and one.differentiable and one.name in ready.MIRRORED)
        lines = axes is not None and all(name in {knob.name for knob in axes.knobs} for name in names)
        clear = [one for one in watched if not isinstance(one, Anchored)]
        counted = census(generator, [*clear, *mirrored], where, n=population or (128 if lines else 400), axes=axes)
        knobs = tuple(_knob(counted, name) for name in names)
        whole = population_of(generator, (*columns, *held, *mirrored), where)
        usual = tuple(
            known if isinstance(one, Anchored) else counted.spread(one)
            for one, known in zip((*columns, *held, *mirrored), whole.deviations, strict=True)
        )
        given = {
            "generator": generator,
            "set": dict(zip(names, (asked.numbers(v, knob) for v, knob in zip(wanted.values(), knobs, strict=True)), strict=True)),
            "hold": held,
            "features": own,
            "axes": axes,
            "effort": tried,
            "knobs": knobs,
            "space": generator.spaces[where],
            "population": replace(whole, deviations=usual),
            "census": counted,
            "columns": columns,
            "watched": watched,
            "weights": weights,
            "mirrored": mirrored,
            "judges": known,
            "_usual": {},
            "lines": torch.stack([counted.gradient(name).cpu() for name in names]),
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
        names = [knob.name for knob in self.knobs]
        spread = torch.tensor([self.census.deviation(name) for name in names]).to(latents.values)
        weights = (*[1.0] * len(names), *self.weights, *[self.effort.mirror] * len(self.mirrored))
        hidden = missing(self.generator, latents, self.hold)
        clear = [row for row in range(len(latents)) if row not in hidden]
        point = latents.values.clone()
        reachable = point.new_full((len(latents), len(names), 2), torch.nan)
        if clear:
            some = latents[clear] if hidden else latents
            sides = sides_of(self.generator, some, self.columns, (*self.hold, *self.mirrored), weights, self.population)
            size = float(self.census.latents.values.flatten(1).std(0).square().mean().sqrt())
            search = Search(sides, self.lines / spread.cpu()[:, None], size, self.effort, self._usually(sides))
            found = search.found(wanted[clear].to(spread) / spread)
            point[clear] = found.point
            reachable[clear] = found.reachable * spread[:, None]
        moved = latents.at(point)
        return replace(
            self.accounted(latents, moved, wanted, reachable), stayed={row: f"no {name} in its picture" for row, name in hidden.items()}
        )

    def accounted(self, latents: Latents, moved: Latents, wanted: Amounts, reachable: Tensor | None = None) -> Solution:
        """What came of a move, whoever made it: everything measured on the images at both ends.

        Args:
            reachable: (n, k, 2) where that is known; what both ends read where it is NaN or not given.
        """
        with torch.no_grad():
            pictures = self.generator(latents), self.generator(moved)
            first, last = (measure([one for one in self.watched if not isinstance(one, Anchored)], images) for images in pictures)
            for one in self.watched:
                if isinstance(one, Anchored):
                    first[one.name], last[one.name] = _where_it_was(one, *pictures)
        names, units, before, after, deviations = [], [], [], [], []
        for one in self.watched:
            was, now = first[one.name], last[one.name]
            wide = len(one.columns) > WIDE
            usual = self._spread(one)  # (m,)
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
        ends = torch.stack([torch.minimum(first_read, reached), torch.maximum(first_read, reached)], 2)
        return Solution(
            latents=moved,
            knobs=self.knobs,
            requested=asked_for,
            reached=reached,
            second=torch.stack([table.get(name, nothing) for name in judges], 1),
            judges=judges,
            judge_units=tuple(units[names.index(name)] if name else "" for name in judges),
            reachable=ends if reachable is None else torch.where(reachable.isnan(), ends, reachable),
            found=(reached - asked_for).abs() <= self.effort.tolerance * spread,
            columns=tuple(names),
            units=tuple(units),
            before=torch.cat(before, 1),
            after=torch.cat(after, 1),
            deviations=torch.cat(deviations).clamp(min=1e-9),
            held=tuple(name for one in self.hold for name in ([one.name] if len(one.columns) > WIDE else one.columns)),
        )

    def _usually(self, sides: Sides) -> Tensor | None:
        """E[H'H] of what is held and wide, from latents of the census; of regions that pictures decide nothing is known beforehand."""
        if "held" not in self._usual:
            places = [
                i
                for i, one in enumerate(self.hold)
                if sides.widths[len(self.columns) + i] > NARROW and one.differentiable and not isinstance(one, Anchored)
            ]
            features, scales = tuple(self.hold[i] for i in places), tuple(sides.scales[len(self.columns) + i] for i in places)
            around = Generated(self.generator, features, self.census.latents[:LOOKED_AT], scales)
            self._usual["held"] = usually(around, sum(sides.widths[len(self.columns) :])) if places and self.effort.weight else None
        return self._usual["held"]

    def _spread(self, feature: Feature) -> Tensor:
        """One population deviation of every column."""
        if not isinstance(feature, Anchored):
            return self.census.own(feature).std(0)
        place = len(self.columns) + [one.name for one in self.hold].index(feature.name)
        return self.census.values.new_full((len(feature.columns),), self.population.deviations[place])


def _where_it_was(part: Any, before: Images, after: Images) -> tuple[Tensor, Tensor]:
    """A part of both pictures, where the first shows it; nothing of those that do not."""
    clear = part.shown(before).nonzero()[:, 0]
    first, last = (before.new_zeros(len(before), len(part.columns)) for _ in range(2))
    if len(clear):
        view = part.at(before[clear])
        first[clear], last[clear] = view(before[clear]), view(after[clear])
    return first, last


def _held(hold: Any, own: Sequence[Feature], generator: Generator, device: str) -> tuple[tuple[Feature, ...], tuple[float, ...]]:
    several = isinstance(hold, Sequence) and not isinstance(hold, str) and not (len(hold) == 2 and isinstance(hold[1], int | float))
    items = [asked.named(one, own, device) if isinstance(one, str) else one for one in (hold if several else [hold])]
    if not items:
        return (), ()
    found, weights = listed(items, "hold", generator)
    return found, weights


def _judges(names: Sequence[str], own: Sequence[Feature], given: Mapping[str, Feature], device: str) -> dict[str, Feature]:
    mine = {name for one in own for name in one.columns}
    known = {name: given[name] for name in names if name in given}
    for name in given:
        checks.known(name, names, "value that is set")
    for name in names:
        judge = ready.JUDGES.get(name)
        if name not in known and judge is not None and (name not in mine or judge in mine):  # of a yaw of one's own nothing is known
            known[name] = asked.named(judge, own, device)
    return known


def _distinct(features: Sequence[Feature]) -> tuple[Feature, ...]:
    found: dict[str, Feature] = {}
    for one in features:
        found.setdefault(one.name, one)
    return tuple(found.values())


def _effort(given: Mapping[str, float]) -> Effort:
    """The search's numbers.

    Raises:
        ValueError: an unknown one, or one out of its range.
    """
    known = {one.name: one.default for one in fields(Effort)}
    least = {"points": 3, "rounds": 1}
    for name, value in given.items():
        checks.known(name, known, "option of Solve")
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"{name} of Solve is a number of 0 or more, got {value!r}.")
        if isinstance(known[name], int) and (value != int(value) or value < least.get(name, 0)):
            raise ValueError(f"{name} of Solve is a whole number of {least.get(name, 0)} or more, got {value}.")
    return Effort(**given)  # type: ignore[arg-type]


def _knob(counted: Census, name: str) -> Knob:
    ranks = counted.ranks(name)
    return Knob(name, counted.unit(name), ranks[0][1], ranks[-1][1], None, ranks)
