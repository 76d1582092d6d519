"""Directions without matrices: a trajectory's step from products with the Jacobian alone, for latents of 512 numbers and more.

The full Jacobian of a latent of d numbers takes d passes through the generator. The step only needs it on a small space S that holds the
answer: with J S known, k passes, everything that ``rayleigh`` and ``growth`` solve is solved in k numbers instead of d. S is grown by
Davidson's method, round by round:

    solve in S; take what is missing, the residual      M x - mu (H + r I) x,  of the best directions x, or
                                                        b - (H + r I) x,       of the directions (H + r I)^-1 b that are wanted
    divide it by what is known of H + r I, and add it to S

One residual is one product from the left, whose two halves (what moves, what is held) go through the generator together, and one new
column of J S: three passes. A path carries S from step to step, so that only its first point starts from random products.

What is held is controlled exactly, whatever S is: steps never leave S, where J is known. A small S costs reach, not the hold.

Sources: Davidson, "The iterative calculation of a few of the lowest eigenvalues of large real-symmetric matrices", Journal of
Computational Physics 1975; Knyazev, "Toward the optimal preconditioned eigensolver: LOBPCG", SIAM Journal on Scientific Computing 2001,
for the generalised problem; Hutchinson 1989 for the trace outside S.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerable.controls import rayleigh
from steerable.controls.rayleigh import Ranked
from steerable.sensitivity import Operator

BEGUN = 12  # random products of either side that S begins with
BLOCK = 2  # directions that are refined at a time, beside the asked ones
COLD, WARM = 8, 3  # rounds where S begins, and where it is carried along
KEPT = 24  # directions that are carried from step to step
PROBES = 8  # random directions that measure what H has outside S


@dataclass(frozen=True, eq=False)
class Span:
    """J on a space.

    Attributes:
        basis: (n, d, k) S, orthonormal columns.
        jac: (n, m, k) J S, each column divided by the root of its side's number of columns.
        floor: (n,) mean eigenvalue of H, over all d directions.
        width: columns of what moves.
        passes: through the generator that it cost, for each latent.
    """

    basis: Float[Tensor, "n d k"]
    jac: Float[Tensor, "n m k"]
    floor: Float[Tensor, " n"]
    width: int
    passes: int

    @property
    def grams(self) -> tuple[Float[Tensor, "n k k"], Float[Tensor, "n k k"]]:
        """S'MS and S'HS."""
        move, hold = self.jac[:, : self.width], self.jac[:, self.width :]
        return move.mT @ move, hold.mT @ hold

    def kept(self, wanted: Float[Tensor, "n q k"], count: int = KEPT) -> Float[Tensor, "n d count"]:
        """What a path carries on: the wanted directions, those of the largest H, and the freest ones."""
        _, hold = self.grams
        k = hold.shape[1]
        if k <= count:
            return self.basis
        half = (count - wanted.shape[1]) // 2
        steep = torch.linalg.eigh(hold)[1].flip(2)[..., :half].mT
        free = _best(self, self.floor, count - wanted.shape[1] - half)[0]
        rows = torch.cat([wanted.to(steep), steep, free.to(steep)], 1)
        return self.basis @ torch.linalg.qr(rows.mT)[0]


def ranked(model: Operator, width: int, k: int = 1, *, damping: float = 0.1, rounds: int = COLD, seed: int = 0) -> Ranked:
    """The k directions of the largest Rayleigh quotient, as ``rayleigh.ranked`` (soft) gives them, by products alone.

    Args:
        model: of the columns of what moves (the first ``width``) and of what is held; both sides count by their mean squares.
    """
    span = spanned(model, width, damping=damping, rounds=rounds, block=max(k, BLOCK), seed=seed)
    move, hold = span.grams
    found = rayleigh.ranked(move, hold, min(k, move.shape[1]), ridge=damping * span.floor)
    return replace(found, vectors=rayleigh.signed((span.basis @ found.vectors.mT).mT))


def spanned(
    model: Operator,
    width: int,
    *,
    damping: float,
    rounds: int,
    block: int = BLOCK,
    carried: Float[Tensor, "n d k"] | None = None,
    wanted: Float[Tensor, "n q d"] | None = None,
    seed: int = 0,
) -> Span:
    """J on a space that holds the ``block`` best directions, or ``(H + r I)^-1 wanted`` where that is given.

    Args:
        carried: S of the step before; random products begin it otherwise.
        rounds: of refinement, ``3 * block`` (or ``3 * q``) passes each.
    """
    before, like = model.passes, model.features
    n, d, m = len(like), model.latent_size, like.shape[1]
    roots = torch.full((m,), float(max(m - width, 1)), dtype=like.dtype, device=like.device).sqrt()
    roots[:width] = width**0.5
    rng = torch.Generator().manual_seed(seed)
    if carried is None:
        drawn = torch.randn(n, 2 * min(BEGUN, d), m, generator=rng).to(like)
        drawn[:, ::2, width:] = 0
        drawn[:, 1::2, :width] = 0
        first = model.pull(drawn / roots)
    else:
        first = carried.mT
    if wanted is not None:
        first = torch.cat([first, wanted], 1)
    basis = _orthonormal(first.new_zeros(n, d, 0), first.mT, rng)
    span = Span(basis, (model.push(basis.mT) / roots).mT, like.new_zeros(n), width, 0)
    outside = torch.randn(n, PROBES if carried is None else 2, d, generator=rng).to(like)
    for number in range(rounds + 1):
        if number == 0:
            outside = outside - (outside @ span.basis) @ span.basis.mT
            probed = (model.push(outside) / roots)[..., width:].square().sum(-1).mean(1) if span.basis.shape[2] < d else like.new_zeros(n)
            inside = span.jac[:, width:].square().sum((1, 2))
            span = replace(span, floor=(inside + probed) / d)
        room = d - span.basis.shape[2]
        if number == rounds or room <= 0:
            break
        found = _residuals(model, span, roots, damping, block, wanted)
        new = _orthonormal(span.basis, _divided(span, found, damping).mT[..., :room], rng)
        jac = torch.cat([span.jac, (model.push(new.mT) / roots).mT], 2)
        span = replace(span, basis=torch.cat([span.basis, new], 2), jac=jac)
    bad = int((~torch.isfinite(span.jac)).sum())
    if bad:
        raise ValueError(
            f"products with the Jacobian hold {bad} NaN or infinite numbers of {span.jac.numel()}: the features are not smooth here."
        )
    return replace(span, passes=model.passes - before)


def _residuals(model: Operator, span: Span, roots: Tensor, damping: float, block: int, wanted: Tensor | None) -> Float[Tensor, "n q d"]:
    r = damping * span.floor
    if wanted is None:
        inside, quotients = _best(span, r, block)
        pushed = inside @ span.jac.mT  # (n, q, m)
        pushed[..., span.width :] *= -quotients[..., None]
        return model.pull(pushed / roots) - (quotients * r[:, None])[..., None] * (inside @ span.basis.mT)
    _, hold = span.grams
    ridge = r[:, None, None] * torch.eye(hold.shape[1], dtype=hold.dtype, device=hold.device)
    inside = torch.linalg.solve(hold + ridge, (wanted @ span.basis).mT).mT  # (n, q, k)
    pushed = inside @ span.jac.mT
    pushed[..., : span.width] = 0
    return wanted - model.pull(pushed / roots) - r[:, None, None] * (inside @ span.basis.mT)


def _best(span: Span, r: Tensor, count: int) -> tuple[Float[Tensor, "n q k"], Float[Tensor, "n q"]]:
    """The best directions inside S, unit length, and their quotients."""
    move, hold = span.grams
    found = rayleigh.ranked(move, hold, min(count, move.shape[1]), ridge=r)
    return found.vectors, found.quotients


def _divided(span: Span, residuals: Float[Tensor, "n q d"], damping: float) -> Float[Tensor, "n q d"]:
    """By H + r I as far as S knows it; outside S by its mean there."""
    _, hold = span.grams
    k, d = hold.shape[1], span.basis.shape[1]
    r = damping * span.floor
    rest = (d * span.floor - hold.diagonal(dim1=1, dim2=2).sum(1)).clamp(min=0) / max(d - k, 1) + r
    inside = residuals @ span.basis
    eye = torch.eye(k, dtype=hold.dtype, device=hold.device)
    solved = torch.linalg.solve(hold + r[:, None, None] * eye, inside.mT).mT
    return (residuals - inside @ span.basis.mT) / rest[:, None, None].clamp(min=1e-30) + solved @ span.basis.mT


def _orthonormal(basis: Float[Tensor, "n d k"], new: Float[Tensor, "n d q"], rng: torch.Generator) -> Float[Tensor, "n d q"]:
    """The new directions outside the basis; what has none left is replaced by a random one."""
    new = new / new.norm(dim=1, keepdim=True).clamp(min=1e-30)
    new = new + 1e-7 * torch.randn(new.shape, generator=rng).to(new)
    for _ in range(3):
        new = new - basis @ (basis.mT @ new)
        new = torch.linalg.qr(new)[0]
    return new
