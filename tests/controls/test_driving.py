"""Driving on a linear generator: what is held stays, what moves goes on, and where it gets no further it turns around."""

from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from toys import LinearGenerator, OnePixel, linear_generator

from steerable.controls.driving import Drive

MOVED, HELD = [(0, 0), (0, 1), (1, 0), (1, 1)], [(3, 3), (2, 3)]


@pytest.fixture(scope="module")
def generator():
    return linear_generator(8, (3, 4, 4))


@dataclass(frozen=True)
class BentGenerator:
    """The sine of a linear one: its derivative is another everywhere."""

    size: int

    def __getattr__(self, name):
        return getattr(self.flat, name)

    @cached_property
    def flat(self):
        return linear_generator(self.size, (3, 4, 4), scale=0.3)

    def __call__(self, latents):
        return torch.sin(self.flat(latents))


def pixels(places):
    return [OnePixel(row, col) for row, col in places]


def drive(generator, seed=0, **options):
    return Drive(generator, move=pixels(MOVED), hold=pixels(HELD), latents=generator.sample(1, seed=seed), judge=None, **options)


def test_a_step_changes_what_moves_by_what_was_asked_and_keeps_the_hold(generator):
    going = drive(generator)
    frame = going.step(1, 0.05)
    assert frame.row.changed == pytest.approx(0.05, rel=0.1) and not frame.row.stuck
    assert max(frame.row.deviations.values()) < 0.01
    assert torch.allclose(frame.image, generator(frame.latents))


def test_going_on_gets_further_and_further(generator):
    going = drive(generator)
    moved = [going.step(1 if i == 0 else None, 0.05).row.moved for i in range(10)]
    assert moved == sorted(moved) and moved[-1] > 0.4


def test_a_negative_amount_goes_back(generator):
    going = drive(generator)
    there = [going.step(1 if i == 0 else None, 0.05) for i in range(4)]
    back = [going.step(None, -0.05) for _ in range(4)]
    assert back[-1].row.moved < 0.3 * there[-1].row.moved


def test_kept_current_the_jacobian_is_the_one_made_anew(generator):
    going = drive(generator)
    for i in range(6):
        going.step(1 if i == 0 else None, 0.05)
    kept = going.jac.clone()
    going.renew()
    assert torch.allclose(kept, going.jac, atol=1e-4)  # a linear generator has the same everywhere


def test_a_bent_generator_needs_no_new_jacobian_either():
    going = drive(BentGenerator(24))
    first, shares = going.jac.clone(), []
    for i in range(10):
        going.step(1 if i == 0 else None, 0.15)
        kept, ours = going.free[0], (going.jac, going.grams)
        going.renew()
        move, hold = going.grams
        kept, best = ((v @ move @ v) / (v @ hold @ v + going.ridge) for v in (kept, going.free[0]))
        shares.append(float(kept / best))
        there, (going.jac, going.grams) = going.jac, ours
    assert (there - first).norm() > 0.3 * first.norm()  # it did bend
    assert min(shares) > 0.95


def test_a_black_box_is_driven_by_products_from_the_right_alone(generator):
    hold = [OnePixel(row, col, differentiable=False) for row, col in HELD]
    going = Drive(generator, move=pixels(MOVED), hold=hold, latents=generator.sample(1, seed=0), judge=None)
    frames = [going.step(1 if i == 0 else None, 0.05) for i in range(4)]
    assert frames[-1].row.moved > 0.1 and max(frames[-1].row.deviations.values()) < going.tolerance


def test_every_hold_of_a_ride_stays_within_its_tolerance(generator):
    rows = [frame.row for frame in drive(generator, tolerance=0.05).ride(40, 0.1)]
    assert not any(row.broken for row in rows)
    assert max(max(row.deviations.values()) for row in rows) <= 0.05


def test_a_ride_turns_around_where_it_gets_no_further(generator):
    rows = [frame.row for frame in drive(generator).ride(120, 0.3)]
    moved = [row.moved for row in rows]
    furthest = moved.index(max(moved))
    assert furthest < len(moved) - 1 and min(moved[furthest:]) < 0.7 * max(moved)  # the latent's usual distance is a wall


def test_a_wish_is_followed_as_far_as_it_is_free(generator):
    going = drive(generator)
    hold = generator.matrix[[15, 11]]
    frame = going.step(hold[0], 0.05)  # a wish to change exactly what is held
    assert max(frame.row.deviations.values()) < going.tolerance


def test_the_path_of_a_drive_has_its_whole_ledger(generator):
    going = drive(generator)
    for i in range(3):
        going.step(1 if i == 0 else None, 0.05)
    path = going.path()
    assert len(path.waypoints) == 4 and not path.ledger.broken
    assert path.moved[-1, 0].item() == pytest.approx(going.step(None, 0.0).row.moved, rel=1e-4)


def test_nothing_that_moves_leaves_a_drive_stuck_where_it_was():
    matrix = torch.zeros(16, 3)
    matrix[0, 0] = matrix[15, 0] = 1.0  # what moves and what is held are one
    matrix[1, 1] = 1e-4
    generator = LinearGenerator(matrix, torch.zeros(16), (1, 4, 4))
    going = Drive(generator, move=OnePixel(0, 0), hold=OnePixel(3, 3), latents=generator.sample(1, seed=0), judge=None, tolerance=0.01)
    before = going.latents.values.clone()
    assert going.step(1, 0.5).row.stuck and torch.equal(going.latents.values, before)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda going: going.step(99), r"directions are ranked 1 to 8, got 99"),
        (lambda going: going.step(torch.zeros(8)), r"a direction is 8 finite numbers that are not all 0"),
        (lambda going: going.step(1, float("nan")), r"the amount of a step is a finite number, got nan"),
        (lambda going: going.begin(going.control.generator.sample(2, seed=0)), r"a drive has one latent, got 2"),
        (lambda going: drive(going.control.generator, tolerance=0.0), r"tolerance of a drive is a drift in deviations above 0"),
    ],
)
def test_what_cannot_be_driven_is_refused(generator, call, words):
    with pytest.raises(ValueError, match=words):
        call(drive(generator))
