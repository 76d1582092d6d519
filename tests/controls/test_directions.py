"""Straight directions: what a hold leaves, and how amounts are asked for."""

import dataclasses

import pytest
import torch

from steerable.controls.directions import Directions, amounts, cosines, join, project_out
from steerable.protocols import Knob, Latents, LatentSpace

SPACE = LatentSpace("z", (8,), "3f9c0000", "faces64")
POPULATION = ((5, -20.0), (50, 2.0), (90, 14.0), (95, 30.0))
NAMES = ("yaw", "smile", "mouth-open", "age")
KNOBS = tuple(Knob(name, "deg", -20, 20, percentiles=POPULATION) for name in NAMES)
RNG = torch.Generator().manual_seed(0)
NORMALS = torch.randn(4, 8, generator=RNG)
LOOSE = torch.randn(8, 8, generator=RNG)
COVARIANCE = LOOSE @ LOOSE.T / 8 + 0.1 * torch.eye(8)


@pytest.fixture
def axes():
    """Four entangled attributes: one unit of amount is one unit by their gradients."""
    vectors = NORMALS / NORMALS.square().sum(1, keepdim=True)
    return Directions(KNOBS, SPACE, vectors, NORMALS, {"method": "axes"})


def latents(n=3):
    return Latents(torch.randn(n, 8, generator=torch.Generator().manual_seed(1)), SPACE)


# ------------------------------------------------------------------ steering


def test_a_latent_moves_by_its_amounts_times_the_directions(axes):
    turned = torch.tensor([[1.0, 0, 0, 0], [0, -2, 0, 0], [0.5, 0, 3, 0]])
    assert torch.allclose(axes.steer(latents(), turned).values, latents().values + turned @ axes.vectors)


def test_latents_of_any_shape_are_moved():
    space = LatentSpace("z", (2, 4), "3f9c0000")
    control = Directions(KNOBS[:1], space, torch.arange(8.0).view(1, 2, 4))
    moved = control.steer(Latents(torch.zeros(2, 2, 4), space), torch.tensor([[1.0], [2.0]]))
    assert torch.equal(moved.values, torch.stack([torch.arange(8.0).view(2, 4), 2 * torch.arange(8.0).view(2, 4)]))


def test_labels_travel_along(axes):
    labelled = dataclasses.replace(latents(), labels=torch.tensor([4, 5, 6]))
    assert axes.steer(labelled, torch.ones(3, 4)).labels.tolist() == [4, 5, 6]


def test_directions_of_another_shape_than_their_space_are_refused():
    with pytest.raises(ValueError, match=r"vectors of 4 directions in z of faces64 \(3f9c…\) are \(4, 8\), got \(4, 7\)"):
        Directions(KNOBS, SPACE, torch.zeros(4, 7))
    with pytest.raises(ValueError, match=r"normals of 4 directions"):
        Directions(KNOBS, SPACE, torch.zeros(4, 8), torch.zeros(3, 8))


def test_directions_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"vectors of these directions: 8 of 32 numbers are NaN or infinite"):
        Directions(KNOBS, SPACE, torch.cat([torch.zeros(3, 8), torch.full((1, 8), torch.nan)]))


def test_two_knobs_of_one_name_are_refused():
    with pytest.raises(ValueError, match="every knob needs a name of its own, got yaw, yaw"):
        Directions((KNOBS[0], KNOBS[0]), SPACE, torch.zeros(2, 8))


def test_knobs_are_taken_by_name_in_the_order_asked(axes):
    some = axes[["age", "yaw"]]
    assert [knob.name for knob in some.knobs] == ["age", "yaw"]
    assert torch.equal(some.vectors, axes.vectors[[3, 0]]) and torch.equal(some.normals, axes.normals[[3, 0]])
    assert [knob.name for knob in axes["smile"].knobs] == ["smile"]


def test_an_unknown_knob_gets_the_nearest_name(axes):
    with pytest.raises(ValueError, match=r'unknown knob "mouth_open": did you mean "mouth-open"\?'):
        axes["mouth_open"]


def test_cosines_are_those_of_the_angles():
    vectors = torch.tensor([[1.0, 0], [0, 2.0], [3.0, 3.0]])
    half = 0.5**0.5
    assert torch.allclose(cosines(vectors), torch.tensor([[1, 0, half], [0, 1, half], [half, half, 1]]))


# ------------------------------------------------------------------ holding


@pytest.mark.parametrize("covariance", [None, COVARIANCE], ids=["plain", "whitened"])
@pytest.mark.parametrize("held", [["yaw"], ["yaw", "smile"], ["yaw", "smile", "age"]])
def test_a_freed_direction_moves_nothing_that_is_held(axes, held, covariance):
    freed = axes.held(held, covariance=covariance)
    rows = [axes.index(name) for name in held]
    others = [row for row in range(4) if row not in rows]
    assert (NORMALS[rows] @ freed.vectors[others].T).abs().max() < 1e-6


