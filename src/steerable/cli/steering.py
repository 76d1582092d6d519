"""``steer apply``: steer the images of some seeds, and say what moved and what leaked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import parse_box, parse_names, parse_pairs, parse_seeds, parse_sweep, say, short

if TYPE_CHECKING:
    from steerable.generators.module import ModuleGenerator
    from steerable.recipe import Recipe


def apply(
    control: Annotated[Path | None, typer.Argument(help="Control file made by 'steer fit'.")] = None,
    turn: Annotated[list[str] | None, typer.Option(help="knob=amount in its unit, or knob=p90; may be repeated.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="attribute=value to be measured; may be repeated.")] = None,
    hold: Annotated[str, typer.Option(help="Knobs of the control whose attributes stay, with commas.")] = "",
    sweep: Annotated[str | None, typer.Option(help="A strip of one knob: yaw=-20,0,20 or yaw=-20:20:5.")] = None,
    hold_box: Annotated[str | None, typer.Option(help="Hold the pixels of top,left,bottom,right; move the rest.")] = None,
    rest: Annotated[float, typer.Option(help="With --hold-box: rms change of the rest, images in [-1, 1].")] = 0.25,
    recipe: Annotated[Path | None, typer.Option(help="Make the picture of this PNG (or recipe JSON) again.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for pictures and measurements.")] = Path("applied"),
    seeds: options.Seeds = "0-3",
    generator: options.GeneratorName = "faces64",
    features: options.Features = "all",
    psi: options.Psi = 1.0,
    label: options.Label = None,
    scale: Annotated[int, typer.Option(help="Enlarge the pictures this many times.")] = 1,
    device: options.Device = "auto",
) -> None:
    """Steer the images of some seeds. Prints what moved, what leaked and what the second judge says."""
    from steerable import recipe as recipes

    resolved = locals()
    if recipe is not None:
        known = recipes.read(recipe)
        made = options.generator(known.generator, device)
        path = recipes.write(known, made, out / f"{recipe.stem}.png")
        return say(f"written: {path}")
    if control is None and hold_box is None:
        raise ValueError("nothing to apply: name a control file and --turn, --set or --sweep, or give --hold-box, or --recipe PICTURE.png.")
    made = options.generator(generator, device)
    whole = recipes.Recipe(
        generator=generator,
        fingerprint=made.fingerprint,
        seeds=tuple(parse_seeds(seeds)),
        psi=psi,
        label=label,
        turn=_turn(made, control, turn or [], set_ or [], parse_names(hold), sweep),
        drive=None if hold_box is None else recipes.Drive(box=parse_box(hold_box), amount=rest),
        sweep=None if sweep is None else recipes.Sweep(knob=parse_sweep(sweep)[0], amounts=parse_sweep(sweep)[1]),
        scale=scale,
    )
    _write(whole, made, out)
    _ledger(whole, made, features, device, out)
    options.write(out / "options.json", "apply", resolved)


def _turn(made: ModuleGenerator, path: Path | None, turn: list[str], set_: list[str], hold: list[str], sweep: str | None):
    from steerable import checks, recipe, store
    from steerable.controls.directions import amounts

    if path is None:
        if turn or set_ or hold or sweep:
            raise ValueError("--turn, --set, --hold and --sweep turn the knobs of a control: name its file, e.g. steer apply axes.safetensors --turn smile=2.")
        return None
    control = store.load_control(path, generator=made)
    if not (turn or set_ or sweep):
        names = ", ".join(knob.name for knob in control.knobs[:8])
        raise ValueError(f"{path} has the knobs {names} and {max(len(control.knobs) - 8, 0)} more: turn one, for example --turn {control.knobs[0].name}=1.")
    known = [knob.name for knob in control.knobs]
    turned = {}
    for name, text in parse_pairs(turn, "--turn").items():
        turned[checks.known(name, known, "knob")] = float(amounts(control[name], 1, {name: text})[0, 0])
    values = {}
    for name, text in parse_pairs(set_, "--set").items():
        knob = control.knobs[control.index(name)]
        values[name] = knob.value_at(float(text[1:])) if text.startswith("p") else terminal.number(text, f"--set {name}")
    clash = ({*turned, *values} | ({parse_sweep(sweep)[0]} if sweep else set())) & set(hold)
    if clash:
        raise ValueError(f"{', '.join(sorted(clash))} cannot be turned and held at once: take it out of --hold.")
    return recipe.turn(control, amounts=turned, values=values, hold=hold, swept=[parse_sweep(sweep)[0]] if sweep else [])


def _write(whole: Recipe, made: ModuleGenerator, out: Path) -> None:
    """A picture a seed and a sheet of all, or one strip."""
    from steerable import progress, recipe

    if whole.sweep is not None:
        path = recipe.write(whole, made, out / f"strip-{whole.sweep.knob}.png")
        return say(f"written: {path}")
    for one in progress.track(recipe.single(whole), "apply"):
        recipe.write(one, made, out / f"seed-{one.seeds[0]:06d}.png")
    if len(whole.seeds) > 1:
        recipe.write(whole, made, out / "sheet.png")
    say(f"{len(whole.seeds)} pictures in {out}")


def _ledger(whole: Recipe, made: ModuleGenerator, names: str, device: str, out: Path) -> None:
    """What every measured column was before and is after, seed by seed in a file, as means on the terminal."""
    from steerable import recipe, sampling
    from steerable.evaluation.summary import JUDGES

    if whole.sweep is not None:
        return
    measures = options.features(names, None, device)
    columns, units = sampling.columns_of(measures)
    start = sampling.latents_of(made, whole.seeds, psi=whole.psi, labels=whole.label)
    before = sampling.observe(made, measures, start)
    moved = recipe.steer(whole, made)[0]
    after = sampling.observe(made, measures, moved)
    table: dict[str, list[float]] = {"seed": list(whole.seeds)}
    for i, name in enumerate(columns):
        table |= {f"{name}-before": before[:, i].tolist(), f"{name}-after": after[:, i].tolist()}
    sampling.write_table(out / "measured.csv", table, {"units": dict(zip(columns, units, strict=True)), "judges": dict(JUDGES)})

    population = sampling.observe(made, measures, made.sample(64, seed=1, psi=whole.psi, labels=whole.label)).std(0)
    change = after - before
    drift = change.abs().mean(0) / population.clamp(min=1e-9)
    asked = {**whole.turn.amounts, **{k: float("nan") for k in whole.turn.values}} if whole.turn else {}
    told = [*asked, *(JUDGES[name] for name in asked if name in JUDGES), *(whole.turn.hold if whole.turn else ())]
    others = [columns[i] for i in drift.argsort(descending=True).tolist() if columns[i] not in told]
    rows = []
    for name in [*(one for one in dict.fromkeys(told) if one in columns), *others[:5]]:
        i = columns.index(name)
        role = "turned" if name in asked else "held" if whole.turn and name in whole.turn.hold else "judge" if name in told else "leaked"
        rows.append((role, name, units[i], short(asked.get(name, float("nan"))), short(float(change[:, i].mean())), short(float(drift[i]), 2)))
    n = len(whole.seeds)
    title = f"mean change over n {n} seeds, and mean absolute change in population deviations (n 64, seed 1)"
    terminal.table(title, ("role", "column", "unit", "asked", "measured", "deviations"), rows)
    if whole.drive is not None:
        trail = recipe.trajectory(made, whole.drive.box)
        inside, outside = (_squared(made, region, start, moved) for region in (trail.hold[0], trail.move[0]))
        say(f"squared pixel change: {outside:.4f} outside the box, {inside:.5f} inside (mean over n {n}; asked {whole.drive.amount**2:.4f})")


def _squared(made: ModuleGenerator, region, start, moved) -> float:
    import torch

    with torch.no_grad():
        return float((region(made(moved)) - region(made(start))).square().mean())
