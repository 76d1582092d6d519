"""Walks on a linear generator, where the best direction is a least-squares solution."""

import json

import pytest
import torch
from toys import Brighten, LinearGenerator, layered_generator, linear_generator

from steerable.edits import as_edit, measured_edit
from steerable.fitting.walks import Task, fit_directions, relative_loss
from steerable.protocols import Knob, LatentSpace


@pytest.fixture(scope="module")
def generator():
    return linear_generator(6, (3, 4, 4))


@pytest.fixture(scope="module")
def walk(generator):
    """As it was trained, in the unit of the training."""
    return fit_directions(generator, Brighten(), n=1600, lr=0.3, calibration=0)


def test_the_walk_is_the_least_squares_solution(generator, walk):
    best = torch.linalg.lstsq(generator.matrix, torch.ones(48, 1)).solution[:, 0]
    assert torch.allclose(walk.vectors[0], best, atol=0.02 * float(best.norm()))


def test_the_held_out_loss_is_that_of_the_least_squares_solution(generator, walk):
    best = torch.linalg.lstsq(generator.matrix, torch.ones(48, 1)).solution
    left = (generator.matrix @ best - 1).square().mean().item()
    assert walk.fit["held_out"]["brighten"]["mean"] == pytest.approx(left, rel=0.01)


def test_a_generator_that_can_do_the_edit_is_steered_perfectly():
    brightening = LinearGenerator(
        torch.cat([torch.ones(48, 1), torch.randn(48, 2, generator=torch.Generator().manual_seed(0))], 1), torch.zeros(48), (3, 4, 4)
    )
    fitted = fit_directions(brightening, Brighten(), n=1600, lr=0.3, calibration=0)
    assert fitted.fit["held_out"]["brighten"]["mean"] < 1e-3
    assert fitted.vectors[0].tolist() == pytest.approx([1, 0, 0], abs=0.02)


def test_colour_is_fitted_jointly_and_each_channel_finds_its_own_latent():
    channels = LinearGenerator(torch.eye(3).repeat_interleave(16, 0), torch.zeros(48), (3, 4, 4))
    fitted = fit_directions(channels, "colour", n=1600, lr=0.3, calibration=0)
    assert [knob.name for knob in fitted.knobs] == ["red", "green", "blue"]
    assert torch.allclose(fitted.vectors, 2 * torch.eye(3), atol=0.03)  # full scale is 2 on [-1, 1]


@pytest.mark.parametrize("optimiser", ["eigenbasis", "adam"])
@pytest.mark.parametrize("space", ["w", "w+", "s"])
def test_a_linear_walk_in_every_space_of_a_layered_generator(space, optimiser):
    """From w on the toy is linear: the walk solves it. Layers of w+ are found one by one."""
    generator = layered_generator()
    fitted = fit_directions(generator, Brighten(), n=1600, lr=0.3, calibration=0, space=space, optimiser=optimiser)
    latents = generator.sample(8, seed=9, space=space)
    moved = fitted.steer(latents, torch.full((8, 1), 0.4))
    assert fitted.space == generator.spaces[space]
    if space == "w":  # three layers of two styles from four numbers: one image channel each, so it can be done exactly
        assert fitted.fit["held_out"]["brighten"]["mean"] < 0.01
    assert torch.allclose(generator(moved) - generator(latents), torch.tensor(0.4), atol=0.03)


@pytest.mark.parametrize("space", ["z", "w", "w+", "s"])
def test_a_linear_walk_in_every_space_of_a_small_stylegan2(space):
    from steerable.generators.module import generator_of
    from steerable.generators.stylegan2 import StyleGAN2

    network = StyleGAN2([("z", [6, 9, 6])], [8, 6, 5])
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            scale = 100 if key.startswith("mapping") and key.endswith("weight") else 1
            tensor.copy_(scale * torch.randn(tensor.shape, generator=rng) + (1 if key.endswith("affine.bias") else 0))
    fitted = fit_directions(generator_of(network, name="tiny"), "brightness", n=384, lr=0.3, calibration=0, space=space)
    assert fitted.space.name == space and fitted.vectors.isfinite().all()
    if space != "z":  # the random mapping network is too wild for any straight line in z
        assert fitted.fit["held_out"]["brightness"]["mean"] < 0.95


