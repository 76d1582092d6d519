"""``steer fit``: axes of measured attributes, walks that imitate an edit, features from a user's labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable.cli import controllable as grouped
from steerable.cli import edits as walked
from steerable.cli import options, terminal
from steerable.cli.terminal import parse_names, say, short

if TYPE_CHECKING:
    from steerable.generators.module import ModuleGenerator
    from steerable.protocols import Control, Edit


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
            metavar="EDITS",
            help="With commas: brightness, colour, colour-lab, contrast, zoom, shift-x, shift-y, rotate, rotate3d; or FILE.py:NAME, "
            "an edit of your own.",
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
    within: walked.Within = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="Fit all walks at once, for use together; by default each alone, which add up.")
    ] = False,
    curved: Annotated[
        bool, typer.Option("--curved", help="Learn a step of a small network and follow it; by default a straight line.")
    ] = False,
    steps: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="With --curved: steps to each end of the range.")] = 5,
    loss: walked.Loss = "squared",
    optimiser: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="eigenbasis or adam; by default eigenbasis for straight walks and adam for curved ones."),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Rate of the fit; by default 0.8 for eigenbasis, less below --n 1024, 0.1 for adam, 0.001 for curved walks.",
        ),
    ] = None,
    precision: options.Precision = "float32",
    space: options.Space = None,
    label: options.OneClass = None,
    with_: options.With = None,
    device: options.Device = "auto",
) -> None:
    """Learn a walk for each edit, without labels, and calibrate it on what the generator really does."""
    resolved = dict(locals())
    from steerable import checks, store
    from steerable.fitting.walks import RATES

    options.file(out, ".safetensors", "a control")
    asked = walked.named(edits)
    groups = walked.reached(asked, reach)
    if optimiser is not None:
        checks.known(optimiser, RATES, "optimiser")
    if curved and optimiser not in (None, "adam"):
        raise ValueError(f"--curved walks are networks, which adam fits: leave out --optimiser {optimiser}.")
    if curved and joint:
        raise ValueError("a --curved walk imitates one edit: leave out --joint, and turn the walks together.")
    if lr is not None and not 0 < lr < float("inf"):
        raise ValueError(f"--lr is a finite rate above 0, got {lr}.")
    made = options.generator(generator, device, with_)
    label = options.label_of(made, label)
    walked.visible(asked, made, reach)
    groups = walked.inside(groups, within, made, device)
    how: dict[str, Any] = {"seed": seed, "n": n, "space": space, "loss": walked.loss(loss, device), "labels": label, "precision": precision}
    how |= {"lr": lr} if lr is not None else {}
    how |= {"steps": steps} if curved else {"optimiser": optimiser or "eigenbasis"}
    control = _fitted(made, groups, out, curved=curved, joint=joint, how=how)
    store.save_control(control, out)
    options.write(out.with_suffix(".json"), "fit walks", resolved)
    losses = held_out(control)
    rows = [(knob.name, knob.unit, f"{losses[knob.name]:.2f}", short(knob.low), short(knob.high)) for knob in control.knobs]
    together = ", fitted jointly" if joint and len(rows) > 1 else ""
    title = (
        f"{terminal.plural(len(rows), 'curved walk' if curved else 'walk')} of {made.name}{together}: n {n}, seed {seed}; loss on "
        "held-out latents, 0 perfect, 1 useless; range, judge: the edit read back from images"
    )
    terminal.table(title, ("walk", "unit", "relative loss", "low", "high"), rows)
    say(f"written: {out}")


def _fitted(made: ModuleGenerator, groups: list[list[Edit]], out: Path, *, curved: bool, joint: bool, how: dict[str, Any]) -> Any:
    """The walks as one control. A fit that diverges or is interrupted leaves what is good so far beside ``out``, under another name."""
    from steerable import store
    from steerable.fitting.curved import fit_walk
    from steerable.fitting.walks import Diverged, Interrupted, fit_directions

    if joint:
        groups = [[one for group in groups for one in group]]
    if curved:
        groups = [[one] for group in groups for one in group]
    finished: list[Control] = []
    try:
        for group in groups:
            finished.append(fit_walk(made, group[0], **how) if curved else fit_directions(made, group, **how))
    except (Diverged, KeyboardInterrupt) as error:
        last = error.last if isinstance(error, Diverged | Interrupted) else None
        kept = [*finished, *([] if last is None else [last])]
        place = out.with_stem(out.stem + "-kept")
        if kept:
            store.save_control(_one(kept), place)
        if isinstance(error, Diverged):
            where = f"The last good state is kept in {place}" if kept else "There was no good state to keep"
            raise ValueError(f"{error} {where}.") from error
        if kept:
            terminal.complain(f"what was fitted so far is kept in {place}, the last walk unfinished.")
        raise
    return _one(finished)


def _one(parts: list[Control]) -> Any:
    """Several walks as one control: straight ones join and add up, curved ones are followed one after the other."""
    from steerable.controls.chain import Chain
    from steerable.controls.directions import Directions, join

    if len(parts) == 1:
        return parts[0]
    straight = [part for part in parts if isinstance(part, Directions)]
    return join(straight) if len(straight) == len(parts) else Chain(tuple(parts), {"method": "chained"})


def held_out(control: Any) -> dict[str, float]:
    """Knob -> relative loss on held-out latents, of a walk or of several together."""
    parts = [*control.fit.get("parts", ()), control.fit, *(part.fit for part in getattr(control, "parts", ()))]
    return {name: loss["mean"] for part in parts for name, loss in part.get("held_out", {}).items()}


def controllers(
    generator: Annotated[
        str, typer.Option("--generator", "-g", metavar="NAME|FILE", help="A generator made by 'steer train controllable'.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Control file to write, .safetensors.")] = Path("controllers.safetensors"),
    groups: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these groups, with commas; by default all that measure something.")
    ] = "",
    feature: grouped.Own = None,
    n: Annotated[int, typer.Option(metavar="NUMBER", min=200, help="Samples to fit on.")] = 8192,
    steps: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Of the fit to the samples, 256 at a time.")] = 1500,
    refine: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Steps after them on pictures, 64 at a time; 0 leaves them out.")
    ] = 600,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Fit networks from values to the groups of a controllable generator: then generator.sample(8, seed=0, values={"slant": 20})."""
    resolved = dict(locals())
    from dataclasses import replace

    from steerable import checks, store
    from steerable.fitting.controllers import fit_controllers
    from steerable.training import domains

    options.file(out, ".safetensors", "a control")
    made = options.generator(generator, device)
    known, domain = grouped.groups_of(generator, feature)
    readings = domains.readings(known)
    wanted = [checks.known(name, readings, "group that measures something") for name in parse_names(groups)] or list(readings)
    control = fit_controllers(made, {name: readings[name] for name in wanted}, n=n, steps=steps, refine=refine, seed=seed)
    control = replace(control, fit={**control.fit, "domain": domain})
    store.save_control(control, out)
    options.write(out.with_suffix(".json"), "fit controllers", resolved)
    rows = []
    for part in control.parts:
        for knob in part.knobs:
            ends = [f"{knob.low:g}", f"{knob.high:g}"] if part.classes else [short(knob.low), short(knob.high)]
            spread = ["–"] * 3 if part.classes else [short(knob.value_at(p)) for p in (5, 50, 95)]
            rows.append((part.group, knob.name, "class" if part.classes else knob.unit, *ends, *spread))
    title = (
        f"{terminal.plural(len(rows), 'value')} of {made.name}: n {n}, seed {seed}; low and high: the reachable interval, measured by "
        "what it was fitted with; p5, p50, p95: of unsteered pictures"
    )
    terminal.table(title, ("group", "value", "unit", "low", "high", "p5", "p50", "p95"), rows)
    say(f"written: {out}; judge it with: steer evaluate {out} --generator {generator}")


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


