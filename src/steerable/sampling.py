"""Latents + features -> tables: the one place where images are generated in order to be measured.

Fitting, calibration and evaluation all come through ``observe``, so what is reported is measured exactly as what was
fitted. ``measure`` is the population: row i of a seed, measured once, kept as Parquet parts that another run, a longer
one or one with one more feature reuses.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks, files, progress
from steerable.features.network import measure as measure_images
from steerable.protocols import Feature, Generator, Latents, home

log = logging.getLogger(__name__)
PART = 256  # rows of one cached part: what an interrupted run loses at most
Key = int  # of a row in a cache: its number in the sample, or its own seed


@dataclass(frozen=True, eq=False)
class Table:
    """What was measured on a population, one row a latent.

    Attributes:
        latents: n of them.
        values: (n, m) float32.
        columns, units: of the m numbers.
        seed: of the latents.
    """

    latents: Latents
    values: Float[Tensor, "n m"]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> Float[Tensor, " n"]:
        return self.values[:, self.columns.index(checks.known(name, self.columns, "column"))]

    def rows(self, rows: slice) -> Table:
        """Some of its rows."""
        return Table(self.latents[rows], self.values[rows], self.columns, self.units, self.seed)


def observe(generator: Generator, features: Sequence[Feature], latents: Latents, *, batch: int = 32) -> Float[Tensor, "n m"]:
    """Generate and measure: all columns of all features side by side, for each latent.

    No more than ``batch`` images exist at a time, whatever n is.
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(latents), batch):
            values = measure_images(features, generator(latents[start : start + batch]))
            parts.append(torch.cat([values[feature.name].float().cpu() for feature in features], dim=1))
    return torch.cat(parts).clone()


