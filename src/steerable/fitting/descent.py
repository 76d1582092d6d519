"""Adam in the eigenbasis of the Gauss-Newton matrix: how a walk's least squares problem is solved with few samples.

A walk minimises ``|r|^2`` over moves M, where ``r_i = residual(G(z_i + f_i M))`` has the Jacobian ``f_i J_i``. The Gauss-Newton matrix
``E[f^2 J'J]`` would cost a product a latent dimension for every sample. It is never formed from Jacobians: for a vector u of random
signs, ``J'u`` is one product from the left, whose outer product has the mean ``J'J`` exactly. One such product a sample, beside the one
that the gradient needs anyway and through the same forward pass, follows the matrix well enough for its eigenvectors, once they are known
even at every fourth step; along them Adam's steps, one length a coordinate, are those of a diagonal Newton method, and stay bounded where
the residual bends too much for Newton. What such steps leave is the noise of the last samples; the answer is therefore the mean of all
iterates, each weighed by the cube of its number.
How many samples that saves beside Adam in the latents' own coordinates is measured by ``benchmarks/walk_fit.py``.

Neighbours: ``walks`` and ``curved`` draw the samples. Sources: Kingma & Ba, "Adam", ICLR 2015; the rotation as in Vyas et al.,
"SOAP", arXiv 2409.11321, with the curvature of the model in place of that of the gradients' noise; products with random signs as in
Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990; the mean as in Shamir & Zhang, "Stochastic gradient descent
for non-smooth optimization", ICML 2013, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from steerable.protocols import LatentSpace

WIDEST = 1024  # a block of more dimensions is not rotated: its eigenvectors would cost more than they bring
OFTEN = 128  # up to so many dimensions the basis is renewed with every sketch, above at every eighth step
CLOSE, SELDOM = 64, 4  # so many steps the matrix is sketched at each, then at every fourth
MEMORY = 0.98  # of the Gauss-Newton matrix, a step
BETAS = (0.9, 0.99)
LATE = 3  # power of its number by which an iterate weighs in the mean
Residual = Callable[[Tensor], Float[Tensor, "n m"]]


def products(residual: Residual, values: Tensor, rng: torch.Generator | None) -> tuple[Float[Tensor, " n"], Tensor, Tensor | None]:
    """``|r|^2`` of each row, its gradient, and with ``rng`` also ``J'u`` for random signs u: one forward pass and one or two backward.

    Args:
        residual: row-wise, latents (n, *shape) -> (n, m).
        values: (n, *shape).
    """
    values = values.detach().requires_grad_()
    r = residual(values)
    (gradient,) = torch.autograd.grad(r, values, 2 * r.detach(), retain_graph=rng is not None)
    if rng is None:
        return r.detach().square().sum(1), gradient, None
    signs = torch.randint(0, 2, r.shape, generator=rng).to(r) * 2 - 1
    (sketch,) = torch.autograd.grad(r, values, signs)
    return r.detach().square().sum(1), gradient, sketch


class Descent:
    """k moves and the state of their descent.

    ``moves`` (k, *shape) is the iterate, where the next gradient is wanted, ``answer`` what was found so far.

    Every move has a block of its own for each layer that the space has (rows of w+), and one block where it has none.

    Args:
        lr: length of a step along each eigenvector at the start, in latent units; it falls to zero over ``steps``, as the root of what is
            left of them, for the mean of the iterates takes their noise away.
        rotated: False is Adam itself, on a cosine, and the last iterate.
    """

    def __init__(self, space: LatentSpace, k: int, *, lr: float, steps: int, rotated: bool, like: Tensor) -> None:
        rows, *columns = space.shape
        layered = bool(columns) and len(space.layers) == rows
        self.rows, self.lr, self.steps, self.step_number = (rows if layered else 1), lr, steps, 0
        self.moves = self.answer = torch.zeros(k, *space.shape, dtype=like.dtype, device=like.device)
        self._flat = self._blocks(self.moves)  # (b, d)
        b, d = self._flat.shape
        self.rotated = rotated and d <= WIDEST
        self._first, self._second = torch.zeros_like(self._flat), torch.zeros_like(self._flat)
        if self.rotated:
            self._matrix = torch.zeros(b, d, d, dtype=like.dtype, device=like.device)
            self._basis = torch.eye(d, dtype=like.dtype, device=like.device).repeat(b, 1, 1)

    def _blocks(self, moves: Tensor) -> Float[Tensor, "b d"]:
        return moves.reshape(len(moves) * self.rows, -1)

    @property
    def curious(self) -> bool:
        """Whether the next step is better with a sketch."""
        return self.rotated and (self.step_number < CLOSE or self.step_number % SELDOM == 0)

    def step(self, fractions: Float[Tensor, "n k"], gradient: Tensor, sketch: Tensor | None, weights: Float[Tensor, " n"]) -> None:
        """Move against the gradient of the weighted mean over n samples.

        Args:
            gradient, sketch: (n, *shape) at the moved latents; no sketch where it is not ``curious``.
        """
        n, (b, d) = len(fractions), self._flat.shape
        slope = self._blocks(torch.einsum("n,nk,n...->k...", weights, fractions, gradient) / n)
        if self.rotated:
            if sketch is not None:
                rows = torch.einsum("n,nk,nrd->krnd", weights.sqrt(), fractions, sketch.reshape(n, self.rows, -1)).reshape(b, n, d)
                self._matrix = MEMORY ** (1 if self.step_number < CLOSE else SELDOM) * self._matrix + rows.mT @ rows / n
                if d <= OFTEN or self.step_number % 8 == 0:
                    self._turn(torch.linalg.eigh(self._matrix).eigenvectors)
            slope = (slope[:, None] @ self._basis)[:, 0]
        share = self.step_number / self.steps
        self.step_number += 1
        (one, two), t = BETAS, self.step_number
        self._first = one * self._first + (1 - one) * slope
        self._second = two * self._second + (1 - two) * slope.square()
        move = self._first / (1 - one**t) / ((self._second / (1 - two**t)).sqrt() + 1e-8)
        if self.rotated:
            move = (self._basis @ move[:, :, None])[:, :, 0]
        pace = math.sqrt(1 - share) if self.rotated else 0.5 * (1 + math.cos(math.pi * share))
        self._flat = self._flat - self.lr * pace * move
        self.moves = self._flat.view_as(self.moves)
        self.answer = self.answer.lerp(self.moves, (1 + LATE) / (t + LATE) if self.rotated else 1.0)

    def _turn(self, basis: Float[Tensor, "b d d"]) -> None:
        """Take both moments over into another basis, the second as if coordinates were independent."""
        turn = basis.mT @ self._basis
        self._first = (turn @ self._first[:, :, None])[:, :, 0]
        self._second = (turn.square() @ self._second[:, :, None])[:, :, 0]
        self._basis = basis
