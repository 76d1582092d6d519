"""The shipped files: what each one is, where it comes from, and its tensors after its checksum.

``zoo`` makes generators, networks and features of them; ``features.perceptual`` reads its own backbone here, because it stands below the
zoo. ``tools/`` has the command that made each file; NOTICE has the licences.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from torch import Tensor

from steerable import checks

WEIGHTS = Path(__file__).parent / "weights"
REINSTALL = "Reinstall: pip install --force-reinstall steerable"


@dataclass(frozen=True)
class Entry:
    """One shipped file: what it is, where it comes from, and what it must hash to.

    Attributes:
        family: how to build what it holds.
        registry, package, version: the published package that it was made from; ``source_file`` inside of it.
        licence: of the package, and of the model where that has another.
        made_by: the command that made it.
    """

    name: str
    file: str
    kind: Literal["generator", "network", "backbone", "control"]
    family: str
    registry: str
    package: str
    version: str
    source_file: str
    source_sha256: str
    licence: str
    sha256: str
    made_by: str
    notes: str = ""


@cache
def entries() -> Mapping[str, Entry]:
    """Every shipped file, by name."""
    manifest = json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    return {name: Entry(**fields) for name, fields in manifest.items()}


def tensors(name: str) -> dict[str, Tensor]:
    """The weights of an entry in float32, after its checksum.

    Raises:
        ValueError: an unknown name, or a file that is not the one that was shipped.
    """
    entry = entries()[checks.known(name, entries(), "weights")]
    return read(WEIGHTS / entry.file, entry.sha256)


def read(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file in float32; bytes with an ``.affine`` = [scale, minimum] beside them are scaled."""
    from safetensors.torch import load

    stored = load(content(path, sha256))
    state = {key: tensor.float() for key, tensor in stored.items() if not key.endswith(".affine")}
    for key in state:
        if (affine := stored.get(f"{key}.affine")) is not None:
            state[key] = state[key] * affine[0] + affine[1]
    return state


def content(path: Path, sha256: str) -> bytes:
    """The bytes of a shipped file, after its checksum."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the shipped weights {path.name} cannot be read ({error.strerror}). {REINSTALL}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(f"checksum mismatch: {path.name} is {found[:12]}…, expected {sha256[:12]}…. {REINSTALL}")
    return data