def test_both_optimisers_find_the_same_walk(generator):
    ours, adams = (
        fit_directions(generator, Brighten(), n=3200, lr=lr, calibration=0, optimiser=name).vectors
        for name, lr in (("eigenbasis", 0.3), ("adam", 0.3))
    )
    assert torch.allclose(ours, adams, atol=0.02 * float(adams.norm()))


def test_amounts_that_are_far_more_often_weigh_so_much_less(generator):
    low, high = -1.0, 0.5
    task = Task(generator, (Brighten(),), (Knob("brightness", "of full scale", low, high, 0.0),), "l2")
    drawn, weights = [], []
    for _, some, how_much in task.samples(generator.sample(4096, seed=0), 16, torch.Generator().manual_seed(0), far=True):
        drawn.append(some[:, 0])
        weights.append(how_much)
    amounts, weight = torch.cat(drawn), torch.cat(weights)
    assert low <= float(amounts.min()) and float(amounts.max()) <= high
    assert float((amounts < 0).float().mean()) == pytest.approx(0.8, abs=0.01)  # 1^2 of 1^2 + .5^2
    for power in (1, 2, 3):  # the means of uniform amounts
        expected = (high ** (power + 1) - low ** (power + 1)) / ((power + 1) * (high - low))
        assert float((weight * amounts**power).mean()) == pytest.approx(expected, abs=5e-3)


def test_products_are_those_of_the_jacobian():
    """The gradient is 2 J'r; outer products of the sketches have the mean J'J."""
    from steerable.fitting.descent import products

    matrix = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    values = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
    squared, gradient, sketch = products(lambda x: x @ matrix.T, values, torch.Generator().manual_seed(2))
    assert torch.allclose(squared, (values @ matrix.T).square().sum(1), rtol=1e-4)
    assert torch.allclose(gradient, 2 * values @ matrix.T @ matrix, rtol=1e-3, atol=1e-3)
    assert torch.allclose(sketch.T @ sketch / 4000, matrix.T @ matrix, atol=0.1 * float((matrix.T @ matrix).norm()))


@pytest.mark.parametrize("far", [0.0, 0.5])
def test_the_answer_is_the_minimum_over_all_samples_where_the_matrix_is_the_same_everywhere(far):
    """Noisy targets: Newton's step from the mean place is the weighted mean of all of them, wherever the gradients were taken."""
    from steerable.fitting.descent import Eigenbasis

    space = LatentSpace("w", (4,), "toy")
    rng = torch.Generator().manual_seed(0)
    descent = Eigenbasis(space, 1, lr=far, steps=400, like=torch.zeros(1))
    targets = torch.randn(400, 4, generator=rng, dtype=torch.float64).float()
    for target in targets:  # |M - target|^2, sketched by rows of 2 times the identity, whose outer products have the mean I
        descent.step(torch.ones(4, 1), (2 * (descent.moves - target)).expand(4, 4), 2 * torch.eye(4), torch.ones(4))
    weights = torch.arange(1, 401) / torch.arange(1, 401).sum()
    assert torch.allclose(descent.answer[0], weights @ targets, atol=1e-4)
    assert not far or (descent.moves[0] - weights @ targets).norm() > 0.02  # which the last place is not


