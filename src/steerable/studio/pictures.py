"""Pixels on their way to a browser: data addresses, thumbnails, sheets and small plots. Pure functions.

Small pictures travel as PNG, exactly; large ones as JPEG while a person drags, and as PNG when the hand is off the slider.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np

from steerable.studio.session import Pixels

EXACT = 128 * 128  # pixels up to which PNG costs less than a frame


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


def box_svg(box: tuple[int, int, int, int] | None) -> str:
    """The held box as an overlay in pixels of the image."""
    if box is None:
        return ""
    top, left, bottom, right = box
    place = f'x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"'
    return (
        f'<rect {place} fill="none" stroke="#ffffff" stroke-width="1.2" stroke-opacity="0.9"/>'
        f'<rect {place} fill="none" stroke="#1d4ed8" stroke-width="0.6" stroke-dasharray="2 1.2"/>'
    )


def ledger_svg(rows: Sequence[tuple[float, float]], *, words: tuple[str, str] = ("moved", "held")) -> str:
    """A path so far: what moved and what was held, step by step, as two lines with their last values written beside them."""
    width, height, left, top = 300, 96, 8, 18
    if len(rows) < 2:
        return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="no steps yet"></svg>'
    most = max(max(row) for row in rows) or 1.0
    across, down = width - left - 74, height - top - 16

    def line(column: int) -> str:
        points = (f"{left + across * i / (len(rows) - 1):.1f},{top + down * (1 - row[column] / most):.1f}" for i, row in enumerate(rows))
        return " ".join(points)

    ends = [top + down * (1 - rows[-1][column] / most) for column in (0, 1)]
    if abs(ends[0] - ends[1]) < 12:
        ends = [min(ends) - 2, min(ends) + 11] if ends[0] <= ends[1] else [min(ends) + 11, min(ends) - 2]
    parts = [
        f'<text x="{left}" y="11" class="ledger-title">root-mean-square change of pixels, n = {len(rows) - 1} steps</text>',
        f'<line x1="{left}" y1="{top + down}" x2="{left + across}" y2="{top + down}" class="ledger-axis"/>',
        f'<text x="{left}" y="{height - 3}" class="ledger-title">start</text>',
        f'<text x="{left + across}" y="{height - 3}" text-anchor="end" class="ledger-title">now</text>',
    ]
    for column, name in enumerate(("ledger-moved", "ledger-held")):
        label = f"{words[column]} {rows[-1][column]:.3f}"
        parts.append(f'<polyline points="{line(column)}" class="{name}"/>')
        parts.append(f'<text x="{left + across + 5}" y="{ends[column] + 4:.1f}" class="{name}-text">{label}</text>')
    told = f"{words[0]} {rows[-1][0]:.3f}, {words[1]} {rows[-1][1]:.3f} after {len(rows) - 1} steps"
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
