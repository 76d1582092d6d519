"""Pixel features on images whose answer is known by eye."""

import pytest
import torch

from steerable.features.pixels import (
    BRIGHTNESS,
    COLOUR,
    CONTRAST,
    PIXELS,
    SATURATION,
    Box,
    RegionPixels,
    region_brightness,
    region_colour,
    region_grid,
    region_mask,
)


def flat(*rgb, size=6):
    return (torch.tensor(rgb, dtype=torch.float32)[None, :, None, None] * 2 - 1).expand(1, len(rgb), size, size).clone()


def test_a_grey_image_is_as_bright_as_its_grey():
    assert BRIGHTNESS(flat(0.25, 0.25, 0.25)).item() == pytest.approx(0.25)


def test_green_counts_most_in_brightness():
    assert BRIGHTNESS(flat(0, 1, 0)).item() == pytest.approx(0.587)


def test_half_black_half_white_has_a_contrast_of_a_half():
    images = flat(0, 0, 0)
    images[..., 3:] = 1
    assert CONTRAST(images).item() == pytest.approx(0.5)


def test_pure_red_is_fully_saturated_and_grey_not_at_all():
    assert SATURATION(torch.cat([flat(1, 0, 0), flat(0.5, 0.5, 0.5)]))[:, 0].tolist() == pytest.approx([1, 0])


def test_colour_is_the_mean_of_each_channel():
    assert COLOUR(flat(0.2, 0.4, 0.6))[0].tolist() == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize("feature", PIXELS, ids=lambda one: one.name)
def test_one_channel_images_are_measured_too(feature):
    assert feature(flat(0.5)).shape == (1, len(feature.columns))


@pytest.mark.parametrize("feature", PIXELS, ids=lambda one: one.name)
def test_gradients_of_a_flat_image_are_finite(feature):
    images = flat(0.5, 0.5, 0.5).requires_grad_()
    feature(images).sum().backward()
    assert images.grad.isfinite().all()


def test_columns_are_unique_over_all_pixel_features():
    features = [*PIXELS, region_grid(), region_brightness("box", Box(0, 0, 1, 1)), region_colour("box", Box(0, 0, 1, 1))]
    columns = [name for one in features for name in one.columns]
    assert len(set(columns)) == len(columns)


def test_a_region_is_measured_alone():
    images = flat(0, 0, 0)
    images[:, :, 1:3, 2:5] = 1
    assert region_brightness("patch", Box(1, 2, 3, 5))(images).item() == pytest.approx(1)


def test_an_inverted_region_is_everything_else():
    images = flat(0, 0, 0)
    images[:, :, 1:3, 2:5] = 1
    assert region_colour("rest", Box(1, 2, 3, 5), invert=True)(images)[0].tolist() == pytest.approx([0, 0, 0])


def test_a_box_counts_rows_from_the_top_and_columns_from_the_left():
    assert region_mask(Box(0, 1, 1, 3), 2, 4).tolist() == [[False, True, True, False], [False] * 4]


def test_a_box_outside_the_image_is_refused_with_the_images_size():
    with pytest.raises(ValueError, match="does not fit into images of height x width 6 x 6"):
        region_brightness("patch", Box(1, 2, 9, 5))(flat(0.5))


def test_a_box_inside_out_is_refused():
    with pytest.raises(ValueError, match=r"Box\(top, left, bottom, right\)"):
        Box(5, 0, 2, 3)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="no pixel of the 6 x 6 images is inside"):
        region_brightness("patch", torch.zeros(6, 6))(flat(0.5))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"a mask has the images' size \(6, 6\), got \(4, 4\)"):
        region_brightness("patch", torch.ones(4, 4))(flat(0.5))


def test_region_pixels_and_their_inverse_are_the_image_once():
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    inside, outside = (RegionPixels(Box(1, 1, 4, 5), (3, 6, 6), invert=invert)(images) for invert in (False, True))
    assert torch.equal(torch.cat([inside, outside], 1).sort(1).values, images.flatten(1).sort(1).values)


def test_region_pixels_name_channel_row_and_column():
    assert RegionPixels(Box(1, 2, 2, 4), (1, 6, 6)).columns == ("region-pixels-0-1-2", "region-pixels-0-1-3")


def test_region_pixels_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"reads images of \(3, 6, 6\), got \(1, 3, 8, 8\)"):
        RegionPixels(Box(1, 2, 2, 4), (3, 6, 6))(torch.zeros(1, 3, 8, 8))


def test_the_grid_names_its_cells_in_reading_order():
    images = flat(0, 0, 0)
    images[:, :, 2:4, 2:4] = 1
    grid = region_grid()
    assert dict(zip(grid.columns, grid(images)[0].tolist(), strict=True))["centre-brightness"] == pytest.approx(1)
    assert grid.columns[0] == "top-left-brightness" and grid(images).sum().item() == pytest.approx(1)


def test_a_large_grid_is_named_by_numbers():
    assert region_grid(4, 5).columns[-1] == "row-4-column-5-brightness"


def test_a_grid_without_rows_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        region_grid(0, 3)
