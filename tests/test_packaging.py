"""What a user installs holds everything that runs without a network."""

from __future__ import annotations

import re
import tomllib
import zipfile

import pytest
from hatchling.builders.wheel import WheelBuilder


@pytest.fixture(scope="module")
def wheel(project, tmp_path_factory) -> zipfile.ZipFile:
    path = next(WheelBuilder(str(project)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]))
    with zipfile.ZipFile(path) as content:
        yield content


def names(wheel: zipfile.ZipFile) -> set[str]:
    return set(wheel.namelist())


@pytest.mark.parametrize(
    "pattern", ["*.py", "*.pyi", "py.typed", "weights/**/*.safetensors", "weights/**/*.json", "*.html", "*.css", "*.js"]
)
def test_the_wheel_holds_every_such_file_of_the_sources(wheel, project, pattern):
    source = project / "src"
    expected = {str(path.relative_to(source)) for path in (source / "steerable").rglob(pattern)}
    assert expected <= names(wheel)


@pytest.mark.parametrize("file", ["faces64.safetensors", "manifest.json"])
def test_the_wheel_holds_the_default_generator_and_what_is_known_about_it(wheel, file):
    assert f"steerable/weights/{file}" in names(wheel)


def test_the_wheel_holds_nothing_but_the_package_and_its_metadata(wheel):
    assert {name.split("/")[0] for name in names(wheel)} == {"steerable", "steerable-0.1.0.dist-info"}


def test_the_wheel_holds_no_pickles(wheel):
    assert not [name for name in names(wheel) if name.endswith((".pkl", ".pt", ".pth", ".pyc", ".ckpt"))]


@pytest.mark.parametrize("text", ["LICENSE", "NOTICE"])
def test_the_wheel_holds_the_licences(wheel, text):
    assert f"steerable-0.1.0.dist-info/licenses/{text}" in names(wheel)


def test_every_requirement_is_pinned_in_the_constraints(project):
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (project / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line.split("==")[0]) for line in lines if "==" in line and not line.startswith("#")}
    needed = settings["dependencies"] + settings["optional-dependencies"]["dev"]
    assert {plain(re.split(r"[><=\[; ]", line)[0]) for line in needed} <= pinned


def plain(name: str) -> str:
    """A distribution's name as indexes compare it: ``lazy_loader`` is ``lazy-loader``."""
    return re.sub(r"[-_.]+", "-", name).lower()
