"""Controllers of groups: values by name, percentiles, refusals, the one answer and the many; saved and loaded to the same bytes."""

from dataclasses import replace

import pytest
import torch
from toys import LayeredNetwork

from steerable import store
from steerable.controls.groups import Controllers, GroupController
from steerable.generators.module import generator_of
from steerable.protocols import Knob

MADE = generator_of(LayeredNetwork(), name="layered")  # w has the parts left (0, 1) and right (2, 3)
SLANT = Knob("slant", "deg", -20, 20, None, ((1.0, -30.0), (50.0, 0.0), (99.0, 30.0)))
KIND = Knob("kind", "", 0, 2, None)


def constant(*values):
    return torch.tensor(values)


def line(slope: float, noise: float = 0.0) -> tuple[torch.Tensor, ...]:
    """(value, two of noise) -> (slope * value + noise * first, 1)."""
    return (torch.tensor([[slope, noise, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0.0, 1.0]))


SLANTED = GroupController("left", (SLANT,), 0, constant(0.0), constant(10.0), (line(2.0)[0][:, :1], line(2.0)[1]), line(2.0, 0.5), 2, False)
KINDS = GroupController(
    "right", (KIND,), 3, constant(0.0), constant(1.0), (torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), torch.zeros(2)),
    (torch.tensor([[1.0, 2.0, 3.0, 1.0, 0.0], [0.0] * 5]), torch.zeros(2)), 2, False,
)  # fmt: skip
BOTH = Controllers((SLANTED, KINDS), MADE.spaces["w"], {"n": 5})


def test_a_value_replaces_its_share_of_w_and_nothing_else():
    latents = MADE.sample(3, seed=0, space="w")
    moved = BOTH.set(latents, {"slant": 15})
    assert torch.equal(moved.part("left"), torch.tensor([[3.0, 1.0]] * 3))  # 2 * 15 / 10
    assert torch.equal(moved.part("right"), latents.part("right"))


def test_percentiles_lists_and_texts_are_values():
    latents = MADE.sample(3, seed=0, space="w")
    assert torch.equal(BOTH.set(latents, {"slant": "p50"}).part("left")[:, 0], torch.zeros(3))
    assert torch.allclose(BOTH.set(latents, {"slant": [-5, "p50", "20"]}).part("left")[:, 0], torch.tensor([-1.0, 0.0, 4.0]))
    assert torch.equal(BOTH.set(latents, {"kind": 2}).part("right")[:, 0], torch.full((3,), 3.0))


def test_several_values_are_set_at_once():
    moved = BOTH.set(MADE.sample(1, seed=0, space="w"), {"kind": 1, "slant": 10})
    assert moved.values.tolist() == [[2.0, 1.0, 2.0, 0.0]]


def test_many_answers_differ_and_belong_to_their_rows():
    latents = MADE.sample(4, seed=0, space="w")
    one = BOTH.set(latents, {"slant": 10}, seeds=[1, 2, 3, 4]).part("left")[:, 0]
    assert len(set(one.tolist())) == 4 and torch.allclose(one, torch.full((4,), 2.0), atol=3)
    assert torch.equal(BOTH.set(latents[:2], {"slant": 10}, seeds=[1, 2]).part("left")[:, 0], one[:2])


def test_a_generator_samples_by_value_and_row_by_row():
    made = MADE.controlled(BOTH)
    eight, two = made.sample(8, seed=0, values={"slant": 20}), made.sample(2, seed=0, values={"slant": 20})
    assert torch.equal(eight.values[:2], two.values) and eight.space.name == "w"
    assert torch.equal(eight.part("right"), MADE.sample(8, seed=0).part("right"))
    assert made.sample(2, seed=0, values={"slant": 20}, space="w+").values.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slant": 25}, r"^slant = 25 \(deg\) is out of reach: this generator shows -20 to 20\.$"),
        ({"slant": "p99"}, r"slant = 30 \(deg\) is out of reach"),
        ({"slant": "p99.5"}, r"slant knows the percentiles 1 to 99, got p99\.5"),
        ({"slnat": 5}, 'unknown value "slnat": did you mean "slant"'),
        ({"slant": "steep"}, r'slant is a number \(deg\) or a percentile like "p90"; got "steep"'),
        ({"slant": None}, r"slant is a number \(deg\) or a percentile"),
        ({"slant": float("nan")}, r"slant is a number \(deg\), got nan"),
        ({"slant": True}, r"slant is a number \(deg\), got True"),
        ({"slant": [1, 2]}, "slant takes one value or 3, one a row; got 2"),
        ({"kind": 1.5}, "kind is a class from 0 to 2, a whole number; got 1.5"),
        ({"kind": 7}, "kind = 7 is out of reach: this generator shows 0 to 2"),
    ],
)
def test_a_value_that_cannot_be_set_is_refused_in_one_line(values, message, no_annotation_checks):
    with pytest.raises(ValueError, match=message) as caught:
        MADE.controlled(BOTH).sample(3, seed=0, values=values)
    assert "\n" not in str(caught.value)


def test_values_need_controllers_of_this_generator_in_this_space():
    with pytest.raises(ValueError, match=r"layered has no controllers for values=\{\"slant\": \.\.\.\}: .*steer fit controllers"):
        MADE.sample(2, seed=0, values={"slant": 1})
    with pytest.raises(ValueError, match=r'values are set in w, which comes after z: use space="w"'):
        MADE.controlled(BOTH).sample(2, seed=0, values={"slant": 1}, space="z")
    with pytest.raises(ValueError, match=r"these controllers was fitted on layered \(.*this generator is layered"):
        generator_of(LayeredNetwork(classes=3), name="layered").controlled(
            Controllers((SLANTED,), replace(MADE.spaces["w"], fingerprint="a801"))
        )


def test_a_group_is_controlled_once_and_has_to_exist():
    with pytest.raises(ValueError, match="each once; got left, left"):
        Controllers((SLANTED, SLANTED), MADE.spaces["w"])
    with pytest.raises(ValueError, match='has no part "left"'):
        Controllers((SLANTED,), MADE.spaces["z"])


def test_save_and_load_give_the_same_bytes_and_the_same_latents(tmp_path):
    path = store.save_control(BOTH, tmp_path / "controllers.safetensors")
    loaded = store.load_control(path, generator=MADE)
    assert store.control_bytes(loaded) == path.read_bytes()
    assert (loaded.knobs, loaded.fit, [part.classes for part in loaded.parts]) == (BOTH.knobs, {"n": 5}, [0, 3])
    latents = MADE.sample(3, seed=2, space="w")
    for seeds in (None, [1, 2, 3]):
        values = [control.set(latents, {"slant": -7, "kind": 2}, seeds=seeds).values for control in (BOTH, loaded)]
        assert torch.equal(*values)
