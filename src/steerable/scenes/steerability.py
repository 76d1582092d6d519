"""Walks beside the edits that they imitate: what was asked, what came of it, and in which words. Figures 1, 2 and 3 of the paper.

``Subject`` is what all scenes of ``steer report walks`` share. A walk is looked at as it was trained, at the amounts of the edit: the
calibrated one, whose unit is what the generator really does, would hide how far it stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from steerable import progress, render
from steerable.controls.directions import Directions, join
from steerable.edits import ImageEdit, check_visible, measured_edit, narrowed
from steerable.edits import edit as named_edits
from steerable.evaluation.attribute import EDITS_MEASURED, Attribute, attribute_of, image_means
from steerable.features.geometry import border_contrast
from steerable.fitting.calibrate import calibrate
from steerable.fitting.walks import fit_directions
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Edit, Images, Latents
from steerable.report import Block, Figure, Table, Text, number, signed
from steerable.sampling import in_batches, latents_of
from steerable.scenes.cast import PORTRAITS, saved

EDITS = ("brightness", "colour", "contrast", "zoom", "shift-x", "shift-y", "rotate")
SPANS = {"zoom": 0.5, "shift-x": 0.15, "shift-y": 0.15, "rotate": 20.0, "rotate3d": 30.0}  # narrower than the edits' own: fits better
SHARES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the ends of a range
SAME_UNIT = ("brightness", "red", "green", "blue", "lab-lightness", "lab-red", "lab-yellow", "shift-x", "shift-y")
ENOUGH = 0.5  # of what is asked: below, a walk does less than its edit
DOES = {
    "brightness": "brightened",
    "red": "reddened",
    "green": "made greener",
    "blue": "made bluer",
    "lab-lightness": "lightened",
    "lab-red": "reddened in Lab",
    "lab-yellow": "yellowed in Lab",
    "contrast": "made harder in contrast",
    "zoom": "zoomed",
    "shift-x": "shifted sideways",
    "shift-y": "shifted up and down",
    "rotate": "rotated",
    "rotate3d": "turned like a billboard",
}


@dataclass(frozen=True)
class Plan:
    """How many latents each part of the report looks at."""

    fit: int = 512
    calibration: int = 24
    people: int = 48
    limits: int = 96
    limit_knobs: int = 4
    spread: int = 48
    classes: int = 60
    combined: int = 48
    trained: int = 256
    trained_fit: int = 2048


QUICK = Plan(96, 8, 8, 16, 2, 4, 12, 8, 32, 128)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One walk, as it was trained and calibrated, with its edit over the range of the training."""

    raw: Directions
    walk: Directions
    edit: ImageEdit


@dataclass(frozen=True, eq=False)
class Subject:
    """The generator, its walks, and who is looked at.

    Attributes:
        seed: of the fits; everything is measured on latents of ``seed + 1``.
        portraits: seeds of the pictures; no number is made from them.
        foreground: images -> weights, which has centre, area and tilt; ``judge`` is its name.
    """

    generator: ModuleGenerator
    plan: Plan
    seed: int
    portraits: tuple[int, ...]
    foreground: Callable[[Images], Tensor] = border_contrast
    walks: Mapping[str, Fitted] = field(default_factory=dict)

    @property
    def held_out(self) -> Latents:
        return self.latents(self.plan.people)

    def latents(self, n: int) -> Latents:
        """n latents that nothing was fitted on, in the space of the walks."""
        return self.generator.sample(n, seed=self.seed + 1, space=self.space)

    @property
    def space(self) -> str:
        return next(iter(self.walks.values())).raw.space.name

    @property
    def shown(self) -> Latents:
        return latents_of(self.generator, self.portraits, space=self.space)

    def images(self, latents: Latents) -> Images:
        with torch.no_grad():
            return torch.cat([self.generator(some) for some in in_batches(latents, 32)])

    def attribute(self, name: str) -> Attribute | None:
        return attribute_of(name, foreground=self.foreground) if name in EDITS_MEASURED else None

    def calibrated(self) -> Directions:
        """All walks as one control."""
        return join([one.walk for one in self.walks.values()])


def edits_of(names: Sequence[str], generator: ModuleGenerator) -> list[list[ImageEdit]]:
    """Edits by name, over the ranges that the report trains on; an edit of colour is left out where there is none.

    Raises:
        ValueError: an unknown name, or a range that leaves nothing visible.
    """
    groups = [[ranged(one) for one in named_edits(name)] for name in names]
    grey = generator.image_shape[0] != 3
    kept = [group for group in groups if not (grey and group[0].knob.name in ("red", "lab-lightness"))]
    with torch.no_grad():
        image = generator(generator.sample(1, seed=0))
    for one in (one for group in kept for one in group):
        check_visible(one, image, (one.knob.low, one.knob.high))
    return kept


