"""Make landmarks68.json: where the nose stands among the 68 landmarks, in degrees.

On unedited faces64 faces the raw angles (nose beside and below the middle of the jaw's ends) are given the mean and the standard
deviation of the mesh's yaw and pitch. Equal spread instead of least squares: both judges are noisy, and least squares would shrink
the second one by the correlation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from packages import WEIGHTS

from steerable import zoo
from steerable.features.faces import angles, nose_and_eyes


def calibrated(raw: torch.Tensor, degrees: torch.Tensor) -> dict[str, float]:
    correlation = torch.corrcoef(torch.stack([raw, degrees]))[0, 1]
    scale = degrees.std() / raw.std() * correlation.sign()
    offset = degrees.mean() - scale * raw.mean()
    return {"scale": round(scale.item(), 3), "offset": round(offset.item(), 3), "correlation": round(correlation.item(), 3)}


def calibration(n: int, seed: int) -> dict[str, object]:
    generator = zoo.load_generator("faces64")
    mesh, plane = zoo.load_network("facemesh"), zoo.load_network("landmarks68")
    with torch.no_grad():
        batches = [generator(latents) for latents in (generator.sample(n, seed=seed)[i : i + 64] for i in range(0, n, 64))]
        degrees = torch.cat([angles(mesh(images)) for images in batches])
        raw = torch.cat([nose_and_eyes(plane(images)) for images in batches])
    judged = {"yaw68": calibrated(raw[:, 0], degrees[:, 0]), "pitch68": calibrated(raw[:, 1], degrees[:, 1])}
    roll = torch.corrcoef(torch.stack([raw[:, 2], degrees[:, 2]]))[0, 1].item()
    made = {"n": n, "seed": seed, "generator": "faces64", "made_by": "tools/calibrate_landmarks.py"}
    return {**judged, "roll68": {"correlation": round(roll, 3)}, **made}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    result = calibration(given.n, given.seed)
    (given.out / "landmarks68.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
