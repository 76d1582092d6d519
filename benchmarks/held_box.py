"""Hold the pixels of a box, move all others: a trajectory beside the best straight directions.

    python benchmarks/held_box.py [--quick]

Each of 32 faces that nothing was tuned on (seeds 1000 on) is moved until the mean squared pixel change outside the box is 0.10 (images in
[-1, 1]), and the change inside is what counts. Beside the trajectory, at the same change outside, found by bisection on the length:

    own first direction   the trajectory's first direction of each face, kept; of both signs the one that leaks less
    one for all faces     the generalised eigenvector of the Gram matrices averaged over as many other faces; better sign
    random                a random direction; better sign
    most change           the direction that changes the outside most, whatever happens inside; better sign

The last line is all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import torch
from torch import Tensor

from steerable import load_generator
from steerable.controls.rayleigh import ranked
from steerable.controls.trajectory import Path, Trajectory, joined_paths
from steerable.features.pixels import Box, RegionPixels
from steerable.protocols import Generator, Latents
from steerable.sampling import latents_of
from steerable.sensitivity import jacobian

BOX = Box(top=16, left=18, bottom=52, right=46)  # the face
OUTSIDE = 0.10  # squared pixel change that is asked for
GOAL = 0.001  # and the most that may happen inside
DAMPING = 0.1
FARTHEST = 12.0  # of a straight direction, in latent units: a face is about 10 away from the mean face


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 faces instead of 32")
    count = 4 if parser.parse_args().quick else 32
    generator = load_generator("faces64")
    seeds = range(1000, 1000 + count)
    latents = latents_of(generator, seeds)
    regions = Regions(generator)

    began = time.perf_counter()
    path, signs = walked(Trajectory(generator, move=regions.outside, hold=regions.inside), latents)
    seconds = time.perf_counter() - began
    jacobians = (path.moved.diff(dim=0) != 0).sum(0).float()
    rows = {"trajectory": summary(path.moved[-1].square(), path.drift[-1].square(), path.reached)}

    own, most = own_directions(regions, latents)
    other = latents_of(generator, range(3000, 3000 + count))
    shared = shared_direction(regions, other).expand_as(own)
    rng = torch.Generator().manual_seed(0)
    random = torch.randn(own.shape, generator=rng)
    straight = {"own first direction": own, "one for all faces": shared, "random": random, "most change": most}
    rows |= {name: summary(*straightened(regions, latents, directions)) for name, directions in straight.items()}

    print(f"faces64, box rows {BOX.top}-{BOX.bottom}, columns {BOX.left}-{BOX.right}; n = {count}, seeds {seeds[0]}-{seeds[-1]}")
    print(f"judge: mean squared pixel change, images in [-1, 1]; asked outside {OUTSIDE:.2f}, allowed inside {GOAL:g}\n")
    print(f"{'':22}{'reached':>9}{'outside':>10}{'inside':>10}{'worst':>10}{'inside, all':>13}{'outside, all':>14}")
    for name, row in rows.items():
        figures = (row["outside"], row["inside"], row["worst inside"], row["inside of all"], row["outside of all"])
        texts = [f"{figure:.5f}" if figure is not None else "-" for figure in figures]
        print(f"{name:22}{row['reached']:>6}/{count}{texts[0]:>10}{texts[1]:>10}{texts[2]:>10}{texts[3]:>13}{texts[4]:>14}")
    print(f"\ninside, outside: means over the faces that reached {OUTSIDE:.2f}; all: with the others where they ended.")
    flipped = int((signs < 0).sum())
    print(f"trajectory: {seconds:.0f} s for {count} faces, {jacobians.mean():.1f} steps a face (at most {int(jacobians.max())});")
    print(f"{flipped} of the faces went the other way, since the first way did not reach. Load {os.getloadavg()[0]:.1f}.\n")
    figures = {"n": count, "seed": seeds[0], "seconds": seconds, "steps": float(jacobians.mean()), "flipped": flipped, **rows}
    print(json.dumps({"benchmark": "held_box", "goal": GOAL, "load": os.getloadavg()[0], **figures}))


class Regions:
    """Both sides of the box as functions of latent values."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.inside = RegionPixels(BOX, generator.image_shape, name="inside")
        self.outside = RegionPixels(BOX, generator.image_shape, invert=True, name="outside")
        self.width = len(self.outside.columns)

    def __call__(self, values: Tensor) -> Tensor:
        """(n, d) -> (n, pixels), outside first."""
        images = self.generator(Latents(values, self.generator.spaces["z"]))
        return torch.cat([self.outside(images), self.inside(images)], dim=1)

    def change(self, start: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared change outside and inside, (n,) each."""
        with torch.inference_mode():
            moved = (self(values) - start).square()
        return moved[:, : self.width].mean(1), moved[:, self.width :].mean(1)

    def grams(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """J'J of the outside and of the inside, (n, d, d) each."""
        _, jac = jacobian(self, values)
        move, hold = (part.mT @ part / part.shape[1] for part in (jac[:, : self.width], jac[:, self.width :]))
        return move, hold


def walked(control: Trajectory, latents: Latents) -> tuple[Path, Tensor]:
    """Every face to the amount, and where that fails, to its opposite."""
    amounts = torch.full((len(latents), 1), OUTSIDE**0.5)
    there = control.path(latents, amounts)
    failed = (~there.reached).nonzero()[:, 0]
    if not len(failed):
        return there, amounts[:, 0]
    amounts[failed] *= -1
    back = control.path(latents[failed], amounts[failed])
    amounts[failed[~back.reached]] *= -1
    order = torch.arange(len(latents))
    order[failed[back.reached]] = len(latents) + back.reached.nonzero()[:, 0]
    return joined_paths([there, back]).rows(order), amounts[:, 0]


def own_directions(regions: Regions, latents: Latents) -> tuple[Tensor, Tensor]:
    """For each face the trajectory's first direction, and the one of most change outside."""
    first, most = [], []
    for row in latents.values.split(1):
        move, hold = regions.grams(row)
        first.append(ranked(move, hold, damping=DAMPING).vectors[:, 0])
        most.append(torch.linalg.eigh(move)[1][..., -1])
    return torch.cat(first), torch.cat(most)


def shared_direction(regions: Regions, latents: Latents) -> Tensor:
    grams = [regions.grams(row) for row in latents.values.split(1)]
    move, hold = (torch.cat([pair[i] for pair in grams]).mean(0, keepdim=True) for i in (0, 1))
    return ranked(move, hold, damping=DAMPING).vectors[:, 0]


def straightened(regions: Regions, latents: Latents, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outside, inside and whether it was reached, of the better sign of each row's direction, at the asked change outside."""
    unit = directions / directions.norm(dim=1, keepdim=True)
    with torch.inference_mode():
        start = regions(latents.values)
    sides = [bisected(regions, latents.values, start, sign * unit) for sign in (1, -1)]
    (out_a, in_a, got_a), (out_b, in_b, got_b) = sides
    second = (got_b & ~got_a) | ((got_a == got_b) & (in_b < in_a))
    return torch.where(second, out_b, out_a), torch.where(second, in_b, in_a), got_a | got_b


def bisected(regions: Regions, z: Tensor, start: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first length at which the outside has changed enough: a coarse walk until it has, then halvings."""
    low, high = torch.zeros(len(z)), torch.full((len(z),), FARTHEST)
    for length in torch.arange(0.5, FARTHEST + 0.1, 0.5).tolist():
        reached = regions.change(start, z + length * unit)[0] >= OUTSIDE
        high = torch.where(reached & (high == FARTHEST), length, high)
    low = (high - 0.5).clamp(min=0)
    for _ in range(9):
        middle = (low + high) / 2
        over = regions.change(start, z + middle[:, None] * unit)[0] >= OUTSIDE
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    outside, inside = regions.change(start, z + high[:, None] * unit)
    return outside, inside, outside >= 0.98**2 * OUTSIDE


def summary(outside: Tensor, inside: Tensor, reached: Tensor) -> dict[str, float | int | None]:
    some = bool(reached.any())
    return {
        "reached": int(reached.sum()),
        "outside": float(outside[reached].mean()) if some else None,
        "inside": float(inside[reached].mean()) if some else None,
        "worst inside": float(inside[reached].max()) if some else None,
        "inside of all": float(inside.mean()),
        "outside of all": float(outside.mean()),
    }


if __name__ == "__main__":
    main()
