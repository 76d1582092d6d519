"""Fit the controller that answers at once: solutions of ``controls.solve`` are cached, and a small network learns to give them.

    sample -> solve -> relabel -> learn to read -> learn to answer -> judge on latents that were in neither

A solution teaches by the value that it reached, not by the one that was asked: so every solution is exact, those that fell short too.
Solutions are dear, measurements are cheap: of those a second network F learns what a latent measures without its picture, and the
controller C is then taught through it, on any latent and any values,

    |F(z + C(z, y)) - y|^2  +  a |C(z*, y*) - (solution of z*)|^2 / s^2  +  a |C(z, F(z))|^2 / s^2

y are values of the population in its deviations, z* were solved and reached y*, s^2 is the solutions' mean square. The second term keeps C
to what the search would do, which is where what is held is known from; the third leaves a picture alone that has its value. Every answer
lies in the few directions that the solutions lie in, so that C cannot look for latents that merely please F.

Sources: the network from a value to its latent is GAN-Control's (Shoshan et al., ICCV 2021, section 3.2); learning by what was reached is
Andrychowicz et al., "Hindsight experience replay", 2017, section 3.2; teaching through a network that foretells what comes of an answer is
Jordan & Rumelhart, "Forward models: supervised learning with a distal teacher", 1992, section 3.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
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
LIKE = 0.1  # a, the weight of the solutions and of staying
BATCH = 256  # rows of a step


def fit_controller(
    solve: Solve,
    *,
    n: int = 384,
    population: int = 6000,
    held_out: int = 64,
    seed: int = 0,
    width: int = 128,
    steps: int = 1500,
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
        width, steps, lr, decay: of the two layers of either network and of AdamW.
        cache: a folder that keeps the solutions in parts of 32; an interrupted run continues, a longer one adds.

    Raises:
        ValueError: fewer than 32 latents to fit on or 16 to judge by.
    """
    if n < 32 or held_out < 16:
        raise ValueError(f"a controller is fitted on n >= 32 solutions and judged on held_out >= 16, got n={n}, held_out={held_out}.")
    latents, wanted = _asked(solve, n, seed)
    offsets, reached = _solved(solve, latents, wanted, seed, cache)
    basis = _leading(offsets)
    table = measure(solve.generator, solve.columns, n=n + population, seed=seed, space=solve.space.name, cache=cache)
    solved = torch.cat([latents.values.flatten(1), reached], 1)
    read = torch.cat([table.latents.values.flatten(1), table.values.to(solved)], 1)
    centre, spread = read.mean(0), read.std(0).clamp(min=1e-6)
    size, told = latents.values[0].numel(), {"width": width, "steps": steps, "lr": lr, "decay": decay}
    ends = torch.cat([solved[:, :size] + offsets, reached], 1)
    reader = _reader((torch.cat([read, ends]) - centre) / spread, size, seed=seed, **told)
    low, high = (torch.tensor([knob.value_at(rank) for knob in solve.knobs]).to(solved) for rank in (5, 95))
    straight, *layers = _answers(
        reader,
        (read - centre) / spread,
        (solved - centre) / spread,
        offsets @ basis.T,
        basis / spread[:size],
        between=tuple((end - centre[size:]) / spread[size:] for end in (low, high)),
        seed=seed,
        **told,
    )
    fit: dict[str, Any] = {"method": "controller", "n": n, "held out": held_out, "seed": seed, "hold": [one.name for one in solve.hold]}
    fit |= {"population": population, **told}
    knobs = tuple(_range(knob) for knob in solve.knobs)
    made = Controller(knobs, solve.space, basis, straight, tuple(layers), centre, spread, fit)
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