def ranged(edit: Edit) -> Any:
    """The edit over the range that the report trains on."""
    span = SPANS.get(edit.knob.name)
    return edit if span is None else narrowed(edit, -span, span)


def fit(generator: ModuleGenerator, groups: Sequence[Sequence[ImageEdit]], plan: Plan, seed: int) -> dict[str, Fitted]:
    """A walk for every edit; those of one group are fitted jointly."""
    found: dict[str, Fitted] = {}
    last = generator.sample(plan.calibration, seed=seed + 2)
    for group in progress.track(groups, "walks"):
        raw = fit_directions(generator, list(group), n=plan.fit, seed=seed, calibration=0)
        walk = calibrate(generator, raw, {one.knob.name: one for one in group}, latents=_in(generator, last, raw.space.name))
        for one in group:
            name = one.knob.name
            found[name] = Fitted(replace(raw[[name]], fit=_own(raw, name)), replace(walk[[name]], fit=_own(walk, name)), one)
    return found


def _in(generator: ModuleGenerator, latents: Latents, space: str) -> Latents:
    return latents if latents.space.name == space else generator.to_space(latents, space)


def _own(control: Directions, name: str) -> dict[str, Any]:
    """The record of a fit, of one of its knobs."""
    record = dict(control.fit)
    return record | {key: {name: record[key][name]} for key in ("held_out", "calibration") if name in record.get(key, {})}


@dataclass(frozen=True)
class Reach:
    """What a walk does at the ends of its range.

    Attributes:
        asked: the amount, of both signs.
        shares: of each of n images, what was read back over what was asked, mean of both signs.
        second: what the attribute changed over what was asked; None where its unit is another.
        loss: masked error of walking over that of standing still.
    """

    name: str
    unit: str
    asked: float
    shares: tuple[float, float]
    error: float
    second: float | None
    second_judge: str
    loss: float
    n: int

    @property
    def share(self) -> float:
        return sum(self.shares) / 2


def reach(subject: Subject, one: Fitted) -> Reach:
    """How much of its edit a walk does, on held-out latents, by the edit itself and by the attribute."""
    knob, latents = one.edit.knob, subject.held_out
    before, attribute = subject.images(latents), subject.attribute(knob.name)
    ends, seconds, errors = [], [], []
    for asked in (knob.low, knob.high):
        after = subject.images(one.raw.steer(latents, torch.full((len(latents), 1), asked)))
        got = measured_edit(one.edit, before, after) / asked
        ends.append(float(got.mean()))
        errors.append(got)
        if attribute is not None and knob.name in SAME_UNIT:
            places = attribute.places(len(latents), subject.generator.image_shape, seed=subject.seed)
            seconds.append(float((image_means(attribute(after, places)) - image_means(attribute(before, places))).nanmean()) / asked)
    return Reach(
        knob.name,
        knob.unit,
        knob.high,
        (ends[0], ends[1]),
        float((torch.stack(errors).sum(0) / 2).std() / len(latents) ** 0.5),
        sum(seconds) / 2 if seconds else None,
        attribute.judge if seconds and attribute is not None else "–",
        float(one.raw.fit["held_out"][knob.name]["mean"]),
        len(latents),
    )


def walks(subject: Subject) -> tuple[Block, ...]:
    """How far each walk gets, in words and as a table; and a strip of each beside its targets."""
    found = [reach(subject, one) for one in progress.track(list(subject.walks.values()), "what the walks do")]
    blocks: list[Block] = [
        Text(
            "A walk is a straight line in latent space that imitates a change of the picture itself, learned without labels: the picture "
            "is edited, and the line is found along which the generator's own pictures come nearest to that target. Pixels that the "
            "target cannot know, because they were outside the frame, do not count."
        ),
        Text(in_words(subject.generator.name, found, subject.seed + 1), "result"),
        _table(subject, found),
    ]
    for one, read in zip(progress.track(list(subject.walks.values()), "strips"), found, strict=True):
        blocks.append(strip(subject, one, read))
    return tuple(blocks)