@pytest.mark.parametrize("covariance", [None, COVARIANCE], ids=["plain", "whitened"])
def test_one_unit_stays_one_unit(axes, covariance):
    freed = axes.held(["yaw", "smile"], covariance=covariance)
    assert (NORMALS * freed.vectors).sum(1).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-5)


@pytest.mark.parametrize("covariance", [None, COVARIANCE], ids=["plain", "whitened"])
def test_the_order_of_what_is_held_does_not_matter(axes, covariance):
    one, other = (axes.held(names, covariance=covariance) for names in (["yaw", "age", "smile"], ["smile", "yaw", "age"]))
    assert torch.allclose(one.vectors, other.vectors, atol=1e-6)


def test_under_the_identity_the_whitened_form_is_the_plain_one(axes):
    assert torch.allclose(axes.held(["yaw", "age"], covariance=torch.eye(8)).vectors, axes.held(["yaw", "age"]).vectors, atol=1e-6)


def test_under_another_covariance_the_whitened_form_goes_elsewhere(axes):
    assert not torch.allclose(axes.held(["yaw"], covariance=COVARIANCE).vectors, axes.held(["yaw"]).vectors, atol=1e-2)


def test_what_is_held_stays_as_it_is(axes):
    freed = axes.held(["yaw"])
    assert torch.equal(freed.vectors[0], axes.vectors[0]) and torch.equal(freed.normals, axes.normals)


def test_a_hold_is_written_into_the_record(axes):
    assert axes.held(["yaw"], covariance=COVARIANCE).fit == {"method": "axes", "held": ["yaw"], "whitened": True}


def test_what_is_free_already_is_not_changed():
    control = Directions(KNOBS[:3], SPACE, torch.eye(8)[:3])
    assert torch.allclose(control.held(["smile"]).vectors, control.vectors)


def test_without_normals_directions_are_freed_of_each_other():
    control = Directions(KNOBS[:2], SPACE, torch.stack([torch.eye(8)[0], torch.eye(8)[0] + torch.eye(8)[1]]))
    assert torch.allclose(control.held(["yaw"]).vectors[1], 2 * torch.eye(8)[1])  # twice as far: one unit is one unit again


def test_holding_dependent_attributes_is_holding_what_they_span(axes):
    twins = torch.cat([NORMALS, NORMALS[:1] * 3 + NORMALS[1:2]])
    knobs = (*KNOBS, Knob("twin", "deg", -1, 1))
    doubled = Directions(knobs, SPACE, twins / twins.square().sum(1, keepdim=True), twins)
    freed = doubled.held(["yaw", "smile", "twin"])
    assert torch.allclose(freed.vectors[2:4], axes.held(["yaw", "smile"]).vectors[2:], atol=1e-5)


def test_a_hold_that_leaves_nothing_of_a_direction_is_refused_by_its_name():
    normals = torch.eye(8)[[0, 1, 0]] + torch.eye(8)[[0, 1, 1]]
    control = Directions(KNOBS[:3], SPACE, normals, normals)
    with pytest.raises(ValueError, match=r"holding yaw, smile leaves no direction for mouth-open \(rank 2 held\): hold less"):
        control.held(["yaw", "smile"])


def test_holding_nothing_or_everything_changes_nothing(axes):
    assert axes.held([]) is axes
    assert axes.held(list(NAMES)) is axes


def test_an_unknown_hold_is_refused(axes):
    with pytest.raises(ValueError, match=r'unknown knob "glasses"'):
        axes.held(["glasses"])


def test_projecting_is_exact_for_thirty_attributes_of_a_hundred_numbers():
    rng = torch.Generator().manual_seed(3)
    normals, vectors = torch.randn(30, 100, generator=rng), torch.randn(5, 100, generator=rng)
    assert (project_out(vectors, normals) @ normals.T).abs().max() < 1e-4  # of products of size 10, in float32


def test_a_projection_is_the_nearest_that_moves_nothing_held():
    """No other vector orthogonal to the held one is nearer: the difference is along the held one."""
    freed = project_out(NORMALS[1:2], NORMALS[:1])
    difference = (NORMALS[1:2] - freed)[0]
    assert torch.nn.functional.cosine_similarity(difference, NORMALS[0], dim=0).abs() == pytest.approx(1, abs=1e-5)


# ------------------------------------------------------------------ joining


def test_joined_controls_have_all_knobs_in_order(axes):
    both = join([axes["age"], axes[["yaw", "smile"]]])
    assert [knob.name for knob in both.knobs] == ["age", "yaw", "smile"] and both.space == SPACE
    assert torch.equal(both.vectors, axes.vectors[[3, 0, 1]]) and torch.equal(both.normals, axes.normals[[3, 0, 1]])


def test_a_joined_control_steers_as_its_parts_do_one_after_the_other(axes):
    first, second, turned = axes[["yaw", "age"]], axes["smile"], torch.tensor([[1.0, -2.0, 0.5]]).repeat(3, 1)
    apart = second.steer(first.steer(latents(), turned[:, :2]), turned[:, 2:])
    assert torch.allclose(join([first, second]).steer(latents(), turned).values, apart.values, atol=1e-6)


