"""What ``steer apply`` turns and sets: ``--turn``, ``--set``, ``--hold`` and ``--strip`` as the recipe's ``Turn`` and ``Sweep``.

``moving`` reads what goes along a trajectory instead; ``steering`` has the verb.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerable.cli.terminal import parse_pairs, parse_sweep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steerable.generators.module import ModuleGenerator
    from steerable.protocols import Control, Knob
    from steerable.recipe import Sweep, Turn


def turn(
    made: ModuleGenerator,
    path: Path | None,
    turn: list[str],
    set_: list[str],
    hold: list[str],
    sweep: str | None,
    moments: list[dict[str, float]],
    layers: str | None,
    by: str,
    heads: list[Path],
) -> tuple[Turn | None, Sweep | None]:
    """What is turned and set, and the columns of the strip."""
    from steerable import checks, recipe, store
    from steerable.controls.directions import Directions, amounts
    from steerable.controls.groups import Controllers

    checks.known(by, ("solve", "axis"), "way to set values (--by)")
    moving = [name for name in dict.fromkeys(name for one in moments for name in one) if name != recipe.REST]
    wanted = parse_pairs([one for text in set_ for one in text.split(",")], "--set")
    carried = [store.read_bytes(one) for one in heads]
    if path is None:
        if turn or sweep or layers or moving or (wanted and by == "axis") or (hold and not wanted):
            raise ValueError(
                "--turn, --strip, --keyframes, --layers, --by axis, and --hold without --set work on the knobs of a control: "
                "name its file, for example steer apply axes.safetensors --turn smile=2."
            )
        values = _values(made, wanted, hold, None, carried)
        return (recipe.turn(None, values=values, hold=hold, by="solve", heads=carried) if wanted else None), None
    control = store.load_control(path, generator=made)
    known = [knob.name for knob in control.knobs]
    if isinstance(control, Controllers):
        if turn or hold or sweep or moving or layers or not wanted:
            raise ValueError(f"{path} sets values by number: {', '.join(known)}. Use --set alone, for example --set {known[0]}=p50.")
        chosen, numbers = control.asked(wanted, 1)
        values = {knob.name: float(number) for knob, number in zip(chosen.knobs, numbers[0], strict=True)}
        return recipe.turn(control, values=values), None
    if not (turn or wanted or sweep or moving):
        more = f" and {len(known) - 8} more" if len(known) > 8 else ""
        raise ValueError(f"{path} has the knobs {', '.join(known[:8])}{more}: turn one, for example --turn {known[0]}=1.")
    asked, solved = parse_pairs(turn, "--turn"), bool(wanted) and by == "solve"
    swept = None if sweep is None else _swept(sweep, control)
    columns: list[str] = list(dict.fromkeys([*([swept.knob] if swept else []), *moving]))
    for name in (*asked, *(() if solved else (*wanted, *hold)), *moving):
        checks.known(name, known, "knob")
    twice = [name for name in dict.fromkeys([*asked, *wanted]) if [*asked, *wanted, *columns].count(name) > 1]
    if twice:
        raise ValueError(f'"{twice[0]}" stands in two of --turn, --set, --strip and --keyframes: choose one.')
    clash = {*asked, *wanted, *columns} & set(hold)
    if clash:
        raise ValueError(f"{', '.join(sorted(clash))} cannot be turned and held at once: take it out of --hold.")
    for flag, given in (("--set", [] if solved else wanted), ("--hold", [] if solved else hold), ("--layers", layers)):
        if given and not isinstance(control, Directions):
            raise ValueError(f"{flag} is for straight controls, and {path} has curved ones: leave it out.")
    if layers is not None:
        if solved:
            raise ValueError("--layers restricts straight knobs: with --set say --by axis.")
        control = control.held(hold)
        control, hold = (control if control.space.layers else control.lifted(made, "w+")).in_layers(layers), []
    turned = {name: float(amounts(control, 1, {name: text})[0, known.index(name)]) for name, text in asked.items()}
    if solved:
        values = _values(made, wanted, hold, control, carried)
        return recipe.turn(control, amounts=turned, values=values, hold=hold, swept=columns, by="solve", heads=carried), swept
    values = {name: _value(control, name, text) for name, text in wanted.items()}
    return recipe.turn(control, amounts=turned, values=values, hold=hold, swept=columns), swept


def _swept(text: str, control: Control) -> Sweep:
    """The columns of a strip: as given, or over the knob's range."""
    from steerable import checks, recipe

    name, amounts = parse_sweep(text)
    knob = {one.name: one for one in control.knobs}[checks.known(name, [one.name for one in control.knobs], "knob")]
    if not amounts:
        if not knob.low < knob.high:
            raise ValueError(f'"{name}" has no usable range, so say which amounts: --strip {name}=-1:1:5 ({knob.unit or "no unit"}).')
        amounts = strip_amounts(knob)
    return recipe.Sweep(knob=name, amounts=amounts)


def strip_amounts(knob: Knob) -> tuple[float, ...]:
    """Seven amounts over a knob's range, the neutral one in the middle where it lies inside."""
    neutral = knob.neutral or 0.0
    low, high = knob.low - neutral, knob.high - neutral
    if low < 0 < high:
        return tuple(neutral + end * share / 3 for end, shares in ((low, (3, 2, 1)), (high, (0, 1, 2, 3))) for share in shares)
    return tuple(knob.low + (knob.high - knob.low) * share / 6 for share in range(7))


def _values(made: ModuleGenerator, wanted: Mapping[str, str], hold: list[str], control: Any, heads: list[bytes]) -> dict[str, float]:
    """The values of ``--set`` as numbers: percentiles are looked up where the solver will look."""
    from steerable import recipe

    known = {knob.name for knob in control.knobs} if control is not None else {}
    found = {name: _value(control, name, text) for name, text in wanted.items() if control is not None and name in known}
    ranks = {name: text for name, text in wanted.items() if name not in found}
    if any(text.startswith("p") for text in ranks.values()):
        turn = recipe.turn(control, values=dict.fromkeys(ranks, 0.0), hold=hold, by="solve", heads=heads)
        setter = recipe.solver(made, turn, ranks)
        return found | dict(zip(ranks, setter.values(1)[0].tolist(), strict=True))
    return found | {name: _number(name, text) for name, text in ranks.items()}


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number - number != 0:
        raise ValueError(f'--set {name} takes a finite number of its unit or a percentile like p90, got "{text}".')
    return number


def _value(control: Any, name: str, text: str) -> float:
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
