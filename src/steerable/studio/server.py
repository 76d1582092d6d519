"""The server: the page and the requests in one application, behind a token where others can reach it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from nicegui import Client, ui

from steerable.studio import page
from steerable.studio.workshop import Workshop


def application(workshop: Workshop) -> FastAPI:
    """The application that a server runs; one in a process, since NiceGUI is one."""
    app = FastAPI(title="steerable studio")

    async def root(request: Request, client: Client) -> None:
        visit = page.build(workshop, request.query_params.get("state"))
        client.on_delete(visit.close)

    ui.page("/", title="steerable studio", favicon="🎚", response_timeout=20)(root)
    ui.run_with(app, dark=None, title="steerable studio", reconnect_timeout=5.0, show_welcome_message=False)
    return app
