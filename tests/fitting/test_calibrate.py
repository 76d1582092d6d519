"""Units and usable ranges, on curves drawn by hand and on a generator whose scale is known."""

import dataclasses
import math

import pytest
import torch
from toys import Brighten, LinearGenerator, OnePixel, linear_generator

from steerable.controls.chain import Chain
from steerable.controls.directions import Directions
from steerable.controls.walk import Step, Walk
from steerable.fitting.calibrate import LENGTHS, PERCENTILES, Curve, calibrate, coordinates, follow, percentiles, usable
from steerable.protocols import Knob

BOTH_SIDES = tuple(sign * length for sign in (-1, 1) for length in LENGTHS)


def curve(change, error=0.0):
    return Curve(BOTH_SIDES, tuple(change(length) for length in BOTH_SIDES), (error,) * len(BOTH_SIDES), 320)


# ------------------------------------------------------------------ curves by hand


@pytest.mark.parametrize("slope", [0.001, 1.0, 25.0])
def test_a_straight_curve_is_usable_to_both_ends(slope):
    assert usable(curve(lambda x: slope * x)) == pytest.approx((slope, -3.5, 3.5))


def test_a_curve_that_saturates_is_usable_until_it_falls_a_quarter_short():
    slope, low, high = usable(curve(lambda x: max(min(3 * x, 6), -6)))  # straight to 2, flat from there
    assert slope == pytest.approx(3) and low == pytest.approx(-high)
    assert high == pytest.approx(2 + 1.5 * 0.25 / (1 - 6 / 10.5))  # between 2, where nothing is missing, and 3.5, where 43 % are


@pytest.mark.parametrize("far", [0.0, 0.5, 2.0, 10.0])
def test_what_a_long_move_does_leaves_the_slope_alone(far):
    """The slope is that of moves of up to two deviations: what saturates beyond is a matter of the range."""
    assert usable(curve(lambda x: x * (far if abs(x) > 2 else 1.0)))[0] == pytest.approx(1)


def test_the_change_at_the_end_of_the_range_is_near_the_asked_one():
    for change in (lambda x: 5 * torch.tanh(torch.tensor(x / 2)).item(), lambda x: x + 0.05 * x**3, lambda x: 2 * x - 0.02 * x**3):
        slope, low, high = usable(curve(change))
        assert low < 0 < high
        assert all(abs(change(x) / (slope * x) - 1) < 0.3 for x in (low, high))


def test_a_curve_of_the_wrong_sign_has_no_range():
    slope, low, high = usable(curve(lambda x: -2 * x))
    assert slope < 0 and low == high == 0


def test_a_curve_that_does_not_move_has_no_range():
    assert usable(curve(lambda x: 0.0)) == (0.0, 0.0, 0.0)


def test_a_curve_that_only_goes_up_has_no_range_on_the_other_side():
    slope, low, high = usable(curve(lambda x: abs(x) + x))
    assert slope == pytest.approx(2) and low == 0 and high == pytest.approx(3.5)


def test_an_asymmetric_curve_has_an_asymmetric_range():
    slope, low, high = usable(curve(lambda x: x if x > 0 else max(x, -1.6)))
    assert slope == pytest.approx((1 + 4 + 1 + 2 * 1.6) / 10)  # the sides are near enough to share one
    assert high == pytest.approx(3.5) and -2.6 < low < -2


@pytest.mark.parametrize("side", [-1, 1])
def test_where_the_sides_differ_by_more_than_a_quarter_the_steeper_one_counts(side):
    slope, low, high = usable(curve(lambda x: 3 * x if side * x > 0 else 0.5 * x))
    assert slope == pytest.approx(3) and (low, high) == ((-3.5, 0) if side < 0 else (0, 3.5))


def test_where_the_sides_differ_by_less_their_common_slope_counts():
    assert usable(curve(lambda x: 1.2 * x if x > 0 else 0.8 * x)) == pytest.approx((1, -3.5, 3.5))


