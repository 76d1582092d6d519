"""The response pass: feature values of steered images at each amount of each knob.

Everything that is reported about a control (effect, leakage, ranges, judges) is a function of what this pass measures;
see ``summary``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks, progress
from steerable.controls.directions import amounts as turned
from steerable.protocols import Control, Feature, Generator, Knob, Latents
from steerable.sampling import columns_of, observe

FRACTIONS = (-1.0, -0.5, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Response:
    """Feature values at each amount of each knob, turned alone, on latents that nothing was fitted on.

    Attributes:
        knobs: k of them.
        amounts: (k, a) in the knobs' units.
        start: (n, m) values of the unsteered images.
        values: (k, a, n, m).
        columns, units: of the m values.
        seed: of the n latents.
    """

    knobs: tuple[Knob, ...]
    amounts: Float[Tensor, "k a"]
    start: Float[Tensor, "n m"]
    values: Float[Tensor, "k a n m"]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    seed: int

    @property
    def n(self) -> int:
        return len(self.start)

    @property
    def change(self) -> Float[Tensor, "k a n m"]:
        """Against the same face unsteered."""
        return self.values - self.start

    def column(self, name: str) -> int:
        return self.columns.index(checks.known(name, self.columns, "measured column"))


def response(
    generator: Generator,
    control: Control,
    features: Sequence[Feature],
    *,
    knobs: Sequence[str] | None = None,
    amounts: Mapping[str, Sequence[float]] | None = None,
    n: int = 64,
    seed: int = 1,
    psi: float = 1.0,
    labels: int | None = None,
    latents: Latents | None = None,
    batch: int = 32,
) -> Response:
    """Turn each knob alone and measure everything.

    Args:
        knobs: their names; all by default.
        amounts: for each knob the amounts to measure, equally many; by default both ends of the usable range and half of
            each. A knob without a usable side is measured at one unit of its standard deviation there.
        n, seed: of the latents; take a seed that nothing was fitted on.
        latents: measure on these instead.
    """
    chosen = [knob for knob in control.knobs if knobs is None or knob.name in knobs]
    for name in (*(knobs or ()), *(amounts or ())):
        checks.known(name, [knob.name for knob in control.knobs], "knob")
    columns, units = columns_of(features)
    latents = generator.sample(n, seed=seed, space=control.space.name, psi=psi, labels=labels) if latents is None else latents
    start = observe(generator, features, latents, batch=batch)
    asked = [list((amounts or {}).get(knob.name) or default_amounts(knob)) for knob in chosen]
    if len({len(row) for row in asked}) > 1:
        raise ValueError(f"every knob needs equally many amounts, got {[len(row) for row in asked]}.")
    jobs = [(knob, amount) for knob, row in zip(chosen, asked, strict=True) for amount in row]
    measured = [
        observe(generator, features, control.steer(latents, turned(control, latents, {knob.name: amount})), batch=batch)
        for knob, amount in progress.track(jobs, "steer and measure", total=len(jobs))
    ]
    values = torch.stack(measured).unflatten(0, (len(chosen), -1))
    return Response(tuple(chosen), torch.tensor(asked, dtype=torch.float32), start, values, columns, units, seed)


def default_amounts(knob: Knob) -> list[float]:
    """Both ends of the usable range and half of each; for a side without one, half of the other side's, mirrored."""
    reach = max(abs(knob.low), abs(knob.high)) or 1.0
    low, high = knob.low or -reach / 2, knob.high or reach / 2
    return [fraction * (high if fraction > 0 else -low) for fraction in FRACTIONS]
