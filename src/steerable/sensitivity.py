"""What happens to measured features when a latent moves a little: the one local linear model of the project.

``local(z)`` maps latent values (n, *shape) to features (n, m), row by row; ``Generated`` is the one of a generator and its features.
Trajectories, values set by number and exact locks all ask their questions of its Jacobian ``J`` (n, m, d):

    model = operator(local, z)         products from both sides: model.push(v) is J v, model.pull(u) is J'u, model.plan says how
    model.jacobian(), model.gram()     the matrices, when they are wanted; gram() never forms J where J would not fit
    jacobian(local, z), gram(...), product(local, z, v)      the same in one call

A product costs passes through the generator, and the cheapest way is found by counting them (``Plan``): forward mode one a
direction, reverse mode two a feature column (its sweep goes there and back), central differences (``differences``) two a
direction. A network that knows its own derivative at a point (``linear.Linear``; a piecewise linear one keeps its masks) makes both
products at one pass. For latents of 512 numbers and more, ``controls.subspace`` needs products only.

Source of the reverse-over-forward counting: Baydin et al., "Automatic differentiation in machine learning", JMLR 2018, sections 3.1-3.2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp, vmap

from steerable.differences import black_box
from steerable.linear import Linear
from steerable.protocols import Feature, Generator, Latents

Local = Callable[[Tensor], Tensor]
Method = Literal["auto", "forward", "reverse", "difference"]
MEMORY = 2.0**30  # bytes that a Jacobian may take before its Gram matrix is made without it
IN_FLIGHT = 2**26  # feature numbers of all directions in flight at once
PICTURES = 400  # and pictures

log = logging.getLogger(__name__)


@runtime_checkable
class Linearisable(Protocol):
    """A local function that may know its own derivative: ``linearised`` gives it at a point, or None."""

    def __call__(self, values: Tensor, /) -> Tensor: ...

    def linearised(self, values: Tensor) -> Linear | None: ...


@runtime_checkable
class LinearisableGenerator(Protocol):
    """A generator that may: images at the latents, and products with their derivative in the latents' values."""

    def linearised(self, latents: Latents) -> Linear | None: ...


@dataclass(frozen=True)
class Plan:
    """How a Jacobian is made, and why.

    Attributes:
        method: "forward", "reverse" or "difference".
        passes: through the generator, for the whole Jacobian of one latent.
        why: one line with the counts it was chosen by.
    """

    method: Literal["forward", "reverse", "difference"]
    passes: int
    why: str

    def __str__(self) -> str:
        return f"{self.method}: {self.why}"


class Jacobian(tuple[Tensor, Tensor]):
    """``features, matrix = jacobian(...)``: (n, m) and (n, m, d); ``.plan`` says how it was made."""

    plan: Plan

    def __new__(cls, features: Tensor, matrix: Tensor, plan: Plan) -> Jacobian:
        made = super().__new__(cls, (features, matrix))
        made.plan = plan
        return made


