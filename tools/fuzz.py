"""``make fuzz``: many damaged checkpoints; each has to load, or to end in one clear error, within 2 s of processor time and 2 GB.

    python tools/fuzz.py --cases 20000 --seed 0 --folder fuzz

The good files that are damaged are made here, small, in every format that is read; the published containers of the parity cases
and the canaries are added where their folder is (``../shared/parity`` or STEERABLE_PARITY). A worker reads one file after the other,
under an alarm and a limit of its address space; this process watches it, starts another one where it dies, and keeps the files that
found something in the folder. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import pickletools
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

SECONDS, MEMORY, PATIENCE = 2.0, 2 << 30, 60.0  # processor time and bytes of a case; seconds until the worker is given up
LARGEST = 1 << 20  # bytes of a good file
OPCODES = bytes(ord(one.code) for one in pickletools.opcodes)
EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**31 + 1, 2**40, 2**62, 2**63, 2**64 - 1)
CANARY = "CANARY_EXECUTED"


# ------------------------------------------------------------------ good files


@dataclass(frozen=True)
class Good:
    """A file that loads (canaries excepted), where it has to stand for that, and what has to stand beside it."""

    content: bytes
    at: str = "case"
    beside: tuple[str, bytes] | None = None


def good_files(*, parity_too: bool = True) -> dict[str, Good]:
    """By name, in every format."""
    import numpy as np
    import torch
    from checkpoints import containers
    from safetensors.torch import save

    from steerable import store
    from steerable.generators.dcgan import from_state_dict

    rng = torch.Generator().manual_seed(0)
    state = {"main.0.weight": torch.randn(6, 4, 4, 4, generator=rng), "main.2.weight": torch.randn(4, 3, 4, 4, generator=rng) / 4}
    network = torch.nn.Sequential(torch.nn.ConvTranspose2d(6, 4, 4), torch.nn.ConvTranspose2d(4, 3, 4))
    found: dict[str, bytes] = {"plain safetensors": save(state)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = {
            "g_ema": state,
            "g_optim": containers.optimiser(state),
            "args": argparse.Namespace(size=8),
            "latent_avg": torch.ones(3),
        }
        found["our safetensors"] = store.save_generator(from_state_dict(state), folder / "ours").read_bytes()
        for legacy in (False, True):
            kind = "torch file" if legacy else "torch archive"
            found[f"{kind}, checkpoint"] = containers.saved(checkpoint, folder / "a", legacy=legacy).read_bytes()
            found[f"{kind}, module"] = containers.saved(network, folder / "a", legacy=legacy).read_bytes()
        found["pickle of NVIDIA's"] = containers.nvidia(state, {"z_dim": 6}, folder / "n", other=state).read_bytes()
        found["pickle of NVIDIA's, protocol 3"] = containers.nvidia(state, {"z_dim": 6}, folder / "n", other=state, protocol=3).read_bytes()
        arrays = {key: tensor.numpy() for key, tensor in state.items()}
        parts = {"mapping": {"Dense0/weight": np.eye(4, dtype="f4")}, "synthesis": {"4x4/Const/const": np.ones((1, 4, 4, 4), "f4")}}
        found["pickle of TensorFlow's day"] = containers.tensorflow(
            arrays, folder / "t", arguments={"resolution": 8}, parts=parts
        ).read_bytes()
        return {**{name: Good(content) for name, content in found.items()}, **(_parity(folder) if parity_too else {})}


def _parity(folder: Path) -> dict[str, Good]:
    from checkpoints import containers
    from generators import parity

    found = {path.stem: Good(path.read_bytes()) for path in sorted(parity.FOLDER.glob("*.p[kt]*")) if path.stat().st_size <= LARGEST}
    for path in sorted(parity.FOLDER.glob("*.json")):
        if path.stem == "MANIFEST":
            continue
        case = parity.load(path.stem)
        facts = {key: case.facts[key] for key in ("sub_groups_dict",) if key in case.facts}
        file = containers.published(case.facts["family"], case.state, case.facts["constructor"], folder / path.stem, **facts)
        good = Good(file.read_bytes()) if file.is_file() else _beside(file)
        if len(good.content) <= 4 * LARGEST:
            found[f"{path.stem}, published"] = good
        try:
            from steerable import importing, store

            ours = store.save_generator(importing.imported(file).generator, folder / "ours.safetensors").read_bytes()
        except ValueError:
            continue
        if len(ours) <= LARGEST:
            found[f"{path.stem}, ours"] = Good(ours)
    return found


def _beside(folder: Path) -> Good:
    """The weights of a folder, with the configuration that makes sense of them."""
    for weights, config in (
        ("pytorch_model.bin", "config.json"),
        ("G_ema.pth", "generator_config.json"),
        ("generator/checkpoint/10000.pt", "generator/args.json"),
    ):
        if (folder / weights).is_file():
            return Good(
                (folder / weights).read_bytes(), f"{folder.name}/{weights}", (f"{folder.name}/{config}", (folder / config).read_bytes())
            )
    raise AssertionError(f"nothing known in {folder}")


# ------------------------------------------------------------------ damage


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes; an archive may be changed inside, with its checksums made good."""
    if content[:4] == b"PK\x03\x04" and rng.random() < 0.7:
        return _inside(content, rng)
    return _changed(content, rng)


