"""``steer import``: anybody's checkpoint becomes safetensors with a description beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerable.cli import options
from steerable.cli.terminal import say


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint: a torch file, a pickle of NVIDIA's or TensorFlow's day, safetensors, or a folder as published.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write, .safetensors; NAME.safetensors in the current folder by default.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which network of the file, G_ema for example; the averaged generator by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the generator; FILE's own by default.")] = None,
    arguments: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON with the arguments of the network's constructor, where FILE has none: conv_clamp, BN_eps, sub_groups_dict, ...; "
            "those in FILE or beside it by default.",
        ),
    ] = None,
) -> None:
    """Read a generator without executing anything that FILE carries, and write it as safetensors, with a description as JSON beside it."""
    from steerable import importing, store
    from steerable.checkpoints import folders

    name = name or importing.name_of(file)
    out = options.file(out or Path(f"{name}.safetensors"), ".safetensors", "a generator")
    told = None if arguments is None else folders.read_arguments(arguments)
    written = store.import_generator(file, out, network=network, name=name, arguments=told)
    generator = store.load_generator_file(written)
    described = store.described(written)
    origin, (channels, height, width) = described["origin"], generator.image_shape
    spaces = ", ".join(f"{space.name} {' x '.join(map(str, space.shape))}" for space in generator.spaces.values())
    which = f", network {origin['network']}" if origin["network"] else ""
    say(f"{file}: {origin['format']}{which}")
    say(f"family:      {described['family']} in the {origin['layout']} layout")
    say(
        f"images:      {width} x {height}, {channels} channel{'s' * (channels > 1)}"
        + (f", {generator.classes} classes" if generator.classes else "")
    )
    say(f"spaces:      {spaces}")
    say(f"fingerprint: {generator.fingerprint}")
    if origin["inert"]:
        more = f" and {len(origin['inert']) - 4} more" if len(origin["inert"]) > 4 else ""
        say(f"not called:  {', '.join(origin['inert'][:4])}{more}")
    say(f"written: {written} and {written.with_suffix('.json').name}")
