"""The whole story on the shipped face generator, live: sample, measure, fit, steer, evaluate, and a page that shows it.

``run`` goes through the stages in order and writes each one's figures as it ends; ``scenes`` has what the stages show, ``report`` makes the
page. Nothing on the page is written beforehand: every sentence with a number is made from what was measured in the same run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from steerable import drawing, files, recipe, render, report, sampling, store, zoo
from steerable.fitting.axes import fit_axes
from steerable.report import Figure, Section, Text
from steerable.scenes import box, fits, leaks, people
from steerable.scenes.cast import FIRST, MOVES, PORTRAITS, QUICK, Cast, Plan, Scene, saved

__all__ = ["QUICK", "Plan", "run"]

GENERATOR = "faces64"
FEATURES = ("pixels", "pose", "mouth", "eyes", "face-place", "smile", "pose68", "mouth68", "regions")


def run(out: Path, *, seed: int = 0, device: str = "cpu", plan: Plan | None = None) -> Path:
    """Steer a face generator end to end, and write the report.

    Args:
        out: a folder. What was measured is cached in ``out/cache``, so that a second run starts from there.
        seed: of the population and of all fits; the people shown are held-out seeds, 1000 on.
        plan: how many faces each stage looks at; by default as many as four minutes on two cores allow.

    Returns:
        The path of ``report.html``. Beside it: ``picture.png``, ``figures/``, ``controls/``, ``measured.csv`` and ``options.json``.
    """
    out, plan = Path(out), plan or Plan()
    ledger = _Ledger(report.Stages(out))
    with ledger.timed("load"):
        generator = zoo.load_generator(GENERATOR, device=device)
        features = zoo.load_features(*FEATURES, device=device)
    with ledger.timed("measure"):
        rows = plan.population + plan.calibration
        table = sampling.measure(generator, features, n=rows, seed=seed, cache=out / "cache").rows(slice(0, plan.population))
    with ledger.timed("fit axes"):
        sizes: dict[str, Any] = {"n": plan.population, "seed": seed, "calibration": plan.calibration}
        axes = fit_axes(generator, features, columns=list(fits.AXES), cache=out / "cache", **sizes)
        store.save_control(axes, out / "controls" / "axes.safetensors")
    cast = Cast(generator, features, table, axes, plan, seed)

    ledger.stage("Faces of a generator that nobody here trained", lambda: fits.sheet(cast))
    ledger.stage("Named axes, with units", lambda: fits.axes(cast))
    for move in MOVES:
        ledger.stage(f"The same person {move.words}", lambda move=move: people.with_and_without(cast, move))
    ledger.stage("Yaw, set by number", lambda: people.yaw_by_number(cast))
    with ledger.timed("trajectories"):
        boxed = box.box_paths(cast)
    ledger.stage("A held box, a moving background", lambda: box.held_box(cast, boxed))
    ledger.stage("Axes freed of each other", lambda: leaks.entanglement(cast))
    ledger.stage("Walks learned without labels", lambda: fits.walks(cast, out / "controls" / "walks.safetensors"))
    ledger.stage("Do the faces stay plausible?", lambda: leaks.plausible(cast))
    with ledger.timed("picture"):
        sheet, caption = box.picture(cast, boxed)
        render.write_png(out / "picture.png", sheet)
    return ledger.publish(cast, saved("picture", sheet, caption), device=device)


@dataclass(frozen=True, eq=False)
class _Ledger:
    """What the stages made so far, their measurements and the pictures with recipes."""

    stages: report.Stages
    rows: list[dict[str, Any]] = field(default_factory=list)
    recipes: list[tuple[str, recipe.Recipe]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.stages.out

    def timed(self, name: str) -> AbstractContextManager[None]:
        return self.stages.timed(name)

    def stage(self, title: str, make: Callable[[], Scene]) -> None:
        with self.timed(title):
            scene = make()
        self.stages.add(title, scene.blocks)
        self.rows.extend(scene.rows)
        self.recipes.extend(scene.pictures)

    def publish(self, cast: Cast, top: Figure, *, device: str) -> Path:
        """Everything that is written at the end, the page last."""
        for name, one in self.recipes:
            drawing.write(one, cast.generator, self.out / "figures" / f"{name}.png")
        columns = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        about = {"seed": cast.seed, "rows": "one measured face each; the units are in the table"}
        sampling.write_table(self.out / "measured.csv", columns, about)
        options = self._options(cast, device)
        files.write_text(self.out / "options.json", json.dumps(options, indent=1) + "\n")
        total, size = self.stages.total, " × ".join(map(str, cast.generator.image_shape[1:]))
        opening = (
            f"A pretrained face generator ({cast.generator.name}, {size} pixels) became steerable in {total:.0f} seconds on "
            f"{report.threads()}: sampled, measured, fitted, steered and evaluated in one run. Every number "
            f"stands with its n, its seeds and its judge, the network or the pixels that measured it."
        )
        foot = [
            ("Generator", f"{cast.generator.name}, weights {cast.generator.fingerprint[:16]}"),
            ("Seeds", f"{cast.seed} for the population and the fits; {FIRST} on for the people who are steered"),
        ]
        sections = [Section("What this run made", (top,)), *self.stages.sections, Section("How to repeat it", self._repeat(cast.seed))]
        title = "Steerable: a face generator with named, measured controls"
        page = report.html(title, opening, sections, self.stages.foot(foot, device=device))
        return files.write_text(self.out / "report.html", page)

    def _options(self, cast: Cast, device: str) -> dict[str, Any]:
        return {
            "command": "steer demo",
            "seed": cast.seed,
            "device": device,
            "plan": asdict(cast.plan),
            "features": list(FEATURES),
            "axes": list(fits.AXES),
            "holds": {move.name: list(move.hold) for move in MOVES},
            "portraits": list(PORTRAITS),
            "generator": {"name": cast.generator.name, "fingerprint": cast.generator.fingerprint},
            **self.stages.options(),
        }

    def _repeat(self, seed: int) -> tuple[Text, ...]:
        names = ", ".join(f"figures/{name}.png" for name, _ in self.recipes)
        return (
            Text(
                f"steer demo --seed {seed} --out FOLDER measures all of it again; in the same folder the population comes from the cache."
            ),
            Text(
                f"These pictures carry their recipe, and steer apply --recipe FILE draws them again, byte for byte on one machine: {names}."
            ),
            Text(
                "controls/axes.safetensors and controls/walks.safetensors hold the controls, with units, ranges and how they were fitted."
            ),
            Text("measured.csv has every measured face of the strips and of the yaw table; options.json what this run resolved to."),
        )
