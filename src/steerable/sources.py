"""Labelled data sets as one tensor of bytes: what a generator is trained on.

``read_source`` takes idx files (MNIST and its relatives), folders of pictures, data sets in the Hugging Face layout, and arrays; all
come out as an ``ImageSource`` of one size. ``data`` reads single pictures and tables; ``training`` draws its batches from here.

Nothing is drawn from a stream that has to be remembered: the order of epoch e is a function of (seed, e), so that a training
that was interrupted goes on with the very batch that it would have had.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from steerable import checks, data, files
from steerable.progress import track
from steerable.protocols import Images, Labels

IDX_BYTES = 8  # the idx code of unsigned bytes; images and labels of MNIST are nothing else
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img", "images"), ("label", "labels", "fine_label", "class")
HUB = "hf:"
KINDS = "a folder with idx files, pictures or a Hugging Face data set, an idx, .npz or .npy file, or hf:OWNER/NAME"


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Pictures of one size and their classes.

    Attributes:
        images: bytes, (n, c, h, w).
        labels: (n,), 0 to len(classes) - 1; zeros where there are no classes.
        classes: their names; empty for pictures without labels.
        name: of the data, for messages and records.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Labels
    classes: tuple[str, ...] = ()
    name: str = "images"

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> tuple[Images, Labels]:
        """Some of the pictures in [-1, 1], and their labels."""
        return self.images[rows].float().mul_(2 / 255).sub_(1), self.labels[rows]

    def background(self) -> tuple[float, ...]:
        """The colour that most of the outermost pixels have, (c,) in [-1, 1]: their median over the first 10,000 pictures."""
        some = self.images[:10_000]
        border = torch.cat([some[..., 0, :], some[..., -1, :], some[..., :, 0], some[..., :, -1]], dim=2)
        return tuple((border.movedim(1, 0).flatten(1).median(1).values.float() * 2 / 255 - 1).tolist())

    def digest(self) -> str:
        """SHA-256 of all pictures and labels, so that a training goes on with no other data than it began with."""
        found = hashlib.sha256(str(tuple(self.images.shape)).encode())
        found.update(self.images.numpy().tobytes())
        found.update(self.labels.numpy().tobytes())
        return found.hexdigest()


def rows_at(n: int, start: int, count: int, *, seed: int) -> Tensor:
    """Rows number ``start`` to ``start + count - 1`` of the endless run of shuffled epochs over n pictures."""
    found: list[Tensor] = []
    while count > 0:
        epoch, place = divmod(start, n)
        part = _order(n, epoch, seed)[place : place + count]
        found.append(part)
        start, count = start + len(part), count - len(part)
    return torch.cat(found)


_last: dict[tuple[int, int, int], Tensor] = {}


def _order(n: int, epoch: int, seed: int) -> Tensor:
    """The order of one epoch; the last one asked for is kept."""
    key = (n, epoch, seed)
    if key not in _last:
        _last.clear()
        stream = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        _last[key] = torch.randperm(n, generator=torch.Generator().manual_seed(stream))
    return _last[key]


def read_source(source: Any, *, size: int = 32, channels: int | None = None, split: str = "train") -> ImageSource:
    """A data set, its pictures cropped to squares around their middle and resized.

    Args:
        source: a path (a folder with idx files, with pictures whose sub-folders are classes, or with the Parquet or Arrow files of a
            Hugging Face data set; an idx, .npz or .npy file; plain or gzipped), ``"hf:owner/name"`` (needs the package ``datasets``), a
            data set of that package, or arrays ``(images, labels)``: bytes, or floats in [-1, 1]; (n, h, w), (n, h, w, c) or (n, c, h, w).
        size: side of the pictures in pixels.
        channels: 1 or 3; by default 1 where the data are grey and 3 otherwise.
        split: which part of idx files and Hugging Face data sets.

    Raises:
        ValueError: nothing there, an unreadable or empty source, images and labels of different length.
    """
    if size < 4 or channels not in (None, 1, 3):
        raise ValueError(f"pictures are read as squares of 4 pixels or more with 1 or 3 channels, got size {size}, {channels} channels.")
    if isinstance(source, ImageSource):
        return source
    if isinstance(source, str) and source.startswith(HUB):
        return _from_rows(_hub(source.removeprefix(HUB), split), size, channels, source)
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source), size, channels, split)
    if hasattr(source, "column_names"):
        return _from_rows(source, size, channels, "data set")
    images, labels = source if isinstance(source, tuple | list) and len(source) == 2 else (source, None)
    return _from_arrays(images, labels, size, channels, "arrays")


def _from_path(path: Path, size: int, channels: int | None, split: str) -> ImageSource:
    if not path.exists():
        raise ValueError(f"{path} is not there: --data is {KINDS}.")
    if path.is_dir():
        images = sorted(p for p in path.iterdir() if "idx3-ubyte" in p.name.replace(".idx", "-idx"))
        if images:
            return _from_idx(_of_split(images, split), size, channels)
        tables = sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".arrow") and p.is_file())
        if tables:
            named = [p for p in tables if split in str(p.relative_to(path))]
            return _from_rows(_Table(named or tables), size, channels, str(path))
        return _from_pictures(path, size, channels)
    kind = files.sniff(path)
    if path.suffix == ".npz" or kind == "a NumPy array":
        return _from_numpy(path, size, channels)
    if kind == "a Parquet file":
        return _from_rows(_Table([path]), size, channels, str(path))
    if kind in ("a gzip file", "unknown data", "text") or "idx" in path.name:
        return _from_idx(path, size, channels)
    raise ValueError(f"{path} is {kind}: --data is {KINDS}.")


# ------------------------------------------------------------------ idx


def _of_split(paths: Sequence[Path], split: str) -> Path:
    if len(paths) == 1:
        return paths[0]
    found = [path for path in paths if path.name.startswith(split)]
    if not found:
        raise ValueError(f'no images of the split "{split}" in {paths[0].parent}: there are {", ".join(p.name for p in paths)}.')
    return found[0]


def _from_idx(path: Path, size: int, channels: int | None) -> ImageSource:
    images = read_idx(path, dimensions=3)
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    there = [p for p in (beside, beside.with_suffix(""), Path(f"{beside}.gz")) if p != path and p.is_file()]
    return _from_arrays(images, read_idx(there[0], dimensions=1) if there else None, size, channels, str(path))


def read_idx(path: str | os.PathLike[str], *, dimensions: int) -> np.ndarray:
    """The bytes in an idx file, gzipped or not: (n, h, w) images for 3 dimensions, (n,) labels for 1.

    Raises:
        ValueError: another magic number, or fewer or more bytes than it announces.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again.") from None
    expected = bytes([0, 0, IDX_BYTES, dimensions])
    if content[:4] != expected:
        what = "images" if dimensions == 3 else "labels"
        raise ValueError(f"{path} is no idx file of {what}: it begins with {content[:4].hex() or 'nothing'}, expected {expected.hex()}.")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError(f"{path} ends inside its header: fetch it again.")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} announces {' x '.join(map(str, shape))} bytes and holds {len(content) - start}: fetch it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# ------------------------------------------------------------------ pictures, tables, arrays


