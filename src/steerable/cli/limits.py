"""``steer limits``: how far each knob of a control goes, what ends it, and that range written into the control."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerable.cli import attributes, options, terminal
from steerable.cli.terminal import say, short

if TYPE_CHECKING:
    from steerable.evaluation.limits import Limits
    from steerable.protocols import Knob

ACROSS = 6  # knobs of one figure


def limits(
    control: attributes.ControlFile,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the figure and the table.")] = Path("limits"),
    knobs: attributes.Knobs = "",
    amounts: Annotated[
        list[str] | None,
        typer.Option(
            "--amounts",
            metavar="KNOB=AMOUNTS",
            help="Amounts of a knob, zoom=-2,-1,1,2 or zoom=-2:2:9 (from, to, how many); by default nine up to twice its range. "
            "Repeatable.",
        ),
    ] = None,
    attribute: attributes.Attributes = None,
    foreground: attributes.Foreground = "border",
    threshold: attributes.Threshold = None,
    fid: Annotated[
        bool | None,
        typer.Option("--fid/--no-fid", help="Measure the Fréchet distance too; by default where --n allows it, from 1281 on."),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave CONTROL as it is, and write the one with the new ranges into --out; by default it gets them."),
    ] = False,
    generator: options.GeneratorName = options.GENERATOR,
    n: Annotated[int, typer.Option(metavar="NUMBER", help="Latents to steer, and as many others to compare with.")] = 256,
    seed: attributes.EvaluationSeed = 1,
    label: options.OneClass = None,
    psi: options.Psi = 1.0,
    with_: options.With = None,
    device: options.Device = "auto",
) -> None:
    """Find how far each knob can be turned, and write that range into the control.

    At each amount: the distribution of the attribute, how much of it is still that of unsteered pictures, how plausible the pictures are,
    and how much each step still changes them. A range ends where they become implausible, or change no further.
    """
    resolved = dict(locals())
    from steerable import files, plots, render, store, zoo
    from steerable.evaluation.limits import limits as measured
    from steerable.evaluation.quality import FULL_RANK

    options.folder(out)
    if n < attributes.LEAST:
        raise ValueError(f"--n takes {attributes.LEAST} images or more, the least on which a kernel distance says anything; got {n}.")
    if fid and n <= FULL_RANK:
        raise ValueError(
            f"--fid takes --n {FULL_RANK + 1} or more: the judge has {FULL_RANK} features, and the covariance of n {n} images lacks rank, "
            "so that the distance would be mostly bias. Leave out --fid: the kernel distance has no such bias."
        )
    made = options.generator(generator, device, with_)
    loaded = store.load_control(control, generator=made)
    label = options.label_of(made, label)
    chosen = attributes.chosen(loaded, knobs)
    asked = _amounts(amounts, chosen)
    looked_at = attributes.attributes(chosen, attribute, foreground, device)
    place = _place(control, out, keep)
    judge = zoo.load_backbone().to(options.device(device))
    results: list[Limits] = []
    for knob in chosen:
        results.append(
            measured(
                made, loaded, looked_at[knob.name], amounts=asked.get(knob.name), knob=knob.name, network=judge, threshold=threshold,
                fid=fid, n=n, seed=seed, psi=psi, labels=label,
            )
        )  # fmt: skip
    changed = loaded
    for result in results:
        changed = result.written(changed)
    what = f"{made.name}{'' if label is None else f', class {label}'}: n {n}, seed {seed}"
    sheets = [results[i : i + ACROSS] for i in range(0, len(results), ACROSS)]
    pictures = ["limits.png"] if len(sheets) == 1 else [f"limits-{number}.png" for number in range(1, len(sheets) + 1)]
    for name, sheet in zip(pictures, sheets, strict=True):
        figure = plots.limits_plot(sheet, title=f"how far the knobs go: {what}" if len(sheet) > 1 else what)
        files.write_bytes(out / name, render.figure_png(figure))
    _write_limits(results, out)
    store.save_control(changed, place)
    options.write(out / "options.json", "limits", resolved)
    _show_limits(results, chosen, what)
    say(f"written: {', '.join(pictures)}, limits.csv, limits.json, options.json in {out}; the ranges in {place}")


def _amounts(given: Sequence[str] | None, knobs: Sequence[Knob]) -> dict[str, tuple[float, ...]]:
    from steerable import checks

    found: dict[str, tuple[float, ...]] = {}
    for text in given or ():
        terminal.parse_pairs([text], "--amounts")
        name, amounts = terminal.parse_sweep(text, flag="--amounts")
        checks.known(name, [knob.name for knob in knobs], "knob")
        if name in found:
            raise ValueError(f'--amounts names "{name}" twice: give all its amounts at once.')
        found[name] = amounts
    return found


def _place(control: Path, out: Path, keep: bool) -> Path:
    """Where the control with its ranges goes: back into its file, or beside the figure where that is not ours."""
    if control.is_file() and not keep:
        return options.file(control, control.suffix, "a control")
    stem = control.stem if control.is_file() else control.name.replace("/", "-")
    return out / f"{stem}.safetensors"


def _write_limits(results: Sequence[Limits], out: Path) -> None:
    from steerable import files, sampling
    from steerable.evaluation.limits import COLUMNS, table

    rows = [row for result in results for row in table(result)]
    units = {"amount": "of the knob", "mean": "of the attribute", "sd": "of the attribute"}
    sampling.write_table(out / "limits.csv", dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)), {"units": units})
    described = [
        {
            "knob": result.knob.name, "unit": result.knob.unit, "attribute": result.attribute, "attribute_unit": result.unit,
            "judge": result.judge, "n": result.n, "seed": result.seed, "threshold": result.threshold,
            "threshold_from": result.threshold_from, "usable": asdict(result.usable),
            "rows": [dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in table(result)],
        }
        for result in results
    ]  # fmt: skip
    files.write_text(out / "limits.json", json.dumps(described, indent=1) + "\n")


def _show_limits(results: Sequence[Limits], before: Sequence[Knob], what: str) -> None:
    from steerable.evaluation.limits import table

    for result in results:
        fid = result.frechet is not None
        rows = []
        for _, amount, mean, sd, overlap, distance, frechet, step, step_sd, found, usable in table(result):
            cells = [amount, mean, sd, overlap, distance, *([frechet] if fid else []), step, step_sd]
            rows.append([*("–" if cell is None else short(cell) for cell in cells), f"{found:.0%}", "yes" if usable else "no"])
        columns = ("amount", "mean", "sd", "intersection", "kernel", *(["Fréchet"] if fid else []), "step", "step sd", "found", "usable")
        unit = f", {result.unit}" if result.unit else ""
        terminal.table(f"{result.knob.name} ({result.knob.unit}) on {what}: {result.attribute}{unit}; judge: {result.judge}", columns, rows)
        say("")
    rows = []
    for result, knob in zip(results, before, strict=True):
        usable = result.usable
        rows.append(
            (knob.name, knob.unit, f"{short(knob.low)} to {short(knob.high)}", f"{short(usable.low)} to {short(usable.high)}",
             usable.low_ends, usable.high_ends, short(result.threshold))
        )  # fmt: skip
    columns = ("knob", "unit", "range before", "usable range", "ends below by", "ends above by", "threshold")
    terminal.table(f"usable ranges; threshold of the kernel distance: {results[0].threshold_from}", columns, rows)
