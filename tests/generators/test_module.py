"""Any network becomes a generator, or is refused in one line that says why."""

import pytest
import torch
from torch import nn

from steerable.generators.module import fingerprint_of, row_seed, wrap
from steerable.protocols import Latents


class Painter(nn.Module):
    """z (n, d) -> (n, channels, 2, 2) through a fixed matrix and a squashing function."""

    def __init__(self, size=5, channels=3, last=torch.tanh):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(size, channels * 4, generator=rng))
        self.channels, self.last = channels, last

    def forward(self, z):
        return self.last(z.flatten(1) @ self.matrix).view(len(z), self.channels, 2, 2)


class Labelled(nn.Module):
    """Adds the class (an index, or the position of the one) to a grey picture of the latent."""

    def forward(self, z, labels):
        shade = labels @ torch.arange(labels.shape[1], dtype=z.dtype) if labels.ndim == 2 else labels.to(z.dtype)
        return torch.tanh(z[:, :1] / 10 + shade[:, None] / 5 - 0.5).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def pixels(z, size=4):
    return z[:, :1, None, None].expand(-1, 3, size, size)


@pytest.fixture
def generator():
    return wrap(Painter(), latent_size=5, name="painter")


@pytest.fixture
def labelled():
    return wrap(Labelled(), latent_size=2, name="shades", classes=5)


# ------------------------------------------------------------------ sampling


def test_rows_of_a_seed_do_not_depend_on_n(generator):
    assert torch.equal(generator.sample(3, seed=7).values, generator.sample(9, seed=7).values[:3])


def test_labels_of_a_seed_do_not_depend_on_n(labelled):
    assert torch.equal(labelled.sample(3, seed=7).labels, labelled.sample(9, seed=7).labels[:3])


def test_two_seeds_share_no_row(generator):
    rows = torch.cat([generator.sample(100, seed=seed).values for seed in range(10)])
    assert len(rows.unique(dim=0)) == 1000


def test_no_two_rows_of_a_thousand_seeds_have_one_random_stream():
    streams = [row_seed(seed, row) for seed in range(1000) for row in range(100)]
    assert len(set(streams)) == 100_000
    assert all(0 <= stream < 2**63 for stream in streams)


def test_latents_are_standard_normal(generator):
    values = generator.sample(2000, seed=0).values
    assert values.mean(0).abs().max() < 0.08
    assert (torch.cov(values.T) - torch.eye(5)).abs().max() < 0.12


