"""Matrix-free directions agree with those of the matrices, at fewer passes."""

import pytest
import torch
from toys import OnePixel, linear_generator

from steerable.controls import growth, rayleigh, subspace
from steerable.controls.trajectory import Trajectory

WIDE = 60
MOVED, HELD = [(row, col) for row in range(6) for col in range(8)], [(row, col) for row in range(6, 8) for col in range(8)]


@pytest.fixture(scope="module")
def control():
    generator = linear_generator(WIDE, (1, 8, 8))
    return Trajectory(generator, move=pixels(MOVED), hold=pixels(HELD), judge=None)


def pixels(places):
    return [OnePixel(row, col) for row, col in places]


def both(control, n=2):
    latents = control.generator.sample(n, seed=0)
    sides = control.around(latents)
    return sides, growth.derivatives(sides, latents.values, control.steps)


def test_the_best_directions_are_those_of_the_eigenproblem(control):
    sides, around = both(control)
    full = rayleigh.ranked(around.moves.total, around.holds.total, 2)
    found = subspace.ranked(sides.operator(sides.latents.values), sides.width, 2)
    got = rayleigh.quadratic(around.moves.total, found.vectors)
    got = got / (rayleigh.quadratic(around.holds.total, found.vectors) + full.ridge[:, None])
    assert torch.allclose(got, full.quotients, rtol=0.01)
    assert ((found.vectors * full.vectors).sum(2).abs() > 0.99).all()


def test_in_as_many_rounds_as_there_are_directions_the_space_is_whole(control):
    sides, _ = both(control, 1)
    span = subspace.spanned(sides.operator(sides.latents.values), sides.width, damping=0.1, rounds=40)
    assert torch.allclose(span.basis[0].T @ span.basis[0], torch.eye(WIDE), atol=1e-4)


def test_products_in_the_space_are_those_of_the_jacobian(control):
    sides, around = both(control)
    span = subspace.spanned(sides.operator(sides.latents.values), sides.width, damping=0.1, rounds=2)
    assert torch.allclose(span.jac[:, : sides.width], around.move @ span.basis, atol=1e-4)
    assert torch.allclose(span.jac[:, sides.width :], around.hold @ span.basis, atol=1e-4)
    assert torch.allclose(span.floor, around.floor, rtol=0.25)


def test_a_carried_space_costs_fewer_passes_and_holds_what_is_wanted(control):
    sides, around = both(control, 1)
    model = sides.operator(sides.latents.values)
    first = subspace.spanned(model, sides.width, damping=0.1, rounds=8)
    carried = first.kept(torch.linalg.eigh(first.grams[0])[1][..., -1:].mT)
    gradient = around.push(torch.randn(1, sides.width, generator=torch.Generator().manual_seed(1)))
    later = subspace.spanned(model, sides.width, damping=0.1, rounds=8, carried=carried, wanted=gradient[:, None])
    assert carried.shape == (1, WIDE, subspace.KEPT) and later.passes < first.passes
    ridge = 0.1 * around.floor[0] * torch.eye(WIDE)
    exact = torch.linalg.solve(around.holds.total[0] + ridge, gradient[0])
    inner = torch.linalg.solve(later.grams[1][0] + 0.1 * around.floor[0] * torch.eye(later.basis.shape[2]), (gradient @ later.basis[0])[0])
    assert torch.nn.functional.cosine_similarity(later.basis[0] @ inner, exact, dim=0) > 0.99


def test_a_path_by_products_arrives_with_its_hold_kept(control):
    start = control.generator.sample(3, seed=0)
    free = Trajectory(control.generator, move=control.move, hold=control.hold, solver="matrix-free", judge=None)
    path = free.path(start, torch.tensor([[0.3], [-0.2], [0.0]]))
    assert path.reached.all() and not path.ledger.broken
    assert path.moved[-1].tolist() == pytest.approx([0.3, 0.2, 0], rel=0.02)


def test_features_that_are_not_smooth_are_refused(control):
    sides, _ = both(control, 1)
    model = sides.operator(sides.latents.values)
    model.push = lambda tangents: torch.full((*tangents.shape[:2], len(MOVED) + len(HELD)), torch.nan)
    with pytest.raises(ValueError, match="NaN or infinite"):
        subspace.spanned(model, sides.width, damping=0.1, rounds=1)
