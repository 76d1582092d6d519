"""A linear walk by the paper's Adam and by ours: the time each needs to reach the held-out loss of Adam after 20,000 samples.

    python benchmarks/walk_fit.py [--quick] [--edits EDITS] [--threads 1] [--seed 0]

All fit the same direction on faces64 in this process: the same latents a seed, batches of 16, amounts over the edit's usual range, one
fresh latent a sample, a rate that falls to zero. Ours draws far amounts more often and weighs them so much less, and answers with a Newton
step from the mean place of its gradients; Adam's amounts are uniform, as in the paper, and its answer is the last iterate.

    adam          Adam in the latents' own coordinates, rate 0.1
    eigenbasis    steps in the eigenbasis of the sketched Gauss-Newton matrix: the default of fit_directions
    bfloat16      the same with precision="bfloat16", where the processor has instructions for it

Each number of samples is a fit of its own, from nothing to the end of its schedule. Ours is run at 1,024, 2,048, 2,560, ... samples until
its held-out loss is no larger than Adam's; "seconds" is that fit alone, "with_all_shorter_fits" is what finding the number cost;
"near" is the first within 1 % of Adam's loss. The loss
is the masked squared error over that of doing nothing, in float32, on 1,024 latents that nothing was fitted on, each by four amounts.
``--quick`` gives Adam 512 samples, has 256 of those latents, and does brightness and shift-x only. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerable import load_generator
from steerable.edits import edit, masked_error
from steerable.fitting.walks import fit_directions
from steerable.generators import processor
from steerable.protocols import Edit, Generator

SEED = 1000  # of the latents of the held-out loss
LADDER = (1024, 2048, 2560, 3072, 3584, 4096, 6144, 8192)
QUICK = (128, 256, 384)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Adam after 512 samples, two edits")
    parser.add_argument("--edits", help="with commas, instead of brightness, zoom and shift-x")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    names = asked.edits.split(",") if asked.edits else ["brightness", "shift-x"] if asked.quick else ["brightness", "zoom", "shift-x"]
    try:
        edits = {name: edit(name) for name in names}
    except ValueError as wrong:
        parser.error(str(wrong))
    several = [name for name, found in edits.items() if len(found) > 1]
    if several:
        parser.error(f"--edits are single ones, and {several[0]} stands for {', '.join(one.knob.name for one in edits[several[0]])}")
    torch.set_num_threads(asked.threads)
    generator = load_generator("faces64")
    samples, ladder, unseen = (512, QUICK, 256) if asked.quick else (20000, LADDER, 1024)
    ours = {"eigenbasis": "float32", **({"bfloat16": "bfloat16"} if processor.has_bfloat16("cpu") else {})}
    fit_directions(generator, "brightness", n=32, held_out=1, calibration=0)  # what runs for the first time is slow
    print(f"{'edit':<12}{'fit':<12}{'samples':>8}{'seconds':>9}{'held out':>10}", flush=True)
    compared = Comparison(generator, samples, ladder, unseen, asked.seed)
    rows = {name: compared(one, ours) for name, (one,) in edits.items()}
    print()
    for fit in ours:
        print(f"times faster, {fit}:", ", ".join(f"{name} {shown(row[fit]['faster'])}" for name, row in rows.items()))
    print(json.dumps({"adam_samples": samples, "held_out_n": unseen, "seed": asked.seed, "threads": asked.threads, "edits": rows}))


def shown(faster: float | None) -> str:
    return "not reached" if faster is None else f"{faster:.1f}"


@dataclass(frozen=True)
class Comparison:
    """Adam's fit, and ours with more and more samples until it is as good."""

    generator: Generator
    samples: int
    ladder: tuple[int, ...]
    unseen: int
    seed: int

    def __call__(self, one: Edit, ours: Mapping[str, str]) -> dict[str, Any]:
        goal, adam = self.fitted(one, self.samples, "adam")
        row: dict[str, Any] = {"adam": {"n": self.samples, "seconds": adam, "held_out": goal}}
        return row | {name: self.climbed(one, goal, adam, name, precision) for name, precision in ours.items()}

    def climbed(self, one: Edit, goal: float, adam: float, name: str, precision: str) -> dict[str, Any]:
        found: dict[str, Any] = {"near": None, "reached": None, "faster": None}
        spent = 0.0
        for n in self.ladder:
            loss, seconds = self.fitted(one, n, name, precision)
            spent += seconds
            fit = {"n": n, "seconds": seconds, "held_out": loss, "with_all_shorter_fits": spent, "faster": adam / seconds}
            if loss <= 1.01 * goal and found["near"] is None:
                found["near"] = fit
            if loss <= goal:
                return {**found, "reached": fit, "faster": adam / seconds}
        return found

    def fitted(self, one: Edit, n: int, name: str, precision: str = "float32") -> tuple[float, float]:
        """Held-out loss and seconds of one fit."""
        optimiser = "adam" if name == "adam" else "eigenbasis"
        how: dict[str, Any] = {"optimiser": optimiser, "precision": precision, "held_out": 1, "calibration": 0}
        began = time.perf_counter()
        walk = fit_directions(self.generator, one, n=n, seed=self.seed, **how)
        seconds = time.perf_counter() - began
        loss = held_out(self.generator, one, walk.vectors[0], self.unseen)
        print(f"{one.knob.name:<12}{name:<12}{n:>8}{seconds:>9.1f}{loss:>10.4f}", flush=True)
        return loss, seconds


def held_out(generator: Generator, one: Edit, vector: Tensor, n: int) -> float:
    """Each latent by four amounts, one from each quarter of the range; together they are evenly spread."""
    latents = generator.sample(n, seed=SEED)
    order = torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(SEED + i)) + n * i for i in range(4)])
    amounts = one.knob.low + (one.knob.high - one.knob.low) * (order + 0.5) / (4 * n)  # (4, n)
    walked, still = 0.0, 0.0
    with torch.no_grad():
        for i in range(0, n, 32):
            some = latents[i : i + 32]
            before = generator(some)
            for by in amounts[:, i : i + 32]:
                targets, mask = one(before, by)
                walked += float(masked_error(generator(some.at(some.values + by[:, None] * vector)), targets, mask).sum())
                still += float(masked_error(before, targets, mask).sum())
    return walked / still


if __name__ == "__main__":
    main()
