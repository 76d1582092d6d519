"""Straight courses of a trajectory: the first direction kept, and the baselines."""

import pytest
import torch
from toys import OnePixel, linear_generator

from steerable.controls.trajectory import Trajectory


@pytest.fixture(scope="module")
def generator():
    return linear_generator(6, (3, 4, 4))


def walked(generator, course, amount=0.3, **options):
    move, hold = [OnePixel(0, col) for col in range(3)], [OnePixel(3, col) for col in range(3)]
    control = Trajectory(generator, move=move, hold=hold, course=course, judge=None, **options)
    return control.path(generator.sample(3, seed=0), torch.full((3, 1), amount))


@pytest.mark.parametrize("course", ["straight", "most-change", "random"])
def test_a_straight_course_is_straight_and_arrives(generator, course):
    path = walked(generator, course)
    steps = torch.stack([point.values - path.waypoints[0].values for point in path.waypoints[1:]])
    unit = torch.nn.functional.normalize(steps, dim=2)
    assert torch.allclose(unit, unit[:1].expand_as(unit), atol=1e-4)
    assert torch.allclose(path.moved[-1], torch.full((3,), 0.3), rtol=0.02)


def test_the_first_direction_kept_leaks_least_of_the_straight_ones_that_arrive(generator):
    drifts = {course: walked(generator, course).drift[-1].mean() for course in ("straight", "most-change", "random")}
    assert min(drifts, key=drifts.get) == "straight"


def test_on_a_linear_generator_the_first_direction_kept_is_the_recomputed_path(generator):
    kept, recomputed = walked(generator, "straight"), walked(generator, "recomputed", reach=5.0)
    assert torch.allclose(kept.end.values, recomputed.end.values, atol=0.02)


def test_least_change_holds_whatever_moves(generator):
    path = walked(generator, "least-change")
    assert path.drift[-1].max() < 1e-3 or not path.reached.any()


def test_random_directions_are_those_of_their_seed(generator):
    ends = [walked(generator, "random", seed=seed).end.values for seed in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1]) and not torch.allclose(ends[0], ends[2], atol=0.1)


def test_opposite_amounts_go_opposite_ways(generator):
    there, back = (walked(generator, "straight", amount).end.values for amount in (0.3, -0.3))
    start = generator.sample(3, seed=0).values
    assert torch.allclose(there - start, start - back, atol=1e-3)
