"""Directions that move the most for the least that is held: the eigenproblems of a trajectory, apart from any path.

Around a latent features change by ``J v``, their squared change is ``v' A v`` with ``A = J'J``. With ``M`` the Gram matrix of what
moves and ``H`` that of what is held, two questions have closed answers (``ranked``):

    hard   max v'Mv with |v| = 1 and v in N, the directions that change nothing held: N is the complement of the leading
           eigenvectors of every held Gram matrix, as many as explain a share of its variance; then V = N eigvecs(N'MN)
    soft   max v'Mv / v'(H + r I)v with the ridge r = damping tr(H)/d: M v = mu (H + r I) v, symmetric, by Cholesky and eigh

``controls.subspace`` answers the soft one without forming a matrix; ``sensitivity`` makes the Jacobians and Gram matrices.

Source: Rayleigh EigenDirections, ECCV 2022, arXiv 2201.10423. The released code counts variance on the squares of the
eigenvalues (sigma^4), which forbids far fewer directions than it says, and takes the eigenvectors of a matrix that noise has
made unsymmetric; neither is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerable import checks

Solver = Literal["soft", "hard"]
Gram = Float[Tensor, "n d d"]


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best directions, best first.

    Attributes:
        vectors: (n, k, d), unit length, the largest component positive; ``-vectors`` are as good.
        quotients: (n, k) v'Mv / v'(H + r I)v, of either solver.
        moved, held: (n, k) v'Mv and v'Hv: squared change of a side for a unit step.
        rank: (n,) directions that the hard solver forbade; 0 of the soft one.
        ridge: (n,) r.
    """

    vectors: Float[Tensor, "n k d"]
    quotients: Float[Tensor, "n k"]
    moved: Float[Tensor, "n k"]
    held: Float[Tensor, "n k"]
    rank: Int[Tensor, " n"]
    ridge: Float[Tensor, " n"]

    @property
    def both_signs(self) -> Float[Tensor, "n two_k d"]:
        """v_1, -v_1, v_2, -v_2, ..."""
        return torch.stack([self.vectors, -self.vectors], 2).flatten(1, 2)


def ranked(
    move: Gram | Sequence[Gram],
    hold: Gram | Sequence[Gram],
    k: int = 1,
    *,
    solver: Solver = "soft",
    damping: float = 0.1,
    explained: float | Sequence[float] = 0.99,
    move_weights: Sequence[float] | None = None,
    hold_weights: Sequence[float] | None = None,
    ridge: Float[Tensor, " n"] | None = None,
) -> Ranked:
    """The k directions of the largest Rayleigh quotient, for each of n latents.

    Args:
        move, hold: Gram matrices (n, d, d) of what moves and of what is held; several features are a list, in comparable units.
        k: how many, best first.
        solver: "hard" forbids what is held, "soft" weighs it.
        damping: r is this share of the mean eigenvalue of H. The hard solver only reports its quotients with it.
        explained: hard: the share of each held feature's variance (sum of sigma^2) that the forbidden directions explain; one
            number, or one for each held feature.
        move_weights, hold_weights: of the features' squared changes, 1 each unless given.
        ridge: (n,) r itself, instead of ``damping``.

    Raises:
        ValueError: shapes that differ, non-finite numbers, weights or shares out of range, fewer than k directions left by what
            is held (said with the rank), a move that nothing changes.
    """
    moves, holds = _listed(move, "move"), _listed(hold, "hold")
    n, d = moves[0].shape[:2]
    if any(gram.shape != (n, d, d) for gram in (*moves, *holds)):
        shapes = ", ".join(str(tuple(gram.shape)) for gram in (*moves, *holds))
        raise ValueError(f"Gram matrices of what moves and what is held are all (n, d, d) of the same latents, got {shapes}.")
    if not 1 <= k <= d:
        raise ValueError(f"k is 1 to {d} directions of a latent of {d} numbers, got {k}.")
    if not damping >= 0:
        raise ValueError(f"damping is a share of the mean held eigenvalue, 0 or more, got {damping}.")
    checks.known(solver, ("soft", "hard"), "solver")
    M, H = combined(moves, move_weights), combined(holds, hold_weights)
    scale = M.diagonal(dim1=1, dim2=2).mean(1)
    if not bool((scale > 0).all()):
        raise ValueError("nothing changes what should move: its Gram matrix is zero here.")
    given = damping * H.diagonal(dim1=1, dim2=2).mean(1) if ridge is None else ridge.to(H)
    r = given.clamp(min=0) + 1e-12 * scale.clamp(min=1e-30)  # where nothing held changes, the answer is that of most change
    if solver == "soft":
        vectors, rank = _soft(M, H, r, k), torch.zeros(n, dtype=torch.long, device=M.device)
    else:
        vectors, rank = _hard(M, holds, k, _shares(explained, len(holds)))
    vectors = signed(vectors / vectors.norm(dim=2, keepdim=True))
    moved, held = quadratic(M, vectors), quadratic(H, vectors)
    like = moves[0].dtype
    quotients = moved / (held + r[:, None])
    return Ranked(vectors.to(like), quotients.to(like), moved.to(like), held.to(like), rank, r.to(like))


def signed(vectors: Tensor) -> Tensor:
    """Each with the sign that makes its largest component positive: the rule for a first step, where no path says more. (..., d)"""
    largest = vectors.gather(-1, vectors.abs().argmax(-1, keepdim=True))
    return torch.where(largest < 0, -vectors, vectors)


