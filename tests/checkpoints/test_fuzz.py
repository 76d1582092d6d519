"""Damaged checkpoints load or are refused in one line: 500 cases here, as many as asked for in ``make fuzz``."""

from __future__ import annotations

import os
import pickletools
import random
import runpy
import signal
import struct
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SETTINGS = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
BAD = {"too slow", "crash", "more than a line", "too much memory"}


@pytest.fixture(scope="module")
def fuzz():
    return runpy.run_path(str(Path(__file__).parents[2] / "tools" / "fuzz.py"), run_name="fuzz")


@pytest.fixture(scope="module")
def good(fuzz):
    return fuzz["good_files"](parity_too=False)


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory):
    """In a folder where an executed canary would leave its file; annotations unchecked, as a user runs it."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("fuzz"))
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    os.chdir(before)


def judged(fuzz, path: Path) -> str:
    """What the reader makes of a file, given two seconds of processor time."""
    before = signal.signal(signal.SIGPROF, fuzz["ring"])
    signal.setitimer(signal.ITIMER_PROF, fuzz["SECONDS"])
    try:
        kind, message = fuzz["outcome"](path)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert kind not in BAD, f"{kind}: {message}"
    assert not Path("CANARY_EXECUTED").exists(), "a canary was executed"
    return kind


def test_every_good_file_is_read(fuzz, good):
    assert {name: judged(fuzz, fuzz["put"](one)) for name, one in good.items()} == dict.fromkeys(good, "success")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_damaged_files_load_or_are_refused_in_one_line(fuzz, good):
    """300 cases of flips, cuts, insertions, lengths, opcodes, and changes inside of archives."""

    @settings(max_examples=300, **SETTINGS)
    @given(st.sampled_from(sorted(good)), st.integers(0, 2**32))
    def run(name, seed):
        judged(fuzz, fuzz["put"](good[name], random.Random(seed)))

    run()


@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        (lambda path: None, "success"),
        (lambda path: (_ for _ in ()).throw(ValueError("one line")), "refused"),
        (lambda path: (_ for _ in ()).throw(ValueError("two\nlines")), "more than a line"),
        (lambda path: (_ for _ in ()).throw(KeyError("x")), "crash"),
        (lambda path: [0 for _ in iter(int, 1)], "too slow"),
    ],
    ids=["success", "refused", "two lines", "crash", "hang"],
)
def test_the_judge_sees_what_it_is_there_to_see(fuzz, monkeypatch, reader, kind):
    from steerable import importing

    monkeypatch.setattr(importing, "imported", reader if kind != "success" else lambda path: type("Found", (), {"generator": None}))
    Path("case").write_bytes(b"any")
    before = signal.signal(signal.SIGPROF, fuzz["ring"])
    signal.setitimer(signal.ITIMER_PROF, 0.2)
    try:
        assert fuzz["outcome"](Path("case"))[0] == kind
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


ARGUMENTS = {  # what pickletools calls the argument of an opcode -> such arguments
    "uint1": st.integers(0, 5).map(lambda n: bytes([n])),
    "uint2": st.integers(0, 9).map(lambda n: struct.pack("<H", n)),
    "int4": st.one_of(st.integers(0, 9), st.integers(-(2**31), 2**31 - 1)).map(lambda n: struct.pack("<i", n)),
    "uint4": st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)).map(lambda n: struct.pack("<I", n)),
    "uint8": st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)).map(lambda n: struct.pack("<Q", n)),
    "long1": st.binary(max_size=9).map(lambda b: bytes([len(b)]) + b),
    "float8": st.floats().map(lambda x: struct.pack(">d", x)),
    "string1": st.binary(max_size=9).map(lambda b: bytes([len(b)]) + b),
    "bytes1": st.binary(max_size=9).map(lambda b: bytes([len(b)]) + b),
    "unicodestring1": st.sampled_from(["G_ema", "w", "os", "system", "state", "_parameters"]).map(lambda t: bytes([len(t)]) + t.encode()),
    "unicodestring4": st.sampled_from(["G_ema", "w", "builtins", "exec"]).map(lambda t: struct.pack("<I", len(t)) + t.encode()),
    "decimalnl_short": st.integers(-5, 5).map(lambda n: b"%d\n" % n),
    "decimalnl_long": st.integers(-5, 5).map(lambda n: b"%dL\n" % n),
    "floatnl": st.sampled_from([b"1.5\n", b"nan\n", b"x\n"]),
    "stringnl": st.sampled_from([b"'a'\n", b'"\\x00"\n', b"'\n"]),
    "unicodestringnl": st.sampled_from([b"a\n", b"\\u0041\n", b"\\u\n"]),
    "stringnl_noescape": st.sampled_from([b"1\n", b"x\n"]),
    "stringnl_noescape_pair": st.sampled_from(
        [
            b"os\nsystem\n",
            b"collections\nOrderedDict\n",
            b"torch._utils\n_rebuild_tensor_v2\n",
            b"torch.storage\n_load_from_bytes\n",
            b"numpy\ndtype\n",
            b"numpy.core.multiarray\n_reconstruct\n",
            b"numpy.core.multiarray\nscalar\n",
            b"copyreg\n_reconstructor\n",
            b"builtins\nset\n",
            b"_codecs\nencode\n",
        ]
    ),
}


def steps():
    """One step of a pickle, with an argument that may make sense."""
    choices = []
    for one in pickletools.opcodes:
        code = one.code.encode("latin-1")
        kind = one.arg.name if one.arg else ""
        argument = ARGUMENTS.get(kind, st.binary(max_size=9) if kind else st.just(b""))
        choices.append(argument.map(lambda rest, code=code: code + rest))
    return st.one_of(choices)


def test_made_up_pickles_are_refused_in_one_line(fuzz):
    """200 cases: steps in any order, with names that are known and names that are not."""

    @settings(max_examples=200, **SETTINGS)
    @given(st.lists(steps(), max_size=60))
    def run(made):
        Path("case").write_bytes(b"\x80\x02" + b"}" + b"".join(made) + b".")
        judged(fuzz, Path("case"))

    run()
