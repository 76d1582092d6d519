"""One rule for the usable range, on measurements written by hand."""

import dataclasses

import pytest
import torch

from steerable.controls.chain import Chain
from steerable.controls.directions import Directions
from steerable.evaluation.usable import (
    IMPLAUSIBLE,
    LAST,
    LOST,
    NOTHING,
    STILLED,
    UNMEASURED,
    Usable,
    range_before,
    usable_range,
    with_range,
)  # fmt: skip
from steerable.protocols import Knob, LatentSpace

AMOUNTS = [-2.0, -1.0, 0.0, 1.0, 2.0]
NOISE = torch.tensor([-0.01, 0.0, 0.01, 0.0])
SPACE = LatentSpace("z", (2,), "00toy000", "toy")
WALK = Directions((Knob("zoom", "log2", -1.0, 1.0), Knob("shift-x", "", -0.1, 0.1)), SPACE, torch.eye(2), fit={"method": "walk"})


def found(levels, distances=(0.0,) * 5, threshold=1.0):
    return usable_range(AMOUNTS, torch.tensor(levels)[:, None] + NOISE, list(distances), threshold=threshold)


def test_an_attribute_that_follows_and_stays_plausible_is_usable_to_the_last_amount():
    assert found([-2.0, -1, 0, 1, 2]) == Usable(-2.0, 2.0, LAST, LAST)


def test_a_side_ends_where_the_distance_crosses_the_threshold():
    one = found([-2.0, -1, 0, 1, 2], distances=[4.0, 0.5, 0.0, 2.0, 8.0])
    assert one.low == pytest.approx(-1 - 0.5 / 3.5) and one.low_ends == IMPLAUSIBLE
    assert one.high == pytest.approx(0.5) and one.high_ends == IMPLAUSIBLE


def test_a_side_ends_at_the_last_amount_that_still_moved_the_attribute():
    assert found([-1.1, -1, 0, 1, 2]) == Usable(-1.0, 2.0, STILLED, LAST)


def test_an_attribute_that_turns_back_has_come_to_its_end():
    assert found([-0.5, -1, 0, 1, 2]).low_ends == STILLED


def test_a_side_that_never_moves_is_not_usable():
    assert found([0.0, 0, 0, 1, 2]) == Usable(0.0, 2.0, NOTHING, LAST)


def test_a_side_ends_before_the_object_is_lost():
    values = torch.tensor([-2.0, -1, 0, 1, 2])[:, None] + NOISE
    values[4, :3] = torch.nan
    assert usable_range(AMOUNTS, values, [0.0] * 5, threshold=1.0) == Usable(-2.0, 1.0, LAST, LOST)


def test_a_side_without_an_amount_is_not_measured():
    one = usable_range([0.0, 1.0], torch.tensor([0.0, 1])[:, None] + NOISE, [0.0, 0.0], threshold=1.0)
    assert one == Usable(0.0, 1.0, UNMEASURED, LAST)


def test_the_range_is_written_into_one_knob_and_what_it_rests_on_beside_it():
    changed = with_range(WALK, "zoom", Usable(-0.5, 0.7, LAST, IMPLAUSIBLE), {"n": 64})
    assert [(knob.low, knob.high) for knob in changed.knobs] == [(-0.5, 0.7), (-0.1, 0.1)]
    assert changed.fit["limits"]["zoom"] == {"low_ends": LAST, "high_ends": IMPLAUSIBLE, "range_before": [-1.0, 1.0], "n": 64}
    assert changed.fit["method"] == "walk" and WALK.knobs[0].low == -1.0


def test_the_first_range_is_remembered_however_often_limits_are_written():
    once = with_range(WALK, "zoom", Usable(-0.5, 0.7, LAST, LAST), {})
    twice = with_range(once, "zoom", Usable(-0.2, 0.1, LAST, LAST), {})
    assert range_before(WALK, "zoom") == range_before(twice, "zoom") == (-1.0, 1.0)


def test_the_range_reaches_the_part_of_a_chain_that_has_the_knob():
    other = dataclasses.replace(WALK["zoom"], knobs=(Knob("rotate", "deg", -9.0, 9.0),))
    changed = with_range(Chain((other, WALK["zoom"])), "zoom", Usable(-0.5, 0.7, LAST, LAST), {})
    assert [(knob.low, knob.high) for knob in changed.knobs] == [(-9.0, 9.0), (-0.5, 0.7)]
    assert changed.parts[1].knobs[0].high == 0.7 and range_before(changed, "zoom") == (-1.0, 1.0)


def test_what_has_no_such_knob_or_no_place_for_it_is_refused():
    class Own:
        knobs = WALK.knobs

    with pytest.raises(ValueError, match='unknown knob "zom": did you mean "zoom"'):
        with_range(WALK, "zom", Usable(0.0, 1.0, LAST, LAST), {})
    with pytest.raises(TypeError, match="the range of a Own cannot be written"):
        with_range(Own(), "zoom", Usable(0.0, 1.0, LAST, LAST), {})
