"""StyleGAN 3, t and r: equal to the published code's outputs, moved as asked, differentiable both ways, clear about bad files."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from generators.parity import assert_equal, assert_gradient, cases, error, gradient_of, load
from torch.func import jacrev, jvp, vjp, vmap

from steerable.generators import families, processor, winograd_strips
from steerable.generators.filters import FilteredNonlinearity, lowpass
from steerable.generators.module import generator_of
from steerable.generators.stylegan3 import StyleGAN3, motion
from steerable.protocols import Latents

CASES = cases("stylegan3")


@pytest.fixture(scope="module")
def opened():
    """Case by name -> (case, generator, its latents in z)."""
    made = {}

    def get(name):
        if name not in made:
            case = load(name)
            generator = families.from_tensors(case.state, case.facts["constructor"], name=case.name)
            made[name] = case, generator, Latents(case.inputs["z"], generator.spaces["z"], case.inputs.get("c"))
        return made[name]

    return get


def small(*, seed=0, resolution=32, channel_base=256, channel_max=16, radial=False, bias=0.2, **arguments):
    """A random network of few channels with biases, normalised so that its images are neither flat nor saturated."""
    network = StyleGAN3(
        resolution=resolution,
        latent_size=8,
        width=10,
        kernel=1 if radial else 3,
        radial=radial,
        channel_base=channel_base,
        channel_max=channel_max,
        **arguments,
    )
    rng = torch.Generator().manual_seed(seed)
    network.initialise(rng)
    for layer in network.layers:
        layer.bias.data.normal_(std=bias, generator=rng)
    return network


# ------------------------------------------------------------------ the references


@pytest.mark.parametrize("name", CASES)
def test_w_and_its_truncations_equal_the_references(opened, name):
    case, generator, z = opened(name)
    rule, w = case.facts["truncation"], generator.to_space(z, "w")
    ws = generator.to_space(w, "w+")
    assert_equal(w.values, case.outputs["w"], "w")
    assert_equal(ws.values, case.outputs["ws"], "w")
    assert_equal(generator.truncate(ws, rule["psi"]).values, case.outputs["ws_psi07"], "w")
    assert_equal(generator.to_space(generator.truncate(w, rule["psi"]), "w+").values, case.outputs["ws_psi07"], "w")
    assert_equal(generator.truncate(ws, rule["psi"], cutoff=rule["cutoff"]).values, case.outputs["ws_psi07_cutoff"], "w")


@pytest.mark.parametrize("name", CASES)
def test_the_styles_of_every_layer_equal_the_references(opened, name):
    case, generator, z = opened(name)
    s = generator.to_space(z, "s")
    styles = {key.removeprefix("style/"): value for key, value in case.outputs.items() if key.startswith("style/")}
    assert set(styles) == {layer for layer, _, _ in s.space.layers}
    for layer, start, end in s.space.layers:
        assert_equal(s.values[:, start:end], styles[layer], "style", what=layer)


@pytest.mark.parametrize("name", CASES)
def test_images_equal_the_references(opened, name):
    case, generator, z = opened(name)
    inputs, rule, ws = case.inputs, case.facts["truncation"], generator.to_space(z, "w+")
    made = {
        "image_const": lambda: generator(z),
        "image_psi07": lambda: generator(generator.truncate(ws, rule["psi"])),
        "image_psi07_cutoff": lambda: generator(generator.truncate(ws, rule["psi"], cutoff=rule["cutoff"])),
        "image_transform": lambda: generator.configured(transform=inputs["transform"])(z),
        "image_zoom_out": lambda: generator.configured(transform=inputs["transform_zoom"].tolist())(z),
        "image_wplus": lambda: generator(ws.at(inputs["wplus"])),
    }
    for key, expected in case.outputs.items():
        if key.startswith("image"):
            assert_equal(made[key]()[: len(expected)], expected, "image", what=key)


@pytest.mark.parametrize("name", CASES)
def test_the_fourier_features_equal_the_references(opened, name):
    case, generator, z = opened(name)
    style = generator.to_space(z, "s").values[:1, :4]
    assert_equal(generator.network.input(style).permute(0, 3, 1, 2), case.outputs["synthesis_input_sample0"], "image")


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_the_references(opened, name):
    case, generator, z = opened(name)
    ws = generator.to_space(z, "w+")[:2]
    values = ws.values.clone().requires_grad_()
    assert_gradient(gradient_of(generator(ws.at(values)), values, case.inputs["cotangent"]), case.outputs["vjp_ws"])


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_read_from_the_tensors(opened, name):
    case, generator, _ = opened(name)
    facts = case.facts
    assert generator.image_shape == (facts["image_channels"], facts["resolution"], facts["resolution"])
    assert generator.spaces["z"].shape == (facts["z_dim"],)
    assert generator.spaces["w+"].shape == (facts["num_ws"], facts["w_dim"])
    assert (generator.classes or 0) == facts["c_dim"]
    for layer, stated in zip(generator.network.layers, facts["layers"], strict=False):
        filtered = layer.nonlinearity
        assert (filtered.up_factor, filtered.down_factor) == (stated["up"], stated["down"])
        assert (len(filtered.up), len(filtered.down)) == (stated["up_taps"], stated["down_taps"])
        assert (filtered.down.ndim == 2) == stated["radial"]


@pytest.mark.parametrize("name", CASES)
def test_our_filters_are_those_of_the_file(opened, name):
    _, generator, _ = opened(name)
    again = StyleGAN3(**generator.network.config).state_dict()
    for key, value in generator.network.state_dict().items():
        if key.endswith(("nonlinearity.up", "nonlinearity.down")):
            assert torch.allclose(again[key], value, atol=2e-6 * float(value.abs().max())), key


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_filters_that_were_rounded_with_their_weights_are_known(name, dtype):
    case = load(name)
    rounded = {key: tensor.to(dtype) for key, tensor in case.state.items()}
    assert families.from_tensors(rounded, case.facts["constructor"]).image_shape[1] == case.facts["resolution"]


@pytest.mark.parametrize("name", CASES)
def test_arguments_and_tensors_that_contradict_each_other_are_refused(name):
    case = load(name)
    stated = case.facts["constructor"]
    layers = [layer["name"] for layer in case.facts["layers"]]
    wrong = [
        ("img_resolution=", {**stated, "img_resolution": 2 * stated["img_resolution"]}),
        ("z_dim=", {**stated, "z_dim": stated["z_dim"] + 1}),
        ("c_dim=", {**stated, "c_dim": stated["c_dim"] + 2}),
        ("mapping layers", {**stated, "mapping_kwargs": {"num_layers": 7}}),
        ("use_radial_filters=", {**stated, "use_radial_filters": not stated.get("use_radial_filters", False)}),
        (f"layer {layers[0]} would be ", {**stated, "margin_size": 13}),
        (r"layer L\d+_\d+_\d+ would be ", {**stated, "channel_max": 3}),
        ("taps", {**stated, "filter_size": 4}),
        ("cutoff", {**stated, "first_stopband": 3.5}),
        ("conv_clamp is a number", {**stated, "conv_clamp": "high"}),
        ("mapping_kwargs is a dict", {**stated, "mapping_kwargs": 2}),
    ]
    for message, arguments in wrong:
        with pytest.raises(ValueError, match=message) as caught:
            families.from_tensors(case.state, arguments, name="it")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_missing_and_unknown_tensors_are_named(name):
    case = load(name)
    layer = case.facts["layers"][3]["name"]
    for key in (
        f"synthesis.{layer}.affine.bias",
        f"synthesis.{layer}.up_filter",
        "synthesis.input.weight",
        "mapping.w_avg",
        "mapping.fc0.bias",
    ):
        ours = key.removeprefix("synthesis.").split(".")[-1].removesuffix("_filter").replace("w_avg", "mean")
        with pytest.raises(ValueError, match=rf"{ours}"):
            families.from_tensors({k: v for k, v in case.state.items() if k != key}, case.facts["constructor"], name="it")
    with pytest.raises(ValueError, match=r"left over.*synthesis\.L3_extra"):
        families.from_tensors({**case.state, "synthesis.L3_extra": torch.zeros(1)}, case.facts["constructor"], name="it")
    with pytest.raises(ValueError, match="numbered without gaps"):
        families.from_tensors({k: v for k, v in case.state.items() if f".{layer}." not in k}, case.facts["constructor"], name="it")


# ------------------------------------------------------------------ motion


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def distance(a, b):
    return float((a - b).square().mean().sqrt())


@pytest.fixture(scope="module")
def turning():
    """An untrained r network of 64 px, whose pictures follow every motion."""
    return generator_of(small(resolution=64, channel_base=1024, channel_max=24, radial=True, bias=0.5), name="turning")


@pytest.mark.parametrize(("x", "y"), [(8, 0), (0, 8), (-12, 4)])
@pytest.mark.parametrize("radial", [False, True])
def test_a_shift_moves_the_picture_to_the_right_and_down(radial, x, y):
    generator = generator_of(small(resolution=64, channel_base=1024, channel_max=24, radial=radial, bias=0.5), name="it")
    z = generator.sample(2, seed=3, space="z")
    still, moved = generator(z), generator.configured(transform=motion(shift=(x / 64, y / 64)))(z)
    expected = still.roll((y, x), dims=(2, 3))
    inside = (..., slice(12, -12), slice(12, -12))
    assert correlation(moved[inside], expected[inside]) > 0.995
    assert distance(moved[inside], expected[inside]) < 0.3 * distance(moved[inside], still[inside])


def test_a_rotation_turns_the_picture_counter_clockwise(turning):
    z = turning.sample(2, seed=1, space="z")
    still, moved = turning(z), turning.configured(transform=motion(rotate=90))(z)
    inside = (..., slice(10, -10), slice(10, -10))
    assert correlation(moved[inside], still.rot90(1, (2, 3))[inside]) > 0.99
    assert distance(moved[inside], still.rot90(1, (2, 3))[inside]) < 0.3 * distance(moved[inside], still.rot90(-1, (2, 3))[inside])


def test_a_zoom_of_1_doubles_the_picture(turning):
    z = turning.sample(2, seed=1, space="z")
    still, moved = turning(z), turning.configured(transform=motion(zoom=1))(z)
    doubled = F.interpolate(still[..., 16:-16, 16:-16], scale_factor=2, mode="bicubic", align_corners=False)
    assert correlation(moved[..., 8:-8, 8:-8], doubled[..., 8:-8, 8:-8]) > 0.97


def test_a_motion_is_the_inverse_of_what_happens_to_a_point():
    angle = math.radians(30)
    forward = torch.tensor([[math.cos(angle), math.sin(angle), 0.1], [-math.sin(angle), math.cos(angle), -0.2], [0, 0, 1]])
    forward[:2, :2] *= 2**0.5
    assert torch.allclose(motion(rotate=30, shift=(0.1, -0.2), zoom=0.5) @ forward, torch.eye(3), atol=1e-6)
    assert torch.equal(motion(), torch.eye(3))


@pytest.mark.parametrize("bad", [torch.eye(2), [[1, 0, 0]], "left", [[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]], 3.0])
def test_what_is_no_matrix_is_refused(turning, bad):
    with pytest.raises(ValueError, match=r"transform is a 3 x 3 matrix.*motion") as caught:
        turning.configured(transform=bad)(turning.sample(1, seed=0))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ laws


@pytest.fixture(scope="module", params=["t", "r"])
def generator(request):
    return generator_of(small(radial=request.param == "r"), name=request.param)


def test_rows_do_not_depend_on_the_batch(generator):
    z = generator.sample(3, seed=0, space="z")
    scaled = generator.to_space(z, "s")
    scaled = scaled.at(torch.cat([scaled.values[:2], 50 * scaled.values[2:]]))  # the published code divides by the batch's styles
    assert torch.equal(generator(scaled)[:1], generator(scaled[:1]))


def test_an_unprepared_network_gives_the_same_image(generator):
    fresh = StyleGAN3(**generator.network.config)
    fresh.load_state_dict(generator.network.state_dict())
    z = generator.sample(2, seed=0, space="z")
    with torch.no_grad():
        assert error(fresh(z.values), generator(z)) < 1e-6


def test_preparing_leaves_the_tensors_of_the_file_alone():
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.prepare()
    network.prepare()
    after = network.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)


def test_config_and_tensors_build_it_again(generator):
    state = {key: value.clone() for key, value in generator.network.state_dict().items()}
    again = families.build("stylegan3", generator.network.config, state, name=generator.name)
    z = generator.sample(2, seed=4, space="z")
    assert again.fingerprint == generator.fingerprint
    assert torch.equal(again(Latents(z.values, again.spaces["z"])), generator(z))


@pytest.mark.parametrize("space", ["z", "w+", "s"])
def test_forward_and_reverse_mode_agree(generator, space):
    latents = generator.sample(1, seed=2, space=space)
    rng = torch.Generator().manual_seed(0)
    tangent = torch.randn(latents.values.shape, generator=rng)

    def images(values):
        return generator(latents.at(values))

    made, along = jvp(images, (latents.values,), (tangent,))
    cotangent = torch.randn(made.shape, generator=rng)
    _, pull = vjp(images, latents.values)
    (back,) = pull(cotangent)
    assert torch.allclose((along * cotangent).sum(), (back * tangent).sum(), rtol=1e-3)


def test_derivatives_equal_finite_differences(generator):
    network = StyleGAN3(**generator.network.config).double()
    network.load_state_dict(generator.network.state_dict())
    network.requires_grad_(False).prepare()
    rng = torch.Generator().manual_seed(0)
    s = network.styles(network.mapping(torch.randn(1, 8, generator=rng).double())[:, None].expand(-1, len(network.names), -1))
    tangent = torch.randn(s.shape, generator=rng).double()
    _, along = jvp(network.synthesis, (s,), (tangent,))
    step = 1e-8
    difference = (network.synthesis(s + step * tangent) - network.synthesis(s - step * tangent)) / (2 * step)
    assert float((along - difference).abs().max()) < 1e-4 * float(along.abs().max())


def test_vmap_and_jacobians_run_through_it(generator):
    w = generator.sample(2, seed=5, space="w")
    one = vmap(lambda values: generator(w[:1].at(values[None]))[0])(w.values)
    assert error(one, generator(w)) < 1e-5
    tangents = torch.eye(10)[:2]
    _, pushed = vmap(lambda v: jvp(lambda x: generator(w[:1].at(x)).mean(dim=(2, 3)), (w.values[:1],), (v[None],)))(tangents)
    rows = jacrev(lambda x: generator(w[:1].at(x)).mean(dim=(2, 3))[0])(w.values[:1])  # (3, 1, 10)
    assert torch.allclose(pushed[:, 0], rows[:, 0, :2].T, rtol=1e-3, atol=1e-5)


def test_a_transform_can_be_followed_by_gradients(generator):
    s = generator.sample(1, seed=0, space="s")
    move = torch.eye(3, requires_grad=True)
    generator.configured(transform=move)(s).square().mean().backward()
    assert bool(torch.isfinite(move.grad).all()) and float(move.grad[:2].abs().max()) > 0


def test_bfloat16_stays_near_float32(generator, monkeypatch):
    monkeypatch.setattr(processor, "half", lambda device: True)  # emulated where the processor lacks it
    z = generator.sample(2, seed=0, space="z")
    fast, exact = generator.configured(precision="bfloat16")(z), generator(z)
    assert fast.dtype == torch.float32 and 0 < float((fast - exact).abs().max()) < 0.05 * float(exact.abs().max())
    with pytest.raises(ValueError, match='unknown precision "half"'):
        generator.configured(precision="half")(z)


def test_labels_reach_the_image():
    generator = generator_of(small(classes=4), name="it")
    images = [generator(generator.sample(1, seed=0, labels=label)) for label in (0, 3)]
    assert float((images[0] - images[1]).abs().max()) > 1e-3
    mixed = generator.sample(1, seed=0, labels=torch.tensor([[1.0, 0, 0, 0]]))
    assert torch.equal(generator(mixed), images[0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"resolution": 16, "layers": 5, "critical": 1},
        {"resolution": 64, "layers": 4, "critical": 1, "margin": 6},
        {"margin": 3, "taps": 4},
        {"upsampling": 1},
        {"upsampling": 4, "layers": 6},
        {"clamp": None, "mapping_layers": 8, "image_channels": 1},
    ],
)
@pytest.mark.parametrize("radial", [False, True])
def test_other_schedules_equal_zero_insertion(arguments, radial):
    network = small(radial=radial, **arguments).requires_grad_(False)
    network.prepare()
    s = network.styles(torch.randn(1, len(network.names), 10, generator=torch.Generator().manual_seed(0)))
    images = network.synthesis(s)
    assert images.shape == (1, *network.image_shape)
    for layer in network.layers:
        filtered = layer.nonlinearity
        x = torch.randn(filtered.in_size, filtered.in_size, 3, generator=torch.Generator().manual_seed(1))
        made = torch.cat(filtered(lambda first, last, x=x: x[first:last], 3)).permute(2, 0, 1)
        assert error(made, by_zero_insertion(filtered, x.permute(2, 0, 1))) < 3e-6


def by_zero_insertion(filtered: FilteredNonlinearity, x):
    """The definition: zeros between the samples, filter, leaky ReLU, filter, every so many samples."""
    up, down = filtered.up_factor, filtered.down_factor
    fine = torch.zeros(len(x), 1, len(x[0]) * up, len(x[0]) * up)
    fine[:, 0, ::up, ::up] = x
    total = (filtered.out_size - 1) * down + len(filtered.down) + len(filtered.up) - 1 - filtered.in_size * up
    low = (total + up) // 2
    fine = F.pad(fine, (low, total - low) * 2)
    fine = F.conv2d(fine, up**2 * torch.outer(filtered.up, filtered.up).flip(0, 1)[None, None])
    fine = F.leaky_relu(fine, 0.2) * math.sqrt(2)
    if filtered.clamp is not None:
        fine = fine.clamp(-filtered.clamp, filtered.clamp)
    kernel = filtered.down if filtered.down.ndim == 2 else torch.outer(filtered.down, filtered.down)
    return F.conv2d(fine, kernel.flip(0, 1)[None, None])[:, 0, ::down, ::down]


@pytest.mark.parametrize("size", [1, 5, 23, 60])
def test_strips_join_without_a_seam(size, monkeypatch):
    up, down = (lowpass(12, cutoff=3, width=4, rate=32) for _ in range(2))
    up, down = up + torch.linspace(0, 0.01, 12), down - torch.linspace(0, 0.01, 12)  # a flip would show
    filtered = FilteredNonlinearity(size + 2, size, up, down, up_factor=2, down_factor=2, clamp=1.0)
    x = torch.randn(size + 2, size + 2, 4, generator=torch.Generator().manual_seed(0))
    whole = by_zero_insertion(filtered, x.permute(2, 0, 1)).permute(1, 2, 0)
    for cached in (2**23, 1):
        monkeypatch.setattr("steerable.generators.filters.CACHED", cached)
        strips = filtered(lambda first, last: x[first:last], 4)
        assert error(torch.cat(strips), whole) < 1e-6


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 6), (15, 13)])
def test_winograds_filtering_is_a_convolution(rows, columns):
    rng = torch.Generator().manual_seed(0)
    x, kernel = torch.randn(rows + 2, columns, 64, generator=rng), torch.randn(70, 64, 3, 3, generator=rng)
    expected = F.conv2d(x.permute(2, 0, 1)[None].double(), kernel.double(), padding=(0, 2))[0].permute(1, 2, 0)
    got = winograd_strips.convolved(x, winograd_strips.transformed(kernel))
    assert error(got.double(), expected) < 1e-5


def test_wide_layers_use_it_without_a_visible_difference():
    network = small(resolution=32, channel_base=4096, channel_max=96).requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(1, 8, generator=rng)
    plain = network(z)
    network.prepare()
    assert any(layer.tiled is not None for layer in network.layers)
    assert error(network(z), plain) < 1e-5
    _, along = jvp(network, (z,), (torch.ones_like(z),))
    _, pull = vjp(network, z)
    assert torch.allclose(along.sum(), pull(torch.ones_like(plain))[0].sum(), rtol=1e-3)


def test_filters_pass_half_the_amplitude_at_their_cutoff():
    for taps, radial in ((12, False), (24, False), (12, True)):
        kernel = lowpass(taps, cutoff=4.0, width=6.0, rate=32, radial=radial).double()
        if radial:
            assert torch.allclose(kernel, kernel.T) and torch.allclose(kernel, kernel.flip(0))
            kernel = kernel.sum(0)
        places = torch.arange(taps) - (taps - 1) / 2
        passed = [float((kernel * torch.cos(2 * math.pi * f / 32 * places)).sum()) for f in (0.0, 4.0, 12.0)]
        assert passed == pytest.approx([1, 0.5, 0], abs=0.1)


def test_a_network_that_cannot_be_is_refused():
    for arguments in ({"critical": 14}, {"channels": [3, 4]}, {"resolution": 64, "layers": 2, "critical": 0}):
        with pytest.raises(ValueError, match=r"critical|channels") as caught:
            small(**arguments)
        assert not re.search("\n", str(caught.value))
