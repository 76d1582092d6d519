"""A trajectory as a slider: walked once, looked up after that."""

from __future__ import annotations

import pytest
import torch
from toys import OnePixel, linear_module

from steerable.controls.directions import amounts
from steerable.controls.trajectory import Trajectory
from steerable.studio import links, session
from steerable.studio.road import Road

MOVED, HELD = OnePixel(0, 0), OnePixel(2, 2)


@pytest.fixture
def road() -> Road:
    return Road(Trajectory(linear_module(), move=[MOVED], hold=[HELD], judge=None), "corner")


@pytest.fixture
def start(road):
    return road.trajectory.generator.sample(1, seed=3)


def at(road: Road, start, amount: float) -> float:
    end = road.steer(start, amounts(road, start, corner=amount))
    return float(MOVED(road.trajectory.generator(end)) - MOVED(road.trajectory.generator(start)))


@pytest.mark.parametrize("share", [-0.9, -0.3, 0.25, 0.8])
def test_an_amount_is_the_change_of_what_moves_in_its_unit_and_more_is_more(road, start, share):
    asked = share * road.knobs[0].high
    assert at(road, start, asked) == pytest.approx(asked, rel=0.02)


def test_what_is_held_stays(road, start):
    end = road.steer(start, amounts(road, start, corner=road.knobs[0].high))
    drift = float(HELD(road.trajectory.generator(end)) - HELD(road.trajectory.generator(start)))
    assert abs(drift) < 0.05 * road.knobs[0].high


def test_neutral_amounts_change_nothing(road, start):
    assert torch.equal(road.steer(start, amounts(road, start)).values, start.values)


def test_the_second_amount_of_a_side_is_looked_up(road, start):
    at(road, start, 0.2)
    with road._one:
        paths = list(road._paths.values())
    at(road, start, 0.5)
    assert list(road._paths.values()) == paths


def test_a_lock_is_one_more_hold(road, start):
    locked = OnePixel(1, 1)
    wider = road.holding([locked, HELD])
    assert [one.name for one in wider.trajectory.hold] == [HELD.name, locked.name]
    end = wider.steer(start, amounts(wider, start, corner=0.5 * wider.knobs[0].high))
    generator = road.trajectory.generator
    assert abs(float(locked(generator(end)) - locked(generator(start)))) < 0.05 * wider.knobs[0].high


def test_a_state_with_a_trajectory_becomes_a_recipe_that_draws_the_same_picture(road, start):
    bench = session.Bench(road.trajectory.generator, {"trajectories": road}, (MOVED, HELD))
    state = session.State(seed=3).turned("corner", 0.4 * road.knobs[0].high)
    one = session.recipe_of(state, bench)
    assert one.turn is None
    assert session.state_of(one, bench)[0] == session.State(seed=3, offset=one.offset or "")
    again = session.latents(session.State(seed=3, offset=one.offset or ""), bench)
    assert torch.allclose(again.values, session.latents(state, bench).values, atol=1e-6)


def test_the_ledger_of_an_amount_ends_where_it_has_moved_that_far_with_the_hold_kept(road):
    bench = session.Bench(road.trajectory.generator, {"trajectories": road}, (MOVED, HELD))
    assert session.ledger(session.State(seed=3), bench) is None
    found = session.ledger(session.State(seed=3).turned("corner", 0.5 * road.knobs[0].high), bench)
    assert found is not None
    curve, allowed = found
    assert curve[0] == (0.0, 0.0)
    assert curve[-2][0] < 0.5 <= curve[-1][0]  # its range is one deviation
    assert max(held for _, held in curve) <= allowed


def test_a_link_tells_of_a_trajectory_and_it_leads_to_the_same_place_for_somebody_else(road):
    generator = road.trajectory.generator
    bench, shared = session.Bench(generator, {"trajectories": road}, (MOVED, HELD)), session.Bench(generator, {}, (MOVED, HELD))
    state = session.State(seed=3).turned("corner", 0.4 * road.knobs[0].high)
    found, there = links.restored(links.link_of(state, bench, shared), shared)
    assert found == state
    assert torch.allclose(session.latents(found, there).values, session.latents(state, bench).values, atol=1e-6)


def test_a_link_to_a_trajectory_over_a_feature_that_is_not_there_says_which(road):
    generator = road.trajectory.generator
    bench, other = session.Bench(generator, {"trajectories": road}, (MOVED, HELD)), session.Bench(generator, {}, (MOVED,))
    link = links.link_of(session.State().turned("corner", 0.1), bench, other)
    with pytest.raises(ValueError, match=f"cannot be restored.*{HELD.name}"):
        links.restored(link, other)


def test_a_link_to_reload_with_carries_what_was_made_and_not_turned(road):
    generator = road.trajectory.generator
    bench, shared = session.Bench(generator, {"trajectories": road}, (MOVED, HELD)), session.Bench(generator, {}, (MOVED, HELD))
    assert not links.restored(links.link_of(session.State(), bench, shared), shared)[1].knobs
    assert list(links.restored(links.link_of(session.State(), bench, shared, whole=True), shared)[1].knobs) == ["corner"]
