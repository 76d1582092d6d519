"""A path that moves one thing and holds another, its direction recomputed at every step.

Around a latent, features change by ``J v``. With ``A = J'J`` for what moves and for what is held, the direction that moves
the most for the least held drift maximises the Rayleigh quotient

    v' A_move v  /  v' (A_hold + damping tr(A_hold)/d I) v,

a generalised symmetric eigenproblem. That is the first step. From then on the path shall go *further*: what counts is no longer
any change but the growth of the distance already covered, whose gradient is ``g``, and the same quotient with ``g g'`` in
place of ``A_move`` has the closed solution ``P g`` with ``P = (A_hold + ...)^-1``. Each step

    P (s g - J_hold' slip)     with s such that the moved features change by what is wanted

also takes back the slip so far (a damped Gauss-Newton correction). Then the same correction, with what it costs in distance added
again along ``P g``, is repeated where the step ended: only images are measured anew; the Jacobian, which costs as much as a hundred
images, is kept. How much damping is best changes from place to place, so a ladder of them is tried, measured, and the best kept; a
step that leaves the hold or does not pay is halved.

Sources: Rayleigh EigenDirections, ECCV 2022, arXiv 2201.10423; the growth step and the corrections are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable import checks, progress, sensitivity
from steerable.protocols import Amounts, Feature, Generator, Knob, Latents, LatentSpace, home

LADDER = (0.1, 0.3, 1.0, 5.0, 20.0)  # dampings that every later step is tried with
CORRECTIONS = 4  # of each trial, with the Jacobian of where it began
HALVINGS = 6  # after which a row has no way on
PAYS = 0.25  # the least share of the wanted change that is worth a step


@dataclass(frozen=True, eq=False)
class Path:
    """Where a trajectory went, and its ledger.

    Attributes:
        waypoints: latents after each step, the start first; a row that arrived stays where it is.
        moved: (steps + 1, n) root-mean-square change of the moved feature since the start, in its unit; of several in deviations.
        drift: (steps + 1, n) the same of the held features.
        reached: (n,) whether the asked amount was reached with the hold kept.
    """

    waypoints: tuple[Latents, ...]
    moved: Float[Tensor, "s n"]
    drift: Float[Tensor, "s n"]
    reached: Bool[Tensor, " n"]

    @property
    def end(self) -> Latents:
        return self.waypoints[-1]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Move some features while others are held.

    Features are compared in population deviations, so that degrees can be moved and pixels held. The one knob's amount is the
    root-mean-square change of the moved feature over its columns, in its own unit (of several: in deviations); its sign chooses between the
    two directions of the first step (positive: its largest component is positive), and its range is one deviation to either side.

    Attributes:
        generator: of the latents that will be steered.
        move, hold: features, measured on the generated image.
        leak: held drift allowed, as a fraction of the asked amount, both root-mean-square and in deviations.
        stride: change of the moved features that one step aims at, in deviations.
        reach: longest step in latent units.
        damping: weight of the identity beside the held Gram matrix, as a fraction of its mean eigenvalue: of the first step; later
            steps choose from ``LADDER`` times as much.
        max_steps: Jacobians, after which a row that has not arrived is left where it is and reported as not reached.
        deviations: of every feature, the moved ones first: root-mean-square over its columns, measured on 32 latents of seed 0.
    """

    generator: Generator
    move: tuple[Feature, ...]
    hold: tuple[Feature, ...]
    leak: float = 0.08
    stride: float = 0.34
    reach: float = 1.5
    damping: float = 0.1
    max_steps: int = 40
    knobs: tuple[Knob, ...] = field(init=False)
    space: LatentSpace = field(init=False)
    deviations: tuple[float, ...] = field(init=False)

    def __init__(
        self, generator: Generator, *, move: Feature | Sequence[Feature], hold: Feature | Sequence[Feature], **options: float
    ) -> None:
        known = ("leak", "stride", "reach", "damping", "max_steps")
        for name, value in options.items():
            object.__setattr__(self, checks.known(name, known, "option of Trajectory"), value)
            if not value > 0:
                raise ValueError(f"{name} of a trajectory is a number above 0, got {value}.")
        for name, given in (("move", move), ("hold", hold)):
            features = tuple(given) if isinstance(given, Sequence) else (given,)
            if not features:
                raise ValueError(f"a trajectory needs something to {name}: give at least one feature.")
            object.__setattr__(self, name, features)
        both = {f.name for f in self.move} & {f.name for f in self.hold}
        if both:
            raise ValueError(f"{', '.join(sorted(both))} cannot be moved and held at once: take it out of one of them.")
        name = "+".join(feature.name for feature in self.move)
        unit = f"rms {self.move[0].unit}".strip() if len(self.move) == 1 else "rms deviations"
        object.__setattr__(self, "generator", generator)
        object.__setattr__(self, "deviations", _deviations(generator, (*self.move, *self.hold)))
        object.__setattr__(self, "knobs", (Knob(name, unit, -self.unit, self.unit),))
        object.__setattr__(self, "space", generator.spaces[home(generator)])

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
            amounts: (n, 1) in the knob's unit; 0 leaves a latent exactly where it is.
            batch: latents whose Jacobians are held in memory at once.
        """
        checks.lives_in(latents, self.space, "this trajectory")
        checks.amounts(amounts, len(latents), self.knobs)
        starts = list(range(0, len(latents), batch))
        parts = [
            self._walk(latents[i : i + batch], amounts[i : i + batch, 0]) for i in progress.track(starts, "trajectory", total=len(starts))
        ]
        longest = max(len(part.waypoints) for part in parts)
        stretched = [[*part.waypoints, *[part.end] * (longest - len(part.waypoints))] for part in parts]
        return Path(
            waypoints=tuple(latents.at(torch.cat([part[s].values for part in stretched])) for s in range(longest)),
            moved=torch.cat([_stretch(part.moved, longest) for part in parts], dim=1),
            drift=torch.cat([_stretch(part.drift, longest) for part in parts], dim=1),
            reached=torch.cat([part.reached for part in parts]),
        )

    def _walk(self, latents: Latents, amounts: Tensor) -> Path:
        local = _Local(self, latents)
        target, sign = amounts.abs().to(latents.values) / self.unit, torch.where(amounts < 0, -1.0, 1.0).to(latents.values)
        z, start = latents.values, local.features(latents.values)
        points, moved, drift = [z], [torch.zeros_like(target)], [torch.zeros_like(target)]
        stuck = torch.zeros_like(target, dtype=torch.bool)
        for _ in range(int(self.max_steps)):
            active = ((moved[-1] - target).abs() > 0.01 * target) & ~stuck
            if not bool(active.any()):
                break
            rows = active.nonzero()[:, 0]
            model = self._linearised(local.rows(rows), z[rows], start[rows], target[rows], moved[-1][rows], sign[rows])
            ahead, far, off, found = self._advanced(model)
            z = z.index_copy(0, rows[found], ahead[found])
            points.append(z)
            moved.append(moved[-1].index_copy(0, rows[found], far[found]))
            drift.append(drift[-1].index_copy(0, rows[found], off[found]))
            stuck = stuck.index_copy(0, rows, ~found)
        reached = ((moved[-1] - target).abs() <= 0.02 * target) & (drift[-1] <= self.leak * target)
        waypoints = tuple(latents.at(point) for point in points)
        return Path(waypoints, torch.stack(moved) * self.unit, torch.stack(drift) * self.held_unit, reached)

    def _linearised(self, local: _Local, z: Tensor, start: Tensor, target: Tensor, far: Tensor, sign: Tensor) -> _Linear:
        """The ingredients of the docstring's step for each row, once for every damping."""
        features, jac = local.jacobian(z)
        change, slip = (features - start)[:, : local.width], (features - start)[:, local.width :]
        jac_move, jac_hold = jac[:, : local.width] / change.shape[1] ** 0.5, jac[:, local.width :] / slip.shape[1] ** 0.5
        values, vectors = torch.linalg.eigh(jac_hold.mT @ jac_hold)  # A_hold   (n, d), (n, d, d)
        floor = values.mean(1, keepdim=True).clamp(min=1e-12)
        damped = torch.stack([values.clamp(min=0) + step * self.damping * floor + 1e-12 for step in LADDER])  # (l, n, d)

        gradient = (jac_move.mT @ (change / change.shape[1] ** 0.5)[..., None])[..., 0] / far.clamp(min=1e-6)[:, None]  # g   (n, d)
        first = far <= 1e-6
        if bool(first.any()):
            middle = damped[LADDER.index(1.0), first]
            factor = torch.linalg.cholesky((vectors[first] * middle[:, None]) @ vectors[first].mT)
            best = first_direction(jac_move[first].mT @ jac_move[first], factor) * sign[first, None]
            length = (jac_move[first] @ best[..., None]).norm(dim=1)
            gradient[first] = best * length  # so that "g v" is the change along it
        model = _Linear(local, z, start, target, far, first, gradient, jac_hold, vectors, damped, gradient, gradient)
        ahead = torch.where(first[:, None], gradient, model.solved(gradient))
        return replace(model, ahead=ahead, back=-model.solved((jac_hold.mT @ (slip / slip.shape[1] ** 0.5)[..., None])[..., 0]))

    def _advanced(self, model: _Linear) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where each row goes, its change and drift there, and whether any such place was found."""
        ahead, far, off = model.z.clone(), model.far.clone(), torch.zeros_like(model.far)
        found = torch.zeros_like(model.far, dtype=torch.bool)
        for halving in range(HALVINGS):
            rows = (~found).nonzero()[:, 0]
            here = model.rows(rows)
            gain = (here.target - here.far).clamp(-self.stride, self.stride) / 2**halving
            trial, change, drift = here.tried(gain, self.reach)  # (l, n, *shape), (l, n), (l, n)
            missing = (here.target - change).abs() + 0.01 * drift  # among equals the one that holds better
            missing = torch.where(drift <= self.leak * here.target, missing, torch.inf)
            best = missing.argmin(0)
            column = torch.arange(len(rows))
            good = missing[best, column] <= (here.target - here.far).abs() - PAYS * gain.abs()
            place = rows[good]
            ahead[place], far[place], off[place] = (one[best, column][good] for one in (trial, change, drift))
            found[place] = True
            if bool(found.all()):
                break
        return ahead, far, off, found


@dataclass(frozen=True, eq=False)
class _Linear:
    """The local model of n rows at l dampings: everything that the steps from one place share."""

    local: _Local
    z: Tensor  # (n, *shape)
    start: Tensor  # (n, m) features
    target: Tensor  # (n,)
    far: Tensor  # (n,)
    first: Tensor  # (n,) whether no step was taken yet
    gradient: Tensor  # g   (n, d)
    jac_hold: Tensor  # (n, h, d)
    vectors: Tensor  # of A_hold   (n, d, d)
    damped: Tensor  # its eigenvalues   (l, n, d)
    ahead: Tensor  # P g   (l, n, d)
    back: Tensor  # -P J_hold' slip   (l, n, d)

    def rows(self, keep: Tensor) -> _Linear:
        if len(keep) == len(self.z):
            return self
        names = ("z", "start", "target", "far", "first", "gradient", "jac_hold", "vectors")
        parts = {name: getattr(self, name)[keep] for name in names}
        parts |= {name: getattr(self, name)[:, keep] for name in ("damped", "ahead", "back")}
        return replace(self, local=self.local.rows(keep), **parts)

    def solved(self, right: Tensor) -> Tensor:
        """``P right`` for every damping; (n, d) or (l, n, d) -> (l, n, d)."""
        turned = (right[..., None, :] @ self.vectors)[..., 0, :]
        return ((turned / self.damped)[..., None, :] @ self.vectors.mT)[..., 0, :]

    def along(self, step: Tensor, change: Tensor | float) -> Tensor:
        """The step with as much of ``P g`` added that the moved features change by ``change``, (l, n, d)."""
        slope = (self.gradient * self.ahead).sum(-1).clamp(min=1e-9)
        return step + ((change - (self.gradient * step).sum(-1)) / slope)[..., None] * self.ahead

    def tried(self, gain: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
        """Where a step towards ``gain`` ends with every damping after its corrections, and change and drift there."""
        step = self.along(self.back, gain)
        step = step * (reach / step.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        for _ in range(0 if bool(self.first.all()) else CORRECTIONS):
            _, slip = self._changed(step)
            pull = (slip.transpose(0, 1) @ self.jac_hold).transpose(0, 1) / slip.shape[-1] ** 0.5  # J_hold' slip   (l, n, d)
            correction = self.along(-self.solved(pull), 0.0)
            step = step + torch.where(self.first[:, None], 0.0, correction)  # the first direction stays the eigenvector
        moved, slip = self._changed(step)
        trial = self.z + step.view(len(step), *self.z.shape)
        return trial, moved.square().mean(-1).sqrt(), slip.square().mean(-1).sqrt()

    def _changed(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Change of what moves and of what is held, (l, n, pixels) each."""
        trial = self.z + step.view(len(step), *self.z.shape)
        change = self.local.features(trial.flatten(0, 1)).unflatten(0, (len(trial), -1)) - self.start
        return change[..., : self.local.width], change[..., self.local.width :]


