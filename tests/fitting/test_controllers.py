"""Controllers are fitted to what a group really does: values come out, many answers differ, and what is out of reach is not promised."""

import pytest
import torch
from toys import OnePixel, linear_generator, parted_generator

from steerable import store
from steerable.evaluation.precision import alike, class_changes, class_frequencies, precision
from steerable.evaluation.shares import along, shares
from steerable.features.network import NetworkFeature
from steerable.fitting.controllers import fit_controllers

MADE = parted_generator()
A, B, MIX = OnePixel(0, 0), OnePixel(0, 1), OnePixel(1, 0)
SMALL = {"n": 2048, "steps": 600, "refine": 800, "batch": 64, "pictures": 64, "hidden": 48, "noise": 4, "lr": 4e-3}


def sides(images):
    """Probabilities of "left" and "right": whether pixel 0 0 is dark or light."""
    dark = torch.sigmoid(-60 * images[:, 0, 0, 0])
    return torch.stack([dark, 1 - dark], 1)


SIDE = NetworkFeature("side", ("left", "right"), "probability", "l1", sides, lambda output: output)


ONE_CLASS = NetworkFeature("one", ("no", "yes"), "probability", "l1", lambda x: x[:, 0, 0, :1] * 0 + torch.tensor([0.0, 1.0]), lambda y: y)


def reading(measure):
    return NetworkFeature("odd", (A.name,), "levels", "l1", measure, lambda output: output)


@pytest.fixture(scope="module")
def fitted():
    return fit_controllers(MADE, {"a": A, "b": B}, **SMALL)


def test_requested_values_come_out(fitted):
    for group, judge in (("a", A), ("b", B)):
        found = precision(MADE, fitted, {group: judge}, [judge.name], n=200, seed=5)
        assert found.correlation(judge.name) > 0.95 and found.error(judge.name) < 0.08, group
        assert found.requested.min() >= fitted[judge.name].knobs[0].low


def test_two_values_at_once_come_out_as_well(fitted):
    both = precision(MADE, fitted, {"a": A, "b": B}, [A.name, B.name], n=200, seed=5)
    assert min(both.correlation(A.name), both.correlation(B.name)) > 0.95


def test_the_interval_is_that_of_the_population_and_known_in_percentiles(fitted):
    """The first of four numbers of root mean square 1: at most 2, times 0.3."""
    knob = fitted.knobs[0]
    assert (knob.name, knob.unit, knob.neutral) == (A.name, "levels", None)
    assert -0.6 < knob.low < -0.4 and 0.4 < knob.high < 0.6
    assert knob.value_at(50) == pytest.approx(0, abs=0.06)


def test_one_answer_leaves_no_choice_and_many_answers_differ(fitted):
    """Pixel 0 0 leaves a's second number free, and with it pixel 1 1: the sampler shows that, the one answer does not."""
    latents = MADE.sample(200, seed=9, space="w")
    one, many = fitted.set(latents, {A.name: 0.1}), fitted.set(latents, {A.name: 0.1}, seeds=list(range(200)))
    second = many.part("a")[:, 1]
    assert one.part("a").std(0).max() < 1e-6
    assert 0.15 < float((second > 0).float().mean()) < 0.85 and float(second.std()) > 0.5
    assert torch.allclose(many.part("a").square().mean(1), torch.ones(200), atol=1e-3)
    assert float((MADE(many)[:, 0, 0, 0] - 0.1).abs().mean()) < 0.06


def test_controllers_are_saved(fitted, tmp_path):
    loaded = store.load_control(store.save_control(fitted, tmp_path / "c.safetensors"), generator=MADE)
    latents = MADE.controlled(loaded).sample(4, seed=0, values={A.name: "p90", B.name: 0.0})
    assert torch.equal(latents.values, MADE.controlled(fitted).sample(4, seed=0, values={A.name: "p90", B.name: 0.0}).values)
    assert loaded.fit["measured_by"] == {"a": A.name, "b": B.name}


