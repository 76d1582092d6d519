"""Measured once, kept, and never pretended: what a cache reuses, what it measures again, and what it refuses."""

import csv
import json

import pytest
import torch
from toys import LinearGenerator, OnePixel, linear_generator

from steerable.features.network import feature
from steerable.protocols import Latents
from steerable.sampling import PART, columns_of, in_batches, latents_of, measure, measure_seeds, observe, write_table


@pytest.fixture
def generator():
    return linear_generator(6, (3, 4, 4))


class Watched:
    """A feature that remembers how many images it saw at a time, and may be interrupted after some."""

    name, columns, unit, metric, differentiable = "corner", ("corner",), "levels", "l2", True

    def __init__(self, *, scale=1.0, stop_after=None):
        self.batches, self.scale, self.stop_after = [], scale, stop_after

    @property
    def seen(self):
        return sum(self.batches)

    def __call__(self, images):
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        return self.scale * images[:, 0, 0, :1]


def parts(folder):
    return sorted(folder.rglob("*.parquet"))


# ------------------------------------------------------------------ measuring


def test_every_row_is_measured_as_it_would_be_alone(generator):
    table = measure(generator, [OnePixel(0, 0), OnePixel(1, 2)], n=70)
    images = generator(generator.sample(70, seed=0))
    assert torch.allclose(table.values, torch.stack([images[:, 0, 0, 0], images[:, 0, 1, 2]], 1), atol=1e-6)
    assert table.columns == ("pixel-0-0-0", "pixel-0-1-2") and table.units == ("levels", "levels")


def test_a_column_is_taken_by_name(generator):
    table = measure(generator, [OnePixel(0, 0), OnePixel(1, 2)], n=5)
    assert torch.equal(table.column("pixel-0-1-2"), table.values[:, 1])
    with pytest.raises(ValueError, match=r'unknown column "pixel-0-1-3": did you mean "pixel-0-1-2"\?'):
        table.column("pixel-0-1-3")


def test_some_rows_are_a_table_again(generator):
    table = measure(generator, [OnePixel()], n=10)
    some = table.rows(slice(4, 7))
    assert len(some) == 3 and torch.equal(some.values, table.values[4:7])
    assert torch.equal(some.latents.values, table.latents.values[4:7])


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_no_more_images_than_a_batch_exist_at_a_time(generator, batch):
    watched = Watched()
    measure(generator, [watched], n=300, batch=batch)
    assert max(watched.batches) == batch and watched.seen == 300


def test_the_size_of_the_batch_does_not_change_the_values(generator):
    first, second = (measure(generator, [OnePixel()], n=40, batch=batch).values for batch in (1, 32))
    assert torch.allclose(first, second, atol=1e-6)


def test_values_can_be_used_with_gradients_afterwards(generator):
    values = observe(generator, [OnePixel()], generator.sample(3, seed=0))
    assert not values.is_inference() and not values.requires_grad


def test_a_value_that_is_not_finite_is_refused_by_the_features_name(generator):
    class Broken(Watched):
        def __call__(self, images):
            return images[:, 0, 0, :1] / 0

    with pytest.raises(ValueError, match=r"measured corner: 10 of 10 numbers are NaN or infinite"):
        measure(generator, [Broken()], n=10)


def test_two_features_with_one_column_are_refused(generator):
    with pytest.raises(ValueError, match="two features have the column corner: give columns names of their own"):
        columns_of([Watched(), Watched()])


def test_psi_and_labels_reach_the_generator(generator):
    table = measure(generator, [OnePixel()], n=6, psi=0.5, labels=[0, 1, 2, 0, 1, 2])
    assert torch.allclose(table.latents.values, 0.5 * generator.sample(6, seed=0).values)
    assert table.latents.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_seeds_one_by_one_are_the_first_latents_of_each(generator):
    expected = torch.cat([generator.sample(1, seed=seed).values for seed in (7, 3, 40)])
    assert torch.equal(latents_of(generator, [7, 3, 40]).values, expected)
    table = measure_seeds(generator, [OnePixel()], [7, 3, 40])
    assert torch.equal(table.latents.values, expected) and torch.allclose(
        table.values, OnePixel()(generator(Latents(expected, generator.spaces["z"])))
    )


