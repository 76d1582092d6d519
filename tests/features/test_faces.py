"""The face measurements: their numbers are those that the networks' publishers get, and they can be differentiated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import jvp, vmap

from steerable import zoo
from steerable.features import faces
from steerable.features.face_networks import EXPRESSIONS, Expression
from steerable.features.network import measure
from steerable.features.resize import resized

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, at the first jvp

EXPECTED = {key: torch.from_numpy(array) for key, array in np.load(Path(__file__).parents[1] / "data" / "expected_faces.npz").items()}
IMAGES = EXPECTED["images"] * 2 - 1  # stored in [0, 1]
NETWORKS = ("facemesh", "expression", "landmarks68", "identity", "age-gender", "person")
FACES = [name for name in zoo.feature_names()["all"] if name not in {*zoo.feature_names()["pixels"], *zoo.feature_names()["geometry"]}]


def close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-3) -> bool:
    return bool((found - expected).abs().max() <= relative * expected.abs().max()) and found.shape == expected.shape


def smooth(n: int, size: int = 64, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Blurred noise in [-1, 1]."""
    noise = torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return resized(noise, size, size)


@torch.no_grad()
def test_landmarks_are_the_expected_ones() -> None:
    assert close(zoo.load_network("facemesh")(IMAGES), EXPECTED["landmarks"], 1e-5)


@torch.no_grad()
def test_pose_is_the_expected_one() -> None:
    assert close(zoo.load_feature("pose")(IMAGES), EXPECTED["angles"])


@torch.no_grad()
def test_mouth_is_the_expected_one() -> None:
    assert close(zoo.load_feature("mouth")(IMAGES), EXPECTED["mouth"])


@torch.no_grad()
def test_expression_logits_are_the_expected_ones() -> None:
    assert close(zoo.load_network("expression")(IMAGES), EXPECTED["expression_logits"], 1e-5)


@torch.no_grad()
def test_the_68_landmarks_are_the_expected_ones() -> None:
    assert close(zoo.load_network("landmarks68")(IMAGES), EXPECTED["landmarks68"], 1e-5)


@torch.no_grad()
def test_identity_is_the_expected_one() -> None:
    assert close(zoo.load_feature("identity")(IMAGES), EXPECTED["identity"], 1e-5)


@torch.no_grad()
def test_age_is_the_expected_one() -> None:
    assert close(zoo.load_feature("age")(IMAGES)[:, 0], EXPECTED["age"], 1e-5)


@torch.no_grad()
def test_gender_logits_are_the_expected_ones() -> None:
    assert close(zoo.load_network("age-gender")(IMAGES)[1], EXPECTED["gender_logits"], 1e-5)


@torch.no_grad()
def test_smile_and_expression_are_differences_to_neutral() -> None:
    logits = EXPECTED["expression_logits"]
    found = torch.cat([zoo.load_feature("smile")(IMAGES), zoo.load_feature("expression")(IMAGES)], 1)
    assert close(found, logits[:, 1:] - logits[:, :1])
    assert zoo.load_feature("expression").columns == EXPRESSIONS[2:]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    network = zoo.load_network(name)
    whole, part = network(torch.cat([IMAGES, IMAGES[:5]])), network(IMAGES[3:5])
    for all_rows, rows in zip(*((out if isinstance(out, tuple) else (out,)) for out in (whole, part)), strict=True):
        torch.testing.assert_close(all_rows[3:5], rows, rtol=1e-4, atol=1e-4 * float(rows.abs().max()))


@pytest.mark.parametrize("name", [*FACES, "identity", "landmarks68"])
def test_forward_and_reverse_derivatives_agree(name: str) -> None:
    feature, images = zoo.load_feature(name), IMAGES[:1].clone()
    step = smooth(1, seed=1)
    values, moved = jvp(feature, (images,), (step,))
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    (slope,) = torch.autograd.grad((feature(images.requires_grad_()) * weights).sum(), images)
    forward, reverse = (moved * weights).sum(), (slope * step).sum()
    assert slope.isfinite().all()
    assert slope.any()
    torch.testing.assert_close(forward, reverse, rtol=2e-3, atol=1e-4 * float((moved * weights).abs().sum()))


