"""Named generators, measuring networks and features, with licence, source and SHA-256 of every shipped file.

``shipped`` reads the files in ``weights/``; the networks and ready measurements are in ``features.ready``. Nothing is downloaded.

Where the files come from: ``tools/`` has the command that made each; NOTICE has the licences.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerable import checks, hub, store
from steerable.features.ready import FEATURES as FEATURES
from steerable.features.ready import HOLDS as HOLDS
from steerable.features.ready import NETWORKS as NETWORKS
from steerable.features.ready import OF_DIGITS as OF_DIGITS
from steerable.features.ready import feature_names as feature_names
from steerable.features.ready import load_backbone as load_backbone
from steerable.features.ready import load_feature as load_feature
from steerable.features.ready import load_features as load_features
from steerable.features.ready import load_network as load_network
from steerable.generators import dcgan
from steerable.generators.module import ModuleGenerator
from steerable.shipped import WEIGHTS as WEIGHTS
from steerable.shipped import content, entries, tensors
from steerable.shipped import read as read


def load_generator(
    name: str | os.PathLike[str], *, network: str | None = None, arguments: Mapping[str, Any] | None = None, device: str = "cpu"
) -> ModuleGenerator:
    """A shipped generator by name, one from a file, or one from the Hub: "faces64", "out/mine.pkl", "hf://owner/repo".

    Args:
        network: which network of a file that holds several, "G_ema" for example; left out, the averaged generator.
        arguments: of its constructor, for files that neither hold them nor have them beside: ``{"conv_clamp": 256}``.

    Raises:
        ValueError: an unknown name, a file that holds no generator, an address that leads nowhere; see ``hub.fetch``.
    """
    if hub.is_address(name):
        return store.load_generator_file(hub.fetch(name), network=network, arguments=arguments).to(device)
    known = [entry.name for entry in entries().values() if entry.kind == "generator"]
    text = os.fspath(name)
    if text in known:
        return _shipped_generator(text).to(device)
    if Path(text).exists() or Path(text).suffix or os.sep in text:
        return store.load_generator_file(text, network=network, arguments=arguments).to(device)
    checks.known(text, known, "generator")
    raise AssertionError("checks.known has refused the name")


def _shipped_generator(name: str) -> ModuleGenerator:
    """One of ours, with the controllers that ship beside it, if any: then ``sample(values=...)`` works as it is."""
    entry = entries()[name]
    if entry.family == "dcgan":
        return dcgan.from_state_dict(tensors(name), name=name)
    made = store.generator_in(content(WEIGHTS / entry.file, entry.sha256), name=name)
    beside = f"{name}-controllers"
    return made.controlled(store.load_control(beside, generator=made)) if beside in entries() else made
