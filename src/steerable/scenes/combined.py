"""Several edits at once: fitted jointly, or fitted alone and summed. Figure 27 of the paper, with numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from steerable import render
from steerable.controls.chain import Chain
from steerable.controls.directions import amounts as turned
from steerable.edits import in_turn, masked_error
from steerable.evaluation.combining import SHARES, Combination, combined
from steerable.fitting.walks import Loss, fit_directions
from steerable.protocols import Control, Edit, Generator, Latents
from steerable.report import Block, Figure, Table, Text, number
from steerable.scenes.cast import saved
from steerable.scenes.steerability import Subject, known

JOINT, ALONE = "fitted jointly", "fitted alone, summed"


def both(
    generator: Generator, edits: Sequence[Edit], *, n: int, seed: int, space: str | None = None, loss: Loss = "l2"
) -> dict[str, Control]:
    """Walks of several edits, fitted at once and one by one, as controls with the same knobs."""
    how: dict[str, Any] = {"n": n, "seed": seed, "calibration": 0, "space": space, "loss": loss}
    return {
        JOINT: fit_directions(generator, list(edits), **how),
        ALONE: Chain(tuple(fit_directions(generator, one, **how) for one in edits)),
    }


def compared(
    generator: Generator, controls: Mapping[str, Control], edits: Sequence[Edit], *, n: int, seed: int
) -> dict[tuple[str, str], Combination]:
    """Every two of the edits, the others left alone."""
    return {
        (first.knob.name, second.knob.name): combined(generator, controls, (first, second), n=n, seed=seed)
        for first, second in combinations(edits, 2)
    }


def heat(result: Combination) -> Any:
    """The relative error of each control at every pair of amounts, as a figure of heat maps."""
    first, second = result.knobs
    return render.heat_maps(
        {name: result.relative(name) for name in result.errors},
        [render.amount(value) for value in result.amounts[0].tolist()],
        [render.amount(value) for value in result.amounts[1].tolist()],
        x_label=f"{second.name} ({second.unit})",
        y_label=f"{first.name} ({first.unit})",
        title=f"{first.name} and {second.name} at once: error over that of standing still (n {result.n}, seed {result.seed})",
        limits=(0.0, 1.2),
        unit="relative error",
    )


def strip(generator: Generator, controls: Mapping[str, Control], edits: Sequence[Edit], latents: Latents, names: Sequence[str], *,
          scale: int = 2) -> Any:  # fmt: skip
    """All edits at once, at five shares of their ranges: target, and what each control does; the middle of the picture is marked."""
    steps = torch.tensor([[abs(s) * (e.knob.high if s > 0 else e.knob.low) for e in edits] for s in SHARES])
    with torch.no_grad():
        before = generator(latents)
        columns: dict[str, list[Tensor]] = {"target": []} | {name: [] for name in controls}
        texts: dict[str, list[list[str]]] = {name: [] for name in columns}
        for row in steps:
            asked = row.to(before).expand(len(latents), -1)
            targets, mask = in_turn(edits, before, asked)
            columns["target"].append(known(targets, mask))
            texts["target"].append([""] * len(latents))
            still = masked_error(before, targets, mask)
            for name, control in controls.items():
                amounts = turned(control, latents, {e.knob.name: float(a) for e, a in zip(edits, row, strict=True)})
                columns[name].append(generator(control.steer(latents, amounts.to(latents.values))))
                error = masked_error(columns[name][-1], targets, mask)
                texts[name].append([f"error {float(e / s):.2f}" if s > 1e-9 else "" for e, s in zip(error, still, strict=True)])
    rows, labels, captions = [], [], []
    for i, who in enumerate(names):
        for name, made in columns.items():
            rows.append(torch.stack([column[i] for column in made]))
            labels.append(f"{who}\n{name}")
            captions.append([text[i] for text in texts[name]])
    height, width = before.shape[2:]
    return render.strip(
        rows, row_labels=labels, captions=captions, scale=scale,
        column_labels=[", ".join(render.amount(float(value)) for value in row) for row in steps],
        title=", ".join(f"{e.knob.name} ({e.knob.unit})" for e in edits) + " at once",
        note="above: asked of each; grey: not known; below: masked error over that of standing still; the line marks the middle",
        boxes=[(0, width // 2, height, width // 2)],
    )  # fmt: skip


def rows_of(results: Mapping[tuple[str, str], Combination]) -> list[tuple[str, ...]]:
    """A row a pair and control: relative loss, and how much the first control gains over it."""
    rows = []
    for pair, result in results.items():
        said = result.summary()
        for name, loss in said["relative_loss"].items():
            against = said["against"].get(name)
            gain = "–" if against is None else f"{number(against['gain'], 2)} ± {number(against['standard_error'], 2)}"
            rows.append(
                (" and ".join(pair), name, number(loss, 3), gain, "masked squared error of the pixels", str(result.n), str(result.seed))
            )
    return rows


HEADER = ("edits", "walks", "relative error", f"more than {JOINT}", "judge", "n", "seeds")


def scene(subject: Subject, names: Sequence[str]) -> tuple[Block, ...]:
    """The comparison for two or more of the subject's edits."""
    edits = [subject.walks[name].edit for name in names]
    controls = both(subject.generator, edits, n=subject.plan.fit, seed=subject.seed)
    results = compared(subject.generator, controls, edits, n=subject.plan.combined, seed=subject.seed + 1)
    who = [f"seed {seed}" for seed in subject.portraits]
    sheet = strip(subject.generator, controls, edits, subject.shown, who, scale=max(1, min(3, 128 // subject.generator.image_shape[1])))
    caption = (
        f"{', '.join(names)} at once: the edited picture, the walks {JOINT} (n = {subject.plan.fit}, seed {subject.seed}) and those "
        f"{ALONE} "
        f"(the same each). Seeds {', '.join(map(str, subject.portraits))}; n = 1 each, judge: the pixels."
    )
    blocks: list[Block] = [
        Text(
            "Turning several walks at once need not do several edits at once. Walks that are fitted jointly learn from pictures to which "
            "all edits were applied, at amounts drawn independently; walks fitted alone are added up."
        ),
        Text(verdict(results), "result"),
        saved("combined-strip", sheet, caption),
    ]
    for pair, result in results.items():
        told = (
            "Masked squared error over that of standing still, 0 is perfect, 1 useless, at every pair of amounts; mean over n = "
            f"{result.n} "
            f"latents of seed {result.seed}; judge: the pixels."
        )
        blocks.append(Figure(f"combined-{'-'.join(pair)}", render.figure_png(heat(result)), told))
    blocks.append(Table("All pairs of amounts together; ± is the standard error over latents.", HEADER, tuple(rows_of(results))))
    return tuple(blocks)


def verdict(results: Mapping[tuple[str, str], Combination]) -> str:
    """Which way is better, by how much, and whether that is more than chance."""
    parts = []
    for pair, result in results.items():
        said = result.summary()
        loss, against = said["relative_loss"], said["against"][ALONE]
        sure = abs(against["gain"]) > 2 * against["standard_error"]
        better = JOINT if against["gain"] > 0 else ALONE
        words = f"{better} is better by {number(abs(against['gain']), 2)} ± {number(against['standard_error'], 2)}" if sure else (
            "the two differ by no more than two standard errors")  # fmt: skip
        parts.append(f"{' and '.join(pair)}: {JOINT} {number(loss[JOINT], 3)}, {ALONE} {number(loss[ALONE], 3)}; {words}")
    first = next(iter(results.values()))
    return f"Relative error over all pairs of amounts. {'. '.join(parts)} (n = {first.n}, seed {first.seed}; judge: the pixels)."
