"""``steer drive``: hold something and move the rest continuously, as a film. The loop is the one that the studio drives with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import parse_box, plural, say, short

if TYPE_CHECKING:
    import PIL.Image

    from steerable.controls.driving import Frame, Row
    from steerable.protocols import Feature, Latents

LINES = 12  # of the printed ledger


def drive(
    hold_box: Annotated[
        str | None, typer.Option(metavar="BOX", help="Hold the pixels of a box and move the rest: top,left,bottom,right, 16,18,52,46.")
    ] = None,
    move: Annotated[
        list[str] | None, typer.Option(metavar="FEATURES", help="Move these instead, as in 'steer apply'; with --hold. None by default.")
    ] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(metavar="FEATURES", help="Hold these, as in 'steer apply', alone or beside the box. None by default."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The film, .mp4 or .gif. Its last picture and its ledger stand beside it.")
    ] = Path("drive.mp4"),
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, max=2**63 - 1, help="Seed of the picture that is driven.")] = 0,
    steps: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=20000, help="Steps, a frame each.")] = 240,
    amount: Annotated[
        float | None,
        typer.Option(metavar="AMOUNT", help="Change of what moves in one step, in its unit; a tenth of a standard deviation by default."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="DEVIATIONS", help="Drift of what is held that is allowed, in standard deviations of the population.")
    ] = 0.06,
    rank: options.Rank = 1,
    fps: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=100, help="Frames a second of the film.")] = 24,
    generator: options.GeneratorName = options.GENERATOR,
    psi: options.Psi = 1.0,
    with_: options.With = None,
    label: options.Label = None,
    device: options.Device = "auto",
) -> None:
    """Hold a box, or any features, and move the rest step by step: where it gets no further, it turns around."""
    resolved = dict(locals())
    from steerable import drawing, films, named, recipe
    from steerable.controls.driving import Drive
    from steerable.features.pixels import Box, RegionPixels

    options.file(out, f".{films.kind_of(out)}", "a film")
    if hold_box is None and not (move and hold):
        raise ValueError("nothing to drive: give --hold-box 16,18,52,46, or --move and --hold with features.")
    made = options.generator(generator, device, with_)
    options.label_of(made, label)
    shape, where = made.image_shape, options.device(device)
    box = None if hold_box is None else parse_box(hold_box)
    moved: list[tuple[Feature, float]] = named.features(move or [], shape, device=where)
    held: list[tuple[Feature, float]] = named.features(hold or [], shape, device=where)
    if box is not None:
        held.insert(0, (RegionPixels(Box(*box), shape, name="the box"), 1.0))
        moved = moved or [(RegionPixels(Box(*box), shape, invert=True, name="the rest"), 1.0)]
    going = Drive(made, move=moved, hold=held, tolerance=tolerance)
    if amount is not None and not 0 < abs(amount) < float("inf"):
        raise ValueError(
            f"--amount is a finite amount other than 0, in {going.control.knobs[0].unit or 'the unit of what moves'}; got {amount:g}."
        )
    whole = recipe.Recipe(
        generator=generator, fingerprint=made.fingerprint, options=options.options_of(with_), seeds=(seed,), psi=psi, label=label
    )
    start = recipe.begin(whole, made, going.control.space.name)
    rows: list[Row] = []
    last: list[Latents] = [start]
    pace = going.control.unit / 10 if amount is None else amount
    boxes = recipe.boxes_of(recipe.Drive(box=box, amount=1.0)) if box else []
    begun = going.begin(start)
    frames = _watched(going.ride(steps, pace, rank=rank), begun, steps, rows, last)
    pictures = _pictures(frames, boxes, going.control.knobs[0].unit, max(1, 256 // shape[1]))
    started = time.perf_counter()
    films.write(out, pictures, films.Pace(fps=fps, loop="once"))
    seconds = time.perf_counter() - started
    ended = whole.model_copy(update={"offset": recipe.offset_of(last[0].values[0] - start.values[0])})
    drawing.write(ended, made, out.with_suffix(".png"), last)
    _tell(rows, going.control.knobs[0].unit, {one.name: one.unit for one, _ in held}, going.tolerance, seconds)
    _ledger(out.with_suffix(".csv"), rows)
    say(f"written: {out} ({plural(len(rows), 'frame')}, {fps} a second), {out.with_suffix('.png')} and {out.with_suffix('.csv')}")
    options.write(out.with_suffix(".json"), "drive", resolved)


def _watched(ride: Iterator[Frame], begun: Frame, steps: int, rows: list[Row], last: list[Latents]) -> Iterator[Frame]:
    """The frames, the start first; their ledger lines and the newest latent are kept aside."""
    from steerable import progress

    rows.append(begun.row)
    yield begun
    for frame in progress.track(ride, "driving", total=steps):
        rows.append(frame.row)
        last[0] = frame.latents
        yield frame


def _pictures(frames: Iterator[Frame], boxes: Sequence[tuple[int, int, int, int]], unit: str, scale: int) -> Iterator[PIL.Image.Image]:
    from steerable import render

    for frame in frames:
        worst = max(frame.row.deviations, key=lambda name: frame.row.deviations[name])
        lines = [
            f"moved {frame.row.moved:.3f} {unit}",
            f"{worst} {frame.row.deviations[worst]:.3f} sd{' BROKEN' if frame.row.broken else ''}",
        ]
        yield render.headed(render.grid(frame.image, columns=1, scale=scale, boxes=boxes), lines)


def _tell(rows: Sequence[Row], unit: str, units: dict[str, str], tolerance: float, whole: float) -> None:
    """A dozen lines of the ledger, the speed (``whole`` seconds with the film), and every hold that broke, with where."""
    every = max(1, -(-len(rows) // LINES))
    names = list(units)
    shown = [rows[i] for i in range(0, len(rows), every)]
    shown += [] if shown[-1] is rows[-1] else [rows[-1]]
    header = ("frame", f"moved ({unit})", *[title for name in names for title in (f"{name} ({units[name]})", "sd")], "from mean")
    lines = []
    for row in shown:
        drift = [short(number) for name in names for number in (row.drift[name], row.deviations[name])]
        lines.append((str(rows.index(row)), short(row.moved), *drift, short(row.distance)))
    terminal.table("what moved and what the holds drifted since the start; sd: in standard deviations of the population", header, lines)
    seconds = sum(row.seconds for row in rows[1:])
    stuck = sum(row.stuck for row in rows)
    furthest = max(row.moved for row in rows)
    say(
        f"{plural(len(rows) - 1, 'step')} in {whole:.1f} s, {(len(rows) - 1) / max(whole, 1e-9):.1f} a second with the film, "
        f"{(len(rows) - 1) / max(seconds, 1e-9):.1f} without; furthest {short(furthest)} {unit}; no way on at {stuck}"
    )
    for name in names:
        over = [i for i, row in enumerate(rows) if name in row.broken]
        worst = max(row.deviations[name] for row in rows)
        if over:
            say(f"hold broken: {name} drifts {short(worst)} deviations, allowed {tolerance:g}; first at frame {over[0]}")
        else:
            say(f"{name}: held, at most {short(worst)} deviations of the {tolerance:g} allowed")


def _ledger(path: Path, rows: Sequence[Row]) -> None:
    import csv
    import io

    from steerable import files

    names = list(rows[0].drift)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("frame", "changed", "moved", *[f"{name} {kind}" for name in names for kind in ("drift", "sd")], "from-mean", "stuck"))
    for i, row in enumerate(rows):
        drift = [number for name in names for number in (row.drift[name], row.deviations[name])]
        writer.writerow((i, row.changed, row.moved, *drift, row.distance, int(row.stuck)))
    files.write_text(path, text.getvalue())
