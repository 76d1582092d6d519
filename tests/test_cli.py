"""The command line as a user types it: help texts, what every verb writes and says, and pictures made again from their recipes.

Bad input is in ``test_bad_input.py``. Features of pixels stand in for those of faces, which are measured the same way and slower.
"""

from __future__ import annotations

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from toys import dcgan_file

import steerable
from steerable.cli import execute, terminal

PIXELS = "--features brightness,contrast,colour"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def axes(steer: Callable[[str], str], work: Path) -> str:
    """What ``fit axes`` printed; the file is there."""
    if not (work / "axes.txt").exists():
        (work / "axes.txt").write_text(
            steer(f"fit axes {PIXELS} --columns brightness,contrast,red --n 60 --seed 3 --hold contrast --cache cache"), encoding="utf-8"
        )
    return (work / "axes.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [path.name for path in sorted((Path(__file__).parent / "data" / "help").glob("*.txt"))])
def test_help_texts_are_the_committed_ones(name, written_help, project):
    """Write them anew with ``python tools/write_help.py``, and read the difference."""
    assert written_help[name] == (project / "tests" / "data" / "help" / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written_help(project: Path) -> dict[str, str]:
    return runpy.run_path(str(project / "tools" / "write_help.py"))["texts"]()


def test_every_verb_has_a_committed_help_text(written_help, project):
    assert {path.name for path in (project / "tests" / "data" / "help").glob("*.txt")} == set(written_help)


def test_every_option_is_explained_and_says_its_default(written_help):
    for name, text in written_help.items():
        options = text.partition("Options:")[2].partition("Commands:")[0]
        entries = [" ".join(entry.split()) for entry in options.split("\n  -")[1:]]
        for entry in entries:
            flag = entry.startswith(("-version", "h, --help", "-whiten"))
            # options that add something when given (a turn, a hold, a path) do nothing by default and say what they do instead
            adds = entry.startswith(("-turn", "-set", "-sweep", "-strip", "-video", "-keyframes", "-hold", "-move", "-recipe", "-head"))
            assert flag or adds or "default" in entry or "[required]" in entry, f"{name}: -{entry}"


def table_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_the_version_is_the_package_s(steer):
    assert steer("--version") == f"steer {steerable.__version__}\n"


def test_no_verb_is_answered_with_the_help(capsys):
    assert execute([]) == 2
    shown = capsys.readouterr()
    assert "Usage: steer" in shown.err and "evaluate" in shown.err and "Traceback" not in shown.err


def test_the_zoo_lists_files_with_licences_and_features_with_units(steer):
    text = steer("zoo")
    assert "faces64" in text and "Apache-2.0" in text and "yaw, pitch, roll" in text and "deg" in text
    assert "DigiFace" in steer("zoo faces64")


def test_sample_writes_a_picture_a_seed_a_sheet_and_the_resolved_options(steer, work):
    text = steer("sample --seeds 0-2,7 --out sampled")
    names = {path.name for path in (work / "sampled").iterdir()}
    assert names == {"seed-000000.png", "seed-000001.png", "seed-000002.png", "seed-000007.png", "sheet.png", "options.json"}
    options = json.loads((work / "sampled" / "options.json").read_text(encoding="utf-8"))
    assert options["command"] == "sample" and options["seeds"] == "0-2,7" and options["device"] in ("cpu", "cuda", "mps")
    assert "4 pictures" in text and "seeds 0-2,7" in text


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_measure_writes_a_row_a_seed(name, steer, work):
    text = steer(f"measure --seeds 5,3 {PIXELS} --out {name}")
    assert "n 2 images" in text and "seeds 5,3" in text and "p50" in text
    if name.endswith(".csv"):
        rows = table_of(work / name)
    else:
        from pyarrow import parquet

        rows = parquet.read_table(work / name).to_pylist()
    assert [int(row["seed"]) for row in rows] == [5, 3]
    assert list(rows[0]) == ["seed", "brightness", "contrast", "red", "green", "blue"]


def test_fit_axes_says_how_well_and_writes_plots(axes, work):
    assert "n 60, seed 3" in axes and "held out" in axes and "judge" in axes
    for name in ("axes.safetensors", "axes-correlation.png", "axes-cosine.png", "axes.json"):
        assert (work / name).stat().st_size > 0


def test_fit_walks_say_the_loss_and_the_range(steer, work):
    text = steer("fit walks brightness --n 16 --out walks.safetensors")
    assert "relative loss" in text and "n 16, seed 0" in text
    assert steerable.load_control(work / "walks.safetensors").knobs[0].name == "brightness"


def test_labels_become_a_feature_for_measure_and_fit(steer, work):
    steer("measure --seeds 0-39 --features brightness --out bright.csv")
    rows = table_of(work / "bright.csv")
    middle = sorted(float(row["brightness"]) for row in rows)[20]
    lines = [f"{row['seed']},{int(float(row['brightness']) > middle)}\n" for row in rows]
    (work / "labels.csv").write_text("seed,label\n" + "".join(lines), encoding="utf-8")
    text = steer("fit label labels.csv --name light")
    assert "accuracy" in text and "held-out rows of n 40, seed 0" in text and "judge: the labels" in text
    assert "light" in steer("measure --seeds 0-3 --features brightness --head light.safetensors --out with-head.csv")


def test_apply_says_what_moved_what_leaked_and_what_was_held(steer, axes, work):
    text = steer(f"apply axes.safetensors --turn brightness=0.1 --turn red=p40 --hold contrast --seeds 0-2 {PIXELS} --out turned")
    rows = {line.split()[1]: line.split() for line in text.splitlines() if line.startswith(("turned ", "held ", "other "))}
    assert "n 3 seeds" in text and rows["brightness"][0] == "turned" and rows["contrast"][0] == "held" and rows["blue"][0] == "other"
    table = table_of(work / "turned" / "measured.csv")
    change = [float(row["brightness-after"]) - float(row["brightness-before"]) for row in table]
    assert [row["seed"] for row in table] == ["0", "1", "2"]
    assert f"{sum(change) / 3:.3g}" in rows["brightness"]


def test_a_value_that_is_set_is_what_is_measured(steer, axes, work):
    text = steer(f"apply axes.safetensors --set brightness=0.4 --seeds 0-2 {PIXELS} --out set")
    values = [float(row["brightness-after"]) for row in table_of(work / "set" / "measured.csv")]
    assert values == pytest.approx([0.4] * 3, abs=0.02)
    assert "brightness set to 0.4: mean 0.4" in text and "n 3 seeds" in text


def test_a_value_is_set_without_a_control_and_what_cannot_be_reached_is_said(steer, work):
    text = steer(f"apply --set brightness=1.5 --hold saturation --seeds 0,5 {PIXELS} --out far")
    assert "seed 5, brightness: 1.5 of full scale asked" in text and "reachable here" in text
    rows = table_of(work / "far" / "measured.csv")
    assert all(float(row["brightness-after"]) > float(row["brightness-before"]) + 0.1 for row in rows)


def test_evaluate_says_effect_leakage_and_plausibility(steer, axes, work):
    text = steer(f"evaluate axes.safetensors --knobs brightness,contrast {PIXELS} --n 8 --seed 5 --quality 16 --out evaluated")
    assert "n 8 latents of seed 5" in text and "kernel distance" in text and "efficientnet-lite0" in text and "judge" in text
    report = json.loads((work / "evaluated" / "evaluation.json").read_text(encoding="utf-8"))
    assert report["n"] == 8 and set(report["leakage"]) == {"brightness", "contrast"} and len(report["effects"]) == 8


PICTURES = {
    "a sampled one": ("sample --seeds 4-5 --psi 0.7", "seed-000004.png"),
    "an enlarged one": ("sample --seeds 4 --scale 3", "seed-000004.png"),
    "a sheet": ("sample --seeds 0-3", "sheet.png"),
    "a turned one": ("apply axes.safetensors --turn brightness=-0.1 --turn contrast=p60 --seeds 0-2", "seed-000001.png"),
    "a sheet of turned ones": ("apply axes.safetensors --turn red=0.1 --hold brightness,contrast --seeds 0-2", "sheet.png"),
    "one set to a value": ("apply axes.safetensors --set brightness=0.3 --by axis --seeds 0-2", "seed-000002.png"),
    "one set to two": ("apply axes.safetensors --set brightness=0.3,red=p60 --hold contrast --seeds 0-2", "seed-000002.png"),
    "a strip": ("apply axes.safetensors --sweep brightness=-0.2:0.2:3 --turn red=0.05 --seeds 0-1", "strip-brightness.png"),
    "one with bands": ("apply --move low:4 --hold high:4 --amount 0.02 --seeds 7", "seed-000007.png"),
    "one with a held box": ("apply --hold-box 16,18,52,46 --rest 0.03 --seeds 7-8", "seed-000008.png"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_made_again_byte_for_byte_without_its_control(name, steer, axes, work, tmp_path, monkeypatch):
    line, picture = PICTURES[name]
    steer(f"{line} --out {tmp_path / 'first'}" + (f" {PIXELS}" if line.startswith("apply") else ""))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the control is not here
    assert execute(["apply", "--recipe", f"../first/{picture}", "--out", "again"]) == 0
    assert Path("again", picture).read_bytes() == (tmp_path / "first" / picture).read_bytes()


def test_a_trajectory_tells_its_ledger_in_tables_strips_and_a_plot(steer, tmp_path):
    text = steer(f"apply --move background --hold inside:face,brightness=2 --amount 0.03 --seeds 7 {PIXELS} --out {tmp_path / 'out'}")
    assert "inside:face (of [-1, 1]) held" in text and "brightness (of full scale) held" in text
    assert "seed 7: outside:person: asked 0.03, moved 0.03" in text and "reached the amount with every hold kept" in text
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text(encoding="utf-8"))
    assert ledger["holds"] == ["inside:face", "brightness"] and ledger["ends"] == ["arrived"] and ledger["broken"] == []
    assert {"way-000007.png", "ledger.png", "seed-000007.png"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_broken_hold_is_said_to_be_broken(steer, tmp_path):
    text = steer(
        f"apply --move outside:16,18,52,46 --hold inside:16,18,52,46 --course most-change --amount 0.2 --seeds 7 {PIXELS} --out {tmp_path}"
    )
    assert "hold broken: inside:16,18,52,46 drifts" in text and "0 of n 1 seed reached the amount with every hold kept" in text


def test_a_drive_is_a_film_with_its_ledger_and_a_last_picture_that_is_made_again(steer, tmp_path):
    text = steer(f"drive --hold-box 16,18,52,46 --seed 7 --steps 5 --out {tmp_path / 'drive.gif'}")
    assert "5 steps in" in text and "the box: held, at most" in text
    with PIL.Image.open(tmp_path / "drive.gif") as film:
        assert film.n_frames == 6
    assert len((tmp_path / "drive.csv").read_text(encoding="utf-8").splitlines()) == 7
    steer(f"apply --recipe {tmp_path / 'drive.png'} --out {tmp_path / 'again'}")
    assert (tmp_path / "again" / "drive.png").read_bytes() == (tmp_path / "drive.png").read_bytes()


def test_a_recipe_of_another_file_name_of_the_same_generator_works_when_it_is_named(steer, tmp_path):
    for name in ("mine", "moved"):
        (tmp_path / f"{name}.safetensors").write_bytes(dcgan_file())
    steer(f"sample --generator {tmp_path}/mine.safetensors --seeds 1 --out {tmp_path}/s")
    (tmp_path / "mine.safetensors").unlink()
    steer(f"apply --recipe {tmp_path}/s/seed-000001.png --generator {tmp_path}/moved.safetensors --out {tmp_path}/r")
    assert (tmp_path / "r" / "seed-000001.png").read_bytes() == (tmp_path / "s" / "seed-000001.png").read_bytes()


def test_seeds_are_numbers_and_ranges():
    assert terminal.parse_seeds("0-3, 40,7-7") == [0, 1, 2, 3, 40, 7]


def test_a_sweep_is_a_list_or_a_range():
    assert terminal.parse_sweep("yaw=-20,0,20") == ("yaw", (-20.0, 0.0, 20.0))
    assert terminal.parse_sweep("yaw=-20:20:5") == ("yaw", (-20.0, -10.0, 0.0, 10.0, 20.0))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (12.3456, "12.3"), (1234.5, "1234"), (2.5e-7, "2.50e-07"), (1e9, "1.00e+09"), (float("nan"), "–")],
)
def test_numbers_are_shown_with_three_digits(value, text):
    assert terminal.short(value) == text


def test_progress_in_a_log_is_a_plain_line_with_an_eta(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "EVERY", 0.0)
    assert list(terminal.lines([1, 2, 3], "measure", 3)) == [1, 2, 3]
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("measure: 1 of 3, ") and shown[0].endswith(" s to go") and len(shown) == 2


def test_of_loops_inside_loops_the_outermost_shows_its_progress():
    from steerable import progress

    seen = []

    def listener(items, label, total):
        seen.append((label, total))
        yield from items

    with progress.shown_by(listener):
        for _ in progress.track(range(2), "outer"):
            assert list(progress.track([1, 2, 3], "inner")) == [1, 2, 3]
        assert list(progress.track([1], "after")) == [1]
    assert seen == [("outer", 2), ("after", 1)]


def shell(line: list[str], project: Path, **options) -> subprocess.Popen[str]:
    code = "from steerable.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # background jobs of a shell ignore it
    return subprocess.Popen([sys.executable, "-c", code, *line], env=environment, **heed, **pipes, **options)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_a_run_with_130_one_line_and_whole_pictures(project, tmp_path):
    """The one run in a process of its own, because the signal has to reach it."""
    from PIL import Image

    running = shell(["sample", "--seeds", "0-99999", "--out", str(tmp_path)], project)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("*.png")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130, error
    assert error.count("\n") == 1 and "interrupted" in error
    for path in tmp_path.iterdir():
        assert path.suffix == ".png"
        Image.open(path).verify()
