"""Sixty knobs in one run: every shipped feature column and the brightness of nine regions, fitted, calibrated and evaluated.

    python benchmarks/forty_knobs.py [--quick]

``fit_axes`` measures 2,000 faces of seed 0, regresses every column on the latent and calibrates every axis on further faces of that
seed. Then each knob is turned to half of its range on both sides on 32 faces of seed 1, which nothing was fitted on, and every column is
measured. What a user would pick instead is TL-GAN: the same forty knobs take about an hour of a GPU with its authors' code.

A knob counts as good when the mean change of its own column is within 25 % of what was asked, on every side where it has a range.
The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from steerable import effects, fit_axes, leakage, load_features, load_generator, response
from steerable.controls.directions import Directions
from steerable.evaluation.response import Response, default_amounts
from steerable.features.pixels import region_grid
from steerable.progress import shown_by

T = TypeVar("T")
GOALS = {"brightness": 0.80, "yaw": 0.70, "pitch": 0.62, "smile": 0.40}  # held-out R2
SECONDS = 300
WITHIN = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 faces, 16 for the calibration, 4 for the evaluation")
    quick = parser.parse_args().quick
    n, calibration, judged = (300, 16, 4) if quick else (2000, 96, 32)
    generator = load_generator("faces64")
    features = [*load_features(), region_grid(3, 3)]

    stages: dict[str, float] = defaultdict(float)
    began, worked = time.perf_counter(), time.process_time()
    with shown_by(timed(stages)):
        knobs = fit_axes(generator, features, n=n, seed=0, calibration=calibration)
        asked = {knob.name: default_amounts(knob)[1:3] for knob in knobs.knobs}  # half of both sides
        measured = response(generator, knobs, features, amounts=asked, n=judged, seed=1)
    matrix = leakage(measured, deviations(knobs, measured))
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    stages["everything else"] = seconds - sum(stages.values())

    rows = table(knobs, measured, matrix)
    print(f"faces64, {len(rows)} knobs; fitted on n = {n}, seed 0, calibrated on {calibration} more of it; judged on n = {judged}, seed 1,")
    print("each by the column of its name; R2 is ten-fold held out; ratio: measured over asked change at half range, - and + side;")
    print("leak: the largest movement of another column, in its standard deviations, for one of the knob's own\n")
    print(f"{'knob':28}{'R2':>7}{'range':>22}  {'unit':16}{'ratio -':>9}{'ratio +':>9}  {'':6}{'leak':>5}  of")
    for row in rows:
        low, high = row["range"]
        ratios = [f"{ratio:.2f}" if ratio is not None else "-" for ratio in row["ratios"]]
        mark = "good" if row["good"] else "off"
        print(
            f"{row['knob']:28}{row['R2']:>7.2f}{f'{low:.3g} to {high:.3g}':>22}  {row['unit'][:16]:16}"
            f"{ratios[0]:>9}{ratios[1]:>9}  {mark:6}{row['leak']:>5.2f}  {row['of']}"
        )
    good = sum(row["good"] for row in rows)
    scores = {row["knob"]: row["R2"] for row in rows}
    print(f"\n{good} of {len(rows)} knobs measured within {WITHIN:.0%} of asked on the unseen seed")
    print("R2: " + ", ".join(f"{name} {scores[name]:.3f} (goal {goal:.2f})" for name, goal in GOALS.items()))
    print("seconds: " + ", ".join(f"{name} {spent:.0f}" for name, spent in stages.items()))
    print(f"in all {seconds:.0f} s (goal {SECONDS} on two quiet cores), {processor:.0f} s of processor time,")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n")
    figures = {
        "benchmark": "forty_knobs", "n": n, "seed": 0, "judged on": {"n": judged, "seed": 1}, "knobs": len(rows), "good": good,
        "seconds": seconds, "processor seconds": processor, "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "stages": stages, "rows": rows,
    }  # fmt: skip
    print(json.dumps(figures))


def timed(stages: dict[str, float]):
    """A progress tracker that adds up the seconds of every loop under its label."""

    def tracker(items: Iterable[T], label: str, total: int) -> Iterator[T]:
        began = time.perf_counter()
        yield from items
        stages[label] += time.perf_counter() - began

    return tracker


def deviations(knobs: Directions, measured: Response) -> torch.Tensor:
    """Of every column over the population that was fitted on."""
    records = knobs.fit["calibration"]
    return torch.tensor([records[name]["deviation"] for name in measured.columns])


def table(knobs: Directions, measured: Response, matrix: torch.Tensor) -> list[dict]:
    """A row for each knob: score, range, ratio of measured to asked change on both sides, largest leak."""
    changes = defaultdict(list)
    for effect in effects(measured):
        changes[effect.knob].append(effect.measured / effect.amount)
    rows = []
    for k, knob in enumerate(knobs.knobs):
        usable = (knob.low < 0, knob.high > 0)
        ratios = [ratio if there else None for ratio, there in zip(changes[knob.name], usable, strict=True)]
        others = matrix[k].abs().nan_to_num(0)
        others[measured.column(knob.name)] = 0
        largest = int(others.argmax())
        rows.append(
            {
                "knob": knob.name,
                "R2": knobs.fit["axes"][knob.name]["R2"],
                "range": (knob.low, knob.high),
                "unit": knob.unit,
                "ratios": ratios,
                "good": any(usable) and all(abs(ratio - 1) <= WITHIN for ratio in ratios if ratio is not None),
                "leak": float(others[largest]),
                "of": measured.columns[largest],
            }
        )
    return rows


if __name__ == "__main__":
    main()
