"""What was chosen, as data: states, undo and redo, locks that hold exactly, and what a bench remembers."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from steerable import load_generator, recipe
from steerable.controls.directions import Directions
from steerable.protocols import Knob
from steerable.studio import session, workshop
from steerable.studio.session import History, State


def test_a_state_without_anything_turned_is_the_person_itself(bench):
    assert torch.equal(session.latents(State(seed=4), bench).values, bench.generator.sample(1, seed=4).values)


def test_a_shipped_control_that_was_damaged_is_refused_with_the_way_out(monkeypatch):
    entries = workshop.shipped()
    monkeypatch.setattr(workshop, "shipped", lambda: {file: {**entry, "sha256": "0" * 64} for file, entry in entries.items()})
    with pytest.raises(ValueError, match=r"checksum mismatch: \S+ is not the file that was shipped. Reinstall: pip install"):
        workshop._shipped_controls(load_generator("faces64"))


def test_a_knob_moves_the_latent_along_its_direction(bench):
    moved = session.latents(State(amounts={"dance": 0.5}), bench).values - session.latents(State(), bench).values
    assert torch.allclose(moved, 0.5 * bench.straight["dance"].vectors, atol=1e-6)


def test_a_locked_knob_is_orthogonal_to_what_moves(bench):
    state = State(amounts={"dance": 0.5}, locks=("red",))
    moved = session.latents(state, bench).values - session.latents(State(), bench).values
    assert abs(float((moved * bench.straight["red"].vectors).sum())) < 1e-5


def test_what_was_driven_is_added_after_the_knobs(bench):
    offset = torch.arange(6.0)
    state = State(amounts={"dance": 0.5}, offset=recipe.offset_of(offset))
    with_, without = session.latents(state, bench).values, session.latents(replace(state, offset=""), bench).values
    assert torch.equal(with_, without + offset)


def test_looking_twice_sees_the_same_and_changes_nothing(bench):
    one = session.recipe_of(State(seed=1, amounts={"dance": 0.5}), bench, [1, 2])
    before = one.model_dump_json()
    first, second = (session.look(one, bench, measured=True) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first.images, second.images, strict=True))
    assert first.before == second.before and first.after == second.after and one.model_dump_json() == before


def test_a_seed_looks_the_same_alone_and_among_others(bench):
    state = State(seed=2, amounts={"dance": 0.5})
    among = session.look(session.recipe_of(state, bench, [1, 2, 3]), bench, measured=True)
    alone = session.look(session.recipe_of(state, bench), bench, measured=True)
    assert (among.images[1] == alone.images[0]).all() and among.after[1] == alone.after[0]


def test_undo_and_redo_go_back_and_forth(bench):
    one, two = State(amounts={"dance": 1.0}), State(amounts={"dance": 2.0})
    history = History.begun(State()).then("one", one).then("two", two)
    assert history.undo().state == one and history.undo().undo().undo().state == State()
    assert history.undo().redo().state == two and history.redo() == history


def test_a_new_step_forgets_what_was_undone():
    history = History.begun(State()).then("one", State(seed=1)).undo().then("two", State(seed=2))
    assert [what for what, _ in history.steps] == ["start", "two"]


def test_the_same_state_again_is_no_step():
    history = History.begun(State()).then("one", State(seed=1))
    assert history.then("again", State(seed=1)) is history


def test_history_is_bounded():
    history = History.begun(State())
    for seed in range(3 * session.STEPS):
        history = history.then("next", State(seed=seed + 1))
    assert len(history.steps) == session.STEPS and history.state.seed == 3 * session.STEPS


def test_a_latent_that_is_not_finite_is_refused(bench):
    point = session.latents(State(), bench)
    with pytest.raises(ValueError, match="finite"):
        session.pixels(point.at(point.values * float("nan")), bench)


def test_what_a_bench_remembers_goes_with_it(bench):
    own = Directions((Knob("beard", "", -1, 1, 0.0),), bench.generator.spaces["z"], torch.ones(1, 6))
    mine, _ = session.adopted(bench, own, "made here")
    session.latents(State(amounts={"beard": 1.0, "dance": 1.0}, locks=("red",)), mine)
    gone = weakref.ref(mine)
    del mine
    gc.collect()
    assert gone() is None


def test_a_bench_remembers_no_more_than_so_much(bench):
    mine = replace(bench)
    for i in range(session.REMEMBERED + 5):
        mine.memory["filler", i] = i
    mine.control(("dance",), ())
    assert len(mine.memory) == 1
