"""What the verbs of limits measure: which knobs, and by which attribute each; the options of both verbs.

``limits`` and ``variability`` read these; ``steerable.evaluation.attribute`` has what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable.cli import options, terminal
from steerable.cli.terminal import parse_names

if TYPE_CHECKING:
    from steerable.evaluation.attribute import Attribute
    from steerable.protocols import Control, Knob

FOREGROUNDS = ("border", "person")
LEAST = 16  # images of a kernel distance

ControlFile = Annotated[Path, typer.Argument(metavar="CONTROL", help="Control file made by 'steer fit', or a shipped one by its name.")]
Knobs = Annotated[str, typer.Option(metavar="NAMES", help="Only these knobs, with commas; all by default.")]
Attributes = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        metavar="KNOB=WHAT",
        help="What is measured for a knob: a column of 'steer measure', a FILE.safetensors of 'steer fit label', or FILE.py:NAME, a "
        "detector of your own. By default what belongs to the edit or the column of its name. Repeatable.",
    ),
]
Foreground = Annotated[
    str,
    typer.Option(metavar="NAME", help="What has the centre, area and tilt: what differs from the picture's border, or the person."),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="DISTANCE",
        help="Largest kernel distance of steered to unsteered pictures; by default that of unsteered ones reduced to half their size.",
    ),
]
EvaluationSeed = Annotated[
    int, typer.Option("--seed", metavar="NUMBER", min=0, max=2**32 - 1, help="Their seed; take one that nothing was fitted on.")
]


def chosen(control: Control, names: str) -> list[Knob]:
    """The knobs that are measured; those that set a value have no limits and are left out, unless they are named."""
    from steerable.evaluation.plausible import knob_of

    asked = parse_names(names)
    found = [knob_of(control, name) for name in asked or [knob.name for knob in control.knobs if knob.neutral is not None]]
    if not found:
        raise ValueError("no knob of this control has a neutral amount: limits are those of knobs that shift an attribute.")
    if len({knob.name for knob in found}) < len(found):
        raise ValueError(f'--knobs names one twice: "{names}".')
    return found


def attributes(knobs: Sequence[Knob], given: Sequence[str] | None, foreground: str, device: str) -> dict[str, Attribute]:
    """What is measured for each knob.

    Raises:
        ValueError: an unknown knob, column, file or foreground; a knob that nothing belongs to.
    """
    from steerable import checks, zoo
    from steerable.evaluation.attribute import EDITS_MEASURED, attribute_of, feature_attribute
    from steerable.features.geometry import border_contrast
    from steerable.features.network import select

    checks.known(foreground, FOREGROUNDS, "foreground")
    seen = border_contrast if foreground == "border" else zoo.load_network("person").to(options.device(device))
    pairs = terminal.parse_pairs(given or (), "--attribute")
    for name in pairs:
        checks.known(name, [knob.name for knob in knobs], "knob")
    shelf = (
        []
        if all(knob.name in EDITS_MEASURED and knob.name not in pairs for knob in knobs)
        else zoo.load_features(device=options.device(device))
    )
    found = {}
    for knob in knobs:
        columns = {name for one in shelf for name in one.columns}
        if knob.name in pairs:
            found[knob.name] = feature_attribute(_detector(pairs[knob.name], shelf, device))
        elif knob.name in EDITS_MEASURED:
            found[knob.name] = attribute_of(knob.name, foreground=seen)
        elif knob.name in columns:
            found[knob.name] = feature_attribute(select(shelf, [knob.name])[0])
        else:
            raise ValueError(
                f'nothing that is measured belongs to "{knob.name}": say what, --attribute {knob.name}=COLUMN or --attribute '
                f"{knob.name}=FILE.py:NAME, or leave it out with --knobs. 'steer zoo' lists the columns."
            )
    return found


def _detector(text: str, shelf: Sequence[Any], device: str) -> Any:
    from steerable import store, zoo
    from steerable.cli import edits as walked
    from steerable.features.network import select
    from steerable.protocols import Feature

    if ".py:" in text:
        return walked.own(text, Feature, "a feature", "NAME = st.feature(function, name=..., unit=...)")
    if text.endswith(".safetensors"):
        return store.load_feature(text, zoo.load_backbone().to(options.device(device)))
    return select(shelf, [text])[0]
