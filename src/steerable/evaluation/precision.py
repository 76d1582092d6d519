"""Whether values that are set come out: requested against measured, several at once, what else changes, and what still differs.

Everything is judged by features that are handed in: take others than the controllers were fitted with. ``shares`` says which group decides
what; ``controls.groups`` has the controllers.

Sources: Shoshan et al., "GAN-Control: explicitly controllable GANs", ICCV 2021, section 4.3, for precision as the value that is measured
again; the tests of collapse are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.controls.groups import Controllers, GroupController
from steerable.generators.module import row_seed
from steerable.protocols import Feature, Generator, Images, Knob, Latents
from steerable.sampling import observe

CENTRE = (5, 95)  # percentiles: the central 90 % of the population


@dataclass(frozen=True, eq=False)
class Precision:
    """What was asked and what was measured.

    Attributes:
        knobs: that were set together.
        classes: of each knob, 0 for numbers.
        requested, measured: a column a knob, in its unit.
        seed: of the latents.
    """

    knobs: tuple[Knob, ...]
    classes: tuple[int, ...]
    requested: Float[Tensor, "n k"]
    measured: Float[Tensor, "n k"]
    seed: int

    def correlation(self, name: str) -> float:
        """Of requested and measured; for classes the share that came out."""
        requested, measured, classes = self._column(name)
        if classes:
            return float((requested == measured).float().mean())
        return float(torch.corrcoef(torch.stack([requested, measured]))[0, 1])

    def error(self, name: str) -> float:
        """Mean absolute difference in the knob's unit; for classes the share that did not come out."""
        requested, measured, classes = self._column(name)
        return float((requested != measured).float().mean()) if classes else float((requested - measured).abs().mean())

    def _column(self, name: str) -> tuple[Tensor, Tensor, int]:
        place = [knob.name for knob in self.knobs].index(checks.known(name, [knob.name for knob in self.knobs], "value"))
        return self.requested[:, place], self.measured[:, place], self.classes[place]


def precision(
    generator: Generator,
    controllers: Controllers,
    judges: Mapping[str, Feature],
    knobs: Sequence[str],
    *,
    n: int = 512,
    seed: int = 1,
    one_answer: bool = False,
) -> Precision:
    """Set the knobs of n latents to values drawn from the central 90 % of what each shows, as far as it is in reach, and measure.

    Args:
        judges: group -> a feature with the columns of its knobs, or with one a class.
        knobs: set together; those of one group come along.
        one_answer: set E_k's answer instead of one of the many.
    """
    chosen = controllers[list(knobs)]
    latents = generator.sample(n, seed=seed, space=chosen.space.name)
    rng = torch.Generator().manual_seed(row_seed(seed, n))
    requested = torch.cat([requests(part, n, rng) for part in chosen.parts], 1)
    if one_answer:
        moved = chosen.steer(latents, requested)
    else:
        moved = chosen.draw(latents, requested, seeds=[row_seed(seed, row) for row in range(n)])
    measured = torch.cat([read(part, generator, judges, moved) for part in chosen.parts], 1)
    classes = tuple(part.classes for part in chosen.parts for _ in part.knobs)
    return Precision(chosen.knobs, classes, requested, measured, seed)


def requests(part: GroupController, n: int, rng: torch.Generator) -> Float[Tensor, "n k"]:
    """Values of a group's knobs: evenly over the central 90 % of the population within reach, or any class."""
    if part.classes:
        return torch.randint(part.classes, (n, 1), generator=rng).float()
    ends = [(max(knob.low, knob.value_at(CENTRE[0])), min(knob.high, knob.value_at(CENTRE[1]))) for knob in part.knobs]
    low, high = torch.tensor(ends).unbind(1)
    return low + (high - low) * torch.rand(n, len(part.knobs), generator=rng)


