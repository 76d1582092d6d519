"""Features read from networks, and the wrapper that turns anything a user has into a Feature.

Several features can read one network (yaw, pitch and mouth opening all come from the face mesh): ``measure``
runs each network once. ``feature`` wraps any callable images -> numbers and any scikit-learn-like predictor.
Ready measurements that need no network are in ``pixels`` and ``geometry``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable import checks
from steerable.protocols import Feature, Images, Metric, Values

PROBES = ((3, 64, 64), (1, 28, 28), (3, 32, 32), (1, 32, 32), (3, 128, 128), (3, 224, 224), (3, 256, 256))
CLASSES = "probability"  # the unit of features whose columns are classes


@dataclass(frozen=True)
class NetworkFeature:
    """One reading of a network's output.

    Attributes:
        network: images -> whatever ``read`` wants (a tensor or a tuple). Features that share the object share its run.
        read: the network's output -> ``(n, len(columns))``.
        report: how the network was made and how well it does, where that is known (``fit_feature`` fills it).
    """

    name: str
    columns: tuple[str, ...]
    unit: str
    metric: Metric
    network: Callable[[Images], Any]
    read: Callable[[Any], Values]
    differentiable: bool = True
    report: dict[str, Any] | None = None

    def __call__(self, images: Images) -> Values:
        return self.read(self.network(images))


def measure(features: Sequence[Feature], images: Images) -> dict[str, Values]:
    """Every feature of the images, by feature name; a network shared by several features runs once.

    Raises:
        ValueError: two different features have the same name.
    """
    checks.images(images)
    names = [feature.name for feature in features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"features need different names, got {', '.join(twice)} twice. Leave one out or give it another name.")
    outputs: dict[int, Any] = {}
    values = {}
    for one in features:
        if isinstance(one, NetworkFeature):
            key = id(one.network)
            if key not in outputs:
                outputs[key] = one.network(images)
            values[one.name] = one.read(outputs[key])
        else:
            values[one.name] = one(images)
    return values


@dataclass(frozen=True)
class AllColumns:
    """Images -> every column of several features, side by side (n, m): a backbone that a few dozen labels suffice for."""

    features: tuple[Feature, ...]

    def __call__(self, images: Images) -> Values:
        return torch.cat(list(measure(self.features, images).values()), 1)


@dataclass(frozen=True)
class Columns:
    """Some columns of another feature, as a feature; ``column`` makes it."""

    source: Feature
    name: str
    columns: tuple[str, ...]
    unit: str
    metric: Metric
    differentiable: bool

    def __call__(self, images: Images) -> Values:
        return self.source(images)[:, _places(self.source, self.columns)]


def column(source: Feature, name: str) -> Feature:
    """One column of a feature as a feature of that name: ``column(head_pose, "yaw")``.

    Raises:
        ValueError: the feature has no such column.
    """
    checks.known(name, source.columns, f'column of "{source.name}"')
    if source.columns == (name,) and source.name == name:
        return source
    if isinstance(source, NetworkFeature):
        places, read = _places(source, (name,)), source.read
        return replace(source, name=name, columns=(name,), read=lambda output: read(output)[:, places])
    return Columns(source, name, (name,), source.unit, source.metric, source.differentiable)


def select(features: Sequence[Feature], names: Sequence[str]) -> list[Feature]:
    """The features of those names, in their order; a name may be a feature's (all its columns) or a column's (that one alone).

    Raises:
        ValueError: a name is neither; the error has the nearest known one.
    """
    whole = {one.name: one for one in features}
    parts = {name: one for one in features for name in one.columns}
    for name in names:
        checks.known(name, {*whole, *parts}, "feature")
    return [whole[name] if name in whole else column(parts[name], name) for name in names]


def feature(
    measurement: Any,
    *,
    name: str,
    columns: Sequence[str] | None = None,
    unit: str = "",
    metric: Metric = "l2",
    differentiable: bool | None = None,
    preprocess: Callable[[Images], Any] | None = None,
) -> Feature:
    """Make a Feature of a callable or of a scikit-learn-like predictor.

    Args:
        measurement: images ``(n, c, h, w)`` in [-1, 1] -> ``(n,)`` or ``(n, m)``, torch or numpy; or an object with
            ``predict_proba``, ``decision_function`` or ``predict`` (the first that it has), which is given float32 rows
            ``(n, c*h*w)``, or the rows that ``preprocess`` makes. Probabilities of two classes become one column, the
            second class's.
        columns: names of the m numbers. Default: one column called ``name``; for a predictor with ``classes_``,
            ``name-class`` for each.
        differentiable: whether gradients flow from the result to the images. Default: tried once on noise images; where
            that is inconclusive, False, which always works (finite differences) and costs more.
        preprocess: images -> rows for the predictor, such as the backbone.

    Raises:
        TypeError: neither callable nor a predictor.
        ValueError: at the call: another number of rows or columns than promised, or numbers that are not finite.
    """
    if callable(measurement):
        if preprocess is not None:
            raise ValueError("preprocess is for predictors; put it into the callable: lambda images: measurement(preprocess(images)).")
        names = tuple(columns) if columns is not None else (name,)
        flows = _gradients_flow(measurement) if differentiable is None else differentiable
        return Measured(name, names, unit, metric, flows, measurement)
    method = next((m for m in ("predict_proba", "decision_function", "predict") if hasattr(measurement, m)), None)
    if method is None:
        raise TypeError(
            f'"{name}": expected a callable images -> numbers or an object with predict_proba, decision_function or predict, '
            f"got {type(measurement).__name__}."
        )
    if differentiable:
        raise ValueError(f'"{name}": a predictor is called through numpy and has no gradients; leave differentiable out.')
    names = tuple(columns) if columns is not None else _predicted_columns(measurement, method, name)
    predict = _Predictor(measurement, method, len(names), preprocess)
    return Measured(name, names, unit, metric, False, predict)


@dataclass(frozen=True)
class Measured:
    """A user's own measurement, checked at every call; ``feature`` makes it."""

    name: str
    columns: tuple[str, ...]
    unit: str
    metric: Metric
    differentiable: bool
    measurement: Callable[[Images], Any]

    def __call__(self, images: Images) -> Values:
        result = self.measurement(images if self.differentiable else images.detach())
        values = self._numbers(result).to(images.device, torch.float32)
        n, m = len(images), len(self.columns)
        if values.shape == (n,) and m == 1:
            values = values[:, None]
        if values.shape != (n, m):
            hint = f' Name the columns: feature(..., name="{self.name}", columns=[...]).' if values.ndim == 2 and len(values) == n else ""
            raise ValueError(f'"{self.name}" promised (images, columns) = ({n}, {m}), got {tuple(values.shape)}.{hint}')
        if _inside_transform():  # values cannot be read there
            return values
        return checks.finite(values, f'"{self.name}"')

    def _numbers(self, result: Any) -> Tensor:
        if isinstance(result, Tensor):
            return result
        try:
            return torch.from_numpy(np.asarray(result, np.float32))
        except (TypeError, ValueError):
            raise TypeError(
                f'"{self.name}" must return numbers (n,) or (n, {len(self.columns)}), got {type(result).__name__} that is none.'
            ) from None


