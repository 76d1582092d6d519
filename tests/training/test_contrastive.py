"""The contrastive loss against the sum it stands for, pair by pair; thresholds on distances that are known by hand."""

import math

import pytest
import torch
from training.bars import bars

from steerable.features.digits import SLANT
from steerable.features.network import NetworkFeature, feature
from steerable.features.pixels import BRIGHTNESS, PixelFeature, thumbnail
from steerable.sources import read_source
from steerable.training.contrastive import (
    COMPARISONS,
    Contrast,
    Population,
    binomial,
    calibrated,
    calibrated_variety,
    contrastive_loss,
    disagreement,
    pairwise,
    read_all,
    variety_loss,
)

RNG = torch.Generator().manual_seed(0)
REAL = read_source(bars(), size=16).batch(torch.arange(64))[0]


def by_hand(metric, a, b):
    if metric == "cosine":
        return 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    return sum((x - y) ** 2 if metric == "squared-l2" else abs(x - y) for x, y in zip(a.tolist(), b.tolist(), strict=True)) / len(a)


@pytest.mark.parametrize("metric", COMPARISONS)
def test_all_distances_at_once_are_those_of_a_loop(metric):
    a, b = torch.randn(7, 5, generator=RNG), torch.randn(4, 5, generator=RNG)
    found = pairwise(metric, a, b)
    for i in range(7):
        for j in range(4):
            assert found[i, j].item() == pytest.approx(by_hand(metric, a[i], b[j]), abs=2e-6)


@pytest.mark.parametrize("metric", COMPARISONS)
def test_the_loss_is_the_paper_s_double_sum(metric):
    """Over all unordered pairs, each kind divided by its own number: 3 that share, 25 that do not."""
    values, owner = torch.randn(8, 5, generator=RNG), [0, 0, 2, 2, 4, 4, 6, 7]
    near, far = 0.3, 1.1
    same, others = [], []
    for i in range(8):
        for j in range(i):
            distance = by_hand(metric, values[i], values[j])
            (same if owner[i] == owner[j] else others).append(max(distance - near, 0) if owner[i] == owner[j] else max(far - distance, 0))
    assert (len(same), len(others)) == (3, 25)
    expected = sum(same) / 3 + sum(others) / 25
    rows = torch.tensor(owner)
    found = contrastive_loss(pairwise(metric, values, values), rows[:, None] == rows, near=near, far=far)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_zero_where_pairs_are_near_and_others_far():
    values = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    same = torch.tensor([0, 0, 2, 2])[:, None] == torch.tensor([0, 0, 2, 2])
    assert contrastive_loss(pairwise("l1", values, values), same, near=0.2, far=4.0).item() == 0
    assert contrastive_loss(pairwise("l1", values, values), same, near=0.0, far=4.0).item() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("metric", COMPARISONS)
def test_gradients_pull_pairs_together_and_push_others_apart(metric):
    values = torch.randn(6, 4, generator=RNG).requires_grad_()
    rows = torch.tensor([0, 0, 2, 2, 4, 5])
    same = rows[:, None] == rows
    before = pairwise(metric, values, values)
    loss = contrastive_loss(before, same, near=0.0, far=100.0)
    (slope,) = torch.autograd.grad(loss, values)
    assert torch.isfinite(slope).all()
    moved = (values - 1e-3 * slope).detach()
    assert contrastive_loss(pairwise(metric, moved, moved), same, near=0.0, far=100.0) < loss


def test_equal_rows_have_a_finite_gradient():
    values = torch.ones(4, 3, requires_grad=True)
    same = torch.eye(4, dtype=torch.bool)
    for metric in COMPARISONS:
        (slope,) = torch.autograd.grad(contrastive_loss(pairwise(metric, values, values), same, near=0.0, far=1.0), values)
        assert torch.isfinite(slope).all(), metric


def test_variety_counts_what_chosen_pairs_lack():
    distances = torch.tensor([[0.0, 0.25], [0.25, 0.0]])
    pairs = torch.tensor([[False, True], [True, False]])
    assert variety_loss(distances, pairs, far=1.0).item() == 0.75
    assert variety_loss(distances, pairs, far=0.2).item() == 0