@pytest.mark.parametrize("name", NETWORKS)
def test_jacobian_products_run_under_vmap(name: str) -> None:
    network = zoo.load_network(name)

    def first(images: torch.Tensor) -> torch.Tensor:
        out = network(images)
        return out[0] if isinstance(out, tuple) else out

    steps = torch.stack([smooth(1, seed=1), smooth(1, seed=2)])
    together = vmap(lambda step: jvp(first, (IMAGES[:1],), (step,))[1])(steps)
    alone = jvp(first, (IMAGES[:1],), (steps[1],))[1]
    torch.testing.assert_close(together[1], alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))


@pytest.mark.parametrize("size", [32, 100, 256])
@torch.no_grad()
def test_the_same_picture_at_another_size_measures_alike(size: int) -> None:
    pose = zoo.load_feature("pose")
    difference = (pose(resized(IMAGES, size, size)) - EXPECTED["angles"]).abs()
    assert difference.median() < (4 if size < 64 else 1)  # degrees


@pytest.mark.parametrize("shade", [-1.0, 0.0, 1.0])
def test_a_blank_image_measures_finite(shade: float) -> None:
    images = torch.full((1, 3, 64, 64), shade).requires_grad_()
    for values in measure(zoo.load_features("faces", "regions", "identity"), images).values():
        assert values.isfinite().all()
        (slope,) = torch.autograd.grad(values.sum(), images, retain_graph=True)
        assert slope.isfinite().all()


@torch.no_grad()
def test_grey_images_are_their_three_equal_channels() -> None:
    grey = IMAGES.mean(1, keepdim=True)
    features = zoo.load_features("faces", "regions")
    one, three = measure(features, grey), measure(features, grey.expand(-1, 3, -1, -1))
    for name, values in one.items():
        torch.testing.assert_close(values, three[name], rtol=1e-3, atol=1e-3, msg=name)


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels"):
        zoo.load_network("expression")(torch.zeros(1, 2, 64, 64))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="not of a Expression"):
        Expression.from_state(zoo.tensors("facemesh"))


@torch.no_grad()
def test_yaw_of_the_mirrored_face_has_the_other_sign() -> None:
    pose, judge = zoo.load_feature("pose"), zoo.load_feature("pose68")
    turned = EXPECTED["angles"][:, 0].abs() > 8
    for one in (pose, judge):
        there, back = one(IMAGES[turned])[:, 0], one(IMAGES[turned].flip(3))[:, 0]
        assert (there * back < 0).float().mean() > 0.8


@torch.no_grad()
def test_both_judges_agree_on_yaw() -> None:
    yaw, yaw68 = (zoo.load_feature(name)(IMAGES)[:, 0] for name in ("pose", "pose68"))
    assert torch.corrcoef(torch.stack([yaw, yaw68]))[0, 1] > 0.85


@torch.no_grad()
def test_colours_of_person_and_background_are_those_under_the_mask() -> None:
    images = torch.full((1, 3, 4, 4), -1.0)
    images[:, 0, :, 2:] = 1  # the right half is red
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    seen = faces.Beside(lambda _: mask)
    torch.testing.assert_close(faces.person_colour(seen)(images), torch.tensor([[0.299, 1, 0, 0]]))
    torch.testing.assert_close(faces.background_colour(seen)(images), torch.zeros(1, 4))
    torch.testing.assert_close(faces.person(seen)(images), torch.tensor([[0.5]]))


@torch.no_grad()
def test_an_empty_mask_gives_the_whole_pictures_colour() -> None:
    images = smooth(2)
    values = faces.person_colour(faces.Beside(lambda _: torch.zeros(2, 1, 64, 64)))(images)
    torch.testing.assert_close(values[:, 1:], ((images + 1) / 2).mean((2, 3)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_mask_covers_the_middle_of_a_face_and_not_the_corners() -> None:
    mask = zoo.load_network("person")(IMAGES)
    assert mask.shape == (16, 1, 64, 64)
    assert mask[..., 28:36, 28:36].mean() > 0.95
    assert mask[..., :4, :4].mean() < 0.6
    assert 0 <= mask.min() <= mask.max() <= 1


@torch.no_grad()
def test_features_that_share_a_network_share_its_object() -> None:
    assert zoo.load_feature("pose").network is zoo.load_feature("skin-colour").network  # type: ignore[attr-defined]
