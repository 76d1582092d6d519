"""Your own labels: a table of seeds and labels -> a feature -> an axis like any other. Half a minute on two cores.

    python examples/own_labels.py [FOLDER]

Look at the pictures of ``steer sample --seeds 0-299``, write down what you see, and you have the table. Here a measurement stands in
for the person who looks: "is the background bright?"
"""

import csv
import sys
from pathlib import Path

import torch

import steerable as st
from steerable.sampling import latents_of

out = Path(sys.argv[1] if len(sys.argv) > 1 else "own-labels")
out.mkdir(parents=True, exist_ok=True)
faces = st.load_generator("faces64")

# The table: the image of a seed is the same in the command line, in Python and here.
seeds = range(300)
seen = st.column(st.load_feature("background-colour"), "background-brightness")
with torch.no_grad():
    values = torch.cat([seen(faces(latents_of(faces, seeds[i : i + 50])))[:, 0] for i in range(0, 300, 50)])
with open(out / "labels.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["seed", "label"])
    table.writerows(zip(seeds, ["yes" if value > values.median() else "no" for value in values], strict=True))

# The feature: a small head on a shipped network, scored on rows that it has not seen.
backbone = st.load_backbone()
bright = st.fit_feature(out / "labels.csv", backbone=backbone, name="bright-background", generator=faces)
print({key: bright.report[key] for key in ("score_name", "score", "baseline", "held_out_rows", "rows")})

# From here on it is a feature like any other: its columns have axes, which are calibrated and measured.
axis = st.fit_axes(faces, [bright], n=300, calibration=96)
knob = axis.knobs[0]
print(f"{knob.name}: {knob.low:.2g} to {knob.high:.2g} {knob.unit} of change")

people = faces.sample(4, seed=9)
images = []
with torch.no_grad():
    for amount in (knob.low / 2, 0.0, knob.high / 2):
        images.append(faces(axis.steer(people, st.amounts(axis, people, {knob.name: amount}))))
    # Did it leave the world of plausible images? Compare with other latents' images; few of them say only something rough.
    some = faces.sample(64, seed=10)
    near, far = faces(some[:32]), faces(axis.steer(some[32:], st.amounts(axis, 32, {knob.name: knob.high})))
    distance = st.kernel_distance(backbone(near), backbone(far))
print(f"kernel distance at the range's end: {distance:.2f} (n 32, seed 10, judge efficientnet-lite0)")
picture = st.strip([torch.stack(row) for row in zip(*images, strict=True)], column_labels=["less", "as sampled", "more"])
picture.save(out / "strip.png")
print(f"written: {out / 'labels.csv'}, strip.png")
