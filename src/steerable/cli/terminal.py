"""What the command line reads and shows: texts for seeds and amounts, progress lines, tables, one-line errors. No verb lives here."""

from __future__ import annotations

import errno
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from steerable import progress

T = TypeVar("T")
BAD_INPUT, INTERRUPTED, CLOSED = 2, 130, 141  # the last two as shells report SIGINT and SIGPIPE
COLUMNS = 100  # amounts of one strip
KEYFRAMES = 50  # of one film
MANY = 1_000_000  # seeds of one command
LEFT = "interrupted. Files under their final names are whole; with --cache FOLDER the same command goes on where it stopped."
TRAINING = "interrupted. The same command goes on from the last checkpoint, if there was one, to the same weights."
EVERY = 10.0  # seconds between progress lines where there is no terminal


def run(command: Callable[[], Any], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: bad input and a full disk are one line on standard error, without a traceback.

    Args:
        arguments: that the command parses, those of the process by default; an error in one of them shows it.
    """
    from typer import Abort, TyperException

    try:
        with progress.shown_by(progress.terminal if sys.stderr.isatty() else lines):
            result = command()
        sys.stdout.flush()
        if result == INTERRUPTED:  # what typer makes of Ctrl-C
            complain(_left(arguments))
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, Abort):  # Ctrl-C outside of typer, and the end of the input
        complain(_left(arguments))
        return INTERRUPTED
    except TyperException as error:
        if error.format_message().startswith("Usage:"):  # no verb was given: this is the help
            print(error.format_message(), file=sys.stderr)
            return BAD_INPUT
        complain(_usage(error, sys.argv[1:] if arguments is None else arguments))
    except (ValueError, TypeError) as error:
        complain(str(error))
    except MemoryError:
        complain("out of memory. Ask for fewer images at once: a smaller n, or fewer seeds.")
    except BrokenPipeError:  # "steer zoo | head": nobody reads on, which is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except OSError as error:
        complain(_disk(error))
    return BAD_INPUT


def _left(arguments: Sequence[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return TRAINING if given[:1] == ["train"] else LEFT


def _usage(error: Any, arguments: Sequence[str]) -> str:
    """A mistake in the command itself: what was given, and the help to read next."""
    path = getattr(getattr(error, "ctx", None), "command_path", "steer")
    message = error.format_message().strip().rstrip(".")
    if wrong := re.match(r"Invalid value for .*?(-[-\w]+)'", message):
        after = [one.partition("=")[2] or two for one, two in pairwise([*arguments, ""]) if one.partition("=")[0] == wrong[1]]
        message += f', got "{after[-1]}"' if after else ""
    return f"{message}{'' if message.endswith('?') else '.'} See: {path} --help"


def _disk(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full ({what}). Nothing half-written was left; make room or choose another --out."
    return f"{where}{what}. Nothing half-written was left; check the path, or choose another --out."


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
            where = f'"{part}" in "{text}"' if part != text else f'"{text}"'
            raise ValueError(f"seeds are numbers and ranges like 0-35,40; got {where}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f'the range "{part}" runs backwards: write {last}-{first}.')
        if last - first >= MANY or last >= 2**63:
            raise ValueError(f'"{part}" asks for {last - first + 1} seeds up to {last}; up to {MANY} at a time below 2^63 are possible.')
        seeds += range(first, last + 1)
    twice = len(seeds) - len(set(seeds))
    if twice:
        raise ValueError(f'"{text}" names {plural(twice, "seed")} more than once: name each once.')
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


def parse_sweep(text: str, flag: str = "--strip") -> tuple[str, tuple[float, ...]]:
    """``yaw=-20,0,20`` or ``yaw=-20:20:5`` (five amounts from end to end) -> the knob and its amounts; ``yaw`` alone -> none."""
    if "=" not in text and text.strip():
        return text.strip(), ()
    ((name, value),) = parse_pairs([text], flag).items()
    try:
        if ":" in value:
            low, high, count = value.split(":")
            ends, n = (float(low), float(high)), int(count)
            amounts = [ends[0] + (ends[1] - ends[0]) * i / (n - 1) for i in range(n if 2 <= n <= COLUMNS else 0)]
        else:
            amounts = [float(part) for part in value.split(",")]
    except ValueError:
        amounts = []
    if not 1 <= len(amounts) <= COLUMNS or not all(math.isfinite(amount) for amount in amounts):
        raise ValueError(f'{flag} takes up to {COLUMNS} amounts as yaw=-20,0,20 or yaw=-20:20:5 (from, to, how many); got "{text[:60]}".')
    return name, tuple(amounts)


def parse_keyframes(text: str) -> list[dict[str, float]]:
    """``zoom=0; zoom=1; zoom=0, shift-x=.2`` -> the amounts of each keyframe.

    Raises:
        ValueError: anything else, or more than 50 keyframes.
    """
    found: list[dict[str, float]] = []
    for number, part in enumerate(text.split(";"), 1):
        try:
            found.append({name: float(value) for name, value in parse_pairs(parse_names(part), "--keyframes").items()})
        except ValueError as error:
            if "twice" in str(error):
                raise
            found.append({})
        if not found[-1] or not all(math.isfinite(amount) for amount in found[-1].values()):
            raise ValueError(
                f'keyframe {number} of --keyframes, "{part.strip()}", is not of the form zoom=1, shift-x=.2; a semicolon parts keyframes.'
            )
    if len(found) > KEYFRAMES:
        raise ValueError(f"a film has up to {KEYFRAMES} keyframes, got {len(found)}.")
    return found


def parse_box(text: str) -> tuple[int, int, int, int]:
    """``16,18,52,46`` -> top, left, bottom, right."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f'a box is top,left,bottom,right in pixels, for example 16,18,52,46; got "{text}".')
    top, left, bottom, right = (int(part) for part in parts)
    return top, left, bottom, right


def plural(n: int, one: str, many: str = "") -> str:
    """``1 picture``, ``3 pictures``."""
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


def short(value: float, digits: int = 3) -> str:
    """A number for a table: three significant digits, no exponent for everyday sizes."""
    if value != value:
        return "–"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-4):
        return f"{value:.{digits - 1}e}"
    return f"{value + 0.0:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
