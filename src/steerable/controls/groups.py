"""Set values by number in a generator whose latent has parts: a small network a group, from values to its share of w.

    w_k = E_k(y)           the one answer: ``steer``, ``set``
    w_k = S_k(y, noise)    one of the many: ``set(..., seeds=...)``, so that pictures of one value still differ

Only the named groups are replaced, so everything else of a picture stays what it was. ``fitting.controllers`` makes them; ``controller``
sets values on a generator that was trained without parts, by search.

Sources: Shoshan et al., "GAN-Control: explicitly controllable GANs", ICCV 2021, section 3.2, for E_k; the sampler is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.protocols import Amounts, Knob, Latents, LatentSpace

Layers = tuple[Tensor, ...]  # weight, bias, weight, bias, ...


@dataclass(frozen=True, eq=False)
class GroupController:
    """Values of one group's knobs -> its share of w.

    Attributes:
        group: name of the part.
        knobs: one a number that is asked for; ``low`` to ``high`` is the reachable interval, in the knob's unit.
        classes: how many, where the one knob is the number of a class; 0 for measured numbers.
        centre, spread: (k,) that values are normalised by; of no account for classes.
        point, drawn: layers of E_k and of S_k, SiLU between them.
        noise: numbers of noise that S_k takes.
        spherical: whether a share of w has a root mean square of 1.
    """

    group: str
    knobs: tuple[Knob, ...]
    classes: int
    centre: Float[Tensor, " k"]
    spread: Float[Tensor, " k"]
    point: Layers
    drawn: Layers
    noise: int
    spherical: bool = True

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of them by name, for files."""
        layers = {f"{what}.{i}": one for what in ("point", "drawn") for i, one in enumerate(getattr(self, what))}
        return {"centre": self.centre, "spread": self.spread, **layers}

    def inputs(self, values: Amounts) -> Float[Tensor, "n i"]:
        """What the networks see: values in population deviations, or one-hot classes."""
        if self.classes:
            return F.one_hot(values[:, 0].round().long(), self.classes).to(self.point[0])
        return (values.to(self.point[0]) - self.centre) / self.spread

    def answer(self, values: Amounts) -> Float[Tensor, "n d"]:
        """E_k: the middle of all answers."""
        return _normed(layered(self.point, self.inputs(values)), self.spherical)

    def draw(self, values: Amounts, noise: Float[Tensor, "n z"]) -> Float[Tensor, "n d"]:
        """S_k: one of the answers for each row of noise."""
        return _normed(layered(self.drawn, torch.cat([self.inputs(values), noise], 1)), self.spherical)


