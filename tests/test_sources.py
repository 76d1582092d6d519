"""Data sets from files and arrays, and the endless order of their rows."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from steerable.sources import ImageSource, read_idx, read_source, rows_at


def idx(content, code=8):
    array = np.asarray(content, np.uint8)
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def digits(tmp_path):
    """Four pictures whose only bright pixel is number (label, label), two with the label 2."""
    images = np.zeros((4, 8, 8), np.uint8)
    labels = np.array([0, 1, 2, 2], np.uint8)
    for row, label in enumerate(labels):
        images[row, label, label] = 255
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_a_folder_of_idx_files_is_read_with_its_labels(digits):
    source = read_source(digits, size=8)
    assert source.images.shape == (4, 1, 8, 8) and source.classes == ("0", "1", "2")
    images, labels = source.batch(torch.tensor([1, 3]))
    assert labels.tolist() == [1, 2]
    assert images[0, 0, 1, 1] == 1 and images[0, 0, 0, 0] == -1


def test_an_idx_file_alone_finds_its_labels(digits):
    assert read_source(digits / "train-images-idx3-ubyte", size=8).labels.tolist() == [0, 1, 2, 2]


def test_pictures_are_resized_to_what_is_asked(digits):
    assert read_source(digits, size=16).images.shape == (4, 1, 16, 16)
    assert read_source(digits, size=16, channels=3).images.shape == (4, 3, 16, 16)


def test_the_split_chooses_among_idx_files(digits):
    (digits / "t10k-images-idx3-ubyte").write_bytes(idx(np.ones((2, 8, 8))))
    assert len(read_source(digits, size=8)) == 4
    test = read_source(digits, size=8, split="t10k")
    assert len(test) == 2 and test.classes == ()
    with pytest.raises(ValueError, match='no images of the split "val"'):
        read_source(digits, size=8, split="val")


def test_sub_folders_are_classes(tmp_path):
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (10, 8), colour).save(tmp_path / name / "a.png")
    source = read_source(tmp_path, size=8)
    assert source.classes == ("blue", "red") and source.labels.tolist() == [0, 1]
    assert source.batch(torch.tensor([1]))[0][0].amax((1, 2)).tolist() == [1, -1, -1]
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    with pytest.raises(ValueError, match="lie beside the class folders"):
        read_source(tmp_path, size=8)


def png(level):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_files_of_hugging_face_data_sets_are_read(tmp_path, form):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [png(0), png(255)], "label": [1, 0]})
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    if form == "parquet":
        pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    else:
        with pa.OSFile(str(tmp_path / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    source = read_source(tmp_path, size=8)
    assert source.images.shape == (2, 1, 8, 8) and source.images[:, 0, 0, 0].tolist() == [0, 255]
    assert source.classes == ("cat", "dog") and source.labels.tolist() == [1, 0]


def test_a_data_set_in_memory_is_read_row_by_row():
    class Rows(list):
        column_names = ("img", "fine_label")

    rows = Rows([{"img": Image.new("RGB", (8, 8), (9, 0, 0)), "fine_label": 0}])
    assert read_source(rows, size=8).images[0, 0, 0, 0] == 9


def test_arrays_are_read_as_bytes_or_floats(tmp_path):
    levels = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    source = read_source((levels, [0, 1]), size=8)
    again = read_source((levels / 127.5 - 1, ["a", "b"]), size=8)
    assert torch.equal(source.images, again.images) and again.classes == ("a", "b")
    np.savez(tmp_path / "some.npz", images=levels, labels=np.array([0, 1]))
    assert torch.equal(read_source(tmp_path / "some.npz", size=8).images, source.images)
    assert source.digest() == read_source((levels, [0, 1]), size=8).digest() != read_source((levels, [1, 0]), size=8).digest()


def test_every_epoch_has_every_row_once_and_its_own_order():
    first, second = rows_at(10, 0, 10, seed=3), rows_at(10, 10, 10, seed=3)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert not torch.equal(first, second)
    assert torch.equal(rows_at(10, 7, 9, seed=3), torch.cat([first[7:], second[:6]]))


def test_a_batch_may_be_larger_than_the_data():
    assert len(rows_at(3, 4, 8, seed=0)) == 8


def test_the_background_is_the_usual_colour_of_the_border():
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[:, :, 2:6] = 255
    assert ImageSource(images, torch.zeros(2, dtype=torch.long)).background() == (-1.0,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing, expected 00000803"),
        (idx(np.zeros((2, 8, 8)), code=13), "it begins with 00000d03, expected 00000803"),
        (idx(np.zeros((2, 8, 8)))[:-5], "announces 2 x 8 x 8 bytes and holds 123"),
        (idx(np.zeros((2, 8, 8)))[:9], "ends inside its header"),
        (b"\x1f\x8bnonsense", "cannot be read"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, content, message):
    (tmp_path / "x-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_labels_are_no_images(digits):
    with pytest.raises(ValueError, match="no idx file of images"):
        read_idx(digits / "train-labels-idx1-ubyte.gz", dimensions=3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((np.zeros((3, 8, 8), np.uint8), [0, 1]), "has 3 images and labels of .2,.: one label an image"),
        ((np.zeros((0, 8, 8), np.uint8), []), "holds no pictures"),
        (np.zeros((2, 8), np.uint8), "holds no batch of pictures"),
        (np.zeros((2, 8, 8, 5), np.uint8), "1 or 3 channels were expected"),
        (np.zeros((2, 8, 8), np.int64), "pictures of torch.int64"),
        (np.full((2, 8, 8), 0.5), "pictures are bytes, or floats in"),
        ((np.zeros((2, 8, 8), np.uint8), [0, -1]), "has the label -1"),
        ("hf:someone/something", "pip install datasets"),
        ("nowhere/at/all", "is not there: --data is a folder"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_one_line(source, message, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ValueError, match=message) as caught:
        read_source(source, size=8)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no pictures in"):
        read_source(tmp_path)


def test_rows_without_a_label_or_with_a_broken_picture_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [png(0), png(0)], "label": [1, None]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="1 of 2 rows"):
        read_source(tmp_path, size=8)
    pq.write_table(pa.table({"image": [{"bytes": b"no", "path": None}]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 0 of .* cannot be opened as a picture"):
        read_source(tmp_path, size=8)
    pq.write_table(pa.table({"text": ["no"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has the columns text"):
        read_source(tmp_path, size=8)


def test_objects_in_numpy_files_are_never_unpickled(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects are never read"):
        read_source(tmp_path / "bad.npy")
