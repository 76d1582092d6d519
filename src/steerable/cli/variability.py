"""``steer variability``: whether classes that vary more in the data are moved further."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable.cli import attributes, options, terminal
from steerable.cli.terminal import parse_names, say, short

if TYPE_CHECKING:
    from steerable.evaluation.variability import Variability
    from steerable.protocols import Knob
    from steerable.sources import ImageSource


def variability(
    control: attributes.ControlFile,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Labelled pictures, class by class as the generator was trained on them: a folder with idx files, class folders or a "
            "Hugging Face data set, .npz, or hf:OWNER/NAME. By default the spread is that of the generator's own samples.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which part of idx files and Hugging Face data sets.")] = "train",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the figure and the table.")] = Path("variability"),
    knobs: attributes.Knobs = "",
    amount: Annotated[
        list[str] | None,
        typer.Option(
            "--amount",
            metavar="KNOB=AMOUNT",
            help="alpha*: every class is turned to -AMOUNT and AMOUNT; by default the largest that stays plausible. Repeatable.",
        ),
    ] = None,
    classes: Annotated[str, typer.Option(metavar="NUMBERS", help="Only these classes, as 0-35,40; all by default.")] = "",
    names: Annotated[
        str, typer.Option(metavar="NAMES", help="Of the classes, with commas; the data's, or their numbers, by default.")
    ] = "",
    contrast: Annotated[
        list[str] | None,
        typer.Option("--contrast", metavar="CLASS,CLASS", help="Tell two classes apart by a two-sample t. Repeatable; none by default."),
    ] = None,
    attribute: attributes.Attributes = None,
    foreground: attributes.Foreground = "border",
    threshold: attributes.Threshold = None,
    generator: options.GeneratorName = options.GENERATOR,
    n: Annotated[int, typer.Option(metavar="NUMBER", help="Latents to steer, of each class.")] = 200,
    quality_n: Annotated[
        int, typer.Option("--quality-n", metavar="NUMBER", help="Images for each kernel distance, over all classes.")
    ] = 256,
    seed: attributes.EvaluationSeed = 1,
    psi: options.Psi = 1.0,
    with_: options.With = None,
    device: options.Device = "auto",
) -> None:
    """Relate how far each class can be moved to how much it varies in the data.

    Every class is turned to the same two ends. How far the attribute's mean moves between them is put against its standard deviation
    over the data of that class: Pearson's r, slope and p over the classes, and the two-sample t of the classes that are named.
    """
    resolved = dict(locals())
    from steerable import files, plots, render, sources, store, zoo
    from steerable.evaluation.variability import variability as measured

    options.folder(out)
    for flag, number, least in (("--n", n, 2), ("--quality-n", quality_n, attributes.LEAST)):
        if number < least:
            raise ValueError(f"{flag} takes {least} images or more, got {number}.")
    pairs = [_pair(text) for text in contrast or ()]
    made = options.generator(generator, device, with_)
    loaded = store.load_control(control, generator=made)
    chosen = attributes.chosen(loaded, knobs)
    ends = _ends(amount, chosen)
    numbers = terminal.parse_seeds(classes) if classes else None
    looked_at = attributes.attributes(chosen, attribute, foreground, device)
    spread: ImageSource | None = None
    if data is not None:
        spread = sources.read_source(data, size=made.image_shape[1], channels=made.image_shape[0], split=split)
    judge = zoo.load_backbone().to(options.device(device))
    results: list[Variability] = []
    for knob in chosen:
        results.append(
            measured(
                made, loaded, looked_at[knob.name], sigma=spread, amount=ends.get(knob.name), threshold=threshold,
                network=judge, looks=bool(pairs), knob=knob.name, classes=numbers, names=parse_names(names) or None, n=n, seed=seed,
                psi=psi, quality_n=quality_n,
            )
        )  # fmt: skip
        for first, second in pairs:
            results[-1].contrast(first, second)  # a class that is not there ends the command before the next knob is measured
    title = f"how far classes of {made.name} are moved, against how much they vary: n {n} a class, seed {seed}"
    files.write_bytes(out / "variability.png", render.figure_png(plots.variability_plot(results, title=title)))
    _write_variability(results, pairs, out)
    options.write(out / "options.json", "variability", resolved)
    _show_variability(results, pairs, made.name)
    say(f"written: variability.png, variability.csv, variability.json, options.json in {out}")


def _pair(text: str) -> tuple[str, str]:
    names = parse_names(text)
    if len(names) != 2:
        raise ValueError(f'--contrast names two classes with a comma, for example --contrast robin,laptop; got "{text}".')
    return names[0], names[1]


def _ends(given: Sequence[str] | None, knobs: Sequence[Knob]) -> dict[str, float]:
    from steerable import checks

    found = {}
    for name, text in terminal.parse_pairs(given or (), "--amount").items():
        knob = next(one for one in knobs if one.name == checks.known(name, [knob.name for knob in knobs], "knob"))
        try:
            found[name] = float(text)
        except ValueError:
            raise ValueError(f'--amount takes a number above 0 in {knob.unit or "the unit of the knob"}, got "{text}".') from None
    return found


def _write_variability(results: Sequence[Variability], pairs: Sequence[tuple[str, str]], out: Path) -> None:
    from steerable import files, sampling
    from steerable.evaluation.variability import COLUMNS, table

    rows = [(result.knob.name, *row) for result in results for row in table(result)]
    sampling.write_table(out / "variability.csv", dict(zip(("knob", *COLUMNS), map(list, zip(*rows, strict=True)), strict=True)), {})
    described = []
    for result in results:
        described.append(
            {
                "knob": result.knob.name, "unit": result.knob.unit, "amount": result.amount, "attribute": result.attribute,
                "attribute_unit": result.unit, "judge": result.judge, "sigma_from": result.sigma_from, "n": result.n, "seed": result.seed,
                "threshold": result.threshold, "tried": [list(one) for one in result.distances], **_line(result),
                "contrasts": [asdict(one) for first, second in pairs for one in result.contrast(first, second)],
                "rows": [dict(zip(COLUMNS, row, strict=True)) for row in table(result)],
            }
        )  # fmt: skip
    files.write_text(out / "variability.json", json.dumps(described, indent=1) + "\n")


def _line(result: Variability) -> dict[str, Any]:
    try:
        return {"relation": asdict(result.relation)}
    except ValueError as error:
        return {"relation": None, "why": str(error)}


def _show_variability(results: Sequence[Variability], pairs: Sequence[tuple[str, str]], generator: str) -> None:
    from steerable.evaluation.variability import table

    for result in results:
        unit = f", {result.unit}" if result.unit else ""
        rows = [
            (name, str(index), *(short(one) for one in (sigma, moved, low, high)), f"{found:.0%}", str(pictures) if pictures else "–")
            for name, index, sigma, moved, low, high, found, pictures in table(result)
        ]
        title = (
            f"{result.knob.name} by -{short(result.amount)} and {short(result.amount)} {result.knob.unit} on {generator}: "
            f"{result.attribute}{unit}; "
            f"judge: {result.judge}; sigma: {result.sigma_from}; n {result.n} a class, seed {result.seed}"
        )
        terminal.table(title, ("class", "index", "sigma", "delta mu", "mean -", "mean +", "found", "pictures"), rows)
        if result.threshold is not None:
            tried = "; ".join(f"{short(amount)}: {short(max(below, above))}" for amount, below, above in result.distances)
            bound = f"kernel distance {short(result.threshold)} on both sides"
            say(f"alpha* {short(result.amount)}: the largest amount below {bound} (tried: {tried})")
        line = _line(result)
        if line["relation"] is None:
            say(f"no line: {line['why']}")
        else:
            one = result.relation
            say(
                f"delta mu against sigma: r {one.r:.2f} (95 %: {short(one.low)} to {short(one.high)}), p {short(one.p)}, "
                f"slope {short(one.slope)} ± {short(one.error)}, n {one.n} classes"
            )
        for first, second in pairs:
            for found in result.contrast(first, second):
                say(
                    f"{found.first} against {found.second}, {found.what}: {short(found.means[0])} and {short(found.means[1])}, "
                    f"t {found.t:.2f}, p {short(found.p)}, n {found.n[0]} and {found.n[1]}"
                )
        say("")
