"""What derivatives cost: Jacobians, steps kept current by low-rank updates, and steps without matrices.

    python benchmarks/sensitivity.py [--quick] [--only step,growth] [--figure sensitivity.png]

    all pixels    the Jacobian of every pixel of faces64 against generating 100 images in one batch (goal: 1.3 times as long), and that of
                  768 outputs (the picture at 16 x 16) against torch.autograd.functional.jacobian on the same (goal: 10 times as fast)
    a step        of a trajectory that holds a box, its Jacobian kept current by warm-started low-rank updates, against the same step with
                  the full Jacobian made anew (goal: 4 times as fast, at Rayleigh quotients within 2 % of the full one's: of the best
                  direction, and of the one that leads on)
    matrix-free   passes through a style-based generator with random weights, 512-wide w, 64 px: a step by products alone against the full
                  Jacobian (goal: at most an eighth), and how good its direction is
    growth        passes and seconds of both with w 64 to 512 wide and pictures of 32 to 128 px; drawn with --figure

The first two are wall time, the shortest of several, alternating, in one process on the threads that torch has; the last two are seconds of
processor. The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steerable import files, load_generator, render
from steerable.controls import growth, rayleigh
from steerable.controls.driving import Drive
from steerable.controls.trajectory import Trajectory
from steerable.features.pixels import Box, RegionPixels, thumbnail
from steerable.generators.module import ModuleGenerator, generator_of
from steerable.generators.stylegan2 import StyleGAN2
from steerable.protocols import Generator
from steerable.sampling import latents_of
from steerable.sensitivity import Generated, jacobian

BOX = Box(16, 18, 52, 46)
MOVED = 0.3  # of a deviation: how far the point of a later step lies from the start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and growth at two widths and sizes only")
    parser.add_argument("--only", help="jacobian, step, matrix-free or growth, several with commas; all by default")
    parser.add_argument("--figure", type=Path, help="also draw the growth into this PNG")
    asked = parser.parse_args()
    parts = {
        "jacobian": lambda: jacobians(2 if asked.quick else 5),
        "step": lambda: steps(8 if asked.quick else 30),
        "matrix-free": wide,
        "growth": lambda: growing(
            ((64, 256), (32, 64)) if asked.quick else ((64, 128, 256, 512), (32, 64, 128)), 32 if asked.quick else 64
        ),
    }
    names = [one.strip() for one in asked.only.split(",")] if asked.only else list(parts)
    if unknown := [name for name in names if name not in parts]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(parts)}")
    figures: dict[str, Any] = {"threads": torch.get_num_threads()} | {name: parts[name]() for name in names}
    if asked.figure and "growth" in figures:
        print(f"written: {files.write_bytes(asked.figure, render.figure_png(drawn(figures['growth'])))}")
    figures["load"] = os.getloadavg()[0]
    print(json.dumps({"benchmark": "sensitivity", **figures}))


def wide() -> dict[str, float]:
    found = matrix_free(512, 64)
    print("matrix-free, style-based generator with random weights, w 512 wide, 64 px, box held; passes through the generator:")
    print(f"  full Jacobian {found['full']:.0f}; first step {found['cold']:.0f}, quality {found['cold_quality']:.3f};")
    share = found["full"] / found["warm"]
    print(f"  a step on the way {found['warm']:.0f}, 1/{share:.1f} of the full one, quality {found['warm_quality']:.3f}")
    print("  quality: Rayleigh quotient over that of the full solution\n", flush=True)
    return found


def growing(ends: tuple[tuple[int, ...], tuple[int, ...]], side: int) -> dict[str, dict[int, dict[str, float]]]:
    """Passes and seconds against the width of w, pictures of ``side`` pixels, and against the size of pictures, w 128 wide."""
    print(f"{'':22}{'passes, full':>14}{'passes, free':>14}{'s, full':>9}{'s, free':>9}{'quality':>9}")
    figures: dict[str, dict[int, dict[str, float]]] = {"width": {}, "size": {}}
    for kind, unit, numbers in (("width", "wide", ends[0]), ("size", "px", ends[1])):
        for number in numbers:
            one = matrix_free(number, side) if kind == "width" else matrix_free(128, number)
            figures[kind][number] = one
            row = f"{one['full']:>14}{one['warm']:>14}{one['full_s']:>9.2f}{one['warm_s']:>9.2f}{one['warm_quality']:>9.3f}"
            print(f"{f'{number} {unit}':22}{row}", flush=True)
    return figures


def timed(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """The shortest time of each, taking turns; the first round does not count."""
    best = [float("inf")] * len(calls)
    for number in range(repeats + 1):
        for i, call in enumerate(calls):
            began = time.perf_counter()
            call()
            if number:
                best[i] = min(best[i], time.perf_counter() - began)
    return best


def jacobians(repeats: int) -> dict[str, float]:
    generator = load_generator("faces64")
    one, many = latents_of(generator, [1000]), generator.sample(100, seed=0)
    pixels = RegionPixels(Box(0, 0, 64, 64), generator.image_shape, name="pixels")
    small = thumbnail(16)
    everything, reduced = Generated(generator, (pixels,), one), Generated(generator, (small,), one)

    def images() -> object:
        with torch.no_grad():
            return generator(many)

    whole, batch, ours = timed(
        repeats, lambda: jacobian(everything, one.values), images, lambda: jacobian(reduced, one.values, method="forward")
    )
    (theirs,) = timed(max(1, repeats // 3), lambda: torch.autograd.functional.jacobian(reduced, one.values))
    plan = jacobian(everything, one.values).plan
    print(f"faces64, seed 1000; {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    print(f"Jacobian of all 12,288 pixels {whole:.3f} s; 100 images in one batch {batch:.3f} s: {whole / batch:.2f} times ({plan})")
    print(f"Jacobian of 768 outputs {ours:.3f} s; torch.autograd.functional.jacobian {theirs:.2f} s: {theirs / ours:.0f} times faster;")
    print(f"all pixels against its 768 outputs: {theirs / whole:.0f} times faster\n", flush=True)
    return {"all_pixels_s": whole, "images_s": batch, "ratio": whole / batch, "outputs_s": ours, "torch_s": theirs, "faster": theirs / ours}


def steps(count: int) -> dict[str, float]:
    """One drive, each of whose steps is timed with low-rank updates and again, from the same place, with the full Jacobian."""
    generator = load_generator("faces64")
    shape = generator.image_shape
    outside, inside = RegionPixels(BOX, shape, invert=True, name="outside"), RegionPixels(BOX, shape, name="inside")
    drive = Drive(generator, move=outside, hold=inside, judge=None)
    drive.begin(latents_of(generator, [1000]))
    warm, full, best, onward = [], [], [], []
    for number in range(count):
        began = time.perf_counter()
        drive.step(1 if number == 0 else None, 0.03)
        warm.append(time.perf_counter() - began)
        found, ours = drive.onward(), (drive.jac, list(drive.grams), drive.free, drive.factor, drive.ridge)
        began = time.perf_counter()
        drive.renew()
        full.append(time.perf_counter() - began)
        move, hold = drive.grams
        best.append(_share(ours[2][0], drive.free[0], move, hold, float(drive.ridge)))
        ideal = drive.onward()
        if found is not None and ideal is not None:
            gradient = drive.gradient()
            onward.append(_share(found, ideal, torch.outer(gradient, gradient), hold, float(drive.ridge)))
        drive.jac, drive.grams, drive.free, drive.factor, drive.ridge = ours
    (refresh,) = timed(3, drive.refresh)
    middle = sorted(warm)[len(warm) // 2]
    other = max(middle - refresh, 0.0)  # of a step: its images and the choice between them
    made = other + sorted(full)[len(full) // 2]
    print(f"a step of a held box: {middle * 1e3:.0f} ms warm, {made * 1e3:.0f} ms with the full Jacobian: {made / middle:.1f} times;")
    print(f"{1 / middle:.1f} steps a second. Rayleigh quotients, warm over full, of {count} steps:")
    figures = {"warm_s": middle, "full_s": made, "faster": made / middle, "steps": count}
    for name, line, shares in (("quotient", "best direction", best), ("onward", "the way on", onward)):
        mean, worst = sum(shares) / len(shares), min(shares)
        print(f"  {line:16} mean {mean:.3f}, worst {worst:.3f}")
        figures |= {name: mean, f"{name}_worst": worst}
    print()
    return figures


def _share(ours: torch.Tensor, ideal: torch.Tensor, move: torch.Tensor, hold: torch.Tensor, ridge: float) -> float:
    """Rayleigh quotient of a direction over that of the ideal one."""
    return _quotient(ours, move, hold, torch.tensor(ridge)) / _quotient(ideal, move, hold, torch.tensor(ridge))


def style_based(width: int, size: int) -> ModuleGenerator:
    """Random weights of a fixed seed; 64 channels at the most, so that what is counted does not take all day."""
    rng = torch.Generator().manual_seed(0)
    doublings = size.bit_length() - 3
    network = StyleGAN2([["z", [width] * 3]], [max(64 // 2 ** max(i - 2, 0), 16) for i in range(doublings + 1)])
    network.initialise(rng)
    return generator_of(network, name="style-based")


def matrix_free(width: int, size: int) -> dict[str, float]:
    """Passes, seconds and quality of the first and of a later step by products, beside the full Jacobian at the same places.

    Quality is a Rayleigh quotient over that of the full solution: at the start of the best direction, later of the direction of growth.
    """
    generator: Generator = style_based(width, size)
    shape = generator.image_shape
    box = Box(size // 4, size // 4, 3 * size // 4, 3 * size // 4)
    outside, inside = RegionPixels(box, shape, invert=True, name="outside"), RegionPixels(box, shape, name="inside")
    control = Trajectory(generator, move=outside, hold=inside, judge=None, space="w")
    full, free = control.steps, replace(control.steps, solver="matrix-free")
    latents = generator.sample(1, seed=1000, space="w")
    sides = control.around(latents)
    z, start = latents.values, sides.measured(latents.values)
    sides.operator(z).push(torch.zeros(1, 1, width))  # what torch does once does not count

    began = time.process_time()
    truth = growth.derivatives(sides, z, full)
    spent = {"full_s": time.process_time() - began}
    began = time.process_time()
    cold = growth.derivatives(sides, z, free)
    spent["cold_s"] = time.process_time() - began
    assert cold.span is not None
    best = growth.first_directions(sides, truth, full)[0, 0]
    found = cold.outside(growth.first_directions(sides, cold, free)[:, 0])[0]
    ridge = full.damping * truth.floor[0]
    quality = _quotient(found, truth.moves.total[0], truth.holds.total[0], ridge)
    quality /= _quotient(best, truth.moves.total[0], truth.holds.total[0], ridge)

    step = found * (MOVED / float(_quadratic(found, truth.moves.total[0]) ** 0.5))
    there = z + step.view_as(z)
    change = sides.measured(there) - start
    carried = cold.span.kept(growth.first_directions(sides, cold, free))
    truth = growth.derivatives(sides, there, full)
    began = time.process_time()
    warm = growth.derivatives(sides, there, free, change, carried)
    spent["warm_s"] = time.process_time() - began
    assert warm.span is not None
    moved = change[:, : sides.width] / sides.width**0.5
    gradient = truth.push(moved)[0]
    d = len(gradient)
    ridge = full.damping * truth.floor[0]
    ideal = torch.linalg.solve(truth.holds.total[0] + ridge * torch.eye(d), gradient)
    _, hold = warm.span.grams
    inner = torch.linalg.solve(hold[0] + ridge * torch.eye(hold.shape[1]), warm.push(moved)[0])
    ours = warm.outside(inner[None])[0]
    grown = torch.outer(gradient, gradient)
    later = _quotient(ours, grown, truth.holds.total[0], ridge) / _quotient(ideal, grown, truth.holds.total[0], ridge)
    return {"full": d, "cold": cold.span.passes, "warm": warm.span.passes, "cold_quality": quality, "warm_quality": later, **spent}


def _quadratic(v: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    return rayleigh.quadratic(gram[None].double(), v[None, None].double())[0, 0]


def _quotient(v: torch.Tensor, move: torch.Tensor, hold: torch.Tensor, ridge: torch.Tensor) -> float:
    return float(_quadratic(v, move) / (_quadratic(v, hold) + ridge * v.double().square().sum()))


def drawn(figures: dict[str, Any]):  # type: ignore[no-untyped-def]
    """Passes and seconds against the width of the latent and the size of the picture."""
    figure = render.new_figure(10, 6.4, "A trajectory's step with the full Jacobian and by products alone")
    for column, (kind, x_label) in enumerate((("width", "numbers of w"), ("size", "side of the picture in pixels (w 128 wide)"))):
        x = [int(number) for number in figures[kind]]
        for row, (suffix, y_label) in enumerate((("", "passes through the generator"), ("_s", "seconds of processor"))):
            axes = figure.add_subplot(2, 2, 1 + column + 2 * row)
            render.dressed(axes, x_label, y_label)
            for i, (name, label) in enumerate(
                (("full", "full Jacobian"), ("cold", "products, first step"), ("warm", "products, on the way"))
            ):
                values = [one[f"{name}{suffix}"] for one in figures[kind].values()]
                axes.plot(x, values, ("o-", "o--", "o-")[i], color=render.COLOURS[i], label=label, linewidth=1.6, markersize=4)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.set_xticks(x, [str(number) for number in x])
            axes.minorticks_off()
            if not column and not row:
                axes.legend(fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    main()
