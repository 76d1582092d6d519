"""What a generator is, and whether it can be steered: everything that this package relies on, measured.

``examine`` never raises over what it examines: a check that cannot run has failed, with the reason. An object that is no generator gets
a report of what is missing from ``protocols.Generator`` and what to write instead. Licence and source are as ``provenance`` finds them.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steerable import checks, importing, progress, sampling
from steerable.generators import families, processor
from steerable.protocols import Generator, Images, Latents, LatentSpace

METHODS = ("spaces", "sample", "to_space", "__call__")
DETAILS = ("image_shape", "fingerprint")
SEEDS = range(16)  # of the contact sheet, and of the value range
NOT_STATED = "not stated"
PATIENCE = 60.0  # seconds that a batch of the speed test may take
REPEATED = 1.0  # seconds that the speed is measured for, at least
SAME, BATCH, TRUNCATED = 1e-5, 1e-3, 1e-3  # largest differences that count as none, for values of size 1
AGREE = 1e-3  # relative difference of forward and reverse mode


@dataclass(frozen=True)
class Check:
    """One thing that was tried: ``ok`` is None where it does not apply."""

    name: str
    ok: bool | None
    measured: str


@dataclass(frozen=True, eq=False)
class Report:
    """What was found. ``facts()`` has the description as rows of text.

    Attributes:
        family, layout, source, licence: as the generator or its file state them.
        spaces: in order, from the one that is sampled to the one that makes images.
        values: lowest and highest pixel of n = 16 images.
        outside: share of their pixels outside [-1, 1].
        checks: in the order in which they ran; empty for what is no generator.
        missing: members of the protocol that the object lacks.
        advice: what to write where something is missing.
        images: of the seeds 0 to 15 (16, c, h, w), for a contact sheet; None where none could be made.
    """

    name: str
    family: str
    layout: str = NOT_STATED
    source: str = NOT_STATED
    licence: str = NOT_STATED
    fingerprint: str = ""
    image_shape: tuple[int, ...] = ()
    classes: int | None = None
    parameters: int = 0
    spaces: Mapping[str, LatentSpace] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[float, float] | None = None
    outside: float = 0.0
    checks: tuple[Check, ...] = ()
    missing: tuple[str, ...] = ()
    advice: str = ""
    images: Tensor | None = None

    @property
    def healthy(self) -> bool:
        """Nothing is missing and no check has failed."""
        return not self.missing and all(check.ok is not False for check in self.checks)

    @property
    def steered(self) -> str:
        """The space that controls live in unless another is asked for."""
        return "w" if "w" in self.spaces else next(iter(self.spaces), "")

    def facts(self) -> list[tuple[str, str]]:
        """What it is, as rows (what, value)."""
        rows = [("name", self.name), ("family", self.family), ("layout", self.layout), ("source", self.source), ("licence", self.licence)]
        if self.missing:
            return [*rows, ("missing", ", ".join(self.missing)), ("what to write", self.advice)]
        rows += [("fingerprint", self.fingerprint[:16]), ("images", " x ".join(map(str, self.image_shape)))]
        if self.parameters:
            rows.append(("weights", f"{self.parameters:,} numbers"))
        rows += [(f"space {name}", _described(space, steered=name == self.steered)) for name, space in self.spaces.items()]
        rows.append(("classes", str(self.classes) if self.classes else "none"))
        rows.append(("options", ", ".join(f"{key}={_brief(value)}" for key, value in self.options.items()) or "none"))
        if self.values is not None:
            outside = f"{self.outside:.2%} of pixels outside [-1, 1]"
            rows.append(("values", f"{self.values[0]:.3f} to {self.values[1]:.3f}, {outside} (n {len(SEEDS)} images)"))
        return rows


def examine(generator: Any, *, stated: Mapping[str, str] | None = None) -> Report:
    """Try everything on a generator that steering relies on; a quarter of a minute for one of 256 px on two cores.

    Args:
        generator: any object; a module that is no generator yet gets told what to write.
        stated: "layout", "source" and "licence" as its file states them; see ``provenance.stated``.
    """
    told = {"layout": NOT_STATED, "source": NOT_STATED, "licence": NOT_STATED, **(stated or {})}
    layout, source, licence = told["layout"], told["source"], told["licence"]
    missing = tuple(member for member in (*METHODS, *DETAILS) if not _has(generator, member))
    kind = type(generator).__name__
    if missing:
        advice = _advice(generator, missing)
        return Report(kind, _kind_of(generator), layout, source, licence, missing=missing, advice=advice)
    network = getattr(generator, "network", generator)
    trial = _Trial(generator)
    found = [
        trial.run(name, check)
        for name, check in progress.track(
            (
                ("images", trial.images),
                ("sampling", trial.sampling),
                ("one latent, one image", trial.repeats),
                ("rows of a batch", trial.batch),
                ("gradients", trial.gradients),
                ("truncation", trial.truncation),
                ("speed", trial.speed),
                ("memory", trial.memory),
            ),
            "examine",
        )
    ]
    return Report(
        name=next(iter(generator.spaces.values())).generator or kind,
        family=str(getattr(network, "family", None) or f"your own ({type(network).__name__})"),
        layout=layout,
        source=source,
        licence=licence,
        fingerprint=generator.fingerprint,
        image_shape=tuple(generator.image_shape),
        classes=trial.classes,
        parameters=sum(tensor.numel() for tensor in network.state_dict().values()) if isinstance(network, nn.Module) else 0,
        spaces=dict(generator.spaces),
        options=dict(getattr(generator, "options", {})),
        values=trial.values,
        outside=trial.outside,
        checks=tuple(found),
        images=trial.sheet,
    )


def untold(path: Path, error: ValueError) -> Report:
    """The report on a file that is no generator by itself: a program of torch (TorchScript, ``torch.export``) that does not say how it is
    called, or weights of a network that no family here has.

    Raises:
        ValueError: ``error`` again, where it is neither, or something else is the matter with it.
    """
    reason, missing = str(error), (*METHODS, *DETAILS)
    if families.UNKNOWN in reason:
        advice = f"its code is not in the file: load the weights into your module, and steerable.wrap(module, ...) gives it all. {reason}"
        return Report(name=path.stem, family="an unknown module", missing=missing, advice=advice)
    if not importing.is_program(path) or not re.search(r"(latent_size|value_range|classes)=", reason):
        raise error
    advice = f"steerable.generators.exported.load_exported({path.name!r}, latent_size=...) gives it all of them. {reason}"
    return Report(name=path.stem, family="a program of torch", missing=missing, advice=advice)


class _Trial:
    """The checks of one generator; each gives (ok, what was measured)."""

    def __init__(self, generator: Any) -> None:
        self.generator: Generator = generator
        self.classes: int | None = getattr(generator, "classes", None)
        self.sheet: Tensor | None = None
        self.values: tuple[float, float] | None = None
        self.outside = 0.0
        self.seconds = 0.0  # that one image takes

    def run(self, name: str, check: Callable[[], tuple[bool | None, str]]) -> Check:
        try:
            ok, measured = check()
        except Exception as error:  # whatever a generator under examination raises is a finding
            reason = (str(error).splitlines() or [""])[0]
            ok, measured = False, f"{type(error).__name__}: {reason}"
        return Check(name, ok, measured)

    def draw(self, latents: Latents, size: int = 8) -> Images:
        """Images in batches that grow no larger than eight of 256 px."""
        size = max(1, min(size, size * 256 * 256 // max(1, self.generator.image_shape[1] * self.generator.image_shape[2])))
        with torch.no_grad():
            return torch.cat([self.generator(latents[i : i + size]) for i in range(0, len(latents), size)])

    def sample(self, n: int, **options: Any) -> Latents:
        return self.generator.sample(n, **{"seed": 7, **({"labels": 0} if self.classes and "labels" not in options else {}), **options})

    def images(self) -> tuple[bool, str]:
        latents = sampling.latents_of(self.generator, list(SEEDS))
        images = checks.finite(checks.images(self.draw(latents)), "images")
        shape, expected = tuple(images.shape[1:]), tuple(self.generator.image_shape)
        if shape != expected:
            return False, f"images are {shape}, image_shape says {expected}"
        self.sheet, self.values = images.cpu(), (float(images.min()), float(images.max()))
        self.outside = float((images.abs() > 1).float().mean())
        spread = float((images - images.mean(0)).square().mean().sqrt())
        if spread < SAME:
            return False, f"all n {len(images)} images are the same picture"
        if self.values[0] >= 0:
            limits = "(0, 1)" if self.values[1] <= 1 else "(0, 255)"
            return False, f"no pixel is below 0: give the range when you wrap it, wrap(..., value_range={limits})"
        return True, f"n {len(images)}, finite, {expected[1]} x {expected[2]}; seeds differ by {spread:.3f} (root mean square)"

    def sampling(self) -> tuple[bool, str]:
        first, again, longer = self.generator.sample(4, seed=7), self.generator.sample(4, seed=7), self.generator.sample(6, seed=7)
        twice, cut = _apart(first.values, again.values), _apart(first.values, longer.values[:4])
        other = _apart(first.values, self.generator.sample(4, seed=8).values)
        if other == 0:
            return False, "seeds 7 and 8 give the same latents"
        size = max(1.0, float(first.values.abs().max()))
        return twice == 0 and cut <= SAME * size, f"same seed twice differs by {twice:.1e}, as part of a longer sample by {cut:.1e}"

    def repeats(self) -> tuple[bool, str]:
        latents = self.sample(1)
        one, two = self.draw(latents), self.draw(latents)
        apart = _apart(one, two)
        return apart <= SAME * _size(one), f"two calls differ by {apart:.1e}{'' if apart <= SAME * _size(one) else ': fix the noise'}"

    def batch(self) -> tuple[bool, str]:
        latents = self.generator.sample(4, seed=7)
        with torch.no_grad():
            together, alone = self.generator(latents), torch.cat([self.generator(latents[i : i + 1]) for i in range(4)])
        apart = _apart(together, alone)
        ok = apart <= BATCH * _size(together)
        return ok, f"alone and in a batch of 4 differ by {apart:.1e}{'' if ok else ': statistics of the batch are in use'}"

    def gradients(self) -> tuple[bool, str]:
        """``<u, J v>`` by forward mode against ``<J' u, v>`` by reverse mode with u along ``J v``, from every space."""
        told, ok = [], True
        for name in self.generator.spaces:
            start = self.sample(1, space=name)
            start = start.at(start.values.clone())  # rows of w+ may share their memory, which forward mode does not take
            rng = torch.Generator().manual_seed(0)
            tangent = torch.randn(start.values.shape, generator=rng).to(start.values)

            def images(values: Tensor, start: Latents = start) -> Tensor:
                return self.generator(start.at(values))

            with torch.no_grad():
                moved = torch.func.jvp(images, (start.values,), (tangent,))[1]
            length = moved.norm()
            if not bool(torch.isfinite(length)) or float(length) == 0:
                return False, f"{name}: forward mode gives {'no change' if float(length) == 0 else 'numbers that are not finite'}"
            pulled = torch.func.vjp(images, start.values)[1](moved / length)[0]
            if not bool(torch.isfinite(pulled).all()):
                return False, f"{name}: reverse mode gives numbers that are not finite"
            gap = float(((pulled * tangent).sum() - length).abs() / length)
            ok = ok and gap <= AGREE
            told.append(f"{name} {gap:.0e}")
        return ok, f"finite; forward and reverse mode differ by {', '.join(told)} (relative)"

    def truncation(self) -> tuple[bool | None, str]:
        try:
            centre = self.draw(self.sample(2, psi=0.0))
        except ValueError as error:
            if "truncation" not in str(error):
                raise
            return None, "this generator has no mean latent to truncate to"
        apart = _apart(centre[:1], centre[1:])
        if apart > TRUNCATED * _size(centre):
            return False, f"psi 0 gives different images: they differ by {apart:.1e}"
        half, full = (float((self.draw(self.sample(8, psi=psi)) - centre[:1]).square().mean().sqrt()) for psi in (0.5, 1.0))
        told = f"psi 0 gives one image; from it psi 0.5 is {half:.3f} away, psi 1 {full:.3f} (root mean square, n 8)"
        return half < full, told

    def speed(self) -> tuple[bool, str]:
        told = []
        for size in (1, 8):
            expected = size * self.seconds
            if expected > PATIENCE:
                told.append(f"batch {size} not measured, it would take about {expected:.0f} s")
                continue
            latents = self.sample(size)
            with torch.no_grad():
                if not self.seconds:
                    self.generator(latents)  # the first call warms up
                runs, began = 0, time.perf_counter()
                while runs == 0 or (time.perf_counter() - began < REPEATED and runs < 50):
                    self.generator(latents)
                    runs += 1
                _wait(latents.values.device)
            took = (time.perf_counter() - began) / runs
            self.seconds = self.seconds or took
            told.append(f"{size / took:.3g} images/s at batch {size}")
        if "precision" in getattr(self.generator, "options", {}) and not processor.half(self.sample(1).values.device.type):
            told.append("precision=bfloat16 is float32 here, for this processor has no instructions for it")
        return True, f"{', '.join(told)} ({_place(self.sample(1).values.device)})"

    def memory(self) -> tuple[bool | None, str]:
        device = self.sample(1).values.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.draw(self.sample(1), size=1)
            return True, f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MB on the device for one image, weights included"
        try:
            import resource
        except ImportError:
            return None, "this system does not tell"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return True, f"{peak:.0f} MB at most, of the whole process so far"


