"""Pixels on their way to a browser: data addresses, thumbnails, sheets and small plots. Pure functions.

Small pictures travel as PNG, exactly; large ones as JPEG while a person drags, and as PNG when the hand is off the slider.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steerable.protocols import Latents
from steerable.studio.session import Corners, Pixels, State

EXACT = 128 * 128  # pixels up to which PNG costs less than a frame


@dataclass(frozen=True, eq=False)
class Frame:
    """A state, where it led, and what it looks like: pixels, and an address that an <img> shows.

    Attributes:
        ledger: of the trajectory that was turned, as (moved, held) in population deviations, and what may drift; None where none was.
    """

    state: State
    point: Latents
    image: Pixels
    url: str
    ledger: tuple[list[tuple[float, float]], float] | None = None

    @property
    def thumbnail(self) -> str:
        return thumbnail(self.image)


def frame(state: State, point: Latents, image: Pixels) -> Frame:
    return Frame(state, point, image, data_url(image, exact=False))


def data_url(image: Pixels, *, exact: bool = True) -> str:
    """The picture as an address that an <img> shows."""
    from PIL import Image

    buffer, picture = io.BytesIO(), Image.fromarray(image)
    if exact or image.shape[0] * image.shape[1] <= EXACT:
        picture.save(buffer, format="PNG", compress_level=1)
        kind = "png"
    else:
        picture.save(buffer, format="JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail(image: Pixels, *, side: int = 64) -> str:
    """At most ``side`` pixels across, as a JPEG."""
    from PIL import Image

    buffer, picture = io.BytesIO(), Image.fromarray(image)
    if max(picture.size) > side:
        picture = picture.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    picture.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def box_svg(boxes: Sequence[Corners]) -> str:
    """The held boxes as an overlay in pixels of the image: a light line under a dashed dark one shows on any picture."""
    parts = []
    for top, left, bottom, right in boxes:
        place = f'x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="none" vector-effect="non-scaling-stroke"'
        parts.append(f'<rect {place} stroke="#fff" stroke-width="4" stroke-opacity=".85"/>')
        parts.append(f'<rect {place} stroke="#1d4ed8" stroke-width="2" stroke-dasharray="7 4"/>')
    return "".join(parts)


def ledger_svg(rows: Sequence[tuple[float, float]], tolerance: float) -> str:
    """A drive so far: what moved and the largest drift of what is held, step by step, with the last values written beside the lines.

    Args:
        rows: (moved, held) in population deviations, the start first.
        tolerance: drift that is allowed; a thin line.
    """
    width, height, left, top = 320, 110, 8, 20
    most = max([2 * tolerance, *(max(row) for row in rows)])
    across, down = width - left - 84, height - top - 16

    def at(value: float) -> float:
        return top + down * (1 - value / most)

    def line(column: int) -> str:
        return " ".join(f"{left + across * i / max(len(rows) - 1, 1):.1f},{at(row[column]):.1f}" for i, row in enumerate(rows))

    last = rows[-1] if rows else (0.0, 0.0)
    ends = [at(value) for value in last]
    if abs(ends[0] - ends[1]) < 12:
        ends = [min(ends) - 10, max(ends) + 2] if last[0] >= last[1] else [max(ends) + 2, min(ends) - 10]
    broken = last[1] > tolerance * 1.001
    parts = [
        f'<text x="{left}" y="11" class="ledger-title">change since the start, in population deviations</text>',
        f'<line x1="{left}" y1="{top + down}" x2="{left + across}" y2="{top + down}" class="ledger-axis"/>',
        f'<line x1="{left}" y1="{at(tolerance):.1f}" x2="{left + across}" y2="{at(tolerance):.1f}" class="ledger-limit"/>',
        f'<text x="{left}" y="{height - 3}" class="ledger-title">start</text>',
        f'<text x="{left + across}" y="{height - 3}" text-anchor="end" class="ledger-title">step {max(len(rows) - 1, 0)}</text>',
    ]
    for column, (name, word) in enumerate((("moved", "moved"), ("broken" if broken else "held", "held"))):
        parts.append(f'<polyline points="{line(column)}" class="ledger-line ledger-{name}"/>')
        label = f"{word} {number(last[column], 2)}"
        parts.append(f'<text x="{left + across + 6}" y="{ends[column] + 4:.1f}" class="ledger-word ledger-{name}">{label}</text>')
    told = f"moved {number(last[0], 2)}, held {number(last[1], 2)} of {number(tolerance, 2)} allowed, after {max(len(rows) - 1, 0)} steps"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{told}">{"".join(parts)}</svg>'


def number(value: float, digits: int = 3) -> str:
    """``digits`` significant ones, a true minus sign, no exponent for everyday sizes."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
    if "e" in text:
        text = f"{value:.4f}"
    return text.replace("-", "−") if float(text) else "0"


def csv_text(seeds: Sequence[int], before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> str:
    """One row a seed: every column before and after."""
    columns = list(before[0]) if before else []
    lines = [",".join(["seed", *(f"{name}-{when}" for name in columns for when in ("before", "after"))])]
    for seed, one, two in zip(seeds, before, after, strict=True):
        lines.append(",".join([str(seed), *(repr(values[name]) for name in columns for values in (one, two))]))
    return "\n".join(lines) + "\n"
