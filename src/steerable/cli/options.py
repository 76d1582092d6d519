"""Options that several verbs share, and what they resolve to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable import files
from steerable.cli.terminal import parse_names

if TYPE_CHECKING:
    from steerable.generators.module import ModuleGenerator
    from steerable.protocols import Feature

GENERATOR = "faces64"
FILES = (".png", ".jpg", ".gif", ".mp4", ".html", ".json", ".safetensors", ".pt", ".pkl")  # what no folder is called

GeneratorName = Annotated[
    str,
    typer.Option(
        "--generator", "-g", metavar="NAME|FILE", help="A generator of the zoo, or a file with its weights (safetensors or torch)."
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME=VALUE",
        help="An option of the generator: noise=none, truncation=0.4, lod=1, precision=bfloat16; "
        "'steer doctor' lists them. Repeatable; none by default.",
    ),
]
Cutoff = Annotated[int | None, typer.Option(metavar="LAYERS", min=0, help="Truncate only the first so many layers; all by default.")]
Space = Annotated[
    str | None, typer.Option(metavar="NAME", help="Latent space to fit in: z, w, w+ or s; by default w where there is one, else z.")
]
Precision = Annotated[
    str, typer.Option(metavar="NAME", help="float32; bfloat16 for convolutions; auto: bfloat16 where the processor has it.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps; auto takes the fastest that is there.")]
Psi = Annotated[float, typer.Option(metavar="NUMBER", min=0, max=2, help="Truncation towards the mean latent; 1 is off.")]
Seeds = Annotated[str, typer.Option(metavar="SEEDS", help="Seeds as numbers and ranges: 0-35,40. One picture each.")]
Seed = Annotated[int, typer.Option(metavar="NUMBER", min=0, max=2**32 - 1, help="Seed of everything that is sampled, from 0 on.")]
Label = Annotated[
    int | None, typer.Option(metavar="CLASS", min=0, help="Class of a class-conditional generator, from 0 on; drawn by default.")
]
OneClass = Annotated[
    int | None,
    typer.Option("--label", metavar="CLASS", min=0, help="One class of a class-conditional generator, from 0 on; all by default."),
]
Scale = Annotated[int, typer.Option(metavar="NUMBER", min=1, max=32, help="Enlarge the pictures this many times.")]
Course = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How a trajectory goes: growing, recomputed (the paper's), straight (first direction kept), or a baseline: most-change, "
        "least-change, random.",
    ),
]
Solver = Annotated[
    str,
    typer.Option(metavar="NAME", help="Of a trajectory: soft (weighs what is held), hard (forbids it), matrix-free (for wide latents)."),
]
Rank = Annotated[
    int, typer.Option(metavar="NUMBER", min=1, max=64, help="Start a trajectory with the best direction, the second best, ...")
]
Leak = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Drift of what a trajectory holds that is allowed, as a share of the move, both in deviations."),
]
Features = Annotated[
    str,
    typer.Option(
        metavar="NAMES", help="What is measured: features or groups with commas; pixels, geometry, faces, regions, all. See: steer zoo."
    ),
]
Heads = Annotated[
    list[Path] | None, typer.Option("--head", metavar="FILE", help="Also measure a feature made by 'steer fit label'; may be repeated.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Keep measurements there: an interrupted run goes on from it, one with more features measures only those. None by default.",
    ),
]


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
        raise ValueError(
            f"--device {asked}: this machine has {', '.join(name for name, here in there.items() if here)}. Use --device auto."
        )
    return asked


def generator(name: str, asked_device: str, pairs: Sequence[str] | None = None) -> ModuleGenerator:
    """A generator by name or file, with the options of ``--with`` in force."""
    from steerable import zoo

    made = zoo.load_generator(name, device=device(asked_device))
    return made.configured(**options_of(pairs)) if pairs else made


def options_of(pairs: Sequence[str] | None) -> dict[str, Any]:
    """``["noise=none", "lod=1"]`` as a mapping: values are JSON where they read as JSON, and words otherwise."""
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not name or not equals or not text:
            raise ValueError(f'--with takes NAME=VALUE, for example --with noise=none; got "{pair}".')
        if name in found:
            raise ValueError(f'"{name}" stands in two --with: choose one.')
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


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


def folder(path: Path) -> Path:
    """``path``, if a folder is there or can be made. Asked before the work, so that no result is lost for want of a place.

    Raises:
        ValueError: the name of a file, something else stands there or above it, or it is not ours to write.
    """
    nearest = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise ValueError(f"{path} cannot be a folder: {nearest} is a file. Choose another --out.")
    if path.suffix in FILES and nearest != path:
        raise ValueError(f"a folder is written, and {path} is the name of a file. Use --out {path.with_suffix('')}.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} cannot be written to: choose another --out.")
    return path


def label_of(made: ModuleGenerator, label: int | None) -> int | None:
    """``label``, if the generator has that class.

    Raises:
        ValueError: it has none, or fewer.
    """
    if label is not None and not made.classes:
        raise ValueError(f"{made.name} has no classes: leave out --label {label}.")
    if label is not None and made.classes and label >= made.classes:
        raise ValueError(f"{made.name} has the classes 0 to {made.classes - 1}, got --label {label}.")
    return label


def file(path: Path, suffix: str, what: str, *, flag: str = "--out") -> Path:
    """``path``, if a file of this suffix can be put there.

    Raises:
        ValueError: another suffix (its neighbours, the plots and the options, are named after it), a folder, or no place for one.
    """
    if path.suffix != suffix:
        raise ValueError(
            f"{what} is written as {suffix}, got {flag} {path}. Use {flag} {path.with_suffix(suffix) if path.name else 'NAME' + suffix}."
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it, {flag} {path / ('NAME' + suffix)}.")
    folder(path.parent)
    return path


def write(path: Path, command: str, options: Mapping[str, Any]) -> None:
    """The resolved options of a run beside its outputs, as JSON."""
    import steerable

    plain = {key.rstrip("_"): value for key, value in options.items()}
    if "device" in plain:
        plain["device"] = device(plain["device"])
    content = {"command": command, "version": steerable.__version__, **plain}
    files.write_text(path, json.dumps(content, indent=1, default=str) + "\n")
