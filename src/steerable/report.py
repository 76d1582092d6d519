"""One self-contained page: sections of text, figures and tables become HTML with every picture inside.

What is said and shown is decided in ``demo`` and ``scenes``; how it looks, in ``templates/report.html.j2``. The page asks nothing of any
network: pictures are data URIs, fonts are the reader's own.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
