"""A class-conditional DCGAN that is steerable by construction: generator and walk learned together, and the three ways it is compared to.

    plain        the generator alone; a walk is fitted afterwards (``fitting.walks``)
    augmented    the same, and the discriminator sees edited data
    joint        generator G and walk w together, on edited data:  z' = z + a w,  x' = edit(x, b)
                     D:     H(real, x') + H(generated, G(z)) + H(generated, G(z'))
                     G, w:  H(real, G(z)) + H(real, G(z')) + L_edit,   L_edit = | M (G(z') - edit(G(z), a)) |^2
    joint-only   the same on data as they are

H is the cross entropy of the discriminator's answer, M the pixels that the edit can know. In L_edit the target is a constant: the steered
image goes to the edited one and not the other way round, else both could meet at an image without content. Amounts a are fractions of
the edit's range there, and in the edit's unit in the control that comes out.

One pass of the generator makes both halves of a batch, so its norms see z and z' together, as their running statistics do, with which
it is shipped. The discriminator has no norms.

Source: Jahanian, Chai & Isola, "On the 'steerability' of generative adversarial networks", ICLR 2020, eqs. 3 to 5 and section 4.4.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from steerable import checks
from steerable.controls.directions import Directions
from steerable.edits import masked_error
from steerable.generators import processor
from steerable.generators.dcgan import DCGAN
from steerable.generators.dcgan_discriminator import DCGANDiscriminator, initialised
from steerable.generators.module import ModuleGenerator, generator_of, row_seed
from steerable.protocols import Edit, Images
from steerable.sources import ImageSource, read_source, rows_at
from steerable.training.amounts import draw_amounts, ranged, reach
from steerable.training.loop import LOG, Losses, Run
from steerable.training.losses import called_generated, called_real, gradient_penalty

Way = Literal["plain", "augmented", "joint", "joint-only"]
WAYS = ("plain", "augmented", "joint", "joint-only")
FIRST = 4  # side of the generator's first map and of the discriminator's last
BETAS = (0.5, 0.999)  # of Adam, as in DCGAN
R1_EVERY = 16  # steps; the penalty then counts that many times
WEIGHTS, SAMPLES, STEPS = 0, 1, 2  # rows of the training's seed: what is drawn for each, and for step i in row STEPS + i


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training made.

    Attributes:
        generator: the averaged one.
        walk: that was learned with it, if one was.
        half: whether half precision holds its weights exactly; see ``store.save_generator``.
        steps: taken in all.
        log: the file.
        writes: whether this process is the one of several that writes files.
    """

    generator: ModuleGenerator
    walk: Directions | None
    half: bool
    steps: int
    log: Path
    writes: bool = True


