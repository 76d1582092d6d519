"""Files are whole or absent, and called what they are."""

from __future__ import annotations

import errno
import os
import pickle
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steerable import files


def test_a_finished_block_leaves_only_the_final_name(tmp_path):
    with files.replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), ValueError("no")])
def test_a_broken_block_keeps_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)), files.replacing(target) as temporary:
        temporary.write_text("ha")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_breaks_before_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="early"), files.replacing(tmp_path / "a.txt"):
        raise RuntimeError("early")
    assert list(tmp_path.iterdir()) == []


def test_temporary_names_are_not_found_by_suffix(tmp_path):
    with files.replacing(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"half")
        assert list(tmp_path.glob("*.png")) == []
        assert temporary.parent == tmp_path  # the same disk, so that the rename is one step


def test_missing_parent_folders_are_made(tmp_path):
    assert files.write_text(tmp_path / "deep" / "er" / "ä.txt", "grüße\n").read_bytes() == "grüße\n".encode()


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(ValueError, match="is a folder: name a file to write to"):
        files.write_bytes(tmp_path, b"x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a Unix thing")
def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        files.write_bytes(tmp_path / "pipe", b"x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_written_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"x")
    files.write_bytes(tmp_path / "ours", b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\n <!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"),
        (b"\xef\xbb\xbf<html>", "an HTML page"),
        (b"<!-- x --><html lang=en>", "an HTML page"),
        (pickle.dumps({"a": 1}), "a pickle"),
        (pickle.dumps([1], protocol=2), "a pickle"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"seed,label\n1,0\n", "text"),
        ("größe,1\n".encode(), "text"),
        (("x" * 4095 + "ä").encode(), "text"),
        ("größe,1\n".encode("utf-16"), "UTF-16 text"),
        ("größe,1\n".encode("latin-1"), "unknown data"),
        (b"\x00\x01\x02\x03", "unknown data"),
        (b"\x80", "unknown data"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself"),
    ],
)
def test_content_decides_what_a_file_is(tmp_path, content, words):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert files.sniff(path) == words


def test_a_torch_file_is_a_zip(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pt")
    assert files.sniff(tmp_path / "a.pt") == "a zip / torch file"


def test_a_numpy_file_is_an_array(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert files.sniff(tmp_path / "a.npy") == "a NumPy array"


def test_a_folder_is_called_one(tmp_path):
    assert files.sniff(tmp_path) == "a folder"


@pytest.mark.parametrize("metadata", [None, {"kind": "directions"}])
def test_a_whole_safetensors_file_is_recognised(tmp_path, metadata):
    save_file({"a": torch.zeros(3), "b": torch.ones(2, 2)}, tmp_path / "a", metadata=metadata)
    assert files.sniff(tmp_path / "a") == "a safetensors file"


def test_a_safetensors_file_without_tensors_is_whole(tmp_path):
    save_file({}, tmp_path / "a")
    assert files.sniff(tmp_path / "a") == "a safetensors file"


@pytest.mark.parametrize("kept", [12, 40, -1])
def test_a_cut_safetensors_file_is_called_truncated(tmp_path, kept):
    save_file({"a": torch.zeros(300)}, tmp_path / "a")
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:kept])
    assert files.sniff(tmp_path / "b") == "a truncated safetensors file"


def test_a_garbled_safetensors_header_is_called_damaged(tmp_path):
    (tmp_path / "a").write_bytes((4).to_bytes(8, "little") + b"{]]]")
    assert files.sniff(tmp_path / "a") == "a damaged safetensors file"
