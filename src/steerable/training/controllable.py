"""A generator that is controllable by construction: groups of its latent that one measurement each, and no other, decides.

    D:  H(real, x) + H(generated, G(z)) + r1 R1
    G:  H(real, G(z)) + c(t) ( sum_k (L_k + q W_k + b T_k) + L_variety ) + p (|J'y| - a)^2

L_k is the contrastive loss of ``contrastive``, over all pairs of a batch in which rows share groups (``groups``), W_k how far what it
measures is spread otherwise than in real pictures, T_k how often pictures that share a group of classes are told apart; c(t) grows from 0
over the warm-up, so that there are pictures before there is order among them, and b after sixteen times as many steps; the last term is the
path length of StyleGAN 2. With ``contrast`` 0 it is the plain generator of the same kind, which the others are compared to.

A domain is a source of pictures and an ordered list of groups; a backbone is an entry of ``backbones``. ``steerable`` is the other training
of this folder, ``loop`` keeps both, ``processes`` shares a batch among several.

Sources: Shoshan, Bhonker, Kviatkovsky & Medioni, "GAN-Control: explicitly controllable GANs", ICCV 2021, section 3.1, eq. 1 to 3; Karras
et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020, section 3.2 and appendix B for the path length and lazy terms.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable import checks, progress
from steerable.features.pixels import thumbnail
from steerable.generators import families, processor
from steerable.generators.module import ModuleGenerator, row_seed
from steerable.protocols import Images, Latents, home
from steerable.sources import ImageSource, read_source, rows_at
from steerable.training.backbones import BACKBONES, FIRST, Backbone, channels_at, in_front_of
from steerable.training.contrastive import (
    CALIBRATED_ON,
    Contrast,
    Watch,
    calibrated,
    calibrated_variety,
    disagreement,
    read_all,
    variety_loss,
)
from steerable.training.groups import Groups, check_total
from steerable.training.loop import LOG, Losses, Run
from steerable.training.losses import called_generated, called_real, gradient_penalty
from steerable.training.processes import Share
from steerable.training.steerable import adam, laid_out

WEIGHTS, SAMPLES, CALIBRATION, STEPS = 0, 1, 2, 3  # rows of the training's seed: what is drawn for each, and for step i in row STEPS + i
COLUMNS = 10  # of the sample grid
SETTLED = 16  # warm-ups before the agreement of classes is asked for; one more until it has its whole weight
THUMBNAIL = 16  # side at which the variety of unmeasured groups is judged


@dataclass(frozen=True, eq=False)
class Controllable:
    """What a training made.

    Attributes:
        generator: the averaged one.
        groups, watches: what its groups measure, with the thresholds that held.
        half: whether half precision holds its weights exactly; see ``store.save_generator``.
        steps: taken in all.
        log: the file.
        taken: how many tensors came from the generator that it started from.
        writes: whether this process is the one of several that writes files.
    """

    generator: ModuleGenerator
    groups: Groups
    watches: Mapping[str, Watch]
    half: bool
    steps: int
    log: Path
    taken: int = 0
    writes: bool = True


def calibrate(source: Any, groups: Groups, *, size: int = 32, near: float = 50.0, far: float = 5.0, seed: int = 0) -> dict[str, Watch]:
    """Distances of 1,000 real pictures for every measured group, thresholds from percentiles of them, and the variety of the others.

    What is too dark for one of the measured groups (``Contrast.clipped``) is no variety either: haze would be the cheapest one.

    Args:
        near, far: percentiles of the distance to the nearest picture and of all distances, for tau+ and tau-.

    Raises:
        ValueError: see ``contrastive.calibrated``; a predictor that no gradient comes through.
    """
    pictures = read_source(source, size=size)
    rng = torch.Generator().manual_seed(row_seed(seed, CALIBRATION))
    images, _ = pictures.batch(torch.randperm(len(pictures), generator=rng)[:CALIBRATED_ON])
    found = {}
    for group in groups.watched:
        assert group.contrast is not None
        found[group.name] = calibrated(group.contrast, images, asked=group.reading, near_percentile=near, far_percentile=far)
        _check_gradients(group.contrast, images[:4])
    dark = max((group.contrast.clipped for group in groups if group.contrast is not None), default=0.0)
    variety = Contrast(thumbnail(min(THUMBNAIL, pictures.images.shape[-1])), "l1", scaling="feature", clipped=dark)
    for group in groups:
        if group.contrast is None:
            found[group.name] = calibrated_variety(variety, [found[one.name] for one in groups.watched], images)
    return found


def train_controllable(
    source: Any,
    groups: Groups,
    *,
    out: str | os.PathLike[str],
    backbone: str = "dcgan",
    steps: int = 14000,
    batch: int = 64,
    size: int = 32,
    width: int = 48,
    hidden: int = 64,
    contrast: float = 0.4,
    variety: float = 1.0,
    population: float = 3.0,
    agreement: float = 8.0,
    warm_up: int = 500,
    near: float = 50.0,
    far: float = 5.0,
    lr: float | None = None,
    r1: float | None = None,
    path_length: float | None = None,
    ema: float | None = None,
    precision: str = "float32",
    start: ModuleGenerator | None = None,
    frozen: ModuleGenerator | None = None,
    moments: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    name: str | None = None,
    log_every: int = 50,
    save_every: int = 250,
    sample_every: int = 500,
) -> Controllable:
    """Train; called again on the same folder it goes on from the last checkpoint.

    Started by ``accelerate launch`` it runs on all the processes of that, each with its share of every batch.

    Args:
        source: see ``sources.read_source``.
        groups: of the latent, in order.
        out: folder of checkpoint, log, samples and TensorBoard's files.
        backbone: "dcgan", "dcgan-bounded" (with a discriminator of norm 1) or "stylegan2".
        width: channels at half the side of the pictures; each smaller map has twice as many, up to 512.
        hidden: width inside the mapping networks.
        contrast: weight of the contrastive losses after the warm-up; 0 trains the plain generator.
        variety: of the term for groups that measure nothing, beside a contrastive loss of 1.
        population: q, of the term that keeps measurements spread as in real pictures, beside a contrastive loss of 1.
        agreement: b, of the term for pictures that share a group of classes and are told apart, beside a contrastive loss of 1.
        warm_up: steps over which ``contrast`` grows from 0.
        near, far: percentiles for thresholds, see ``calibrate``.
        lr, r1, path_length, ema: step size, weights of the penalty and of the path length, decay of the average; by default the backbone's.
        precision: "float32", "bfloat16" for convolutions, or "auto": bfloat16 where the processor has instructions for it.
        start: a plain generator of the backbone's kind or an earlier controllable one: its tensors are taken where they fit.
        frozen: learn only the groups, in front of this generator, which stays as it is; then ``source`` is its own pictures
            (``pictures_of``), ``backbone`` has no say, and the widths add up to its latent.
        moments: with it, weight of the term that keeps the mapped latents where it expects them.

    Raises:
        ValueError: before anything is trained: numbers out of range, an unknown backbone, a batch that is too small, measurements that are
            constant or NaN, a source that cannot be read, a start of another kind, a folder with a training of other options. Later:
            losses that are not finite; the last good checkpoint is then kept.
    """
    from accelerate import PartialState

    kind = BACKBONES[checks.known(backbone, BACKBONES, "backbone")] if frozen is None else in_front_of(frozen)
    if frozen is not None and start is not None:
        raise ValueError("a frozen generator is not trained, so there is nothing to start from: leave one of the two out.")
    given = {"lr": lr, "r1": r1, "path_length": path_length, "ema": ema}
    settings = {**kind.defaults, **{key: value for key, value in given.items() if value is not None}}
    _check(steps=steps, batch=batch, width=width, hidden=hidden, lr=settings["lr"])
    _check_more(
        contrast=contrast,
        variety=variety,
        population=population,
        agreement=agreement,
        warm_up=warm_up,
        moments=moments,
        r1=settings["r1"],
        path_length=settings["path_length"],
        seed=seed,
    )
    if not 0 <= settings["ema"] < 1:
        raise ValueError(f"ema is the decay of an average, 0 to below 1; got {settings['ema']}.")
    checks.known(precision, ("auto", "float32", "bfloat16"), "precision")
    groups.rows(batch)
    if frozen is not None:
        check_total(groups, frozen.spaces[home(frozen)].shape[0])
    if size < 2 * FIRST or size & (size - 1):
        raise ValueError(f"the backbones make pictures of 8, 16, 32, 64, ... pixels, got size {size}.")
    state = PartialState(cpu=device == "cpu")
    if batch % state.num_processes:
        raise ValueError(f"a batch of {batch} cannot be shared by {state.num_processes} processes: choose a multiple.")
    pictures, on = read_source(source, size=size), state.device or torch.device(device)
    if len(pictures) < 16:
        raise ValueError(f"{pictures.name} holds {len(pictures)} pictures: a training needs 16 or more, and thousands to be any good.")
    if pictures.images.shape[-1] != size:
        raise ValueError(f"{pictures.name} has pictures of {pictures.images.shape[-1]} pixels, the training makes {size}: use --size.")
    watches = calibrate(pictures, groups, size=size, near=near, far=far, seed=seed)
    options = {
        "backbone": backbone, "groups": [[group.name, group.width] for group in groups],
        "weights": {group.name: group.contrast.weight for group in groups.watched if group.contrast is not None},
        "thresholds": {key: [float(f"{watch.near:.6g}"), float(f"{watch.far:.6g}")] for key, watch in watches.items()},
        "size": size, "channels": pictures.images.shape[1], "batch": batch, "width": width, "hidden": hidden, "contrast": contrast,
        "variety": variety, "population": population, "agreement": agreement, "warm_up": warm_up,
        **{key: settings[key] for key in given}, "seed": seed,
        "precision": processor.chosen(precision, on.type), "start": start and start.fingerprint,
        "frozen": frozen and frozen.fingerprint, "moments": moments,
        "processes": state.num_processes, "data": pictures.digest(),
    }  # fmt: skip
    training = Training(
        pictures,
        groups,
        watches,
        options,
        device=on,
        share=Share(state.process_index, state.num_processes),
        kind=kind,
    )
    taken = 0 if start is None else training.start_from(start)
    record = {"torch": torch.__version__, "device": str(state.device), "threads": torch.get_num_threads(), "taken": taken}
    run = Run(Path(out), training.tensors(), options, record, writes=state.is_main_process)
    run.resume()
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True):  # else a GPU would resume to other weights
        run.take(
            steps,
            training.step,
            label=f"train {backbone} {'plain' if not contrast else 'controllable'}",
            log_every=log_every,
            save_every=save_every,
            sample_every=sample_every,
            samples=training.samples,
            columns=COLUMNS,
        )
    state.wait_for_everyone()
    generator, half = training.generator(name or Path(out).name or "controllable")
    return Controllable(generator, groups, watches, half, run.done, Path(out) / LOG, taken, state.is_main_process)


class Training:
    """Networks, averages and optimisers of one training, and its step: a function of the step's number and of ``tensors()``."""

    def __init__(
        self,
        source: ImageSource,
        groups: Groups,
        watches: Mapping[str, Watch],
        options: Mapping[str, Any],
        *,
        device: torch.device | None = None,
        share: Share | None = None,
        kind: Backbone | None = None,
    ) -> None:
        self.source, self.groups, self.watches, self.options = source, groups, watches, options
        self.device, self.share = device or torch.device("cpu"), share or Share()
        self.kind = kind or BACKBONES[options["backbone"]]
        self.settings = {**self.kind.defaults, **{key: options[key] for key in ("lr", "r1", "path_length", "ema")}}
        rng = torch.Generator().manual_seed(row_seed(options["seed"], WEIGHTS))
        mapping, wide = groups.mapping(options["hidden"]), channels_at(options["width"], options["size"])
        with torch.random.fork_rng(devices=[]):  # torch draws weights of its own first
            self.maker, self.average = (self.kind.generator(mapping, wide, options["channels"]) for _ in range(2))
            self.judge = self.kind.discriminator(wide, options["channels"])
        self.kind.start(self.maker, self.judge, rng)
        self.average.load_state_dict(self.maker.state_dict())
        self.average.requires_grad_(False).eval().to(self.device)
        for network in (self.maker, self.judge):
            network.train().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.share.normed(self.maker)
        self.makers = adam([one for one in self.maker.parameters() if one.requires_grad], self.settings["lr"])
        self.judges = adam(list(self.judge.parameters()), self.settings["lr"])
        for optimiser in (self.makers, self.judges):
            optimiser.param_groups[0]["betas"] = self.settings["betas"]
        self.length = torch.zeros((), device=self.device)  # the mean path length so far

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes."""
        found = {"length": self.length}
        for what, network in (("generator", self.maker), ("average", self.average), ("discriminator", self.judge)):
            found.update({f"{what}.{name}": tensor for name, tensor in network.state_dict().items()})
        for what, optimiser in (("generator", self.makers), ("discriminator", self.judges)):
            for i, parameter in enumerate(optimiser.param_groups[0]["params"]):
                found.update({f"adam.{what}.{i}.{name}": tensor for name, tensor in optimiser.state[parameter].items()})
        return found

    def start_from(self, generator: ModuleGenerator) -> int:
        """Take the tensors of another generator where name and shape agree, all but the mapping networks'; how many.

        Raises:
            ValueError: a generator of another kind, or of other sizes throughout.
        """
        network: Any = generator.network
        family = getattr(network, "family", type(network).__name__)
        own = getattr(self.maker, "family", "")
        if family not in (self.kind.kind, own):
            raise ValueError(
                f"{generator.name} is a {family}: this training starts from a {self.kind.kind} or a {own}. Or leave --start out."
            )
        prefix = "synthesis." if own != family else ""
        theirs = {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}
        ours = self.maker.state_dict()
        fit = [key for key in ours if key in theirs and theirs[key].shape == ours[key].shape and not key.startswith("mapping")]
        if sum(ours[key].numel() for key in fit) < 0.5 * sum(tensor.numel() for tensor in ours.values()):
            raise ValueError(
                f"{generator.name} has other sizes than this training: {len(fit)} of {len(ours)} tensors fit. Give it the same --size, "
                "--width and as many numbers in the groups."
            )
        with torch.no_grad():
            for key in fit:
                ours[key].copy_(theirs[key])
        self.average.load_state_dict(self.maker.state_dict())
        return len(fit)

    def step(self, number: int) -> Losses:
        """Step ``number``: the discriminator's, then the generator's on the same pictures."""
        drawn = torch.Generator().manual_seed(row_seed(self.options["seed"], STEPS + number))
        batch, mine = self.options["batch"], self.share.mine
        real, _ = self.source.batch(mine(rows_at(len(self.source), number * batch, batch, seed=self.options["seed"])))
        real = real.to(self.device)
        owners = self.groups.owners(batch)
        z = mine(self.groups.shared(torch.randn(batch, self.groups.width, generator=drawn), owners)).to(self.device)
        weight = self.weight(number)
        with self._precision():
            w = self.maker.mapped(z)  # type: ignore[operator]
            made = self.kind.drawn(self.maker, w, drawn, batch, mine).float()

        losses: dict[str, Tensor] = {}
        with self._precision():
            scores = [self.judge(images) for images in (real, made.detach())]
        losses["discriminator"] = called_real(scores[0]) + called_generated(scores[1])
        total = losses["discriminator"]
        if self.settings["r1"] > 0 and number % self.settings["r1_every"] == 0:
            seen = real.detach().requires_grad_()
            losses["r1"] = gradient_penalty(self.judge(seen), seen)
            total = total + self.settings["r1"] * self.settings["r1_every"] * losses["r1"]
        self._descend(total, self.judges)

        self.judge.requires_grad_(False)
        with self._precision():
            losses["generator"] = called_real(self.judge(made))
        total = losses["generator"]
        if weight > 0:
            for name, loss in self.contrast(made, owners, settled=self.settled(number)).items():
                losses[name] = loss
                total = total + weight * loss
        if self.settings["path_length"] > 0 and number % self.settings["path_every"] == 0:
            losses["path"] = self._path(z, drawn)
            total = total + self.settings["path_length"] * self.settings["path_every"] * losses["path"]
        if self.kind.strangeness is not None and self.options["moments"] > 0:
            losses["moments"] = self.kind.strangeness(self.maker, drawn)
            total = total + self.options["moments"] * losses["moments"]
        self._descend(total, self.makers)
        self.judge.requires_grad_(True)
        self._average(number)
        return {name: self.share.mean(loss.detach()) for name, loss in losses.items()}

    def weight(self, number: int) -> float:
        """c(t)."""
        return self.options["contrast"] * min(1.0, (number + 1) / max(1, self.options["warm_up"]))

    def settled(self, number: int) -> float:
        """Whether groups have had time to find their meaning, 0 to 1: pictures alike in everything agree best, and one decides it all."""
        warm_up = max(1, self.options["warm_up"])
        return min(1.0, max(0.0, (number + 1) / warm_up - SETTLED))

    def contrast(self, made: Images, owners: Mapping[str, Tensor], *, settled: float = 1.0) -> dict[str, Tensor]:
        """The weighted loss of every group on this process's pictures and those of all others."""
        same = {name: (rows[:, None] == rows[None]).to(self.device) for name, rows in owners.items()}
        alike = torch.stack([same[group.name] for group in self.groups.watched]).all(0)
        heeded = [group for group in self.groups if group.contrast is not None or self.options["variety"]]
        contrasts = {group.name: self.watches[group.name].contrast for group in heeded}
        populations = {group.name: self.watches[group.name].population for group in self.groups.watched}
        told = [name for name, one in populations.items() if one.classes and self.options["agreement"]]
        asked = populations if self.options["population"] else told
        contrasts |= {f"{name} spread": populations[name].contrast for name in asked}
        read = {name: self.share.gathered(values) for name, values in read_all(contrasts, made).items()}
        found = {}
        for group in heeded:
            watch = self.watches[group.name]
            values = watch.scaled(read[group.name])
            if group.contrast is not None:
                found[group.name] = group.contrast.weight * watch.loss(values, same[group.name])
            else:
                found[group.name] = self.options["variety"] * variety_loss(
                    watch.distances(values), alike & ~same[group.name], far=watch.far
                )
            as_asked = read.get(f"{group.name} spread")
            if as_asked is not None and self.options["population"]:
                found[f"{group.name} spread"] = self.options["population"] * watch.population.loss(as_asked)
            if as_asked is not None and group.name in told:
                found[f"{group.name} told"] = settled * self.options["agreement"] * disagreement(as_asked, same[group.name])
        return found

    def _path(self, z: Tensor, rng: torch.Generator) -> Tensor:
        """Squared difference of the length of J'y and its mean so far, on half of the rows; y is a picture of noise."""
        z = z[: max(1, len(z) // 2)]
        rows = len(z) * self.share.count
        w = self.maker.mapped(z)  # type: ignore[operator]
        images = self.kind.drawn(self.maker, w, rng, rows, self.share.mine)
        y = self.share.mine(torch.randn(rows, *images.shape[1:], generator=rng)).to(images) / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
        lengths = (gradient.square().sum(1) + 1e-12).sqrt()
        with torch.no_grad():
            self.length.lerp_(self.share.mean(lengths.mean()), 0.01)
        return (lengths - self.length).square().mean()

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options["precision"] == "bfloat16")

    def _descend(self, loss: Tensor, optimiser: torch.optim.Adam) -> None:
        parameters = optimiser.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else laid_out(self.share.mean(gradient), parameter)
        optimiser.step()

    @torch.no_grad()
    def _average(self, number: int) -> None:
        """The average follows slowly, its norms' statistics too; faster in the first steps, when there is little to average."""
        keep = min(self.settings["ema"], (1 + number) / (10 + number))
        pairs = zip(self.average.state_dict().values(), self.maker.state_dict().values(), strict=True)
        slow, fast = zip(*((old, new) for old, new in pairs if old.is_floating_point()), strict=True)
        torch._foreach_lerp_(list(slow), list(fast), 1 - keep)  # type: ignore[attr-defined]

    @torch.no_grad()
    def samples(self) -> Images:
        """Two rows a group by the averaged generator: ten values of that group, all others held."""
        generator = self._generator(self.average.state_dict(), "samples")
        rng = torch.Generator().manual_seed(row_seed(self.options["seed"], SAMPLES))
        rows = []
        for _, start, end in self.groups.spans:
            for _ in range(2):
                z = torch.randn(1, self.groups.width, generator=rng).repeat(COLUMNS, 1)
                z[:, start:end] = torch.randn(COLUMNS, end - start, generator=rng)
                rows.append(z)
        return generator(Latents(torch.cat(rows), generator.spaces["z"]))

    def generator(self, name: str) -> tuple[ModuleGenerator, bool]:
        """The averaged generator, rounded to half precision if that shows in no picture by more than one of 256 levels; whether it was."""
        state = self.average.state_dict()
        exact = self._generator(state, name)
        if self.kind.strangeness is not None:
            return exact, False  # a frozen generator's weights stay what they are
        rounded = {key: value.half().float() if value.is_floating_point() else value for key, value in state.items()}
        if not all(torch.isfinite(value).all() for value in rounded.values()):
            return exact, False
        short = self._generator(rounded, name)
        seen = [one(one.sample(64, seed=row_seed(self.options["seed"], SAMPLES), space="z")) for one in (exact, short)]
        return (short, True) if float((seen[0] - seen[1]).abs().max()) <= 2 / 255 else (exact, False)

    def _generator(self, state: Mapping[str, Tensor], name: str) -> ModuleGenerator:
        tensors = {key: value.detach().cpu().clone() for key, value in state.items()}
        with torch.random.fork_rng(devices=[]):
            return families.build(self.maker.family, self.maker.config, tensors, name=name)  # type: ignore[arg-type]


@torch.no_grad()
def pictures_of(generator: ModuleGenerator, *, n: int = 4000, seed: int = 0) -> ImageSource:
    """The pictures of n latents as a data set: what a frozen generator's groups are calibrated on and judged against."""
    latents, found = generator.sample(n, seed=row_seed(seed, CALIBRATION)), []
    for start in progress.track(range(0, n, 50), f"pictures of {generator.name}"):
        found.append(((generator(latents[start : start + 50]).cpu().clamp(-1, 1) + 1) * 127.5).round().byte())
    return ImageSource(torch.cat(found), torch.zeros(n, dtype=torch.long), (), f"{generator.name}'s own, seed {seed}")


def _check_gradients(contrast: Contrast, images: Images) -> None:
    """Refuse a measurement that no gradient comes through."""
    images = images.clone().requires_grad_()
    values = contrast.read(images)
    gradient = None
    if values.requires_grad:
        (gradient,) = torch.autograd.grad(values.sum(), images, allow_unused=True)
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
        what = "no gradient" if gradient is None or bool(torch.isfinite(gradient).all()) else "a gradient that is not finite"
        raise ValueError(f'"{contrast.feature.name}" sends {what} back to the pictures: a training needs a differentiable feature.')


def _check(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0 or not math.isfinite(number):
            raise ValueError(f"{name} has to be a number above 0, got {number}.")


def _check_more(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number >= 0 or not math.isfinite(number):
            raise ValueError(f"{name} has to be a number of 0 or above, got {number}.")
