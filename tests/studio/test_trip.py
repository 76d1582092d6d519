"""A drive of one visitor, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toys import OnePixel, linear_module

from steerable.studio import session, trip
from steerable.studio.session import Bench, State
from steerable.studio.trip import EVERYTHING, PAIRS, Trip

BOX = (0, 0, 2, 2)


@pytest.fixture
def bench() -> Bench:
    return Bench(linear_module(latent_size=20, image_shape=(3, 4, 4)), {}, (OnePixel(3, 3), OnePixel(3, 0)))


def change(state: State, bench: Bench) -> torch.Tensor:
    """Of every pixel since the start."""
    return (bench.generator(session.latents(state, bench)) - bench.generator(session.start(state, bench)))[0]


def test_the_box_stays_and_the_rest_moves(bench):
    one = Trip(State(seed=1, boxes=(BOX,)), bench, EVERYTHING)
    for _ in range(6):
        frame = one.step((1.0, 0.0), PAIRS[0], 0.1)
    moved = change(frame.state, bench)
    assert moved[:, :2, :2].square().mean().sqrt() < 0.1 * moved.square().mean().sqrt()
    assert moved.square().mean().sqrt() > 0.1


def test_a_locked_column_is_held_beside_the_box(bench):
    one = Trip(State(seed=1, boxes=(BOX,), locks=("pixel-0-3-3",)), bench, EVERYTHING)
    for _ in range(4):
        frame = one.step((1.0, 0.0), PAIRS[0], 0.1)
    assert set(one.rows[-1].drift) == {"box 1", "pixel-0-3-3"}
    assert abs(float(change(frame.state, bench)[0, 3, 3])) < 0.05


def test_the_other_way_leads_back(bench):
    one = Trip(State(seed=1, boxes=(BOX,)), bench, EVERYTHING)
    for _ in range(3):
        one.step((0.0, 1.0), PAIRS[0], 0.1)
    there = one.rows[-1].moved
    for _ in range(3):
        one.step((0.0, -1.0), PAIRS[0], 0.1)
    assert one.rows[-1].moved < 0.3 * there


def test_a_state_carries_where_it_was_driven(bench):
    one = Trip(State(seed=1, boxes=(BOX,)), bench, EVERYTHING)
    frame = one.step((1.0, 0.0), PAIRS[0], 0.1)
    assert torch.allclose(session.latents(frame.state, bench).values, frame.point.values, atol=1e-6)


def test_a_trip_goes_on_only_from_where_it_stands(bench):
    one = Trip(State(seed=1, boxes=(BOX,)), bench, EVERYTHING)
    frame = one.step((1.0, 0.0), PAIRS[0], 0.1)
    assert one.goes_on(frame.state, bench, EVERYTHING)
    assert not one.goes_on(replace(frame.state, boxes=()), bench, EVERYTHING)
    assert not one.goes_on(State(seed=1, boxes=(BOX,)), bench, EVERYTHING)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(seed=1), "nothing is held yet"),
        (State(seed=1, boxes=((0, 0, 4, 4),)), "everything is held"),
        (State(seed=1, boxes=((0, 0, 9, 9),)), "does not fit"),
    ],
)
def test_what_cannot_be_driven_is_said(bench, state, words):
    with pytest.raises(ValueError, match=words):
        Trip(state, bench, EVERYTHING)


def test_several_boxes_are_held_together(bench):
    images = bench.generator(session.start(State(seed=1), bench))
    held = trip.held_places(State(boxes=((0, 0, 1, 1), (3, 3, 4, 4))), bench, images)
    assert held is not None
    assert held.nonzero().tolist() == [[0, 0], [3, 3]]
