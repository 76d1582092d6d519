"""Save and load controls and generators: safetensors with the description in its header, nothing else.

Files are judged by content, never by suffix, and nothing in them is executed. What a control was fitted on, its knobs and how it was
fitted travel in the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from steerable import checks, files
from steerable.controls.directions import Directions
from steerable.features.network import NetworkFeature
from steerable.fitting import labels
from steerable.generators import dcgan
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Generator, Images, Knob, LatentSpace

VERSION = 1


def save_control(control: Directions, path: str | os.PathLike[str]) -> Path:
    """Write a control; the same control gives the same bytes."""
    return files.write_bytes(path, control_bytes(control))


def load_control(path: str | os.PathLike[str], *, generator: Generator | None = None) -> Directions:
    """Read a control.

    Args:
        generator: refuse a control of any other one, by name.

    Raises:
        ValueError: not a control, a damaged file, or a control of another generator.
    """
    path = Path(path)
    return control_of(read_bytes(path), what=str(path), generator=generator)


def control_bytes(control: Directions) -> bytes:
    tensors = {"vectors": control.vectors.detach().cpu().contiguous()}
    if control.normals is not None:
        tensors["normals"] = control.normals.detach().cpu().contiguous()
    description = {
        "kind": "directions",
        "version": VERSION,
        "space": asdict(control.space),
        "knobs": [asdict(knob) for knob in control.knobs],
        "fit": dict(control.fit),
    }
    return save(tensors, metadata={"steerable": json.dumps(description, sort_keys=True)})


def control_of(content: bytes, *, what: str, generator: Generator | None = None) -> Directions:
    """The control in the bytes of a file; ``what`` names it in errors."""
    tensors, description = _unpack(content, what)
    if description.get("kind") != "directions":
        raise ValueError(f"{what} holds {_kind(description)}, not a control. Make one with: steer fit --out FILE.")
    try:
        space = description["space"]
        control = Directions(
            knobs=tuple(
                Knob(**{**knob, "percentiles": tuple((float(p), float(v)) for p, v in knob["percentiles"])})
                for knob in description["knobs"]
            ),
            space=_space(space),
            vectors=tensors["vectors"],
            normals=tensors.get("normals"),
            fit=description["fit"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{what} is a control with a part missing or wrong ({error}): save it again.") from error
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if generator is not None:
        name = next(iter(generator.spaces.values())).generator or "generator"
        checks.same_generator(control.space, generator.fingerprint, name, what)
    return control


def _space(stored: Mapping[str, Any]) -> LatentSpace:
    spans = {what: tuple((str(n), int(a), int(b)) for n, a, b in stored.get(what, ())) for what in ("spheres", "layers", "parts")}
    return LatentSpace(stored["name"], tuple(stored["shape"]), stored["fingerprint"], stored["generator"], **spans)


def save_feature(feature: NetworkFeature, path: str | os.PathLike[str]) -> Path:
    """Write a feature that ``fit_feature`` made: its head, without the backbone."""
    tensors, rest = labels.head_state(feature)
    description = {"kind": "feature", "version": VERSION, **rest}
    return files.write_bytes(path, save(tensors, metadata={"steerable": json.dumps(description, sort_keys=True)}))


def load_feature(path: str | os.PathLike[str], backbone: Callable[[Images], Tensor]) -> NetworkFeature:
    """Read a feature back onto the backbone that it was trained on."""
    path = Path(path)
    tensors, description = _unpack(read_bytes(path), str(path))
    if description.get("kind") != "feature":
        raise ValueError(f"{path} holds {_kind(description)}, not a feature. Make one with: steer fit label LABELS --name NAME.")
    try:
        return labels.head_feature(tensors, description, backbone)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is a feature with a part missing or wrong ({error}): save it again.") from error


def save_generator(generator: ModuleGenerator, path: str | os.PathLike[str]) -> Path:
    """Write a generator of a known family (DCGAN); a wrapped module of your own keeps its own file format.

    Raises:
        TypeError: a generator whose architecture could not be rebuilt from tensors.
    """
    if not isinstance(generator.network, dcgan.DCGAN):
        raise TypeError(
            f"{generator.name} is a {type(generator.network).__name__}: only DCGANs can be rebuilt from a file. Save its module yourself."
        )
    tensors = {k: v.detach().cpu().contiguous() for k, v in generator.network.state_dict().items() if v.is_floating_point()}
    description = {"kind": "generator", "version": VERSION, "family": "dcgan", "name": generator.name}
    return files.write_bytes(path, save(tensors, metadata={"steerable": json.dumps(description, sort_keys=True)}))


def load_generator_file(path: str | os.PathLike[str]) -> ModuleGenerator:
    """A DCGAN from safetensors or from a plain torch checkpoint, which is read as tensors only.

    Raises:
        ValueError: any other content: an HTML page, a pickle, a truncated file, weights of another family.
    """
    path = Path(path)
    kind = _sniffed(path)
    if kind == "a safetensors file":
        tensors, description = _unpack(path.read_bytes(), str(path))
        if description.get("kind", "generator") != "generator":
            raise ValueError(f"{path} holds {_kind(description)}, not a generator.")
        return _dcgan(tensors, description.get("name") or path.stem, path)
    if kind in ("a zip / torch file", "a pickle"):  # a pickle may be a torch file from before torch 1.6
        return _dcgan(_torch_tensors(path, kind), path.stem, path)
    raise ValueError(f"{path} is {kind}; weights are a safetensors file or a torch file of tensors.{_advice(kind)}")


def _dcgan(tensors: Mapping[str, Any], name: str, path: Path) -> ModuleGenerator:
    try:
        return dcgan.from_state_dict(tensors, name=name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a safetensors file, or an error that says what the file is instead."""
    kind = _sniffed(path)
    if kind != "a safetensors file":
        raise ValueError(f"{path} is {kind}, expected a safetensors file.{_advice(kind)}")
    return path.read_bytes()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sniffed(path: Path) -> str:
    if not path.exists():
        raise ValueError(
            f"{path} does not exist. Check the path; it is looked up from {'the root' if path.is_absolute() else 'the current folder'}."
        )
    return files.sniff(path)


def _advice(kind: str) -> str:
    return {
        "an HTML page": " The download went to a web page: fetch the file itself.",
        "a pickle": " Pickled code is never executed here: save its state dict with safetensors.",
        "a truncated safetensors file": " The download stopped early: fetch it again.",
    }.get(kind, "")


def _unpack(content: bytes, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        description = json.loads(header.get("__metadata__", {}).get("steerable", "{}"))
    except (SafetensorError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} is damaged: {str(error).splitlines()[0]}. Fetch or save it again.") from error
    if not isinstance(description, dict):
        raise ValueError(f"{what} has a description that is no mapping: save it again.")
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            checks.finite(tensor, f"{what}: {name}")
    return tensors, description


def _torch_tensors(path: Path, kind: str) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # given a path, torch goes by its suffix
            warnings.simplefilter("ignore")  # torch wonders at newer pickle protocols
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle may raise has no end
        if kind == "a pickle":
            what = f"is a pickle, and not a torch file of tensors alone.{_advice(kind)}"
        else:
            what = (
                "is not a torch file of tensors alone, or it is damaged; nothing in it was executed. Save its state dict with safetensors."
            )
        raise ValueError(f"{path} {what}") from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, expected a state dict.")
    return loaded


def _kind(description: Mapping[str, Any]) -> str:
    kinds = {"directions": "a control", "feature": "a feature", "generator": "a generator"}
    return kinds.get(str(description.get("kind")), "plain tensors")
