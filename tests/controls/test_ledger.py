"""The account of a path: what it says of broken holds, and that its numbers are those of the images."""

import json

import pytest
import torch
from toys import OnePixel, linear_generator

from steerable.controls.ledger import joined
from steerable.controls.trajectory import Trajectory


@pytest.fixture(scope="module")
def generator():
    return linear_generator(6, (3, 4, 4))


def path(generator, *, amounts=(0.3, -0.2), **options):
    move, hold = [OnePixel(0, 0), OnePixel(0, 1)], [OnePixel(3, 3), OnePixel(3, 2)]
    control = Trajectory(generator, move=move, hold=hold, judge=None, **options)
    return control.path(generator.sample(len(amounts), seed=0), torch.tensor(amounts)[:, None])


def test_every_hold_stands_in_its_own_unit_and_in_deviations(generator):
    walked = path(generator)
    ledger = walked.ledger
    images = [generator(walked.waypoints[0]), generator(walked.end)]
    seen = (images[1] - images[0])[:, 0, 3, 3].abs()
    assert torch.allclose(ledger.drift[-1, :, 0], seen, atol=1e-6)
    assert torch.allclose(ledger.in_deviations[-1, :, 2], seen / ledger.deviations[2], atol=1e-5)
    assert (ledger.distance[0] > 0).all()


def test_a_hold_that_was_not_kept_is_named_with_where_and_by_how_much(generator):
    ledger = path(generator, course="most-change", amounts=(0.5,)).ledger
    worst = max(ledger.broken, key=lambda one: one.deviations)
    assert worst.held in ("pixel-0-3-3", "pixel-0-3-2") and worst.row == 0 and worst.step >= 1
    assert worst.drift > worst.allowed == pytest.approx(0.08 * 0.5 * ledger.deviations[2 + ledger.holds.index(worst.held)], rel=1e-3)
    assert f"hold broken: {worst.held} drifts" in ledger.said(0) and f"first at step {worst.step}, amount" in ledger.said(0)


def test_a_kept_hold_is_not_said_to_be_broken(generator):
    ledger = path(generator).ledger
    assert ledger.broken == () and ledger.said(0).startswith("pixel-0-0-0+pixel-0-0-1: asked 0.3, moved 0.3")


def test_the_table_has_a_line_a_way_point_until_the_row_arrives(generator):
    ledger = path(generator, amounts=(0.05, 1.0), settling=0).ledger
    assert len(ledger.table(0)) < len(ledger.table(1)) == len(ledger.moved)
    assert all(len(line) == len(ledger.header) for line in ledger.table(1))


def test_drifts_are_read_off_at_shares_of_the_asked_amount(generator):
    walked = path(generator)
    shares, drifts = walked.ledger.drifts(5)
    assert shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert set(drifts) == {"pixel-0-3-3", "pixel-0-3-2"}
    for name, rows in drifts.items():
        assert rows[:, 0].tolist() == [0, 0]
        assert torch.allclose(rows[:, -1], walked.ledger.in_deviations[-1, :, 2 + walked.ledger.holds.index(name)], atol=1e-3)


def test_a_path_that_ends_early_has_no_drift_beyond_its_end(generator):
    ledger = path(generator, amounts=(5.0,), max_steps=1).ledger
    assert torch.isnan(next(iter(ledger.drifts()[1].values()))[0, -1])


def test_accounts_of_batches_are_joined_and_picked_apart_again(generator):
    ledger = path(generator, amounts=(0.05, 1.0)).ledger
    again = joined([ledger.rows([0]), ledger.rows([1])])
    assert torch.equal(again.change, ledger.change) and again.ends == ledger.ends


def test_json_has_null_where_there_was_no_judge(generator):
    plain = json.loads(path(generator).ledger.to_json())
    assert plain["perceptual"][0] == [None, None] and plain["ends"] == ["arrived", "arrived"]
