"""A path that moves one thing and holds another, its direction recomputed at every step.

Around a latent, features change by ``J v``. With ``A = J'J`` for what moves and for what is held, the direction that moves
the most for the least held drift maximises the Rayleigh quotient

    v' A_move v  /  v' (A_hold + damping tr(A_hold)/d I) v,

a generalised symmetric eigenproblem. That is the first step. From then on the path shall go *further*: what counts is no longer
any change but the growth of the distance already covered, whose gradient is ``g``, and the same quotient with ``g g'`` in
place of ``A_move`` has the closed solution ``(A_hold + ...)^-1 g``. Each step also takes back the drift so far (a damped
Gauss-Newton correction), is scaled to a wanted change of the moved feature, and is halved when the hold would break.

Sources: Rayleigh EigenDirections, ECCV 2022, arXiv 2201.10423; the growth step and the correction are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerable import checks, progress, sensitivity
from steerable.protocols import Amounts, Feature, Generator, Knob, Latents, LatentSpace


@dataclass(frozen=True, eq=False)
class Path:
    """Where a trajectory went, and its ledger.

    Attributes:
        waypoints: latents after each step, the start first; a row that arrived stays where it is.
        moved: (steps + 1, n) root-mean-square change of the moved features since the start.
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

    The one knob's amount is the root-mean-square change of the moved features over their columns, in their unit; its
    sign chooses between the two directions of the first step (positive: its largest component is positive).

    Attributes:
        generator: of the latents that will be steered.
        move, hold: features, measured on the generated image.
        leak: held drift allowed for each unit of move, both root-mean-square. 0.05 keeps the squared drift at 1/400.
        stride: change of the moved features that one step aims at.
        reach: longest step in latent units.
        damping: weight of the identity beside the held Gram matrix, as a fraction of its mean eigenvalue.
        max_steps: after which a row that has not arrived is left where it is and reported as not reached.
    """

    generator: Generator
    move: tuple[Feature, ...]
    hold: tuple[Feature, ...]
    leak: float = 0.05
    stride: float = 0.06
    reach: float = 0.7
    damping: float = 0.1
    max_steps: int = 40
    knobs: tuple[Knob, ...] = field(init=False)
    space: LatentSpace = field(init=False)

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
        unit = f"rms {self.move[0].unit}".strip()
        object.__setattr__(self, "generator", generator)
        object.__setattr__(self, "knobs", (Knob(name, unit, -0.35, 0.35),))
        object.__setattr__(self, "space", next(iter(generator.spaces.values())))

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
        target, sign = amounts.abs().to(latents.values), torch.where(amounts < 0, -1.0, 1.0).to(latents.values)
        z, start = latents.values, local.features(latents.values)
        points, moved, drift = [z], [torch.zeros_like(target)], [torch.zeros_like(target)]
        for _ in range(int(self.max_steps)):
            far, off = moved[-1], drift[-1]
            arrived = ((far - target).abs() <= 0.01 * target) & (off <= self.leak * target)
            if bool(arrived.all()):
                break
            active = ~arrived
            step = torch.zeros_like(z)
            step[active] = self._step(local.rows(active), z[active], start[active], target[active], far[active], off[active], sign[active])
            z, ahead = self._backed_off(local, z, step, start, far, off)
            points.append(z)
            moved.append(ahead[0])
            drift.append(ahead[1])
        reached = ((moved[-1] - target).abs() <= 0.02 * target) & (drift[-1] <= 1.05 * self.leak * target)
        return Path(tuple(latents.at(point) for point in points), torch.stack(moved), torch.stack(drift), reached)

    def _step(self, local: _Local, z: Tensor, start: Tensor, target: Tensor, far: Tensor, off: Tensor, sign: Tensor) -> Tensor:
        """The step of the module's docstring for each row, (n, *shape)."""
        features, jac = local.jacobian(z)
        cut = local.width
        change, slip = (features - start)[:, :cut], (features - start)[:, cut:]
        jac_move, jac_hold = jac[:, :cut] / cut**0.5, jac[:, cut:] / slip.shape[1] ** 0.5
        held = jac_hold.mT @ jac_hold  # A_hold   (n, d, d)
        eye = torch.eye(held.shape[-1]).to(held)
        held = held + (self.damping * held.diagonal(dim1=1, dim2=2).mean(1) + 1e-12)[:, None, None] * eye
        factor = torch.linalg.cholesky(held)

        first = far <= 1e-6
        gradient = (jac_move.mT @ (change / cut**0.5)[..., None])[..., 0] / far.clamp(min=1e-6)[:, None]  # d far / dz   (n, d)
        ahead = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        if bool(first.any()):
            best = first_direction(jac_move[first].mT @ jac_move[first], factor[first]) * sign[first, None]
            ahead[first] = best
            gradient[first] = best / best.norm(dim=1, keepdim=True) * (jac_move[first] @ best[..., None])[..., 0].norm(dim=1, keepdim=True)
        back = -torch.cholesky_solve(jac_hold.mT @ (slip / slip.shape[1] ** 0.5)[..., None], factor)[..., 0]

        within = off <= self.leak * torch.minimum(far + self.stride, target)
        gain = torch.where(within | first, (target - far).clamp(max=self.stride), (target - far).clamp(max=0))
        slope = (gradient * ahead).sum(1)
        scale = (gain - (gradient * back).sum(1)) / slope.clamp(min=1e-9)
        step = back + scale[:, None] * ahead
        length = step.norm(dim=1, keepdim=True)
        return (step * (self.reach / length).clamp(max=1)).view_as(z)

    def _backed_off(self, local: _Local, z: Tensor, step: Tensor, start: Tensor, far: Tensor, off: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``z + step``, halved up to four times where that would break the hold by more than it is broken."""
        scale = torch.ones_like(far)
        shape = (-1, *[1] * (z.ndim - 1))
        for _ in range(4):
            there = local.measure(z + scale.view(shape) * step, start)
            limit = torch.maximum(1.5 * self.leak * torch.maximum(there[0], torch.full_like(far, self.stride)), off)
            broken = there[1] > limit
            if not bool(broken.any()):
                return z + scale.view(shape) * step, there
            scale = torch.where(broken, scale / 2, scale)
        end = z + scale.view(shape) * step
        return end, local.measure(end, start)


class _Local:
    """The features of one batch as a function of latent values: moved columns first, then the held ones."""

    def __init__(self, trajectory: Trajectory, latents: Latents) -> None:
        self.trajectory, self.latents = trajectory, latents
        with torch.no_grad():
            image = trajectory.generator(latents[:1])
            self.width = sum(feature(image).shape[1] for feature in trajectory.move)

    def rows(self, keep: Tensor) -> _Local:
        return _Local(self.trajectory, self.latents[keep])

    def __call__(self, values: Tensor) -> Tensor:
        count = len(values) // len(self.latents)
        labels = self.latents.labels
        latents = Latents(values, self.latents.space, None if labels is None else labels.repeat(count))
        images = self.trajectory.generator(latents)
        return torch.cat([feature(images) for feature in (*self.trajectory.move, *self.trajectory.hold)], dim=1)

    def features(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            return self(values)

    def measure(self, values: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Root-mean-square change of what moves and of what is held, (n,) each."""
        change = self.features(values) - start
        return tuple(part.square().mean(1).sqrt() for part in (change[:, : self.width], change[:, self.width :]))  # type: ignore[return-value]

    def jacobian(self, values: Tensor) -> tuple[Tensor, Tensor]:
        smooth = all(feature.differentiable for feature in (*self.trajectory.move, *self.trajectory.hold))
        return sensitivity.jacobian(self, values, method="auto" if smooth else "difference", chunk=10)


def first_direction(move: Float[Tensor, "n d d"], factor: Float[Tensor, "n d d"]) -> Float[Tensor, "n d"]:
    """The top generalised eigenvector of ``move v = mu (L L') v``, unit length, its largest component positive."""
    whitened = torch.linalg.solve_triangular(factor, move, upper=False)
    whitened = torch.linalg.solve_triangular(factor, whitened.mT, upper=False)
    _, vectors = torch.linalg.eigh((whitened + whitened.mT) / 2)
    top = torch.linalg.solve_triangular(factor.mT, vectors[..., -1:], upper=True)[..., 0]
    largest = top.gather(1, top.abs().argmax(1, keepdim=True))
    return top / top.norm(dim=1, keepdim=True) * largest.sign()


def _stretch(ledger: Tensor, steps: int) -> Tensor:
    return torch.cat([ledger, ledger[-1:].expand(steps - len(ledger), -1)])
