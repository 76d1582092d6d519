"""``steer import-directions``: what others published becomes a control file, with space, layers and unit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import plural, say, short

SHOWN = 12  # knobs in the table


def import_directions(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="InterFaceGAN boundary, SeFa eigenvectors, GANSpace or e4e file (.npy, .npz, .pt).")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Control file to write, .safetensors.")] = Path("control.safetensors"),
    generator: options.GeneratorName = options.GENERATOR,
    space: Annotated[
        str | None, typer.Option(metavar="NAME", help="z, w, w+ or s; by default the one that the sizes fit, if it is one.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="LAYERS", help="Only in these layers, 4-7,10 for example; all layers by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the knob, or of all with a number; FILE's by default.")] = None,
    unit: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Unit of an amount; standard deviations by default if FILE has them, steps of the file if not."),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Make a control of directions that others found: InterFaceGAN, SeFa, GANSpace, e4e. Nothing in FILE is executed."""
    resolved = dict(locals())
    from steerable import foreign, store

    options.file(out, ".safetensors", "a control")
    made = options.generator(generator, device)
    control = foreign.load_directions(file, made, space=space, layers=layers, name=name, unit=unit)
    store.save_control(control, out)
    options.write(out.with_suffix(".json"), "import-directions", resolved)
    lengths = control.vectors.flatten(1).norm(dim=1).tolist()
    rows = [
        (knob.name, knob.unit, short(length), short(knob.low), short(knob.high))
        for knob, length in zip(control.knobs[:SHOWN], lengths, strict=False)
    ]
    where = f"{control.space}, layers {layers}" if layers else str(control.space)
    count = f"{plural(len(control.knobs), 'direction')}{f', the first {SHOWN}' if len(control.knobs) > SHOWN else ''}"
    title = f"{count} in {where}, read as {control.fit['layout']}; low and high are not calibrated, judge: none"
    terminal.table(title, ("knob", "unit", "length", "low", "high"), rows)
    say(f"written: {out}")
