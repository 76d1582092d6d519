"""Figure 9 of the steerability paper on digits: masked squared error of a walk against the amount, for three ways of training.

    python benchmarks/digits.py [--quick] [--edits zoom,shift-x,rotate] [--n 1000] [--samples 20000] [--runs FOLDER] [--out FOLDER]

The generators are those of the zoo: digits32 (plain), digits32-aug-EDIT and digits32-joint-EDIT; with --runs those in a folder that
`make digits DATA=FOLDER` made. The walks of plain and augmented are fitted here on --samples latents of seed 0 with the paper's
objective; joint brings the walk that it was trained with. So that generators are compared and not ways of fitting, a walk is also fitted on
the joint generator in the very way of the others ("joint, refitted"). All are judged on n latents of seed 1, by pixels alone: the masked
squared error to the edited picture, mean and 95 % band. The expected order at half range and beyond is joint < augmented < plain.

The error of a generator is against its own pictures, so that of not moving at all stands beside it (in brackets: relative to it), and
how much its pictures vary within a class: the variance of a pixel over latents, mean over pixels and classes, which is .19 in the training
data. A generator that varies by a hundredth of that draws one picture a class, and no walk can move along what is not there.
--quick takes 100 latents, walks of 1,024 samples and 5 amounts. With --out it also writes the figure and all numbers. The last line is all
figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from steerable import files, fit_directions, load_generator, plots, progress, render, store
from steerable.cli.terminal import lines
from steerable.edits import edit as named_edits
from steerable.evaluation.steerability import Steerability, ranks, steerability, table

EDITS = ("zoom", "shift-x", "rotate")
ORDER = ("joint", "augmented", "plain")  # smallest error first, as expected
REFITTED = "joint, refitted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 latents, walks of 1,024 samples, 5 amounts")
    parser.add_argument("--edits", default=",".join(EDITS))
    parser.add_argument("--n", type=int, default=1000, help="held-out latents")
    parser.add_argument("--samples", type=int, default=20_000, help="latents that walks are fitted on")
    parser.add_argument("--amounts", type=int, default=17, help="from end to end of the range")
    parser.add_argument("--runs", type=Path, help="trainings, instead of the zoo")
    parser.add_argument("--out", type=Path, help="folder for the figure and the numbers")
    asked = parser.parse_args()
    if asked.quick:
        asked.n, asked.samples, asked.amounts = 100, 1024, 5
    with progress.shown_by(lines):
        results = {name: measured(name, asked) for name in asked.edits.split(",")}
    everything: dict[str, Any] = {"benchmark": "digits", "n": asked.n, "seed": 1, "samples": asked.samples}
    everything["edits"] = {name: shown(name, one) for name, one in results.items()}
    names = dict.fromkeys(short for name in results for short in generators(name, asked).values())
    everything["variety"] = {Path(name).parent.name or name: variety(name) for name in names}
    print("\nvariance of a pixel within a class:", ", ".join(f"{name} {one:.3f}" for name, one in everything["variety"].items()))
    if asked.out:
        title = f"error of walks on digits: n {asked.n} held-out latents, seed 1, 95 % bands"
        files.write_bytes(asked.out / "digits.png", render.figure_png(plots.steerability_plot(results, title=title)))
        files.write_text(asked.out / "digits.json", json.dumps(everything, indent=1) + "\n")
    print(json.dumps(everything))


def generators(name: str, asked: argparse.Namespace) -> dict[str, str]:
    """Way -> the generator's name in the zoo, or its file."""
    joint = f"digits32-joint-{name}"
    named = dict(zip((*ORDER, REFITTED), (joint, f"digits32-aug-{name}", "digits32", joint), strict=True))
    return {way: str(asked.runs / one / "generator.safetensors") if asked.runs else one for way, one in named.items()}


def variety(place: str) -> float:
    """The variance of a pixel within a class, over 100 latents of each of ten."""
    generator = load_generator(place)
    with torch.no_grad():
        spread = [generator(generator.sample(100, seed=1, labels=[k] * 100)).var(0).mean() for k in range(10)]
    return float(torch.stack(spread).mean())


def measured(name: str, asked: argparse.Namespace) -> dict[str, Steerability]:
    """The errors of every generator's walk, in the expected order; last the joint generator's, fitted as the others are."""
    (edit,) = named_edits(name)
    low, high = edit.knob.low, edit.knob.high
    amounts = [low + (high - low) * i / (asked.amounts - 1) for i in range(asked.amounts)]
    found = {}
    for way, place in generators(name, asked).items():
        generator = load_generator(place)
        if way == "joint":
            own = Path(place).with_name("walk.safetensors") if asked.runs else f"{place}-walk"
            walk = store.load_control(own, generator=generator)
        else:
            walk = fit_directions(generator, edit, seed=0, n=asked.samples, batch=16, calibration=0)
        found[way] = steerability(generator, walk, edit, amounts=amounts, n=asked.n, seed=1)
    return found


def shown(name: str, results: dict[str, Steerability]) -> dict[str, Any]:
    first = next(iter(results.values()))
    print(f"\n{name}: masked squared error, mean over n {first.n}, seed {first.seed}; ± is the 95 % band; (relative to not moving)")
    print(f"{first.knob.unit:>14}" + "".join(f"{way:>27}" for way in results))
    for i, amount in enumerate(first.amounts.tolist()):
        cells = [f"{one.mean[i]:.4f} ± {one.band[i]:.4f} ({one.relative[i]:.2f})" for one in results.values()]
        print(f"{amount:>14.4g}" + "".join(f"{cell:>27}" for cell in cells))
    verdicts = {}
    for top in ("joint", REFITTED):
        found = ranks({way: results[way] for way in (top, *ORDER[1:])})
        verdicts[top] = {
            "ordered": sum(rank.ordered for rank in found), "apart": sum(rank.apart for rank in found), "of": len(found),
            "first_below_second": sum(rank.means[0] < rank.means[1] for rank in found),
            "second_below_third": sum(rank.means[1] < rank.means[2] for rank in found),
        }  # fmt: skip
        one = verdicts[top]
        print(
            f"{top} < augmented < plain at half range and beyond: {one['ordered']} of {one['of']} amounts, bands apart at {one['apart']}; "
            f"{top} < augmented {one['first_below_second']}, augmented < plain {one['second_below_third']}"
        )
    return {"unit": first.knob.unit, "order": verdicts, "rows": {way: table(one) for way, one in results.items()}}


if __name__ == "__main__":
    main()
