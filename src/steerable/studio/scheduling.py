"""Who computes when: workers for everybody that take the most urgent work first, and for each visitor the latest question only.

A slider asks faster than a generator answers. ``Latest`` keeps one question waiting for each visitor and forgets those that a newer one has
overtaken, so that an answer is never stale and the last one asked is always answered. ``Workers`` draw before they measure, whoever
asks, and keep what takes seconds or minutes away from both. What is computed is the business of ``session``.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

# How long work can wait for others, in seconds. What takes that long itself has workers of its own.
PICTURE, MEASUREMENT, SECONDS, MINUTES = 0.0, 0.5, 1.0, 60.0


class Workers:
    """A thread for each core: torch lets go of the interpreter while it computes.

    The work that has to be done first is done first: when it was asked for, and how long it can wait, decide. So pictures overtake
    measurements, and a measurement that has waited is taken all the same. Work of ``SECONDS`` and ``MINUTES`` has other threads, four and
    two, so that a fit of one visitor stands in nobody's way.
    """

    def __init__(self, count: int | None = None) -> None:
        self._waiting: list[tuple[float, int, Future[Any], Callable[[], Any]]] = []
        self._order, self._some = itertools.count(), threading.Condition()
        self._seconds = ThreadPoolExecutor(max_workers=4, thread_name_prefix="studio-seconds")
        self._minutes = ThreadPoolExecutor(max_workers=2, thread_name_prefix="studio-minutes")
        for number in range(count or max(1, min(os.cpu_count() or 1, 8))):
            threading.Thread(target=self._work, name=f"studio-{number}", daemon=True).start()

    def submit(self, work: Callable[[], T], *, patience: float = PICTURE) -> Future[T]:
        """Have this done; what is cancelled before it was begun is not done."""
        if patience >= SECONDS:
            return (self._minutes if patience >= MINUTES else self._seconds).submit(work)
        future: Future[T] = Future()
        with self._some:
            heapq.heappush(self._waiting, (time.monotonic() + patience, next(self._order), future, work))
            self._some.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._some:
                while not self._waiting:
                    self._some.wait()
                *_, future, work = heapq.heappop(self._waiting)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del future, work  # nothing of the last visitor is kept while the next one is awaited


async def run(workers: Workers, work: Callable[[], T], *, patience: float = PICTURE) -> T:
    """``work`` by one of the workers, with the context of the caller."""
    context = contextvars.copy_context()
    return await asyncio.wrap_future(workers.submit(lambda: context.run(work), patience=patience))


class Latest:
    """Questions of one visitor about one thing; only the newest one that waits is answered.

    Args:
        workers: who work on the questions; one of this visitor's at a time.
        failed: told of a question that ended in an error; the next one is answered as if nothing had been.
        pause: seconds between two answers, for what need not be shown at every step.
        patience: how long a question can wait for others.
    """

    def __init__(self, workers: Workers, failed: Callable[[Exception], None], *, pause: float = 0.0, patience: float = PICTURE) -> None:
        self.workers, self.failed, self.pause, self.patience = workers, failed, pause, patience
        self._waiting: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, work: Callable[[], T], show: Callable[[T], None]) -> None:
        """Answer this instead of whatever waits. To be called on the event loop."""
        self._waiting = (work, show)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def settled(self) -> None:
        """When everything asked so far is answered."""
        while self._task is not None and not self._task.done():
            await asyncio.shield(self._task)

    def stop(self) -> None:
        """Forget what waits; what is being worked on ends in silence."""
        self._waiting = None
        if self._task is not None:
            self._task.cancel()

    async def _answer(self) -> None:
        while self._waiting is not None:
            work, show = self._waiting
            self._waiting = None
            try:
                show(await run(self.workers, work, patience=self.patience))
            except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
                log.info("a question of a visitor failed: %s", error)
                self.failed(error)
            del work, show
            if self.pause:
                await asyncio.sleep(self.pause)
