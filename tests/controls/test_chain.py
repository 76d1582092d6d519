"""Chains: the order of the parts, their knobs, and what cannot be chained."""

import dataclasses

import pytest
import torch

from steerable import store
from steerable.controls.chain import Chain
from steerable.controls.directions import Directions, amounts
from steerable.controls.walk import Step, Walk
from steerable.protocols import Knob, Latents, LatentSpace

W = LatentSpace("w", (2,), "00toy000", "toy")
START = Latents(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), W)


def straight(name, *move, space=W):
    return Directions((Knob(name, "", -1, 1),), space, torch.tensor([move]))


def doubling():
    eye, nothing = torch.eye(2)[None], torch.zeros(1, 2)
    step = Step(eye, nothing, eye, nothing)
    return Walk((Knob("double", "", -1, 1),), W, step, step, (1.0, 1.0))


def test_straight_parts_add_up_in_any_order():
    one, other = straight("a", 1.0, 0.0), straight("b", 0.0, 1.0)
    asked = torch.tensor([[0.5, 2.0], [-1.0, 0.0]])
    moved = Chain((one, other)).steer(START, asked).values
    assert torch.equal(moved, START.values + asked)
    assert torch.equal(moved, Chain((other, one)).steer(START, asked.flip(1)).values)


def test_the_first_part_moves_first():
    move, double = straight("a", 1.0, 0.0), doubling()
    assert Chain((move, double)).steer(START, torch.ones(2, 2)).values.tolist() == [[4, 2], [6, 0]]
    assert Chain((double, move)).steer(START, torch.ones(2, 2)).values.tolist() == [[3, 2], [5, 0]]


def test_knobs_stand_side_by_side_and_are_turned_by_name():
    chain = Chain((straight("a", 1.0, 0.0), doubling(), straight("b", 0.0, 1.0)))
    assert [knob.name for knob in chain.knobs] == ["a", "double", "b"]
    assert amounts(chain, 1, b=2.0).tolist() == [[0, 0, 2]]


def test_a_chain_of_chains_is_a_chain():
    inner = Chain((straight("a", 1.0, 0.0), straight("b", 0.0, 1.0)))
    assert Chain((inner, doubling())).steer(START, torch.zeros(2, 3)).values.equal(START.values)


def test_the_parts_of_some_knobs_keep_their_order():
    chain = Chain((straight("a", 1.0, 0.0), doubling(), straight("b", 0.0, 1.0)))
    assert [knob.name for knob in chain[["b", "double"]].knobs] == ["double", "b"]
    with pytest.raises(ValueError, match='unknown knob "c"'):
        chain["c"]


def test_a_chain_is_saved_with_all_its_parts(tmp_path):
    chain = Chain((straight("a", 1.0, 0.5), Chain((doubling(),))), {"method": "by hand"})
    loaded = store.load_control(store.save_control(chain, tmp_path / "chain.safetensors"))
    asked = torch.tensor([[0.3, 0.7], [-0.2, 0.1]])
    assert isinstance(loaded, Chain) and loaded.fit == {"method": "by hand"} and loaded.knobs == chain.knobs
    assert torch.equal(loaded.steer(START, asked).values, chain.steer(START, asked).values)


def test_controls_that_need_their_generator_are_not_saved(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Own:
        knobs: tuple = (Knob("own", "", -1, 1),)
        space: LatentSpace = W

        def steer(self, latents, amounts):
            return latents

    with pytest.raises(TypeError, match="a Own is not saved: only Directions, Walk, Controller, Controllers and Chain"):
        store.save_control(Chain((Own(),)), tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "at least one control, got none"),
        ((straight("a", 1.0, 0.0), straight("a", 0.0, 1.0)), "a name of its own, got a, a"),
        (
            (straight("a", 1.0, 0.0), straight("b", 0.0, 1.0, space=LatentSpace("z", (2,), "00toy000", "toy"))),
            r"controls of w of toy .* and of z of toy",
        ),
        (
            (straight("a", 1.0, 0.0), straight("b", 0.0, 1.0, space=LatentSpace("w", (2,), "a8010000", "digits32"))),
            r"of toy \(00to…\) and of digits32 \(a801…\)",
        ),
    ],
)
def test_what_cannot_be_chained_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        Chain(parts)
