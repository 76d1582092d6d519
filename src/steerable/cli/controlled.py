"""``steer evaluate`` of controllers: which group decides which measurement, and whether values come out. Started by ``evaluating``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerable.cli import controllable as grouped
from steerable.cli import terminal
from steerable.cli.terminal import say, short

if TYPE_CHECKING:
    import PIL.Image

    from steerable.controls.groups import Controllers
    from steerable.evaluation.shares import Shares
    from steerable.generators.module import ModuleGenerator

COLUMNS = 9  # pictures of a row of the grid


def evaluate(
    made: ModuleGenerator,
    controllers: Controllers,
    generator: str,
    out: Path,
    knobs: Sequence[str],
    own: Sequence[str] | None,
    *,
    n: int,
    seed: int,
) -> None:
    """The table of shares, the precision of every value, a grid with one value a row, and the scatter of requested and measured."""
    import json

    from steerable import checks, files, render
    from steerable.evaluation.precision import class_changes, precision
    from steerable.evaluation.shares import shares
    from steerable.training import domains

    for knob in knobs:
        checks.known(knob, [one.name for one in controllers.knobs], "value")
    chosen = controllers[list(knobs)] if knobs else controllers
    judged, domain = grouped.groups_of(generator, own, judged=True)
    judge = "networks of another seed than those of the training" if domain else "the features that it was trained with"
    decided, asked = domains.measured(judged), domains.readings(judged)
    found = shares(made, decided, held=max(8, n // 2), each=8, seed=seed)
    show_shares(found, judge)

    rows, plots, report = [], [], {}
    for part in chosen.parts:
        result = precision(made, chosen, asked, [part.knobs[0].name], n=max(n, 64), seed=seed)
        for i, knob in enumerate(part.knobs):
            what = "share that came out" if part.classes else "correlation"
            error = f"{result.error(knob.name):.1%} wrong" if part.classes else f"{short(result.error(knob.name))} {knob.unit}"
            ends = f"{short(knob.low)} … {short(knob.high)}"
            rows.append((knob.name, ends, what, f"{result.correlation(knob.name):.2f}", error))
            report[knob.name] = {"measure": what, "value": result.correlation(knob.name), "error": result.error(knob.name)}
            if not part.classes:
                plots.append((knob, result.requested[:, i], result.measured[:, i]))
    about = f"n {max(n, 64)}, seed {seed}, values drawn from the central 90 % of the population; judge: {judge}"
    terminal.table(f"requested against measured; {about}", ("value", "reach", "", "", "mean error"), rows)
    changes: Mapping[str, float] = {}
    classes = [part for part in chosen.parts if part.classes]
    others = [knob.name for part in chosen.parts if not part.classes for knob in part.knobs]
    if classes and others:
        changes = class_changes(made, chosen, asked[classes[0].group], others, n=max(n, 64), seed=seed)
        told = ", ".join(f"{name} {share:.1%}" for name, share in changes.items())
        say(f"{classes[0].group} changed when another value was set: {told} of n {max(n, 64)}; judge: {judge}")
    write_grid(made, chosen, out / "grid.png", seed=seed)
    written = ["grid.png"]
    for knob, requested, measured in plots:
        plot = render.scatter(
            requested,
            measured,
            x_label=f"requested {knob.name}, {knob.unit}",
            y_label="measured",
            title=f"{knob.name}: n {len(requested)}, seed {seed}",
            diagonal=True,
        )
        written.append(files.write_bytes(out / f"precision-{knob.name}.png", render.figure_png(plot)).name)
    table: dict[str, Any] = {
        "shares": {
            feature: dict(zip(found.groups, [round(x, 4) for x in row], strict=True))
            for feature, row in zip(found.features, found.values.tolist(), strict=True)
        },
        "precision": report,
        "class_changes": dict(changes),
        "n": n,
        "seed": seed,
        "judge": judge,
    }
    files.write_text(out / "evaluation.json", json.dumps(table, indent=1) + "\n")
    say(f"written: evaluation.json, {', '.join(written)}, options.json in {out}")


def show_shares(found: Shares, judge: str) -> None:
    """The table: a row a measurement, a column a group."""
    rows = [
        (feature, *(f"{share:.2f}" for share in row), f"{found.own(feature):.2f}", "{1:.2f} {0}".format(*found.largest_other(feature)))
        for feature, row in zip(found.features, found.values.tolist(), strict=True)
    ]
    title = (
        f"share of each measurement's spread that one group makes while all others are held (n {found.held} latents, {found.each} draws, "
        f"seed {found.seed}); judge: {judge}"
    )
    terminal.table(title, ("measured", *(f"by {group}" for group in found.groups), "own", "largest other"), rows)


def write_grid(made: ModuleGenerator, controllers: Controllers, path: Path, *, seed: int) -> PIL.Image.Image:
    """One picture, a row for each value: from one end of its reach to the other, all else held; of a class the middle one."""
    import torch

    from steerable import render

    start = made.sample(1, seed=seed, space=controllers.space.name)
    for part in controllers.parts:
        if part.classes:
            start = controllers[[part.knobs[0].name]].steer(start, torch.tensor([[float(part.classes // 2)]]))
    batches, labels, captions = [], [], []
    for part in controllers.parts:
        for place, knob in enumerate(part.knobs):
            count = int(knob.high) + 1 if part.classes else COLUMNS
            wanted = [knob.low + (knob.high - knob.low) * i / (count - 1) for i in range(count)]
            one = controllers[[knob.name]]
            values = torch.tensor([[knob.low if part.classes else other.value_at(50) for other in one.knobs]] * count)
            values[:, place] = torch.tensor(wanted)
            with torch.inference_mode():
                batches.append(made(one.steer(start.at(start.values.repeat(count, 1)), values.round() if part.classes else values)).clone())
            labels.append(f"{knob.name}\n{knob.unit}" if knob.unit else knob.name)
            captions.append([short(value) for value in wanted])
    sheet = render.strip(batches, row_labels=labels, captions=captions, scale=2)
    render.write_png(path, sheet)
    return sheet
