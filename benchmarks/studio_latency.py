"""How fast the studio's page follows a hand: from a slider's event to the new pixels, in headless Chromium, on faces64.

    python benchmarks/studio_latency.py [--quick]

A real hand: Playwright moves the mouse, the page notes when each event came and when each new picture was on the page (loaded, and the next
frame of the browser begun). In one run, all on this machine:

- first page: from the readiness of the server to the first picture, in a fresh browser context
- latency: single movements of a slider, far enough apart that nothing queues, beside the generator's own forward pass in this process
- drag: pictures a second while a hand moves all the time, and from the last event to the last picture
- burst: fifty events in a second: the last value is what is shown, in one step of history, and nothing older comes after
- drive: steps a second with a held box, the Drive panel's button held down
- eight visitors who drag at once, each in a context of their own, beside requests that fail; then all leave. Memory is read before they
  come and after all else, with the one page of the other measurements open both times. All eight pages are painted by the processors of
  the server, without a graphics card, which visitors elsewhere do on their own: so the same drag is measured with pages that do everything
  else (``content-visibility: hidden``) too

Baseline: the same slider and picture as a bare NiceGUI page (``plain/studio.py``), measured in turns with the studio. It has one slider and
one picture, no history, no readings and no other visitor. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from playwright.async_api import Browser, Page, async_playwright

import steerable
from steerable.studio import pictures, session, workshop
from steerable.studio.links import link_of

HERE = Path(__file__).resolve().parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
ARGS += " --disable-background-networking --disable-component-update --disable-sync"
STUDIO = "from steerable.cli import main; main()"
VISITORS = 8
RECORD = """(name) => {
  const picture = document.querySelector('.big img'), first = !window.seen;
  window.seen = {events: [], frames: [], values: []};
  if (first) {
    picture.addEventListener('load', () => {
      const source = picture.src;
      requestAnimationFrame(() => seen.frames.push([performance.now(), source]));
    });
    document.addEventListener('input', event => seen.values.push(event.target.valueAsNumber), true);
    document.addEventListener('mousemove', event => { if (event.buttons) seen.events.push(event.timeStamp); }, true);
  }
  const box = document.querySelector(`[aria-label="${name}"]`).getBoundingClientRect();
  return [box.x, box.y + box.height / 2, box.width];
}"""

# Everything that comes after the first picture: ends of sliders, measurements, the population
WHOLE = """() => document.querySelector('.knob .end[src]') && document.querySelector('.values .now')?.textContent
  && document.querySelectorAll('.crowd .pick img').length >= 24"""

HAND = """async ([name, seconds]) => {
  const slider = document.querySelector(`[aria-label="${name}"]`), box = slider.getBoundingClientRect(), began = performance.now();
  const mouse = (type, at) => (slider.querySelector('.q-slider__track-container') ?? slider).dispatchEvent(
    new MouseEvent(type, {bubbles: true, buttons: 1, clientX: box.x + at * box.width, clientY: box.y + box.height / 2}));
  const [low, high] = [Number(slider.min), Number(slider.max)], ours = slider.tagName === 'INPUT';
  if (!ours) mouse('mousedown', 0.2);
  for (let i = 0; performance.now() < began + 1000 * seconds; i++) {
    const at = 0.2 + 0.6 * Math.abs((i / 50) % 2 - 1);
    if (ours) {
      slider.value = low + (high - low) * at;
      slider.dispatchEvent(new Event('input', {bubbles: true}));
    } else mouse('mousemove', at);
    await new Promise(resolve => setTimeout(() => requestAnimationFrame(resolve), 16));
  }
  const elapsed = performance.now() - began;
  if (ours) slider.dispatchEvent(new Event('change', {bubbles: true})); else mouse('mouseup', 0.2);
  return 1000 * seen.frames.filter(([, source], i) => source !== seen.frames[i - 1]?.[1]).length / elapsed;
}"""  # a hand in each page; a browser hands on its movements once for each picture of its own that it draws


@dataclass
class Server:
    """A page in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def answers(self) -> bool:
        """Whether it is ready; an answer that there is no such address is one too."""
        try:
            urllib.request.urlopen(f"{self.url}/favicon.ico", timeout=5).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    @property
    def memory(self) -> float:
        """MiB that are resident."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


@contextlib.contextmanager
def served(*commands: list[str]) -> Iterator[list[Server]]:
    """Servers that all answer; they start at once, each in a session of its own, as in terminals of their own."""
    environment, servers = {**os.environ, "OMP_NUM_THREADS": "1"}, []
    try:
        for command in commands:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            filled = [sys.executable, *(part.replace("PORT", str(port)) for part in command)]
            process = subprocess.Popen(filled, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
            servers.append(Server(f"http://127.0.0.1:{port}", process))
        for server in servers:
            while not server.answers:
                if server.process.poll() is not None:
                    raise SystemExit("the server ended before it was ready")
                time.sleep(0.02)
        yield servers
    finally:
        for server in servers:
            server.process.terminate()
        for server in servers:
            server.process.wait()


async def opened(browser: Browser, url: str) -> Page:
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(120_000)
    await page.goto(url)
    await page.wait_for_function("document.querySelector('.big img')?.naturalWidth > 0")
    return page


async def settled(page: Page) -> str:
    """The picture, when it has stood still for half a second."""
    picture = page.locator(".big img").first
    last, now = None, await picture.get_attribute("src")
    while now != last:
        await page.wait_for_timeout(500)
        last, now = now, await picture.get_attribute("src")
    return now or ""


async def again(page: Page, url: str) -> bool:
    """Whether the page comes to show this picture."""
    for _ in range(200):
        if await page.locator(".big img").first.get_attribute("src") == url:
            return True
        await page.wait_for_timeout(200)
    return False


async def single(page: Page, name: str, n: int) -> list[float]:
    """Milliseconds from each of n single movements to its pixels."""
    await settled(page)
    x, y, width = await page.evaluate(RECORD, name)
    await page.mouse.move(x + width / 2, y)
    await page.mouse.down()
    for i in range(n):
        await page.mouse.move(x + width * (0.3 + 0.4 * ((7 * i) % n) / n), y)
        await page.wait_for_timeout(120)
    await page.mouse.up()
    seen = await page.evaluate("seen")
    frames = [frame for frame, _ in seen["frames"]]
    waits = [next((frame for frame in frames if frame > began), float("inf")) - began for began in seen["events"]]
    return waits


async def drag(page: Page, name: str, seconds: float) -> tuple[float, float]:
    """Pictures a second, and milliseconds from the last event to the last picture."""
    await settled(page)
    x, y, width = await page.evaluate(RECORD, name)
    await page.mouse.move(x + width / 2, y)
    await page.mouse.down()
    began, i = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        i += 1
        place = abs((i / 60) % 2 - 1)
        await page.mouse.move(x + width * (0.2 + 0.6 * place), y)
        await asyncio.sleep(max(0.0, 1 / 60 - (time.perf_counter() - now)))
    await page.mouse.up()
    await settled(page)
    seen = await page.evaluate("seen")
    first, last = seen["events"][0], seen["events"][-1]
    shown = [source for at, source in seen["frames"] if first <= at <= last]
    during = sum(one != before for one, before in zip(shown, [None, *shown], strict=False))
    after = [at for at, _ in seen["frames"] if at > last]
    return 1000 * during / max(last - first, 1.0), (after[-1] - last) if after else 0.0


async def burst(page: Page, name: str) -> dict[str, bool]:
    """Fifty events in a second: whether what is shown in the end is the last value, in one step, with nothing older after it."""
    await settled(page)
    steps = await page.locator(".steps .pick").count()
    x, y, width = await page.evaluate(RECORD, name)
    await page.mouse.move(x + width * 0.3, y)  # no place is passed twice, so that each picture answers one event
    await page.mouse.down()
    for i in range(50):
        began = time.perf_counter()
        await page.mouse.move(x + width * (0.3 + 0.008 * i), y)
        await asyncio.sleep(max(0.0, 0.02 - (time.perf_counter() - began)))
    await page.mouse.up()
    await page.wait_for_function("steps => document.querySelectorAll('.steps .pick').length > steps", arg=steps)
    last = await settled(page)
    one = await page.locator(".steps .pick").count() == steps + 1
    seen = await page.evaluate("seen")
    person = [float(await page.get_by_label(label, exact=True).first.input_value()) for label in ("seed", "truncation")]
    place = {source: i for i, source in enumerate(pictured(session.State(int(person[0]), person[1]), name, seen["values"]))}
    order = [place.get(source, -1) for _, source in seen["frames"]]  # which event each picture is the answer to
    slider = page.get_by_label(name, exact=True)
    number = page.locator(f'[data-knob="{name}"] .amount').first
    equal = f"{float(await slider.input_value()):.4g}" == f"{float(await number.input_value()):.4g}"
    await page.get_by_label("undo").click()
    await settled(page)
    await page.get_by_label("redo").click()
    again = await settled(page)
    return {
        "last value shown": equal and last == again and place.get(last) == len(seen["values"]) - 1,
        "one step": one,
        "nothing stale": order == sorted(order) and order[0] >= 0,
    }


@functools.cache
def bench() -> session.Bench:
    """The studio's generator and axes, in this process."""
    axes = steerable.load_control(workshop.SHIPPED / "faces64-axes.safetensors")
    return session.Bench(steerable.load_generator("faces64"), {"axes": axes})


