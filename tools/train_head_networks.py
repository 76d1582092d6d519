"""Train the two networks that read rendered heads: heads-predictor, which trainings are given, and heads-judge, which judges them.

    python tools/train_head_networks.py
    python tools/write_manifest.py

Both learn from 24,000 renders with exact numbers (``steerable.rendered``), and differ in the seed (0 and 1) of everything. About 3 minutes
on one core for each 1,500 steps; no data is needed.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from packages import WEIGHTS, write

import steerable.rendered
from steerable.training.regressor import Regressed, train_head_network

SEEDS = {"heads-predictor": 0, "heads-judge": 1}
STEPS = 4000
PICTURES = 24_000


def ship(name: str, found: Regressed, out: Path) -> None:
    """The weights in half precision, and what the manifest wants to know."""
    tensors = {key: value.half().numpy() for key, value in found.network.state_dict().items()}
    off = ", ".join(f"{factor} {error:.2g}" for factor, error in found.errors.items())
    about = {
        "name": name, "kind": "network", "family": "head-network", "licence": "Apache-2.0", "made_by": "tools/train_head_networks.py",
        "registry": "data set", "package": "rendered heads", "version": "1", "source_file": "src/steerable/rendered.py",
        "source_sha256": hashlib.sha256(Path(steerable.rendered.__file__).read_bytes()).hexdigest(),
        "notes": f"Reads rendered heads; mean absolute errors on 1,000 new ones: {off}. Seed {SEEDS[name]}, {found.fit['steps']} steps.",
    }  # fmt: skip
    write(out / f"{name}.safetensors", tensors, about)
    print(f"{name}: {off}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SEEDS), help="names, separated by commas (default both)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of 128 pictures (default {STEPS})")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the folder to write into (default: the package's)")
    given = parser.parse_args()
    for name in given.only.split(","):
        ship(name, train_head_network(seed=SEEDS[name], steps=given.steps, pictures=PICTURES), given.out)