def test_a_measurement_is_forgiven_its_own_error_but_no_more_than_a_tenth():
    def wavy(x):
        return x * (0.7 if abs(x) > 2 else 1.0)

    assert usable(curve(wavy))[2] == pytest.approx(2 + 1.5 * 0.25 / 0.3)
    assert usable(curve(wavy, error=0.3))[2] == pytest.approx(3.5)
    assert usable(curve(lambda x: x * (0.6 if abs(x) > 2 else 1.0), error=100.0))[2] == pytest.approx(2 + 1.5 * 0.25 / 0.3)


# ------------------------------------------------------------------ following a direction


@pytest.fixture(scope="module")
def generator():
    return linear_generator(6, (3, 4, 4))


def one_pixel(generator, *, scale=1.0, pixel=OnePixel(0, 0)):  # noqa: B008
    vector = scale * generator.matrix[pixel.row * 4 + pixel.col]
    return Directions((Knob(pixel.name, "levels", 0, 0),), generator.spaces["z"], vector[None], fit={"method": "by hand"})


def test_every_length_is_walked_from_the_same_latents(generator):
    asked = []

    def change(rows, moved):
        asked.append(rows.tolist())
        return torch.zeros(len(rows))

    found = follow(torch.ones(6), change, generator.sample(20, seed=0))
    assert asked == [list(range(20))] * 2 * len(LENGTHS) and found.n == 20


def test_the_error_is_that_of_the_mean_and_one_latent_has_none(generator):
    def change(rows, moved):
        return torch.arange(float(len(rows)))

    spread = torch.arange(20.0).std().item()
    assert follow(torch.ones(6), change, generator.sample(20, seed=0)).errors == pytest.approx([spread / 20**0.5] * 6)
    assert follow(torch.ones(6), change, generator.sample(1, seed=0)).errors == (math.inf,) * 6


def test_a_direction_is_followed_to_its_lengths(generator):
    start = generator.sample(16, seed=0)
    unit = torch.eye(6)[2]
    found = follow(unit, lambda rows, moved: moved.values[:, 2] - start.values[rows, 2], start)
    assert found.changes == pytest.approx(found.lengths, abs=1e-5)


# ------------------------------------------------------------------ calibrating


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_length_a_direction_came_with_does_not_matter(generator, scale):
    calibrated = calibrate(generator, one_pixel(generator, scale=scale), [OnePixel()], n=64)
    row = generator.matrix[0]
    assert torch.allclose(calibrated.vectors[0], row / row.square().sum(), rtol=1e-3, atol=1e-5)


def test_one_unit_is_one_unit_measured(generator):
    calibrated = calibrate(generator, one_pixel(generator), [OnePixel()], n=64)
    start = generator.sample(8, seed=5)
    moved = calibrated.steer(start, torch.full((8, 1), 0.7))
    assert (OnePixel()(generator(moved)) - OnePixel()(generator(start)))[:, 0].tolist() == pytest.approx([0.7] * 8, rel=1e-3)


def test_a_direction_that_does_the_opposite_keeps_its_length_and_gets_no_range(generator):
    backwards = one_pixel(generator, scale=-3.0)
    calibrated = calibrate(generator, backwards, [OnePixel()], n=64)
    assert (calibrated.knobs[0].low, calibrated.knobs[0].high) == (0, 0)
    assert torch.equal(calibrated.vectors, backwards.vectors)


def test_a_direction_that_does_nothing_gets_no_range():
    blind = LinearGenerator(torch.zeros(48, 6), torch.zeros(48), (3, 4, 4))
    control = Directions((Knob("pixel-0-0-0", "levels", -1, 1),), blind.spaces["z"], torch.ones(1, 6))
    assert (calibrate(blind, control, [OnePixel()], n=64).knobs[0].high) == 0


def test_a_walk_is_read_back_by_its_edit():
    brightening = LinearGenerator(torch.full((48, 2), 0.1), torch.linspace(-0.5, 0.5, 48), (3, 4, 4))
    control = Directions((Knob("brighten", "levels", -0.5, 0.5),), brightening.spaces["z"], torch.tensor([[1.0, 1.0]]))
    edit = Brighten(dataclasses.replace(Brighten().knob, low=-1.0, high=1.0))
    calibrated = calibrate(brightening, control, {"brighten": edit}, n=64)
    start = brightening.sample(4, seed=7)
    change = brightening(calibrated.steer(start, torch.full((4, 1), 0.3))) - brightening(start)
    assert torch.allclose(change, torch.full_like(change, 0.3), atol=0.02)


