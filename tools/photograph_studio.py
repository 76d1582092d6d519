"""Take the picture of the studio that README shows: a face turned with its light locked, a box held and driven around.

    python tools/photograph_studio.py            # docs/studio.png; needs a Chromium and the development extras

Starts ``steer studio`` in a process of its own and does what a visitor would.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 240.0  # seconds for everything that is waited for


def steered(page: Page) -> None:
    """Lock the light, turn the head, hold the eyes and drive a few steps."""
    page.get_by_role("button", name="lock brightness", exact=True).click()
    field = page.locator('[data-knob="yaw"] .q-field input').first
    field.fill("18")
    field.press("Enter")
    page.get_by_role("tab", name="Drive").click()
    pen = page.get_by_role("button", name="Draw boxes")
    pen.click()
    expect(page.locator(".big")).to_have_class(re.compile("drawing"))
    frame = page.locator(".big").bounding_box()
    assert frame is not None
    x, y, side = frame["x"], frame["y"], frame["width"]
    page.mouse.move(x + 0.25 * side, y + 0.3 * side)
    page.mouse.down()
    page.mouse.move(x + 0.78 * side, y + 0.52 * side, steps=6)
    page.mouse.up()
    pen.click()
    page.get_by_role("button", name="drive right").hover()
    page.mouse.down()
    expect(page.locator(".told")).to_contain_text(re.compile(r"1\d steps: moved"))
    page.mouse.up()
    expect(page.locator(".steps .pick.on img")).to_be_visible()


def photograph(path: Path, *, dark: bool = False) -> None:
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
        found = next((place for name in CHROMIUM if (place := shutil.which(name))), None)
        if found is None:
            raise SystemExit("no Chromium here: on Debian, apt-get install chromium.")
        expect.set_options(timeout=1000 * PATIENCE)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=["--headless", "--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1440, "height": 960}, color_scheme="dark" if dark else "light")
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(url)
            expect(page.locator('[data-knob="yaw"] .end[src]').first).to_be_visible()
            steered(page)
            page.screenshot(path=path)
            browser.close()
    finally:
        process.terminate()
        process.wait(20)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "studio.png", help="PNG to write")
    parser.add_argument("--dark", action="store_true", help="as it looks in the dark")
    given = parser.parse_args()
    photograph(given.out, dark=given.dark)
