"""Single people steered by one attribute: smiling, turning and lit with and without ``hold``; and yaw set by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steerable import progress, recipe, render
from steerable.controls.directions import Directions
from steerable.report import Figure, Table, Text, number, signed
from steerable.sampling import latents_of
from steerable.scenes.cast import FIRST, MOVE, PORTRAITS, SECOND, Cast, Move, Scene, listed, rounded, saved, seeds_text

RANKS = (5.0, 25.0, 50.0, 75.0, 95.0)  # percentiles of the population that the strips are set to
SHORT = {"mouth-open": "mouth", "skin-brightness": "skin", "background-brightness": "backgr.", "hair-brightness": "hair"}
YAWS = (-20.0, -10.0, 0.0, 10.0, 20.0)
JUDGES = ("yaw", "yaw68")


def with_and_without(cast: Cast, move: Move) -> Scene:
    """A strip of two people on the plain and on the held axis, and the leak of both at the same measured change."""
    plain, held = cast.axis(move.name), cast.axis(move.name, move.hold)
    strip, rows = _strip(cast, move, plain, held)
    table, verdict = _leak(cast, move, plain, held)
    seed = PORTRAITS[0]
    single = recipe.Recipe(
        generator=cast.generator.name,
        fingerprint=cast.generator.fingerprint,
        seeds=(seed,),
        psi=1.0,
        turn=recipe.turn(cast.axes, amounts={move.name: round(1.5 * cast.deviation(move.name), 4)}, hold=move.hold),
        scale=4,
    )
    return Scene((Text(verdict, "result"), strip, table), tuple(rows), ((f"seed-{seed}-{move.name}", single),))


def _strip(cast: Cast, move: Move, plain: Directions, held: Directions) -> tuple[Figure, list[dict[str, Any]]]:
    knob, second = cast.axes[[move.name]].knobs[0], SECOND.get(move.name, "")
    targets = torch.tensor([knob.value_at(rank) for rank in RANKS])
    shown = [name for name in ("yaw", "mouth-open", "background-brightness") if name in move.hold][:2]
    batches, labels, captions, rows = [], [], [], []
    pair = PORTRAITS[:2]
    for seed in progress.track(pair, f"{move.words}: two people"):
        same = latents_of(cast.generator, [seed] * len(targets))
        for word, axis in (("plain axis", plain), ("with hold", held)):
            outcome = cast.set_to(move.name, axis, same, targets)
            values = cast.read(outcome.latents, [move.name, *shown, *([second] if second else [])])
            batches.append(cast.images(outcome.latents))
            labels.append(f"seed {seed}\n{word}")
            captions.append([_caption(cast, move, values, shown, i) for i in range(len(targets))])
            for i, target in enumerate(targets.tolist()):
                row = {"scene": move.words, "seed": seed, "knob": move.name, "control": word, "unit": cast.unit(move.name), "asked": target}
                row |= {"judge": move.name, "measured": float(values[move.name][i])}
                rows.append(row | {"second_judge": second, "second": float(values[second][i]) if second else None})
    columns = [f"{rounded(value, cast.unit(move.name))} (p{rank:g})" for value, rank in zip(targets.tolist(), RANKS, strict=True)]
    sheet = render.strip(batches, row_labels=labels, column_labels=columns, captions=captions)
    caption = (
        f"{cast.measured(move.name)} set to percentiles of the population (n = {len(cast.table)}, seed {cast.seed}); below each face what "
        f"was measured there (judge: {cast.judge(move.name)}). Held: {', '.join(move.hold)}. {listed(pair)}"
    )
    return saved(f"{move.name}-with-and-without-hold", sheet, caption), rows


def _caption(cast: Cast, move: Move, values: dict[str, Tensor], shown: Sequence[str], i: int) -> str:
    texts = [f"{SHORT.get(name, name)} {rounded(float(values[name][i]), cast.unit(name))}" for name in (move.name, *shown)]
    return "\n".join([texts[0], "  ".join(texts[1:])])


def _leak(cast: Cast, move: Move, plain: Directions, held: Directions) -> tuple[Table, str]:
    n, delta = cast.plan.people, cast.deviation(move.name)
    people = cast.people(n)
    names = list(dict.fromkeys([move.name, *move.hold, *(SECOND[name] for name in (move.name, *move.hold) if name in SECOND)]))
    start = cast.read(people, names)
    signs = torch.where(start[move.name] < cast.table.column(move.name).median(), 1.0, -1.0)
    jobs = [("plain", plain), ("held", held)]
    outcomes = {
        word: cast.set_to(move.name, axis, people, start[move.name] + signs * delta, rounds=4)
        for word, axis in progress.track(jobs, f"{move.words}: leak")
    }
    both = outcomes["plain"].found.cpu() & outcomes["held"].found.cpu()
    ends = {word: cast.read(outcome.latents, names) for word, outcome in outcomes.items()}
    changes = {(word, name): ((end[name] - start[name]) * signs)[both] for word, end in ends.items() for name in names}
    leak = {key: float(change.abs().mean()) for key, change in changes.items()}
    drift = {(word, name): float(change.mean()) / cast.deviation(name) for (word, name), change in changes.items()}
    count, seeds = int(both.sum()), f"{int(both.sum())} of {seeds_text(n)}"

    rows = []
    for name in (move.name, *move.hold):
        second = SECOND.get(name, "")
        amounts = [leak[word, name] for word in ("plain", "held")]
        deviations = [number(amount / cast.deviation(name), 2) for amount in amounts]
        other = " → ".join(number(leak[word, second] / cast.deviation(second), 2) for word in ("plain", "held")) if second else ""
        together = " → ".join(signed(drift[word, name]) for word in ("plain", "held"))
        what = f"{name} (moved)" if name == move.name else name
        judged = (cast.judge(name), f"{other} sd ({second}, {cast.judge(second)})" if second else "–")
        rows.append((what, cast.unit(name), *map(number, amounts), *deviations, together, *judged, str(count), seeds))
    header = (
        "column",
        "unit",
        "plain",
        "held",
        "plain, sd",
        "held, sd",
        "on average, sd",
        "judge",
        "second judge, plain → held",
        "n",
        "seeds",
    )
    totals = [sum(leak[word, name] / cast.deviation(name) for name in move.hold) / len(move.hold) for word in ("plain", "held")]
    averages = [sum(abs(drift[word, name]) for name in move.hold) / len(move.hold) for word in ("plain", "held")]
    spreads = [float(changes[word, name].std()) / cast.deviation(name) / count**0.5 for word in ("plain", "held") for name in move.hold]
    error = sum(spreads) / len(spreads)
    step = f"{number(delta)} {cast.unit(move.name)}"
    caption = (
        f"Mean absolute change of a face while its {move.name} changes by {step}, one standard deviation (sd) of the population, towards "
        f"its middle; each face goes there by its own amount on each axis, and those that do not get there on both are left "
        f'out. "On average": the change in the direction of the move, plain → held, in which what differs from face to face cancels out.'
    )
    verdict = (
        f"{move.words.capitalize()}: at the same measured change of {move.name} ({step}), the {len(move.hold)} held columns drift by "
        f"{number(averages[0], 2)} standard deviations on the plain axis and by {number(averages[1], 2)} with hold, averaged over faces: "
        f"{_compared(averages[0], averages[1], error)} (the standard error of a drift is {number(error, 2)}). Of a single face they move "
        f"by {number(totals[0], 2)} and {number(totals[1], 2)}: {_compared(totals[0], totals[1], 0.02 * totals[0])}. A straight axis can "
        f"only hold what faces have in common (n = {count} of the seeds {seeds_text(n)}; judges in the table)."
    )
    return Table(caption, header, tuple(rows)), verdict


def _compared(plain: float, held: float, error: float) -> str:
    """In words; a difference that the error explains is none."""
    if not abs(plain - held) > error:
        return "no difference"
    share = 1 - held / plain
    return f"{100 * share:.0f} % less" if share > 0 else f"{-100 * share:.0f} % more, so hold does not help"


def yaw_by_number(cast: Cast) -> Scene:
    """Yaw set to -20 ... 20 degrees: four portraits, and the error by both judges over the first n held-out seeds."""
    hold, n = MOVE["yaw"].hold, cast.plan.yaw
    axis, people = cast.axis("yaw", hold), cast.people(n)
    shown = latents_of(cast.generator, PORTRAITS)
    start = cast.read(people, JUDGES)
    columns, captions, table, rows = [], [], [], []
    for target in progress.track(YAWS, "yaw by number"):
        asked = torch.full((n + len(shown),), target)
        everybody = cast.set_to("yaw", axis, people.at(torch.cat([people.values, shown.values])), asked)
        ends = cast.read(everybody.latents, JUDGES)
        columns.append(cast.images(everybody.latents[n:]))
        captions.append([f"mesh {degrees(a)}\n68 points {degrees(b)}" for a, b in zip(*(ends[judge][n:] for judge in JUDGES), strict=True)])
        means = [signed(float(ends[judge][:n].mean()), 3) for judge in JUDGES]
        errors = [number(float((ends[judge][:n] - target).abs().mean()), 2) for judge in JUDGES]
        found = f"{int(everybody.found[:n].sum())} of {n}"
        table.append((signed(target), *means, *errors, found, "face mesh (asked), 68 landmarks", str(n), seeds_text(n)))
        for i in range(n):
            row = {"scene": "yaw by number", "seed": FIRST + i, "knob": "yaw", "control": "with hold", "unit": "deg", "asked": target}
            row |= {"judge": "yaw", "measured": float(ends["yaw"][i]), "second_judge": "yaw68", "second": float(ends["yaw68"][i])}
            rows.append(row)
    sheet = render.strip(
        [torch.stack([column[i] for column in columns]) for i in range(len(shown))],
        row_labels=[f"seed {seed}" for seed in PORTRAITS],
        column_labels=[f"asked {signed(target)}°" for target in YAWS],
        captions=[[column[i] for column in captions] for i in range(len(shown))],
    )
    mesh, points = (sum(abs(row[key] - row["asked"]) for row in rows) / len(rows) for key in ("measured", "second"))
    apart = float((start["yaw"] - start["yaw68"]).abs().mean())
    verdict = (
        f"Mean absolute error over the five values: {number(mesh, 2)} deg by the face mesh, which the search reads, and "
        f"{number(points, 2)} deg by the 68 landmarks, which it never sees (n = {n} faces, seeds {seeds_text(n)}). On the same faces "
        f"unsteered, the two judges differ by {number(apart, 2)} deg."
    )
    caption = f"Yaw set by number, + to the viewer's right; below, what both judges measured. Held: {', '.join(hold)}. {listed(PORTRAITS)}"
    header = ("asked, deg", "mean, mesh", "mean, 68", "error, mesh", "error, 68", "found", "judge", "n", "seeds")
    numbers = Table("Mean measured yaw and mean absolute error, in degrees.", header, tuple(table))
    return Scene((Text(verdict, "result"), saved("yaw-by-number", sheet, caption), numbers), tuple(rows))


def degrees(value: float | Tensor) -> str:
    return f"{float(value):+.1f}°".replace("-", "−")
