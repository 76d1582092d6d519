"""How ProGAN checkpoints name their tensors: genforce and InterFaceGAN; and what all readers of grown networks share.

Both ports store weights before their run-time scale, and up-sampling kernels either plain or, with ``fused_scale``, those of
transposed convolutions. TensorFlow's original names are read by ``tensorflow_layouts``, StyleGAN's by ``stylegan1_layouts``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from steerable.generators.layouts import Arguments, Layout, Table, Tensors, listed, need, renamed
from steerable.generators.progan import side_of


def sizes(tensors: Tensors, key: str, ndim: int, *, layout: str) -> tuple[int, ...]:
    """The shape of a tensor that has to be there and to have ``ndim`` dimensions, none of them empty."""
    shape = tuple(need(tensors, key, layout=layout).shape)
    if len(shape) != ndim or min(shape, default=1) < 1:
        raise ValueError(f"{key} is {shape}, expected {ndim} dimensions and none of them empty.")
    return shape


def counted(tensors: Tensors, pattern: str) -> int:
    """One more than the largest number that ``pattern``'s group has among the keys; 0 where nothing matches."""
    return 1 + max((int(match[1][:9]) for key in tensors if (match := re.fullmatch(pattern, key))), default=-1)


def number(tensors: dict[str, Tensor], key: str, missing: float) -> float:
    """Takes a scalar out of a state dict."""
    tensor = tensors.pop(key, None)
    if tensor is None:
        return missing
    if tensor.numel() != 1:
        raise ValueError(f"{key} is one number, got {tuple(tensor.shape)}.")
    return float(tensor)


def refuse(arguments: Arguments, expected: Mapping[str, Any]) -> None:
    """Errors for constructor arguments that make another network than the one here."""
    stated = {key: arguments.get(key, value) for key, value in expected.items()}
    stated = {key: list(value) if isinstance(value, tuple) else value for key, value in stated.items()}
    other = [f"{key}={value!r}" for key, value in stated.items() if value != expected[key]]
    if other:
        raise ValueError(f"it was built with {listed(other)}, which is not supported here.")


def agree(config: Mapping[str, Any], arguments: Arguments) -> None:
    """Errors for constructor arguments, in genforce's or TensorFlow's words, that the tensors contradict."""
    read = {
        "resolution": config["first"] * 2 ** (len(config["widths"]) - 1),
        "num_channels": config["image_channels"],
        "image_channels": config["image_channels"],
        "latent_size": config["latent_size"],
        "z_space_dim": config["latent_size"],
        "label_size": config["classes"] or 0,
        "dlatent_size": config.get("mapping", [None])[-1],
        "w_space_dim": config.get("mapping", [None])[-1],
        "mapping_layers": len(config.get("mapping", ())) - 1,
    }
    for name, value in read.items():
        stated = arguments.get(name)
        if isinstance(stated, int) and value is not None and stated != value:
            raise ValueError(f"the arguments say {name}={stated}, the tensors {value}: they belong to two different networks.")


