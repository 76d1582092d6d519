"""What was sampled and what was fitted: the sheet of faces, the table of axes, a strip for every walk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerable import progress, recipe, render, store
from steerable.controls.directions import Directions
from steerable.edits import ImageEdit, measured_edit, narrowed
from steerable.edits import edit as named_edits
from steerable.fitting.axes import score_of
from steerable.fitting.calibrate import calibrate
from steerable.fitting.walks import fit_directions
from steerable.protocols import Latents
from steerable.report import Block, Figure, Table, Text, number, signed
from steerable.sampling import latents_of
from steerable.scenes.cast import PORTRAITS, Cast, Scene, listed, saved, seeds_text

AXES = {  # column -> what is measured by it
    "brightness": "mean luminance of the picture, black 0 to white 1",
    "contrast": "standard deviation of the luminance",
    "saturation": "strongest minus weakest channel",
    "red": "mean red of the picture",
    "blue": "mean blue of the picture",
    "yaw": "head turned to the viewer's right",
    "pitch": "head turned down",
    "roll": "head tilted clockwise",
    "mouth-open": "gap of the lips over the face's height",
    "mouth-width": "mouth over the distance of the eyes' outer corners",
    "smile": "log-odds of happy against neutral",
    "eye-open": "opening of the eyes over their width",
    "face-size": "forehead to chin",
    "skin-brightness": "brightness of the cheeks",
    "hair-brightness": "brightness above the forehead",
    "background-brightness": "brightness of all but the person",
    "background-red": "red of all but the person",
    "person-area": "share of the picture",
}
WALKS: tuple[tuple[str, tuple[float, float] | None], ...] = (  # edit, and a narrower range to train on where that fits better
    ("brightness", None),
    ("colour", None),
    ("contrast", None),
    ("zoom", (-0.5, 0.5)),
    ("shift-x", (-0.15, 0.15)),
    ("shift-y", (-0.15, 0.15)),
    ("rotate", (-20.0, 20.0)),
)
HELD_OUT = 32  # faces that a walk's loss is measured on
FURTHEST = 3.5  # standard deviations of the latents that a walk's strip goes
STEPS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def sheet(cast: Cast) -> Scene:
    """The first seeds, unsteered."""
    n = cast.plan.sheet
    latents = latents_of(cast.generator, range(n))
    values = cast.read(latents, ["yaw", "smile"])
    pairs = zip(values["yaw"].tolist(), values["smile"].tolist(), strict=True)
    captions = [f"seed {i}\nyaw {yaw:+.0f}° smile {smile:+.1f}".replace("-", "−") for i, (yaw, smile) in enumerate(pairs)]
    told = (
        f"Seeds 0 to {n - 1}, unsteered, with measured yaw (deg, + to the viewer's right; judge: face mesh) and smile (log-odds of happy "
        f"against neutral; judge: expression network); n = {n}."
    )
    about = Text(
        f"{len(cast.table)} faces of seed {cast.seed} were generated and measured once, {len(cast.table.columns)} columns each. Every axis "
        f"below is fitted on that table; another run reads it from the cache."
    )
    one = recipe.Recipe(generator=cast.generator.name, fingerprint=cast.generator.fingerprint, seeds=tuple(range(n)), psi=1.0, scale=1)
    return Scene((about, saved("faces", render.grid(cast.images(latents), captions=captions), told)), (), (("faces-with-recipe", one),))


def axes(cast: Cast) -> Scene:
    """One row an axis."""
    rows = []
    for knob in cast.axes.knobs:
        kind, score = score_of(cast.axes, knob.name)
        slope = cast.axes.fit["calibration"][knob.name]["change_per_deviation"]
        usable = f"{signed(knob.low)} to {signed(knob.high)}" if knob.high > knob.low else "none"
        middle = " / ".join(number(knob.value_at(rank)) for rank in (5, 50, 95))
        cells = (knob.name, knob.unit, AXES[knob.name], f"{kind} {score:.2f}", usable, middle, number(slope, 2))
        rows.append((*cells, cast.judge(knob.name), str(len(cast.table)), str(cast.seed)))
    header = ("axis", "unit", "what it is", "held out", "usable", "p5 / p50 / p95", "units a sd of z", "judge", "n", "seeds")
    caption = (
        f"One ridge model a column; held-out scores are ten-fold, each face predicted by a model that had not seen it. One unit "
        f"of an axis is one unit of measured change, on average over {cast.plan.calibration} further faces; in the usable range the mean "
        f"change stays within a quarter of what was asked. Percentiles are those of unsteered faces. A walk of one standard deviation (sd) "
        f"of the latents z changes the attribute by the units given."
    )
    return Scene((Table(caption, header, tuple(rows)),))


def walks(cast: Cast, path: Path) -> Scene:
    """Fit, calibrate and show a walk for every edit; all of them are saved together."""
    plan, fitted, rows = cast.plan, [], []
    blocks: list[Block] = [
        Text(
            "A walk learns to imitate a change of the picture itself, without any label (Jahanian et al. 2020). What the generator then "
            "really does is read back from its pictures: the amount of the same edit that explains the change best. No generator can do "
            "all that is asked of it; below is how far this one goes."
        )
    ]
    everybody = cast.generator.sample(plan.walk + HELD_OUT + plan.walk_calibration, seed=cast.seed)
    for name, span in progress.track(WALKS, "walks"):
        edits = {one.knob.name: one if span is None else narrowed(one, *span) for one in named_edits(name)}
        raw = fit_directions(cast.generator, name, n=plan.walk, seed=cast.seed, amounts=span, held_out=HELD_OUT, calibration=0)
        walk = calibrate(cast.generator, raw, edits, latents=everybody[plan.walk + HELD_OUT :])
        fitted.append(walk)
        for knob in walk.knobs:
            words, figure, measured = _walk(cast, raw[[knob.name]], walk[[knob.name]], edits[knob.name])
            blocks += [Text(words, "result"), figure]
            rows += measured
    store.save_control(_together(fitted), path)
    return Scene(tuple(blocks), tuple(rows))


def _together(fitted: list[Directions]) -> Directions:
    """Several walks of one space as one control; every knob keeps the record of its fit."""
    knobs = tuple(knob for one in fitted for knob in one.knobs)
    records = {knob.name: dict(one.fit) for one in fitted for knob in one.knobs}
    return replace(fitted[0], knobs=knobs, vectors=torch.cat([one.vectors for one in fitted]), fit={"method": "walk", "walks": records})


def _walk(cast: Cast, raw: Directions, walk: Directions, edit: ImageEdit) -> tuple[str, Figure, list[dict[str, Any]]]:
    """What one walk does, in words made from its numbers; and its strip."""
    knob, seeds = walk.knobs[0], PORTRAITS[:2]
    people = latents_of(cast.generator, seeds)
    spread = float(cast.table.latents.values.std())
    far = min(edit.knob.high, FURTHEST * spread / float(walk.vectors.norm()))
    before, columns, read = cast.images(people), [], []
    for step in STEPS:
        columns.append(cast.images(walk.steer(people, torch.full((len(people), 1), step * far))))
        read.append(measured_edit(edit, before, columns[-1]))
    strip = render.strip(
        [torch.stack([column[i] for column in columns]) for i in range(len(people))],
        row_labels=[f"seed {seed}" for seed in seeds],
        column_labels=[f"asked {signed(step * far)}" for step in STEPS],
        captions=[[f"measured {signed(float(values[i]))}" for values in read] for i in range(len(people))],
        title=f"{knob.name} ({knob.unit})",
    )
    rows = [
        {"scene": "walk", "seed": seed, "knob": knob.name, "control": "walk", "unit": knob.unit, "asked": step * far}
        | {"judge": f"edit {knob.name}", "measured": float(values[i]), "second_judge": "", "second": None}
        for step, values in zip(STEPS, read, strict=True)
        for i, seed in enumerate(seeds)
    ]
    caption = (
        f"{knob.name}, in the unit {knob.unit}: asked above, measured below (judge: the edit itself, on these pictures). {listed(seeds)}"
    )
    return _verdict(cast, raw, walk, edit, far, spread), saved(f"walk-{knob.name}", strip, caption), rows


def _verdict(cast: Cast, raw: Directions, walk: Directions, edit: ImageEdit, far: float, spread: float) -> str:
    knob, asked = walk.knobs[0], edit.knob.high
    record, loss = walk.fit["calibration"][knob.name], raw.fit["held_out"][knob.name]["mean"]
    length, points = asked * float(raw.vectors.norm()) / spread, list(zip(record["lengths"], record["changes"], strict=True))
    sides = [sorted((abs(at), sign * change) for at, change in points if sign * at > 0) for sign in (-1, 1)]
    got = float(np.mean([np.interp(length, [0.0, *(at for at, _ in side)], [0.0, *(change for _, change in side)]) for side in sides]))
    share = got / asked
    judged = "It follows." if share > 0.75 else "It goes part of the way." if share > 0.25 else "This generator hardly follows."
    wide = knob.high - knob.low > 0.05 * asked
    usable = f"from {signed(knob.low)} to {signed(knob.high)}" if wide else "over next to no range"
    return (
        f"{knob.name}: asked for {signed(asked)} {knob.unit}, it does {signed(got)} as trained (mean of both signs; n = "
        f"{record['n']}, seed {cast.seed}; judge: the edit itself). {judged} Calibrated, one unit asked is one done {usable}. Held-out "
        f"loss {loss:.2f}, where 0 imitates perfectly and 1 is standing still (n = {raw.fit['held_out_n']}, seed {cast.seed}). From end to "
        f"end of the strip it moves most {_beside(cast, walk, far)}."
    )


def _beside(cast: Cast, walk: Directions, far: float) -> str:
    """The three fitted attributes that a walk moves most, in standard deviations of the population."""
    n, names = min(16, cast.plan.people), list(AXES)
    people = cast.people(n)

    def ends(amount: float) -> Latents:
        return walk.steer(people, torch.full((n, 1), amount))

    low, high = cast.read(ends(-far), names), cast.read(ends(far), names)
    moves = {name: float((high[name] - low[name]).mean()) / cast.deviation(name) for name in names}
    most = sorted(moves, key=lambda name: -abs(moves[name]))[:3]
    return ", ".join(f"{name} {signed(moves[name])} sd" for name in most) + f" (mean, n = {n}, seeds {seeds_text(n)})"
