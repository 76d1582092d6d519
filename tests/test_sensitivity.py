"""The local linear model: three ways to the same Jacobian, known by hand on a linear generator."""

import pytest
import torch
from toys import linear_generator

from steerable.protocols import Latents
from steerable.sensitivity import jacobian, product

GENERATOR = linear_generator(6, (3, 4, 4))
POINTS = GENERATOR.sample(5, seed=0).values


def pixels(values):
    return GENERATOR(Latents(values, GENERATOR.spaces["z"])).flatten(1)


def curved(values):
    return torch.stack([values.square().sum(1), values[:, 0].sin() * values[:, 1].exp()], 1)


def curved_by_hand(z):
    second = torch.zeros_like(z)
    second[:, 0] = z[:, 0].cos() * z[:, 1].exp()
    second[:, 1] = z[:, 0].sin() * z[:, 1].exp()
    return torch.stack([2 * z, second], 1)


@pytest.mark.parametrize(("method", "limit"), [("auto", 1e-6), ("forward", 1e-6), ("reverse", 1e-6), ("difference", 1e-4)])
def test_the_jacobian_of_a_linear_generator_is_its_matrix(method, limit):
    features, jac = jacobian(pixels, POINTS, method=method)
    assert torch.allclose(features, pixels(POINTS))
    assert torch.allclose(jac, GENERATOR.matrix.expand(5, -1, -1), atol=limit)


@pytest.mark.parametrize(("method", "limit"), [("auto", 1e-5), ("forward", 1e-5), ("reverse", 1e-5), ("difference", 5e-3)])
def test_the_jacobian_of_a_curved_function_is_the_one_by_hand(method, limit):
    assert torch.allclose(jacobian(curved, POINTS, method=method)[1], curved_by_hand(POINTS), atol=limit)


@pytest.mark.parametrize("method", ["forward", "reverse", "difference"])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_size_of_the_pieces_does_not_matter(method, chunk):
    assert torch.allclose(jacobian(curved, POINTS, method=method, chunk=chunk)[1], jacobian(curved, POINTS, method=method)[1], atol=1e-6)


@pytest.mark.parametrize("method", ["forward", "reverse", "difference"])
def test_a_row_does_not_depend_on_the_others(method):
    features, jac = jacobian(curved, POINTS, method=method)
    for row in range(len(POINTS)):
        alone = jacobian(curved, POINTS[row : row + 1], method=method)
        assert torch.allclose(alone[0], features[row : row + 1]) and torch.allclose(alone[1], jac[row : row + 1], atol=1e-6)


@pytest.mark.parametrize("method", ["forward", "reverse", "difference"])
def test_latents_of_any_shape_have_a_flat_jacobian(method):
    jac = jacobian(lambda z: curved(z.flatten(1)), POINTS.view(5, 2, 3), method=method)[1]
    assert torch.allclose(jac, curved_by_hand(POINTS), atol=5e-3)


def test_a_black_box_is_measured_by_differences():
    def black_box(values):
        return torch.from_numpy(pixels(values).numpy()[:, :4].copy())

    assert torch.allclose(jacobian(black_box, POINTS, method="difference")[1], GENERATOR.matrix[:4].expand(5, -1, -1), atol=1e-4)


def test_the_cheaper_of_the_two_modes_is_taken():
    """Forward mode makes one pass a latent dimension, reverse mode at most two passes a feature column."""
    calls = []

    def counted(values):
        calls.append(torch._C._functorch.peek_interpreter_stack() is not None and values.requires_grad)
        return pixels(values)

    modes = {}
    for width in (1, 48):
        calls.clear()
        jacobian(lambda z, width=width: counted(z)[:, :width], POINTS)
        modes[width] = any(calls)
    assert modes == {1: True, 48: False}


@pytest.mark.parametrize("method", ["forward", "reverse"])
def test_a_jacobian_holds_no_graph(method):
    features, jac = jacobian(curved, POINTS, method=method)
    assert not features.requires_grad and not jac.requires_grad


def test_a_product_is_the_jacobian_times_the_tangent():
    tangents = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    features, moved = product(curved, POINTS, tangents)
    assert torch.allclose(features, curved(POINTS))
    assert torch.allclose(moved, (curved_by_hand(POINTS) @ tangents[..., None])[..., 0], atol=1e-5)


def test_features_that_are_not_smooth_are_refused():
    with pytest.raises(ValueError, match=r"the Jacobian holds \d+ NaN or infinite numbers of 5: the features are not smooth here"):
        jacobian(lambda z: (0 * z).abs().sqrt().sum(1, keepdim=True)[:, :1], POINTS[:, :1], method="reverse")


@pytest.mark.parametrize("method", ["forward", "reverse", "difference"])
def test_one_number_a_row_without_a_column_is_refused(method):
    with pytest.raises(ValueError, match=r"features of 5 latents are \(n, m\), got \(5,\)"):
        jacobian(lambda z: z.sum(1), POINTS, method=method)


def test_points_are_not_written_to():
    before = POINTS.clone()
    for method in ("forward", "reverse", "difference"):
        jacobian(curved, POINTS, method=method)
    assert torch.equal(POINTS, before)
