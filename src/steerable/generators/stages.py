"""What a network tells about its way from a latent to an image: the spaces it passes through, one stage each.

A family's network is an ``nn.Module`` with the attributes of ``Network``; ``module.ModuleGenerator`` walks its stages,
so sampling, truncation, labels and options exist once for all families. A plain module has a single stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from steerable.linear import Linear
from steerable.protocols import Span

Options = Mapping[str, Any]


def gaussian(shape: tuple[int, ...], rng: torch.Generator, options: Options) -> Tensor:
    """One standard normal latent."""
    return torch.randn(shape, generator=rng)


@dataclass(frozen=True)
class Stage:
    """One space of a network, and the step that leaves it.

    Attributes:
        name, shape: of the space: "z", (512,).
        step: ``(values, labels, **options)`` -> the values of the next stage; of the last stage, images (n, c, h, w).
        takes: names of the generator's options that the step is given by keyword.
        labelled: whether the step of a class-conditional network needs the labels.
        draw: one random latent of the first stage from its own random stream, ``(shape, rng, options)``.
        centre: the mean latent that truncation pulls towards; None where truncation shows nothing.
        linearised: the step's own derivative, called as the step; None where automatic differentiation is as good.
        spheres, layers, parts: see ``protocols.LatentSpace``.
    """

    name: str
    shape: tuple[int, ...]
    step: Callable[..., Tensor]
    takes: tuple[str, ...] = ()
    labelled: bool = False
    draw: Callable[[tuple[int, ...], torch.Generator, Options], Tensor] = gaussian
    centre: Callable[[], Tensor] | None = None
    linearised: Callable[..., Linear | None] | None = None
    spheres: tuple[Span, ...] = ()
    layers: tuple[Span, ...] = ()
    parts: tuple[Span, ...] = ()


class Network(Protocol):
    """The network of a family: what a generator needs to know beside its weights.

    Attributes:
        family: its name in ``families.FAMILIES``.
        config: the arguments that build it again, JSON only; sizes are read from the weights when a file is imported.
        stages: from the latent that is sampled to the one that makes images.
        image_shape: (c, h, w).
        classes: number of classes, or None.
        options: what a user may set with ``generator.configured(...)``, with the values in force until then.
    """

    family: str
    config: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    classes: int | None
    options: Options

    @property
    def stages(self) -> tuple[Stage, ...]: ...

    def prepare(self) -> None:
        """Work out, once, everything that depends on the weights alone. Called when the weights are in place."""
        ...


def class_weights(labels: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """``(n, classes)``: one-hot rows for class indices, mixtures as they are."""
    assert labels is not None  # the generator has refused latents without labels
    if labels.is_floating_point():
        return labels.to(like)
    return torch.nn.functional.one_hot(labels, classes).to(like)