def train_steerable(
    source: Any,
    *,
    out: str | os.PathLike[str],
    way: Way = "joint",
    edit: str | Edit | None = "zoom",
    amounts: tuple[float, float] | None = None,
    steps: int = 3000,
    batch: int = 64,
    size: int = 32,
    width: int = 32,
    latent: int = 100,
    embedding: int = 16,
    lr: float = 1e-3,
    walk_lr: float = 1e-3,
    edit_weight: float = 10.0,
    r1: float = 1.0,
    ema: float = 0.999,
    precision: str = "float32",
    seed: int = 0,
    device: str = "cpu",
    name: str | None = None,
    log_every: int = 50,
    save_every: int = 250,
    sample_every: int = 500,
) -> Trained:
    """Train a generator in one of four ways; called again on the same folder it goes on from the last checkpoint.

    Started by ``accelerate launch`` it runs on all the processes of that, each with its share of every batch.

    Args:
        source: see ``sources.read_source``.
        out: folder of checkpoint, log, samples and TensorBoard's files.
        edit: a name or an edit, one knob; None for a plain generator.
        amounts: its range; by default its own, which is the paper's.
        steps: in all; not among the options that a checkpoint insists on, so a finished training can be prolonged.
        width: channels of the largest map; each smaller one has twice as many.
        embedding: numbers that a label adds to the latent.
        lr, walk_lr: Adam's, of both networks and of the walk.
        edit_weight: of L_edit. With 1, which the paper's sum has, the adversarial terms outweigh it and the walk learns little.
        r1: weight of the gradient penalty on real images; 0 leaves it out.
        ema: decay of the averaged generator, which is the one returned.
        precision: "float32"; "bfloat16" for convolutions; or "auto", which is bfloat16 where the processor has instructions for it (where
            it has none, it takes many times as long) and float32 elsewhere. The choice is among the options that a checkpoint insists on.

    Raises:
        ValueError: numbers out of range, an unknown way or edit, a source that cannot be read, a folder with a training of other
            options, or losses that are not finite; the last good checkpoint is then kept.
    """
    from accelerate import PartialState
    from accelerate.utils import reduce

    _check(way=way, steps=steps, batch=batch, size=size, width=width, latent=latent, embedding=embedding, lr=lr, walk_lr=walk_lr)
    _check_more(edit_weight=edit_weight, r1=r1, ema=ema, precision=precision, seed=seed)
    chosen = None if way == "plain" else ranged(edit, amounts)
    state = PartialState(cpu=device == "cpu")
    if batch % state.num_processes:
        raise ValueError(f"a batch of {batch} cannot be shared by {state.num_processes} processes: choose a multiple.")
    pictures, on = read_source(source, size=size), state.device or torch.device(device)
    options = {
        "way": way, "edit": chosen and chosen.knob.name, "amounts": chosen and [chosen.knob.low, chosen.knob.high],
        "size": pictures.images.shape[2], "channels": pictures.images.shape[1], "batch": batch, "width": width, "latent": latent,
        "embedding": embedding, "lr": lr, "walk_lr": walk_lr, "edit_weight": edit_weight, "r1": r1, "ema": ema,
        "precision": processor.chosen(precision, on.type), "seed": seed, "processes": state.num_processes, "data": pictures.digest(),
    }  # fmt: skip
    training = _Training(
        pictures,
        options,
        chosen,
        device=on,
        share=(state.process_index, state.num_processes),
        mean=lambda values: reduce(values, "mean") if state.num_processes > 1 else values,  # type: ignore[arg-type,return-value]
    )
    record = {"torch": torch.__version__, "device": str(state.device), "threads": torch.get_num_threads(), "classes": len(pictures.classes)}
    run = Run(Path(out), training.tensors(), options, record, writes=state.is_main_process)
    run.resume()
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True):  # else a GPU would resume to other weights
        run.take(
            steps,
            training.step,
            label=f"train {way}{f' {chosen.knob.name}' if chosen else ''}",
            log_every=log_every,
            save_every=save_every,
            sample_every=sample_every,
            samples=training.samples,
            columns=training.columns,
        )
    state.wait_for_everyone()
    generator, half = training.generator(name or Path(out).name or "trained")
    return Trained(generator, training.walk(generator, run.done), half, run.done, Path(out) / LOG, state.is_main_process)


