"""Pictures hold the pixels they were given, the same bytes every time, and the recipe that made them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from steerable import render


def faces(n: int, *, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# pixels


def test_levels_are_the_nearest_and_halves_go_up():
    values = torch.tensor([-1.0, -1.5, -1 + 1 / 255, -1 + 1.01 / 255, 0.0, 1.0, 7.0])
    levels = render.to_uint8(values.reshape(1, 1, 1, 7))
    assert levels[0, 0, :, 0].tolist() == [0, 0, 1, 1, 128, 255, 255]


def test_every_byte_survives_a_round_trip():
    levels = torch.arange(256, dtype=torch.float32)
    assert render.to_uint8((levels / 127.5 - 1).reshape(1, 1, 16, 16))[0, :, :, 0].flatten().tolist() == list(range(256))


def test_one_channel_becomes_three_equal_ones():
    levels = render.to_uint8(faces(2, channels=1))
    assert levels.shape == (2, 8, 8, 3)
    assert (levels[..., 0] == levels[..., 2]).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channel_counts_are_refused(channels):
    with pytest.raises(ValueError, match="1 or 3 channels"):
        render.to_uint8(faces(1, channels=channels))


def test_numbers_that_are_not_finite_are_refused():
    images = faces(1)
    images[0, 1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="images: 1 of 192 numbers"):
        render.to_uint8(images)


# sheets


def test_at_scale_one_a_grid_holds_the_pixels_themselves():
    images = faces(3)
    sheet = np.asarray(render.grid(images, columns=2, scale=1))
    levels = render.to_uint8(images)
    assert sheet.shape == (4 + 8 + 4 + 8 + 4, 4 + 8 + 4 + 8 + 4, 3)
    assert (sheet[4:12, 4:12] == levels[0]).all()
    assert (sheet[4:12, 16:24] == levels[1]).all()
    assert (sheet[16:24, 4:12] == levels[2]).all()
    assert (sheet[16:24, 16:24] == 255).all()


def test_labels_take_room_and_leave_the_pixels_alone():
    images = faces(2)
    sheet = np.asarray(
        render.strip([images], row_labels=["seed 3"], column_labels=["-1 σ", "+1 σ"], captions=[["a", "b\nc"]], title="smile", scale=1)
    )
    plain = np.asarray(render.strip([images], scale=1))
    assert sheet.shape[0] > plain.shape[0]
    assert sheet.shape[1] > plain.shape[1]
    window = np.lib.stride_tricks.sliding_window_view(sheet, (8, 8, 3))[:, :, 0]
    assert (window == render.to_uint8(images)[0]).all(axis=(2, 3, 4)).sum() == 1


def test_a_box_is_outlined_just_outside_its_pixels():
    images = torch.zeros(1, 3, 8, 8)
    sheet = np.asarray(render.grid(images, scale=1, boxes=[(2, 3, 6, 7)]))[4:12, 4:12]
    red = (sheet == (255, 59, 48)).all(axis=2)
    assert not red[2:6, 3:7].any()
    assert red[1, 2:8].all()
    assert red[6, 2:8].all()
    assert red[1:7, 2].all()
    assert red[1:7, 7].all()


def test_long_texts_do_not_spoil_a_sheet():
    sheet = render.strip(
        [faces(1)], row_labels=["word " * 30], column_labels=["a very long amount"], captions=[["also long, really"]], scale=2
    )
    assert sheet.width < 220


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row_labels": ["a", "b"]}, "1 rows, got 2 labels"),
        ({"column_labels": ["a"]}, "2 columns, got 1 labels"),
        ({"captions": [["a"]]}, "one caption an image"),
    ],
)
def test_labels_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        render.strip([faces(2)], **arguments)


def test_a_grid_wants_one_caption_an_image():
    with pytest.raises(ValueError, match="2 images, got 1 captions"):
        render.grid(faces(2), captions=["a"])


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        render.strip([faces(1), faces(1, channels=1)])


@pytest.mark.parametrize("rows", [[], [torch.zeros(0, 3, 8, 8)]])
def test_a_picture_of_nothing_is_refused(rows):
    with pytest.raises(ValueError, match="at least one image"):
        render.strip(rows)


# PNG


RECIPE = json.dumps({"generator": "faces64", "note": "größer → 20°"}, ensure_ascii=False)


def test_a_recipe_comes_back_as_it_was_written(tmp_path):
    path = render.write_png(tmp_path / "a.png", render.grid(faces(1)), recipe=RECIPE)
    assert render.read_recipe(path) == RECIPE


def test_a_recipe_does_not_change_the_pixels(tmp_path):
    picture = render.grid(faces(1))
    with Image.open(render.write_png(tmp_path / "a.png", picture, recipe=RECIPE)) as read:
        assert (np.asarray(read) == np.asarray(picture)).all()


def test_the_same_picture_has_the_same_bytes():
    assert render.png(render.grid(faces(3)), recipe=RECIPE) == render.png(render.grid(faces(3)), recipe=RECIPE)


def test_a_failed_write_leaves_no_picture(tmp_path, monkeypatch):
    def full(self, content):
        open(self, "wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        render.write_png(tmp_path / "a.png", render.grid(faces(1)))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_called_png(tmp_path):
    with pytest.raises(ValueError, match=r"call it .*a\.png"):
        render.write_png(tmp_path / "a.jpg", render.grid(faces(1)))


def test_a_picture_without_recipe_is_refused(tmp_path):
    path = render.write_png(tmp_path / "a.png", render.grid(faces(1)))
    with pytest.raises(ValueError, match="without a recipe"):
        render.read_recipe(path)


def test_another_file_is_called_what_it_is(tmp_path):
    (tmp_path / "a.png").write_text("<html>404</html>")
    with pytest.raises(ValueError, match="is an HTML page, expected a PNG image"):
        render.read_recipe(tmp_path / "a.png")


@pytest.mark.parametrize("kept", [9, 30, 120, -200])
def test_a_cut_picture_is_called_damaged(tmp_path, kept):
    (tmp_path / "a.png").write_bytes(render.png(render.grid(faces(4)), recipe=RECIPE)[:kept])
    with pytest.raises(ValueError, match=r"^[^\n]*damaged PNG image[^\n]*$"):
        render.read_recipe(tmp_path / "a.png")


def test_a_recipe_that_another_program_moved_behind_the_pixels_is_found(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, format="PNG")
    chunk = io.BytesIO()
    PngImagePlugin.putchunk(chunk, b"iTXt", b"steerable\0\0\0\0\0" + RECIPE.encode())
    content = buffer.getvalue()
    end = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:end] + chunk.getvalue() + content[end:])
    assert render.read_recipe(tmp_path / "a.png") == RECIPE


# plots


NAMES = ["yaw", "pitch", "smile"]
VALUES = np.array([[1.0, 0.2, -0.1], [0.2, 1.0, np.nan], [-0.1, 0.0, 1.0]])


def texts(figure) -> set[str]:
    from matplotlib.text import Text

    return {text.get_text() for text in figure.findobj(Text)} - {""}


def test_a_small_matrix_is_written_out():
    figure = render.matrix(VALUES, NAMES, NAMES, title="leak, n = 64", limits=(-1, 1), unit="sd per sd")
    assert {"yaw", "smile", ".20", "-.10", "1.00", "leak, n = 64", "sd per sd"} <= texts(figure)
    assert "nan" not in texts(figure)


def test_a_large_matrix_is_not_written_out():
    names = [f"feature-{i}" for i in range(45)]
    figure = render.matrix(torch.eye(45), names, names, title="leak", limits=(0, 1), unit="sd")
    assert set(names) <= texts(figure)
    assert "1.00" not in {text.get_text() for text in figure.axes[0].texts}


def test_a_matrix_wants_a_name_for_every_row():
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(3, 3\)"):
        render.matrix(VALUES, NAMES[:2], NAMES, title="", limits=(-1, 1), unit="")


def test_before_and_after_share_one_scale():
    figure = render.matrices(VALUES, np.eye(3), NAMES, titles=("free", "held"), title="cosines", unit="cosine")
    assert {axes.images[0].get_clim() for axes in figure.axes[:2]} == {(-1.0, 1.0)}
    assert {"free", "held", "cosines", "cosine"} <= texts(figure)


@pytest.mark.parametrize(
    ("value", "text"), [(0.314, ".31"), (-0.05, "-.05"), (-0.001, ".00"), (1.0, "1.00"), (-12.3, "-12"), (9.999, "10")]
)
def test_numbers_in_cells_are_short(value, text):
    assert render._short(value) == text


def test_curves_name_every_series_and_both_axes():
    x = np.linspace(-20, 20, 5)
    figure = render.curves(
        x,
        {"FaceMesh": (x, x - 1, x + 1), "68 landmarks": (x, x, x)},
        x_label="asked (deg)",
        y_label="got (deg)",
        title="yaw",
        diagonal=True,
    )
    assert {"FaceMesh", "68 landmarks", "got = asked", "asked (deg)", "got (deg)", "yaw"} <= texts(figure)


def test_a_scatter_holds_every_point():
    figure = render.scatter(torch.arange(7.0), torch.arange(7.0), x_label="a (deg)", y_label="b (deg)", title="t", diagonal=True)
    assert len(figure.axes[0].collections[0].get_offsets()) == 7


def test_the_same_plot_has_the_same_bytes():
    def draw() -> bytes:
        return render.figure_png(render.matrix(VALUES, NAMES, NAMES, title="leak", limits=(-1, 1), unit="sd"))

    assert draw() == draw()


def test_plots_leave_no_figure_open():
    from matplotlib import _pylab_helpers

    render.figure_png(render.scatter(np.arange(3.0), np.arange(3.0), x_label="", y_label="", title=""))
    assert not _pylab_helpers.Gcf.figs
