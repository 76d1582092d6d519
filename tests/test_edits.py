"""Edits do what their names say, leave out what they cannot know, and are read back by measured_edit."""

import pytest
import torch

from steerable.edits import EDITS, as_edit, check_visible, edit, measured_edit, within
from steerable.protocols import Knob


def blobs(n=4, channels=3, size=32):
    """Smooth images with something to hold on to everywhere."""
    rng = torch.Generator().manual_seed(0)
    return torch.nn.functional.interpolate(torch.rand(n, channels, 7, 7, generator=rng) * 1.6 - 0.8, (size, size), mode="bicubic")


def strokes(n=4, size=28):
    """White curves on black, as MNIST has them."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    images = []
    for i in range(n):
        curve = (x - 0.3 * torch.sin(3 * y + i) - 0.1 * i).abs() * (1 + (y.abs() > 0.7) * 50)
        images.append(torch.exp(-((curve / 0.12) ** 2)) * 2 - 1)
    return torch.stack(images)[:, None]


def dot(row, col, size=9):
    images = torch.full((1, 3, size, size), -1.0)
    images[:, :, row, col] = 1
    return images


def moved(name, amount, row, col):
    """Where the white dot of (row, col) goes."""
    targets, _ = EDITS[name](dot(row, col), torch.tensor([amount]))
    place = int(targets[0, 0].argmax())
    return place // 9, place % 9


@pytest.mark.parametrize("one", EDITS.values(), ids=EDITS)
def test_a_neutral_amount_changes_nothing(one):
    images = blobs()
    targets, mask = one(images, torch.zeros(4))
    assert torch.allclose(targets, images, atol=1e-4)
    assert mask.all()


@pytest.mark.parametrize("one", EDITS.values(), ids=EDITS)
def test_rows_do_not_depend_on_the_batch_and_inputs_stay(one):
    images, amounts = blobs(), torch.tensor([-1.0, -0.3, 0.2, 0.9]) * one.knob.high
    before = images.clone()
    targets, mask = one(images, amounts)
    alone, alone_mask = one(images[2:3], amounts[2:3])
    assert torch.equal(images, before)
    assert torch.allclose(targets[2:3], alone, atol=1e-5) and torch.equal(mask[2:3], alone_mask)


def test_brightness_adds_its_amount_to_the_luminance():
    images = blobs()
    targets, _ = EDITS["brightness"](images, torch.full((4,), 0.1))
    assert torch.allclose((targets - images) / 2, torch.tensor(0.1), atol=1e-6)


def test_blue_adds_to_blue_only():
    images = blobs()
    targets, _ = EDITS["blue"](images, torch.full((4,), 0.1))
    assert torch.allclose((targets - images).mean((0, 2, 3)), torch.tensor([0, 0, 0.2]), atol=1e-6)


def test_one_stop_of_contrast_doubles_the_deviation():
    images = blobs()
    targets, _ = EDITS["contrast"](images, torch.ones(4))
    assert torch.allclose(targets.std((1, 2, 3)), 2 * images.std((1, 2, 3)), rtol=1e-3)


def test_a_positive_shift_x_moves_right():
    assert moved("shift-x", 1 / 3, 4, 2) == (4, 5)


def test_a_positive_shift_y_moves_down():
    assert moved("shift-y", 1 / 3, 2, 4) == (5, 4)


def test_a_positive_rotation_is_counter_clockwise_as_seen():
    assert moved("rotate", 90.0, 1, 4) == (4, 1)  # from the top to the left


def test_a_zoom_of_one_doubles_the_distance_from_the_centre():
    assert moved("zoom", 1.0, 4, 6) == (4, 8)


def test_what_a_shift_brings_in_is_unknown():
    _, mask = EDITS["shift-x"](blobs(1), torch.tensor([0.25]))
    assert mask[0, 0, 0].tolist() == [0] * 8 + [1] * 24


def test_what_is_around_a_reduced_image_is_unknown():
    _, mask = EDITS["zoom"](blobs(1), torch.tensor([-1.0]))
    assert mask.mean().item() == pytest.approx(0.25, abs=0.02)


def test_enlarging_knows_everything():
    assert EDITS["zoom"](blobs(1), torch.tensor([1.0]))[1].all()


def test_colour_is_three_edits():
    assert [one.knob.name for one in edit("colour")] == ["red", "green", "blue"]


def test_an_unknown_edit_gets_the_nearest_name():
    with pytest.raises(ValueError, match=r'^unknown edit "roatte": did you mean "rotate"\? Known: blue, brightness, colour, .*zoom\.$'):
        edit("roatte")


def test_red_of_grey_images_is_refused():
    with pytest.raises(ValueError, match=r'"red" needs colour images .* got \(4, 1, 28, 28\)'):
        EDITS["red"](strokes(), torch.zeros(4))


def test_one_amount_an_image_is_asked_for():
    with pytest.raises(ValueError, match=r"expected \(4,\), got \(1,\)"):
        EDITS["zoom"](blobs(), torch.zeros(1))


def test_a_users_function_becomes_an_edit_that_knows_everything():
    invert = as_edit(lambda images, amounts: images * (1 - 2 * amounts[:, None, None, None]), Knob("invert", "", 0, 1))
    targets, mask = invert(blobs(), torch.ones(4))
    assert torch.equal(targets, -blobs()) and mask.all()


def test_a_users_function_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match=r'"crop" must return targets \(4, 3, 32, 32\)'):
        as_edit(lambda images, amounts: images[..., :8], Knob("crop", "", 0, 1))(blobs(), torch.zeros(4))


def test_an_edit_without_a_neutral_amount_is_refused():
    with pytest.raises(ValueError, match="neutral"):
        as_edit(lambda images, amounts: images, Knob("yaw", "deg", -1, 1, neutral=None))


@pytest.mark.parametrize("name", EDITS)
def test_doing_nothing_measures_zero(name):
    assert measured_edit(EDITS[name], blobs(), blobs()).tolist() == [0] * 4


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("fraction", [-0.83, -0.21, 0.07, 0.64])
def test_an_edit_of_a_picture_is_read_back(name, fraction):
    one, images = EDITS[name], blobs()
    amounts = torch.full((4,), fraction * one.knob.high)
    assert torch.allclose(measured_edit(one, images, one(images, amounts)[0]), amounts, atol=0.01 * one.knob.high)


@pytest.mark.parametrize("name", ["brightness", "contrast", "zoom", "shift-x", "shift-y", "rotate"])
@pytest.mark.parametrize("fraction", [-0.37, 0.07, 0.31])
def test_an_edit_of_strokes_on_black_is_read_back(name, fraction):
    one, images = EDITS[name], strokes()
    amounts = torch.full((4,), fraction * one.knob.high)
    assert torch.allclose(measured_edit(one, images, one(images, amounts)[0]), amounts, atol=0.02 * one.knob.high)


def test_a_flat_image_measures_zero_for_what_it_cannot_show():
    flat = torch.zeros(2, 3, 16, 16)
    assert measured_edit(EDITS["zoom"], flat, flat + 0.3).abs().max() < 1e-6


# ------------------------------------------------------------------ Lab, billboards, regions, visibility


@pytest.mark.parametrize(("name", "index"), [("lab-lightness", 0), ("lab-red", 1), ("lab-yellow", 2)])
def test_lab_edits_add_to_one_coordinate_of_lab(name, index):
    from kornia.color import rgb_to_lab

    images, amount = blobs() * 0.5, 5.0
    targets, mask = EDITS[name](images, torch.full((4,), amount))
    change = rgb_to_lab((targets + 1) / 2) - rgb_to_lab((images + 1) / 2)
    expected = torch.zeros(3)
    expected[index] = amount
    assert torch.allclose(change.mean((0, 2, 3)), expected, atol=0.05) and mask.all()


def test_lab_is_three_edits_and_needs_colour():
    assert [one.knob.name for one in edit("colour-lab")] == ["lab-lightness", "lab-red", "lab-yellow"]
    with pytest.raises(ValueError, match=r'"lab-red" needs colour images'):
        EDITS["lab-red"](strokes(), torch.zeros(4))


def test_a_billboard_that_faces_right_shrinks_on_the_right():
    grid = torch.full((1, 3, 65, 65), -1.0)
    grid[:, :, 24:41] = 1  # a bar across the picture, 17 high
    targets, mask = EDITS["rotate3d"](grid, torch.tensor([45.0]))
    heights = (targets[0, 0] > 0).sum(0)
    assert heights[16] > 17 > heights[48]
    assert mask[0, 0, 32].nonzero().min() == 5  # both sides come towards the middle


def test_a_billboard_turned_back_is_its_mirror_image():
    images = blobs(1)
    one, other = (EDITS["rotate3d"](picture, torch.tensor([angle]))[0] for picture, angle in ((images, 30.0), (images.flip(3), -30.0)))
    assert torch.allclose(one, other.flip(3), atol=1e-4)


def test_the_back_of_a_billboard_is_unknown():
    assert not EDITS["rotate3d"](blobs(1), torch.tensor([120.0]))[1].any()


def test_within_a_box_the_edit_is_done_and_outside_nothing():
    from steerable.features.pixels import Box

    images = blobs()
    targets, mask = within(EDITS["brightness"], Box(8, 4, 16, 20))(images, torch.full((4,), 0.1))
    change = targets - images
    assert torch.allclose(change[:, :, 8:16, 4:20], torch.tensor(0.2), atol=1e-6) and mask.all()
    assert change.abs().sum().item() == pytest.approx(change[:, :, 8:16, 4:20].abs().sum().item())


def test_within_a_users_mask_what_the_edit_does_not_know_stays_unknown():
    region = torch.zeros(32, 32)
    region[:16] = 1
    _, mask = within(EDITS["shift-x"], region)(blobs(1), torch.tensor([0.25]))
    assert not mask[0, 0, :16, :8].any() and mask[0, 0, 16:].all() and mask[0, 0, :16, 8:].all()


def test_within_a_function_of_the_picture_every_picture_has_its_own_region():
    images = blobs()
    bright = within(EDITS["red"], lambda x: (x.mean(1, keepdim=True) > 0).float(), name="bright-red")
    targets, _ = bright(images, torch.full((4,), 0.1))
    assert bright.knob.name == "bright-red"
    assert torch.equal((targets - images)[:, 0] > 0.1, images.mean(1) > 0)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (torch.ones(8, 8), r"a mask \(32, 32\) or \(4, 1, 32, 32\), got \(8, 8\)"),
        (torch.full((32, 32), 2.0), "from 0 .outside. to 1 .inside."),
        (lambda images: torch.ones(2, 1, 32, 32), r"got \(2, 1, 32, 32\)"),
    ],
)
def test_regions_that_do_not_fit_are_refused(region, message):
    with pytest.raises(ValueError, match=message):
        within(EDITS["brightness"], region)(blobs(), torch.zeros(4))


def test_a_box_outside_the_picture_is_refused():
    from steerable.features.pixels import Box

    with pytest.raises(ValueError, match="the box 0,0,40,10 .* is not inside images of 32 x 32"):
        within(EDITS["brightness"], Box(0, 0, 40, 10))(blobs(), torch.zeros(4))


@pytest.mark.parametrize(("name", "amount"), [("shift-x", 1.0), ("zoom", -6.0), ("rotate3d", 100.0)])
def test_amounts_that_leave_nothing_visible_are_refused(name, amount):
    with pytest.raises(ValueError, match=rf'"{name}" by .* leaves 0.\d % of a 32 x 32 picture known, at least 1 % are needed'):
        check_visible(EDITS[name], blobs(), (0.0, amount))


@pytest.mark.parametrize("name", EDITS)
def test_the_usual_range_of_an_edit_is_visible(name):
    check_visible(EDITS[name], blobs(), (EDITS[name].knob.low, EDITS[name].knob.high))


def test_a_region_is_found_once_for_the_same_images_and_again_when_they_change():
    seen = []

    def bright(images):
        seen.append(1)
        return (images.mean(1, keepdim=True) > 0).float()

    lighter = within(EDITS["brightness"], bright)
    images = torch.full((2, 3, 4, 4), -0.5)
    first, second = (lighter(images, torch.full((2,), amount))[0] for amount in (0.1, 0.2))
    assert len(seen) == 1 and torch.equal(first, images) and torch.equal(second, images)
    images += 1
    assert float(lighter(images, torch.full((2,), 0.1))[0].mean()) == pytest.approx(0.7) and len(seen) == 2
