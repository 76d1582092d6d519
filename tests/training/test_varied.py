"""Data whose spreads are set: what is set is there, exactly, and nothing else differs."""

import numpy as np
import pytest
import torch

from steerable.cli import execute
from steerable.features.geometry import GEOMETRY
from steerable.sources import ImageSource, read_source
from steerable.training.varied import SPREADS, Design, amounts, parsed, text, varied

CENTRE = next(feature for feature in GEOMETRY if feature.name == "centre")
TEN = tuple("0123456789")


@pytest.fixture(scope="module")
def squares() -> ImageSource:
    """Five classes of 40 pictures of 32 pixels, white squares in the middle whose side is 8 more than the class."""
    images = torch.zeros(200, 1, 32, 32, dtype=torch.uint8)
    for row in range(200):
        side = 8 + row % 5
        images[row, 0, 16 - side // 2 : 16 + side // 2, 16 - side // 2 : 16 + side // 2] = 255
    return ImageSource(images, torch.arange(200) % 5, tuple("abcde"), "squares")


def test_a_design_has_every_level_of_every_edit_in_every_class_once():
    design = Design(TEN, SPREADS)
    assert design.level.shape == (50, 3)
    for column in design.level.T:
        assert all(sorted(some.tolist()) == [0, 1, 2, 3, 4] for some in column.split(5))


def test_spreads_are_uncorrelated_with_each_other_and_with_the_class():
    sigma = Design(TEN, SPREADS).sigma.double().numpy()
    together = np.corrcoef(np.column_stack([sigma, np.repeat(np.arange(10), 5)]).T)
    assert np.abs(together - np.eye(4)).max() < 1e-6  # the spreads are single precision


def test_every_pair_of_levels_occurs_equally_often():
    level = Design(TEN, SPREADS).level
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert torch.bincount(5 * level[:, a] + level[:, b]).tolist() == [2] * 25


def test_levels_go_from_none_to_the_spread_that_was_given():
    sigma = Design(TEN, {"zoom": 0.4, "rotate": 20.0}).sigma
    assert sigma[:, 0].unique().tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert sigma[:, 1].unique().tolist() == pytest.approx([0, 5, 10, 15, 20])


@pytest.mark.parametrize("n", [2, 7, 2000])
def test_the_standard_deviation_of_the_amounts_is_the_one_set(n):
    sigma = torch.tensor([0.0, 0.05, 3.0])
    drawn = amounts(sigma, n, seed=3, number=4).double()
    assert torch.allclose(drawn.std(0, correction=0), sigma.double(), rtol=1e-6)
    assert drawn.mean(0).abs().max() < 1e-6
    assert bool((drawn.abs().amax(0) <= 3**0.5 * sigma).all())


def test_amounts_of_different_edits_are_in_unrelated_orders():
    drawn = amounts(torch.ones(3), 2000, seed=0, number=0)
    assert (torch.corrcoef(drawn.T) - torch.eye(3)).abs().max() < 0.06


def test_pictures_move_as_far_as_was_set(squares):
    made = varied(squares, {"shift-x": 0.1}, each=40)
    design = Design(squares.classes, {"shift-x": 0.1})
    for number, sigma in enumerate(design.sigma[:, 0].tolist()):
        images, _ = made.batch((made.labels == number).nonzero()[:, 0])
        assert float(CENTRE(images)[:, 0].std(correction=0)) == pytest.approx(sigma, abs=0.002)
        assert float(CENTRE(images)[:, 1].std()) < 1e-4


def test_pictures_darken_as_much_as_was_set(squares):
    made = varied(squares, {"brightness": 0.12}, each=40)
    for number, sigma in enumerate(Design(squares.classes, {"brightness": 0.12}).sigma[:, 0].tolist()):
        images, _ = made.batch((made.labels == number).nonzero()[:, 0])
        assert float((images.mean((1, 2, 3)) / 2).std(correction=0)) == pytest.approx(sigma, abs=0.002)  # half: of full scale


def test_classes_of_one_source_class_hold_the_same_pictures(squares):
    made = varied(squares, {"zoom": 0.3}, levels=2, each=8)
    still = made.images[made.labels == 0]
    assert still.unique(dim=0).shape[0] == 1  # all squares of a class are the same, and level 0 changes none
    assert made.classes == tuple(f"{name} zoom {level}" for name in "abcde" for level in (0, 1))
    assert torch.bincount(made.labels).tolist() == [8] * 10


def test_the_seed_decides_everything(squares):
    one, same, other = (varied(squares, each=10, seed=seed).digest() for seed in (1, 1, 2))
    assert one == same != other


def test_what_moves_in_has_the_colour_of_the_border(squares):
    made = varied(squares, {"shift-x": 0.15}, each=40)
    assert made.images[..., 0].unique().numel() == 1  # no black edge where the picture was pushed away


def test_spreads_are_read_and_written_as_text():
    assert parsed(text(SPREADS)) == dict(SPREADS)
    assert parsed("shift-x=0.1") == {"shift-x": 0.1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--vary shift-x", 'got "shift-x"'),
        ("--vary shfit-x=0.1", 'unknown edit "shfit-x"'),
        ("--vary colour=0.1", "the spread of one edit"),
        ("--vary shift-x=-1", "the spread of one edit"),
        ("--vary shift-x=0.1 --levels 4", "prime"),
        ("--vary shift-x=0.1,zoom=0.1,rotate=5 --levels 2", "3 edits at 2 levels"),
        ("--vary brightness=0.5", "drives pictures out of the levels"),
        ("--vary shift-x=0.1 --each 1", "from two pictures on"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(squares, tmp_path, capsys, line, message):
    np.savez(tmp_path / "data.npz", images=squares.images.numpy(), labels=squares.labels.numpy())
    asked = f"train steerable --way plain --data {tmp_path / 'data.npz'} --out {tmp_path / 'x'} {line}"
    assert execute(asked.split()) == 2
    error = [one for one in capsys.readouterr().err.splitlines() if "to go" not in one]
    assert len(error) == 1 and message in error[0] and not (tmp_path / "x" / "log.jsonl").exists()


def test_pictures_without_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="these pictures have none"):
        varied(read_source(np.zeros((4, 8, 8), np.uint8), size=8))


def test_a_class_of_one_picture_is_refused_by_name(squares):
    alone = ImageSource(squares.images[:6], squares.labels[:6], squares.classes, "few")
    with pytest.raises(ValueError, match='class "b" of few has 1 pictures'):
        varied(alone)


def test_a_training_on_varied_classes_has_one_class_for_each_level(squares, tmp_path):
    np.savez(tmp_path / "data.npz", images=squares.images.numpy(), labels=squares.labels.numpy())
    out = tmp_path / "x"
    asked = f"train steerable --way plain --data {tmp_path / 'data.npz'} --out {out} --vary zoom=0.3,shift-x=0.1 --each 8 --levels 3"
    assert execute(f"{asked} --steps 2 --size 32 --width 2 --batch 4 --latent 4 --embedding 2".split()) == 0
    from steerable import store

    assert store.load_generator_file(out / "generator.safetensors").classes == 15
