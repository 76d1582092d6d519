"""Fit the controls that the studio opens with: axes and walks of faces64, with units, ranges and percentiles.

    python tools/fit_default_controls.py

Axes: every column of the demo's table and some more, one ridge model each (``fitting.axes``). Walks: learned from edits of the pictures
themselves (``fitting.walks``). Both are safetensors with how they were fitted inside; ``controls.json`` beside them has the command, the
arguments and the SHA-256 of each file. The files hold directions in faces64's latent space and nothing of anybody else's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from packages import WEIGHTS

from steerable import store, zoo
from steerable.controls.directions import Directions, join
from steerable.edits import edit, narrowed
from steerable.fitting.axes import fit_axes
from steerable.fitting.calibrate import calibrate
from steerable.fitting.walks import fit_directions
from steerable.scenes.fits import AXES, WALKS

GENERATOR = "faces64"
FEATURES = ("pixels", "pose", "mouth", "eyes", "face-place", "smile", "expression", "age", "gender-presentation", "regions")
MORE = ("age", "gender-presentation", "brow-raise", "surprised", "face-x", "face-y", "skin-red", "hair-red")


def axes(*, n: int, calibration: int, seed: int, cache: Path | None) -> Directions:
    """One calibrated axis a column, fitted on rows 0 to n - 1 of the seed and calibrated on the next ones."""
    generator, columns = zoo.load_generator(GENERATOR), [*AXES, *MORE]
    features = zoo.load_features(*FEATURES)
    return fit_axes(generator, features, columns=columns, n=n, seed=seed, calibration=calibration, cache=cache)[columns]


def walks(*, n: int, calibration: int, seed: int) -> Directions:
    """One walk an edit, each fitted alone, in the unit that is read back from the pictures."""
    generator, fitted = zoo.load_generator(GENERATOR), []
    for name, span in WALKS:
        edits = {one.knob.name: one if span is None else narrowed(one, *span) for one in edit(name)}
        raw = fit_directions(generator, name, n=n, seed=seed, amounts=span, calibration=0)
        fitted.append(calibrate(generator, raw, edits, n=calibration, seed=seed + 1))
    joined = join(fitted)
    return replace(joined, knobs=tuple(replace(knob, name=f"{knob.name} walk") for knob in joined.knobs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=2000, help="faces that the axes are fitted on (default 2000)")
    parser.add_argument("--walk", type=int, default=1024, help="faces that each walk is learned on (default 1024)")
    parser.add_argument("--calibration", type=int, default=96, help="further faces for units and ranges (default 96)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is sampled (default 0)")
    parser.add_argument("--cache", type=Path, help="folder that keeps what was measured (default none)")
    parser.add_argument("--out", type=Path, default=WEIGHTS / "controls", help="folder to write into (default: the package's)")
    given = parser.parse_args()
    sizes = {"calibration": given.calibration, "seed": given.seed}
    made = {"axes": axes(n=given.n, cache=given.cache, **sizes), "walks": walks(n=given.walk, **sizes)}
    entries = {}
    for name, control in made.items():
        path = store.save_control(control, given.out / f"{GENERATOR}-{name}.safetensors")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size = given.n if name == "axes" else given.walk
        entries[path.name] = {
            "generator": GENERATOR,
            "fingerprint": control.space.fingerprint,
            "group": name,
            "sha256": digest,
            "licence": "Apache-2.0",
            "made_by": "tools/fit_default_controls.py",
            "arguments": {"n": size, **sizes},
            "torch": torch.__version__,
        }
    (given.out / "controls.json").write_text(json.dumps(entries, indent=1) + "\n")
    print(json.dumps(entries))
