"""``steer apply``: steer the images of some seeds, as pictures, a strip or a film, and say what moved and what leaked.

``turning`` reads what is turned and set, ``moving`` what goes along a trajectory.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable.cli import moving, options, terminal, turning
from steerable.cli.looking import SHEET
from steerable.cli.terminal import parse_keyframes, parse_seeds, plural, say, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerable.controls.solution import Solution
    from steerable.films import Pace
    from steerable.generators.module import ModuleGenerator
    from steerable.protocols import Feature, Latents
    from steerable.recipe import Recipe

UNMET = 8  # seeds that are told by name what they can reach
OTHERS = 5  # columns shown beside those that were asked for


def apply(
    control: Annotated[Path | None, typer.Argument(metavar="CONTROL", help="A file of 'steer fit', or a shipped one by its name.")] = None,
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
            "--set",
            metavar="NAME=VALUE",
            help="Move each face until it measures the value: yaw=20, or the percentile p90; several with commas. Needs no control.",
        ),
    ] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="What stays, with commas or repeated: knobs of the control; with --set and --move any features, regions and bands too, "
            "identity or outside:person, each with =WEIGHT if wanted. None by default.",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help="How --set finds values: solve, all at once with what is held; or axis, along each knob's straight axis in turn.",
        ),
    ] = "solve",
    head: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Feature of your own, made by 'steer fit label', to set or to hold. Repeatable."),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--strip",
            "--sweep",
            metavar="KNOB[=AMOUNTS]",
            help="One strip, a row for each seed, a column for each amount: yaw=-20,0,20; yaw=-20:20:5 for five from end to end; yaw alone "
            "for seven over its range.",
        ),
    ] = None,
    hold_box: Annotated[
        str | None,
        typer.Option(
            metavar="BOX",
            help="Hold the pixels of a box and move the rest: top,left,bottom,right in pixels, 16,18,52,46. Needs no control.",
        ),
    ] = None,
    move: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FEATURES",
            help="Move these along a trajectory that keeps those of --hold: a feature or column of 'steer zoo', inside:WHERE or "
            "outside:WHERE (a box t,l,b,r; a polygon y,x,y,x,y,x; person, face, hair, eyes, mouth, nose; a mask.png), background, "
            "low:4, high:4, low-fourier:8, high-fourier:8, pixels, your label's file. Needs no control.",
        ),
    ] = None,
    amount: Annotated[
        float | None,
        typer.Option(
            metavar="AMOUNT", help="With --move: change asked, in its unit, to either side; half a standard deviation by default."
        ),
    ] = None,
    course: options.Course = "growing",
    solver: options.Solver = "soft",
    rank: options.Rank = 1,
    leak: options.Leak = 0.08,
    rest: Annotated[
        float, typer.Option(metavar="AMOUNT", help="With --hold-box: root-mean-square change of the rest, images in [-1, 1].")
    ] = 0.25,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Make the picture or the film of this file (or of a recipe as JSON) again, byte for byte; needs nothing else.",
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also a film, .mp4 or .gif, of all seeds side by side: by default from the unsteered pictures to what --turn and "
            "--hold-box ask, or through the amounts of --strip.",
        ),
    ] = None,
    keyframes: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="With --video: amounts from keyframe to keyframe, 'zoom=0; zoom=1; zoom=0, shift-x=.2'. What one does not name stays as "
            "it was; rest is the amount of --hold-box.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="NUMBER", help="With --video: seconds from one keyframe to the next.")] = 1.0,
    fps: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=100, help="With --video: pictures a second.")] = 24,
    easing: Annotated[
        str, typer.Option(metavar="NAME", help="With --video: ease, ease-in, ease-out, linear; hold jumps at the next keyframe.")
    ] = "ease",
    loop: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="With --video: once; boomerang goes back the way it came, return to the first keyframe, seamlessly."
        ),
    ] = "boomerang",
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
    from steerable import drawing, films, named
    from steerable import recipe as recipes

    options.folder(out)
    if recipe is not None:
        if control or turn or set_ or hold or sweep or hold_box or move or video or keyframes or head:
            raise ValueError(
                "--recipe makes a picture as it was: leave out the control, --turn, --set, --hold, --move, --head, --strip, --hold-box "
                "and --video."
            )
        return _again(recipe, generator, device, out)
    if control is None and hold_box is None and not (turn or set_ or hold or sweep or keyframes or move):
        raise ValueError(
            "nothing to apply: name a control file and --turn, --set or --strip, or give --move and --hold, or --hold-box, "
            "or --recipe PICTURE.png."
        )
    if move and (control or hold_box or set_ or turn):
        raise ValueError("--move is a trajectory of its own: leave out the control, --turn, --set and --hold-box; --hold names what stays.")
    if video is None and keyframes is not None:
        raise ValueError("--keyframes are those of a film: name its file, --video film.mp4.")
    pace = films.Pace(seconds, fps, easing, loop)
    if video is not None:
        options.file(video, f".{films.kind_of(video)}", "a film", flag="--video")
    numbers = tuple(parse_seeds(seeds))
    moments = [] if keyframes is None else parse_keyframes(keyframes)
    if not (move or hold_box) and any(recipes.REST in one for one in moments):
        raise ValueError(
            f'"{recipes.REST}" in --keyframes is the amount of a drive: give --move and --hold, or the box to hold, --hold-box 16,18,52,46.'
        )
    held = hold or []
    made = options.generator(generator, device, with_)
    options.label_of(made, label)
    how: dict[str, Any] = {"course": course, "solver": solver, "rank": rank, "leak": leak}
    drive = moving.drive(made, move=move or [], hold=held, amount=amount, hold_box=hold_box, rest=rest, **how) if move or hold_box else None
    names = [] if move else [named.portable(one) for text in held for one in named.split(text)]
    turned, swept = turning.turn(made, control, turn or [], set_ or [], names, sweep, moments, layers, by, head or [])
    whole = recipes.Recipe(
        generator=generator,
        fingerprint=made.fingerprint,
        options=options.options_of(with_),
        seeds=numbers,
        psi=psi,
        cutoff=cutoff,
        label=label,
        turn=turned,
        drive=drive,
        sweep=swept,
        scale=scale,
    )
    film = None if video is None else _film(whole, moments, pace)
    if moments and film and swept is None:  # the film is all that was asked for
        whole = film
    measures = options.features(features, head, device)
    solutions: list[Solution] = []
    moved, way = recipes.steered(whole, made, solutions=solutions)
    if whole is not film:
        _write(whole, made, moved, out)
    if film and film.film and video:
        say(f"written: {drawing.write_film(film, made, video)} ({plural(len(film.film.frames()), 'frame')}, {fps} a second)")
    _ledger(whole, made, moved, measures, solutions, out)
    if way is not None:
        moving.tell(whole, made, way, out)
    options.write(out / "options.json", "apply", resolved)


def _film(whole: Recipe, moments: list[dict[str, float]], pace: Pace) -> Recipe:
    """The recipe of the film: through its keyframes, the amounts of the strip, or from nothing to what is turned and driven."""
    from steerable import recipe

    turn, asked = whole.turn, moments
    if not asked and whole.sweep is not None:
        asked = [{whole.sweep.knob: amount} for amount in whole.sweep.amounts]
    if not asked:
        ends = {**(turn.amounts if turn else {}), **({recipe.REST: whole.drive.amount} if whole.drive else {})}
        if not ends:
            raise ValueError('nothing moves in this film: --set is all through it. Say what moves, --keyframes "smile=0; smile=2".')
        asked, turn = [ends], None if turn is None else turn.model_copy(update={"amounts": {}})
    if len(asked) == 1:
        asked = [dict.fromkeys(asked[0], 0.0), *asked]
    film = recipe.Film.model_validate({"keyframes": tuple(asked), **dataclasses.asdict(pace)})
    film.frames()  # refuses films that are too long
    return whole.model_copy(update={"turn": turn, "sweep": None, "film": film})


def _again(path: Path, generator: str, device: str, out: Path) -> None:
    """The picture of a recipe; a generator given on the command line stands in for the one that the recipe names."""
    from steerable import drawing, recipe

    known = recipe.read(path)
    try:
        made = options.generator(known.generator if generator == options.GENERATOR else generator, device)
    except ValueError as error:
        raise ValueError(f'{path} was made by the generator "{known.generator}": {error} Name its file with --generator FILE.') from None
    if known.film is not None and path.suffix.lower() in (".mp4", ".gif"):
        return say(f"written: {drawing.write_film(known, made, out / path.name)}")
    say(f"written: {drawing.write(known, made, out / f'{path.stem}.png')}")


def _write(whole: Recipe, made: ModuleGenerator, moved: Sequence[Latents], out: Path) -> None:
    """A picture a seed and a sheet of all, or one strip."""
    from steerable import drawing, progress, recipe

    about = f"{made.name}, n {plural(len(whole.seeds), 'seed')}, psi {whole.psi:g}"
    if whole.sweep is not None:
        return say(f"written: {drawing.write(whole, made, out / f'strip-{whole.sweep.knob}.png', moved)} ({about})")
    for i in progress.track(range(len(whole.seeds)), "draw"):
        rows = slice(i, i + 1)
        drawing.write(recipe.of_seeds(whole, rows), made, out / f"seed-{whole.seeds[i]:06d}.png", [moved[0][rows]])
    if len(whole.seeds) > 1:
        drawing.write(recipe.of_seeds(whole, slice(SHEET)), made, out / "sheet.png", [moved[0][:SHEET]])
    say(f"written: {plural(len(whole.seeds), 'picture')} in {out} ({about})")


def _ledger(
    whole: Recipe, made: ModuleGenerator, moved: Sequence[Latents], measures: Sequence[Feature], solutions: Sequence[Solution], out: Path
) -> None:
    """What every measured column was before and is after, seed by seed in a file, as means on the terminal."""
    from steerable import recipe, sampling
    from steerable.evaluation.summary import JUDGES

    columns, units = sampling.columns_of(measures)
    start = recipe.begin(whole, made)
    before, after = sampling.observe(made, measures, start), [sampling.observe(made, measures, one) for one in moved]
    steps: list[dict[str, float]] = [{}]
    if whole.sweep is not None:
        steps = [{whole.sweep.knob: amount} for amount in whole.sweep.amounts]
    elif whole.film is not None:
        steps = whole.film.filled()
    table: dict[str, Sequence[float]] = {"seed": list(whole.seeds) * len(steps)}
    for name in steps[0]:
        table[f"{name}-amount"] = [step[name] for step in steps for _ in whole.seeds]
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
        told = {**asked, **{name: short(amount) for name, amount in step.items()}}
        change = (values - before).mean(0)
        drift = (values - before).abs().mean(0) / population.clamp(min=1e-9)
        judges = {JUDGES[name]: name for name in told if name in JUDGES}
        first = [name for name in dict.fromkeys([*told, *judges, *hold]) if name in columns]
        others = [columns[i] for i in drift.argsort(descending=True).tolist() if columns[i] not in first]
        for name in [*first, *others[: 1 if step else OTHERS]]:
            i = columns.index(name)
            role = "turned" if name in told else "held" if name in hold else f"judge of {judges[name]}" if name in judges else "other"
            at = (", ".join(short(amount) for amount in step.values()),) if step else ()
            rows.append((*at, role, name, units[i], told.get(name, "–"), short(float(change[i])), short(float(drift[i]), 2)))
    n = plural(len(whole.seeds), "seed")
    title = f"mean change over n {n}; last column: mean absolute change in deviations of the population (n 64, seed 1)"
    at = (f"at {', '.join(steps[0])}",) if steps[0] else ()
    terminal.table(title, (*at, "role", "column", "unit", "asked", "measured", "deviations"), rows)
    _answers(whole, columns, after[0])
    _unmet(whole.seeds, solutions)
    unseen = [name for name in {**asked, **steps[0]} if name not in columns and name != recipe.REST]
    if unseen:
        say(f"not measured, because no feature among --features has it: {', '.join(unseen)}")


def _answers(whole: Recipe, columns: tuple[str, ...], after) -> None:
    """For every ``--set``: the values that came out, and the seeds that were not brought there."""
    from steerable.evaluation.summary import JUDGES

    for name, value in (whole.turn.values if whole.turn and not (whole.sweep or whole.film) else {}).items():
        if name not in columns:
            continue
        got = after[:, columns.index(name)]
        judge = JUDGES.get(name, "")
        second = f"; second judge {judge}: mean {short(float(after[:, columns.index(judge)].mean()))}" if judge in columns else ""
        ends = f"{short(float(got.min()))} … {short(float(got.max()))}"
        say(f"{name} set to {short(value)}: mean {short(float(got.mean()))}, {ends} over n {plural(len(got), 'seed')}{second}")


def _unmet(seeds: Sequence[int], solutions: Sequence[Solution]) -> None:
    """The seeds that could not be brought to a value, with what they can reach."""
    lines = [
        f"seed {seed}, {line}"
        for seed, one in zip(seeds, solutions, strict=False)
        for k, line in enumerate(one.said())
        if not bool(one.found[0, k])
    ]
    for line in lines[:UNMET]:
        say(line)
    if len(lines) > UNMET:
        say(f"and {len(lines) - UNMET} more; every value is in measured.csv")