def pictured(state: session.State, name: str, values: list[float]) -> list[str]:
    """What the page has to show for each amount of a knob, from the library itself."""
    states = [state.turned(name, value) for value in values]
    return [pictures.data_url(session.pixels(session.latents(one, bench()), bench())[0], exact=False) for one in states]


async def drive(page: Page, seconds: float) -> float | None:
    """Steps a second with a held box, the button held; None where this studio has no such panel."""
    tab = page.get_by_role("tab", name="Drive")
    if not await tab.count():
        return None
    await tab.click()
    await page.get_by_role("button", name="Draw boxes").click()
    area = await page.locator(".big").first.bounding_box()
    assert area is not None
    await page.mouse.move(area["x"] + 0.3 * area["width"], area["y"] + 0.3 * area["height"])
    await page.mouse.down()
    await page.mouse.move(area["x"] + 0.7 * area["width"], area["y"] + 0.7 * area["height"], steps=4)
    await page.mouse.up()
    await page.get_by_role("button", name="Draw boxes").click()
    await settled(page)
    button = page.get_by_role("button", name=re.compile("^drive right"))
    await page.evaluate(RECORD, "speed: change at each step, in deviations")
    await button.scroll_into_view_if_needed()
    await button.hover()
    await page.mouse.down()
    await page.wait_for_function("window.seen.frames.length > 0")  # it looks around before the first step
    await page.wait_for_timeout(1000 * seconds)
    frames = [at for at, _ in (await page.evaluate("seen"))["frames"]]
    await page.mouse.up()
    await settled(page)
    return 1000 * (len(frames) - 1) / (frames[-1] - frames[0]) if len(frames) > 1 else 0.0


