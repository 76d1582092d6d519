"""Move one thing and hold another: regions, identity and bands on a frozen generator; and a drive. A minute on two cores.

python examples/holding.py [FOLDER]
"""

import sys
from pathlib import Path

import torch

import steerable as st
from steerable import films, render
from steerable.controls.driving import Drive
from steerable.features.regions import Polygon
from steerable.features.spectrum import gaussian_band

out = Path(sys.argv[1] if len(sys.argv) > 1 else "holding")
out.mkdir(parents=True, exist_ok=True)
faces = st.load_generator("faces64")
people = faces.sample(2, seed=1000)
shape = faces.image_shape

# The face stays, everything around it changes: 0.25 root-mean-square, images in [-1, 1].
face = st.Box(top=16, left=18, bottom=52, right=46)
inside, around = st.RegionPixels(face, shape, name="face"), st.RegionPixels(face, shape, invert=True, name="around")
path = st.Trajectory(faces, move=around, hold=inside).path(people, torch.full((2, 1), 0.25))
for row in range(2):
    print(path.ledger.said(row))
    print(f"  {path.ledger.header}\n  {path.ledger.table(row)[-1]}")

# What is fine changes, what is coarse stays; several features may be held, each with its weight.
fine, coarse = (gaussian_band(shape, band, 4) for band in ("high", "low"))
sharp = st.Trajectory(faces, move=fine, hold=[(coarse, 2.0), st.load_feature("brightness")])
texture = sharp.path(people, torch.full((2, 1), sharp.unit / 3))

# Any region, and any callable: the middle of a triangle over the forehead, and its own brightness.
forehead = st.RegionPixels(Polygon(((4, 32), (22, 18), (22, 46))), shape, name="forehead")


def redness(images):
    return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))


warm = st.Trajectory(faces, move=redness, hold=forehead, leak=0.3).path(people, torch.full((2, 1), 0.1))

with torch.no_grad():
    columns = [faces(point) for point in (people, path.end, texture.end, warm.end)]
rows = [torch.stack([column[row] for column in columns]) for row in range(2)]
words = ["start", "around the face", "fine, not coarse", "redder, not the forehead"]
render.write_png(out / "strip.png", st.strip(rows, column_labels=words, boxes=[(16, 18, 52, 46)], scale=3))

# The same live: hold the face and go on for as long as there is a way.
drive = Drive(faces, move=around, hold=inside, latents=people[0:1], tolerance=0.06)
frames = list(drive.ride(24, 0.04))
print(f"driven {frames[-1].row.step} steps, moved {frames[-1].row.moved:.2f}, face {frames[-1].row.deviations['face']:.3f} deviations")
films.write(out / "drive.gif", (render.grid(frame.image, columns=1, scale=3) for frame in frames), films.Pace(fps=12))
