"""Pictures of images and plots of numbers: grids, labelled strips, heat maps, curves, and PNGs that carry their recipe.

Everything drawn is a pure function of its arguments: fonts come with matplotlib, plots are made without pyplot and its
global state, and PNGs hold no date and no version, so the same input gives the same bytes. What to draw is decided in
``demo`` and ``cli``; what was measured in ``evaluation``.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Num, UInt8
from torch import Tensor

from steerable import checks, files
from steerable.protocols import Images

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels of the image; bottom and right are the first outside
Row = Num[np.ndarray, " p"] | Num[Tensor, " p"]
Table = Num[np.ndarray, "r c"] | Num[Tensor, "r c"]

RECIPE = "steerable"  # the name of the text inside a PNG
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"  # IPTC: made by a trained model
XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    f'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
INK, GREY, PAPER, OUTLINE = "#1d2430", "#6b7484", "#ffffff", "#ff3b30"
COLOURS = ("#2563c9", "#d9480f", "#2b8a3e", "#9c36b5", "#c2255c", "#0b7285", "#a06a00", "#495057")
_GAP, _LABEL, _CAPTION = 4, 13, 11  # pixels between images; font sizes


def to_uint8(images: Images) -> UInt8[np.ndarray, "n h w 3"]:
    """The bytes of images: level ``floor((x + 1) * 127.5 + 0.5)``, so the nearest of 256, halves upwards.

    Values outside [-1, 1] become 0 or 255; one channel is repeated to three.

    Raises:
        ValueError: neither one nor three channels, or a number that is not finite.
    """
    images = checks.finite(checks.images(images), "images")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, got images of {tuple(images.shape)}.")
    levels = ((images.detach().cpu().float() + 1) * 127.5 + 0.5).floor().clamp(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()


def grid(
    images: Images, *, columns: int = 8, captions: Sequence[str] | None = None, scale: int = 2, boxes: Sequence[Box] = ()
) -> PIL.Image.Image:
    """The images in reading order, ``columns`` in a row, each enlarged ``scale`` times, with a caption below.

    Scale 1 keeps every pixel as it is; larger ones are interpolated (bicubic). ``boxes`` are outlined in every image.
    """
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale are at least 1, got {columns} and {scale}.")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"one caption an image: {len(images)} images, got {len(captions)} captions.")
    starts = range(0, len(images), columns)
    rows = [images[i : i + columns] for i in starts]
    below = None if captions is None else [list(captions[i : i + columns]) for i in starts]
    return strip(rows, captions=below, scale=scale, boxes=boxes)


def strip(
    rows: Sequence[Tensor],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
    note: str | None = None,
    scale: int = 2,
    boxes: Sequence[Box] = (),
) -> PIL.Image.Image:
    """One batch of images a row, with labels at the left (wrapped), above the columns and below each image.

    Args:
        rows: batches (n, c, h, w) of images of one size; they may differ in n.
        column_labels: for instance the amounts, with the sign and unit as they should be read.
        captions: a text for every image of every row, for instance what was measured on it.
        note: a line below the title, for instance who measured that.
        boxes: outlined in every image.
    """
    from PIL import Image, ImageDraw

    _sizes_agree(rows, row_labels, column_labels, captions)
    _, _, h, w = rows[0].shape
    cell_h, cell_w = h * scale, w * scale
    across = max(len(row) for row in rows)
    left = max((_wide(line, _LABEL) for label in row_labels or () for line in _wrapped(label)), default=-8) + 8
    titles = _line(16) + 4 if title else 0
    above = titles + (_line(_CAPTION) + 2 if note else 0)
    top = above + (_line(_LABEL) if column_labels else 0)
    captions_h = _line(_CAPTION) * max((text.count("\n") + 1 for row in captions or () for text in row), default=0)
    down = cell_h + captions_h + _GAP
    width = max(left + across * (cell_w + _GAP) - _GAP, _wide(title or "", 16), _wide(note or "", _CAPTION)) + 2 * _GAP
    sheet = Image.new("RGB", (width, top + len(rows) * down - _GAP + 2 * _GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((_GAP, _GAP), title, fill=INK, font=_font(16))
    if note:
        pen.text((_GAP, _GAP + titles - 2), note, fill=GREY, font=_font(_CAPTION))
    for j, label in enumerate(column_labels or ()):
        _centred(pen, label, left + j * (cell_w + _GAP) + _GAP, _GAP + above, cell_w, INK, _LABEL)
    for i, row in enumerate(rows):
        y = _GAP + top + i * down
        if row_labels:
            lines = _wrapped(row_labels[i])
            text_y = y + (cell_h - len(lines) * _line(_LABEL)) // 2
            for k, line in enumerate(lines):
                pen.text((_GAP, text_y + k * _line(_LABEL)), line, fill=INK, font=_font(_LABEL))
        for j, pixels in enumerate(to_uint8(row)):
            x = _GAP + left + j * (cell_w + _GAP)
            picture = Image.fromarray(pixels)
            sheet.paste(picture if scale == 1 else picture.resize((cell_w, cell_h), Image.Resampling.BICUBIC), (x, y))
            for t, le, b, r in boxes:
                pen.rectangle((x + le * scale - 1, y + t * scale - 1, x + r * scale, y + b * scale), outline=OUTLINE, width=min(scale, 2))
            for k, line in enumerate(captions[i][j].split("\n") if captions else ()):
                _centred(pen, line, x, y + cell_h + 1 + k * _line(_CAPTION), cell_w, GREY, _CAPTION)
    return sheet


def headed(picture: PIL.Image.Image, lines: Sequence[str]) -> PIL.Image.Image:
    """The picture under lines of text, each cut to its width: pictures of one size and as many lines stay of one size."""
    from PIL import Image, ImageDraw

    band = len(lines) * _line(_LABEL) + _GAP
    sheet = Image.new("RGB", (picture.width, picture.height + band), PAPER)
    sheet.paste(picture, (0, band))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        size, text = _fitted(line, picture.width - 2 * _GAP, _LABEL)
        pen.text((_GAP, _GAP + number * _line(_LABEL)), text, fill=INK, font=_font(size))
    return sheet


def amount(value: float, widest: float | None = None) -> str:
    """An amount as it stands at a picture: signed, with a true minus, 0 without; two significant digits and no exponent.

    Args:
        widest: the largest of those that are shown one after the other, which then have the same decimals.
    """
    size = abs(value if widest is None else widest)
    places = 0 if size >= 99.5 else 1 if size >= 9.95 else 2 if size >= 0.0995 or size == 0 else 3
    text = f"{value:+.{places}f}"
    if float(text) == 0:
        return "0" if widest is None else text[1:]
    return text.replace("-", "−")


def _sizes_agree(
    rows: Sequence[Tensor], row_labels: Sequence[str] | None, column_labels: Sequence[str] | None, captions: Sequence[Sequence[str]] | None
) -> None:
    lengths = [len(row) for row in rows]
    if not lengths or max(lengths) == 0:
        raise ValueError("a picture needs at least one image, got none.")
    if len({tuple(row.shape[1:]) for row in rows}) > 1:
        raise ValueError(f"rows hold images of one size, got {sorted({tuple(row.shape[1:]) for row in rows})}.")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"one label a row: {len(rows)} rows, got {len(row_labels)} labels.")
    if column_labels is not None and len(column_labels) != max(lengths):
        raise ValueError(f"one label a column: {max(lengths)} columns, got {len(column_labels)} labels.")
    if captions is not None and [len(row) for row in captions] != lengths:
        raise ValueError(f"one caption an image: rows of {lengths}, got {[len(row) for row in captions]}.")


@cache
def _font(size: int) -> PIL.ImageFont.FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _line(size: int) -> int:
    return round(size * 1.35)


def _wide(text: str, size: int) -> int:
    return int(np.ceil(_font(size).getlength(text)))


def _wrapped(label: str, width: int = 170) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words; its own line breaks are kept."""
    lines: list[str] = []
    for paragraph in label.split("\n"):
        lines.append("")
        for word in paragraph.split(" "):
            longer = f"{lines[-1]} {word}".strip()
            if _wide(longer, _LABEL) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
    return lines