@dataclass(frozen=True, eq=False)
class Generated:
    """Features of the generated image as a function of the latents' values, side by side: what a model is made of.

    Attributes:
        generator, features: each feature's columns stand in the order given.
        latents: whose space and labels are kept; a call may bring several values for each, latents running fastest.
        scales: that each feature is multiplied by, 1 unless given.
    """

    generator: Generator
    features: tuple[Feature, ...]
    latents: Latents
    scales: tuple[float, ...] = ()

    def __call__(self, values: Float[Tensor, "n ..."]) -> Float[Tensor, "n m"]:
        return self.measured(self.generator(self._latents(values)))

    def measured(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n m"]:
        scales = self.scales or (1.0,) * len(self.features)
        return torch.cat([scale * feature(images) for scale, feature in zip(scales, self.features, strict=True)], 1)

    def linearised(self, values: Tensor) -> Linear | None:
        if not isinstance(self.generator, LinearisableGenerator):
            return None
        images = self.generator.linearised(self._latents(values))
        return None if images is None else images.then(derived(self.measured, images.value))

    @property
    def smooth(self) -> tuple[bool, ...]:
        """Which features have gradients; the others are measured by differences."""
        return tuple(feature.differentiable for feature in self.features)

    def only(self, keep: Sequence[bool]) -> Generated:
        """The same function of some of the features."""
        scales = self.scales or (1.0,) * len(self.features)
        pairs = [(f, s) for f, s, kept in zip(self.features, scales, keep, strict=True) if kept]
        return Generated(self.generator, tuple(f for f, _ in pairs), self.latents, tuple(s for _, s in pairs))

    def _latents(self, values: Tensor) -> Latents:
        labels = self.latents.labels
        count = len(values) // len(self.latents)
        return Latents(values, self.latents.space, None if labels is None else labels.repeat(count, *[1] * (labels.ndim - 1)))


class Operator:
    """The Jacobian of n latents as products from both sides.

    Attributes:
        features: (n, m) at the latents.
        latent_size: d, numbers of one latent.
        plan: how the whole Jacobian would be made, and why.
        passes: through the generator that products have cost so far, for each latent.
    """

    def __init__(
        self, parts: Sequence[tuple[Tensor | None, Linear]], features: Tensor, plan: Plan, shape: tuple[int, ...], chunk: int
    ) -> None:
        self._parts, self._chunk, self._shape = parts, chunk, shape
        self.features, self.plan, self.passes = features, plan, 0
        self.latent_size = torch.Size(shape).numel()

    def push(self, tangents: Float[Tensor, "n t d"]) -> Float[Tensor, "n t m"]:
        """``J v`` for t directions v at every latent."""
        made = [self._pushed(some) for some in tangents.transpose(0, 1).split(self._chunk)]
        return torch.cat(made).transpose(0, 1)

    def pull(self, cotangents: Float[Tensor, "n t m"]) -> Float[Tensor, "n t d"]:
        """``J' u`` for t weightings u of the features of every latent."""
        made = [self._pulled(some) for some in cotangents.transpose(0, 1).split(self._chunk)]
        return torch.cat(made).transpose(0, 1)

    def jacobian(self) -> Float[Tensor, "n m d"]:
        """J itself, ``plan.passes`` passes.

        Raises:
            ValueError: it holds NaN or infinite numbers.
        """
        n, m, d = len(self.features), self.features.shape[1], self.latent_size
        if self.plan.method == "reverse":
            made = torch.cat([self._pulled(unit) for unit in self._units(m, n, self._chunk)]).permute(1, 0, 2)
        else:
            made = torch.cat([self._pushed(unit) for unit in self._units(d, n, self._chunk)]).permute(1, 2, 0)
        return _finite(made)

    def gram(self, *, project: int | None = None, seed: int = 0, memory: float = MEMORY) -> Float[Tensor, "n d d"]:
        """``J'J`` over all columns; see ``grams``."""
        return self.grams([self.features.shape[1]], project=project, seed=seed, memory=memory)[0]

    def grams(
        self, widths: Sequence[int], *, project: int | None = None, seed: int = 0, memory: float = MEMORY
    ) -> list[Float[Tensor, "n d d"]]:
        """``J'J`` of neighbouring groups of columns, all from one sweep: what moves and what is held, say.

        Reverse mode adds up pieces of rows. Forward mode multiplies J, one column chunk after the other, and where J would not fit
        makes each column of the Gram matrix as ``J'(J e)``: exact, at three times the passes. ``project`` keeps the cost of forward
        mode and replaces a group's columns by ``project * d`` random sums of them (Charikar et al. 2002), whose
        Gram matrix is right on average and off by about ``sqrt(2 / (project * d))`` times the trace.

        Args:
            widths: columns of each group; they add up to m.
            project: rows kept for each latent number, 4 or more; None is exact.
            seed: of the projection.
            memory: bytes that J may take.

        Raises:
            ValueError: widths that do not add up, or non-finite products.
        """
        n, m, d = len(self.features), self.features.shape[1], self.latent_size
        if sum(widths) != m or min(widths) < 1:
            raise ValueError(f"the groups have to add up to {m} columns, got {list(widths)}.")
        if self.plan.method == "reverse":
            return self._summed(widths)
        if project is not None:
            sketches = [_Sketch(width, project * d, seed + i, self.features) for i, width in enumerate(widths)]
            pieces = [self._pushed(unit).split(list(widths), -1) for unit in self._units(d, n, self._chunk)]
            kept = [torch.cat([sketch(piece[i]) for piece in pieces]) for i, sketch in enumerate(sketches)]
        elif n * m * d * self.features.element_size() <= memory:
            kept = torch.cat([self._pushed(unit) for unit in self._units(d, n, self._chunk)]).split(list(widths), -1)
        else:
            return self._chained(widths)
        return [_finite(rows @ rows.mT) for rows in (part.transpose(0, 1) for part in kept)]  # (n, d, m) (n, m, d)

    def _summed(self, widths: Sequence[int]) -> list[Tensor]:
        n, m = self.features.shape
        ends = torch.tensor(widths).cumsum(0).tolist()
        totals = [self.features.new_zeros(n, self.latent_size, self.latent_size) for _ in widths]
        start = 0
        for unit in self._units(m, n, self._chunk):
            rows = self._pulled(unit).transpose(0, 1)  # (n, c, d)
            for i, end in enumerate(ends):
                part = rows[:, max(ends[i] - widths[i] - start, 0) : max(end - start, 0)]
                totals[i] += part.mT @ part
            start += len(unit)
        return [_finite(total) for total in totals]

    def _chained(self, widths: Sequence[int]) -> list[Tensor]:
        columns: list[list[Tensor]] = [[] for _ in widths]
        for unit in self._units(self.latent_size, len(self.features), self._chunk):
            moved = self._pushed(unit)
            for i, part in enumerate(moved.split(list(widths), -1)):
                alone = torch.zeros_like(moved)
                alone[..., sum(widths[:i]) : sum(widths[: i + 1])] = part
                columns[i].append(self._pulled(alone))
        grams = [torch.cat(group).transpose(0, 1) for group in columns]
        return [_finite((gram + gram.mT) / 2) for gram in grams]

    def _pushed(self, tangents: Tensor) -> Tensor:
        """(t, n, d) -> (t, n, m)."""
        self.passes += len(tangents) * sum(part.push_passes for _, part in self._parts)
        tangents = tangents.unflatten(2, self._shape)
        if len(self._parts) == 1:
            return self._parts[0][1].push(tangents)
        out = self.features.new_empty(*tangents.shape[:2], self.features.shape[1])
        for columns, part in self._parts:
            out[..., columns] = part.push(tangents)
        return out

    def _pulled(self, cotangents: Tensor) -> Tensor:
        """(t, n, m) -> (t, n, d)."""
        self.passes += len(cotangents) * sum(part.pull_passes for _, part in self._parts)
        sums = [part.pull(cotangents if columns is None else cotangents[..., columns]).flatten(2) for columns, part in self._parts]
        return torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]

    def _units(self, width: int, n: int, chunk: int) -> Iterator[Tensor]:
        """The identity (width, n, width) in pieces."""
        for start in range(0, width, chunk):
            count = min(chunk, width - start)
            unit = self.features.new_zeros(count, width)
            unit[torch.arange(count), torch.arange(start, start + count)] = 1
            yield unit[:, None].expand(-1, n, -1)


