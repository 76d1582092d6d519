"""What every test shares: where the project lies, and random draws that leave the global generators alone."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the working tree."""
    return Path(__file__).parent.parent
