"""One self-contained page: sections of text, figures and tables become HTML with every picture inside.

What is said and shown is decided in ``demo``, ``walking`` and ``scenes``; how it looks, in ``templates/report.html.j2``. The page asks
nothing of any network: pictures are data URIs, fonts are the reader's own.
"""

from __future__ import annotations

import base64
import logging
import os
import platform
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from steerable import files

log = logging.getLogger(__name__)
PACKAGES = ("steerable", "torch", "numpy", "scikit-learn", "kornia")
TEMPLATES = Path(__file__).parent / "templates"
PROVENANCE = ("n", "seeds", "judge")  # the columns without which no number is printed


@dataclass(frozen=True)
class Text:
    """A paragraph; ``tone`` "result" sets off what a measurement said."""

    words: str
    tone: Literal["plain", "result"] = "plain"
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Figure:
    """A PNG with its caption. ``name`` is its file's, without the suffix."""

    name: str
    png: bytes
    caption: str
    kind: Literal["figure"] = "figure"

    @property
    def source(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """Pixels across, as the file's own header says."""
        return int.from_bytes(self.png[16:20], "big")


@dataclass(frozen=True)
class Table:
    """Numbers, each row with its n, seeds and judge.

    Raises:
        ValueError: a row of another length than the header, or a header without n, seeds and judge.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        missing = [name for name in PROVENANCE if name not in self.header]
        if missing:
            raise ValueError(f'a table says where its numbers come from: "{self.caption[:40]}" has no column {", ".join(missing)}.')
        if wrong := [row for row in self.rows if len(row) != len(self.header)]:
            raise ValueError(f"every row has the header's {len(self.header)} cells, got {len(wrong[0])}: {wrong[0]}.")


Block = Text | Figure | Table


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True, eq=False)
class Stages:
    """What a run has made so far: sections, their figures as files, and how long each stage took."""

    out: Path
    sections: list[Section] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        log.info("%s", name)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def add(self, title: str, blocks: Sequence[Block]) -> None:
        """A section; its figures are written at once, so that an interrupt loses no finished stage."""
        for block in blocks:
            if isinstance(block, Figure):
                files.write_bytes(self.out / "figures" / f"{block.name}.png", block.png)
        self.sections.append(Section(title, tuple(blocks)))

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def results(self) -> dict[str, Any]:
        """What the page says and shows as numbers, section by section: sentences with results, and tables."""
        return {
            section.title: {
                "said": [block.words for block in section.blocks if isinstance(block, Text) and block.tone == "result"],
                "tables": [
                    {"caption": block.caption, "header": block.header, "rows": block.rows}
                    for block in section.blocks
                    if isinstance(block, Table)
                ],
            }
            for section in self.sections
        }

    def foot(self, first: Sequence[tuple[str, str]], *, device: str) -> list[tuple[str, str]]:
        """What stands at the end of every page: what was looked at, versions, machine, seconds."""
        return [
            *first,
            ("Versions", ", ".join(f"{name} {number}" for name, number in versions().items())),
            ("Machine", f"{os.cpu_count()} cores, {threads()}, device {device}"),
            ("Seconds", "; ".join(f"{name} {spent:.1f}" for name, spent in self.seconds.items()) + f"; all {self.total:.0f}"),
        ]

    def options(self) -> dict[str, Any]:
        """Versions, machine and seconds, for ``options.json``."""
        import torch

        return {
            "versions": versions(),
            "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.machine()},
            "seconds": {name: round(spent, 1) for name, spent in self.seconds.items()},
        }


def versions() -> dict[str, str]:
    return {**{name: _version(name) for name in PACKAGES}, "python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def threads() -> str:
    """``2 threads``."""
    import torch

    return counted(torch.get_num_threads(), "thread")


def counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def html(title: str, opening: str, sections: Sequence[Section], foot: Sequence[tuple[str, str]]) -> str:
    """The page: the same arguments give the same text.

    Args:
        foot: (what, how it was) pairs for the end: generator, versions, seconds.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return places.get_template("report.html.j2").render(title=title, opening=opening, sections=sections, foot=foot)


def number(value: float, digits: int = 3) -> str:
    """``digits`` significant ones, never in exponents: 0.00065, 12.3, 1240; a true minus sign."""
    if value != value:
        return "–"
    size = abs(value)
    if size < 1e-9:
        return "0"
    power = len(str(int(size))) if size >= 1 else 0
    places = max(digits - power, 0)
    if size < 0.1:
        places = digits - 1 + next(i for i in range(1, 12) if size * 10**i >= 1)
    text = f"{value:.{places}f}"
    return text.replace("-", "−") if float(text) else text.replace("-", "")


def signed(value: float, digits: int = 2) -> str:
    text = number(value, digits)
    return text if text.startswith("−") or text in ("0", "–") or not float(text) else f"+{text}"
