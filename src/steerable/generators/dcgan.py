"""The DCGAN family: a chain of transposed convolutions, its sizes read from the weights.

Depth, widths, channels, latent size, the size of the first map and the number of classes are inferred; nothing is
assumed. Checkpoints in the layout of the PyTorch tutorial and its many relatives load as they are.

In eval mode a batch norm is a scale and an offset, so ``prepare`` folds it into the convolution before it. Maps lie
channels last. The first layer is one matrix product; so is the doubling of a map of 4 x 4 pixels or less, too small for a
transposed convolution to be fast on, whose 16 taps are then added up where they overlap. The last layer, whose few output
channels a transposed convolution wastes most of its time on, is an ordinary 2 x 2 convolution that makes the four pixels
of a doubling at once.

Source: Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative
adversarial networks", ICLR 2016.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.generators.layouts import Arguments, Layout, Tensors
from steerable.generators.module import ModuleGenerator, generator_of
from steerable.generators.stages import Options, Stage, class_weights
from steerable.linear import Linear

SMALL = 4  # the side of a map up to which its doubling is a matrix product


class DCGAN(nn.Module):
    """z -> image: one 1 x 1 -> k x k layer, then doublings, batch norm and ReLU between them, tanh at the end.

    Args:
        widths: channels from the input to the image, e.g. (100, 512, 256, 128, 64, 3). With classes, the first one
            counts latent and label embedding together.
        first: side of the first map.
        normed: whether a batch norm follows each layer but the last.
        biased: whether each layer has a bias.
        classes, embedding: a label is looked up in a (classes, embedding) table and appended to the latent.
    """

    family = "dcgan"
    options: Options = {}  # noqa: RUF012 - never written

    def __init__(
        self,
        widths: Sequence[int],
        *,
        first: int = 4,
        normed: Sequence[bool] | None = None,
        biased: Sequence[bool] | None = None,
        classes: int | None = None,
        embedding: int = 0,
    ) -> None:
        super().__init__()
        self.config = {
            "widths": list(widths),
            "first": first,
            "normed": None if normed is None else list(normed),
            "biased": None if biased is None else list(biased),
            "classes": classes,
            "embedding": embedding,
        }
        last = len(widths) - 2
        layers: list[nn.Module] = []
        for i, (wide, narrow) in enumerate(pairwise(widths)):
            size, stride, padding = (first, 1, 0) if i == 0 else (4, 2, 1)
            layers.append(nn.ConvTranspose2d(wide, narrow, size, stride, padding, bias=biased[i] if biased else False))
            if i < last:
                layers.append(nn.BatchNorm2d(narrow) if normed is None or normed[i] else nn.Identity())
                layers.append(nn.ReLU())
        self.main = nn.Sequential(*layers, nn.Tanh())
        self.embedding = nn.Embedding(classes, embedding) if classes else None
        self.depth = len(widths) - 1
        self.folded = False
        self.latent_size = widths[0] - (embedding if classes else 0)
        self.classes = classes
        side = first * 2**last
        self.image_shape = (widths[-1], side, side)

    @property
    def stages(self) -> tuple[Stage, ...]:
        zero = torch.zeros(self.latent_size)
        return (Stage("z", (self.latent_size,), self, labelled=self.classes is not None, centre=lambda: zero, linearised=self.linearised),)

    def prepare(self) -> None:
        """Fold the norms and rearrange the first and the last kernel. The state dict stays as it is."""
        layers = list(self.main)
        places = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ConvTranspose2d)]
        if len(places) < 2:
            return
        for i, place in enumerate(places):
            kernel, bias = _with_norm(cast(nn.ConvTranspose2d, layers[place]), layers[place + 1])
            if i == 0:  # z @ kernel, a map with its channels last
                kernel, bias = kernel.movedim(1, 3).flatten(1), bias.repeat(kernel.shape[2] * kernel.shape[3])
            elif i == self.depth - 1:
                kernel, bias = _phases(kernel), bias.repeat(4)
            if i > 0:
                kernel = kernel.contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"kernel{i}", kernel.contiguous() if i == 0 else kernel, persistent=False)
            self.register_buffer(f"bias{i}", bias, persistent=False)
            if 0 < i < self.depth - 1 and self.config["first"] * 2 ** (i - 1) <= SMALL:
                self.register_buffer(f"taps{i}", kernel.permute(0, 2, 3, 1).flatten(1).contiguous(), persistent=False)
        self.folded = True

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, class_weights(labels, len(self.embedding.weight), z) @ self.embedding.weight], dim=1)
        if not self.folded or self.training:
            return self.main(z[:, :, None, None])
        x = self._begun(z)
        for i in range(1, self.depth - 1):
            x = self._layer(i, x, self.get_buffer(f"bias{i}")).relu_()
        return self._ended(x)

    def _begun(self, z: Tensor) -> Tensor:
        """The first map."""
        first = self.config["first"]
        return torch.addmm(self.get_buffer("bias0"), z, self.get_buffer("kernel0")).relu().unflatten(1, (first, first, -1)).movedim(3, 1)

    def _layer(self, i: int, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """A doubling between the first and the last layer, its norm folded."""
        taps = self._buffers.get(f"taps{i}")
        if taps is None:
            return F.conv_transpose2d(x, self.get_buffer(f"kernel{i}"), bias, stride=2, padding=1)
        made = (x.movedim(1, 3) @ taps).unflatten(3, (4, 4, -1)).movedim(3, 2)  # (n, h, 4, w, 4, c)
        made = _overlapped(_overlapped(made, 1), 3).flatten(3, 4).flatten(1, 2).movedim(3, 1)
        return made if bias is None else _with(made, bias[:, None, None])

    def _ended(self, x: Tensor) -> Tensor:
        """The image of the last map."""
        last = self.depth - 1
        return torch.tanh(_doubled(F.conv2d(x, self.get_buffer(f"kernel{last}"), self.get_buffer(f"bias{last}"), padding=1)))

    def linearised(self, z: Tensor, labels: Tensor | None = None) -> Linear | None:
        """Images and their derivative in z: between kinks the network is linear up to tanh, so tangents pass through the same kernels,
        without offsets, times the masks of the image's own pass, which all directions share. None unless the norms are folded."""
        if not self.folded or self.training:
            return None
        with torch.no_grad():
            given = z
            if self.embedding is not None:
                given = torch.cat([z, class_weights(labels, len(self.embedding.weight), z) @ self.embedding.weight], dim=1)
            first, kernels = self.config["first"], [self.get_buffer(f"kernel{i}") for i in range(self.depth)]
            x = self._begun(given)
            masks = [(x > 0).to(x)]
            for i in range(1, self.depth - 1):
                x = self._layer(i, x, self.get_buffer(f"bias{i}")).relu_()
                masks.append((x > 0).to(x))
            images = self._ended(x)
            slope = 1 - images.square()
        n, entry, last = len(z), kernels[0][: self.latent_size], cast(nn.ConvTranspose2d, self.main[-2]).weight

        def push(tangents: Tensor) -> Tensor:
            with torch.no_grad():
                x = (tangents.flatten(0, 1) @ entry).unflatten(1, (first, first, -1)).movedim(3, 1)
                for i in range(1, self.depth - 1):
                    x = self._layer(i, _times(x, masks[i - 1]))
                return _doubled(F.conv2d(_times(x, masks[-1]), kernels[-1], padding=1)).unflatten(0, (-1, n)).mul_(slope)

        def pull(cotangents: Tensor) -> Tensor:
            with torch.no_grad():
                x = _times(F.conv2d((cotangents * slope).flatten(0, 1), last, stride=2, padding=1), masks[-1])
                for kernel, mask in zip(kernels[-2:0:-1], masks[-2::-1], strict=True):
                    x = _times(F.conv2d(x, kernel, stride=2, padding=1), mask)
                return (x.movedim(1, 3).flatten(1) @ entry.T).unflatten(0, (-1, n))

        return Linear(images, push, pull, kind="linear passes with shared masks")


