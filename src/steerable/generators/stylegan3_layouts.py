"""The published layout of StyleGAN 3 checkpoints, read into the network of ``stylegan3``.

Sizes come from the tensors. What tensors do not tell (cutoffs, margins, the clamp) comes from the constructor arguments
in the file or else is as published; layer names and filters follow from it, so they are worked out and compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steerable.generators.layouts import HOW, Arguments, Layout, Table, Tensors, listed, need, renamed
from steerable.generators.stylegan3 import StyleGAN3, widths

NAME = "NVIDIA stylegan3"
UNSEEN = {  # what tensors do not tell: published name -> ours, smallest, largest
    "num_critical": ("critical", 0, 1000),
    "first_cutoff": ("cutoff", 1e-3, 1e4),
    "first_stopband": ("stopband", 1e-3, 1e4),
    "last_stopband_rel": ("last_stopband", 1e-3, 1e3),
    "margin_size": ("margin", 0, 1000),
    "filter_size": ("taps", 1, 64),
    "lrelu_upsampling": ("upsampling", 1, 16),
    "conv_clamp": ("clamp", 1e-6, 1e9),
    "output_scale": ("scale", -1e6, 1e6),
}
SEEN = {  # what they do: published name -> ours
    "img_resolution": "resolution",
    "z_dim": "latent_size",
    "w_dim": "width",
    "c_dim": "classes",
    "conv_kernel": "kernel",
    "use_radial_filters": "radial",
    "num_layers": "layers",
}
LAYER = r"synthesis\.L(\d+)_(\d+)_(\d+)"
TABLE: Table = (
    (r"mapping\.w_avg", "mapping.mean"),
    (r"mapping\.embed\.(weight|bias)", r"mapping.embed.\1"),
    (r"mapping\.fc(\d+)\.(weight|bias)", r"mapping.layers.\1.\2"),
    (r"synthesis\.input\.(weight|phases|transform|affine\.weight|affine\.bias)", r"input.\1"),
    (r"synthesis\.input\.freqs", "input.frequencies"),
    (rf"{LAYER}\.(weight|bias|affine\.weight|affine\.bias)", r"layers.\1.\4"),
    (rf"{LAYER}\.magnitude_ema", r"layers.\1.magnitude"),
    (rf"{LAYER}\.(up|down)_filter", r"layers.\1.nonlinearity.\4"),
)


def read(tensors: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of the network; see ``layouts.Layout``.

    Raises:
        ValueError: keys left over or missing; names, filters or sizes that contradict each other or the arguments.
    """
    ours = renamed(tensors, TABLE, layout=NAME)
    names = _names(tensors)
    mapping = _nested(arguments, "mapping_kwargs")
    stated = {**arguments, **_nested(arguments, "synthesis_kwargs")}
    config = _config(ours, names)
    _agree(config, stated, mapping)
    config |= {name: _number(stated, key, low, high) for key, (name, low, high) in UNSEEN.items() if key in stated}
    with torch.device("meta"):
        network = StyleGAN3(**config)
    _same_layers(network, names, config, stated)
    _same_filters(network, names, ours)
    last = config["layers"]
    ours = {re.sub(rf"^layers\.{last}\.", "image.", key): value for key, value in ours.items()}
    return config, _unscaled(ours, _number(mapping, "lr_multiplier", 1e-9, 1e9) if "lr_multiplier" in mapping else 0.01)


def _names(tensors: Tensors) -> list[str]:
    """``L0_36_512``, ... in order."""
    found = {int(match[1]): match[0].removeprefix("synthesis.") for match in map(re.compile(LAYER).match, tensors) if match}
    distinct = {match[0] for match in map(re.compile(LAYER).match, tensors) if match}
    if len(found) < 3 or sorted(found) != list(range(len(found))) or len(distinct) != len(found):
        raise ValueError(f"layers are numbered without gaps, L0_..., L1_...; got {listed(sorted(distinct))}.")
    return [found[i] for i in range(len(found))]


def _config(ours: Tensors, names: list[str]) -> dict[str, Any]:
    """All sizes that the tensors tell."""
    mean, first = _shaped(ours, "mapping.mean", 1), _shaped(ours, "mapping.layers.0.weight", 2)
    embed = _shaped(ours, "mapping.embed.weight", 2) if "mapping.embed.weight" in ours else None
    return {
        "resolution": int(names[-1].split("_")[1]),
        "latent_size": first.shape[1] - (0 if embed is None else len(embed)),
        "width": len(mean),
        "classes": None if embed is None else embed.shape[1],
        "mapping_layers": sum(re.fullmatch(r"mapping\.layers\.\d+\.weight", key) is not None for key in ours),
        "kernel": _shaped(ours, "layers.0.weight", 4).shape[-1],
        "radial": any(value.ndim == 2 for key, value in ours.items() if key.endswith("nonlinearity.down")),
        "channels": [int(name.split("_")[2]) for name in names],
        "layers": len(names) - 1,
    }


