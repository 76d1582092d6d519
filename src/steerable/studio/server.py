"""The server: the page and the requests in one application, behind the door of ``limits``."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import sys
import warnings
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from nicegui import Client, ui

import steerable
from steerable.studio import api, limits, page, scheduling
from steerable.studio.workshop import Workshop

# which NiceGUI imports when they are first used: now, not while the first visitor waits
ELEMENTS = [
    "button",
    "column",
    "element",
    "header",
    "html",
    "input",
    "interactive_image",
    "keyboard",
    "label",
    "number",
    "row",
    "select",
    "slider",
    "space",
    "tab",
    "tabs",
    "timer",
]
SWITCH = 0.0005  # seconds between two threads of Python: torch asks for the interpreter at each operation, and waits this long for it
M_ARENA_MAX = -8  # of malloc.h
FIRST = 1.0  # seconds that a page waits for the picture it brings
GONE = 0.5  # seconds after the last visitor to go
PAINT = 0.3  # seconds that a browser has to show the page before the server makes more for it
MESSAGE = 2 * 2**20  # bytes of one message over the socket


def requests(workshop: Workshop) -> FastAPI:
    """The requests alone, without the page."""
    app = FastAPI(
        title="steerable studio",
        version=steerable.__version__,
        description="Steer a generator: a recipe comes in, a PNG or measured values go out. All pictures are synthetic.",
    )
    app.include_router(api.routes(workshop))
    app.add_exception_handler(RequestValidationError, _misread)
    return app


async def _misread(request: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, in one line, without repeating what was sent: that need not be finite, nor even text."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the whole"
    if first["type"] == "model_attributes_type" and "json" not in request.headers.get("content-type", ""):
        return JSONResponse({"detail": "a recipe is sent as JSON: add the header content-type: application/json."}, 422)
    line = f"{where[:100]}: {first['msg'].lower()}".encode("utf-8", "replace").decode()
    return JSONResponse({"detail": line}, 422)


def application(workshop: Workshop, *, token: str | None = None) -> limits.Door:
    """Everything; one in a process, since NiceGUI is one.

    Args:
        token: asked of every visitor; without one only this machine is answered.
    """
    app = requests(workshop)
    for element in ELEMENTS:
        getattr(ui, element)
    visits: set[str] = set()
    tidy = _Tidy()

    async def root(request: Request, client: Client) -> None:
        if len(visits) >= limits.VISITS:
            ui.label(f"This studio has its {limits.VISITS} visitors: try again when one of them has closed the page.")
            return
        visits.add(client.id)
        client.on_delete(lambda: visits.discard(client.id))
        client.on_delete(tidy.soon)
        work = functools.partial(page.opening, workshop, request.query_params.get("state"))
        found = await scheduling.run(workshop.workers, work, patience="seconds") if "state" in request.query_params else work()
        visit = page.build(workshop, *found, origin=str(request.base_url).rstrip("/"))
        client.on_delete(visit.close)
        client.on_connect(lambda: asyncio.get_running_loop().call_later(PAINT, visit.begin))
        await visit.drawn(FIRST)

    ui.page("/", title="steerable studio", favicon="🎚", response_timeout=60)(root)
    ui.run_with(app, dark=None, title="steerable studio", reconnect_timeout=10.0, show_welcome_message=False, markdown=False)
    return limits.Door(app, token=token)


class _Tidy:
    """What visitors used goes back to the system when they have gone, in one go for those who go at once."""

    def __init__(self) -> None:
        self._waits: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """A visitor has gone."""
        if self._waits is not None:
            self._waits.cancel()
        self._waits = asyncio.get_running_loop().call_later(GONE, self._now)

    def _now(self) -> None:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # where the C library is another than glibc
            ctypes.CDLL(None).malloc_trim(0)


def _few_heaps() -> None:
    """glibc gives each thread a heap of its own and keeps what is freed there: with a dozen threads that is a hundred megabytes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def serve(workshop: Workshop, *, host: str, port: int, token: str | None = None, **options: Any) -> None:
    """Answer until interrupted."""
    import uvicorn

    _few_heaps()
    sys.setswitchinterval(SWITCH)
    # when it starts, NiceGUI looks at every object there is, at torch's outdated ones too
    warnings.filterwarnings("ignore", message=".*reduce_op", category=FutureWarning)
    everything = application(workshop, token=token)
    gc.collect()
    gc.freeze()  # all that is there now stays: the collections that a visitor would wait for need not look at it again
    uvicorn.run(
        everything,
        host=host,
        port=port,
        log_level="warning",
        ws_max_size=MESSAGE,
        ws_per_message_deflate=False,
        **options,
    )
