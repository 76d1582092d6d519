"""Pictures and tables from files."""

import numpy as np
import pytest
import torch
from PIL import Image

from steerable.data import image_files, read_columns, read_images


def picture(path, colour=(255, 0, 0), size=(8, 8), mode="RGB"):
    Image.new(mode, size, colour).save(path)
    return path


def test_red_is_one_in_red_and_minus_one_elsewhere(tmp_path):
    images = read_images([picture(tmp_path / "a.png")], 4)
    assert images.shape == (1, 3, 4, 4) and images.dtype == torch.float32
    assert images.amin((0, 2, 3)).tolist() == pytest.approx([1, -1, -1])


def test_a_wide_picture_is_cropped_around_its_middle(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_images([tmp_path / "a.png"], 10).min() == 1


def test_a_colour_picture_becomes_grey_on_request(tmp_path):
    assert read_images([picture(tmp_path / "a.png", (255, 255, 255))], (4, 6), channels=1).shape == (1, 1, 4, 6)


def test_transparent_pixels_show_black(tmp_path):
    assert read_images([picture(tmp_path / "a.png", (255, 255, 255, 0), mode="RGBA")], 4).max() == -1


def test_missing_pictures_are_named_and_counted(tmp_path):
    with pytest.raises(ValueError, match=r"b.png is not there; 2 of 3 pictures"):
        read_images([picture(tmp_path / "a.png"), tmp_path / "b.png", tmp_path / "c.png"], 4)


def test_a_page_saved_as_a_picture_is_named_for_what_it_is(tmp_path):
    (tmp_path / "b.png").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"b.png cannot be opened as a picture, it is an HTML page .*; 1 of 2 cannot"):
        read_images([picture(tmp_path / "a.png"), tmp_path / "b.png"], 4)


def test_a_folder_is_read_with_its_sub_folders(tmp_path):
    (tmp_path / "sub").mkdir()
    picture(tmp_path / "sub" / "b.JPG")
    picture(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no")
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.JPG"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no pictures in"):
        image_files(tmp_path)


def test_csv_cells_lose_their_spaces(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffseed, label\n1, yes\n\n2,no \n", encoding="utf-8")
    assert read_columns(tmp_path / "a.csv", ("seed", "label")) == {"seed": ["1", "2"], "label": ["yes", "no"]}


def test_parquet_is_told_by_its_content(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"seed": [1, 2], "label": [0.5, 1.5]}), tmp_path / "a.csv")
    assert read_columns(tmp_path / "a.csv", ("seed", "label")) == {"seed": [1, 2], "label": [0.5, 1.5]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file"),
        (b"seed,label\n", "has a header and no rows"),
        (b"seed,tag\n1,2\n", "has no column label; it has seed, tag. Expected seed, label"),
        (b"seed,label\n1,2\n3\n", "row 3 of .* has 1 cells, the header has 2"),
        (b"<html></html>", "is an HTML page; a CSV"),
        (b"PAR1 and nothing more", "cannot be read as Parquet"),
        (b"\x00\x01\x02\xff", "is unknown data"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_columns(tmp_path / "a.csv", ("seed", "label"))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not there: name a CSV"):
        read_columns(tmp_path / "a.csv", ("seed",))
