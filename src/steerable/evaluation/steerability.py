"""How well a walk does what its edit asks, against how much is asked: figure 9 of the paper.

For latents that nothing was fitted on, the squared error between the walked image and the edited one over the pixels that the edit
knows, at each amount. Unlike ``fitting.walks.relative_loss`` it keeps every latent's error, for confidence bands, and compares
generators: the error of one is against its own images, so what doing nothing costs there stands beside it.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, section 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import progress
from steerable.controls.directions import amounts as turned
from steerable.edits import masked_error
from steerable.protocols import Control, Edit, Generator, Knob

Z95 = 1.959964  # standard errors to each side of a mean


@dataclass(frozen=True, eq=False)
class Steerability:
    """Errors of one walk.

    Attributes:
        knob: of the edit; its unit is that of the amounts.
        amounts: (a,) ascending.
        errors: (a, n) masked mean squared error of walking, images in [-1, 1].
        still: (a, n) of not moving at all.
        seed: of the n latents.
    """

    knob: Knob
    amounts: Float[Tensor, " a"]
    errors: Float[Tensor, "a n"]
    still: Float[Tensor, "a n"]
    seed: int

    @property
    def n(self) -> int:
        return self.errors.shape[1]

    @property
    def mean(self) -> Float[Tensor, " a"]:
        return self.errors.mean(1)

    @property
    def band(self) -> Float[Tensor, " a"]:
        """Half the width of the 95 % confidence band of the mean."""
        return Z95 * self.errors.std(1) / self.n**0.5

    @property
    def relative(self) -> Float[Tensor, " a"]:
        """The mean error over that of not moving: 0 is perfect, 1 useless; 0 where nothing is asked."""
        return torch.where(self.amounts == (self.knob.neutral or 0.0), 0.0, self.mean / self.still.mean(1).clamp(min=1e-12))


def steerability(
    generator: Generator,
    control: Control,
    edit: Edit,
    *,
    amounts: Sequence[float] | None = None,
    n: int = 1000,
    seed: int = 1,
    batch: int = 250,
) -> Steerability:
    """Walk and edit the same images, and compare them.

    Args:
        control: with a knob of the edit's name and unit.
        amounts: by default 17 from end to end of the edit's range.
        n, seed: of the latents; take a seed that nothing was fitted on.

    Raises:
        ValueError: n below 2, or a control without that knob.
    """
    knob = edit.knob
    if n < 2 or batch < 1:
        raise ValueError(f"a confidence band needs 2 latents or more, got n={n}, in batches of {batch}.")
    asked = torch.linspace(knob.low, knob.high, 17) if amounts is None else torch.tensor(sorted(float(one) for one in amounts))
    latents = generator.sample(n, seed=seed, space=control.space.name)
    errors, still = torch.empty(len(asked), n), torch.empty(len(asked), n)
    with torch.no_grad():
        for start in progress.track(range(0, n, batch), f"steerability: {knob.name}"):
            some, rows = latents[start : start + batch], slice(start, start + batch)
            before = generator(some)
            for i, amount in enumerate(asked.tolist()):
                targets, mask = edit(before, before.new_full((len(before),), amount))
                after = generator(control.steer(some, turned(control, some, {knob.name: amount}).to(some.values)))
                errors[i, rows] = masked_error(after, targets, mask.to(before)).cpu()
                still[i, rows] = masked_error(before, targets, mask.to(before)).cpu()
    return Steerability(knob, asked, errors, still, seed)


@dataclass(frozen=True)
class Rank:
    """The walks of several generators at one amount.

    Attributes:
        means: of the errors, in the expected order.
        ordered: whether each is below the next one.
        apart: whether no confidence band reaches into the next one.
    """

    amount: float
    means: tuple[float, ...]
    ordered: bool
    apart: bool


def ranks(expected: Mapping[str, Steerability], *, beyond: float = 0.5) -> list[Rank]:
    """Whether errors rise in the order given, at every amount from a fraction of the range's ends on.

    Args:
        expected: smallest error first; all measured at the same amounts.
        beyond: of the end on the amount's side.

    Raises:
        ValueError: results at different amounts.
    """
    results = list(expected.values())
    if len(results) < 2 or any(not torch.equal(one.amounts, results[0].amounts) for one in results):
        raise ValueError(f"an order takes two results or more at the same amounts, got {', '.join(expected) or 'none'}.")
    knob, found = results[0].knob, []
    for i, amount in enumerate(results[0].amounts.tolist()):
        end = knob.high if amount > 0 else -knob.low
        if amount == 0 or abs(amount) < beyond * end - 1e-6:
            continue
        means = tuple(float(one.mean[i]) for one in results)
        gaps = [float(b.mean[i] - a.mean[i] - a.band[i] - b.band[i]) for a, b in pairwise(results)]
        found.append(Rank(amount, means, all(a < b for a, b in pairwise(means)), all(gap > 0 for gap in gaps)))
    return found


def series(results: Mapping[str, Steerability]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Mean and band of each, as ``render.curves`` draws them."""
    return {name: (one.mean, one.mean - one.band, one.mean + one.band) for name, one in results.items()}


COLUMNS = ("amount", "error", "95 % band", "not moving", "relative")


def table(result: Steerability) -> list[tuple[float, float, float, float, float]]:
    """A row for each amount; see ``COLUMNS``."""
    rows = zip(result.amounts, result.mean, result.band, result.still.mean(1), result.relative, strict=True)
    return [(float(a), float(b), float(c), float(d), float(e)) for a, b, c, d, e in rows]
