"""Several controls in order, as one: their knobs side by side.

Each part moves what the one before it left. Straight parts of a chain simply add up; for walks that were fitted jointly see
``fitting.walks``. Source: the combined walks of Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks",
ICLR 2020, B.5 and figure 27.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from steerable import checks
from steerable.protocols import Amounts, Control, Knob, Latents, LatentSpace


@runtime_checkable
class Divisible(Control, Protocol):
    """A control of which some knobs can be had alone."""

    def __getitem__(self, names: str | Sequence[str], /) -> Control: ...


@dataclass(frozen=True, eq=False)
class Chain:
    """Controls of one space, steered one after the other.

    Attributes:
        parts: at least one; the first one moves first.
        fit: how it was put together. JSON only; saved with the control.

    Raises:
        ValueError: no part, parts of different spaces or generators, two knobs of one name.
    """

    parts: tuple[Control, ...]
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise ValueError("a chain has at least one control, got none.")
        others = [part.space for part in self.parts if part.space != self.space]
        if others:
            here, there = (space.owner if others[0].fingerprint != self.space.fingerprint else space for space in (self.space, others[0]))
            raise ValueError(f"controls of {here} and of {there} cannot be chained: fit both in one space of one generator.")
        names = [knob.name for knob in self.knobs]
        if len(set(names)) < len(names):
            raise ValueError(f"every knob of a chain needs a name of its own, got {', '.join(names)}.")

    @property
    def knobs(self) -> tuple[Knob, ...]:
        return tuple(knob for part in self.parts for knob in part.knobs)

    @property
    def space(self) -> LatentSpace:
        return self.parts[0].space

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """Every part with its own columns of the amounts (n, k), in the order of the knobs; neutral ones change nothing."""
        checks.lives_in(latents, self.space, "this control")
        checks.amounts(amounts, len(latents), self.knobs)
        widths = [len(part.knobs) for part in self.parts]
        for part, share in zip(self.parts, amounts.split(widths, dim=1), strict=True):
            latents = part.steer(latents, share)
        return latents

    def __getitem__(self, names: str | Sequence[str]) -> Chain:
        """The parts that own these knobs, with no others where a part can be taken apart; in the chain's order."""
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            checks.known(name, [knob.name for knob in self.knobs], "knob")
        parts = [(part, [knob.name for knob in part.knobs if knob.name in wanted]) for part in self.parts]
        kept = [part[own] if isinstance(part, Divisible) else part for part, own in parts if own]
        return replace(self, parts=tuple(kept))
