"""The amounts that a training draws."""

import pytest
import torch

from steerable.edits import EDITS
from steerable.protocols import Knob
from steerable.training.amounts import draw_amounts, ranged, reach


def drawn(knob, n=4000, size=32):
    return draw_amounts(knob, n, size, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["zoom", "shift-x", "shift-y", "rotate", "brightness"])
def test_amounts_stay_in_the_range_and_take_both_sides_alike(name):
    knob = EDITS[name].knob
    amounts = drawn(knob)
    assert knob.low <= amounts.min() and amounts.max() <= knob.high
    assert 0.46 < (amounts > 0).float().mean() < 0.54


def test_crops_of_a_zoom_are_uniform_in_their_scale():
    crops = torch.exp2(-drawn(EDITS["zoom"].knob))
    inside, outside = crops[crops < 1], crops[crops >= 1]
    assert inside.mean().item() == pytest.approx((0.25 + 1) / 2, abs=0.02)
    assert outside.mean().item() == pytest.approx((1 + 4) / 2, abs=0.06)


def test_shifts_are_whole_pixels_and_angles_whole_degrees():
    pixels = drawn(EDITS["shift-x"].knob) * 32
    assert torch.equal(pixels, pixels.round()) and set(pixels.abs().tolist()) == set(range(1, 17))
    assert set(drawn(EDITS["rotate"].knob).abs().round(decimals=3).tolist()) == set(range(1, 46))


def test_a_one_sided_range_is_kept_to():
    amounts = drawn(Knob("fade", "levels", 0.0, 0.5))
    assert amounts.min() >= 0 and amounts.max() <= 0.5


def test_the_reach_is_the_far_end():
    assert reach(Knob("fade", "levels", -2.0, 0.5)) == 2


@pytest.mark.parametrize(
    ("edit", "amounts", "message"),
    [
        ("roatte", None, 'unknown edit "roatte": did you mean "rotate"'),
        ("colour", None, "stands for 3 edits: train one of red, green, blue"),
        (None, None, "needs an edit"),
        ("zoom", (1.0, 2.0), "with 0 between .log2.; got 1.0 to 2.0"),
    ],
)
def test_an_edit_that_cannot_be_trained_is_refused(edit, amounts, message):
    with pytest.raises(ValueError, match=message):
        ranged(edit, amounts)
