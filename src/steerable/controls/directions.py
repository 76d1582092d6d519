"""Straight-line control: k directions in latent space.

A latent moves to ``values + amount * direction``. How directions are found is ``fitting``'s business; this module
applies them, and frees them of each other by projection.

Sources: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, eq. 1; for the
projection Shen et al., "InterFaceGAN", TPAMI 2020, conditional manipulation; whitened form: the same under the metric of
the latents' covariance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.protocols import Amounts, Control, Generator, Knob, Latents, LatentSpace


@dataclass(frozen=True, eq=False)
class Directions:
    """k straight directions, each with its knob.

    Attributes:
        knobs: k of them.
        space: where the latents live that these directions move.
        vectors: (k, *space.shape); one unit of amount moves a latent by this much.
        normals: (k, *space.shape), the gradient of each knob's attribute: what another direction has to be
            orthogonal to in order to leave the attribute alone. None where it is the direction itself.
        fit: how these were found: method, arguments, seed, scores. JSON only; saved with the control.
    """

    knobs: tuple[Knob, ...]
    space: LatentSpace
    vectors: Tensor
    normals: Tensor | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (len(self.knobs), *self.space.shape)
        for what, given in (("vectors", self.vectors), ("normals", self.normals)):
            if given is not None and tuple(given.shape) != expected:
                raise ValueError(f"{what} of {len(self.knobs)} directions in {self.space} are {expected}, got {tuple(given.shape)}.")
            if given is not None:
                checks.finite(given, f"{what} of these directions")
        names = [knob.name for knob in self.knobs]
        if len(set(names)) < len(names):
            raise ValueError(f"every knob needs a name of its own, got {', '.join(names)}.")

    def steer(self, latents: Latents, amounts: Amounts) -> Latents:
        """Move each latent by its own amounts.

        Args:
            latents: n of them, in this control's space.
            amounts: (n, k), in the knobs' units. Beyond a knob's range is allowed and extrapolates; the generator,
                not the direction, decides what breaks.

        Returns:
            n new latents with the same labels; neutral amounts return the same values.

        Raises:
            ValueError: the latents live in another space or belong to another generator.
        """
        checks.lives_in(latents, self.space, "this control")
        checks.amounts(amounts, len(latents), self.knobs)
        vectors = self.vectors.to(latents.values)
        moved = latents.values + torch.einsum("nk,k...->n...", amounts.to(vectors), vectors)
        if not self.space.spheres:
            return latents.at(moved)
        still = (amounts == 0).all(1).view(-1, *[1] * (moved.ndim - 1)).to(moved.device)
        return latents.at(torch.where(still, latents.values, self.space.normalised(moved)))

    def __getitem__(self, names: str | Sequence[str]) -> Directions:
        """The directions of one knob, or of several in the order asked."""
        rows = [self.index(name) for name in ([names] if isinstance(names, str) else names)]
        return replace(
            self,
            knobs=tuple(self.knobs[row] for row in rows),
            vectors=self.vectors[rows],
            normals=None if self.normals is None else self.normals[rows],
        )

    def index(self, name: str) -> int:
        known = [knob.name for knob in self.knobs]
        return known.index(checks.known(name, known, "knob"))

    def held(self, names: Sequence[str], *, covariance: Float[Tensor, "d d"] | None = None) -> Directions:
        """All other directions freed of these attributes: exact, and the same in whatever order they are named.

        Each freed direction is scaled so that, by the attributes' gradients, one unit is still one unit; measure it
        with ``calibrate``. The held directions themselves stay as they are.

        Args:
            names: knobs of this control.
            covariance: (d, d) of the latents; corrections then go where latents vary (the whitened form).

        Raises:
            ValueError: a direction lies in the span of what is held, so nothing is left of it.
        """
        rows = [self.index(name) for name in names]
        normals = self.gradients
        others = [row for row in range(len(self.knobs)) if row not in rows]
        if not others or not rows:
            return self
        vectors = self.vectors.flatten(1).clone()
        freed = project_out(vectors[others], normals[rows], covariance=covariance)
        effect, left = (normals[others] * vectors[others]).sum(1), (normals[others] * freed).sum(1)
        lost = [self.knobs[row].name for row, a, b in zip(others, effect, left, strict=True) if abs(b) < 1e-3 * abs(a)]
        if lost:
            raise ValueError(f"holding {', '.join(names)} leaves no direction for {lost[0]} (rank {len(rows)} held): hold less.")
        vectors[others] = freed * (effect / left)[:, None]
        fit = {**self.fit, "held": list(names), "whitened": covariance is not None}
        return replace(self, vectors=vectors.view_as(self.vectors), normals=normals.view_as(self.vectors), fit=fit)

    def lifted(self, generator: Generator, name: str) -> Directions:
        """The same moves in a later space that is a linear function of this one: w -> w+ -> s.

        Raises:
            ValueError: the way there bends (z -> w), so a straight line here is none there.
        """
        checks.same_generator(self.space, generator.fingerprint, self.space.generator, "this control")
        start, far = (generator.sample(1, seed=seed, space=self.space.name) for seed in (0, 1))

        def there(values: Tensor) -> Tensor:
            return generator.to_space(start.at(values), name).values

        def carried(point: Tensor) -> Tensor:
            rows = [torch.func.jvp(there, (point,), (vector[None],))[1][0] for vector in self.vectors.to(point)]
            return torch.stack(rows)

        vectors, elsewhere = carried(start.values), carried(far.values)
        if not torch.allclose(vectors, elsewhere, rtol=1e-4, atol=1e-5 * float(vectors.abs().max())):
            raise ValueError(f"the way from {self.space.name} to {name} bends: fit this control in {name} instead, space={name!r}.")
        fit = {**self.fit, "lifted from": self.space.name}
        return replace(self, space=generator.spaces[name], vectors=vectors, normals=None, fit=fit)

    def in_layers(self, layers: str | Sequence[int | str]) -> Directions:
        """The same moves in some layers only; the others keep their part of the latent.

        Args:
            layers: "4-7,10", their numbers, or their names; see ``space.layers``. A control of w is lifted to w+ first:
                ``axes.lifted(generator, "w+").in_layers("4-7")``.

        Raises:
            ValueError: a space whose latents drive all layers at once, or layers that do not exist.
        """
        spans = self.space.layers
        if not spans:
            raise ValueError(f'{self.space} drives all layers at once: lift the control first, .lifted(generator, "w+").')
        keep = torch.zeros(self.space.shape[0], dtype=torch.bool, device=self.vectors.device)
        for row in layer_numbers(layers, [name for name, _, _ in spans]):
            _, start, end = spans[row]
            keep[start:end] = True
        mask = keep.view(-1, *[1] * (len(self.space.shape) - 1)).to(self.vectors.dtype)
        fit = {**self.fit, "layers": layers if isinstance(layers, str) else list(layers)}
        return replace(self, vectors=self.vectors * mask, normals=None if self.normals is None else self.normals * mask, fit=fit)

    @property
    def gradients(self) -> Float[Tensor, "k d"]:
        """Each attribute's gradient, flattened: the normals, or the directions where there are none."""
        return (self.vectors if self.normals is None else self.normals).flatten(1)


