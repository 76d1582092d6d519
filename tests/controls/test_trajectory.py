"""Trajectories on a linear generator, where the best direction is an eigenvector and every change is known."""

import pytest
import torch
from toys import LinearGenerator, OnePixel, linear_generator

from steerable.controls.trajectory import Trajectory
from steerable.features.network import column, feature
from steerable.features.pixels import Box, RegionPixels
from steerable.features.regions import PartPixels
from steerable.generators.module import generator_of
from steerable.generators.stylegan2 import StyleGAN2
from steerable.protocols import Latents

MOVED, HELD = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)], [(0, 3), (1, 3), (2, 3)]


@pytest.fixture(scope="module")
def generator():
    return linear_generator(6, (3, 4, 4))


def pixels(places):
    return [OnePixel(row, col) for row, col in places]


def rows_of(generator, places):
    """The rows of the matrix that make these pixels of the first channel."""
    return generator.matrix[[row * 4 + col for row, col in places]]


def trajectory(generator, **options):
    return Trajectory(generator, move=pixels(MOVED), hold=pixels(HELD), **options)


def amounts(*values):
    return torch.tensor(values)[:, None]


def decoupled():
    """The upper two rows of the image depend on the first three latents, the lower two on the others."""
    matrix = torch.zeros(16, 6)
    rng = torch.Generator().manual_seed(0)
    matrix[:8, :3], matrix[8:, 3:] = torch.randn(8, 3, generator=rng) / 5, torch.randn(8, 3, generator=rng) / 5
    return LinearGenerator(matrix, torch.zeros(16), (1, 4, 4))


# ------------------------------------------------------------------ the direction


def test_the_first_step_is_the_generalised_eigenvector(generator):
    from scipy.linalg import eigh

    deviations = torch.tensor(trajectory(generator).deviations, dtype=torch.float64)[:, None]
    move = rows_of(generator, MOVED).double() / deviations[: len(MOVED)]
    hold = rows_of(generator, HELD).double() / deviations[len(MOVED) :]
    held = hold.T @ hold / len(hold)
    damped = held + 0.1 * held.trace() / 6 * torch.eye(6, dtype=torch.float64)
    _, vectors = eigh((move.T @ move / len(move)).numpy(), damped.numpy())
    best = torch.from_numpy(vectors[:, -1]).float()
    best = best * best[best.abs().argmax()].sign()  # the largest component is positive

    path = trajectory(generator).path(generator.sample(2, seed=0), amounts(0.3, 0.3))
    step = path.waypoints[1].values - path.waypoints[0].values
    assert torch.allclose(torch.nn.functional.normalize(step), torch.nn.functional.normalize(best, dim=0).expand(2, -1), atol=1e-3)


# ------------------------------------------------------------------ arriving


@pytest.mark.parametrize("amount", [0.02, 0.3, -0.3, 1.0])
def test_the_amount_is_reached_within_one_percent(generator, amount):
    path = trajectory(generator).path(generator.sample(4, seed=0), amounts(*[amount] * 4))
    assert path.reached.all()
    assert path.moved[-1].tolist() == pytest.approx([abs(amount)] * 4, rel=0.0101)


def test_the_ledger_is_what_the_images_show(generator):
    start = generator.sample(3, seed=0)
    path = trajectory(generator).path(start, amounts(0.2, 0.4, -0.1))
    change = generator(path.end) - generator(start)
    deviations = torch.tensor(trajectory(generator).deviations)
    for places, scale, ledger in ((MOVED, deviations[: len(MOVED)], path.moved), (HELD, deviations[len(MOVED) :], path.drift)):
        seen = (torch.stack([change[:, 0, row, col] for row, col in places], 1) / scale).square().mean(1).sqrt()
        assert torch.allclose(ledger[-1], seen, atol=1e-6)


def test_one_moved_feature_is_asked_for_in_its_own_unit(generator):
    corner = feature(lambda images: 100 * images[:, 0, :2, :2].flatten(1), name="corner", columns=("a", "b", "c", "d"), differentiable=True)
    control = Trajectory(generator, move=corner, hold=pixels(HELD))
    start = generator.sample(2, seed=0)
    path = control.path(start, amounts(20.0, -10.0))
    change = corner(generator(path.end)) - corner(generator(start))
    assert change.square().mean(1).sqrt().tolist() == pytest.approx([20, 10], rel=0.02)
    assert control.knobs[0].high == pytest.approx(control.deviations[0])


