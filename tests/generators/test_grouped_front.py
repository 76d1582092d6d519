"""Groups in front of a frozen generator: at first its own pictures, later its own weights still, and a file that holds both."""

import json

import pytest
import torch
from toys import layered_generator

from steerable import store
from steerable.features.pixels import BRIGHTNESS
from steerable.generators.dcgan import DCGAN
from steerable.generators.dcgan_discriminator import initialised
from steerable.generators.grouped_front import GroupedFront
from steerable.generators.module import generator_of
from steerable.training.contrastive import Contrast
from steerable.training.controllable import pictures_of, train_controllable
from steerable.training.groups import Group, Groups

MAPPING = [["light", [4, 8, 4]], ["rest", [8, 8, 8]]]
GROUPS = Groups((Group("light", 4, Contrast(BRIGHTNESS, "l1")), Group("rest", 8)))


def frozen():
    network = initialised(DCGAN([12, 8, 4, 1]), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(6)  # pictures that are not grey
    return generator_of(network, name="small")


def front(made, seed=0):
    found = GroupedFront(MAPPING, "dcgan", made.network.config)
    found.inner.load_state_dict(made.network.state_dict())
    found.initialise(torch.Generator().manual_seed(seed))
    return found


def test_untrained_groups_show_the_frozen_generator_s_pictures():
    made = frozen()
    own = made.sample(5, seed=3)
    grouped = generator_of(front(made), name="grouped")
    assert list(grouped.spaces) == ["z", "w", "inner-z"]
    z = grouped.sample(5, seed=3, space="z")
    assert torch.equal(z.values, own.values)
    assert torch.allclose(grouped(z), made(own), atol=1e-6)
    assert torch.allclose(grouped.to_space(z, "inner-z").values, own.values, atol=1e-6)


def test_a_rotation_leaves_a_gaussian_a_gaussian():
    network = front(frozen())
    with torch.no_grad():
        network.turn.copy_(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))
        z = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
        x = network.entering(z)
    assert torch.allclose(x.norm(dim=1), z.norm(dim=1), atol=1e-4) and not torch.allclose(x, z, atol=0.1)
    assert network.strangeness(torch.Generator().manual_seed(0)).item() < 0.05
    with torch.no_grad():
        network.mapping[0][-1].bias.fill_(3.0)
    assert network.strangeness(torch.Generator().manual_seed(0)).item() > 1


def test_parts_are_shared_swapped_and_resampled():
    grouped = generator_of(front(frozen()), name="grouped")
    one = grouped.sample(3, seed=0, share={"light": 1})
    assert one.space.name == "w" and torch.allclose(one.part("light"), one.part("light")[:1].expand(3, -1), atol=1e-6)
    assert grouped(grouped.resampled(one, "rest", seed=5)).shape == (3, 1, 16, 16)


def test_training_moves_the_groups_and_not_the_generator(tmp_path):
    made = frozen()
    pictures = pictures_of(made, n=100)
    small = {"size": 16, "width": 4, "hidden": 8, "batch": 16, "warm_up": 1, "log_every": 2, "save_every": 2, "sample_every": 4}
    found = train_controllable(pictures, GROUPS, out=tmp_path / "run", frozen=made, steps=4, contrast=1.0, **small)
    ours, theirs = found.generator.network, made.network.state_dict()
    assert not found.half and all(torch.equal(ours.inner.state_dict()[key], value) for key, value in theirs.items())
    assert bool(ours.turn.any()) and bool(ours.mapping[0][-1].weight.any())
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4 and last["moments"] >= 0 and last["light"] > 0
    path = store.save_generator(found.generator, tmp_path / "grouped.safetensors", half=found.half)
    loaded = store.load_generator_file(path)
    latents = loaded.sample(4, seed=1)
    assert loaded.fingerprint == found.generator.fingerprint and torch.equal(loaded(latents), found.generator(latents))
    again = train_controllable(pictures, GROUPS, out=tmp_path / "run", frozen=made, steps=4, contrast=1.0, **small)
    assert again.generator.fingerprint == found.generator.fingerprint


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: GroupedFront(MAPPING, "dcgan", {"widths": [10, 8, 1]}), "has z of 10 numbers, the groups have 12"),
        (lambda: GroupedFront(MAPPING, "dcgan", {"widths": [14, 8, 1], "classes": 3, "embedding": 2}), "has classes, the groups have 12"),
        (lambda: train_controllable(pictures_of(frozen(), n=20), Groups((*GROUPS, Group("more", 4))), out="x", frozen=frozen(), size=16),
         r"light 4 \+ rest 8 \+ more 4 = 16 numbers, the latent has 12"),
        (lambda: train_controllable(pictures_of(frozen(), n=20), GROUPS, out="x", frozen=frozen(), start=frozen(), size=16),
         "nothing to start from"),
        (lambda: train_controllable(pictures_of(frozen(), n=20), GROUPS, out="x", frozen=layered_generator(), size=16),
         "layered is a module of your own, which no file could hold"),
    ],
)  # fmt: skip
def test_what_cannot_be_grouped_is_refused_in_one_line(made, message):
    with pytest.raises(ValueError, match=message) as caught:
        made()
    assert "\n" not in str(caught.value)
