"""``steer apply``: steer the images of some seeds, and say what moved and what leaked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.looking import SHEET
from steerable.cli.terminal import parse_box, parse_names, parse_pairs, parse_seeds, parse_sweep, plural, say, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerable.controls.directions import Directions
    from steerable.generators.module import ModuleGenerator
    from steerable.protocols import Feature, Latents
    from steerable.recipe import Recipe, Turn

OTHERS = 5  # columns shown beside those that were asked for


def apply(
    control: Annotated[Path | None, typer.Argument(metavar="CONTROL", help="Control file made by 'steer fit'.")] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KNOB=AMOUNT",
            help="Change by an amount in the knob's unit: smile=2, yaw=-10; p90 is the way from the median to that percentile. Repeatable.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KNOB=VALUE", help="Move each face until it measures the value: yaw=20, or the percentile p90. Repeatable."
        ),
    ] = None,
    hold: Annotated[
        str, typer.Option(metavar="NAMES", help="Knobs of the control whose attributes stay, with commas; none by default.")
    ] = "",
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KNOB=AMOUNTS", help="One strip, a column for each amount: yaw=-20,0,20, or yaw=-20:20:5 for five from end to end."
        ),
    ] = None,
    hold_box: Annotated[
        str | None,
        typer.Option(
            metavar="BOX",
            help="Hold the pixels of a box and move the rest: top,left,bottom,right in pixels, 16,18,52,46. Needs no control.",
        ),
    ] = None,
    rest: Annotated[
        float, typer.Option(metavar="AMOUNT", help="With --hold-box: root-mean-square change of the rest, images in [-1, 1].")
    ] = 0.25,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Make the picture of this PNG (or of a recipe as JSON) again, byte for byte; needs nothing else."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for pictures and measurements.")] = Path("applied"),
    seeds: options.Seeds = "0-3",
    generator: options.GeneratorName = options.GENERATOR,
    features: options.Features = "all",
    layers: Annotated[
        str | None, typer.Option(metavar="LAYERS", help="Turn the control in these layers only: 4-7,10, or their names. All by default.")
    ] = None,
    psi: options.Psi = 1.0,
    cutoff: options.Cutoff = None,
    with_: options.With = None,
    label: options.Label = None,
    scale: options.Scale = 1,
    device: options.Device = "auto",
) -> None:
    """Steer the images of some seeds. Prints what moved, what leaked and what the second judge says."""
    resolved = dict(locals())
    from steerable import recipe as recipes

    options.folder(out)
    if recipe is not None:
        if control or turn or set_ or hold or sweep or hold_box:
            raise ValueError("--recipe makes a picture as it was: leave out the control and --turn, --set, --hold, --sweep, --hold-box.")
        return _again(recipe, generator, device, out)
    if control is None and hold_box is None and not (turn or set_ or hold or sweep):
        raise ValueError("nothing to apply: name a control file and --turn, --set or --sweep, or give --hold-box, or --recipe PICTURE.png.")
    numbers = tuple(parse_seeds(seeds))
    drive = None if hold_box is None else recipes.Drive(box=parse_box(hold_box), amount=_rest(rest))
    swept = None
    if sweep is not None:
        knob, amounts = parse_sweep(sweep)
        swept = recipes.Sweep(knob=knob, amounts=amounts)
    made = options.generator(generator, device, with_)
    whole = recipes.Recipe(
        generator=generator,
        fingerprint=made.fingerprint,
        options=options.options_of(with_),
        seeds=numbers,
        psi=psi,
        cutoff=cutoff,
        label=label,
        turn=_turn(made, control, turn or [], set_ or [], parse_names(hold), swept.knob if swept else None, layers),
        drive=drive,
        sweep=swept,
        scale=scale,
    )
    measures = options.features(features, None, device)
    moved = recipes.steer(whole, made)
    _write(whole, made, moved, out)
    _ledger(whole, made, moved, measures, out)
    options.write(out / "options.json", "apply", resolved)


def _rest(amount: float) -> float:
    if not 0 < abs(amount) < float("inf"):
        raise ValueError(f"--rest is a finite amount other than 0, images in [-1, 1], for example 0.25; got {amount:g}.")
    return amount


def _again(path: Path, generator: str, device: str, out: Path) -> None:
    """The picture of a recipe; a generator given on the command line stands in for the one that the recipe names."""
    from steerable import recipe

    known = recipe.read(path)
    try:
        made = options.generator(known.generator if generator == options.GENERATOR else generator, device)
    except ValueError as error:
        raise ValueError(f'{path} was made by the generator "{known.generator}": {error} Name its file with --generator FILE.') from None
    say(f"written: {recipe.write(known, made, out / f'{path.stem}.png')}")


def _turn(
    made: ModuleGenerator,
    path: Path | None,
    turn: list[str],
    set_: list[str],
    hold: list[str],
    swept: str | None,
    layers: str | None,
) -> Turn | None:
    from steerable import checks, recipe, store
    from steerable.controls.directions import amounts

    if path is None:
        if turn or set_ or hold or swept or layers:
            raise ValueError(
                "--turn, --set, --hold, --sweep and --layers turn the knobs of a control: name its file, "
                "for example steer apply axes.safetensors --turn smile=2."
            )
        return None
    control = store.load_control(path, generator=made)
    known = [knob.name for knob in control.knobs]
    if not (turn or set_ or swept):
        more = f" and {len(known) - 8} more" if len(known) > 8 else ""
        raise ValueError(f"{path} has the knobs {', '.join(known[:8])}{more}: turn one, for example --turn {known[0]}=1.")
    asked, wanted = parse_pairs(turn, "--turn"), parse_pairs(set_, "--set")
    for name in (*asked, *wanted, *hold, *([swept] if swept else [])):
        checks.known(name, known, "knob")
    twice = [name for name in known if [*asked, *wanted, swept].count(name) > 1]
    if twice:
        raise ValueError(f'"{twice[0]}" stands in two of --turn, --set and --sweep: choose one.')
    clash = {*asked, *wanted, swept} & set(hold)
    if clash:
        raise ValueError(f"{', '.join(sorted(map(str, clash)))} cannot be turned and held at once: take it out of --hold.")
    if layers is not None:
        control = control.held(hold)
        control, hold = (control if control.space.layers else control.lifted(made, "w+")).in_layers(layers), []
    turned = {name: float(amounts(control[name], 1, {name: text})[0, 0]) for name, text in asked.items()}
    values = {name: _value(control, name, text) for name, text in wanted.items()}
    return recipe.turn(control, amounts=turned, values=values, hold=hold, swept=[swept] if swept else [])


def _value(control: Directions, name: str, text: str) -> float:
    """The value of ``--set name=text``: a number, or a percentile of the population."""
    rank = text.removeprefix("p")
    try:
        number = float(rank)
    except ValueError:
        number = float("nan")
    if number - number != 0:
        raise ValueError(
            f'--set {name} takes a finite number of {control[name].knobs[0].unit or "its unit"} or a percentile like p90, got "{text}".'
        )
    return control[name].knobs[0].value_at(number) if rank != text else number


def _write(whole: Recipe, made: ModuleGenerator, moved: Sequence[Latents], out: Path) -> None:
    """A picture a seed and a sheet of all, or one strip."""
    from steerable import progress, recipe

    about = f"{made.name}, n {plural(len(whole.seeds), 'seed')}, psi {whole.psi:g}"
    if whole.sweep is not None:
        return say(f"written: {recipe.write(whole, made, out / f'strip-{whole.sweep.knob}.png', moved)} ({about})")
    for i in progress.track(range(len(whole.seeds)), "draw"):
        rows = slice(i, i + 1)
        recipe.write(recipe.of_seeds(whole, rows), made, out / f"seed-{whole.seeds[i]:06d}.png", [moved[0][rows]])
    if len(whole.seeds) > 1:
        recipe.write(recipe.of_seeds(whole, slice(SHEET)), made, out / "sheet.png", [moved[0][:SHEET]])
    say(f"written: {plural(len(whole.seeds), 'picture')} in {out} ({about})")


def _ledger(whole: Recipe, made: ModuleGenerator, moved: Sequence[Latents], measures: Sequence[Feature], out: Path) -> None:
    """What every measured column was before and is after, seed by seed in a file, as means on the terminal."""
    from steerable import recipe, sampling
    from steerable.evaluation.summary import JUDGES

    columns, units = sampling.columns_of(measures)
    start = recipe.begin(whole, made)
    before, after = sampling.observe(made, measures, start), [sampling.observe(made, measures, one) for one in moved]
    steps = whole.sweep.amounts if whole.sweep else (None,)
    table: dict[str, Sequence[float]] = {"seed": list(whole.seeds) * len(steps)}
    if whole.sweep is not None:
        table[whole.sweep.knob + "-amount"] = [step for step in whole.sweep.amounts for _ in whole.seeds]
    for i, name in enumerate(columns):
        table |= {f"{name}-before": before[:, i].tolist() * len(steps), f"{name}-after": [v for one in after for v in one[:, i].tolist()]}
    sampling.write_table(out / "measured.csv", table, {"units": dict(zip(columns, units, strict=True)), "judges": dict(JUDGES)})

    population = sampling.observe(made, measures, made.sample(64, seed=1, psi=whole.psi, labels=whole.label)).std(0)
    asked: dict[str, str] = {}
    if whole.turn is not None:
        asked = {k: short(v) for k, v in whole.turn.amounts.items()} | {k: f"to {short(v)}" for k, v in whole.turn.values.items()}
    hold = whole.turn.hold if whole.turn else ()
    rows = []
    for step, values in zip(steps, after, strict=True):
        told = {**asked, **({whole.sweep.knob: short(step)} if whole.sweep and step is not None else {})}
        change = (values - before).mean(0)
        drift = (values - before).abs().mean(0) / population.clamp(min=1e-9)
        judges = {JUDGES[name]: name for name in told if name in JUDGES}
        first = [name for name in dict.fromkeys([*told, *judges, *hold]) if name in columns]
        others = [columns[i] for i in drift.argsort(descending=True).tolist() if columns[i] not in first]
        for name in [*first, *others[: OTHERS if whole.sweep is None else 1]]:
            i = columns.index(name)
            role = "turned" if name in told else "held" if name in hold else f"judge of {judges[name]}" if name in judges else "other"
            at = () if step is None else (short(step),)
            rows.append((*at, role, name, units[i], told.get(name, "–"), short(float(change[i])), short(float(drift[i]), 2)))
    n = plural(len(whole.seeds), "seed")
    title = f"mean change over n {n}; last column: mean absolute change in deviations of the population (n 64, seed 1)"
    at = () if whole.sweep is None else (f"at {whole.sweep.knob}",)
    terminal.table(title, (*at, "role", "column", "unit", "asked", "measured", "deviations"), rows)
    _answers(whole, columns, after[0])
    unseen = [name for name in asked if name not in columns]
    if unseen:
        say(f"not measured, because no feature among --features has it: {', '.join(unseen)}")
    if whole.drive is not None:
        _boxed(whole, made, start, moved)


def _answers(whole: Recipe, columns: tuple[str, ...], after) -> None:
    """For every ``--set``: the values that came out, and the seeds that were not brought there."""
    from steerable.evaluation.summary import JUDGES

    for name, value in (whole.turn.values if whole.turn and whole.sweep is None else {}).items():
        if name not in columns:
            continue
        got = after[:, columns.index(name)]
        judge = JUDGES.get(name, "")
        second = f"; second judge {judge}: mean {short(float(after[:, columns.index(judge)].mean()))}" if judge in columns else ""
        ends = f"{short(float(got.min()))} … {short(float(got.max()))}"
        say(f"{name} set to {short(value)}: mean {short(float(got.mean()))}, {ends} over n {plural(len(got), 'seed')}{second}")


def _boxed(whole: Recipe, made: ModuleGenerator, start: Latents, moved: Sequence[Latents]) -> None:
    import torch

    from steerable import recipe

    assert whole.drive is not None
    trail = recipe.trajectory(made, whole.drive.box)
    with torch.no_grad():
        first, last = made(start), [made(one) for one in moved]
    for images in last:
        outside, inside = ((region(images) - region(first)).square().mean(1) for region in (trail.move[0], trail.hold[0]))
        there = int((outside.sqrt() >= 0.98 * abs(whole.drive.amount)).sum())
        say(
            f"squared pixel change: {float(outside.mean()):.4f} outside the box (asked {whole.drive.amount**2:.4f}, reached by {there} of "
            f"n {plural(len(first), 'seed')}), {float(inside.mean()):.5f} inside; judge: the pixels"
        )