def _changed(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(CHANGES)(content, rng) if content else b"\x80"
    return content


def _inside(content: bytes, rng: random.Random) -> bytes:
    """An archive with a member changed, renamed, doubled, left out or compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    pickles = [i for i, (name, _) in enumerate(members) if name.endswith(".pkl")]
    i = rng.choice(pickles) if pickles and rng.random() < 0.8 else rng.randrange(len(members))
    name, inner = members[i]
    kind = rng.choice(("change", "change", "change", "change", "rename", "double", "drop", "compress"))
    if kind == "change":
        members[i] = (name, _changed(inner, rng))
    elif kind == "rename":
        members[i] = (rng.choice(("code/x.py", "data.pkl", "../../x", "a" * 300, "constants.pkl", "")) or "x", inner)
    elif kind == "double":
        members.append((name, inner))
    elif kind == "drop":
        del members[i]
    out = io.BytesIO()
    import warnings

    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if kind == "compress" else zipfile.ZIP_STORED) as archive,
    ):
        warnings.simplefilter("ignore")  # of doubled names
        for one, inner in members:
            archive.writestr(one, inner)
    return out.getvalue()


def _place(content: bytes, rng: random.Random) -> int:
    """Anywhere, but more often near the beginning or the end, where what is not numbers stands."""
    n, kind = len(content), rng.random()
    if kind < 0.5:
        return rng.randrange(min(n, 4096))
    return rng.randrange(max(0, n - 512), n) if kind < 0.65 else rng.randrange(n)


def flip(content: bytes, rng: random.Random) -> bytes:
    """Other bits in up to eight bytes."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def insert(content: bytes, rng: random.Random) -> bytes:
    at, n = _place(content, rng), rng.choice((1, 2, 4, 8, 64, 1000))
    return content[:at] + (rng.randbytes(n) if rng.random() < 0.5 else bytes([rng.choice(OPCODES)]) * n) + content[at:]


def remove(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 4, 8, 64, 1000)) :]


def copy(content: bytes, rng: random.Random) -> bytes:
    """A piece of it once more, elsewhere."""
    start, at = _place(content, rng), _place(content, rng)
    return content[:at] + content[start : start + rng.choice((4, 16, 64, 500))] * rng.choice((1, 1, 2, 50)) + content[at:]