def _has(thing: Any, member: str) -> bool:
    if member == "__call__":  # every nn.Module can be called; as a generator it has to take latents, which only sample() gives
        return callable(thing) and (not isinstance(thing, nn.Module) or hasattr(thing, "sample"))
    return hasattr(thing, member)


def _kind_of(thing: Any) -> str:
    kind = type(thing)
    if isinstance(thing, nn.Module):
        return f"a torch module of {sum(parameter.numel() for parameter in thing.parameters()):,} weights"
    return f"a {kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else f"a {kind.__qualname__}"


def _advice(thing: Any, missing: tuple[str, ...]) -> str:
    if isinstance(thing, type):
        return f"this is the class {thing.__name__}: examine an instance of it"
    if isinstance(thing, nn.Module):
        return f"steerable.wrap(module, latent_size={_latent_size(thing)}) gives it all of them"
    return f"steerable.protocols.Generator says what {', '.join(missing)} have to be; an nn.Module gets them from steerable.wrap"


def _latent_size(module: nn.Module) -> str:
    """What the first layer takes, where that can be seen: a guess to start from."""
    for one in module.modules():
        kind, weight = getattr(one, "original_name", type(one).__name__), getattr(one, "weight", None)  # TorchScript keeps the first
        if kind == "Linear" and isinstance(weight, Tensor):
            return str(weight.shape[1])
        if kind in ("Conv2d", "ConvTranspose2d") and isinstance(weight, Tensor):
            return f"({weight.shape[1 if kind == 'Conv2d' else 0]}, 1, 1)"
    return "..."


def _described(space: LatentSpace, *, steered: bool) -> str:
    told = [f"{tuple(space.shape)}{', the one to steer in' if steered else ''}"]
    for what, spans in (("layers", space.layers), ("parts", space.parts), ("spheres", space.spheres)):
        if spans:
            names = ", ".join(name for name, _, _ in spans[:4]) + (", …" if len(spans) > 4 else "")
            told.append(f"{len(spans)} {what if len(spans) > 1 else what[:-1]} ({names})")
    return "; ".join(told)


def _brief(value: Any) -> str:
    """An option's value in a few characters; tensors by their shape."""
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    text = str(value)
    return text if len(text) <= 30 else f"{text[:29]}…"


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference; NaN where there is one."""
    return float((a - b).abs().max())


def _size(images: Tensor) -> float:
    """What differences are compared with: 1, or the largest value beyond."""
    return max(1.0, float(images.abs().max()))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _place(device: torch.device) -> str:
    return f"{torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
