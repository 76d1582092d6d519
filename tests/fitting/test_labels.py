"""Heads on labels whose rule is known: the brightness of a linear generator's images."""

import numpy as np
import pytest
import torch
from PIL import Image
from toys import linear_generator

from steerable.features.network import AllColumns, feature, measure
from steerable.fitting.labels import fit_feature, head_feature, head_state


@pytest.fixture(scope="module")
def generator():
    return linear_generator(5, (3, 4, 4), scale=0.3)


def backbone(images):
    return images.flatten(1)


def mean_of(generator, seeds):
    return [generator(generator.sample(1, seed=seed)).mean().item() for seed in seeds]


def write(path, key, keys, labels):
    path.write_text(f"{key},label\n" + "".join(f"{a},{b}\n" for a, b in zip(keys, labels, strict=True)))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory, generator):
    folder = tmp_path_factory.mktemp("labels")
    seeds = list(range(160))

    def made(rule, key="seed"):
        return write(folder / "labels.csv", key, seeds, [rule(value) for value in mean_of(generator, seeds)])

    return made


def test_two_classes_become_one_column_of_log_odds(table, generator):
    light = fit_feature(table(lambda mean: int(mean > 0)), backbone=backbone, generator=generator, name="light")
    assert light.columns == ("light",) and light.unit == "log-odds" and light.differentiable
    assert light.report["score"] > 0.9 > light.report["baseline"]


def test_the_log_odds_have_the_sign_of_the_class_on_images_never_seen(table, generator):
    light = fit_feature(table(lambda mean: "yes" if mean > 0 else "no"), backbone=backbone, generator=generator, name="light")
    images = generator(generator.sample(200, seed=999))
    right = (light(images)[:, 0] > 0) == (images.mean((1, 2, 3)) > 0)
    assert right.float().mean() > 0.9


def test_two_other_words_say_in_the_column_which_one_is_meant(table, generator):
    light = fit_feature(table(lambda mean: "Very light" if mean > 0 else "dark"), backbone=backbone, generator=generator, name="tone")
    assert light.columns == ("tone-dark",)


def test_three_classes_become_a_column_each(table, generator):
    def rule(mean):
        return "dark" if mean < -0.03 else "light" if mean > 0.03 else "middle"

    tone = fit_feature(table(rule), backbone=backbone, generator=generator, name="tone")
    assert tone.columns == ("tone-dark", "tone-light", "tone-middle")
    assert tone.report["score"] > tone.report["baseline"]


def test_numbers_are_predicted_in_their_own_unit(table, generator):
    tone = fit_feature(table(lambda mean: 100 * mean + 7), backbone=backbone, generator=generator, name="tone", unit="lux")
    images = generator(generator.sample(50, seed=999))
    assert tone.report["score_name"] == "R2" and tone.report["score"] > 0.99
    assert torch.allclose(tone(images)[:, 0], 100 * images.mean((1, 2, 3)) + 7, atol=0.5)


def test_whole_numbers_are_classes_on_request(table, generator):
    path = table(lambda mean: int(np.clip(np.round(mean * 20), -1, 1)))
    tone = fit_feature(path, backbone=backbone, generator=generator, name="tone", kind="classes")
    assert tone.columns == ("tone-minus-1", "tone-0", "tone-1")


def test_the_feature_is_differentiable_to_the_images(table, generator):
    tone = fit_feature(table(lambda mean: mean), backbone=backbone, generator=generator, name="tone")
    images = torch.zeros(1, 3, 4, 4, requires_grad=True)
    tone(images).sum().backward()
    assert images.grad.abs().max() > 0


def test_the_backbone_is_shared_with_other_features(table, generator):
    tone = fit_feature(table(lambda mean: mean), backbone=backbone, generator=generator, name="tone")
    light = fit_feature(table(lambda mean: int(mean > 0)), backbone=backbone, generator=generator, name="light")
    assert tone.network is light.network
    assert set(measure([tone, light], torch.zeros(2, 3, 4, 4))) == {"tone", "light"}


def test_a_head_survives_being_saved(table, generator):
    tone = fit_feature(table(lambda mean: mean), backbone=backbone, generator=generator, name="tone")
    tensors, rest = head_state(tone)
    again = head_feature(tensors, rest, backbone)
    images = generator(generator.sample(5, seed=1))
    assert torch.equal(tone(images), again(images)) and again.report == tone.report


def test_a_head_on_measured_columns_says_why_it_is_not_saved(table, generator):
    columns = AllColumns((feature(lambda images: images.mean((1, 2, 3)), name="mean"),))
    light = fit_feature(table(lambda mean: int(mean > 0)), backbone=columns, generator=generator, name="light", folds=5)
    assert light.report["score"] > 0.9
    with pytest.raises(TypeError, match="reads the measured columns of one session: to save it, fit it on a backbone"):
        head_state(light)