def _times(x: Tensor, mask: Tensor) -> Tensor:
    """The tangents of t directions (t * n, c, h, w), each times its latent's mask (n, c, h, w), in place."""
    x.unflatten(0, (-1, len(mask))).mul_(mask)
    return x


def _overlapped(made: Tensor, axis: int) -> Tensor:
    """(..., length, 4, ...) -> (..., length, 2, ...): the four taps of each pixel, added up where two pixels write.

    Pixel i of a doubling writes to 2i - 1 ... 2i + 2; what it adds to its neighbours' pairs are its first and last tap.
    """
    before, even, odd, after = made.unbind(axis + 1)
    if not torch.is_grad_enabled():
        even.narrow(axis, 1, even.shape[axis] - 1).add_(after.narrow(axis, 0, after.shape[axis] - 1))
        odd.narrow(axis, 0, odd.shape[axis] - 1).add_(before.narrow(axis, 1, before.shape[axis] - 1))
        return made.narrow(axis + 1, 1, 2)
    none = torch.zeros_like(even.narrow(axis, 0, 1))
    even = even + torch.cat([none, after.narrow(axis, 0, after.shape[axis] - 1)], axis)
    odd = odd + torch.cat([before.narrow(axis, 1, before.shape[axis] - 1), none], axis)
    return torch.stack([even, odd], axis + 1)


