"""What the contrastive losses cost: a training step with three groups against the plain one, and the pairwise loss against the batch.

    python benchmarks/contrastive_step.py [--quick] [--batch 64] [--steps 40]

The pictures are those of digits32 (seed 0), so that nothing has to be there; the networks are those of steer train controllable --domain
digits, with the contrast at its full weight and at 0. Steps of both take turns; figures are medians. The pairwise loss is timed on 16
columns, its plain double loop beside it, and beside both the product of two matrices that hold as many numbers. Expected: a ratio of at
most 1.6, and a loss that grows with the batch as the product does. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from steerable import load_generator
from steerable.sources import ImageSource
from steerable.training.contrastive import contrastive_loss, pairwise
from steerable.training.controllable import Training, calibrate
from steerable.training.domains import digits

PLAIN, GROUPS = "plain", "three groups"
COLUMNS = 16
BATCHES = (64, 128, 256, 512, 1024, 2048)
LOOPED = (32, 64, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 steps of each instead of 40")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each")
    asked = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "contrastive_step", "batch": asked.batch, "threads": torch.get_num_threads()}
    figures |= steps(asked.batch, 8 if asked.quick else asked.steps)
    figures |= growth(3 if asked.quick else 9)
    print(json.dumps(figures))


def steps(batch: int, count: int) -> dict[str, Any]:
    """Seconds of a step of each kind, taking turns."""
    generator = load_generator("digits32")
    with torch.inference_mode():
        latents = generator.sample(600, seed=0)
        images = torch.cat([generator(latents[start : start + 100]) for start in range(0, 600, 100)])
    source = ImageSource(((images + 1) * 127.5).round().byte(), torch.zeros(600, dtype=torch.long), (), "digits32")
    groups = digits()
    watches = calibrate(source, groups)
    options = {"backbone": "dcgan", "size": 32, "channels": 1, "batch": batch, "width": 48, "hidden": 64, "variety": 1.0,
               "population": 1.0, "agreement": 8.0, "warm_up": 0, "lr": 1e-3, "r1": 1.0, "path_length": 0.0, "ema": 0.999,
               "precision": "float32", "seed": 0}  # fmt: skip
    trainings = {
        PLAIN: Training(source, groups, watches, {**options, "contrast": 0.0}),
        GROUPS: Training(source, groups, watches, {**options, "contrast": 1.0}),
    }
    taken: dict[str, list[float]] = {name: [] for name in trainings}
    for number in range(1, count + 3):  # step 0 has the penalty that every 16th has; two to warm up
        for name, training in trainings.items():
            began = time.perf_counter()
            training.step(number)
            if number > 2:
                taken[name].append(time.perf_counter() - began)
    seconds = {name: median(times) for name, times in taken.items()}
    ratio = median(b / a for a, b in zip(taken[PLAIN], taken[GROUPS], strict=True))
    print(f"a step at batch {batch}, digits at 32 px, DCGAN of 48 channels; median of {count} steps that took turns")
    for name, value in seconds.items():
        print(f"{name:>14}  {value * 1000:7.1f} ms")
    print(f"{'ratio':>14}  {ratio:7.2f}")
    return {"seconds": {name: round(value, 5) for name, value in seconds.items()}, "ratio": round(ratio, 3), "steps": count}


def growth(repeats: int) -> dict[str, Any]:
    """Seconds of the loss with its gradient, of the double loop, and of a matrix product, for growing batches."""
    rows = []
    for n in sorted({*BATCHES, *LOOPED}):
        rng = torch.Generator().manual_seed(n)
        values, owner = torch.randn(n, COLUMNS, generator=rng), torch.arange(n) // 2
        same = owner[:, None] == owner[None]
        both = values.repeat(1, 8)  # 128 columns: a product that is worth timing
        row = {
            "loss": timed(lambda values=values, same=same: backward(vectorised, values, same), repeats),
            "product": timed(lambda both=both: both @ both.T, repeats),
        }
        if n in LOOPED:
            row["loop"] = timed(lambda values=values, same=same: backward(looped, values, same), 1)
        rows.append((n, row))
    print(f"\nthe pairwise loss (squared l2, {COLUMNS} columns) with its gradient; ms")
    print(f"{'batch':>8}{'all pairs':>12}{'double loop':>13}{'matrix product':>16}")
    for n, row in rows:
        loop = f"{row['loop'] * 1000:13.1f}" if "loop" in row else f"{'–':>13}"
        print(f"{n:>8}{row['loss'] * 1000:12.2f}{loop}{row['product'] * 1000:16.3f}")
    exponents = {name: round(slope([(n, row[name]) for n, row in rows if name in row and (n >= 512 or name == "loop")]), 2)
                 for name in ("loss", "product", "loop")}  # fmt: skip
    print(
        f"grows as batch to the power of: loss {exponents['loss']}, product {exponents['product']} (512 to 2,048), loop {exponents['loop']}"
    )
    per_pair = {n: rows_ms["loop"] / rows_ms["loss"] for n, rows_ms in rows if "loop" in rows_ms}
    print(f"the loop takes {per_pair[128]:.0f} times as long at a batch of 128")
    return {"exponents": exponents, "loop over loss at 128": round(per_pair[128], 1),
            "ms": {str(n): {name: round(value * 1000, 4) for name, value in row.items()} for n, row in rows}}  # fmt: skip


def vectorised(values: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    return contrastive_loss(pairwise("squared-l2", values, values), same, near=0.2, far=1.5)


def looped(values: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """The same loss as the paper's formula reads, pair by pair."""
    kinds: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for i in range(len(values)):
        for j in range(i):
            distance, shares = (values[i] - values[j]).square().mean(), bool(same[i, j])
            kinds[shares].append((distance - 0.2).relu() if shares else (1.5 - distance).relu())
    return torch.stack(kinds[True]).mean() + torch.stack(kinds[False]).mean()


def backward(loss: Callable[..., torch.Tensor], values: torch.Tensor, same: torch.Tensor) -> None:
    values = values.clone().requires_grad_()
    torch.autograd.grad(loss(values, same), values)


def timed(call: Callable[[], Any], repeats: int) -> float:
    call()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return median(found)


def slope(points: list[tuple[int, float]]) -> float:
    """Of log seconds over log batch, by least squares."""
    x, y = [math.log(n) for n, _ in points], [math.log(t) for _, t in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


if __name__ == "__main__":
    main()
