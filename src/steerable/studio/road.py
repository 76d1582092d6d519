"""A trajectory as a slider: walked once to its end for the person who is shown, and looked up from then on.

A trajectory makes a new Jacobian at every step, which takes seconds, and a slider asks twenty times a second. ``Road`` walks to the end of
the range when a side is first asked for and answers every amount up to there from its way-points (so it need not settle at its end).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from steerable import checks
from steerable.controls.trajectory import Path, Trajectory
from steerable.protocols import Amounts, Feature, Knob, Latents, LatentSpace

REACH = 1.4  # of the knob's range that a path is walked
KEPT = 8  # paths


@dataclass(frozen=True, eq=False)
class Road:
    """One knob that follows a trajectory.

    Attributes:
        name: of the knob; its amount is the trajectory's, the root-mean-square change of what moves.
    """

    trajectory: Trajectory
    name: str
    _paths: OrderedDict[tuple[bytes, bool], Path] = field(init=False, default_factory=OrderedDict)
    _one: threading.Lock = field(init=False, default_factory=threading.Lock)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        return (replace(self.trajectory.knobs[0], name=self.name),)

    @property
    def space(self) -> LatentSpace:
        return self.trajectory.space

    @property
    def identity(self) -> str:
        """What makes it the road it is, as text: for a link's checksum."""
        one = self.trajectory
        return repr(([f.name for f in one.move], [f.name for f in one.hold], one.weights, one.course, sorted(asdict(one.steps).items())))

    def holding(self, features: Sequence[Feature]) -> Road:
        """The same, with more held.

        Raises:
            ValueError: what moves would be held too.
        """
        one = self.trajectory
        there = {feature.name for feature in one.hold}
        more = [feature for feature in features if feature.name not in there]
        if not more:
            return self
        moves, holds = (list(zip(side, one.weights[start:], strict=False)) for side, start in ((one.move, 0), (one.hold, len(one.move))))
        options = {name: value for name, value in asdict(one.steps).items() if name != "recomputed"}
        wider = Trajectory(
            one.generator,
            move=moves,
            hold=[*holds, *more],
            course=one.course,
            space=one.space.name,
            seed=one.seed,
            judge=None,
            **options,
        )
        return Road(wider, self.name)

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """Each latent at its amount of its own path; beyond the path's end it stays at the end."""
        checks.lives_in(latents, self.space, "this trajectory")
        checks.amounts(amounts, len(latents), self.knobs)
        rows = [self._at(latents[i : i + 1], float(amount)) for i, amount in enumerate(amounts[:, 0])]
        return latents.at(torch.cat(rows)) if rows else latents

    def _at(self, latents: Latents, amount: float) -> Tensor:
        if amount == 0:
            return latents.values
        path = self.path(latents, amount > 0)
        moved, points = path.moved[:, 0].tolist(), path.waypoints
        for step in range(1, len(points)):
            if moved[step] >= abs(amount):
                share = (abs(amount) - moved[step - 1]) / max(moved[step] - moved[step - 1], 1e-12)
                return torch.lerp(points[step - 1].values, points[step].values, min(max(share, 0.0), 1.0))
        return points[-1].values

    def curve(self, latents: Latents, amount: float) -> tuple[list[tuple[float, float]], float]:
        """The ledger of one latent's way to an amount, the start first, and the drift that is allowed.

        Returns:
            (moved, largest drift of what is held) of every way-point, and the largest drift, all in population deviations.
        """
        path, count = self.path(latents, amount > 0), len(self.trajectory.move)
        worst = path.ledger.in_deviations[:, 0, count:].amax(1).tolist()
        moved = (path.moved[:, 0] / self.trajectory.unit).tolist()
        passed = sum(one < abs(amount) for one in path.moved[:, 0].tolist())
        return list(zip(moved, worst, strict=True))[: passed + 1], float(path.ledger.allowed[0])

    def path(self, latents: Latents, ahead: bool) -> Path:
        """One latent's path to either end of what a slider reaches, walked when it is first asked for.

        A feature of one column rises ahead and falls behind; which of the two directions of a first step does that is seen on the way.
        """
        start = latents.values.detach().cpu().numpy().tobytes()
        with self._one:
            if (start, ahead) not in self._paths:
                side = self._walked(latents, ahead)
                if self._rises(side) is (not ahead):
                    self._paths[start, not ahead] = side
                    side = self._walked(latents, not ahead)
                self._paths[start, ahead] = side
            self._paths.move_to_end((start, ahead))
            while len(self._paths) > KEPT:
                self._paths.popitem(last=False)
            return self._paths[start, ahead]

    def _walked(self, latents: Latents, ahead: bool) -> Path:
        knob = self.knobs[0]
        with torch.enable_grad():
            return self.trajectory.path(latents, latents.values.new_full((1, 1), REACH * (knob.high if ahead else knob.low)))

    def _rises(self, path: Path) -> bool | None:
        """Whether the one column that moves is larger at the end; None where several move."""
        moved, *others = self.trajectory.move
        if others or len(moved.columns) > 1:
            return None
        with torch.no_grad():
            begun, ended = (moved(self.trajectory.generator(point))[0, 0] for point in (path.waypoints[0], path.end))
        return bool(ended > begun)
