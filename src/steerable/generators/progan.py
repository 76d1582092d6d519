"""The ProGAN family: an image that was grown by doubling its resolution, one block a resolution.

Each convolution is preceded by pixel norm and scaled at run time ("equalised learning rate"); each block has a layer
to RGB of its own, of which one shows (two while the network grows, see ``grow``). ``stylegan1`` grows the same way and
takes its layers from here; checkpoints in TensorFlow's names are read by ``tensorflow_layouts``.

Source: Karras, Aila, Laine & Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation",
ICLR 2018: growth section 2, weight scale 4.1, pixel norm 4.2, layers table 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.generators.layouts import Arguments, Layout, Table, Tensors, listed, need, renamed
from steerable.generators.stages import Options, Stage, class_weights

EPSILON = 1e-8  # under every root
LARGEST = 8192  # pixels a side; more is a damaged file


# ------------------------------------------------------------------ layers


def pixel_norm(x: Tensor) -> Tensor:
    """Every pixel's channels at root mean square 1 (section 4.2)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def doubling(kernel: Tensor) -> Tensor:
    """``(out, in, 3, 3)`` -> ``(in, out, 4, 4)``: nearest up-sampling and the convolution as one transposed convolution.

    Each of the two columns that a pixel is copied to sees the kernel shifted by one, so the transposed kernel is the sum
    of four shifted copies; stride 2, padding 1. It multiplies 4 taps a pixel where the two steps multiply 9.
    """
    padded = F.pad(kernel.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


class Convolution(nn.Module):
    """A convolution at equalised learning rate: its kernel is multiplied by gain / sqrt(fan-in) (section 4.1).

    Args:
        wide, narrow: channels in and out.
        size: of the kernel; the padding keeps the size of the map.
        gain: sqrt 2 before a leaky ReLU, 1 before nothing.
        doubles: up-sample by 2 (nearest) first.
    """

    kernel: Tensor | None

    def __init__(self, wide: int, narrow: int, size: int, *, gain: float = math.sqrt(2), doubles: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(narrow, wide, size, size))
        self.bias = nn.Parameter(torch.zeros(narrow))
        self.scale, self.doubles, self.padding = gain / math.sqrt(wide * size * size), doubles, size // 2
        self.register_buffer("kernel", None, persistent=False)

    def fold(self) -> Tensor:
        kernel = self.weight * self.scale
        return doubling(kernel) if self.doubles else kernel

    def prepare(self) -> None:
        self.kernel = self.fold().contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        kernel = self.fold() if self.kernel is None else self.kernel
        if self.doubles:
            return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
        return F.conv2d(x, kernel, bias, padding=self.padding)


def to_rgb(widths: Sequence[int], image_channels: int, outputs: Sequence[int] | None) -> nn.ModuleDict:
    """The layers to RGB that a file has, by the number of their resolution."""
    kept = range(len(widths)) if outputs is None else outputs
    return nn.ModuleDict({str(k): Convolution(widths[k], image_channels, 1, gain=1.0) for k in kept})


# ------------------------------------------------------------------ growth


def grow(x: Tensor, lod: float, block: Callable[[int, Tensor], Tensor], outputs: nn.ModuleDict, count: int) -> Tensor:
    """Blocks 0 to the one that ``lod`` ends at, its RGB image, and the way back to full size (section 2, figure 2).

    Args:
        lod: level of detail: how many of the last doublings are left out. A fraction blends two resolutions: lod 1.25
            shows three quarters of level 1 and one of level 2.
        block: ``(k, x)`` -> the next x; ``count`` of them.
        outputs: the layers to RGB, before which ``block`` has done all there is to do.
    """
    whole = math.floor(lod)
    last = count - 1 - whole
    before = x
    for k in range(last + 1):
        before, x = x, block(k, x)
    image = _rgb(outputs, last, x)
    if lod > whole:
        image = torch.lerp(image, F.interpolate(_rgb(outputs, last - 1, before), scale_factor=2.0), lod - whole)
    return F.interpolate(image, scale_factor=2.0**whole) if whole else image


def _rgb(outputs: nn.ModuleDict, k: int, x: Tensor) -> Tensor:
    layer = outputs[str(k)]
    return layer(x, layer.bias)


def level_of_detail(lod: float | None, stored: float, count: int, outputs: nn.ModuleDict) -> float:
    """The lod asked for, or the file's own where it is None.

    Raises:
        ValueError: it is no number of 0 to the number of doublings, or the layers to RGB that it shows are not in the file.
    """
    lod = stored if lod is None else lod
    if isinstance(lod, bool) or not isinstance(lod, int | float) or not 0 <= lod <= count - 1:
        raise ValueError(f"lod is how many of {count - 1} doublings are left out, 0 to {count - 1} (None: as the file says); got {lod}.")
    shown = {count - 1 - math.floor(lod), count - 1 - math.ceil(lod)}
    lacking = [k for k in sorted(shown) if str(k) not in outputs]
    if lacking:
        kept = ", ".join(str(count - 1 - int(k)) for k in reversed(list(outputs.keys())))
        raise ValueError(f"lod {lod:g} shows a layer to RGB that this file does not have; it has those of lod {kept}.")
    return float(lod)


# ------------------------------------------------------------------ the network


class ProGAN(nn.Module):
    """z -> image, without tanh unless the file says so.

    Args:
        latent_size: of z.
        widths: channels of the blocks, from the smallest resolution up.
        image_channels: 3 or 1.
        first: side of the first map.
        outputs: numbers of the blocks whose layer to RGB the file has; None for all.
        classes: one-hot labels are appended to z.
        normalised: whether z is normalised before labels are appended; it always is after.
        tanh: whether the image ends in one.
        lod: how many of the last doublings the file was trained without; see ``grow``.
    """

    family = "progan"
    options: Options = {"lod": None}  # noqa: RUF012 - never written
    matrix: Tensor | None

    def __init__(
        self,
        latent_size: int,
        widths: Sequence[int],
        *,
        image_channels: int = 3,
        first: int = 4,
        outputs: Sequence[int] | None = None,
        classes: int | None = None,
        normalised: bool = True,
        tanh: bool = False,
        lod: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = {
            "latent_size": latent_size,
            "widths": list(widths),
            "image_channels": image_channels,
            "first": first,
            "outputs": None if outputs is None else list(outputs),
            "classes": classes,
            "normalised": normalised,
            "tanh": tanh,
            "lod": lod,
        }
        side = side_of(first, len(widths))
        self.latent_size, self.widths, self.classes, self.tanh, self.lod = latent_size, tuple(widths), classes, tanh, lod
        self.normalised = normalised or not classes
        self.image_shape = (image_channels, side, side)
        self.first = Convolution(latent_size + (classes or 0), widths[0], first)
        layers = []
        for k, width in enumerate(widths):
            if k:
                layers.append(Convolution(widths[k - 1], width, 3, doubles=True))
            layers.append(Convolution(width, width, 3))
        self.layers = nn.ModuleList(layers)
        self.outputs = to_rgb(widths, image_channels, outputs)
        level_of_detail(lod, lod, len(widths), self.outputs)

    @property
    def stages(self) -> tuple[Stage, ...]:
        zero = torch.zeros(self.latent_size)
        return (
            Stage(
                "z",
                (self.latent_size,),
                self,
                takes=("lod",),
                labelled=self.classes is not None,
                centre=None if self.normalised else lambda: zero,
                spheres=(("z", 0, self.latent_size),) if self.normalised else (),
            ),
        )

    def prepare(self) -> None:
        """Kernels are scaled, and merged with the up-sampling before them."""
        for layer in (self.first, *self.layers, *self.outputs.values()):
            layer.prepare()

    def forward(self, z: Tensor, labels: Tensor | None = None, *, lod: float | None = None) -> Tensor:
        lod = level_of_detail(lod, self.lod, len(self.widths), self.outputs)
        if self.classes is not None:
            z = torch.cat([pixel_norm(z) if self.normalised else z, class_weights(labels, self.classes, z)], dim=1)
        z = pixel_norm(z)
        kernel = self.first.fold() if self.first.kernel is None else self.first.kernel  # (c, z, k, k), one pixel in
        x = torch.einsum("nz,czhw->nchw", z, kernel) + self.first.bias[:, None, None]
        image = grow(_active(x), lod, self._block, self.outputs, len(self.widths))
        return torch.tanh(image) if self.tanh else image

    def _block(self, k: int, x: Tensor) -> Tensor:
        for layer in self.layers[max(0, 2 * k - 1) : 2 * k + 1]:
            x = _active(layer(x, layer.bias))
        return x


def _active(x: Tensor) -> Tensor:
    """Leaky ReLU, and the norm that stands before every layer that follows."""
    return pixel_norm(F.leaky_relu(x, 0.2))


# ------------------------------------------------------------------ layouts


def side_of(first: int, count: int) -> int:
    """Pixels a side after ``count`` blocks, the first of them ``first`` wide.

    Raises:
        ValueError: more than any generator makes.
    """
    if count < 1 or count > 14 or first * 2 ** (count - 1) > LARGEST:
        raise ValueError(f"it has {count} resolutions from {first} pixels up; 1 and more were expected, {LARGEST} pixels at most.")
    return first * 2 ** (count - 1)


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
