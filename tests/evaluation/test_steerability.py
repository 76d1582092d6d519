"""Errors of walks on linear generators, where they are known by hand."""

import pytest
import torch
from toys import Brighten, LinearGenerator

from steerable.controls.directions import Directions
from steerable.evaluation.steerability import Steerability, ranks, series, steerability, table
from steerable.protocols import Knob


@pytest.fixture(scope="module")
def generator():
    return LinearGenerator(torch.ones(16, 1), torch.zeros(16), (1, 4, 4))


def walk(generator, length):
    return Directions((Brighten().knob,), generator.spaces["z"], torch.tensor([[length]]))


def test_a_walk_that_does_half_of_what_is_asked_is_off_by_the_other_half(generator):
    result = steerability(generator, walk(generator, 0.5), Brighten(), amounts=[0.4, -0.2, 0], n=5)
    assert result.amounts.tolist() == pytest.approx([-0.2, 0, 0.4])
    assert result.mean.tolist() == pytest.approx([0.01, 0, 0.04], abs=1e-6)
    assert result.relative.tolist() == pytest.approx([0.25, 0, 0.25], abs=1e-5)
    assert [row[3] for row in table(result)] == pytest.approx([0.04, 0, 0.16], abs=1e-6)


def test_the_batch_changes_nothing(generator):
    one, many = (steerability(generator, walk(generator, 0.3), Brighten(), n=7, batch=batch) for batch in (2, 100))
    assert torch.allclose(one.errors, many.errors, atol=1e-6) and one.errors.shape == (17, 7)


def test_the_band_is_that_of_a_mean():
    errors = torch.tensor([[1.0, 3.0, 1.0, 3.0]])
    result = Steerability(Knob("x", "", -1, 1), torch.tensor([1.0]), errors, errors, 0)
    assert result.band.item() == pytest.approx(1.96 * errors.std().item() / 2, rel=1e-4)
    mean, low, high = series({"one": result})["one"]
    assert (high - mean).item() == pytest.approx((mean - low).item()) == pytest.approx(result.band.item())


def test_the_order_is_judged_at_half_range_and_beyond(generator):
    results = {name: steerability(generator, walk(generator, length), Brighten(), n=9) for name, length in (("good", 0.9), ("bad", 0.2))}
    found = ranks(results)
    assert {abs(rank.amount) >= 0.25 for rank in found} == {True} and len(found) == 10
    assert all(rank.ordered and rank.apart for rank in found)
    assert not any(rank.ordered for rank in ranks(dict(reversed(results.items()))))


def test_overlapping_bands_are_not_apart(generator):
    results = {name: steerability(generator, walk(generator, 0.5), Brighten(), n=9) for name in "ab"}
    assert not any(rank.apart or rank.ordered for rank in ranks(results))


def test_what_cannot_be_compared_is_refused(generator):
    one, other = (steerability(generator, walk(generator, 0.5), Brighten(), n=3, amounts=amounts) for amounts in ([0.1], [0.2]))
    with pytest.raises(ValueError, match="at the same amounts, got one, other"):
        ranks({"one": one, "other": other})
    with pytest.raises(ValueError, match="2 latents or more, got n=1"):
        steerability(generator, walk(generator, 0.5), Brighten(), n=1)
