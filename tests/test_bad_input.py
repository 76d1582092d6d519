"""Whatever a user types or points at that is wrong: one line that says so, exit code 2, and not a file more or less than before.

The command line runs in this process; only what a shell does to it (a closed pipe, Ctrl-C) is in ``test_cli.py``.
"""

from __future__ import annotations

import errno
import io
import json
import math
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from toys import dcgan_file

from steerable import files, store, zoo
from steerable.cli import execute
from steerable.controls.directions import Directions
from steerable.protocols import Knob
from steerable.render import write_png

HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def axes() -> Directions:
    """Three directions of faces64 that nobody fitted, with ranges and percentiles as if."""
    space = zoo.load_generator("faces64").spaces["z"]
    knobs = tuple(
        Knob(name, unit, -reach, reach, percentiles=((5, -reach), (50, 0.0), (95, reach)))
        for name, unit, reach in (("yaw", "deg", 20.0), ("smile", "logit", 8.0), ("brightness", "of full scale", 0.3))
    )
    vectors = torch.randn((3, *space.shape), generator=torch.Generator().manual_seed(0))
    return Directions(knobs, space, vectors / 100, normals=vectors, fit={"method": "made up"})


@pytest.fixture(scope="session")
def shelf(axes: Directions, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good file and every kind of bad one."""
    folder = tmp_path_factory.mktemp("shelf")
    good = store.control_bytes(axes)
    (folder / "axes.safetensors").write_bytes(good)
    (folder / "wrong-suffix.pkl").write_bytes(good)
    (folder / "page.safetensors").write_bytes(HTML)
    (folder / "pickle.safetensors").write_bytes(pickle.dumps({"weight": [1.0]}))
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes(good[: len(good) // 2])
    (folder / "header.safetensors").write_bytes(good[:20])
    (folder / "noise.safetensors").write_bytes(bytes(range(200, 256)) * 9)
    (folder / "plain.safetensors").write_bytes(save({"weight": torch.ones(2)}))
    (folder / "folder.safetensors").mkdir()
    vectors = torch.full((3, 100, 1, 1), math.nan)
    description = json.dumps({"kind": "directions"})
    (folder / "nan.safetensors").write_bytes(save({"vectors": vectors}, metadata={"steerable": description}))
    (folder / "parts.safetensors").write_bytes(save({"vectors": vectors.zero_()}, metadata={"steerable": description}))
    (folder / "text.safetensors").write_bytes(save({"vectors": vectors}, metadata={"steerable": "[1]"}))
    (folder / "head.safetensors").write_bytes(save({"weight": vectors}, metadata={"steerable": json.dumps({"kind": "feature"})}))

    (folder / "other.safetensors").write_bytes(dcgan_file())
    tensors = zoo.tensors("faces64")
    shutil.copy(folder / "other.safetensors", folder / "other.jpg")
    torch.save({key: tensor[:1] for key, tensor in tensors.items()}, folder / "weights.pt")
    whole = (folder / "weights.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "list.pt").write_bytes(_torch([1, 2]))
    (folder / "code.pt").write_bytes(_torch({"main.0.weight": _Runs()}))
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    (folder / "nan.pt").write_bytes(_torch({key: tensor * math.nan for key, tensor in tensors.items()}))

    from PIL import Image

    write_png(folder / "plain.png", Image.new("RGB", (8, 8)))
    write_png(folder / "tampered.png", Image.new("RGB", (8, 8)), recipe='{"generator": "faces64", "seeds": [1')
    recipe = {"generator": "faces64", "fingerprint": zoo.load_generator("faces64").fingerprint, "seeds": [1]}
    for name, change in {
        "other-generator": {"fingerprint": "0" * 64},
        "unknown-generator": {"generator": "mine.safetensors"},
        "no-seeds": {"seeds": []},
        "future": {"version": 2},
        "extra": {"evil": 1},
        "nan-psi": {"psi": math.nan},
        "no-base64": {"turn": {"control": "???"}},
        "cut-control": {"turn": {"control": "AAAA"}},
        "sweep-alone": {"sweep": {"knob": "yaw", "amounts": [1]}},
        "huge": {"scale": 10**6},
        "box-outside": {"drive": {"box": [0, 0, 99, 99], "amount": 0.1}},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(recipe | change), encoding="utf-8")

    rows = "".join(f"{seed},{seed % 2}\n" for seed in range(12))
    for name, text in {
        "labels": "seed,label\n" + rows,
        "empty": "",
        "header": "seed,label\n",
        "columns": "picture,label\n" + rows,
        "no-label": "seed,smiles\n" + rows,
        "words": "seed,label\n" + rows + "seven,1\n",
        "negative": "seed,label\n" + rows + "-7,1\n",
        "one-class": "seed,label\n" + rows.replace(",0", ",1"),
        "two-labels": "seed,label\n" + rows + "0,1\n",
        "uneven": "seed,label\n" + rows + "13\n",
        "few": "seed,label\n0,1\n1,0\n",
        "gaps": "seed,label\n" + rows + "13,\n",
        "lost": "file,label\n" + rows,
    }.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    (folder / "binary.csv").write_bytes(bytes(range(256)))
    (folder / "cut.parquet").write_bytes(b"PAR1" + b"\0" * 50)
    (folder / "nothing").mkdir()
    (folder / "unlabelled").mkdir()
    shutil.copy(folder / "plain.png", folder / "unlabelled" / "a.png")
    (folder / "file").write_text("a file", encoding="utf-8")
    return folder


class _Runs:
    def __reduce__(self):
        return (print, ("this ran",))


def _torch(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture
def steer(shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in the shelf's folder."""
    monkeypatch.chdir(shelf)

    def run(line: str, *more: str) -> Outcome:
        capsys.readouterr()
        code = execute([*line.split(), *more])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def refused(outcome: Outcome, *parts: str) -> None:
    """Exit code 2, one line, and in it what was got and what to type."""
    assert outcome.code == 2
    assert outcome.err.startswith("steer: ") and outcome.err.count("\n") == 1, outcome.err
    assert not [part for part in parts if part not in outcome.err], outcome.err
    assert "this ran" not in outcome.out + outcome.err


def content(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "verb": ("smaple", ("'smaple'", "'sample'", "steer --help")),
    "verb of fit": ("fit axis", ("'axis'", "'axes'", "steer fit --help")),
    "option": ("sample --sed 3", ("--sed", "--seeds", "steer sample --help")),
    "option without value": ("sample --seeds", ("--seeds", "argument")),
    "extra argument": ("sample faces64", ("faces64", "steer sample --help")),
    "missing argument": ("evaluate", ("CONTROL", "steer evaluate --help")),
    "zoo entry": ("zoo face64", ('"face64"', 'did you mean "faces64"?', "identity")),
    "generator": ("sample --generator faces46", ('"faces46"', 'did you mean "faces64"?')),
    "feature": ("measure --features poze", ('"poze"', 'did you mean "pose"?', "identity")),
    "no feature": ("measure --features ,", ("--features names none",)),
    "column": ("fit axes --features pose --columns yam", ('"yam"', 'did you mean "yaw"?')),
    "held column": ("fit axes --features pose --hold rol", ('"rol"', 'did you mean "roll"?')),
    "edit": ("fit walks zoom,roatte", ('"roatte"', 'did you mean "rotate"?', "shift-x")),
    "no edit": ("fit walks ,", ("name each edit once", '","')),
    "edit twice": ("fit walks zoom,zoom", ("name each edit once", "zoom,zoom")),
    "reach": ("fit walks zoom --reach nan", ("--reach", "nan")),
    "device": ("sample --device cude", ('"cude"', 'did you mean "cuda"?')),
    "number": ("fit axes --n many", ("'--n'", '"many"', "steer fit axes --help")),
    "n of zero": ("fit axes --n 0", ("'--n'", "40", '"0"')),
    "n too small": ("fit axes --n 39", ("'--n'", "40", '"39"')),
    "n of walks": ("fit walks zoom --n=-5", ("'--n'", '"-5"')),
    "negative seed": ("fit axes --seed -1", ("'--seed'", '"-1"')),
    "huge seed": ("fit axes --seed 99999999999999999999", ("'--seed'", '"99999999999999999999"')),
    "negative psi": ("sample --psi -0.5", ("'--psi'", '"-0.5"')),
    "psi that is no number": ("sample --psi nan", ("psi", "nan")),
    "scale": ("sample --scale 0", ("'--scale'", '"0"')),
    "class of a generator without": ("sample --label 3", ("faces64 has no classes",)),
    "hold without a column left": ("fit axes --features brightness --whiten", ("--whiten", "--hold")),
    "name of a label": ("fit label labels.csv --name a/b", ('"a/b"', "hyphens")),
    "quality": ("evaluate axes.safetensors --quality 3", ("--quality", "16", "got 3")),
    "n of evaluate": ("evaluate axes.safetensors --n 1", ("'--n'", '"1"')),
    "knob to evaluate": ("evaluate axes.safetensors --knobs yow", ('"yow"', 'did you mean "yaw"?')),
    "nothing to apply": ("apply", ("nothing to apply", "--turn")),
    "nothing turned": ("apply axes.safetensors", ("yaw, smile, brightness", "--turn yaw=1")),
    "turn without control": ("apply --turn yaw=3", ("name its file",)),
    "knob": ("apply axes.safetensors --turn yow=3", ('"yow"', 'did you mean "yaw"?')),
    "knob to set": ("apply axes.safetensors --set yow=3", ('"yow"', 'did you mean "yaw"?')),
    "knob to hold": ("apply axes.safetensors --turn yaw=3 --hold smole", ('"smole"', 'did you mean "smile"?')),
    "knob to sweep": ("apply axes.safetensors --sweep yow=1,2", ('"yow"', 'did you mean "yaw"?')),
    "amount missing": ("apply axes.safetensors --turn yaw=", ("--turn smile=2", '"yaw="')),
    "amount without equals": ("apply axes.safetensors --turn yaw", ("--turn smile=2", '"yaw"')),
    "amount of no knob": ("apply axes.safetensors --turn =3", ("--turn smile=2", '"=3"')),
    "amount nan": ("apply axes.safetensors --turn yaw=nan", ("yaw", "finite", "nan")),
    "amount inf": ("apply axes.safetensors --turn yaw=-inf", ("yaw", "finite", "-inf")),
    "amount in words": ("apply axes.safetensors --turn yaw=much", ("yaw", "deg", "p90", "much")),
    "percentile outside": ("apply axes.safetensors --turn yaw=p99", ("yaw", "5 to 95", "p99")),
    "percentile of nothing": ("apply axes.safetensors --turn yaw=p", ("yaw", "p90", "'p'")),
    "value nan": ("apply axes.safetensors --set yaw=nan", ("--set yaw", "finite", '"nan"')),
    "value in words": ("apply axes.safetensors --set yaw=p", ("--set yaw", "p90", '"p"')),
    "knob twice": ("apply axes.safetensors --turn yaw=3 --turn yaw=4", ('"yaw" twice',)),
    "way to set": ("apply axes.safetensors --set yaw=3 --by axes", ('"axes"', 'did you mean "axis"?')),
    "percentile beyond all": ("apply axes.safetensors --set pitch=p101", ("pitch", "p101")),
    "value held": ("apply axes.safetensors --set yaw=3 --hold yaw", ("yaw", "--hold")),
    "feature to hold": ("apply axes.safetensors --set yaw=3 --hold identty", ('"identty"', 'did you mean "identity"?')),
    "feature of several columns": ("apply axes.safetensors --set pose=3", ('"pose"', "yaw, pitch, roll")),
    "axis without a control": ("apply --set yaw=3 --by axis", ("--by axis", "axes.safetensors")),
    "layers of a search": ("apply axes.safetensors --set yaw=3 --layers 1", ("--layers", "--by axis")),
    "values of nothing": ("fit values --set ,", ("--set", "yaw,smile")),
    "values by few": ("fit values --set yaw --n 8", ("--n", "32")),
    "knob turned and set": ("apply axes.safetensors --turn yaw=3 --set yaw=4", ('"yaw"', "choose one")),
    "knob turned and swept": ("apply axes.safetensors --turn yaw=3 --sweep yaw=1,2", ('"yaw"', "choose one")),
    "held knob turned": ("apply axes.safetensors --turn yaw=3 --hold yaw", ("yaw", "--hold")),
    "held knob swept": ("apply axes.safetensors --sweep yaw=1,2 --hold yaw", ("yaw", "--hold")),
    "sweep in words": ("apply axes.safetensors --sweep yaw=a,b", ("yaw=-20:20:5", '"yaw=a,b"')),
    "sweep without end": ("apply axes.safetensors --sweep yaw=1:2", ("yaw=-20:20:5", '"yaw=1:2"')),
    "sweep of one": ("apply axes.safetensors --sweep yaw=1:2:1", ("yaw=-20:20:5",)),
    "sweep of many": ("apply axes.safetensors --sweep yaw=1:2:999999999", ("up to 100",)),
    "sweep nan": ("apply axes.safetensors --sweep yaw=0,nan", ("yaw=-20:20:5", '"yaw=0,nan"')),
    "box in words": ("apply --hold-box a,b,c,d", ("16,18,52,46", '"a,b,c,d"')),
    "box of three": ("apply --hold-box 1,2,3", ("16,18,52,46", '"1,2,3"')),
    "box with no pixel": ("apply --hold-box 5,5,5,9", ("top < bottom",)),
    "box outside": ("apply --hold-box 0,0,65,65", ("64 x 64",)),
    "box around everything": ("apply --hold-box 0,0,64,64", ("no pixel", "outside")),
    "move without hold": ("apply --move pose", ("--hold", "inside:16,18,52,46")),
    "move and hold the same": ("apply --move pose --hold pose", ("pose cannot be moved and held at once",)),
    "a held column moved": ("apply --move yaw --hold pose", ("yaw cannot be moved and held at once",)),
    "move of an unknown": ("apply --move idenity --hold pose", ('did you mean "identity"',)),
    "move of a band in words": ("apply --move low:x --hold high:4", ("low:NUMBER", '"low:x"')),
    "move in a region outside": ("apply --move outside:0,0,65,65 --hold inside:0,0,9,9", ("64 x 64",)),
    "move by zero": ("apply --move low:4 --hold high:4 --amount 0", ("--amount", "got 0")),
    "move by an unknown course": ("apply --move low:4 --hold high:4 --course straigth", ('did you mean "straight"',)),
    "move by an unknown solver": ("apply --move low:4 --hold high:4 --solver sofd", ('did you mean "soft"',)),
    "move with a box": ("apply --move low:4 --hold high:4 --hold-box 1,1,9,9", ("--move", "--hold-box")),
    "drive of nothing": ("drive", ("--hold-box 16,18,52,46",)),
    "drive into a picture": ("drive --hold-box 1,1,9,9 --out a.png", (".mp4", ".gif")),
    "drive of a box outside": ("drive --hold-box 0,0,65,65", ("64 x 64",)),
    "drive without tolerance": ("drive --hold-box 1,1,9,9 --tolerance 0", ("tolerance", "got 0")),
    "drive by nothing": ("drive --hold-box 1,1,9,9 --amount 0", ("--amount", "got 0")),
    "rest of zero": ("apply --hold-box 1,1,9,9 --rest 0", ("--rest", "got 0")),
    "rest nan": ("apply --hold-box 1,1,9,9 --rest nan", ("--rest", "got nan")),
    "recipe with more": ("apply axes.safetensors --recipe plain.png", ("leave out",)),
    "table suffix": ("measure --out measured.xlsx", (".csv or .parquet", "measured.xlsx")),
    "control suffix": ("fit axes --out axes.json", (".safetensors", "axes.json")),
    "walks suffix": ("fit walks zoom --out walks", ("--out walks.safetensors",)),
    "feature suffix": ("fit label labels.csv --name a --out a.csv", (".safetensors", "a.csv")),
    "file for a folder": ("sample --out file", ("file is a file", "--out")),
    "below a file": ("sample --out file/deep/er", ("file is a file", "--out")),
    "table below a file": ("measure --out file/m.csv", ("file is a file", "--out")),
    "control below a file": ("fit axes --out file/a.safetensors", ("file is a file", "--out")),
    "applied below a file": ("apply axes.safetensors --turn yaw=1 --out file", ("file is a file", "--out")),
    "evaluated below a file": ("evaluate axes.safetensors --out file", ("file is a file", "--out")),
    "demo below a file": ("demo --out file", ("file is a file", "--out")),
    "folder for a file": ("fit axes --out folder.safetensors", ("is a folder", "--out")),
    "cache below a file": ("measure --seeds 0-1 --features brightness --cache file/c", ("file",)),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_mistyped_line_is_one_line_of_help(name, steer, shelf):
    line, parts = LINES[name]
    before = content(shelf)
    refused(steer(line), *parts)
    assert content(shelf) == before


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("5-2", "2-5"),
        ("a", '"a"'),
        ("", '""'),
        ("1,,2", '""'),
        ("-3", '"-3"'),
        ("1-2-3", '"1-2-3"'),
        ("1.5", '"1.5"'),
        ("0-99999999999", "99999999999"),
        ("9" * 30, "2^63"),
        ("1,1", "more than once"),
        ("0-5,3", "more than once"),
    ],
)
@pytest.mark.parametrize("verb", ["sample", "measure", "apply --hold-box 1,1,9,9"])
def test_seeds_that_do_not_parse_are_shown_back(verb, text, part, steer, shelf):
    before = content(shelf)
    refused(steer(verb, "--seeds", text), part)
    assert content(shelf) == before


