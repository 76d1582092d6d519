"""Take pictures of the studio: a face turned with its light locked, a box held and driven around. README shows the first.

    python tools/photograph_studio.py            # docs/studio.png; needs a Chromium and the development extras
    python tools/photograph_studio.py --all out  # on a laptop and a phone, light and dark, every tab

Starts ``steer studio`` in a process of its own and does what a visitor would, with the hand of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import hand  # noqa: E402

PATIENCE = 240.0  # seconds for everything that is waited for
SIZES = {"laptop": (1440, 960), "phone": (390, 844)}
TABS = ("Measured", "Drive", "Share", "Make")


@contextlib.contextmanager
def studio() -> Iterator[str]:
    """The address of a studio that answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", "from steerable.cli import main; main()", "studio", "--port", str(port)])
    try:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while not _answers(f"{url}/api/health"):
            if time.monotonic() > until or process.poll() is not None:
                raise SystemExit("the studio did not start.")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def opened(browser: Browser, url: str, size: str, *, dark: bool) -> Page:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(url)
    expect(page.locator('[data-knob="yaw"] .end[src]').first).to_be_visible()
    expect(page.locator('[data-column="yaw"] .now')).not_to_be_empty()
    return page


def steered(page: Page) -> None:
    """Lock the light, turn the head, hold the eyes and drive a few steps."""
    page.get_by_role("button", name="lock brightness", exact=True).click()
    hand.turned(page, "yaw", "18")
    hand.boxed(page)
    hand.driven(page, r"1\d steps: moved", patience=1000 * PATIENCE)
    expect(page.locator(f"{hand.STEPS}.on img")).to_be_visible()
    expect(page.locator('[data-knob="brightness"] .says')).to_contain_text("held")


def photograph(path: Path, *, dark: bool = False, everything: bool = False) -> None:
    """One picture of a laptop's page; or a folder of all sizes, shades and tabs."""
    expect.set_options(timeout=1000 * PATIENCE)
    found = hand.chromium()
    if found is None:
        raise SystemExit("no Chromium here: on Debian, apt-get install chromium.")
    with studio() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(hand.FLAGS))
        if not everything:
            page = opened(browser, url, "laptop", dark=dark)
            steered(page)
            page.screenshot(path=path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        else:
            path.mkdir(parents=True, exist_ok=True)
            for size, shade in (("laptop", "light"), ("laptop", "dark"), ("phone", "light"), ("phone", "dark")):
                page = opened(browser, url, size, dark=shade == "dark")
                steered(page)
                for tab in TABS:
                    page.get_by_role("tab", name=tab).click()
                    page.wait_for_timeout(800)  # its ripple
                    page.screenshot(path=path / f"{size}-{shade}-{tab.lower()}.png", full_page=size == "phone")
                page.close()
            print(f"{path}: {len(list(path.glob('*.png')))} pictures")
        browser.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "studio.png", help="PNG to write")
    parser.add_argument("--dark", action="store_true", help="as it looks in the dark")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every size, shade and tab, into this folder instead")
    given = parser.parse_args()
    photograph(given.all or given.out, dark=given.dark, everything=given.all is not None)