def continued(vectors: Float[Tensor, "n k d"], previous: Float[Tensor, "n j d"]) -> Float[Tensor, "n j d"]:
    """The directions of the subspace found here that are nearest to those followed so far, unit length, of the same sign.

    Two quotients may cross along a path, and an eigenvector alone jumps there; their plane does not. A previous direction that the
    new subspace does not contain at all comes back as its best vector.
    """
    basis = torch.linalg.qr(vectors.mT)[0]  # (n, d, k)
    kept = (previous @ basis) @ basis.mT
    length = kept.norm(dim=2, keepdim=True)
    best = vectors[:, :1] / vectors[:, :1].norm(dim=2, keepdim=True)
    return torch.where(length > 1e-3 * previous.norm(dim=2, keepdim=True), kept / length.clamp(min=1e-30), best)


def combined(grams: Gram | Sequence[Gram], weights: Sequence[float] | None = None) -> Gram:
    """The Gram matrix of several features side by side, each squared change times its weight; float64, exactly symmetric."""
    grams = _listed(grams, "combined")
    weights = [1.0] * len(grams) if weights is None else list(weights)
    if len(weights) != len(grams) or not all(0 < w < float("inf") for w in weights):
        raise ValueError(f"weights are {len(grams)} numbers above 0, one a feature, got {weights}.")
    total = torch.stack([w * gram.double() for w, gram in zip(weights, grams, strict=True)]).sum(0)
    return (total + total.mT) / 2


def quadratic(gram: Float[Tensor, "n d d"], vectors: Float[Tensor, "n k d"]) -> Float[Tensor, "n k"]:
    """v'Av of each vector."""
    return ((vectors @ gram) * vectors).sum(2).clamp(min=0)


def _listed(grams: Gram | Sequence[Gram], side: str) -> list[Tensor]:
    listed = [grams] if isinstance(grams, Tensor) else list(grams)
    if not listed:
        raise ValueError(f"{side} needs at least one Gram matrix (n, d, d).")
    for gram in listed:
        bad = int((~torch.isfinite(gram)).sum())
        if bad:
            what = f"a Gram matrix of {side} holds {bad} NaN or infinite numbers of {gram.numel()}"
            raise ValueError(f"{what}: the features are not smooth here.")
        if gram.ndim != 3 or gram.shape[1] != gram.shape[2]:
            raise ValueError(f"Gram matrices are (n, d, d), got {tuple(gram.shape)}.")
    return listed


def _shares(explained: float | Sequence[float], count: int) -> list[float]:
    shares = [float(explained)] * count if isinstance(explained, int | float) else [float(share) for share in explained]
    if len(shares) != count or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"explained is a share above 0 up to 1, or one for each of {count} held features, got {explained}.")
    return shares


def _soft(M: Tensor, H: Tensor, r: Tensor, k: int) -> Tensor:
    """M v = mu (H + r I) v: with H + r I = L L', the eigenvectors u of L^-1 M L^-T, and v = L^-T u. (n, k, d)"""
    damped = H + r[:, None, None] * torch.eye(H.shape[1], dtype=H.dtype, device=H.device)
    L, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed.any()):
        raise ValueError("what is held has a singular Gram matrix here: give a damping above 0 (0.1, say), or solver='hard'.")
    whitened = torch.linalg.solve_triangular(L, torch.linalg.solve_triangular(L, M, upper=False).mT, upper=False)
    top = torch.linalg.eigh((whitened + whitened.mT) / 2)[1].flip(2)[..., :k]
    return torch.linalg.solve_triangular(L.mT, top, upper=True).mT


def _hard(M: Tensor, holds: list[Tensor], k: int, shares: list[float]) -> tuple[Tensor, Tensor]:
    """V = N eigvecs(N'MN), N the complement of the leading eigenvectors of every held Gram matrix. (n, k, d), (n,)"""
    n, d = M.shape[:2]
    vectors, ranks = [], []
    for row in range(n):
        forbidden = torch.cat([leading(hold[row], share) for hold, share in zip(holds, shares, strict=True)], 1)  # C (d, sum of ranks)
        U, spread, _ = torch.linalg.svd(forbidden, full_matrices=True)
        rank = int((spread > 1e-3).sum())  # features may forbid the same direction twice
        free = d - rank
        if free < k:
            left = "no direction" if free == 0 else f"{free} of the {k} directions asked for"
            raise ValueError(
                f"what is held leaves {left}: it takes rank {rank} of {d} at explained {', '.join(f'{s:g}' for s in shares)}. "
                "Lower explained, hold less, or solve softly (solver='soft')."
            )
        N = U[:, rank:]
        inside = N.T @ M[row] @ N
        vectors.append((N @ torch.linalg.eigh((inside + inside.T) / 2)[1].flip(1)[:, :k]).T)
        ranks.append(rank)
    return torch.stack(vectors), torch.tensor(ranks, device=M.device)


def leading(gram: Float[Tensor, "d d"], share: float) -> Float[Tensor, "d r"]:
    """The fewest eigenvectors whose eigenvalues (sigma^2) sum to a share of the trace; none of a feature that nothing changes."""
    noise = len(gram) * torch.finfo(gram.dtype).eps
    values, vectors = torch.linalg.eigh((gram + gram.T).double() / 2)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    real = int((values > noise * values[:1]).sum()) if float(values[0]) > 0 else 0
    if real == 0:
        return vectors[:, :0]
    covered = values.cumsum(0) / values.sum()
    rank = int((covered < share * (1 - 1e-9)).sum()) + 1
    return vectors[:, : min(rank, real)]
