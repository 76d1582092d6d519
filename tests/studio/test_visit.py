"""One visitor and another, without a browser: each has a state of their own, the last thing asked is shown, and nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
import gc
import weakref

import numpy as np

from steerable.studio import pictures, session
from steerable.studio.session import State
from steerable.studio.visit import Visit


async def quiet(*visits: Visit) -> None:
    for visit in visits:
        await visit._frames.settled()


def shown(state, bench):
    return pictures.data_url(session.pixels(session.latents(state, bench), bench)[0])


def test_a_drag_of_fifty_events_ends_on_the_last_in_one_step(workshop, bench):
    async def run():
        visit, urls = Visit(workshop, bench), []
        visit.on("frame", lambda: urls.append(visit.frame.url))
        for i in range(1, 51):
            visit.turn("dance", 0.01 * i)
            await asyncio.sleep(0.001)
        visit.keep("dance 0.5")
        await quiet(visit)
        steps = [what for what, _ in visit.history.steps]
        visit.close()
        return urls, steps

    urls, steps = asyncio.run(run())
    every = [shown(State(amounts={"dance": 0.01 * i}), bench) for i in range(1, 51)]
    places = [every.index(url) for url in urls]
    assert places == sorted(places) and places[-1] == 49
    assert steps == ["start", "dance 0.5"]


def test_eight_visitors_see_their_own(workshop, bench):
    async def all_at_once():
        visits = [Visit(workshop, bench, State(seed=seed)) for seed in range(8)]
        for i in range(1, 11):
            for number, visit in enumerate(visits):
                visit.turn("dance", 0.1 * i + 0.01 * number)
            await asyncio.sleep(0.001)
        await quiet(*visits)
        found = [(visit.frame.state, visit.frame.url) for visit in visits]
        for visit in visits:
            visit.close()
        return found

    for number, (state, url) in enumerate(asyncio.run(all_at_once())):
        assert state == State(seed=number, amounts={"dance": 1.0 + 0.01 * number})
        assert url == shown(state, bench)


def test_a_visitor_whose_latent_is_not_finite_is_told_and_the_other_is_not(workshop, bench):
    offset = base64.b64encode(np.full(6, np.nan, "<f4").tobytes()).decode()

    async def both():
        one, two, told = Visit(workshop, bench), Visit(workshop, bench), {"one": [], "two": []}
        one.on("trouble", told["one"].append)
        two.on("trouble", told["two"].append)
        one.show(State(offset=offset))
        two.turn("dance", 0.5)
        await quiet(one, two)
        one.show(State(seed=1))
        await quiet(one, two)
        found = one.frame.state, two.frame.state
        one.close()
        two.close()
        return told, found

    told, (first, second) = asyncio.run(both())
    assert len(told["one"]) == 1 and "finite" in told["one"][0] and told["two"] == []
    assert first == State(seed=1) and second == State(amounts={"dance": 0.5})


def test_a_visitor_who_has_gone_leaves_nothing(workshop, bench):
    async def gone():
        visit = Visit(workshop, bench)
        visit.turn("dance", 0.5)
        await quiet(visit)
        visit.close()
        left = weakref.ref(visit), weakref.ref(visit.bench)
        del visit
        for _ in range(200):  # what was being measured comes to its end
            gc.collect()
            if left[0]() is None:
                break
            await asyncio.sleep(0.02)
        return left

    visit, shared = asyncio.run(gone())
    assert visit() is None and shared() is bench


def test_a_hand_that_moves_has_the_processors_for_its_pictures_and_is_measured_when_it_rests(workshop, bench, monkeypatch):
    monkeypatch.setattr("steerable.studio.visit.REST", 1.0)

    async def run(locks):
        visit, seen = Visit(workshop, bench, State(locks=locks)), []
        for event in ("measured", "leaks"):
            visit.on(event, lambda *_, event=event: seen.append(event))
        visit.begin()
        for i in range(1, 11):
            visit.turn("dance", 0.01 * i)
            await asyncio.sleep(0.02)
        await visit._measures.settled()
        moving, seen[:] = list(seen), []
        until = asyncio.get_running_loop().time() + 20
        while "leaks" not in seen and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.02)
        value = visit.measured.state.amounts["dance"]
        visit.close()
        return moving, seen, value

    assert asyncio.run(run(())) == ([], ["measured", "leaks"], 0.1)
    moving, rested, _ = asyncio.run(run(("brightness",)))
    assert set(moving) == {"leaks"}  # of what is locked, and of nothing else
    assert rested[:2] == ["measured", "leaks"]
