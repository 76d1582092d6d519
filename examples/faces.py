"""The whole story on one page: sample, generate, measure, fit, steer, evaluate. Half a minute on two cores.

    python examples/faces.py [FOLDER]

The numbers here are small so that it is quick; ``steer demo`` is the same with enough latents, and pictures of everything.
"""

import sys
from pathlib import Path

import torch

import steerable as st

out = Path(sys.argv[1] if len(sys.argv) > 1 else "faces")
out.mkdir(parents=True, exist_ok=True)

# What generates, and what measures. A feature has columns, and each column a unit.
faces = st.load_generator("faces64")
features = st.load_features("pose", "smile", "brightness", "pose68")

# Fit an axis for each attribute; the others leave brightness alone. 2,000 latents are the default, and better.
axes = st.fit_axes(faces, features, columns=["yaw", "smile", "brightness"], n=240, hold=["brightness"], calibration=96)
st.save_control(axes, out / "axes.safetensors")
axes = st.load_control(out / "axes.safetensors", generator=faces)  # of another generator it would be refused
for knob in axes.knobs:
    print(f"{knob.name}: {knob.low:.2g} to {knob.high:.2g} {knob.unit} of change; median {knob.value_at(50):.2g}")

# Steer: amounts are in the knobs' units. Every face smiles by 8 and turns by 15 degrees.
people = faces.sample(3, seed=1)
smiling = axes.steer(people, st.amounts(axes, people, smile=8, yaw=15))

# Set a value instead of changing it: whatever the head did before, it now looks 20 degrees to the side.
yaw = st.AlongAxis(faces, axes["yaw"], st.column(st.load_feature("pose"), "yaw"))
found = yaw.solve(people, st.amounts(yaw, people, yaw=20))
print("yaw set to 20 deg:", *(f"{value:.1f}" for value in found.reached), *found.messages("deg"))

# Hold the pixels of a box and move all others: directions are recomputed at every step.
box = st.Box(top=16, left=18, bottom=52, right=46)
elsewhere = st.RegionPixels(box, faces.image_shape, invert=True, name="elsewhere")
trajectory = st.Trajectory(faces, move=elsewhere, hold=st.RegionPixels(box, faces.image_shape, name="face"))
moved = trajectory.steer(people, torch.full((3, 1), 0.1))  # 0.1 rms of pixels in [-1, 1]

with torch.no_grad():
    columns = [faces(latents) for latents in (people, smiling, found.latents, moved)]
words = ["as sampled", "smile +8, yaw +15", "yaw = 20 deg", "box held"]
picture = st.strip([torch.stack(row) for row in zip(*columns, strict=True)], column_labels=words)
picture.save(out / "strip.png")

# What a knob really does, on latents that nothing was fitted on: its effect by two judges, and what leaks.
measured = st.response(faces, axes, features, knobs=["yaw"], n=32, seed=2)
for effect in st.effects(measured):
    second = f", {effect.second:+.1f} by {effect.second_judge}" if effect.second is not None else ""
    print(f"yaw {effect.amount:+.1f} asked: {effect.measured:+.1f} measured{second} (mean over n {effect.n}, seed {effect.seed})")
deviations = st.measure(faces, features, n=128, seed=3).values.std(0)
leaks = dict(zip(measured.columns, st.leakage(measured, deviations)[0].tolist(), strict=True))
print("leaks when yaw moves by one deviation:", ", ".join(f"{name} {leak:+.2f}" for name, leak in leaks.items() if "yaw" not in name))
print(f"written: {out / 'strip.png'}")
