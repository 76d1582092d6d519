"""Who computes when: workers for everybody, apart by how urgent the work is, and for each visitor the latest question only.

A slider asks faster than a generator answers. ``Latest`` keeps one question waiting for each visitor and forgets those that a newer one has
overtaken, so that an answer is never stale and the last one asked is always answered. ``Workers`` draw for one visitor while they measure
for another, and keep what takes seconds or minutes away from both. What is computed is the business of ``session``.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

# How long work takes and can wait: a picture follows a hand, a measurement follows the pictures, the others are waited for.
Patience = Literal["picture", "measurement", "seconds", "minutes"]


class Workers:
    """Threads, since torch lets go of the interpreter while it computes: for pictures one on each core, for measurements one.

    What takes seconds or minutes has threads of its own, four and two. So no measurement, and no fit of another visitor, stands in the
    way of a picture.
    """

    def __init__(self, count: int | None = None) -> None:
        sizes = {"picture": count or max(1, min(os.cpu_count() or 1, 8)), "measurement": 1, "seconds": 4, "minutes": 2}
        self._threads = {kind: ThreadPoolExecutor(size, thread_name_prefix=f"studio-{kind}") for kind, size in sizes.items()}

    def submit(self, work: Callable[[], T], *, patience: Patience = "picture") -> Future[T]:
        """Have this done; what is cancelled before it was begun is not done."""
        return self._threads[patience].submit(work)


async def run(workers: Workers, work: Callable[[], T], *, patience: Patience = "picture") -> T:
    """``work`` by one of the workers, with the context of the caller."""
    context = contextvars.copy_context()
    return await asyncio.wrap_future(workers.submit(lambda: context.run(work), patience=patience))


class Latest:
    """Questions of one visitor about one thing; only the newest one that waits is answered.

    Args:
        workers: who work on the questions; one of this visitor's at a time.
        failed: told of a question that ended in an error; the next one is answered as if nothing had been.
        patience: how long a question can wait for others.
    """

    def __init__(self, workers: Workers, failed: Callable[[Exception], None], *, patience: Patience = "picture") -> None:
        self.workers, self.failed = workers, failed
        self.patience: Patience = patience
        self._waiting: tuple[Callable[[], Any], Callable[[Any], None], Patience] | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, work: Callable[[], T], show: Callable[[T], None], *, patience: Patience | None = None) -> None:
        """Answer this instead of whatever waits. To be called on the event loop.

        Args:
            patience: of this question, where it takes longer than usual.
        """
        self._waiting = (work, show, patience or self.patience)
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
            work, show, patience = self._waiting
            self._waiting = None
            try:
                show(await run(self.workers, work, patience=patience))
            except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
                log.info("a question of a visitor failed: %s", error)
                self.failed(error)
            del work, show
