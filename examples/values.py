"""Values by number on a generator that was never trained for them: a search, and a network that learned to do without.

    python examples/values.py [FOLDER]

The numbers here are small so that it is quick; the defaults fit on more, and ``benchmarks/setting.py`` says how well it works.
"""

import sys
from pathlib import Path

import torch

import steerable as st

out = Path(sys.argv[1] if len(sys.argv) > 1 else "values")
out.mkdir(parents=True, exist_ok=True)
faces = st.load_generator("faces64")
people = faces.sample(3, seed=1)

# Whatever each head did before, it now looks 20 degrees to the side, in the same light.
solve = st.Solve(faces, set={"yaw": 20}, hold=["brightness"], population=128)
found = solve.solve(people)
for row in range(len(people)):
    print(f"face {row}:", *found.said(row))  # asked, reached, what the second network reads; what is reachable where it was not
    column, unit, change, deviations = found.besides(row)[0]
    print(f"  moved besides, most of all: {column} by {change:+.2f} {unit} ({deviations:+.1f} deviations)")

# One value a face, percentiles of the population, another one each time: they are amounts of a control.
by_rank = solve.steer(people, torch.tensor([[solve.knobs[0].value_at(rank)] for rank in (10, 50, 90)]))

# The same without a search: one pass of a small network, with the error bars of faces that it has not seen.
controller = st.fit_controller(solve, n=32, population=300, held_out=16)
print(*controller.said())
at_once = controller.steer(people, torch.full((3, 1), 20.0))
st.save_control(controller, out / "yaw.safetensors")

with torch.no_grad():
    columns = [faces(latents) for latents in (people, found.latents, by_rank, at_once)]
words = ["as sampled", "yaw = 20 deg", "yaw = p10, p50, p90", "yaw = 20, at once"]
picture = st.strip([torch.stack(row) for row in zip(*columns, strict=True)], column_labels=words)
picture.save(out / "strip.png")
print(f"written: {out / 'strip.png'}")