async def dragged(pages: list[Page], seconds: float, *, painted: bool = True) -> list[float]:
    """Pictures a second on each of several pages, a hand on every slider.

    Args:
        painted: else the pages do everything but paint, as if that were done by eight other machines.
    """
    for page in pages:
        await page.evaluate(RECORD, "yaw")
        await page.add_style_tag(content=f"body > * {{ content-visibility: {'visible' if painted else 'hidden'}; }}")
    return await asyncio.gather(*(page.evaluate(HAND, ["yaw", seconds]) for page in pages))


async def crowd(browser: Browser, server: Server, seconds: float) -> dict[str, object]:
    """Eight who drag at once, each a person of their own, beside one whose requests fail; then all leave."""
    states = [session.State(100 + number) for number in range(VISITORS)]
    links = [f"{server.url}/?state={link_of(state, bench(), bench())}" for state in states]
    pages = await asyncio.gather(*(opened(browser, link) for link in links))
    for page in pages:
        await page.wait_for_function(WHOLE)

    async def fail() -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            asked = urllib.request.Request(f"{server.url}/api/render", b'{"seeds": [0]}', {"content-type": "application/json"})
            with contextlib.suppress(urllib.error.HTTPError):
                await asyncio.to_thread(urllib.request.urlopen, asked)
            await asyncio.sleep(0.2)

    unpainted = min(await dragged(pages, seconds / 2, painted=False))
    rates, _ = await asyncio.gather(dragged(pages, seconds), fail())

    async def own(page: Page, state: session.State) -> bool:
        """Whether a page shows its own person, turned as far as its own slider says, and unsteered where it began."""
        turned = float(await page.get_by_label("yaw", exact=True).first.input_value())
        shown = await again(page, pictured(state, "yaw", [turned])[0])
        seed = float(await page.get_by_label("seed", exact=True).first.input_value())
        await page.get_by_role("button", name="Reset all").click()
        return shown and seed == state.seed and await again(page, pictured(state, "yaw", [0.0])[0])

    apart = await asyncio.gather(*(own(page, state) for page, state in zip(pages, states, strict=True)))
    most = server.memory
    for page in pages:
        await page.context.close()
    return {"frames": sorted(rates), "slowest": min(rates), "unpainted": unpainted, "apart": all(apart), "most": most}


async def plain_crowd(browser: Browser, server: Server, seconds: float) -> float:
    """The slowest of eight who drag on the bare page."""
    pages = await asyncio.gather(*(opened(browser, server.url) for _ in range(VISITORS)))
    rates = await dragged(pages, seconds)
    for page in pages:
        await page.context.close()
    return min(rates)


async def left(server: Server, before: float) -> float:
    """Memory when the visitors have gone; a lost one is kept for a while, in case the connection comes back."""
    after, until = server.memory, time.perf_counter() + 40
    while time.perf_counter() < until and after > before + 50:
        await asyncio.sleep(0.5)
        after = server.memory
    return after


def forward(n: int) -> float:
    """Median milliseconds of one forward pass, on one thread as in the studio."""
    torch.set_num_threads(1)
    generator = bench().generator
    latents, times = generator.sample(1, seed=0), []
    with torch.inference_mode():
        for _ in range(n):
            began = time.perf_counter()
            generator(latents)
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else float("nan")


