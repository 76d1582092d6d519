"""Two statistics of classes, by scipy: the line through one point a class with Pearson's r, and the two-sample t of two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Relation:
    """A straight line through one point a class: y = intercept + slope * x.

    Attributes:
        r: Pearson's; ``low`` and ``high`` are the ends of its 95 % interval (NaN below four points).
        slope: with its standard error; ``p`` is two-sided, of no slope, and so of no correlation.
        n: classes.
    """

    r: float
    low: float
    high: float
    slope: float
    error: float
    intercept: float
    p: float
    n: int


@dataclass(frozen=True)
class Contrast:
    """Two classes, told apart by Welch's two-sample t.

    Attributes:
        what: is compared: the change of the attribute of each latent, or how different its two ends look.
        means: of the two classes.
        t, df, p: two-sided.
        n: images of each class.
    """

    first: str
    second: str
    what: str
    means: tuple[float, float]
    t: float
    df: float
    p: float
    n: tuple[int, int]


def relation(x: Float[Tensor, " k"], y: Float[Tensor, " k"]) -> Relation:
    """The least-squares line and Pearson's r; points that are NaN are left out.

    Raises:
        ValueError: fewer than three points, or all of one x.
    """
    from scipy import stats

    there = ~(x.isnan() | y.isnan())
    a, b = x[there].double().numpy(), y[there].double().numpy()
    if len(a) < 3:
        raise ValueError(f"a correlation takes 3 classes or more, got {len(a)}. Ask for more classes.")
    if a.max() - a.min() <= 1e-9 * max(abs(a.max()), 1e-12):
        raise ValueError(f"all {len(a)} classes have the spread {a[0]:.4g}: nothing can be related to it.")
    line: Any = stats.linregress(a, b)
    interval = stats.pearsonr(a, b).confidence_interval() if len(a) > 3 and b.max() > b.min() else (float("nan"), float("nan"))
    low, high = (float(end) for end in interval)
    slope, error = float(line.slope), float(line.stderr)
    return Relation(float(line.rvalue), low, high, slope, error, float(line.intercept), float(line.pvalue), len(a))


def contrast(first: Float[Tensor, " n"], second: Float[Tensor, " m"], *, names: tuple[str, str], what: str) -> Contrast:
    """Welch's two-sample t of two sets of images; NaN are left out.

    Raises:
        ValueError: fewer than two images in a set.
    """
    from scipy import stats

    a, b = (one[~one.isnan()].double().numpy() for one in (first, second))
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a two-sample t takes 2 images of each class or more, got {len(a)} of {names[0]} and {len(b)} of {names[1]}.")
    test: Any = stats.ttest_ind(a, b, equal_var=False)
    means = (float(a.mean()), float(b.mean()))
    return Contrast(*names, what, means, float(test.statistic), float(test.df), float(test.pvalue), (len(a), len(b)))
