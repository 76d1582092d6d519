"""The nouns of the project: what a generator, a feature, an edit and a control are. Read this first.

Images are float32 ``(n, c, h, w)`` in [-1, 1]; ``n`` is always there and always first. Data moves one way,

    sample -> generate -> measure -> fit -> steer -> evaluate

and everything else in the package is an implementation of one of the four protocols below, a function that
fits one, or a function that summarises what one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "n c h w"]
Values = Float[Tensor, "n m"]
Amounts = Float[Tensor, "n k"]
Mask = Float[Tensor, "n 1 h w"] | Bool[Tensor, "n 1 h w"]
Labels = Int[Tensor, " n"]
Metric = Literal["l1", "l2", "cosine"]


Span = tuple[str, int, int]  # a name for the rows start..end-1 of a latent's first dimension


@dataclass(frozen=True)
class LatentSpace:
    """Where a latent lives: which space of which generator.

    Two spaces are the same when name, shape and weights agree; the rest describes.

    Attributes:
        name: "z", "w", "w+" (one code a layer) or "s" (the styles of all channels, side by side).
        shape: of one latent.
        fingerprint: of the generator's weights.
        generator: its name, for messages.
        spheres: spans whose length the generator divides out, so that only their direction shows: z of every StyleGAN.
        layers: spans that drive one layer each: rows of w+, channels of s. Empty where all layers see the whole latent.
        parts: spans of the last dimension that a generator was trained to give a meaning of their own: "age", "pose".
    """

    name: str
    shape: tuple[int, ...]
    fingerprint: str
    generator: str = field(default="", compare=False)
    spheres: tuple[Span, ...] = field(default=(), compare=False)
    layers: tuple[Span, ...] = field(default=(), compare=False)
    parts: tuple[Span, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.name} of {self.owner}"

    def part(self, name: str) -> slice:
        """Where a part lies in the last dimension.

        Raises:
            ValueError: a space without parts, or without this one.
        """
        spans = {part: slice(start, end) for part, start, end in self.parts}
        if name not in spans:
            known = f"its parts are {', '.join(spans)}" if spans else "its generator was not trained with any"
            raise ValueError(f'{self} has no part "{name}": {known}.')
        return spans[name]

    @property
    def owner(self) -> str:
        """The generator in words: ``faces64 (3f9c…)``."""
        return f"{self.generator or 'a generator'} ({self.fingerprint[:4]}…)"

    def normalised(self, values: Tensor) -> Tensor:
        """The same points at the length the space prescribes: root mean square 1 over each of its spheres."""
        if not self.spheres:
            return values
        values = values.clone()
        for _, start, end in self.spheres:
            part = values[:, start:end]
            values[:, start:end] = part * torch.rsqrt(part.square().mean(dim=1, keepdim=True) + 1e-8)
        return values


@dataclass(frozen=True)
class Latents:
    """A batch of points that knows where it lives.

    Attributes:
        values: ``(n, *space.shape)``.
        space: the space of the generator that they drive.
        labels: ``(n,)`` class indices for class-conditional generators, or ``(n, classes)`` weights that mix classes;
            they travel with the latents.

    Raises:
        ValueError: the values have another shape than the space, or there is not one label a latent.
    """

    values: Tensor
    space: LatentSpace
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        expected = self.space.shape
        if tuple(self.values.shape[1:]) != expected or self.values.ndim == 0:
            hint = " Add the batch dimension: values[None]." if tuple(self.values.shape) == expected else ""
            raise ValueError(f"latents in {self.space} are (n, {', '.join(map(str, expected))}), got {tuple(self.values.shape)}.{hint}")
        labels = self.labels
        if labels is not None and (len(labels) != len(self.values) or labels.ndim != (2 if labels.is_floating_point() else 1)):
            raise ValueError(f"one label a latent: expected ({len(self.values)},) indices, got {labels.dtype} {tuple(labels.shape)}.")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Latents:
        """The latents of some rows, as a batch again: ``latents[3:4]``, not ``latents[3]``."""
        if isinstance(rows, int):
            raise TypeError(f"a batch keeps its first dimension: latents[{rows}:{rows + 1}] instead of latents[{rows}].")
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, values=self.values[rows], labels=labels)

    def at(self, values: Tensor) -> Latents:
        """Other points of the same space, with the same labels."""
        return replace(self, values=values)

    def part(self, name: str) -> Tensor:
        """One part of every latent: ``(n, ..., width)``, the identity or the pose of a generator that was trained with parts."""
        return self.values[..., self.space.part(name)]

    def swapped(self, name: str, others: Latents) -> Latents:
        """The same latents with one part taken from others: one for all of them, or one each.

        Raises:
            ValueError: an unknown part, latents of another space or generator, another number of them.
        """
        if others.space != self.space:
            raise ValueError(f"parts are swapped within one space: got latents of {self.space} and of {others.space}.")
        if len(others) not in (1, len(self)):
            raise ValueError(f"{len(self)} latents take a part from 1 or {len(self)} others, got {len(others)}.")
        values = self.values.clone()
        values[..., self.space.part(name)] = others.part(name)
        return self.at(values)


@dataclass(frozen=True)
class Knob:
    """One number that a person turns.

    Attributes:
        name: what there is more of when the amount grows.
        unit: of the amount, the same as of the measurement that calibrated it: ``deg``, ``image widths``.
        low, high: the usable range, measured; beyond it the generator no longer follows.
        neutral: the amount that changes nothing; None for a knob that sets a value ("yaw = 20 deg").
        percentiles: ``((5, -14.2), (50, 0.3), ...)``, the attribute's percentiles over unsteered images.
    """

    name: str
    unit: str
    low: float
    high: float
    neutral: float | None = 0.0
    percentiles: tuple[tuple[float, float], ...] = ()

    def value_at(self, percentile: float) -> float:
        """The attribute's value at a percentile of unsteered images (linear between the stored ones)."""
        ranks, values = self._population()
        if not ranks[0] <= percentile <= ranks[-1]:
            raise ValueError(f"{self.name} knows the percentiles {ranks[0]:g} to {ranks[-1]:g}, got p{percentile:g}.")
        return _interpolate(percentile, ranks, values)

    def percentile_of(self, value: float) -> float:
        """Where a value of the attribute stands among unsteered images; the outermost percentile beyond them."""
        ranks, values = self._population()
        return _interpolate(value, values, ranks)

    def _population(self) -> tuple[list[float], list[float]]:
        if not self.percentiles:
            raise ValueError(f'the knob "{self.name}" has no population percentiles: calibrate its control first.')
        ranks, values = zip(*self.percentiles, strict=True)
        return list(ranks), list(values)