def test_what_is_held_drifts_no_more_than_allowed(generator):
    path = trajectory(generator, leak=0.02).path(generator.sample(4, seed=0), amounts(*[0.3] * 4))
    assert path.reached.all()
    assert (path.drift[-1] <= 0.02 * 0.3 * 1.05).all()


def test_a_hold_that_shares_no_latent_with_the_move_is_kept_exactly():
    generator = decoupled()
    start = generator.sample(4, seed=0)
    control = Trajectory(generator, move=pixels([(0, 0), (0, 1), (1, 2)]), hold=pixels([(2, 0), (2, 1), (3, 2)]))
    path = control.path(start, amounts(*[0.2] * 4))
    assert path.reached.all()
    assert torch.allclose(generator(path.end)[:, :, 2:], generator(start)[:, :, 2:], rtol=0, atol=1e-6)


def test_with_little_damping_the_direction_stays_in_the_null_space_of_the_hold(generator):
    path = trajectory(generator, damping=1e-6, reach=3.0).path(generator.sample(4, seed=0), amounts(*[0.3] * 4))
    assert path.reached.all()
    assert path.drift[-1].max() < 1e-3 * 0.3


def test_an_amount_out_of_reach_is_reported_and_not_pretended(generator):
    path = trajectory(generator, max_steps=2).path(generator.sample(2, seed=0), amounts(5.0, 0.0))
    assert path.reached.tolist() == [False, True]
    assert path.moved[-1, 0] < 5.0


def test_opposite_amounts_go_opposite_ways(generator):
    start = generator.sample(3, seed=0)
    there, back = (trajectory(generator).steer(start, amounts(*[amount] * 3)).values - start.values for amount in (0.3, -0.3))
    assert torch.allclose(there, -back, atol=1e-4)


def test_a_zero_amount_returns_the_very_same_values(generator):
    start = generator.sample(3, seed=0)
    moved = trajectory(generator).steer(start, amounts(0.0, 0.3, 0.0))
    assert torch.equal(moved.values[[0, 2]], start.values[[0, 2]]) and not torch.equal(moved.values[1], start.values[1])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_row_does_not_depend_on_the_batch(generator, batch):
    start, asked = generator.sample(5, seed=0), amounts(0.1, -0.2, 0.3, 0.0, 0.05)
    together = trajectory(generator).path(start, asked, batch=batch)
    for row in range(5):
        alone = trajectory(generator).steer(start[row : row + 1], asked[row : row + 1])
        assert torch.allclose(alone.values, together.end.values[row : row + 1], atol=1e-4)


def test_a_row_that_arrived_stays_where_it_is(generator):
    path = trajectory(generator, settling=0).path(generator.sample(2, seed=0), amounts(0.05, 3.0))
    arrived = int((((path.moved[:, 0] - 0.05).abs() <= 0.0005) & (path.drift[:, 0] <= 0.0035)).nonzero()[0])
    assert len(path.waypoints) > arrived + 2
    assert all(torch.equal(point.values[0], path.end.values[0]) for point in path.waypoints[arrived:])


def test_a_row_that_arrived_settles_where_it_holds_better(generator):
    start, asked = generator.sample(3, seed=0), amounts(0.3, -0.3, 0.0)
    walked, settled = (trajectory(generator, settling=settling).path(start, asked) for settling in (0, 4))
    assert (settled.drift[-1, :2] < walked.drift[-1, :2] / 10).all() and settled.drift[-1, 2] == 0
    assert settled.moved[-1].tolist() == pytest.approx([0.3, 0.3, 0], rel=0.02)
    assert settled.reached.all() and settled.ledger.ends == walked.ledger.ends
    common = len(walked.waypoints)
    assert len(settled.waypoints) > common  # the way there is the same
    assert all(torch.equal(a.values, b.values) for a, b in zip(settled.waypoints[:common], walked.waypoints, strict=True))


