"""How far a walk goes, on a grey generator: every level is known until it is clipped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerable import store
from steerable.controls.directions import Directions
from steerable.evaluation.limits import COLUMNS, Limits, limits, table
from steerable.evaluation.usable import IMPLAUSIBLE, LAST
from steerable.features.pixels import BRIGHTNESS
from steerable.protocols import Knob, Latents, LatentSpace

SPACE = LatentSpace("z", (2,), "00greys0", "greys")
WALK = Directions((Knob("brightness", "of full scale", -0.25, 0.25),), SPACE, torch.tensor([[2.0, 0.0]]), fit={"method": "by hand"})


class Greys:
    """A level z[0] in [-1, 1] with a texture z[1], clipped where levels end."""

    spaces = {"z": SPACE}  # noqa: RUF012
    image_shape = (1, 8, 8)
    fingerprint = "00greys0"

    def sample(self, n, *, seed, space="z", labels=None, psi=1.0):
        import numpy as np

        rows = [np.random.default_rng([seed, row]).standard_normal(2) for row in range(n)]
        return Latents(0.2 * psi * torch.tensor(np.array(rows), dtype=torch.float32), SPACE)

    def to_space(self, latents, name):
        return latents

    def __call__(self, latents):
        texture = torch.tensor([-0.1, 0.1]).repeat(32).view(1, 1, 8, 8)
        return (latents.values[:, 0, None, None, None] + texture).clamp(-1, 1)


def network(images: Tensor) -> Tensor:
    """The mean, and how much neighbours differ: half the size leaves nothing of the second."""
    return torch.stack([images.mean((1, 2, 3)), 5 * (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))], 1)


network.num_features = 2  # type: ignore[attr-defined] - the name by which torchmetrics asks


@pytest.fixture(scope="module")
def result() -> Limits:
    return limits(Greys(), WALK, network=network, n=64)


def test_one_unit_of_the_walk_is_one_unit_of_luminance(result):
    assert result.amounts.tolist() == pytest.approx([i / 8 for i in range(-4, 5)])
    middle = result.means[result.start]
    assert (result.means - middle)[2:7].tolist() == pytest.approx([-0.25, -0.125, 0, 0.125, 0.25], abs=0.02)
    assert result.values.shape == (9, 64, 100) and result.attribute == "luminance" and result.unit == "of full scale"


def test_without_steering_nearly_all_of_the_distribution_is_left_and_far_away_nothing(result):
    overlap = result.intersections
    assert overlap[result.start] > 0.8 and overlap.argmax() == result.start
    assert overlap[0] < 0.05 and overlap[-1] < 0.05 and bool((overlap[:5].diff() > 0).all())


def test_the_area_under_two_known_densities_is_that_of_a_formula():
    """Two normal distributions a unit apart have 2 Phi(-1/2) = 0.617 in common."""
    rng = torch.Generator().manual_seed(0)
    here, there = torch.randn(4000, 1, generator=rng), torch.randn(4000, 1, generator=rng) + 1
    one = made(torch.stack([here, there]), reference=here.flip(0), amounts=[0.0, 1.0])
    assert one.intersections.tolist() == pytest.approx([1.0, 0.617], abs=0.02)
    grid, unsteered, steered = one.densities()
    assert unsteered.sum() == pytest.approx(1) and float((grid * steered[1]).sum()) == pytest.approx(1, abs=0.05)


def made(values, *, reference, amounts, distances=None, steps=None):
    count = len(amounts)
    return Limits(
        knob=WALK.knobs[0], amounts=torch.tensor(amounts), attribute="x", unit="", judge="by hand", values=values, reference=reference,
        distances=torch.zeros(count) if distances is None else distances, frechet=None,
        steps=torch.zeros(count - 1, len(reference)) if steps is None else steps, threshold=1.0, threshold_from="given",
        n=len(reference), seed=0,
    )  # fmt: skip


def test_what_a_detector_does_not_find_does_not_count():
    values = torch.tensor([[[1.0], [3.0]], [[torch.nan], [5.0]], [[torch.nan], [torch.nan]]])
    one = made(values, reference=values[0], amounts=[0.0, 0.1, 0.2])
    assert one.means[:2].tolist() == [2.0, 5.0] and one.means[2].isnan()
    assert one.found.tolist() == [1.0, 0.5, 0.0] and table(one)[2][2] is None


def test_the_kernel_distance_starts_at_that_of_two_unsteered_sets_and_grows(result):
    assert abs(result.distances[result.start]) < 0.02 < result.threshold
    assert bool((result.distances[4:].diff() > 0).all()) and result.threshold_from.startswith("unsteered images reduced")


def test_the_range_ends_where_the_threshold_is_crossed(result):
    usable = result.usable
    assert usable.low_ends == usable.high_ends == IMPLAUSIBLE
    wide = limits(Greys(), WALK, network=network, n=64, threshold=1e6, amounts=[-0.1, 0.1]).usable
    assert (wide.low, wide.high) == pytest.approx((-0.1, 0.1)) and wide.low_ends == LAST


def test_the_range_is_written_into_the_knob_and_survives_saving(result, tmp_path):
    changed = store.load_control(store.save_control(result.written(WALK), tmp_path / "walk.safetensors"))
    (knob,) = changed.knobs
    assert (knob.low, knob.high) == (result.usable.low, result.usable.high) != (-0.25, 0.25)
    record = changed.fit["limits"]["brightness"]
    assert record["n"] == 64 and record["threshold"] == result.threshold and changed.fit["method"] == "by hand"
    assert torch.equal(changed.vectors, WALK.vectors)


def test_measured_again_it_takes_the_same_amounts(result):
    again = limits(Greys(), result.written(WALK), network=network, n=64)
    assert torch.equal(again.amounts, result.amounts) and torch.equal(again.distances, result.distances)


def test_the_table_has_a_row_an_amount_and_says_which_are_usable(result):
    rows = table(result)
    assert len(rows) == 9 and all(len(row) == len(COLUMNS) for row in rows)
    usable = [row[1] for row in rows if row[-1]]
    assert min(usable) >= result.usable.low - 1e-6 and max(usable) <= result.usable.high + 1e-6 and 0.0 in usable
    assert rows[0][7] is None  # nothing before the first amount


def test_the_perceptual_step_is_the_distance_of_neighbours():
    """On the shipped backbone, which has maps; the distance of the first step is that of the two pictures themselves."""
    from steerable.controls.directions import amounts
    from steerable.features.perceptual import shipped

    one = limits(Greys(), WALK, amounts=[-0.2, 0.2], n=16)
    assert one.steps.shape == (2, 16) and bool((one.steps > 0).all())
    latents = Greys().sample(32, seed=1)[16:17]
    ends = [Greys()(WALK.steer(latents, amounts(WALK, latents, {"brightness": by}))) for by in (-0.2, 0.0)]
    assert float(one.steps[0, 0]) == pytest.approx(float(shipped()(*ends)), rel=1e-3)


def test_a_judge_without_maps_measures_no_steps(result):
    assert result.steps.isnan().all() and table(result)[1][7] is None


def test_the_frechet_distance_is_taken_where_n_allows_it_or_refused_with_the_way_out():
    assert limits(Greys(), WALK, network=network, n=16, amounts=[0.1], fid=True).frechet[1] > 0
    assert limits(Greys(), WALK, network=network, n=16, amounts=[0.1]).frechet is not None
    assert limits(Greys(), WALK, network=network, n=16, amounts=[0.1], fid=False).frechet is None
    with pytest.raises(ValueError, match=r"\(FID\) of 1280 features takes more than 1280 images .* got 256\. .*kernel distance"):
        limits(Greys(), WALK, n=256, amounts=[0.1], fid=True)
    assert limits(Greys(), WALK, n=16, amounts=[0.1]).frechet is None


def test_a_detector_takes_the_place_of_the_pixels():
    one = limits(Greys(), WALK, BRIGHTNESS, network=network, n=16, amounts=[0.1])
    assert one.attribute == "brightness" and one.values.shape == (2, 16, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 15}, "takes 16 images or more, got n=15"),
        ({"amounts": [0.0]}, "at least one amount besides the neutral 0"),
        ({"amounts": [float("nan")]}, "amounts"),
        ({"knob": "zoom"}, 'unknown knob "zoom"'),
        ({"threshold": -1.0}, "says nothing"),
        ({"attribute": None, "control": Directions((Knob("smile", "", -1, 1),), SPACE, torch.ones(1, 2))}, '"smile" is no edit'),
        ({"control": Directions((Knob("a", "", -1, 1), Knob("b", "", -1, 1)), SPACE, torch.eye(2))}, "the knobs a, b: say which one"),
        ({"control": Directions((Knob("level", "", -1, 1, None),), SPACE, torch.ones(1, 2))}, "has no neutral amount"),
        ({"control": Directions((Knob("own", "u", 0, 0),), SPACE, torch.ones(1, 2))}, "give amounts, in u"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(change, words):
    given = {"control": WALK, "attribute": BRIGHTNESS, "network": network, "n": 16} | change
    control, attribute = given.pop("control"), given.pop("attribute")
    with pytest.raises(ValueError, match=words) as error:
        limits(Greys(), control, attribute, **given)
    assert "\n" not in str(error.value)
