"""Effects and leakage of responses drawn by hand, whose answers can be read off."""

import pytest
import torch

from steerable.controls.directions import Directions
from steerable.evaluation.response import Response
from steerable.evaluation.summary import effects, entanglement, largest_leaks, leakage
from steerable.protocols import Knob, Latents, LatentSpace

YAW, SMILE = Knob("yaw", "deg", -20, 20), Knob("smile", "logits", -2, 2)
AMOUNTS = torch.tensor([[-20.0, -10, 10, 20], [-2.0, -1, 1, 2]])
COLUMNS, UNITS = ("yaw", "smile", "yaw68", "brightness"), ("deg", "logits", "deg", "of full scale")
DEVIATIONS = torch.tensor([10.0, 1.0, 5.0, 0.1])


def drawn(change, n=4):
    """``change[knob][column]`` per unit of amount, the same for every latent, on values that differ between them."""
    start = torch.arange(n * 4.0).view(n, 4)
    values = start + AMOUNTS[:, :, None, None] * torch.tensor(change)[:, None, None, :]
    return Response((YAW, SMILE), AMOUNTS, start, values, COLUMNS, UNITS, seed=9)


@pytest.fixture
def linear():
    """Yaw does what is asked and darkens; smile does 0.5 of what is asked and turns the head."""
    return drawn([[1.0, 0.0, 0.5, -0.002], [4.0, 0.5, 0.0, 0.0]])


# ------------------------------------------------------------------ effects


def test_an_effect_is_the_mean_measured_change_at_each_amount(linear):
    rows = effects(linear)
    assert [(row.knob, row.amount, row.measured) for row in rows] == [
        *[("yaw", amount, pytest.approx(amount)) for amount in (-20, -10, 10, 20)],
        *[("smile", amount, pytest.approx(0.5 * amount)) for amount in (-2, -1, 1, 2)],
    ]


def test_an_effect_says_how_many_which_seed_and_who_judged(linear):
    row = effects(linear)[0]
    assert (row.n, row.seed, row.judge, row.unit, row.second_judge, row.second_unit) == (4, 9, "yaw", "deg", "yaw68", "deg")
    assert row.second == pytest.approx(-10)


def test_a_knob_whose_second_judge_was_not_measured_has_none(linear):
    row = effects(linear)[-1]
    assert row.second is None and row.second_judge == ""


def test_the_spread_is_the_deviation_between_latents(linear):
    wide = torch.tensor([-3.0, -1, 1, 3])
    values = linear.values.clone()
    values[0, :, :, 0] += wide
    spread = Response(linear.knobs, linear.amounts, linear.start, values, COLUMNS, UNITS, 9)
    assert effects(spread)[0].spread == pytest.approx(wide.std().item()) and effects(linear)[0].spread == pytest.approx(0, abs=1e-6)


def test_a_single_latent_has_no_spread():
    assert effects(drawn([[1.0, 0, 0, 0], [0.0, 1, 0, 0]], n=1))[0].spread == 0


def test_a_knob_with_another_name_than_its_column_is_told_which():
    zoom = Response((Knob("zoom", "log2", -1, 1),), AMOUNTS[1:], torch.zeros(2, 4), torch.ones(1, 4, 2, 4), COLUMNS, UNITS, 0)
    assert effects(zoom) == []
    assert [row.judge for row in effects(zoom, own={"zoom": "brightness"})] == ["brightness"] * 4


# ------------------------------------------------------------------ leakage


def test_leakage_is_in_deviations_at_one_deviation_of_the_own_column(linear):
    """Yaw: 10 deg is one deviation, and brings 5 deg of yaw68 (1.0) and -0.02 brightness (-0.2)."""
    expected = [[1, 0, 1, -0.2], [0.8, 1, 0, 0]]  # smile: 2 logits asked are 1 measured, and bring 8 deg of yaw
    assert torch.allclose(leakage(linear, DEVIATIONS), torch.tensor(expected), atol=1e-5)


def test_leakage_at_half_a_deviation_is_half_of_it_where_all_is_linear(linear):
    assert torch.allclose(leakage(linear, DEVIATIONS, match=0.5), leakage(linear, DEVIATIONS) / 2, atol=1e-5)


def test_a_knob_that_does_not_get_that_far_is_scaled_up(linear):
    """Three deviations of yaw are 30 deg, beyond the 20 that were measured."""
    assert torch.allclose(leakage(linear, DEVIATIONS, match=3.0), 3 * leakage(linear, DEVIATIONS), atol=1e-5)


def test_leaks_of_both_sides_are_averaged_with_their_signs(linear):
    """A brightness that falls by 0.02 whichever way the head turns cancels; one that follows the turn does not."""
    values = linear.values.clone()
    values[0, :, :, 3] = linear.start[:, 3] - 0.002 * AMOUNTS[0].abs()[:, None]
    even = Response(linear.knobs, linear.amounts, linear.start, values, COLUMNS, UNITS, 9)
    assert leakage(even, DEVIATIONS)[0, 3] == pytest.approx(0, abs=1e-4)


