"""``steer report walks``, the figures of the steerability paper for a generator; ``steer combine``, its figure 27 for any edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerable.cli import edits as walked
from steerable.cli import options, terminal
from steerable.cli.terminal import parse_names, parse_seeds, say

if TYPE_CHECKING:
    from steerable.protocols import Edit


def walks(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the report.")] = Path("walks-report"),
    generator: options.GeneratorName = options.GENERATOR,
    edits: Annotated[
        str, typer.Option(metavar="NAMES", help="Edits, with commas.")
    ] = "brightness,colour,contrast,zoom,shift-x,shift-y,rotate",
    parts: Annotated[
        str, typer.Option(metavar="NAMES", help="Parts of the report, with commas: walks, limits, variability, combined, trained.")
    ] = "walks,limits,variability,combined,trained",
    quick: Annotated[bool, typer.Option("--quick", help="A rough first look with a tenth of the latents; all of them by default.")] = False,
    seed: options.Seed = 0,
    with_: options.With = None,
    device: options.Device = "auto",
) -> None:
    """Measure how far a generator can be steered by walks, and why not further, and write one HTML report.

    A matter of minutes for the shipped faces on two cores, of about one and a half with --quick.
    """
    import json

    from steerable import walking

    options.folder(out)
    made = options.generator(generator, device, with_)
    path = walking.run(
        out, generator=made, edits=parse_names(edits), parts=parse_names(parts), seed=seed, device=options.device(device),
        plan=walking.QUICK if quick else None,
    )  # fmt: skip
    for part, found in json.loads((out / "results.json").read_text(encoding="utf-8")).items():
        for sentence in found["said"]:
            say(f"{part}: {sentence}")
    say(f"open {path}")


def combine(
    edits: Annotated[
        str,
        typer.Argument(metavar="EDITS", help="Two to four, with commas: zoom,shift-x; names as for 'steer fit walks', or FILE.py:NAME."),
    ],
    control: Annotated[
        list[Path] | None,
        typer.Option(
            "--control", metavar="FILE", help="Compare these controls, which have a knob for each edit; by default both ways are fitted."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the pictures and the controls.")] = Path("combined"),
    generator: options.GeneratorName = options.GENERATOR,
    n: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Latents to fit on.")] = 1024,
    held_out: Annotated[int, typer.Option(metavar="NUMBER", min=2, help="Further latents to compare on, of the next seed.")] = 64,
    seed: options.Seed = 0,
    reach: Annotated[
        float | None,
        typer.Option(metavar="AMOUNT", help="Amounts from -AMOUNT to AMOUNT of every edit; by default 0.5 for zoom, 0.15 for shifts, …"),
    ] = None,
    loss: walked.Loss = "squared",
    space: options.Space = None,
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="Whom the strip shows.")] = "0,1",
    with_: options.With = None,
    device: options.Device = "auto",
) -> None:
    """Compare walks that were fitted jointly with walks that were fitted alone and summed: numbers, heat maps, and a strip."""
    resolved = dict(locals())
    import json

    from steerable import files, render, store
    from steerable.sampling import latents_of
    from steerable.scenes import combined, steerability

    options.folder(out)
    asked = [one for group in walked.named(edits) for one in group]
    if not 2 <= len(asked) <= 4:
        raise ValueError(f'two to four edits are combined, got {len(asked)} in "{edits}".')
    shown = parse_seeds(seeds)
    made = options.generator(generator, device, with_)
    ranged: list[Edit] = [one for group in walked.reached([asked], reach) for one in group]
    if reach is None:
        ranged = [steerability.ranged(one) for one in asked]
    walked.visible([ranged], made, None)
    if control:
        controls = {path.stem: store.load_control(path, generator=made) for path in control}
    else:
        controls = combined.both(made, ranged, n=n, seed=seed, space=space, loss=walked.loss(loss, device))
        for name, one in zip(("joint", "alone"), controls.values(), strict=True):
            store.save_control(one, out / f"{name}.safetensors")
    results = combined.compared(made, controls, ranged, n=held_out, seed=seed + 1)
    where = next(iter(controls.values())).space.name
    sheet = combined.strip(
        made, controls, ranged, latents_of(made, shown, space=where), [f"seed {one}" for one in shown],
        scale=max(1, min(3, 128 // made.image_shape[1])),
    )  # fmt: skip
    written = [render.write_png(out / "strip.png", sheet).name]
    for pair, result in results.items():
        written.append(files.write_bytes(out / f"{'-'.join(pair)}.png", render.figure_png(combined.heat(result))).name)
    said = {" and ".join(pair): result.summary() for pair, result in results.items()}
    written.append(files.write_text(out / "combined.json", json.dumps(said, indent=1) + "\n").name)
    options.write(out / "options.json", "combine", resolved)
    first = next(iter(results.values()))
    title = (
        f"{', '.join(one.knob.name for one in ranged)} on {made.name}: error over that of standing still, mean over all pairs of amounts; "
        f"n {first.n}, seed {first.seed}; judge: the masked squared error of the pixels; gain: by which the first is better, ± "
        "standard error"
    )
    terminal.table(title, ("edits", "walks", "relative error", "gain of the first"), [row[:4] for row in combined.rows_of(results)])
    say(f"written: {', '.join(written)} in {out}")
