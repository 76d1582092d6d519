"""A slider and a picture in NiceGUI, as its examples have it: what somebody would write in an afternoon instead of ``steer studio``.

    python benchmarks/plain/studio.py PORT

The generator is faces64 without this package around it: its network, one direction, one slider. Pictures travel inside the message:
NiceGUI's files of PIL images are gone before a quick hand's browser asks for them.
"""

from __future__ import annotations

import base64
import io
import sys

import PIL.Image
import torch
from nicegui import run, ui

import steerable

torch.set_num_threads(1)
network = steerable.load_generator("faces64").network
rng = torch.Generator().manual_seed(0)
latent, direction = torch.randn(1, 100, generator=rng), torch.randn(1, 100, generator=rng) / 10


@torch.no_grad()
def draw(amount: float) -> str:
    image, buffer = network(latent + amount * direction)[0], io.BytesIO()
    PIL.Image.fromarray(((image.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@ui.page("/")
def page() -> None:
    image = ui.interactive_image(draw(0.0)).classes("big w-64")

    async def turned() -> None:
        image.set_source(await run.io_bound(draw, slider.value))

    slider = ui.slider(min=-10, max=10, step=0.05, value=0, on_change=turned).props('aria-label="yaw"').classes("w-64")


ui.run(port=int(sys.argv[1]), host="127.0.0.1", show=False, reload=False, show_welcome_message=False)
