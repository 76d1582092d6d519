"""Progress of every loop that a person waits for.

Library code wraps its loops in ``track``. Who listens is decided at the edge: the terminal shows a bar with an
ETA, the studio draws its own, and a program that sets nothing and has no terminal hears nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Tracker = Callable[[Iterable[T], str, int], Iterator[T]]


def silent(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    yield from items


def terminal(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """A bar with elapsed time and ETA on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=label)


_tracker: ContextVar[Tracker | None] = ContextVar("steerable_progress", default=None)
_inside: ContextVar[bool] = ContextVar("steerable_progress_inside", default=False)


def track(items: Sequence[T] | Iterable[T], label: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items and tell whoever listens how far it is. Of loops inside loops the outermost is shown."""
    count = len(items) if total is None else total  # type: ignore[arg-type]
    tracker = _tracker.get() or (terminal if sys.stderr.isatty() else silent)
    return _outermost(tracker, items, label, count)


def _outermost(tracker: Tracker, items: Iterable[T], label: str, total: int) -> Iterator[T]:
    if _inside.get():
        yield from items
        return
    _inside.set(True)
    try:
        yield from tracker(items, label, total)
    finally:
        _inside.set(False)


@contextmanager
def shown_by(tracker: Tracker) -> Iterator[None]:
    """Let another function show the progress of everything inside the block."""
    token = _tracker.set(tracker)
    try:
        yield
    finally:
        _tracker.reset(token)
