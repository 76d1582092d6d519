"""The published BigGAN forward pass: spectral norms divided out at every call, norms, up-sampling and shortcuts one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """What each block is told, side by side (our space "s"), -> images, with the weights of our network.

    Each weight carries vectors u and v with u.Wv = 1, so the division that the published code does at every call is done
    and leaves the weight as it is.
    """
    rng = torch.Generator().manual_seed(0)
    vectors = {}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            matrix = module.weight.flatten(1)
            v = torch.randn(matrix.shape[1], generator=rng)
            seen = matrix @ v
            vectors[module] = seen / seen.dot(seen), v

    def weight(module: nn.Module) -> Tensor:
        u, v = vectors[module]
        return module.weight / torch.dot(u, torch.mv(module.weight.flatten(1), v))

    def conv(module: nn.Module, x: Tensor) -> Tensor:
        return F.conv2d(x, weight(module), module.bias, padding=module.padding)

    def norm(module: nn.Module, x: Tensor, told: Tensor) -> Tensor:
        mean, variance = module.means[-1][:, None, None], module.variances[-1][:, None, None]
        gain = (1 + F.linear(told, weight(module.gain)))[:, :, None, None]
        offset = F.linear(told, weight(module.offset))[:, :, None, None]
        return F.relu((x - mean) / torch.sqrt(variance + module.eps) * gain + offset)

    def up(x: Tensor, block: nn.Module) -> Tensor:
        return F.interpolate(x, scale_factor=2) if block.up else x

    def deep(block: nn.Module, x: Tensor, told: Tensor) -> Tensor:
        h = conv(block.convs[0], norm(block.norms[0], x, told))
        h = conv(block.convs[1], up(norm(block.norms[1], h, told), block))
        h = conv(block.convs[2], norm(block.norms[2], h, told))
        h = conv(block.convs[3], norm(block.norms[3], h, told))
        return h + up(x[:, : block.out], block)

    def shallow(block: nn.Module, x: Tensor, told: Tensor) -> Tensor:
        h = conv(block.convs[0], up(norm(block.norms[0], x, told), block))
        h = conv(block.convs[1], norm(block.norms[1], h, told))
        x = up(x, block)
        return h + (x if block.shortcut is None else conv(block.shortcut, x))

    def attend(module: nn.Module, x: Tensor) -> Tensor:
        query = conv(module.query, x).flatten(2)
        key, value = (F.max_pool2d(conv(part, x), 2).flatten(2) for part in (module.key, module.value))
        weights = F.softmax(torch.bmm(query.permute(0, 2, 1), key), dim=-1)
        return x + module.amount * conv(module.out, torch.bmm(value, weights.permute(0, 2, 1)).view(len(x), -1, *x.shape[2:]))

    def images(s: Tensor) -> Tensor:
        with torch.no_grad():
            head, *told = s.split(network.sizes, dim=1)
            x = F.linear(head, weight(network.linear), network.linear.bias).view(len(s), -1, network.first, network.first)
            for i, block in enumerate([*network.blocks, None]):
                if str(i) in network.attention:
                    x = attend(network.attention[str(i)], x)
                if block is not None:
                    x = (deep if network.config["deep"] else shallow)(block, x, told[i])
            last = network.norm
            x = F.batch_norm(x, last.means[-1], last.variances[-1], last.gain, last.offset, training=False, eps=last.eps)
            return torch.tanh(conv(network.to_rgb, F.relu(x)))

    return images
