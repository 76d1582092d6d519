"""Networks as generators: sampling, spaces, truncation, labels and options, once for every family.

``wrap`` is the door for a user's own ``nn.Module``; the families beside this file build their network from a checkpoint
and come through ``generator_of``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from steerable import checks
from steerable.generators.stages import Options, Stage, class_weights
from steerable.linear import Linear
from steerable.protocols import Images, Latents, LatentSpace, home
from steerable.sensitivity import derived

LabelForm = Literal["index", "one-hot"]


@runtime_checkable
class Setter(Protocol):
    """What sets values in the parts of a latent: ``controls.groups.Controllers``."""

    @property
    def space(self) -> LatentSpace: ...

    def set(self, latents: Latents, values: Mapping[str, Any], *, seeds: Sequence[int] | None = None) -> Latents:
        """The latents with the parts of the named knobs replaced; with seeds one of many answers for each row, else the one."""
        ...


@dataclass(frozen=True, eq=False)
class ModuleGenerator:
    """A frozen network as a generator. Made by ``wrap`` or by a family; see ``protocols.Generator``.

    Attributes:
        network: the module itself.
        stages: its spaces in order, by name, each with the step to the next one or to images.
        classes: number of classes, or None.
        options: what its steps are given beside latents and labels: noise, a transform, ... See ``configured``.
        controllers: what ``sample(values=...)`` asks for the parts of its latents; see ``controlled``.
    """

    network: nn.Module
    stages: Mapping[str, Stage]
    spaces: Mapping[str, LatentSpace]
    image_shape: tuple[int, int, int]
    fingerprint: str
    classes: int | None
    options: Options = field(default_factory=dict)
    controllers: Setter | None = None

    @property
    def name(self) -> str:
        return next(iter(self.spaces.values())).generator

    def to(self, device: str | torch.device) -> ModuleGenerator:
        """The same generator with its weights on another device; latents are sampled there too."""
        self.network.to(device)
        return self

    def configured(self, **options: Any) -> ModuleGenerator:
        """The same weights with other options: ``generator.configured(noise="none")``. Its own are in ``.options``.

        Raises:
            ValueError: an option that this generator does not have; the error names those it has.
        """
        for option in options:
            checks.known(option, self.options, f"option of {self.name}")
        return replace(self, options={**self.options, **options})

    def controlled(self, controllers: Setter) -> ModuleGenerator:
        """The same generator, its values set by these controllers: ``sample(8, seed=0, values={"slant": 20})``.

        Raises:
            ValueError: controllers that were fitted on another generator.
        """
        checks.same_generator(controllers.space, self.fingerprint, self.name, "these controllers")
        return replace(self, controllers=controllers)

    def sample(
        self,
        n: int,
        *,
        seed: int,
        space: str | None = None,
        labels: int | Sequence[int] | Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
        share: Mapping[str, int] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Latents:
        """n latents of a seed.

        Every row has a random stream of its own, made from (seed, row): row i is the same for every n, and the rows
        of two seeds are independent. Class-conditional generators draw labels from the same stream unless given.

        Args:
            space: where to; left out, w where there is one and the first space otherwise.
            labels: one class for all, one index a latent, or (n, classes) weights that mix classes.
            psi: the share of the distance to the mean latent that is kept, 0 to 2; 1 is off.
            cutoff: truncate the first so many layers only. Needs a space with layers, "w+" for example.
            share: parts that all latents have from one row of the seed: ``{"identity": 0}``. For generators that were trained with parts.
            values: what the pictures are to measure: ``{"slant": 20, "ink": "p90"}``, numbers in the knob's unit, percentiles of unsteered
                pictures, or a list with one of them a row. Needs controllers. Each row draws one of the many latents that have the value
                from its own stream, so that samples differ.

        Raises:
            ValueError: n < 1, a negative seed, psi outside [0, 2], an unknown space, labels that do not exist,
                truncation in a space where it shows nothing, parts that the generator does not have, values out of reach.
        """
        if any(isinstance(one, bool) or not isinstance(one, Integral) for one in (n, seed)):
            raise TypeError(f"sample takes n latents of a seed, two whole numbers; got n={n!r}, seed={seed!r}.")
        n, seed = int(n), int(seed)
        if n < 1 or seed < 0:
            raise ValueError(f"sample takes n >= 1 latents of a seed >= 0, got n={n}, seed={seed}.")
        first, last = next(iter(self.stages.values())), checks.known(space or home(self), self.spaces, "latent space")
        rows, drawn = [], []
        for row in range(n):
            rng = torch.Generator().manual_seed(row_seed(seed, row))
            rows.append(first.draw(first.shape, rng, self.options))
            drawn.append(int(torch.randint(self.classes, (), generator=rng)) if self.classes else 0)
        like = next(self.network.parameters(), torch.zeros(()))
        points = self.spaces[first.name].normalised(torch.stack(rows)).to(like)
        latents = Latents(points, self.spaces[first.name], self._labels(labels, drawn, like.device))
        for part, row in (share or {}).items():
            latents = latents.swapped(part, self._row(seed, row, part))
        if psi != 1 or cutoff is not None:
            where = self._truncated_in(last)
            latents = self.truncate(self.to_space(latents, where), psi, cutoff=cutoff)
        if values:
            latents = self._set(latents, values, seed, last)
        return self.to_space(latents, last)

    def _row(self, seed: int, row: int, part: str) -> Latents:
        """One row of a seed in the first space, for the part that others share with it."""
        first = next(iter(self.stages.values()))
        self.spaces[first.name].part(part)
        if isinstance(row, bool) or not isinstance(row, int) or row < 0:
            raise ValueError(f'share takes a row of the seed for each part, {{"{part}": 0}} for example; got {row!r}.')
        rng = torch.Generator().manual_seed(row_seed(seed, row))
        values = first.draw(first.shape, rng, self.options)[None].to(next(self.network.parameters(), torch.zeros(())))
        labels = torch.zeros(1, dtype=torch.long, device=values.device) if self.classes else None
        return Latents(self.spaces[first.name].normalised(values), self.spaces[first.name], labels)

    def _set(self, latents: Latents, values: Mapping[str, Any], seed: int, last: str) -> Latents:
        if self.controllers is None:
            raise ValueError(
                f'{self.name} has no controllers for values={{"{next(iter(values))}": ...}}: generator.controlled(load_control(FILE)), '
                "or fit them with: steer fit controllers."
            )
        space, order = self.controllers.space.name, list(self.stages)
        if order.index(last) < order.index(space):
            raise ValueError(f'values are set in {space}, which comes after {last}: use space="{space}".')
        return self.controllers.set(self.to_space(latents, space), values, seeds=[row_seed(seed, row) for row in range(len(latents))])

    def resampled(self, latents: Latents, part: str, *, seed: int) -> Latents:
        """The same latents with one part drawn anew, row by row from ``seed``: another pose of the same identity.

        Raises:
            ValueError: an unknown part, latents of another generator.
        """
        self._stage_of(latents)
        latents.space.part(part)
        return latents.swapped(part, replace(self.sample(len(latents), seed=seed, space=latents.space.name), labels=latents.labels))

    def truncate(self, latents: Latents, psi: float, *, cutoff: int | None = None, part: str | None = None) -> Latents:
        """Pull latents towards the mean one: ``centre + psi * (values - centre)``.

        Args:
            latents: in a space that has a mean latent: z of a network that does not normalise it, w, or w+.
            psi: 0 to 2; 1 changes nothing.
            cutoff: only the first so many layers (w+); None means all.
            part: only this part of the latent, for generators trained with parts ("age", "pose").

        Raises:
            ValueError: psi out of range, a space without a mean latent, cutoff without layers, an unknown part.
        """
        if isinstance(psi, str) or not 0 <= psi <= 2:
            raise ValueError(f"psi is the distance to the mean latent that is kept, 0 to 2 (1 = off); got {psi!r}.")
        stage, space = self._stage_of(latents), latents.space
        if stage.centre is None:
            fit = ", ".join(f'"{name}"' for name, other in self.stages.items() if other.centre is not None)
            advice = f"it acts in {fit}: convert first, generator.to_space(latents, ...)." if fit else "leave psi at 1."
            raise ValueError(f"{self.name} divides the length of {space.name} out, so truncation shows nothing there; {advice}")
        if cutoff is not None and not space.layers:
            raise ValueError(f'cutoff counts layers, and {space.name} has none: use space="w+", or leave cutoff out.')
        if cutoff is not None and (not isinstance(cutoff, Integral) or not 0 <= cutoff <= len(space.layers)):
            raise ValueError(f"cutoff is 0 to {len(space.layers)} layers of {space}, got {cutoff!r}.")
        centre = stage.centre().to(latents.values)
        pulled = centre + psi * (latents.values - centre)
        keep = torch.ones_like(pulled, dtype=torch.bool)
        if cutoff is not None:
            keep[:, cutoff:] = False
        if part is not None:
            spans = {name: (start, end) for name, start, end in space.parts}
            start, end = spans[checks.known(part, spans, f"part of {space}")]
            keep[..., :start] = False
            keep[..., end:] = False
        return latents.at(torch.where(keep, pulled, latents.values))

    def to_space(self, latents: Latents, name: str) -> Latents:
        """The same latents in a later space: z -> w -> w+ -> s.

        Raises:
            ValueError: latents of another generator, an unknown space, or one that lies before the latents' own.
        """
        target = checks.known(name, self.spaces, "latent space")
        stage = self._stage_of(latents)
        order = list(self.stages)
        if order.index(target) < order.index(stage.name):
            raise ValueError(
                f'{stage.name} latents of {self.name} cannot go back to {target}: sample them there, sample(n, seed=..., space="{target}").'
            )
        if target == stage.name:
            return latents
        values = latents.values
        for step in order[order.index(stage.name) : order.index(target)]:
            values = self._step(self.stages[step], values, latents.labels)
        return Latents(values.contiguous(), self.spaces[target], latents.labels)  # a broadcast w would share its memory

    def __call__(self, latents: Latents) -> Images:
        last = list(self.stages)[-1]
        latents = self.to_space(latents, last)
        return self._step(self.stages[last], latents.values, latents.labels)

    def linearised(self, latents: Latents) -> Linear | None:
        """Images and products with their derivative in the latents' values, at one pass each; None where the network has no faster
        way than automatic differentiation. See ``sensitivity.operator``."""
        stages = list(self.stages.values())
        passed = stages[stages.index(self._stage_of(latents)) :]
        if passed[-1].linearised is None:
            return None
        total: Linear | None = None
        here: Linear | None = None
        for stage in passed:
            at = latents.values if total is None else total.value
            if stage.linearised is None:
                here = derived(lambda values, stage=stage: self._step(stage, values, latents.labels), at)
            else:
                here = stage.linearised(at, latents.labels, **{option: self.options[option] for option in stage.takes})
            if here is None:
                return None
            total = here if total is None else total.then(here)
        assert total is not None and here is not None
        return replace(total, push_passes=here.push_passes, pull_passes=here.pull_passes, kind=here.kind)

    def _step(self, stage: Stage, values: Tensor, labels: Tensor | None) -> Tensor:
        if stage.labelled and labels is None:
            raise ValueError(
                f"{self.name} has {self.classes} classes: its latents need labels, e.g. generator.sample(4, seed=0, labels=3)."
            )
        return stage.step(values, labels, **{option: self.options[option] for option in stage.takes})

    def _stage_of(self, latents: Latents) -> Stage:
        if not isinstance(latents, Latents):
            some = home(self)
            raise TypeError(
                f'{self.name} takes Latents, got a {type(latents).__name__}: Latents(values, generator.spaces["{some}"]), '
                "or generator.sample(4, seed=0)."
            )
        checks.lives_in(latents, self.spaces.get(latents.space.name, next(iter(self.spaces.values()))), "this generator")
        like = next(self.network.parameters(), latents.values)
        if latents.values.dtype != like.dtype:
            raise TypeError(f"{self.name} computes in {like.dtype}, got latents of {latents.values.dtype}: values.to({like.dtype}).")
        self._fitting(latents.labels)
        return self.stages[latents.space.name]

    def _fitting(self, labels: Tensor | None) -> None:
        """Refuse labels that the network has no classes for."""
        if labels is None:
            return
        if not self.classes:
            raise ValueError(f"{self.name} has no classes, got latents with labels. Leave labels out.")
        if labels.is_floating_point():
            if labels.shape[1] != self.classes:
                raise ValueError(f"weights that mix classes of {self.name} are (n, {self.classes}), got {tuple(labels.shape)}.")
        elif labels.dtype == torch.bool or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes):
            raise ValueError(f"{self.name} has the classes 0 to {self.classes - 1}, got {str(sorted(set(labels.tolist())))[:60]}.")

    def _truncated_in(self, last: str) -> str:
        """The last space up to ``last`` that has a mean latent."""
        order = list(self.stages)
        passed = order[: order.index(last) + 1]
        fit = [name for name in passed if self.stages[name].centre is not None]
        return fit[-1] if fit else last  # truncate() says why it cannot

    def _labels(self, given: int | Sequence[int] | Tensor | None, drawn: list[int], device: torch.device) -> Tensor | None:
        if self.classes is None:
            if given is not None:
                raise ValueError(f"{self.name} has no classes, got labels {given}. Leave labels out.")
            return None
        n = len(drawn)
        try:
            labels = torch.as_tensor(drawn if given is None else [given] * n if isinstance(given, int) else given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"labels are class indices 0 to {self.classes - 1}, got {str(given)[:60]!r}.") from error
        if labels.is_floating_point() and labels.shape == (n, self.classes):
            return checks.finite(labels, "labels").to(device)
        if labels.shape != (n,) or labels.is_floating_point():
            raise ValueError(
                f"labels are {n} class indices, or weights ({n}, {self.classes}) that mix classes; "
                f"got {labels.dtype} {tuple(labels.shape)}."
            )
        self._fitting(labels)
        return labels.long().to(device)


def generator_of(network: Any, *, name: str) -> ModuleGenerator:
    """A family's network, its weights in place, as a generator: frozen, in eval mode, constants folded.

    Args:
        network: an ``nn.Module`` with the attributes of ``stages.Network``.

    Raises:
        ValueError: NaN or infinite weights.
    """
    network = _frozen(network, name)
    network.prepare()
    stages = {stage.name: stage for stage in network.stages}
    fingerprint = fingerprint_of(network)
    return ModuleGenerator(
        network=network,
        stages=stages,
        spaces={stage.name: _space(stage, fingerprint, name) for stage in stages.values()},
        image_shape=tuple(network.image_shape),
        fingerprint=fingerprint,
        classes=network.classes,
        options=dict(network.options),
    )


def _space(stage: Stage, fingerprint: str, name: str) -> LatentSpace:
    return LatentSpace(stage.name, stage.shape, fingerprint, name, stage.spheres, stage.layers, stage.parts)


def _frozen(module: nn.Module, name: str) -> nn.Module:
    module = module.eval().requires_grad_(False)
    bad = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(f"{name} has NaN or infinite weights in {bad[0]} and {len(bad) - 1} other tensors: the file is damaged.")
    return module


def wrap(
    module: nn.Module,
    *,
    latent_size: int | tuple[int, ...],
    name: str = "module",
    classes: int | None = None,
    labels: LabelForm = "index",
    value_range: tuple[float, float] | None = None,
) -> ModuleGenerator:
    """Turn a network into a generator. The network is frozen and put into eval mode.

    Args:
        module: called as ``module(z)``, or ``module(z, labels)`` when it has classes; returns images (n, c, h, w).
        latent_size: the shape of one latent: 100, or (100, 1, 1) for networks that want it so.
        name: for messages and files.
        classes: number of classes of a class-conditional network.
        labels: how the network takes them: "index" (n,) integers, or "one-hot" (n, classes) floats.
        value_range: of the network's images. Left out, it is (-1, 1), unless four images show that this is in doubt.

    Raises:
        ValueError: the network does not run on such latents, is not deterministic, mixes the rows of a batch, gives
            no finite float images, or has a value range that has to be stated.
    """
    shape = (latent_size,) if isinstance(latent_size, int) else tuple(latent_size)
    if not shape or min(shape) < 1:
        raise ValueError(f"latent_size is the shape of one latent, 100 or (100, 1, 1) for example; got {latent_size}.")
    if value_range is not None and not float("-inf") < value_range[0] < value_range[1] < float("inf"):
        raise ValueError(f"value_range is (lowest, highest), (0, 1) for example; got {value_range}.")
    module = _frozen(module, name)
    probe = torch.randn((4, *shape), generator=torch.Generator().manual_seed(0))
    first = next(module.parameters(), None)
    if first is not None:
        probe = probe.to(first)
    classes_of = torch.arange(4, device=probe.device) % classes if classes else None
    try:
        with torch.no_grad():
            images, again, alone = (
                _run(module, z, y, classes, labels)
                for z, y in ((probe, classes_of), (probe, classes_of), (probe[:1], None if classes_of is None else classes_of[:1]))
            )
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        called = "module(z, labels)" if classes else "module(z)"
        raise ValueError(f"{name} does not run as {called} on z of {tuple(probe.shape)}: {str(error).splitlines()[0]}") from error
    _check_images(images, again, alone, name)
    value_range = _value_range(images, name) if value_range is None else value_range
    low, high = float(value_range[0]), float(value_range[1])

    def images_of(values: Tensor, labels_of: Tensor | None) -> Tensor:
        made = _run(module, values, labels_of, classes, labels).float()
        return made if (low, high) == (-1.0, 1.0) else (made - low) * (2 / (high - low)) - 1

    stage = Stage("z", shape, images_of, labelled=classes is not None, centre=lambda: torch.zeros(shape))
    fingerprint = fingerprint_of(module)
    return ModuleGenerator(
        network=module,
        stages={"z": stage},
        spaces={"z": _space(stage, fingerprint, name)},
        image_shape=(int(images.shape[1]), int(images.shape[2]), int(images.shape[3])),
        fingerprint=fingerprint,
        classes=classes,
    )


def fingerprint_of(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all tensors, and the class for a module that has none."""
    digest = hashlib.sha256(type(module).__qualname__.encode() if not module.state_dict() else b"")
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def row_seed(seed: int, row: int) -> int:
    """A 63-bit seed for one row of a seed (the finaliser of splitmix64 over both numbers)."""
    mask = 2**64 - 1
    x = (seed * 0x9E3779B97F4A7C15 + (row + 1) * 0xD1B54A32D192ED03) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) >> 1


