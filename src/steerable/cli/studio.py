"""``steer studio``: turn, lock, hold and drive in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerable.cli import options
from steerable.cli.terminal import say

LOCAL, EVERYWHERE = "127.0.0.1", ("0.0.0.0", "::")


def studio(
    generators: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GENERATOR]...", help="Generators to choose from: names of the zoo or files; faces64 by default."),
    ] = None,
    control: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A control file to open with, beside the shipped ones; may be repeated. None by default."),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; anywhere but on 127.0.0.1 visitors need the token that is printed.")
    ] = LOCAL,
    port: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=65535, help="Port to listen on.")] = 8080,
    population: Annotated[
        int, typer.Option(metavar="NUMBER", min=60, max=20000, help="Unsteered images that a control made on the page is fitted on.")
    ] = 500,
    device: options.Device = "auto",
) -> None:
    """Open a page in which generators are steered, and the same operations as JSON over HTTP.

    Ends with Ctrl-C. The page is at the address that is printed; the requests are described at /docs there.
    """
    import socket

    import torch

    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ValueError(f"--host {host} --port {port} cannot be listened on ({error.strerror}): choose another --port.") from None
    from steerable.studio import limits, server, workshop

    where = options.device(device)
    torch.set_num_threads(1)  # a worker for each core; one picture of a small generator does not get faster by sharing
    shop = workshop.opened(generators or [options.GENERATOR], control or [], device=where, population=population)
    token = None if host in limits.LOCAL else limits.new_token()
    knobs = sum(len(bench.knobs) for bench in shop.benches.values())
    say(f"{', '.join(shop.benches)} with {knobs} knobs on {where}. Ctrl-C ends the studio.")
    shown = socket.gethostname() if host in EVERYWHERE else host
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    say(f"open {address}{'' if token is None else f'?token={token}'}")
    server.serve(shop, host=host, port=port, token=token)
