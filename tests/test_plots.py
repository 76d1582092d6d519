"""Figures of whole results: what stands in them, not how it looks."""

import pytest
import torch

from steerable import plots, render
from steerable.evaluation.limits import Limits
from steerable.evaluation.variability import Variability
from steerable.protocols import Knob

KNOB = Knob("shift-x", "image widths", -0.2, 0.2)


def limits(**more):
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(3, 40, 1, generator=rng) * 0.1 + torch.tensor([-0.2, 0.0, 0.2])[:, None, None]
    given = {
        "knob": KNOB, "amounts": torch.tensor([-0.2, 0.0, 0.2]), "attribute": "centre-x", "unit": "image sizes", "judge": "foreground",
        "values": values, "reference": values[1], "distances": torch.tensor([2.0, 0.0, 0.5]), "frechet": None,
        "steps": torch.rand(2, 40, generator=rng), "threshold": 1.0, "threshold_from": "given", "n": 40, "seed": 0,
    }  # fmt: skip
    return Limits(**{**given, **more})


def variability(k, **more):
    sigma = torch.linspace(0.1, 0.4, k)
    given = {
        "knob": KNOB, "amount": 0.2, "attribute": "centre-x", "unit": "image sizes", "judge": "foreground",
        "names": tuple(f"class {i}" for i in range(k)), "classes": tuple(range(k)), "sigma": sigma, "changes": sigma[:, None].repeat(1, 5),
        "means": torch.stack([-sigma, sigma], 1), "looks": None, "sigma_from": "pictures", "pictures": (9,) * k, "threshold": None,
        "distances": (), "n": 5, "seed": 0,
    }  # fmt: skip
    return Variability(**{**given, **more})


def texts(figure):
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    return words + [axes.get_title() for axes in figure.axes] + [axes.get_xlabel() for axes in figure.axes]


def test_limits_have_a_column_a_knob_and_four_rows_and_shade_what_is_usable():
    figure = plots.limits_plot([limits(), limits()], title="two knobs")
    assert render.figure_png(figure)[:4] == b"\x89PNG"
    assert len(figure.axes) == 2 * 4 + 2  # and a colour bar each
    low, high = figure.axes[2].patches[0].get_x(), figure.axes[2].patches[0].get_x() + figure.axes[2].patches[0].get_width()
    assert (low, high) == pytest.approx((limits().usable.low, limits().usable.high))


def test_a_frechet_distance_has_an_axis_of_its_own():
    figure = plots.limits_plot([limits(frechet=torch.tensor([30.0, 10.0, 15.0]))], title="one knob")
    assert [axes.get_ylabel() for axes in figure.axes].count("Fréchet distance") == 1


def test_a_judge_without_maps_leaves_a_word_instead_of_steps():
    assert "not measured: the judge has no maps" in texts(plots.limits_plot([limits(steps=torch.full((2, 40), torch.nan))], title=""))


def test_a_knob_with_one_side_and_an_attribute_that_is_never_found_are_drawn_too():
    one = limits(
        amounts=torch.tensor([0.0, 0.2]), values=torch.full((2, 40, 1), torch.nan), reference=torch.full((40, 1), torch.nan),
        distances=torch.tensor([0.0, 0.1]), steps=torch.ones(1, 40),
    )  # fmt: skip
    assert render.figure_png(plots.limits_plot([one], title="one side"))[:4] == b"\x89PNG"


def test_variability_names_every_class_and_says_r_p_and_n():
    words = texts(plots.variability_plot([variability(5)], title="five classes"))
    assert {f"class {i}" for i in range(5)} <= set(words)
    assert "shift-x: r = 1.00, p < .001, n 5, slope 2" in words and "σ of centre-x, image sizes: pictures" in words


def test_of_many_classes_only_those_furthest_from_the_line_are_named():
    changes = torch.zeros(50, 2)
    changes[7, 1] = 9.0
    one = variability(50, means=variability(50).means + changes)
    named = [word for word in texts(plots.variability_plot([one], title="")) if word.startswith("class")]
    assert len(named) == 12 and "class 7" in named


def test_classes_that_vary_alike_are_drawn_without_a_line():
    words = texts(plots.variability_plot([variability(4, sigma=torch.ones(4))], title=""))
    assert "shift-x: all 4 classes have the spread 1" in words


@pytest.mark.parametrize("plot", [plots.limits_plot, plots.variability_plot])
def test_no_result_is_refused(plot):
    with pytest.raises(ValueError, match="one knob or more, got none"):
        plot([], title="")
