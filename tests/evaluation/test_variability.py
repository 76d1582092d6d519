"""How far classes move against how much they vary, on a generator whose class k moves k times as far as class 1 does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from steerable.controls.directions import Directions
from steerable.evaluation.attribute import LUMINANCE, feature_attribute
from steerable.evaluation.plausible import largest_amount
from steerable.evaluation.relation import contrast, relation
from steerable.evaluation.variability import SAMPLES, table, variability
from steerable.features.pixels import BRIGHTNESS, COLOUR
from steerable.protocols import Knob, Latents, LatentSpace
from steerable.sources import ImageSource

SPACE = LatentSpace("z", (2,), "00classes", "grey")
WALK = Directions((Knob("brightness", "of full scale", -0.5, 0.5),), SPACE, torch.tensor([[1.0, 0.0]]))


@dataclass(frozen=True)
class Greys:
    """A flat grey picture: its level is ``rate[class] * z[0]``, so that class k moves by ``rate[k]`` for every unit of amount."""

    rates: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.1)
    image_shape: tuple[int, int, int] = (1, 6, 6)
    fingerprint: str = "00classes"

    @property
    def classes(self) -> int:
        return len(self.rates)

    @property
    def spaces(self):
        return {"z": SPACE}

    def sample(self, n, *, seed, space="z", labels=None, psi=1.0):
        rows = [np.random.default_rng([seed, row]).standard_normal(2) for row in range(n)]
        tags = torch.arange(n) % self.classes if labels is None else torch.as_tensor(labels).expand(n)
        return Latents(psi * torch.tensor(np.array(rows), dtype=torch.float32), SPACE, tags)

    def to_space(self, latents, name):
        return latents

    def __call__(self, latents):
        level = torch.tensor(self.rates)[latents.labels] * latents.values[:, 0]
        return level[:, None, None, None].expand(-1, *self.image_shape).clone()


def source(rates=(0.02, 0.04, 0.06, 0.08, 0.1), n=200) -> ImageSource:
    """Grey pictures whose deviation of full scale is half of the rate of their class, to within a grey level."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(len(rates)).repeat_interleave(n)
    level = (torch.tensor(rates)[labels] * torch.randn(len(labels), generator=rng) + 1) * 127.5
    images = level.round().clamp(0, 255).to(torch.uint8)[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
    return ImageSource(images, labels, tuple(f"grey {i}" for i in range(len(rates))), "greys")


def test_classes_that_vary_more_are_moved_further_and_the_line_says_by_how_much():
    """The level of class k moves by ``rate[k]`` from end to end, half of that on [0, 1]; its spread is half its rate."""
    result = variability(Greys(), WALK, BRIGHTNESS, sigma=source(), amount=1.0, n=8)
    assert result.delta_mu.tolist() == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1], rel=1e-4)
    assert result.sigma.tolist() == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05], rel=0.15)
    line = result.relation
    assert line.r > 0.99 and line.p < 0.001 and line.n == 5
    assert line.slope == pytest.approx(2, rel=0.15) and line.low < line.r < line.high
    assert result.names == ("grey 0", "grey 1", "grey 2", "grey 3", "grey 4")
    assert result.sigma_from == "greys" and result.pictures == (200,) * 5


def test_without_data_the_spread_is_that_of_other_samples_of_the_generator_and_is_called_so():
    result = variability(Greys(), WALK, BRIGHTNESS, amount=1.0, n=100)
    assert result.sigma_from == SAMPLES and result.pictures == (100,) * 5
    assert result.sigma.tolist() == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05], rel=0.3)
    assert result.relation.r > 0.95


def test_given_spreads_are_taken_as_they_are():
    rates = [5.0, 4.0, 3.0, 2.0, 1.0]
    for given in (rates, torch.tensor(rates), dict(enumerate(rates))):
        result = variability(Greys(), WALK, BRIGHTNESS, sigma=given, amount=1.0, n=4)
        assert result.sigma.tolist() == rates and result.relation.r == pytest.approx(-1)
    assert result.sigma_from == "given" and [row[-1] for row in table(result)] == [0] * 5


def test_luminance_is_that_of_random_pixels_by_default_and_the_same_on_flat_pictures():
    pixels = variability(Greys(), WALK, sigma=source(), amount=1.0, n=4)
    assert pixels.attribute == "luminance" and pixels.judge == LUMINANCE.judge
    means = variability(Greys(), WALK, BRIGHTNESS, sigma=source(), amount=1.0, n=4)
    assert torch.allclose(pixels.delta_mu, means.delta_mu, atol=1e-5)


def test_no_two_classes_share_a_latent_and_a_class_has_the_same_whichever_others_are_asked():
    whole = variability(Greys(), WALK, BRIGHTNESS, sigma=[1.0, 2, 3, 4, 5], amount=1.0, n=4)
    some = variability(Greys(), WALK, BRIGHTNESS, sigma=[3.0, 4, 5], classes=[2, 3, 4], amount=1.0, n=4)
    assert torch.equal(whole.means[2:], some.means) and some.names == ("2", "3", "4")
    steered = whole.means / torch.tensor(Greys().rates)[:, None]
    assert len(set(steered[:, 0].round(decimals=4).tolist())) == 5