def _interpolate(x: float, xs: list[float], ys: list[float]) -> float:
    x = min(max(x, xs[0]), xs[-1])
    for x0, x1, y0, y1 in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if x <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return ys[-1]


@runtime_checkable
class Generator(Protocol):
    """Latents -> images: differentiable, deterministic, rows independent of the batch."""

    @property
    def spaces(self) -> Mapping[str, LatentSpace]: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def fingerprint(self) -> str: ...

    def sample(
        self, n: int, *, seed: int, space: str = ..., labels: int | Sequence[int] | Tensor | None = None, psi: float = 1.0
    ) -> Latents:
        """n latents; row i of a seed does not depend on n. ``psi`` pulls them towards the mean latent (1 = off)."""
        ...

    def to_space(self, latents: Latents, name: str) -> Latents:
        """The same latents in a later space (z -> w -> w+)."""
        ...

    def __call__(self, latents: Latents) -> Images:
        """``(n, c, h, w)`` in [-1, 1]."""
        ...


@runtime_checkable
class Feature(Protocol):
    """A measurement of an image: images -> ``(n, len(columns))``."""

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def unit(self) -> str: ...

    @property
    def metric(self) -> Metric: ...

    @property
    def differentiable(self) -> bool: ...

    def __call__(self, images: Images) -> Values: ...


@runtime_checkable
class Edit(Protocol):
    """A target change of the image itself, for self-supervision."""

    @property
    def knob(self) -> Knob: ...

    def __call__(self, images: Images, amounts: Float[Tensor, " n"]) -> tuple[Images, Mask]:
        """The edited images and a mask ``(n, 1, h, w)``: 1 where the target is known. One amount an image."""
        ...


@runtime_checkable
class Control(Protocol):
    """How an image gets steered: latents and amounts -> latents."""

    @property
    def knobs(self) -> tuple[Knob, ...]: ...

    @property
    def space(self) -> LatentSpace: ...

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """Move each latent by its own amounts ``(n, k)``, in the knobs' units."""
        ...


def device_of(generator: Generator) -> torch.device:
    """Where its latents and pictures are; what measures them has to be there too."""
    return generator.sample(1, seed=0).values.device


def home(generator: Generator) -> str:
    """The space to steer in unless another is asked for: w where there is one, the first otherwise.

    In w, attributes are closest to straight lines and truncation has a meaning (Karras et al., StyleGAN, section 4).
    """
    return "w" if "w" in generator.spaces else next(iter(generator.spaces))


def distance(metric: Metric, a: Values, b: Values) -> Float[Tensor, " n"]:
    """How far two values are apart, row by row, in a feature's own metric."""
    if metric == "l1":
        return (a - b).abs().sum(1)
    if metric == "l2":
        return (a - b).norm(dim=1)
    return 1 - torch.nn.functional.cosine_similarity(a, b)
