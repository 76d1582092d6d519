"""``steer train steerable``: a generator that is steerable by construction, and those it is compared to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import say, short

RATE = "Step size of Adam for "
Steps = Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Steps in all; a finished training is prolonged by more.")]
SaveEvery = Annotated[int, typer.Option(metavar="STEPS", min=1, help="Between checkpoints; a multiple of 50, or of --log-every.")]
LogEvery = Annotated[int, typer.Option(metavar="STEPS", min=1, help="Between lines of the log.")]
SampleEvery = Annotated[int, typer.Option(metavar="STEPS", min=1, help="Between sample grids.")]


def train_help() -> None:
    """Train generators that are controllable by construction."""


def steerable(
    data: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="A folder with idx files, with pictures (sub-folders are classes) or with a Hugging Face data set; an idx, .npz or .npy "
            "file; or hf:OWNER/NAME.",
        ),
    ],
    way: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help="plain; augmented: with edited data; joint: generator and walk together, with edited data; joint-only: the same without.",
        ),
    ] = "joint",
    edit: Annotated[
        str, typer.Option(metavar="EDIT", help="What the walk learns and the data are edited by: zoom, shift-x, rotate, ...")
    ] = "zoom",
    low: Annotated[
        float | None, typer.Option(metavar="AMOUNT", help="Least amount of the edit, in its unit; by default the end of its own range.")
    ] = None,
    high: Annotated[
        float | None, typer.Option(metavar="AMOUNT", help="Largest amount, in its unit; by default the end of its own range.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the results; with a checkpoint in it the training goes on from there.")
    ] = Path("trained"),
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the generator; the folder's by default.")] = "",
    steps: Steps = 3000,
    batch: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Real pictures a step.")] = 64,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Side of the pictures: 8, 16, 32, 64, ...")] = 32,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which part of idx files and Hugging Face data sets.")] = "train",
    vary: Annotated[
        str,
        typer.Option(
            metavar="EDIT=SPREAD,...",
            help="Make each class several that differ only in how much they vary: a standard deviation in the edit's unit, the last "
            "level's. zoom=0.32,shift-x=0.1,brightness=0.12 is what digits32-varied has. By default classes stay as they are.",
        ),
    ] = "",
    levels: Annotated[int, typer.Option(metavar="NUMBER", help="Classes made of one by --vary: 2, 3, 5, 7, ...")] = 5,
    each: Annotated[int, typer.Option(metavar="NUMBER", help="Pictures in each of those, the same at all levels.")] = 2000,
    width: Annotated[int, typer.Option(metavar="CHANNELS", min=1, help="Of the largest map; each smaller one has twice as many.")] = 32,
    latent: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Size of the latent.")] = 100,
    embedding: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Numbers that a class adds to the latent.")] = 16,
    lr: Annotated[float, typer.Option(metavar="NUMBER", help=f"{RATE}both networks.")] = 1e-3,
    walk_lr: Annotated[float, typer.Option(metavar="NUMBER", help=f"{RATE}the walk.")] = 1e-3,
    edit_weight: Annotated[float, typer.Option(metavar="NUMBER", help="Weight of the walk's squared error in the joint loss.")] = 10.0,
    r1: Annotated[float, typer.Option(metavar="NUMBER", help="Weight of the gradient penalty on real pictures; 0 leaves it out.")] = 1.0,
    ema: Annotated[float, typer.Option(metavar="NUMBER", help="Decay of the averaged generator, which is the result.")] = 0.999,
    precision: options.Precision = "float32",
    save_every: SaveEvery = 250,
    log_every: LogEvery = 50,
    sample_every: SampleEvery = 500,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Train a class-conditional DCGAN, alone, on edited data, or together with a walk that imitates the edit.

    The same command goes on after an interrupt, to the same weights. On several devices: accelerate launch --no_python
    steer train steerable ... Written are generator.safetensors, walk.safetensors (the joint ways), log.jsonl, samples/, tensorboard/,
    checkpoint.safetensors and options.json.
    """
    resolved = dict(locals())
    from steerable import edits, sources, store
    from steerable.training import varied
    from steerable.training.steerable import train_steerable

    options.folder(out)
    amounts = None
    if way != "plain" and (low is not None or high is not None):
        own = edits.edit(edit)[0].knob
        amounts = (own.low if low is None else low, own.high if high is None else high)
    pictures = sources.read_source(data, size=size, split=split)
    if vary:
        pictures = varied.varied(pictures, varied.parsed(vary), levels=levels, each=each, seed=seed)
    trained = train_steerable(
        pictures,
        out=out,
        way=way,  # type: ignore[arg-type]
        edit=None if way == "plain" else edit,
        amounts=amounts,
        steps=steps,
        batch=batch,
        size=size,
        width=width,
        latent=latent,
        embedding=embedding,
        lr=lr,
        walk_lr=walk_lr,
        edit_weight=edit_weight,
        r1=r1,
        ema=ema,
        precision=precision,
        seed=seed,
        device=options.device(device),
        name=name or None,
        log_every=log_every,
        save_every=save_every,
        sample_every=sample_every,
    )
    if not trained.writes:
        return
    made, walk = trained.generator, trained.walk
    store.save_generator(
        made, out / "generator.safetensors", half=trained.half, origin={"made_by": "steer train steerable", **_plain(resolved)}
    )
    written = ["generator.safetensors"]
    if walk is not None:
        store.save_control(walk, out / "walk.safetensors")
        written.append("walk.safetensors")
    options.write(out / "options.json", "train steerable", resolved)
    _show(trained, way)
    say(f"written: {', '.join(written)}, options.json, log.jsonl in {out}")


def _plain(resolved: dict) -> dict:
    """What the weights depend on, without places of this machine."""
    left_out = ("data", "out", "name", "device", "save_every", "log_every", "sample_every")
    return {key: value for key, value in resolved.items() if key not in left_out}


def _show(trained, way: str) -> None:
    import json

    lines = [json.loads(line) for line in trained.log.read_text(encoding="utf-8").splitlines()]
    last = lines[-1]
    losses = [(key, short(value)) for key, value in last.items() if key not in ("step", "seconds")]
    terminal.table(
        f"{trained.generator.name}, {way}: {trained.steps} steps in {last.get('seconds', 0):.0f} s; mean losses of the last log line",
        ("loss", "value"),
        losses,
    )
    if trained.walk is not None:
        knob = trained.walk.knobs[0]
        say(
            f"walk: {knob.name}, {short(knob.low)} to {short(knob.high)} {knob.unit}; measure it with: steer evaluate, benchmarks/digits.py"
        )