def test_what_is_joined_to_normals_brings_its_own_direction_as_one(axes):
    bare = Directions((Knob("zoom", "log2", -1, 1),), SPACE, torch.ones(1, 8))
    assert torch.equal(join([axes["yaw"], bare]).normals, torch.cat([axes.normals[:1], torch.ones(1, 8)]))
    assert join([bare]).normals is None


def test_latents_of_any_shape_are_joined():
    space = LatentSpace("z", (2, 4), "3f9c0000")
    parts = [Directions((knob,), space, torch.randn(1, 2, 4, generator=RNG), torch.ones(1, 2, 4)) for knob in KNOBS[:2]]
    assert join(parts).vectors.shape == join(parts).normals.shape == (2, 2, 4)


def test_a_joined_control_says_how_each_part_was_fitted(axes):
    assert join([axes["yaw"], Directions(KNOBS[1:2], SPACE, torch.ones(1, 8))]).fit == {
        "method": "joined",
        "parts": [{"method": "axes"}, {}],
    }


def test_what_cannot_be_joined_is_refused(axes):
    elsewhere = Directions(KNOBS[1:2], dataclasses.replace(SPACE, fingerprint="77aa0000", generator="cars"), torch.ones(1, 8))
    with pytest.raises(ValueError, match=r"controls of z of faces64 \(3f9c…\) and of z of cars \(77aa…\) cannot be joined"):
        join([axes, elsewhere])
    with pytest.raises(ValueError, match=r"every knob needs a name of its own, got yaw, yaw"):
        join([axes["yaw"], axes["yaw"]])
    with pytest.raises(ValueError, match="there is no control to join"):
        join([])


# ------------------------------------------------------------------ amounts by name


def test_unnamed_knobs_stay_neutral(axes):
    assert amounts(axes, 2, smile=3).tolist() == [[0, 3, 0, 0]] * 2


def test_latents_say_how_many_rows(axes):
    assert amounts(axes, latents(5), yaw=-10).shape == (5, 4)


@pytest.mark.parametrize("asked", [{"mouth-open": 2.0}, {"mouth_open": 2.0}])
def test_a_name_with_a_hyphen_may_have_an_underscore(axes, asked):
    assert amounts(axes, 1, asked).tolist() == [[0, 0, 2, 0]]
    assert amounts(axes, 1, mouth_open=2.0).tolist() == [[0, 0, 2, 0]]


def test_a_percentile_is_the_change_from_the_median(axes):
    assert amounts(axes, 1, yaw="p90", age="p5").tolist() == [[12, 0, 0, -22]]


def test_a_percentile_of_a_knob_that_sets_a_value_is_the_value():
    absolute = Directions((dataclasses.replace(KNOBS[0], neutral=None),), SPACE, torch.ones(1, 8))
    assert amounts(absolute, 1, yaw="p90").tolist() == [[14]]


def test_a_knob_that_sets_a_value_has_to_be_given_one():
    absolute = Directions((dataclasses.replace(KNOBS[0], neutral=None),), SPACE, torch.ones(1, 8))
    with pytest.raises(ValueError, match=r'"yaw" sets a value and has no neutral one: give it'):
        amounts(absolute, 1)


def test_a_number_in_words_is_a_number(axes):
    assert amounts(axes, 1, {"yaw": "-7.5"}).tolist() == [[-7.5, 0, 0, 0]]


def test_an_unknown_name_gets_the_nearest(axes):
    with pytest.raises(ValueError, match=r'unknown knob "simle": did you mean "smile"\?'):
        amounts(axes, 1, simle=2)


@pytest.mark.parametrize("asked", ["much", "p", "pppp", "", "10%"])
def test_what_is_no_amount_is_refused_with_the_unit(axes, asked):
    with pytest.raises(ValueError, match=r'an amount of "yaw" is a number of deg or a percentile like p90, got'):
        amounts(axes, 1, yaw=asked)


@pytest.mark.parametrize("asked", [float("nan"), float("inf"), "nan", "-inf"])
def test_an_amount_that_is_not_finite_is_refused(axes, asked):
    with pytest.raises(ValueError, match=r'an amount of "yaw" is a finite number, got'):
        amounts(axes, 1, yaw=asked)


@pytest.mark.parametrize("asked", ["p99", "p-3", "pnan"])
def test_a_percentile_that_is_not_known_is_refused(axes, asked):
    with pytest.raises(ValueError, match=r"yaw knows the percentiles 5 to 95, got p"):
        amounts(axes, 1, yaw=asked)


def test_a_percentile_of_an_uncalibrated_knob_says_to_calibrate():
    bare = Directions((Knob("zoom", "log2", -1, 1),), SPACE, torch.ones(1, 8))
    with pytest.raises(ValueError, match="calibrate its control first"):
        amounts(bare, 1, zoom="p90")
