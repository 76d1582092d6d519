"""Options that several verbs share, and what they resolve to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable import files
from steerable.cli.terminal import parse_names

if TYPE_CHECKING:
    from steerable.generators.module import ModuleGenerator
    from steerable.protocols import Feature

GeneratorName = Annotated[str, typer.Option("--generator", "-g", help="A generator of the zoo, or a file with its weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps; auto takes the fastest that is there.")]
Psi = Annotated[float, typer.Option(help="Truncation towards the mean latent; 1 is off.")]
Seeds = Annotated[str, typer.Option(help="Seeds as numbers and ranges: 0-35,40.")]
Label = Annotated[int | None, typer.Option(help="Class of a class-conditional generator.")]
Features = Annotated[str, typer.Option(help="Features or groups, with commas: pixels, geometry, faces, regions, all.")]
Heads = Annotated[list[Path] | None, typer.Option("--head", help="A feature made by 'steer fit label'; may be repeated.")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps measurements: an interrupted run goes on from it.")]


def device(asked: str) -> str:
    """The device to use.

    Raises:
        ValueError: an unknown one, or one that this machine lacks.
    """
    import torch

    from steerable import checks

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        return "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there[checks.known(asked, [*there, "auto"], "device")]:
        raise ValueError(f"--device {asked}: this machine has {', '.join(name for name, here in there.items() if here)}. Use --device auto.")
    return asked


def generator(name: str, asked_device: str) -> ModuleGenerator:
    from steerable import zoo

    return zoo.load_generator(name, device=device(asked_device))


def features(names: str, heads: Sequence[Path] | None, asked_device: str) -> tuple[Feature, ...]:
    """The named features, and those in head files."""
    from steerable import store, zoo

    where = device(asked_device)
    wanted = parse_names(names)
    if not wanted:
        raise ValueError('--features names none: give some with commas, for example "faces,pixels".')
    shipped = zoo.load_features(*wanted, device=where)
    own = tuple(store.load_feature(path, zoo.load_backbone().to(where)) for path in heads or ())
    return (*shipped, *own)


def write(path: Path, command: str, options: Mapping[str, Any]) -> None:
    """The resolved options of a run beside its outputs, as JSON."""
    import steerable

    plain = {key: value for key, value in options.items() if value is None or isinstance(value, (str, int, float, bool, Path, list, tuple, dict))}
    content = {"command": command, "version": steerable.__version__, **plain}
    files.write_text(path, json.dumps(content, indent=1, default=str) + "\n")