def test_layers_that_act_together_are_answered_by_the_mean():
    """A Newton step of each alone would go as many times too far as there are of them."""
    from steerable.fitting.descent import Eigenbasis

    layers = tuple((f"layer{i}", i, i + 1) for i in range(3))
    descent = Eigenbasis(LatentSpace("w+", (3, 2), "toy", layers=layers), 1, lr=0.5, steps=40, like=torch.zeros(1))
    rng = torch.Generator().manual_seed(0)
    for _ in range(40):
        slope = 2 * (descent.moves.sum(1) - 3.0)  # |sum of the rows - 3|^2
        descent.step(torch.ones(1, 1), slope[:, None].expand(1, 3, 2), torch.randn(1, 3, 2, generator=rng), torch.ones(1))
    assert torch.equal(descent.answer, descent.mean)
    assert torch.allclose(descent.answer.sum(1), torch.full((1, 2), 3.0), atol=0.2)


def test_a_fit_in_bfloat16_goes_as_far_and_says_what_it_was():
    from steerable import load_generator
    from steerable.fitting.walks import rounded

    faces = load_generator("faces64")
    some = faces.sample(4, seed=0)
    off = (rounded(faces, "bfloat16")(some) - faces(some)).abs()
    assert off.dtype == torch.float32 and 0 < float(off.mean()) < 0.01
    full, half = (fit_directions(faces, "brightness", n=128, calibration=0, precision=how).fit for how in ("float32", "bfloat16"))
    assert (full["precision"], half["precision"]) == ("float32", "bfloat16")
    assert half["held_out"]["brightness"]["mean"] == pytest.approx(full["held_out"]["brightness"]["mean"], rel=0.1)


def test_a_generator_with_a_precision_of_its_own_is_asked_for_it():
    from steerable.fitting.walks import rounded
    from steerable.generators.module import generator_of
    from steerable.generators.stylegan2 import StyleGAN2

    tiny = generator_of(StyleGAN2([("z", [6, 6])], [8, 6]), name="tiny")
    assert rounded(tiny, "bfloat16").options["precision"] == "bfloat16"
    assert rounded(tiny, "float32") is tiny


@pytest.mark.parametrize(("n", "rate"), [(16, 0.2), (512, 0.4), (1024, 0.8), (2048, 0.8)])
def test_short_fits_take_shorter_steps(n, rate):
    brightening = linear_generator(2, (3, 2, 2))
    assert fit_directions(brightening, Brighten(), n=n, held_out=1, calibration=0).fit["lr"] == pytest.approx(rate)


def test_a_space_too_wide_to_rotate_is_fitted_by_adam_at_adams_rate():
    fit = fit_directions(linear_generator(1100, (3, 2, 2)), Brighten(), n=32, held_out=1, calibration=0).fit
    assert (fit["optimiser"], fit["lr"]) == ("adam", 0.1)


def test_a_walk_may_be_learned_by_how_pictures_look():
    from steerable import load_backbone
    from steerable.features.perceptual import Perceptual

    pictures = LinearGenerator(torch.ones(3 * 64, 1), torch.zeros(3 * 64), (3, 8, 8))
    fitted = fit_directions(pictures, Brighten(), n=48, loss=Perceptual(load_backbone(size=32)), calibration=0)
    assert fitted.fit["loss"] == "perceptual" and fitted.vectors.isfinite().all()


class Squashed(LinearGenerator):
    """Walks brighten it by less the further they go: training over a wide range then makes too long a step for the short ones."""

    def __call__(self, latents):
        return super().__call__(latents).tanh()


@pytest.fixture(scope="module")
def squashed():
    faint = torch.full((48, 1), 0.1)
    return Squashed(torch.cat([faint, torch.randn(48, 2, generator=torch.Generator().manual_seed(0)) / 20], 1), torch.zeros(48), (3, 4, 4))


def asked_and_measured(generator, walk, edit, amount):
    latents = generator.sample(64, seed=77)
    moved = walk.steer(latents, torch.full((64, 1), amount))
    return measured_edit(edit, generator(latents), generator(moved)).mean().item()


@pytest.mark.parametrize("amount", [-0.2, 0.1, 0.25])
def test_a_calibrated_walk_does_what_it_is_asked(squashed, amount):
    edit = Brighten(Knob("brighten", "levels", -0.5, 0.5))
    walk = fit_directions(squashed, edit, n=800, lr=0.5)
    assert walk.knobs[0].low < -0.25 and walk.knobs[0].high > 0.25
    assert asked_and_measured(squashed, walk, edit, amount) == pytest.approx(amount, rel=0.1)


