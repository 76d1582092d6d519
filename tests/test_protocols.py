"""The nouns check themselves: a batch knows its space, a knob knows its population."""

import dataclasses

import pytest
import torch

from steerable.protocols import Knob, Latents, LatentSpace, distance

SPACE = LatentSpace("z", (3,), "3f9c0000", "faces64")
SMILE = Knob("smile", "logits", -2, 2, percentiles=((5, -4.0), (50, 0.0), (95, 8.0)))


def test_a_space_is_known_by_its_weights_not_by_the_name_of_its_generator():
    assert dataclasses.replace(SPACE, generator="a copy") == SPACE
    assert dataclasses.replace(SPACE, fingerprint="a8010000") != SPACE
    assert dataclasses.replace(SPACE, name="w") != SPACE


def test_a_space_says_its_generator_and_the_start_of_its_fingerprint():
    assert str(SPACE) == "z of faces64 (3f9c…)"


def test_a_space_without_a_generators_name_is_still_readable():
    assert LatentSpace("z", (3,), "3f9c0000").owner == "a generator (3f9c…)"


def test_values_of_another_shape_than_the_space_are_refused():
    with pytest.raises(ValueError, match=r"latents in z of faces64 \(3f9c…\) are \(n, 3\), got \(2, 4\)\."):
        Latents(torch.zeros(2, 4), SPACE)


def test_a_single_latent_without_a_batch_is_told_to_add_it():
    with pytest.raises(ValueError, match=r"Add the batch dimension: values\[None\]"):
        Latents(torch.zeros(3), SPACE)


def test_a_number_is_no_batch_of_scalars():
    with pytest.raises(ValueError, match=r"got \(\)"):
        Latents(torch.tensor(1.0), LatentSpace("z", (), "3f9c0000"))


def test_one_label_a_latent_is_asked_for():
    with pytest.raises(ValueError, match=r"expected \(2,\) indices, got torch.int64 \(3,\)"):
        Latents(torch.zeros(2, 3), SPACE, torch.arange(3))


def test_rows_take_their_labels_along():
    latents = Latents(torch.arange(12.0).view(4, 3), SPACE, torch.tensor([5, 6, 7, 8]))
    for rows in (slice(1, 4, 2), [1, 3], torch.tensor([1, 3]), torch.tensor([False, True, False, True])):
        some = latents[rows]
        assert len(some) == 2 and some.labels.tolist() == [6, 8] and some.values[:, 0].tolist() == [3, 9]


@pytest.mark.usefixtures("no_annotation_checks")
def test_a_single_row_is_told_to_stay_a_batch():
    with pytest.raises(TypeError, match=r"latents\[2:3\] instead of latents\[2\]"):
        Latents(torch.zeros(4, 3), SPACE)[2]


def test_other_points_keep_space_and_labels():
    latents = Latents(torch.zeros(2, 3), SPACE, torch.tensor([0, 1]))
    moved = latents.at(torch.ones(2, 3))
    assert moved.space is SPACE and moved.labels.tolist() == [0, 1] and bool((moved.values == 1).all())


def test_latents_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Latents(torch.zeros(2, 3), SPACE).values = torch.ones(2, 3)


@pytest.mark.parametrize(("percentile", "value"), [(5, -4), (50, 0), (95, 8), (27.5, -2), (72.5, 4)])
def test_a_percentile_has_a_value_linear_between_the_stored_ones(percentile, value):
    assert SMILE.value_at(percentile) == pytest.approx(value)
    assert SMILE.percentile_of(value) == pytest.approx(percentile)


def test_a_value_beyond_the_population_is_at_the_outermost_percentile():
    assert SMILE.percentile_of(100) == 95
    assert SMILE.percentile_of(-100) == 5


def test_a_percentile_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"smile knows the percentiles 5 to 95, got p99\."):
        SMILE.value_at(99)


def test_a_knob_without_a_population_says_to_calibrate_it():
    with pytest.raises(ValueError, match=r'"zoom" has no population percentiles: calibrate'):
        Knob("zoom", "log2", -1, 1).value_at(50)


def test_a_constant_population_has_one_value():
    flat = Knob("flat", "", -1, 1, percentiles=((5, 2.0), (50, 2.0), (95, 2.0)))
    assert flat.value_at(70) == 2 and flat.percentile_of(2) == 5


@pytest.mark.parametrize(("metric", "expected"), [("l1", 7.0), ("l2", 5.0), ("cosine", 1.0)])
def test_a_distance_is_the_one_of_its_metric(metric, expected):
    a = torch.tensor([[3.0, 0.0]])
    b = torch.tensor([[0.0, 4.0]])
    assert distance(metric, a, b).tolist() == pytest.approx([expected])
