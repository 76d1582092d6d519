"""How published checkpoints name their tensors: one ``Layout`` for each, a table that renames its keys to ours.

A family has one network; what differs between code bases is names, stored scales and flips, and a layout undoes those.
Keys that the table does not know are an error that lists them, so nothing in a file is skipped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

HOW = "steer import FILE --arguments args.json or load_generator(FILE, arguments={...})"  # to pass constructor arguments
Tensors = Mapping[str, Tensor]
Arguments = Mapping[str, Any]
Table = Sequence[tuple[str, str | None]]  # (pattern of a whole key, our key), None for what a generator does not need


@dataclass(frozen=True)
class Layout:
    """One published way to store a family.

    Attributes:
        name: of the code base: "rosinality".
        family: in ``families.FAMILIES``.
        signs: patterns of whole keys; a state dict with a key for every one of them has this layout.
        fits: for layouts that are known by shapes and not by names: whether a state dict is one.
        read: (tensors, constructor arguments stored beside them, possibly none) -> (config, our tensors) of the network.
    """

    name: str
    family: str
    signs: tuple[str, ...]
    read: Callable[[Tensors, Arguments], tuple[dict[str, Any], dict[str, Tensor]]]
    fits: Callable[[Tensors], bool] | None = None

    def share(self, tensors: Tensors) -> float:
        """How much of a state dict looks like this layout: the share of its signs among the keys, 0 to 1."""
        if self.fits is not None:
            return float(self.fits(tensors))
        keys = list(tensors)
        return sum(any(re.fullmatch(sign, key) for key in keys) for sign in self.signs) / len(self.signs)

    def lacking(self, tensors: Tensors) -> list[str]:
        """A key for every sign that a state dict has no key for."""
        return [example(sign) for sign in self.signs if not any(re.fullmatch(sign, key) for key in tensors)]


def example(sign: str) -> str:
    """A key that a sign stands for: its first numbers and none of what it may also have."""
    plain = re.sub(r"\([^)]*\)\?", "", sign.replace(r"\.", "\0"))
    plain = re.sub(r"\\d\+?(\{[\d,]+\})?", "0", plain).replace(".+", "NAME")
    return plain.replace("(", "").replace(")", "").replace("\0", ".")


def renamed(tensors: Tensors, table: Table, *, layout: str) -> dict[str, Tensor]:
    """The tensors under our names, in the order of the file.

    Raises:
        ValueError: keys that no row of the table matches; they are listed.
    """
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        for pattern, name in table:
            if match := re.fullmatch(pattern, key):
                if name is not None:
                    ours[match.expand(name)] = tensor
                break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"keys left over that the {layout} layout does not know: {listed(unknown)}.")
    return ours


def listed(keys: Sequence[str], most: int = 4) -> str:
    """``a, b, c and 12 more``."""
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def need(tensors: Tensors, key: str, *, layout: str) -> Tensor:
    """A tensor that sizes are read from.

    Raises:
        ValueError: it is missing.
    """
    if key not in tensors:
        raise ValueError(f"{key} is missing from this {layout} checkpoint: the file is incomplete.")
    return tensors[key]