@dataclass(frozen=True)
class _Predictor:
    predictor: Any
    method: str
    columns: int
    preprocess: Callable[[Images], Any] | None

    def __call__(self, images: Images) -> np.ndarray:
        with torch.no_grad():
            rows = images.flatten(1) if self.preprocess is None else self.preprocess(images)
        if isinstance(rows, Tensor):
            rows = rows.detach().cpu().numpy()
        result = np.asarray(getattr(self.predictor, self.method)(np.asarray(rows, np.float32)))
        if self.method == "predict_proba" and result.ndim == 2 and result.shape[1] == 2 and self.columns == 1:
            return result[:, 1]
        return result


def _predicted_columns(predictor: Any, method: str, name: str) -> tuple[str, ...]:
    classes = getattr(predictor, "classes_", ())
    if method == "predict" or len(classes) <= 2:
        return (name,)
    return tuple(f"{name}-{one}" for one in classes)


def _places(source: Feature, names: tuple[str, ...]) -> list[int]:
    return [source.columns.index(name) for name in names]


def _inside_transform() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined] - no public name for "under vmap or jvp"


def _gradients_flow(measurement: Callable[[Images], Any]) -> bool:
    """Whether noise images get a gradient that is not zero; False where the callable fails on all of our sizes."""
    rng = torch.Generator().manual_seed(0)
    for shape in PROBES:
        images = (torch.rand(2, *shape, generator=rng) * 2 - 1).requires_grad_()
        try:
            with torch.enable_grad():
                result = measurement(images)
        except Exception:
            continue
        if not isinstance(result, Tensor) or not result.requires_grad:
            return False
        (slope,) = torch.autograd.grad(result.sum(), images, allow_unused=True)
        return slope is not None and bool(slope.isfinite().all()) and bool(slope.any())
    return False


def in_mirror(one: Feature) -> Feature:
    """What a feature reads in the mirror image less what it reads in the picture: what a network makes of left and right."""
    names = [f"{column} in the mirror" for column in one.columns]
    return Measured(f"{one.name} in the mirror", tuple(names), one.unit, "l2", one.differentiable, lambda x: one(x.flip(3)) - one(x))