def _from_pictures(folder: Path, size: int, channels: int | None) -> ImageSource:
    paths = data.image_files(folder)
    inside = [path.relative_to(folder).parts for path in paths]
    classes = tuple(sorted({parts[0] for parts in inside if len(parts) > 1}))
    loose = [path for path, parts in zip(paths, inside, strict=True) if len(parts) == 1]
    if classes and loose:
        raise ValueError(
            f"{loose[0]} and {len(loose) - 1} other pictures lie beside the class folders {', '.join(classes[:3])}: move them into one."
        )
    images = data.read_images(paths, size, channels=channels or 3)
    labels = [classes.index(parts[0]) if classes else 0 for parts in inside]
    return ImageSource(_bytes_of(images), torch.tensor(labels), classes, str(folder))


def _from_numpy(path: Path, size: int, channels: int | None) -> ImageSource:
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, Mapping) else {"images": loaded}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as NumPy arrays ({str(error).splitlines()[0].rstrip('.')}); pickled objects are never read."
        ) from None
    if "images" not in arrays:
        raise ValueError(f'{path} holds {", ".join(arrays) or "nothing"}: expected "images" and, for classes, "labels".')
    return _from_arrays(arrays["images"], arrays.get("labels"), size, channels, str(path))


def _from_arrays(images: Any, labels: Any, size: int, channels: int | None, name: str) -> ImageSource:
    pixels = torch.as_tensor(np.array(images))
    if pixels.ndim not in (3, 4) or not len(pixels):
        what = "no pictures" if not pixels.numel() else "no batch of pictures"
        raise ValueError(f"{name} holds {what}: got {tuple(pixels.shape)}, expected (n, h, w), (n, h, w, c) or (n, c, h, w).")
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.movedim(3, 1) if pixels.shape[3] in (1, 3) else pixels
    if pixels.shape[1] not in (1, 3):
        raise ValueError(f"{name} has pictures of {tuple(pixels.shape[1:])}: 1 or 3 channels were expected.")
    if pixels.is_floating_point():
        checks.finite(pixels, f"the pictures of {name}")
        low, high = float(pixels.min()), float(pixels.max())
        if low < -1 or high > 1 or low >= 0:
            raise ValueError(f"{name} has numbers from {low:.3g} to {high:.3g}: pictures are bytes, or floats in [-1, 1].")
        pixels = _bytes_of(pixels.float())
    if pixels.dtype != torch.uint8:
        raise ValueError(f"{name} has pictures of {pixels.dtype}: bytes (uint8), or floats in [-1, 1], were expected.")
    return ImageSource(_resized(pixels, size, channels or pixels.shape[1]), *_labelled(labels, len(pixels), name), name)


