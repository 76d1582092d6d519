"""Programs as generators: TorchScript files, and files of ``torch.export``.

Either is looked through before it runs. TorchScript is compiled by torch's own interpreter, which has two operators that
touch files and a few that call Python; a file whose code names one is refused. ``torch.export`` archives are run by
``exported_graph``. In both, what torch would unpickle by executing it is never given to torch: a copy of the archive is
made of the members that were inspected, and only that is loaded.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from steerable.generators.exported_graph import Graph, refuse_bomb
from steerable.generators.module import LabelForm, ModuleGenerator, wrap

MOST_CODE = 2**24
MOST_ROWS = 1024
KEPT = re.compile(r"data\.pkl|constants\.pkl|(data|constants)/\d+|code/[\w./]+\.py|version|byteorder|\.data/version")
UNSAFE = {"save", "from_file", "load", "set_", "set_data"}  # operators of TorchScript on files, and on foreign memory
PRIM = {"NumToTensor", "data", "device", "dtype", "is_cuda", "is_mkldnn", "is_quantized", "layout", "requires_grad", "shape", "itemsize"}
PRIM |= {"min", "max", "abs", "name", "type", "IfThenElse", "TupleIndex", "BroadcastSizes", "ReductionSizes", "RaiseException"}
PRIM |= {"unchecked_cast", "unchecked_unwrap_optional"}


def load_exported(
    path: str | os.PathLike[str],
    *,
    latent_size: int | tuple[int, ...] | None = None,
    name: str | None = None,
    classes: int | None = None,
    labels: LabelForm = "index",
    value_range: tuple[float, float] | None = None,
) -> ModuleGenerator:
    """A generator from a TorchScript or ``torch.export`` file.

    A program exported for one batch size is run on batches of that size, the last one filled up, so it takes any number
    of latents all the same; export it with a dynamic first dimension to save the filling.

    Args:
        latent_size: the shape of one latent; left out, that of the inputs it was traced or exported with, where they
            are stored. Scripted programs do not store any.
        name, classes, labels, value_range: see ``module.wrap``.

    Raises:
        ValueError: no such file, an archive that unpacks to more than 20 times its size or 8 GB, code that reads or
            writes files or calls Python, operators that are not torch's, an unknown latent size, or what ``wrap`` refuses.
    """
    path = Path(path)
    name = name or path.stem
    try:
        members = _members(path)
        script = "constants.pkl" in members or any(member.startswith("code/") for member in members)
        program, shapes = _torchscript(members) if script else _graph(members)
        if shapes and len(shapes) != (2 if classes else 1):
            hint = (
                "say classes=... if the second are labels" if len(shapes) == 2 and not classes else "a generator takes z, or z and labels"
            )
            raise ValueError(f"it takes {len(shapes)} inputs: {hint}.")
        sizes = shapes[0][1:] if shapes else []
        known = tuple(size for size in sizes if size is not None)
        stored = known if known and len(known) == len(sizes) else None
        given = (latent_size,) if isinstance(latent_size, int) else latent_size
        if stored is None and given is None:
            raise ValueError("it does not store the shape of its latents: say latent_size=100, or (100, 1, 1) as it may be.")
        if stored is not None and given is not None and tuple(given) != stored and not script:
            raise ValueError(f"it was exported for latents of {stored}, got latent_size={latent_size}.")
        batch = shapes[0][0] if shapes and not script else None
        if batch is not None and not 1 <= batch <= MOST_ROWS:
            raise ValueError(f"it was exported for batches of {batch}; 1 to {MOST_ROWS} were expected.")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    module = Program(program, _digest(members), batch)
    return wrap(module, latent_size=given or stored or (), name=name, classes=classes, labels=labels, value_range=value_range)


class Program(nn.Module):
    """A program with the digest of its code beside its weights, so that two programs never share a fingerprint.

    Args:
        batch: the one batch size it runs with, or None for any.
    """

    def __init__(self, program: nn.Module, digest: bytes, batch: int | None) -> None:
        super().__init__()
        self.program, self.batch = program, batch
        self.register_buffer("digest", torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def train(self, mode: bool = True) -> Program:
        """Nothing: a program is what it was when it was written."""
        return self

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        if self.batch is None:
            return self._run(z, *labels)
        return torch.cat([self._filled(*(given[i : i + self.batch] for given in (z, *labels))) for i in range(0, len(z), self.batch)])

    def _filled(self, *given: Tensor) -> Tensor:
        assert self.batch is not None
        n = len(given[0])
        if n == self.batch:
            return self._run(*given)
        return self._run(*(torch.cat([one, one[-1:].expand(self.batch - n, *one.shape[1:])]) for one in given))[:n]

    def _run(self, *given: Tensor) -> Tensor:
        try:
            # its profiler cannot look into torch.func's tensors
            with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
                return self.program(*given)
        except (torch.jit.Error, RuntimeError, KeyError) as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ValueError(f"its program stops: {said[-1] if said else type(error).__name__}") from error


def _members(path: Path) -> dict[str, bytes]:
    """The files of the archive without its folder's name; nothing is read before their sizes are known to be sane."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            refuse_bomb(infos, path.stat().st_size)
            names = [info.filename for info in infos]
            if len({name.lower() for name in names}) != len(names):
                raise ValueError("it holds two files of one name.")
            tops = {name.partition("/")[0] for name in names}
            skip = len(next(iter(tops))) + 1 if len(tops) == 1 and all("/" in name for name in names) else 0
            return {info.filename[skip:]: _read(archive, info) for info in infos}
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise ValueError(f"no TorchScript or torch.export file can be read there: {detail}.") from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    import zlib

    try:
        with archive.open(info) as member:
            content = member.read(info.file_size + 1)
    except zlib.error as error:
        raise zipfile.BadZipFile(str(error)) from error
    if len(content) != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is not as long as it says")
    return content