def test_calibration_changes_the_length_of_a_walk_and_not_its_direction(squashed):
    raw, calibrated = (fit_directions(squashed, Brighten(), n=320, lr=0.5, calibration=count) for count in (0, 32))
    assert torch.nn.functional.cosine_similarity(raw.vectors, calibrated.vectors).item() == pytest.approx(1)
    assert "calibration" in calibrated.fit and "calibration" not in raw.fit


def test_the_same_seed_gives_the_same_walk(generator):
    first, second = (fit_directions(generator, Brighten(), n=32, seed=3) for _ in range(2))
    assert torch.equal(first.vectors, second.vectors)


def test_the_global_random_state_is_left_alone(generator):
    before = torch.random.get_rng_state()
    fit_directions(generator, Brighten(), n=32)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_record_of_the_fit_is_json(walk):
    assert json.loads(json.dumps(walk.fit))["edits"] == ["brighten"]


def test_training_amounts_become_the_knobs_range(generator):
    fitted = fit_directions(generator, "brightness", n=32, amounts=(-0.1, 0.2), calibration=0)
    assert (fitted.knobs[0].low, fitted.knobs[0].high) == (-0.1, 0.2)


def test_not_moving_has_a_relative_loss_of_one(generator):
    losses = relative_loss(generator, Brighten(), torch.zeros(6), generator.sample(4, seed=0), -0.5, 0.5)
    assert set(losses.values()) == {1.0}


def test_unknown_pixels_are_left_out_of_the_loss():
    """The edit wants the left half brighter and knows nothing of the right half, where its target is nonsense."""

    def left(images, amounts):
        mask = torch.zeros_like(images[:, :1])
        mask[..., :2] = 1
        return torch.where(mask > 0, images + amounts[:, None, None, None], images.new_tensor(99.0)), mask

    both = LinearGenerator(torch.ones(16, 1), torch.zeros(16), (1, 4, 4))
    fitted = fit_directions(both, as_edit(left, Knob("left", "levels", -0.5, 0.5)), n=1600, lr=0.3, calibration=0)
    assert fitted.vectors[0].item() == pytest.approx(1, abs=0.01)


def test_pixels_unknown_to_an_earlier_edit_stay_unknown_when_a_later_one_moves_them():
    from steerable.edits import EDITS
    from steerable.edits import in_turn as _edited

    _, mask = _edited([EDITS["zoom"], EDITS["shift-x"]], torch.rand(1, 1, 16, 16), torch.tensor([[-1.0, 0.25]]))
    known = mask[0, 0].amax(0).nonzero()[:, 0]
    assert (int(known.min()), int(known.max())) == (8, 15)  # the middle half, moved to the right by a quarter


def test_a_loss_that_is_not_finite_stops_the_fit(generator):
    broken = as_edit(lambda images, amounts: images / 0, Knob("broken", "", -1, 1))
    with pytest.raises(ValueError, match="loss of broken is .* after 0 samples"):
        fit_directions(generator, broken, n=32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edits": "roatte"}, 'unknown edit "roatte": did you mean "rotate"'),
        ({"edits": "zoom", "n": 0}, "n has to be a number above 0, got 0"),
        ({"edits": "zoom", "lr": float("nan")}, "lr has to be a number above 0"),
        ({"edits": "zoom", "amounts": (1.0, 2.0)}, "with 0 between .log2.; got 1.0 to 2.0"),
        ({"edits": "zoom", "space": "w"}, "w"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(generator, arguments, message):
    with pytest.raises((ValueError, KeyError), match=message):
        fit_directions(generator, **arguments)


def test_something_that_is_no_edit_is_refused(generator):
    with pytest.raises(TypeError, match="got int. A function: as_edit"):
        fit_directions(generator, [3])
