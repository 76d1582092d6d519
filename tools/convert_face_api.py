"""Make expression, landmarks68, age-gender and identity.safetensors from npm's @vladmandic/face-api.

The package stores most weights as bytes with a scale and a minimum for each tensor. They are shipped exactly so: ``NAME`` in uint8 and
``NAME.affine`` = [scale, minimum] in float32.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from packages import Package, arguments, convolution, depthwise, opened, provenance, read, tensorflow_weights, write

PACKAGE = Package("npm", "@vladmandic/face-api", "1.7.15", "MIT")
DENSE = (  # the package's name -> ours, in this order
    (r"dense(\d)/conv", r"face.blocks.\1/conv"),
    (r"/conv0", ".halve"),
    (r"/conv1", ".first"),
    (r"/conv2", ".second"),
    (r"/conv3", ".third"),
    (r"^fc", "face.linear"),
)
XCEPTION = (
    (r"entry_flow/conv_in", "entry"),
    (r"entry_flow/reduction_block_(\d)", r"blocks.\1"),
    (r"middle_flow/main_block_0/separable_conv(\d)", r"blocks.2.layers.\1"),
    (r"middle_flow/main_block_1/separable_conv(\d)", r"blocks.3.layers.\1"),
    (r"exit_flow/reduction_block", "blocks.4"),
    (r"exit_flow/separable_conv", "blocks.5"),
    (r"/separable_conv0", ".first"),
    (r"/separable_conv1", ".second"),
    (r"/expansion_conv", ".shortcut"),
    (r"fc/", ""),
)
IDENTITY_BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3", "conv64_down", "conv64_1", "conv64_2", "conv64_3", "conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
RESNET = (
    (r"conv32_down/", "stem/"),
    *((f"^{block}/", f"blocks.{i}/") for i, block in enumerate(IDENTITY_BLOCKS)),
    (r"/conv1/", ".first/"),
    (r"/conv2/", ".second/"),
    (r"/scale/weights", ".scale"),
    (r"/scale/biases", ".shift"),
    (r"/conv/", "/"),
    (r"^fc$", "linear.weight"),
)
ENDINGS = (
    (r"/depthwise_filter", ".depthwise.weight"),
    (r"/pointwise_filter", ".pointwise.weight"),
    (r"/(filters|weights)", ".weight"),
    (r"/bias", ".bias"),
)
NETWORKS = {
    "expression": ("face_expression_model", DENSE, "Seven logits; smile is happy minus neutral."),
    "landmarks68": ("face_landmark_68_model", DENSE, "68 landmarks in the plane: the second judge of pose and mouth."),
    "age-gender": ("age_gender_model", XCEPTION, "Weak on generated faces: never the headline."),
    "identity": ("face_recognition_model", RESNET, "128 numbers; only distances mean something."),
}


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in (*rules, *ENDINGS):
        name = re.sub(pattern, ours, name)
    bare = re.search(r"\.(halve|first|second|third|layers\.\d|5)\.bias$", name)  # of a separable layer: it is the pointwise one's
    return name.removesuffix("bias") + "pointwise.bias" if bare else name


def convert(source: Path, out: Path) -> None:
    for name, (file, rules, notes) in NETWORKS.items():
        data = read(source, f"model/{file}.bin")
        manifest = json.loads(read(source, f"model/{file}-weights_manifest.json"))
        tensors: dict[str, np.ndarray] = {}
        for theirs, (array, affine) in tensorflow_weights(manifest, data).items():
            ours = renamed(theirs, rules)
            if rules is RESNET or theirs.startswith("dense0/conv0"):
                ours = ours.replace("pointwise.bias", "bias")
            if array.ndim == 4:
                array = depthwise(array) if theirs.endswith("depthwise_filter") else convolution(array)
            tensors[ours] = array.T if array.ndim == 2 else array
            if affine is not None:
                tensors[f"{ours}.affine"] = affine
        more = {"kind": "network", "name": name, "family": name, "made_by": "tools/convert_face_api.py", "notes": notes}
        write(out / f"{name}.safetensors", tensors, provenance(PACKAGE, f"model/{file}.bin", data, **more))


if __name__ == "__main__":
    given = arguments(__doc__)
    with opened(PACKAGE, given.package) as path:
        convert(path, given.out)