class Found(dict[str, object]):
    """What was measured, told as it comes: a run that is broken off has not been for nothing."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        print(f"{name}: {value}"[:200], file=sys.stderr, flush=True)


async def measured(quick: bool) -> dict[str, object]:
    found = Found()
    singles, seconds = (13, 1.5) if quick else (60, 5.0)
    path = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if path is None:
        raise SystemExit("this benchmark needs Chromium. On Debian: apt-get install chromium.")
    commands = ["-c", STUDIO, "studio", "--port", "PORT"], [str(HERE / "plain" / "studio.py"), "PORT"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGS.split())
        with served(*commands) as (studio, plain):
            bench()
            began = time.perf_counter()
            page = await opened(browser, studio.url)
            found["first page"] = time.perf_counter() - began
            await page.wait_for_function(WHOLE)
            began = time.perf_counter()
            other = await opened(browser, plain.url)
            found["plain first page"] = time.perf_counter() - began
            ours, bare = await single(page, "yaw", singles), await single(other, "yaw", singles)
            found["burst"] = await burst(page, "yaw")
            found["drive"] = await drive(page, seconds)
            before = studio.memory
            crowded = await crowd(browser, studio, 2.0 if quick else 8.0)
            found["single"] = ours + await single(page, "yaw", singles)
            found["plain single"] = bare + await single(other, "yaw", singles)
            found["drag"], found["last"] = await drag(page, "yaw", seconds)
            found["plain drag"], _ = await drag(other, "yaw", seconds)
            if not quick:
                found["plain crowd"] = await plain_crowd(browser, plain, 8.0)
            found["forward"] = forward(50 if quick else 200)
            found["crowd"] = {"before": before} | crowded | {"after": await left(studio, before)}
        await browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer movements, shorter drags, no eight visitors of the bare page")
    one = asyncio.run(measured(parser.parse_args().quick))
    waits, plain, crowded = one["single"], one["plain single"], one["crowd"]
    figures = {
        "first_page_s": one["first page"],
        "plain_first_page_s": one["plain first page"],
        "forward_ms": one["forward"],
        "events": len(waits),
        "latency_ms_median": statistics.median(waits),
        "latency_ms_p95": p95(waits),
        "budget_ms": one["forward"] + 60,
        "plain_latency_ms_median": statistics.median(plain),
        "plain_latency_ms_p95": p95(plain),
        "latency_ratio_median": statistics.median(waits) / statistics.median(plain),
        "drag_frames_per_s": one["drag"],
        "plain_drag_frames_per_s": one["plain drag"],
        "drag_last_ms": one["last"],
        "burst": one["burst"],
        "drive_steps_per_s": one["drive"],
        "visitors": VISITORS,
        "visitors_slowest_frames_per_s": crowded["slowest"],
        "visitors_slowest_unpainted_frames_per_s": crowded["unpainted"],
        "plain_visitors_slowest_frames_per_s": one.get("plain crowd"),
        "visitors_apart": crowded["apart"],
        "memory_mib": [crowded["before"], crowded["most"], crowded["after"]],
        "cores": os.cpu_count(),
    }
    aside = "" if one.get("plain crowd") is None else f"; {one['plain crowd']:.1f}"
    drove = "no Drive panel" if one["drive"] is None else f"{one['drive']:.1f} steps/s"
    rows = [
        ("first page; bare page", f"{figures['first_page_s']:.2f}; {figures['plain_first_page_s']:.2f} s", "2 s"),
        (f"event to pixels, p95 of {len(waits)}", f"{figures['latency_ms_p95']:.0f} ms", f"{figures['budget_ms']:.0f} ms"),
        ("  median; bare page median, p95", f"{figures['latency_ms_median']:.0f}; {statistics.median(plain):.0f}, {p95(plain):.0f} ms", ""),
        ("pictures while dragging; bare page", f"{one['drag']:.0f}; {one['plain drag']:.0f} a second", "20"),
        ("last event to last picture", f"{one['last']:.0f} ms", ""),
        ("fifty events in a second", ", ".join(f"{name}: {'yes' if yes else 'NO'}" for name, yes in one["burst"].items()), "yes"),
        ("driving with a held box", drove, "8"),
        (f"{VISITORS} visitors, the slowest{'; bare page' if aside else ''}", f"{crowded['slowest']:.1f}{aside} pictures a second", "3"),
        ("  the slowest, if nobody painted", f"{crowded['unpainted']:.1f} pictures a second", ""),
        ("  each one's own state", "yes" if crowded["apart"] else "NO", "yes"),
        ("  memory before, with, after", " ".join(f"{crowded[when]:.0f}" for when in ("before", "most", "after")) + " MiB", "+50"),
    ]
    for what, got, asked in rows:
        print(f"{what:36} {got:52} {asked}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