def test_a_detector_that_finds_nothing_leaves_that_image_out():
    @dataclass(frozen=True)
    class OnlyBright:
        name: str = "bright"
        columns: tuple[str, ...] = ("bright",)
        unit: str = "levels"
        metric: str = "l2"
        differentiable: bool = False

        def __call__(self, images):
            level = images.mean((1, 2, 3))[:, None]
            return torch.where(level > -0.01, level, torch.nan)

    result = variability(Greys(), WALK, OnlyBright(), sigma=[1.0, 2, 3, 4, 5], amount=0.1, n=50)
    shares = [row[6] for row in table(result)]
    assert all(0.2 < share < 0.9 for share in shares) and not result.delta_mu.isnan().any()


def test_two_classes_are_told_apart_by_how_much_they_change():
    noisy = Greys(rates=(0.1, 0.1, 0.2, 0.3))
    result = variability(noisy, WALK, BRIGHTNESS, sigma=[1.0, 1, 2, 3], amount=1.0, n=20)
    (same,) = result.contrast("0", "1")
    assert same.what == "change of brightness" and same.n == (20, 20)
    (other,) = result.contrast("2", "0")
    assert other.t > 10 and other.p < 0.001 and other.means == (pytest.approx(0.2), pytest.approx(0.1))


def test_t_and_r_are_those_of_scipy():
    from scipy import stats

    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, generator=rng) + 1, 2 * torch.randn(20, generator=rng)
    test = contrast(torch.cat([a, torch.tensor([torch.nan])]), b, names=("a", "b"), what="x")
    expected = stats.ttest_ind(a.double(), b.double(), equal_var=False)
    assert (test.t, test.p, test.n) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue), (30, 20))
    line = relation(a[:20], b)
    assert line.r == pytest.approx(np.corrcoef(a[:20], b)[0, 1], abs=1e-6)
    assert line.p == pytest.approx(stats.pearsonr(a[:20].double(), b.double()).pvalue)


def level_and_square(images):
    """Features (n, 2) in which unsteered and steered pictures differ."""
    level = images.mean((1, 2, 3))
    return torch.stack([level, level.square()], 1) * 10


def test_alpha_is_the_largest_amount_below_the_threshold_on_both_sides():
    amount, limit, tried = largest_amount(
        Greys(), WALK, WALK.knobs[0], network=level_and_square, threshold=9.0, candidates=[0.5, 1, 2, 4, 8, 16, 32], n=64
    )
    assert limit == 9.0 and [one[0] for one in tried] == [0.5, 1, 2, 4, 8, 16, 32][: len(tried)]
    assert max(tried[-1][1:]) > 9.0 and all(max(one[1:]) <= 9.0 for one in tried[:-1])
    assert amount == tried[-2][0]
    result = variability(
        Greys(), WALK, BRIGHTNESS, network=level_and_square, threshold=9.0, candidates=[0.5, 1, 2, 4, 8, 16, 32], n=4, quality_n=64
    )
    assert result.amount > 0 and result.threshold == 9.0 and result.distances


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": [0, 1, 7]}, "has the classes 0 to 4, got 7"),
        ({"classes": [0, 1]}, "3 different classes or more, got 2"),
        ({"n": 1}, "2 latents a class or more, got n=1"),
        ({"amount": 0.0}, "alpha\\* is an amount above 0"),
        ({"sigma": [1.0, 2.0]}, "one spread a class: 5 classes, got 2"),
        ({"sigma": {0: 1.0, 1: 2.0}}, 'no spread is given for the class "2"'),
        ({"sigma": [1.0, 2, 3, 4, -5]}, "a standard deviation is 0 or more, got -5"),
        ({"knob": "zoom"}, 'unknown knob "zoom"'),
        ({"attribute": COLOUR}, "has the columns red, green, blue: choose one"),
        ({"names": ["a", "b"]}, "one name a class: 5 classes, got 2"),
        ({"names": ["a", "b", "b", "c", "d"]}, 'two classes are called "b"'),
        ({"sigma": source(n=1)}, 'has 1 pictures of the class "grey 0"'),
        (
            {"sigma": ImageSource(torch.zeros(4, 1, 6, 6, dtype=torch.uint8), torch.zeros(4).long(), (), "plain"), "classes": [0, 1, 2]},
            "no classes",
        ),
        ({"sigma": ImageSource(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5), tuple("abcde"), "big")}, "size=6"),
    ],
)
def test_what_cannot_be_related_is_refused_in_one_line(arguments, words):
    given = {"attribute": BRIGHTNESS, "sigma": [1.0, 2, 3, 4, 5], "amount": 1.0, "n": 4} | arguments
    with pytest.raises(ValueError, match=words) as error:
        variability(Greys(), WALK, **given)
    assert "\n" not in str(error.value)


def test_a_generator_without_classes_is_refused_by_name():
    from toys import linear_generator

    plain = linear_generator(2)
    walk = Directions((Knob("brightness", "", -1, 1),), plain.spaces["z"], torch.ones(1, 2))
    with pytest.raises(ValueError, match="toy .* has no classes"):
        variability(plain, walk, BRIGHTNESS, amount=1.0)


def test_classes_that_all_vary_alike_have_no_line():
    result = variability(Greys(), WALK, BRIGHTNESS, sigma=[1.0] * 5, amount=1.0, n=4)
    with pytest.raises(ValueError, match="all 5 classes have the spread 1"):
        _ = result.relation
    with pytest.raises(ValueError, match="3 classes or more, got 2"):
        relation(torch.tensor([1.0, 2.0, torch.nan]), torch.ones(3))
    with pytest.raises(ValueError, match='unknown class "grey"'):
        result.contrast("grey", "0")
    with pytest.raises(ValueError, match="two different classes"):
        result.contrast("1", "1")


def test_a_feature_of_one_column_is_an_attribute():
    assert feature_attribute(BRIGHTNESS).unit == BRIGHTNESS.unit
