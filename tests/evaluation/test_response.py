"""The response pass on a linear generator: what is measured is the matrix times the move."""

import pytest
import torch
from toys import OnePixel, linear_generator

from steerable.controls.directions import Directions
from steerable.evaluation.response import default_amounts, response
from steerable.protocols import Knob

A, B = OnePixel(0, 0), OnePixel(1, 2)


@pytest.fixture(scope="module")
def generator():
    return linear_generator(6, (3, 4, 4))


@pytest.fixture(scope="module")
def control(generator):
    return Directions((Knob("first", "", -2, 2), Knob("second", "", -1, 1)), generator.spaces["z"], torch.eye(6)[:2])


def test_each_knob_is_turned_alone(generator, control):
    measured = response(generator, control, [A, B], n=5)
    per_unit = torch.stack([generator.matrix[[0, 6], knob] for knob in (0, 1)])  # pixels (0, 0) and (1, 2)
    expected = measured.amounts[:, :, None, None] * per_unit[:, None, None, :]
    assert torch.allclose(measured.change, expected.expand(-1, -1, 5, -1), atol=1e-5)


def test_the_start_is_the_unsteered_measurement(generator, control):
    measured = response(generator, control, [A], n=5, seed=3)
    assert torch.allclose(measured.start, A(generator(generator.sample(5, seed=3)))) and measured.n == 5 and measured.seed == 3


def test_by_default_both_ends_of_the_range_and_half_of_each_are_measured(generator, control):
    assert response(generator, control, [A], n=2).amounts.tolist() == [[-2, -1, 1, 2], [-1, -0.5, 0.5, 1]]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-3, 1, [-3, -1.5, 0.5, 1]), (0, 4, [-2, -1, 2, 4]), (-4, 0, [-4, -2, 1, 2]), (0, 0, [-0.5, -0.25, 0.25, 0.5])],
)
def test_a_side_without_a_range_mirrors_half_of_the_other(low, high, expected):
    assert default_amounts(Knob("one", "", low, high)) == pytest.approx(expected)


def test_amounts_may_be_given_as_whole_numbers(generator, control):
    measured = response(generator, control, [A], amounts={"first": [-1, 1], "second": [1, 2]}, n=2)
    assert measured.amounts.dtype == torch.float32 and measured.amounts.tolist() == [[-1, 1], [1, 2]]


def test_knobs_and_columns_are_chosen_by_name(generator, control):
    measured = response(generator, control, [A, B], knobs=["second"], n=2)
    assert [knob.name for knob in measured.knobs] == ["second"] and measured.values.shape == (1, 4, 2, 2)
    assert measured.column("pixel-0-1-2") == 1
    with pytest.raises(ValueError, match=r"unknown measured column"):
        measured.column("yaw")


@pytest.mark.parametrize("asked", [{"knobs": ["thrid"]}, {"amounts": {"thrid": [1.0]}}])
def test_an_unknown_knob_is_refused(generator, control, asked):
    with pytest.raises(ValueError, match=r'unknown knob "thrid": did you mean "third"|unknown knob "thrid": .*Known: first, second'):
        response(generator, control, [A], n=2, **asked)


def test_another_number_of_amounts_for_each_knob_is_refused(generator, control):
    with pytest.raises(ValueError, match=r"every knob needs equally many amounts, got \[2, 4\]"):
        response(generator, control, [A], amounts={"first": [1.0, 2.0]}, n=2)


def test_latents_of_ones_own_are_measured(generator, control):
    latents = generator.sample(3, seed=77)
    assert torch.allclose(response(generator, control, [A], latents=latents).start, A(generator(latents)))


def test_the_batch_does_not_change_what_is_measured(generator, control):
    first, second = (response(generator, control, [A, B], n=5, batch=batch) for batch in (2, 32))
    assert torch.allclose(first.values, second.values, atol=1e-6)
