"""The variables of TensorFlow-era pickles: ProGAN, StyleGAN and StyleGAN 2 as they were first published.

A network there is a list of named arrays, ``8x8/Conv0_up/weight``, with those of its parts behind ``G_mapping/`` and
``G_synthesis/``. Kernels are (height, width, in, out), matrices (in, out). Each layout puts the arrays in PyTorch's order
and hands them on to the layout of the port that stores the same numbers: genforce's for StyleGAN, NVIDIA's for StyleGAN 2.
How such a pickle is read without running what it carries is the business of ``checkpoints``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from steerable.generators import progan_layouts, stylegan1_layouts, stylegan2_layouts
from steerable.generators.layouts import Arguments, Layout, Tensors, listed, need

NAME = "TensorFlow"
NVIDIA = next(layout for layout in stylegan2_layouts.LAYOUTS if layout.name == "NVIDIA")
BLOCK = r"(\d{1,5})x\1"


def read_progan(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """ProGAN: the first layer is a matrix, an up-sampling kernel (``Conv0_up``) that of a transposed convolution, (3, 3, out, in)."""
    progan_layouts.refuse(
        arguments,
        {"use_wscale": True, "use_pixelnorm": True, "use_leakyrelu": True, "normalize_latents": True, "pixelnorm_epsilon": 1e-8},
    )
    state = dict(state)
    lod = progan_layouts.number(state, "lod", 0.0)
    top = progan_layouts.counted(state, r"ToRGB_lod(\d{1,2})/weight") - 1
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        if match := re.fullmatch(r"4x4/Dense/(weight|bias)", key):
            ours[f"first.{match[1]}"] = _spread(state) if match[1] == "weight" else tensor
        elif match := re.fullmatch(rf"{BLOCK}/(Conv|Conv0|Conv0_up|Conv1)/(weight|bias)", key):
            i = 2 * _doublings(match[1]) - ("0" in match[2])
            ours[f"layers.{i}.{match[3]}"] = tensor if match[3] == "bias" else _up_kernel(tensor, state, match)
        elif match := re.fullmatch(r"ToRGB_lod(\d{1,2})/(weight|bias)", key):
            ours[f"outputs.{top - int(match[1])}.{match[2]}"] = _kernel(tensor, key) if match[2] == "weight" else tensor
        else:
            unknown.append(key)
    _known(unknown)
    return progan_layouts.read(ours, arguments, lod=lod, layout=NAME, normalised=False, flipped=False, transposed=False)


def read_stylegan1(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """StyleGAN: genforce's port has the same numbers layer by layer."""
    progan_layouts.refuse(
        arguments,
        {
            "use_wscale": True,
            "use_styles": True,
            "use_noise": True,
            "use_instance_norm": True,
            "use_pixel_norm": False,
            "normalize_latents": True,
            "const_input_layer": True,
            "nonlinearity": "lrelu",
            "mapping_nonlinearity": "lrelu",
            "blur_filter": [1, 2, 1],
        },
    )
    top = progan_layouts.counted(state, r"(?:G_)?synthesis/ToRGB_lod(\d{1,2})/weight") - 1

    def layer(match: re.Match[str]) -> str:
        return f"synthesis.layer{2 * _doublings(match[1]) + (match[2] in ('Conv', 'Conv1'))}"

    def output(match: re.Match[str]) -> str:
        return f"synthesis.output{top - int(match[1])}.{match[2]}"

    rows: Rows = (
        (r"dlatent_avg", "truncation.w_avg", _same),
        (r"lod", "synthesis.lod", _same),
        (r"(?:G_)?mapping/Dense(\d+)/weight", r"mapping.dense\1.weight", _matrix),
        (r"(?:G_)?mapping/Dense(\d+)/bias", r"mapping.dense\1.bias", _same),
        (r"(?:G_)?mapping/LabelConcat/weight", "mapping.label_weight", _same),
        (r"(?:G_)?synthesis/4x4/Const/const", "synthesis.layer0.const", _same),
        (r"(?:G_)?synthesis/noise(\d+)", r"synthesis.layer\1.apply_noise.noise", _same),
        (rf"(?:G_)?synthesis/{BLOCK}/(Const|Conv|Conv0_up|Conv1)/Noise/weight", lambda m: f"{layer(m)}.apply_noise.weight", _same),
        (rf"(?:G_)?synthesis/{BLOCK}/(Const|Conv|Conv0_up|Conv1)/StyleMod/weight", lambda m: f"{layer(m)}.style.weight", _matrix),
        (rf"(?:G_)?synthesis/{BLOCK}/(Const|Conv|Conv0_up|Conv1)/StyleMod/bias", lambda m: f"{layer(m)}.style.bias", _same),
        (rf"(?:G_)?synthesis/{BLOCK}/(Const|Conv|Conv0_up|Conv1)/bias", lambda m: f"{layer(m)}.bias", _same),
        (rf"(?:G_)?synthesis/{BLOCK}/(Conv|Conv0_up|Conv1)/weight", lambda m: f"{layer(m)}.weight", _kernel),
        (r"(?:G_)?synthesis/ToRGB_lod(\d{1,2})/(weight)", output, _kernel),
        (r"(?:G_)?synthesis/ToRGB_lod(\d{1,2})/(bias)", output, _same),
    )
    part = {key: tensor for key, tensor in state.items() if re.fullmatch(r"(?:G_)?synthesis/lod", key)}
    state = {key: tensor for key, tensor in state.items() if key not in part}
    if "lod" not in state and part:  # the whole network's sets the part's
        state["lod"] = next(iter(part.values()))
    return stylegan1_layouts.read_genforce(_in_order(state, rows), arguments)


