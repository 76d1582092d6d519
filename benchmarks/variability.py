"""Does a walk move each class as far as its data vary? The question of the steerability paper, with variability that was set.

    python benchmarks/variability.py [--quick] [--out FOLDER] [--n 200] [--samples 4096] [--generator digits32-varied]

digits32-varied is a class-conditional DCGAN of 50 classes: ten digits, each at five levels of how much its pictures were scaled, shifted
and dimmed. The levels of the three edits are independent of each other and of the digit (training/varied.py), so whatever follows the
level of one edit was caused by it. For each edit one walk is fitted for all classes alike (the paper's objective, over the amounts that
the data have), every class is steered to the same -alpha* and alpha*, and the change of the attribute's mean, delta mu, is put against
the spread. alpha* is the largest amount whose steered pictures are no further from unsteered ones (kernel distance) than unsteered ones
reduced to half their size. The judges are no networks: luminance of 100 random pixels, centre and area of the foreground.

Printed are, for each edit: Pearson's r, p and n against the spread of the attribute that was measured in the training data; the same
against the standard deviation that was set; mean delta mu at each level; and r against the levels of the two other edits, which have no
part in it and are the comparison: if delta mu follows the data, the diagonal of that table stands out.

--quick takes 24 latents a class and walks of 1,024 samples. With --out it also writes the figure and all numbers. The last line is all
figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable import files, fit_directions, load_generator, plots, progress, render, shipped
from steerable.cli.terminal import lines
from steerable.evaluation.relation import relation
from steerable.evaluation.variability import Variability, variability
from steerable.training.varied import Design

SEED = 1  # of the latents that are steered; walks are fitted on seed 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 latents a class, walks of 1,024 samples")
    parser.add_argument("--n", type=int, default=200, help="latents a class")
    parser.add_argument("--samples", type=int, default=4096, help="latents that each walk is fitted on")
    parser.add_argument("--quality-n", type=int, default=256, help="images for each kernel distance")
    parser.add_argument("--generator", default="digits32-varied", help="of the zoo, or a file")
    parser.add_argument("--out", type=Path, help="folder for the figure and the numbers")
    asked = parser.parse_args()
    if asked.quick:
        asked.n, asked.samples, asked.quality_n = 24, 1024, 128
    about = json.loads((shipped.WEIGHTS / "digits32-varied.json").read_text(encoding="utf-8"))
    design = Design(tuple(about["source"]), about["vary"], about["levels"])
    generator = load_generator(asked.generator)
    with progress.shown_by(lines):
        results = {name: measured(generator, design, about, name, asked) for name in design.spreads}
    figures: dict[str, Any] = {
        "benchmark": "variability", "generator": asked.generator, "n": asked.n, "seed": SEED, "samples": asked.samples,
        "quality_n": asked.quality_n, "classes": len(design.names),
        "edits": {name: shown(design, name, results) for name in design.spreads},
    }  # fmt: skip
    crossed(figures["edits"])
    if asked.out:
        title = f"how far classes are moved against how much they vary, by our doing: digits32-varied, n {asked.n} a class, seed {SEED}"
        figure = plots.variability_plot(list(results.values()), title=title)
        files.write_bytes(asked.out / "variability.png", render.figure_png(figure))
        files.write_text(asked.out / "variability.json", json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def measured(generator: Any, design: Design, about: dict[str, Any], name: str, asked: argparse.Namespace) -> Variability:
    """A walk of one edit, and what it does to every class."""
    furthest = 3**0.5 * design.spreads[name]  # no picture of the data was edited further
    walk = fit_directions(generator, name, seed=0, n=asked.samples, amounts=(-furthest, furthest), calibration=0)
    level = design.level[:, list(design.spreads).index(name)].tolist()
    return variability(
        generator,
        walk,
        sigma=about["measured"][name],
        names=[f"{design.classes[i // design.levels]} at {one}" for i, one in enumerate(level)],
        n=asked.n,
        quality_n=asked.quality_n,
        seed=SEED,
    )


def shown(design: Design, name: str, results: dict[str, Variability]) -> dict[str, Any]:
    result, column = results[name], list(design.spreads).index(name)
    level, moved = design.level[:, column], result.delta_mu
    found, was_set = result.relation, relation(design.sigma[:, column], moved)
    steps = [(float(moved[level == k].mean()), float(moved[level == k].std() / (level == k).sum() ** 0.5)) for k in range(design.levels)]
    unit = f", {result.unit}" if result.unit else ""
    bound = f"kernel distance below {result.threshold:.3g}"
    print(f"\n{name}: alpha* {result.amount:.3g} {result.knob.unit} ({bound}); delta mu of {result.attribute}{unit}")
    for what, one in (("spread measured in the data", found), ("standard deviation that was set", was_set)):
        interval = f"(95 %: {one.low:.2f} to {one.high:.2f})"
        print(f"  against the {what:<32} r {one.r:5.2f} {interval}  p {one.p:.1e}  n {one.n}  slope {one.slope:.3g}")
    means = "  ".join(f"{k}: {mean:.4f} ± {error:.4f}" for k, (mean, error) in enumerate(steps))
    print(f"  mean delta mu at each level, ± its standard error over the digits: {means}")
    return {
        "alpha": result.amount, "unit": result.knob.unit, "threshold": result.threshold, "attribute": result.attribute,
        "against_measured": asdict(found), "against_set": asdict(was_set),
        "levels": [{"level": k, "delta_mu": mean, "standard_error": error} for k, (mean, error) in enumerate(steps)],
        "against_each_level": {other: asdict(relation(design.sigma[:, i], moved)) for i, other in enumerate(design.spreads)},
        "within_digits": within(design, design.sigma[:, column], moved),
    }  # fmt: skip


def within(design: Design, x: Tensor, y: Tensor) -> dict[str, float]:
    """r of what is left when every digit's mean is taken out of both: digits differ in how far they can be moved whatever they vary."""
    from scipy import stats

    a, b = (one.view(-1, design.levels) - one.view(-1, design.levels).mean(1, keepdim=True) for one in (x.double(), y.double()))
    r = float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())
    free = len(x) - len(design.classes) - 1
    return {"r": r, "p": float(2 * stats.t.sf(abs(r) * (free / (1 - r * r)) ** 0.5, free)), "degrees_of_freedom": free}


def crossed(edits: dict[str, Any]) -> None:
    print("\nr of delta mu (rows: the walk) with the standard deviation set of each edit (columns); p in brackets; n 50")
    print(f"{'':<12}" + "".join(f"{name:>22}" for name in edits) + f"{'own, within digits':>24}")
    for name, row in edits.items():
        cells = [f"{one['r']:.2f} ({one['p']:.1e})" for one in row["against_each_level"].values()]
        own = row["within_digits"]
        print(f"{name:<12}" + "".join(f"{cell:>22}" for cell in cells) + f"{own['r']:>14.2f} ({own['p']:.1e})")


if __name__ == "__main__":
    main()