def _centred(pen: PIL.ImageDraw.ImageDraw, text: str, x: int, y: int, width: int, colour: str, size: int) -> None:
    """One line in the middle of ``width``."""
    size, text = _fitted(text, width, size)
    pen.text((x + (width - _wide(text, size)) // 2, y), text, fill=colour, font=_font(size))


def _fitted(text: str, width: int, size: int) -> tuple[int, str]:
    """Size and text of a line of at most ``width`` pixels: smaller where it has to be, cut where that does not help."""
    while size > 8 and _wide(text, size) > width:
        size -= 1
    while len(text) > 1 and _wide(text, size) > width + _GAP:
        text = text[:-2] + "…"
    return size, text


def png(image: PIL.Image.Image, *, recipe: str | None = None) -> bytes:
    """The PNG file of a picture, with the recipe (JSON, any Unicode) inside under the name "steerable".

    Beside a recipe stands what the picture is, in the words of the IPTC (XMP, ``DigitalSourceType``): media made by a trained model.
    """
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if recipe is not None:
        text.add_itxt(RECIPE, recipe)
        text.add_itxt("XML:com.adobe.xmp", XMP)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text, compress_level=6)
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], image: PIL.Image.Image, *, recipe: str | None = None) -> Path:
    """Write a picture whole or not at all.

    Raises:
        ValueError: the name does not end in ``.png``.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path} would hold a PNG image: call it {Path(path).with_suffix('.png')}.")
    return files.write_bytes(path, png(image, recipe=recipe))


def read_recipe(path: str | os.PathLike[str]) -> str:
    """The recipe inside a PNG, as it was written.

    Raises:
        ValueError: another kind of file, a damaged one, or a picture without a recipe; says which.
    """
    from PIL import Image

    if (kind := files.sniff(path)) != "a PNG image":
        raise ValueError(f"{path} is {kind}, expected a PNG image that steer wrote.")
    try:
        with Image.open(path) as picture:
            picture.load()  # texts may stand behind the pixels
            text = getattr(picture, "text", {}).get(RECIPE)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is a damaged PNG image: {' '.join(str(error).split())}.") from error
    if text is None:
        raise ValueError(f"{path} is a PNG image without a recipe: it was not written by steer, or another program saved it again.")
    return str(text)


def figure_png(figure: matplotlib.figure.Figure) -> bytes:
    """The PNG file of a plot, without date or version inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def matrix(
    values: Table, rows: Sequence[str], columns: Sequence[str], *, title: str, limits: tuple[float, float], unit: str
) -> matplotlib.figure.Figure:
    """A heat map, row i above row i + 1, with the numbers written in up to 14 x 14 cells.

    Args:
        values: (rows, columns); NaN cells stay grey.
        limits: the values of the outermost colours; with a negative lower one, zero is white.
        unit: of the values, written at the colour bar.
    """
    cell, room = _cell(len(rows), len(columns)), 0.085 * max(map(len, (*rows, *columns)))
    figure = new_figure(max(cell * len(columns) + room + 1.3, 3.6), max(cell * len(rows) + room + 0.7, 2.4), title)
    axes = figure.subplots()
    image = _heat(axes, _array(values), rows, columns, limits)
    _bar(figure, image, [axes], unit)
    return figure


