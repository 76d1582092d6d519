"""The families in one list, and the way from a state dict to a generator.

Which family and layout a state dict has is decided by its keys. Sizes come from the tensors; what tensors cannot tell
(a clamp, sampling rates) from the constructor arguments that were stored beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from steerable import checks
from steerable.generators import (
    biggan,
    biggan_layouts,
    dcgan,
    grouped_dcgan,
    grouped_front,
    progan,
    progan_layouts,
    stylegan1,
    stylegan1_layouts,
    stylegan2,
    stylegan2_layouts,
    stylegan3,
    stylegan3_layouts,
    tensorflow_layouts,
)
from steerable.generators.layouts import Arguments, Layout, Tensors, listed
from steerable.generators.module import ModuleGenerator, generator_of

FAMILIES: Mapping[str, Callable[..., Any]] = {
    "biggan": biggan.BigGAN,
    "progan": progan.ProGAN,
    "stylegan2": stylegan2.StyleGAN2,
    "stylegan1": stylegan1.StyleGAN1,
    "stylegan3": stylegan3.StyleGAN3,
    "dcgan": dcgan.DCGAN,
    "dcgan-groups": grouped_dcgan.GroupedDCGAN,
    "grouped-front": grouped_front.GroupedFront,
}
LAYOUTS: tuple[Layout, ...] = (
    *biggan_layouts.LAYOUTS,
    *progan_layouts.LAYOUTS,
    *stylegan2_layouts.LAYOUTS,
    *stylegan1_layouts.LAYOUTS,
    *stylegan3_layouts.LAYOUTS,
    *tensorflow_layouts.LAYOUTS,
    *dcgan.LAYOUTS,
)
UNKNOWN = "the keys of no known generator"  # in the error that says so
DISCRIMINATORS = (  # keys of the published discriminators
    r"(D\.)?(b\d+\.)?fromrgb\.weight",
    r"(b\d+\.)?fromrgb\.weight",
    r"final_linear\.0\.weight",
    r"convs\.\d+\.conv1\.0\.weight",
    r"input\d+\.weight",
    r"embed\.weight(_orig)?",
    r"b4\.out\.weight",
    r"FromRGB_lod\d+/weight",
    r"\d+x\d+/FromRGB/weight",
)


def from_tensors(tensors: Tensors, arguments: Arguments | None = None, *, name: str = "generator") -> ModuleGenerator:
    """A generator from a flat state dict of any known layout.

    Args:
        tensors: of the generator alone; a prefix that all keys share (``module.``) does not matter.
        arguments: constructor arguments that were published with it, where they were.

    Raises:
        ValueError: no layout fits (the nearest is named), a discriminator, keys missing or left over (listed), sizes
            that contradict each other, NaN or infinite weights.
    """
    tensors = without_prefix(tensors)
    layout = layout_of(tensors, name=name)
    try:
        config, ours = layout.read(tensors, arguments or {})
        return build(layout.family, config, ours, name=name)
    except ValueError as error:
        raise ValueError(f"{name}, read as {layout.family} in the {layout.name} layout: {error}") from error


def layout_of(tensors: Tensors, *, name: str = "the checkpoint") -> Layout:
    """The layout whose signs all stand in the keys."""
    for layout in LAYOUTS:
        if layout.share(tensors) == 1:
            return layout
    if any(re.fullmatch(sign, key) for sign in DISCRIMINATORS for key in tensors):
        raise ValueError(f"{name} is a discriminator ({listed(list(tensors), 2)}): pass the generator of the same run.")
    if not tensors:
        raise ValueError(f"{name} holds no tensors.")
    nearest = max(LAYOUTS, key=lambda layout: layout.share(tensors))
    share = nearest.share(tensors)
    lacking = listed(nearest.lacking(tensors))
    guess = (
        f"the nearest is {nearest.family} in the {nearest.name} layout, of whose keys {lacking} are missing" if share else "none is near"
    )
    raise ValueError(f"{name} has {UNKNOWN} ({listed(list(tensors), 3)}); {guess}. A network of your own: steerable.wrap(module).")


def build(family: str, config: Mapping[str, Any], tensors: Tensors, *, name: str) -> ModuleGenerator:
    """A generator of a family from its config and its tensors under our names.

    Raises:
        ValueError: keys missing or left over, or a tensor of another shape than the config says.
    """
    constructor = FAMILIES[checks.known(family, FAMILIES, "generator family")]
    try:
        with torch.device("meta"):  # sizes are compared before any memory is taken
            expected = constructor(**config).state_dict()
    except TypeError as error:
        raise ValueError(f"the {family} config does not fit: {error}.") from error
    missing = [key for key in expected if key not in tensors]
    extra = [key for key in tensors if key not in expected]
    if missing or extra:
        raise ValueError(
            "; ".join(f"keys {what}: {listed(keys)}" for what, keys in (("missing", missing), ("left over", extra)) if keys) + "."
        )
    odd = [key for key in tensors if tensors[key].is_complex() or tensors[key].is_floating_point() != expected[key].is_floating_point()]
    if odd:
        raise ValueError(f"{odd[0]} holds {tensors[odd[0]].dtype} numbers, expected {expected[odd[0]].dtype}.")
    wrong = [key for key in expected if tensors[key].shape != expected[key].shape]
    if wrong:
        key = wrong[0]
        raise ValueError(f"{key} is {tuple(tensors[key].shape)}, expected {tuple(expected[key].shape)} from the other tensors.")
    network = constructor(**config)
    network.load_state_dict({key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()})
    return generator_of(network, name=name)


def without_prefix(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors without a prefix that wraps all of them: ``module.``, ``netG.``, ``generator.``, ``state/``."""
    for prefix in ("module.", "netG.", "state/"):
        if tensors and all(key.startswith(prefix) for key in tensors):
            return without_prefix({key.removeprefix(prefix): tensor for key, tensor in tensors.items()})
    return dict(tensors)
