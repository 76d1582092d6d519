"""Checkpoints that are folders: which file in them has the weights, and which has the constructor arguments.

Hugging Face (``config.json`` beside ``model.safetensors`` or ``pytorch_model.bin``), ajbrock's BigGAN (``G_ema.pth``), GAN-Control
(``generator/args.json`` and ``generator/checkpoint/*.pt``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST = 10_000_000  # bytes of a JSON file
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "G_ema.pth", "G.pth")
CONFIGS = ("config.json", "generator_config.json")


def weights_in(folder: Path) -> Path:
    """The file of a folder that has the weights.

    Raises:
        ValueError: nothing known in it.
    """
    for inner in (folder / "generator", folder):
        if (inner / "checkpoint").is_dir() and (found := [path for path in sorted((inner / "checkpoint").glob("*.pt")) if path.is_file()]):
            return max(found, key=_iteration)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    if (folder / "saved_model.pb").is_file():
        raise ValueError(
            "a TensorFlow SavedModel, whose graph needs TensorFlow to run: "
            "load it there and steerable.wrap a module that calls it, or take the PyTorch release of the same weights"
        )
    if any(folder.glob("*.index.json")):
        raise ValueError("its weights are split over several files: save them as one model.safetensors")
    raise ValueError(f"without any of {', '.join(WEIGHTS)} and generator/checkpoint/*.pt: name the file in it")


def arguments_beside(weights: Path) -> Mapping[str, Any]:
    """The constructor arguments that are published beside a file of weights; none for a file of any other name."""
    if weights.parent.name == "checkpoint" and weights.suffix == ".pt":
        candidates = [weights.parent.parent / "args.json"]
    else:
        candidates = [weights.parent / name for name in CONFIGS] if weights.name in WEIGHTS else []
    for path in candidates:
        if path.is_file():
            return read_arguments(path)
    return {}


def _iteration(path: Path) -> tuple[int, str]:
    """The newest checkpoint has the largest number in its name."""
    found = re.findall(r"\d{1,18}", path.stem)
    return (int(found[-1]) if found else -1, path.name)


def read_arguments(path: Path) -> Mapping[str, Any]:
    """The constructor arguments in a JSON file.

    Raises:
        ValueError: no file, or one that is no mapping of names to values.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file: constructor arguments are a JSON file with their names and values")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, which no configuration has")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no mapping of argument names to values")
    return found
