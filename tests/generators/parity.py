"""Reads the parity cases: tiny published-layout generators with the outputs that the published code gave for them.

The folder is ``../shared/parity`` beside the working tree, or the one named in STEERABLE_PARITY; tests skip where
neither is there. What cases there are, and all their sizes, comes from the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(os.environ.get("STEERABLE_PARITY") or Path(__file__).resolve().parents[2] / "../shared/parity")
LIMITS = {"w": 1e-5, "style": 1e-5, "image": 5e-5}  # times max(1, largest magnitude of the reference)


@dataclass(frozen=True)
class Case:
    """One case: ``facts`` is its JSON, the tensors are named without their ``state/``, ``in/`` and ``out/``."""

    name: str
    facts: dict[str, Any]
    state: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def cases(*families: str) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize("case", ...)``: names of the cases whose family starts with one of these."""
    found = [path.stem for path in sorted(FOLDER.glob("*.json")) if _family(path).startswith(families)]
    absent = pytest.mark.skip(reason=f"no parity cases of {' or '.join(families)} in {FOLDER}: set STEERABLE_PARITY to their folder")
    return [pytest.param(name, id=name) for name in found] or [pytest.param("absent", marks=absent)]


@cache
def load(name: str) -> Case:
    """A case by its name; do not write to its tensors."""
    facts = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    tensors = load_file(FOLDER / f"{name}.safetensors")
    state, inputs, outputs = (
        {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)} for part in ("state/", "in/", "out/")
    )
    return Case(name, facts, state, inputs, outputs)


def numbered(tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
    """``prefix0``, ``prefix1``, ... in order."""
    keys = [key for key in tensors if key.startswith(prefix) and key.removeprefix(prefix).isdigit()]
    return [tensors[key] for key in sorted(keys, key=lambda key: int(key.removeprefix(prefix)))]


def error(got: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the reference's largest magnitude or of 1 where that is smaller."""
    assert got.shape == expected.shape, f"{tuple(got.shape)} against the reference's {tuple(expected.shape)}"
    return float((got - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def assert_equal(got: Tensor, expected: Tensor, kind: str, *, what: str = "") -> None:
    """Within the limit of a kind: "w" (also w+ and z), "style" or "image"."""
    off = error(got.detach(), expected)
    assert off <= LIMITS[kind], f"{what or kind} is {off:.1e} off, limit {LIMITS[kind]:.0e}"


def assert_gradient(got: Tensor, expected: Tensor, *, limit: float = 1e-4) -> None:
    """Within ``limit`` of the reference gradient's largest magnitude."""
    off = float((got - expected).abs().max() / expected.abs().max())
    assert got.shape == expected.shape and off <= limit, f"the gradient is {off:.1e} off, limit {limit:.0e}"


def gradient_of(images: Tensor, values: Tensor, cotangent: Tensor) -> Tensor:
    """The gradient of ``sum(images * cotangent)`` in ``values``."""
    (gradient,) = torch.autograd.grad((images * cotangent).sum(), values)
    return gradient


def unread(case: Case, read: Iterable[str]) -> set[str]:
    """Outputs that a test has not compared, so that a new kind of output cannot pass unseen."""
    return set(case.outputs) - set(read)


@cache
def _family(path: Path) -> str:
    return json.loads(path.read_text(encoding="utf-8")).get("family", "")
