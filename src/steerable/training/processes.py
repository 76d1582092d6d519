"""One batch over several processes, as if it were one: rows, pairs, norms and means are those of the whole.

Every process draws the whole batch and takes its rows, every so-many-th. Pairs are made of all rows, so what was measured is gathered with
its gradient; a batch norm takes the moments of all rows. A step on two processes so has the losses of the same step on one.

The mean of the processes' gradients is then the gradient: a loss that all compute on gathered rows sends each process the gradient of
its own rows, times the number of processes, which the mean divides out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Share:
    """Which process of how many this is."""

    index: int = 0
    count: int = 1

    def mine(self, rows: Tensor) -> Tensor:
        """This process's rows of a batch that all draw alike."""
        return rows[self.index :: self.count]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, without gradients."""
        if self.count == 1:
            return values
        values = values.detach().clone().contiguous()
        torch.distributed.all_reduce(values)
        return values / self.count

    def mean_with_gradients(self, values: Tensor) -> Tensor:
        return values if self.count == 1 else _Summed.apply(values) / self.count  # type: ignore[operator]

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes in the order of the whole batch, with gradients."""
        return rows if self.count == 1 else _Gathered.apply(rows, self.index, self.count)  # type: ignore[return-value]

    def normed(self, network: nn.Module) -> nn.Module:
        """The same network, its batch norms over all processes; in place, and with the same names of weights."""
        if self.count > 1:
            for module in network.modules():
                if type(module) is nn.BatchNorm2d:
                    module.__class__ = SharedBatchNorm
                    cast(SharedBatchNorm, module).share = self
        return network


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: int, count: int) -> Tensor:
        ctx.index, ctx.count = index, count
        parts = [torch.empty_like(rows) for _ in range(count)]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        gradient = gradient.clone().contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient[ctx.index :: ctx.count], None, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone().contiguous()
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.clone().contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm whose moments are those of the rows of all processes. Made of an ordinary one by ``Share.normed``."""

    share: Share

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        moments = torch.stack([input.float().mean((0, 2, 3)), input.float().square().mean((0, 2, 3))])
        mean, square = self.share.mean_with_gradients(moments)
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            count = input.numel() / input.shape[1] * self.share.count
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (input * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(input.dtype)