def test_what_moves_may_bend_more_than_what_is_held():
    """Taking slip back by the Jacobian at hand costs more than the step brought; five of these 16 stopped there for it."""
    matrix = torch.zeros(16, 4)
    matrix[:4] = torch.eye(4)
    generator = LinearGenerator(matrix, torch.zeros(16), (1, 4, 4))

    def waves(images):
        return torch.sin(3 * images[:, 0, 0, 1:2]) + images[:, 0, 0, :1]

    def bowl(images):
        x, y = images[:, 0, 0, :2].split(1, dim=1)
        return y + 2 * x.square() + 0.3 * x

    move, hold = (feature(one, name=one.__name__, columns=(one.__name__,), differentiable=True) for one in (waves, bowl))
    control = Trajectory(generator, move=move, hold=hold, judge=None, leak=0.6)
    path = control.path(generator.sample(16, seed=0), amounts(*[1.2] * 16))
    assert path.reached.all()


def test_a_row_that_did_not_arrive_does_not_settle(generator):
    paths = [trajectory(generator, max_steps=2, settling=settling).path(generator.sample(1, seed=0), amounts(5.0)) for settling in (0, 4)]
    assert len(paths[0].waypoints) == len(paths[1].waypoints) == 3


def test_a_path_has_a_point_for_each_row_of_its_ledger(generator):
    start = generator.sample(9, seed=0)
    path = trajectory(generator).path(start, amounts(*[0.1] * 8, 0.6), batch=8)  # the last part takes more steps
    assert len(path.waypoints) == len(path.moved) == len(path.drift)
    assert torch.equal(path.waypoints[0].values, start.values)
    assert (path.moved[0] == 0).all() and (path.drift[0] == 0).all()


def test_a_feature_without_gradients_is_followed_by_differences(generator):
    def black_box(images):
        return images.detach().numpy()[:, 0, :2, :2].reshape(len(images), -1)

    boxed = feature(black_box, name="corner", columns=("a", "b", "c", "d"))
    start = generator.sample(2, seed=0)
    corner = feature(lambda images: images[:, 0, :2, :2].flatten(1), name="corner", columns=("a", "b", "c", "d"), differentiable=True)
    smooth = Trajectory(generator, move=corner, hold=pixels(HELD)).steer(start, amounts(0.2, -0.2))
    assert not boxed.differentiable
    assert torch.allclose(
        Trajectory(generator, move=boxed, hold=pixels(HELD)).steer(start, amounts(0.2, -0.2)).values, smooth.values, atol=1e-2
    )


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_every_space_of_a_style_based_generator_is_walked(space):
    network = StyleGAN2([["z", [16] * 3]], [16, 16])
    network.initialise(torch.Generator().manual_seed(0))
    made = generator_of(network, name="style-based")
    inside, outside = (RegionPixels(Box(0, 0, 2, 2), made.image_shape, invert=far, name=f"far {far}") for far in (False, True))
    going = Trajectory(made, move=outside, hold=inside, space=space, judge=None)
    start = made.sample(2, seed=1, space=space)
    path = going.path(start, amounts(going.unit / 5, -going.unit / 5))
    assert path.reached.all() and path.end.space == made.spaces[space]
    change = (made(path.end) - made(start)).square()
    assert outside(change).mean() > 50 * inside(change).mean() > 0
    if space == "z":  # latents of a sphere stay on it
        assert torch.allclose(path.end.values.norm(dim=1), start.values.norm(dim=1), rtol=1e-4)


def test_a_picture_without_the_part_that_moves_stays_and_its_ledger_says_so(generator):
    def hat(images):  # a third of the picture, where its first pixel is light
        return (images[:, :1, :1, :1] > 0).float() * (torch.arange(4) < 2).float()[:, None].expand(1, 1, 4, 4)

    latents = generator.sample(4, seed=0)
    light = generator(latents)[:, 0, 0, 0] > 0
    assert 0 < light.sum() < 4
    part = PartPixels("hat", generator.image_shape, hat)
    going = Trajectory(generator, move=part, hold=pixels(HELD)[:1], leak=0.5)
    path = going.path(latents, torch.full((4, 1), 0.1))
    assert torch.equal(path.reached, light)
    assert torch.equal(path.end.values[~light], latents.values[~light])
    assert [end == "no hat in its picture" for end in path.ledger.ends] == (~light).tolist()
    assert torch.equal(path.rows(torch.tensor([3])).end.values, path.end.values[3:])


