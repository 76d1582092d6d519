"""Thirty yes-or-no labels become a feature: what a head on the measured columns learns of them, beside one on the backbone's features.

    python benchmarks/labels.py [--quick] [--labels 30] [--draws 8] [--n 500] [--seed 1000]

A column of faces64 is split at its median, and so many faces are labelled by it, as somebody would who clicks. Two heads learn from the
labels, and what counts is the correlation of their log-odds with the column itself on n faces of which nothing was seen; mean and
standard deviation over draws of the labelled faces.

    columns        on the measured columns without the feature that the labels come from: what the studio's labels do for an attribute
                   that nothing measures
    backbone       on the backbone's features, as ``steer fit`` takes labels

"told" is the score that the fit itself reports: accuracy by five folds. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable import files, load_generator
from steerable.features.network import AllColumns
from steerable.features.ready import load_backbone, load_features
from steerable.fitting.labels import fit_feature
from steerable.generators.module import ModuleGenerator
from steerable.progress import track
from steerable.protocols import Feature, Images
from steerable.sampling import latents_of

LABELLED = ("smile", "yaw", "age", "brightness", "mouth-open")
FIRST = 5000  # of the seeds of labelled faces
BATCH, FOLDS = 50, 5
Rows = Callable[[Images], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three draws, 100 faces, two columns")
    parser.add_argument("--columns", help=f"with commas, instead of {', '.join(LABELLED)}")
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--draws", type=int, default=8, help="sets of labelled faces")
    parser.add_argument("--n", type=int, default=500, help="faces that the heads are judged on")
    parser.add_argument("--seed", type=int, default=1000, help="the first of their seeds")
    asked = parser.parse_args()
    draws, n = (3, 100) if asked.quick else (asked.draws, asked.n)
    names = asked.columns.split(",") if asked.columns else LABELLED[:2] if asked.quick else LABELLED
    generator = load_generator("faces64")
    features = [
        one for one in load_features("pixels", "geometry", "faces", "regions") if not one.name.endswith("68")
    ]  # second judges would give the answer away
    print(f"correlation with the column on {n} new faces after {asked.labels} labels, mean ± deviation over {draws} draws of them")
    print(f"{'column':<14}{'columns':>14}{'told':>7}{'backbone':>16}{'told':>7}")
    found = {}
    for name in names:
        owner = next(one for one in features if name in one.columns)
        backbones = {"columns": AllColumns(tuple(one for one in features if one is not owner)), "backbone": load_backbone()}
        found[name] = compared(generator, owner, name, backbones, range(asked.seed, asked.seed + n), asked.labels, draws)
        cells = (f"{one['mean']:>8.2f} ± {one['deviation']:.2f}{one['told']:>7.2f}" for one in found[name].values())
        print(f"{name:<14}{'  '.join(cells)}", flush=True)
    print(json.dumps({"benchmark": "labels", "labels": asked.labels, "n": n, "seed": asked.seed, "draws": draws, "columns": found}))


def compared(
    generator: ModuleGenerator, owner: Feature, name: str, backbones: dict[str, Rows], judged: range, labels: int, draws: int
) -> dict[str, Any]:
    """Both heads on the same labels: mean and deviation of their correlation, and of what the fit told of itself."""
    place = owner.columns.index(name)
    truth, *rows = over(generator, judged, lambda images: owner(images)[:, place, None], *backbones.values())
    correlations: dict[str, list[float]] = {what: [] for what in backbones}
    told: dict[str, list[float]] = {what: [] for what in backbones}
    with tempfile.TemporaryDirectory() as folder:
        for draw in range(draws):
            seeds = range(FIRST + draw * labels, FIRST + (draw + 1) * labels)
            (values,) = over(generator, seeds, lambda images: owner(images)[:, place, None])
            yes = (values[:, 0] > truth.median()).int().tolist()
            table = files.write_text(
                Path(folder) / "labels.csv", "seed,label\n" + "".join(f"{a},{b}\n" for a, b in zip(seeds, yes, strict=True))
            )
            for (what, backbone), known in zip(backbones.items(), rows, strict=True):
                head: Any = fit_feature(table, backbone=backbone, name="label", generator=generator, folds=FOLDS)
                correlations[what].append(float(torch.corrcoef(torch.stack([head.read(known)[:, 0], truth[:, 0]]))[0, 1]))
                told[what].append(head.report["score"])
    return {
        what: {
            "mean": round(float(torch.tensor(found).mean()), 3),
            "deviation": round(float(torch.tensor(found).std()), 3),
            "told": round(sum(told[what]) / draws, 3),
        }
        for what, found in correlations.items()
    }


@torch.no_grad()
def over(generator: ModuleGenerator, seeds: range, *read: Rows) -> list[Tensor]:
    """What each reads from the faces of the seeds."""
    latents, found = latents_of(generator, seeds), []
    for start in track(range(0, len(latents), BATCH), "faces"):
        images = generator(latents[start : start + BATCH])
        found.append([one(images) for one in read])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


if __name__ == "__main__":
    main()
