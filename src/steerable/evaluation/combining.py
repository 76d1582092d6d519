"""Walks of several edits at once: fitted jointly, or fitted alone and summed. Figure 27 of the paper, as numbers.

Both are controls with a knob for each edit, a joint fit or a ``Chain``. At every pair of amounts the images are edited by one after the
other, and each control's masked squared error is divided by that of doing nothing: 0 is a perfect imitation, 1 is useless.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, B.5, which shows one face and no
number. ``render.heat_maps`` draws the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks, progress
from steerable.edits import in_turn, masked_error
from steerable.protocols import Control, Edit, Generator, Knob

SHARES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the ends of a range


@dataclass(frozen=True, eq=False)
class Combination:
    """What came of two edits at once.

    Attributes:
        knobs: of the two edits.
        amounts: of each.
        errors: control -> (a, b, n) masked squared error of each latent, the first edit's amounts first.
        still: (a, b, n) of not moving.
        seed: of the n latents.
    """

    knobs: tuple[Knob, Knob]
    amounts: tuple[Float[Tensor, " a"], Float[Tensor, " b"]]
    errors: Mapping[str, Float[Tensor, "a b n"]]
    still: Float[Tensor, "a b n"]
    seed: int

    @property
    def n(self) -> int:
        return self.still.shape[2]

    def relative(self, name: str) -> Float[Tensor, "a b"]:
        """Mean error of a control over that of doing nothing; NaN where nothing is asked."""
        still = self.still.mean(2)
        return torch.where(still > 1e-9, self.errors[checks.known(name, self.errors, "control")].mean(2) / still, torch.nan)

    def summary(self) -> dict[str, Any]:
        """Overall relative loss of each control, and how much better the first is than each other one, with its standard error."""
        whole = {name: float(one.mean() / self.still.mean()) for name, one in self.errors.items()}
        first, *others = self.errors
        gains = {}
        for name in others:
            gain = (self.errors[name] - self.errors[first]).mean((0, 1)) / self.still.mean()
            gains[name] = {"gain": float(gain.mean()), "standard_error": float(gain.std() / self.n**0.5)}
        return {"relative_loss": whole, "of": first, "against": gains, "n": self.n, "seed": self.seed}


def combined(
    generator: Generator,
    controls: Mapping[str, Control],
    edits: Sequence[Edit],
    *,
    amounts: Sequence[Sequence[float]] | None = None,
    n: int = 64,
    seed: int = 1,
    batch: int = 32,
) -> Combination:
    """Compare controls that do two edits at once.

    Args:
        controls: by name, ``{"joint": fit_directions(generator, [zoom, shift]), "alone": Chain((only_zoom, only_shift))}``; each has a
            knob of each edit's name, in the edit's unit, and lives in the same space.
        edits: two, in the order in which the picture is edited.
        amounts: of each edit; by default five from end to end of its range.
        n, seed: of the latents; take a seed that nothing was fitted on.

    Raises:
        ValueError: another number of edits than two, no control, a control without one of the knobs, controls of different spaces.
    """
    if len(edits) != 2 or not controls:
        raise ValueError(f"two edits are compared under one control or more, got {len(edits)} edits and {len(controls)} controls.")
    names = [edit.knob.name for edit in edits]
    columns = {}
    for label, control in controls.items():
        known = [knob.name for knob in control.knobs]
        columns[label] = [known.index(checks.known(name, known, f'knob of "{label}"')) for name in names]
    space = next(iter(controls.values())).space
    latents = generator.sample(n, seed=seed, space=space.name)
    ranges = [[abs(s) * (e.knob.high if s > 0 else e.knob.low) for s in SHARES] for e in edits] if amounts is None else amounts
    sides = [torch.tensor(sorted(set(side)), dtype=torch.float32) for side in ranges]
    pairs = torch.cartesian_prod(*sides)  # (a b, 2)
    errors: dict[str, list[Tensor]] = {name: [] for name in (*controls, "")}
    with torch.no_grad():
        for start in progress.track(range(0, n, batch), "combined walks"):
            some = latents[start : start + batch]
            before = generator(some)
            rows: dict[str, list[Tensor]] = {name: [] for name in errors}
            for pair in pairs:
                targets, mask = in_turn(edits, before, pair.to(before).expand(len(some), 2))
                rows[""].append(masked_error(before, targets, mask))
                for name, control in controls.items():
                    asked = before.new_zeros(len(some), len(control.knobs))
                    asked[:, columns[name]] = pair.to(before)
                    rows[name].append(masked_error(generator(control.steer(some, asked)), targets, mask))
            for name, made in rows.items():
                errors[name].append(torch.stack(made).cpu())  # (a b, batch)
    shape = (len(sides[0]), len(sides[1]), n)
    whole = {name: torch.cat(parts, 1).view(shape) for name, parts in errors.items()}
    still = whole.pop("")
    return Combination((edits[0].knob, edits[1].knob), (sides[0], sides[1]), whole, still, seed)
