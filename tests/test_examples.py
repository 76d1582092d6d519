"""Every example runs as it stands, and together with the docstrings they show every public name."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_leaves_a_picture(example, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr("sys.argv", [str(example), str(tmp_path / "out")])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    with Image.open(tmp_path / "out" / "strip.png") as picture:
        assert picture.width > 100
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def public() -> list[str]:
    stub = ast.parse((ROOT / "src" / "steerable" / "__init__.pyi").read_text(encoding="utf-8"))
    return sorted(alias.asname or alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names)


@pytest.mark.parametrize("name", public())
def test_a_public_name_stands_in_an_example_that_runs(name):
    assert [path for path in EXAMPLES if re.search(rf"\bst\.{name}\b", path.read_text(encoding="utf-8"))], (
        f"show steerable.{name} in one of {', '.join(path.name for path in EXAMPLES)}"
    )
