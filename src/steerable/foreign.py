"""Directions that others published, as ``Directions`` of a generator here: in the right space, in the right layers, with a unit.

A file is read as arrays alone and known by what it holds, never by its suffix:

    InterFaceGAN    .npy   (1, d) or (d,), the unit normal of a boundary in z or w
    SeFa            .npy, .npz, .pt   (k, d) eigenvectors in rows; {"eigvec": (d, k)} in columns, as rosinality writes them
    GANSpace        .npz   act_comp, act_stdev, lat_comp, lat_stdev: k components with their standard deviations
    e4e             .pt    (d,), (1, d) or (layers, d); {"comp", "mean", "std"}: GANSpace's components of w

Sources: Shen et al., InterFaceGAN, TPAMI 2020; Shen & Zhou, "Closed-form factorization of latent semantics in GANs", CVPR 2021;
Härkönen et al., GANSpace, NeurIPS 2020, section 3; Tov et al., "Designing an encoder for StyleGAN image manipulation", 2021.
"""

from __future__ import annotations

import codecs
import hashlib
import math
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable import checks, files
from steerable.controls.directions import Directions
from steerable.protocols import Generator, Knob, LatentSpace

RANGE = (-3.0, 3.0)  # of every knob until ``calibrate`` measures it
LARGEST = 2**30  # bytes of arrays that a file of directions may unpack to
Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        layout: who writes files like this.
        vectors: (..., d) or (..., layers, d), as stored.
        deviations: (k,) standard deviations of the latents along the directions, where the file has them.
        names: of the directions, where the file has them.
        space: where the layout or the file itself says it.
    """

    layout: str
    vectors: Tensor
    deviations: Tensor | None = None
    names: tuple[str, ...] = ()
    space: str | None = None


def load_directions(
    path: str | os.PathLike[str],
    generator: Generator,
    *,
    space: str | None = None,
    layers: str | Sequence[int | str] | None = None,
    name: str | None = None,
    unit: str | None = None,
) -> Directions:
    """Read directions of InterFaceGAN, GANSpace, SeFa or e4e.

    Components with standard deviations are scaled by them, so that an amount of 1 is one standard deviation of the latents; all
    others keep the length they have in the file. The range of every knob is -3 to 3 and is not measured: ``calibrate`` does that.

    Args:
        generator: that the directions were found on. Files say sizes at best, so this cannot be checked further.
        space: needed where the sizes fit several, as for a z and a w of one size. An array of just as many rows as w+ has is one
            direction there; ``space="w"`` reads it as so many of w.
        layers: restrict the directions to these, "4-7" or ``range(4, 8)``; those of w then live in w+, with zeros elsewhere.
        name: of the knob; of several, the knobs are ``name-0``, ``name-1``, ... By default the name of the file.
        unit: of an amount of 1, in words.

    Raises:
        ValueError: another kind of file, code in it, sizes that fit no space or several, NaN, a direction of length zero.
        TypeError: something else than a generator.
    """
    checks.generator(generator, "load_directions")
    path = Path(path)
    content = _content(path)
    found = _found(_arrays(path), path, generator, space)
    where = _space_of(found, generator, space, layers, str(path))
    vectors = found.vectors.reshape(-1, *where.shape)  # (k, *space.shape)
    lengths = vectors.flatten(1).norm(dim=1)
    if not bool((lengths > 0).all()):
        raise ValueError(f"{path}: direction {int((lengths == 0).nonzero()[0])} of {len(vectors)} is zero everywhere: it moves nothing.")
    if found.deviations is not None:
        if found.deviations.numel() != len(vectors) or not bool((found.deviations > 0).all()):
            raise ValueError(
                f"{path} has {len(vectors)} components in {where} and {found.deviations.numel()} standard deviations: "
                "one above 0 for each was expected."
            )
        vectors = vectors * found.deviations.reshape(-1, *[1] * len(where.shape))
    scaled = "steps of the file" if found.deviations is None else "standard deviations"
    stem = name or path.stem
    names = found.names or ((stem,) if len(vectors) == 1 else tuple(f"{stem}-{i}" for i in range(len(vectors))))
    control = Directions(
        knobs=tuple(Knob(one, unit or scaled, *RANGE) for one in names),
        space=where,
        vectors=vectors.clone(),
        fit={
            "method": "imported",
            "layout": found.layout,
            "file": path.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "calibrated": False,
        },
    )
    if layers is None:
        return control
    if not where.layers:
        if "w+" not in generator.spaces or where.name != "w":
            raise ValueError(f"{where} drives all layers at once, and no space with layers follows it: leave layers out.")
        control = control.lifted(generator, "w+")
    return control.in_layers(layers)


def _found(arrays: Arrays, path: Path, generator: Generator, space: str | None) -> Found:
    """The directions among the arrays of a file."""
    if "lat_comp" in arrays or "act_comp" in arrays:
        return _ganspace(arrays, path, generator, space)
    if "comp" in arrays:
        return Found("e4e (GANSpace)", _floats(arrays["comp"], f"{path}: comp"), _deviations(arrays.get("std"), path), space="w")
    if "eigvec" in arrays:
        columns = _floats(arrays["eigvec"], f"{path}: eigvec")
        if columns.ndim != 2:
            raise ValueError(f"{path}: eigvec is {tuple(columns.shape)}, expected eigenvectors in the columns of a matrix.")
        return Found("SeFa (rosinality)", columns.T, space="w")
    tensors = {key: _floats(tensor, f"{path}: {key}" if key else str(path)) for key, tensor in arrays.items()}
    if len(tensors) == 1:
        (one,) = tensors.values()
        return Found("plain", one)
    shapes = {tuple(tensor.squeeze().shape) for tensor in tensors.values()}
    if len(shapes) == 1 and shapes <= {tuple(s.shape) for s in generator.spaces.values()}:
        return Found("named", torch.stack([tensor.squeeze() for tensor in tensors.values()]), names=tuple(tensors))
    held = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in list(tensors.items())[:6])
    raise ValueError(f"{path} holds {held or 'no arrays'}: expected one array, named directions of one size, or GANSpace's comp and stdev.")


def _ganspace(arrays: Arrays, path: Path, generator: Generator, space: str | None) -> Found:
    """GANSpace stores components of a layer (act) and the latent directions regressed on them (lat).

    The latents are z where every lat_stdev is exactly 1, and w otherwise: its ``decomposition.compute`` measures them in w only.
    The layer's own components are directions of w where the layer is w, so they are taken where w is asked for and lat is z.
    """
    deviations = _deviations(arrays.get("lat_stdev"), path)
    if "lat_comp" in arrays:
        told = None if deviations is None else "z" if bool((deviations == 1).all()) else "w"
        told = told if told in generator.spaces else None
        if "act_comp" not in arrays or space in (None, told) or told is None:
            return Found("GANSpace", _floats(arrays["lat_comp"], f"{path}: lat_comp"), deviations, space=told)
    return Found("GANSpace", _floats(arrays["act_comp"], f"{path}: act_comp"), _deviations(arrays.get("act_stdev"), path), space=space)


def _space_of(found: Found, generator: Generator, asked: str | None, layers: str | Sequence[int | str] | None, what: str) -> LatentSpace:
    """The space whose shape the directions end in; the one with most dimensions where several do."""
    spaces = generator.spaces
    fits = {name: space for name, space in spaces.items() if _fits(tuple(found.vectors.shape), space.shape)}
    shape = tuple(found.vectors.shape)
    theirs = ", ".join(f"{name} {space.shape}" for name, space in spaces.items())
    owner = next(iter(spaces.values())).owner
    if asked is not None:
        wanted = spaces[checks.known(asked, spaces, "latent space")]
        if asked not in fits:
            raise ValueError(f"{what} holds {shape}, which is no direction in {wanted}: one there is {wanted.shape}.")
        return wanted
    if found.space is not None and found.space in fits:
        return spaces[found.space]
    if not fits:
        raise ValueError(f"{what} holds {shape}, which fits no space of {owner}: {theirs}. Was it found on another generator?")
    most = max(len(space.shape) for space in fits.values())
    fits = {name: space for name, space in fits.items() if len(space.shape) == most}
    if layers is not None and "w" in fits:  # a restriction to layers has a meaning from w on only
        return fits["w"]
    if len(fits) > 1:
        last = list(fits)[-1]
        raise ValueError(f'{what} holds {shape}, which fits {" and ".join(fits)} of {owner}: say which, --space {last} or space="{last}".')
    return next(iter(fits.values()))


def _fits(shape: tuple[int, ...], space: tuple[int, ...]) -> bool:
    """Whether an array holds directions of a space: its last dimensions, and at most one more that counts them."""
    rest = shape[: len(shape) - len(space)]
    return shape[len(shape) - len(space) :] == space and sum(size > 1 for size in rest) <= 1 and math.prod(rest) > 0


def _floats(tensor: Tensor, what: str) -> Tensor:
    """An array as float32, finite."""
    if tensor.is_complex():  # eigenvectors of a symmetric matrix come complex out of a general solver
        if float(tensor.imag.abs().max()) > 1e-6 * float(tensor.real.abs().max()):
            raise ValueError(f"{what} has complex numbers: directions are real.")
        tensor = tensor.real
    if not tensor.is_floating_point():
        raise ValueError(f"{what} has {str(tensor.dtype).removeprefix('torch.')} numbers: directions are floats.")
    if tensor.numel() == 0:
        raise ValueError(f"{what} is {tuple(tensor.shape)}: there is no direction in it.")
    return checks.finite(tensor.float(), what)


def _deviations(tensor: Tensor | None, path: Path) -> Tensor | None:
    return None if tensor is None else _floats(tensor, f"{path}: standard deviations").flatten()


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: name a file of directions (.npy, .npz or .pt).")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size / 2**30:.1f} GB: directions are far smaller. Is it a checkpoint?")
    return path.read_bytes()


def _arrays(path: Path) -> Arrays:
    """The arrays in a file by name, that of a lone one empty; nothing in it is executed."""
    kind = files.sniff(path)
    readers = {
        "a NumPy array": _npy,
        "a zip / torch file": _zip,
        "a pickle": _torch,
        "a safetensors file": _safetensors,
    }
    if kind not in readers:
        raise ValueError(f"{path} is {kind}; directions are a .npy, .npz, .pt or safetensors file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch and numpy wonder at old files
            return readers[kind](path)
    except _Refused as refusal:
        raise ValueError(str(refusal)) from None
    except Exception as error:  # what a damaged archive may raise has no end
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason or "Python objects" in reason:
            reason = "it holds pickled objects, which are never loaded here"
        elif kind != "a NumPy array":
            reason = "it is damaged, or holds more than plain arrays; nothing in it was executed"
        raise ValueError(f"{path} cannot be read as arrays: {reason.rstrip('.')}.") from error


class _Refused(Exception):
    """A file that was read and is not what was asked for, said in one line."""


def _npy(path: Path) -> Arrays:
    return {"": _tensor(np.load(path, mmap_mode="r", allow_pickle=False))}  # mapped: a header cannot ask for more than the file has


def _zip(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > LARGEST:
        raise _Refused(f"{path} unpacks to over {LARGEST / 2**30:.0f} GB: directions are far smaller.")
    if not all(member.filename.endswith(".npy") for member in members):
        return _torch(path)
    with np.load(path, allow_pickle=False) as arrays:
        return {key: _tensor(arrays[key]) for key in arrays.files}


def _torch(path: Path) -> Arrays:
    with path.open("rb") as file, torch.serialization.safe_globals(_numpy_parts()):
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(loaded, Tensor):
        return {"": loaded}
    if not isinstance(loaded, Mapping):
        raise _Refused(f"{path} holds a {type(loaded).__name__}, expected a tensor or a dict of tensors.")
    arrays = {str(key): _tensor(value) if isinstance(value, np.ndarray) else value for key, value in loaded.items()}
    return {key: value for key, value in arrays.items() if isinstance(value, Tensor)}  # beside names of checkpoints and the like


def _numpy_parts() -> list[Any]:
    """What a NumPy array of numbers is pickled with; none of it runs code of the file."""
    from numpy._core.multiarray import _reconstruct

    dtypes = [type(np.dtype(kind)) for kind in ("float16", "float32", "float64")]
    where = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
    return [np.ndarray, np.dtype, codecs.encode, *dtypes, *((_reconstruct, name) for name in where)]


def _safetensors(path: Path) -> Arrays:
    from safetensors.torch import load_file

    arrays = load_file(path)
    if {"vectors"} <= arrays.keys() <= {"vectors", "normals"}:
        raise _Refused(f"{path} is a control already: use it as it is, steerable.load_control(path).")
    return arrays


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
