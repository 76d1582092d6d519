"""``steer doctor``: what a generator is, and whether it can be steered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import say

if TYPE_CHECKING:
    from steerable.doctor import Report

FAILED = 1  # the exit code
CELL = 256  # pixels of an image on the contact sheet, at most


def doctor(
    generator: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A file with weights, a generator of the zoo, or hf://owner/repo.")
    ] = options.GENERATOR,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Contact sheet of 16 images to write, .png; none by default.")] = None,
    with_: options.With = None,
    device: options.Device = "auto",
) -> int | None:
    """Say what a generator is, and check whether it can be steered.

    Its family, spaces, sizes, classes, value range, licence; then whether sampling is deterministic, rows are independent of the batch,
    gradients are right and truncation sane, and how fast it is. Exit code 0: healthy; 1: a check failed, or it is no generator yet; 2:
    bad input.
    """
    from steerable import doctor as clinic
    from steerable import hub, provenance

    if out is not None:
        options.file(out, ".png", "a contact sheet")
    file = hub.fetch(generator) if hub.is_address(generator) else generator
    try:
        report = clinic.examine(options.generator(str(file), device, with_), stated=provenance.stated(file))
    except ValueError as error:
        report = clinic.untold(Path(file), error)
    terminal.table(f"{report.name}, as found", ("what", "value"), report.facts())
    if report.missing:
        say(f"{report.name} is no generator yet")
        return FAILED
    words = {True: "ok", False: "FAILED", None: "–"}
    say("")
    rows = [(check.name, words[check.ok], check.measured) for check in report.checks]
    terminal.table("checks; judge: the images themselves", ("check", "result", "measured"), rows)
    say("")
    failed = [check.name for check in report.checks if check.ok is False]
    say(f"{report.name} is healthy" if report.healthy else f"{report.name} failed: {', '.join(failed)}")
    if out is not None and report.images is not None:
        _sheet(report, generator, with_, out)
        say(f"written: {out}")
    return None if report.healthy else FAILED


def _sheet(report: Report, name: str, with_: list[str] | None, out: Path) -> None:
    """The images of seeds 0 to 15, with the recipe that draws them inside."""
    from torch.nn.functional import interpolate

    from steerable import recipe, render
    from steerable.doctor import SEEDS

    images = report.images
    assert images is not None
    scale = max(1, min(2, CELL // images.shape[-1]))
    if max(images.shape[2:]) > CELL:
        share = CELL / max(images.shape[2:])
        images = interpolate(images, [max(1, round(side * share)) for side in images.shape[2:]], mode="area")
    made_by = recipe.Recipe(
        generator=name, fingerprint=report.fingerprint, options=options.options_of(with_), seeds=tuple(SEEDS), psi=1.0, cutoff=None, scale=1
    )
    sheet = render.grid(images, captions=[f"seed {seed}" for seed in SEEDS], scale=scale)
    render.write_png(out, sheet, recipe=made_by.model_dump_json(exclude_defaults=True))