def read(part: GroupController, generator: Generator, judges: Mapping[str, Feature], latents: Latents) -> Float[Tensor, "n k"]:
    """What a group's judge says of pictures: its numbers, or the likeliest class."""
    values = observe(generator, [judges[checks.known(part.group, judges, "judged group")]], latents, batch=64)
    return values.argmax(1, keepdim=True).float() if part.classes else values


def class_changes(
    generator: Generator, controllers: Controllers, judge: Feature, knobs: Sequence[str], *, n: int = 512, seed: int = 1
) -> dict[str, float]:
    """For each knob the share of n latents whose likeliest class is another one after that knob alone was set to a random value."""
    latents = generator.sample(n, seed=seed, space=controllers.space.name)
    before = observe(generator, [judge], latents, batch=64).argmax(1)
    found = {}
    for place, knob in enumerate(knobs):
        chosen = controllers[[knob]]
        rng = torch.Generator().manual_seed(row_seed(seed, n + place))
        asked = torch.cat([requests(part, n, rng) for part in chosen.parts], 1)
        moved = chosen.draw(latents, asked, seeds=[row_seed(seed + 1, row) for row in range(n)])
        found[knob] = float((observe(generator, [judge], moved, batch=64).argmax(1) != before).float().mean())
    return found


def class_frequencies(generator: Generator, judge: Feature, *, n: int = 2000, seed: int = 1) -> Float[Tensor, " c"]:
    """The share of each class among n pictures, over the share it would have if all were as frequent: 1 is even."""
    values = observe(generator, [judge], generator.sample(n, seed=seed), batch=64)
    return torch.bincount(values.argmax(1), minlength=values.shape[1]).float() / n * values.shape[1]


def alike(
    generator: Generator,
    controllers: Controllers,
    judges: Mapping[str, Feature],
    real: Images,
    distance: Callable[[Images, Images], Tensor],
    *,
    n: int = 200,
    seed: int = 1,
) -> tuple[float, float]:
    """Mean distance of two samples that share all values, and of two real pictures that measure alike.

    A sample's values are those of a real picture, cut to what is in reach. Of real pictures the pairs are each of n with the one that is
    nearest in all values, of the same class where there are classes.

    Args:
        real: at least a few thousand, so that there are pictures of nearly the same values.
        distance: (n, c, h, w) twice -> (n,), ``Perceptual`` for example.
    """
    read_off = {part.group: _measured(judges[part.group], real) for part in controllers.parts}
    apart = torch.zeros(min(n, len(real)), len(real))
    asked = []
    for part in controllers.parts:
        values = read_off[part.group]
        if part.classes:
            number = values.argmax(1)
            apart += 1e6 * (number[: len(apart), None] != number[None])
            asked.append(number[: len(apart), None].float())
        else:
            scaled = values / values.std(0)
            apart += (scaled[: len(apart), None] - scaled[None]).square().sum(2)
            low, high = (torch.tensor([getattr(knob, end) for knob in part.knobs]) for end in ("low", "high"))
            asked.append(values[: len(apart)].clamp(low, high))
    apart[torch.arange(len(apart)), torch.arange(len(apart))] = torch.inf
    partner = apart.argmin(1)
    pairs = []
    for side in range(2):
        latents = generator.sample(len(apart), seed=seed + side, space=controllers.space.name)
        seeds = [row_seed(seed + side, row) for row in range(len(apart))]
        moved = controllers.draw(latents, torch.cat(asked, 1), seeds=seeds)
        with torch.inference_mode():
            pairs.append(torch.cat([generator(moved[start : start + 64]) for start in range(0, len(moved), 64)]))
    made = torch.cat([distance(a, b) for a, b in zip(pairs[0].split(32), pairs[1].split(32), strict=True)])
    kept = torch.cat([distance(a, b) for a, b in zip(real[: len(apart)].split(32), real[partner].split(32), strict=True)])
    return float(made.mean()), float(kept.mean())


@torch.inference_mode()
def _measured(feature: Feature, images: Images) -> Tensor:
    return torch.cat([feature(part).float() for part in images.split(250)]).clone()