def columns_of(features: Sequence[Feature]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of all columns side by side.

    Raises:
        ValueError: two features have a column of the same name.
    """
    names = [name for feature in features for name in feature.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two features have the column {twice[0]}: give columns names of their own.")
    return tuple(names), tuple(feature.unit for feature in features for _ in feature.columns)


def measure(
    generator: Generator,
    features: Sequence[Feature],
    *,
    n: int = 2000,
    seed: int = 0,
    space: str | None = None,
    psi: float = 1.0,
    labels: int | Sequence[int] | Tensor | None = None,
    batch: int = 32,
    cache: str | os.PathLike[str] | None = None,
) -> Table:
    """Measure the n latents of a seed.

    Args:
        features: any number; networks that several share run once an image.
        space: of the table's latents; by default the generator's home, see ``protocols.home``.
        labels: as in ``generator.sample``.
        cache: a folder. Every feature keeps its values there in Parquet parts of 256 rows, so that an interrupted run
            continues, a longer one adds rows, and one with a new feature measures only that feature. The first rows
            are measured again each time: values of a feature that has changed since are thrown away.

    Raises:
        ValueError: two features share a name or a column, a value is not finite, or a cached part is damaged.
    """
    latents = generator.sample(n, seed=seed, space=space or home(generator), psi=psi, labels=labels)
    population = f"seed{seed}-psi{psi:g}"
    if labels is not None and latents.labels is not None:
        population += f"-labels-{_short(latents.labels.cpu().numpy().tobytes())}"
    return _tabulate(generator, features, latents, range(n), population, seed=seed, batch=batch, cache=cache)


def measure_seeds(
    generator: Generator,
    features: Sequence[Feature],
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    label: int | None = None,
    batch: int = 32,
    cache: str | os.PathLike[str] | None = None,
) -> Table:
    """``measure`` for seeds listed one by one: the first latent of each. The cache keeps every seed for itself."""
    population = f"seeds-psi{psi:g}" + ("" if label is None else f"-label{label}")
    latents = latents_of(generator, seeds, psi=psi, labels=label)
    return _tabulate(generator, features, latents, seeds, population, seed=seeds[0], batch=batch, cache=cache)


def _tabulate(
    generator: Generator,
    features: Sequence[Feature],
    latents: Latents,
    keys: Sequence[Key],
    population: str,
    *,
    seed: int,
    batch: int,
    cache: str | os.PathLike[str] | None,
) -> Table:
    names, units = columns_of(features)
    kept = None if cache is None else _Cache(Path(cache) / f"{generator.fingerprint[:12]}-{population}")
    if kept is not None:
        kept.drop_changed(features, keys[:2], observe(generator, features, latents[:2], batch=2))
    parts: dict[int, list[int]] = {}  # part of the cache -> rows of the table
    for row, key in enumerate(keys):
        parts.setdefault(key // PART, []).append(row)
    values = torch.empty(len(latents), len(names))
    for part, rows in progress.track(list(parts.items()), "generate and measure", total=len(parts)):
        values[rows] = _part(generator, features, latents[rows], part, [keys[row] for row in rows], kept, batch)
    return Table(latents, values, names, units, seed)


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]


def latents_of(
    generator: Generator,
    seeds: Sequence[int],
    *,
    space: str | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    labels: int | None = None,
) -> Latents:
    """The first latent of each seed: "the face of seed 7" wherever seeds are listed one by one."""
    more = {} if cutoff is None else {"cutoff": cutoff}  # not every generator has layers to count
    singles = [generator.sample(1, seed=seed, space=space or home(generator), psi=psi, labels=labels, **more) for seed in seeds]
    marks = None if singles[0].labels is None else torch.cat([one.labels for one in singles])  # type: ignore[misc]
    return Latents(torch.cat([one.values for one in singles]), singles[0].space, marks)


def check_table_name(path: str | os.PathLike[str]) -> Path:
    """The path, if its suffix says how to write a table."""
    if Path(path).suffix not in (".csv", ".parquet"):
        raise ValueError(f"tables are written as .csv or .parquet, got {Path(path).name}.")
    return Path(path)


def write_table(path: str | os.PathLike[str], columns: Mapping[str, Sequence[float | int | str]], metadata: Mapping[str, object]) -> Path:
    """A table as CSV or Parquet, whichever the suffix says; Parquet keeps the metadata inside, CSV in ``<name>.json``."""
    import pyarrow
    from pyarrow import csv, parquet

    path = check_table_name(path)
    table = pyarrow.table(dict(columns))
    with files.replacing(path) as temporary:
        if path.suffix == ".csv":
            csv.write_csv(table, temporary)
        else:
            parquet.write_table(table.replace_schema_metadata({"steerable": json.dumps(metadata)}), temporary)
    if path.suffix == ".csv":
        files.write_text(path.with_suffix(".json"), json.dumps(metadata, indent=1) + "\n")
    return path


def _part(
    generator: Generator,
    features: Sequence[Feature],
    latents: Latents,
    part: int,
    keys: Sequence[Key],
    cache: _Cache | None,
    batch: int,
) -> Float[Tensor, "n m"]:
    """The rows of one part, from the cache as far as it has them; what is measured goes into the cache."""
    known = {feature.name: {} if cache is None else cache.read(feature, part) for feature in features}
    lacking = {name: tuple(i for i, key in enumerate(keys) if key not in rows) for name, rows in known.items()}
    for rows in sorted({rows for rows in lacking.values() if rows}):  # features that lack the same rows share their images
        wanted = [feature for feature in features if lacking[feature.name] == rows]
        values = observe(generator, wanted, latents[list(rows)], batch=batch)
        checks.finite(values, f"measured {', '.join(f.name for f in wanted)}"[:120])
        for feature, measured in zip(wanted, values.split([len(f.columns) for f in wanted], dim=1), strict=True):
            known[feature.name] |= {keys[i]: row for i, row in zip(rows, measured, strict=True)}
            if cache is not None:
                cache.write(feature, part, known[feature.name])
    return torch.cat([torch.stack([known[feature.name][key] for key in keys]) for feature in features], dim=1)


class _Cache:
    """Parquet parts, one folder for each population and feature: ``<generator>-<sampling>/<feature>/rows-000256.parquet``.

    Part p has the rows with the keys 256 p to 256 p + 255, as many of them as were asked for so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, feature: Feature, part: int) -> dict[Key, Float[Tensor, " m"]]:
        """The cached rows of a part, by key."""
        from pyarrow import ArrowInvalid, parquet

        path = self._file(feature, part)
        if not path.exists():
            return {}
        try:
            table = parquet.read_table(path, columns=["key", *feature.columns])
            values = torch.tensor([table[name].to_pylist() for name in feature.columns], dtype=torch.float32).T
            return dict(zip(table["key"].to_pylist(), values, strict=True))
        except (ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({files.sniff(path)}): delete it and run again; only its rows are measured anew."
            ) from error

    def write(self, feature: Feature, part: int, rows: Mapping[Key, Tensor]) -> None:
        import pyarrow
        from pyarrow import parquet

        keys = sorted(rows)
        values = torch.stack([rows[key] for key in keys])
        table = pyarrow.table({"key": keys, **{name: values[:, i].numpy() for i, name in enumerate(feature.columns)}})
        with files.replacing(self._file(feature, part)) as temporary:
            parquet.write_table(table, temporary)

    def drop_changed(self, features: Sequence[Feature], keys: Sequence[Key], now: Float[Tensor, "n m"]) -> None:
        """Forget every feature that no longer measures what the cache holds on these rows."""
        for feature, values in zip(features, now.split([len(f.columns) for f in features], dim=1), strict=True):
            kept = {part: self.read(feature, part) for part in {key // PART for key in keys}}
            for key, value in zip(keys, values, strict=True):
                then = kept[key // PART].get(key)
                if then is not None and not torch.allclose(then, value, rtol=1e-3, atol=1e-4 * float(then.abs().max() + 1e-6)):
                    log.info("%s has changed since it was cached in %s: measured anew", feature.name, self.folder)
                    shutil.rmtree(self._file(feature, 0).parent)
                    break

    def _file(self, feature: Feature, part: int) -> Path:
        key = _short("\n".join((feature.name, *feature.columns)).encode())
        plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in feature.name)[:40]
        return self.folder / f"{plain}-{key}" / f"rows-{part * PART:06d}.parquet"


def in_batches(latents: Latents, size: int) -> Iterator[Latents]:
    """The latents in order, ``size`` at a time."""
    for start in range(0, len(latents), size):
        yield latents[start : start + size]
