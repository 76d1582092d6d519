"""``steer fit``: axes of measured attributes, walks that imitate an edit, features from a user's labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import parse_names, say, short


def axes(
    out: Annotated[Path, typer.Option(help="Control file to write.")] = Path("axes.safetensors"),
    columns: Annotated[str, typer.Option(help="Only these columns, with commas; all by default.")] = "",
    generator: options.GeneratorName = "faces64",
    features: options.Features = "all",
    head: options.Heads = None,
    n: Annotated[int, typer.Option(help="Latents to fit on.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of these latents.")] = 0,
    hold: Annotated[str, typer.Option(help="Attributes that every other axis leaves alone, with commas.")] = "",
    whiten: Annotated[bool, typer.Option("--whiten", help="Hold under the latents' covariance.")] = False,
    psi: options.Psi = 1.0,
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Fit one calibrated axis for each measured attribute, and plot what they share before and after --hold."""
    from steerable import files, render, store
    from steerable.evaluation.summary import entanglement
    from steerable.fitting.axes import fit_axes, score_of

    resolved = locals()
    made, measures = options.generator(generator, device), options.features(features, head, device)
    wanted = parse_names(columns) or None
    control = fit_axes(made, measures, columns=wanted, n=n, seed=seed, hold=parse_names(hold), whiten=whiten, psi=psi, cache=cache)
    store.save_control(control, out)
    if len(control.knobs) > 1:
        names = [knob.name for knob in control.knobs]
        held = f"holding {hold}" if hold else "nothing held"
        correlation, cosine = entanglement(control, made.sample(n, seed=seed, psi=psi))
        for what, (before, after) in (("correlation", correlation), ("cosine", cosine)):
            figure = render.matrices(before, after, names, titles=("before", held), title=f"{what} of the axes (n {n}, seed {seed})", unit=what)
            files.write_bytes(out.with_name(f"{out.stem}-{what}.png"), render.figure_png(figure))
    options.write(out.with_suffix(".json"), "fit axes", resolved)
    rows = []
    for knob in control.knobs:
        kind, score = score_of(control, knob.name)
        spread = [short(knob.value_at(p)) for p in (5, 50, 95)]
        rows.append((knob.name, knob.unit, kind, f"{score:.2f}", short(knob.low), short(knob.high), *spread))
    title = f"{len(rows)} axes of {made.name}: n {n}, seed {seed}; scores ten-fold held out; usable range of change on further latents"
    terminal.table(title, ("axis", "unit", "score", "held out", "low", "high", "p5", "p50", "p95"), rows)
    say(f"written: {out}")


def walks(
    edits: Annotated[str, typer.Argument(help="With commas: brightness, colour, contrast, zoom, shift-x, shift-y, rotate.")],
    out: Annotated[Path, typer.Option(help="Control file to write.")] = Path("walks.safetensors"),
    generator: options.GeneratorName = "faces64",
    n: Annotated[int, typer.Option(help="Latents to train each walk on.")] = 1024,
    seed: Annotated[int, typer.Option(help="Seed of these latents.")] = 0,
    reach: Annotated[float | None, typer.Option(help="Train on amounts up to this, not on the edit's own range.")] = None,
    device: options.Device = "auto",
) -> None:
    """Learn one linear walk for each edit, without labels, and calibrate it on what the generator really does."""
    from steerable import store
    from steerable.controls.directions import join
    from steerable.fitting.walks import fit_directions

    resolved = locals()
    made = options.generator(generator, device)
    amounts = None if reach is None else (-reach, reach)
    control = join([fit_directions(made, name, seed=seed, n=n, amounts=amounts) for name in parse_names(edits)])
    store.save_control(control, out)
    options.write(out.with_suffix(".json"), "fit walks", resolved)
    losses = {name: loss["mean"] for part in control.fit["parts"] for name, loss in part["held_out"].items()}
    rows = [(knob.name, knob.unit, f"{losses[knob.name]:.2f}", short(knob.low), short(knob.high)) for knob in control.knobs]
    title = f"{len(rows)} walks of {made.name}: n {n}, seed {seed}; loss on held-out latents, 0 perfect, 1 useless; range as read back from images"
    terminal.table(title, ("walk", "unit", "relative loss", "low", "high"), rows)
    say(f"written: {out}")


def label(
    labels: Annotated[Path, typer.Argument(help="CSV or Parquet with seed,label or file,label; or a folder with labels.csv.")],
    name: Annotated[str, typer.Option(help="Name of the new feature.")],
    out: Annotated[Path | None, typer.Option(help="Feature file to write; NAME.safetensors by default.")] = None,
    column: Annotated[str, typer.Option(help="Column with the label.")] = "label",
    unit: Annotated[str, typer.Option(help="Unit of a number.")] = "",
    generator: options.GeneratorName = "faces64",
    seed: Annotated[int, typer.Option(help="Seed of the split into training and held-out rows.")] = 0,
    device: options.Device = "auto",
) -> None:
    """Train a feature on your own labels; use it with --head in measure, fit axes and evaluate."""
    from steerable import store
    from steerable import zoo as shelf
    from steerable.fitting.labels import fit_feature

    made = options.generator(generator, device)
    backbone = shelf.load_backbone().to(options.device(device))
    feature = fit_feature(labels, backbone=backbone, name=name, generator=made, column=column, unit=unit, seed=seed)
    path = store.save_feature(feature, out or Path(f"{name}.safetensors"))
    for key, value in (feature.report or {}).items():
        say(f"{key + ':':20} {value}")
    say(f"written: {path}")
