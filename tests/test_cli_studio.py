"""steer studio at the command line: what it refuses, and the token that it asks for elsewhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from toys import dcgan_file

from steerable import store
from steerable.cli import execute
from steerable.controls.directions import Directions
from steerable.protocols import Knob, LatentSpace
from steerable.studio import server


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studio") / "toy.safetensors"
    path.write_bytes(dcgan_file())
    return path


@pytest.fixture
def served(monkeypatch):
    """What would be served, without serving it."""
    seen = {}
    monkeypatch.setattr(server, "serve", lambda workshop, **options: seen.update(options, workshop=workshop))
    return seen


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_this_machine_needs_no_token(toy, served, capsys):
    port = free()
    assert execute(["studio", str(toy), "--port", str(port), "--device", "cpu"]) == 0
    assert served["token"] is None and served["host"] == "127.0.0.1"
    assert f"open http://127.0.0.1:{port}/" in capsys.readouterr().out


def test_everybody_else_needs_the_token_that_is_printed(toy, served, capsys):
    assert execute(["studio", str(toy), "--host", "0.0.0.0", "--port", str(free()), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert len(served["token"]) >= 32 and f"?token={served['token']}" in said and "0.0.0.0" not in said


def test_a_port_that_is_taken_is_said(toy, served, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert execute(["studio", str(toy), "--port", str(port)]) == 2
    assert f"--port {port} cannot be listened on" in capsys.readouterr().err and not served


def test_a_control_of_another_generator_is_refused_by_name(toy, served, tmp_path, capsys):
    other = Directions((Knob("age", "", -1, 1, 0.0),), LatentSpace("z", (8,), "f" * 64, "other"), torch.ones(1, 8))
    store.save_control(other, tmp_path / "age.safetensors")
    assert execute(["studio", str(toy), "--control", str(tmp_path / "age.safetensors"), "--port", str(free())]) == 2
    assert "was fitted on other" in capsys.readouterr().err and not served


def test_a_generator_that_is_not_there_is_refused(served, capsys):
    assert execute(["studio", "nobody.safetensors", "--port", str(free())]) == 2
    assert "nobody.safetensors" in capsys.readouterr().err and not served
