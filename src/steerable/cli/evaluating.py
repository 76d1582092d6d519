"""``steer evaluate``: what a control really does, on latents that nothing was fitted on; and ``steer demo``, the whole story."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steerable.cli import controllable as grouped
from steerable.cli import controlled, options, terminal
from steerable.cli.terminal import parse_names, say, short


def evaluate(
    control: Annotated[Path, typer.Argument(metavar="CONTROL", help="Control file made by 'steer fit', or a shipped one by its name.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for tables and plots.")] = Path("evaluated"),
    knobs: Annotated[str, typer.Option(metavar="NAMES", help="Only these knobs, with commas; all by default.")] = "",
    generator: options.GeneratorName = options.GENERATOR,
    features: options.Features = "all",
    head: options.Heads = None,
    feature: grouped.Own = None,
    n: Annotated[int, typer.Option(metavar="NUMBER", min=2, help="Latents to steer.")] = 64,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, max=2**32 - 1, help="Their seed; take one that nothing was fitted on.")] = 1,
    quality: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Images for the kernel distance along the path, 16 or more; 0 leaves it out.")
    ] = 128,
    psi: options.Psi = 1.0,
    with_: options.With = None,
    device: options.Device = "auto",
) -> None:
    """Measure effect, leakage, plausibility and the second judge of every knob.

    Of controllers: which group decides which measurement, whether values come out, and a grid with one value a row.
    """
    resolved = dict(locals())
    import json

    from steerable import checks, files, render, sampling, store, zoo
    from steerable.controls.groups import Controllers
    from steerable.evaluation import summary
    from steerable.evaluation.quality import path_quality
    from steerable.evaluation.response import response

    options.folder(out)
    if 0 < quality < 16:
        raise ValueError(f"--quality takes 16 images or more, which is the least that says anything, or 0 to leave it out; got {quality}.")
    made = options.generator(generator, device, with_)
    loaded = store.load_control(control, generator=made)
    if isinstance(loaded, Controllers):
        controlled.evaluate(made, loaded, generator, out, parse_names(knobs), feature, n=n, seed=seed)
        return options.write(out / "options.json", "evaluate", resolved)
    measures = options.features(features, head, device)
    for name in parse_names(knobs):
        checks.known(name, [knob.name for knob in loaded.knobs], "knob")
    if parse_names(knobs):
        loaded = loaded[parse_names(knobs)]
    measured = response(made, loaded, measures, n=n, seed=seed, psi=psi)
    deviations = sampling.observe(made, measures, made.sample(256, seed=seed + 1, psi=psi)).std(0)
    leaks = summary.leakage(measured, deviations)
    effects = summary.effects(measured)
    _show(effects, measured, leaks)
    paths = []
    if quality:
        backbone = zoo.load_backbone().to(options.device(device))
        paths = [
            path_quality(made, loaded, knob.name, sorted({knob.low, knob.high} - {0.0}), network=backbone, n=quality, seed=seed)
            for knob in loaded.knobs
        ]
        rows = []
        for path in paths:
            ends = {
                amount > 0: f"{short(distance)} at {short(amount)}" for amount, distance in zip(path.amounts, path.distances, strict=True)
            }
            rows.append((path.knob, ends.get(False, "–"), ends.get(True, "–")))
        title = (
            f"kernel distance to unsteered images at the range's ends; two unsteered sets differ by {short(paths[0].floor)} "
            f"(n {quality}, seed {seed}, judge efficientnet-lite0)"
        )
        terminal.table(title, ("knob", "low end", "high end"), rows)
    report = {
        "n": n,
        "seed": seed,
        "deviations_n": 256,
        "columns": list(measured.columns),
        "effects": [asdict(effect) for effect in effects],
        "leakage": {
            knob.name: dict(zip(measured.columns, row.tolist(), strict=True)) for knob, row in zip(measured.knobs, leaks, strict=True)
        },
        "quality": [asdict(path) for path in paths],
    }
    files.write_text(out / "evaluation.json", json.dumps(report, indent=1) + "\n")
    names = [knob.name for knob in measured.knobs]
    title = f"leakage at one deviation of the turned attribute (n {n}, seed {seed}; deviations of n 256, seed {seed + 1})"
    plot = render.matrix(leaks.nan_to_num(0), names, list(measured.columns), title=title, limits=(-1, 1), unit="population deviations")
    files.write_bytes(out / "leakage.png", render.figure_png(plot))
    options.write(out / "options.json", "evaluate", resolved)
    say(f"written: evaluation.json, leakage.png, options.json in {out}")


def _show(effects, measured, leaks) -> None:
    from steerable.evaluation import summary

    rows = []
    for effect in effects:
        worst = ", ".join(f"{name} {leak:+.2f}" for name, leak in summary.largest_leaks(leaks, measured, effect.knob, count=2))
        second = "–" if effect.second is None else f"{short(effect.second)} {effect.second_unit}"
        numbers = [short(value) for value in (effect.amount, effect.measured, effect.spread)]
        rows.append((effect.knob, effect.unit, *numbers, second, effect.second_judge or "–", worst))
    columns = ("knob", "unit", "asked", "measured", "sd", "second", "second judge", "largest leaks at 1 deviation")
    terminal.table(f"change, mean over n {measured.n} latents of seed {measured.seed}; judge: the column of the knob's name", columns, rows)
    silent = [knob.name for knob in measured.knobs if knob.name not in measured.columns]
    if silent:
        say(f"no measured column is called {', '.join(silent)}: their effect was read back from images when they were fitted.")


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the report.")] = Path("demo"),
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Steer real faces, end to end: fit, steer, hold, set by number, and write one HTML report (under 4 minutes)."""
    from steerable import demo as story

    options.folder(out)
    path = story.run(out, seed=seed, device=options.device(device))
    say(f"open {path}")