def test_the_global_random_state_is_left_alone(generator):
    before = torch.random.get_rng_state()
    generator.sample(4, seed=0)
    wrap(Painter(), latent_size=5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_psi_scales_the_distance_to_the_mean(generator):
    assert torch.allclose(generator.sample(4, seed=0, psi=0.5).values, 0.5 * generator.sample(4, seed=0).values)
    assert not generator.sample(4, seed=0, psi=0).values.any()


@pytest.mark.parametrize("psi", [-0.1, 2.1, float("nan")])
def test_a_psi_that_is_none_is_refused(generator, psi):
    with pytest.raises(ValueError, match=r"psi is the distance to the mean latent that is kept, 0 to 2"):
        generator.sample(1, seed=0, psi=psi)


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_no_latents_and_negative_seeds_are_refused(generator, n, seed):
    with pytest.raises(ValueError, match=rf"got n={n}, seed={seed}\."):
        generator.sample(n, seed=seed)


def test_an_unknown_space_gets_the_known_ones(generator):
    with pytest.raises(ValueError, match=r'unknown latent space "w": Known: z\.'):
        generator.sample(1, seed=0, space="w")
    with pytest.raises(ValueError, match=r'unknown latent space "w": Known: z\.'):
        generator.to_space(generator.sample(1, seed=0), "w")


def test_its_one_space_leads_to_itself(generator):
    latents = generator.sample(2, seed=0)
    assert generator.to_space(latents, "z") is latents


# ------------------------------------------------------------------ labels


def test_labels_reach_the_network_as_indices(labelled):
    latents = labelled.sample(5, seed=0, psi=0, labels=[0, 1, 2, 3, 4])
    assert torch.allclose(labelled(latents)[:, 0, 0, 0], torch.tanh(torch.arange(5.0) / 5 - 0.5))


def test_labels_reach_the_network_as_one_hot_rows(labelled):
    one_hot = wrap(Labelled(), latent_size=2, classes=5, labels="one-hot")
    seen = one_hot(one_hot.sample(5, seed=0, labels=[4, 3, 2, 1, 0]))
    assert torch.allclose(seen, labelled(labelled.sample(5, seed=0, labels=[4, 3, 2, 1, 0])))


@pytest.mark.parametrize("given", [3, [3, 3], torch.tensor([3, 3])])
def test_one_label_for_all_or_one_for_each(labelled, given):
    assert labelled.sample(2, seed=0, labels=given).labels.tolist() == [3, 3]


def test_drawn_labels_visit_every_class(labelled):
    assert labelled.sample(200, seed=0).labels.unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("given", [5, -1, [0, 9]])
def test_a_class_that_does_not_exist_is_refused(labelled, given):
    with pytest.raises(ValueError, match=r"shades has the classes 0 to 4, got"):
        labelled.sample(2, seed=0, labels=given)


@pytest.mark.parametrize("given", [[0], torch.tensor([0.0, 1.0]), torch.zeros(2, 1, dtype=torch.int64)])
def test_labels_of_another_shape_or_type_are_refused(labelled, given):
    with pytest.raises(ValueError, match=r"labels are 2 class indices, or weights .* got torch\.\w+ \("):
        labelled.sample(2, seed=0, labels=given)


def test_labels_for_a_generator_without_classes_are_refused(generator):
    with pytest.raises(ValueError, match=r"painter has no classes, got labels 3\. Leave labels out\."):
        generator.sample(1, seed=0, labels=3)


def test_latents_without_the_labels_they_need_say_how_to_get_them(labelled):
    bare = labelled.sample(2, seed=0)
    bare = type(bare)(bare.values, bare.space)
    with pytest.raises(ValueError, match=r"shades has 5 classes: its latents need labels, e\.g\. generator\.sample\(4, seed=0, labels=3\)"):
        labelled(bare)


# ------------------------------------------------------------------ wrapping


def test_latents_of_three_dimensions_stay_so():
    generator = wrap(Painter(100), latent_size=(100, 1, 1))
    latents = generator.sample(2, seed=0)
    assert latents.values.shape == (2, 100, 1, 1) and generator(latents).shape == (2, 3, 2, 2)


def test_the_shape_of_a_latent_does_not_change_its_numbers():
    flat, deep = wrap(Painter(), latent_size=5), wrap(Painter(), latent_size=(5, 1, 1))
    assert torch.equal(flat.sample(3, seed=0).values, deep.sample(3, seed=0).values.flatten(1))


def test_the_network_is_frozen_and_in_eval_mode():
    network = nn.Sequential(Painter(), nn.Dropout(0.5)).train()
    generator = wrap(network, latent_size=5)
    assert not generator.network.training
    assert not any(parameter.requires_grad for parameter in generator.network.parameters())


def test_the_fingerprint_is_of_the_weights():
    first, second = Painter(), Painter()
    assert fingerprint_of(first) == fingerprint_of(second)
    with torch.no_grad():
        second.matrix[0, 0] += 1e-3
    assert fingerprint_of(first) != fingerprint_of(second)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-0.5, 0.5)])
def test_a_stated_value_range_is_brought_to_minus_one_to_one(low, high):
    plain = wrap(Painter(), latent_size=5)
    scaled = wrap(Painter(last=lambda x: (x.tanh() + 1) / 2 * (high - low) + low), latent_size=5, value_range=(low, high))
    assert torch.allclose(scaled(scaled.sample(3, seed=0)), plain(plain.sample(3, seed=0)), atol=1e-5)


@pytest.mark.parametrize(
    ("last", "say"), [(torch.sigmoid, r"value_range=\(0, 1\) or \(-1, 1\)"), (lambda x: 255 * x.sigmoid(), r"value_range=\(0, 255\)")]
)
def test_a_value_range_in_doubt_has_to_be_stated(last, say):
    with pytest.raises(ValueError, match=rf"images of painter lie in \[.*say which range it is.*{say}"):
        wrap(Painter(last=last), latent_size=5, name="painter")


@pytest.mark.parametrize("stated", [(1.0, 1.0), (1.0, -1.0), (0.0, float("nan"))])
def test_a_value_range_that_is_none_is_refused(stated):
    with pytest.raises(ValueError, match=r"value_range is \(lowest, highest\)"):
        wrap(Painter(), latent_size=5, value_range=stated)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_latents_have_the_networks_type_and_images_are_float32(dtype):
    generator = wrap(Painter().to(dtype), latent_size=5)
    latents = generator.sample(2, seed=0)
    assert latents.values.dtype == dtype and generator(latents).dtype == torch.float32


# ------------------------------------------------------------------ refusals


def test_a_wrong_latent_size_is_refused_with_the_networks_own_words():
    with pytest.raises(
        ValueError, match=r"^painter does not run as module\(z\) on z of \(4, 7\): mat1 and mat2 shapes cannot be multiplied"
    ):
        wrap(Painter(), latent_size=7, name="painter")


@pytest.mark.parametrize("size", [0, -3, (4, 0), ()])
def test_a_latent_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match=r"latent_size"):
        wrap(Painter(), latent_size=size)


