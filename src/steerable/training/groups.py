"""Groups of a latent: which numbers of z mean what. Everything else about them is derived from their ordered list.

    groups = Groups((Group("digit", 24, Contrast(digit)), Group("slant", 8, Contrast(slant, "l1")), Group("rest", 24)))
    groups.width, groups.spans, groups.mapping(64)       offsets, mapping networks
    groups.owners(64)                                     which rows of a batch share what

Adding an attribute is one line in that list. ``contrastive`` has the loss that gives a group its meaning, ``controllable`` the training.

Source: Shoshan et al., "GAN-Control: explicitly controllable GANs", ICCV 2021, section 3.1 and its supplement's table of places and rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from steerable import checks
from steerable.protocols import Feature, Span
from steerable.training.contrastive import Contrast

DEPTH = 3  # layers of a mapping network
REST = "rest"  # the group that measures nothing, where a text names it


@dataclass(frozen=True, eq=False)
class Group:
    """A named share of the latent.

    Attributes:
        width: how many numbers.
        contrast: the measurement that the group, and no other, is to decide, and how; None for the rest.
        reading: what a person asks of the group by value, where that is not the measurement itself: a feature whose columns are the
            probabilities of classes, or numbers.
    """

    name: str
    width: int
    contrast: Contrast | None = None
    reading: Feature | None = None

    @property
    def asked(self) -> Feature | None:
        """The feature whose values are set by number."""
        return self.reading or (self.contrast and self.contrast.feature)


@dataclass(frozen=True, eq=False)
class Groups:
    """All groups of a generator, in the order of their slices.

    Raises:
        ValueError: none, two of one name, a name that is no word, a width below 2, or no group that measures anything.
    """

    all: tuple[Group, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "all", tuple(self.all))
        names = [group.name for group in self.all]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ValueError(f"groups need names of their own, got {', '.join(names) or 'no group'}.")
        for group in self.all:
            if not re.fullmatch(r"[a-z][a-z0-9-]*", group.name):
                raise ValueError(f'a group is named by a word in small letters, "digit" for example; got "{group.name}".')
            if group.width < 2:
                raise ValueError(f'the group "{group.name}" has {group.width} numbers: on a sphere it needs 2 or more.')
        if not self.watched:
            raise ValueError(f"no group of {', '.join(names)} has a feature: at least one has to measure what it controls.")

    def __iter__(self) -> Any:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(group.name for group in self.all)

    @property
    def width(self) -> int:
        return sum(group.width for group in self.all)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Name, start and end of each slice."""
        ends = [sum(group.width for group in self.all[: i + 1]) for i in range(len(self))]
        return tuple((group.name, end - group.width, end) for group, end in zip(self.all, ends, strict=True))

    @property
    def watched(self) -> tuple[Group, ...]:
        """Those with a measurement."""
        return tuple(group for group in self.all if group.contrast is not None)

    def mapping(self, hidden: int) -> list[list[Any]]:
        """Name and widths of each mapping network, as the networks of ``generators`` take them."""
        return [[group.name, [group.width, *[hidden] * (DEPTH - 1), group.width]] for group in self.all]

    def rows(self, batch: int) -> tuple[int, ...]:
        """Rows of a batch that each group's pairs take: an even number each, in the order of the groups.

        Raises:
            ValueError: a batch that does not hold a pair for each group.
        """
        if batch < 2 * len(self):
            raise ValueError(
                f"a batch of {batch} does not hold a pair for each of the {len(self)} groups {', '.join(self.names)}: "
                f"use --batch {2 * len(self)} or more."
            )
        pairs, more = divmod(batch // 2, len(self))
        return tuple(2 * (pairs + (i < more)) for i in range(len(self)))

    def owners(self, batch: int) -> dict[str, Int[Tensor, " batch"]]:
        """For each group the row whose z every row has there.

        In the block of a measured group rows 2i and 2i + 1 share that group and nothing else, in the block of any other they share every
        measured group and nothing else; so what a group that measures nothing does is seen with all values held.
        """
        found = {name: torch.arange(batch) for name in self.names}
        start = 0
        for group, rows in zip(self.all, self.rows(batch), strict=True):
            shared = [group] if group.contrast is not None else self.watched
            for one in shared:
                found[one.name][start + 1 : start + rows : 2] = found[one.name][start : start + rows : 2]
            start += rows
        return found

    def shared(self, z: Tensor, owners: Mapping[str, Tensor]) -> Tensor:
        """z (batch, width) with every group taken from its owner's row."""
        return torch.cat([z[owners[name], start:end] for name, start, end in self.spans], 1)


def parse_groups(text: str, known: Mapping[str, Group], *, find: Callable[[str], Feature] | None = None) -> Groups:
    """``"digit:24,slant:8,rest:32"`` as groups, in the order of the text.

    Args:
        known: those of a domain, by name; the text chooses among them and sets their widths.
        find: gives the feature of a name that is no group of the domain, and raises where there is none. The name "rest" measures nothing.

    Raises:
        ValueError: not NAME:WIDTH with commas, or a name that is neither a group nor a feature.
    """
    chosen = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, colon, width = part.rpartition(":")
        name = name.strip()
        if not colon or not name or not width.strip().isdecimal():
            raise ValueError(f'--groups takes NAME:WIDTH with commas, "digit:24,slant:8,rest:32" for example; got "{part}".')
        if name in known:
            chosen.append(replace(known[name], width=int(width)))
        elif name == REST:
            chosen.append(Group(REST, int(width)))
        elif find is not None:
            chosen.append(Group(name, int(width), Contrast(find(name))))
        else:
            checks.known(name, {*known, REST}, "group")
    return Groups(tuple(chosen))


def check_total(groups: Groups, total: int | None) -> None:
    """Refuse widths that do not add up to the latent that was asked for; None asks for none."""
    if total is not None and groups.width != total:
        sizes = " + ".join(f"{group.name} {group.width}" for group in groups)
        raise ValueError(f"the groups take {sizes} = {groups.width} numbers, the latent has {total}: make the widths add up to it.")
