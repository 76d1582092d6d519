"""What measuring costs beside the bare loop: sample + generate + measure against plain calls of the generator and of each network.

    python benchmarks/throughput.py [--quick]

The bare loop is what a user would write without this package: for each batch of the same latents ``generator.network(z)``, then each
measuring network once, nothing read from their outputs. ``sampling.measure`` does the same and reads their columns. The variants take
turns within each round, so that other work on the machine hits them alike; ratios are medians over rounds, in wall time and in
processor time (which other work hardly changes).

Then: how peak memory grows with n, and how long ``import steerable`` (beyond torch) and ``steer --help`` take. The last line is
all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch

from steerable import load_features, load_generator, measure
from steerable.protocols import Feature

GROUPS = ("pixels", "faces", "regions")
BATCH = 32

MEMORY = """
import sys
from steerable import load_features, load_generator, measure

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

generator, features = load_generator("faces64"), load_features(*sys.argv[2:])
measure(generator, features, n=64, seed=1)
before = peak()
table = measure(generator, features, n=int(sys.argv[1]), seed=0)
print(peak() - before, (table.values.nbytes + table.latents.values.nbytes) / 2**20)
"""
IMPORTS = """
import time
import torch
began = time.perf_counter()
import steerable
light = time.perf_counter() - began
names = [getattr(steerable, name) for name in steerable.__all__]
print(light, time.perf_counter() - began)
"""
HELP = "import sys; sys.argv = ['steer', '--help']; from steerable.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer latents and rounds")
    quick = parser.parse_args().quick
    generator, features = load_generator("faces64"), load_features(*GROUPS)
    columns = sum(len(feature.columns) for feature in features)
    n, rounds = (64, 3) if quick else (256, 5)

    networks = distinct(features)
    print(f"faces64, {columns} columns of {len(networks)} networks ({', '.join(GROUPS)}), {torch.get_num_threads()} threads, batch {BATCH}")
    print(f"n = {n}, seed 0, {rounds} rounds in turns, load {os.getloadavg()[0]:.1f}\n")
    variants: dict[str, Callable[[], object]] = {
        "bare loop": lambda: bare(generator.network, networks, generator.sample(n, seed=0).values),
        "measure": lambda: measure(generator, features, n=n, seed=0),
        "measure into a cache": lambda: cached(generator, features, n),
    }
    if not quick:
        for batch in (16, 64):
            variants[f"measure, batch {batch}"] = lambda batch=batch: measure(generator, features, n=n, seed=0, batch=batch)
    speed = raced(variants, n, rounds)
    print(f"{'':24}{'images/s, best':>16}{'median':>9}{'of the bare loop':>19}{'in processor time':>20}")
    for name, row in speed.items():
        print(f"{name:24}{row['best']:>16.1f}{row['median']:>9.1f}{row['ratio']:>19.3f}{row['processor ratio']:>20.3f}")

    few, many = (64, 256) if quick else (256, 2048)
    memory = {rows: grown(rows, ("pixels", "pose") if quick else GROUPS) for rows in (few, many)}
    print(f"\npeak memory beyond a first run of 64 (MiB): {memory[few][0]:.1f} at n = {few}, {memory[many][0]:.1f} at n = {many};")
    print(f"the table and its latents are {memory[few][1]:.1f} and {memory[many][1]:.1f}")

    times = 3 if quick else 7
    light, every, shown = (statistics.median(column) for column in zip(*started(times), strict=True))
    print(
        f"\nmedian of {times} processes: import steerable {light:.3f} s after torch (goal 0.3), {every:.2f} s with every public name used,"
    )
    print(f"steer --help {shown:.2f} s (goal 0.5); load {os.getloadavg()[0]:.1f}\n")
    figures = {
        "benchmark": "throughput", "n": n, "seed": 0, "load": os.getloadavg()[0], "threads": torch.get_num_threads(), "speed": speed,
        "memory": {"n": [few, many], "growth": [memory[few][0], memory[many][0]], "table": [memory[few][1], memory[many][1]]},
        "import over torch": light, "every name over torch": every, "help": shown,
    }  # fmt: skip
    print(json.dumps(figures))


def distinct(features: Sequence[Feature]) -> list[Callable[[torch.Tensor], object]]:
    """The networks behind the features, each once; a ``Beside`` stands for the network it holds."""
    networks = [getattr(feature.network, "network", feature.network) for feature in features if hasattr(feature, "network")]
    return list({id(network): network for network in networks}.values())


def bare(generator: torch.nn.Module, networks: Sequence[Callable[[torch.Tensor], object]], z: torch.Tensor) -> None:
    with torch.inference_mode():
        for start in range(0, len(z), BATCH):
            images = generator(z[start : start + BATCH])
            for network in networks:
                network(images)


def cached(generator, features: Sequence[Feature], n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(generator, features, n=n, seed=0, cache=folder)


def raced(variants: dict[str, Callable[[], object]], n: int, rounds: int) -> dict[str, dict[str, float]]:
    for variant in variants.values():
        variant()
    wall = {name: [] for name in variants}
    processor = {name: [] for name in variants}
    for turn in range(rounds):
        for name in sorted(variants, reverse=bool(turn % 2)):
            began = time.perf_counter(), time.process_time()
            variants[name]()
            wall[name].append(time.perf_counter() - began[0])
            processor[name].append(time.process_time() - began[1])
    first = next(iter(variants))

    def ratio(spent: dict[str, list[float]], name: str) -> float:
        return statistics.median(a / b for a, b in zip(spent[first], spent[name], strict=True))

    return {
        name: {
            "best": n / min(wall[name]),
            "median": n / statistics.median(wall[name]),
            "ratio": ratio(wall, name),
            "best ratio": min(wall[first]) / min(wall[name]),
            "processor ratio": ratio(processor, name),
        }
        for name in variants
    }


def grown(n: int, names: Sequence[str]) -> tuple[float, float]:
    """Growth of peak memory and size of the table, both MiB, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(n), *names], capture_output=True, text=True, check=True)
    growth, table = done.stdout.split()
    return float(growth), float(table)


def started(times: int) -> list[tuple[float, float, float]]:
    """Seconds of the bare import after torch, of every public name, and of the whole of ``steer --help``; each in a fresh process."""
    rows = []
    for _ in range(times + 1):
        done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", HELP], capture_output=True, check=True)
        rows.append((*map(float, done.stdout.split()), time.perf_counter() - began))
    return rows[1:]  # the first one fills the disk cache


if __name__ == "__main__":
    main()
