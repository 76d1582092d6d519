"""A generator that is steerable by construction: it learns its images and a walk together. Half a minute on two cores.

    python examples/own_training.py [FOLDER]

The data are squares drawn here, in three classes; a folder with MNIST's files works the same way, and takes eight minutes for something
that looks like digits: ``steer train steerable --data FOLDER --edit zoom``.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import steerable as st

out = Path(sys.argv[1] if len(sys.argv) > 1 else "training")

# 300 grey pictures of 16 pixels. The class says how wide the bar is; where it stands varies a little.
draws, labels = np.random.default_rng(0), np.arange(300) % 3
images = np.zeros((300, 16, 16), np.uint8)
for row, label in enumerate(labels):
    left = draws.integers(4, 8)
    images[row, 4:12, left : left + 2 + label] = 255

# Joint training: moving the latent along the walk learns to shift the image. Killed, it goes on where it was. With so few pictures
# the discriminator is held back (r1), and the walk's error counts ten times, as there are only 600 steps.
small = {"size": 16, "width": 8, "latent": 16, "batch": 32, "lr": 1e-3, "ema": 0.98, "r1": 5.0, "edit_weight": 10.0}
trained = st.train_steerable((images, labels), out=out / "run", way="joint", edit="shift-x", amounts=(-0.25, 0.25), steps=600, **small)
generator, walk = trained.generator, trained.walk
st.save(generator, out / "generator.safetensors")
st.save_control(walk, out / "walk.safetensors")

# How far the walked image is from the shifted one: 0 is perfect, 1 is what not moving costs.
judged = st.steerability(generator, walk, st.edit("shift-x")[0], amounts=[-0.25, -0.125, 0.125, 0.25], n=200)
for amount, relative, band in zip(judged.amounts, judged.relative, judged.band / judged.still.mean(1), strict=True):
    print(f"shifted by {amount:+.3f} image widths: relative error {relative:.2f} ± {band:.2f}")

# One latent a row, one amount a column.
latents = generator.sample(3, seed=5, labels=[0, 1, 2])
amounts = [-0.25, -0.125, 0.0, 0.125, 0.25]
with torch.no_grad():
    columns = [generator(walk.steer(latents, st.amounts(walk, latents, shift_x=amount))) for amount in amounts]
rows = list(torch.stack(columns, 1))
picture = st.strip(rows, row_labels=["narrow", "middle", "wide"], column_labels=[f"{amount:+g}" for amount in amounts], scale=4)
picture.save(out / "strip.png")
print(f"written: {out / 'strip.png'}, generator.safetensors, walk.safetensors, run/")
