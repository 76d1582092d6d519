"""Write the help text of every verb to ``tests/data/help``, where a test compares them: a change of the command line shows in a review."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

FOLDER = Path(__file__).parent.parent / "tests" / "data" / "help"
STORY = (
    "demo",
    "train",
    "train steerable",
    "train controllable",
    "zoo",
    "import",
    "doctor",
    "sample",
    "measure",
    "fit",
    "fit axes",
    "fit walks",
    "fit values",
    "fit controllers",
    "fit label",
    "import-directions",
    "apply",
    "drive",
    "evaluate",
    "limits",
    "variability",
    "combine",
    "report",
    "report walks",
    "studio",
)
VERBS = ("", *STORY)


def texts() -> dict[str, str]:
    """File name -> help text, 100 columns wide whatever the terminal is."""
    from steerable.cli import execute

    found = {}
    for verb in VERBS:
        shown = io.StringIO()
        with mock.patch.dict(os.environ, {"COLUMNS": "100", "TERMINAL_WIDTH": "100"}), contextlib.redirect_stdout(shown):
            code = execute([*verb.split(), "--help"])
        assert code == 0, verb
        found["-".join(["steer", *verb.split()]) + ".txt"] = shown.getvalue()
    return found


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
