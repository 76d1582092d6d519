"""How a walk's least squares problem is solved with few samples: by steps in the eigenbasis of the Gauss-Newton matrix, and one of Newton.

A walk minimises ``|r|^2`` over moves M, where ``r_i = residual(G(z_i + f_i M))`` has the Jacobian ``f_i J_i``. The Gauss-Newton matrix
``H = 2 E[f^2 J'J]`` would cost a product a latent dimension for every sample. It is never formed from Jacobians: for a vector u of random
signs, ``J'u`` is one product from the left, whose outer product has the mean ``J'J`` exactly. One such product a sample, beside the one
that the gradient needs anyway and through the same forward pass, follows the matrix well enough for its eigenvectors, once they are known
even at every fourth step. Along them the steps of ``Eigenbasis`` have one length a coordinate, as Adam's; that is a diagonal Newton method
that stays bounded where the residual bends too much for Newton.

What such steps leave is noise, of two kinds. The samples' own falls with their number. The other, ``(f^2 J_i'J_i - E) (M_i - M*)``, is
there only because a gradient is taken away from the solution, and it is the larger one, for a residual that no move removes is mostly
orthogonal to ``J``. So gradients are taken near the mean of the iterates, which is quieter than they are; and the answer is one step of
Newton's from the mean place of all gradients, by the mean gradient: where H is the same everywhere, the minimum over all samples at once.
How many samples that saves beside Adam in the latents' own coordinates is measured by ``benchmarks/walk_fit.py``.

Neighbours: ``walks`` and ``curved`` draw the samples. Sources: Kingma & Ba, "Adam", ICLR 2015; the rotation as in Vyas et al.,
"SOAP", arXiv 2409.11321, with the curvature of the model in place of that of the gradients' noise; products with random signs as in
Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990; gradients near the mean as in Defazio et al., "The road
less scheduled", NeurIPS 2024, eq. 3 to 5; weights of a mean as in Shamir & Zhang, "Stochastic gradient descent for non-smooth
optimization", ICML 2013, section 4; the last step as in van der Vaart, "Asymptotic statistics", 1998, section 5.7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from steerable.protocols import LatentSpace

WIDEST = 1024  # a block of more dimensions is not rotated: its eigenvectors would cost more than they bring
OFTEN = 128  # up to so many dimensions the basis is renewed with every sketch, above at every eighth step
CLOSE, SELDOM = 64, 4  # so many steps the matrix is sketched at each, then at every fourth
BETAS = (0.9, 0.99)  # of Adam; the second one also of the eigenbasis
NEAR = 0.8  # how near to the mean of the iterates a gradient is taken: 1 is at the mean, 0 at the iterate
LATE = 2  # power of its number by which an iterate weighs in the mean
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


class Adam:
    """The paper's way: in the latents' own coordinates, the rate on a cosine, and the last iterate is the answer."""

    rotated = curious = False

    def __init__(self, space: LatentSpace, k: int, *, lr: float, steps: int, like: Tensor) -> None:
        self.moves = torch.zeros(k, *space.shape, dtype=like.dtype, device=like.device)
        self._optimiser = torch.optim.Adam([self.moves], lr=lr, betas=BETAS)
        self._rate = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, steps)

    @property
    def mean(self) -> Tensor:
        return self.moves.clone()

    answer = mean

    def step(self, fractions: Float[Tensor, "n k"], gradient: Tensor, sketch: Tensor | None, weights: Float[Tensor, " n"]) -> None:
        self.moves.grad = _slope(fractions, gradient, weights)
        self._optimiser.step()
        self._rate.step()


class Eigenbasis:
    """k moves and the state of their descent.

    ``moves`` (k, *shape) is where the next gradient is wanted, ``mean`` that of the iterates, ``answer`` what was found.

    Every move has a block of its own for each layer that the space has (rows of w+), and one block where it has none. Layers act
    together, so that a Newton step of each alone would go too far: there the mean is the answer.

    Args:
        lr: length of a step along each eigenvector at the start, in latent units; it falls linearly to zero over ``steps``.
    """

    rotated = True

    def __init__(self, space: LatentSpace, k: int, *, lr: float, steps: int, like: Tensor) -> None:
        self.rows, self.lr, self.steps, self.step_number = blocks(space), lr, steps, 0
        self.moves = self.mean = torch.zeros(k, *space.shape, dtype=like.dtype, device=like.device)
        self._iterate = self._blocks(self.moves)  # (b, d)
        b, d = self._iterate.shape
        self._second, self._place, self._slope = (torch.zeros_like(self._iterate) for _ in range(3))
        self._matrix = torch.zeros(b, d, d, dtype=like.dtype, device=like.device)
        self._basis = torch.eye(d, dtype=like.dtype, device=like.device).repeat(b, 1, 1)
        self._sketches, self._weight = 0, 0.0  # in the matrix

    def _blocks(self, moves: Tensor) -> Float[Tensor, "b d"]:
        return moves.reshape(len(moves) * self.rows, -1)

    @property
    def curious(self) -> bool:
        """Whether the next step is better with a sketch."""
        return self.step_number < CLOSE or self.step_number % SELDOM == 0

    def step(self, fractions: Float[Tensor, "n k"], gradient: Tensor, sketch: Tensor | None, weights: Float[Tensor, " n"]) -> None:
        """Move against the gradient of the weighted mean over n samples.

        Args:
            gradient, sketch: (n, *shape) at the moved latents; no sketch where it is not ``curious``.
        """
        n, (b, d) = len(fractions), self._iterate.shape
        slope = self._blocks(_slope(fractions, gradient, weights))
        pace, two = 1 - self.step_number / self.steps, BETAS[1]
        self.step_number += 1
        t = self.step_number
        self._place = self._place.lerp(self._blocks(self.moves), 2 / (t + 1))  # each weighs by its number
        self._slope = self._slope.lerp(slope, 2 / (t + 1))
        if sketch is not None:
            rows = torch.einsum("n,nk,nrd->krnd", weights.sqrt(), fractions, sketch.reshape(n, self.rows, -1)).reshape(b, n, d)
            self._sketches, self._weight = self._sketches + n, self._weight + t
            self._matrix = self._matrix.lerp(2 * rows.mT @ rows / n, t / self._weight)
            if d <= OFTEN or t % 8 == 1:
                self._turn(torch.linalg.eigh(self._matrix).eigenvectors)
        slope = (slope[:, None] @ self._basis)[:, 0]
        self._second = two * self._second + (1 - two) * slope.square()
        move = slope / ((self._second / (1 - two**t)).sqrt() + 1e-8)
        self._iterate = self._iterate - self.lr * pace * (self._basis @ move[:, :, None])[:, :, 0]
        iterate = self._iterate.view_as(self.moves)
        self.mean = self.mean.lerp(iterate, (1 + LATE) / (t + LATE))
        self.moves = iterate.lerp(self.mean, NEAR)

    @property
    def answer(self) -> Tensor:
        """One step of Newton's from the mean place of the gradients, with a matrix drawn towards a multiple of the identity where its
        sketches are few beside its dimensions."""
        if self.rows > 1 or not self._sketches:
            return self.mean
        d = self._matrix.shape[1]
        level = self._matrix.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(d).to(self._matrix)
        matrix = self._matrix.lerp(level, d / (d + self._sketches)) + 1e-12 * torch.eye(d).to(self._matrix)
        return (self._place - torch.linalg.solve(matrix, self._slope)).view_as(self.moves)

    def _turn(self, basis: Float[Tensor, "b d d"]) -> None:
        """Take the second moment over into another basis, as if coordinates were independent."""
        self._second = ((basis.mT @ self._basis).square() @ self._second[:, :, None])[:, :, 0]
        self._basis = basis


def blocks(space: LatentSpace) -> int:
    """Layers that a move has a block for."""
    rows, *columns = space.shape
    return rows if columns and len(space.layers) == rows else 1


def _slope(fractions: Float[Tensor, "n k"], gradient: Tensor, weights: Float[Tensor, " n"]) -> Tensor:
    """The gradient in the moves (k, *shape), mean over n samples."""
    return torch.einsum("n,nk,n...->k...", weights, fractions, gradient) / len(fractions)
