"""How fast our networks are beside a plain transcription of the published forward pass, on the same random weights.

    python benchmarks/generators.py [--quick]

The plain side (``plain/``) does what the published code does on a CPU: kernels modulated image by image and run as grouped
convolutions, zeros inserted before every filter, batch norm as a pass of its own. Both sides draw the same latents and take turns
within each round; times are medians over rounds, images are compared. ``bfloat16`` is our option ``precision="bfloat16"``, its
images against our own float32 ones, in 1/255 of the range from -1 to 1. On a processor without instructions for bfloat16
that option is float32, so both columns are the same but for noise; the first line says which kind of processor it is.

Then: the peak memory of one 1024 px StyleGAN 2 image in a process of its own. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from plain import dcgan as plain_dcgan
from plain import stylegan2 as plain_stylegan2
from plain import stylegan3 as plain_stylegan3
from torch import Tensor

from steerable.generators import processor
from steerable.generators.dcgan import DCGAN
from steerable.generators.module import ModuleGenerator, generator_of
from steerable.generators.stylegan2 import StyleGAN2
from steerable.generators.stylegan3 import StyleGAN3
from steerable.zoo import load_generator

MEMORY = """
import torch
from steerable.generators.module import generator_of
from steerable.generators.stylegan2 import StyleGAN2

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 2**20

widths = [min(32768 // (4 * 2**i), 512) for i in range(9)]
network = StyleGAN2([["z", [512] * 9]], widths)
network.initialise(torch.Generator().manual_seed(0))
generator = generator_of(network, name="random")
ready = peak()
with torch.inference_mode():
    images = generator(generator.sample(1, seed=0))
assert images.shape == (1, 3, 1024, 1024)
print(ready, peak())
"""


@dataclass(frozen=True)
class Case:
    """One family at one batch size: ours against plain, and in bfloat16 where the family has it."""

    name: str
    generator: ModuleGenerator
    plain: Callable[[Tensor], Tensor]
    space: str
    batch: int
    goal: float
    half_goal: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no batch of 8, StyleGAN 3 at 128 px; under 50 s")
    quick = parser.parse_args().quick
    print(f"random weights, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; seconds are medians; goals in brackets\n")
    vectors, native = torch.backends.cpu.get_cpu_capability(), processor.has_bfloat16("cpu")
    print(f"processor: {vectors}, {'with' if native else 'without'} instructions for bfloat16\n")
    columns = (("batch", 6), ("plain s", 10), ("ours s", 10), ("times faster", 16), ("bfloat16 s", 12), ("times faster", 16))
    heads = "".join(f"{name:>{width}}" for name, width in (*columns, ("off by", 12), ("bf16 off", 10)))
    print(f"{'':27}{heads}")
    rows = [measured(case, rounds=3 if quick else 5) for case in cases(quick)]
    ready, peak = map(float, subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True).stdout.split())
    print(f"\npeak memory at 1024 px, batch 1, StyleGAN 2: {peak:.2f} GiB (goal 2), {ready:.2f} with the weights alone")
    print("off by: largest difference to plain, of the largest value")
    print("bf16 off: largest difference to float32, 1/255 of the range, for pictures of standard deviation 0.5 (goal 2)\n")
    print(
        json.dumps(
            {
                "benchmark": "generators",
                "threads": torch.get_num_threads(),
                "load": os.getloadavg()[0],
                "processor": {"vectors": vectors, "bfloat16": native},
                "rows": rows,
                "memory GiB": {"weights": ready, "peak": peak, "goal": 2},
            }
        )
    )


def cases(quick: bool) -> list[Case]:
    """Published sizes at 256 px; the DCGANs at 64."""
    third = 128 if quick else 256  # the plain side of StyleGAN 3 takes 16 s an image at 256 px
    rng = torch.Generator().manual_seed(0)
    two = StyleGAN2([["z", [512] * 9]], [min(16384 // (4 * 2**i), 512) for i in range(7)], clamp=256.0)
    three, wide = StyleGAN3(resolution=third), DCGAN([100, 512, 256, 128, 64, 3])
    for network in (two, three):
        network.initialise(rng)
    for key, tensor in two.state_dict().items():
        if key.endswith("strength"):
            tensor.fill_(0.1)
    style2, style3, dcgan = (generator_of(one, name=one.family) for one in (two, three, wide))
    faces = load_generator("faces64")
    found = [Case("StyleGAN 2, 256 px", style2, plain_stylegan2.plain(style2.network), "w+", batch, 1.5, 2.5) for batch in (1, 8)]
    found += [Case(f"StyleGAN 3-t, {third} px", style3, plain_stylegan3.plain(style3.network), "w+", 1, 5.0)]
    found += [Case("DCGAN, 64 px", dcgan, plain_dcgan.plain(dcgan.network), "z", batch, 1.3) for batch in (1, 32)]
    found += [Case("DCGAN faces64, 64 px", faces, plain_dcgan.plain(faces.network), "z", batch, 1.3) for batch in (1, 32)]
    return [case for case in found if not quick or case.batch != 8]


def measured(case: Case, *, rounds: int) -> dict[str, Any]:
    """Both sides in turns; a row of the table and its figures."""
    latents = case.generator.sample(case.batch, seed=0, space=case.space)
    sides: dict[str, Callable[[], Tensor]] = {"plain": lambda: case.plain(latents.values), "ours": lambda: case.generator(latents)}
    if case.half_goal is not None:
        half = case.generator.configured(precision="bfloat16")
        sides["bfloat16"] = lambda: half(latents)
    slow = case.space == "w+" and case.goal > 3  # the plain side takes its time
    times: dict[str, list[float]] = {side: [] for side in sides}
    images: dict[str, Tensor] = {}
    with torch.inference_mode():
        for side in sides:
            if not (slow and side == "plain"):
                sides[side]()
        for turn in range(rounds):
            for side, run in sides.items():
                if slow and side == "plain" and turn > 0:
                    continue
                repeats = 1 if case.space == "w+" else 10
                began = time.perf_counter()
                for _ in range(repeats):
                    images[side] = run()
                times[side].append((time.perf_counter() - began) / repeats)
    return shown(case, {side: statistics.median(some) for side, some in times.items()}, images)


def shown(case: Case, seconds: Mapping[str, float], images: Mapping[str, Tensor]) -> dict[str, Any]:
    faster = {side: seconds["plain"] / value for side, value in seconds.items()}
    off = float((images["ours"] - images["plain"]).abs().max() / images["plain"].abs().max())
    row: dict[str, Any] = {
        "name": case.name,
        "batch": case.batch,
        "seconds": dict(seconds),
        "faster": faster,
        "goal": case.goal,
        "off by": off,
    }
    text = f"{case.name:27}{case.batch:>6}{seconds['plain']:>10.4f}{seconds['ours']:>10.4f}{faster['ours']:>10.2f} ({case.goal})"
    if case.half_goal is not None:
        scale = float(images["ours"].std()) / 0.5  # random weights know no range: compared as pictures of deviation 0.5 would be
        row["bfloat16 off by, 1/255"] = float((images["bfloat16"] - images["ours"]).abs().max() / scale * 127.5)
        row["bfloat16 goal"] = case.half_goal
        text += (
            f"{seconds['bfloat16']:>12.4f}{faster['bfloat16']:>10.2f} ({case.half_goal}){off:>12.1e}{row['bfloat16 off by, 1/255']:>10.2f}"
        )
    else:
        text += f"{'':28}{off:>12.1e}"
    print(text, flush=True)
    return row


if __name__ == "__main__":
    main()
