"""Attribute axes: the direction along which a measured attribute grows, one generalised linear model a column.

    sample -> generate -> measure -> regress -> free of each other -> calibrate

Ridge regression with a cross-validated strength for numbers, logistic regression for yes/no attributes; the axis is the
gradient of the model. Every axis reports its score on latents that no model has seen.

Source: Guan, "TL-GAN: transparent latent-space GAN", 2018. Its Gram-Schmidt step, which depends on the order of the
attributes, is replaced by the exact projection of ``Directions.held``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable import checks, progress
from steerable.controls.directions import Directions
from steerable.features.network import column
from steerable.fitting.calibrate import Change, rescaled
from steerable.protocols import Feature, Generator, Knob, Latents
from steerable.sampling import Table, columns_of, measure, observe

STRENGTHS = np.logspace(0, 5, 21)
FOLDS = 10


@dataclass(frozen=True)
class Axis:
    """One fitted model: the attribute's gradient in latent space, and how well it predicts unseen latents."""

    gradient: Tensor
    kind: str
    score_name: str
    score: float
    strength: float


def fit_axes(
    generator: Generator,
    features: Sequence[Feature],
    *,
    columns: Sequence[str] | None = None,
    n: int = 2000,
    seed: int = 0,
    hold: Sequence[str] | Mapping[str, Sequence[str]] = (),
    whiten: bool = False,
    space: str | None = None,
    psi: float = 1.0,
    calibration: int = 96,
    batch: int = 32,
    cache: str | os.PathLike[str] | None = None,
) -> Directions:
    """One calibrated axis for each column of the features.

    Args:
        columns: fit only these (and what they hold); all by default.
        n, seed: of the population that is measured once and fitted on: rows 0 to n - 1 of the seed.
        hold: attributes that every other axis must leave alone, or for each axis its own: ``{"smile": ["yaw", "mouth-open"]}``.
        whiten: hold under the latents' covariance, so that corrections go where latents vary.
        space: where the axes live; by default w where the generator has one, its first space otherwise.
        calibration: further rows of the seed, which no model has seen, for units and ranges.
        cache: a folder that keeps what was measured; see ``sampling.measure``.

    Returns:
        Directions with ``fit["axes"][name]``: the model, and its held-out score, R2 or AUC: ten-fold, so that every one of the n
        latents is predicted once by a model that has not seen it. The axis that ships is refitted on all n.

    Raises:
        ValueError: unknown names, an attribute that never varies, too few latents, or a hold that leaves nothing.
    """
    if n < 40 or calibration < 16:
        raise ValueError(f"axes need n >= 40 latents and calibration >= 16, got n={n}, calibration={calibration}.")
    if not features:
        raise ValueError('fit_axes needs at least one feature, e.g. load_features("faces").')
    names, _ = columns_of(features)
    for name in [*(columns or ()), *_held_names(hold)]:
        checks.known(name, names, "attribute")
    wanted = [c for c in names if columns is None or c in columns or c in _held_names(hold)]
    everything = measure(generator, features, n=n + calibration, seed=seed, space=space, psi=psi, batch=batch, cache=cache)
    table, unseen = everything.rows(slice(0, n)), everything.rows(slice(n, None))

    axes = regress(table, wanted)
    directions = _hold(_directions(table, axes, features), hold, covariance(table.latents) if whiten else None)
    changes = {name: _change(generator, features, unseen, name, axis.kind, batch) for name, axis in axes.items()}
    directions = rescaled(directions, changes, unseen.latents, {name: table.column(name) for name in wanted})
    return directions if columns is None else directions[[name for name in wanted if name in columns]]


def _directions(table: Table, axes: Mapping[str, Axis], features: Sequence[Feature]) -> Directions:
    """The axes before anything is held: one unit is one unit of the model's prediction."""
    gradients = torch.stack([axis.gradient for axis in axes.values()])
    units = dict(zip(table.columns, table.units, strict=True))
    space = table.latents.space
    scores = {name: {"model": axis.kind, axis.score_name: axis.score, "strength": axis.strength} for name, axis in axes.items()}
    return Directions(
        knobs=tuple(Knob(name, "log-odds" if axis.kind == "logistic" else units[name], 0.0, 0.0) for name, axis in axes.items()),
        space=space,
        vectors=(gradients / gradients.square().sum(1, keepdim=True)).unflatten(1, space.shape),
        normals=gradients.unflatten(1, space.shape),
        fit={"method": "axes", "n": len(table), "seed": table.seed, "features": [one.name for one in features], "axes": scores},
    )


def covariance(latents: Latents) -> Tensor:
    """(d, d) sample covariance of flattened latents."""
    return torch.cov(latents.values.flatten(1).double().T)


def score_of(directions: Directions, name: str) -> tuple[str, float]:
    """The held-out score of an axis: ("R2", 0.73) or ("AUC", 0.9)."""
    record = directions.fit["axes"][checks.known(name, directions.fit["axes"], "axis")]
    kind = "R2" if "R2" in record else "AUC"
    return kind, record[kind]