def _reader(rows: Float[Tensor, "n i"], size: int, *, width: int, steps: int, lr: float, decay: float, seed: int) -> list[Tensor]:
    """F: what a latent measures, both in deviations; of all steps the one that did best on every fifth row, which it did not learn from."""
    rng = torch.Generator().manual_seed(seed)
    x, y = rows[:, :size], rows[:, size:]
    network = _begun(x, y, width, rng)
    fifth = torch.arange(len(x)) % 5 == 4
    unseen, seen = fifth.nonzero()[:, 0], (~fifth).nonzero()[:, 0]

    def off(some: Tensor) -> Tensor:
        return (_given(network, x[some]) - y[some]).square().sum(1).mean()

    _descend(
        network,
        lambda: off(seen[torch.randint(len(seen), (BATCH,), generator=rng)]),
        steps,
        lr,
        decay,
        "learn to read",
        lambda: off(unseen),
    )
    return [layer.detach() for layer in network]


def _answers(
    reader: list[Tensor],
    read: Float[Tensor, "m i"],
    solved: Float[Tensor, "n i"],
    places: Float[Tensor, "n r"],
    basis: Float[Tensor, "r d"],
    *,
    between: tuple[Tensor, ...],
    width: int,
    steps: int,
    lr: float,
    decay: float,
    seed: int,
) -> list[Tensor]:
    """C: [z, y] -> places along the basis, taught through the reader."""
    rng = torch.Generator().manual_seed(seed + 1)
    size, scale = basis.shape[1], places.square().sum(1).mean().clamp(min=1e-18).sqrt()
    network, (low, high) = _begun(solved, places / scale, width, rng), between

    def off() -> Tensor:
        z = read[torch.randint(len(read), (BATCH,), generator=rng), :size]
        y = low + (high - low) * torch.rand(BATCH, len(low), generator=rng).to(z)
        some = torch.randint(len(solved), (BATCH,), generator=rng)
        came = _given(reader, z + scale * _given(network, torch.cat([z, y], 1)) @ basis)
        unlike = (_given(network, solved[some]) - places[some] / scale).square().sum(1)
        left = _given(network, torch.cat([z, _given(reader, z)], 1)).square().sum(1)
        return (came - y).square().sum(1).mean() + LIKE * (unlike.mean() + left.mean())

    _descend(network, off, steps, lr, decay, "learn to answer")
    straight, *layers = (layer.detach() for layer in network)
    return [scale * straight, *layers[:-2], scale * layers[-2], scale * layers[-1]]


def _begun(x: Float[Tensor, "n i"], y: Float[Tensor, "n o"], width: int, rng: torch.Generator) -> list[nn.Parameter]:
    """A ridge regression, and two hidden layers beside it that begin as nothing."""
    slopes = torch.stack([ridge(x, column) for column in y.unbind(1)])
    layers = [nn.Parameter(torch.cat([slopes, (y.mean(0) - slopes @ x.mean(0))[:, None]], 1))]
    for wide, narrow in pairwise((x.shape[1], width, width, y.shape[1])):
        layers += [nn.Parameter((torch.randn(narrow, wide, generator=rng) / wide**0.5).to(x)), nn.Parameter(x.new_zeros(narrow))]
    nn.init.zeros_(layers[-2])
    return layers


def _given(network: Sequence[Tensor], x: Tensor) -> Tensor:
    return along(network[0], x) + layered(tuple(network[1:]), x)


def _descend(
    network: list[nn.Parameter],
    loss: Callable[[], Tensor],
    steps: int,
    lr: float,
    decay: float,
    label: str,
    judge: Callable[[], Tensor] | None = None,
) -> None:
    """AdamW with a step size that falls as a cosine; with a judge, looked at every 20 steps, the best weights are kept."""
    rule = torch.optim.AdamW(network, lr=lr, weight_decay=decay)
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(rule, steps)
    best, kept = float("inf"), [layer.detach().clone() for layer in network]
    for step in progress.track(range(steps + 1), label):
        if judge is not None and step % 20 == 0:
            with torch.no_grad():
                now = float(judge())
            if now < best:
                best, kept = now, [layer.detach().clone() for layer in network]
        if step == steps:
            break
        rule.zero_grad()
        loss().backward()
        rule.step()
        falls.step()
    if judge is not None:
        for layer, good in zip(network, kept, strict=True):
            layer.data = good
