"""Figure 9 of the steerability paper on digits: masked squared error of a walk against the amount, for three ways of training.

    python benchmarks/digits.py [--runs FOLDER] [--edits zoom,shift-x,rotate] [--n 1000] [--samples 20000] [--out FOLDER]

FOLDER holds what `make digits DATA=FOLDER` trains: digits32 (plain), digits32-aug-EDIT and digits32-joint-EDIT. The walks of plain and
augmented generators are fitted here on `--samples` latents of seed 0 with the paper's objective; the joint one brings its own. All are
judged on n latents of seed 1. Expected at half range and beyond: joint < augmented < plain.

With --out it also writes the figure and all numbers as JSON. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from steerable import files, fit_directions, load_generator, render, store
from steerable.edits import edit as named_edits
from steerable.evaluation.steerability import Steerability, ranks, series, steerability, table

ORDER = ("joint", "augmented", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("digits"))
    parser.add_argument("--edits", default="zoom,shift-x,rotate")
    parser.add_argument("--n", type=int, default=1000, help="held-out latents")
    parser.add_argument("--samples", type=int, default=20_000, help="latents that the walks of plain and augmented are fitted on")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    asked = parser.parse_args()
    everything: dict[str, Any] = {"benchmark": "digits", "n": asked.n, "seed": 1, "samples": asked.samples}
    for name in asked.edits.split(","):
        folders = {"plain": "digits32", "augmented": f"digits32-aug-{name}", "joint": f"digits32-joint-{name}"}
        there = {way: asked.runs / folder for way, folder in folders.items() if (asked.runs / folder / "generator.safetensors").is_file()}
        lacking = [folders[way] for way in folders if way not in there]
        if lacking:
            print(f"{name}: {', '.join(lacking)} not in {asked.runs}; make them first: make digits DATA=FOLDER")
        if not there:
            continue
        results = {way: measured(there[way], name, asked) for way in ORDER if way in there}
        everything[name] = shown(name, results)
        if asked.out:
            figure = render.curves(
                next(iter(results.values())).amounts,
                series(results),
                x_label=f"{name}, {next(iter(results.values())).knob.unit}",
                y_label="masked squared error",
                title=f"digits, {name}: n {asked.n}, 95 % bands",
            )
            files.write_bytes(asked.out / f"{name}.png", render.figure_png(figure))
    if asked.out:
        files.write_text(asked.out / "digits.json", json.dumps(everything, indent=1) + "\n")
    print(json.dumps(everything))


def measured(folder: Path, name: str, asked: argparse.Namespace) -> Steerability:
    """The errors of the generator's own walk, or of one fitted on it."""
    generator = load_generator(str(folder / "generator.safetensors"))
    own, (edit,) = folder / "walk.safetensors", named_edits(name)
    if own.is_file():
        walk = store.load_control(own, generator=generator)
    else:
        walk = fit_directions(generator, edit, seed=0, n=asked.samples, batch=16, calibration=0)
    return steerability(generator, walk, edit, n=asked.n, seed=1)


def shown(name: str, results: dict[str, Steerability]) -> dict[str, Any]:
    first = next(iter(results.values()))
    print(f"\n{name}: masked squared error, mean over n {first.n}, seed {first.seed}; ± is the 95 % band; (relative to not moving)")
    print(f"{first.knob.unit:>14}" + "".join(f"{way:>28}" for way in results))
    for i, amount in enumerate(first.amounts.tolist()):
        cells = [f"{one.mean[i]:.4f} ± {one.band[i]:.4f} ({one.relative[i]:.2f})" for one in results.values()]
        print(f"{amount:>14.4g}" + "".join(f"{cell:>28}" for cell in cells))
    found = ranks(results) if len(results) > 1 else []
    ordered, apart = sum(rank.ordered for rank in found), sum(rank.apart for rank in found)
    if found:
        print(f"order {' < '.join(results)} at half range and beyond: {ordered} of {len(found)} amounts; bands apart: {apart}")
    return {
        "ordered": ordered, "apart": apart, "amounts beyond half": len(found),
        "rows": {way: table(one) for way, one in results.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main()