def test_percentiles_are_those_of_the_measured_population(generator):
    knob = calibrate(generator, one_pixel(generator), [OnePixel()], n=320).knobs[0]
    values = OnePixel()(generator(generator.sample(320, seed=1)))[:, 0]
    assert [rank for rank, _ in knob.percentiles] == list(PERCENTILES)
    assert knob.value_at(50) == pytest.approx(values.median().item(), abs=0.02)


def test_percentiles_are_linear_between_sorted_values():
    found = dict(percentiles(torch.arange(101.0)))
    assert found[50] == pytest.approx(50) and found[5] == pytest.approx(5) and found[99] == pytest.approx(99)


def test_a_coordinate_counts_steps_along_the_direction(generator):
    latents = generator.sample(3, seed=0)
    vector = torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    assert torch.allclose(coordinates(latents, vector), latents.values[:, 1] / 2)


def test_the_record_holds_the_curve(generator):
    record = calibrate(generator, one_pixel(generator), [OnePixel()], n=64).fit["calibration"]["pixel-0-0-0"]
    assert record["n"] == 64 and len(record["lengths"]) == len(record["changes"]) == len(record["errors"]) == 2 * len(LENGTHS)


def test_a_knob_that_nothing_measures_is_refused_by_name(generator):
    with pytest.raises(ValueError, match=r'unknown measured column "pixel-0-0-0": did you mean "pixel-0-1-2"\?'):
        calibrate(generator, one_pixel(generator), [OnePixel(1, 2)], n=16)
    with pytest.raises(ValueError, match=r'unknown measure of a knob "pixel-0-0-0"'):
        calibrate(generator, one_pixel(generator), {"zoom": OnePixel()}, n=16)


def test_the_control_is_not_written_to(generator):
    control = one_pixel(generator)
    before = control.vectors.clone()
    calibrate(generator, control, [OnePixel()], n=16)
    assert torch.equal(control.vectors, before) and control.knobs[0].high == 0


# ------------------------------------------------------------------ curved walks and chains


def brightening():
    """Each of two latents adds 0.1 to every pixel."""
    return LinearGenerator(torch.full((48, 2), 0.1), torch.linspace(-0.5, 0.5, 48), (3, 4, 4))


def curved(space, behind, ahead, *, low=-0.5, high=0.5, stride=0.1):
    """Every step adds a constant to both latents."""
    steps = [Step(torch.zeros(1, 2, 2), torch.zeros(1, 2), torch.zeros(1, 2, 2), torch.full((1, 2), move)) for move in (behind, ahead)]
    return Walk((Knob("brighten", "levels", low, high),), space, *steps, (stride, stride), {"method": "by hand"})


W = dataclasses.replace(brightening().spaces["z"], name="w")  # z would keep its length
WIDE = Brighten(dataclasses.replace(Brighten().knob, low=-1.0, high=1.0))


@dataclasses.dataclass(frozen=True)
class InW(LinearGenerator):
    @property
    def spaces(self):
        return {"w": W}

    def sample(self, n, *, seed, space="w", labels=None, psi=1.0):
        return dataclasses.replace(brightening().sample(n, seed=seed), space=W)


def in_w():
    return InW(*(getattr(brightening(), name) for name in ("matrix", "offset", "image_shape")))


@pytest.mark.parametrize(("behind", "ahead"), [(-0.5, 0.5), (-0.1, 0.3)])
def test_each_side_of_a_curved_walk_gets_the_unit_that_is_measured(behind, ahead):
    """A step of 0.1 levels that really does 0.02 or 0.06 becomes a step of 0.02 or 0.06."""
    generator = in_w()
    calibrated = calibrate(generator, curved(W, behind, ahead), {"brighten": WIDE}, n=32)
    assert calibrated.strides == pytest.approx((-0.2 * behind, 0.2 * ahead), rel=0.05)
    start = generator.sample(4, seed=7)
    for amount in (-0.08, 0.08):
        change = generator(calibrated.steer(start, torch.full((4, 1), amount))) - generator(start)
        assert torch.allclose(change, torch.full_like(change, amount), atol=0.01)


