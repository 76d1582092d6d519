"""What is looked at: on flat pictures and on boxes, where every number is known."""

import pytest
import torch

from steerable.evaluation.attribute import EDITS_MEASURED, LUMINANCE, PIXELS, Attribute, attribute_of, image_means, resolved
from steerable.features.network import column
from steerable.features.pixels import BRIGHTNESS, COLOUR


def flat(*colours):
    """A picture of one colour each, of full scale in [0, 1]."""
    return (2 * torch.tensor(colours) - 1)[:, :, None, None].expand(-1, -1, 8, 8).contiguous()


def box(left, width, size=16):
    """A white upright box on black, in the middle of the height."""
    image = -torch.ones(1, 1, size, size)
    image[..., 4:12, left : left + width] = 1
    return image


def read(attribute, images):
    return attribute(images, attribute.places(len(images), tuple(images.shape[1:]), seed=0))


def test_luminance_is_that_of_a_hundred_pixels_an_image():
    values = read(LUMINANCE, flat((1.0, 1, 1), (1.0, 0, 0), (0.0, 1, 0)))
    assert values.shape == (3, PIXELS) == (3, 100)
    assert values[:, 0].tolist() == pytest.approx([1, 0.299, 0.587]) and values.std(1).max() < 1e-6


def test_the_pixels_of_an_image_do_not_depend_on_how_many_there_are():
    assert torch.equal(LUMINANCE.places(3, (1, 8, 8), seed=5), LUMINANCE.places(9, (1, 8, 8), seed=5)[:3])
    assert not torch.equal(LUMINANCE.places(3, (1, 8, 8), seed=5), LUMINANCE.places(3, (1, 8, 8), seed=6))


@pytest.mark.parametrize(("name", "value"), [("red", 0.2), ("green", 0.4), ("blue", 0.6)])
def test_a_channel_s_walk_is_looked_at_through_that_channel(name, value):
    assert read(attribute_of(name), flat((0.2, 0.4, 0.6))).mean() == pytest.approx(value, abs=1e-6)


def test_lab_is_lab():
    grey = flat((0.5, 0.5, 0.5))
    assert read(attribute_of("lab-lightness"), grey).mean() == pytest.approx(53.4, abs=0.1)
    assert read(attribute_of("lab-red"), grey).abs().max() < 0.1 and read(attribute_of("lab-yellow"), grey).abs().max() < 0.1


def test_a_shift_is_read_from_the_centre_and_a_zoom_from_the_area():
    shift = read(attribute_of("shift-x"), torch.cat([box(4, 4), box(8, 4)]))
    assert float(shift[1] - shift[0]) == pytest.approx(4 / 16, abs=0.01)
    zoom = read(attribute_of("zoom"), torch.cat([box(4, 4), box(4, 8)]))
    assert float(zoom[1] / zoom[0]) == pytest.approx(2, rel=0.02)


def test_the_foreground_may_be_a_mask_of_ones_own():
    left = attribute_of("shift-x", foreground=lambda images: torch.ones_like(images[:, :1]) * (torch.arange(16) < 8))
    assert read(left, box(8, 4)).item() == pytest.approx(-0.25, abs=0.01) and "mask" in left.judge


@pytest.mark.parametrize("name", EDITS_MEASURED)
def test_every_edit_has_its_attribute(name):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert read(attribute_of(name), images).isfinite().all()


def test_a_feature_of_one_column_is_an_attribute_and_of_several_is_not():
    assert isinstance(resolved(BRIGHTNESS, "zoom"), Attribute) and resolved(LUMINANCE, "zoom") is LUMINANCE
    assert resolved(column(COLOUR, "red"), "anything").name == "red"
    with pytest.raises(ValueError, match='has the columns red, green, blue: choose one, st.column\\(feature, "red"\\)'):
        resolved(COLOUR, "zoom")


def test_an_unknown_knob_and_an_infinite_value_are_refused():
    with pytest.raises(ValueError, match='"smile" is no edit whose attribute is known'):
        attribute_of("smile")
    endless = Attribute("endless", "", "nobody", lambda images, _: torch.full((len(images), 1), torch.inf))
    with pytest.raises(ValueError, match='"endless" is infinite on 2 of 2 images'):
        read(endless, flat((0.0,), (1.0,)))


def test_an_image_in_which_nothing_is_found_has_no_value():
    assert image_means(torch.tensor([[1.0, torch.nan, 3.0]])).tolist() == [2.0]
    assert image_means(torch.full((2, 1), torch.nan)).isnan().all()