def values(
    set_: Annotated[str, typer.Option("--set", metavar="NAMES", help="Columns whose values are set, with commas: yaw,smile.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Control file to write, .safetensors.")] = Path("values.safetensors"),
    hold: Annotated[str, typer.Option(metavar="NAMES", help="Features that stay, with commas: identity; none by default.")] = "",
    control: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Axes made by 'steer fit axes', whose lines the search uses; found anew by default."),
    ] = None,
    generator: options.GeneratorName = options.GENERATOR,
    head: options.Heads = None,
    n: Annotated[int, typer.Option(metavar="NUMBER", min=32, help="Latents that are solved and learned from.")] = 384,
    population: Annotated[int, typer.Option(metavar="NUMBER", min=40, help="Further latents that are only measured.")] = 6000,
    held_out: Annotated[int, typer.Option(metavar="NUMBER", min=16, help="Latents of the next seed that it is judged on.")] = 64,
    seed: options.Seed = 0,
    with_: options.With = None,
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Fit a controller that sets values in one pass: a small network learns from solutions of a search."""
    resolved = dict(locals())
    from steerable import store, zoo
    from steerable.controls.directions import Directions
    from steerable.controls.solve import Solve
    from steerable.fitting.amortised import fit_controller

    options.file(out, ".safetensors", "a control")
    names = parse_names(set_)
    if not names:
        raise ValueError("--set names what is set, for example --set yaw,smile.")
    made = options.generator(generator, device, with_)
    own = [store.load_feature(path, zoo.load_backbone().to(options.device(device))) for path in head or ()]
    axes = None
    if control is not None:
        axes = store.load_control(control, generator=made)
        if not isinstance(axes, Directions):
            raise ValueError(f"{control} holds no straight axes: make some with steer fit axes --columns {','.join(names)}.")
        known = [knob.name for knob in axes.knobs if knob.name in names]
        axes = axes[known] if known else None
    solve = Solve(made, set=dict.fromkeys(names, "p50"), hold=parse_names(hold), features=own, axes=axes)
    fitted = fit_controller(solve, n=n, population=population, held_out=held_out, seed=seed, cache=cache)
    store.save_control(fitted, out)
    options.write(out.with_suffix(".json"), "fit values", resolved)
    rows = []
    for knob in fitted.knobs:
        row = fitted.errors[knob.name]
        judged = [short(row[key]) if key in row else "–" for key in ("second", "search, second")]
        found = f"{short(row['mean'])} ± {short(row['standard error'])}"
        rows.append((knob.name, knob.unit, f"{short(knob.low)} … {short(knob.high)}", found, short(row["search"]), *judged))
    title = (
        f"mean absolute error of one pass and of the search it imitates; n {held_out} held-out latents, seed {seed + 1}; "
        "judges: the column itself, and a second network in the same unit where there is one"
    )
    terminal.table(title, ("value", "unit", "range", "one pass", "search", "one pass, 2nd", "search, 2nd"), rows)
    say(f"written: {out.name}, {out.with_suffix('.json').name} in {out.parent}")