def regress(table: Table, names: Sequence[str]) -> dict[str, Axis]:
    """A linear model of each named column, on standardised latents; gradients are in the latents' own units."""
    x = table.latents.values.flatten(1).cpu().double().numpy()
    scale = x.std(0) + 1e-12
    rows = (x - x.mean(0)) / scale
    y = {name: table.column(name).double().numpy() for name in names}
    for name, values in y.items():
        if len(np.unique(values)) < 2:
            raise ValueError(f'"{name}" is {values[0]:g} for all {len(values)} latents: there is nothing to fit. Leave it out.')
    binary = [name for name in names if len(np.unique(y[name])) == 2]
    axes = _ridges(rows, {name: y[name] for name in names if name not in binary})
    for name in progress.track(binary, "logistic regression"):
        axes[name] = _logistic(rows, y[name] == y[name].max(), name)
    gradients = {name: (axes[name].gradient / torch.from_numpy(scale)).float() for name in names}
    return {name: replace(axes[name], gradient=gradients[name]) for name in names}


def _ridges(x: np.ndarray, y: Mapping[str, np.ndarray]) -> dict[str, Axis]:
    """All columns at once, since one decomposition of the latents serves every column and strength."""
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    if not y:
        return {}
    targets = np.stack(list(y.values()), axis=1)  # (n, k)
    model: Any = RidgeCV(alphas=STRENGTHS, alpha_per_target=True)  # scikit-learn's own annotations lack what a fit adds
    guesses = np.empty_like(targets)
    for train, test in progress.track(list(KFold(FOLDS).split(x)), "ridge regression, ten folds"):
        guesses[test] = model.fit(x[train], targets[train]).predict(x[test]).reshape(len(test), -1)
    scores = np.atleast_1d(r2_score(targets, guesses, multioutput="raw_values"))
    model.fit(x, targets)
    gradients, strengths = np.atleast_2d(model.coef_), np.atleast_1d(model.alpha_)
    return {
        name: Axis(torch.from_numpy(gradients[i].copy()), "ridge", "R2", float(scores[i]), float(strengths[i])) for i, name in enumerate(y)
    }


def _logistic(x: np.ndarray, positive: np.ndarray, name: str) -> Axis:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict

    fewest = int(min(positive.sum(), len(positive) - positive.sum()))
    if fewest < FOLDS:
        raise ValueError(f'"{name}" has only {fewest} latents of its rarer value, {FOLDS} are needed: measure more (n=) or leave it out.')
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}, cv=StratifiedKFold(5), scoring="roc_auc")
    guesses = cross_val_predict(search, x, positive, cv=StratifiedKFold(FOLDS), method="decision_function")
    search.fit(x, positive)
    best: Any = search.best_estimator_
    score = float(roc_auc_score(positive, guesses))
    return Axis(torch.from_numpy(best.coef_[0]), "logistic", "AUC", score, float(search.best_params_["C"]))


def _held_names(hold: Sequence[str] | Mapping[str, Sequence[str]]) -> list[str]:
    if isinstance(hold, str):
        raise TypeError(f'hold is a list of attributes: hold=["{hold}"].')
    return [*hold, *(name for names in hold.values() for name in names)] if isinstance(hold, Mapping) else list(hold)


def _hold(directions: Directions, hold: Sequence[str] | Mapping[str, Sequence[str]], metric: Tensor | None) -> Directions:
    if not hold:
        return directions
    if not isinstance(hold, Mapping):
        return directions.held(list(hold), covariance=metric)
    vectors = directions.vectors.clone()
    for name, names in hold.items():
        if name in names:
            raise ValueError(f'"{name}" cannot be moved and held at once: take it out of its own hold.')
        row = directions.index(name)
        vectors[row] = directions[[name, *names]].held(list(names), covariance=metric).vectors[0]
    fit = {**directions.fit, "held": {name: list(names) for name, names in hold.items()}, "whitened": metric is not None}
    return replace(directions, vectors=vectors, fit=fit)


def _change(generator: Generator, features: Sequence[Feature], start: Table, name: str, kind: str, batch: int) -> Change:
    """Measured change of a column; for a yes/no attribute the change of the share of yes, in log-odds."""
    owner = column(next(feature for feature in features if name in feature.columns), name)
    before = start.column(name)

    def change(rows: Tensor, moved: Latents) -> Tensor:
        after = observe(generator, [owner], moved, batch=batch)[:, 0]
        if kind == "ridge":
            return after - before[rows]
        return (_log_odds(after, before) - _log_odds(before[rows], before)).expand(len(rows))

    return change


def _log_odds(values: Tensor, levels: Tensor) -> Tensor:
    """Of the share of the higher level, with half a count on either side so that it stays finite."""
    share = ((values > levels.mean()).float().sum() + 0.5) / (len(values) + 1)
    return torch.logit(share)
