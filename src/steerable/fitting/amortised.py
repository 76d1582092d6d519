"""Fit the controller that answers at once: solutions of ``controls.solve`` are cached, and a small network learns to give them.

    sample -> solve -> relabel -> fit -> judge on latents that were in neither

A solution teaches by the value that it reached, not by the one that was asked: so every solution is exact, those that fell short too. And
every picture that was only measured teaches that its own value needs no offset. The linear part is a ridge regression, which latents of 100
numbers and some hundred rows allow; the network learns what is left, as long as it helps on a fifth of the rows that it does not see.

Sources: the network from a value to its latent is GAN-Control's (Shoshan et al., ICCV 2021, section 3.2); learning by what was reached is
Andrychowicz et al., "Hindsight experience replay", 2017, section 3.2.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerable import checks, files, progress
from steerable.controls.amortised import Controller, along
from steerable.controls.census import ridge
from steerable.controls.groups import layered
from steerable.controls.solution import Solution
from steerable.controls.solve import Solve
from steerable.protocols import Knob, Latents
from steerable.sampling import measure

PART = 32  # solutions of one cached part: what an interrupted run loses at most
MOST = 16  # directions
EXPLAINED = 0.99  # of the offsets' variance, by the directions that are kept


def fit_controller(
    solve: Solve,
    *,
    n: int = 384,
    population: int = 2000,
    held_out: int = 64,
    seed: int = 0,
    width: int = 64,
    steps: int = 600,
    lr: float = 2e-3,
    decay: float = 1e-1,
    cache: str | os.PathLike[str] | None = None,
) -> Controller:
    """A network from (latent, wanted values) to the offset, fitted on n solutions.

    Args:
        solve: the search that it imitates; its knobs and its holds are the controller's.
        n, seed: latents of the seed that are solved, each for values drawn between the 5th and the 95th percentile.
        population: further latents of the seed that are only measured.
        held_out: latents of seed + 1 on which search and network are compared.
        width, steps, lr, decay: of the network's two layers and of AdamW.
        cache: a folder that keeps the solutions in parts of 32; an interrupted run continues, a longer one adds.

    Raises:
        ValueError: fewer than 32 latents to fit on or 16 to judge by.
    """
    if n < 32 or held_out < 16:
        raise ValueError(f"a controller is fitted on n >= 32 solutions and judged on held_out >= 16, got n={n}, held_out={held_out}.")
    latents, wanted = _asked(solve, n, seed)
    offsets, reached = _solved(solve, latents, wanted, seed, cache)
    basis = _leading(offsets)
    solved = torch.cat([latents.values.flatten(1), reached], 1)
    more = measure(solve.generator, solve.columns, n=n + population, seed=seed, space=solve.space.name, cache=cache).rows(slice(n, None))
    inputs = torch.cat([solved, torch.cat([more.latents.values.flatten(1), more.values.to(solved)], 1)])
    places = torch.cat([offsets @ basis.T, solved.new_zeros(population, len(basis))])
    centre, spread = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    seen = (inputs - centre) / spread
    slopes = torch.stack([ridge(seen, place) for place in places.unbind(1)])
    straight = torch.cat([slopes, (places.mean(0) - slopes @ seen.mean(0))[:, None]], 1)
    layers = _learned(seen, places - along(straight, seen), width, steps, lr, decay, seed)
    fit: dict[str, Any] = {"method": "controller", "n": n, "held out": held_out, "seed": seed, "hold": [one.name for one in solve.hold]}
    fit |= {"population": population, "width": width, "steps": steps, "lr": lr, "decay": decay}
    made = Controller(tuple(_range(knob) for knob in solve.knobs), solve.space, basis, straight, layers, centre, spread, fit)
    return replace(made, fit={**fit, "errors": judged(made, solve, held_out=held_out, seed=seed + 1)})


def judged(controller: Controller, solve: Solve, *, held_out: int, seed: int) -> dict[str, dict[str, float]]:
    """Both on the same latents and values: mean absolute errors by the network asked, and by a second one; n and standard errors."""
    latents, wanted = _asked(solve, held_out, seed)
    by_search = solve.solve(latents, wanted)
    at_once = solve.accounted(latents, controller.steer(latents, wanted), wanted)
    rows = {}
    for k, knob in enumerate(controller.knobs):
        off, second = at_once.error[:, k].abs(), (at_once.second[:, k] - at_once.requested[:, k]).abs()
        same_unit = bool(at_once.gap[:, k].isfinite().all())
        rows[knob.name] = {
            "mean": float(off.mean()),
            "standard error": float(off.std() / held_out**0.5),
            "p90": float(off.quantile(0.9)),
            "search": float(by_search.error[:, k].abs().mean()),
            "n": held_out,
            "seed": seed,
        }
        if same_unit:
            of_search = (by_search.second[:, k] - by_search.requested[:, k]).abs()
            rows[knob.name] |= {"second": float(second.mean()), "search, second": float(of_search.mean())}
    return rows


def _asked(solve: Solve, n: int, seed: int) -> tuple[Latents, Float[Tensor, "n k"]]:
    """Latents of a seed, and values drawn evenly between the 5th and the 95th percentile; row i does not depend on n."""
    latents = solve.generator.sample(n, seed=seed, space=solve.space.name)
    shares = torch.tensor(np.array([np.random.default_rng([seed, row]).random(len(solve.knobs)) for row in range(n)]), dtype=torch.float32)
    low, high = (torch.tensor([knob.value_at(rank) for knob in solve.knobs]) for rank in (5, 95))
    return latents, (low + (high - low) * shares).to(latents.values)


def _range(knob: Knob) -> Knob:
    """The knob with the range that was fitted on."""
    return replace(knob, low=knob.value_at(5), high=knob.value_at(95))


def _solved(
    solve: Solve, latents: Latents, wanted: Tensor, seed: int, cache: str | os.PathLike[str] | None
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
    """Offsets and reached values of every latent, from the cache where they are there."""
    from safetensors.torch import load, save

    folder = None if cache is None else Path(cache) / f"solutions-{_key(solve, seed)}"
    parts = []
    for start in progress.track(range(0, len(latents), PART), "solve"):
        rows = slice(start, start + PART)
        path = None if folder is None else folder / f"rows-{start:06d}.safetensors"
        kept = load(path.read_bytes()) if path is not None and path.is_file() else {}
        if len(kept.get("reached", ())) < len(latents[rows]):
            found: Solution = solve.solve(latents[rows], wanted[rows])
            offsets = (found.latents.values - latents[rows].values).flatten(1)
            kept = {"offsets": offsets.contiguous(), "reached": found.reached.contiguous()}
            if path is not None:
                files.write_bytes(path, save(kept))
        parts.append({name: rows_of[: len(latents[rows])] for name, rows_of in kept.items()})
    offsets, reached = (torch.cat([part[name] for part in parts]).to(latents.values) for name in ("offsets", "reached"))
    return checks.finite(offsets, "the cached solutions"), checks.finite(reached, "the cached solutions")


def _key(solve: Solve, seed: int) -> str:
    """What makes two searches the same."""
    lines = b"" if solve.axes is None else solve.axes.vectors.numpy().tobytes()
    names = [[knob.name for knob in solve.knobs], [one.name for one in solve.hold], list(solve.weights)]
    told = [
        solve.space.fingerprint,
        solve.space.name,
        names,
        asdict(solve.effort),
        len(solve.census),
        seed,
        hashlib.sha256(lines).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _leading(offsets: Float[Tensor, "n d"]) -> Float[Tensor, "r d"]:
    """The fewest directions that explain the offsets, no more than ``MOST``."""
    _, sizes, right = torch.linalg.svd(offsets, full_matrices=False)
    share = sizes.square().cumsum(0) / sizes.square().sum().clamp(min=1e-30)
    return right[: min(int((share < EXPLAINED).sum()) + 1, MOST)].contiguous()  # as a file keeps it: products are then the same to the bit


def _learned(x: Tensor, y: Tensor, width: int, steps: int, lr: float, decay: float, seed: int) -> tuple[Tensor, ...]:
    """Two hidden layers that begin as nothing; of all steps the one that did best on every fifth row, which they were not fitted on."""
    rng = torch.Generator().manual_seed(seed)
    sizes, scale = (x.shape[1], width, width, y.shape[1]), y.std().clamp(min=1e-9)
    layers: list[nn.Parameter] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Parameter(torch.randn(narrow, wide, generator=rng) / wide**0.5), nn.Parameter(torch.zeros(narrow))]
    nn.init.zeros_(layers[-2])
    unseen = torch.arange(len(x)) % 5 == 4
    rule = torch.optim.AdamW(layers, lr=lr, weight_decay=decay)
    best, kept = torch.inf, [layer.detach().clone() for layer in layers]
    for _ in progress.track(range(steps), "fit the controller"):
        squares = (layered(tuple(layers), x) - y / scale).square().sum(1)
        unlearned = float(squares.detach()[unseen].mean())
        if unlearned < best:
            best, kept = unlearned, [layer.detach().clone() for layer in layers]
        rule.zero_grad()
        squares[~unseen].mean().backward()
        rule.step()
    return (*kept[:-2], kept[-2] * scale, kept[-1] * scale)