FILES = {
    "page.safetensors": ("an HTML page",),
    "pickle.safetensors": ("a pickle", "never executed"),
    "empty.safetensors": ("an empty file",),
    "cut.safetensors": ("truncated",),
    "header.safetensors": ("truncated",),
    "noise.safetensors": ("unknown data",),
    "plain.safetensors": ("plain tensors",),
    "folder.safetensors": ("a folder",),
    "missing.safetensors": ("does not exist",),
    "nan.safetensors": ("NaN",),
    "parts.safetensors": ("part missing",),
    "text.safetensors": ("no mapping",),
    "head.safetensors": ("a feature",),
    "plain.png": ("a PNG image",),
    "labels.csv": ("text",),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("verb", ["apply {} --turn yaw=1", "evaluate {}"])
def test_a_file_that_is_no_control_is_named_for_what_it_is(verb, file, steer, shelf):
    before = content(shelf)
    refused(steer(verb.format(file)), file, *FILES[file])
    assert content(shelf) == before


def test_a_control_of_another_generator_is_refused_by_both_names(steer):
    refused(
        steer("apply axes.safetensors --generator other.safetensors --turn yaw=1"), "axes.safetensors", "faces64 (", "this generator is"
    )


@pytest.mark.parametrize(
    ("file", "parts"),
    {
        **{name: FILES[name] for name in ("page.safetensors", "empty.safetensors", "cut.safetensors")},
        "pickle.safetensors": ("a pickle", "without tensors"),
        "missing.safetensors": ("does not exist",),
        "folder.safetensors": ("a folder",),
        "plain.safetensors": ("plain.safetensors",),
        "axes.safetensors": ("axes.safetensors",),
        "plain.png": ("a PNG image",),
        "cut.pt": ("cut.pt", "damaged"),
        "code.pt": ("code.pt", "builtins.print", "nothing was executed"),
        "zip.pt": ("zip.pt", "a zip archive"),
        "list.pt": ("list.pt", "list"),
        "weights.pt": ("weights.pt",),
        "nan.pt": ("NaN",),
    }.items(),
)
def test_a_file_that_is_no_generator_is_named_for_what_it_is(file, parts, steer, shelf):
    before = content(shelf)
    refused(steer(f"sample --seeds 1 --generator ./{file}"), *parts)
    assert content(shelf) == before


@pytest.mark.parametrize("file", ["axes.safetensors", "plain.safetensors", "head.safetensors", "page.safetensors", "gone.safetensors"])
def test_a_file_that_is_no_feature_is_named(file, steer):
    refused(steer(f"measure --seeds 0-1 --features brightness --out m.csv --head {file}"), file)


def test_a_wrong_suffix_does_not_matter_where_the_content_is_right(steer, tmp_path):
    turned = steer(f"apply wrong-suffix.pkl --turn yaw=1 --seeds 1 --features brightness --out {tmp_path / 'a'}")
    sampled = steer(f"sample --generator other.jpg --seeds 1 --out {tmp_path / 's'}")
    assert (turned.code, sampled.code) == (0, 0), turned.err + sampled.err


@pytest.mark.parametrize(
    ("table", "parts"),
    {
        "gone.csv": ("not there",),
        "binary.csv": ("unknown data", "CSV"),
        "empty.csv": ("empty",),
        "header.csv": ("no rows",),
        "columns.csv": ("picture, label", "seed,label or file,label"),
        "no-label.csv": ("seed, smiles",),
        "words.csv": ('"seven"', "whole numbers"),
        "negative.csv": ('"-7"',),
        "one-class.csv": ("all 12 labels", "at least two"),
        "two-labels.csv": ("seed 0 has two labels",),
        "uneven.csv": ("row 14", "1 cells"),
        "few.csv": ("labels 2 images",),
        "gaps.csv": ("1 of 13 rows",),
        "lost.csv": ("12 of 12 pictures are missing",),
        "cut.parquet": ("Parquet",),
        "page.safetensors": ("an HTML page", "CSV"),
        "nothing": ("no pictures in nothing",),
        "unlabelled": ("labels.csv",),
    }.items(),
)
def test_labels_that_cannot_be_used_are_refused(table, parts, steer, shelf):
    before = content(shelf)
    refused(steer(f"fit label {table} --name a"), *parts)
    assert content(shelf) == before


@pytest.mark.parametrize(
    ("file", "parts"),
    {
        "gone.png": ("does not exist",),
        "plain.png": ("without a recipe",),
        "folder.safetensors": ("a folder",),
        "axes.safetensors": ("a safetensors file", "PNG"),
        "page.safetensors": ("an HTML page", "PNG"),
        "empty.safetensors": ("an empty file", "PNG"),
        "labels.csv": ("no recipe",),
        "tampered.png": ("tampered.png", "no recipe"),
        "other-generator.json": ("belongs to faces64 (0000", "the generator is ("),
        "unknown-generator.json": ("mine.safetensors", "--generator FILE"),
        "no-seeds.json": ("seeds",),
        "future.json": ("version",),
        "extra.json": ("evil",),
        "nan-psi.json": ("psi",),
        "no-base64.json": ("base64",),
        "cut-control.json": ("inside this recipe is damaged",),
        "sweep-alone.json": ("no control",),
        "huge.json": ("scale",),
        "box-outside.json": ("64 x 64",),
    }.items(),
)
def test_a_picture_without_a_recipe_of_ours_is_refused(file, parts, steer, shelf):
    before = content(shelf)
    refused(steer(f"apply --recipe {file} --out again"), *parts)
    assert content(shelf) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that the test needs to lack")
def test_a_device_that_is_not_there_is_refused_with_those_that_are(steer):
    refused(steer("sample --device cuda"), "--device cuda", "this machine has cpu", "--device auto")


WRITERS = {
    "sample": "sample --seeds 1-2 --out {}",
    "measure": "measure --seeds 1-2 --features brightness --out {}/m.csv",
    "measure to Parquet": "measure --seeds 1-2 --features brightness --out {}/m.parquet",
    "measure with a cache": "measure --seeds 1-2 --features brightness --out m.csv --cache {}",
    "fit axes": "fit axes --n 40 --features brightness --out {}/a.safetensors",
    "fit label": "fit label labels.csv --name few --out {}/few.safetensors",
    "apply": "apply axes.safetensors --turn yaw=1 --seeds 1 --features brightness --out {}",
    "evaluate": "evaluate axes.safetensors --knobs brightness --n 4 --quality 0 --features brightness --out {}",
}


@pytest.mark.parametrize("verb", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(verb, steer, tmp_path, monkeypatch):
    """Every write fails as the disk fails: after some bytes are there."""

    def full(self: Path, *_args, **_options):
        with open(self, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    def full_table(_table, where, *_args, **_options):
        full(Path(where))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr("pyarrow.parquet.write_table", full_table)
    monkeypatch.setattr("pyarrow.csv.write_csv", full_table)
    refused(steer(WRITERS[verb].format(tmp_path)), "disk is full", "--out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_existing_file_survives_a_full_disk(steer, tmp_path, monkeypatch):
    table = tmp_path / "m.csv"
    table.write_text("of yesterday", encoding="utf-8")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    refused(steer(f"measure --seeds 1 --features brightness --out {table}"), "disk is full")
    assert table.read_text(encoding="utf-8") == "of yesterday" and len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_ends_with_130_and_says_what_is_left(steer, tmp_path, monkeypatch):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("steerable.drawing.draw", stop)
    outcome = steer(f"sample --seeds 1-2 --out {tmp_path}")
    assert outcome.code == 130 and outcome.err.count("\n") == 1 and "interrupted" in outcome.err
    assert not list(tmp_path.iterdir())


def test_an_interrupted_measurement_goes_on_where_it_stopped(steer, tmp_path, monkeypatch):
    """The first part of 256 rows is there after the interrupt, and is not generated again."""
    from steerable import sampling

    line = f"measure --seeds 0-299 --features brightness --out {tmp_path}/m.csv --cache {tmp_path}/cache"
    observe, seen = sampling.observe, []

    def watched(generator, features, latents, **options):
        seen.append(len(latents))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return observe(generator, features, latents, **options)

    monkeypatch.setattr(sampling, "observe", watched)
    assert steer(line).code == 130 and seen == [2, 256, 44]
    assert not (tmp_path / "m.csv").exists()
    assert steer(line).code == 0 and seen[3:] == [2, 44]
    assert len((tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()) == 301


def test_a_damaged_cache_is_named(steer, tmp_path):
    line = f"measure --seeds 0-1 --features brightness --out {tmp_path}/m.csv --cache {tmp_path}/cache"
    assert steer(line).code == 0
    (part,) = tmp_path.glob("cache/*/*/*.parquet")
    part.write_bytes(HTML)
    refused(steer(line), part.name, "an HTML page", "delete it")