def length(content: bytes, rng: random.Random) -> bytes:
    """Another number where a length may stand, in two, four or eight bytes."""
    form = rng.choice(["<H", "<I", "<Q", ">I"])
    size, at = struct.calcsize(form), _place(content, rng)
    value = rng.choice(EXTREME) if rng.random() < 0.7 else rng.getrandbits(8 * size)
    return content[:at] + struct.pack(form, value % (1 << 8 * size)) + content[at + size :]


def opcode(content: bytes, rng: random.Random) -> bytes:
    """Another opcode of a pickle at the place of one."""
    try:
        places = [place for _, _, place in pickletools.genops(content[: 1 << 18]) if place is not None]
    except Exception:  # it was no pickle, or is none any more
        places = []
    at = rng.choice(places) if places else _place(content, rng)
    return content[:at] + bytes([rng.choice(OPCODES)]) + content[at + 1 :]


def digits(content: bytes, rng: random.Random) -> bytes:
    """Another number in a text: a JSON header, a name of a key."""
    places = [i for i, byte in enumerate(content[:8192]) if 48 <= byte <= 57]
    if not places:
        return flip(content, rng)
    at = rng.choice(places)
    return content[:at] + rng.choice((b"0", b"9", b"99999", b"-1", b"1e9", b"4294967296", b"null", b"[]")) + content[at + 1 :]


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip,
    flip,
    truncate,
    insert,
    remove,
    copy,
    length,
    length,
    opcode,
    opcode,
    digits,
)


# ------------------------------------------------------------------ one case


def ring(*_: Any) -> None:
    raise Alarm


def put(good: Good, rng: random.Random | None = None) -> Path:
    """Write a good file into the current folder, damaged if there is a source of damage: it, or what stands beside it."""
    path, content = Path(good.at), good.content
    path.parent.mkdir(parents=True, exist_ok=True)
    if good.beside is not None:
        name, text = good.beside
        spared = rng is not None and rng.random() < 0.3
        Path(name).write_bytes(_changed(text, rng) if rng is not None and spared else text)
        rng = None if spared else rng
    path.write_bytes(content if rng is None else damaged(content, rng))
    return path


class Alarm(BaseException):
    """Out of time; no reader catches it."""


def outcome(path: Path) -> tuple[str, str]:
    """("success", ""), ("refused", message), or what is wrong and why."""
    from steerable import importing, store

    try:
        load = store.load_generator_file if path.read_bytes()[8:9] == b"{" else lambda where: importing.imported(where).generator
        load(path)
    except ValueError as error:
        message, cause = str(error), error.__cause__ or error
        if "\n" in message or len(message) > 2000:
            return "more than a line", message[:2000]
        if isinstance(cause, MemoryError) or "alloc" in message:
            return "too much memory", message
        if not isinstance(cause, ValueError | zipfile.BadZipFile | OSError | struct.error) and "is damaged (" in message:
            return "refused, unforeseen", message
        return "refused", message
    except Alarm:
        return "too slow", ""
    except BaseException as error:
        return "crash", f"{type(error).__name__}: {error}"
    return "success", ""


BAD = ("more than a line", "too much memory", "too slow", "crash", "executed", "dead worker")


def work(pipe: multiprocessing.connection.Connection, seed: int, folder: str, names: list[str] | None) -> None:
    """Runs cases that it is told by number; answers (number, file, outcome, message, seconds, bytes)."""
    import torch

    import steerable.importing  # noqa: F401

    torch.set_num_threads(1)
    os.chdir(folder)
    files = good_files(parity_too=names is None)
    order = sorted(files)
    for name, good in files.items():  # what is imported late is imported now
        kind, message = outcome(put(good))
        if kind != "success" and "canary" not in name:
            pipe.send((-1, name, kind, message, 0.0, 0))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    if held:
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, ring)
    while (i := pipe.recv()) is not None:
        rng = random.Random(f"{seed}/{i}")
        name = order[rng.randrange(len(order))]
        path = put(files[name], rng)
        before = _peak(reset=True)
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            kind, message = outcome(path)
        except Alarm:  # between two lines of ours
            kind, message = "too slow", ""
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if Path(CANARY).exists():
            Path(CANARY).unlink()
            kind = "executed"
        pipe.send((i, name, kind, message, time.process_time() - began, max(0, _peak() - before)))


