"""A checkpoint as named networks: the format is decided by content, and nothing in the file is executed.

``torch_files`` and ``machine`` read the bytes, ``networks`` finds the networks in what they hold, ``folders`` knows published folders.
Which family a network is, and how its keys are called here, is the business of ``generators.families``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable import files
from steerable.checkpoints import folders, networks, torch_files
from steerable.checkpoints.machine import Machine
from steerable.checkpoints.networks import StoredNetwork
from steerable.checkpoints.records import KNOWN, NAMES_ONLY, Global, shown

ADVICE = {
    "an HTML page": " The download went to a web page: fetch the file itself.",
    "a truncated safetensors file": " The download stopped early: fetch it again.",
    "a Git LFS pointer, not the file itself": " Fetch what it points to: git lfs pull.",
    "an empty file": " Fetch it again.",
}
EARLY = ("ends in the middle", "stops early", "ends before")
PROGRAMS = ("TorchScript", "torch.export")  # archives that hold a program: run by torch, not read here


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        source: the file, of a folder the one with the weights.
        format: "safetensors", "torch archive", "torch file", "pickle".
        networks: in the order of the file.
        loose: tensors beside the networks, ``latent_avg`` for example.
        arguments: published beside the file, in a folder.
        inert: names in the file that were neither looked up nor called.
        description: of a file of ours.
    """

    source: Path
    format: str
    networks: tuple[StoredNetwork, ...]
    loose: Mapping[str, Any]
    arguments: Mapping[str, Any]
    inert: tuple[str, ...]
    description: Mapping[str, Any]

    def candidates(self, network: str | None = None) -> list[StoredNetwork]:
        """The networks that may be the generator, by name; one, as a rule.

        Raises:
            ValueError: there is none.
        """
        try:
            return networks.chosen(self.networks, network)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}.") from error

    def tensors(self, network: StoredNetwork) -> dict[str, Tensor]:
        """The tensors of one of the networks, with the mean latent that stands beside it.

        Raises:
            ValueError: one of them is damaged.
        """
        size = self.source.stat().st_size
        try:
            found = network.tensors(size)
            if "latent_avg" in self.loose and "latent_avg" not in found:
                found.update(StoredNetwork("", {"latent_avg": self.loose["latent_avg"]}).tensors(size))
            return found
        except ValueError as error:
            raise ValueError(f"{self.source}: {_one_line(error)}.") from error
        except Exception as error:
            raise ValueError(f"{self.source}: its tensors are damaged ({type(error).__name__}: {_one_line(error)}).") from error


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a file, by content: one of ``Checkpoint.format``, a program of torch, or what it is instead ("an HTML page")."""
    path = Path(path)
    kind = files.sniff(path)
    if kind == "a zip / torch file":
        return _archive_format(torch_files.archive(path))
    if kind == "a pickle":
        with path.open("rb") as file:
            return "torch file" if torch_files.is_legacy(file.read(40)) else "pickle"
    return {"a safetensors file": "safetensors"}.get(kind, kind)


def _archive_format(archive: torch_files.Archive) -> str:
    names, folder = archive.members, archive.folder
    tops = [name.partition("/")[2] for name in names]
    if f"{folder}constants.pkl" in names and any(name.startswith(f"{folder}code/") for name in names):
        return "TorchScript"
    if "archive_format" in tops or "serialized_exported_program.json" in names or any(top.startswith("models/") for top in tops):
        return "torch.export"
    return "torch archive" if f"{folder}data.pkl" in names else "a zip archive, and not one of torch"


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """What a file or folder holds.

    Raises:
        ValueError: in one line: it is something else, damaged, said to be larger than it is, or holds nothing but calls,
            which are named.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"{path} does not exist. Check the path; it is looked up from {'the root' if path.is_absolute() else 'the current folder'}."
        )
    kind = "a folder"
    try:
        weights = folders.weights_in(path) if path.is_dir() else path
        arguments = folders.arguments_beside(weights)
        kind = "a zip / torch file"
        kind = format_of(weights)
        if kind not in READERS:
            advice = " Give the folder that it lies in." if path.name in folders.CONFIGS else ADVICE.get(kind, "")
            if kind in PROGRAMS:
                kind, advice = f"a program of {kind}", " It is run as it is, and not imported: load_generator(FILE)."
            raise _Other(f"{kind}; expected weights: safetensors, a torch file, or a pickle of NVIDIA's.{advice}")
        kind = f"a {kind}"
        return READERS[kind.removeprefix("a ")](weights, arguments)
    except _Other as other:
        raise ValueError(f"{path} is {other}") from None
    except ValueError as error:
        reason = _one_line(error)
        again = " Fetch it again." if any(words in reason for words in EARLY) else ""
        raise ValueError(f"{path} is {kind}: {reason}.{again}") from error
    except Exception as error:  # what damaged content raises in the libraries has no end
        raise ValueError(f"{path} is {kind}: it is damaged ({type(error).__name__}: {_one_line(error)}).") from error


class _Other(Exception):
    """Not a checkpoint; the message says what it is."""


def _one_line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), 400).rstrip(".")


def _torch_archive(path: Path, arguments: Mapping[str, Any]) -> Checkpoint:
    return _checkpoint(path, "torch archive", *torch_files.read_zip(torch_files.archive(path)), arguments)


def _torch_file(path: Path, arguments: Mapping[str, Any]) -> Checkpoint:
    return _checkpoint(path, "torch file", *torch_files.read_legacy(torch_files.mapped(path)), arguments)


def _pickle(path: Path, arguments: Mapping[str, Any]) -> Checkpoint:
    machine = Machine(torch_files.mapped(path))
    return _checkpoint(path, "pickle", machine.run(), list(machine.seen), arguments)


def _checkpoint(path: Path, kind: str, value: Any, seen: list[str], arguments: Mapping[str, Any]) -> Checkpoint:
    inert = tuple(shown(name) for name in seen if name not in KNOWN and name not in NAMES_ONLY and Global(name).dtype is None)
    found, loose = networks.networks_in(value)
    if not any(network.entries for network in found):
        for network in found:
            network.tensors(0)  # says what is wrong with it
        if inert:
            named = ", ".join(inert[:3]) + (f" and {len(inert) - 3} more" if len(inert) > 3 else "")
            raise ValueError(f"it holds no tensors that can be read without calling {named}; nothing was executed")
        raise ValueError(f"it holds {networks.what_is(value)} without tensors, expected a state dict: torch.save(netG.state_dict(), FILE)")
    return Checkpoint(path, kind, tuple(network for network in found if network.entries or network.trouble), loose, arguments, inert, {})


def _safetensors(path: Path, arguments: Mapping[str, Any]) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("steerable", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, RecursionError) as error:
        raise ValueError(f"it is damaged: {error}") from error
    if not isinstance(description, dict):
        raise ValueError("it has a description that is no mapping: save it again")
    if not tensors:
        raise ValueError("it holds no tensors")
    found, loose = networks.networks_in(tensors) if not description else ([StoredNetwork("", tensors)], {})
    return Checkpoint(path, "safetensors", tuple(found), loose, arguments, (), description)


READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Checkpoint]] = {
    "safetensors": _safetensors,
    "torch archive": _torch_archive,
    "torch file": _torch_file,
    "pickle": _pickle,
}
