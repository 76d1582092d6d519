"""What is refused, and that the message holds what was got, what was expected and what to type."""

import pytest
import torch

from steerable import checks
from steerable.protocols import Knob, Latents, LatentSpace

FACES = LatentSpace("w", (3,), "3f9c0000", "faces64")
DIGITS = LatentSpace("w", (3,), "a8010000", "digits32")


def test_a_known_name_is_itself():
    assert checks.known("zoom", ["zoom", "rotate"], "edit") == "zoom"


def test_an_unknown_name_gets_the_nearest_and_all_known_ones_sorted():
    with pytest.raises(ValueError, match=r'^unknown edit "roatte": did you mean "rotate"\? Known: colour, rotate, zoom\.$'):
        checks.known("roatte", ["zoom", "rotate", "colour"], "edit")


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(ValueError, match=r'^unknown edit "xyz": Known: zoom\.$'):
        checks.known("xyz", ["zoom"], "edit")


def test_a_name_where_there_are_none_is_refused_in_words():
    with pytest.raises(ValueError, match=r"Known: none\.$"):
        checks.known("zoom", [], "edit")


def test_latents_of_the_space_pass():
    checks.lives_in(Latents(torch.zeros(1, 3), FACES), FACES, "this control")


def test_latents_of_another_space_are_refused_with_the_conversion():
    z = Latents(torch.zeros(1, 3), LatentSpace("z", (3,), "3f9c0000", "faces64"))
    with pytest.raises(
        ValueError,
        match=r'^this control lives in w of faces64 \(3f9c…\), got z latents\. Convert them .*: generator\.to_space\(latents, "w"\)\.$',
    ):
        checks.lives_in(z, FACES, "this control")


def test_latents_of_another_generator_are_refused_by_both_names():
    with pytest.raises(ValueError, match=r"belongs to faces64 \(3f9c…\), got latents of digits32 \(a801…\)"):
        checks.lives_in(Latents(torch.zeros(1, 3), DIGITS), FACES, "this control")


def test_a_control_of_another_generator_is_refused_by_both_names():
    with pytest.raises(ValueError, match=r"^walk\.safetensors was fitted on faces64 \(3f9c…\), this generator is digits32 \(a801…\)\.$"):
        checks.same_generator(FACES, "a8010000", "digits32", "walk.safetensors")


def test_amounts_of_another_shape_are_refused_with_the_knobs_names():
    knobs = (Knob("smile", "", -1, 1), Knob("yaw", "deg", -20, 20))
    with pytest.raises(ValueError, match=r"\(n, knobs\) = \(4, 2\) for smile, yaw; got \(4, 3\)"):
        checks.amounts(torch.zeros(4, 3), 4, knobs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_counted_and_refused(bad):
    with pytest.raises(ValueError, match=r"^weights: 1 of 3 numbers are NaN or infinite\.$"):
        checks.finite(torch.tensor([0.0, bad, 1.0]), "weights")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_amounts_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        checks.amounts(torch.tensor([[bad]]), 1, (Knob("smile", "", -1, 1),))


def test_a_picture_without_a_batch_is_told_to_add_it():
    with pytest.raises(ValueError, match=r"got torch\.float32 \(3, 8, 8\)\. Add the batch dimension: images\[None\]"):
        checks.images(torch.zeros(3, 8, 8))


def test_byte_images_are_refused():
    with pytest.raises(ValueError, match=r"images are float \(n, c, h, w\) in \[-1, 1\], got torch\.uint8"):
        checks.images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"expected 3 channels, got images of \(1, 1, 8, 8\)"):
        checks.images(torch.zeros(1, 1, 8, 8), channels=3)


@pytest.mark.parametrize(("given", "got"), [("faces64", '"faces64"'), (3, "int"), (torch.nn.Linear(2, 2), "Linear")])
def test_what_is_no_generator_is_told_how_to_become_one(given, got):
    with pytest.raises(TypeError, match=rf"^it needs the generator itself, got {got}: load_generator\(NAME_OR_FILE\) makes one"):
        checks.generator(given, "it")
