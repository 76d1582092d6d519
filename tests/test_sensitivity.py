"""The local linear model: three ways to the same Jacobian, known by hand on a linear generator."""

import pytest
import torch
from safetensors.torch import load
from toys import dcgan_file, linear_generator

from steerable.features.network import feature
from steerable.features.pixels import Box, RegionPixels
from steerable.generators import dcgan
from steerable.protocols import Latents
from steerable.sensitivity import Generated, gram, jacobian, operator, product

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


# ------------------------------------------------------------------ products, matrices, and how they are made


def test_products_from_both_sides_are_those_of_the_matrix():
    model = operator(pixels, POINTS)
    rng = torch.Generator().manual_seed(0)
    right, left = torch.randn(5, 3, 6, generator=rng), torch.randn(5, 2, 48, generator=rng)
    assert torch.allclose(model.push(right), right @ GENERATOR.matrix.T, atol=1e-5)
    assert torch.allclose(model.pull(left), left @ GENERATOR.matrix, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "method", "words"),
    [
        (1, "reverse", "reverse: 2 passes for 1 columns, forward mode would take 6"),
        (48, "forward", "forward: 6 passes for 6 directions, reverse mode would take 96"),
    ],
)
def test_the_plan_says_what_was_picked_and_by_which_count(width, method, words):
    plan = jacobian(lambda z: pixels(z)[:, :width], POINTS).plan
    assert plan.method == method and str(plan).startswith(words)


@pytest.mark.parametrize("method", ["forward", "reverse", "difference"])
def test_a_gram_matrix_is_the_jacobian_s_whichever_way_it_is_made(method):
    exact = curved_by_hand(POINTS).mT @ curved_by_hand(POINTS)
    assert torch.allclose(gram(curved, POINTS, method=method), exact, rtol=2e-2, atol=2e-2)


def test_where_the_jacobian_does_not_fit_its_gram_matrix_is_made_of_products():
    model = operator(pixels, POINTS)
    whole = model.grams([20, 28])
    chained = model.grams([20, 28], memory=0)
    for a, b in zip(whole, chained, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert torch.allclose(whole[0], (GENERATOR.matrix[:20].T @ GENERATOR.matrix[:20]).expand(5, -1, -1), atol=1e-4)


def test_random_projection_keeps_the_gram_matrix_on_average():
    wide = torch.randn(2000, 6, generator=torch.Generator().manual_seed(3))
    exact = wide.T @ wide
    model = operator(lambda z: z @ wide.T, POINTS)
    drawn = [model.grams([2000], project=20, seed=seed)[0][0] for seed in range(20)]
    off = (2 / (20 * 6)) ** 0.5 * exact.trace()
    assert (drawn[0] - exact).norm() < 3 * off
    assert (torch.stack(drawn).mean(0) - exact).norm() < 3 * off / 20**0.5


def test_groups_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"the groups have to add up to 48 columns, got \[20, 20\]"):
        operator(pixels, POINTS).grams([20, 20])


# ------------------------------------------------------------------ black boxes


def test_the_step_of_differences_follows_the_scale_of_the_latent():
    def stretched(z):
        return curved(z / 1000)

    by_hand = curved_by_hand(POINTS) / 1000
    assert torch.allclose(jacobian(stretched, 1000 * POINTS, method="difference")[1], by_hand, rtol=2e-2, atol=2e-5)


def test_a_black_box_that_differs_the_second_time_is_refused():
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"has to give the same numbers twice, and differs by .* fix its random seed"):
        jacobian(lambda z: curved(z) + 0.1 * torch.randn(len(z), 2, generator=rng), POINTS, method="difference")


def test_rounded_numbers_are_refused():
    def rounded(z):
        return (20 * z).round() / 20

    with pytest.raises(ValueError, match="stand still for small steps and jump for large ones: measure float images"):
        jacobian(rounded, POINTS.round(), method="difference")


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match=r"differences need float features, got torch.uint8"):
        jacobian(lambda z: pixels(z).to(torch.uint8), POINTS, method="difference")


def test_columns_without_gradients_are_measured_beside_those_with():
    latents = GENERATOR.sample(3, seed=1)
    smooth = feature(lambda images: images[:, 0, 0], name="row", columns=tuple("abcd"), differentiable=True)
    black = feature(lambda images: images.detach().numpy()[:, 0, 1].copy(), name="box", columns=tuple("efgh"))
    features, jac = jacobian(Generated(GENERATOR, (black, smooth), latents, (1.0, 2.0)), latents.values)
    assert torch.allclose(jac[:, :4], GENERATOR.matrix[4:8].expand(3, -1, -1), atol=1e-3)
    assert torch.allclose(jac[:, 4:], 2 * GENERATOR.matrix[:4].expand(3, -1, -1), atol=1e-5)
    assert torch.allclose(features[:, 4:], 2 * GENERATOR(latents)[:, 0, 0])


def test_a_network_that_knows_its_derivative_gives_the_same_one():
    generator = dcgan.from_state_dict(load(dcgan_file()))
    latents = generator.sample(2, seed=0)
    local = Generated(generator, (RegionPixels(Box(0, 0, *generator.image_shape[1:]), generator.image_shape),), latents)
    known, plain = jacobian(local, latents.values), jacobian(local.__call__, latents.values)
    assert "linear passes with shared masks" in known.plan.why and "automatic" in plain.plan.why
    assert torch.allclose(known[1], plain[1], atol=1e-5)