def test_a_side_that_does_not_move_is_left_out(linear):
    values = linear.values.clone()
    values[0, :2] = linear.start  # turning left does nothing
    one_sided = Response(linear.knobs, linear.amounts, linear.start, values, COLUMNS, UNITS, 9)
    assert torch.allclose(leakage(one_sided, DEVIATIONS)[0], torch.tensor([1, 0, 1, -0.2]), atol=1e-4)


def test_a_knob_that_does_nothing_or_has_no_column_has_no_leakage():
    still = drawn([[0.0, 0, 0, 0], [0.0, 1, 0, 0]])
    assert leakage(still, DEVIATIONS)[0].isnan().all() and leakage(still, DEVIATIONS)[1, 1] == pytest.approx(1)
    assert leakage(drawn([[1.0, 0, 0, 0], [0.0, 1, 0, 0]]), DEVIATIONS, own={"yaw": "nothing"})[0].isnan().all()


def test_a_bent_response_is_read_where_it_reaches_the_match():
    """Measured 4 deg at 10 asked and 16 at 20: 10 deg are reached halfway, and so is the brightness of that place."""
    start = torch.zeros(2, 4)
    values = torch.zeros(1, 2, 2, 4)
    values[0, 0, :, 0], values[0, 1, :, 0], values[0, 1, :, 3] = 4.0, 16.0, 0.2
    bent = Response((YAW,), torch.tensor([[10.0, 20.0]]), start, values, COLUMNS, UNITS, 0)
    assert leakage(bent, DEVIATIONS)[0].tolist() == pytest.approx([1, 0, 0, 1])


def test_one_deviation_a_column_is_asked_for(linear):
    with pytest.raises(ValueError, match=r"one deviation a column: expected \(4,\), got \(3,\)"):
        leakage(linear, DEVIATIONS[:3])


def test_the_largest_leaks_leave_out_the_knob_and_its_judge(linear):
    matrix = leakage(linear, DEVIATIONS)
    assert largest_leaks(matrix, linear, "yaw", count=1) == [("brightness", pytest.approx(-0.2, abs=1e-5))]
    assert largest_leaks(matrix, linear, "smile", count=1) == [("yaw", pytest.approx(0.8, abs=1e-5))]


def test_an_unknown_knob_has_no_leaks(linear):
    with pytest.raises(ValueError, match=r'unknown knob "simle": did you mean "smile"\?'):
        largest_leaks(leakage(linear, DEVIATIONS), linear, "simle")


# ------------------------------------------------------------------ entanglement

SPACE = LatentSpace("z", (4,), "00toy000", "toy")
SLANTED = torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 0, 0]])  # 45 degrees apart


def population(scale=(1.0, 1.0, 1.0, 1.0)):
    return Latents(torch.randn(20000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor(scale), SPACE)


def entangled(vectors=SLANTED, normals=SLANTED):
    return Directions((YAW, SMILE), SPACE, vectors, normals)


def test_the_cosine_is_that_of_the_angle_between_axes():
    _, (before, after) = entanglement(entangled(), population())
    expected = torch.tensor([[1.0, 0.5**0.5], [0.5**0.5, 1.0]])
    assert torch.allclose(before, expected) and torch.allclose(after, expected)


def test_on_round_latents_the_correlation_is_the_cosine():
    (correlation, _), (cosine, _) = entanglement(entangled(), population())
    assert torch.allclose(correlation, cosine, atol=0.02)


def test_where_latents_vary_more_along_what_is_shared_the_correlation_is_larger():
    """Coordinates 3 x and 3 x + y: covariance 9, deviations 3 and the root of 10."""
    (correlation, _), _ = entanglement(entangled(), population((3.0, 1.0, 1.0, 1.0)))
    assert correlation[0, 1].item() == pytest.approx(3 / 10**0.5, abs=0.01)


def test_after_a_hold_the_walked_axis_shares_nothing_and_before_stays():
    (correlation, freed), (cosine, right) = entanglement(entangled().held(["yaw"]), population())
    assert correlation[0, 1].item() == pytest.approx(0.5**0.5, abs=0.02) and freed[0, 1].item() == pytest.approx(0, abs=0.03)
    assert cosine[0, 1].item() == pytest.approx(0.5**0.5) and right[0, 1].item() == pytest.approx(0, abs=1e-6)


def test_latents_of_any_shape_are_compared_flat():
    deep = LatentSpace("z", (4, 1, 1), "00toy000", "toy")
    axes = Directions((YAW, SMILE), deep, SLANTED[..., None, None], SLANTED[..., None, None])
    flat = population()
    pairs = zip(entanglement(axes, Latents(flat.values[..., None, None], deep)), entanglement(entangled(), flat), strict=True)
    assert all(torch.allclose(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
