"""A walk whose step is known by hand: whole steps, fractions, signs, kept lengths."""

import pytest
import torch

from steerable import store
from steerable.controls.walk import Step, Walk
from steerable.protocols import Knob, Latents, LatentSpace

KNOB = Knob("along", "steps", -4, 4)
W = LatentSpace("w", (2,), "00toy000", "toy")
Z = LatentSpace("z", (2,), "00toy000", "toy")
ROWS = LatentSpace("w+", (3, 2), "00toy000", "toy", layers=tuple((f"layer{i}", i, i + 1) for i in range(3)))


def constant(*move, rows=1):
    """A step that adds the same to every row."""
    bias = torch.tensor(move).repeat(rows, 1)
    nothing = torch.zeros(rows, len(move), len(move))
    return Step(nothing, torch.zeros_like(bias), nothing, bias)


def growing(factor):
    """A step that adds ``factor`` of what is there, where that is positive."""
    eye = torch.eye(2)[None]
    return Step(eye, torch.zeros(1, 2), factor * eye, torch.zeros(1, 2))


def walked(walk, values, *amounts):
    values = torch.tensor(values)
    return walk.steer(Latents(values, walk.space), torch.tensor(amounts)[:, None]).values


def test_two_and_a_half_steps_are_two_and_a_half_steps():
    walk = Walk((KNOB,), W, constant(-1.0, 0.0), constant(1.0, 2.0), (1.0, 1.0))
    assert walked(walk, [[0.0, 0.0]], 2.5).tolist() == [[2.5, 5.0]]


def test_a_stride_is_the_amount_of_one_step():
    walk = Walk((KNOB,), W, constant(-1.0, 0.0), constant(1.0, 0.0), (0.5, 0.25))
    assert walked(walk, [[0.0, 0.0]] * 2, 1.0, -1.0).tolist() == [[4.0, 0.0], [-2.0, 0.0]]


def test_rows_of_both_signs_walk_their_own_way():
    walk = Walk((KNOB,), W, constant(0.0, -3.0), constant(1.0, 0.0), (1.0, 1.0))
    assert walked(walk, [[0.0, 0.0]] * 3, 1.0, -1.0, 0.0).tolist() == [[1.0, 0.0], [0.0, -3.0], [0.0, 0.0]]


def test_a_step_depends_on_where_it_is_taken():
    walk = Walk((KNOB,), W, growing(1.0), growing(1.0), (1.0, 1.0))
    assert walked(walk, [[1.0, 0.0]], 3.0).tolist() == [[8.0, 0.0]]
    assert walked(walk, [[1.0, 0.0]], 1.5).tolist() == [[3.0, 0.0]]


def test_z_keeps_its_length_and_w_does_not():
    far = [constant(-4.0, 3.0), constant(4.0, 3.0)]
    assert walked(Walk((KNOB,), Z, *far, (1.0, 1.0)), [[3.0, 4.0]], 1.0).norm().item() == pytest.approx(5)
    assert walked(Walk((KNOB,), W, *far, (1.0, 1.0)), [[3.0, 4.0]], 1.0).tolist() == [[7.0, 7.0]]


def test_every_sphere_of_z_keeps_its_own_length():
    space = LatentSpace("z", (4,), "00toy000", "toy", spheres=(("a", 0, 2), ("b", 2, 4)))
    step = constant(1.0, 0.0, 0.0, 5.0)
    moved = walked(Walk((KNOB,), space, step, step, (1.0, 1.0)), [[0.0, 1.0, 2.0, 0.0]], 1.0)
    assert moved[0, :2].norm().item() == pytest.approx(1) and moved[0, 2:].norm().item() == pytest.approx(2)


def test_every_layer_has_a_network_of_its_own():
    only_last = Step(torch.zeros(3, 2, 2), torch.zeros(3, 2), torch.zeros(3, 2, 2), torch.tensor([[0.0, 0], [0, 0], [1, 1]]))
    moved = walked(Walk((KNOB,), ROWS, only_last, only_last, (1.0, 1.0)), [[[0.0, 0.0]] * 3], 2.0)
    assert moved.tolist() == [[[0, 0], [0, 0], [2, 2]]]


def test_a_walk_is_saved_with_its_networks(tmp_path):
    walk = Walk((KNOB,), W, constant(-1.0, 0.0), growing(0.3), (0.5, 0.25), {"seed": 3})
    loaded = store.load_control(store.save_control(walk, tmp_path / "walk.safetensors"))
    assert isinstance(loaded, Walk) and loaded.strides == (0.5, 0.25) and loaded.fit == {"seed": 3} and loaded.knobs == walk.knobs
    assert torch.equal(walked(loaded, [[1.0, 2.0]], 0.9), walked(walk, [[1.0, 2.0]], 0.9))


def test_an_amount_of_endless_steps_is_refused():
    walk = Walk((KNOB,), W, constant(-1.0, 0.0), constant(1.0, 0.0), (0.5, 0.5))
    with pytest.raises(ValueError, match=r'"along" by 1e\+09 steps is 2000000000 steps, at most 1000 are walked: its range is -4 to 4'):
        walked(walk, [[0.0, 0.0]], 1e9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knobs": (KNOB, KNOB)}, "one knob with a neutral amount, got 2"),
        ({"strides": (0.0, 1.0)}, r"two amounts above 0, got \(0.0, 1.0\)"),
        ({"ahead": constant(1.0, 2.0, 3.0)}, r"ahead.inner of a walk in w of toy \(00to…\) is \(1, 2, 2\), got \(1, 3, 3\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    parts = {"knobs": (KNOB,), "space": W, "behind": constant(0.0, 0.0), "ahead": constant(0.0, 0.0), "strides": (1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        Walk(**{**parts, **change})


def test_a_network_of_nan_is_refused():
    with pytest.raises(ValueError, match="outer_bias of this step: 1 of 2 numbers are NaN"):
        constant(float("nan"), 0.0)
