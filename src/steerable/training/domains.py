"""Ready lists of groups: what the generators of a domain are controlled by.

    digits     which digit, how slanted, how much ink, the rest
    heads      yaw, pitch, light, hue, size, background, the rest         its pictures are rendered, see ``steerable.rendered``

``groups`` has what a list is; ``parse_groups`` there takes one from a text. A new domain is one more entry. Every domain has two shipped
networks of different seeds: one that trainings are given, and one that judges them (``judges``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steerable import checks
from steerable.features.digits import INK, SLANT, DigitNetwork, digit, digit_class
from steerable.features.heads import HeadNetwork, head_features
from steerable.features.ready import load_network
from steerable.protocols import Feature
from steerable.training.contrastive import Contrast
from steerable.training.groups import REST, Group, Groups, parse_groups

HAZE, FAINT = 0.15, 0.3  # of white: what is darker is background to a network; and is no stroke


def digits(network: DigitNetwork | None = None) -> Groups:
    """Digit 24, slant 8, ink 8, rest 24 numbers.

    Args:
        network: that tells digits apart; the shipped predictor by default.
    """
    reader: DigitNetwork = network if network is not None else load_network("digits-predictor")
    return Groups(
        (
            Group("digit", 24, Contrast(digit(reader), smoothed=True, clipped=HAZE, weight=6.0), reading=digit_class(reader)),
            Group("slant", 8, Contrast(SLANT, "l1", clipped=FAINT)),
            Group("ink", 8, Contrast(INK, "l1", clipped=FAINT, weight=7.0)),
            Group(REST, 24),
        )
    )


def heads(network: HeadNetwork | None = None) -> Groups:
    """8 numbers for each of the six factors, 24 for the rest.

    Args:
        network: that reads heads; the shipped predictor by default.
    """
    reader: HeadNetwork = network if network is not None else load_network("heads-predictor")
    factors = (Group(feature.name, 8, Contrast(feature, "l1", smoothed=True)) for feature in head_features(reader))
    return Groups((*factors, Group(REST, 24)))


DOMAINS: Mapping[str, Callable[..., Groups]] = {"digits": digits, "heads": heads}
JUDGES = {
    "digits": "digits-judge",
    "heads": "heads-judge",
}
RENDERED = ("heads",)  # domains whose pictures nobody has to bring


def domain(name: str) -> Groups:
    """The groups of a domain, with the network that trainings are given."""
    return DOMAINS[checks.known(name, DOMAINS, "domain")]()


def judges(name: str) -> Groups:
    """The same groups, measured by a network of another seed."""
    return DOMAINS[checks.known(name, DOMAINS, "domain")](load_network(JUDGES[name]))


def trained_with(origin: Mapping[str, Any], *, judged: bool = False, find: Callable[[str], Feature] | None = None) -> tuple[Groups, str]:
    """The groups that a generator was trained with, and its domain or "".

    Args:
        origin: what its file says of it; see ``store.described``.
        judged: measured by networks of other seeds, where it has a domain.
        find: gives features by name, for one without.

    Raises:
        KeyError: it was trained without groups.
        ValueError: an unknown domain or feature.
    """
    text, name = ",".join(f"{group}:{width}" for group, width in origin["groups"]), str(origin.get("domain") or "")
    known = {group.name: group for group in (judges(name) if judged else domain(name))} if name else {}
    return parse_groups(text, known, find=find), name


def readings(groups: Groups) -> dict[str, Feature]:
    """What is asked by value of every group that measures something."""
    return {group.name: group.asked for group in groups.watched if group.asked is not None}


def measured(groups: Groups) -> dict[str, Feature]:
    """What every group that measures something is to decide."""
    return {group.name: group.contrast.feature for group in groups.watched if group.contrast is not None}
