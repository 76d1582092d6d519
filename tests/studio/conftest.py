"""The studio as its visitors meet it: a server in a process of its own, and the machine's Chromium, headless.

A worker of the tests starts one server, when a test first asks for it. Playwright keeps an event loop in the thread that it is used in,
so a browser lives as long as one file of tests and no longer. Pictures of pages go to the folder named by STEERABLE_ARTEFACTS, by
default ``artefacts``.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hand
import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright
from torch import nn

from steerable import load_features
from steerable.controls.directions import Directions
from steerable.generators.module import wrap
from steerable.protocols import Knob
from steerable.studio import limits, server
from steerable.studio.session import Bench
from steerable.studio.workshop import Workshop

PATIENCE = 120.0  # seconds until the server answers, on a machine that does much else
SLOW = float(os.environ.get("STEERABLE_SLOW", "1"))  # how much longer than usual to wait, on a machine that does much else
SHOWN = ".big img[src]"  # the steered picture, once there is one


@dataclass(frozen=True)
class Served:
    """A studio that answers."""

    url: str
    process: int


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Iterator[Served]:
    """``steer studio`` with faces64 and its shipped controls, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = tmp_path_factory.mktemp("studio") / "said.txt"
    start = [sys.executable, "-c", "from steerable.cli import main; main()", "studio", "--port", str(port), "--population", "300"]
    with said.open("wb") as out:
        process = subprocess.Popen(start, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while not _answers(f"{address}/api/health"):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the studio did not start:\n{said.read_text()}")
            time.sleep(0.1)
        yield Served(address, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine."""
    expect.set_options(timeout=10_000 * SLOW)
    found = hand.chromium()
    if found is None:
        pytest.skip("no Chromium here: these tests drive the page in a browser. On Debian: apt-get install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(hand.FLAGS))
        yield browser
        browser.close()


@contextmanager
def visits(browser: Browser, studio: Served) -> Iterator[Callable[..., Page]]:
    """What ``visitor`` gives; what a page's own scripts threw makes the test fail, or the last one of those that share the page."""
    contexts, thrown = [], []

    def opened(path: str = "/", *, width: int = 1440, height: int = 900, dark: bool = False, shown: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000 * SLOW)
        page.on("pageerror", lambda error: thrown.append(str(error)))
        page.goto(path if path.startswith("http") else studio.url + path)
        if shown:
            expect(page.locator(SHOWN).first).to_have_attribute("src", re.compile("^(data:|/)"), timeout=30_000 * SLOW)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not thrown


@pytest.fixture
def visitor(browser, studio) -> Iterator[Callable[..., Page]]:
    """Opens the page for one more visitor, who shares nothing with the others: ``visitor()``, ``visitor("/?state=...", width=390)``.

    The page is returned when it shows its picture.
    """
    with visits(browser, studio) as opened:
        yield opened


@pytest.fixture(scope="module")
def first_page(browser, studio) -> Iterator[Page]:
    """The page that the tests of a file share: opening one costs more than what is done on it."""
    with visits(browser, studio) as opened:
        yield opened()


@pytest.fixture
def slow() -> float:
    """What waiting times are multiplied with."""
    return SLOW


@pytest.fixture
def page(first_page) -> Page:
    """The page of one visitor, back at the start of its history."""
    first = first_page.locator(".steps .pick").first
    if "on" not in (first.get_attribute("class") or "").split():
        first.click()
        expect(first).to_have_class(re.compile(r"\bon\b"))
    first_page.evaluate("document.querySelector('.scroll')?.scrollTo(0, 0)")
    return first_page


@pytest.fixture
def shot(project) -> Callable[[Page, str], Path]:
    """``shot(page, "lock")`` keeps a picture of a page, for somebody to look at."""

    def kept(page: Page, name: str, *, whole: bool = False) -> Path:
        path = Path(os.environ.get("STEERABLE_ARTEFACTS", project / "artefacts")) / f"studio-{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path, full_page=whole)
        return path

    return kept


# ------------------------------------------------------------------ without a browser


class Painted(nn.Module):
    """z of six numbers -> (n, 3, 8, 8): a plane of known colours, squashed."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(6, 192, generator=torch.Generator().manual_seed(0)) / 3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ self.matrix).view(-1, 3, 8, 8)


@pytest.fixture(scope="session")
def bench() -> Bench:
    """A small generator with three straight knobs, two of which are measured."""
    generator = wrap(Painted(), latent_size=6, name="painted", value_range=(-1.0, 1.0))
    vectors = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    percentiles = tuple((float(p), (p - 50) / 100) for p in (0, 25, 50, 75, 100))
    knobs = tuple(Knob(name, "of full scale", -1.0, 1.0, 0.0, percentiles=percentiles) for name in ("brightness", "red", "dance"))
    return Bench(generator, {"axes": Directions(knobs, generator.spaces["z"], vectors)}, load_features("pixels"), "painted")


@pytest.fixture(scope="session")
def workshop(bench) -> Workshop:
    return Workshop({"painted": bench}, seconds={"painted": 0.001})


@pytest.fixture
def client(workshop) -> TestClient:
    """Asks the studio from this machine; an error of the server is an error of the test."""
    return TestClient(limits.Door(server.requests(workshop)), base_url="http://127.0.0.1:8080")
