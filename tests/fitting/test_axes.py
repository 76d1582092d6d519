"""Axes on a linear generator, where an attribute's gradient is a row of the matrix; and yaw on real faces."""

import dataclasses

import pytest
import torch
from toys import LinearGenerator, OnePixel, linear_generator

from steerable import zoo
from steerable.controls.directions import amounts
from steerable.evaluation.response import response
from steerable.features.network import feature
from steerable.fitting.axes import covariance, fit_axes, score_of
from steerable.protocols import Latents

A, B, C = OnePixel(0, 0), OnePixel(1, 2), OnePixel(3, 3)


@dataclasses.dataclass
class Counting:
    """One pixel that counts the images it has seen."""

    pixel: OnePixel
    seen: int = 0
    unit: str = "levels"
    metric: str = "l2"
    differentiable: bool = True

    @property
    def name(self):
        return self.pixel.name

    @property
    def columns(self):
        return self.pixel.columns

    def __call__(self, images):
        self.seen += len(images)
        return self.pixel(images)


@pytest.fixture(scope="module")
def generator():
    return linear_generator(6, (3, 4, 4))


def planted(generator, pixel):
    """The gradient of a pixel with respect to the latent."""
    return generator.matrix[pixel.row * 4 + pixel.col]


def quick(generator, features, **options):
    return fit_axes(generator, features, **{"n": 200, "calibration": 64, **options})


@pytest.fixture(scope="module")
def axes(generator):
    return quick(generator, [A, B, C])


def measured(generator, control, knob, amount, features):
    """Mean change of the features when the knob is turned by the amount, on latents that nothing was fitted on."""
    latents = generator.sample(32, seed=9)
    images = (generator(latents), generator(control.steer(latents, amounts(control, latents, {knob: amount}))))
    before, after = (torch.cat([one(image) for one in features], 1) for image in images)
    return (after - before).mean(0)


# ------------------------------------------------------------------ what is found


@pytest.mark.parametrize("pixel", [A, B, C])
def test_the_axis_is_the_planted_direction(generator, axes, pixel):
    found = axes[pixel.name].vectors[0]
    assert torch.nn.functional.cosine_similarity(found, planted(generator, pixel), dim=0) > 0.999


def test_the_gradient_is_kept_as_the_normal(generator, axes):
    assert torch.allclose(axes.normals[0], planted(generator, A), rtol=0.02, atol=0.002)


@pytest.mark.parametrize("amount", [-0.4, 0.1, 0.5])
def test_one_unit_of_amount_is_one_unit_measured(generator, axes, amount):
    assert measured(generator, axes, A.name, amount, [A]).item() == pytest.approx(amount, rel=0.01)


def test_the_unit_of_the_knob_is_the_features(axes):
    assert [(knob.name, knob.unit) for knob in axes.knobs] == [(one.name, "levels") for one in (A, B, C)]


def test_a_linear_attribute_is_predicted_perfectly_on_unseen_latents(axes):
    name, score = score_of(axes, A.name)
    assert name == "R2" and score > 0.999


def test_an_attribute_that_is_noise_scores_nothing(generator):
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand(4096, generator=rng)

    def unrelated(images):  # a number that jumps with the image's last bits
        return noise[(images[:, 0, 0, 0].double() * 1e7).long() % 4096]

    assert score_of(quick(generator, [feature(unrelated, name="noise", differentiable=False)]), "noise")[1] < 0.1


def test_a_knob_knows_its_population(generator, axes):
    values = A(generator(generator.sample(264, seed=0)))[:, 0]
    knob = axes.knobs[0]
    assert knob.value_at(50) == pytest.approx(values.median().item(), abs=0.15 * values.std().item())
    assert knob.value_at(95) == pytest.approx(values.quantile(0.95).item(), abs=0.4 * values.std().item())


def test_on_a_linear_generator_the_whole_walk_is_usable(generator, axes):
    """Three and a half standard deviations of the latents along the axis, the longest that is measured."""
    reach = 3.5 * planted(generator, A).norm().item()
    assert axes.knobs[0].high == pytest.approx(reach, rel=0.1) and axes.knobs[0].low == pytest.approx(-reach, rel=0.1)


def test_the_record_says_how_it_was_fitted(axes):
    assert axes.fit["method"] == "axes" and axes.fit["n"] == 200 and axes.fit["seed"] == 0
    assert set(axes.fit["axes"]) == {A.name, B.name, C.name} and set(axes.fit["calibration"]) == set(axes.fit["axes"])


