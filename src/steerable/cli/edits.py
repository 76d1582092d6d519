"""What the verbs of walks are told to imitate: edits by name, from a file of the user's, inside a region; and by which loss.

``fitting`` and ``reporting`` read these; ``steerable.edits`` has what they mean.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable.cli import options
from steerable.cli.terminal import parse_box, parse_names

if TYPE_CHECKING:
    from steerable.features.perceptual import Perceptual
    from steerable.generators.module import ModuleGenerator
    from steerable.protocols import Edit

LOSSES = ("squared", "perceptual")
OWN_EDIT = "NAME = st.as_edit(function, st.Knob(...))"
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

Within = Annotated[
    str | None,
    typer.Option(
        metavar="REGION",
        help="Edit only there, and leave the rest as it is: person, a box top,left,bottom,right in pixels, or a picture that is white "
        "inside. The whole picture by default.",
    ),
]
Loss = Annotated[str, typer.Option(metavar="NAME", help="squared: the masked squared error; perceptual: how different pictures look.")]


def named(text: str) -> list[list[Edit]]:
    """The edits of a list with commas: names, and FILE.py:NAME for those of the user's. A name such as colour is several, fitted jointly.

    Raises:
        ValueError: none, an unknown one, one twice, a file without that edit.
    """
    from steerable.edits import edit
    from steerable.protocols import Edit

    names = parse_names(text)
    found: list[list[Edit]] = [[own(name, Edit, "an edit", OWN_EDIT)] if ".py:" in name else list(edit(name)) for name in names]
    knobs = [one.knob.name for group in found for one in group]
    if not names or len(set(knobs)) < len(knobs):
        raise ValueError(f'name each edit once, with commas, for example zoom,brightness; got "{text}".')
    return found


def own(text: str, kind: type[Any], what: str, how: str) -> Any:
    """What is called ``NAME`` in ``FILE.py``, which runs as ``python FILE.py`` would: it is the user's own.

    Args:
        kind: the protocol that it follows; ``what`` and ``how`` say in errors what that is and how it is made.

    Raises:
        ValueError: no such file, one that does not run, nothing of that name or kind in it.
    """
    path, _, name = text.rpartition(":")
    how = f"{what[:1].upper()}{what[1:]} of your own is FILE.py:NAME with {how}"
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist. {how}.")
    try:
        there = runpy.run_path(path)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} does not run: {type(error).__name__}: {error}.") from error
    if name not in there:
        fitting = [key for key, value in there.items() if isinstance(value, kind) and not isinstance(value, type)]
        raise ValueError(f'{path} has no "{name}", but {", ".join(fitting) or "nothing of the kind"}. {how}.')
    if not isinstance(there[name], kind) or isinstance(there[name], type):
        raise ValueError(f"{name} of {path} is of the type {type(there[name]).__name__}, not {what}. {how}.")
    return there[name]


def inside(groups: Sequence[Sequence[Edit]], region: str | None, made: ModuleGenerator, asked_device: str) -> list[list[Edit]]:
    """The same edits in a region only, their knobs named after it: ``person-red``, ``box-red``, ``hat-red`` for the mask hat.png.

    Raises:
        ValueError: a box outside the picture, a file that is no picture of the generator's size, a person mask for grey pictures.
    """
    from steerable.edits import within

    if region is None:
        return [list(group) for group in groups]
    where, prefix = _region(region, made, asked_device)
    limited: list[list[Edit]] = [[within(one, where, name=f"{prefix}-{one.knob.name}") for one in group] for group in groups]
    _try(limited[0][0], made)
    return limited


def _region(text: str, made: ModuleGenerator, asked_device: str) -> tuple[Any, str]:
    from steerable import zoo

    _, height, width = made.image_shape
    if text == "person":
        return zoo.load_network("person").to(options.device(asked_device)), "person"
    if Path(text).suffix.lower() in PICTURES or Path(text).exists():
        return _mask(Path(text), height, width), Path(text).stem.lower().replace("_", "-").replace(" ", "-")
    try:
        top, left, bottom, right = parse_box(text)
    except ValueError:
        raise ValueError(
            f'--within takes person, a box such as 16,18,52,46 (top, left, bottom, right), or a picture that is white inside; got "{text}".'
        ) from None
    from steerable.features.pixels import Box

    return Box(top, left, bottom, right), "box"


def _mask(path: Path, height: int, width: int) -> Any:
    """(h, w) of 0 to 1 from the brightness of a picture."""
    import numpy as np
    import torch
    from PIL import Image

    if not path.is_file():
        raise ValueError(f"{path} does not exist: --within takes person, a box such as 16,18,52,46, or a picture that is white inside.")
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no picture that can be read: {' '.join(str(error).split())}.") from error
    if grey.shape != (height, width):
        raise ValueError(f"{path} is {grey.shape[1]} x {grey.shape[0]} pixels, the generator's pictures are {width} x {height}: resize it.")
    if grey.max() == 0:
        raise ValueError(f"{path} is black everywhere, so nothing would be edited: make the region white.")
    return torch.tensor(grey)


def _try(edit: Edit, made: ModuleGenerator) -> None:
    """Once, so that what does not fit is refused before anything is fitted."""
    import torch

    with torch.no_grad():
        image = made(made.sample(1, seed=0))
        edit(image, image.new_zeros(1))


def reached(groups: Sequence[Sequence[Edit]], reach: float | None) -> list[list[Edit]]:
    """The same edits with amounts from ``-reach`` to ``reach``."""
    from steerable.edits import narrowed

    if reach is None:
        return [list(group) for group in groups]
    if not 0 < reach < float("inf"):
        raise ValueError(f"--reach is a finite amount above 0 in the edit's unit, got {reach}.")
    return [[narrowed(one, -reach, reach) for one in group] for group in groups]


def visible(groups: Sequence[Sequence[Edit]], made: ModuleGenerator, reach: float | None) -> None:
    """Refuse amounts beyond what stays visible, of every edit before the first is fitted."""
    import torch

    from steerable.edits import check_visible

    with torch.no_grad():
        image = made(made.sample(1, seed=0))
        for one in (one for group in groups for one in group):
            check_visible(one, image, (one.knob.low, one.knob.high) if reach is None else (-reach, reach))


def loss(name: str, asked_device: str) -> str | Perceptual:
    """What ``fit_directions`` and ``fit_walk`` take as ``loss``."""
    from steerable import checks, zoo
    from steerable.features.perceptual import Perceptual

    if checks.known(name, LOSSES, "loss") == "squared":
        return "l2"
    return Perceptual(zoo.load_backbone().to(options.device(asked_device)))
