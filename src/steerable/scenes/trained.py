"""Generators that go further: trained plainly, on edited data, or together with their walk. Figures 9 and 28 to 30 of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from steerable import progress, render, shipped, store, zoo
from steerable.controls.directions import amounts as turned
from steerable.edits import ImageEdit
from steerable.edits import edit as named_edits
from steerable.evaluation.steerability import Steerability, ranks, series, steerability
from steerable.fitting.walks import fit_directions
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Control
from steerable.report import Block, Figure, Table, Text, number, signed
from steerable.sampling import latents_of
from steerable.scenes.cast import saved
from steerable.scenes.steerability import Plan, known

EDITS = ("zoom", "shift-x", "rotate")
ORDER = ("joint", "augmented", "plain")  # smallest error first, as the paper has it
POINTS = 9  # amounts from end to end
SHOWN = 3  # seed of the digit in the strips


@dataclass(frozen=True, eq=False)
class Trained:
    """One generator and the walk for its edit."""

    generator: ModuleGenerator
    walk: Control


def there() -> dict[str, dict[str, str]]:
    """Edit -> way -> name in the zoo, of those that are shipped; edits for which the plain one is all there is are left out."""
    known_names = {name for name, entry in shipped.entries().items() if entry.kind == "generator"}
    names = {edit: {"joint": f"digits32-joint-{edit}", "augmented": f"digits32-aug-{edit}", "plain": "digits32"} for edit in EDITS}
    found = {edit: {way: name for way, name in ways.items() if name in known_names} for edit, ways in names.items()}
    return {edit: ways for edit, ways in found.items() if len(ways) > 1 and "plain" in ways}


def scene(plan: Plan, seed: int) -> tuple[Block, ...]:
    """A figure and a strip for every edit that digits were trained with."""
    blocks: list[Block] = [
        Text(
            "The walks above leave the generator as it is. A generator that is trained on edited data, or together with its walk, can be "
            "steered further: class-conditional DCGANs of MNIST digits at 32 pixels, trained here in four ways and shipped, each judged on "
            "its own pictures."
        )
    ]
    for name, ways in progress.track(list(there().items()), "digits"):
        (edit,) = named_edits(name)
        trained = {way: _trained(ways[way], edit, plan, seed) for way in ORDER if way in ways}
        amounts = torch.linspace(edit.knob.low, edit.knob.high, POINTS).tolist()
        results = {
            way: steerability(one.generator, one.walk, edit, amounts=amounts, n=plan.trained, seed=seed + 1) for way, one in trained.items()
        }
        blocks += [Text(_verdict(name, results), "result"), _figure(name, results, plan, seed), _strip(name, edit, trained)]
        blocks.append(_table(name, results))
    return tuple(blocks)


def _trained(name: str, edit: ImageEdit, plan: Plan, seed: int) -> Trained:
    """The joint ones bring their walk; the others get one that is fitted here."""
    generator = zoo.load_generator(name)
    own = f"{name}-walk"
    if own in shipped.entries():
        return Trained(generator, store.load_control(own, generator=generator))
    return Trained(generator, fit_directions(generator, edit, n=plan.trained_fit, seed=seed, calibration=0))


def _verdict(name: str, results: dict[str, Steerability]) -> str:
    found, first = ranks(results), next(iter(results.values()))
    ordered, apart = sum(one.ordered for one in found), sum(one.apart for one in found)
    means = {way: sum(one.mean.tolist()) / len(one.mean) for way, one in results.items()}
    still = {way: sum(one.still.mean(1).tolist()) / len(one.still) for way, one in results.items()}
    said = ", ".join(f"{way} {number(mean, 2)} ({number(mean / still[way], 2)} of standing still)" for way, mean in means.items())
    return (
        f"{name}: mean masked squared error over the range: {said}. At half range and beyond the order {' < '.join(results)}, which "
        "the paper "
        f"found, holds at {ordered} of {len(found)} amounts, with bands apart at {apart} (n = {first.n}, seed {first.seed}; judge: "
        "the pixels "
        f"of the edited picture)."
    )


def _figure(name: str, results: dict[str, Steerability], plan: Plan, seed: int) -> Figure:
    first = next(iter(results.values()))
    figure = render.curves(
        first.amounts, series(results), x_label=f"{name} ({first.knob.unit})", y_label="masked squared error",
        title=f"digits, {name}: n {first.n}, seed {first.seed}, 95 % bands",
    )  # fmt: skip
    caption = (
        "Masked squared error between the walked and the edited picture, images in [−1, 1]; bands: 95 % confidence of the mean; n = "
        f"{first.n} "
        f"latents of seed {first.seed}. The walks of plain and augmented were fitted on {plan.trained_fit} latents of seed {seed}."
    )
    return Figure(f"digits-{name}", render.figure_png(figure), caption)


def _strip(name: str, edit: ImageEdit, trained: dict[str, Trained]) -> Figure:
    amounts = torch.linspace(edit.knob.low, edit.knob.high, 7).tolist()
    rows: list[Any] = []
    labels: list[str] = []
    for way, one in trained.items():
        latents = latents_of(one.generator, [SHOWN], space=one.walk.space.name)
        with torch.no_grad():
            before = one.generator(latents)
            targets = [known(*edit(before, before.new_full((1,), amount))) for amount in amounts]
            walked = [one.generator(one.walk.steer(latents, turned(one.walk, latents, {name: amount}))) for amount in amounts]
        rows += [torch.cat(targets), torch.cat(walked)]
        labels += [f"{way}\ntarget", f"{way}\nwalk"]
    sheet = render.strip(
        rows, row_labels=labels, column_labels=[render.amount(amount) for amount in amounts], title=f"{name} ({edit.knob.unit})",
        note="the edited picture of each generator above its walk; grey: not known", scale=2,
    )  # fmt: skip
    return saved(
        f"digits-{name}-strip", sheet, f"{name} of one digit, seed {SHOWN}: target and walk of each generator (n = 1; for the eye)."
    )


def _table(name: str, results: dict[str, Steerability]) -> Table:
    first = next(iter(results.values()))
    rows = []
    for i, amount in enumerate(first.amounts.tolist()):
        cells = [f"{number(float(one.mean[i]), 2)} ± {number(float(one.band[i]), 2)}" for one in results.values()]
        rows.append((signed(amount), *cells, "pixels", str(first.n), str(first.seed)))
    caption = f"{name}: masked squared error, mean and half the width of its 95 % band."
    return Table(caption, (f"{name}, {first.knob.unit}", *results, "judge", "n", "seeds"), tuple(rows))
