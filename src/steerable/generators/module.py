"""Any ``nn.Module`` as a generator.

``wrap`` is the door for a user's own network; the families beside this file build their network from a checkpoint
and come through the same door, so sampling, labels, fingerprints and checks exist once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from steerable import checks
from steerable.protocols import Images, Latents, LatentSpace

LabelForm = Literal["index", "one-hot"]


@dataclass(frozen=True, eq=False)
class ModuleGenerator:
    """A frozen network with a Gaussian latent. Made by ``wrap``; see ``protocols.Generator``."""

    network: nn.Module
    spaces: Mapping[str, LatentSpace]
    image_shape: tuple[int, int, int]
    fingerprint: str
    classes: int | None
    label_form: LabelForm
    value_range: tuple[float, float]

    @property
    def name(self) -> str:
        return self.spaces["z"].generator

    def to(self, device: str | torch.device) -> ModuleGenerator:
        """The same generator with its weights on another device; latents are sampled there too."""
        self.network.to(device)
        return self

    def sample(
        self, n: int, *, seed: int, space: str = "z", labels: int | Sequence[int] | Tensor | None = None, psi: float = 1.0
    ) -> Latents:
        """n latents from the standard normal, pulled towards the mean latent (zero) by ``psi``.

        Every row has a random stream of its own, made from (seed, row): row i is the same for every n, and the rows
        of two seeds are independent. Class-conditional generators draw labels from the same stream unless given.

        Raises:
            ValueError: n < 1, a negative seed, psi outside [0, 2], an unknown space, labels that do not exist.
        """
        if n < 1 or seed < 0:
            raise ValueError(f"sample takes n >= 1 latents of a seed >= 0, got n={n}, seed={seed}.")
        if not 0 <= psi <= 2:
            raise ValueError(f"psi is the distance to the mean latent that is kept, 0 to 2 (1 = off); got {psi}.")
        z = self.spaces[checks.known(space, self.spaces, "latent space")]
        rows, drawn = [], []
        for row in range(n):
            rng = torch.Generator().manual_seed(row_seed(seed, row))
            rows.append(torch.randn(z.shape, generator=rng))
            drawn.append(int(torch.randint(self.classes, (), generator=rng)) if self.classes else 0)
        like = next(self.network.parameters(), torch.zeros(()))
        return Latents(psi * torch.stack(rows).to(like), z, self._labels(labels, drawn, like.device))

    def to_space(self, latents: Latents, name: str) -> Latents:
        """The latents themselves: this generator has one space, z."""
        checks.known(name, self.spaces, "latent space")
        checks.lives_in(latents, self.spaces["z"], "this generator")
        return latents

    def __call__(self, latents: Latents) -> Images:
        checks.lives_in(latents, self.spaces["z"], "this generator")
        if self.classes and latents.labels is None:
            raise ValueError(
                f"{self.name} has {self.classes} classes: its latents need labels, e.g. generator.sample(4, seed=0, labels=3)."
            )
        low, high = self.value_range
        images = _run(self.network, latents.values, latents.labels, self.classes, self.label_form).float()
        return images if (low, high) == (-1.0, 1.0) else (images - low) * (2 / (high - low)) - 1

    def _labels(self, given: int | Sequence[int] | Tensor | None, drawn: list[int], device: torch.device) -> Tensor | None:
        if self.classes is None:
            if given is not None:
                raise ValueError(f"{self.name} has no classes, got labels {given}. Leave labels out.")
            return None
        n = len(drawn)
        labels = torch.as_tensor(drawn if given is None else [given] * n if isinstance(given, int) else given)
        if labels.shape != (n,) or labels.is_floating_point():
            raise ValueError(f"labels are {n} class indices, got {labels.dtype} {tuple(labels.shape)}.")
        if int(labels.min()) < 0 or int(labels.max()) >= self.classes:
            raise ValueError(f"{self.name} has the classes 0 to {self.classes - 1}, got {sorted({int(i) for i in labels})}.")
        return labels.to(device)


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
    module = module.eval().requires_grad_(False)
    bad = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(f"{name} has NaN or infinite weights in {bad[0]} and {len(bad) - 1} other tensors: the file is damaged.")
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
    fingerprint = fingerprint_of(module)
    return ModuleGenerator(
        network=module,
        spaces={"z": LatentSpace("z", shape, fingerprint, name)},
        image_shape=(int(images.shape[1]), int(images.shape[2]), int(images.shape[3])),
        fingerprint=fingerprint,
        classes=classes,
        label_form=labels,
        value_range=(float(value_range[0]), float(value_range[1])),
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
    return module(z, nn.functional.one_hot(labels, classes).to(z.dtype) if form == "one-hot" else labels)


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