def layer_numbers(layers: str | Sequence[int | str], names: Sequence[str]) -> list[int]:
    """Numbers of layers given as "4-7,10", as numbers or by name."""
    asked: list[int | str] = []
    for one in layers.split(",") if isinstance(layers, str) else layers:
        low, dash, high = one.strip().partition("-") if isinstance(one, str) else ("", "", "")
        if dash and low.isdigit() and high.isdigit():
            if int(low) > int(high):
                raise ValueError(f"layers count upwards, got {one}.")
            asked += range(int(low), int(high) + 1)
        else:
            asked.append(int(one) if isinstance(one, str) and one.strip().isdigit() else one)
    numbers = [names.index(checks.known(one.strip(), names, "layer")) if isinstance(one, str) else one for one in asked]
    wrong = [number for number in numbers if not 0 <= number < len(names)]
    if wrong or not numbers:
        raise ValueError(f"layers are 0 to {len(names) - 1} ({names[0]} to {names[-1]}), got {wrong[0] if wrong else 'none'}.")
    return numbers


def join(parts: Sequence[Directions]) -> Directions:
    """The knobs of several controls of one space, in order; how each was fitted is in ``fit["parts"]``.

    Raises:
        ValueError: none, controls of different spaces, or two knobs of one name.
    """
    if not parts:
        raise ValueError("there is no control to join: give at least one.")
    others = [part.space for part in parts if part.space != parts[0].space]
    if others:
        raise ValueError(f"controls of {parts[0].space} and of {others[0]} cannot be joined.")
    normals = torch.cat([part.gradients for part in parts]).unflatten(1, parts[0].space.shape)
    return Directions(
        knobs=tuple(knob for part in parts for knob in part.knobs),
        space=parts[0].space,
        vectors=torch.cat([part.vectors for part in parts]),
        normals=None if all(part.normals is None for part in parts) else normals,
        fit={"method": "joined", "parts": [dict(part.fit) for part in parts]},
    )