def test_the_same_seed_gives_the_same_controllers():
    quick = SMALL | {"steps": 60, "refine": 30}
    assert store.control_bytes(fit_controllers(MADE, {"a": A}, **quick)) == store.control_bytes(fit_controllers(MADE, {"a": A}, **quick))


def test_classes_are_set_by_number():
    control = fit_controllers(MADE, {"a": SIDE}, **SMALL)
    assert [(knob.name, knob.low, knob.high) for knob in control.knobs] == [("a", 0, 1)]
    found = precision(MADE, control, {"a": SIDE}, ["a"], n=200, seed=4)
    assert found.correlation("a") > 0.9 and found.error("a") == pytest.approx(1 - found.correlation("a"))


def test_setting_one_value_is_seen_in_the_class_of_another_or_not(fitted):
    changed = class_changes(MADE, fitted, SIDE, [A.name, B.name], n=300, seed=3)
    assert changed[B.name] == 0 and 0.3 < changed[A.name] < 0.7


def test_even_classes_have_a_frequency_of_one():
    found = class_frequencies(MADE, SIDE, n=1000, seed=1)
    assert torch.allclose(found, torch.ones(2), atol=0.12)


def test_pictures_of_one_value_are_compared_with_real_ones_of_one_value(fitted):
    """Real pictures that are the generator's own: samples of equal values differ as much as they do."""
    real = MADE(MADE.sample(2000, seed=50))
    made, kept = alike(MADE, fitted, {"a": A, "b": B}, real, lambda x, y: (x - y).square().mean((1, 2, 3)), n=100)
    assert made == pytest.approx(kept, rel=0.5) and kept > 0.01


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: fit_controllers(linear_generator(), {"a": A}), "has no groups to set by value: train some with steer train controllable"),
        (lambda: fit_controllers(MADE, {"d": A}), 'has no part "d": its parts are a, b, c'),
        (lambda: fit_controllers(MADE, {}), "name at least one group"),
        (lambda: fit_controllers(MADE, {"a": A}, n=10), "controllers take n >= 200 samples"),
        (lambda: fit_controllers(MADE, {"a": reading(lambda x: 0 * x[:, 0, :1, 0] + 2)}, **SMALL), "reads 2 from every sample: a constant"),
        (lambda: fit_controllers(MADE, {"a": reading(lambda x: x[:, 0, :1, 0] / 0)}, **SMALL), "NaN or infinite"),
        (lambda: fit_controllers(MADE, {"c": A}, **SMALL), 'the group "c" does not set pixel-0-0-0: asked for'),
        (lambda: fit_controllers(MADE, {"a": ONE_CLASS}, **SMALL),
         "samples show class 0 for sure, 8 are needed"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused_in_one_line(made, message):
    with pytest.raises(ValueError, match=message) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_shares_are_those_of_the_matrix():
    """Pixels 0 0 and 0 1 belong to one part each, 1 0 is .6 of a and .8 of b; c does nothing."""
    found = shares(MADE, {"a": A, "b": B, "mix": MIX}, held=40, each=20, seed=3)
    expected = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.6, 0.8, 0]])
    assert torch.allclose(found.values, expected, atol=0.07)
    assert found.groups == ("a", "b", "c")
    assert found.own("a") == found.values[0, 0] and found.largest_other("mix") == ("b", pytest.approx(float(found.values[2, 1])))


def test_shares_of_axes_swap_one_coordinate():
    """Along the first number of a, pixel 0 0 varies as in the population and pixel 0 1 stays."""
    axis = torch.eye(12)[0]
    vary = along(MADE, {"a": axis}, {"a": axis})
    found = shares(MADE, {"a": A, "b": B}, held=30, each=20, seed=3, groups=["a"], vary=vary)
    assert found.values[:, 0].tolist() == pytest.approx([1.0, 0.0], abs=0.07)


def test_shares_need_parts():
    with pytest.raises(ValueError, match="has no parts: shares are those of groups"):
        shares(linear_generator(), {"a": A})
    with pytest.raises(ValueError, match="2 or more latents held"):
        shares(MADE, {"a": A}, held=1)
