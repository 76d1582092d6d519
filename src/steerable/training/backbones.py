"""The networks that a controllable training can be given, by one name: what builds, starts and draws them, and their own settings.

``controllable`` trains any of them alike. A new backbone is one more entry: a generator of ``generators`` that maps groups (``mapped``)
and draws from w, and a discriminator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steerable.generators import families
from steerable.generators.dcgan_discriminator import DCGANDiscriminator, initialised
from steerable.generators.grouped_dcgan import GroupedDCGAN
from steerable.generators.grouped_front import GroupedFront
from steerable.generators.module import ModuleGenerator
from steerable.generators.stylegan2 import StyleGAN2
from steerable.generators.stylegan2_discriminator import StyleGAN2Discriminator
from steerable.protocols import Images, home

FIRST = 4  # side of the first map and of the discriminator's last
WIDEST = 512
MOMENTS = 4096  # samples of a frozen w that its mean and covariance are taken from
COMPARED = 8  # rows whose deviation the discriminator is shown


@dataclass(frozen=True)
class Backbone:
    """One kind of generator and its discriminator.

    Attributes:
        generator: mapping of the groups, channels at 4 x 4, 8 x 8, ..., channels of the picture -> network.
        discriminator: the same channels, channels of the picture -> network.
        start: gives both their first weights.
        drawn: network, w and a random stream -> pictures, in training; every process draws the whole batch's noise and takes its rows.
        kind: of the plain generator that a training may start from: its family.
        defaults: step size, Adam's betas, weights of R1 and of the path length.
        strangeness: network and a random stream -> how far its latents are from where it expects them; None where it is trained itself.
    """

    generator: Callable[[Sequence[Any], Sequence[int], int], nn.Module]
    discriminator: Callable[[Sequence[int], int], nn.Module]
    start: Callable[[nn.Module, nn.Module, torch.Generator], None]
    drawn: Callable[[Any, Tensor, torch.Generator, int, Callable[[Tensor], Tensor]], Images]
    kind: str
    defaults: Mapping[str, Any]
    strangeness: Callable[[Any, torch.Generator], Tensor] | None = None


def channels_at(width: int, size: int) -> list[int]:
    """Channels at 4 x 4, 8 x 8, ... size: ``width`` at half the picture's side, twice as many at each smaller one, at most 512."""
    doublings = round(math.log2(size / FIRST))
    return [min(WIDEST, max(width, width * 2 ** (doublings - 1 - i))) for i in range(doublings + 1)]


def _made_dcgan(mapping: Sequence[Any], wide: Sequence[int], channels: int) -> nn.Module:
    return GroupedDCGAN(mapping, [*wide[:-1], channels], first=FIRST)


def _start_dcgan(generator: Any, discriminator: Any, rng: torch.Generator) -> None:
    initialised(generator.synthesis, rng)
    generator.initialise(rng)
    discriminator.initialise(rng)


def _draw_dcgan(network: Any, w: Tensor, rng: torch.Generator, batch: int, mine: Callable[[Tensor], Tensor]) -> Images:
    return network.drawn(w)


def _start_stylegan2(generator: Any, discriminator: Any, rng: torch.Generator) -> None:
    generator.initialise(rng)
    discriminator.initialise(rng)


def _draw_stylegan2(network: Any, w: Tensor, rng: torch.Generator, batch: int, mine: Callable[[Tensor], Tensor]) -> Images:
    """One w for all layers (style mixing would let two pictures share half a group), and new noise for every picture."""
    sides = [4, *(side for side in network.sides[1:] for _ in range(2))]
    noise = [mine(torch.randn(batch, 1, side, side, generator=rng)).to(w) for side in sides]
    return network.images(network.styles(network.broadcast(w)), noise=noise)


BACKBONES: Mapping[str, Backbone] = {
    "dcgan": Backbone(
        _made_dcgan,
        lambda wide, channels: DCGANDiscriminator([channels, *reversed(wide[:-1])], last=FIRST, compared=COMPARED),
        _start_dcgan,
        _draw_dcgan,
        "dcgan",
        {"lr": 1e-3, "betas": (0.5, 0.999), "r1": 1.0, "r1_every": 16, "path_length": 0.0, "path_every": 4, "ema": 0.999},
    ),
    "dcgan-bounded": Backbone(
        _made_dcgan,
        lambda wide, channels: DCGANDiscriminator([channels, *reversed(wide[:-1])], last=FIRST, compared=COMPARED, bounded=True),
        _start_dcgan,
        _draw_dcgan,
        "dcgan",
        {"lr": 5e-4, "betas": (0.5, 0.999), "r1": 0.0, "r1_every": 16, "path_length": 0.0, "path_every": 4, "ema": 0.999},
    ),
    "stylegan2": Backbone(
        lambda mapping, wide, channels: StyleGAN2(mapping, wide, channels=channels, averaged=False, residual=True),
        lambda wide, channels: StyleGAN2Discriminator(wide, channels=channels, compared=4),
        _start_stylegan2,
        _draw_stylegan2,
        "stylegan2",
        {"lr": 2e-3, "betas": (0.0, 0.99), "r1": 1.0, "r1_every": 16, "path_length": 2.0, "path_every": 4, "ema": 0.999},
    ),
}


def in_front_of(frozen: ModuleGenerator) -> Backbone:
    """Groups in front of a generator that stays as it is: only their networks and a rotation of its latent are trained.

    The latent entered is w where there is one, and z otherwise. The discriminator tells its own pictures from those of the groups.

    Raises:
        ValueError: a wrapped module, whose network no file could hold, or one with classes.
    """
    network: Any = frozen.network
    if getattr(network, "family", None) not in families.FAMILIES or frozen.classes:
        what = "has classes" if frozen.classes else "is a module of your own, which no file could hold"
        raise ValueError(f"{frozen.name} {what}: groups are learned in front of a generator of a known family without classes.")
    space = home(frozen)

    def made(mapping: Sequence[Any], wide: Sequence[int], channels: int) -> nn.Module:
        found = GroupedFront(mapping, network.family, network.config, space=space)
        found.inner.load_state_dict(network.state_dict())
        found.prepare()
        if space != "z":
            w = frozen.sample(MOMENTS, seed=0, space=space).values.detach().float().cpu()
            values, vectors = torch.linalg.eigh(torch.cov(w.T))
            found.get_buffer("centre").copy_(w.mean(0))
            found.get_buffer("scale").copy_(vectors * values.clamp(min=0).sqrt() @ vectors.T)
        return found

    def start(generator: Any, discriminator: Any, rng: torch.Generator) -> None:
        generator.initialise(rng)
        discriminator.initialise(rng)

    return Backbone(
        made,
        BACKBONES["dcgan"].discriminator,
        start,
        _draw_dcgan,
        "grouped-front",
        {**BACKBONES["dcgan"].defaults, "lr": 1e-3, "ema": 0.99},
        lambda generator, rng: generator.strangeness(rng),
    )
