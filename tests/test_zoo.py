"""The zoo: what is shipped is what the manifest says, and every name leads to something that works."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from steerable import zoo
from steerable.features.network import measure
from steerable.protocols import Feature

NOTICE = (Path(__file__).parents[1] / "NOTICE").read_text(encoding="utf-8")


def test_every_file_is_in_the_manifest() -> None:
    assert {entry.file for entry in zoo.entries().values()} == {path.name for path in zoo.WEIGHTS.glob("*.safetensors")}


@pytest.mark.parametrize("name", zoo.entries())
def test_a_file_has_the_manifests_checksum(name: str) -> None:
    entry = zoo.entries()[name]
    assert hashlib.sha256((zoo.WEIGHTS / entry.file).read_bytes()).hexdigest() == entry.sha256


@pytest.mark.parametrize("name", zoo.entries())
def test_an_entry_says_where_it_comes_from(name: str) -> None:
    entry = zoo.entries()[name]
    assert all((entry.licence, entry.package, entry.version, entry.source_file, entry.made_by))
    assert entry.registry in {"PyPI", "npm", "data set"}
    assert len(entry.source_sha256) == len(entry.sha256) == 64
    assert (Path(__file__).parents[1] / entry.made_by).is_file()


@pytest.mark.parametrize("name", zoo.entries())
def test_the_notice_names_file_package_and_version(name: str) -> None:
    entry = zoo.entries()[name]
    assert entry.file in NOTICE
    assert f"{entry.package} {entry.version}" in NOTICE


def test_a_corrupt_file_is_refused_in_one_line(tmp_path: Path) -> None:
    entry = zoo.entries()["expression"]
    damaged = tmp_path / entry.file
    shutil.copy(zoo.WEIGHTS / entry.file, damaged)
    with damaged.open("r+b") as file:
        file.seek(5000)
        file.write(b"\0\1\2")
    with pytest.raises(ValueError, match=r"^checksum mismatch: expression.safetensors .*pip install --force-reinstall steerable$"):
        zoo.read(damaged, entry.sha256)


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the shipped weights gone.safetensors cannot be read \(No such file or directory\)\. Reinstall"):
        zoo.read(tmp_path / "gone.safetensors", "0" * 64)


def test_all_features_make_at_least_forty_columns_with_different_names() -> None:
    columns = [column for feature in zoo.load_features("all") for column in feature.columns]
    assert len(columns) >= 40
    assert len(columns) == len(set(columns))


@torch.no_grad()
def test_every_feature_is_one() -> None:
    features = zoo.load_features("all", "identity", "landmarks68")
    measured = measure(features, torch.zeros(2, 3, 64, 64))
    for feature in features:
        assert isinstance(feature, Feature)
        values = measured[feature.name]
        assert values.shape == (2, len(feature.columns)), feature.name
        assert values.dtype == torch.float32


def test_groups_and_names_mix_and_count_once() -> None:
    names = [feature.name for feature in zoo.load_features("pixels", "brightness", "pose")]
    assert names == [*zoo.feature_names()["pixels"], "pose"]


def test_a_feature_is_known_by_the_name_it_is_loaded_by() -> None:
    for name in (*zoo.feature_names()["all"], "identity", "landmarks68"):
        assert zoo.load_feature(name).name == name


def test_a_network_is_built_once() -> None:
    assert zoo.load_network("facemesh") is zoo.load_network("facemesh")


def test_networks_are_frozen() -> None:
    for name in zoo.NETWORKS:
        network = zoo.load_network(name)
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("load", [zoo.load_feature, zoo.load_features, zoo.load_network, zoo.tensors])
def test_an_unknown_name_gets_the_nearest_known(load) -> None:  # type: ignore[no-untyped-def]
    wrong = "facemehs" if load in (zoo.load_network, zoo.tensors) else "simle"
    with pytest.raises(ValueError, match=r'did you mean "(facemesh|smile)"'):
        load(wrong)


@torch.no_grad()
def test_faces64_makes_faces() -> None:
    generator = zoo.load_generator("faces64")
    images = generator(generator.sample(4, seed=0))
    assert images.shape == (4, 3, 64, 64)
    assert zoo.load_network("person")(images)[..., 24:40, 24:40].mean() > 0.9  # there is somebody in the middle
