"""What happens to measured features when a latent moves a little: the one local linear model of the project.

``local(z)`` maps latent values (n, *shape) to features (n, m), row by row. Trajectories, values set by number and exact locks all ask
their questions of its Jacobian ``J`` (n, m, d).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp, vmap

Local = Callable[[Tensor], Tensor]
Method = Literal["auto", "forward", "reverse", "difference"]


def jacobian(
    local: Local, values: Tensor, *, method: Method = "auto", chunk: int = 25, step: float = 1e-2
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m d"]]:
    """Features at the latents, and their Jacobian with respect to the flattened latents.

    Args:
        local: row-wise function from latents (n, *shape) to features (n, m).
        values: (n, *shape).
        method: forward mode costs one pass a latent dimension, reverse mode about two a feature column; "auto" takes
            the cheaper. "difference" is for features without gradients: central differences, two passes a dimension.
        chunk: directions in flight at once; more is faster until memory runs out.
        step: of the differences, in latent units. Features must be computed in float32, not on quantised images.

    Raises:
        ValueError: the features are not (n, m), or the Jacobian holds NaN or infinite numbers.
    """
    n, d = len(values), values[0].numel()
    with torch.no_grad():
        features = local(values)
    if features.ndim != 2 or len(features) != n:
        raise ValueError(f"features of {n} latents are (n, m), got {tuple(features.shape)}.")
    if method == "difference":
        with torch.no_grad():
            jac = _differences(local, values, chunk, step)
    else:
        forward = method == "forward" or (method == "auto" and d <= 2 * features.shape[1])
        jac = _forward(local, values, chunk) if forward else _reverse(local, values, chunk)
    bad = int((~torch.isfinite(jac)).sum())
    if bad:
        raise ValueError(f"the Jacobian holds {bad} NaN or infinite numbers of {jac.numel()}: the features are not smooth here.")
    return features, jac


def product(local: Local, values: Tensor, tangents: Tensor) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Features, and ``J v`` for one tangent (n, *shape) a latent: one forward-mode pass."""
    with torch.no_grad():
        return jvp(local, (values,), (tangents,))  # type: ignore[return-value]


def _basis(values: Tensor, columns: range) -> Tensor:
    """Unit tangents (len(columns), *values.shape): direction j in every row at once."""
    n, shape = len(values), values.shape[1:]
    unit = torch.zeros(len(columns), values[0].numel(), dtype=values.dtype, device=values.device)
    unit[torch.arange(len(columns)), list(columns)] = 1
    return unit.view(len(columns), 1, *shape).expand(-1, n, *shape)


def _forward(local: Local, values: Tensor, chunk: int) -> Tensor:
    columns = []
    with torch.no_grad():
        for start in range(0, values[0].numel(), chunk):
            tangents = _basis(values, range(start, min(start + chunk, values[0].numel())))
            columns.append(vmap(lambda t: jvp(local, (values,), (t,))[1])(tangents))  # (chunk, n, m)
    return torch.cat(columns).permute(1, 2, 0)


def _reverse(local: Local, values: Tensor, chunk: int) -> Tensor:
    features, pull = vjp(local, values)  # type: ignore[misc]
    m = features.shape[1]
    rows = []
    for start in range(0, m, chunk):
        cotangents = _basis(features.detach(), range(start, min(start + chunk, m)))
        rows.append(vmap(lambda c: pull(c)[0])(cotangents).flatten(2))  # (chunk, n, d)
    return torch.cat(rows).permute(1, 0, 2).detach()


def _differences(local: Local, values: Tensor, chunk: int, step: float) -> Tensor:
    n, columns = len(values), []
    for start in range(0, values[0].numel(), chunk):
        tangents = step * _basis(values, range(start, min(start + chunk, values[0].numel())))
        ahead, behind = (local((values + sign * tangents).flatten(0, 1)).unflatten(0, (-1, n)) for sign in (1, -1))
        columns.append((ahead - behind) / (2 * step))
    return torch.cat(columns).permute(1, 2, 0)
