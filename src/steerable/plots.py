"""Figures of whole results: how far walks go (figure 5 of the paper), how that follows the data (6), how well edits are imitated (9).

``render`` draws numbers that somebody chose; these take a result of ``evaluation`` and show all of it. Everything is a pure function of
its arguments, made without pyplot.

Source of the forms: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, figures 5, 6, 9 and 11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steerable.evaluation.limits import Limits
from steerable.evaluation.steerability import Steerability, series
from steerable.evaluation.variability import Variability
from steerable.render import COLOURS, GREY, INK, dressed, new_figure

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

KERNEL, FRECHET = "kernel", "Fréchet"
SHADE = "#2b8a3e"  # of the usable range
NAMED = 24  # classes that are all named; of more, those furthest from the line


def limits_plot(results: Sequence[Limits], *, title: str) -> matplotlib.figure.Figure:
    """A column for each knob; in it, from above: densities of the attribute, intersection, kernel distance, step by step distance.

    The usable range is shaded. Fréchet distances, where they were measured, share the third row with an axis of their own.
    """
    if not results:
        raise ValueError("a figure of limits shows one knob or more, got none.")
    figure = new_figure(3.5 * len(results) + 0.4, 8.6, title)
    rows = figure.subplots(4, len(results), squeeze=False, height_ratios=(1.35, 1, 1, 1))
    for i, (result, column) in enumerate(zip(results, rows.T, strict=True)):
        _densities(figure, column[0], result, first=i == 0)
        for axes, draw in zip(column[1:], (_intersection, _distances, _steps), strict=True):
            draw(axes, result, first=i == 0)
            usable = result.usable
            axes.axvspan(usable.low, usable.high, color=SHADE, alpha=0.09, linewidth=0, zorder=0, label="usable range")
            low, high = float(result.amounts[0]), float(result.amounts[-1])
            axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
            axes.axvline(result.knob.neutral or 0.0, color=GREY, linewidth=0.8, zorder=1)
        column[1].legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="lower center")
    return figure


def _axis(result: Limits) -> str:
    return f"{result.knob.name}, {result.knob.unit}" if result.knob.unit else result.knob.name


def _densities(figure: matplotlib.figure.Figure, axes: matplotlib.axes.Axes, result: Limits, *, first: bool) -> None:
    """Unsteered grey and filled; steered lines from blue (lowest amount) to red (highest)."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import TwoSlopeNorm

    unit = f", {result.unit}" if result.unit else ""
    dressed(axes, f"{result.attribute}{unit}", "density" if first else "")
    grid, unsteered, steered = (one.numpy() for one in result.densities())
    amounts, neutral = result.amounts.tolist(), result.knob.neutral or 0.0
    low, high = min(amounts[0], neutral), max(amounts[-1], neutral)
    room = 1e-6 * max(high - low, 1e-12)
    norm = TwoSlopeNorm(neutral, low - room, high + room)
    colours = matplotlib.colormaps["coolwarm"]
    axes.fill_between(grid, unsteered, color="#c9ced6", linewidth=0, label="unsteered")
    for i, (amount, line) in enumerate(zip(amounts, steered, strict=True)):
        if i != result.start:
            axes.plot(grid, line, color=colours(norm(amount)), linewidth=1.3)
    axes.set_yticks([])
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7.5, frameon=False, labelcolor=INK, handlelength=1.2)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, orientation="horizontal", location="top", aspect=32, pad=0.02)
    bar.set_label(_axis(result), fontsize=9, color=INK)
    ticks = [low, neutral, high] if low < neutral < high else [low, high]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _intersection(axes: matplotlib.axes.Axes, result: Limits, *, first: bool) -> None:
    dressed(axes, "", "intersection" if first else "")
    axes.plot(result.amounts, result.intersections, color=COLOURS[0], linewidth=1.8, marker="o", markersize=3.5)
    axes.set_ylim(0, 1.03)


def _distances(axes: matplotlib.axes.Axes, result: Limits, *, first: bool) -> None:
    dressed(axes, "", "distance to unsteered" if first else "")
    axes.plot(result.amounts, result.distances, color=COLOURS[1], linewidth=1.8, marker="o", markersize=3.5, label=KERNEL)
    axes.axhline(result.threshold, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="threshold")
    top = max(float(result.distances.max()), result.threshold)
    axes.set_ylim(min(0.0, float(result.distances.min())) - 0.03 * top, 1.25 * top)
    handles, labels = axes.get_legend_handles_labels()
    if result.frechet is not None:
        twin = dressed(axes.twinx(), "", "Fréchet distance")
        twin.grid(visible=False)
        twin.spines["right"].set_visible(True)
        (line,) = twin.plot(result.amounts, result.frechet, color=COLOURS[3], linewidth=1.4, linestyle="--", label=FRECHET)
        twin.set_ylim(0, 1.25 * float(result.frechet.max()))
        handles, labels = [*handles, line], [*labels, FRECHET]
    look = {"fontsize": 7.5, "frameon": False, "labelcolor": INK}
    axes.legend(handles, labels, loc="upper center", ncols=3, handlelength=1.5, columnspacing=1, **look)


