"""A checkpoint that somebody else trained, read without executing anything in it, examined, and steered. Some seconds.

    python examples/own_checkpoint.py [CHECKPOINT] [FOLDER]

Any published layout will do: StyleGAN 1 to 3 (NVIDIA pickles, rosinality, genforce, GAN-Control), ProGAN, BigGAN, DCGAN. Without a
CHECKPOINT a StyleGAN 2 with random weights stands in for one, so its pictures show nothing.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import steerable as st
from steerable.generators.module import generator_of
from steerable.generators.stylegan2 import StyleGAN2

*given, folder = sys.argv[1:] or ["own-checkpoint"]
out = Path(folder)
out.mkdir(parents=True, exist_ok=True)

# Import once, use often: safetensors, and a JSON that says what it is. load_generator(checkpoint) does the same on the fly.
if given:
    file = st.import_generator(given[0], out / "imported.safetensors")
else:
    network = StyleGAN2([["z", [32, 32, 32]]], [32, 32, 24, 16])  # 32 px; a mapping of two layers
    network.initialise(torch.Generator().manual_seed(0))
    file = st.save_generator(generator_of(network, name="random"), out / "random.safetensors")
generator = st.load_generator(file)
print({name: space.shape for name, space in generator.spaces.items()}, "options:", dict(generator.options))

# What "steer doctor" prints: is it deterministic, independent of the batch, differentiable, how fast?
report = st.examine(generator)
for check in report.checks:
    print(f"{check.name}: {'ok' if check.ok else check.ok}, {check.measured}")
assert report.healthy

# Directions that others found become controls with a space, layers and a unit: here a random one, as InterFaceGAN stores them.
boundary = np.random.default_rng(0).standard_normal((1, *generator.spaces["w"].shape))
np.save(out / "boundary.npy", boundary / np.linalg.norm(boundary))
control = st.load_directions(out / "boundary.npy", generator, space="w", name="boundary")

# A direction of w drives all layers; lifted to w+ it can keep to some of them.
layers = generator.spaces["w+"].layers
fine = control.lifted(generator, "w+").in_layers(range(len(layers) // 2, len(layers)))
rows = []
for one in (control, fine):
    start = generator.sample(1, seed=1, space=one.space.name, psi=0.7)
    same = st.Latents(start.values.repeat(5, *[1] * (start.values.ndim - 1)), start.space)
    with torch.no_grad():
        rows.append(generator(one.steer(same, torch.linspace(-3, 3, 5)[:, None])))
picture = st.strip(rows, row_labels=["all layers", "fine layers"], column_labels=["-3", "-1.5", "0", "1.5", "3"], scale=2)
picture.save(out / "strip.png")
print(f"written: {out / 'strip.png'}")


def share(repository: str) -> None:
    """Upload the generator with a model card; the licence is whatever its authors chose. Not called here."""
    print(st.push_to_hub(generator, repository, licence="apache-2.0"))
