"""What a pickle says, written down instead of done: calls, tensors and arrays as records, and the short list of names that are known.

``machine`` runs the opcodes and asks ``made`` what a call gives. A known name gives a plain container or a record of a tensor whose
bytes are still in the file; any other name gives an inert ``Made``, which remembers what was to be called and is never called. No name
is ever imported or looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

DTYPES: Mapping[str, torch.dtype] = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "Untyped": torch.uint8,
}
NAMED = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}
Blob = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Global:
    """A name in the file: ``torch.FloatStorage``. Never looked up."""

    path: str

    @property
    def dtype(self) -> torch.dtype | None:
        """Of a storage class or a dtype of torch."""
        module, _, name = self.path.rpartition(".")
        if module in ("torch", "torch.storage", "torch.cuda") and name.endswith("Storage"):
            return DTYPES.get(name.removesuffix("Storage"))
        return NAMED.get(name) if module == "torch" else None


@dataclass(eq=False, slots=True)
class Made:
    """An inert object: what was to be called, with what, and what was then put into it."""

    function: Any
    args: Any = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Of the name that was to be called, in words that fit an error."""
        function = self.function
        for _ in range(8):
            if isinstance(function, Global):
                return shown(function.path)
            function = function.function if isinstance(function, Made) else None
        return "an object of its own making"


@dataclass(eq=False, slots=True)
class Storage:
    """Numbers of one type in a row; ``read`` fetches their bytes."""

    dtype: torch.dtype
    numel: int
    read: Callable[[int], Blob]  # the number of bytes -> the bytes


@dataclass(eq=False, slots=True)
class Packed:
    """A storage that is a torch file of its own inside a pickle: what NVIDIA's pickles hold."""

    content: Any


@dataclass(eq=False, slots=True)
class Stored:
    """A tensor: a view of a storage."""

    storage: Storage | Packed
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype | None = None  # of untyped storages


@dataclass(eq=False, slots=True)
class NumpyType:
    """A dtype of numpy: ``f4``, with its byte order."""

    code: str
    order: str = "<"


@dataclass(eq=False, slots=True)
class Array:
    """An array of numpy."""

    dtype: NumpyType | None = None
    shape: tuple[int, ...] = ()
    content: Any = b""
    fortran: bool = False


def shown(text: str, most: int = 80) -> str:
    """Text from a file, fit for one line of an error."""
    text = "".join(c if c.isprintable() else "?" for c in text[:most])
    return text + "…" * (len(text) == most)


def numbers(value: Any) -> tuple[int, ...]:
    """A size or a stride: up to eight plain numbers."""
    if not isinstance(value, tuple | list) or len(value) > 8 or not all(type(n) is int and 0 <= n < 2**48 for n in value):
        raise ValueError("a tensor in it has no plain size")
    return tuple(value)


def _number(value: Any) -> int:
    return numbers((value,))[0]


def _mapping(args: tuple[Any, ...]) -> dict[Any, Any]:
    given = args[0] if args else {}
    if isinstance(given, dict):
        return given
    return {key_of(pair[0]): pair[1] for pair in given if isinstance(pair, tuple | list) and len(pair) == 2}


def key_of(value: Any) -> Any:
    """A key of a dict. What has no business there is replaced by an inert object, which is hashed by identity."""
    plain = (str, bytes, int, float, bool, type(None), Global)
    if isinstance(value, plain) or (isinstance(value, tuple) and len(value) < 9 and all(isinstance(one, plain) for one in value)):
        return value
    return value if isinstance(value, Made) else Made(value)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Stored | Made:
    if isinstance(storage, Made):
        return storage  # a tensor of something inert is inert
    if not isinstance(storage, Storage | Packed):
        raise ValueError(f"a tensor in it has a {type(storage).__name__} for its numbers")
    named = [one.dtype for one in rest if isinstance(one, Global) and one.dtype is not None]  # of _rebuild_tensor_v3
    if len(numbers(size)) != len(numbers(stride)):
        raise ValueError("a tensor in it has no plain size")
    return Stored(storage, _number(offset), numbers(size), numbers(stride), named[0] if named else None)


def _first(value: Any, *_: Any) -> Any:
    return value


