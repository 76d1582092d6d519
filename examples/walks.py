"""Walks that imitate an edit: straight, curved, inside a box, two at once, and as a film. Half a minute on two cores.

    python examples/walks.py [FOLDER]

The numbers here are small so that it is quick: 2,048 samples and more make better walks.
"""

import sys
from pathlib import Path

import torch

import steerable as st
from steerable import films

out = Path(sys.argv[1] if len(sys.argv) > 1 else "walks")
out.mkdir(parents=True, exist_ok=True)
faces = st.load_generator("faces64")
people = faces.sample(3, seed=1)

# Two straight walks, each fitted alone, and both at once; a chain of the two adds them up.
edits = [*st.edit("brightness"), *st.edit("zoom")]
alone = st.Chain(tuple(st.fit_directions(faces, one, n=160, amounts=(-0.25, 0.25), calibration=0) for one in edits))
joint = st.fit_directions(faces, edits, n=160, amounts=(-0.25, 0.25), calibration=0)
result = st.combined(faces, {"joint": joint, "alone, summed": alone}, edits, amounts=[(-0.25, 0.25), (-0.25, 0.25)], n=16)
for name, loss in result.summary()["relative_loss"].items():
    print(f"{name}: {loss:.2f} of the error of doing nothing (n {result.n}, seed {result.seed})")

# A curved one, by how pictures look; what it needs to steer is in its file.
looks = st.Perceptual(st.load_backbone())
curved = st.fit_walk(faces, "brightness", n=96, loss=looks)
st.save_control(curved, out / "curved.safetensors")
curved = st.load_control(out / "curved.safetensors", generator=faces)

# Redder inside a box, and nowhere else.
red = st.within(*st.edit("red"), st.Box(top=16, left=18, bottom=52, right=46), name="red-face")
face = st.fit_directions(faces, red, n=160, calibration=0)

with torch.no_grad():
    brighter = curved.steer(people, st.amounts(curved, people, brightness=0.2))
    both = alone.steer(people, st.amounts(alone, people, brightness=0.2, zoom=0.2))
    columns = [faces(one) for one in (people, brighter, both, face.steer(people, st.amounts(face, people, red_face=0.2)))]
words = ["as sampled", "brightness +0.2, curved", "brightness and zoom", "face redder"]
st.strip([torch.stack(row) for row in zip(*columns, strict=True)], column_labels=words).save(out / "strip.png")

# The same move as a film; any tensors can be keyframes, here the amounts of both knobs.
pace = films.Pace(seconds=1, fps=12, loop="boomerang")
moments = films.course(torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.2, 0.2]]), pace)
with torch.no_grad():
    frames = [st.strip([faces(alone.steer(people, row.expand(len(people), -1)))]) for row in moments]
films.write(out / "walk.gif", frames, pace)
print("how different they look:", *(f"{value:.2f}" for value in looks(columns[0], columns[1])))
print(f"written: {out / 'strip.png'}, {out / 'walk.gif'}")
