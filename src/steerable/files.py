"""Files, as bytes: written whole or not at all, and named by what they hold rather than by their suffix.

What the bytes mean is the business of those above: pictures in ``render``, controls in ``store``, tables in ``sampling``.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"PK\x03\x04", "a zip / torch file"),
    (b"PK\x05\x06", "a zip / torch file"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\f\r")) + b"\x7f"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it gets the final name when the block ends well.

    An error, a full disk or an interrupt inside the block removes the temporary file and leaves whatever stood
    at ``path`` before. The temporary name is hidden and ends in ``.part``: a library that picks the format by
    the suffix has to be told the format. Missing parent folders are made.

    Raises:
        ValueError: ``path`` is a folder, a device or the like, so nothing may be put in its place.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}: name a file to write to.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.part"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt too
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """The bytes at ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: str | os.PathLike[str], content: str) -> Path:
    """The text at ``path`` as UTF-8 with plain newlines, whole or not at all."""
    return write_bytes(path, content.encode("utf-8"))


def sniff(path: str | os.PathLike[str]) -> str:
    """What a file is by its content, in words that fit an error: "got an HTML page".

    Reads the first 4 kB (and a safetensors header, to tell a truncated one). Nothing is executed or unpacked.
    """
    path = Path(path)
    if path.is_dir():
        return "a folder"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        if not head:
            return "an empty file"
        for magic, words in _MAGIC:
            if head.startswith(magic):
                return words
        if head[4:8] == b"ftyp":
            return "an MP4 film"
        if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # PROTO and its version
            return "a pickle"
        length = int.from_bytes(head[:8], "little")
        if len(head) > 8 and head[8:9] == b"{" and length < 100_000_000:
            file.seek(8)
            return _safetensors(file.read(length), length, size)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if (start.startswith(b"<") and b"<html" in start) or start.startswith(b"<!doctype html"):
        return "an HTML page"
    return "text" if _is_text(head, whole=size <= len(head)) else "unknown data"


def _safetensors(header: bytes, length: int, size: int) -> str:
    if len(header) < length:
        return "a truncated safetensors file"
    try:
        entries = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "a damaged safetensors file"
    return "a safetensors file" if 8 + length + end == size else "a truncated safetensors file"


def _is_text(head: bytes, *, whole: bool) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if whole or error.start < len(head) - 3:  # a character cut by the end of what was read is no objection
            return False
    return head.translate(None, _CONTROL) == head
