"""A link restores the very state, in another studio too, or says why it cannot."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import pytest
import torch

from steerable.controls.directions import Directions
from steerable.protocols import Knob
from steerable.studio import links, session
from steerable.studio.session import State

STATE = State(seed=3, psi=0.7, amounts={"dance": 0.5, "brightness": -0.25}, locks=("red",), boxes=((1, 1, 5, 5),))


def packed(**fields):
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(fields).encode())).decode().rstrip("=")


def content(text):
    return json.loads(zlib.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))


def test_a_state_comes_back_from_its_link(bench):
    assert links.restored(links.link_of(STATE, bench, bench), bench)[0] == STATE


def test_a_knob_of_ones_own_travels_in_the_link(bench):
    own = Directions((Knob("beard", "", -1, 1, 0.0),), bench.generator.spaces["z"], torch.full((1, 6), 0.25))
    mine, _ = session.adopted(bench, own, "made here")
    state = State(seed=1, amounts={"beard": 2.0})
    found, there = links.restored(links.link_of(state, mine, bench), bench)
    assert torch.equal(session.latents(found, there).values, session.latents(state, mine).values)


def test_a_knob_that_was_fitted_anew_is_refused_by_name(bench):
    straight = bench.straight
    again = replace(bench, groups={"axes": replace(straight, vectors=straight.vectors * 1.5)})
    with pytest.raises(ValueError, match='its "dance" is another one'):
        links.restored(links.link_of(State(amounts={"dance": 1.0}), bench, bench), again)


def test_a_knob_that_is_not_there_is_refused_by_name(bench):
    fewer = replace(bench, groups={"axes": bench.straight[["brightness"]]})
    with pytest.raises(ValueError, match='it turns "dance", which this page does not have'):
        links.restored(links.link_of(State(amounts={"dance": 1.0}), bench, bench), fewer)


def test_a_link_of_another_generator_is_refused_by_name(bench):
    fields = content(links.link_of(STATE, bench, bench))
    with pytest.raises(ValueError, match=r"belongs to painted \(0000…\), this page has painted"):
        links.restored(packed(**{**fields, "fingerprint": "0" * 64}), bench)


@pytest.mark.parametrize(
    "change",
    [{"seed": -1}, {"psi": 9}, {"amounts": {"dance": "much"}}, {"boxes": [[0, 0, -1, 4]]}, {"path": "/etc/passwd"}, {"amounts": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_field_that_cannot_be_is_named(bench, change):
    fields = content(links.link_of(STATE, bench, bench))
    with pytest.raises(ValueError, match=rf"cut or changed on its way \({next(iter(change))}"):
        links.restored(packed(**{**fields, **change}), bench)


def test_a_link_that_unpacks_without_end_is_refused(bench):
    bomb = base64.urlsafe_b64encode(zlib.compress(bytes(20 * 2**20), 9)).decode()
    assert len(bomb) < links.LONGEST
    with pytest.raises(ValueError, match="cut or changed"):
        links.restored(bomb, bench)


def test_a_link_that_is_too_long_is_refused(bench):
    with pytest.raises(ValueError, match="has 48001 characters"):
        links.restored("A" * 48_001, bench)