def test_thresholds_are_percentiles_of_distances_in_mean_distances():
    """Brightness of 21 grey pictures on a ladder: neighbours are one rung apart, all pairs (n + 1) / 3 rungs on average."""
    images = torch.linspace(-1, 1, 21)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    watch = calibrated(Contrast(BRIGHTNESS, "l1"), images, near_percentile=50, far_percentile=20)
    rung = 3 / 22
    assert watch.near == pytest.approx(rung, rel=1e-3)
    assert watch.ranks()[0] == pytest.approx([rung] * 3, rel=1e-3)
    apart = torch.tensor(sorted(abs(i - j) for i in range(21) for j in range(21) if i != j)) * rung
    assert watch.far == pytest.approx(float(apart.quantile(0.2)), rel=1e-3)
    assert watch.others.mean().item() == pytest.approx(1.0, rel=1e-4)


def test_what_is_counted_has_thresholds_too():
    images = torch.linspace(-1, 1, 20)[:, None, None, None].expand(-1, 1, 8, 8).clone()
    counted = feature(lambda images: (images.mean((1, 2, 3)) > 0).float(), name="counted", differentiable=True)
    watch = calibrated(Contrast(counted, "l1"), images)
    assert watch.near == 0 and watch.far == pytest.approx(float(watch.others.max()))


def test_given_thresholds_are_kept():
    watch = calibrated(Contrast(BRIGHTNESS, "l1", near=0.1, far=0.6), REAL)
    assert (watch.near, watch.far) == (0.1, 0.6)


def test_a_unit_makes_the_weight_the_same_whatever_is_measured():
    tenfold = PixelFeature("tenfold", ("tenfold",), lambda images: 10 * BRIGHTNESS.read(images))
    one, ten = (calibrated(Contrast(each, "l1"), REAL) for each in (BRIGHTNESS, tenfold))
    same = torch.eye(64, dtype=torch.bool)
    assert one.loss(one.values(REAL), same).item() == pytest.approx(ten.loss(ten.values(REAL), same).item(), rel=1e-4)


def test_a_feature_is_shown_its_crop_at_its_resolution():
    seen = []
    watcher = feature(lambda images: seen.append(images) or images.mean((1, 2, 3)), name="seen", differentiable=True)
    Contrast(watcher, crop=0.5, resolution=4).read(torch.arange(64.0).view(1, 1, 8, 8))
    assert seen[0].shape == (1, 1, 4, 4) and seen[0][0, 0, 0, 0].item() == 18  # row 2, column 2
    Contrast(watcher, resolution=16).read(torch.zeros(1, 1, 8, 8))
    assert seen[1].shape == (1, 1, 16, 16)


def test_a_smoothed_feature_sees_no_checkerboard_and_the_same_brightness():
    checkerboard = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = binomial(images + checkerboard)
    assert torch.allclose(smooth[..., 1:-1, 1:-1], binomial(images)[..., 1:-1, 1:-1], atol=1e-6)
    assert torch.allclose(binomial(torch.full((1, 1, 8, 8), 0.3)), torch.tensor(0.3))
    corner = Contrast(PixelFeature("corner", ("corner",), lambda images: images[:, 0, 1, 1, None]), "l1", smoothed=True)
    weights = torch.tensor([1.0, 2, 1]) / 4
    assert torch.allclose(smooth[:, 0, 1, 1], weights @ images[:, 0, :3, :3] @ weights, atol=1e-6)
    assert torch.equal(corner.read(images), corner.feature(binomial(images)))


def test_no_gradient_reaches_what_is_darker_than_a_clipped_feature_sees():
    images = torch.full((1, 1, 8, 8), -1.0)
    images[..., :4] = -0.9  # a haze
    images[..., 6:] = 0.6
    images.requires_grad_()
    clipped = Contrast(BRIGHTNESS, "l1", clipped=0.15)
    (pull,) = torch.autograd.grad(clipped.read(images).sum(), images)
    assert not pull[..., :6].any() and (pull[..., 6:] > 0).all()
    shown = clipped.shown(images)
    assert (shown[..., :6] == -1).all() and float(shown.detach().max()) == pytest.approx(2 * (0.8 - 0.15) / 0.85 - 1)
    assert torch.allclose(clipped.shown(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))  # white stays white
    with pytest.raises(ValueError, match="clipped is a level"):
        Contrast(BRIGHTNESS, "l1", clipped=1.0)


def test_pictures_of_one_group_disagree_as_often_as_their_classes_differ():
    sure = torch.eye(3)[[0, 0, 1]]
    same = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 1]]).bool()
    assert float(disagreement(sure, same)) == pytest.approx(0.5)  # of the two pairs that share it one is told apart
    torn = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(disagreement(torn, same)) == pytest.approx((0.5 + 1) / 2)


