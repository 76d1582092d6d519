"""Values set by number along an axis, on a generator whose pixels are linear in the latent."""

from __future__ import annotations

import pytest
import torch
from toys import LinearGenerator, OnePixel, linear_generator

from steerable.controls.controller import AlongAxis
from steerable.controls.directions import Directions
from steerable.protocols import Knob


def axis_of(generator: LinearGenerator, pixel: OnePixel, *, low: float = -1.0, high: float = 1.0) -> Directions:
    """The direction along which the pixel grows by one a unit: its row of the matrix over the row's square."""
    row = generator.matrix[0]
    percentiles = ((1.0, -1.5), (50.0, 0.0), (90.0, 0.6), (99.0, 1.5))
    knob = Knob(pixel.name, "levels", low, high, percentiles=percentiles)
    return Directions((knob,), generator.spaces["z"], (row / row.square().sum())[None])


@pytest.fixture
def generator() -> LinearGenerator:
    return linear_generator()


def test_the_asked_value_is_measured(generator: LinearGenerator) -> None:
    pixel = OnePixel()
    latents = generator.sample(5, seed=0)
    control = AlongAxis(generator, axis_of(generator, pixel), pixel)
    steered = control.steer(latents, torch.full((5, 1), 0.4))
    assert torch.allclose(pixel(generator(steered)), torch.full((5, 1), 0.4), atol=1e-3)


def test_the_knob_sets_a_value_and_has_no_neutral_one(generator: LinearGenerator) -> None:
    control = AlongAxis(generator, axis_of(generator, OnePixel()), OnePixel())
    assert control.knobs[0].neutral is None
    assert (control.knobs[0].low, control.knobs[0].high) == (-1.5, 1.5)


def test_every_face_gets_its_own_value(generator: LinearGenerator) -> None:
    pixel = OnePixel()
    wanted = torch.tensor([[-0.3], [0.0], [0.5]])
    outcome = AlongAxis(generator, axis_of(generator, pixel), pixel).solve(generator.sample(3, seed=1), wanted)
    assert bool(outcome.found.all())
    assert torch.allclose(outcome.reached, wanted[:, 0], atol=1e-3)


def test_an_unreachable_value_says_what_is_reachable(generator: LinearGenerator) -> None:
    pixel = OnePixel()
    outcome = AlongAxis(generator, axis_of(generator, pixel), pixel).solve(generator.sample(1, seed=2), torch.tensor([[60.0]]))
    assert not bool(outcome.found[0])
    assert float(outcome.reached[0]) == pytest.approx(float(outcome.reachable[0, 1]))
    (message,) = outcome.messages("levels")
    assert "60 levels asked" in message
    assert "reachable here" in message


def test_rows_do_not_depend_on_the_batch(generator: LinearGenerator) -> None:
    pixel = OnePixel()
    latents = generator.sample(4, seed=3)
    control = AlongAxis(generator, axis_of(generator, pixel), pixel)
    together = control.steer(latents, torch.full((4, 1), 0.2)).values
    alone = control.steer(latents[2:3], torch.full((1, 1), 0.2)).values
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_an_axis_of_another_generator_is_refused_by_name(generator: LinearGenerator) -> None:
    other = LinearGenerator(generator.matrix, generator.offset, generator.image_shape, fingerprint="ffff", name="other")
    with pytest.raises(ValueError, match=r"fitted on other \(ffff…\)"):
        AlongAxis(generator, axis_of(other, OnePixel()), OnePixel())


def test_of_two_crossings_the_one_where_more_is_asked_for_is_taken() -> None:
    from steerable.controls.controller import _bracket

    grid = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    values = torch.tensor([[3.0, 2.0, 0.0, 0.5, 0.8, 2.0]])  # it also rises behind the start, and sooner
    low, high, *_, found = _bracket(grid, values, torch.tensor([1.0]))
    assert (float(low[0]), float(high[0]), bool(found[0])) == (2.0, 3.0, True)
