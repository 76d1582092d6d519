"""Pictures of tilted bars that a test can draw, and the groups that say what differs in them: brightness, slant, and the rest."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from steerable.features.digits import SLANT
from steerable.features.pixels import BRIGHTNESS
from steerable.training.contrastive import Contrast
from steerable.training.groups import Group, Groups

SMALL = {"size": 16, "width": 4, "hidden": 8, "batch": 16, "warm_up": 2, "log_every": 5, "save_every": 10, "sample_every": 30}


def bars(n: int = 64, side: int = 16) -> np.ndarray:
    """(n, side, side) bytes: a bar whose tilt, brightness and thickness come from a seed of its own."""
    rng = np.random.default_rng(0)
    tilt, light, thick = rng.uniform(-0.5, 0.5, n), rng.uniform(90, 255, n), rng.uniform(1.0, 2.5, n)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    ink = np.clip(thick[:, None, None] - np.abs(x + tilt[:, None, None] * y), 0, 1) * (np.abs(y) < side / 2 - 2)
    return (ink * light[:, None, None]).astype(np.uint8)


def idx_folder(folder: Path) -> Path:
    """The bars as the idx file of a data set without labels."""
    images = bars()
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    return folder


def groups() -> Groups:
    return Groups((Group("slant", 4, Contrast(SLANT, "l1")), Group("brightness", 4, Contrast(BRIGHTNESS, "l1")), Group("rest", 4)))
