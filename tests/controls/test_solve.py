"""Values set with others held, on a generator whose pixels are linear in the latent: every answer is known by hand."""

from __future__ import annotations

import pytest
import torch
from toys import LinearGenerator, OnePixel, linear_generator

from steerable.controls.search import usually
from steerable.controls.solve import Solve
from steerable.features.network import feature
from steerable.features.regions import PartPixels
from steerable.fitting.axes import fit_axes
from steerable.sensitivity import Generated

A, B, C = OnePixel(0, 0), OnePixel(1, 1), OnePixel(2, 2)


@pytest.fixture(scope="module")
def generator() -> LinearGenerator:
    return linear_generator()


@pytest.fixture(scope="module")
def control(generator: LinearGenerator) -> Solve:
    return Solve(generator, set={A.name: 0.4}, hold=[B], features=[A], population=80)


def test_the_asked_value_is_measured_and_what_is_held_stays(generator, control):
    found = control.solve(generator.sample(5, seed=3))
    assert torch.allclose(A(generator(found.latents)), torch.full((5, 1), 0.4), atol=0.02)
    drift = (B(generator(found.latents)) - B(generator(generator.sample(5, seed=3)))).abs().max()
    assert float(drift) < 0.1 * found.deviations[found.columns.index(B.name)]
    assert bool(found.found.all())


def test_a_part_is_held_where_the_picture_shows_it_and_a_picture_without_it_is_left_alone(generator):
    def hat(images):  # the lower half, where the first pixel is light
        return (images[:, :1, :1, :1] > 0).float() * (torch.arange(4) > 1).float()[:, None].expand(1, 1, 4, 4)

    latents = generator.sample(4, seed=0)
    light = A(generator(latents))[:, 0] > 0
    assert 0 < light.sum() < 4
    part = PartPixels("hat", generator.image_shape, hat)
    both = [Solve(generator, set={A.name: 0.4}, hold=hold, features=[A], population=80).solve(latents) for hold in ([part], [])]
    held, free = both
    assert torch.equal(held.latents.values[~light], latents.values[~light])
    assert torch.allclose(held.reached[light], torch.tensor(0.4), atol=0.02)
    drift = [(generator(one.latents) - generator(latents))[light][:, :, 2:].square().mean() for one in both]
    assert drift[0] < 0.9 * drift[1]
    row = light.int().argmin().item()
    assert "no hat in its picture" in held.said(row)[0] and "no hat" in held.rows([row]).said()[0]
    assert held.held == ("hat",) and held.moved[~light, held.columns.index("hat")].eq(0).all()
    assert not free.stayed


def test_a_pitch_moves_in_the_mirror_as_well(generator):
    corner = feature(lambda images: images[:, 0, 0, 0], name="pitch", unit="deg")  # its mirror image has another pixel there
    latents = generator.sample(6, seed=5)
    before = generator(latents)
    apart = {}
    for mirror in (0, 0.2, 5):
        found = Solve(generator, set={"pitch": 0.4}, hold=[B], features=[corner], population=80, mirror=mirror).solve(latents)
        after = generator(found.latents)
        assert torch.allclose(found.reached, torch.tensor(0.4), atol=0.02) and found.held == (B.name,)
        assert not [name for name in found.columns if "mirror" in name]
        apart[mirror] = float(((after - before)[:, 0, 0, 0] - (after - before)[:, 0, 0, 3]).square().mean())
    assert apart[5] < 0.2 * apart[0] and apart[0.2] < 0.9 * apart[0]


def test_other_values_and_pitches_with_nothing_held_are_not_mirrored(generator, control):
    corner = feature(lambda images: images[:, 0, 0, 0], name="pitch", unit="deg")
    assert not control.mirrored and not Solve(generator, set={"pitch": 0.4}, features=[corner], population=80).mirrored


