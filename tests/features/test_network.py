"""Wrapping callables and predictors, sharing networks, picking columns."""

import numpy as np
import pytest
import torch

from steerable.features.network import AllColumns, NetworkFeature, column, feature, measure, select


@pytest.fixture
def images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


class CountingNetwork:
    def __init__(self):
        self.runs = 0

    def __call__(self, images):
        self.runs += 1
        return images.mean((2, 3))


def red_and_blue(network):
    red = NetworkFeature("red-mean", ("red-mean",), "", "l2", network, lambda out: out[:, :1])
    blue = NetworkFeature("others", ("green-mean", "blue-mean"), "", "l2", network, lambda out: out[:, 1:])
    return red, blue


def test_a_shared_network_runs_once(images):
    network = CountingNetwork()
    values = measure(red_and_blue(network), images)
    assert network.runs == 1
    assert torch.equal(torch.cat([values["red-mean"], values["others"]], 1), images.mean((2, 3)))


def test_a_column_of_a_network_feature_still_shares_the_network(images):
    network = CountingNetwork()
    red, others = red_and_blue(network)
    values = measure([red, column(others, "blue-mean")], images)
    assert network.runs == 1
    assert torch.equal(values["blue-mean"][:, 0], images[:, 2].mean((1, 2)))


def test_two_features_of_one_name_are_refused(images):
    red, _ = red_and_blue(CountingNetwork())
    with pytest.raises(ValueError, match="red-mean twice"):
        measure([red, red], images)


def test_all_columns_stand_side_by_side_in_the_order_of_the_features(images):
    dark = feature(lambda x: -x.mean((1, 2, 3)), name="dark")
    corners = feature(lambda x: x[:, 0, 0, :2], name="corner", columns=("left", "right"))
    seen = AllColumns((dark, corners))(images)
    assert torch.equal(seen, torch.cat([dark(images), corners(images)], 1)) and seen.shape == (len(images), 3)


def test_select_takes_features_and_columns_by_name():
    red, others = red_and_blue(CountingNetwork())
    assert [one.columns for one in select([red, others], ["green-mean", "red-mean", "others"])] == [
        ("green-mean",), ("red-mean",), ("green-mean", "blue-mean")]  # fmt: skip


def test_an_unknown_column_gets_the_nearest_name():
    red, others = red_and_blue(CountingNetwork())
    with pytest.raises(ValueError, match='unknown feature "blue-meen": did you mean "blue-mean"?'):
        select([red, others], ["blue-meen"])


def test_a_column_of_a_wrapped_callable_is_that_column(images):
    rgb = feature(lambda x: x.mean((2, 3)), name="rgb", columns=("r", "g", "b"))
    green = column(rgb, "g")
    assert green.columns == ("g",) and torch.equal(green(images)[:, 0], rgb(images)[:, 1])


def test_one_number_an_image_becomes_one_column(images):
    assert feature(lambda x: x.mean((1, 2, 3)), name="mean")(images).shape == (4, 1)


def test_a_torch_callable_is_found_differentiable():
    assert feature(lambda x: x.mean((1, 2, 3)), name="mean").differentiable


def test_a_numpy_callable_is_found_not_differentiable(images):
    wrapped = feature(lambda x: x.numpy().mean((1, 2, 3)), name="mean")
    assert not wrapped.differentiable
    assert torch.allclose(wrapped(images.requires_grad_())[:, 0], images.mean((1, 2, 3)))


def test_a_rounding_callable_is_found_not_differentiable():
    assert not feature(lambda x: x.mean((1, 2, 3)).round(), name="mean").differentiable


def test_a_callable_for_another_image_size_is_found_not_differentiable():
    assert not feature(torch.nn.Linear(17, 1), name="odd").differentiable


def test_a_list_of_python_numbers_is_taken(images):
    assert feature(lambda x: [1.0] * len(x), name="ones")(images).tolist() == [[1.0]] * 4


def test_a_wrapped_callable_works_under_vmap(images):
    wrapped = feature(lambda x: x.mean((1, 2, 3)), name="mean")
    rows = torch.func.vmap(lambda x: wrapped(x[None])[0])(images)
    assert torch.allclose(rows, wrapped(images))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: x.mean((2, 3)), r"promised \(images, columns\) = \(4, 1\), got \(4, 3\). Name the columns"),
        (lambda x: x.mean((1, 2, 3))[:2], r"got \(2,\)"),
        (lambda x: x.mean((1, 2, 3)) / 0, "4 of 4 numbers are NaN or infinite"),
        (lambda x: x.mean(), r"got \(\)"),
    ],
)
def test_a_result_that_breaks_the_promise_is_refused(images, result, message):
    with pytest.raises(ValueError, match=message):
        feature(result, name="bad", differentiable=False)(images)


def test_a_result_that_is_no_number_is_refused(images):
    with pytest.raises(TypeError, match='"bad" must return numbers'):
        feature(lambda x: ["cat"] * len(x), name="bad")(images)


def test_something_that_measures_nothing_is_refused():
    with pytest.raises(TypeError, match="predict_proba, decision_function or predict, got str"):
        feature("brightness", name="bad")


def classifier(classes):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes
    return LogisticRegression().fit(rng.normal(size=(60, 3)) + labels[:, None], labels)


def test_a_two_class_predictor_gives_the_second_class(images):
    model = classifier(2)
    wrapped = feature(model, name="glasses", preprocess=lambda x: x.mean((2, 3)))
    assert np.allclose(wrapped(images)[:, 0], model.predict_proba(images.mean((2, 3)).numpy())[:, 1])


def test_a_three_class_predictor_gives_a_named_column_each(images):
    wrapped = feature(classifier(3), name="hat", preprocess=lambda x: x.mean((2, 3)))
    assert wrapped.columns == ("hat-0", "hat-1", "hat-2") and wrapped(images).shape == (4, 3)


def test_a_regressor_gets_flattened_images(images):
    from sklearn.linear_model import LinearRegression

    rows = images.flatten(1).numpy()
    model = LinearRegression().fit(rows, rows[:, 5])
    assert np.allclose(feature(model, name="pixel")(images)[:, 0], rows[:, 5], atol=1e-5)


def test_a_predictor_is_not_called_differentiable():
    with pytest.raises(ValueError, match="has no gradients"):
        feature(classifier(2), name="glasses", differentiable=True)