def _digest(members: Mapping[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for member, content in sorted(members.items()):
        if member.startswith(("code/", "models/", "constants", "serialized_exported")) and not member.endswith(".debug_pkl"):
            digest.update(f"{member} {len(content)} ".encode() + content)
    return digest.digest()


# ------------------------------------------------------------------ TorchScript


def _torchscript(members: Mapping[str, bytes]) -> tuple[nn.Module, list[list[int | None]]]:
    code = {member: content for member, content in members.items() if member.startswith("code/") and member.endswith(".py")}
    if "data.pkl" not in members or not code:
        raise ValueError("it is no TorchScript of torch 1.4 or later: data.pkl or code/ is missing.")
    if sum(map(len, code.values())) > MOST_CODE:
        raise ValueError(f"its code is longer than {MOST_CODE:,} bytes.")
    for member, content in code.items():
        _inspect(member, content)
    for member in ("data.pkl", "constants.pkl"):
        if b"torch.classes" in members.get(member, b""):
            raise ValueError(f"{member} in it holds objects of compiled classes: only tensors are read.")
        _opcodes(member, members.get(member, b"."))  # torch takes the memory that a damaged length asks for
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for member, content in members.items():
            if KEPT.fullmatch(member):
                archive.writestr(f"archive/{member}", content)
    copy.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own: that TorchScript is no longer developed
            module = torch.jit.load(copy, map_location="cpu").eval()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"torch cannot load its TorchScript: {lines[0] if lines else type(error).__name__}") from error
    if not hasattr(module, "forward"):
        raise ValueError("its TorchScript has no forward method: save the generator's module.")
    return module, _traced(members.get("traced_inputs.pkl", b""))


def _inspect(member: str, content: bytes) -> None:
    """Refuse code that names anything but operators that compute.

    The check is one of words, in comments and strings too: ``torch`` and ``ops`` may stand only in front of the dot and
    the name of an operator, so there is no way to say one in other words.
    """
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        text = re.sub(r"[^\x00-\x7f]", "?", content.decode("utf-8", "replace"))
    if "torch.classes" in text or "^" in text or re.search(r"\brpc_\w+\s*\(", text):
        raise ValueError(f"{member} in it calls Python or a compiled class: only operators that compute are run here.")
    for word in re.finditer(r"(?<![\w.])(torch|ops)\b(\.\w+)?(\.\w+)?", text):
        root, first, second = word[1], (word[2] or "")[1:], (word[3] or "")[1:]
        if not (_computes("aten", first) and not second if root == "torch" else _computes(first, second)):
            raise ValueError(
                f"{member} in it calls {word[0]}: only torch's own operators that compute are run here, none on files or Python."
            )


def _computes(namespace: str, name: str) -> bool:
    if namespace == "prim":
        return name in PRIM
    return namespace == "aten" and name not in UNSAFE and (name in _builtins() or hasattr(torch.ops.aten, name or "?"))


@cache
def _builtins() -> set[str]:
    """Names of the operators that TorchScript has beyond ``torch.ops.aten``."""
    return {schema.name.removeprefix("aten::") for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("aten::")}


def _traced(pickled: bytes) -> list[list[int | None]]:
    """Shapes of the tensors that a program was traced with, from the opcodes of their pickle; nothing is unpickled."""
    shapes: list[list[int | None]] = []
    opcodes = _opcodes("traced_inputs.pkl", pickled) if pickled else []
    for i, (kind, _) in enumerate(opcodes):
        if kind == "BINPERSID":  # then the offset, and the sizes as a tuple
            after = [(k, a) for k, a in opcodes[i + 1 : i + 24] if k not in ("BINPUT", "LONG_BINPUT", "MARK")]
            sizes = [arg for _, arg in after[1 : next((j for j, (k, _) in enumerate(after) if k.startswith("TUPLE")), 1)]]
            shapes.append([int(size) if isinstance(size, int) else None for size in sizes])
    return shapes


def _opcodes(member: str, pickled: bytes) -> list[tuple[str, object]]:
    """The instructions of a pickle, none of which is carried out."""
    try:
        return [(opcode.name, arg) for opcode, arg, _ in pickletools.genops(pickled)]
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise ValueError(f"{member} in it is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


# ------------------------------------------------------------------ torch.export


def _graph(members: Mapping[str, bytes]) -> tuple[nn.Module, list[list[int | None]]]:
    compiled = [member for member in members if "aotinductor" in member or member.endswith((".so", ".dll", ".dylib"))]
    if compiled:
        raise ValueError(f"it holds compiled code ({compiled[0]}), which is never loaded here: export it with torch.export.save.")
    graph = Graph(members)
    return graph, graph.shapes
