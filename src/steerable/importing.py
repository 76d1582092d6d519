"""Anybody's checkpoint -> a generator, and where it came from.

``checkpoints`` reads the file without executing anything in it, ``generators.families`` knows whose keys these are; here the network that
is the generator is picked and the two are joined. ``store`` writes the result, and keeps a copy in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable import files
from steerable.checkpoints import networks
from steerable.checkpoints.networks import StoredNetwork
from steerable.checkpoints.reading import PROGRAMS, Checkpoint, format_of, read_checkpoint
from steerable.generators import families
from steerable.generators.module import ModuleGenerator

VERSION = 1  # of what an import gives; a new one makes every cached import anew


@dataclass(frozen=True)
class Imported:
    """A generator and its origin.

    Attributes:
        origin: source file, its SHA-256, format, network, class, layout, and the names in it that stayed inert; JSON only.
    """

    generator: ModuleGenerator
    origin: Mapping[str, Any]


def is_program(path: Path) -> bool:
    """Whether a file is a program of TorchScript or torch.export, which is run as it is."""
    return path.is_file() and files.sniff(path) == "a zip / torch file" and _format(path) in PROGRAMS


def _format(path: Path) -> str:
    try:
        return format_of(path)
    except ValueError:
        return ""  # read_checkpoint says what is wrong


def imported(
    path: str | os.PathLike[str], *, network: str | None = None, name: str | None = None, arguments: Mapping[str, Any] | None = None
) -> Imported:
    """The generator of a file or folder, in any published layout of a known family.

    Args:
        network: which one, where the file has several: "G_ema".
        name: of the generator, for messages and files; the file's own by default.
        arguments: of its constructor, where they are not in the file nor beside it; they go before those that are.

    Raises:
        ValueError: in one line: no checkpoint, damaged, a discriminator, of no known family, several networks.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.description.get("kind") is not None:
        raise ValueError(f"{path} is a file of steerable's already: use it as it is.")
    name = name or name_of(Path(path))
    picked, tensors = _picked(checkpoint, network)
    try:
        told = {**checkpoint.arguments, **(arguments or {})}
        layout = families.layout_of(families.without_prefix(tensors), name=name).name
        generator = _made(tensors, {**picked.arguments, **told}, name)
    except ValueError as error:
        odd = [one for one in checkpoint.inert if one != networks.PERSISTENT][:3]
        note = f" It also names {', '.join(odd)}, which was not executed." if odd else ""
        raise ValueError(f"{path}: {' '.join(str(error).split()).rstrip('.')}.{note}") from error
    origin = {
        "source": Path(path).name,
        "sha256": digest_of(checkpoint.source, told),
        "format": checkpoint.format,
        "network": picked.name,
        "class": picked.class_name,
        "layout": layout,
        "inert": list(checkpoint.inert),
    }
    return Imported(generator, origin)


def _made(tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], name: str) -> ModuleGenerator:
    try:
        return families.from_tensors(tensors, arguments, name=name)
    except (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:  # sizes and arguments may be anything
        what = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(f"{name} has tensors or constructor arguments that do not make a network: it is damaged ({what})") from error


def _picked(checkpoint: Checkpoint, network: str | None) -> tuple[StoredNetwork, dict[str, Tensor]]:
    """The network that is the generator: by its name, and if names do not tell, the only one of a known family."""
    candidates = checkpoint.candidates(network)
    if len(candidates) == 1:
        return candidates[0], checkpoint.tensors(candidates[0])
    read = [(one, checkpoint.tensors(one)) for one in candidates]
    fit = [(one, tensors) for one, tensors in read if _known(tensors)]
    if len(fit) != 1:
        raise ValueError(f"{checkpoint.source}: {networks.ambiguous([one for one, _ in fit] or candidates)}.")
    return fit[0]


def _known(tensors: Mapping[str, Tensor]) -> bool:
    try:
        families.layout_of(families.without_prefix(tensors))
    except ValueError:
        return False
    return True


def name_of(path: Path) -> str:
    """A generator's name after its file or folder."""
    path = path.absolute()
    return path.name if path.is_dir() else path.stem


def digest_of(source: Path, arguments: Mapping[str, Any]) -> str:
    """SHA-256 of a file, and of the arguments beside it where there are some."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if arguments:
        digest.update(json.dumps(arguments, sort_keys=True).encode())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where imports are kept: ``STEERABLE_CACHE``, else the user's cache folder. Safe to delete."""
    if own := os.environ.get("STEERABLE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steerable"
