"""FaceMesh: 468 landmarks of a face in three dimensions.

Neighbours: ``faces`` reads head pose and mouth shape from the landmarks; the weights are in ``weights/facemesh.safetensors``.

The network is a chain of residual blocks (depthwise 3x3, pointwise, sum, PReLU) that halves a 192 px input six times, and one convolution
over what is left. The graph of the package also finds contours and a face flag; they are not carried over.

Source: Kartynnik, Ablavatski, Grishchenko & Grundmann, "Real-time facial surface geometry from monocular video on mobile
GPUs", CVPR workshop 2019. Weights: MediaPipe's, in the conversion of npm's human-models (see NOTICE).
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from steerable.features.layers import in_pieces, load, same
from steerable.features.resize import coloured, resized

SIZE = 192
MARGIN = 0.125  # the network wants the face at about three quarters of the frame
TRUNK = (16, 16, 32, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128)  # outputs of the blocks ...
HALVING = {2, 5, 8, 11}  # ... and which of them halve the map
HEAD = (128, 128, 128)  # the first of them halves


class Residual(nn.Module):
    """``prelu(x + pointwise(depthwise(x)))``; a halving block pools x, and fills up with empty channels where it widens."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = same(inputs, inputs, 3, stride=stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.slope = nn.PReLU(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        update = self.pointwise(self.depthwise(x))
        if self.stride == 2:
            x = F.max_pool2d(x, 2)
        if self.extra:
            x = F.pad(x, (0, 0, 0, 0, 0, self.extra))
        return self.slope(x + update)


class FaceMesh(nn.Module):
    """Images in [-1, 1] -> landmarks ``(n, 468, 3)``: x right, y down, z away from the viewer.

    They are in pixels of the network's 192 px input, which shows the image with an eighth of its size added on every side.
    The image should be a square crop of one face; there is no face detector in front. On an image without a face the
    numbers are finite and mean nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(same(3, 16, 3, stride=2), nn.PReLU(16))
        inputs = (16, *TRUNK)
        self.trunk = nn.Sequential(*(Residual(inputs[i], out, 2 if i in HALVING else 1) for i, out in enumerate(TRUNK)))
        self.head = nn.Sequential(*(Residual(128, out, 1 if i else 2) for i, out in enumerate(HEAD)))
        self.neck = nn.Sequential(nn.Conv2d(128, 32, 1), nn.PReLU(32), Residual(32, 32))
        self.points = nn.Conv2d(32, 468 * 3, 3)

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> FaceMesh:
        return load(cls(), tensors)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 468 3"]:
        return in_pieces(self._landmarks, (coloured(images) + 1) / 2)

    def _landmarks(self, x: Tensor) -> Tensor:
        x = resized(x, SIZE, SIZE, kernel="cubic", margin=MARGIN).clamp(0, 1)
        x = self.neck(self.head(self.trunk(self.stem(x))))
        return self.points(x).view(-1, 468, 3)
