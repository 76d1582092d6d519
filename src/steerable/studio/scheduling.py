"""Who computes when: one pool of workers for everybody, and for each visitor the latest question only.

A slider asks faster than a generator answers. ``Latest`` keeps one question waiting for each visitor and forgets those that a newer one has
overtaken, so that an answer is never stale and the last one asked is always answered. What is computed is the business of ``session``.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


def workers(count: int | None = None) -> ThreadPoolExecutor:
    """A thread for each core: torch lets go of the interpreter while it computes."""
    return ThreadPoolExecutor(max_workers=count or max(1, min(os.cpu_count() or 1, 8)), thread_name_prefix="studio")


async def run(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """``work`` in the pool, with the context of the caller."""
    return await asyncio.get_running_loop().run_in_executor(pool, contextvars.copy_context().run, work)


class Latest:
    """Questions of one visitor about one thing; only the newest one that waits is answered.

    Args:
        pool: where questions are worked on; one of this visitor's at a time.
        failed: told of a question that ended in an error; the next one is answered as if nothing had been.
        pause: seconds between two answers, for what need not be shown at every step.
    """

    def __init__(self, pool: ThreadPoolExecutor, failed: Callable[[Exception], None], *, pause: float = 0.0) -> None:
        self.pool, self.failed, self.pause = pool, failed, pause
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
                show(await run(self.pool, work))
            except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
                log.info("a question of a visitor failed: %s", error)
                self.failed(error)
            if self.pause:
                await asyncio.sleep(self.pause)
