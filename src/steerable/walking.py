"""``steer report walks``: the figures of the steerability paper for one generator, measured in one run, on one page.

``run`` goes through the parts in order and writes each one's figures as it ends; ``scenes`` has what the parts show, ``report`` makes the
page, as for ``steer demo``. Nothing on the page is written beforehand: every sentence with a number is made from what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from steerable import checks, files, report, shipped, store, zoo
from steerable.edits import ImageEdit, narrowed
from steerable.edits import edit as named_edits
from steerable.features.geometry import border_contrast
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Images
from steerable.report import Section, Text
from steerable.scenes import combined, extent, steerability, trained
from steerable.scenes.steerability import EDITS, QUICK, Plan, Subject

__all__ = ["EDITS", "PARTS", "QUICK", "Plan", "run"]
PARTS = {
    "walks": "What the walks do, beside what was asked",
    "limits": "How far, and what ends it",
    "variability": "Why not further",
    "combined": "Several edits at once",
    "trained": "Generators that go further",
}
CLASSES = ("digits32-varied", "digits32")  # shipped generators with classes, the first there is one for "why not further"
TOGETHER = ("zoom", "shift-x", "shift-y")  # as in the paper; of the edits that were asked for


def run(
    out: Path,
    *,
    generator: ModuleGenerator | None = None,
    edits: Sequence[str] = EDITS,
    parts: Sequence[str] = tuple(PARTS),
    seed: int = 0,
    device: str = "cpu",
    plan: Plan | None = None,
) -> Path:
    """Measure what walks do on a generator, and write the report.

    Args:
        out: a folder.
        generator: the shipped faces64 by default. One with classes also answers why walks end where they do; for others a shipped
            generator of digits does.
        edits: names, see ``steerable.edits``.
        parts: of ``PARTS``, by their short names.
        seed: of the fits; everything is measured on latents of ``seed + 1``.
        plan: how many latents each part looks at; see ``QUICK`` for a first look.

    Returns:
        The path of ``report.html``. Beside it: ``figures/``, ``results.json`` with every sentence and table of the page,
        ``walks.safetensors`` with the ranges that were measured, ``options.json``.

    Raises:
        ValueError: an unknown edit or part, no edit, or one that leaves nothing visible.
    """
    out, plan = Path(out), plan or Plan()
    for part in parts:
        checks.known(part, PARTS, "part of the report")
    if not edits:
        raise ValueError(f"the report is about one edit or more: {', '.join(EDITS)}.")
    made = generator or zoo.load_generator("faces64", device=device)
    groups = steerability.edits_of(edits, made)
    if not groups:
        raise ValueError(
            f"{made.name} makes grey pictures, and {', '.join(edits)} needs colour: ask for others, for example zoom,brightness."
        )
    names = [one.knob.name for group in groups for one in group]
    if "combined" in parts and len(names) < 2:
        raise ValueError(f"several edits at once are two or more, got {names[0]}: ask for another, or leave out the part combined.")
    stages = report.Stages(out)
    subject = Subject(made, plan, seed, steerability.portraits_of(made), _foreground(made, device))
    if {"walks", "limits", "combined"} & set(parts):
        with stages.timed("fit walks"):
            subject = replace(subject, walks=steerability.fit(made, groups, plan, seed))
    control = subject.calibrated() if subject.walks else None
    for part in (one for one in PARTS if one in parts):
        with stages.timed(PARTS[part]):
            if part == "walks":
                blocks = steerability.walks(subject)
            elif part == "limits":
                blocks, control = extent.how_far(subject)
            elif part == "variability":
                blocks = extent.why(*_with_classes(made, groups, device), plan, seed)
            elif part == "combined":
                blocks = combined.scene(subject, _together(subject))
            else:
                blocks = trained.scene(plan, seed)
        stages.add(PARTS[part], blocks)
    if control is not None:
        store.save_control(control, out / "walks.safetensors")
    return _publish(stages, subject, edits, device)


def _foreground(generator: ModuleGenerator, device: str) -> Callable[[Images], Tensor]:
    """Whose place and size is judged: the person's on the shipped faces, what differs from the border on any other picture."""
    return zoo.load_network("person").to(device) if generator.name == "faces64" else border_contrast


def _together(subject: Subject) -> list[str]:
    names = [name for name in TOGETHER if name in subject.walks]
    names += [name for name in subject.walks if name not in names]
    return names[: max(2, sum(name in TOGETHER for name in names))]


def _with_classes(generator: ModuleGenerator, groups: Sequence[Sequence[ImageEdit]], device: str) -> tuple[ModuleGenerator, ImageEdit]:
    """The generator itself where it has classes, else a shipped one; and the first edit that moves things, else the first."""
    if generator.classes and generator.classes > 2:
        every = [one for group in groups for one in group]
        return generator, next((one for one in every if one.knob.name in TOGETHER), every[0])
    there = next(name for name in CLASSES if name in shipped.entries())
    (zoom,) = named_edits("zoom")
    return zoo.load_generator(there, device=device), narrowed(zoom, -0.5, 0.5)


def _publish(stages: report.Stages, subject: Subject, edits: Sequence[str], device: str) -> Path:
    name, seed = subject.generator.name, subject.seed
    options = {
        "command": "steer report walks", "generator": {"name": name, "fingerprint": subject.generator.fingerprint}, "edits": list(edits),
        "seed": seed, "device": device, "plan": asdict(subject.plan), **stages.options(),
    }  # fmt: skip
    files.write_text(stages.out / "options.json", json.dumps(options, indent=1) + "\n")
    files.write_text(stages.out / "results.json", json.dumps(stages.results(), indent=1, ensure_ascii=False) + "\n")
    opening = (
        f"How far {name} can be steered by walks that imitate edits of the picture, measured in {stages.total:.0f} seconds on "
        f"{report.threads()}: the figures of Jahanian, Chai and Isola, “On the ‘steerability’ of generative adversarial networks” (ICLR "
        f"2020), for this generator. Every number stands with its n, its seeds and its judge."
    )
    foot = [
        ("Generator", f"{name}, weights {subject.generator.fingerprint[:16]}"),
        ("Seeds", f"{seed} for the fits, {seed + 1} for everything measured, {seed + 2} for the units of the walks"),
    ]
    repeat = Section(
        "How to repeat it",
        (
            Text(f"steer report walks --generator {name} --edits {','.join(edits)} --seed {seed} --out FOLDER measures all of it again."),
            Text(
                "walks.safetensors holds the calibrated walks with the ranges that were measured: steer apply walks.safetensors "
                "--strip zoom."
            ),
        ),
    )
    page = report.html(f"Steerable: the walks of {name}", opening, [*stages.sections, repeat], stages.foot(foot, device=device))
    return files.write_text(stages.out / "report.html", page)
