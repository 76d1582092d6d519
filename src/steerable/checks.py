"""Checks of what a user hands in, each with an error that says what it got, what it expected and what to type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import torch
from torch import Tensor

from steerable.protocols import Generator, Knob, Latents, LatentSpace


def known(name: str, names: Iterable[str], what: str) -> str:
    """``name`` itself if it is one of ``names``; otherwise an error with the nearest known ones."""
    names = sorted(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f' did you mean "{near[0]}"?' if near else ""
    raise ValueError(f'unknown {what} "{name}":{guess} Known: {", ".join(names) or "none"}.')


def generator(given: object, caller: str) -> None:
    """Refuse what is no generator, its name above all."""
    if not isinstance(given, Generator) or isinstance(given, type):
        what = f'"{given}"' if isinstance(given, str) else type(given).__name__
        raise TypeError(f"{caller} needs the generator itself, got {what}: load_generator(NAME_OR_FILE) makes one, wrap(module, ...) too.")


def lives_in(latents: Latents, space: LatentSpace, what: str) -> None:
    """Refuse latents of another generator or space by name."""
    got = latents.space
    if got == space:
        return
    if got.fingerprint != space.fingerprint:
        raise ValueError(f"{what} belongs to {space.owner}, got latents of {got.owner}. Sample them from the same generator.")
    raise ValueError(f'{what} lives in {space}, got {got.name} latents. Convert them first: generator.to_space(latents, "{space.name}").')


def same_generator(space: LatentSpace, fingerprint: str, name: str, what: str) -> None:
    """Refuse a control that was fitted on other weights than the generator's."""
    if space.fingerprint != fingerprint:
        raise ValueError(f"{what} was fitted on {space.owner}, this generator is {name} ({fingerprint[:4]}…).")


def amounts(given: Tensor, n: int, knobs: tuple[Knob, ...]) -> Tensor:
    """``given`` if it is finite and (n, k), one amount a latent and knob."""
    if tuple(given.shape) != (n, len(knobs)):
        names = ", ".join(knob.name for knob in knobs)
        raise ValueError(f"amounts are (n, knobs) = ({n}, {len(knobs)}) for {names}; got {tuple(given.shape)}.")
    return finite(given, "amounts")


def finite(values: Tensor, what: str) -> Tensor:
    """``values`` if all are finite numbers. For the edges only: it reads the data, so it cannot run under vmap."""
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise ValueError(f"{what}: {bad} of {values.numel()} numbers are NaN or infinite.")
    return values


def images(given: Tensor, channels: int | None = None) -> Tensor:
    """``given`` if it is a batch of float images (n, c, h, w)."""
    if given.ndim != 4 or not given.is_floating_point():
        hint = " Add the batch dimension: images[None]." if given.ndim == 3 else ""
        raise ValueError(f"images are float (n, c, h, w) in [-1, 1], got {given.dtype} {tuple(given.shape)}.{hint}")
    if channels is not None and given.shape[1] != channels:
        raise ValueError(f"expected {channels} channels, got images of {tuple(given.shape)}.")
    return given
