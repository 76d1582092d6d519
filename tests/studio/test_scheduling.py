"""Latest wins, pictures go first, and one question's error is nobody else's."""

from __future__ import annotations

import asyncio
import threading

import pytest

from steerable.studio.scheduling import Latest, Workers, run


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers(1)


def raised(error: Exception) -> None:
    raise error


def test_only_the_newest_question_that_waits_is_answered(workers):
    worked, shown = [], []

    async def fifty() -> None:
        gate, latest = threading.Event(), Latest(workers, shown.append)
        latest.ask(lambda: gate.wait(5) and worked.append(0), lambda _: shown.append(0))
        await asyncio.sleep(0.05)  # the first one is being worked on
        for i in range(1, 51):
            latest.ask(lambda i=i: worked.append(i), lambda _, i=i: shown.append(i))
        gate.set()
        await latest.settled()

    asyncio.run(fifty())
    assert worked == shown == [0, 50]


def test_answers_are_never_older_than_the_one_that_is_shown(workers):
    shown = []

    async def many() -> None:
        latest = Latest(workers, lambda error: None)
        for i in range(200):
            latest.ask(lambda i=i: i, shown.append)
            await asyncio.sleep(0.0005)
        await latest.settled()

    asyncio.run(many())
    assert shown == sorted(shown) and shown[-1] == 199


def test_a_question_that_fails_is_told_and_the_next_one_is_answered(workers):
    shown, told = [], []

    async def two() -> None:
        latest = Latest(workers, told.append)
        latest.ask(lambda: raised(ValueError("this latent is not finite")), shown.append)
        await latest.settled()
        latest.ask(lambda: 2, shown.append)
        await latest.settled()

    asyncio.run(two())
    assert shown == [2] and [str(error) for error in told] == ["this latent is not finite"]


def test_whoever_has_gone_is_shown_nothing(workers):
    shown = []

    async def gone() -> None:
        gate, latest = threading.Event(), Latest(workers, shown.append)
        latest.ask(lambda: gate.wait(5), shown.append)
        await asyncio.sleep(0.05)
        latest.ask(lambda: "later", shown.append)
        latest.stop()
        gate.set()
        await run(workers, lambda: None)

    asyncio.run(gone())
    assert shown == []


@pytest.mark.parametrize("patience", ["measurement", "seconds", "minutes"])
def test_other_work_does_not_hold_up_a_picture(workers, patience):
    async def both() -> str:
        gate = threading.Event()
        long = [asyncio.ensure_future(run(workers, lambda: gate.wait(10), patience=patience)) for _ in range(12)]
        await asyncio.sleep(0.05)
        picture = await asyncio.wait_for(run(workers, lambda: "picture"), 5)
        gate.set()
        await asyncio.gather(*long)
        return picture

    assert asyncio.run(both()) == "picture"


def test_work_that_was_cancelled_before_it_began_is_not_done(workers):
    done = []

    async def cancelled() -> None:
        gate = threading.Event()
        first = asyncio.ensure_future(run(workers, lambda: gate.wait(5)))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(run(workers, lambda: done.append("second")))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0.05)
        gate.set()
        await first
        await run(workers, lambda: done.append("third"))

    asyncio.run(cancelled())
    assert done == ["third"]