def _agree(config: Mapping[str, Any], stated: Arguments, mapping: Arguments) -> None:
    """Refuse arguments that say otherwise than the tensors."""
    told = {key: config[name] or 0 for key, name in SEEN.items()} | {"img_channels": config["channels"][-1]}
    for key, value in told.items():
        if key in stated and (stated[key] or 0) != value:
            raise ValueError(f"the arguments say {key}={stated[key]}, the tensors {value}: they belong to two files.")
    if mapping.get("num_layers", config["mapping_layers"]) != config["mapping_layers"]:
        raise ValueError(f"the arguments say {mapping['num_layers']} mapping layers, the tensors {config['mapping_layers']}.")


def _same_layers(network: StyleGAN3, names: list[str], config: Mapping[str, Any], stated: Arguments) -> None:
    """Refuse layer names (size, channels) that do not follow from the arguments."""
    expected = network.names[1:]
    if "channel_base" in stated or "channel_max" in stated:
        base = _number(stated, "channel_base", 1, 1e9) if "channel_base" in stated else 32768
        most = _number(stated, "channel_max", 1, 1e6) if "channel_max" in stated else 512
        counts = [*widths(network.grids[:-1], base, most), config["channels"][-1]]
        expected = [f"{name.rpartition('_')[0]}_{count}" for name, count in zip(expected, counts, strict=True)]
    wrong = [(got, due) for got, due in zip(names, expected, strict=True) if got != due]
    if wrong:
        got, due = wrong[0]
        raise ValueError(f"layer {got} would be {due} by the {_source(stated)}: {ADVICE}.")


def _same_filters(network: StyleGAN3, names: list[str], ours: dict[str, Tensor]) -> None:
    """Refuse filters that do not follow from the arguments; a filter of one tap is not in the file."""
    for i, (name, layer) in enumerate(zip(names, network.layers, strict=False)):
        for way in ("up", "down"):
            due, key = getattr(layer.nonlinearity, way), f"layers.{i}.nonlinearity.{way}"
            got = ours.setdefault(key, due) if due.numel() == 1 else need(ours, key, layout=NAME)
            if got.shape != due.shape:
                raise ValueError(f"the {way}_filter of {name} has {tuple(got.shape)} taps, {tuple(due.shape)} were due: {ADVICE}.")
            rounding = max(1e-3, 2 * torch.finfo(got.dtype).eps) if got.is_floating_point() else 0
            if not torch.allclose(got.float().cpu(), due, rtol=0, atol=rounding * float(due.abs().max())):
                raise ValueError(f"the {way}_filter of {name} is not the one of its cutoff {network.grids[i].cutoff:g}: {ADVICE}.")


ADVICE = f"pass the constructor arguments of this very file (num_critical, margin_size, first_cutoff, ...), {HOW}"


def _source(stated: Arguments) -> str:
    return "arguments" if stated else "published defaults"


def _unscaled(ours: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Weights as they act: the file holds them divided by their learning rate, and times the root of their inputs."""
    scaled = {}
    for key, tensor in ours.items():
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if re.fullmatch(r"mapping\.layers\.\d+\.(weight|bias)", key):
            tensor = tensor * rate
        if key == "image.weight" and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]
        if key in ("image.weight", "input.weight") or key.endswith(("affine.weight", "embed.weight")) or key.startswith("mapping.layers"):
            tensor = tensor / math.sqrt(tensor.shape[1]) if tensor.ndim == 2 and tensor.shape[1] else tensor
        scaled[key] = tensor
    return scaled


def _nested(arguments: Arguments, key: str) -> Arguments:
    found = arguments.get(key) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"the argument {key} is a dict, got {found}.")
    return found


def _number(stated: Arguments, key: str, low: float, high: float) -> Any:
    value = stated[key]
    if key == "conv_clamp" and value is None:
        return None
    whole = isinstance(low, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        raise ValueError(f"the argument {key} is {'an integer' if whole else 'a number'} from {low:g} to {high:g}, got {value!r}.")
    return value


def _shaped(ours: Tensors, key: str, ndim: int) -> Tensor:
    tensor = need(ours, key, layout=NAME)
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise ValueError(f"{key} has {ndim} dimensions, got {tuple(tensor.shape)}.")
    return tensor


LAYOUTS = (
    Layout(
        NAME,
        "stylegan3",
        (
            r"mapping\.fc0\.weight",
            r"synthesis\.input\.freqs",
            r"synthesis\.input\.phases",
            r"synthesis\.input\.transform",
            rf"{LAYER}\.magnitude_ema",
            rf"{LAYER}\.affine\.weight",
        ),
        read,
    ),
)