def _labelled(labels: Any, n: int, name: str, names: Sequence[str] = ()) -> tuple[Labels, tuple[str, ...]]:
    """Labels as 0 to classes - 1, and the classes' names: those given, or the numbers up to the largest."""
    if labels is None:
        return torch.zeros(n, dtype=torch.long), ()
    given = np.asarray(labels)
    if given.shape != (n,):
        raise ValueError(f"{name} has {n} images and labels of {given.shape}: one label an image is needed.")
    if given.dtype.kind not in "iu":
        found = sorted({str(one) for one in given.tolist()})
        return torch.tensor([found.index(str(one)) for one in given.tolist()]), tuple(found)
    if int(given.min()) < 0:
        raise ValueError(f"{name} has the label {int(given.min())}: labels are 0 and above.")
    return torch.as_tensor(given.astype(np.int64)), tuple(names) or tuple(str(i) for i in range(int(given.max()) + 1))


def _bytes_of(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5 + 0.5).floor().clamp(0, 255).to(torch.uint8)


def _resized(pixels: Tensor, size: int, channels: int) -> Tensor:
    from PIL import Image, ImageOps

    if tuple(pixels.shape[1:]) == (channels, size, size):
        return pixels.contiguous()
    resized = torch.empty(len(pixels), channels, size, size, dtype=torch.uint8)
    mode = "RGB" if channels == 3 else "L"
    for row, one in enumerate(track(pixels.movedim(1, 3).contiguous().numpy(), "resize pictures")):
        picture = Image.fromarray(one[..., 0] if one.shape[2] == 1 else one).convert(mode)
        picture = picture if picture.size == (size, size) else ImageOps.fit(picture, (size, size), method=Image.Resampling.LANCZOS)
        resized[row] = torch.from_numpy(np.array(picture).reshape(size, size, channels)).movedim(2, 0)
    return resized


