"""How StyleGAN checkpoints of the first version name their tensors: genforce, InterFaceGAN, and lernapparat.

All three store what the TensorFlow original (``tensorflow_layouts``) stored: weights before their run-time scale, and, from
128 pixels up, kernels of transposed convolutions, which are those of the network turned by 180 degrees.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from steerable.generators.layouts import Arguments, Layout, Table, Tensors, need, renamed
from steerable.generators.progan import side_of
from steerable.generators.progan_layouts import agree, counted, number, refuse, sizes, unfused
from steerable.generators.stylegan1 import BLUR

FUSED_FROM = 128  # pixels a side from which "auto" means a transposed convolution
MAPPING_RATE = 0.01

GENFORCE: Table = (
    (r"mapping\.dense(\d+)\.(weight|bias)", r"mapping.\1.\2"),
    (r"mapping\.label_weight", "embedding"),
    (r"truncation\.w_avg", "mean"),
    (r"synthesis\.layer0\.(const|bias)", r"layers.0.\1"),
    (r"synthesis\.layer(\d+)\.(weight|bias)", r"layers.\1.convolution.\2"),
    (r"synthesis\.layer(\d+)\.apply_noise\.weight", r"layers.\1.noise_weight"),
    (r"synthesis\.layer(\d+)\.apply_noise\.noise", r"layers.\1.noise"),
    (r"synthesis\.layer(\d+)\.style\.(weight|bias)", r"layers.\1.style.\2"),
    (r"synthesis\.layer\d+\.blur\.kernel", None),
    (r"synthesis\.output(\d+)\.(weight|bias)", r"outputs.\1.\2"),
)
INTERFACEGAN: Table = (
    (r"mapping\.dense(\d+)\.linear\.weight", r"mapping.\1.weight"),
    (r"mapping\.dense(\d+)\.wscale\.bias", r"mapping.\1.bias"),
    (r"truncation\.w_avg", "mean"),
    (r"truncation\.truncation", None),  # psi of each layer: here it is an argument
    (r"synthesis\.layer0\.first_layer", "layers.0.const"),
    (r"synthesis\.layer0\.epilogue\.bias", "layers.0.bias"),
    (r"synthesis\.layer(\d+)\.(?:conv\.)?weight", r"layers.\1.convolution.weight"),
    (r"synthesis\.layer(\d+)\.epilogue\.bias", r"layers.\1.convolution.bias"),
    (r"synthesis\.layer(\d+)\.epilogue\.apply_noise\.weight", r"layers.\1.noise_weight"),
    (r"synthesis\.layer(\d+)\.epilogue\.apply_noise\.noise", r"layers.\1.noise"),
    (r"synthesis\.layer(\d+)\.epilogue\.style_mod\.dense\.linear\.weight", r"layers.\1.style.weight"),
    (r"synthesis\.layer(\d+)\.epilogue\.style_mod\.dense\.wscale\.bias", r"layers.\1.style.bias"),
    (r"synthesis\.layer\d+\.blur\.kernel", None),
    (r"synthesis\.output(\d+)\.conv\.weight", r"outputs.\1.weight"),
    (r"synthesis\.output(\d+)\.bias", r"outputs.\1.bias"),
)
LERNAPPARAT: Table = (  # layer numbers are put in place of the resolutions first, see read_lernapparat
    (r"g_mapping\.dense(\d+)\.(weight|bias)", r"mapping.\1.\2"),
    (r"truncation\.avg_latent", "mean"),
    (r"layer0\.(const|bias)", r"layers.0.\1"),
    (r"layer(\d+)\.conv\.(weight|bias)", r"layers.\1.convolution.\2"),
    (r"layer(\d+)\.epi\.top_epi\.noise\.weight", r"layers.\1.noise_weight"),
    (r"layer(\d+)\.epi\.style_mod\.lin\.(weight|bias)", r"layers.\1.style.\2"),
    (r"layer\d+\.conv\.intermediate\.kernel", None),
    (r"g_synthesis\.torgb\.(weight|bias)", r"outputs.last.\1"),
)


def read_genforce(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    refuse(arguments, {"use_wscale": True, "repeat_w": True, "normalize_z": True, "const_input": True})
    check_blur(state)
    state = dict(state)
    lod = number(state, "synthesis.lod", 0.0)
    return read(renamed(state, GENFORCE, layout="genforce"), arguments, lod=lod, layout="genforce")


def read_interfacegan(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """InterFaceGAN: a transposed kernel is a parameter of the layer, (3, 3, in, out), the others of a ``conv`` within it."""
    check_blur(state)
    state = dict(state)
    lod = number(state, "synthesis.lod", 0.0)
    fused = {int(m[1]) for key in state if (m := re.fullmatch(r"synthesis\.layer(\d{1,2})\.weight", key))}
    for i in fused:
        key = f"synthesis.layer{i}.weight"
        sizes(state, key, 4, layout="InterFaceGAN")
        state[key] = state[key].permute(3, 2, 0, 1)
    return read(renamed(state, INTERFACEGAN, layout="InterFaceGAN"), arguments, lod=lod, layout="InterFaceGAN", fused=fused)


def read_lernapparat(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """lernapparat's ``for_g_all.pt``: blocks are named by their resolution, there is no noise and, mostly, no mean w."""
    check_blur(state)

    def numbered(match: re.Match[str]) -> str:
        doublings = max(0, int(match[1]).bit_length() - 3)
        names = {"const": 0, "bias": 0, "epi1": 0, "conv0_up": 0, "conv": 1, "epi2": 1, "conv1": 1}
        part = {"epi1": "epi", "epi2": "epi", "conv0_up": "conv", "conv1": "conv"}.get(match[2], match[2])
        return f"layer{2 * doublings + names[match[2]]}.{part}"

    block = r"g_synthesis\.blocks\.(\d{1,5})x\1\.(const|bias|epi1|epi2|conv|conv0_up|conv1)(?=\.|$)"
    ours = renamed({re.sub(f"^{block}", numbered, key): value for key, value in state.items()}, LERNAPPARAT, layout="lernapparat")
    last = (counted(ours, r"layers\.(\d{1,2})\.style\.weight") - 1) // 2
    ours = {key.replace("outputs.last", f"outputs.{last}"): value for key, value in ours.items()}
    return read(ours, arguments, lod=0.0, layout="lernapparat")