def test_what_usually_changes_a_wide_hold_is_known_from_the_population(generator):
    left = feature(lambda images: images[..., :2].flatten(1), name="left", columns=[f"left-{i}" for i in range(24)])
    around = Generated(generator, (left,), generator.sample(200, seed=4), (0.5,))
    rows = generator.matrix.view(3, 4, 4, -1)[..., :2, :].reshape(24, -1)
    exact = 0.25 * rows.T @ rows / 24  # of a linear generator it is the same everywhere
    found = usually(around, 24)
    assert float((found - exact).norm()) < 0.15 * float(exact.norm())

    latents = generator.sample(5, seed=3)
    asked = {"set": {A.name: 0.4}, "features": [A], "population": 80}
    held, free = (Solve(generator, hold=hold, holding=0, **asked).solve(latents).latents for hold in ([left], []))
    drift = [float((left(generator(one)) - left(generator(latents))).square().mean()) for one in (held, free)]
    assert drift[0] < 0.9 * drift[1]  # before any step that draws it back


def test_without_a_hold_the_other_pixel_moves(generator):
    """So the hold above holds something."""
    found = Solve(generator, set={A.name: 0.4}, features=[A, B], population=80).solve(generator.sample(5, seed=3))
    moved = (B(generator(found.latents)) - B(generator(generator.sample(5, seed=3)))).abs().mean()
    assert float(moved) > 0.02


def test_two_values_at_once(generator):
    found = Solve(generator, set={A.name: 0.3, B.name: -0.2}, features=[A, B], population=80).solve(generator.sample(4, seed=5))
    images = generator(found.latents)
    assert torch.allclose(torch.cat([A(images), B(images)], 1), torch.tensor([[0.3, -0.2]]).expand(4, 2), atol=0.03)


def test_every_picture_gets_its_own_value(generator):
    control = Solve(generator, set={A.name: [-0.3, 0.0, 0.5]}, features=[A], population=80)
    found = control.solve(generator.sample(3, seed=1))
    assert torch.allclose(found.reached[:, 0], torch.tensor([-0.3, 0.0, 0.5]), atol=0.02)
    with pytest.raises(ValueError, match="3 values for 4 latents"):
        control.solve(generator.sample(4, seed=1))


def test_amounts_stand_before_what_was_set(generator, control):
    steered = control.steer(generator.sample(2, seed=1), torch.tensor([[-0.1], [0.2]]))
    assert torch.allclose(A(generator(steered))[:, 0], torch.tensor([-0.1, 0.2]), atol=0.02)


def test_a_percentile_is_the_populations(generator, control):
    by_rank = Solve(generator, set={A.name: "p90"}, features=[A], population=80)
    assert by_rank.values(1)[0, 0] == pytest.approx(float(control.census.column(A.name).quantile(0.9)), rel=1e-4)


def test_an_unreachable_value_says_what_is_reachable(generator, control):
    found = control.solve(generator.sample(1, seed=2), torch.tensor([[60.0]]))
    low, high = found.reachable[0, 0].tolist()
    assert low < float(found.reached[0, 0]) <= high + 1e-6 < 60
    (message,) = found.messages()
    assert "60 levels asked" in message and f"reachable here {low:.3g} … {high:.3g}" in message


def test_rows_do_not_depend_on_the_batch(generator, control):
    latents = generator.sample(4, seed=3)
    alone = control.solve(latents[2:3]).latents.values
    assert torch.allclose(control.solve(latents, batch=3).latents.values[2:3], alone, atol=1e-5)


def test_a_black_box_is_set_and_held(generator):
    rough = feature(lambda images: images.detach().numpy()[:, 0, 0, 0], name="rough", differentiable=False)
    held = feature(lambda images: images.detach().numpy()[:, 0, 1, 1], name="held", differentiable=False)
    found = Solve(generator, set={"rough": 0.2}, hold=held, features=[rough], population=80).solve(generator.sample(2, seed=0))
    assert bool(found.found.all())
    assert float(found.moved[:, found.columns.index("held")].abs().max()) < 0.02