def test_the_same_seed_gives_the_same_axes(generator, axes):
    again = quick(generator, [A, B, C])
    assert torch.equal(again.vectors, axes.vectors) and again.knobs == axes.knobs


def test_columns_choose_what_is_fitted(generator):
    assert [knob.name for knob in quick(generator, [A, B, C], columns=[C.name]).knobs] == [C.name]


def test_axes_live_in_latents_of_any_shape():
    flat = linear_generator(6, (3, 4, 4))

    class Deep:
        spaces = {"z": dataclasses.replace(flat.spaces["z"], shape=(6, 1, 1))}  # noqa: RUF012
        image_shape, fingerprint = flat.image_shape, flat.fingerprint

        def sample(self, n, **options):
            return Latents(flat.sample(n, **options).values[:, :, None, None], self.spaces["z"])

        def to_space(self, latents, name):
            return latents

        def __call__(self, latents):
            return flat(Latents(latents.values.flatten(1), flat.spaces["z"]))

    deep = quick(Deep(), [A])
    assert deep.vectors.shape == (1, 6, 1, 1)
    assert torch.allclose(deep.vectors.flatten(1), quick(flat, [A]).vectors, atol=1e-5)


# ------------------------------------------------------------------ holding


@pytest.mark.parametrize("whiten", [False, True], ids=["plain", "whitened"])
def test_what_is_held_does_not_move(generator, whiten):
    freed = quick(generator, [A, B, C], hold=[B.name], whiten=whiten)
    own, leak = measured(generator, freed, A.name, 0.5, [A, B])
    assert own.item() == pytest.approx(0.5, rel=0.02) and abs(leak.item()) < 0.005


def test_without_a_hold_it_leaks(generator, axes):
    assert abs(measured(generator, axes, A.name, 0.5, [B]).item()) > 0.02


def test_each_axis_may_have_a_hold_of_its_own(generator, axes):
    freed = quick(generator, [A, B, C], hold={A.name: [B.name, C.name]})
    assert measured(generator, freed, A.name, 0.5, [B, C]).abs().max() < 0.005
    assert torch.allclose(freed[B.name].vectors, axes[B.name].vectors)
    assert freed.fit["held"] == {A.name: [B.name, C.name]}


def test_what_is_held_need_not_be_among_the_columns(generator):
    freed = quick(generator, [A, B, C], columns=[A.name], hold=[B.name])
    assert [knob.name for knob in freed.knobs] == [A.name]
    assert measured(generator, freed, A.name, 0.5, [B]).abs().max() < 0.005


def test_holding_what_is_moved_is_refused(generator):
    with pytest.raises(ValueError, match=r'"pixel-0-0-0" cannot be moved and held at once'):
        quick(generator, [A, B], hold={A.name: [A.name]})


def test_a_hold_that_is_one_string_is_told_to_be_a_list(generator):
    with pytest.raises(TypeError, match=r'hold is a list of attributes: hold=\["pixel-0-1-2"\]'):
        quick(generator, [A, B], hold=B.name)


@pytest.mark.parametrize("where", [{"columns": ["pixel-0-0-9"]}, {"hold": ["pixel-0-0-9"]}, {"hold": {"pixel-0-0-9": ["pixel-0-0-0"]}}])
def test_an_unknown_attribute_gets_the_nearest(generator, where):
    with pytest.raises(ValueError, match=r'unknown attribute "pixel-0-0-9": did you mean "pixel-0-0-0"\?'):
        quick(generator, [A], **where)


# ------------------------------------------------------------------ kinds of attributes


@pytest.fixture(scope="module")
def binary(generator):
    return quick(generator, [feature(lambda images: (images[:, 0, 0, 0] > 0).float(), name="bright", differentiable=False)], n=300)


def test_a_yes_or_no_attribute_gets_a_logistic_axis_with_its_auc(generator, binary):
    name, score = score_of(binary, "bright")
    assert name == "AUC" and score > 0.99
    assert binary.knobs[0].unit == "log-odds"
    assert torch.nn.functional.cosine_similarity(binary.vectors[0], planted(generator, A), dim=0) > 0.98


def test_turning_a_yes_or_no_attribute_up_makes_more_of_them(generator, binary):
    latents = generator.sample(200, seed=9)
    more, fewer = (
        (generator(binary.steer(latents, amounts(binary, latents, bright=amount)))[:, 0, 0, 0] > 0).float().mean() for amount in (1, -1)
    )
    assert more > 0.6 and fewer < 0.4