def test_batches_are_the_rows_in_order(generator):
    latents = generator.sample(7, seed=0)
    pieces = list(in_batches(latents, 3))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    assert torch.equal(torch.cat([piece.values for piece in pieces]), latents.values)


# ------------------------------------------------------------------ the cache


def test_a_second_run_measures_only_the_first_rows_again(generator, tmp_path):
    first = measure(generator, [Watched()], n=300, cache=tmp_path)
    again = Watched()
    second = measure(generator, [again], n=300, cache=tmp_path)
    assert again.seen == 2 and torch.equal(first.values, second.values)


def test_a_longer_list_of_seeds_measures_only_the_new_ones(generator, tmp_path):
    measure_seeds(generator, [Watched()], [3, 5, 700], cache=tmp_path)
    longer = Watched()
    table = measure_seeds(generator, [longer], [5, 4, 3, 701, 700], cache=tmp_path)
    assert longer.seen == 2 + 2  # the first two rows again, and seeds 4 and 701
    torch.testing.assert_close(table.values, measure_seeds(generator, [Watched()], [5, 4, 3, 701, 700]).values)


def test_an_interrupted_run_loses_at_most_one_part(generator, tmp_path):
    interrupted = Watched(stop_after=2 * PART + 100)
    with pytest.raises(KeyboardInterrupt):
        measure(generator, [interrupted], n=3 * PART, cache=tmp_path)
    assert len(parts(tmp_path)) == 2
    resumed = Watched()
    table = measure(generator, [resumed], n=3 * PART, cache=tmp_path)
    assert resumed.seen == PART + 2
    assert torch.equal(table.values, measure(generator, [Watched()], n=3 * PART).values)