@dataclass(frozen=True, eq=False)
class Controllers:
    """One or more groups set by value, as a control: its amounts are the values themselves.

    Attributes:
        parts: at most one a group.
        space: of w, with the groups as its parts.
        fit: how they were fitted, and how precise they were. JSON only; saved with the control.

    Raises:
        ValueError: no part, two of one group, or a part that the space does not have.
    """

    parts: tuple[GroupController, ...]
    space: LatentSpace
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        names = [part.group for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"controllers set one or more groups, each once; got {', '.join(names) or 'none'}.")
        for name in names:
            self.space.part(name)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        return tuple(knob for part in self.parts for knob in part.knobs)

    def __getitem__(self, names: str | Sequence[str]) -> Controllers:
        """Those that own these knobs; several knobs of one group stay together."""
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            checks.known(name, [knob.name for knob in self.knobs], "value")
        return replace(self, parts=tuple(part for part in self.parts if any(knob.name in wanted for knob in part.knobs)))

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """Replace the groups' shares by the one answer to each row's values.

        Args:
            latents: n of them, in w.
            amounts: (n, k) values in the knobs' units, for all knobs.

        Raises:
            ValueError: latents of another space or generator, a value outside the reachable interval, a class that is no whole number.
        """
        checks.lives_in(latents, self.space, "this control")
        amounts = checks.amounts(amounts, len(latents), self.knobs)
        self._check(amounts)
        found = latents.values.clone()
        for part, values in self._columns(amounts):
            found[..., self.space.part(part.group)] = part.answer(values.to(found.device)).to(found)
        return latents.at(found)

    def draw(self, latents: Latents, amounts: Amounts, *, seeds: Sequence[int]) -> Latents:
        """Replace them by one of the many answers, a row's own: its seed decides which.

        Raises:
            ValueError: as ``steer``, and another number of seeds than latents.
        """
        checks.lives_in(latents, self.space, "this control")
        amounts = checks.amounts(amounts, len(latents), self.knobs)
        self._check(amounts)
        if len(seeds) != len(latents):
            raise ValueError(f"answers are drawn with one seed a latent: got {len(seeds)} seeds for {len(latents)} latents.")
        streams = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
        noise = {part.group: torch.stack([torch.randn(part.noise, generator=rng) for rng in streams]) for part in self.parts}
        found = latents.values.clone()
        for part, values in self._columns(amounts):
            found[..., self.space.part(part.group)] = part.draw(values.to(found.device), noise[part.group].to(found)).to(found)
        return latents.at(found)

    def set(self, latents: Latents, values: Mapping[str, Any], *, seeds: Sequence[int] | None = None) -> Latents:
        """Set some values by name: ``{"slant": 20, "ink": "p90"}``; a list has one value a row.

        Args:
            seeds: one a latent, to draw one of the many answers for each; without, all have the one answer.

        Raises:
            ValueError: an unknown name, a value of the wrong kind or out of reach, some but not all knobs of a group.
        """
        chosen, amounts = self.asked(values, len(latents))
        return chosen.steer(latents, amounts) if seeds is None else chosen.draw(latents, amounts, seeds=seeds)

    def asked(self, values: Mapping[str, Any], n: int) -> tuple[Controllers, Amounts]:
        """The controllers of the named values, and those values as numbers (n, k).

        Raises:
            ValueError: as ``set``.
        """
        chosen = self[list(values)]
        missing = [knob.name for knob in chosen.knobs if knob.name not in values]
        if missing:
            raise ValueError(f"{', '.join(values)} belongs to a group whose values are set together: also give {', '.join(missing)}.")
        amounts = torch.stack([_asked(values[knob.name], knob, n) for knob in chosen.knobs], 1)
        chosen._check(amounts)
        return chosen, amounts

    def _columns(self, amounts: Amounts) -> list[tuple[GroupController, Tensor]]:
        widths = [len(part.knobs) for part in self.parts]
        return list(zip(self.parts, amounts.split(widths, dim=1), strict=True))

    def _check(self, amounts: Amounts) -> None:
        for part, values in self._columns(amounts):
            for knob, column in zip(part.knobs, values.unbind(1), strict=True):
                outside = column[(column < knob.low - 1e-6) | (column > knob.high + 1e-6)]
                if len(outside):
                    raise ValueError(
                        f"{knob.name} = {float(outside[0]):g}{_of(knob)} is out of reach: this generator shows "
                        f"{knob.low:.4g} to {knob.high:.4g}."
                    )
                if part.classes and bool((column != column.round()).any()):
                    raise ValueError(
                        f"{knob.name} is a class from {knob.low:g} to {knob.high:g}, a whole number; got {float(column[0]):g}."
                    )


def _asked(value: Any, knob: Knob, n: int) -> Float[Tensor, " n"]:
    """One value, a percentile ("p90") or a list of them as one number a row."""
    given = list(value) if isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.ndim) else [value]
    if len(given) not in (1, n):
        raise ValueError(f"{knob.name} takes one value or {n}, one a row; got {len(given)}.")
    numbers = [_number(one, knob) for one in given]
    return torch.tensor(numbers * (n if len(numbers) == 1 else 1))


def _number(value: Any, knob: Knob) -> float:
    if isinstance(value, str):
        rank = value.strip().lower()
        try:
            return knob.value_at(float(rank[1:])) if rank.startswith("p") else float(rank)
        except ValueError as error:
            if "percentiles" in str(error):
                raise
            raise ValueError(f'{knob.name} is a number{_of(knob)} or a percentile like "p90"; got "{value}".') from None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f'{knob.name} is a number{_of(knob)} or a percentile like "p90"; got {value!r}.') from None
    if number != number or abs(number) == float("inf") or isinstance(value, bool):
        raise ValueError(f"{knob.name} is a number{_of(knob)}, got {value}.")
    return number


def _of(knob: Knob) -> str:
    return f" ({knob.unit})" if knob.unit else ""


def layered(layers: Layers, x: Tensor) -> Tensor:
    """A small network: linear layers with SiLU between them."""
    pairs = list(pairwise(layers))[::2]
    for i, (weight, bias) in enumerate(pairs):
        x = F.linear(x, weight, bias)
        if i + 1 < len(pairs):
            x = F.silu(x)
    return x


def _normed(x: Tensor, spherical: bool) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8) if spherical else x