def test_the_range_of_a_curved_walk_is_what_its_own_range_really_does():
    knob = calibrate(in_w(), curved(W, -0.5, 0.25), {"brighten": WIDE}, n=32).knobs[0]
    assert (knob.low, knob.high) == pytest.approx((-0.5, 0.25), rel=0.05) and knob.percentiles == ()


def test_a_side_that_does_the_opposite_keeps_its_stride_and_gets_no_range():
    calibrated = calibrate(in_w(), curved(W, 0.5, 0.5), {"brighten": WIDE}, n=32)
    assert calibrated.knobs[0].low == 0 and calibrated.strides[0] == 0.1 and calibrated.knobs[0].high > 0.4


def test_a_curved_walk_that_turns_back_is_usable_until_it_does():
    """Steps that shrink: x / 2 where x is positive, so that the change saturates."""
    generator = in_w()
    halving = Step(torch.eye(2)[None], torch.zeros(1, 2), -0.5 * torch.eye(2)[None], torch.zeros(1, 2))
    walk = Walk((Knob("brighten", "levels", -0.5, 0.5),), W, halving, halving, (0.1, 0.1))
    knob = calibrate(generator, walk, {"brighten": WIDE}, n=64).knobs[0]
    assert knob.high == 0 and -0.5 < knob.low < 0  # it only ever darkens, by less and less


def test_a_curved_walk_that_a_feature_measures_has_the_population_s_percentiles():
    generator = in_w()
    walk = dataclasses.replace(curved(W, -0.5, 0.5), knobs=(Knob("pixel-0-0-0", "levels", -0.5, 0.5),))
    calibrated = calibrate(generator, walk, [OnePixel()], n=64)
    values = OnePixel()(generator(generator.sample(64, seed=1)))[:, 0]
    assert calibrated.knobs[0].value_at(50) == pytest.approx(values.median().item(), abs=0.02)
    assert calibrated.strides == pytest.approx((0.1, 0.1), rel=1e-3)


def test_a_chain_is_calibrated_part_by_part():
    generator = in_w()
    straight = Directions((Knob("straight", "levels", -0.5, 0.5),), W, torch.tensor([[10.0, 0.0]]))
    chain = Chain((curved(W, -0.25, 0.25), straight))
    edit = dataclasses.replace(WIDE, knob=dataclasses.replace(WIDE.knob, name="straight"))
    calibrated = calibrate(generator, chain, {"brighten": WIDE, "straight": edit}, n=32)
    start = generator.sample(4, seed=7)
    change = generator(calibrated.steer(start, torch.full((4, 2), 0.1))) - generator(start)
    assert torch.allclose(change, torch.full_like(change, 0.2), atol=0.02)


def test_the_record_of_a_curved_walk_says_what_one_unit_did(generator):
    record = calibrate(in_w(), curved(W, -0.1, 0.3), {"brighten": WIDE}, n=32).fit["calibration"]["brighten"]
    assert record["change_per_unit"] == pytest.approx([0.2, 0.6], rel=0.05) and record["n"] == 32


def test_the_record_of_a_straight_walk_says_what_one_unit_did(generator):
    row = generator.matrix[0]
    record = calibrate(generator, one_pixel(generator, scale=2.0), [OnePixel()], n=64).fit["calibration"]["pixel-0-0-0"]
    assert record["change_per_unit"] == pytest.approx([2 * float(row @ row)] * 2, rel=1e-3)


def test_what_has_no_unit_to_change_is_not_calibrated(generator):
    with pytest.raises(TypeError, match="directions, curved walks and chains of them are calibrated, got LinearGenerator"):
        calibrate.__wrapped__(generator, generator, [OnePixel()])
