"""``steer fit``: axes of measured attributes, walks that imitate an edit, features from a user's labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import parse_names, say, short


def axes(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Control file to write, .safetensors.")] = Path("axes.safetensors"),
    columns: Annotated[str, typer.Option(metavar="NAMES", help="Fit only these columns, with commas; all by default.")] = "",
    generator: options.GeneratorName = options.GENERATOR,
    features: options.Features = "all",
    head: options.Heads = None,
    n: Annotated[int, typer.Option(metavar="NUMBER", min=40, help="Latents to fit on; 96 further ones give units and ranges.")] = 2000,
    seed: options.Seed = 0,
    hold: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns that every other axis leaves alone, with commas; none by default.")
    ] = "",
    whiten: Annotated[bool, typer.Option("--whiten", help="Hold under the latents' covariance, not in plain latent space.")] = False,
    space: options.Space = None,
    psi: options.Psi = 1.0,
    with_: options.With = None,
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Fit one calibrated axis for each measured column, and plot what the axes share before and after --hold."""
    resolved = dict(locals())
    from steerable import files, render, store
    from steerable.evaluation.summary import entanglement
    from steerable.fitting.axes import fit_axes, score_of

    options.file(out, ".safetensors", "a control")
    if whiten and not parse_names(hold):
        raise ValueError("--whiten says how --hold holds: name what to hold, for example --hold yaw,pitch --whiten.")
    made, measures = options.generator(generator, device, with_), options.features(features, head, device)
    wanted = parse_names(columns) or None
    control = fit_axes(
        made, measures, columns=wanted, n=n, seed=seed, hold=parse_names(hold), whiten=whiten, space=space, psi=psi, cache=cache
    )
    store.save_control(control, out)
    written = [out.name]
    if len(control.knobs) > 1:
        names = [knob.name for knob in control.knobs]
        held = f"holding {hold}" if hold else "nothing held"
        correlation, cosine = entanglement(control, made.sample(n, seed=seed, space=control.space.name, psi=psi))
        for what, (before, after) in (("correlation", correlation), ("cosine", cosine)):
            figure = render.matrices(
                before, after, names, titles=("before", held), title=f"{what} of the axes (n {n}, seed {seed})", unit=what
            )
            written.append(files.write_bytes(out.with_name(f"{out.stem}-{what}.png"), render.figure_png(figure)).name)
    options.write(out.with_suffix(".json"), "fit axes", resolved)
    rows = []
    for knob in control.knobs:
        kind, score = score_of(control, knob.name)
        spread = [short(knob.value_at(p)) for p in (5, 50, 95)]
        rows.append((knob.name, knob.unit, kind, f"{score:.2f}", short(knob.low), short(knob.high), *spread))
    title = (
        f"{terminal.plural(len(rows), 'axis', 'axes')} of {made.name}: n {n}, seed {seed}; judge: the measured column itself, "
        "scores ten-fold held out; low and high: usable change; p5, p50, p95: the column's percentiles"
    )
    terminal.table(title, ("axis", "unit", "score", "held out", "low", "high", "p5", "p50", "p95"), rows)
    say(f"written: {', '.join(written)} in {out.parent}")


def walks(
    edits: Annotated[
        str,
        typer.Argument(
            metavar="EDITS", help="With commas: brightness, colour, colour-lab, contrast, zoom, shift-x, shift-y, rotate, rotate3d."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Control file to write, .safetensors.")] = Path("walks.safetensors"),
    generator: options.GeneratorName = options.GENERATOR,
    n: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Latents to train each walk on.")] = 1024,
    seed: options.Seed = 0,
    reach: Annotated[
        float | None,
        typer.Option(
            metavar="AMOUNT", help="Train on amounts from -AMOUNT to AMOUNT, in the edit's unit; the edit's own range by default."
        ),
    ] = None,
    space: options.Space = None,
    with_: options.With = None,
    device: options.Device = "auto",
) -> None:
    """Learn one linear walk for each edit, without labels, and calibrate it on what the generator really does."""
    resolved = dict(locals())
    from steerable import store
    from steerable.controls.directions import join
    from steerable.edits import edit
    from steerable.fitting.walks import fit_directions

    options.file(out, ".safetensors", "a control")
    names = parse_names(edits)
    for name in names:
        edit(name)
    twice = {name for name in names if names.count(name) > 1}
    if twice or not names:
        raise ValueError(f'name each edit once, with commas, for example zoom,brightness; got "{edits}".')
    if reach is not None and not 0 < reach < float("inf"):
        raise ValueError(f"--reach is a finite amount above 0 in the edit's unit, got {reach}.")
    made = options.generator(generator, device, with_)
    amounts = None if reach is None else (-reach, reach)
    control = join([fit_directions(made, name, seed=seed, n=n, space=space, amounts=amounts) for name in names])
    store.save_control(control, out)
    options.write(out.with_suffix(".json"), "fit walks", resolved)
    losses = {name: loss["mean"] for part in control.fit["parts"] for name, loss in part["held_out"].items()}
    rows = [(knob.name, knob.unit, f"{losses[knob.name]:.2f}", short(knob.low), short(knob.high)) for knob in control.knobs]
    title = (
        f"{terminal.plural(len(rows), 'walk')} of {made.name}: n {n}, seed {seed}; loss on held-out latents, 0 perfect, 1 useless; "
        "range, judge: the edit read back from images"
    )
    terminal.table(title, ("walk", "unit", "relative loss", "low", "high"), rows)
    say(f"written: {out}")


def label(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="CSV or Parquet with seed,label or file,label; or a folder with labels.csv.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the new feature: small letters, digits, hyphens.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Feature file to write; NAME.safetensors by default.")] = None,
    column: Annotated[str, typer.Option(metavar="NAME", help="Column of the table that has the label.")] = "label",
    unit: Annotated[str, typer.Option(metavar="TEXT", help="Unit of labels that are numbers; none by default.")] = "",
    generator: options.GeneratorName = options.GENERATOR,
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=2**32 - 1, help="Seed of the split into training and held-out rows, from 0 on.")
    ] = 0,
    device: options.Device = "auto",
) -> None:
    """Train a feature on your own labels; use it with --head in measure, fit axes and evaluate."""
    resolved = dict(locals())
    from steerable import store
    from steerable import zoo as shelf
    from steerable.fitting.labels import fit_feature

    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f'--name is made of small letters, digits and hyphens, for example round-glasses; got "{name}".')
    path = options.file(out or Path(f"{name}.safetensors"), ".safetensors", "a feature")
    made = options.generator(generator, device)
    backbone = shelf.load_backbone().to(options.device(device))
    feature = fit_feature(labels, backbone=backbone, name=name, generator=made, column=column, unit=unit, seed=seed)
    store.save_feature(feature, path)
    options.write(path.with_suffix(".json"), "fit label", resolved | {"out": path})
    report = feature.report or {}
    base = f"; always naming the commonest class: {report['baseline']:.2f}" if report["kind"] == "classes" else ""
    held_out = f"{report['held_out_rows']} held-out rows of n {report['rows']}, seed {seed}"
    say(f"{name}: {report['score_name']} {report['score']:.2f} on {held_out}{base}")
    say(f"judge: the labels of {labels}; columns: {', '.join(feature.columns)} ({feature.unit or 'no unit'})")
    say(f"written: {path}")