def matrices(
    before: Table,
    after: Table,
    names: Sequence[str],
    *,
    titles: tuple[str, str] = ("before", "after"),
    title: str,
    limits: tuple[float, float] = (-1.0, 1.0),
    unit: str,
) -> matplotlib.figure.Figure:
    """Two square heat maps of the same names side by side, on one colour scale."""
    cell, room = _cell(len(names), len(names)), 0.085 * max(map(len, names))
    figure = new_figure(2 * cell * len(names) + room + 2.2, cell * len(names) + room + 1.0, title)
    left, right = figure.subplots(1, 2)
    _heat(left, _array(before), names, names, limits)
    image = _heat(right, _array(after), [""] * len(names), names, limits)
    for axes, words in zip((left, right), titles, strict=True):
        axes.set_xlabel(words, fontsize=10, color=INK, labelpad=8)
    _bar(figure, image, [left, right], unit)
    return figure


def heat_maps(
    values: Mapping[str, Table],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    x_label: str,
    y_label: str,
    title: str,
    limits: tuple[float, float],
    unit: str,
) -> matplotlib.figure.Figure:
    """Several heat maps of the same rows and columns side by side, each under its name, on one colour scale."""
    cell, room = _cell(len(rows), len(columns)), 0.085 * max(map(len, (*rows, *columns)))
    figure = new_figure(len(values) * (cell * len(columns) + 0.3) + room + 2.0, cell * len(rows) + room + 1.5, title)
    places = figure.subplots(1, len(values), squeeze=False)[0]
    images = []
    for number, (axes, (name, one)) in enumerate(zip(places, values.items(), strict=True)):
        images.append(_heat(axes, _array(one), [""] * len(rows) if number else rows, columns, limits))
        axes.set_xlabel(f"{x_label}\n{name}", fontsize=9, color=INK, labelpad=8)
    places[0].set_ylabel(y_label, fontsize=9, color=INK)
    _bar(figure, images[-1], list(places), unit)
    return figure