def project_out(
    vectors: Float[Tensor, "k d"], normals: Float[Tensor, "b d"], *, covariance: Float[Tensor, "d d"] | None = None
) -> Float[Tensor, "k d"]:
    """``d - S B (B' S B)^-1 B' d`` for every row d: the nearest vector that moves none of B's attributes.

    S is the identity, or the covariance of the latents: nearest is then measured in standard deviations. Linearly
    dependent rows of B are fine.
    """
    spread = normals.T if covariance is None else covariance.to(normals) @ normals.T  # S B   (d, b)
    dtype = vectors.dtype
    spread, normals, exact = spread.double(), normals.double(), vectors.double()
    weights = torch.linalg.pinv(normals @ spread, hermitian=True, rtol=1e-10) @ (normals @ exact.T)  # (b, k)
    return (exact - (spread @ weights).T).to(dtype)


def cosines(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k k"]:
    """Cosine of the angle between every two directions."""
    unit = torch.nn.functional.normalize(vectors.flatten(1).double(), dim=1)
    return (unit @ unit.T).float()


def amounts(control: Control, n: int | Latents, values: Mapping[str, float | str] | None = None, **named: float | str) -> Amounts:
    """(n, k) amounts with the named knobs turned and all others neutral.

    ``amounts(axes, latents, smile=2, yaw=-10)``; names with a hyphen go into the mapping. ``"p90"`` asks for the
    change from the population's median to its 90th percentile.
    """
    given = {**(values or {}), **named}
    names = [knob.name for knob in control.knobs]
    for name in given:
        checks.known(name if name in names else name.replace("_", "-"), names, "knob")
    row = [_amount(knob, given.get(knob.name, given.get(knob.name.replace("-", "_")))) for knob in control.knobs]
    return torch.tensor(row, dtype=torch.float32).repeat(n if isinstance(n, int) else len(n), 1)


def _amount(knob: Knob, asked: float | str | None) -> float:
    if asked is None:
        if knob.neutral is None:
            raise ValueError(
                f'"{knob.name}" sets a value and has no neutral one: give it, e.g. {knob.name}={(knob.low + knob.high) / 2:.3g}.'
            )
        return knob.neutral
    try:
        if isinstance(asked, str) and asked.startswith("p"):
            value = knob.value_at(float(asked[1:]))
            return value if knob.neutral is None else value - knob.value_at(50)
        amount = float(asked)
    except ValueError as error:
        if "percentile" in str(error):
            raise
        raise ValueError(
            f'an amount of "{knob.name}" is a number of {knob.unit or "its unit"} or a percentile like p90, got {asked!r}.'
        ) from None
    if not torch.isfinite(torch.tensor(amount)):
        raise ValueError(f'an amount of "{knob.name}" is a finite number, got {asked}.')
    return amount
