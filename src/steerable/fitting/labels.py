"""Bring your own labels: a table of labelled images -> a small head on backbone features -> a Feature like any other.

Labels are for seeds of a generator (``seed,label``) or for pictures in a folder (``file,label``). Classes get a logistic
regression, numbers a ridge regression, both from scikit-learn, with the strength chosen by cross-validation; what ships is
the linear head alone, in torch, so gradients pass through it to the images. ``data`` reads the files.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerable.data import image_files, read_columns, read_images
from steerable.features.network import AllColumns, NetworkFeature
from steerable.progress import track
from steerable.protocols import Generator, Images
from steerable.sampling import latents_of

Kind = Literal["auto", "classes", "numbers"]
YES = ({"0", "1"}, {"-1", "1"}, {"no", "yes"}, {"false", "true"}, {"n", "y"})  # pairs in which it is clear what there is more of
FEWEST = 8  # rows
STRENGTHS = np.logspace(-4, 1, 6)


class LabelHead(nn.Module):
    """Backbone features (n, f) -> (n, k): a linear map, the standardisation folded into it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Float[Tensor, "k f"], bias: Float[Tensor, " k"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.linear(rows, self.weight, self.bias)


def fit_feature(
    labels: str | os.PathLike[str],
    *,
    backbone: Callable[[Images], Tensor],
    name: str,
    generator: Generator | None = None,
    images: str | os.PathLike[str] | None = None,
    column: str = "label",
    kind: Kind = "auto",
    unit: str = "",
    size: int | tuple[int, int] = 64,
    seed: int = 0,
    held_out: float = 0.25,
    folds: int | None = None,
    batch: int = 32,
) -> NetworkFeature:
    """Train a feature on labelled images.

    Args:
        labels: CSV or Parquet with the columns ``seed`` and ``column`` (the image is the generator's for the first row of
            that seed), or ``file`` and ``column`` (paths relative to ``images``, by default the table's folder); or a
            folder of pictures with one such table in it, ``labels.csv`` or ``labels.parquet``.
        backbone: images -> (n, f), differentiable; features that share it run it once.
        name: of the feature, and of its column where there is one. More is more of the label: of the number, or the
            log-odds of 1, yes or true. Of two other classes the second in the alphabet is meant, and the column says
            so (``name-class``); more than two classes have a column each.
        kind: "numbers" or "classes"; by default labels are numbers when all are numeric and more than two differ.
        unit: of numbers; classes are in log-odds.
        size: pictures of a folder are cropped and resized to this, or to the generator's size if one is given.
        held_out: share of the rows that the head never sees, on which it is scored. The head that is scored is the one
            returned: it is not fitted again on everything, so that the score is its own.
        folds: for a few dozen labels, in place of ``held_out``: every row is judged by a head that was fitted on the other folds,
            and the head returned is fitted on all of them.

    Returns:
        A feature whose ``report`` has kind, rows, the held-out score (accuracy or R2) and, for classes, ``baseline``, the
        accuracy of always naming the commonest class.

    Raises:
        ValueError: the table or its pictures cannot be used; one line that says why and counts the rows.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share of the rows between 0 and 1, got {held_out}.")
    if folds is not None and folds < 2:
        raise ValueError(f"folds are 2 or more, or None, got {folds}.")
    table, by = _table(Path(labels), column)
    keys, given = _rows(table, by, column, labels)
    if by == "seed":
        if generator is None:
            raise ValueError(f"{labels} labels seeds, which are images of a generator: fit_feature(..., generator=...).")
        rows = _features_of_seeds(generator, [_seed(key, labels) for key in keys], backbone, batch)
    else:
        folder = Path(images) if images is not None else Path(labels) if Path(labels).is_dir() else Path(labels).parent
        channels, *pixels = generator.image_shape if generator is not None else (3, *((size, size) if isinstance(size, int) else size))
        pictures = read_images([folder / str(key) for key in keys], (pixels[0], pixels[1]), channels=channels)
        rows = _features(pictures, backbone, batch)
    target = _target(given, name, kind, labels)
    head, report = _fit(rows, target, seed, held_out) if folds is None else _fit_in_folds(rows, target, seed, folds)
    report |= {"labels": Path(labels).name, "by": by, "seed": seed}
    if by == "seed" and generator is not None:
        report["fingerprint"] = generator.fingerprint
    unit = "log-odds" if target.classes else unit
    return NetworkFeature(name, target.columns, unit, "l2", backbone, head, report=report)


def head_state(feature: NetworkFeature) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a file needs to make the feature again: the head's tensors, and the rest as JSON values.

    Raises:
        TypeError: the feature was not made by ``fit_feature``, or reads measured columns, of which a file says nothing.
    """
    if not isinstance(feature.read, LabelHead):
        raise TypeError(f'"{feature.name}" was not made by fit_feature, so it has no head to save.')
    if isinstance(feature.network, AllColumns):
        raise TypeError(f'"{feature.name}" reads the measured columns of one session: to save it, fit it on a backbone, load_backbone().')
    rest = {"name": feature.name, "columns": list(feature.columns), "unit": feature.unit, "report": feature.report}
    return {key: value.clone() for key, value in feature.read.state_dict().items()}, rest


def head_feature(tensors: Mapping[str, Tensor], rest: Mapping[str, Any], backbone: Callable[[Images], Tensor]) -> NetworkFeature:
    """The feature again, from ``head_state`` and the backbone that it was trained on."""
    head = LabelHead(tensors["weight"], tensors["bias"])
    return NetworkFeature(rest["name"], tuple(rest["columns"]), rest["unit"], "l2", backbone, head, report=rest["report"])


# ------------------------------------------------------------------ the table


def _table(labels: Path, column: str) -> tuple[Mapping[str, list[Any]], str]:
    """The two columns of the table, and whether it is by seed or by file."""
    if labels.is_dir():
        image_files(labels)
        names = [labels / "labels.csv", labels / "labels.parquet"]
        found = [path for path in names if path.is_file()]
        if not found:
            raise ValueError(f"{labels} has pictures and no table of labels: put labels.csv with the columns file,{column} beside them.")
        labels = found[0]
    try:
        return read_columns(labels, ("seed", column)), "seed"
    except ValueError as error:
        if "has no column seed" not in str(error):
            raise
    try:
        return read_columns(labels, ("file", column)), "file"
    except ValueError as error:
        raise ValueError(str(error).replace(f"Expected file, {column}", f"Expected seed,{column} or file,{column}")) from None


def _rows(table: Mapping[str, list[Any]], by: str, column: str, where: Any) -> tuple[list[Any], list[Any]]:
    """One row for each seed or file; the same label twice counts once, so that no image is both trained on and held out."""
    kept: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    empty = 0
    for key, value in zip(table[by], table[column], strict=True):
        if key in (None, "") or value in (None, "") or (isinstance(value, float) and not math.isfinite(value)):
            empty += 1
            continue
        if str(kept.setdefault(str(key), value)) != str(value):
            raise ValueError(f"{by} {key} has two labels in {where}, {kept[str(key)]} and {value}: keep one.")
        keys[str(key)] = key
    if empty:
        raise ValueError(f"{empty} of {len(table[by])} rows of {where} have no {by} or no {column}: fill them in or take them out.")
    if len(kept) < FEWEST:
        raise ValueError(f"{where} labels {len(kept)} images; at least {FEWEST} are needed, and a few hundred are good.")
    return list(keys.values()), list(kept.values())


def _seed(key: Any, where: Any) -> int:
    number = _number(key)
    if number is None or number < 0 or number != int(number):
        raise ValueError(f'seeds are whole numbers from 0 on, got "{key}" in {where}.')
    return int(number)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


# ------------------------------------------------------------------ what is learned


@dataclass(frozen=True)
class _Target:
    values: np.ndarray  # numbers, or indices of classes
    classes: tuple[str, ...]  # () for numbers
    columns: tuple[str, ...]


def _target(given: Sequence[Any], name: str, kind: Kind, where: Any) -> _Target:
    numbers = [_number(value) for value in given]
    numeric = all(number is not None for number in numbers)
    if len(set(map(str, given))) < 2:
        raise ValueError(f"all {len(given)} labels of {where} are {given[0]}: at least two different ones are needed.")
    if kind not in ("auto", "classes", "numbers"):
        raise ValueError(f'kind is "auto", "classes" or "numbers", got "{kind}".')
    if kind == "numbers" and not numeric:
        wrong = next(value for value, number in zip(given, numbers, strict=True) if number is None)
        raise ValueError(f'labels of {where} are not all finite numbers, got "{wrong}": leave kind out to learn classes.')
    if kind == "numbers" or (kind == "auto" and numeric and len(set(numbers)) > 2):
        return _Target(np.asarray(numbers, np.float64), (), (name,))
    words = [f"{number:g}" if numeric and number is not None else str(value) for value, number in zip(given, numbers, strict=True)]
    counts = Counter(words)
    few = [word for word, count in counts.items() if count < 2]
    if few:
        raise ValueError(
            f'class "{few[0]}" of {where} has 1 image, each class needs at least 2; {len(few)} of {len(counts)} classes have fewer. '
            'For numbers: kind="numbers".'
        )
    classes = tuple(sorted(counts, key=lambda word: (_number(word) is None, _number(word) or 0.0, word)))
    plain = [word.lower() if _number(word) is None else word.replace("-", "minus ") for word in classes]
    slugs = [re.sub(r"[^a-z0-9]+", "-", word).strip("-") or f"class-{i}" for i, word in enumerate(plain)]
    if len(classes) == 2:
        columns = (name,) if {word.lower() for word in classes} in YES else (f"{name}-{slugs[1]}",)
    else:
        columns = tuple(f"{name}-{slug}" for slug in slugs)
    if len(set(columns)) < len(columns):
        raise ValueError(f"classes of {where} differ only in letters that names cannot have: {', '.join(classes)}.")
    return _Target(np.asarray([classes.index(word) for word in words]), classes, columns)


def _features_of_seeds(generator: Generator, seeds: list[int], backbone: Callable[[Images], Tensor], batch: int) -> np.ndarray:
    latents = latents_of(generator, seeds)
    parts = []
    with torch.no_grad():
        for start in track(range(0, len(latents), batch), "features of the labelled images"):
            parts.append(_checked(backbone(generator(latents[start : start + batch])), min(batch, len(latents) - start)))
    return np.concatenate(parts)


def _features(images: Images, backbone: Callable[[Images], Tensor], batch: int) -> np.ndarray:
    with torch.no_grad():
        pieces = images.split(batch)
        return np.concatenate([_checked(backbone(piece), len(piece)) for piece in track(pieces, "features of the labelled images")])


def _checked(rows: Tensor, n: int) -> np.ndarray:
    if rows.ndim != 2 or len(rows) != n or not bool(rows.isfinite().all()):
        raise ValueError(f"the backbone has to give finite features (n, f), got {tuple(rows.shape)} for {n} images.")
    return rows.double().cpu().numpy()


def _fit(rows: np.ndarray, target: _Target, seed: int, held_out: float) -> tuple[LabelHead, dict[str, Any]]:
    """A head on some of the rows, scored on the others."""
    from sklearn.model_selection import train_test_split

    count = max(round(held_out * len(rows)), len(target.classes), 2)
    count = min(count, len(rows) - max(len(target.classes), 2))
    stratify = target.values if target.classes else None
    train, test = map(np.asarray, train_test_split(np.arange(len(rows)), test_size=count, random_state=seed, stratify=stratify))
    head, strength = _head(rows[train], target.values[train], target.classes, seed)
    return head, _report(rows, target, strength) | {"held_out_rows": len(test)} | _scored(_told(head, rows[test]), target, train, test)


def _fit_in_folds(rows: np.ndarray, target: _Target, seed: int, folds: int) -> tuple[LabelHead, dict[str, Any]]:
    """A head on all rows, scored by others of which each saw all folds but one."""
    from sklearn.model_selection import KFold, StratifiedKFold

    most = int(np.bincount(target.values).min()) if target.classes else len(rows)
    kind = StratifiedKFold if target.classes else KFold
    told = np.zeros((len(rows), 1 if len(target.classes) <= 2 else len(target.classes)))
    for train, test in kind(min(folds, most), shuffle=True, random_state=seed).split(rows, target.values):
        told[test] = _told(_head(rows[train], target.values[train], target.classes, seed)[0], rows[test])
    head, strength = _head(rows, target.values, target.classes, seed)
    everything = np.arange(len(rows))
    counted = {"held_out_rows": len(rows), "folds": min(folds, most)}
    return head, _report(rows, target, strength) | counted | _scored(told, target, everything, everything)


def _head(rows: np.ndarray, values: np.ndarray, classes: Sequence[str], seed: int) -> tuple[LabelHead, float]:
    """Logistic or ridge regression on standardised rows, folded into one linear map; and its strength."""
    from sklearn.linear_model import RidgeCV

    mean, spread = rows.mean(0), rows.std(0)
    spread = np.where(spread > 1e-8, spread, np.inf)  # a constant feature says nothing
    x = (rows - mean) / spread
    if classes:
        weight, bias, strength = _logistic(x, values, seed)
    else:
        centre, scale = values.mean(), values.std() or 1.0
        model = RidgeCV(alphas=np.logspace(-1, 6, 22)).fit(x, (values - centre) / scale)
        weight, bias = np.asarray(model.coef_)[None] * scale, np.atleast_1d(np.asarray(model.intercept_)) * scale + centre
        strength = float(np.asarray(model.alpha_))
    weight, bias = weight / spread, bias - (weight / spread) @ mean
    return LabelHead(torch.from_numpy(weight).float(), torch.from_numpy(bias).float()), strength


def _told(head: LabelHead, rows: np.ndarray) -> np.ndarray:
    return head(torch.from_numpy(rows).float()).double().numpy()


def _report(rows: np.ndarray, target: _Target, strength: float) -> dict[str, Any]:
    kind = "classes" if target.classes else "numbers"
    return {"kind": kind, "rows": len(rows), "strength": strength, "classes": list(target.classes)}


def _scored(told: np.ndarray, target: _Target, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Accuracy beside that of the commonest class of ``train``, or R2, of what was told of the rows ``test``."""
    y = target.values
    if target.classes:
        chosen = (told[:, 0] > 0).astype(int) if len(target.classes) == 2 else told.argmax(1)
        common = np.bincount(y[train]).argmax()
        return {"score_name": "accuracy", "score": float((chosen == y[test]).mean()), "baseline": float((y[test] == common).mean())}
    left = ((told[:, 0] - y[test]) ** 2).sum() / max(((y[test] - y[train].mean()) ** 2).sum(), 1e-12)
    return {"score_name": "R2", "score": float(1 - left), "baseline": 0.0}


def _logistic(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights and biases of the log-odds: one row for two classes, one a class (centred) for more."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    folds = min(4, int(np.bincount(y).min()))
    strength = 1e-2
    if folds > 1:
        search = GridSearchCV(
            LogisticRegression(max_iter=5000),
            {"C": STRENGTHS},
            cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
            scoring="neg_log_loss",
        )
        strength = float(search.fit(x, y).best_params_["C"])
    model = LogisticRegression(C=strength, max_iter=5000).fit(x, y)
    return model.coef_, model.intercept_, strength
