"""``steer``: the verbs of the story, in its order. torch is imported when a verb runs, not for ``--help``.

    zoo · sample · measure · fit axes | walks | label · apply · evaluate · demo

Each verb parses, calls the library, and shows what came out; nothing is computed here. ``looking`` has the verbs before fitting,
``options`` what several verbs share, ``terminal`` how things are read and shown.
"""

from __future__ import annotations

import sys

import typer

from steerable.cli import evaluating, fitting, looking, steering, terminal

app = typer.Typer(
    name="steer",
    help="Named, unit-bearing, measured controls for any image generator.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(evaluating.demo)
app.command()(looking.zoo)
app.command()(looking.sample)
app.command()(looking.measure)
fit = typer.Typer(help="Fit controls: axes of measured attributes, walks that imitate an edit, features from your labels.", no_args_is_help=True)
fit.command()(fitting.axes)
fit.command()(fitting.walks)
fit.command()(fitting.label)
app.add_typer(fit, name="fit")
app.command()(steering.apply)
app.command()(evaluating.evaluate)


def main() -> None:
    """The console script: bad input ends with one line and exit code 2, an interrupt with 130."""
    sys.exit(terminal.run(lambda: app(standalone_mode=False)))
