"""How far the axes are free of each other, by geometry and by measurement; and whether steered faces stay plausible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from steerable import render, zoo
from steerable.controls.directions import Directions, cosines
from steerable.evaluation.quality import path_quality
from steerable.evaluation.response import response
from steerable.evaluation.summary import leakage
from steerable.fitting.calibrate import coordinates
from steerable.report import Figure, Table, Text, number, signed
from steerable.sampling import columns_of
from steerable.scenes.cast import FIRST, MOVE, Cast, Scene, seeds_text

MAIN = ("yaw", "pitch", "smile", "mouth-open", "eye-open", "skin-brightness", "background-brightness", "hair-brightness")
DEVIATIONS = (-2.0, -1.0, 1.0, 2.0)  # of the population, along which plausibility is measured


def entanglement(cast: Cast) -> Scene:
    """Cosines, correlations and measured leak of the main axes, plain and with all the others held."""
    names, n = list(MAIN), cast.plan.response
    plain = cast.axes[names]
    others = {name: [other for other in names if other != name] for name in names}
    freed = replace(plain, vectors=torch.cat([cast.axis(name, others[name]).vectors for name in names]))
    leaks = [_measured(cast, control, names) for control in (plain, freed)]
    off = ~torch.eye(len(names), dtype=torch.bool)
    means = [float(leak[off].abs().nanmean()) for leak in leaks]
    verdict = (
        f"Turned until it has moved its own attribute by one standard deviation, a plain axis moves each of the other {len(names) - 1} by "
        f"{number(means[0], 2)} standard deviations, one that holds them by {number(means[1], 2)} (absolute value of the mean change over "
        f"n = {n} faces, seeds {seeds_text(n)}; judges: face mesh, expression network, person mask)."
    )
    heat = render.matrices(
        leaks[0],
        leaks[1],
        names,
        titles=("plain axes", "each axis with all the others held"),
        title="Measured leak: the row is turned by one sd of its own, the column moves by",
        unit="standard deviations",
    )
    told = f"Both sides at the same measured change of the row's own attribute (n = {n}, seeds {seeds_text(n)}; judges as in the table)."
    return Scene(
        (
            Text(verdict, "result"),
            Figure("leakage", render.figure_png(heat), told),
            _table(cast, names, leaks, n),
            *_geometry(cast, plain, freed),
        )
    )


def _measured(cast: Cast, control: Directions, names: Sequence[str]) -> Tensor:
    """(k, k) leak at one standard deviation of each knob's own attribute."""
    features = [one for one in cast.features if set(one.columns) & set(names)]
    columns, _ = columns_of(features)
    ends = {name: (-cast.deviation(name), cast.deviation(name)) for name in names}
    seen = response(cast.generator, control, features, amounts=ends, latents=cast.people(cast.plan.response), seed=FIRST)
    leak = leakage(seen, torch.tensor([cast.deviation(name) for name in columns]))
    return leak[:, [columns.index(name) for name in names]]


def _geometry(cast: Cast, plain: Directions, freed: Directions) -> tuple[Figure, Figure]:
    names = [knob.name for knob in plain.knobs]
    gradients = plain.gradients
    angles = render.matrices(
        cosines(gradients),
        normalize(gradients, dim=1) @ normalize(freed.vectors.flatten(1), dim=1).T,
        names,
        titles=("attribute (row), plain axis (column)", "attribute, axis that holds all others"),
        title="Cosines of the attributes' gradients and the axes",
        unit="cosine",
    )
    latents = cast.table.latents
    correlations = render.matrices(
        torch.corrcoef(torch.stack([cast.table.column(name) for name in names])),
        torch.corrcoef(torch.stack([coordinates(latents, vector) for vector in plain.vectors])),
        names,
        titles=("measured on the faces", "of the latents along the plain axes"),
        title="Correlations in the population",
        unit="correlation",
    )
    population = f"(n = {len(cast.table)}, seed {cast.seed}; judges as in the table of axes)"
    return (
        Figure(
            "cosines", render.figure_png(angles), f"Holding is exact in the linear model: zero off the diagonal, on the right {population}."
        ),
        Figure(
            "correlations",
            render.figure_png(correlations),
            f"How attributes come together, and how much of it the axes carry {population}.",
        ),
    )


def _table(cast: Cast, names: Sequence[str], leaks: Sequence[Tensor], n: int) -> Table:
    rows = []
    for k, name in enumerate(names):
        cells = []
        for leak in leaks:
            beside = leak[k].abs().clone()
            beside[k] = 0
            place = int(beside.nan_to_num().argmax())
            cells += [number(float(beside.sum() / (len(names) - 1)), 2), f"{names[place]} {signed(float(leak[k, place]))}"]
        rows.append((name, *cells, cast.judge(name), str(n), seeds_text(n)))
    header = ("axis", "plain: mean", "plain: largest", "held: mean", "held: largest", "judge", "n", "seeds")
    return Table("Leak into the other attributes, in their standard deviations, for one of the axis's own.", header, tuple(rows))


def plausible(cast: Cast) -> Scene:
    """Kernel distance along two held axes, with its floor."""
    n, seed = cast.plan.quality, cast.seed + 1
    network = zoo.load_backbone().to(cast.table.latents.values.device)
    rows, lines = [], {}
    for name in ("yaw", "smile"):
        amounts = [step * cast.deviation(name) for step in DEVIATIONS]
        path = path_quality(cast.generator, cast.axis(name, MOVE[name].hold), name, amounts, network=network, n=n, seed=seed)
        for amount, distance in zip(amounts, path.distances, strict=True):
            cells = (name, f"{signed(amount, 3)} {cast.unit(name)}", number(distance, 2), number(path.floor, 2))
            rows.append((*cells, "EfficientNet-Lite0", str(n), str(seed)))
        line = torch.tensor([*path.distances[:2], path.floor, *path.distances[2:]])
        lines[f"{name}, one sd = {number(cast.deviation(name))} {cast.unit(name)}"] = (line, line, line)
    plot = render.curves(
        torch.tensor([*DEVIATIONS[:2], 0.0, *DEVIATIONS[2:]]),
        lines,
        x_label="amount, in standard deviations of the population",
        y_label="kernel distance",
        title="How far steered faces are from unsteered ones",
    )
    caption = (
        f"Kernel distance (KID) of n = {n} steered to n = {n} other, unsteered faces (seed {seed}; judge: EfficientNet-Lite0). At "
        f"0 stands the floor: two unsteered draws. A steered set is further away also because everybody in it turns or smiles."
    )
    header = ("axis, with hold", "amount", "kernel distance", "floor", "judge", "n", "seeds")
    return Scene((Figure("plausible", render.figure_png(plot), caption), Table("Kernel distance along the path.", header, tuple(rows))))
