"""A path that moves one thing and holds another, its direction recomputed at every step.

Around a latent, features change by ``J v``. With ``A = J'J`` for what moves and for what is held, the direction that moves
the most for the least held drift maximises the Rayleigh quotient

    v' A_move v  /  v' (A_hold + damping tr(A_hold)/d I) v,

a generalised symmetric eigenproblem. That is the first step (``rayleigh``). From then on the path shall go *further*, and what that means
is in ``growth``; ``straight`` has the courses that a path is compared with, ``sides`` what is measured, ``ledger`` what it cost, and
``driving`` the same step by step, live.

Sources: Rayleigh EigenDirections, ECCV 2022, arXiv 2201.10423; the growth step and the corrections are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable import checks, progress
from steerable.controls import growth, straight
from steerable.controls.growth import Steps, Walked
from steerable.controls.ledger import Judge, Ledger, joined, stretched
from steerable.controls.sides import Population, Sides, listed, missing, population_of, sides_of
from steerable.features import perceptual
from steerable.protocols import Amounts, Feature, Generator, Knob, Latents, LatentSpace, device_of, home

COURSES = ("growing", "recomputed", "straight", "most-change", "least-change", "random")
SOLVERS = ("soft", "hard", "matrix-free")


@dataclass(frozen=True, eq=False)
class Path:
    """Where n trajectories went, and their ledger.

    Attributes:
        waypoints: latents after each step, the start first; a row that arrived stays where it is.
        moved: (steps + 1, n) root-mean-square change of the moved feature since the start, in its unit; of several in deviations.
        drift: (steps + 1, n) the same of the held features.
        reached: (n,) whether the asked amount was reached with every hold kept.
        ledger: move, drift of every held feature, perceptual distance and distance from the mean latent at every way-point.
    """

    waypoints: tuple[Latents, ...]
    moved: Float[Tensor, "s n"]
    drift: Float[Tensor, "s n"]
    reached: Bool[Tensor, " n"]
    ledger: Ledger

    @property
    def end(self) -> Latents:
        return self.waypoints[-1]

    def rows(self, keep: Tensor) -> Path:
        """The paths of some rows."""
        waypoints = tuple(point[keep] for point in self.waypoints)
        return Path(waypoints, self.moved[:, keep], self.drift[:, keep], self.reached[keep], self.ledger.rows(keep.tolist()))


def joined_paths(parts: Sequence[Path]) -> Path:
    """Paths of several batches as one; shorter ones stay at their end."""
    longest = max(len(part.waypoints) for part in parts)
    longer = [[*part.waypoints, *[part.end] * (longest - len(part.waypoints))] for part in parts]
    labels = [part.end.labels for part in parts if part.end.labels is not None]
    like = replace(parts[0].end, values=torch.cat([part.end.values for part in parts]), labels=torch.cat(labels) if labels else None)
    return Path(
        waypoints=tuple(like.at(torch.cat([part[s].values for part in longer])) for s in range(longest)),
        moved=torch.cat([stretched(part.moved, longest) for part in parts], dim=1),
        drift=torch.cat([stretched(part.drift, longest) for part in parts], dim=1),
        reached=torch.cat([part.reached for part in parts]),
        ledger=joined([part.ledger for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Move some features while others are held.

    ``move`` and ``hold`` are a feature, a (feature, weight), any callable images -> (n, m), or a sequence of these; a callable that torch
    cannot differentiate is followed by central differences. Features are compared in population deviations, so that degrees can be
    moved and pixels held. The one knob's amount is the root-mean-square change of the moved feature over its columns, in its own unit (of
    several: in deviations); its sign chooses between the two directions of the first step (positive: its largest component is positive),
    and its range is one deviation to either side.

    Attributes:
        generator: of the latents that will be steered.
        move, hold: features, measured on the generated image; ``weights`` are theirs, the moved ones first.
        course: "growing", recomputed so that the path goes on and on; "recomputed", the eigenvector of every way-point, as the paper
            has it, its sign and subspace continued; "straight", the first direction kept; and as baselines the straight directions
            of "most-change", "least-change" and "random".
        solver: "soft", the generalised eigenproblem; "hard", the null space of what is held; "matrix-free", soft by products with the
            Jacobian, for latents of 512 and more.
        rank: start with the best direction (1), the second best (2), ...
        space: where to steer: z, w, w+; by default w where there is one, the first otherwise.
        leak: drift allowed of every held feature, as a fraction of the asked amount, both root-mean-square and in deviations.
        stride: change of the moved features that one step aims at, in deviations.
        reach: longest step in latent units.
        damping: weight of the identity beside the held Gram matrix, as a fraction of its mean eigenvalue: of the first step; later
            steps choose from ``growth.LADDER`` times as much.
        explained: share of each held feature's variance that the hard solver forbids.
        max_steps: Jacobians, after which a row that has not arrived is left where it is and reported as not reached.
        settling: further Jacobians, at most, of a row that has arrived: what moved stays, what is held is drawn back; 0 for none.
        plausible: how far from the mean latent a path may go, in the distance that 99 of 100 latents keep; farther is drawn back.
        seed: of the random course.
        judge: two batches of images -> distances, for the ledger; the shipped perceptual distance by default, None for none.
        population: deviations of every feature (root-mean-square over its columns, 32 latents of seed 0), and where latents usually are.
    """

    generator: Generator
    move: tuple[Feature, ...]
    hold: tuple[Feature, ...]
    weights: tuple[float, ...]
    steps: Steps
    course: str = "growing"
    seed: int = 0
    judge: Judge | None = None
    knobs: tuple[Knob, ...] = field(init=False)
    space: LatentSpace = field(init=False)
    population: Population = field(init=False)

    def __init__(
        self,
        generator: Generator,
        *,
        move: Any,
        hold: Any,
        course: str = "growing",
        space: str | None = None,
        seed: int = 0,
        judge: Judge | str | None = "shipped",
        **options: Any,
    ) -> None:
        sides = [listed(given, name, generator) for name, given in (("move", move), ("hold", hold))]
        moved, held = sides[0][0], sides[1][0]
        kept = {column for feature in held for column in feature.columns}
        both = {f.name for f in moved if f.name in {one.name for one in held} or kept.issuperset(f.columns)}
        if both:
            raise ValueError(f"{', '.join(sorted(both))} cannot be moved and held at once: take it out of one of them.")
        where = checks.known(space or home(generator), generator.spaces, "latent space")
        name = "+".join(feature.name for feature in moved)
        unit = f"rms {moved[0].unit}".strip() if len(moved) == 1 else "rms deviations"
        given = {
            "generator": generator,
            "move": moved,
            "hold": held,
            "weights": (*sides[0][1], *sides[1][1]),
            "steps": replace(_steps(options), recomputed=course == "recomputed"),
            "course": checks.known(course, COURSES, "course"),
            "seed": seed,
            "judge": perceptual.shipped(device_of(generator)) if isinstance(judge, str) else judge,
            "space": generator.spaces[where],
            "population": population_of(generator, (*moved, *held), where),
        }
        for key, value in given.items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "knobs", (Knob(name, unit, -self.unit, self.unit),))

    @property
    def deviations(self) -> tuple[float, ...]:
        """Of every feature in its own unit, the moved ones first."""
        return self.population.deviations

    @property
    def unit(self) -> float:
        """One deviation of what moves, in the knob's unit."""
        return self.deviations[0] if len(self.move) == 1 else 1.0

    @property
    def held_unit(self) -> float:
        """One deviation of what is held, in the unit of a path's drift: its own, or deviations where several are held."""
        return self.deviations[-1] if len(self.hold) == 1 else 1.0

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """The end of ``path``. Ask ``path`` itself for what was reached and what leaked."""
        return self.path(latents, amounts).end

    def path(self, latents: Latents, amounts: Amounts, *, batch: int = 8) -> Path:
        """Walk every latent to its amount.

        Args:
            latents: n of them, in this control's space.
            amounts: (n, 1) in the knob's unit; 0 leaves a latent exactly where it is. So does a picture that does not show a part
                that is moved or held, a bald head when hair moves: it counts as not reached, and its ledger says why.
            batch: latents whose Jacobians are held in memory at once.

        Raises:
            ValueError: latents of elsewhere, or no latent has a first step: what is held leaves no direction (with its
                rank), the Jacobian is not finite. Later on a path ends there instead, and its ledger says why.
        """
        checks.lives_in(latents, self.space, "this trajectory")
        checks.amounts(amounts, len(latents), self.knobs)
        starts = list(range(0, len(latents), batch))
        parts = [self._walk(latents[i : i + batch], amounts[i : i + batch, 0]) for i in progress.track(starts, "trajectory")]
        asked, path = amounts[:, 0] != 0, joined_paths([part for part, _ in parts])
        wrong = [start + row for start, (_, rows) in zip(starts, parts, strict=True) for row in rows]
        if wrong and len(wrong) == int(asked.sum()) and not bool(path.moved.any()):
            raise ValueError(path.ledger.ends[wrong[0]])
        return path

    def around(self, latents: Latents) -> Sides:
        """Both sides as a function of latents, around these."""
        return sides_of(self.generator, latents, self.move, self.hold, self.weights, self.population)

    def _walk(self, latents: Latents, amounts: Tensor) -> tuple[Path, list[int]]:
        hidden = missing(self.generator, latents, (*self.move, *self.hold))
        if not hidden:
            return self._walked(latents, amounts)
        clear = [row for row in range(len(latents)) if row not in hidden]
        parts, wrong = (
            [self._stayed(latents[list(hidden)], amounts[list(hidden)], [f"no {name} in its picture" for name in hidden.values()])],
            [],
        )
        if clear:
            path, wrong = self._walked(latents[clear], amounts[clear])
            parts.append(path)
        order = torch.tensor([*hidden, *clear]).argsort()
        return joined_paths(parts).rows(order), [clear[row] for row in wrong]

    def _walked(self, latents: Latents, amounts: Tensor) -> tuple[Path, list[int]]:
        sides = self.around(latents)
        amounts = amounts.to(latents.values)
        target, sign = amounts.abs() / self.unit, torch.where(amounts < 0, -1.0, 1.0).to(latents.values)
        if self.course in ("growing", "recomputed"):
            walked = growth.grown(sides, target, sign, self.steps)
        else:
            direction = straight.direction_of(sides, self.course, self.steps, self.seed) * sign[:, None]
            walked = straight.along(sides, direction, target, self.steps)
        return self.accounted(sides, walked, amounts, target), walked.wrong

    def _stayed(self, latents: Latents, amounts: Tensor, ends: Sequence[str]) -> Path:
        """The path of latents that stay where they are, and why."""
        amounts = amounts.to(latents.values)
        nothing = torch.zeros_like(amounts)[None]  # (1, n)
        ledger = self._ledger(
            asked=amounts,
            change=nothing[..., None].expand(-1, -1, len(self.deviations)),
            moved=nothing,
            perceptual=nothing if self.judge else nothing * torch.nan,
            distance=(latents.values - self.population.centre).flatten(1).norm(dim=1)[None],
            allowed=self.steps.leak * amounts.abs() / self.unit,
            ends=tuple(ends),
        )
        return Path((latents,), nothing, nothing, amounts == 0, ledger)

    def _ledger(self, **measured: Any) -> Ledger:
        """The ledger of what is moved and held here, with what was measured on the way."""
        return Ledger(
            knob=self.knobs[0],
            moves=tuple(one.name for one in self.move),
            holds=tuple(one.name for one in self.hold),
            units=tuple(one.unit for one in (*self.move, *self.hold)),
            deviations=self.deviations,
            radius=self.population.radius,
            **measured,
        )

    def accounted(self, sides: Sides, walked: Walked, amounts: Tensor, target: Tensor) -> Path:
        """The path with its ledger, measured anew on the images of its way-points."""
        latents, width = sides.latents, sides.width
        with torch.no_grad():
            pictures = [sides.images(point) for point in walked.points]
            columns = torch.stack([sides.read(images) for images in pictures])
            change = columns - columns[0]  # (s, n, m)
            apart = [self.judge(images, pictures[0]) if self.judge else target * torch.nan for images in pictures]
        away = [(point - self.population.centre).flatten(1).norm(dim=1) for point in walked.points]
        moved, drift = (part.square().mean(-1).sqrt() for part in (change[..., :width], change[..., width:]))
        ledger = self._ledger(
            asked=amounts,
            change=sides.deviations(change) * change.new_tensor(self.deviations),
            moved=moved * self.unit,
            perceptual=torch.stack(apart),
            distance=torch.stack(away),
            allowed=self.steps.leak * target,
            ends=tuple(walked.ends),
        )
        held = ledger.in_deviations[-1, :, len(self.move) :].amax(-1)
        reached = ((moved[-1] - target).abs() <= 0.02 * target) & (held <= ledger.allowed * 1.001 + 1e-6)
        return Path(tuple(latents.at(point) for point in walked.points), ledger.moved, drift * self.held_unit, reached, ledger)


def _steps(options: dict[str, Any]) -> Steps:
    known = [one.name for one in fields(Steps) if one.name != "recomputed"]
    for name, value in options.items():
        checks.known(name, known, "option of Trajectory")
        if name == "solver":
            checks.known(value, SOLVERS, "solver")
        elif name == "settling" and value == 0:
            continue
        elif not value > 0 or value == float("inf"):
            raise ValueError(f"{name} of a trajectory is a number above 0, got {value}.")
    for name in ("rank", "max_steps", "settling"):
        if options.get(name, 1) != int(options.get(name, 1)):
            raise ValueError(f"{name} of a trajectory is a whole number, got {options[name]}.")
    if not options.get("explained", 0.5) <= 1:
        raise ValueError(f"explained of a trajectory is a share up to 1, got {options['explained']}.")
    return Steps(**options)
