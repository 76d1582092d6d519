"""Save and load controls and generators: safetensors with the description in its header.

Files are judged by content, never by suffix, and nothing in them is executed. What a control was fitted on, its knobs and how it was
fitted travel in the same file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from safetensors.torch import save as packed
from torch import Tensor

from steerable import checks, files, hub, importing, shipped
from steerable.checkpoints import folders
from steerable.controls.amortised import Controller
from steerable.controls.chain import Chain
from steerable.controls.directions import Directions
from steerable.controls.groups import Controllers, GroupController
from steerable.controls.walk import Step, Walk
from steerable.features.network import NetworkFeature
from steerable.fitting import labels
from steerable.generators import exported, families
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Control, Generator, Images, Knob, LatentSpace

VERSION = 1
CONTROLS = ("directions", "walk", "chain", "amortised", "controllers")
logger = logging.getLogger(__name__)


def save(thing: ModuleGenerator | Control, path: str | os.PathLike[str]) -> Path:
    """Write a generator or a control, as ``save_generator`` or ``save_control``.

    Raises:
        TypeError: neither of the two, or one that no file can rebuild.
    """
    if isinstance(thing, ModuleGenerator):
        return save_generator(thing, path)
    if not hasattr(thing, "steer"):
        raise TypeError(f"save takes a generator or a control, got a {type(thing).__name__}.")
    return save_control(thing, path)


def save_control(control: Control, path: str | os.PathLike[str]) -> Path:
    """Write a control; the same control gives the same bytes."""
    return files.write_bytes(path, control_bytes(control))


def load_control(path: str | os.PathLike[str], *, generator: Generator | None = None) -> Any:
    """Read a control: ``Directions``, a ``Walk``, a ``Controller``, a ``Chain`` or ``Controllers``.

    Args:
        path: of a file, an address on the Hub, or the name of a shipped one: "digits32-joint-zoom-walk".
        generator: refuse a control of any other one, by name.

    Raises:
        ValueError: not a control, a damaged file, or a control of another generator.
    """
    entry = shipped.entries().get(os.fspath(path))
    if entry is not None and entry.kind == "control" and not Path(path).exists():
        return control_of(shipped.content(shipped.WEIGHTS / entry.file, entry.sha256), what=entry.name, generator=generator)
    path = hub.fetch(path) if hub.is_address(path) else Path(path)
    return control_of(read_bytes(path), what=str(path), generator=generator)


def control_bytes(control: Control) -> bytes:
    """What ``save_control`` writes.

    Raises:
        TypeError: a control that needs its generator or a feature to steer: a trajectory, a value set by number, one of your own.
    """
    tensors, description = _control_parts(control)
    return packed(tensors, metadata={"steerable": json.dumps({**description, "version": VERSION}, sort_keys=True)})


def _control_parts(control: Control) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a control; those of a chain's parts are numbered."""
    knobs, fit = [asdict(knob) for knob in control.knobs], dict(getattr(control, "fit", {}))
    described: dict[str, Any] = {"knobs": knobs, "space": asdict(control.space), "fit": fit}
    tensors: dict[str, Tensor] = {}
    if isinstance(control, Directions):
        tensors = {"vectors": control.vectors} | ({} if control.normals is None else {"normals": control.normals})
        described |= {"kind": "directions"}
    elif isinstance(control, Walk):
        sides = {"behind": control.behind, "ahead": control.ahead}
        tensors = {f"{side}.{name}": tensor for side, step in sides.items() for name, tensor in step.tensors.items()}
        described |= {"kind": "walk", "strides": list(control.strides)}
    elif isinstance(control, Controller):
        tensors = {f"layers.{i}": layer for i, layer in enumerate(control.layers)}
        tensors |= {"basis": control.basis, "straight": control.straight, "centre": control.centre, "spread": control.spread}
        described |= {"kind": "amortised"}
    elif isinstance(control, Chain):
        parts = [_control_parts(part) for part in control.parts]
        tensors = {f"{number}.{name}": tensor for number, (held, _) in enumerate(parts) for name, tensor in held.items()}
        described |= {"kind": "chain", "parts": [description for _, description in parts]}
    elif isinstance(control, Controllers):
        tensors = {f"{part.group}.{name}": tensor for part in control.parts for name, tensor in part.tensors.items()}
        parts = [{name: getattr(part, name) for name in ("group", "classes", "noise", "spherical")} for part in control.parts]
        numbers = [len(part.knobs) for part in control.parts]
        described |= {"kind": "controllers", "parts": [{**part, "knobs": count} for part, count in zip(parts, numbers, strict=True)]}
    else:
        raise TypeError(
            f"a {type(control).__name__} is not saved: only Directions, Walk, Controller, Controllers and Chain are all that they need."
        )
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, described


