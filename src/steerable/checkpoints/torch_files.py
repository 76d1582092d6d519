"""Files of torch: the zip archive of today and the row of pickles of before, and the tensors that ``records`` describe.

Read as ``torch.load(..., weights_only=True)`` reads them (a test compares the two), but by our own machine: an object that is neither
tensor nor container does not end the reading, it stays inert; and no size is believed that the file does not have the bytes for.

Source: ``torch/serialization.py`` of PyTorch 2.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.checkpoints.machine import Machine
from steerable.checkpoints.records import Array, Blob, Global, Made, Packed, Storage, Stored, blob, numpy_type

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclass
class Budget:
    """What tensors may take together: a file cannot mean more numbers than it has bytes, but for some shared ones."""

    left: int
    storages: dict[int, Tensor] = field(default_factory=dict)

    def take(self, numel: int, dtype: torch.dtype) -> None:
        self.left -= numel * dtype.itemsize
        if self.left < 0:
            raise ValueError("its tensors are said to be far larger than the file")


@dataclass(frozen=True)
class Archive:
    """A zip archive, mapped rather than read.

    Attributes:
        members: what its directory says of each.
        folder: inside it, that everything of torch's lies in, with a slash.
    """

    view: memoryview
    members: Mapping[str, zipfile.ZipInfo]
    folder: str

    def read(self, name: str, size: int | None = None) -> memoryview:
        """The content of a member, as a view: torch compresses none, so none takes memory that the file does not.

        Raises:
            ValueError: it is missing, compressed, encrypted, of another size, or damaged.
        """
        info = self.members.get(name)
        if info is None:
            raise ValueError(f"its member {name[-40:]!r} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError(f"its member {name[-40:]!r} is compressed or encrypted, which torch never writes")
        if size is not None and info.file_size != size:
            raise ValueError(f"a storage of it is said to have {size} bytes and has {info.file_size}")
        header = self.view[max(info.header_offset, 0) :][:30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"its member {name[-40:]!r} is damaged, or the file stops early")
        start = info.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))
        content = self.view[start : start + info.file_size]
        if len(content) < info.file_size or zlib.crc32(content) != info.CRC:
            raise ValueError(f"its member {name[-40:]!r} is damaged, or the file stops early")
        return content


def archive(path: Path) -> Archive:
    """The archive in a file.

    Raises:
        ValueError: damaged.
    """
    try:
        with zipfile.ZipFile(path) as directory:
            members = {info.filename: info for info in directory.infolist()}
    except Exception as error:  # what a damaged directory raises has no end
        raise ValueError("it is a damaged zip archive, or the file stops early") from error
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    return Archive(memoryview(mapped(path)), members, min(pickles, key=len).removesuffix("data.pkl") if pickles else "")


def read_zip(members: Archive) -> tuple[Any, list[str]]:
    """The object in an archive of torch, tensors as records, and the names in its pickle."""
    folder = members.folder
    if f"{folder}byteorder" in members.members and bytes(members.read(f"{folder}byteorder")) != b"little":
        raise ValueError("its numbers are stored with the big end first")
    storages: dict[tuple[str, torch.dtype, int], Storage] = {}

    def persistent(given: Any) -> Storage | Made:
        key, kind, numel = _storage_id(given)
        if kind.dtype is None:
            return Made(kind)
        fresh = Storage(kind.dtype, numel, lambda size: members.read(f"{folder}data/{key}", size))
        return storages.setdefault((key, kind.dtype, numel), fresh)

    machine = Machine(bytes(members.read(f"{folder}data.pkl")), persistent=persistent)
    return machine.run(), list(machine.seen)


def is_legacy(content: Any) -> bool:
    """Whether a pickle begins a torch file from before archives: its magic number comes first."""
    return content[:1] == b"\x80" and b"\x8a\x0a" + MAGIC.to_bytes(10, "little") in bytes(content[:40])


def read_legacy(content: Any) -> tuple[Any, list[str]]:
    """The object in a row of pickles: magic number, protocol, system, object, keys of the storages; then their numbers."""
    places: dict[str, tuple[int, int]] = {}  # key -> first byte, elements
    storages: dict[tuple[str, torch.dtype, int], Storage] = {}

    def persistent(given: Any) -> Storage | Made | Global:
        if isinstance(given, tuple) and len(given) > 1 and given[0] == "module" and isinstance(given[1], Global):
            return given[1]  # a class, beside its source
        key, kind, numel = _storage_id(given)
        if len(given) > 5 and given[5] is not None:
            raise ValueError("it holds views of storages, as torch before 0.4 wrote them")
        dtype = kind.dtype
        if dtype is None:
            return Made(kind)
        sizes[key] = dtype.itemsize
        fresh = Storage(dtype, numel, lambda size: _legacy(view, places.get(key), size, dtype.itemsize))
        return storages.setdefault((key, dtype, numel), fresh)

    view, position, values, seen = memoryview(content), 0, [], {}
    sizes: dict[str, int] = {}
    for _ in range(5):
        machine = Machine(content, position, persistent=persistent)
        values.append(machine.run())
        position = machine.position
        seen.update(machine.seen)
    magic, protocol, system, value, keys = values
    if magic != MAGIC or protocol != PROTOCOL:
        raise ValueError("it is no torch file of a known version")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are stored with the big end first")
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in sizes or position + 8 > len(view):
            raise ValueError("it ends before its tensors do")
        (numel,) = struct.unpack_from("<q", view, position)
        places[key] = (position + 8, numel)
        position += 8 + numel * sizes[key]
        if numel < 0:
            raise ValueError("a storage of it has no plain size")
    return value, list(seen)


def _legacy(view: memoryview, place: tuple[int, int] | None, size: int, itemsize: int) -> Blob:
    if place is None or place[1] * itemsize < size or place[0] + size > len(view):
        raise ValueError("it ends before its tensors do")
    return view[place[0] : place[0] + size]


def _storage_id(given: Any) -> tuple[str, Global, int]:
    """Key, type and elements of what torch calls a persistent id."""
    if not isinstance(given, tuple) or len(given) < 5 or given[0] != "storage":
        raise ValueError("it refers to objects outside of its pickle")
    _, kind, key, _, numel = given[:5]
    if not isinstance(kind, Global) or not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**48:
        raise ValueError("a storage of it has no plain size")
    return key, kind, numel


def mapped(path: Path) -> mmap.mmap:
    """A file's content, without reading what nobody looks at."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def tensor_of(record: Stored | Array, budget: Budget) -> Tensor:
    """The tensor itself.

    Raises:
        ValueError: its storage is shorter than its shape, damaged, or of numbers that are none.
    """
    if isinstance(record, Array):
        return _of_array(record, budget)
    storage = _unpacked(record.storage)
    dtype = record.dtype or storage.dtype
    available = storage.numel * storage.dtype.itemsize // dtype.itemsize
    numel = math.prod(record.size)
    reach = record.offset + 1 + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True)) if numel else 0
    if reach > available:
        raise ValueError(f"a tensor of {numel} numbers is said to lie in a storage of {available}")
    budget.take(numel, dtype)
    if not numel:
        return torch.zeros(record.size, dtype=dtype) if max(record.size) < 2**31 else torch.zeros(0, dtype=dtype)
    if id(record.storage) not in budget.storages:
        size = storage.numel * storage.dtype.itemsize
        budget.take(size, torch.uint8)
        content = storage.read(size)
        if len(content) < size:
            raise ValueError("it ends before its tensors do")
        budget.storages[id(record.storage)] = torch.frombuffer(bytearray(content[:size]), dtype=torch.uint8)
    row = budget.storages[id(record.storage)]
    row = row[: available * dtype.itemsize]
    row = row.view(dtype) if dtype != torch.bool else row.bool()
    return row.as_strided(record.size, record.stride, record.offset).clone(memory_format=torch.contiguous_format)


def _unpacked(storage: Storage | Packed) -> Storage:
    """The storage in a torch file inside a pickle; torch writes these in the form of before archives."""
    if isinstance(storage, Storage):
        return storage
    content = bytes(blob(storage.content))
    if not is_legacy(content):
        raise ValueError("a storage of it is packed in an unknown way")
    inside, _ = read_legacy(content)
    if not isinstance(inside, Storage):
        what = f"a call of {inside.path}" if isinstance(inside, Made) else "something else"
        raise ValueError(f"where a storage should be packed, it has {what}; nothing was executed")
    return inside


def _of_array(record: Array, budget: Budget) -> Tensor:
    import numpy as np

    if record.dtype is None:
        raise ValueError("an array in it has no type")
    dtype, numel = numpy_type(record.dtype), math.prod(record.shape)
    size = numel * dtype.itemsize
    if not isinstance(record.content, str | bytes | bytearray | memoryview) or len(record.content) != size:
        raise ValueError(f"an array of {numel} numbers does not have the bytes for them")
    budget.take(size, torch.uint8)
    array = np.frombuffer(blob(record.content), dtype=dtype).astype(dtype.newbyteorder("="))
    return torch.from_numpy(array.reshape(record.shape, order="F" if record.fortran else "C").copy())