def _steps(axes: matplotlib.axes.Axes, result: Limits, *, first: bool) -> None:
    """Between two amounts, in the middle of them: per unit of amount would hide that equal steps do less and less."""
    dressed(axes, _axis(result), "perceptual step" if first else "")
    between = ((result.amounts[1:] + result.amounts[:-1]) / 2).numpy()
    mean, spread = result.steps.mean(1).numpy(), result.steps.std(1).numpy()
    if np.isnan(mean).all():
        axes.text(0.5, 0.5, "not measured: the judge has no maps", transform=axes.transAxes, ha="center", fontsize=8, color=GREY)
        return
    axes.fill_between(between, mean - spread, mean + spread, color=COLOURS[5], alpha=0.15, linewidth=0)
    axes.plot(between, mean, color=COLOURS[5], linewidth=1.8, marker="o", markersize=3.5, label="mean ± standard deviation")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7.5, frameon=False, labelcolor=INK)


def variability_plot(results: Sequence[Variability], *, title: str) -> matplotlib.figure.Figure:
    """A panel for each knob: one point a class, its name beside it, sigma against Delta mu, and the line with r, p and n."""
    if not results:
        raise ValueError("a figure of variability shows one knob or more, got none.")
    figure = new_figure(4.6 * len(results) + 0.2, 4.8, title)
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        unit = f", {result.unit}" if result.unit else ""
        dressed(axes, f"σ of {result.attribute}{unit}{_source(result)}", f"Δμ at ±{result.amount:.3g} {result.knob.unit}")
        _points(axes, result)
    return figure


def _source(result: Variability) -> str:
    if not any(result.pictures):
        return ""  # numbers that were given
    return f": {result.sigma_from if len(result.sigma_from) <= 30 else '…' + result.sigma_from[-28:]}"


def _points(axes: Any, result: Variability) -> None:
    sigma, moved = result.sigma.numpy(), result.delta_mu.numpy()
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    named = np.argsort(-np.nan_to_num(moved))[:NAMED]
    try:
        line = result.relation
    except ValueError as error:
        axes.set_title(f"{result.knob.name}: {str(error).split(':')[0]}", fontsize=9, color=INK)
    else:
        ends = np.array([np.nanmin(sigma), np.nanmax(sigma)])
        axes.plot(ends, line.intercept + line.slope * ends, color=COLOURS[1], linewidth=1.5)
        p = "p < .001" if line.p < 0.001 else f"p = {line.p:.3f}".replace("0.", ".", 1)
        axes.set_title(f"{result.knob.name}: r = {line.r:.2f}, {p}, n {line.n}, slope {line.slope:.3g}", fontsize=9.5, color=INK)
        off = np.abs(moved - line.intercept - line.slope * sigma)
        if len(sigma) > NAMED:
            named = np.argsort(-np.nan_to_num(off))[: NAMED // 2]
    axes.scatter(sigma, moved, s=16, color=COLOURS[0], alpha=0.8, linewidths=0, zorder=2)
    for k in named.tolist():
        axes.annotate(
            result.names[k], (sigma[k], moved[k]), xytext=(3, 3), textcoords="offset points", fontsize=6.5, color=GREY, clip_on=False
        )
    axes.margins(0.08, 0.1)


def steerability_plot(results: Mapping[str, Mapping[str, Steerability]], *, title: str) -> matplotlib.figure.Figure:
    """A column for each edit; above the masked squared error of each walk with its band, below the mean relative to not moving.

    Args:
        results: edit -> walk -> its errors, each edit's at the same amounts.
    """
    if not results or not all(results.values()):
        raise ValueError("a figure of errors shows one edit and one walk or more, got none.")
    figure = new_figure(3.9 * len(results) + 0.4, 5.8, title)
    rows = figure.subplots(2, len(results), squeeze=False, height_ratios=(1.4, 1))
    for column, (name, ways) in enumerate(results.items()):
        upper, lower = rows[:, column]
        unit = next(iter(ways.values())).knob.unit
        dressed(upper, "", "masked squared error" if column == 0 else "")
        dressed(lower, f"{name}, {unit}" if unit else name, "relative to not moving" if column == 0 else "")
        for i, (way, (mean, low, high)) in enumerate(series(ways).items()):
            amounts = ways[way].amounts.numpy()
            upper.fill_between(amounts, low, high, color=COLOURS[i], alpha=0.18, linewidth=0)
            upper.plot(amounts, mean, color=COLOURS[i], linewidth=1.6, label=way)
            asked = amounts != (ways[way].knob.neutral or 0.0)
            lower.plot(amounts[asked], ways[way].relative.numpy()[asked], color=COLOURS[i], linewidth=1.4)
        lower.axhline(1.0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        upper.set_ylim(bottom=0)
        lower.set_ylim(bottom=0)
        if column == 0:
            upper.legend(fontsize=8, frameon=False, labelcolor=INK)
    return figure