def _peak(*, reset: bool = False) -> int:
    """The most memory that was held since the last reset, in bytes."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


# ------------------------------------------------------------------ all of them


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to run one again")
    parser.add_argument("--folder", type=Path, default=Path("fuzz"), help="for the files that found something")
    told = parser.parse_args()
    began, counts, problems = time.monotonic(), collections.Counter[tuple[str, str]](), []
    slowest, largest, unforeseen = 0.0, 0, collections.Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        os.environ["STEERABLE_CACHE"] = str(Path(name) / "cache")
        worker, pipe = _start(told.seed, name)
        for done in range(told.cases):
            i = told.first + done
            pipe.send(i)
            try:
                answer = _answer(pipe)
            except EOFError:
                answer = None
            if answer is None:
                worker.kill()
                worker.join()
                answer = (i, "?", "dead worker", f"exit code {worker.exitcode}", PATIENCE, 0)
            _, file, kind, message, seconds, memory = answer
            if memory > MEMORY and kind not in BAD:
                kind = "too much memory"
            counts[file, kind] += 1
            slowest, largest = max(slowest, seconds), max(largest, memory)
            if kind == "refused, unforeseen":
                unforeseen[message.partition("is damaged (")[2][:60]] += 1
            if kind in BAD:
                problems.append({"case": i, "file": file, "kind": kind, "message": message[:200]})
                told.folder.mkdir(parents=True, exist_ok=True)
                (told.folder / f"case-{told.seed}-{i}").write_bytes(_files(Path(name)))
                print(f"case {i} of {file}: {kind} {message[:200]}", flush=True)
            if kind == "dead worker":
                worker, pipe = _start(told.seed, name)
            if (done + 1) % 500 == 0:
                spent = time.monotonic() - began
                print(
                    f"{done + 1} of {told.cases}, {spent / (done + 1) * (told.cases - done - 1):.0f} s to go, {len(problems)} problems",
                    flush=True,
                )
        pipe.send(None)
        worker.join(10)
    _table(counts)
    for what, n in unforeseen.most_common(10):
        print(f"unforeseen, {n} times: {what}")
    kinds = collections.Counter[str]()
    for (_, kind), n in counts.items():
        kinds[kind] += n
    facts = {"cases": told.cases, "seed": told.seed, "outcomes": dict(kinds), "problems": len(problems), "slowest_s": round(slowest, 3)}
    print(json.dumps({**facts, "largest_mb": round(largest / 1e6, 1), "wall_s": round(time.monotonic() - began, 1)}))
    return 1 if problems else 0


def _answer(pipe: Any) -> tuple[Any, ...] | None:
    while pipe.poll(PATIENCE):
        answer = pipe.recv()
        if answer[0] >= 0:
            return answer
        print(f"a good file is not read: {answer[1]}: {answer[3]}", flush=True)
    return None


def _start(seed: int, folder: str) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=work, args=(theirs, seed, folder, None), daemon=True)
    worker.start()
    theirs.close()
    return worker, ours


def _files(folder: Path) -> bytes:
    """The file that was read last: the newest."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns).read_bytes()


def _table(counts: dict[tuple[str, str], int]) -> None:
    kinds = sorted({kind for _, kind in counts}, key=lambda kind: (kind in BAD, kind))
    width = max(len(file) for file, _ in counts)
    print(f"{'file':{width}}  " + "  ".join(f"{kind:>10}" for kind in kinds))
    for file in sorted({file for file, _ in counts}):
        print(f"{file:{width}}  " + "  ".join(f"{counts.get((file, kind), 0):>{max(10, len(kind))}}" for kind in kinds))


if __name__ == "__main__":
    sys.exit(main())
