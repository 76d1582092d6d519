"""What keeps a training: its steps with progress, checkpoints to resume from, a log, TensorBoard, pictures on the way.

A ``Run`` is a folder and the tensors that change. Everything else that a step needs has to be a function of the step's number (see
``sources.rows_at``), so a checkpoint is those tensors and one number, and a training that was killed and started again ends with the
very weights of one that was not, on the same machine.

    checkpoint.safetensors   the tensors, and in its header the step, the options and the seconds spent
    log.jsonl                a line with the options, then one every ``log_every`` steps: mean losses and seconds so far
    samples/                 PNG grids
    tensorboard/             the same losses and grids
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from steerable import files, progress
from steerable.protocols import Images

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CHECKPOINT, LOG, SAMPLES, BOARD = "checkpoint.safetensors", "log.jsonl", "samples", "tensorboard"
Losses = Mapping[str, Tensor]


@dataclass
class Run:
    """A training in a folder.

    Attributes:
        folder: of the results.
        tensors: everything that a step changes, by name; they are read and written in place.
        options: that the weights depend on, as JSON; a checkpoint with others is refused.
        record: what else the log should say: versions, device, names.
        writes: whether this process writes files; of several only one does.
        done: steps taken so far.
        seconds: spent on them, over all starts.
    """

    folder: Path
    tensors: Mapping[str, Tensor]
    options: Mapping[str, Any]
    record: Mapping[str, Any] = field(default_factory=dict)
    writes: bool = True
    done: int = 0
    seconds: float = 0.0

    def resume(self) -> bool:
        """Take up the checkpoint in the folder; False if there is none.

        Raises:
            ValueError: a damaged checkpoint, or one of a training with other options.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        kept, description = _read(path)
        old, new = description["options"], json.loads(json.dumps(dict(self.options)))
        for name in dict.fromkeys([*new, *old]):
            if not _agree(old.get(name), new.get(name)):
                raise ValueError(
                    f"the training in {self.folder} was begun with {name} {_short(old.get(name))}, now {name} is {_short(new.get(name))}: "
                    "give it the options it had, or another --out."
                )
        missing = [name for name in self.tensors if name not in kept or kept[name].shape != self.tensors[name].shape]
        if missing:
            raise ValueError(f"{path} lacks {missing[0]} and {len(missing) - 1} other tensors: remove it to begin anew.")
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(kept[name])
        self.done, self.seconds = int(description["step"]), float(description["seconds"])
        return True

    def save(self) -> None:
        """The checkpoint, whole or not at all."""
        bad = [name for name, tensor in self.tensors.items() if not torch.isfinite(tensor).all()]
        if bad:
            raise self._diverged(f"{bad[0]} and {len(bad) - 1} other tensors have NaN or infinite numbers")
        description = {"kind": "training", "step": self.done, "seconds": round(self.seconds, 2), "options": dict(self.options)}
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.tensors.items()}
        files.write_bytes(self.folder / CHECKPOINT, save(tensors, metadata={"steerable": json.dumps(description, sort_keys=True)}))

    def take(
        self,
        steps: int,
        step: Callable[[int], Losses],
        *,
        label: str = "train",
        log_every: int = 50,
        save_every: int = 250,
        sample_every: int = 500,
        samples: Callable[[], Images] | None = None,
        columns: int = 10,
    ) -> None:
        """Steps until ``steps`` are done, counted from the very first start.

        Args:
            step: takes a step by its number, from 0 on, and returns its losses.
            samples: images for the grid.

        Raises:
            ValueError: intervals that do not fit each other, or a loss that is not finite: the checkpoint before it is kept.
        """
        if min(log_every, save_every, sample_every) < 1 or save_every % log_every:
            raise ValueError(
                f"a checkpoint is due every so many log lines: save_every {save_every} is no multiple of log_every {log_every}."
            )
        board = self._begin() if self.writes else None
        window: list[Losses] = []
        began, before = time.monotonic(), self.seconds
        try:
            for number in progress.track(range(self.done, steps), label):
                window.append(step(number))
                self.done = number + 1
                self.seconds = before + time.monotonic() - began
                last = self.done == steps
                if self.done % log_every == 0 or last:
                    self._log(window, board)
                    window = []
                if self.writes and samples is not None and (self.done % sample_every == 0 or last):
                    self._show(samples(), columns, board)
                if self.writes and (self.done % save_every == 0 or last):
                    self.save()
        finally:
            if board is not None:
                board.close()

    def _begin(self) -> SummaryWriter:
        """The folder as it was at the checkpoint: without the log's later lines and without what a kill left half-written."""
        from torch.utils.tensorboard import SummaryWriter

        (self.folder / SAMPLES).mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".*.part"):
            leftover.unlink()
        lines = [json.dumps({"options": dict(self.options), **self.record})]
        log = self.folder / LOG
        if self.done and log.is_file():
            old = [line for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            lines += [line for line in old if 0 < json.loads(line).get("step", 0) <= self.done]
        files.write_text(log, "\n".join(lines) + "\n")
        return SummaryWriter(str(self.folder / BOARD), purge_step=self.done + 1 if self.done else None)

    def _log(self, window: list[Losses], board: SummaryWriter | None) -> None:
        """Means over the window; a loss is only in those of its steps that have it."""
        names = dict.fromkeys(name for losses in window for name in losses)
        means = {name: float(torch.stack([losses[name] for losses in window if name in losses]).mean()) for name in names}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise self._diverged(f'the loss "{name}" is {mean}')
        if board is None:
            return
        line = {"step": self.done, **{name: float(f"{mean:.6g}") for name, mean in means.items()}, "seconds": round(self.seconds, 1)}
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, mean in means.items():
            board.add_scalar(f"loss/{name}", mean, self.done)

    def _diverged(self, what: str) -> ValueError:
        kept = self.folder / CHECKPOINT
        state = f"The last good state is kept in {kept}" if kept.exists() else "Nothing was kept yet"
        return ValueError(f"{what} at step {self.done}: the training diverges. {state}; begin anew with a lower --lr in another --out.")

    def _show(self, images: Images, columns: int, board: SummaryWriter | None) -> None:
        from steerable import render

        grid = render.grid(images, columns=columns, scale=1)
        render.write_png(self.folder / SAMPLES / f"step-{self.done:06d}.png", grid)
        if board is not None:
            board.add_image("samples", _picture(grid), self.done, dataformats="HWC")


def _picture(grid: Any) -> Any:
    import numpy as np

    return np.asarray(grid.convert("RGB"))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        content = path.read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        description = json.loads(header["__metadata__"]["steerable"])
        if description["kind"] != "training":
            raise KeyError("kind")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint of a training ({str(error).splitlines()[0]}): choose another --out.") from None
    return tensors, description


def _agree(old: Any, new: Any) -> bool:
    """Whether options are the same; numbers up to what another number of threads changes in those that were measured."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_agree(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_agree, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-4)
    return old == new


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
