"""What every test shares: where the project lies, a cache of its own, and command lines run in the module's folder ``work``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest

from steerable.cli import execute


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the working tree."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Imports of the tests are kept in a folder of theirs, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEERABLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def no_annotation_checks() -> Iterator[None]:
    """As a user runs it: annotations are not enforced, so what they see is our own message."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def steer(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a command line that goes well; what it printed."""
    monkeypatch.chdir(work)

    def run(line: str) -> str:
        capsys.readouterr()
        code = execute(line.split())
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def refused(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a command line that is refused: its one line. No file may have come or gone but those under ``-kept``."""
    monkeypatch.chdir(work)

    def run(line: str) -> str:
        before = {path for path in work.rglob("*") if "-kept" not in path.name}
        capsys.readouterr()
        code = execute(line.split())
        captured = capsys.readouterr()
        said = [line for line in captured.err.splitlines() if not line.endswith("s to go")]  # a slow machine shows progress
        assert code == 2 and len(said) == 1, captured.err
        assert {path for path in work.rglob("*") if "-kept" not in path.name} == before
        return captured.err

    return run
