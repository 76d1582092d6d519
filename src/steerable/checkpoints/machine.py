"""The pickle machine: runs the opcodes of a pickle over plain containers and ``records``, and calls nothing else.

Python's own machine imports names, calls them, and takes memory on the file's word. This one is small enough to read: every length is
compared with what is left of the file, steps are counted, a call is written down (see ``records.made``).

Source: the opcodes as CPython's ``Lib/pickletools.py`` documents them, protocols 0 to 5.
"""

from __future__ import annotations

import codecs
import gc
import struct
from collections.abc import Callable
from typing import Any

from steerable.checkpoints.records import Global, Made, build, key_of, made, named

STEPS = 400_000  # published checkpoints take up to some 50,000
LONG = 1024  # bytes of one integer
SHORT = 256  # bytes of a string that is copied out of the file rather than looked at in place
OPERATIONS: dict[int, Callable[[Machine], None]] = {}


class Machine:
    """One pickle.

    Args:
        content: bytes or a memory map; longer byte strings in the result are views of it.
        start: where the pickle begins.
        persistent: what a persistent id stands for; a storage in files of torch.

    Attributes:
        position: after ``run``, where the pickle ended.
        seen: the names that stand in it, in order.
    """

    def __init__(self, content: Any, start: int = 0, *, persistent: Callable[[Any], Any] | None = None) -> None:
        self.content, self.position = content, start
        self.size, self.view = len(content), memoryview(content)
        self.persistent = persistent
        self.seen: dict[str, None] = {}
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0  # items that calls of known names went through

    def run(self) -> Any:
        """The value of the pickle.

        Raises:
            ValueError: it is damaged, cut off or too long.
        """
        collecting = gc.isenabled()
        gc.disable()  # deep lists would be walked again and again
        try:
            for _ in range(STEPS):
                code = self.view[self.position]
                self.position += 1
                if code == 0x2E:  # STOP
                    return self.stack.pop()
                operation = OPERATIONS.get(code)
                if operation is None:
                    raise ValueError(f"it has an unknown opcode {code:#04x}")
                operation(self)
        except (IndexError, KeyError, AttributeError, TypeError, struct.error, UnicodeError, OverflowError) as error:
            what = "it ends in the middle of its pickle" if self.position >= self.size else f"it is damaged around byte {self.position}"
            raise ValueError(what) from error
        finally:
            if collecting:
                gc.enable()
        raise ValueError(f"it has a pickle of more than {STEPS} steps")

    def take(self, n: int) -> Any:
        """The next n bytes, as a view."""
        end = self.position + n
        if n < 0 or end > self.size:
            raise ValueError("it ends in the middle of its pickle")
        self.position, part = end, self.view[self.position : end]
        return part

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def line(self) -> bytes:
        end = self.content.find(b"\n", self.position, self.position + 100_000)
        if end < 0:
            raise ValueError("it ends in the middle of its pickle")
        return bytes(self.take(end + 1 - self.position)[:-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def marks(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def name(self, module: str, name: str) -> Global:
        found = named(module, name)
        self.seen[found.path] = None
        return found

    def blob(self, n: int) -> Any:
        part = self.take(n)
        return bytes(part) if n <= SHORT else part

    def fill(self, items: list[Any]) -> None:
        """APPENDS, ADDITEMS: into a list (sets are lists here); an inert object keeps what it is given."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Made):
            raise TypeError

    def entries(self, items: list[Any]) -> None:
        """SETITEMS: into a dict or an inert object."""
        target = self.stack[-1]
        target = target.entries if isinstance(target, Made) else target
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key_of(key)] = value

    def pair(self) -> tuple[Any, Any]:
        second = self.stack.pop()
        return self.stack.pop(), second


def _on(code: bytes) -> Callable[[Callable[[Machine], None]], Callable[[Machine], None]]:
    def keep(operation: Callable[[Machine], None]) -> Callable[[Machine], None]:
        OPERATIONS.update(dict.fromkeys(code, operation))
        return operation

    return keep


def _pushing(code: bytes, value: Callable[[Machine], Any]) -> None:
    OPERATIONS[code[0]] = lambda m: m.push(value(m))  # the value first: it may change the stack


def _long(m: Machine, n: int) -> int:
    if n > LONG:
        raise ValueError(f"it has an integer of {n} bytes")
    return int.from_bytes(m.take(n), "little", signed=True)


def _text(m: Machine, n: int) -> str:
    return str(m.take(n), "utf-8", "surrogatepass")


def _bytes_or_text(content: Any) -> str:
    return str(content, "latin-1")  # what Python 2 called a string: names and the bytes of arrays alike


def _decimal(line: bytes) -> int:
    if len(line) > LONG:
        raise ValueError(f"it has an integer of {len(line)} digits")
    return int(line.rstrip(b"L") or b"0")


def _integer(line: bytes) -> int:
    return line == b"01" if line in (b"00", b"01") else _decimal(line)


def _quoted(line: bytes) -> str:
    line = line.strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise TypeError
    return _bytes_or_text(codecs.escape_decode(line[1:-1])[0])  # type: ignore[attr-defined]


for _code, _value in (
    (b"N", lambda m: None),
    (b"\x88", lambda m: True),
    (b"\x89", lambda m: False),
    (b"]", lambda m: []),
    (b")", lambda m: ()),
    (b"}", lambda m: {}),
    (b"\x8f", lambda m: []),  # EMPTY_SET
    (b"K", lambda m: m.number("B")),
    (b"M", lambda m: m.number("H")),
    (b"J", lambda m: m.number("i")),
    (b"G", lambda m: struct.unpack(">d", m.take(8))[0]),
    (b"\x8a", lambda m: _long(m, m.number("B"))),
    (b"\x8b", lambda m: _long(m, m.number("i"))),
    (b"I", lambda m: _integer(m.line())),
    (b"L", lambda m: _decimal(m.line())),
    (b"F", lambda m: float(m.line())),
    (b"V", lambda m: str(m.line(), "raw-unicode-escape")),
    (b"S", lambda m: _quoted(m.line())),
    (b"X", lambda m: _text(m, m.number("I"))),
    (b"\x8c", lambda m: _text(m, m.number("B"))),
    (b"\x8d", lambda m: _text(m, m.number("Q"))),
    (b"T", lambda m: _bytes_or_text(m.take(m.number("i")))),
    (b"U", lambda m: _bytes_or_text(m.take(m.number("B")))),
    (b"B", lambda m: m.blob(m.number("I"))),
    (b"C", lambda m: m.blob(m.number("B"))),
    (b"\x8e", lambda m: m.blob(m.number("Q"))),
    (b"\x96", lambda m: m.blob(m.number("Q"))),  # BYTEARRAY8
    (b"t", lambda m: tuple(m.marks())),
    (b"l", lambda m: m.marks()),
    (b"\x91", lambda m: m.marks()),  # FROZENSET
    (b"\x85", lambda m: (m.stack.pop(),)),
    (b"\x86", lambda m: m.pair()),
    (b"g", lambda m: m.memo[_decimal(m.line())]),
    (b"h", lambda m: m.memo[m.number("B")]),
    (b"j", lambda m: m.memo[m.number("I")]),
    (b"2", lambda m: m.stack[-1]),  # DUP
    (b"c", lambda m: m.name(str(m.line(), "utf-8"), str(m.line(), "utf-8"))),
    (b"\x82", lambda m: m.name("copyreg", f"extension {m.number('B')}")),
    (b"\x83", lambda m: m.name("copyreg", f"extension {m.number('H')}")),
    (b"\x84", lambda m: m.name("copyreg", f"extension {m.number('i')}")),
):
    _pushing(_code, _value)


@_on(b"\x80")
def _protocol(m: Machine) -> None:
    if m.number("B") > 5:
        raise ValueError("it has a pickle of an unknown protocol")


@_on(b"\x95")
def _frame(m: Machine) -> None:
    if m.number("Q") > m.size - m.position:
        raise ValueError("it ends in the middle of its pickle")


@_on(b"(")
def _mark(m: Machine) -> None:
    m.marked.append(m.stack)
    m.stack = []


@_on(b"0")
def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.marks()


@_on(b"1")
def _pop_mark(m: Machine) -> None:
    m.marks()


@_on(b"\x98")
def _readonly(m: Machine) -> None:
    """READONLY_BUFFER: nothing is written to anyway."""


@_on(b"p")
def _put(m: Machine) -> None:
    m.memo[_decimal(m.line())] = m.stack[-1]


@_on(b"q")
def _binput(m: Machine) -> None:
    m.memo[m.number("B")] = m.stack[-1]


@_on(b"r")
def _long_binput(m: Machine) -> None:
    m.memo[m.number("I")] = m.stack[-1]


@_on(b"\x94")
def _memoize(m: Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


@_on(b"\x87")
def _triple(m: Machine) -> None:
    second, third = m.pair()
    m.push((m.stack.pop(), second, third))


@_on(b"d")
def _dict(m: Machine) -> None:
    items = m.marks()
    m.push({})
    m.entries(items)


@_on(b"s")
def _setitem(m: Machine) -> None:
    m.entries(list(m.pair()))


@_on(b"u")
def _setitems(m: Machine) -> None:
    m.entries(m.marks())


@_on(b"a")
def _append(m: Machine) -> None:
    m.fill([m.stack.pop()])


@_on(b"e\x90")
def _appends(m: Machine) -> None:
    m.fill(m.marks())


@_on(b"\x93")
def _stack_global(m: Machine) -> None:
    module, name = m.pair()
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError
    m.push(m.name(module, name))


@_on(b"R\x81")
def _reduce(m: Machine) -> None:
    function, args = m.pair()
    m.copied += sum(len(one) for one in args[:2] if isinstance(one, tuple | list | dict))
    if m.copied > STEPS:
        raise ValueError(f"it has a pickle of more than {STEPS} steps")
    m.push(made(function, args))


@_on(b"\x92")
def _new_with_names(m: Machine) -> None:
    args, names = m.pair()
    kind = m.stack.pop()
    m.push(Made(kind, (args, names)) if names else made(kind, args))


@_on(b"i")
def _instance(m: Machine) -> None:
    kind = m.name(str(m.line(), "utf-8"), str(m.line(), "utf-8"))
    m.push(made(kind, tuple(m.marks())))


@_on(b"o")
def _object(m: Machine) -> None:
    kind, *args = m.marks()
    m.push(made(kind, tuple(args)))


@_on(b"b")
def _build(m: Machine) -> None:
    state = m.stack.pop()
    build(m.stack[-1], state)


@_on(b"Q")
def _binpersid(m: Machine) -> None:
    _persistent(m, m.stack.pop())


@_on(b"P")
def _persid(m: Machine) -> None:
    _persistent(m, str(m.line(), "latin-1"))


def _persistent(m: Machine, given: Any) -> None:
    if m.persistent is None:
        raise ValueError("it refers to objects outside of its pickle")
    m.push(m.persistent(given))