def read_genforce(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """genforce: ``layer0`` is a 4 x 4 convolution of one pixel (so its kernel is flipped), ``lod`` a buffer."""
    refuse(arguments, {"use_wscale": True})
    state = dict(state)
    lod = number(state, "lod", 0.0)
    table: Table = (
        (r"layer0\.(weight|bias)", r"first.\1"),
        *((rf"layer{i + 1}\.(weight|bias)", rf"layers.{i}.\1") for i in range(counted(state, r"layer(\d{1,2})\.weight"))),
        (r"output(\d+)\.(weight|bias)", r"outputs.\1.\2"),
    )
    ours = renamed(state, table, layout="genforce")
    return read(ours, arguments, lod=lod, layout="genforce", normalised=True)


def read_interfacegan(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """InterFaceGAN: layers from 1, the bias beside the weight scale, and the last layer to RGB only."""
    count = counted(state, r"layer(\d{1,2})\.conv\.weight") - 1
    last = max(0, (count - 2) // 2)
    table: Table = (
        (r"layer1\.conv\.weight", "first.weight"),
        (r"layer1\.wscale\.bias", "first.bias"),
        *((rf"layer{i + 2}\.conv\.weight", f"layers.{i}.weight") for i in range(count)),
        *((rf"layer{i + 2}\.wscale\.bias", f"layers.{i}.bias") for i in range(count)),
        (r"output_\d+x\d+\.conv\.weight", f"outputs.{last}.weight"),
        (r"output_\d+x\d+\.wscale\.bias", f"outputs.{last}.bias"),
    )
    return read(renamed(state, table, layout="InterFaceGAN"), arguments, lod=0.0, layout="InterFaceGAN", normalised=True)


def read(
    ours: dict[str, Tensor],
    arguments: Arguments,
    *,
    lod: float,
    layout: str,
    normalised: bool,
    flipped: bool = True,
    transposed: bool | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors from tensors under our names, with what the layouts store otherwise undone.

    Args:
        flipped: whether the first kernel is a convolution's, to be flipped.
        normalised: whether the code base normalises z before it appends labels.
        transposed: whether up-sampling kernels are those of transposed convolutions, (in, out); None if shapes have to tell.
    """
    wide, first = sizes(ours, "first.weight", 4, layout=layout)[1:3]
    count = (counted(ours, r"layers\.(\d{1,2})\.weight") + 1) // 2
    side_of(first, count)
    widths = [sizes(ours, f"layers.{max(0, 2 * k)}.weight", 4, layout=layout)[0] for k in range(count)]
    ups = {k: f"layers.{2 * k - 1}.weight" for k in range(1, count)}
    shapes = {k: sizes(ours, key, 4, layout=layout) for k, key in ups.items()}
    transposed = _transposed(shapes, widths, arguments) if transposed is None else transposed
    for key in ups.values() if transposed else ():
        ours[key] = unfused(ours[key].transpose(0, 1))
    if flipped:
        ours["first.weight"] = ours["first.weight"].flip(2, 3)
    classes = arguments.get("label_size") or 0
    if isinstance(classes, bool) or not isinstance(classes, int) or not 0 <= classes < wide:
        raise ValueError(f"label_size={classes!r} leaves nothing of the {wide} numbers that the first layer takes.")
    outputs = [k for k in range(count) if f"outputs.{k}.weight" in ours]
    if not outputs:
        raise ValueError(f"this {layout} checkpoint has no layer to RGB: the file is incomplete.")
    config = {
        "latent_size": wide - classes,
        "widths": widths,
        "image_channels": sizes(ours, f"outputs.{outputs[-1]}.weight", 4, layout=layout)[0],
        "first": first,
        "outputs": None if len(outputs) == count else outputs,
        "classes": classes or None,
        "normalised": normalised,
        "tanh": bool(arguments.get("final_tanh", False) or arguments.get("tanh_output", False)),
        "lod": lod,
    }
    agree(config, arguments)
    return config, ours


def unfused(kernel: Tensor) -> Tensor:
    """The kernel of a transposed convolution as that of the plain one after nearest up-sampling; both (out, in, 3, 3)."""
    return kernel.flip(2, 3)


def _transposed(shapes: Mapping[int, tuple[int, ...]], widths: Sequence[int], arguments: Arguments) -> bool:
    """Whether the up-sampling kernels are those of transposed convolutions, stored (in, out): told by the shapes.

    Where no resolution changes the number of channels, the shapes do not tell; then it is as the arguments say, or no.
    """
    plain = [k for k, shape in shapes.items() if shape[:2] == (widths[k], widths[k - 1]) and widths[k] != widths[k - 1]]
    turned = [k for k, shape in shapes.items() if shape[:2] == (widths[k - 1], widths[k]) and widths[k] != widths[k - 1]]
    if plain and turned:
        raise ValueError(f"its up-sampling kernels are (out, in) in block {plain[0]} and (in, out) in block {turned[0]}.")
    if plain or turned:
        return bool(turned)
    return arguments.get("fused_scale", False) is True


LAYOUTS = (
    Layout("genforce", "progan", (r"layer0\.weight", r"layer1\.weight", r"output\d+\.weight"), read_genforce),
    Layout(
        "InterFaceGAN", "progan", (r"layer1\.conv\.weight", r"layer1\.wscale\.bias", r"output_\d+x\d+\.conv\.weight"), read_interfacegan
    ),
)
