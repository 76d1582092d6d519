"""Regions: polygons by hand, and parts that every picture shows elsewhere."""

import pytest
import torch

from steerable.features.pixels import RegionPixels, region_mask
from steerable.features.regions import PartPixels, Polygon, parts

SHAPE = (3, 8, 8)


def upper(images):
    """The rows in which a picture is brighter than 0."""
    return (images.mean((1, 3), keepdim=True) > 0).float().expand(-1, 1, -1, images.shape[3])


def pictures(*bright_rows):
    images = -torch.ones(len(bright_rows), *SHAPE)
    for image, rows in zip(images, bright_rows, strict=True):
        image[:, :rows] = 1
    return images


def test_a_rectangle_as_a_polygon_is_the_box():
    assert torch.equal(Polygon(((2, 1), (2, 5), (6, 5), (6, 1))).mask(8, 8), region_mask(torch.eye(8) * 0 + box(2, 1, 6, 5), 8, 8))


def box(top, left, bottom, right):
    mask = torch.zeros(8, 8)
    mask[top:bottom, left:right] = 1
    return mask


def test_a_triangle_holds_the_pixels_whose_centres_lie_inside():
    mask = Polygon(((0, 0), (8, 0), (8, 8))).mask(8, 8)
    assert mask.sum() == 28 and not mask[0].any() and mask[7, :7].all()


@pytest.mark.parametrize("corners", [((0, 0), (1, 1)), ((0, 0), (0, 4, 4), (4, 4))])
def test_two_corners_are_no_polygon(corners, no_annotation_checks):
    with pytest.raises(ValueError, match=r"a polygon has 3 corners \(row, column\) or more"):
        Polygon(corners)


def test_a_corner_outside_the_picture_is_refused():
    with pytest.raises(ValueError, match=r"the corner \(9, 9\) of a polygon lies outside the images of height x width 8 x 8"):
        RegionPixels(Polygon(((0, 0), (0, 4), (9, 9))), SHAPE)


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_a_mean_square_is_one_over_the_part_whatever_its_size(rows):
    feature = PartPixels("bright", SHAPE, upper)
    start = pictures(rows)
    anchored = feature.at(start)
    moved = start.clone()
    moved[:, :, :rows] -= 0.5  # only there
    assert (anchored(moved) - anchored(start)).square().mean().sqrt().item() == pytest.approx(0.5, rel=1e-5)


def test_what_changes_outside_the_part_is_not_seen_and_inverted_nothing_else_is():
    start = pictures(4)
    moved = start.clone()
    moved[:, :, 4:] += 0.5
    inside, outside = PartPixels("bright", SHAPE, upper), PartPixels("dark", SHAPE, upper, invert=True)
    assert torch.equal(inside.at(start)(moved), inside.at(start)(start))
    assert (outside.at(start)(moved) - outside.at(start)(start)).square().mean().sqrt().item() == pytest.approx(0.5, rel=1e-5)


def test_an_anchored_part_stays_where_it_was_and_pictures_belong_to_its_rows_in_turn():
    start = pictures(2, 6)
    anchored = PartPixels("bright", SHAPE, upper).at(start)
    moved = pictures(5, 5)
    assert torch.equal(anchored(moved.repeat(2, 1, 1, 1))[2:], anchored(moved))
    alone = anchored.rows(torch.tensor([1]))
    assert torch.equal(alone(moved[1:]), anchored(moved)[1:])
    assert (anchored(moved)[0].view(SHAPE)[:, 3] == 0).all()  # the region of the first picture, two rows, not five


def test_a_picture_that_does_not_show_the_part_is_refused_by_number():
    with pytest.raises(ValueError, match=r"1 of 2 pictures show no bright: the first is number 1"):
        PartPixels("bright", SHAPE, upper).at(pictures(3, 0))


def test_hair_is_of_the_person_and_not_of_the_face():
    mesh = torch.zeros(2, 468, 3)
    angles = torch.linspace(0, 2 * torch.pi, 468)
    mesh[..., 0], mesh[..., 1] = 96 + 30 * angles.cos(), 96 + 30 * angles.sin()  # a ring: every hull is inside it
    found = parts(lambda images: mesh, lambda images: torch.ones(2, 1, 64, 64))
    images = torch.zeros(2, 3, 64, 64)
    face, hair = found["face"](images), found["hair"](images)
    assert 0 < face.sum() < face.numel() and 0 < hair.sum() < hair.numel()
    assert (face * hair).sum() == 0
    assert set(found) == {"person", "face", "hair", "eyes", "mouth", "nose"}