def in_words(name: str, found: Sequence[Reach], seed: int) -> str:
    """Which edits a generator follows, and which only a little: the sentence that the report begins with."""
    best = sorted((one for one in found if one.share >= ENOUGH), key=lambda one: -one.share)
    weak = sorted((one for one in found if one.share < ENOUGH), key=lambda one: -one.share)
    parts = []
    if best:
        first, *rest = (f"{DOES.get(one.name, 'edited by ' + one.name)} to {_percent(one.share)}" for one in best)
        parts.append(f"can be {_listed([f'{first} of the target', *rest])}")
    if weak:
        much = [f"{DOES.get(one.name, 'edited by ' + one.name)} only to about {_percent(one.share)}" for one in weak]
        parts.append(("but " if best else "can be ") + _listed(much) + ("" if best else " of the target"))
    n = found[0].n
    return (
        f"{name} {' '.join(parts)}. That is the mean amount read back from the pictures over the amount asked, at both ends of each range "
        f"(judge: the edit itself; n = {n}, seed {seed}, latents that nothing was fitted on; amounts and a second judge are in the table)."
    )


def _percent(share: float) -> str:
    return f"{100 * max(share, 0):.0f} %"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _table(subject: Subject, found: Sequence[Reach]) -> Table:
    header = ("walk", "unit", "asked", "done, −", "done, +", "± s.e.", "second judge says", "second judge", "loss", "usable range",
              "judge", "n", "seeds")  # fmt: skip
    rows = []
    for one in found:
        knob = subject.walks[one.name].walk.knobs[0]
        usable = f"{signed(knob.low)} to {signed(knob.high)}" if knob.low < knob.high else "none"
        second = "–" if one.second is None else _percent(one.second)
        rows.append((one.name, one.unit, f"±{number(one.asked, 2)}", *(_percent(share) for share in one.shares), _percent(one.error),
                     second, one.second_judge, number(one.loss, 2), usable, "the edit, read back", str(one.n),
                     str(subject.seed + 1)))  # fmt: skip
    caption = (
        f"What the walks do at the ends of their training range. The second judge is the attribute in the unit of the edit, which no walk "
        f"was fitted to. Loss: masked squared error over that of standing still, 0 is perfect, 1 useless (n = "
        f"{next(iter(subject.walks.values())).raw.fit['held_out_n']}, seed {subject.seed}). Usable range: of the calibrated walk, one unit "
        f"of which is one unit done; beyond it the mean change leaves what is asked by more than a quarter (n = "
        f"{subject.plan.calibration}, seed {subject.seed + 2})."
    )
    return Table(caption, header, tuple(rows))


def strip(subject: Subject, one: Fitted, read: Reach) -> Figure:
    """Two portraits: the targets of the edit above what the walk does, at the same amounts."""
    knob, latents = one.edit.knob, subject.shown
    before = subject.images(latents)
    amounts = [abs(share) * (knob.high if share > 0 else knob.low) for share in SHARES]
    targets, walked, captions = [], [], []
    for amount in amounts:
        target, mask = one.edit(before, before.new_full((len(before),), amount))
        targets.append(known(target, mask))
        walked.append(subject.images(one.raw.steer(latents, torch.full((len(latents), 1), amount))))
        captions.append([render.amount(float(got)) for got in measured_edit(one.edit, before, walked[-1])])
    rows, labels, below = [], [], []
    for i, seed in enumerate(subject.portraits):
        for what, columns in (("target", targets), ("walk", walked)):
            rows.append(torch.stack([column[i] for column in columns]))
            labels.append(f"seed {seed}\n{what}")
        below += [[""] * len(amounts), [column[i] for column in captions]]
    sheet = render.strip(
        rows, row_labels=labels, column_labels=[render.amount(one) for one in amounts], captions=below, title=f"{knob.name} ({knob.unit})",
        note="above: asked; grey: not known; below the walk: measured", scale=_scale(subject),
    )  # fmt: skip
    caption = (
        f"{knob.name}: the edited picture (target) and the walk at the same amount, with what was read back from it (judge: the edit "
        f"itself, on these pictures; n = 1 each). Over n = {read.n} latents of seed {subject.seed + 1} the walk does "
        f"{_percent(read.shares[0])} "
        f"of {signed(-read.asked)} and {_percent(read.shares[1])} of {signed(read.asked)}. Seeds {', '.join(map(str, subject.portraits))}."
    )
    return saved(f"walk-{knob.name}", sheet, caption)


def known(images: Images, mask: Tensor) -> Images:
    """Targets for the eye: grey where nothing is known."""
    return torch.where(mask > 0, images.clamp(-1, 1), images.new_full((), 0.72))


def _scale(subject: Subject) -> int:
    return max(1, min(4, 128 // subject.generator.image_shape[1]))


def portraits_of(generator: ModuleGenerator) -> tuple[int, ...]:
    """Two seeds that are shown: known faces of the shipped generator, the first two of any other."""
    return PORTRAITS[:2] if generator.name == "faces64" else (0, 1)
