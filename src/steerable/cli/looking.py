"""The verbs before fitting: what is there, what it generates, what is measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import parse_seeds, plural, say, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steerable.generators.module import ModuleGenerator
    from steerable.recipe import Turn

SHEET = 240  # pictures on a contact sheet


def zoo(name: Annotated[str | None, typer.Argument(metavar="NAME", help="One entry, in full; all are listed by default.")] = None) -> None:
    """List the shipped generators, networks and features, with licence and source."""
    from steerable import checks
    from steerable import zoo as shelf

    entries = shelf.entries()
    if name is not None:
        for field, value in vars(entries[checks.known(name, entries, "zoo entry")]).items():
            say(f"{field + ':':15} {value}")
        return
    rows = [(e.name, e.kind, e.licence, f"{e.registry} {e.package} {e.version}", e.sha256[:12]) for e in entries.values()]
    terminal.table(f"{len(rows)} files", ("name", "kind", "licence", "made from", "sha256"), rows)
    groups = {one: group for group, names in shelf.feature_names().items() if group != "all" for one in names}
    shown = [shelf.load_feature(one) for one in (*groups, *shelf.HOLDS)]
    cells = [
        (
            f.name,
            groups.get(f.name, "(wide)"),
            f.unit,
            str(len(f.columns)),
            ", ".join(f.columns[:5]) + (", …" if len(f.columns) > 5 else ""),
        )
        for f in shown
    ]
    say("")
    terminal.table(f"{len(shown)} features", ("name", "group", "unit", "columns", "their names"), cells)


def sample(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the pictures.")] = Path("samples"),
    seeds: options.Seeds = "0-23",
    generator: options.GeneratorName = options.GENERATOR,
    psi: options.Psi = 1.0,
    cutoff: options.Cutoff = None,
    with_: options.With = None,
    label: options.Label = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What the pictures are to measure, for a generator that ships with controllers: slant=20, ink=p90. Each seed draws one of "
            "the many pictures that do. Repeatable; none by default.",
        ),
    ] = None,
    scale: options.Scale = 1,
    device: options.Device = "auto",
) -> None:
    """Generate a picture for each seed, and a contact sheet. Every PNG carries the recipe that made it."""
    resolved = dict(locals())
    from steerable import drawing, progress, recipe

    numbers = tuple(parse_seeds(seeds))
    options.folder(out)
    made = options.generator(generator, device, with_)
    turn = _drawn(made, terminal.parse_pairs([one for text in set_ for one in text.split(",")], "--set")) if set_ else None
    whole = recipe.Recipe(
        generator=generator,
        fingerprint=made.fingerprint,
        options=options.options_of(with_),
        seeds=numbers,
        psi=psi,
        cutoff=cutoff,
        label=label,
        turn=turn,
        scale=scale,
    )
    for i in progress.track(range(len(numbers)), "sample"):
        drawing.write(recipe.of_seeds(whole, slice(i, i + 1)), made, out / f"seed-{numbers[i]:06d}.png")
    if len(numbers) > 1:
        drawing.write(recipe.of_seeds(whole, slice(SHEET)), made, out / "sheet.png")
    options.write(out / "options.json", "sample", resolved)
    sheet = f", sheet.png shows the first {SHEET}" if len(numbers) > SHEET else ""
    say(f"written: {plural(len(numbers), 'picture')} of {made.name} in {out} (seeds {seeds}, psi {psi:g}{sheet})")


def _drawn(made: ModuleGenerator, wanted: Mapping[str, str]) -> Turn:
    """Values that each seed draws an answer for, by the controllers that ship with the generator."""
    from steerable import recipe

    control: Any = made.controllers
    if control is None:
        raise ValueError(
            f"{made.name} ships without controllers, so nothing can be set while sampling: steer apply --set {next(iter(wanted))}=... "
            "changes pictures that are there."
        )
    chosen, numbers = control.asked(wanted, 1)
    return recipe.turn(chosen, values={knob.name: float(x) for knob, x in zip(chosen.knobs, numbers[0], strict=True)}, by="draw")


def measure(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Table to write: .csv or .parquet.")] = Path("measured.csv"),
    seeds: options.Seeds = "0-255",
    generator: options.GeneratorName = options.GENERATOR,
    features: options.Features = "all",
    head: options.Heads = None,
    psi: options.Psi = 1.0,
    with_: options.With = None,
    label: options.Label = None,
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Measure the picture of each seed: a table with a row a seed, and its percentiles on the terminal."""
    resolved = dict(locals())
    from steerable import sampling

    options.file(out, sampling.check_table_name(out).suffix, "a table")
    numbers = parse_seeds(seeds)
    made, measures = options.generator(generator, device, with_), options.features(features, head, device)
    table = sampling.measure_seeds(made, measures, numbers, psi=psi, label=label, cache=cache)
    units = dict(zip(table.columns, table.units, strict=True))
    columns = {"seed": numbers, **{name: table.column(name).tolist() for name in table.columns}}
    sampling.write_table(out, columns, {"units": units, "generator": generator, "fingerprint": made.fingerprint, "psi": psi})
    options.write(out.with_suffix(".options.json"), "measure", resolved)
    ranks = (0.05, 0.25, 0.5, 0.75, 0.95)
    rows = [(name, units[name], *(short(float(table.column(name).quantile(q))) for q in ranks)) for name in table.columns]
    title = f"percentiles of n {len(numbers)} images of {made.name}, seeds {seeds}, psi {psi:g}; the judge is the feature of the column"
    terminal.table(title, ("column", "unit", *(f"p{q * 100:.0f}" for q in ranks)), rows)
    say(f"written: {out}")