class _Training:
    """Networks, averages and optimisers of one training, and its step: a function of the step's number and of ``tensors()``."""

    def __init__(
        self,
        source: ImageSource,
        options: Mapping[str, Any],
        edit: Edit | None,
        *,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
        mean: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        self.source, self.options, self.edit, self.device, self.share, self.mean = source, options, edit, device, share, mean
        self.joint = options["way"].startswith("joint")
        self.background = torch.tensor(source.background(), device=device)[:, None, None]
        rng = torch.Generator().manual_seed(row_seed(options["seed"], WEIGHTS))
        doublings = round(math.log2(options["size"] / FIRST))
        wide = [options["width"] * 2**i for i in range(doublings)]
        classes = len(source.classes) or None
        embedding = options["embedding"] if classes else 0
        self.config = {
            "widths": [options["latent"] + embedding, *reversed(wide), options["channels"]],
            "first": FIRST,
            "classes": classes,
            "embedding": embedding,
        }
        with torch.random.fork_rng(devices=[]):  # torch draws weights of its own first
            self.maker, self.average = DCGAN(**self.config), DCGAN(**self.config)
            self.judge = DCGANDiscriminator([options["channels"], *wide], last=FIRST, classes=classes)
        initialised(self.maker, rng)
        self.judge.initialise(rng)
        self.average.load_state_dict(self.maker.state_dict())
        self.average.requires_grad_(False).eval().to(device)
        self.maker.train().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.judge.train().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.direction = nn.Parameter((torch.rand(options["latent"], generator=rng) * 2 - 1).to(device))  # U(-1, 1)
        self.makers = adam(list(self.maker.parameters()), options["lr"])
        self.judges = adam(list(self.judge.parameters()), options["lr"])
        self.walkers = adam([self.direction], options["walk_lr"])

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes."""
        found = {"walk": self.direction.detach()}
        for what, network in (("generator", self.maker), ("average", self.average), ("discriminator", self.judge)):
            found.update({f"{what}.{name}": tensor for name, tensor in network.state_dict().items()})
        for what, optimiser in (("generator", self.makers), ("discriminator", self.judges), ("walk", self.walkers)):
            for i, parameter in enumerate(optimiser.param_groups[0]["params"]):
                found.update({f"adam.{what}.{i}.{name}": tensor for name, tensor in optimiser.state[parameter].items()})
        return found

    def step(self, number: int) -> Losses:
        """Step ``number``: the discriminator's, then the generator's and the walk's on the same images."""
        drawn = torch.Generator().manual_seed(row_seed(self.options["seed"], STEPS + number))
        batch = self.options["batch"]
        real, labels = self.source.batch(self._mine(rows_at(len(self.source), number * batch, batch, seed=self.options["seed"])))
        z = self._mine(torch.randn(batch, self.options["latent"], generator=drawn)).to(self.device)
        real, labels = real.to(self.device), labels.to(self.device)
        a = b = None
        if self.edit is not None:
            a, b = (self._mine(draw_amounts(self.edit.knob, batch, self.options["size"], drawn)).to(self.device) for _ in range(2))
        if self.joint:
            z = torch.cat([z, z + (a / reach(self.edit.knob))[:, None] * self.direction])  # type: ignore[union-attr]
        both = labels.repeat(len(z) // len(labels))
        with self._precision():
            made = self._made(z, both).float()
        real, targets, mask = self._edited(real, made.detach(), a, b)

        losses: dict[str, Tensor] = {}
        with self._precision():
            scores = self.judge(torch.cat([real, made.detach()]), torch.cat([labels, both]))
        parts = scores.split(len(labels))  # real, G(z), and in the joint ways G(z')
        losses["discriminator"] = called_real(parts[0]) + sum((called_generated(part) for part in parts[1:]), torch.zeros(()))
        total = losses["discriminator"]
        if self.options["r1"] > 0 and number % R1_EVERY == 0:
            seen = real.detach().requires_grad_()
            losses["r1"] = gradient_penalty(self.judge(seen, labels), seen)
            total = total + self.options["r1"] * R1_EVERY * losses["r1"]
        self._descend(total, self.judges)

        self.judge.requires_grad_(False)
        with self._precision():
            scores = self.judge(made, both)
        self.judge.requires_grad_(True)
        losses["generator"] = sum((called_real(part) for part in scores.split(len(labels))), torch.zeros(()))
        total = losses["generator"]
        if self.joint:
            losses["edit"] = masked_error(made[len(labels) :], targets, mask).mean()
            total = total + self.options["edit_weight"] * losses["edit"]
        self._descend(total, self.makers, self.walkers)
        self._average(number)
        return {name: self.mean(loss.detach()) for name, loss in losses.items()}

    def _made(self, z: Tensor, labels: Tensor) -> Images:
        """The generator in training: its first layer as the product of matrices that it is, with channels last."""
        first = self.maker.main[0]
        if self.maker.embedding is not None:
            z = torch.cat([z, self.maker.embedding.weight[labels]], 1)
        x = (z @ first.weight.movedim(1, 3).flatten(1)).unflatten(1, (FIRST, FIRST, -1)).movedim(3, 1)  # type: ignore[operator]
        return self.maker.main[1:](x)

    @torch.no_grad()
    def _edited(self, real: Tensor, made: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The real images as the discriminator sees them, and target and mask of the steered ones: one call of the edit."""
        n, plain = len(real), made[: len(real)]
        if self.edit is None:
            return real, plain, plain
        if self.options["way"] == "joint-only":
            return real, *self.edit(plain, a)  # type: ignore[arg-type,return-value]
        if self.joint:
            targets, mask = self.edit(torch.cat([real, plain]), torch.cat([b, a]))  # type: ignore[list-item]
        else:
            targets, mask = self.edit(real, b)  # type: ignore[arg-type]
        seen = torch.where(mask[:n] > 0, targets[:n], self.background)
        return seen, targets[n:], mask[n:]

    def _mine(self, rows: Tensor) -> Tensor:
        """This process's share of a batch that all draw alike."""
        return rows[self.share[0] :: self.share[1]]

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options["precision"] == "bfloat16")

    def _descend(self, loss: Tensor, *optimisers: torch.optim.Adam) -> None:
        parameters = [parameter for optimiser in optimisers for parameter in optimiser.param_groups[0]["params"]]
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        if self.share[1] > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = laid_out(self.mean(parameter.grad), parameter)
        for optimiser in optimisers:
            optimiser.step()

    @torch.no_grad()
    def _average(self, number: int) -> None:
        """The average follows slowly, its norms' statistics too; faster in the first steps, when there is little to average."""
        if self.share[1] > 1:  # each process saw its share of the batch only
            for buffer in self.maker.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.mean(buffer))
        keep = min(self.options["ema"], (1 + number) / (10 + number))
        pairs = zip(self.average.state_dict().values(), self.maker.state_dict().values(), strict=True)
        slow, fast = zip(*((old, new) for old, new in pairs if old.is_floating_point()), strict=True)
        torch._foreach_lerp_(list(slow), list(fast), 1 - keep)  # type: ignore[attr-defined]

    @property
    def columns(self) -> int:
        return 9 if self.joint else self.config["classes"] or 10

    @torch.no_grad()
    def samples(self) -> Images:
        """Eight rows by the averaged generator: of one latent at amounts from end to end, or of all classes."""
        rng = torch.Generator().manual_seed(row_seed(self.options["seed"], SAMPLES))
        z = torch.randn(8, 1, self.options["latent"], generator=rng).to(self.device).repeat(1, self.columns, 1)
        classes = self.config["classes"]
        across = torch.arange(self.columns if not self.joint else 8, device=self.device) % (classes or 1)
        labels = across[:, None].expand(8, self.columns) if self.joint else across.expand(8, -1)
        if self.joint:
            knob = self.edit.knob  # type: ignore[union-attr]
            z = z + (torch.linspace(knob.low, knob.high, self.columns, device=self.device) / reach(knob))[:, None] * self.direction
        return self.average(z.flatten(0, 1), labels.flatten() if classes else None).cpu()

    def generator(self, name: str) -> tuple[ModuleGenerator, bool]:
        """The averaged generator, rounded to half precision if that shows in no image by more than one of 256 levels; whether it was."""
        exact = _generator(self.config, self.average.state_dict(), name)
        rounded = {key: value.half().float() if value.is_floating_point() else value for key, value in self.average.state_dict().items()}
        if not all(torch.isfinite(value).all() for value in rounded.values()):
            return exact, False
        short = _generator(self.config, rounded, name)
        latents = exact.sample(64, seed=row_seed(self.options["seed"], SAMPLES))
        points = latents.values
        if self.joint:
            points = torch.cat([points[:32], points[32:] + torch.linspace(-1, 1, 32)[:, None] * self.direction.detach().cpu()])
        values = [one.network(points, latents.labels) for one in (exact, short)]
        return (short, True) if float((values[0] - values[1]).abs().max()) <= 2 / 255 else (exact, False)

    def walk(self, generator: ModuleGenerator, steps: int) -> Directions | None:
        """The learned walk as a control of that generator, in the edit's unit; None where none was learned."""
        if not self.joint:
            return None
        knob = self.edit.knob  # type: ignore[union-attr]
        fit = {"method": "joint training", "edits": [knob.name], "steps": steps, **self.options}
        return Directions((knob,), generator.spaces["z"], self.direction.detach().cpu()[None] / reach(knob), fit=fit)


def _generator(config: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> ModuleGenerator:
    with torch.random.fork_rng(devices=[]):
        network = DCGAN(**config)
    network.load_state_dict({key: value.detach().cpu() for key, value in state.items()})
    return generator_of(network, name=name)


def adam(parameters: list[Tensor], lr: float) -> torch.optim.Adam:
    """Adam with its moments in place from the beginning, so that a checkpoint can be read into them."""
    optimiser = torch.optim.Adam(parameters, lr=lr, betas=BETAS, fused=True)
    for parameter in parameters:
        zeros = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
        optimiser.state[parameter] = {"step": torch.zeros((), device=parameter.device), **zeros}
    return optimiser


def laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the parameter's memory layout.

    Fused Adam goes through memory, not through indices: beside a weight that is channels-last it takes the numbers of a contiguous gradient
    in the wrong order, without a word on CPUs. ``backward`` lays gradients out by itself, ``autograd.grad`` does not.
    """
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


def _check(*, way: str, size: int, **numbers: float) -> None:
    checks.known(way, WAYS, "way of training")
    if size < 2 * FIRST or size & (size - 1):
        raise ValueError(f"a DCGAN makes pictures of 8, 16, 32, 64, ... pixels, got size {size}.")
    for name, number in numbers.items():
        if not number > 0 or not math.isfinite(number):
            raise ValueError(f"{name} has to be a number above 0, got {number}.")


def _check_more(*, edit_weight: float, r1: float, ema: float, precision: str, seed: int) -> None:
    if not 0 <= ema < 1 or min(edit_weight, r1) < 0 or not math.isfinite(edit_weight + r1) or seed < 0:
        raise ValueError(f"ema is 0 to below 1, edit_weight, r1 and seed are 0 or above; got {ema}, {edit_weight}, {r1} and {seed}.")
    checks.known(precision, ("auto", "float32", "bfloat16"), "precision")
