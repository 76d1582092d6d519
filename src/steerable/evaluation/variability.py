"""Why a walk stops where it does: how far each class can be moved, against how much the class varies in the data.

Every class is steered to the same two ends, -alpha* and +alpha*. What the attribute's mean moves between them, Delta mu (eq. 6), is put
against the attribute's standard deviation sigma over the data of that class: Pearson's r, slope and p over the classes. Two classes are
told apart by a two-sample t. Neighbours: ``limits`` shows one walk at many amounts, ``attribute`` has what is measured, ``relation`` the
statistics; ``plots.variability_plot`` draws this.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, section 4.2, eq. 6, figures 4 and 6.
Where the paper has FID below 22, alpha* is bounded by the kernel distance, which says something at the n of a class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks, progress
from steerable.controls.directions import amounts as turned
from steerable.evaluation.attribute import Attribute, image_means, resolved
from steerable.evaluation.plausible import knob_of, largest_amount
from steerable.evaluation.relation import Contrast, Relation, contrast, relation
from steerable.features import backbone
from steerable.features.perceptual import Perceptual
from steerable.generators.module import row_seed
from steerable.protocols import Control, Feature, Generator, Images, Knob, Latents, device_of
from steerable.sampling import in_batches
from steerable.sources import ImageSource

SAMPLES = "the generator's own samples"
PICTURES = 1000  # of a class, at most, from which its spread is measured
Spread = ImageSource | Mapping[str, float] | Mapping[int, float] | Sequence[float] | Tensor | None


@dataclass(frozen=True, eq=False)
class Variability:
    """How far each of k classes was moved, and how much each varies.

    Attributes:
        knob: that was turned, to ``-amount`` and ``amount`` from its neutral one.
        attribute, unit, judge: what was measured.
        names, classes: of the k classes; their indices in the generator.
        sigma: (k,) standard deviation of the attribute over the data of a class; where the attribute is that of random pixels, over pixels.
        changes: (k, n) the attribute at the upper end minus that at the lower, of each latent; NaN where it was not found at both.
        means: (k, 2) at the lower and at the upper end, over what was found.
        looks: (k, n) perceptual distance between the two ends of each latent; None where they were not asked for.
        sigma_from: where sigma comes from; ``pictures`` (k,) how many images of each class (0: it was given).
        threshold, distances: the kernel distance that alpha* had to stay below, and ``(amount, distance at -, at +)`` of those tried.
        n, seed: latents a class.
    """

    knob: Knob
    amount: float
    attribute: str
    unit: str
    judge: str
    names: tuple[str, ...]
    classes: tuple[int, ...]
    sigma: Float[Tensor, " k"]
    changes: Float[Tensor, "k n"]
    means: Float[Tensor, "k 2"]
    looks: Float[Tensor, "k n"] | None
    sigma_from: str
    pictures: tuple[int, ...]
    threshold: float | None
    distances: tuple[tuple[float, float, float], ...]
    n: int
    seed: int

    @property
    def delta_mu(self) -> Float[Tensor, " k"]:
        """Mean at +alpha* minus mean at -alpha*, of each class. Eq. 6."""
        return self.means[:, 1] - self.means[:, 0]

    @property
    def relation(self) -> Relation:
        """Delta mu against sigma.

        Raises:
            ValueError: fewer than three classes, or classes that all vary alike: no line goes through them.
        """
        return relation(self.sigma, self.delta_mu)

    def contrast(self, first: str, second: str) -> tuple[Contrast, ...]:
        """Two classes by name: the attribute's change, and how different their ends look where that was measured.

        Raises:
            ValueError: a class that was not measured, the same class twice, or too few images in which anything was found.
        """
        if checks.known(first, self.names, "class") == checks.known(second, self.names, "class"):
            raise ValueError(f'two different classes are compared, got "{first}" twice.')
        a, b = self.names.index(first), self.names.index(second)
        measured = [(f"change of {self.attribute}", self.changes)]
        measured += [] if self.looks is None else [("perceptual distance of the ends", self.looks)]
        return tuple(contrast(values[a], values[b], names=(first, second), what=what) for what, values in measured)


def variability(
    generator: Generator,
    control: Control,
    attribute: Attribute | Feature | None = None,
    *,
    sigma: Spread = None,
    amount: float | None = None,
    threshold: float | None = None,
    network: Callable[[Images], Tensor] | None = None,
    looks: bool = False,
    candidates: Sequence[float] | None = None,
    knob: str | None = None,
    classes: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    n: int = 200,
    seed: int = 1,
    psi: float = 1.0,
    quality_n: int = 256,
    batch: int = 32,
) -> Variability:
    """Steer every class to the same two ends, and relate how far it moved to how much it varies.

    Args:
        attribute: what is measured; by default what belongs to the edit of the knob's name, see ``attribute.attribute_of``.
        sigma: where the spread of each class comes from: a labelled ``ImageSource`` (its class i is the generator's class i), numbers by
            name or index or one a class, or None: other samples of the generator itself.
        amount: alpha*, the same for all classes.
        threshold: without ``amount``, the largest kernel distance of steered to unsteered images that alpha* may reach on either
            side; by default that of unsteered images reduced to half their size.
        network: images -> features for the kernel distance, by default the shipped backbone.
        looks: also measure how different the two ends of each latent look, for ``contrast``; the network must then have maps, as that
            one has.
        candidates: amounts above 0 to choose alpha* from; by default ten up to twice the knob's usable range.
        knob: which, where the control has several.
        classes: their indices; all of the generator's by default.
        names: of the classes; those of the data, or their numbers, by default.
        n, seed: latents a class; take a seed that nothing was fitted on.
        quality_n: images for each kernel distance.

    Raises:
        ValueError: a generator without classes, a class it lacks, fewer than 3 classes, one without data, n below 2, no amount below the
            threshold.
    """
    if n < 2 or batch < 1:
        raise ValueError(f"a spread takes 2 latents a class or more, got n={n}, in batches of {batch}.")
    turning, measured = knob_of(control, knob), resolved(attribute, knob_of(control, knob).name)
    judge: Any = network or backbone.shipped().to(device_of(generator))
    distance = Perceptual(judge) if looks else None
    chosen = _classes(generator, sigma, classes, names)
    labels = names_of(chosen, sigma, names)
    spread, pictures, source = _sigma(generator, control, measured, sigma, chosen, labels, n=n, seed=seed, psi=psi, batch=batch)
    tried: tuple[tuple[float, float, float], ...] = ()
    if amount is None:
        amount, threshold, tried = largest_amount(
            generator,
            control,
            turning,
            network=judge,
            threshold=threshold,
            candidates=candidates,
            classes=chosen,
            n=quality_n,
            seed=seed,
            psi=psi,
            batch=batch,
        )
    elif not 0 < amount < float("inf"):
        raise ValueError(f"alpha* is an amount above 0 in {turning.unit or 'the unit of the knob'}, got {amount}.")
    changes, means, seen = [], [], []
    for number in progress.track(chosen, f"steer every class by {turning.name}"):
        latents = class_latents(generator, control, number, n=n, seed=seed, psi=psi)
        ends, distances = _ends(generator, control, turning, measured, latents, float(amount), distance, seed=seed, batch=batch)
        changes.append(image_means(ends[1]) - image_means(ends[0]))
        means.append(torch.stack([end.nanmean() for end in ends]))
        seen.append(distances)
    return Variability(
        knob=turning,
        amount=float(amount),
        attribute=measured.name,
        unit=measured.unit,
        judge=measured.judge,
        names=labels,
        classes=tuple(chosen),
        sigma=spread,
        changes=torch.stack(changes),
        means=torch.stack(means),
        looks=torch.stack(seen) if looks else None,
        sigma_from=source,
        pictures=pictures,
        threshold=threshold,
        distances=tried,
        n=n,
        seed=seed,
    )


def class_latents(generator: Generator, control: Control, number: int, *, n: int, seed: int, psi: float = 1.0) -> Latents:
    """n latents of a class, in the control's space: rows of a stream of the class's own, so that no two classes share a latent."""
    return generator.sample(n, seed=row_seed(seed, number), space=control.space.name, labels=[number] * n, psi=psi)


def _ends(
    generator: Generator,
    control: Control,
    knob: Knob,
    measured: Attribute,
    latents: Latents,
    amount: float,
    looks: Perceptual | None,
    *,
    seed: int,
    batch: int,
) -> tuple[list[Tensor], Tensor]:
    """The attribute at the lower and at the upper end, [(n, s), (n, s)], and how different the two look, (n,)."""
    values: list[list[Tensor]] = [[], []]
    distances = []
    places = measured.places(len(latents), generator.image_shape, seed=seed)
    with torch.inference_mode():
        for some, spots in zip(in_batches(latents, batch), places.split(batch), strict=True):
            pair = []
            for sign, kept in zip((-1, 1), values, strict=True):
                asked = turned(control, some, {knob.name: (knob.neutral or 0.0) + sign * amount}).to(some.values)
                pair.append(generator(control.steer(some, asked)))
                kept.append(measured(pair[-1], spots))
            distances.append(looks(*pair).float().cpu() if looks else torch.zeros(len(some)))
    return [torch.cat(side).clone() for side in values], torch.cat(distances).clone()


# ------------------------------------------------------------------ classes and their spread


def _classes(generator: Generator, sigma: Spread, classes: Sequence[int] | None, names: Sequence[str] | None) -> list[int]:
    count = int(getattr(generator, "classes", None) or 0)
    owner = next(iter(generator.spaces.values())).owner
    if not count and classes is None:
        raise ValueError(f"{owner} has no classes: variability compares the classes of a class-conditional generator.")
    if classes is not None:
        chosen = [int(one) for one in classes]
    elif isinstance(sigma, ImageSource) and len(sigma.classes) not in (0, count):
        raise ValueError(
            f"{sigma.name} has {len(sigma.classes)} classes, {owner} has {count}: class i of the data is taken for class i of the "
            "generator, so say which they share: classes 0-9."
        )
    else:
        chosen = list(range(count))
    wrong = [one for one in chosen if one < 0 or (count and one >= count)]
    if wrong:
        raise ValueError(f"{owner} has the classes 0 to {count - 1}, got {', '.join(map(str, wrong[:5]))}.")
    if isinstance(sigma, ImageSource) and not sigma.classes:
        raise ValueError(f"{sigma.name} has no classes: label its pictures, or leave the data out to take the generator's own.")
    if len(set(chosen)) < len(chosen) or len(chosen) < 3:
        raise ValueError(f"a correlation takes 3 different classes or more, got {len(set(chosen))} of {owner}.")
    if names is not None and len(names) not in (len(chosen), int(count or 0)):
        raise ValueError(f"one name a class: {len(chosen)} classes, got {len(names)} names.")
    return chosen


def names_of(classes: Sequence[int], sigma: Spread, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names given, those of the data, or the numbers."""
    if names is not None:
        found = list(names) if len(names) == len(classes) else [names[one] for one in classes]
    elif isinstance(sigma, ImageSource) and sigma.classes:
        found = [sigma.classes[one] if one < len(sigma.classes) else str(one) for one in classes]
    elif isinstance(sigma, Mapping) and len(sigma) == len(classes) and all(isinstance(key, str) for key in sigma):
        found = [str(key) for key in sigma]
    else:
        found = [str(one) for one in classes]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise ValueError(f'two classes are called "{twice[0]}": give every class a name of its own.')
    return tuple(found)


def _sigma(
    generator: Generator,
    control: Control,
    measured: Attribute,
    sigma: Spread,
    classes: Sequence[int],
    names: Sequence[str],
    *,
    n: int,
    seed: int,
    psi: float,
    batch: int,
) -> tuple[Tensor, tuple[int, ...], str]:
    """(k,) spreads, how many pictures of each class they were measured on, and where they come from."""
    if isinstance(sigma, ImageSource):
        found = data_spread(sigma, measured, classes, names, image_shape=generator.image_shape, seed=seed)
        return torch.tensor([one for one, _ in found]), tuple(count for _, count in found), sigma.name
    if sigma is None:
        spreads = []
        for number in progress.track(list(classes), "spread of every class"):
            latents = class_latents(generator, control, number, n=2 * n, seed=seed, psi=psi)[n:]  # not those that are steered
            places = measured.places(len(latents), generator.image_shape, seed=seed + 1)
            with torch.inference_mode():
                pairs = zip(in_batches(latents, batch), places.split(batch), strict=True)
                spreads.append(_spread(torch.cat([measured(generator(some), spots) for some, spots in pairs]), names[len(spreads)]))
        return torch.tensor(spreads), (n,) * len(classes), SAMPLES
    if isinstance(sigma, Mapping):
        given = [_looked_up(sigma, number, name) for number, name in zip(classes, names, strict=True)]
    else:
        given = [float(one) for one in (sigma.tolist() if isinstance(sigma, Tensor) else sigma)]
    if len(given) != len(classes):
        raise ValueError(f"one spread a class: {len(classes)} classes, got {len(given)} numbers.")
    spread = checks.finite(torch.tensor(given), "the spreads of the classes")
    if float(spread.min()) < 0:
        raise ValueError(f"a standard deviation is 0 or more, got {float(spread.min()):g}.")
    return spread, (0,) * len(classes), "given"


def _looked_up(sigma: Mapping[Any, float], number: int, name: str) -> float:
    if number not in sigma and name not in sigma:
        raise ValueError(f'no spread is given for the class "{name}": there are {", ".join(map(str, list(sigma)[:5]))}.')
    return float(sigma[number] if number in sigma else sigma[name])


def data_spread(
    source: ImageSource,
    measured: Attribute,
    classes: Sequence[int],
    names: Sequence[str],
    *,
    image_shape: tuple[int, int, int],
    seed: int = 1,
    most: int = PICTURES,
    batch: int = 256,
) -> list[tuple[float, int]]:
    """The attribute's standard deviation over the pictures of each class, and how many there were (the first ``most`` of each).

    Raises:
        ValueError: pictures of another size than the generator's, a class with fewer than two pictures.
    """
    if tuple(source.images.shape[1:]) != tuple(image_shape):
        raise ValueError(
            f"{source.name} was read as pictures of {tuple(source.images.shape[1:])}, the generator makes {tuple(image_shape)}: "
            f"read_source(..., size={image_shape[1]}, channels={image_shape[0]})."
        )
    found = []
    for number, name in progress.track(list(zip(classes, names, strict=True)), "spread of every class in the data"):
        rows = (source.labels == number).nonzero()[:most, 0]
        if len(rows) < 2:
            raise ValueError(f'{source.name} has {len(rows)} pictures of the class "{name}" ({number}), a spread takes 2 or more.')
        places = measured.places(len(rows), image_shape, seed=seed)
        with torch.inference_mode():
            pairs = zip(rows.split(batch), places.split(batch), strict=True)
            values = torch.cat([measured(source.batch(some)[0], spots) for some, spots in pairs])
        found.append((_spread(values, name), len(rows)))
    return found


def _spread(values: Tensor, name: str) -> float:
    there = values[~values.isnan()]
    if len(there) < 2:
        raise ValueError(f'nothing to measure was found in the pictures of the class "{name}": choose another attribute or leave it out.')
    return float(there.double().std())


COLUMNS = ("class", "index", "sigma", "delta_mu", "mean_low", "mean_high", "found", "pictures")


def table(result: Variability) -> list[tuple[str, int, float, float, float, float, float, int]]:
    """A row for each class; see ``COLUMNS``. ``found`` is the share of latents in which the attribute was measured at both ends."""
    found = (~result.changes.isnan()).float().mean(1)
    rows = zip(result.names, result.classes, result.sigma, result.delta_mu, result.means, found, result.pictures, strict=True)
    return [(name, index, float(s), float(d), float(m[0]), float(m[1]), float(f), count) for name, index, s, d, m, f, count in rows]
