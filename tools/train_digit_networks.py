"""Train the two networks that tell digits apart: digits-predictor, which trainings are given, and digits-judge, which judges them.

    python tools/train_digit_networks.py --data FOLDER
    python tools/write_manifest.py

FOLDER has the idx files of MNIST. The two differ in nothing but the seed (0 and 1): of the weights, of the held-out tenth, of the order and
of every distortion. About 2 minutes on one core for each 1,500 steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from packages import WEIGHTS, write
from ship_digits import LICENCE, MEMBER, source_digest

from steerable.sources import read_source
from steerable.training.classifier import Classified, train_classifier

SEEDS = {"digits-predictor": 0, "digits-judge": 1}
STEPS = 1500


def ship(name: str, found: Classified, out: Path, source_sha256: str) -> None:
    """The weights in half precision, and what the manifest wants to know."""
    tensors = {key: value.half().numpy() for key, value in found.network.state_dict().items()}
    right = (
        f"{found.accuracy:.2%} of the held-out tenth of the training pictures right, {found.accuracy_distorted:.2%} when distorted; "
        f"sheared to other slants, their embeddings move by {found.sheared:.3f} of their spread"
    )
    about = {
        "name": name, "kind": "network", "family": "digit-network", "licence": LICENCE, "made_by": "tools/train_digit_networks.py",
        "registry": "data set", "package": "MNIST", "version": "1998", "source_file": MEMBER, "source_sha256": source_sha256,
        "notes": f"Tells digits apart: {right}. Seed {found.fit['seed']}, {found.fit['steps']} steps.",
    }  # fmt: skip
    write(out / f"{name}.safetensors", tensors, about)
    print(f"{name}: {right}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the idx files of MNIST")
    parser.add_argument("--only", default=",".join(SEEDS), help="names, separated by commas (default both)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of 128 pictures (default {STEPS})")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the folder to write into (default: the package's)")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := [name for name in names if name not in SEEDS]:
        parser.error(f"--only names {unknown[0]!r}; there are {', '.join(SEEDS)}")
    try:
        pictures, digest = read_source(given.data, size=32, channels=1), source_digest(given.data)
    except (OSError, ValueError) as wrong:
        parser.error(str(wrong))
    for name in names:
        ship(name, train_classifier(pictures, seed=SEEDS[name], steps=given.steps), given.out, digest)