def test_an_interrupted_run_leaves_no_half_written_file(generator, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        measure(generator, [Watched(stop_after=PART + 40)], n=2 * PART, cache=tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["rows-000000.parquet"]


def test_a_longer_run_keeps_the_whole_parts_of_a_shorter_one(generator, tmp_path):
    measure(generator, [Watched()], n=PART, cache=tmp_path)
    longer = Watched()
    measure(generator, [longer], n=PART + 50, cache=tmp_path)
    assert longer.seen == 50 + 2


def test_a_shorter_run_needs_nothing_new(generator, tmp_path):
    full = measure(generator, [Watched()], n=300, cache=tmp_path)
    shorter = Watched()
    table = measure(generator, [shorter], n=270, cache=tmp_path)
    assert shorter.seen == 2 and torch.equal(table.values, full.values[:270])


def test_a_new_feature_is_measured_beside_cached_ones(generator, tmp_path):
    measure(generator, [Watched()], n=300, cache=tmp_path)
    old = Watched()
    table = measure(generator, [OnePixel(1, 2), old], n=300, cache=tmp_path)
    assert old.seen == 2
    assert torch.equal(table.values, measure(generator, [OnePixel(1, 2), Watched()], n=300).values)


def test_a_feature_that_changed_is_measured_anew(generator, tmp_path):
    measure(generator, [Watched()], n=300, cache=tmp_path)
    changed = Watched(scale=2.0)
    table = measure(generator, [changed], n=300, cache=tmp_path)
    assert changed.seen == 300 + 2
    assert torch.allclose(table.values, 2 * measure(generator, [Watched()], n=300).values)


@pytest.mark.parametrize("other", [{"seed": 1}, {"psi": 0.7}, {"labels": 1}])
def test_another_population_has_a_cache_of_its_own(generator, tmp_path, other):
    measure(generator, [Watched()], n=20, cache=tmp_path)
    watched = Watched()
    measure(generator, [watched], n=20, cache=tmp_path, **other)
    assert watched.seen == 20 + 2
    assert len(parts(tmp_path)) == 2


def test_another_generator_has_a_cache_of_its_own(generator, tmp_path):
    measure(generator, [Watched()], n=20, cache=tmp_path)
    other = LinearGenerator(generator.matrix * 2, generator.offset, generator.image_shape, "a8010000")
    assert torch.equal(measure(other, [Watched()], n=20, cache=tmp_path).values, measure(other, [Watched()], n=20).values)


def test_one_name_with_other_columns_is_another_feature(generator, tmp_path):
    for columns in (("a",), ("b",)):
        one = feature(lambda images: images[:, 0, 0, 0], name="corner", columns=columns)
        measure(generator, [one], n=20, cache=tmp_path)
    assert len(parts(tmp_path)) == 2


def test_any_name_of_a_feature_is_a_folder_inside_the_cache(generator, tmp_path):
    odd = feature(lambda images: images[:, 0, 0, 0], name="../../ä/b: c?")
    table = measure(generator, [odd], n=20, cache=tmp_path / "cache")
    assert len(parts(tmp_path / "cache")) == 1 and len(parts(tmp_path)) == 1
    assert torch.equal(measure(generator, [odd], n=20, cache=tmp_path / "cache").values, table.values)


@pytest.mark.parametrize(
    ("damage", "say"),
    [
        (lambda content: content[:40], "a Parquet file"),
        (lambda content: b"", "an empty file"),
        (lambda content: b"<html></html>", "an HTML page"),
    ],
    ids=["truncated", "empty", "a web page"],
)
def test_a_damaged_part_is_refused_by_its_name(generator, tmp_path, damage, say):
    measure(generator, [Watched()], n=2 * PART, cache=tmp_path)
    part = parts(tmp_path)[1]
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(ValueError, match=rf"rows-000256\.parquet is damaged \({say}\): delete it and run again"):
        measure(generator, [Watched()], n=2 * PART, cache=tmp_path)
    part.unlink()
    repaired = Watched()
    measure(generator, [repaired], n=2 * PART, cache=tmp_path)
    assert repaired.seen == PART + 2


def test_a_part_of_another_table_is_refused_by_its_name(generator, tmp_path):
    import pyarrow
    from pyarrow import parquet

    measure(generator, [Watched()], n=20, cache=tmp_path)
    (part,) = parts(tmp_path)
    parquet.write_table(pyarrow.table({"else": [1.0] * 20}), part)
    with pytest.raises(ValueError, match=r"rows-000000\.parquet is damaged"):
        measure(generator, [Watched()], n=20, cache=tmp_path)


def test_a_part_with_holes_is_refused_by_its_name(generator, tmp_path):
    import pyarrow
    from pyarrow import parquet

    measure(generator, [Watched()], n=20, cache=tmp_path)
    (part,) = parts(tmp_path)
    parquet.write_table(pyarrow.table({"corner": [1.0] * 10 + [None] * 10}), part)
    with pytest.raises(ValueError, match=r"rows-000000\.parquet is damaged"):
        measure(generator, [Watched()], n=20, cache=tmp_path)


# ------------------------------------------------------------------ tables


def test_a_csv_has_its_description_beside_it(tmp_path):
    path = write_table(tmp_path / "out.csv", {"seed": [1, 2], "yaw": [0.5, -3.0]}, {"unit": "deg"})
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"seed": "1", "yaw": "0.5"}, {"seed": "2", "yaw": "-3"}]
    assert json.loads((tmp_path / "out.json").read_text()) == {"unit": "deg"}


def test_a_parquet_file_has_its_description_inside(tmp_path):
    from pyarrow import parquet

    write_table(tmp_path / "out.parquet", {"seed": [1, 2], "yaw": [0.5, -3.0]}, {"unit": "deg"})
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.to_pydict() == {"seed": [1, 2], "yaw": [0.5, -3.0]}
    assert json.loads(table.schema.metadata[b"steerable"]) == {"unit": "deg"}


def test_another_suffix_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"tables are written as \.csv or \.parquet, got out\.xlsx"):
        write_table(tmp_path / "out.xlsx", {"seed": [1]}, {})
    assert not list(tmp_path.iterdir())
