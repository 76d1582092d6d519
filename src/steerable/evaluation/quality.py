"""How plausible images are: kernel distance between two sets, on the features of a network.

Source: Binkowski et al., "Demystifying MMD GANs", ICLR 2018: the unbiased squared maximum mean discrepancy with the
kernel (x'y / d + 1)^3. Unlike the Fréchet distance it has no bias that grows as n falls, so it says something at n = 256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import progress
from steerable.controls.directions import amounts as turned
from steerable.protocols import Control, Generator, Images, Latents, Values


def kernel_distance(real: Float[Tensor, "n f"], other: Float[Tensor, "m f"]) -> float:
    """Squared MMD of two sets of network features; about 0 for two draws of one distribution.

    Raises:
        ValueError: fewer than 16 images in a set, which says nothing.
    """
    from torchmetrics.image.kid import poly_mmd

    if min(len(real), len(other)) < 16:
        raise ValueError(f"kernel distance needs at least 16 images in each set, got {len(real)} and {len(other)}.")
    n = min(len(real), len(other))
    return float(poly_mmd(real[:n].double(), other[:n].double(), degree=3, coef=1.0))


FULL_RANK = 1280  # features of the shipped backbone


def frechet_distance(real: Float[Tensor, "n f"], other: Float[Tensor, "m f"]) -> float:
    """Fréchet distance (FID) of two sets of network features, each taken for a Gaussian: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    It is the paper's measure, on the features at hand: numbers compare only with others of the same network and n, and fall as n grows.

    Source: Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017.

    Raises:
        ValueError: not more images than features in a set, so that a covariance would lack rank.
    """
    n, features = min(len(real), len(other)), real.shape[1]
    if n <= features:
        raise ValueError(
            f"a Fréchet distance (FID) of {features} features takes more than {features} images in each set, or their covariances have no "
            f"full rank and the distance is mostly bias; got {n}. Ask for more images, or use the kernel distance, which has no such bias."
        )
    means, covariances = zip(*[(one.double().mean(0), torch.cov(one.double().T)) for one in (real, other)], strict=True)
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.clamp(min=0).sqrt()  # (S1 S2)^(1/2) has the trace of (root' S2 root)^(1/2)
    cross = torch.linalg.eigvalsh(root.T @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    return float((means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * cross)


@dataclass(frozen=True)
class PathQuality:
    """Kernel distance of steered to unsteered images along one knob.

    Attributes:
        knob: its name.
        amounts: in its unit.
        distances: one an amount.
        floor: between two draws of unsteered images: what no control can be told from.
        n, seed: images in each set, and of which latents.
    """

    knob: str
    amounts: tuple[float, ...]
    distances: tuple[float, ...]
    floor: float
    n: int
    seed: int


def path_quality(
    generator: Generator,
    control: Control,
    knob: str,
    amounts: Sequence[float],
    *,
    network: Callable[[Images], Values],
    n: int = 128,
    seed: int = 1,
    batch: int = 32,
) -> PathQuality:
    """Kernel distance at each amount, to other latents than those that are steered."""
    latents = generator.sample(2 * n, seed=seed, space=control.space.name)
    reference, moved = latents[:n], latents[n:]
    plain = pooled(generator, network, reference, batch=batch)
    floor = kernel_distance(plain, pooled(generator, network, moved, batch=batch))
    distances = []
    for amount in progress.track(list(amounts), f"plausibility of {knob}"):
        steered = control.steer(moved, turned(control, moved, {knob: amount}))
        distances.append(kernel_distance(plain, pooled(generator, network, steered, batch=batch)))
    return PathQuality(knob, tuple(float(a) for a in amounts), tuple(distances), floor, n, seed)


def pooled(generator: Generator, network: Callable[[Images], Values], latents: Latents, *, batch: int = 32) -> Float[Tensor, "n f"]:
    """Network features of generated images."""
    with torch.inference_mode():
        return torch.cat([network(generator(latents[i : i + batch])) for i in range(0, len(latents), batch)]).clone()
