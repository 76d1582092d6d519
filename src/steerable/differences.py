"""Derivatives of black boxes by central differences, with a step that their own scale decides.

``(f(z + h v) - f(z - h v)) / 2h`` is off by the curvature, ``h^2 |f'''| / 6``, and by rounding, ``eps |f| / h``. With third derivatives of
the size of the first over the square of the latent's scale L, the sum is least at

    h = L (3 eps F / (s L))^(1/3),     F the size of the features, s their slope, eps the resolution of their numbers.

Rounding to 256 levels would be an eps of 0.004 and spoil any small step: images stay float32 here. ``sensitivity`` calls this for features
that say they have no gradients.

Source: Press et al., "Numerical recipes", 3rd edition, section 5.7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from steerable.linear import Linear

PROBE = 1e-2  # of the latent's scale: the first step tried
LARGEST = 0.3  # of the latent's scale: beyond it a difference is no derivative


def black_box(local: Callable[[Tensor], Tensor], values: Tensor, *, step: float | None = None) -> Linear:
    """The derivative of any function (n, *shape) -> (n, m) at n latents; two passes a product from the right.

    Products from the left need the whole Jacobian, which is made once, two passes for each latent number, and kept.

    Args:
        step: h in latent units; chosen as above where None.

    Raises:
        ValueError: features that are not (n, m), whole numbers, or other numbers the second time.
    """
    with torch.no_grad():
        value, again = local(values), local(values)
    if value.ndim != 2 or len(value) != len(values):
        raise ValueError(f"features of {len(values)} latents are (n, m), got {tuple(value.shape)}.")
    if not value.is_floating_point():
        raise ValueError(f"differences need float features, got {value.dtype}: measure float images, not ones rounded to 256 levels.")
    noise = float((value - again).abs().max()) if value.shape == again.shape else float("inf")
    if noise > 16 * torch.finfo(value.dtype).eps * max(float(value.abs().max()), 1e-30):
        raise ValueError(
            f"a black box has to give the same numbers twice, and differs by {noise:.2g} for the same latents: fix its random seed."
        )
    if step is not None and not step > 0:
        raise ValueError(f"the step of differences is above 0, got {step}.")
    h = torch.full((len(values),), float(step)).to(value) if step is not None else chosen_step(local, values, value)
    n = len(values)
    kept: list[Tensor] = []

    def push(tangents: Tensor) -> Tensor:
        length = tangents.flatten(2).norm(dim=2)  # (t, n)
        apart = h / length.clamp(min=1e-30)
        offset = tangents * apart.view(*length.shape, *[1] * (tangents.ndim - 2))
        with torch.no_grad():
            ahead, behind = (local((values + sign * offset).flatten(0, 1)).unflatten(0, (-1, n)) for sign in (1, -1))
        return torch.where(length[..., None] > 0, (ahead - behind) / (2 * apart[..., None]), 0.0)

    def pull(cotangents: Tensor) -> Tensor:
        if not kept:
            d = values[0].numel()
            units = torch.eye(d, dtype=values.dtype, device=values.device)[:, None].expand(-1, n, -1).unflatten(2, values.shape[1:])
            kept.append(torch.cat([push(some) for some in units.split(25)]))  # (d, n, m)
        return torch.einsum("tnm,dnm->tnd", cotangents, kept[0]).unflatten(2, values.shape[1:])

    return Linear(value, push, pull, push_passes=2, pull_passes=2, kind=f"central differences of step {float(h.mean()):.2g}")


def chosen_step(local: Callable[[Tensor], Tensor], values: Tensor, value: Tensor) -> Tensor:
    """h of the docstring for each latent, (n,), from the slope along one direction (the same for all, of a fixed seed).

    Raises:
        ValueError: features that stand still for small steps and jump for large ones: rounded images.
    """
    n, inner = len(values), [1] * (values.ndim - 1)
    scale = values.flatten(1).square().mean(1).sqrt()
    scale = torch.where(scale > 1e-6, scale, 1.0)
    along = torch.randn(values.shape[1:], generator=torch.Generator().manual_seed(0)).to(values)
    along = along / along.norm()

    def change(share: float) -> Tensor:
        offset = (share * scale).view(n, *inner) * along
        with torch.no_grad():
            return (local(values + offset) - local(values - offset)).square().mean(1).sqrt()

    near = change(PROBE)
    if bool((near == 0).all()):
        if bool((change(LARGEST) > 0).any()):
            raise ValueError("these features stand still for small steps and jump for large ones: measure float images, not rounded ones.")
        return PROBE * scale
    size, slope = value.square().mean(1).sqrt(), near / (2 * PROBE * scale)
    h = (3 * torch.finfo(value.dtype).eps * size / (slope * scale).clamp(min=1e-30)) ** (1 / 3)
    return h.clamp(1e-3, LARGEST) * scale