class _Local:
    """The features of one batch as a function of latent values: moved columns first, then the held ones.

    Each feature is scaled so that the mean square over all columns of a side is the mean over its features of their own mean squares,
    in population deviations: a feature of many columns weighs no more than one of few.
    """

    def __init__(self, trajectory: Trajectory, latents: Latents) -> None:
        self.trajectory, self.latents = trajectory, latents
        with torch.no_grad():
            image = trajectory.generator(latents[:1])
            sides = [[feature(image).shape[1] for feature in side] for side in (trajectory.move, trajectory.hold)]
        self.width = sum(sides[0])
        shares = [(sum(side) / (len(side) * width)) ** 0.5 for side in sides for width in side]
        self.scales = tuple(share / deviation for share, deviation in zip(shares, trajectory.deviations, strict=True))

    def rows(self, keep: Tensor) -> _Local:
        return _Local(self.trajectory, self.latents[keep])

    def __call__(self, values: Tensor) -> Tensor:
        count = len(values) // len(self.latents)
        labels = self.latents.labels
        latents = Latents(values, self.latents.space, None if labels is None else labels.repeat(count))
        images = self.trajectory.generator(latents)
        features = (*self.trajectory.move, *self.trajectory.hold)
        return torch.cat([scale * feature(images) for feature, scale in zip(features, self.scales, strict=True)], dim=1)

    def features(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            return self(values)

    def jacobian(self, values: Tensor) -> tuple[Tensor, Tensor]:
        smooth = all(feature.differentiable for feature in (*self.trajectory.move, *self.trajectory.hold))
        return sensitivity.jacobian(self, values, method="auto" if smooth else "difference", chunk=20)


def first_direction(move: Float[Tensor, "n d d"], factor: Float[Tensor, "n d d"]) -> Float[Tensor, "n d"]:
    """The top generalised eigenvector of ``move v = mu (L L') v``, unit length, its largest component positive."""
    whitened = torch.linalg.solve_triangular(factor, move, upper=False)
    whitened = torch.linalg.solve_triangular(factor, whitened.mT, upper=False)
    _, vectors = torch.linalg.eigh((whitened + whitened.mT) / 2)
    top = torch.linalg.solve_triangular(factor.mT, vectors[..., -1:], upper=True)[..., 0]
    largest = top.gather(1, top.abs().argmax(1, keepdim=True))
    return top / top.norm(dim=1, keepdim=True) * largest.sign()


def _deviations(generator: Generator, features: Sequence[Feature]) -> tuple[float, ...]:
    """Root-mean-square over a feature's columns of their standard deviations over 32 latents; 1 for a feature that never varies."""
    with torch.no_grad():
        images = generator(generator.sample(32, seed=0, space=home(generator)))
        spreads = [float(feature(images).std(0).square().mean().sqrt()) for feature in features]
    return tuple(spread if spread > 1e-9 else 1.0 for spread in spreads)


def _stretch(ledger: Tensor, steps: int) -> Tensor:
    return torch.cat([ledger, ledger[-1:].expand(steps - len(ledger), -1)])