def test_axes_lend_their_lines_and_percentiles(generator):
    axes = fit_axes(generator, [A, B], n=80, calibration=32)
    found = Solve(generator, set={A.name: "p75"}, axes=axes, features=[A], population=40)
    assert found.knobs[0].percentiles == axes[A.name].knobs[0].percentiles
    assert bool(found.solve(generator.sample(3, seed=4)).found.all())


def test_a_judge_of_ones_own_stands_beside(generator):
    found = Solve(generator, set={A.name: 0.2}, features=[A], judges={A.name: C}, population=80).solve(generator.sample(2, seed=0))
    assert found.judges == (C.name,)
    assert torch.allclose(found.second, C(generator(found.latents)))
    assert torch.allclose(found.gap, found.second - found.reached)
    assert f"{C.name} reads" in found.said()[0]


def test_a_wide_feature_is_one_distance(generator):
    wide = feature(lambda images: images.flatten(1)[:, :12], name="wide", columns=[f"wide-{i}" for i in range(12)], differentiable=True)
    found = Solve(generator, set={A.name: 0.4}, hold=wide, features=[A], population=80).solve(generator.sample(2, seed=0))
    apart = (wide(generator(found.latents)) - wide(generator(generator.sample(2, seed=0)))).norm(dim=1)
    assert "wide" in found.columns and found.held == ("wide",)
    assert torch.allclose(found.moved[:, found.columns.index("wide")], apart, atol=1e-5)
    assert found.besides()[0][0] == "wide"


def test_a_column_and_its_whole_feature_are_measured_side_by_side(generator):
    """Both have a column of one name; each keeps its own place."""
    both = feature(lambda images: images[:, 0, 0, :2], name="both", columns=[B.name, "next"], differentiable=True)
    counted = Solve(generator, set={A.name: 0.1}, hold=[both], features=[A], judges={A.name: B}, population=40).census
    assert torch.allclose(counted.own(both), both(generator(counted.latents)))
    assert torch.allclose(counted.own(B), B(generator(counted.latents)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set": {}}, "set names what is set"),
        ({"set": 20}, "set names what is set"),
        ({"set": {"yawn": 20}}, 'unknown feature or column "yawn": did you mean "yaw"'),
        ({"set": {A.name: float("nan")}}, "set to a finite number of levels, or to a percentile like p90; got nan"),
        ({"set": {A.name: "much"}}, 'or to a percentile like p90; got "much"'),
        ({"set": {A.name: True}}, "got True"),
        ({"set": {A.name: []}}, "empty list"),
        ({"set": {A.name: "p101"}}, "a percentile is p0 to p100, got p101"),
        ({"set": {A.name: "p-3"}}, "a percentile is p0 to p100, got p-3"),
        ({"hold": [A]}, "cannot be set and held at once"),
        ({"hold": "identty"}, 'did you mean "identity"'),
        ({"space": "w"}, "unknown latent space"),
        ({"weight": -1}, "weight of Solve is a number of 0 or more"),
        ({"mirror": "much"}, "mirror of Solve is a number of 0 or more, got 'much'"),
        ({"points": 2}, "points of Solve is a whole number of 3 or more, got 2"),
        ({"rounds": 2.5}, "rounds of Solve is a whole number of 1 or more, got 2.5"),
        ({"wieght": 1}, 'unknown option of Solve "wieght": did you mean "weight"'),
        ({"set": {"pose": 20}}, "has the columns yaw, pitch, roll: set one of them"),
        ({"judges": {"nothing": B}}, 'unknown value that is set "nothing"'),
    ],
)
def test_a_wrong_request_is_one_clear_line(generator, options, message, no_annotation_checks):
    with pytest.raises(ValueError, match=message) as caught:
        Solve(generator, **{"set": {A.name: 0.1}, "features": [A], "population": 40, **options})
    assert "\n" not in str(caught.value)


def test_a_column_that_never_varies_is_refused(generator):
    flat = feature(lambda images: images[:, 0, 0, 0] * 0 + 3.0, name="flat", differentiable=True)
    with pytest.raises(ValueError, match='"flat" is 3 for all 40 latents'):
        Solve(generator, set={"flat": 2}, features=[flat], population=40)
