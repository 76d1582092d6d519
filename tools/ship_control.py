"""Put the controllable generators that ``make control`` and ``make control-heads`` train into the zoo, with their controllers and logs.

    make control DATA=FOLDER; make control-heads
    python tools/ship_control.py --data FOLDER
    python tools/write_manifest.py

FOLDER has the idx files of MNIST. Each file keeps the description that the training gave it (every option and the seed) and gets what the
manifest wants to know.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from packages import WEIGHTS
from ship_digits import LICENCE, MEMBER, shipped_copy, source_digest

import steerable.rendered
from steerable import store

LARGEST = 4_000_000  # bytes of a generator with its controllers
NAMES = ("digits32-control", "heads32-control")


def ship(run: Path, name: str, out: Path, about: dict[str, str]) -> None:
    """One generator, its controllers and its log."""
    made, control = run / "generator.safetensors", run / "controllers.safetensors"
    generator = store.load_generator_file(made)
    if generator.name != name:
        raise ValueError(f"{run} holds {generator.name}, expected {name}: train it with make control.")
    store.load_control(control, generator=generator)
    size = made.stat().st_size + control.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{name} takes {size} bytes with its controllers, at most {LARGEST} were meant to ship: train a narrower one.")
    seconds = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    notes = f"Controllable: sample(n, seed=0, values={{...}}). logs/{name}.jsonl has the training ({seconds:.0f} s)."
    shipped_copy(made, out / f"{name}.safetensors", {**about, "kind": "generator", "family": "dcgan-groups", "name": name, "notes": notes})
    described = {**about, "kind": "control", "family": "controllers", "name": f"{name}-controllers", "notes": f"Sets the values of {name}."}
    shipped_copy(control, out / f"{name}-controllers.safetensors", described)
    (out / "logs").mkdir(exist_ok=True)
    shutil.copyfile(run / "log.jsonl", out / "logs" / f"{name}.jsonl")


def sources(data: Path | None) -> dict[str, dict[str, str]]:
    """What each was made from."""
    made = {"made_by": "tools/ship_control.py", "registry": "data set"}
    code = Path(steerable.rendered.__file__)
    heads = {**made, "licence": "Apache-2.0", "package": "rendered heads", "version": "1", "source_file": "src/steerable/rendered.py",
             "source_sha256": hashlib.sha256(code.read_bytes()).hexdigest()}  # fmt: skip
    if data is None:
        return {"heads32-control": heads}
    digits = {
        **made,
        "licence": LICENCE,
        "package": "MNIST",
        "version": "1998",
        "source_file": MEMBER,
        "source_sha256": source_digest(data),
    }
    return {"digits32-control": digits, "heads32-control": heads}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("control"), help="what make control wrote (default control)")
    parser.add_argument("--data", type=Path, help="the folder with the idx files of MNIST, for digits32-control")
    parser.add_argument("--only", default=",".join(NAMES), help="names, separated by commas (default all)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the folder to write into (default: the package's)")
    given = parser.parse_args()
    known = sources(given.data)
    for name in given.only.split(","):
        if name not in known:
            raise SystemExit(f"{name} was trained on MNIST: name the folder with --data, or leave it out of --only.")
        ship(given.runs / name, name, given.out, known[name])