def _run(module: nn.Module, z: Tensor, labels: Tensor | None, classes: int | None, form: LabelForm) -> Tensor:
    if not classes:
        return module(z)
    assert labels is not None
    if form == "one-hot":
        return module(z, class_weights(labels, classes, z))
    if labels.is_floating_point():
        raise ValueError(f'this network takes class indices, got weights {tuple(labels.shape)}: mixed classes need labels="one-hot".')
    return module(z, labels)


def _check_images(images: Tensor, again: Tensor, alone: Tensor, name: str) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or len(images) != 4:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"{name} has to give float images (n, c, h, w) for n latents, got {got} for 4.")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"{name} gives images of {images.shape[1]} channels; 1 (grey) or 3 (RGB) were expected.")
    checks.finite(images, f"images of {name}")
    if not torch.allclose(images, again, rtol=1e-4, atol=1e-5):
        raise ValueError(f"{name} gives two different images for one latent: fix its noise before wrapping it.")
    if not torch.allclose(images[:1], alone, rtol=1e-3, atol=1e-3):
        raise ValueError(f"{name} gives another image when a latent is alone in its batch: it uses statistics of the batch.")


def _value_range(images: Tensor, name: str) -> tuple[float, float]:
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        raise ValueError(f"images of {name} lie in [{low:.2f}, {high:.2f}]: say which range it is, value_range=(0, 1) or (-1, 1).")
    if high > 8 or low < -8:
        raise ValueError(f"images of {name} lie in [{low:.1f}, {high:.1f}]: say which range it is, for example value_range=(0, 255).")
    return -1.0, 1.0
