"""Four small networks that look at a face: expression, 68 landmarks, identity, age and gender presentation.

Neighbours: ``faces`` turns their outputs into features, ``face_mesh`` holds the primary judge of pose. Weights:
``weights/expression``, ``landmarks68``, ``identity`` and ``age-gender``, all from npm's face-api (see NOTICE).

All four take images in [-1, 1] of any size, subtract the mean colour of their training images, and are frozen.

Sources: the expression and landmark networks are small DenseNets (Huang, Liu, van der Maaten & Weinberger, CVPR 2017) of separable
convolutions; age and gender use a small Xception (Chollet, CVPR 2017); identity is dlib's ResNet-29 (King, "High quality face
recognition with deep metric learning", 2017).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from steerable.features.layers import Separable, in_pieces, load, same
from steerable.features.resize import coloured, resized

EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
MEAN_COLOUR = (122.782 / 255, 117.001 / 255, 104.298 / 255)  # red, green, blue


def _centred(images: Tensor, size: int) -> Tensor:
    """Images in [-1, 1] -> ``(n, 3, size, size)``, around the mean colour."""
    x = coloured(images)
    mean = torch.tensor(MEAN_COLOUR, dtype=x.dtype, device=x.device)[:, None, None]
    return resized((x + 1) / 2 - mean, size, size)


class DenseBlock(nn.Module):
    """Halves the map, then three convolutions, each of which sees the sum of all before it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.halve = same(3, outputs, 3, stride=2) if inputs == 3 else Separable(inputs, outputs, 2)
        self.first = Separable(outputs, outputs)
        self.second = Separable(outputs, outputs)
        self.third = Separable(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.halve(x))
        x1 = x + self.first(x)
        x2 = x1 + self.second(F.relu(x1))
        return F.relu(x2 + self.third(F.relu(x2)))


class DenseFace(nn.Module):
    """112 px -> m numbers: four dense blocks, the mean over the map, one linear layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(DenseBlock(3, 32), DenseBlock(32, 64), DenseBlock(64, 128), DenseBlock(128, 256))
        self.linear = nn.Linear(256, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return in_pieces(lambda piece: self.linear(self.blocks(_centred(piece, 112)).mean((2, 3))), images)


class Expression(nn.Module):
    """Images in [-1, 1] -> ``(n, 7)`` logits, in the order of ``EXPRESSIONS``."""

    def __init__(self) -> None:
        super().__init__()
        self.face = DenseFace(len(EXPRESSIONS))

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> Expression:
        return load(cls(), tensors)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 7"]:
        return self.face(images)


class Landmarks68(nn.Module):
    """Images in [-1, 1] -> ``(n, 68, 2)``: x right, y down, as fractions of the image's width and height.

    In the usual order of 68: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67; the left of the picture first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.face = DenseFace(68 * 2)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> Landmarks68:
        return load(cls(), tensors)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 68 2"]:
        return self.face(images).view(-1, 68, 2)


class Reduction(nn.Module):
    """Two separable convolutions and a pooling, beside a strided shortcut."""

    def __init__(self, inputs: int, outputs: int, *, rectify: bool = True) -> None:
        super().__init__()
        self.first = Separable(inputs, outputs)
        self.second = Separable(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, 2)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.relu(x) if self.rectify else x)
        y = F.max_pool2d(self.second(F.relu(y)), 3, 2, ceil_mode=True)
        return y + self.shortcut(x)


class Middle(nn.Module):
    """A residual of three separable convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Separable(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers:
            y = layer(F.relu(y))
        return x + y


class AgeGender(nn.Module):
    """Images in [-1, 1] -> years ``(n,)`` and the logits ``(n, 2)`` of male and female presentation. Weak on generated faces."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = same(3, 32, 3, stride=2)
        self.blocks = nn.Sequential(
            Reduction(32, 64, rectify=False), Reduction(64, 128), Middle(128), Middle(128), Reduction(128, 256), Separable(256, 512)
        )
        self.age = nn.Linear(512, 1)
        self.gender = nn.Linear(512, 2)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> AgeGender:
        return load(cls(), tensors)

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"]]:
        pooled = in_pieces(self._pooled, images)
        return self.age(pooled)[:, 0], self.gender(pooled)

    def _pooled(self, images: Tensor) -> Tensor:
        return F.relu(self.blocks(F.relu(self.entry(_centred(images, 112))))).mean((2, 3))


class IdentityBlock(nn.Module):
    """``relu(convolutions(x) + x)``; a halving block pools x, and its convolution pads nothing but what is missing at the end."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2)
            missing = x.shape[-1] - y.shape[-1]
            y = F.pad(y, (0, missing, 0, missing)) if missing else y
        if self.extra:
            x = F.pad(x, (0, 0, 0, 0, 0, self.extra))
        return F.relu(y + x)


class Identity(nn.Module):
    """Images in [-1, 1] -> ``(n, 128)``. Only distances mean something: .6 between the photographs of one person and another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        widths = [(32, 32, 1)] * 3 + [(32, 64, 2)] + [(64, 64, 1)] * 3 + [(64, 128, 2)] + [(128, 128, 1)] * 2
        widths += [(128, 256, 2)] + [(256, 256, 1)] * 2 + [(256, 256, 2)]
        self.blocks = nn.Sequential(*(IdentityBlock(inputs, outputs, stride) for inputs, outputs, stride in widths))
        self.linear = nn.Linear(256, 128, bias=False)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> Identity:
        """The file keeps each convolution's scale and shift apart, as the package does; here they become part of it."""
        state = dict(tensors)
        for name in [name.removesuffix(".scale") for name in tensors if name.endswith(".scale")]:
            scale, shift = state.pop(f"{name}.scale"), state.pop(f"{name}.shift")
            state[f"{name}.weight"] = state[f"{name}.weight"] * scale[:, None, None, None]
            state[f"{name}.bias"] = state[f"{name}.bias"] * scale + shift
        return load(cls(), state)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 128"]:
        return in_pieces(self._embedding, images, 8)

    def _embedding(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(_centred(images, 150))), 3, 2)
        return self.linear(self.blocks(x).mean((2, 3)))