def _with(x: Tensor, constant: Tensor) -> Tensor:
    """x + constant, in place where no graph needs x."""
    return x + constant if torch.is_grad_enabled() else x.add_(constant)


def _with_norm(layer: nn.ConvTranspose2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a layer and the batch norm after it, if there is one."""
    kernel = layer.weight.detach()  # (in, out, k, k)
    bias = kernel.new_zeros(kernel.shape[1]) if layer.bias is None else layer.bias.detach()
    if not isinstance(norm, nn.BatchNorm2d):
        return kernel, bias
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach().cpu().double() * torch.rsqrt(norm.running_var.cpu().double() + norm.eps)  # rounded once, not thrice
    bias = (bias - norm.running_mean.cpu().double()) * scale + norm.bias.detach()
    return (kernel * scale[:, None, None]).to(kernel), bias.to(kernel)


def _phases(kernel: Tensor) -> Tensor:
    """A 4 x 4 kernel of a doubling (in, out, 4, 4) as four 2 x 2 ones (4 out, in, 2, 2), one for each pixel made of one.

    With padding 1 a doubling makes pixel 2i of x[i-1] and x[i], by taps 3 and 1, and pixel 2i+1 of x[i] and x[i+1], by
    taps 2 and 0.
    """
    taps = ([3, 1], [2, 0])
    return torch.cat([kernel[:, :, rows][:, :, :, columns].transpose(0, 1) for rows in taps for columns in taps])


def _doubled(x: Tensor) -> Tensor:
    """What the four kernels made, (n, 4c, h + 1, w + 1), side by side: (n, c, 2h, 2w)."""
    x = x.unflatten(1, (2, 2, -1))
    h, w = x.shape[-2] - 1, x.shape[-1] - 1
    rows = [torch.stack([x[:, p, q, :, p : p + h, q : q + w] for q in (0, 1)], dim=-1) for p in (0, 1)]  # (n, c, h, w, 2)
    return torch.stack(rows, dim=3).flatten(4).flatten(2, 3)


def from_state_dict(checkpoint: Mapping[str, Any], *, name: str = "dcgan") -> ModuleGenerator:
    """A generator from the tensors of a checkpoint: a state dict, or a dict that holds one under any name.

    Prefixes (``module.``, ``main.``, ``netG.``) do not matter; the order of the layers does, and it is taken from the
    numbers in the keys. Half-precision weights are computed in float32.

    Raises:
        ValueError: there is no chain of transposed convolutions in it, or one with kernels that do not double.
    """
    config, tensors = read(_find_state(checkpoint), {})
    network = DCGAN(**config)
    expected = network.state_dict()
    missing = [key for key in expected if key not in tensors]
    if missing:
        raise ValueError(f"{name} lacks {missing[0]} and {len(missing) - 1} other tensors of its DCGAN: the file is incomplete.")
    try:
        network.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()}, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{name} is no DCGAN: {str(error).splitlines()[-1].strip()}") from error
    return generator_of(network, name=name)


def read(state: Tensors, arguments: Arguments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of the network from a state dict under whatever names; see ``layouts.Layout``."""
    kernels, norms, biases, table = _chain(state)
    widths = [kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels)]
    if table is not None and table.shape[1] >= widths[0]:
        raise ValueError(
            f"it takes {widths[0]} numbers, its label table has {table.shape[1]}: nothing is left for the latent. "
            "Build the module and wrap() it."
        )
    config = {
        "widths": widths,
        "first": kernels[0].shape[2],
        "normed": [norm is not None for norm in norms],
        "biased": [bias is not None for bias in biases],
        "classes": None if table is None else len(table),
        "embedding": 0 if table is None else table.shape[1],
    }
    tensors: dict[str, Tensor] = {}
    for i, (kernel, bias, norm) in enumerate(zip(kernels, biases, norms, strict=True)):
        tensors[f"main.{3 * i}.weight"] = kernel
        if bias is not None:
            tensors[f"main.{3 * i}.bias"] = bias
        if norm is not None:
            tensors.update({f"main.{3 * i + 1}.{key}": value for key, value in norm.items()})
            tensors[f"main.{3 * i + 1}.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    if table is not None:
        tensors["embedding.weight"] = table
    return config, tensors


def is_dcgan(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds the chain of transposed convolutions that ``from_state_dict`` reads."""
    try:
        _find_state(checkpoint)
    except ValueError:
        return False
    return True


def _find_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The one state dict in a checkpoint that is a generator's; an averaged copy ("ema") goes first."""
    candidates = {"": checkpoint, **{k: v for k, v in checkpoint.items() if isinstance(v, Mapping)}}
    states = {}
    for key, value in candidates.items():
        state = {k: v for k, v in value.items() if isinstance(v, Tensor)}
        if state and _is_chain(_kernels(state)):
            states[key] = state
    if not states:
        shapes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in list(checkpoint.items())[:3] if isinstance(v, Tensor))
        raise ValueError(
            f"no DCGAN generator in this checkpoint: it holds {shapes or ', '.join(map(str, list(checkpoint)[:5])) or 'nothing'}."
        )
    averaged = [key for key in states if "ema" in key.lower()]
    if len(states) > 1 and len(averaged) != 1:
        raise ValueError(f"this checkpoint holds several generators ({', '.join(states)}): pass the one you mean.")
    return states[averaged[0] if averaged else next(iter(states))]


def _natural(key: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]


def _kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: state[k] for k in sorted(state, key=_natural) if k.endswith("weight") and state[k].ndim == 4}