def curves(
    x: Row, series: Mapping[str, tuple[Row, Row, Row]], *, x_label: str, y_label: str, title: str, diagonal: bool = False
) -> matplotlib.figure.Figure:
    """Lines with bands over one axis.

    Args:
        x: (p,), shared.
        series: name -> (mean, low, high), each (p,); the band is filled between low and high.
        diagonal: also draw the line where y equals x, "got what was asked".
    """
    figure = new_figure(5.6, 3.6, title)
    axes = dressed(figure.subplots(), x_label, y_label)
    if diagonal:
        _diagonal(axes, _array(x), "got = asked")
    for i, (name, (mean, low, high)) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        axes.fill_between(_array(x), _array(low), _array(high), color=colour, alpha=0.15, linewidth=0)
        axes.plot(_array(x), _array(mean), color=colour, linewidth=1.8, label=name, linestyle="-" if i < len(COLOURS) else "--")
    if len(series) + diagonal > 1:
        axes.legend(fontsize=8, frameon=False, labelcolor=INK, ncols=1 + len(series) // 12)
    return figure


def scatter(x: Row, y: Row, *, x_label: str, y_label: str, title: str, diagonal: bool = False) -> matplotlib.figure.Figure:
    """One point a row; with ``diagonal`` also the line where y equals x."""
    figure = new_figure(4.4, 4.0, title)
    axes = dressed(figure.subplots(), x_label, y_label)
    if diagonal:
        _diagonal(axes, _array(x), "equal")
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    axes.scatter(_array(x), _array(y), s=9, color=COLOURS[0], alpha=0.45, linewidths=0)
    return figure


def _array(values: Table | Row) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def new_figure(width: float, height: float, title: str) -> matplotlib.figure.Figure:
    """An empty figure in inches, without pyplot's global state; a title that is too long is wrapped, and makes it higher."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    title = textwrap.fill(title, int(width / 0.088))  # inches a letter at this size
    height += 0.17 * title.count("\n")
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08), facecolor=PAPER)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def dressed(axes: matplotlib.axes.Axes, x_label: str, y_label: str) -> matplotlib.axes.Axes:
    """Axes as all plots have them: labels, a quiet grid, two spines."""
    axes.set_xlabel(x_label, fontsize=9, color=INK)
    axes.set_ylabel(y_label, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.grid(color="#e8eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    return axes


def _diagonal(axes: matplotlib.axes.Axes, x: np.ndarray, label: str) -> None:
    ends = [float(x.min()), float(x.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label=label, zorder=1)


def _cell(rows: int, columns: int) -> float:
    """Inches a cell: wide enough for a number where numbers are written."""
    return 0.46 if max(rows, columns) <= 14 else 0.19


def _heat(axes: matplotlib.axes.Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], limits: tuple[float, float]):
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"values are (rows, columns) = ({len(rows)}, {len(columns)}), got {values.shape}.")
    import matplotlib

    low, high = limits
    colours = matplotlib.colormaps["RdBu_r" if low < 0 else "Blues"].with_extremes(bad="#dcdfe4")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high, aspect="equal", interpolation="nearest")
    few = max(values.shape) <= 14
    axes.set_xticks(
        range(len(columns)), columns, rotation=45 if few else 90, ha="left" if few else "center", rotation_mode="anchor" if few else None
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(labelsize=8.5 if few else 7, colors=INK, length=0, pad=3, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=1.2 if few else 0.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for i, j in np.argwhere(np.isfinite(values)) if few else ():
        dark = abs((values[i, j] - low) / (high - low) - (0.5 if low < 0 else 0)) > (0.32 if low < 0 else 0.6)
        axes.text(j, i, _short(float(values[i, j])), ha="center", va="center", fontsize=7.5, color=PAPER if dark else INK)
    return image


def _short(value: float) -> str:
    """Two decimals without a leading zero: ``.31``, ``-.05``, ``1.00``; none from ten up."""
    if abs(value) >= 9.995:
        return f"{value:.0f}"
    text = f"{abs(value):.2f}".removeprefix("0")
    return f"-{text}" if value <= -0.005 else text


def _bar(figure: matplotlib.figure.Figure, image, axes: Sequence[matplotlib.axes.Axes], unit: str) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=24, pad=0.02)
    bar.set_label(unit, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    bar.outline.set_visible(False)
