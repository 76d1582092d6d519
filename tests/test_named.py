"""Features as they are typed."""

import numpy as np
import pytest
import torch
from PIL import Image

from steerable import named

SHAPE = (3, 64, 64)


def test_a_comma_before_a_digit_belongs_to_the_numbers():
    assert named.split("pose, inside:16,18,52,46,high:4=2") == ["pose", "inside:16,18,52,46", "high:4=2"]


@pytest.mark.parametrize(
    ("text", "name", "width", "weight"),
    [
        ("pose", "pose", 3, 1.0),
        ("yaw=2", "yaw", 1, 2.0),
        ("inside:16,18,52,46", "inside:16,18,52,46", 3 * 36 * 28, 1.0),
        ("outside:16,18,52,46", "outside:16,18,52,46", 3 * (64 * 64 - 36 * 28), 1.0),
        ("inside:0,0,0,10,10,10,10,0", "inside:0,0,0,10,10,10,10,0", 300, 1.0),
        ("low:4=0.5", "low-4px", 3 * 16 * 16, 0.5),
        ("pixels", "pixels", 3 * 64 * 64, 1.0),
    ],
)
def test_a_text_is_the_feature_that_it_says(text, name, width, weight):
    feature, heavy = named.one(text, SHAPE)
    assert (feature.name, len(feature.columns), heavy) == (name, width, weight)


def test_a_recipe_that_sets_values_holds_what_is_typed():
    from toys import linear_module

    from steerable import recipe

    made = linear_module()
    turn = recipe.turn(None, values={"brightness": 0.5}, hold=["inside:0,0,2,2=3", "contrast", "low:2"], by="solve")
    setter = recipe.solver(made, turn)
    assert [one.name for one in setter.hold] == ["inside:0,0,2,2", "contrast", "low-2px"] and setter.weights == (3.0, 1.0, 1.0)


def test_the_background_is_outside_the_person():
    assert named.one("background", SHAPE)[0].name == "outside:person"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("idenity", r'unknown feature "idenity": did you mean "identity"'),
        ("inside:hiar", r'unknown part of a picture "hiar": did you mean "hair"'),
        ("low:x", r'a band is low:NUMBER, for example low:4; got "low:x"'),
        ("pose=-1", r"a weight is a number above 0, for example pose=2"),
        ("inside:1,2,3", r"a region is four whole numbers"),
        ("inside:0,0,80,80", r"does not fit into images of height x width 64 x 64"),
        ("lo:3", r'unknown kind of feature "lo": did you mean "low"'),
        ("inside:none.png", r"none.png is no picture that could be a mask"),
    ],
)
def test_a_text_that_says_nothing_is_refused_in_one_line(text, words):
    with pytest.raises(ValueError, match=words):
        named.one(text, SHAPE)


def test_a_mask_travels_in_the_text(tmp_path):
    inside = np.zeros((64, 64), np.uint8)
    inside[5:9, 3:30] = 255
    path = tmp_path / "mask.png"
    Image.fromarray(inside).save(path)
    text = named.portable(f"inside:{path}=2")
    path.unlink()
    feature, weight = named.one(text, SHAPE)
    assert weight == 2 and "," not in text
    assert torch.equal(feature(torch.ones(1, *SHAPE)), torch.ones(1, 3 * 4 * 27))


@pytest.mark.parametrize("text", ["inside:mask-8x8-AAAA", "outside:mask-64x64-", "inside:mask-9999x9999-AAAA"])
def test_a_mask_that_was_cut_is_refused(text):
    with pytest.raises(ValueError, match="does not have the size that it states"):
        named.one(text, SHAPE)