def read_stylegan2(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """StyleGAN 2: NVIDIA's port; up-sampling kernels are turned by 180 degrees, style biases lack their 1.

    Labels are embedded by a table (LabelConcat) and normalised together with z in the first code, by a layer (LabelEmbed) and on their own
    in that of ADA, as in the port.
    """
    progan_layouts.refuse(arguments, {"normalize_latents": True, "resample_kernel": [1, 3, 3, 1]})

    def noise(match: re.Match[str]) -> str:
        i = int(match[1])  # 0 in the first block, then two a block
        return f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.conv{(i + 1) % 2}.noise_const"

    rows: Rows = (
        (r"dlatent_avg", "mapping.w_avg", _same),
        (r"(?:G_)?mapping/Dense(\d+)/weight", r"mapping.fc\1.weight", _matrix),
        (r"(?:G_)?mapping/Dense(\d+)/bias", r"mapping.fc\1.bias", _same),
        (r"(?:G_)?mapping/LabelConcat/weight", "mapping.label_weight", _same),
        (r"(?:G_)?mapping/LabelEmbed/weight", "mapping.embed.weight", _matrix),
        (r"(?:G_)?mapping/LabelEmbed/bias", "mapping.embed.bias", _same),
        (r"(?:G_)?synthesis/4x4/Const/const", "synthesis.b4.const", _first),
        (r"(?:G_)?synthesis/noise(\d{1,2})", noise, _map),
        *_modulated(r"4x4/Conv", "synthesis.b4.conv1", _kernel),
        *_modulated(rf"{BLOCK}/Conv0_up", r"synthesis.b\1.conv0", _turned),
        *_modulated(rf"{BLOCK}/Conv1", r"synthesis.b\1.conv1", _kernel),
        *_modulated(rf"{BLOCK}/ToRGB", r"synthesis.b\1.torgb", _kernel),
        (rf"(?:G_)?synthesis/{BLOCK}/Skip/weight", r"synthesis.b\1.skip.weight", _kernel),
    )
    lods = [key for key in state if re.fullmatch(r"((?:G_)?synthesis/)?lod", key)]  # left from its forerunner, unused
    theirs = _in_order({key: tensor for key, tensor in state.items() if key not in lods}, rows)
    words = {"resolution": "img_resolution", "num_channels": "img_channels", "label_size": "c_dim", "latent_size": "z_dim"}
    words |= {"dlatent_size": "w_dim"}
    stated: dict[str, Any] = {ours: arguments[word] for word, ours in words.items() if isinstance(arguments.get(word), int)}
    parts = (
        ("mapping_kwargs", {"mapping_layers": "num_layers", "mapping_lrmul": "lr_multiplier", "mapping_nonlinearity": "activation"}),
        ("synthesis_kwargs", {"architecture": "architecture", "nonlinearity": "activation", "conv_clamp": "conv_clamp"}),
    )
    for part, names in parts:
        stated[part] = {ours: arguments[word] for word, ours in names.items() if isinstance(arguments.get(word), int | float | str)}
    return NVIDIA.read(theirs, stated)


# ------------------------------------------------------------------ arrays in PyTorch's order

Turn = Callable[[Tensor, str], Tensor]
Rows = tuple[tuple[str, str | Callable[[re.Match[str]], str], Turn], ...]


def _in_order(state: Tensors, rows: Rows) -> dict[str, Tensor]:
    """The arrays under another port's names, each turned as its row says."""
    theirs: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        for pattern, name, turn in rows:
            if match := re.fullmatch(pattern, key):
                theirs[match.expand(name) if isinstance(name, str) else name(match)] = turn(tensor, key)
                break
        else:
            unknown.append(key)
    _known(unknown)
    return theirs


def _known(unknown: list[str]) -> None:
    if unknown:
        raise ValueError(f"variables left over that the {NAME} layout does not know: {listed(unknown)}.")


def _modulated(theirs: str, ours: str, turn: Turn) -> Rows:
    """The rows of one modulated convolution of StyleGAN 2."""
    theirs = rf"(?:G_)?synthesis/{theirs}"
    return (
        (rf"{theirs}/weight", f"{ours}.weight", turn),
        (rf"{theirs}/bias", f"{ours}.bias", _same),
        (rf"{theirs}/mod_weight", f"{ours}.affine.weight", _matrix),
        (rf"{theirs}/mod_bias", f"{ours}.affine.bias", lambda tensor, key: tensor + 1),
        (rf"{theirs}/noise_strength", f"{ours}.noise_strength", _same),
    )


def _same(tensor: Tensor, key: str) -> Tensor:
    return tensor


def _matrix(tensor: Tensor, key: str) -> Tensor:
    """(in, out) -> (out, in)."""
    return _sized(tensor, 2, key).t()


def _kernel(tensor: Tensor, key: str) -> Tensor:
    """(height, width, in, out) -> (out, in, height, width)."""
    return _sized(tensor, 4, key).permute(3, 2, 0, 1)


def _turned(tensor: Tensor, key: str) -> Tensor:
    return _kernel(tensor, key).flip(2, 3)


def _first(tensor: Tensor, key: str) -> Tensor:
    return _sized(tensor, 4, key)[0]


def _map(tensor: Tensor, key: str) -> Tensor:
    return _sized(tensor, 4, key)[0, 0]


def _sized(tensor: Tensor, ndim: int, key: str) -> Tensor:
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise ValueError(f"{key} is {tuple(tensor.shape)}, expected {ndim} dimensions and none of them empty.")
    return tensor


def _doublings(side: str) -> int:
    """Of the block ``8x8``: 1."""
    doublings = int(side).bit_length() - 3
    if doublings < 0 or int(side) != 4 << doublings:
        raise ValueError(f"it has variables of {side}x{side}; blocks are 4, 8, 16, ... wide.")
    return doublings


def _spread(state: Tensors) -> Tensor:
    """The first layer's matrix (z, c * 4 * 4) as the kernel (c, z, 4, 4) that a single pixel is spread with."""
    weight, bias = (progan_layouts.sizes(state, f"4x4/Dense/{part}", n, layout=NAME) for part, n in (("weight", 2), ("bias", 1)))
    if weight[1] != 16 * bias[0]:
        raise ValueError(f"4x4/Dense/weight is {weight}, its bias has {bias[0]} channels: {16 * bias[0]} columns were expected.")
    return state["4x4/Dense/weight"].reshape(weight[0], bias[0], 4, 4).transpose(0, 1)


def _up_kernel(tensor: Tensor, state: Tensors, match: re.Match[str]) -> Tensor:
    """A kernel of ProGAN as (out, in, 3, 3) of a plain convolution; the number of biases tells which side is out."""
    kernel = _kernel(tensor, match[0])
    if match[2] != "Conv0_up":
        return kernel
    out = need(state, f"{match[1]}x{match[1]}/Conv0_up/bias", layout=NAME).numel()
    stored_as_in_out = kernel.shape[0] == out != kernel.shape[1]
    return progan_layouts.unfused(kernel if stored_as_in_out else kernel.transpose(0, 1))


LAYOUTS = (
    Layout(NAME, "progan", (r"4x4/Dense/weight", r"4x4/Conv/weight", r"ToRGB_lod0/weight"), read_progan),
    Layout(
        NAME,
        "stylegan1",
        (r"(G_)?mapping/Dense0/weight", r"(G_)?synthesis/4x4/Const/const", r"(G_)?synthesis/4x4/Const/StyleMod/weight"),
        read_stylegan1,
    ),
    Layout(
        NAME,
        "stylegan2",
        (r"(G_)?mapping/Dense0/weight", r"(G_)?synthesis/4x4/Const/const", r"(G_)?synthesis/4x4/Conv/mod_weight"),
        read_stylegan2,
    ),
)