def test_labels_travel_along(generator):
    start = generator.sample(2, seed=0)
    labelled = Latents(start.values, start.space, torch.tensor([3, 4]))
    assert trajectory(generator).steer(labelled, amounts(0.1, 0.1)).labels.tolist() == [3, 4]


# ------------------------------------------------------------------ what is asked for


def test_moving_and_holding_one_thing_is_refused_by_its_name(generator):
    with pytest.raises(ValueError, match=r"pixel-0-0-3 cannot be moved and held at once: take it out of one of them"):
        Trajectory(generator, move=pixels([(0, 0), (0, 3)]), hold=pixels(HELD))


@pytest.mark.parametrize("missing", ["move", "hold"])
def test_nothing_to_move_or_to_hold_is_refused(generator, missing):
    asked = {"move": pixels(MOVED), "hold": pixels(HELD), missing: []}
    with pytest.raises(ValueError, match=f"a trajectory needs something to {missing}: give at least one feature"):
        Trajectory(generator, **asked)


def test_an_unknown_option_gets_the_nearest(generator):
    with pytest.raises(ValueError, match=r'unknown option of Trajectory "dampening": did you mean "damping"\?'):
        trajectory(generator, dampening=0.2)


@pytest.mark.parametrize("option", [{"leak": -0.1}, {"stride": 0.0}, {"reach": -1.0}, {"damping": float("nan")}, {"max_steps": 0}])
def test_an_option_that_cannot_be_is_refused(generator, option):
    with pytest.raises(ValueError, match=rf"{next(iter(option))} .*got"):
        trajectory(generator, **option)


def test_one_feature_needs_no_list(generator):
    control = Trajectory(generator, move=OnePixel(0, 0), hold=OnePixel(3, 3))
    assert control.knobs[0].name == "pixel-0-0-0" and control.knobs[0].unit == "rms levels"


def test_latents_of_another_generator_are_refused_by_both_names(generator):
    other = LinearGenerator(generator.matrix, generator.offset, generator.image_shape, "a8010000", "digits")
    with pytest.raises(ValueError, match=r"this trajectory belongs to toy \(00to…\), got latents of digits \(a801…\)"):
        trajectory(generator).steer(other.sample(1, seed=0), amounts(0.1))


def test_a_move_that_no_latent_makes_is_refused_in_one_line():
    generator = decoupled()
    blind = LinearGenerator(generator.matrix.clone().index_fill(0, torch.tensor([0]), 0.0), generator.offset, generator.image_shape)
    with pytest.raises(ValueError, match=r"nothing changes what should move"):
        Trajectory(blind, move=OnePixel(0, 0), hold=OnePixel(3, 3), max_steps=3).path(blind.sample(1, seed=0), amounts(0.1))


def test_a_jacobian_that_is_not_finite_ends_the_path_there_and_the_ledger_says_why(generator):
    """Both ways from one latent; across the edge the held feature has a value but no derivative."""
    start = generator.sample(1, seed=0)
    start = start.at(start.values.repeat(2, 1))
    edge = float(generator(start)[0, 0, 0, 0]) + 0.2

    def cracked(images):
        x = images[:, 0, 0, 0]
        return images[:, 0, 3, 3] + torch.where(x > edge, x - x, 1.0).sqrt()

    path = Trajectory(generator, move=OnePixel(0, 0), hold=cracked, judge=None).path(start, amounts(0.6, -0.6))
    (whole,), (cut,) = path.reached.nonzero()[:, 0].tolist(), (~path.reached).nonzero()[:, 0].tolist()
    assert path.ledger.ends[whole] == "arrived"
    assert "NaN or infinite" in path.ledger.ends[cut] and 0.1 < path.moved[-1, cut] < 0.6


def test_a_column_of_what_is_held_cannot_be_moved(generator):
    whole = feature(lambda images: images[:, 0, 0], name="row", columns=("a", "b", "c", "d"), differentiable=True)
    with pytest.raises(ValueError, match="b cannot be moved and held at once"):
        Trajectory(generator, move=column(whole, "b"), hold=whole)