def _is_chain(kernels: Mapping[str, Tensor]) -> bool:
    weights = list(kernels.values())
    joined = all(a.shape[1] == b.shape[0] for a, b in pairwise(weights))
    return len(weights) >= 2 and joined and weights[-1].shape[1] in (1, 3)


def _chain(state: Mapping[str, Tensor]) -> tuple[list[Tensor], list[dict[str, Tensor] | None], list[Tensor | None], Tensor | None]:
    """Kernels, the batch norm after each, biases, and the label table if there is one."""
    kernels = _kernels(state)
    for i, (key, kernel) in enumerate(kernels.items()):
        height, width = kernel.shape[2:]
        if height != width or (i > 0 and height != 4):
            raise ValueError(
                f"{key} is {height} x {width}; DCGAN layers are square, and 4 x 4 after the first. Build the module and wrap() it."
            )
    norms: dict[str, dict[str, Tensor] | None] = {}
    for owner in dict.fromkeys(_owner(key) for key in sorted(state, key=_natural)):
        if f"{owner}.weight" in kernels:
            norms[owner] = None
        elif f"{owner}.running_mean" in state and norms:  # it belongs to the kernel before it
            tensors = {key.rpartition(".")[2]: value for key, value in state.items() if _owner(key) == owner}
            norms[list(norms)[-1]] = {name: value for name, value in tensors.items() if name != "num_batches_tracked"}
    if list(norms.values())[-1] is not None:
        raise ValueError("this checkpoint has a batch norm after its last layer, which no DCGAN has. Build the module and wrap() it.")
    biases = [state.get(f"{_owner(k)}.bias") for k in kernels]
    tables = [v for k, v in state.items() if v.ndim == 2 and k.endswith("weight")]
    if len(tables) > 1:
        raise ValueError(f"this checkpoint has {len(tables)} label tables; one was expected. Build the module and wrap() it.")
    return list(kernels.values()), list(norms.values()), biases, tables[0] if tables else None


def _owner(key: str) -> str:
    return key.rpartition(".")[0]


LAYOUTS = (Layout("DCGAN", "dcgan", (), read, fits=is_dcgan),)