def read(
    ours: dict[str, Tensor], arguments: Arguments, *, lod: float, layout: str, fused: set[int] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors from tensors under our names, with transposed kernels undone.

    Args:
        fused: layers whose kernel is that of a transposed convolution; None to go by ``fused_scale`` and the resolution.
    """
    const = sizes(ours, "layers.0.const", 4, layout=layout)
    count = (counted(ours, r"layers\.(\d{1,2})\..*") + 1) // 2
    side_of(const[-1], count)
    widths = [const[1], *(sizes(ours, f"layers.{2 * k + 1}.convolution.weight", 4, layout=layout)[0] for k in range(1, count))]
    for k in range(1, count):
        key = f"layers.{2 * k}.convolution.weight"
        shape = sizes(ours, key, 4, layout=layout)
        if 2 * k in (fused_layers(const[-1], count, arguments) if fused is None else fused):
            if shape[:2] == (widths[k - 1], widths[k]) != (widths[k], widths[k - 1]):
                ours[key] = ours[key].transpose(0, 1)
            ours[key] = unfused(ours[key])
    depth = counted(ours, r"mapping\.(\d{1,2})\.weight")
    dense = [sizes(ours, f"mapping.{i}.weight", 2, layout=layout) for i in range(max(1, depth))]
    mapping = [dense[0][1], *(shape[0] for shape in dense)]
    classes, embedded = sizes(ours, "embedding", 2, layout=layout) if "embedding" in ours else (None, 0)
    if embedded >= mapping[0]:
        raise ValueError(f"its mapping takes {mapping[0]} numbers, its label table has {embedded}: nothing is left for z.")
    code = sizes(ours, "layers.0.style.weight", 2, layout=layout)[1]
    if code != mapping[-1]:
        raise ValueError(f"its mapping ends in {mapping[-1]} numbers, its styles take {code}: one w for each layer is not supported here.")
    if "mean" in ours:
        ours["mean"] = need(ours, "mean", layout=layout).flatten()
    outputs = [k for k in range(count) if f"outputs.{k}.weight" in ours]
    if not outputs:
        raise ValueError(f"this {layout} checkpoint has no layer to RGB: the file is incomplete.")
    config = {
        "latent_size": mapping[0] - embedded,
        "mapping": mapping,
        "widths": widths,
        "image_channels": sizes(ours, f"outputs.{outputs[-1]}.weight", 4, layout=layout)[0],
        "first": const[-1],
        "outputs": None if len(outputs) == count else outputs,
        "classes": classes,
        "rate": mapping_rate(arguments),
        "tanh": bool(arguments.get("final_tanh", False)),
        "lod": lod,
        "mean_stored": "mean" in ours,
        "noise_stored": any(key.endswith(".noise") for key in ours),
    }
    agree(config, arguments)
    return config, ours


def mapping_rate(arguments: Arguments) -> float:
    rate = arguments.get("mapping_lrmul", arguments.get("mapping_lr_mul", MAPPING_RATE))
    if not isinstance(rate, int | float) or not 0 < rate < 1e6:
        raise ValueError(f"the learning rate of the mapping is a positive number, got {rate!r}.")
    return float(rate)


def fused_layers(first: int, count: int, arguments: Arguments) -> set[int]:
    """The up-sampling layers that are transposed convolutions: all, none, or ("auto") those from 128 pixels up."""
    fused = arguments.get("fused_scale", "auto")
    if fused not in (True, False, "auto"):
        raise ValueError(f'fused_scale is True, False or "auto", got {fused!r}.')
    return {2 * k for k in range(1, count) if fused is True or (fused == "auto" and first * 2**k >= FUSED_FROM)}


def check_blur(state: Tensors) -> None:
    """The blur after up-sampling is fixed in the network; a file that stores it has to store the same."""
    for key, kernel in state.items():
        if key.endswith((".blur.kernel", ".intermediate.kernel")) and (
            kernel.shape[-2:] != (3, 3) or not torch.allclose(kernel.float(), torch.tensor(BLUR), atol=1e-4)
        ):
            raise ValueError(f"{key} is no blur by [1, 2, 1]: this is another network.")


LAYOUTS = (
    Layout(
        "genforce",
        "stylegan1",
        (r"mapping\.dense0\.weight", r"synthesis\.layer0\.const", r"synthesis\.layer0\.apply_noise\.weight", r"synthesis\.layer1\.weight"),
        read_genforce,
    ),
    Layout(
        "InterFaceGAN",
        "stylegan1",
        (r"mapping\.dense0\.linear\.weight", r"synthesis\.layer0\.first_layer", r"synthesis\.layer0\.epilogue\.apply_noise\.weight"),
        read_interfacegan,
    ),
    Layout(
        "lernapparat",
        "stylegan1",
        (r"g_mapping\.dense0\.weight", r"g_synthesis\.blocks\.4x4\.const", r"g_synthesis\.blocks\.4x4\.epi1\.style_mod\.lin\.weight"),
        read_lernapparat,
    ),
)
