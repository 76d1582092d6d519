"""How far a walk goes, what ends it, and whether classes that vary more are moved further: on digits. Half a minute on two cores.

    python examples/limits.py [FOLDER]

The numbers here are small so that it is quick; ``steer limits`` and ``steer variability`` do the same with more.
"""

import sys
from pathlib import Path

import torch

import steerable as st
from steerable import plots

out = Path(sys.argv[1] if len(sys.argv) > 1 else "limits")
out.mkdir(parents=True, exist_ok=True)
digits = st.load_generator("digits32-joint-zoom")
walk = st.load_control("digits32-joint-zoom-walk", generator=digits)

# How far: the object's area, kernel distance to unsteered pictures, how much each step still changes them.
found = st.limits(digits, walk, amounts=[-2, -1, -0.5, 0.5, 1, 2], n=128)
usable = found.usable
print(f"zoom {usable.low:.2f} to {usable.high:.2f} {found.knob.unit}; ends by {usable.low_ends} and {usable.high_ends} (n {found.n})")
walk = found.written(walk)  # the range is in the knob now, and saved with it
st.save_control(walk, out / "zoom.safetensors")
plots.limits_plot([found], title=f"zoom on {digits.name}: n {found.n}, seed {found.seed}").savefig(out / "limits.png")

# Why not further: each class is turned to the same two ends, against how much the generator's own pictures of it vary.
classes = st.variability(digits, walk, amount=1.0, n=32)
line = classes.relation
print(f"r {line.r:.2f}, p {line.p:.3f} over {line.n} classes; sigma: {classes.sigma_from}")
print(*(f"{test.what}: t {test.t:.1f}, p {test.p:.3f}" for test in classes.contrast("1", "8")))
plots.variability_plot([classes], title=f"zoom on {digits.name}: n {classes.n} a class").savefig(out / "variability.png")

amounts = [-2, -1, 0, 1, 2]
some = digits.sample(4, seed=1)
with torch.no_grad():
    columns = [digits(walk.steer(some, st.amounts(walk, some, zoom=by))) for by in amounts]
rows = [torch.stack(row) for row in zip(*columns, strict=True)]
st.strip(rows, column_labels=[f"{by:+d}" for by in amounts]).save(out / "strip.png")
print(f"written: {out / 'limits.png'}, {out / 'variability.png'}, {out / 'strip.png'}")
