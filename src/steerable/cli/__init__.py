"""``steer``: the verbs of the story, in its order. torch is imported when a verb runs, not for ``--help``.

    train steerable | controllable · zoo · import · doctor · sample · measure · fit axes | walks | controllers | label · import-directions ·
    apply · drive · evaluate · limits · variability · combine · report walks · studio · demo

Each verb parses, calls the library, and shows what came out; nothing is computed here. ``looking`` has the verbs before fitting,
``options`` what several verbs share, ``terminal`` how things are read and shown.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from steerable.cli import (
    controllable,
    directions,
    doctor,
    driving,
    evaluating,
    fitting,
    importing,
    limits,
    looking,
    reporting,
    steering,
    studio,
    terminal,
    training,
    variability,
)


class InOrder(TyperGroup):
    """Lists the verbs as the story goes; typer would put those with verbs of their own last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in STORY if name in self.commands]


STORY = (
    "demo",
    "train",
    "zoo",
    "import",
    "doctor",
    "sample",
    "measure",
    "fit",
    "import-directions",
    "apply",
    "drive",
    "evaluate",
    "limits",
    "variability",
    "combine",
    "report",
    "studio",
    "axes",
    "walks",
    "values",
    "controllers",
    "label",
    "steerable",
    "controllable",
)
LOOK: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "cls": InOrder,
    "no_args_is_help": True,
}
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

app = typer.Typer(name="steer", context_settings=SETTINGS, **LOOK)
fit = typer.Typer(context_settings=SETTINGS, **LOOK)
train = typer.Typer(context_settings=SETTINGS, **LOOK)
report = typer.Typer(context_settings=SETTINGS, **LOOK)

app.command(short_help="Steer real faces, end to end, and write a report.")(evaluating.demo)
app.add_typer(train, name="train", short_help="Train generators that are steerable by construction.")
app.command(short_help="List the shipped generators, networks and features.")(looking.zoo)
app.command("import", short_help="Read anybody's checkpoint safely, and write it as safetensors.")(importing.import_)
app.command(short_help="Say what a generator is, and whether it can be steered.")(doctor.doctor)
app.command(short_help="Generate a picture for each seed.")(looking.sample)
app.command(short_help="Measure the picture of each seed.")(looking.measure)
app.add_typer(fit, name="fit", short_help="Fit controls, and features from your own labels.")
app.command(short_help="Make a control of directions that others found.")(directions.import_directions)
app.command(short_help="Steer the images of some seeds, and say what moved.")(steering.apply)
app.command(short_help="Hold something and move the rest, as a film.")(driving.drive)
app.command(short_help="Measure what a control really does.")(evaluating.evaluate)
app.command(short_help="Find how far each knob can be turned, and what ends it.")(limits.limits)
app.command(short_help="Relate how far classes move to how much they vary.")(variability.variability)
app.command(short_help="Compare walks fitted jointly with walks fitted alone.")(reporting.combine)
app.add_typer(report, name="report", short_help="Write a report of everything that was measured.")
app.command(short_help="Steer in a browser: turn, lock, hold and drive.")(studio.studio)
report.command(short_help="How far walks go, and why not further.")(reporting.walks)
fit.command(short_help="An axis for each measured column.")(fitting.axes)
fit.command(short_help="A walk for each edit, learned without labels.")(fitting.walks)
fit.command(short_help="A controller that sets values in one pass.")(fitting.values)
fit.command(short_help="Values by number, for a generator with groups.")(fitting.controllers)
fit.command(short_help="A feature from your own labels.")(fitting.label)
train.command(short_help="A class-conditional DCGAN, its walk learned with it.")(training.steerable)
train.command(short_help="A generator whose latent has groups, each set by one measurement.")(controllable.controllable)
train.callback()(training.train_help)


def _version(asked: bool) -> bool:
    if asked:
        import steerable

        terminal.say(f"steer {steerable.__version__}")
        raise typer.Exit()
    return asked


@app.callback()
def top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Named, unit-bearing, measured controls for any image generator.

    The verbs in the order of their use; 'steer VERB --help' explains one. Tables go to standard output, progress and errors to
    standard error; bad input ends with exit code 2, an interrupt with 130.
    """


@fit.callback()
def fit_help() -> None:
    """Fit controls: axes of measured columns, walks that imitate an edit, values set at once; and features from your own labels."""


@report.callback()
def report_help() -> None:
    """Measure, and write one self-contained HTML page: every figure and table with its n, its seeds and its judge."""


def main(arguments: list[str] | None = None) -> None:
    """The console script: bad input ends with one line and exit code 2, an interrupt with 130."""
    sys.exit(execute(arguments))


def execute(arguments: list[str] | None = None) -> int:
    """Run a command line (that of the process by default) and return its exit code."""
    return terminal.run(lambda: app(arguments, prog_name="steer", standalone_mode=False), arguments)