def _encoded(text: Any, encoding: Any = "latin1", *_: Any) -> str | Made:
    """Bytes, as protocol 2 of Python 3 spells them; they stay text, which ``blob`` takes for bytes."""
    return text if isinstance(text, str) and encoding in ("latin1", "latin-1") else Made(Global("_codecs.encode"), (text, encoding))


def _scalar(dtype: Any, content: Any = b"", *_: Any) -> Any:
    """A number of numpy as one of ours."""
    import numpy as np

    if not isinstance(dtype, NumpyType):
        raise ValueError("a number in it has no type")
    return np.frombuffer(blob(content), dtype=numpy_type(dtype), count=1)[0].item()


def _buffered(content: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Array:
    if not isinstance(dtype, NumpyType):
        raise ValueError("an array in it has no type")
    return Array(dtype, numbers(shape), content, order == "F")


def _numpy_type(code: Any, *_: Any) -> NumpyType:
    if not isinstance(code, str):
        raise ValueError("a type in it has no name")
    return NumpyType(code.lstrip("<>|="), code[0] if code[:1] in (">", "<") else "<")


def numpy_type(dtype: NumpyType) -> Any:
    """The plain number type of numpy, and none else: no objects, no records."""
    import numpy as np

    if dtype.code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        raise ValueError(f"an array in it is of type {shown(dtype.code)}, which is no plain number")
    return np.dtype((">" if dtype.order == ">" else "<") + dtype.code)


def blob(value: Any) -> Blob:
    """Bytes; a string is what Python 2 called bytes."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ValueError("the numbers of an array in it are no bytes")
    return value


def _listed(args: Any = (), *_: Any) -> list[Any]:
    return args if isinstance(args, list) else list(args) if isinstance(args, tuple) else []


KNOWN: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda *args: _mapping(args),
    "collections.defaultdict": lambda *_: {},
    "builtins.dict": lambda *args: _mapping(args),
    "builtins.set": _listed,
    "builtins.frozenset": _listed,
    "builtins.list": _listed,
    "dnnlib.util.EasyDict": lambda *args: _mapping(args),
    "dnnlib.EasyDict": lambda *args: _mapping(args),
    "torch.Size": lambda args=(), *_: tuple(_listed(args)),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.storage._load_from_bytes": lambda content, *_: Packed(content),
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": lambda *_: Array(),
    "numpy.core.numeric._frombuffer": _buffered,
    "_codecs.encode": _encoded,
}
NAMES_ONLY = {"numpy.ndarray", "argparse.Namespace", "torch.device", "torch.nn.parameter.Parameter"}  # harmless arguments of the above


def named(module: str, name: str) -> Global:
    """A name under its present spelling."""
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    return Global(f"{module.replace('numpy._core', 'numpy.core')}.{name}")


def made(function: Any, args: Any) -> Any:
    """What a call gives: a known name its record, ``copyreg`` what it copies, any other an inert object."""
    if not isinstance(args, tuple):
        raise ValueError("a call in it has no arguments")
    path = function.path if isinstance(function, Global) else ""
    if path in ("copyreg._reconstructor", "copyreg.__newobj__") and args:
        return made(args[0], args[1:] if path.endswith("__newobj__") else ())
    if path == "torch._tensor._rebuild_from_type_v2" and len(args) > 2 and isinstance(args[0], Global):
        return made(args[0], args[2])
    if path not in KNOWN:
        return Made(function, args)
    try:
        return KNOWN[path](*args)
    except (TypeError, IndexError, UnicodeError) as error:
        raise ValueError(f"a call of {path} in it has arguments that make no sense") from error


def build(value: Any, state: Any) -> None:
    """Put a state into an object: arrays and numpy's types know theirs, an inert object keeps it, the rest has no need of one."""
    if isinstance(value, Array):
        if not isinstance(state, tuple) or len(state) < 5 or not isinstance(state[2], NumpyType):
            raise ValueError("an array in it has no plain state")
        value.shape, value.dtype, value.fortran = numbers(state[1]), state[2], bool(state[3])
        value.content = state[4]
    elif isinstance(value, NumpyType):
        if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", "<", "|", "="):
            value.order = state[1]
    elif isinstance(value, Made):
        value.state = state