def test_an_attribute_that_never_varies_is_refused_by_its_name(generator):
    constant = feature(lambda images: torch.full((len(images),), 7.0), name="always", differentiable=False)
    with pytest.raises(ValueError, match=r'"always" is 7 for all 200 latents: there is nothing to fit'):
        quick(generator, [constant])


def test_a_value_that_is_almost_never_there_is_refused_by_its_name(generator):
    fifth = A(generator(generator.sample(200, seed=0))).sort(0).values[-5]
    rare = feature(lambda images: (images[:, 0, 0, 0] >= fifth).float(), name="rare", differentiable=False)
    with pytest.raises(ValueError, match=r'"rare" has only 5 latents of its rarer value, 10 are needed'):
        quick(generator, [rare])


@pytest.mark.parametrize("sizes", [{"n": 39}, {"calibration": 15}])
def test_too_few_latents_are_refused(generator, sizes):
    with pytest.raises(ValueError, match=r"axes need n >= 40 latents and calibration >= 16, got n="):
        quick(generator, [A], **sizes)


def test_no_features_at_all_are_refused(generator):
    with pytest.raises(ValueError, match="needs at least one feature"):
        quick(generator, [])


# ------------------------------------------------------------------ the cache


def test_a_second_fit_measures_the_population_from_the_cache(generator, tmp_path):
    counts = []
    for _ in range(2):
        one = Counting(A)
        quick(generator, [one], cache=tmp_path)
        counts.append(one.seen)
    assert counts[0] - counts[1] == 200 + 64


def test_a_new_feature_is_the_only_one_that_is_measured(generator, tmp_path):
    alone = Counting(A)
    quick(generator, [alone], cache=tmp_path)
    old, new = Counting(A), Counting(B)
    quick(generator, [old, new], cache=tmp_path)
    assert new.seen - old.seen == 200 + 64


def test_axes_from_the_cache_are_the_same(generator, axes, tmp_path):
    first, second = (quick(generator, [A, B, C], cache=tmp_path) for _ in range(2))
    assert torch.equal(first.vectors, second.vectors) and torch.equal(first.vectors, axes.vectors)


# ------------------------------------------------------------------ small parts


def test_the_covariance_is_that_of_the_latents(generator):
    latents = generator.sample(4000, seed=0)
    scaled = latents.at(latents.values * torch.arange(1.0, 7.0))
    assert torch.allclose(covariance(scaled), torch.diag(torch.arange(1.0, 7.0) ** 2).double(), atol=1.5)


def test_an_unfitted_name_has_no_score(axes):
    with pytest.raises(ValueError, match=r'unknown axis "yaw"'):
        score_of(axes, "yaw")


def test_labels_are_no_part_of_the_axis_but_stay_with_the_latents(generator):
    class Tagged(LinearGenerator):
        def sample(self, n, **options):
            return dataclasses.replace(super().sample(n, **options), labels=torch.arange(n) % 3)

    tagged = Tagged(generator.matrix, generator.offset, generator.image_shape)
    assert torch.allclose(quick(tagged, [A]).vectors, quick(generator, [A]).vectors)


# ------------------------------------------------------------------ real faces


@pytest.fixture(scope="module")
def faces_turned():
    """A yaw axis of faces64 from 600 latents, and what turning 128 others by ten degrees measures."""
    faces, pose = zoo.load_generator("faces64"), zoo.load_feature("pose")
    axis = fit_axes(faces, [pose], columns=["yaw"], n=600)
    turned = response(faces, axis, [pose], amounts={"yaw": [-10, 10]}, n=128, seed=1)
    return axis, turned.change[0, :, :, turned.column("yaw")]


def test_yaw_of_faces64_is_linear_in_the_latent(faces_turned):
    assert score_of(faces_turned[0], "yaw")[1] > 0.6


def test_ten_degrees_are_measured_as_ten_degrees_on_the_median_face(faces_turned):
    left, right = faces_turned[1].median(1).values.tolist()
    assert right == pytest.approx(10, abs=2.5) and left == pytest.approx(-10, abs=2.5)


def test_ten_degrees_are_measured_as_ten_degrees_on_average(faces_turned):
    left, right = faces_turned[1].mean(1).tolist()
    assert right == pytest.approx(10, abs=2.5) and left == pytest.approx(-10, abs=2.5)