# ------------------------------------------------------------------ Hugging Face


class _Table:
    """The rows of Parquet or Arrow files, as the data sets of Hugging Face have them: pictures are ``{"bytes": ..., "path": ...}``."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.tables = [self._read(path) for path in paths]
        self.column_names = self.tables[0].column_names

    @staticmethod
    def _read(path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if path.suffix == ".parquet" or files.sniff(path) == "a Parquet file":
                return pq.read_table(path)
            with pa.memory_map(str(path)) as file:
                return pa.ipc.open_stream(file).read_all()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} cannot be read as a table of pictures: {str(error).splitlines()[0]}") from None

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for table in self.tables:
            for batch in table.to_batches(max_chunksize=256):
                yield from batch.to_pylist()

    @property
    def class_names(self) -> tuple[str, ...]:
        """From the record of features that Hugging Face keeps in the schema."""
        import json

        try:
            features = json.loads((self.tables[0].schema.metadata or {})[b"huggingface"])["info"]["features"]
            return tuple(next(f["names"] for name, f in features.items() if name in LABEL_COLUMNS and "names" in f))
        except (KeyError, ValueError, TypeError, StopIteration):
            return ()


def _hub(name: str, split: str) -> Any:
    try:
        from datasets import load_dataset  # type: ignore[import-not-found]
    except ImportError:
        raise ValueError(
            f"hf:{name} needs a package that is not installed: pip install datasets. Or download its Parquet files and name their folder."
        ) from None
    try:
        return load_dataset(name, split=split)
    except Exception as error:  # the package raises many kinds
        raise ValueError(f"the data set {name} cannot be loaded: {str(error).splitlines()[0]}") from None


def _from_rows(rows: Any, size: int, channels: int | None, name: str) -> ImageSource:
    """A data set whose rows are mappings: its first column of a known name is taken."""
    columns = list(rows.column_names)
    picture = next((column for column in IMAGE_COLUMNS if column in columns), None)
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    if picture is None:
        raise ValueError(f"{name} has the columns {', '.join(columns)}: one of {', '.join(IMAGE_COLUMNS)} was expected.")
    if not len(rows):
        raise ValueError(f"{name} holds no pictures.")
    images, labels, depth = [], [], channels
    for number, row in enumerate(_tracked(rows)):
        one, depth = _opened(row[picture], size, depth, f"row {number} of {name}")
        images.append(one)
        labels.append(row[label] if label else None)
    if label and any(one is None for one in labels):
        raise ValueError(
            f"{sum(one is None for one in labels)} of {len(labels)} rows of {name} have no {label}: images and labels differ in length."
        )
    names = getattr(rows, "class_names", ()) or tuple(getattr(getattr(rows, "features", {}).get(label), "names", None) or ())
    return ImageSource(torch.stack(images), *_labelled(labels if label else None, len(images), name, names), name)


def _tracked(rows: Iterable[Any]) -> Iterator[Any]:
    return track(rows, "read pictures", total=len(rows))  # type: ignore[arg-type]


def _opened(cell: Any, size: int, channels: int | None, what: str) -> tuple[Tensor, int]:
    """One picture of a row, and the channels that all have: 1 if the first is grey."""
    from PIL import Image, ImageOps

    try:
        opened = Image.open(io.BytesIO(cell["bytes"])) if isinstance(cell, Mapping) else cell
        opened = opened if isinstance(opened, Image.Image) else Image.fromarray(np.asarray(opened, np.uint8))
        channels = channels or (1 if opened.mode in ("1", "L", "I", "I;16", "F") else 3)
        picture = opened.convert("RGB" if channels == 3 else "L")
        if picture.size != (size, size):
            picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(picture).reshape(size, size, channels)).movedim(2, 0), channels
    except Exception as error:  # Pillow raises many kinds for damaged pictures
        raise ValueError(f"{what} cannot be opened as a picture ({type(error).__name__}).") from None