def test_noise_scores_about_its_baseline(table, generator):
    rng = np.random.default_rng(0)
    coin = fit_feature(table(lambda mean: int(rng.random() > 0.5)), backbone=backbone, generator=generator, name="coin")
    assert abs(coin.report["score"] - coin.report["baseline"]) < 0.25


@pytest.mark.parametrize("rule", [lambda mean: int(mean > 0), lambda mean: mean])
def test_folds_score_every_row_by_a_head_that_did_not_see_it_and_keep_one_of_all(table, generator, rule):
    labels = table(rule)
    light = fit_feature(labels, backbone=backbone, generator=generator, name="light", folds=5)
    assert light.report["held_out_rows"] == light.report["rows"] == 160 and light.report["folds"] == 5
    assert 0.85 < light.report["score"] <= 1
    part = fit_feature(labels, backbone=backbone, generator=generator, name="light", held_out=0.5)
    images = generator(generator.sample(300, seed=999))
    truth = images.mean((1, 2, 3))

    def correlation(feature):
        return torch.corrcoef(torch.stack([feature(images)[:, 0], truth]))[0, 1]

    assert correlation(light) > 0.97 and correlation(light) > correlation(part) - 0.01


def test_folds_do_not_score_what_they_were_fitted_on(tmp_path, generator):
    rng = np.random.default_rng(0)
    labels = write(tmp_path / "labels.csv", "seed", range(40), rng.integers(0, 2, 40))
    noise = fit_feature(labels, backbone=backbone, generator=generator, name="noise", folds=5)
    assert noise.report["score"] < noise.report["baseline"] + 0.2  # on its own rows a head of 48 numbers would be right everywhere
    with pytest.raises(ValueError, match="folds are 2 or more"):
        fit_feature(labels, backbone=backbone, generator=generator, name="noise", folds=1)


def test_the_same_row_twice_counts_once(tmp_path, generator):
    seeds = [*range(20), *range(20)]
    path = write(tmp_path / "a.csv", "seed", seeds, mean_of(generator, seeds))
    assert fit_feature(path, backbone=backbone, generator=generator, name="tone").report["rows"] == 20


def test_a_folder_of_pictures_with_a_table_is_learned(tmp_path):
    levels = np.linspace(0, 255, 24).astype(int)
    for level in levels:
        Image.new("RGB", (10, 10), (int(level),) * 3).save(tmp_path / f"{level}.png")
    write(tmp_path / "labels.csv", "file", [f"{level}.png" for level in levels], levels)
    grey = fit_feature(tmp_path, backbone=lambda images: images.mean((2, 3)), name="grey", size=8)
    assert grey(torch.zeros(1, 3, 8, 8)).item() == pytest.approx(127.5, abs=2)


def test_pictures_that_are_missing_are_counted(tmp_path):
    write(tmp_path / "a.csv", "file", [f"{i}.png" for i in range(9)], range(9))
    with pytest.raises(ValueError, match=r"0.png is not there; 9 of 9 pictures"):
        fit_feature(tmp_path / "a.csv", backbone=backbone, name="tone")


def test_a_folder_without_a_table_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no table of labels"):
        fit_feature(tmp_path, backbone=backbone, name="tone")


def test_labels_of_seeds_need_a_generator(table):
    with pytest.raises(ValueError, match="labels seeds, which are images of a generator"):
        fit_feature(table(lambda mean: mean), backbone=backbone, name="tone")


@pytest.mark.parametrize(
    ("seeds", "labels", "message"),
    [
        (range(5), range(5), "labels 5 images; at least 8 are needed"),
        (["x", *range(9)], range(10), 'seeds are whole numbers from 0 on, got "x"'),
        (["1.5", *range(9)], range(10), 'seeds are whole numbers from 0 on, got "1.5"'),
        ([0, *range(9)], [5, *range(9)], "seed 0 has two labels in .*, 5 and 0: keep one"),
        (range(9), ["cat"] * 9, "all 9 labels of .* are cat"),
        (range(9), ["cat"] * 8 + ["dog"], 'class "dog" of .* has 1 image'),
        (range(9), [1, 2, 3, 4, 5, 6, 7, 8, ""], "1 of 9 rows of .* have no seed or no label"),
    ],
)
def test_bad_labels_are_refused_in_one_line(tmp_path, generator, seeds, labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit_feature(write(tmp_path / "a.csv", "seed", seeds, labels), backbone=backbone, generator=generator, name="tone")
    assert "\n" not in str(caught.value)


def test_a_table_without_seed_or_file_names_the_columns_it_has(tmp_path, generator):
    write(tmp_path / "a.csv", "row", range(9), range(9))
    with pytest.raises(ValueError, match="has no column file; it has row, label. Expected seed,label or file,label"):
        fit_feature(tmp_path / "a.csv", backbone=backbone, generator=generator, name="tone")
