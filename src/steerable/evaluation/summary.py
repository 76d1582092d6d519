"""Summaries of a response: effect, leakage at matched change, two judges. Pure functions; nothing is generated here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks
from steerable.controls.directions import Directions, cosines
from steerable.evaluation.response import Response
from steerable.features.ready import JUDGES as JUDGES
from steerable.protocols import Latents


@dataclass(frozen=True)
class Effect:
    """What one knob did to the attribute of its name, at one amount: means over the latents."""

    knob: str
    unit: str
    amount: float
    measured: float
    spread: float
    judge: str
    second: float | None
    second_judge: str
    second_unit: str
    n: int
    seed: int


def effects(response: Response, *, judges: Mapping[str, str] = JUDGES, own: Mapping[str, str] | None = None) -> list[Effect]:
    """Asked against measured, by the knob's own column and by a second judge where there is one.

    Args:
        judges: column -> the column of a second, independent network.
        own: knob -> the column that measures it, where the names differ.
    """
    rows = []
    for k, knob in enumerate(response.knobs):
        column = (own or {}).get(knob.name, knob.name)
        if column not in response.columns:
            continue
        second = judges.get(column, "")
        second = second if second in response.columns else ""
        for a, amount in enumerate(response.amounts[k].tolist()):
            change = response.change[k, a]
            own_change = change[:, response.column(column)]
            rows.append(
                Effect(
                    knob=knob.name,
                    unit=knob.unit,
                    amount=amount,
                    measured=float(own_change.mean()),
                    spread=float(own_change.std()) if response.n > 1 else 0.0,
                    judge=column,
                    second=float(change[:, response.column(second)].mean()) if second else None,
                    second_judge=second,
                    second_unit=response.units[response.column(second)] if second else "",
                    n=response.n,
                    seed=response.seed,
                )
            )
    return rows


def leakage(
    response: Response, deviations: Float[Tensor, " m"], *, match: float = 1.0, own: Mapping[str, str] | None = None
) -> Float[Tensor, "k m"]:
    """How much every column moved when a knob moved its own by ``match`` standard deviations; both in standard deviations.

    Changes are interpolated between the measured amounts, on both sides, to the same change of the knob's own column, and
    averaged; where a knob does not get that far its furthest amount is scaled up linearly. NaN for a knob without a column of its own.

    Args:
        deviations: (m,) of the columns over unsteered images.
    """
    if deviations.shape != (len(response.columns),):
        raise ValueError(f"one deviation a column: expected ({len(response.columns)},), got {tuple(deviations.shape)}.")
    matrix = torch.full((len(response.knobs), len(response.columns)), torch.nan)
    mean = response.change.mean(2) / deviations.clamp(min=1e-12)  # (k, a, m)
    for k, knob in enumerate(response.knobs):
        name = (own or {}).get(knob.name, knob.name)
        if name not in response.columns:
            continue
        column = response.column(name)
        sides = []
        for sign in (-1, 1):
            side = (response.amounts[k] * sign > 0).nonzero()[:, 0]
            reached = mean[k, side, column] * sign
            if len(side) and float(reached.max()) > 0.05 * match:
                sides.append(sign * _at_change(match, reached, mean[k, side]))
        if sides:
            matrix[k] = torch.stack(sides).mean(0)
    return matrix


def _at_change(match: float, reached: Float[Tensor, " a"], changes: Float[Tensor, "a m"]) -> Float[Tensor, " m"]:
    """The changes where ``reached`` crosses ``match``: linear between zero and the measured amounts."""
    order = reached.argsort()
    xs = torch.cat([torch.zeros(1), reached[order]])
    ys = torch.cat([torch.zeros(1, changes.shape[1]), changes[order]])
    above = (xs >= match).nonzero()
    if not len(above):
        return ys[-1] * match / xs[-1]
    i = max(int(above[0]), 1)
    weight = (match - xs[i - 1]) / (xs[i] - xs[i - 1]).clamp(min=1e-12)
    return ys[i - 1] + weight * (ys[i] - ys[i - 1])


def largest_leaks(matrix: Float[Tensor, "k m"], response: Response, knob: str, *, count: int = 3) -> list[tuple[str, float]]:
    """The columns that move most beside the knob's own and its judges, with their leak in standard deviations."""
    names = [one.name for one in response.knobs]
    row = matrix[names.index(checks.known(knob, names, "knob"))]
    kin = {knob, JUDGES.get(knob, "")}
    order = row.abs().nan_to_num(-1).argsort(descending=True).tolist()
    return [(response.columns[i], float(row[i])) for i in order if response.columns[i] not in kin][:count]


def entanglement(
    directions: Directions, latents: Latents
) -> tuple[tuple[Float[Tensor, "k k"], Float[Tensor, "k k"]], tuple[Float[Tensor, "k k"], Float[Tensor, "k k"]]]:
    """What axes share before and after something was held: ((correlation before, after), (cosine before, after)).

    The correlation is that of the latents' coordinates along the axes over a population; before is the attributes' own gradients,
    after is the directions that are walked.
    """
    rows = latents.values.flatten(1).cpu().double()
    pairs = (directions.gradients.cpu(), directions.vectors.flatten(1).cpu())
    before, after = (torch.corrcoef((rows @ vectors.double().T).T).float() for vectors in pairs)
    return (before, after), (cosines(pairs[0]), cosines(pairs[1]))
