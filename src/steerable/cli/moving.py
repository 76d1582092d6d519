"""Trajectories on the command line: what ``steer apply --move ... --hold ...`` writes and says, beside what every ``apply`` does.

For each seed the ledger as a table, a strip of the way-points with the ledger below each picture, and one plot of what the holds drifted
while the move was made. ``driving`` has ``steer drive``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerable.cli import terminal
from steerable.cli.terminal import parse_box, plural, say, short

if TYPE_CHECKING:
    import matplotlib.figure
    import PIL.Image

    from steerable.controls.ledger import Ledger
    from steerable.controls.trajectory import Path as Way
    from steerable.generators.module import ModuleGenerator
    from steerable.recipe import Drive, Recipe

STATIONS = 8  # pictures of a strip
TABLED = 4  # seeds whose ledger is printed whole


def drive(
    made: ModuleGenerator,
    *,
    move: Sequence[str],
    hold: Sequence[str],
    amount: float | None,
    hold_box: str | None,
    rest: float,
    course: str,
    solver: str,
    rank: int,
    leak: float,
) -> Drive:
    """The trajectory that the options ask for, its features looked up and its amount filled in."""
    from steerable import named, recipe

    how = {"course": course, "solver": solver, "rank": rank, "leak": leak}
    if hold_box is not None:
        return recipe.Drive(box=parse_box(hold_box), amount=_finite(rest, "--rest"), **how)
    moved, held = ([text for given in texts for text in named.split(given)] for texts in (move, hold))
    if not moved or not held:
        missing = "--hold" if moved else "--move"
        raise ValueError(f"a trajectory needs --move and --hold: give {missing} too, for example {missing} inside:16,18,52,46.")
    asked = recipe.Drive(
        move=tuple(map(named.portable, moved)),
        hold=tuple(map(named.portable, held)),
        amount=_finite(1.0 if amount is None else amount, "--amount"),
        **how,
    )
    if amount is not None:
        return asked
    return asked.model_copy(update={"amount": recipe.trajectory(made, asked).unit / 2})


def _finite(amount: float, flag: str) -> float:
    if not 0 < abs(amount) < float("inf"):
        raise ValueError(f"{flag} is a finite amount other than 0, in the unit of what moves, for example 0.25; got {amount:g}.")
    return amount


def tell(whole: Recipe, made: ModuleGenerator, way: Way, out: Path) -> None:
    """The ledger of every seed: on the terminal, as JSON, as strips and as a plot."""
    from steerable import files, progress, render

    ledger = way.ledger
    for row, seed in enumerate(whole.seeds[:TABLED]):
        lines = [[short(number) if i else str(int(number)) for i, number in enumerate(line)] for line in ledger.table(row)]
        terminal.table(
            f"seed {seed}: the ledger, way-point by way-point; sd: in standard deviations of the population", ledger.header, lines
        )
    for row, seed in enumerate(whole.seeds):
        say(f"seed {seed}: {ledger.said(row)}")
    broken = {one.row for one in ledger.broken}
    say(
        f"{int(way.reached.sum())} of n {plural(len(ledger), 'seed')} reached the amount with every hold kept; broken holds: {len(broken)};"
        f" {ledger.knob.name} in {ledger.knob.unit or 'its unit'}, judge: the features themselves"
    )
    files.write_text(out / "ledger.json", ledger.to_json() + "\n")
    for row, seed in progress.track(list(enumerate(whole.seeds)), "draw the ways"):
        render.write_png(out / f"way-{seed:06d}.png", strip(whole, made, way, row))
    files.write_bytes(out / "ledger.png", render.figure_png(plot(ledger)))
    say(f"written: {plural(len(ledger), 'strip')} of the way-points, ledger.png and ledger.json in {out}")


def strip(whole: Recipe, made: ModuleGenerator, way: Way, row: int) -> PIL.Image.Image:
    """Up to eight way-points of a seed, nearest to equal parts of its way, what moved and what drifted below each."""
    import torch

    from steerable import recipe, render

    ledger, moved = way.ledger, way.moved[:, row]
    last = float(moved[-1])
    picked = sorted({int((moved - last * i / (STATIONS - 1)).abs().argmin()) for i in range(STATIONS)})
    with torch.no_grad():
        images = torch.cat([recipe.as_made(whole, made)(way.waypoints[step][[row]]) for step in picked])
    drift = ledger.in_deviations[..., len(ledger.moves) :]
    sign = "−" if float(ledger.asked[row]) < 0 else ""
    captions = []
    for step in picked:
        held = "\n".join(f"{name} {short(float(drift[step, row, i]), 2)} sd" for i, name in enumerate(ledger.holds))
        captions.append(f"moved {sign}{short(float(moved[step]), 2)}\n{held}")
    verdict = "hold broken" if any(one.row == row for one in ledger.broken) else "held" if bool(way.reached[row]) else "not reached"
    return render.strip(
        [images],
        row_labels=[f"seed {whole.seeds[row]}\n{verdict}"],
        captions=[captions],
        title=f"move {', '.join(ledger.moves)} ({ledger.knob.unit or 'its unit'}); hold {', '.join(ledger.holds)}",
        scale=max(whole.scale, 2),
        boxes=recipe.boxes_of(whole.drive),
    )


def plot(ledger: Ledger) -> matplotlib.figure.Figure:
    """Drift of every hold against the share of the move that was made: mean of the rows, bands from the lowest to the highest."""
    import torch

    from steerable import render

    shares, drifts = ledger.drifts()
    lines = {}
    for name, rows in drifts.items():
        there = ~torch.isnan(rows).all(0)
        some = rows[:, there]
        low, high = (torch.where(torch.isnan(some), end, some) for end in (torch.inf, -torch.inf))
        lines[name] = tuple(_padded(one, there) for one in (some.nanmean(0), low.amin(0), high.amax(0)))
    limit = float(ledger.allowed.max())
    lines["allowed"] = (torch.full_like(shares, limit),) * 3
    return render.curves(
        shares,
        lines,
        x_label=f"share of the asked change of {', '.join(ledger.moves)}",
        y_label="drift of what is held, standard deviations",
        title=f"What the move cost what is held (n = {len(ledger)})",
    )


def _padded(values, there):
    whole = values.new_full(there.shape, float("nan"))
    whole[there] = values
    return whole