def control_of(content: bytes, *, what: str, generator: Generator | None = None) -> Any:
    """The control in the bytes of a file; ``what`` names it in errors."""
    tensors, description = _unpack(content, what)
    if description.get("kind") not in CONTROLS:
        raise ValueError(f"{what} holds {_kind(description)}, not a control. Make one with: steer fit --out FILE.")
    try:
        control = _control(tensors, description)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{what} is a control with a part missing or wrong ({error}): save it again.") from error
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if generator is not None:
        name = next(iter(generator.spaces.values())).generator or "generator"
        checks.same_generator(control.space, generator.fingerprint, name, what)
    return control


def _control(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Any:
    kind, fit = description["kind"], description["fit"]
    if kind == "chain":
        numbered = enumerate(description["parts"])
        return Chain(tuple(_control(_below(tensors, f"{number}."), part) for number, part in numbered), fit)
    knobs = tuple(
        Knob(**{**knob, "percentiles": tuple((float(p), float(v)) for p, v in knob["percentiles"])}) for knob in description["knobs"]
    )
    space = _space(description["space"])
    if kind == "directions":
        return Directions(knobs, space, tensors["vectors"], tensors.get("normals"), fit)
    if kind == "walk":
        low, high = description["strides"]
        behind, ahead = (Step(**_below(tensors, f"{side}.")) for side in ("behind", "ahead"))
        return Walk(knobs, space, behind, ahead, (float(low), float(high)), fit)
    if kind == "amortised":
        layers = _below(tensors, "layers.")
        ordered = tuple(layers[str(i)] for i in range(len(layers)))
        return Controller(knobs, space, tensors["basis"], tensors["straight"], ordered, tensors["centre"], tensors["spread"], fit)
    if kind == "controllers":
        return Controllers(tuple(_group_controllers(tensors, description["parts"], knobs)), space, fit)
    raise ValueError(f'a part of kind "{kind}" is no control')


def _group_controllers(
    tensors: Mapping[str, Tensor], parts: Sequence[Mapping[str, Any]], knobs: Sequence[Knob]
) -> Iterator[GroupController]:
    start = 0
    for part in parts:
        count, held = int(part["knobs"]), _below(tensors, f"{part['group']}.")
        layers = {
            what: tuple(held[f"{what}.{i}"] for i in range(sum(key.startswith(f"{what}.") for key in held))) for what in ("point", "drawn")
        }
        yield GroupController(
            str(part["group"]), tuple(knobs[start : start + count]), int(part["classes"]), held["centre"], held["spread"],
            layers["point"], layers["drawn"], int(part["noise"]), bool(part["spherical"]),
        )  # fmt: skip
        start += count


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _space(stored: Mapping[str, Any]) -> LatentSpace:
    spans = {what: tuple((str(n), int(a), int(b)) for n, a, b in stored.get(what, ())) for what in ("spheres", "layers", "parts")}
    return LatentSpace(stored["name"], tuple(stored["shape"]), stored["fingerprint"], stored["generator"], **spans)


def save_feature(feature: NetworkFeature, path: str | os.PathLike[str]) -> Path:
    """Write a feature that ``fit_feature`` made: its head, without the backbone."""
    tensors, rest = labels.head_state(feature)
    description = {"kind": "feature", "version": VERSION, **rest}
    return files.write_bytes(path, packed(tensors, metadata={"steerable": json.dumps(description, sort_keys=True)}))


def load_feature(path: str | os.PathLike[str], backbone: Callable[[Images], Tensor]) -> NetworkFeature:
    """Read a feature back onto the backbone that it was trained on."""
    path = Path(path)
    return feature_of(read_bytes(path), backbone, what=str(path))


def feature_of(content: bytes, backbone: Callable[[Images], Tensor], *, what: str) -> NetworkFeature:
    """The feature in the bytes of a file; ``what`` names it in errors."""
    tensors, description = _unpack(content, what)
    if description.get("kind") != "feature":
        raise ValueError(f"{what} holds {_kind(description)}, not a feature. Make one with: steer fit label LABELS --name NAME.")
    try:
        return labels.head_feature(tensors, description, backbone)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{what} is a feature with a part missing or wrong ({error}): save it again.") from error


def save_generator(
    generator: ModuleGenerator, path: str | os.PathLike[str], *, origin: Mapping[str, Any] | None = None, half: bool = False
) -> Path:
    """Write a generator of a known family; a wrapped module of your own keeps its own file format.

    Args:
        origin: where it came from, for the description.
        half: in half the bytes; only for weights that half precision holds exactly, for others the file will not load.

    Raises:
        TypeError: a generator whose architecture could not be rebuilt from tensors.
    """
    tensors, description = _generator_parts(generator, origin or {})
    if half:
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    return files.write_bytes(path, packed(tensors, metadata=description))


def _generator_parts(generator: ModuleGenerator, origin: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    network: Any = generator.network
    if getattr(network, "family", None) not in families.FAMILIES:
        raise TypeError(
            f"{generator.name} is a {type(network).__name__}: only networks of the families "
            f"{', '.join(families.FAMILIES)} can be rebuilt from a file. Save its module yourself."
        )
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    return tensors, {"steerable": json.dumps(describe_generator(generator, origin), sort_keys=True)}


def describe_generator(generator: ModuleGenerator, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the header of a generator's file, and beside it after an import."""
    network: Any = generator.network
    options = {
        key: value for key, value in generator.options.items() if value is None or isinstance(value, bool | int | float | str | list)
    }
    return {
        "kind": "generator",
        "version": VERSION,
        "family": network.family,
        "config": dict(network.config),
        "config_sha256": _config_digest(network.family, network.config),
        "name": generator.name,
        "fingerprint": generator.fingerprint,
        "image": list(generator.image_shape),
        "classes": generator.classes,
        "spaces": {name: list(space.shape) for name, space in generator.spaces.items()},
        "options": {key: value for key, value in options.items() if not isinstance(value, list) or "Tensor" not in map(_type, value)},
        **({"origin": dict(origin)} if origin else {}),
    }


def _type(value: Any) -> str:
    return type(value).__name__


def _config_digest(family: Any, config: Any) -> str:
    return digest(json.dumps([family, config], sort_keys=True).encode())


def load_generator_file(
    path: str | os.PathLike[str], *, network: str | None = None, arguments: Mapping[str, Any] | None = None
) -> ModuleGenerator:
    """A generator from any checkpoint of a known family, ours or published elsewhere; nothing in the file is executed.

    What is not safetensors is imported once, and kept in ``importing.cache_folder()``.

    Args:
        network: which network of the file, where it has several: "G_ema".
        arguments: see ``importing.imported``.

    Raises:
        ValueError: in one line: any other content, damaged files, discriminators, networks of no known family.
    """
    path = Path(path)
    if path.is_file() and importing.is_program(path):
        return _program(path)
    if path.is_file() and files.sniff(path) == "a safetensors file":
        tensors, description = _unpack(path.read_bytes(), str(path))
        if description and arguments:
            raise ValueError(f"{path} is a file of steerable's, which has its arguments: leave arguments={dict(arguments)} out.")
        if description:
            return _own_generator(tensors, description, path, importing.name_of(path))
        return importing.imported(path, network=network, arguments=arguments).generator
    kept = _kept(path, network, arguments or {})
    if kept is not None and kept.is_file():
        try:
            tensors, description = _unpack(kept.read_bytes(), str(kept))
            return _own_generator(tensors, {**description, "name": importing.name_of(path)}, kept, importing.name_of(path))
        except (ValueError, OSError):
            logger.info("%s in the cache is damaged: importing %s anew", kept, path)
    found = importing.imported(path, network=network, arguments=arguments)
    if kept is not None:
        try:
            save_generator(found.generator, kept, origin=found.origin)
        except OSError as error:
            logger.info("not kept in the cache: %s", error)
    return found.generator


def generator_in(content: bytes, *, name: str) -> ModuleGenerator:
    """The generator in the bytes of a file of ours."""
    tensors, description = _unpack(content, name)
    return _own_generator(tensors, description, Path(name), name)


def import_generator(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    network: str | None = None,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Path:
    """Read anybody's checkpoint without executing it, and write it as safetensors with a description as JSON beside it.

    Args:
        source: a file or a folder, in any published layout of a known family.
        out: the file to write; NAME.safetensors in the current folder by default.
        network: which network of the file, where it has several: "G_ema".
        name: of the generator; the source's own by default.
        arguments: of its constructor, where they are neither in the source nor beside it: {"conv_clamp": 256}.

    Returns:
        The file; it loads to the same images and the same fingerprint.

    Raises:
        ValueError: see ``importing.imported``.
    """
    source = Path(source)
    if source.is_file() and importing.is_program(source):
        raise ValueError(f"{source} is a program of torch, which has no weights to import: load it as it is, load_generator(FILE).")
    name = name or importing.name_of(source)
    out = Path(f"{name}.safetensors") if out is None else Path(out)
    beside = out.with_suffix(".json")
    if source.is_file() and source.resolve() in (out.resolve(), beside.resolve()):
        raise ValueError(f"{source} would be written over itself: choose another --out.")
    found = importing.imported(source, network=network, name=name, arguments=arguments)
    save_generator(found.generator, out, origin=found.origin)
    files.write_text(beside, json.dumps(describe_generator(found.generator, found.origin), indent=1) + "\n")
    return out


def described(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the header of a file of ours says."""
    return _unpack(read_bytes(Path(path)), str(path))[1]


def _kept(path: Path, network: str | None, arguments: Mapping[str, Any]) -> Path | None:
    """Where in the cache the import of a file is kept; None for what is no checkpoint."""
    try:
        weights = folders.weights_in(path) if path.is_dir() else path
        source = importing.digest_of(weights, {**folders.arguments_beside(weights), **arguments})
    except (ValueError, OSError, TypeError):
        return None
    key = digest(json.dumps([source, network, importing.VERSION, VERSION]).encode())
    return importing.cache_folder() / "generators" / f"{key}.safetensors"


def _program(path: Path) -> ModuleGenerator:
    try:
        return exported.load_exported(path)
    except ValueError as error:
        more = any(word in str(error) for word in ("latent_size", "classes=", "value_range", "labels="))
        hint = f" Here: steerable.generators.exported.load_exported({str(path)!r}, ...)." if more else ""
        raise ValueError(f"{error}{hint}") from error


def _own_generator(tensors: Mapping[str, Tensor], description: Mapping[str, Any], path: Path, name: str) -> ModuleGenerator:
    """The generator in a file of ours.

    Raises:
        ValueError: a control or a feature; a description or tensors that are not those that were written.
    """
    if description.get("kind", "generator") != "generator":
        raise ValueError(f"{path} holds {_kind(description)}, not a generator.")
    family, config, name = description.get("family"), description.get("config"), str(description.get("name") or name)
    try:
        if config is None:  # as version 1 wrote DCGANs
            return families.from_tensors(tensors, name=name)
        if (
            not isinstance(family, str)
            or not isinstance(config, dict)
            or _config_digest(family, config) != description.get("config_sha256")
        ):
            raise ValueError("its description is not the one that was written: import or save it again")
        generator = families.build(family, config, tensors, name=name)
        if generator.fingerprint != description.get("fingerprint"):
            raise ValueError("its tensors are not those that were written: import or save it again")
        options = description.get("options")
        return generator.configured(**options) if isinstance(options, dict) else generator
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from error


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
        "a pickle": " Pickled code is never executed here. A generator is converted by: steer import FILE.",
        "a truncated safetensors file": " The download stopped early: fetch it again.",
    }.get(kind, "")


def _unpack(content: bytes, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = {name: tensor.clone() for name, tensor in load(content).items()}  # where torch's own lie: the last bit depends on that
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


def _kind(description: Mapping[str, Any]) -> str:
    kinds = {**dict.fromkeys(CONTROLS, "a control"), "feature": "a feature", "generator": "a generator"}
    return kinds.get(str(description.get("kind")), "plain tensors")
