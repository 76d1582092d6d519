"""The networks of heads and digits: a short training reads better than a guess, and the same seed gives the same network."""

import struct

import numpy as np
import pytest
import torch

from steerable.features.digits import DigitNetwork, digit, digit_class
from steerable.features.heads import HeadNetwork, head_features
from steerable.features.network import measure
from steerable.rendered import FACTORS, drawn_numbers, heads
from steerable.training.classifier import sheared_share, train_classifier
from steerable.training.regressor import train_head_network


@pytest.fixture(scope="module")
def trained():
    return train_head_network(seed=0, steps=40, batch=32, pictures=256)


def test_forty_steps_read_a_background_and_a_hue(trained):
    """A guess of the middle is off by a quarter of the range on average."""
    guess = {factor.name: (factor.high - factor.low) / 4 for factor in FACTORS}
    assert trained.errors["background"] < 0.6 * guess["background"]
    assert trained.errors["hue"] < 0.9 * guess["hue"]
    assert set(trained.errors) == set(guess)


def test_the_same_seed_gives_the_same_network(trained):
    again = train_head_network(seed=0, steps=40, batch=32, pictures=256)
    assert all(torch.equal(a, b) for a, b in zip(trained.network.state_dict().values(), again.network.state_dict().values(), strict=True))


def test_features_of_heads_share_a_run_and_have_gradients(trained):
    features = head_features(trained.network)
    images = heads(drawn_numbers(3, seed=1)).requires_grad_()
    values = measure(features, images)
    assert [(one.name, one.unit) for one in features] == [(factor.name, factor.unit) for factor in FACTORS]
    assert torch.equal(torch.cat(list(values.values()), 1), trained.network(images))
    (slope,) = torch.autograd.grad(values["yaw"].sum(), images)
    assert bool(slope.any())
    loaded = HeadNetwork.from_state(trained.network.state_dict())
    assert torch.equal(loaded(images.detach()), trained.network(images.detach()))


@pytest.fixture(scope="module")
def strokes(tmp_path_factory):
    """Two classes that survive every distortion: an upright and a level bar."""
    folder = tmp_path_factory.mktemp("strokes")
    images, labels = np.zeros((200, 32, 32), np.uint8), np.arange(200, dtype=np.uint8) % 2
    images[labels == 0, 6:26, 14:18] = 255
    images[labels == 1, 14:18, 6:26] = 255
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        (folder / name).write_bytes(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())
    return folder


def test_a_classifier_tells_two_strokes_apart(strokes):
    found = train_classifier(strokes, seed=0, steps=25, batch=32, size=4)
    assert found.accuracy == 1.0 and found.accuracy_distorted > 0.9 and found.fit["pictures"] == 180
    image = torch.full((2, 1, 32, 32), -1.0)
    image[0, :, 6:26, 14:18] = 1
    image[1, :, 14:18, 6:26] = 1
    embedding, classes = digit(found.network)(image), digit_class(found.network)(image)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)
    assert classes.argmax(1).tolist() == [0, 1] and torch.allclose(classes.sum(1), torch.ones(2), atol=1e-5)
    assert found.sheared == 0  # strokes of one slant
    loaded = DigitNetwork.from_state(found.network.state_dict())
    assert torch.equal(digit(loaded)(image), embedding)


def test_what_a_network_sees_of_a_shear_is_measured():
    class Corner(DigitNetwork):
        """Sees the place of the ink in the top row, which a shear moves, or only how much there is, which it leaves."""

        def __init__(self, place):
            super().__init__()
            self.place = place

        def forward(self, images):
            top = (images[:, 0, 8:10] + 1).sum(1)
            ink = top.sum(1, keepdim=True)
            seen = (top * torch.arange(32.0)).sum(1, keepdim=True) / ink if self.place else ink
            return seen, seen

    images = torch.full((40, 1, 32, 32), -1.0)
    for row in range(40):  # strokes of one height, leaning and of two widths
        for y in range(6, 26):
            x = 16 + round((16 - y) * (row - 20) / 60)
            images[row, 0, y, x - 2 : x + 1 + row % 2] = 1.0
    place, amount = (sheared_share(Corner(one), images, torch.Generator().manual_seed(0)) for one in (True, False))
    assert place > 0.8 and amount < 0.2


def test_bad_numbers_are_refused(strokes, no_annotation_checks):
    with pytest.raises(ValueError, match="has no classes to tell apart"):
        train_classifier(np.zeros((20, 32, 32), np.uint8), steps=1)
    with pytest.raises(ValueError, match="steps, batch and size are 1 or more"):
        train_classifier(strokes, steps=0)
    with pytest.raises(ValueError, match="pictures as many as a batch"):
        train_head_network(pictures=10)