def test_a_population_is_as_far_from_another_as_it_was_shifted():
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(4000, 2, generator=rng) * torch.tensor([1.0, 3.0])
    population = Population(Contrast(BRIGHTNESS, "l1"), real.sort(0).values)
    again = torch.randn(1000, 2, generator=rng) * torch.tensor([1.0, 3.0])
    assert float(population.loss(again)) < 0.06
    shifted = again + torch.tensor([0.0, 3.0])  # one column by one of its spreads
    assert float(population.loss(shifted)) == pytest.approx(0.5, abs=0.06)
    assert float(population.loss(again * 0)) == pytest.approx((2 / math.pi) ** 0.5, abs=0.05)  # all alike: the mean absolute normal
    values = again[:64].clone().requires_grad_()
    (pull,) = torch.autograd.grad(population.loss(values + 10), values)
    assert (pull > 0).all()


def test_a_network_that_several_share_runs_once_for_each_view_of_the_pictures():
    runs = []

    def network(images):
        runs.append(images.shape)
        return images.mean((2, 3))

    light, red = (
        NetworkFeature(name, (name,), "", "l2", network, lambda seen, i=i: seen[:, i : i + 1]) for i, name in enumerate(("a", "b"))
    )
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    contrasts = {"a": Contrast(light, "l1"), "b": Contrast(red, "l1"), "middle": Contrast(red, "l1", crop=0.5)}
    found = read_all(contrasts, images)
    assert sorted(runs) == [(16, 3, 4, 4), (16, 3, 8, 8)]
    for name, one in contrasts.items():
        assert torch.equal(found[name], one.read(images))


def test_the_population_is_of_what_is_asked_by_value():
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    halves = feature(lambda images: images.mean((1, 2)), name="columns", columns=[f"c{i}" for i in range(8)])
    watch = calibrated(Contrast(BRIGHTNESS, "l1"), images, asked=halves)
    assert torch.allclose(watch.population.ordered, halves(images).sort(0).values) and watch.population.contrast.feature is halves
    assert torch.equal(calibrated(Contrast(BRIGHTNESS, "l1"), images).population.ordered, BRIGHTNESS(images).sort(0).values)


def test_variety_is_calibrated_on_pictures_that_measure_alike():
    watches = [calibrated(Contrast(one, "l1"), REAL) for one in (SLANT, BRIGHTNESS)]
    watch = calibrated_variety(Contrast(thumbnail(8), "l1", scaling="feature"), watches, REAL)
    assert watch.near == 0 < watch.far
    assert watch.far < float(watch.others.median())  # pictures that measure alike look more alike than any two


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Contrast(feature(lambda x: x.mean((1, 2, 3)), name="box", differentiable=False)), '"box" has no gradients'),
        (lambda: Contrast(BRIGHTNESS, "l3"), 'unknown metric "l3"'),
        (lambda: Contrast(BRIGHTNESS, crop=0.0), "crop is a share above 0 up to 1"),
        (lambda: Contrast(BRIGHTNESS, weight=math.nan), "the weight of a loss is a number above 0, got nan"),
        (lambda: Contrast(BRIGHTNESS, near=0.5, far=0.5), r'"brightness": .*0 <= 0\.5 < 0\.5 fails'),
        (lambda: calibrated(Contrast(BRIGHTNESS), REAL, near_percentile=99, far_percentile=1), r"tau\+, others stay further than tau-"),
        (lambda: calibrated(Contrast(BRIGHTNESS), REAL[:8]), "thresholds take 16 real pictures or more"),
        (lambda: calibrated(Contrast(PixelFeature("flat", ("flat",), lambda x: x.mean((1, 2, 3))[:, None] * 0 + 3)), REAL),
         '"flat" reads 3 from every real picture: a constant cannot be trained by'),
        (lambda: calibrated(Contrast(PixelFeature("bad", ("bad",), lambda x: BRIGHTNESS.read(x).log().sub(9).sqrt())), REAL),
         '"bad" gives NaN or infinite numbers on 64 of 64 readings of real pictures'),
        (lambda: calibrated(Contrast(PixelFeature("odd", ("odd",), lambda x: x.mean((1, 2, 3)))), REAL),
         r'"odd" gave \(64,\) for 64 pictures'),
    ],
)  # fmt: skip
def test_bad_measurements_are_refused_in_one_line(made, message, no_annotation_checks):
    with pytest.raises(ValueError, match=message) as caught:
        made()
    assert "\n" not in str(caught.value)
