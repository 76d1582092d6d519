"""A small network that reads the numbers of rendered heads, trained on renders whose numbers are exact.

What it makes is a ``features.heads.HeadNetwork``: the predictors of a controllable training, and with another seed their judge. Its
pictures are blurred, dimmed and noised a little on the way, because a generator's are no renders. ``classifier`` is the same for digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from steerable.features.heads import HeadNetwork
from steerable.generators.module import row_seed
from steerable.progress import track
from steerable.protocols import Images
from steerable.rendered import FACTORS, drawn_numbers, heads, rendered_heads
from steerable.sources import rows_at

CHECKED = 1000  # heads that no training saw


@dataclass(frozen=True, eq=False)
class Regressed:
    """A trained network and how far off it is.

    Attributes:
        errors: mean absolute error in each factor's unit, on heads of another seed and without distortions.
    """

    network: HeadNetwork
    errors: Mapping[str, float]
    fit: Mapping[str, Any]


def train_head_network(*, seed: int = 0, steps: int = 1500, batch: int = 128, pictures: int = 12_000, lr: float = 2e-3) -> Regressed:
    """Render ``pictures`` heads of the seed and learn to read their numbers; the error is squared, in half ranges.

    Args:
        lr: Adam's at the beginning; it falls to 0 along a cosine.

    Raises:
        ValueError: numbers out of range.
    """
    if min(steps, batch) < 1 or pictures < batch or not lr > 0 or seed < 0:
        raise ValueError(
            "steps and batch are 1 or more, pictures as many as a batch, lr is above 0, seed 0 or above; "
            f"got {steps}, {batch}, {pictures}, {lr}, {seed}."
        )
    source, numbers = rendered_heads(pictures, seed=row_seed(seed, 0))
    rng = torch.Generator().manual_seed(row_seed(seed, 1))
    with torch.random.fork_rng(devices=[]):
        network = HeadNetwork()
    with torch.no_grad():
        for parameter in network.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * (2 / fan) ** 0.5 * (parameter.ndim > 1))
    network.train()
    reach = network.get_buffer("reach")
    adam = torch.optim.Adam(network.parameters(), lr=lr)
    for number in track(range(steps), f"train the network of heads, seed {seed}"):
        for group in adam.param_groups:
            group["lr"] = lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * number / steps)).item())
        rows = rows_at(len(source), number * batch, batch, seed=seed)
        found = network(distorted(source.batch(rows)[0], rng))
        loss = ((found - numbers[rows, : len(FACTORS)]) / reach).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    network.eval().requires_grad_(False)
    fit = {"seed": seed, "steps": steps, "batch": batch, "pictures": pictures, "lr": lr}
    return Regressed(network, errors(network, seed=row_seed(seed, 2)), fit)


@torch.no_grad()
def errors(network: HeadNetwork, *, seed: int, n: int = CHECKED) -> dict[str, float]:
    """Mean absolute error of every factor on n new heads, against the numbers that they were drawn from."""
    numbers = drawn_numbers(n, seed=seed)
    found = torch.cat([network(heads(part)) for part in numbers.split(250)])
    off = (found - numbers[:, : len(FACTORS)]).abs().mean(0)
    return {factor.name: float(error) for factor, error in zip(FACTORS, off, strict=True)}


def distorted(images: Images, rng: torch.Generator) -> Images:
    """Each picture blurred by up to a pixel, at up to 5 % more or less contrast, with noise of up to 4 % of full scale."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=rng)

    images = images.lerp(F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), uniform(0, 0.7))
    noise = torch.randn(images.shape, generator=rng) * uniform(0, 0.08)
    return (images * uniform(0.95, 1.05) + noise).clamp(-1, 1)
