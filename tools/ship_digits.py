"""Put the generators that ``make digits`` trains into the zoo: digits32 and its relatives, their walks and their logs.

    make digits DATA=FOLDER
    python tools/ship_digits.py --data FOLDER
    python tools/write_manifest.py

FOLDER has the idx files of MNIST. Each file keeps the description that the training gave it (every option and the seed) and gets what the
manifest wants to know. Of digits32-varied it also writes how much the pictures of every class vary, as ``steer variability`` measures it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from packages import WEIGHTS, write
from safetensors import safe_open

from steerable import store
from steerable.evaluation.attribute import attribute_of
from steerable.evaluation.variability import PICTURES, data_spread
from steerable.sources import read_idx, read_source
from steerable.training import varied

EDITS = ("zoom", "shift-x", "rotate")
VARIED = "digits32-varied"
NAMES = ("digits32", *(f"digits32-{way}-{edit}" for edit in EDITS for way in ("aug", "joint")), VARIED)
MEMBER = "train-images-idx3-ubyte"
LICENCE = "Apache-2.0; the data set: CC BY-SA 3.0"
MADE_BY = "tools/ship_digits.py"
CLASSES = {VARIED: "Label 5 d + k is digit d at level k of training.varied.Design."}


def ship(run: Path, name: str, out: Path, source_sha256: str) -> None:
    """One training's generator, its walk if it learned one, and its log."""
    about = {
        "family": "dcgan", "licence": LICENCE, "made_by": MADE_BY, "registry": "data set", "package": "MNIST", "version": "1998",
        "source_file": MEMBER, "source_sha256": source_sha256,
    }  # fmt: skip
    generator = store.load_generator_file(run / "generator.safetensors")
    if generator.name != name:
        raise ValueError(f"{run} holds {generator.name}, expected {name}: train it with make digits.")
    seconds = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    labels = CLASSES.get(name, "Labels are the digits, 0 to 9.")
    notes = f"Trained on the 60,000 training pictures at 32 pixels. {labels} logs/{name}.jsonl has the training ({seconds:.0f} s)."
    shipped_copy(run / "generator.safetensors", out / f"{name}.safetensors", {**about, "kind": "generator", "name": name, "notes": notes})
    if (run / "walk.safetensors").is_file():
        store.load_control(run / "walk.safetensors", generator=generator)
        described = {**about, "kind": "control", "name": f"{name}-walk", "notes": f"The walk that was learned together with {name}."}
        shipped_copy(run / "walk.safetensors", out / f"{name}-walk.safetensors", described)
    (out / "logs").mkdir(exist_ok=True)
    shutil.copyfile(run / "log.jsonl", out / "logs" / f"{name}.jsonl")


def shipped_copy(source: Path, path: Path, about: dict[str, str]) -> None:
    with safe_open(source, "np") as file:
        write(path, {name: file.get_tensor(name) for name in file.keys()}, {**file.metadata(), **about})  # noqa: SIM118 - no mapping


def source_digest(data: Path) -> str:
    """SHA-256 of the unpacked idx file of the training pictures."""
    found = next(path for path in sorted(data.iterdir()) if path.name.startswith(MEMBER))
    pixels = read_idx(found, dimensions=3)
    header = bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in pixels.shape)
    return hashlib.sha256(header + pixels.tobytes()).hexdigest()


def spreads(data: Path, options: dict) -> dict:
    """Set and measured standard deviations of the classes of digits32-varied."""
    asked = varied.parsed(options["vary"])
    source = read_source(data, size=options["size"])
    made = varied.varied(source, asked, levels=options["levels"], each=options["each"], seed=options["seed"])
    design = varied.Design(source.classes, asked, options["levels"])
    shape, everything = tuple(made.images.shape[1:]), range(len(made.classes))
    measured = {}
    for name in asked:
        found = data_spread(made, attribute_of(name), everything, made.classes, image_shape=shape)
        measured[name] = [float(f"{value:.6g}") for value, _ in found]
    return {
        "vary": asked, "levels": options["levels"], "each": options["each"], "seed": options["seed"], "source": list(source.classes),
        "classes": list(made.classes), "pictures measured a class": min(PICTURES, options["each"]), "data": made.digest(),
        "set": {name: [float(f"{one:.6g}") for one in column] for name, column in zip(asked, design.sigma.T.tolist(), strict=True)},
        "measured": measured,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("digits"), help="what make digits wrote (default digits)")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the idx files of MNIST")
    parser.add_argument("--only", default=",".join(NAMES), help="names, separated by commas (default all)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the folder to write into (default: the package's)")
    given = parser.parse_args()
    digest = source_digest(given.data)
    for name in given.only.split(","):
        ship(given.runs / name, name, given.out, digest)
        if name == VARIED:
            options = json.loads((given.runs / name / "options.json").read_text())
            (given.out / f"{name}.json").write_text(json.dumps(spreads(given.data, options.get("options", options)), indent=1) + "\n")
