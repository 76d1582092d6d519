"""One step of a trajectory, and the walk made of them: further from the start in what moves, nowhere in what is held.

Around a latent, features change by ``J v``. The first direction is an eigenvector (``rayleigh.ranked``). From then on the path shall go
*further*: what counts is no longer any change but the growth of the distance already covered, whose gradient is ``g``, and the Rayleigh
quotient with ``g g'`` in place of ``J_move'J_move`` has the closed solution ``P g``. What P is, the solver says:

    soft   P = (A_hold + r I)^-1                                    and drift is taken back by the same matrix
    hard   P = projector onto the null space of what is held        and drift is taken back by the pseudo-inverse

where A_hold = J_hold'J_hold and the null space begins where the leading eigenvectors explain a share of the variance. Each step

    P s g - Q J_hold' slip     with s such that the moved features change by what is wanted, and Q as the table says

also takes back the slip so far (a damped Gauss-Newton correction). Then the same correction, with what it costs in distance added
again along ``P g``, is repeated where the step ended: only images are measured anew; the Jacobian, which costs as much as a hundred
images, is kept. How much damping (or explained variance) is best changes from place to place, so a ladder of them is tried, measured,
and the best kept; a step that leaves the hold or does not pay is halved. Where no corrected step pays, ``P s g`` alone is tried: what is
moved may bend more than what is held. A row that has arrived *settles*: steps with s = 0, of which the one that holds best is kept.

Sources: Rayleigh EigenDirections, ECCV 2022, arXiv 2201.10423, for the first direction and for ``course="recomputed"``; the growth step
and the corrections are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

from steerable.controls import rayleigh, subspace
from steerable.controls.sides import Sides
from steerable.controls.subspace import Span

LADDER = (0.1, 0.3, 1.0, 5.0, 20.0)  # dampings that every later step is tried with
UNEXPLAINED = (0.01, 0.1, 1.0, 3.0, 10.0)  # the same for the hard solver: shares of variance left over
CORRECTIONS = 4  # of each trial, with the Jacobian of where it began
HALVINGS = 6  # of a corrected step, and then of an uncorrected one, after which a row has no way on
PAYS = 0.25  # the least share of the wanted change that is worth a step
ARRIVED = 0.01  # how far from the target, as a share of it, a row stops walking
THERE = 0.02  # and how far from it a row counts as there, which it stays while it settles
SETTLES = 0.005  # the least gain in drift that is worth settling for, as a share of the drift allowed


@dataclass(frozen=True)
class Steps:
    """How to step; see ``Trajectory``."""

    solver: str = "soft"
    recomputed: bool = False
    rank: int = 1
    leak: float = 0.08
    stride: float = 0.34
    reach: float = 1.5
    damping: float = 0.1
    explained: float = 0.99
    max_steps: int = 40
    settling: int = 8
    plausible: float = 1.3


@dataclass(frozen=True, eq=False)
class Walked:
    """Where n rows went: points (n, *shape) after every step, change and worst drift there in deviations (n,), and how each row ended."""

    points: list[Tensor]
    moved: list[Tensor]
    drift: list[Tensor]
    ends: list[str]
    wrong: list[int] = field(default_factory=list)  # rows that ended for an error


def grown(sides: Sides, target: Tensor, sign: Tensor, steps: Steps) -> Walked:
    """Walk every row until its moved features have changed by ``target`` (n,) deviations, along the first direction times ``sign`` (n,).

    A row whose Jacobian is not finite, or to which what is held leaves no direction, ends there, with the reason.
    """
    z, start = sides.latents.values, sides.measured(sides.latents.values)
    n = len(z)
    walked = Walked([z], [torch.zeros_like(target)], [torch.zeros_like(target)], ["" for _ in range(n)])
    stuck = torch.zeros_like(target, dtype=torch.bool)
    before = z.new_zeros(n, z[0].numel())  # the last direction of each row
    carried: dict[int, Tensor] = {}  # and its span, of a matrix-free walk
    for _ in range(int(steps.max_steps)):
        far = walked.moved[-1]
        active = ((far - target).abs() > ARRIVED * target) & ~stuck
        if not bool(active.any()):
            break
        rows, models, wrong = _models(sides, z, start, target, far, sign, before, active, steps, carried)
        for row, why in wrong.items():
            stuck[row], walked.ends[row] = True, why
            walked.wrong.append(row)
        z, far, drift = z.clone(), far.clone(), walked.drift[-1].clone()
        for place, model in zip(rows, models, strict=True):
            ahead, change, off, found, wall = advanced(model, steps)
            taken = place[found]
            before[taken] = (ahead - model.z)[found].flatten(1)
            if model.around.span is not None:
                carried |= dict(zip(place.tolist(), model.around.span.kept(model.ahead[len(LADDER) // 2][:, None]), strict=True))
            z[taken], far[taken], drift[taken] = ahead[found], change[found], off[found]
            for row, least in zip(place[~found].tolist(), wall[~found].tolist(), strict=True):
                stuck[row], walked.ends[row] = True, _wall(least, steps.leak * float(target[row]))
        walked.points.append(z)
        walked.moved.append(far)
        walked.drift.append(drift)
    for row in range(n):
        if not walked.ends[row]:
            there = float((walked.moved[-1][row] - target[row]).abs()) <= THERE * float(target[row])
            walked.ends[row] = "arrived" if there else f"{int(steps.max_steps)} steps were not enough"
    if not steps.recomputed:
        _settle(walked, sides, start, target, sign, before, steps, carried)
    return walked


def _settle(
    walked: Walked, sides: Sides, start: Tensor, target: Tensor, sign: Tensor, before: Tensor, steps: Steps, carried: dict[int, Tensor]
) -> None:
    """Add the way-points of rows that have arrived and are drawn back to where they hold better."""
    better = torch.tensor([end == "arrived" for end in walked.ends], device=target.device)
    for _ in range(int(steps.settling)):
        z, far, drift = walked.points[-1].clone(), walked.moved[-1].clone(), walked.drift[-1].clone()
        better = better & (drift > 0)
        if not bool(better.any()):
            break
        rows, models, _ = _models(sides, z, start, target, far, sign, before, better, steps, carried)
        better = torch.zeros_like(better)
        for place, model in zip(rows, models, strict=True):
            where, change, off, found = settled(model, drift[place], steps)
            taken = place[found]
            z[taken], far[taken], drift[taken] = where[found], change[found], off[found]
            better[taken] = True
        if bool(better.any()):
            walked.points.append(z)
            walked.moved.append(far)
            walked.drift.append(drift)


def _wall(least: float, allowed: float) -> str:
    if least == float("inf"):
        return "nothing moves it further"
    return f"the hold would break: any further step drifts {least:.3g} deviations where {allowed:.3g} are allowed"


def _models(
    sides: Sides,
    z: Tensor,
    start: Tensor,
    target: Tensor,
    far: Tensor,
    sign: Tensor,
    before: Tensor,
    active: Tensor,
    steps: Steps,
    carried: dict[int, Tensor],
) -> tuple[list[Tensor], list[Local], dict[int, str]]:
    """The local models of the rows that go on: all in one, or where that fails (a Jacobian that is not finite) each its own."""
    rows = active.nonzero()[:, 0]

    def model(place: Tensor) -> Local:
        spans = torch.stack([carried[row] for row in place.tolist()]) if carried else None
        return linearised(
            sides.rows(place), z[place], start[place], target[place], far[place], sign[place], before[place], steps=steps, carried=spans
        )

    try:
        return [rows], [model(rows)], {}
    except ValueError as error:
        if len(rows) == 1:
            return [], [], {int(rows[0]): str(error)}
    places, models, wrong = [], [], {}
    for row in rows.split(1):
        try:
            models.append(model(row))
            places.append(row)
        except ValueError as error:
            wrong[int(row[0])] = str(error)
    return places, models, wrong


@dataclass(frozen=True, eq=False)
class Local:
    """The local model of n rows at l rungs of the ladder: everything that the steps from one place share."""

    sides: Sides
    z: Tensor  # (n, *shape)
    start: Tensor  # (n, m) columns
    target: Tensor  # (n,)
    far: Tensor  # (n,)
    first: Tensor  # (n,) whether the step is an eigenvector, which stays one
    gradient: Tensor  # g   (n, k)
    around: Derivatives
    vectors: Tensor  # of A_hold   (n, k, k)
    free: Tensor  # P on them   (l, n, k)
    back: Tensor  # Q on them   (l, n, k)
    ahead: Tensor  # P g   (l, n, k)
    undo: Tensor  # -Q J_hold' slip   (l, n, k)

    def rows(self, keep: Tensor) -> Local:
        if len(keep) == len(self.z):
            return self
        parts = {name: getattr(self, name)[keep] for name in ("z", "start", "target", "far", "first", "gradient", "vectors")}
        parts |= {name: getattr(self, name)[:, keep] for name in ("free", "back", "ahead", "undo")}
        return replace(self, sides=self.sides.rows(keep), around=self.around.rows(keep), **parts)

    def solved(self, right: Tensor, *, back: bool = False) -> Tensor:
        """``P right``, or ``Q right``, for every rung; (n, k) or (l, n, k) -> (l, n, k)."""
        turned = (right[..., None, :] @ self.vectors)[..., 0, :]
        return ((turned * (self.back if back else self.free))[..., None, :] @ self.vectors.mT)[..., 0, :]

    def along(self, step: Tensor, change: Tensor | float) -> Tensor:
        """The step with as much of ``P g`` added that the moved features change by ``change``, (l, n, k)."""
        slope = (self.gradient * self.ahead).sum(-1).clamp(min=1e-9)
        return step + ((change - (self.gradient * step).sum(-1)) / slope)[..., None] * self.ahead

    def tried(self, gain: Tensor, steps: Steps, *, correct: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Where a step towards ``gain`` (n,) ends at every rung (l, n, *shape), and the change and worst drift (l, n) there.

        Args:
            correct: whether it takes back slip, before and after.
        """
        step = self.along(self.undo if correct else torch.zeros_like(self.undo), gain)
        step = step * (steps.reach / step.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        trial, columns = self.changed(step, steps)
        width = self.sides.width
        for _ in range(CORRECTIONS if correct and not bool(self.first.all()) else 0):
            slip = columns[..., width:]
            correction = self.along(-self.solved(self.around.turn(slip) / slip.shape[-1] ** 0.5, back=True), 0.0)
            step = step + torch.where(self.first[:, None], 0.0, correction)  # the first direction stays the eigenvector
            trial, columns = self.changed(step, steps)
        change = columns[..., :width].square().mean(-1).sqrt()
        return trial, change, self.sides.deviations(columns)[..., len(self.sides.move) :].amax(-1)

    def changed(self, step: Tensor, steps: Steps) -> tuple[Tensor, Tensor]:
        """Where a step (l, n, k) leads, and how all columns have changed there since the start, (l, n, m)."""
        step = self.around.outside(step)
        trial = self.sides.plausible(self.z + step.view(len(step), *self.z.shape), steps.plausible)
        return trial, self.sides.measured(trial.flatten(0, 1)).unflatten(0, (len(trial), -1)) - self.start


def linearised(
    sides: Sides,
    z: Tensor,
    start: Tensor,
    target: Tensor,
    far: Tensor,
    sign: Tensor,
    before: Tensor,
    steps: Steps,
    carried: Tensor | None = None,
) -> Local:
    """The ingredients of a step for each row, once for every rung."""
    difference = sides.measured(z) - start
    around = derivatives(sides, z, steps, difference, carried)
    change, slip = difference[:, : sides.width], difference[:, sides.width :]
    vectors, free, back = _spectrum(around, steps)
    gradient = around.push(change / change.shape[1] ** 0.5) / far.clamp(min=1e-6)[:, None]  # g   (n, k)
    begins = far <= 1e-6
    first = torch.ones_like(begins) if steps.recomputed else begins
    if bool(first.any()):
        best = first_directions(sides, around, steps)[first]  # (f, r, k)
        last = around.inside(before)[first, None]
        fresh = begins[first, None]
        kept = rayleigh.continued(best, torch.where(fresh[..., None], best[:, -1:], last))[:, 0]
        direction = torch.where(fresh, with_sign(best[:, -1], around, first) * sign[first, None], kept)
        length = (around.moves.of(first) @ direction[..., None])[..., 0].mul(direction).sum(1).clamp(min=0).sqrt()
        gradient[first] = direction * length[:, None]  # so that "g v" is the change along it
    shape = (len(free), *gradient.shape)
    model = Local(
        sides, z, start, target, far, first, gradient, around, vectors, free, back, gradient.expand(shape), gradient.expand(shape)
    )
    ahead = torch.where(first[:, None], gradient, model.solved(gradient))
    undo = -model.solved(around.turn((slip / slip.shape[1] ** 0.5)[None])[0], back=True)
    return replace(model, ahead=ahead, undo=torch.where(first[:, None], 0.0, undo) if steps.recomputed else undo)


def with_sign(directions: Tensor, around: Derivatives, rows: Tensor) -> Tensor:
    """The rule for a first sign, the largest component positive, holds in the latent's own numbers. (f, k), rows (n,) of bool -> (f, k)"""
    if around.span is None:
        return directions
    whole = (around.span.basis[rows] @ directions[..., None])[..., 0]
    return torch.where((rayleigh.signed(whole) == whole).all(-1, keepdim=True), directions, -directions)


@dataclass(frozen=True, eq=False)
class Grams:
    """Gram matrices of one side of n rows: of each feature with its weight, and their sum."""

    parts: list[Tensor]  # (n, k, k) each
    total: Tensor  # (n, k, k)

    def of(self, rows: Tensor) -> Tensor:
        return self.total[rows]


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Both sides around n latents, per root of their columns, in the d numbers of a latent or in those of a span of k directions."""

    move: Tensor  # J_move   (n, a, k)
    hold: Tensor  # J_hold   (n, h, k)
    moves: Grams
    holds: Grams
    floor: Tensor  # mean eigenvalue of A_hold over all d   (n,)
    span: Span | None = None  # None: the identity

    def rows(self, keep: Tensor) -> Derivatives:
        span = None if self.span is None else replace(self.span, basis=self.span.basis[keep])
        return replace(self, hold=self.hold[keep], span=span)  # all that steps of a place need

    def push(self, x: Tensor) -> Tensor:
        """J_move' x, (n, a) -> (n, k)."""
        return (x[:, None] @ self.move)[:, 0]

    def turn(self, x: Tensor) -> Tensor:
        """J_hold' x, (l, n, h) -> (l, n, k)."""
        return (x.transpose(0, 1) @ self.hold).transpose(0, 1)

    def inside(self, vectors: Tensor) -> Tensor:
        """(..., n, d) -> (..., n, k)."""
        return vectors if self.span is None else (vectors[..., None, :] @ self.span.basis)[..., 0, :]

    def outside(self, vectors: Tensor) -> Tensor:
        """(..., n, k) -> (..., n, d)."""
        return vectors if self.span is None else (self.span.basis @ vectors[..., None])[..., 0]


def derivatives(sides: Sides, z: Tensor, steps: Steps, change: Tensor | None = None, carried: Tensor | None = None) -> Derivatives:
    """Both sides around z. By products alone where ``steps`` say so, on a span that holds what the step needs.

    Args:
        change: (n, m) of the columns since the start, None or zero at the start itself.
        carried: the span of the step before.
    """
    width, count = sides.width, len(sides.move)
    held = sum(sides.widths) - width
    span = None
    if steps.solver == "matrix-free":
        model = sides.operator(z)
        wanted = None
        if change is not None and not steps.recomputed and bool((change != 0).any()):
            both = torch.stack([change, change], 1)
            both[:, 0, width:], both[:, 1, :width] = 0, 0
            wanted = model.pull(both)
        rounds = subspace.COLD if carried is None else subspace.WARM
        block = max(steps.rank, subspace.BLOCK)
        span = subspace.spanned(model, width, damping=steps.damping, rounds=rounds, block=block, carried=carried, wanted=wanted)
        jac_move, jac_hold = span.jac[:, :width], span.jac[:, width:]
    else:
        _, jac = sides.jacobian(z)
        jac_move, jac_hold = jac[:, :width] / width**0.5, jac[:, width:] / held**0.5
    moves, holds = _grams(jac_move, sides.widths[:count]), _grams(jac_hold, sides.widths[count:])
    floor = holds.total.diagonal(dim1=1, dim2=2).mean(1) if span is None else span.floor
    return Derivatives(jac_move, jac_hold, moves, holds, floor, span)


def _grams(whole: Tensor, widths: tuple[int, ...]) -> Grams:
    parts = [part.mT @ part for part in whole.split(widths, dim=1)]
    return Grams(parts, torch.stack(parts).sum(0))


def _spectrum(around: Derivatives, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvectors of A_hold, and what P and Q are on them, at every rung."""
    values, vectors = torch.linalg.eigh(around.holds.total)  # (n, k), (n, k, k), ascending
    values = values.clamp(min=0)
    floor = around.floor[:, None].clamp(min=1e-12)
    if steps.solver != "hard":
        soft = torch.stack([1 / (values + rung * steps.damping * floor + 1e-12) for rung in LADDER])
        return vectors, soft, soft
    covered = values.flip(1).cumsum(1).flip(1) / values.sum(1, keepdim=True).clamp(min=1e-30)  # by this eigenvalue and all larger ones
    shares = [1 - min((1 - steps.explained) * rung, 0.9) for rung in UNEXPLAINED]
    forbidden = torch.stack([covered - values / values.sum(1, keepdim=True).clamp(min=1e-30) < share * (1 - 1e-9) for share in shares])
    free = torch.where(forbidden, 0.0, 1 / floor)
    return vectors, free, torch.where(forbidden, 1 / (values + 1e-6 * floor), 0.0)


def first_directions(sides: Sides, around: Derivatives, steps: Steps) -> Tensor:
    """The first ``rank`` directions of each row, best first, (n, rank, k).

    Raises:
        ValueError: what is held leaves fewer, or every direction holds as much as it moves; with the rank.
    """
    solver = "hard" if steps.solver == "hard" else "soft"
    moves, holds, ridge = around.moves, around.holds, steps.damping * around.floor
    found = rayleigh.ranked(moves.parts, holds.parts, steps.rank, solver=solver, explained=steps.explained, ridge=ridge)
    quotient = (found.moved / found.held.clamp(min=1e-30))[:, -1].sqrt()
    if bool((quotient < 1.1).all()):
        rank = int(torch.linalg.matrix_rank(holds.total, hermitian=True).max())
        held, moved = (", ".join(one.name for one in side) for side in (sides.hold, sides.move))
        raise ValueError(
            f"holding {held} leaves no direction (rank {rank} of {holds.total.shape[1]}): the freest one moves {moved} only "
            f"{float(quotient.max()):.2g} times as much as what is held, both in deviations. Hold less, or move something else."
        )
    return found.vectors


def advanced(model: Local, steps: Steps) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Where each row goes, its change and worst drift there, whether any such place was found, and if not the least drift that paid."""
    ahead, far, off = model.z.clone(), model.far.clone(), torch.zeros_like(model.far)
    found, wall = torch.zeros_like(model.far, dtype=torch.bool), torch.full_like(model.far, torch.inf)
    corrected = [True] if bool(model.first.all()) else [True, False]
    for correct, halving in product(corrected, range(HALVINGS)):
        rows = (~found).nonzero()[:, 0]
        if not len(rows):
            break
        here = model.rows(rows)
        gain = (here.target - here.far).clamp(-steps.stride, steps.stride) / 2**halving
        trial, change, drift = here.tried(gain, steps, correct=correct)
        missing = (here.target - change).abs() + 0.01 * drift  # among equals the one that holds better
        pays = missing <= (here.target - here.far).abs() - PAYS * gain.abs()
        wall[rows] = torch.minimum(wall[rows], torch.where(pays, drift, torch.inf).amin(0))
        missing = torch.where(drift <= steps.leak * here.target, missing, torch.inf)
        best = missing.argmin(0)
        column = torch.arange(len(rows), device=rows.device)
        good = missing[best, column] <= (here.target - here.far).abs() - PAYS * gain.abs()
        place = rows[good]
        ahead[place], far[place], off[place] = (one[best, column][good] for one in (trial, change, drift))
        found[place] = True
    return ahead, far, off, found, wall


def settled(model: Local, drift: Tensor, steps: Steps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where each row holds better, as far as it has got: the place, its change and worst drift there, and whether there is one."""
    trial, change, off = model.tried(model.target - model.far, steps)
    worth = SETTLES * steps.leak * model.target
    off = torch.where((model.target - change).abs() <= THERE * model.target, off, torch.inf)
    best = (off <= off.amin(0) + worth).int().argmax(0)  # the first of equals
    column = torch.arange(len(best), device=best.device)
    place, change, off = (one[best, column] for one in (trial, change, off))
    return place, change, off, off < drift - worth
