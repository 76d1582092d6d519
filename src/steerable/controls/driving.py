"""Driving: hold something, and move the rest step by step while somebody watches. What ``steer drive`` and the studio call.

One person, one latent, as little delay as possible. A trajectory makes a new Jacobian for every step, which costs as much as a hundred
images; here it is made once, where the drive begins, and kept current instead:

    along the step just taken, from the images that were made anyway           J <- J + (df - J s) s' / s's    (Broyden)
    along the best directions and the one it goes on in, by forward products   J <- J + (J_here - J) Q Q'
    and in what these move and hold, by reverse products                       J <- J + U U' (J_here - J)      (adjoint Broyden)

with Q and U orthonormal and the Gram matrices updated by the same low rank. The columns of U are such that the gradient of the Rayleigh
quotient at the best direction, and the residual of the equation below at its solution, are exact after it: that is what Davidson's
method would take to look further, at the price of two products. A black box has no reverse products: there the directions are more, and
others in turn. A drive that goes on follows ``(A_hold + r I)^-1 g``, g the
gradient of the distance covered so far (``growth``), so that it gets somewhere; one that is steered follows the free part of what is
wished. Every step takes drift back by Gauss-Newton corrections, and is halved while a held feature has drifted more than its tolerance
from where the drive *began*. The ridge r grows while the tolerance is hardly used, and shrinks as it is. ``trajectory`` walks many latents
to an amount.

Sources: Rayleigh EigenDirections, ECCV 2022, arXiv 2201.10423; Broyden, "A class of methods for solving nonlinear simultaneous
equations", Mathematics of Computation 1965; Schlenkrich, Griewank & Walther, "On the local convergence of adjoint Broyden methods",
Mathematical Programming 2010, for the updates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.controls import rayleigh
from steerable.controls.growth import Walked
from steerable.controls.trajectory import Path, Trajectory
from steerable.protocols import Images, Latents

BEST = 8  # free directions that are ranked
MEASURED = 2  # of them measured anew at every step
OTHERS = 4  # directions in turn, where a black box is followed
CORRECTIONS = 2  # images of every try beside the first
HALVINGS = 4  # after which there is no way on
KEPT = 5000  # way-points that ``path`` can tell of
PAYS = 0.2  # least share of the wanted change for a step to count
EASED, TIGHTENED = (1.5, 50.0), (0.5, 0.3)  # what the ridge is multiplied by, and how far at most: tolerance unused, tolerance used
NEAR = 0.02  # of a deviation: so little change is no distance yet
IDLE, GROWS = 8, 1.02  # steps without growth of the distance after which a ride turns around


@dataclass(frozen=True)
class Row:
    """One line of the ledger of a drive.

    Attributes:
        step: counted from 1; 0 is the start.
        changed: root-mean-square change of what moves by this step, in its unit; 0 where there was no way on.
        moved: the same since the start.
        drift: of every held feature since the start, in its own unit; ``deviations`` the same in population deviations.
        broken: held features that have drifted more than the tolerance.
        distance: of the latent from the mean one.
        stuck: whether there was no way on, and the latent stayed.
        seconds: that the step took.
    """

    step: int
    changed: float
    moved: float
    drift: dict[str, float]
    deviations: dict[str, float]
    broken: tuple[str, ...]
    distance: float
    stuck: bool
    seconds: float


class Frame(NamedTuple):
    """What a step gives: the latent, its image (1, c, h, w) in [-1, 1], and the line of the ledger."""

    latents: Latents
    image: Images
    row: Row


class Drive:
    """Hold some features of one image and move others, a step at a time.

    Args:
        generator, move, hold, space, options: as of ``Trajectory``; amounts are in its knob's unit.
        latents: (1, ...) where to begin; or ``begin`` later.
        tolerance: drift of every held feature that is allowed, in population deviations; since the start, not since the last step.

    Raises:
        ValueError: see ``Trajectory``; more than one latent.
    """

    def __init__(
        self, generator: Any, *, move: Any, hold: Any, latents: Latents | None = None, tolerance: float = 0.06, **options: Any
    ) -> None:
        self.control = Trajectory(generator, move=move, hold=hold, **options)
        if not 0 < tolerance < float("inf"):
            raise ValueError(f"tolerance of a drive is a drift in deviations above 0, got {tolerance}.")
        self.tolerance = tolerance
        if latents is not None:
            self.begin(latents)

    def begin(self, latents: Latents) -> Frame:
        """Start over from a latent: what its image shows is what is held from now on. Makes the one full Jacobian."""
        began = time.perf_counter()
        checks.lives_in(latents, self.control.space, "this drive")
        if len(latents) != 1:
            raise ValueError(f"a drive has one latent, got {len(latents)}: latents[0:1].")
        self.sides = self.control.around(latents)
        self.start = self.columns = self.sides.measured(latents.values)  # (1, m)
        self.roots = self._roots()
        self.latents, self.last, self.wish, self.rank, self.turn, self.ease = latents, None, None, 0, 0, 1.0
        self.points, self.count = [latents.values], 0
        self.renew()
        with torch.no_grad():
            image = self.sides.images(latents.values)
        return Frame(latents, image, self._row(0.0, False, began))

    def renew(self) -> None:
        """Make the full Jacobian where the drive is. Steps keep it current by themselves; this is what they are measured against."""
        _, jac = self.sides.jacobian(self.latents.values)
        self.jac = jac[0] / self.roots[:, None]  # (m, d), so that squares are means over the columns of a side; kept current in place
        self.grams = [part.T @ part for part in self._split(self.jac)]  # of what moves and of what is held
        self.free = self._ranked()

    def step(self, direction: int | Float[Tensor, ...] | None = None, amount: float = 0.05) -> Frame:
        """Go on by an amount.

        Args:
            direction: the rank of a free direction here (1 is the freest), or a wish in latent space, of which the free part is
                taken; None goes on as before. A rank that stays the same is followed without jumps from step to step.
            amount: root-mean-square change of what moves that this step shall make, in the knob's unit; negative goes the other way.

        Returns:
            The frame; with ``row.stuck`` where every way on leaves the tolerance, and then the latent is the one before.
        """
        began = time.perf_counter()
        if not amount - amount == 0:
            raise ValueError(f"the amount of a step is a finite number, got {amount}.")
        unit = self._direction(direction)
        wanted = abs(amount) / self.control.unit
        slope = self._quadratic(0, unit).sqrt().clamp(min=1e-9)
        step, columns, gone = self._tried(unit * (1 if amount >= 0 else -1), wanted, float(slope)) if amount else (None, self.columns, 0.0)
        if step is None:
            self.last = None if amount else self.last
            self._eased(1.0)
            with torch.no_grad():
                image = self.sides.images(self.latents.values)
            self.refresh()
            return Frame(self.latents, image, self._row(0.0, bool(amount), began))
        # the images of the step are a measurement of J along it
        self._measured(step[:, None] / step.norm(), (columns - self.columns)[0][:, None] / self.roots[:, None] / step.norm())
        self.last = torch.nn.functional.normalize(step, dim=0) * (1 if amount >= 0 else -1)
        self.latents = self.latents.at(self.place)
        self.columns, self.count = columns, self.count + 1
        self.points = [*self.points[-KEPT:], self.latents.values]
        self._eased(float(self.sides.deviations(columns - self.start)[0, len(self.sides.move) :].max()) / self.tolerance)
        self.refresh()
        return Frame(self.latents, self.image, self._row(gone, False, began))

    def ride(self, steps: int, amount: float = 0.05, *, rank: int = 1) -> Iterator[Frame]:
        """Move continuously for so many steps: where it gets no further, turn around, and after that take the next direction."""
        sign, chosen, turns = 1.0, rank, 0
        turned, farthest, idle = self.columns, 0.0, 0
        for number in range(steps):
            frame = self.step(chosen if number == 0 or self.last is None else None, sign * amount)
            apart = float((self.columns - turned)[0, : self.sides.width].square().mean().sqrt())
            idle = 0 if apart > GROWS * farthest else idle + 1
            farthest = max(farthest, apart)
            if frame.row.stuck or idle >= IDLE:
                sign, turns = -sign, turns + 1
                turned, farthest, idle = self.columns, 0.0, 0
                if turns % 2 == 0:
                    chosen, self.last = 1 + chosen % min(BEST, len(self.free)), None
            yield frame

    def path(self) -> Path:
        """The drive so far as a path with its whole ledger, perceptual distances included."""
        zeros = [point.new_zeros(1) for point in self.points]
        walked = Walked(self.points, zeros, zeros, [f"driven {self.count} steps"])
        target = self.start.new_full((1,), self.tolerance / self.control.steps.leak)
        return self.control.accounted(self.sides, walked, target * self.control.unit, target)

    def _direction(self, asked: int | Tensor | None) -> Tensor:
        """The unit direction (d,) of this step."""
        if isinstance(asked, Tensor):
            self.rank = 0
            wish = asked.flatten().to(self.jac)
            if len(wish) != len(self.grams[1]) or not bool(wish.isfinite().all()) or not float(wish.norm()) > 0:
                raise ValueError(f"a direction is {len(self.grams[1])} finite numbers that are not all 0, got {tuple(asked.shape)}.")
            self.wish = torch.nn.functional.normalize(wish, dim=0)
            return self._freed(self.wish)
        self.wish, rank = None, self.rank or 1 if asked is None else int(asked)
        if not 1 <= rank <= len(self.free):
            raise ValueError(f"directions are ranked 1 to {len(self.free)}, got {rank}.")
        if self.last is None or (asked is not None and rank != self.rank):
            self.rank = rank
            return self.free[rank - 1]
        further = self.onward()
        if further is None:
            return rayleigh.continued(self.free[None], self.last[None, None])[0, 0]
        return further if float(further @ self.last) >= 0 else -further

    def _covered(self) -> Tensor:
        """Change of what moves since the start, per root of its columns."""
        return ((self.columns - self.start)[0] / self.roots)[: self.sides.width]

    def _eased(self, used: float) -> None:
        """The ridge for the next step, from the share of the tolerance that this one used."""
        if used < TIGHTENED[0]:
            self.ease = min(self.ease * EASED[0], EASED[1])
        elif used > 0.9:
            self.ease = max(self.ease * TIGHTENED[0], TIGHTENED[1])

    def _tried(self, unit: Tensor, wanted: float, slope: float) -> tuple[Tensor | None, Tensor, float]:
        """A step along a direction that changes what moves by ``wanted`` deviations and keeps the hold: halved until one does."""
        z, width = self.latents.values, self.sides.width
        length = min(wanted / slope, self.control.steps.reach)
        begun = self._split(((self.columns - self.start)[0] / self.roots)[:, None])[1]
        for _ in range(HALVINGS):
            step = length * unit - self._released(self._hold.T @ begun)[:, 0]  # and the slip so far is taken back
            place, image, columns, gone = self._seen(step)
            for _ in range(CORRECTIONS):
                slip = (columns - self.start)[0][width:] / self.roots[width:]
                step = (wanted / max(gone, 1e-9)) ** 0.5 * step if PAYS * wanted < gone < wanted else step
                step = step - self._released((self._hold.T @ slip)[:, None])[:, 0]
                place, image, columns, gone = self._seen(step)
            drift = self.sides.deviations(columns - self.start)[0, len(self.sides.move) :]
            worst = float(drift.max())
            before = float(self.sides.deviations(self.columns - self.start)[0, len(self.sides.move) :].max())
            if (worst <= self.tolerance or worst < before) and gone >= PAYS * min(wanted, length * slope):
                self.place, self.image = place, image
                return (place - z).flatten(), columns, gone * self.control.unit
            length = length / 2
        return None, self.columns, 0.0

    def _seen(self, step: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """Where a step leads, its image and columns, and by how much what moves has changed."""
        z = self.latents.values
        place = self.sides.plausible(z + step.view_as(z), self.control.steps.plausible)
        with torch.no_grad():
            image = self.sides.images(place)
            columns = self.sides.read(image)
        return place, image, columns, float((columns - self.columns)[0, : self.sides.width].square().mean().sqrt())

    def _released(self, right: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
        """(A_hold + r I)^-1 of some columns."""
        return torch.cholesky_solve(right, self.factor)

    def _ranked(self) -> Float[Tensor, "k d"]:
        """The freest directions here, best first; and the factor of A_hold + r I for the corrections."""
        hold = self.grams[1]
        d = len(hold)
        self.ridge = self.ease * self.control.steps.damping * hold.diagonal().mean().clamp(min=1e-12)
        self.factor = torch.linalg.cholesky(hold + self.ridge * torch.eye(d, dtype=hold.dtype, device=hold.device))
        found = rayleigh.ranked(self.grams[0][None], hold[None], min(BEST, d), ridge=self.ridge[None])
        return found.vectors[0]

    def refresh(self) -> None:
        """Measure J anew where it matters: along the freest directions and the way on, and in what these move and hold."""
        here = self.sides.operator(self.latents.values)
        smooth = all(one.differentiable for one in self.sides.features)
        along = [self.free[: MEASURED if smooth else BEST]]
        if len(along[0]) < self.rank <= len(self.free):
            along.append(self.free[self.rank - 1 : self.rank])
        onward = self.onward()
        along += [] if onward is None else [onward[None]]
        if not smooth:
            d = len(self.grams[0])
            others = [(self.turn + i) % d for i in range(min(OTHERS, d))]
            self.turn = (self.turn + len(others)) % d
            along.append(torch.eye(d, dtype=self.jac.dtype, device=self.jac.device)[others])
        basis = torch.linalg.qr(torch.cat(along).T)[0]  # Q   (d, q)
        self._measured(basis, self._finite(here.push(basis.T[None])[0]).T / self.roots[:, None])
        self.free = self._ranked()
        if smooth:
            rows = torch.linalg.qr(self._looked_at())[0]  # U   (m, q)
            pulled = self._finite(here.pull((rows / self.roots[:, None]).T[None])[0]).T  # J'U   (d, q)
            self._updated(rows, pulled - (rows.T @ self.jac).T)
            self.free = self._ranked()

    def gradient(self) -> Float[Tensor, " d"] | None:
        """What is asked for here: the wish, or the gradient of the distance covered; None near the start, where it has no direction."""
        if self.wish is not None:
            return self.wish
        covered = self._covered()
        return None if float(covered.norm()) < NEAR else self.jac[: self.sides.width].T @ covered

    def onward(self) -> Float[Tensor, " d"] | None:
        """(A_hold + r I)^-1 of the gradient, unit length."""
        gradient = self.gradient()
        return None if gradient is None else self._freed(gradient)

    def _freed(self, wish: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self._released(wish[:, None])[:, 0], dim=0)

    def _looked_at(self) -> Float[Tensor, "m q"]:
        """Weightings of the columns whose products decide what is best and what leads on."""
        width, best = self.sides.width, self.free[max(self.rank, 1) - 1]
        quotient = self._quadratic(0, best) / (self._quadratic(1, best) + self.ridge)
        moved = self.jac @ best
        weightings = [torch.cat([moved[:width], -quotient * moved[width:]])]  # M x - mu H x
        gradient = self.gradient()
        if gradient is not None:
            change = self._covered() if self.wish is None else torch.zeros_like(moved[:width])
            weightings.append(torch.cat([change, -self._hold @ self._released(gradient[:, None])[:, 0]]))  # g - H x
        return torch.stack(weightings, 1)

    def _finite(self, products: Tensor) -> Tensor:
        if not bool(products.isfinite().all()):
            raise ValueError("the derivatives of these features are NaN or infinite here: begin again elsewhere.")
        return products

    def _measured(self, basis: Float[Tensor, "d q"], products: Float[Tensor, "m q"]) -> None:
        """J with J Q replaced."""
        self._updated(products - (basis.T.contiguous() @ self.jac.T).T, basis)

    def _updated(self, left: Float[Tensor, "m q"], right: Float[Tensor, "d q"]) -> None:
        """J + L R', and both Gram matrices with it."""
        for i, (old, new) in enumerate(zip(self._split(self.jac), self._split(left), strict=True)):
            cross = (new.T @ old).T @ right.T  # J'L R'; this way round BLAS is quick
            self.grams[i] = self.grams[i] + cross + cross.T + right @ (new.T @ new) @ right.T
        self.jac.addmm_(left, right.T)

    def _quadratic(self, side: int, unit: Tensor) -> Tensor:
        return (unit @ self.grams[side] @ unit).clamp(min=0)

    @property
    def _hold(self) -> Tensor:
        return self.jac[self.sides.width :]

    def _split(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        return columns[: self.sides.width], columns[self.sides.width :]

    def _roots(self) -> Tensor:
        """Root of the number of columns of each column's side, (m,)."""
        width, whole = self.sides.width, sum(self.sides.widths)
        sizes = torch.full((whole,), float(whole - width), dtype=self.start.dtype, device=self.start.device)
        sizes[:width] = float(width)
        return sizes.sqrt()

    def _row(self, changed: float, stuck: bool, began: float) -> Row:
        change = self.columns - self.start
        drift = self.sides.deviations(change)[0, len(self.sides.move) :].tolist()
        names, own = [one.name for one in self.control.hold], self.control.deviations[len(self.sides.move) :]
        moved = float(change[0, : self.sides.width].square().mean().sqrt()) * self.control.unit
        return Row(
            step=self.count,
            changed=changed,
            moved=moved,
            drift={name: d * unit for name, d, unit in zip(names, drift, own, strict=True)},
            deviations=dict(zip(names, drift, strict=True)),
            broken=tuple(name for name, d in zip(names, drift, strict=True) if d > self.tolerance * 1.001),
            distance=float((self.latents.values - self.control.population.centre).norm()),
            stuck=stuck,
            seconds=time.perf_counter() - began,
        )
