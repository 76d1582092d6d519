"""A small network that tells the classes of pictures apart, trained to overlook slant, stroke and place.

What it makes is a ``features.digits.DigitNetwork``: the predictor of "which digit" in a controllable training, and with another seed the
judge of one. Its pictures are sheared, turned, scaled, shifted, thickened and thinned on the way, each in two ways whose embeddings are
asked to be the same: telling classes apart alone leaves an embedding that moves with the slant. ``sheared_share`` says how much is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.features.digits import SLANT, DigitNetwork
from steerable.generators.module import row_seed
from steerable.progress import track
from steerable.protocols import Images
from steerable.sources import read_source, rows_at

SAME = 5.0  # weight of the distance between two distortions of one picture, 1 - cosine, beside the cross-entropy


@dataclass(frozen=True, eq=False)
class Classified:
    """A trained network and how often it is right.

    Attributes:
        accuracy: on the held-out tenth of the pictures, and on the same pictures distorted.
        sheared: the share of the embedding's spread that slant alone makes, of 1,000 of the former; see ``sheared_share``.
    """

    network: DigitNetwork
    accuracy: float
    accuracy_distorted: float
    sheared: float
    fit: Mapping[str, Any]


def train_classifier(
    source: Any, *, seed: int = 0, steps: int = 2500, batch: int = 128, size: int = 16, lr: float = 2e-3, device: str = "cpu"
) -> Classified:
    """Train on nine tenths of the labelled pictures, at 32 px.

    Args:
        source: see ``sources.read_source``; it needs classes.
        size: of the embedding.
        lr: Adam's at the beginning; it falls to 0 along a cosine.

    Raises:
        ValueError: a source without classes, numbers out of range.
    """
    pictures = read_source(source, size=32, channels=1)
    if len(pictures.classes) < 2:
        raise ValueError(
            f"{pictures.name} has no classes to tell apart: give idx files with labels, or pictures in a folder for each class."
        )
    if min(steps, batch, size) < 1 or not lr > 0 or seed < 0:
        raise ValueError(
            f"steps, batch and size are 1 or more, lr is above 0, seed 0 or above; got {steps}, {batch}, {size}, {lr}, {seed}."
        )
    rng = torch.Generator().manual_seed(row_seed(seed, 0))
    with torch.random.fork_rng(devices=[]):
        network = DigitNetwork(len(pictures.classes), size)
    with torch.no_grad():
        for parameter in network.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * (2 / fan) ** 0.5 * (parameter.ndim > 1))
    network.to(device).train()
    order = torch.randperm(len(pictures), generator=rng)
    held, kept = order[: len(order) // 10], order[len(order) // 10 :]
    adam = torch.optim.Adam(network.parameters(), lr=lr)
    for number in track(range(steps), f"train the classifier, seed {seed}"):
        for group in adam.param_groups:
            group["lr"] = lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * number / steps)).item())
        images, labels = pictures.batch(kept[rows_at(len(kept), number * batch, batch, seed=seed)])
        embedding, logits = network(torch.cat([distorted(images, rng), distorted(images, rng)]).to(device))
        one, other = embedding.chunk(2)
        loss = F.cross_entropy(logits, labels.to(device).repeat(2)) + SAME * (1 - (one * other).sum(1)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    network.eval().requires_grad_(False)
    images, labels = pictures.batch(held)
    right, bent = (accuracy(network, part.to(device), labels.to(device)) for part in (images, distorted(images, rng)))
    fit = {"seed": seed, "steps": steps, "batch": batch, "size": size, "lr": lr, "pictures": len(kept)}
    return Classified(network, right, bent, sheared_share(network, images[:1000].to(device), rng), fit)


@torch.no_grad()
def accuracy(network: DigitNetwork, images: Images, labels: Tensor) -> float:
    """The share of pictures whose likeliest class is theirs."""
    found = torch.cat([network(part)[1].argmax(1) for part in images.split(500)])
    return float((found == labels).float().mean())


@torch.no_grad()
def sheared_share(network: DigitNetwork, images: Images, rng: torch.Generator, draws: int = 12) -> float:
    """How far the embedding moves when each picture is sheared to the slants of others, over its spread.

    It is the share of ``evaluation.shares``, of real pictures: the root of the variance within a picture's shears over that of all
    pictures. A generator that slants digits as a hand does reads no less.
    """
    across = torch.tan(torch.deg2rad(SLANT(images)[:, 0]))
    seen = []
    for _ in range(draws):
        other = across[torch.randint(len(across), across.shape, generator=rng).to(across.device)]
        theta = torch.eye(2, 3).to(images).repeat(len(images), 1, 1)
        theta[:, 0, 1] = other - across  # y points down, and the grid says where a pixel comes from
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        seen.append(network(F.grid_sample((images + 1) / 2, grid, align_corners=False) * 2 - 1)[0])
    return float((torch.stack(seen, 1).var(1).mean(0).sum() / network(images)[0].var(0).sum()).sqrt())


def distorted(images: Images, rng: torch.Generator) -> Images:
    """Each picture sheared by up to 0.7, turned by 8 degrees, scaled by 15 %, shifted by 2 pixels of 32, thicker or thinner."""
    n = len(images)

    def uniform(reach: float) -> Tensor:
        return (torch.rand(n, generator=rng) * 2 - 1) * reach

    shear, turn, scale = uniform(0.7), torch.deg2rad(uniform(8)), 1 + uniform(0.15)
    one = torch.stack([torch.stack([turn.cos(), shear - turn.sin()], 1), torch.stack([turn.sin(), turn.cos()], 1)], 1)
    theta = torch.cat([one / scale[:, None, None], torch.stack([uniform(0.125), uniform(0.125)], 1)[:, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample((images + 1) / 2, grid, align_corners=False)
    thick = F.max_pool2d(moved, 3, 1, 1)
    thin = -F.max_pool2d(-moved, 3, 1, 1)
    by = uniform(0.8)[:, None, None, None]
    return torch.where(by > 0, moved.lerp(thick, by.clamp(min=0)), moved.lerp(thin, -by.clamp(max=0))) * 2 - 1