def operator(local: Local, values: Tensor, *, method: Method = "auto", chunk: int | None = None, step: float | None = None) -> Operator:
    """The local model at n latents.

    Args:
        local: row-wise function from latents (n, *shape) to features (n, m); a ``Generated`` of features without gradients is measured by
            differences in those columns alone, and one of a generator that knows its derivative uses it.
        values: (n, *shape), float32 or float64.
        method: "auto" counts passes; "difference" is for black boxes.
        chunk: directions in flight at once; None is 25, and up to 100 for networks with a linear pass of their own.
        step: of the differences, in latent units; chosen from the scale of the features where None.

    Raises:
        ValueError: the features are not (n, m) numbers, or a black box does not give the same numbers twice.
    """
    if isinstance(local, Generated) and method == "auto" and not all(local.smooth):
        if any(local.smooth):
            return _joined(local, values, chunk, step)
        method = "difference"
    n, d = len(values), values[0].numel()
    linear = local.linearised(values) if method != "difference" and isinstance(local, Linearisable) else None
    if linear is None and method == "difference":
        linear = black_box(local, values, step=step)
    elif linear is None:
        linear = derived(local, values)
    features = linear.value
    if features.ndim != 2 or len(features) != n:
        raise ValueError(f"features of {n} latents are (n, m), got {tuple(features.shape)}.")
    m = features.shape[1]
    costs = {"forward": d * linear.push_passes, "reverse": m * linear.pull_passes}
    if method == "difference":
        plan = Plan("difference", 2 * d, f"a black box, two passes for each of {d} directions, {2 * d} in all")
    else:
        chosen = method if method != "auto" else "forward" if costs["forward"] <= costs["reverse"] else "reverse"
        other = "reverse" if chosen == "forward" else "forward"
        counted = f"{costs[chosen]} passes for {d if chosen == 'forward' else m}"
        counted += f" {'directions' if chosen == 'forward' else 'columns'}, {other} mode would take {costs[other]}"
        plan = Plan(chosen, costs[chosen], f"{counted}{'' if method == 'auto' else ' (as asked)'}; {linear.kind}")
    log.info("Jacobian of %d features in %d latent numbers, %s", m, d, plan)
    if chunk is None:
        chunk = 25 if linear.pull_passes > 1 else min(max(min(IN_FLIGHT // (n * m), PICTURES // n), 1), 100)
    return Operator([(None, linear)], features, plan, tuple(values.shape[1:]), chunk)


def jacobian(local: Local, values: Tensor, *, method: Method = "auto", chunk: int | None = None, step: float | None = None) -> Jacobian:
    """Features (n, m) at the latents, and their Jacobian (n, m, d) with respect to the flattened latents; see ``operator``.

    Raises:
        ValueError: as ``operator``, or the Jacobian holds NaN or infinite numbers.
    """
    model = operator(local, values, method=method, chunk=chunk, step=step)
    return Jacobian(model.features, model.jacobian(), model.plan)


def gram(
    local: Local,
    values: Tensor,
    *,
    method: Method = "auto",
    chunk: int | None = None,
    step: float | None = None,
    project: int | None = None,
    seed: int = 0,
) -> Float[Tensor, "n d d"]:
    """``J'J``: ``v' gram v`` is the squared change of the features for a small step v. See ``operator`` and ``Operator.grams``."""
    return operator(local, values, method=method, chunk=chunk, step=step).gram(project=project, seed=seed)


def product(local: Local, values: Tensor, tangents: Tensor) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Features, and ``J v`` for one tangent (n, *shape) a latent: one forward-mode pass."""
    with torch.no_grad():
        return jvp(local, (values,), (tangents,))  # type: ignore[return-value]


def derived(local: Local, values: Tensor) -> Linear:
    """The derivative of any differentiable function at a point, by automatic differentiation; (n, *shape) -> (n, *out)."""
    pulls: list[Callable[[Tensor], tuple[Tensor, ...]]] = []  # the graph of reverse mode, built when first asked for

    def push(tangents: Tensor) -> Tensor:
        with torch.no_grad():
            return vmap(lambda t: jvp(local, (values,), (t,))[1])(tangents)

    def pull(cotangents: Tensor) -> Tensor:
        if not pulls:
            pulls.append(vjp(local, values)[1])
        return vmap(lambda c: pulls[0](c)[0])(cotangents).detach()

    with torch.no_grad():
        value = local(values)
    return Linear(value, push, pull, pull_passes=2, kind="automatic differentiation")


def _joined(local: Generated, values: Tensor, chunk: int | None, step: float | None) -> Operator:
    """Columns with gradients by automatic differentiation, the others by differences."""
    smooth = local.smooth
    parts = [operator(local.only(keep), values, chunk=chunk, step=step) for keep in (smooth, [not one for one in smooth])]
    with torch.no_grad():
        images = local.generator(local.latents.at(values))
        widths = [feature(images).shape[1] for feature in local.features]
    owner = torch.cat([torch.full((width,), not one) for width, one in zip(widths, smooth, strict=True)]).to(values.device)
    columns = [(owner == rough).nonzero()[:, 0] for rough in (False, True)]
    features = parts[0].features.new_empty(len(values), len(owner))
    for place, part in zip(columns, parts, strict=True):
        features[:, place] = part.features
    passes = values[0].numel() * (parts[0]._parts[0][1].push_passes + 2)
    plan = Plan("forward", passes, f"{len(columns[0])} columns with gradients and {len(columns[1])} by differences, {passes} passes in all")
    joined = [(place, part._parts[0][1]) for place, part in zip(columns, parts, strict=True)]
    return Operator(joined, features, plan, tuple(values.shape[1:]), chunk or 25)


def _finite(made: Tensor) -> Tensor:
    bad = int((~torch.isfinite(made)).sum())
    if bad:
        raise ValueError(f"the Jacobian holds {bad} NaN or infinite numbers of {made.numel()}: the features are not smooth here.")
    return made


class _Sketch:
    """Each of many columns added to one of a few with a random sign: (..., width) -> (..., rows), keeping inner products on average."""

    def __init__(self, width: int, rows: int, seed: int, like: Tensor) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.rows = min(rows, width)
        self.bucket = torch.randint(self.rows, (width,), generator=rng).to(like.device)
        self.sign = (torch.randint(2, (width,), generator=rng) * 2 - 1).to(like)
        self.whole = rows >= width  # nothing to gain: all columns stay

    def __call__(self, columns: Tensor) -> Tensor:
        if self.whole:
            return columns
        return columns.new_zeros(*columns.shape[:-1], self.rows).index_add_(-1, self.bucket, columns * self.sign)
