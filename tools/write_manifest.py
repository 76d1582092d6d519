"""Make manifest.json: an entry for every file in ``src/steerable/weights``: what the file says about itself, and its SHA-256."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from packages import WEIGHTS


def manifest(folder: Path) -> dict[str, dict[str, str]]:
    entries = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        metadata.pop("steerable", None)  # what a training says about its generator stays there
        entries[metadata["name"]] = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), **metadata}
    return entries


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=WEIGHTS)
    folder = parser.parse_args().folder
    (folder / "manifest.json").write_text(json.dumps(manifest(folder), indent=2) + "\n")
