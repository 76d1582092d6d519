"""What the command line reads and shows: texts for seeds and amounts, progress lines, tables, one-line errors. No verb lives here."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from steerable import progress

T = TypeVar("T")
BAD_INPUT, INTERRUPTED = 2, 130
EVERY = 10.0  # seconds between progress lines where there is no terminal


def run(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code: bad input and a full disk are one line on standard error, without a traceback."""
    from typer import Abort, Exit, TyperException

    try:
        with progress.shown_by(progress.terminal if sys.stderr.isatty() else lines):
            result = command()
        return result if isinstance(result, int) else 0
    except Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, Abort):
        complain("interrupted; finished parts are kept, run the same command again to go on")
        return INTERRUPTED
    except TyperException as error:
        complain(error.format_message())
    except (ValueError, TypeError) as error:
        complain(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}. Nothing half-written was left; choose another --out or make room.")
    return BAD_INPUT


def complain(message: str) -> None:
    """One line on standard error, whatever the message was."""
    print("steer:", " ".join(message.split()), file=sys.stderr)


def lines(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Progress for logs and pipes: a line with an ETA every ten seconds."""
    began = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= EVERY:
            eta = (now - began) / done * (total - done)
            print(f"{label}: {done} of {total}, {eta:.0f} s to go", file=sys.stderr)
            last = now
        yield item


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output; plain text with two spaces between columns, so that it can be cut and grepped."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    numeric = [bool(rows) and all(re.fullmatch(r"[-+]?[\d.,]+%?|nan|–", row[i]) for row in rows) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in zip(cells, widths, numeric, strict=True)).rstrip()

    print(title)
    print(line(columns))
    print(line(["-" * width for width in widths]))
    for row in rows:
        print(line(row))


def say(message: str) -> None:
    print(message)


def parse_seeds(text: str) -> list[int]:
    """``0-35,40`` -> the numbers; ranges include both ends.

    Raises:
        ValueError: anything else.
    """
    seeds: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise ValueError(f'seeds are numbers and ranges like 0-35,40; got "{part}" in "{text}".')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f'the range "{part}" runs backwards: write {last}-{first}.')
        if last - first >= 10_000_000 or last >= 2**63:
            raise ValueError(f'the range "{part}" asks for {last - first + 1} seeds up to {last}; up to 10 million below 2^63 are possible.')
        seeds += range(first, last + 1)
    twice = len(seeds) - len(set(seeds))
    if twice:
        raise ValueError(f'"{text}" names {twice} seeds twice: name each once.')
    return seeds


def parse_names(text: str) -> list[str]:
    """``yaw, smile`` -> the names."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def parse_pairs(given: Sequence[str], flag: str) -> dict[str, str]:
    """``["smile=2", "yaw=p90"]`` -> a mapping."""
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f'{flag} takes name=value, for example {flag} smile=2; got "{text}".')
        if name.strip() in pairs:
            raise ValueError(f'{flag} names "{name.strip()}" twice: give it once.')
        pairs[name.strip()] = value.strip()
    return pairs


def parse_sweep(text: str) -> tuple[str, tuple[float, ...]]:
    """``yaw=-20,0,20`` or ``yaw=-20:20:5`` (five amounts from end to end) -> the knob and its amounts."""
    ((name, value),) = parse_pairs([text], "--sweep").items()
    try:
        if ":" in value:
            low, high, count = value.split(":")
            ends, n = (float(low), float(high)), int(count)
            if not 2 <= n <= 100:
                raise ValueError
            return name, tuple(ends[0] + (ends[1] - ends[0]) * i / (n - 1) for i in range(n))
        return name, tuple(float(part) for part in value.split(","))
    except ValueError:
        raise ValueError(f'--sweep takes amounts as yaw=-20,0,20 or yaw=-20:20:5 (from, to, how many); got "{text}".') from None


def parse_box(text: str) -> tuple[int, int, int, int]:
    """``16,18,52,46`` -> top, left, bottom, right."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise ValueError(f'a box is top,left,bottom,right in pixels, for example 16,18,52,46; got "{text}".')
    top, left, bottom, right = (int(part) for part in parts)
    return top, left, bottom, right


def number(text: str, what: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise ValueError(f'{what} takes a finite number, got "{text}".')
    return value


def short(value: float, digits: int = 3) -> str:
    """A number for a table: three significant digits, no exponent for everyday sizes."""
    if value != value:
        return "–"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-4):
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
    return text
