"""Films: every keyframe is a frame, loops join, and what is written plays back as what was drawn."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import torch
from PIL import Image

from steerable import films, render
from steerable.films import Pace, course

ENDS = torch.tensor([[0.0, 5.0], [1.0, 5.0]])


def firsts(**pace) -> list[float]:
    return course(ENDS, Pace(seconds=1, fps=4, **pace))[:, 0].tolist()


def test_a_film_starts_and_ends_at_its_keyframes_and_what_does_not_move_stays():
    frames = course(ENDS, Pace(seconds=2, fps=3))
    assert frames[[0, -1]].tolist() == ENDS.tolist() and len(frames) == 7 and set(frames[:, 1].tolist()) == {5.0}


@pytest.mark.parametrize(
    ("easing", "shares"),
    [
        ("linear", [0, 0.25, 0.5, 0.75, 1]),
        ("ease", [0, 0.15625, 0.5, 0.84375, 1]),
        ("ease-in", [0, 0.0625, 0.25, 0.5625, 1]),
        ("ease-out", [0, 0.4375, 0.75, 0.9375, 1]),
        ("hold", [0, 0, 0, 0, 1]),
    ],
)
def test_easing_decides_how_a_stretch_is_gone(easing, shares):
    assert firsts(easing=easing) == pytest.approx(shares)


def test_loops_join_without_a_repeated_frame():
    assert firsts(easing="linear", loop="return") == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]
    assert firsts(easing="linear", loop="boomerang") == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]
    three = course(torch.tensor([0.0, 1.0, 3.0]), Pace(seconds=1, fps=1, loop="return"))
    back = course(torch.tensor([0.0, 1.0, 3.0]), Pace(seconds=1, fps=1, loop="boomerang"))
    assert three.tolist() == [0, 1, 3] and back.tolist() == [0, 1, 3, 1]


def test_latents_of_any_shape_may_be_keyframes():
    points = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    frames = course(points, Pace(seconds=1, fps=2, easing="linear"))
    assert torch.allclose(frames[[0, 2, 4]], points) and torch.allclose(frames[1], (points[0] + points[1]) / 2)


def pictures(n: int = 5, size: tuple[int, int] = (33, 21)) -> list[Image.Image]:
    levels = [round(255 * i / (n - 1)) for i in range(n)]
    return [Image.new("RGB", size, (level, 80, 255 - level)) for level in levels]


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_film_plays_back_what_was_drawn(kind, tmp_path):
    path = films.write(tmp_path / f"a.{kind}", pictures(), Pace(fps=10))
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == pytest.approx(10)
    assert len(shown) == 5 and [path.name for path in tmp_path.iterdir()] == [f"a.{kind}"]
    for frame, picture in zip(shown, pictures(), strict=True):
        assert np.abs(frame[:21, :33].astype(int) - np.array(picture)).max() <= 8


def test_only_what_is_to_be_repeated_repeats():
    def loops(loop: str) -> bool:
        with Image.open(io.BytesIO(films.content(pictures(), "gif", Pace(loop=loop)))) as film:
            return "loop" in film.info

    assert [loops(one) for one in films.LOOPS] == [False, True, True]


def test_a_gif_at_24_pictures_a_second_lasts_as_long_as_it_should():
    with Image.open(io.BytesIO(films.content(pictures(24), "gif", Pace(fps=24)))) as film:
        total = 0
        for number in range(film.n_frames):
            film.seek(number)
            total += film.info["duration"]
    assert total == 1000


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_film_carries_its_recipe_and_the_same_pictures_give_the_same_bytes(kind, tmp_path):
    recipe = '{"generator": "faces64", "what": "ä 微笑", "control": "' + "x" * 200_000 + '"}'
    first, second = (films.content(pictures(), kind, recipe=recipe) for _ in range(2))
    (tmp_path / "film").write_bytes(first)
    assert films.read_recipe(tmp_path / "film") == recipe and first == second


def test_what_cannot_be_a_film_is_refused(tmp_path):
    for make, words in (
        (lambda: films.write(tmp_path / "a.avi", pictures()), r"written as \.mp4 or \.gif, got .*a\.avi\. Use .*a\.mp4"),
        (lambda: films.write(tmp_path / "a.mp4", []), "at least one picture"),
        (lambda: films.write(tmp_path / "a.gif", [*pictures(), *pictures(size=(8, 8))]), "one size: the first is"),
        (lambda: course(ENDS[:1]), "from one keyframe to another, got 1"),
        (lambda: course(ENDS, Pace(seconds=3000)), "72000 frames, at most 20000"),
        (lambda: Pace(easing="eas"), 'unknown easing "eas": did you mean "ease"'),
        (lambda: Pace(loop="forever"), 'unknown loop "forever"'),
        (lambda: Pace(fps=0), "1 to 100 pictures a second, got 1.0 and 0"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_film_leaves_the_one_that_stood_there(tmp_path):
    films.write(tmp_path / "a.gif", pictures())
    before = (tmp_path / "a.gif").read_bytes()

    def interrupted():
        yield from pictures()[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        films.write(tmp_path / "a.gif", interrupted())
    assert (tmp_path / "a.gif").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_film_without_a_recipe_and_no_film_are_told_apart(tmp_path):
    films.write(tmp_path / "plain.mp4", pictures())
    render.write_png(tmp_path / "a.png", pictures()[0])
    (tmp_path / "cut.gif").write_bytes(films.content(pictures(), "gif")[:14])
    for name, words in (("plain.mp4", "without a recipe"), ("a.png", "is a PNG image, expected a film"), ("cut.gif", "cut.gif is a")):
        with pytest.raises(ValueError, match=words):
            films.read_recipe(tmp_path / name)
