"""What every test shares: where the project lies, and random draws that leave the global generators alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest


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
