"""Data from files: pictures as images in [-1, 1], and the columns of a CSV or Parquet table.

``fitting.labels`` reads label tables and labelled pictures through this module; ``sources`` reads whole labelled data sets.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerable.files import sniff
from steerable.progress import track
from steerable.protocols import Images

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

PathLike = str | os.PathLike[str]


def image_files(folder: PathLike) -> list[Path]:
    """The pictures in a folder and its sub-folders, sorted by path.

    Raises:
        ValueError: it is no folder, or no picture is in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is {sniff(folder) if folder.exists() else 'not there'}: name a folder of pictures.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise ValueError(f"no pictures in {folder}: looked for {', '.join(PICTURES)} there and in its sub-folders.")
    return found


def read_images(paths: Sequence[PathLike], size: tuple[int, int] | int, *, channels: int = 3) -> Images:
    """Pictures as float32 (n, channels, h, w) in [-1, 1].

    Args:
        size: (height, width), or one number for both. A picture of another shape is cropped to it around its middle, then resized.
        channels: 3, or 1 for grey. Transparent pixels show black.

    Raises:
        ValueError: files are missing or no pictures; the error names the first and counts all.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if channels not in (1, 3) or min(height, width) < 1:
        raise ValueError(f"pictures are read as 1 or 3 channels of at least 1 x 1 pixels, got {channels} of {height} x {width}.")
    files = [Path(path) for path in paths]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise ValueError(f"{missing[0]} is not there; {len(missing)} of {len(files)} pictures are missing.")
    images = torch.empty(len(files), channels, height, width)
    broken: list[tuple[Path, str]] = []
    for row, path in enumerate(track(files, "read pictures")):
        try:
            images[row] = torch.from_numpy(_pixels(path, height, width, "RGB" if channels == 3 else "L"))
        except Exception as error:  # Pillow raises many kinds for damaged files
            broken.append((path, f"{sniff(path)} ({type(error).__name__})"))
    if broken:
        path, what = broken[0]
        raise ValueError(f"{path} cannot be opened as a picture, it is {what}; {len(broken)} of {len(files)} cannot.")
    return images


def _pixels(path: Path, height: int, width: int, mode: str) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        if upright.mode in ("RGBA", "LA", "PA", "P"):
            seen = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
        picture = upright.convert(mode)
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS)
    values = np.asarray(picture, np.float32).reshape(height, width, -1)
    return values.transpose(2, 0, 1) / 127.5 - 1


def read_columns(path: PathLike, needed: Sequence[str]) -> Mapping[str, list[Any]]:
    """The needed columns of a table, CSV or Parquet by its content; CSV cells are text without the spaces around it.

    Raises:
        ValueError: the file is missing, no table, empty, has uneven rows, or lacks a column (the error lists those present).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: name a CSV or Parquet file.")
    kind = sniff(path)
    if kind == "a Parquet file":
        columns = _parquet(path)
    elif kind == "text":
        columns = _csv(path)
    else:
        raise ValueError(f"{path} is {kind}; a CSV (UTF-8) or Parquet file with the columns {', '.join(needed)} was expected.")
    lacking = [name for name in needed if name not in columns]
    if lacking:
        raise ValueError(f"{path} has no column {', '.join(lacking)}; it has {', '.join(columns) or 'none'}. Expected {', '.join(needed)}.")
    if not columns[needed[0]]:
        raise ValueError(f"{path} has a header and no rows.")
    return {name: columns[name] for name in needed}


def _parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _csv(path: Path) -> dict[str, list[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read as CSV: {error}.") from None
    if not rows:
        raise ValueError(f"{path} is empty.")
    header = [cell.strip() for cell in rows[0]]
    uneven = next((i for i, row in enumerate(rows[1:], 2) if len(row) != len(header)), None)
    if uneven is not None:
        raise ValueError(f"row {uneven} of {path} has {len(rows[uneven - 1])} cells, the header has {len(header)}.")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}