def test_a_network_that_wants_labels_is_refused_without_classes():
    with pytest.raises(ValueError, match=r"does not run as module\(z\) on z of \(4, 2\): .*labels"):
        wrap(Labelled(), latent_size=2)


def test_classes_for_a_network_without_labels_are_refused():
    with pytest.raises(ValueError, match=r"does not run as module\(z, labels\) on z of \(4, 5\)"):
        wrap(Painter(), latent_size=5, classes=10)


def test_a_network_that_is_not_deterministic_is_refused():
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"^noisy gives two different images for one latent: fix its noise"):
        wrap(Function(lambda z: pixels(z) + 0.1 * torch.randn(4, generator=rng)), latent_size=2, name="noisy")


def test_a_network_that_mixes_the_rows_of_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"^mixer gives another image when a latent is alone in its batch"):
        wrap(Function(lambda z: pixels(z - z.mean(0))), latent_size=2, name="mixer")


def test_batch_norm_without_running_statistics_is_refused():
    with pytest.raises(ValueError, match="it uses statistics of the batch"):
        wrap(nn.Sequential(Painter(), nn.BatchNorm2d(3, track_running_stats=False)), latent_size=5)


@pytest.mark.parametrize(
    ("function", "say"),
    [
        (lambda z: z, r"float images \(n, c, h, w\) for n latents, got torch\.float32 \(4, 2\) for 4"),
        (lambda z: pixels(z).to(torch.uint8), r"got torch\.uint8"),
        (lambda z: pixels(z)[:1], r"got torch\.float32 \(1, 3, 4, 4\) for 4"),
        (lambda z: [pixels(z)], r"got list for 4"),
        (lambda z: pixels(z)[:, :2], r"images of 2 channels; 1 \(grey\) or 3 \(RGB\) were expected"),
        (lambda z: pixels(z) / 0, r"images of odd: \d+ of \d+ numbers are NaN or infinite"),
    ],
    ids=["flat", "bytes", "one-image", "list", "two-channels", "not-finite"],
)
@pytest.mark.usefixtures("no_annotation_checks")
def test_what_is_no_batch_of_images_is_refused(function, say):
    with pytest.raises(ValueError, match=say):
        wrap(Function(function), latent_size=2, name="odd")


def test_damaged_weights_are_refused_by_the_tensors_name():
    broken = Painter()
    with torch.no_grad():
        broken.matrix[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"^painter has NaN or infinite weights in matrix and 0 other tensors: the file is damaged\.$"):
        wrap(broken, latent_size=5, name="painter")


def test_latents_of_another_generator_are_refused_by_both_names(generator, labelled):
    with pytest.raises(ValueError, match=r"this generator belongs to painter \(.{4}…\), got latents of shades \(.{4}…\)"):
        generator(labelled.sample(1, seed=0))


def test_labels_in_latents_have_to_be_classes_of_the_generator(labelled):
    latents = labelled.sample(2, seed=0)
    for labels, say in (
        (torch.tensor([0, 99]), r"has the classes 0 to \d, got \[0, 99\]"),
        (torch.tensor([-1, 0]), r"has the classes 0 to \d, got \[-1, 0\]"),
        (torch.ones(2, 50), r"weights that mix classes of \S+ are \(n, \d\), got \(2, 50\)"),
    ):
        with pytest.raises(ValueError, match=say):
            labelled(Latents(latents.values, latents.space, labels))


@pytest.mark.parametrize("labels", ["cat", True, int])
def test_labels_that_are_no_numbers_are_refused(labelled, labels, no_annotation_checks):
    with pytest.raises(ValueError, match=r"^[^\n]*classes? [^\n]*0 to[^\n]*$|^labels are class indices[^\n]*$"):
        labelled.sample(1, seed=0, labels=labels)


def test_what_is_no_latents_is_told_how_to_become_some(generator, no_annotation_checks):
    values = generator.sample(1, seed=0).values
    with pytest.raises(TypeError, match=r'takes Latents, got a Tensor: Latents\(values, generator\.spaces\["z"\]\)'):
        generator(values)
    with pytest.raises(TypeError, match=r"computes in torch\.float32, got latents of torch\.float64: values\.to\(torch\.float32\)"):
        generator(Latents(values.double(), generator.spaces["z"]))


@pytest.mark.parametrize("wrong", [{"n": 1.5, "seed": 0}, {"n": 1, "seed": "0"}, {"n": True, "seed": 0}])
def test_numbers_and_seeds_that_are_not_whole_are_refused(generator, wrong, no_annotation_checks):
    with pytest.raises(TypeError, match=r"^sample takes n latents of a seed, two whole numbers; got [^\n]*$"):
        generator.sample(**wrong)
