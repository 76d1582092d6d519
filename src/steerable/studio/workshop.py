"""What the server has before anybody comes: generators on their benches, the shipped controls, the workers.

Shared, and never changed by a visit.

``zoo`` and ``store`` load; a page (``page``) and the requests (``api``) only look things up here, by name or by fingerprint. What a
visitor uploads or fits lies on a bench of that visitor's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from steerable import checks, store, zoo
from steerable import shipped as shipped_files
from steerable.controls.directions import Directions
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Control
from steerable.studio import pictures, scheduling, session
from steerable.studio.session import Bench

SHIPPED = zoo.WEIGHTS / "controls"
FEATURES = ("pixels", "pose", "mouth", "eyes", "face-place", "smile", "expression", "age", "gender-presentation", "regions")
JUDGES = ("pose68", "mouth68")  # second judges, which no axis was fitted on
POPULATION = 500  # unsteered images that a control is fitted on while somebody waits
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Workshop:
    """Benches by name, the first one is where a page opens; and who works.

    Attributes:
        seconds: of one forward pass of each bench's generator, measured at the start.
        population: unsteered images that a control made on the page is fitted on.
    """

    benches: dict[str, Bench]
    workers: scheduling.Workers = field(default_factory=scheduling.Workers)
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"
    population: int = POPULATION
    _making: threading.Lock = field(default_factory=threading.Lock)

    @property
    def first(self) -> str:
        return next(iter(self.benches))

    @property
    def choices(self) -> list[str]:
        """What a visitor may choose: the benches, then the shipped generators that are no bench yet."""
        there = {bench.generator.name for bench in self.benches.values()}
        return [*self.benches, *(one.name for one in shipped_files.entries().values() if one.kind == "generator" and one.name not in there)]

    def bench(self, name: str) -> Bench:
        """A bench; that of a shipped generator is made when somebody first chooses it, and is everybody's from then on.

        Raises:
            ValueError: a name that is none of the choices.
        """
        checks.known(name, self.choices, "generator")
        with self._making:
            if name not in self.benches:
                made = bench_of(zoo.load_generator(name, device=self.device), name, device=self.device)
                self.seconds[name] = forward_seconds(made)
                self.benches[name] = made
            return self.benches[name]

    def of(self, fingerprint: str) -> Bench:
        """The bench of a generator.

        Raises:
            ValueError: no generator here has these weights.
        """
        for bench in self.benches.values():
            if bench.generator.fingerprint == fingerprint:
                return bench
        there = ", ".join(f"{name} ({bench.generator.fingerprint[:4]}…)" for name, bench in self.benches.items())
        raise ValueError(f"no generator here has the fingerprint {fingerprint[:8]!r}…; this studio has {there}.")


def opened(sources: Sequence[str], controls: Sequence[Path] = (), *, device: str = "cpu", population: int = POPULATION) -> Workshop:
    """The workshop of some generators, by name or file, each with the controls that were made for it.

    Raises:
        ValueError: a generator or a control that cannot be read, or a control that belongs to none of the generators.
    """
    benches = {}
    loaded = [(path, store.load_control(path)) for path in controls]
    for source in sources:
        generator = zoo.load_generator(source, device=device)
        benches[_name(generator, benches)] = bench_of(generator, source, loaded, device=device)
    here = {bench.generator.fingerprint for bench in benches.values()}
    for path, control in loaded:
        if control.space.fingerprint not in here:
            raise ValueError(
                f"{path} was fitted on {control.space.owner}; name that generator too: steer studio GENERATOR --control {path}."
            )
    seconds = {name: forward_seconds(bench) for name, bench in benches.items()}
    return Workshop(benches, seconds=seconds, device=device, population=population)


def bench_of(generator: ModuleGenerator, source: str, loaded: Sequence[tuple[Path, Control]] = (), *, device: str = "cpu") -> Bench:
    """A bench with the shipped controls of the generator and those of the files that belong to it."""
    faces = generator.image_shape[0] == 3 and generator.fingerprint in {one["fingerprint"] for one in shipped().values()}
    features = zoo.load_features(*(FEATURES + JUDGES if faces else ("pixels", "geometry")), device=device)
    bench = Bench(generator, {}, features, source)
    for group, control in _shipped_controls(generator):
        bench, _ = session.adopted(bench, control, group)
    for path, control in loaded:
        if control.space.fingerprint == generator.fingerprint:
            checks.same_generator(control.space, generator.fingerprint, generator.name, str(path))
            bench, _ = session.adopted(bench, control, path.stem)
    return bench


def shipped() -> Mapping[str, Mapping[str, str]]:
    """The control files that come with the package; ``tools/fit_default_controls.py`` made them."""
    index = SHIPPED / "controls.json"
    return json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}


def _shipped_controls(generator: ModuleGenerator) -> list[tuple[str, Directions]]:
    found = []
    for file, entry in shipped().items():
        if entry["fingerprint"] != generator.fingerprint:
            continue
        content = (SHIPPED / file).read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError(f"checksum mismatch: {file} is not the file that was shipped. {shipped_files.REINSTALL}")
        control = store.control_of(content, what=file, generator=generator)
        found.append((entry["group"], _on(control, generator)))
    for one in shipped_files.entries().values():
        if one.kind == "control" and (walk := store.load_control(one.name)).space.fingerprint == generator.fingerprint:
            found.append(("trained with it", walk))
    return found


def _on(control: Directions, generator: ModuleGenerator) -> Directions:
    """The control, without what it does not do: knobs whose range is empty are left out."""
    return control[[knob.name for knob in control.knobs if knob.high > knob.low]]


def _name(generator: ModuleGenerator, taken: Mapping[str, Bench]) -> str:
    name, number = generator.name, 2
    while name in taken:
        name, number = f"{generator.name} {number}", number + 1
    return name


def forward_seconds(bench: Bench) -> float:
    """The best of three forward passes of one latent; after the first whole picture, which loads what all later ones need."""
    point, best = session.start(session.State(), bench), float("inf")
    pictures.data_url(session.pixels(point, bench)[0])
    for _ in range(3):
        began = time.perf_counter()
        with torch.inference_mode():
            bench.generator(point)
        best = min(best, time.perf_counter() - began)
    return best
