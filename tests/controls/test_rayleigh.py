"""The eigenproblems of a trajectory, against scipy and by hand."""

import pytest
import torch
from scipy.linalg import eigh

from steerable.controls.rayleigh import continued, leading, ranked, signed

RNG = torch.Generator().manual_seed(0)


def gram(rank, d=6):
    rows = torch.randn(1, rank, d, generator=RNG, dtype=torch.float64)
    return rows.mT @ rows


MOVE, HOLD = gram(5), gram(3)


def test_soft_solutions_are_those_of_scipy_in_order():
    damping = 0.1
    ridge = damping * HOLD[0].trace() / 6
    values, vectors = eigh(MOVE[0].numpy(), (HOLD[0] + ridge * torch.eye(6)).numpy())
    found = ranked(MOVE, HOLD, 3, damping=damping)
    assert torch.allclose(found.quotients[0], torch.tensor(values[::-1][:3].copy()), rtol=1e-6)
    for ours, theirs in zip(found.vectors[0], vectors[:, ::-1].T, strict=False):
        cosine = torch.nn.functional.cosine_similarity(ours, torch.tensor(theirs.copy()), dim=0)
        assert abs(float(cosine)) == pytest.approx(1, abs=1e-9)


def test_hard_solutions_change_nothing_held_and_move_most_within_that():
    found = ranked(MOVE, HOLD, 2, solver="hard", explained=1.0)
    assert found.rank.tolist() == [3]
    assert found.held.max() < 1e-9
    null = torch.linalg.svd(HOLD[0])[2][3:]
    inside = torch.linalg.eigvalsh(null @ MOVE[0] @ null.T)
    assert found.moved[0, 0].item() == pytest.approx(inside[-1].item(), rel=1e-9)


def test_soft_and_hard_agree_as_the_damping_goes_to_zero():
    soft, hard = ranked(MOVE, HOLD, damping=1e-9), ranked(MOVE, HOLD, solver="hard", explained=1.0)
    assert torch.allclose(soft.vectors, hard.vectors, atol=1e-4)


def test_a_hold_that_leaves_no_direction_is_said_with_its_rank():
    with pytest.raises(ValueError, match=r"what is held leaves no direction: it takes rank 6 of 6 at explained 1"):
        ranked(MOVE, gram(6), solver="hard", explained=1.0)


def test_variance_is_counted_on_the_squares_of_singular_values():
    values = torch.diag(torch.tensor([90.0, 9.0, 1.0], dtype=torch.float64))
    assert [leading(values, share).shape[1] for share in (0.9, 0.99, 1.0)] == [1, 2, 3]


def test_both_signs_come_in_pairs_and_the_first_has_its_largest_component_positive():
    both = ranked(MOVE, HOLD, 2).both_signs[0]
    assert torch.equal(both[::2], -both[1::2])
    assert all(float(vector[vector.abs().argmax()]) > 0 for vector in both[::2])
    assert torch.equal(signed(-both), signed(both))


def test_two_crossing_quotients_do_not_turn_a_path_round():
    a, b = torch.eye(6, dtype=torch.float64)[:2]
    turned = torch.stack([(a - b) / 2**0.5, -(a + b) / 2**0.5])  # the same plane, its vectors exchanged
    assert torch.allclose(continued(turned[None], a[None, None])[0, 0], a)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"k": 7}, "k is 1 to 6 directions"),
        ({"damping": -1.0}, "damping is a share"),
        ({"solver": "sofd"}, 'did you mean "soft"'),
        ({"move_weights": [1.0, 2.0]}, "weights are 1 numbers above 0"),
        ({"solver": "hard", "explained": 0.0}, "explained is a share above 0 up to 1"),
    ],
)
def test_what_cannot_be_is_refused(no_annotation_checks, asked, words):
    with pytest.raises(ValueError, match=words):
        ranked(MOVE, HOLD, **asked)


def test_numbers_that_are_not_finite_are_counted():
    broken = MOVE.clone()
    broken[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="a Gram matrix of move holds 1 NaN or infinite numbers of 36"):
        ranked(broken, HOLD)


def test_gram_matrices_of_other_shapes_are_refused(no_annotation_checks):
    with pytest.raises(ValueError, match=r"all \(n, d, d\) of the same latents"):
        ranked(MOVE, torch.eye(5, dtype=torch.float64)[None])
