"""Joint against summed walks: on a linear generator both are the same, and the numbers are known."""

import pytest
import torch
from toys import LinearGenerator, linear_generator

from steerable import render
from steerable.controls.chain import Chain
from steerable.edits import EDITS, as_edit
from steerable.evaluation.combining import combined
from steerable.fitting.walks import fit_directions
from steerable.protocols import Knob

HALVES = [
    as_edit(lambda x, a, side=side: x + a[:, None, None, None] * side(torch.ones_like(x)), Knob(name, "levels", -0.5, 0.5))
    for name, side in (
        ("left", lambda ones: ones * torch.tensor([1.0, 1, 0, 0])),
        ("right", lambda ones: ones * torch.tensor([0.0, 0, 1, 1])),
    )
]


@pytest.fixture(scope="module")
def both():
    """A generator that can do the left half perfectly and the right half not at all."""
    return LinearGenerator(torch.tensor([1.0, 1, 0, 0]).repeat(4)[:, None], torch.zeros(16), (1, 4, 4))


@pytest.fixture(scope="module")
def controls(both):
    joint = fit_directions(both, HALVES, n=1600, calibration=0)
    alone = Chain(tuple(fit_directions(both, one, n=1600, calibration=0) for one in reversed(HALVES)))
    return {"joint": joint, "alone, summed": alone}


def test_what_the_generator_can_do_costs_nothing_and_the_rest_everything(both, controls):
    result = combined(both, controls, HALVES, n=8)
    for name in controls:
        losses = result.relative(name)
        assert losses[:, 2].nan_to_num(0).abs().max() < 1e-3  # left alone
        assert losses[2, [0, 1, 3, 4]].tolist() == pytest.approx([1] * 4, abs=1e-3)  # right alone
        assert losses[4, 4].item() == pytest.approx(0.5, abs=1e-3) and losses[2, 2].isnan()


def test_on_a_linear_generator_joint_and_alone_are_the_same(both, controls):
    summary = combined(both, controls, HALVES, n=8).summary()
    assert summary["of"] == "joint" and summary["n"] == 8
    assert summary["against"]["alone, summed"]["gain"] == pytest.approx(0, abs=1e-3)
    assert summary["relative_loss"]["joint"] == pytest.approx(0.5, abs=1e-3)


def test_the_comparison_is_drawn(both, controls):
    result = combined(both, controls, HALVES, n=4, amounts=[(-0.5, 0.5), (0.0, 0.25, 0.5)])
    losses = {name: result.relative(name) for name in controls}
    words = {"x_label": "right", "y_label": "left", "title": "both", "unit": "relative loss"}
    figure = render.heat_maps(losses, ["-0.5", "0.5"], ["0", "0.25", "0.5"], limits=(0, 1), **words)
    assert render.figure_png(figure)[:4] == b"\x89PNG" and len(figure.axes) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edits": HALVES[:1]}, "got 1 edits and 2 controls"),
        ({"controls": {}}, "got 2 edits and 0 controls"),
        ({"edits": [HALVES[0], EDITS["zoom"]]}, 'unknown knob of "joint" "zoom"'),
    ],
)
def test_bad_arguments_are_refused(both, controls, change, message):
    with pytest.raises(ValueError, match=message):
        combined(both, **{"controls": controls, "edits": HALVES, **change})


def test_controls_of_another_generator_are_refused(controls):
    other = linear_generator(1, (1, 4, 4))
    other = LinearGenerator(other.matrix, other.offset, (1, 4, 4), fingerprint="a8010000", name="digits32")
    with pytest.raises(ValueError, match="belongs to toy"):
        combined(other, controls, HALVES, n=2)
