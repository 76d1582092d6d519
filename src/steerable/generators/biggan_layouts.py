"""How BigGANs are published: Hugging Face's BigGAN-deep and ajbrock's PyTorch code, read for ``biggan.BigGAN``.

Both store weights before their spectral norm, and take the norm in eval mode by another rule: Hugging Face as u.Wv of the
stored vectors, ajbrock by one step of the power iteration from the stored u. They put z and class, and the places of the
first map, in different orders. After reading, weights are divided, the class stands first, maps are channels first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.generators.layouts import Arguments, Layout, Table, Tensors, need, renamed

Config = dict[str, Any]
HF, AJBROCK = "Hugging Face BigGAN", "ajbrock BigGAN"


# ------------------------------------------------------------------ Hugging Face


def read_hugging_face(state: Tensors, arguments: Arguments) -> tuple[Config, dict[str, Tensor]]:
    """BigGAN-deep of pytorch-pretrained-BigGAN; ``arguments`` is its config.json.

    Raises:
        ValueError: keys missing or unknown, or a config.json that the tensors contradict.
    """
    plain = _divided(state, "weight_orig", r"weight_[uv]", _by_stored_vectors, layout=HF)
    embedding, classes = _sized(plain, "embeddings.weight", 2, HF).shape
    head = _sized(plain, "generator.gen_z.weight", 2, HF)
    width = _sized(plain, "generator.conv_to_rgb.weight", 4, HF).shape[1]
    rows = len(_sized(plain, "generator.bn.running_means", 2, HF))
    places = _numbered(plain, r"generator\.layers\.(\d+)\.", HF)
    attention = _numbers(plain, r"generator\.layers\.(\d+)\.(gamma|snconv1x1)")
    layers = [i for i in places if i not in attention]
    before = [sum(layer < place for layer in layers) for place in attention]
    latent = head.shape[1] - embedding
    if latent < 1 or not layers:
        raise ValueError(
            f"gen_z takes {head.shape[1]} numbers, {embedding} are the class embedding's, for {len(layers)} blocks: no BigGAN."
        )
    stated = arguments.get("layers", [[i % 2 == 1, None, None] for i in range(len(layers))])
    if not isinstance(stated, list | tuple) or not all(isinstance(layer, list | tuple) and len(layer) == 3 for layer in stated):
        raise ValueError(f"layers in config.json are [[up-sampling, in, out], ...] in channel widths, got {str(stated)[:60]}.")
    if len(stated) != len(layers):
        raise ValueError(f"config.json lists {len(stated)} layers, the tensors have {len(layers)}.")
    blocks = []
    for i, (up, wide, narrow) in zip(layers, stated, strict=True):
        into, out = (_sized(plain, f"generator.layers.{i}.conv_{j}.weight", 4, HF) for j in (0, 3))
        blocks.append([bool(up), into.shape[1], into.shape[0], out.shape[0]])
        seen = [into.shape[1] / width, out.shape[0] / width]
        if wide is not None and [wide, narrow] != seen:
            raise ValueError(f"config.json says {wide} to {narrow} channel widths in layer {i}, the tensors {seen[0]:g} to {seen[1]:g}.")
    first = _side(head, blocks[0][1])
    side = first * 2 ** sum(block[0] for block in blocks)
    position = {"attention_layer_position": before[0]} if before else {}
    told = {"z_dim": latent, "num_classes": classes, "channel_width": width, "n_stats": rows, "output_dim": side, **position}
    _agree(arguments, told, "config.json")
    eps = _number(arguments, "eps", 1e-4)
    config = {
        "latent": latent,
        "classes": classes,
        "embedding": embedding,
        "condition": "whole",
        "blocks": blocks,
        "deep": True,
        "attention": before,
        "first": first,
        "channels": 3,
        "rows": rows,
        "eps": eps,
        "last_eps": eps,
        "truncation": _number(arguments, "truncation", 1.0),
    }
    plain["embeddings.weight"] = plain["embeddings.weight"].T
    class_first = [*range(latent, latent + embedding), *range(latent)]
    for key in [key for key in plain if re.search(r"(gen_z|scale|offset)\.weight$", key)]:
        plain[key] = _columns(plain, key, class_first)
    for key in ("weight", "bias"):
        rows_of = need(plain, f"generator.gen_z.{key}", layout=HF)  # (row, column, channel)
        if rows_of.shape[:1] != head.shape[:1]:
            raise ValueError(f"generator.gen_z.{key} is {tuple(rows_of.shape)}, expected {len(head)} rows as in its weight.")
        plain[f"generator.gen_z.{key}"] = rows_of.unflatten(0, (first, first, -1)).movedim(2, 0).flatten(0, 2)
        plain[f"generator.conv_to_rgb.{key}"] = need(plain, f"generator.conv_to_rgb.{key}", layout=HF)[:3]  # no one sees the others
    table: list[tuple[str, str | None]] = [
        (r"embeddings\.weight", "embedding.weight"),
        (r"generator\.gen_z\.(weight|bias)", r"linear.\1"),
        (r"generator\.bn\.running_means", "norm.means"),
        (r"generator\.bn\.running_vars", "norm.variances"),
        (r"generator\.bn\.weight", "norm.gain"),
        (r"generator\.bn\.bias", "norm.offset"),
        (r"generator\.conv_to_rgb\.(weight|bias)", r"to_rgb.\1"),
    ]
    for i, place in enumerate(layers):
        theirs, ours = rf"generator\.layers\.{place}", f"blocks.{i}"
        table += [
            (rf"{theirs}\.bn_(\d)\.running_means", rf"{ours}.norms.\1.means"),
            (rf"{theirs}\.bn_(\d)\.running_vars", rf"{ours}.norms.\1.variances"),
            (rf"{theirs}\.bn_(\d)\.scale\.weight", rf"{ours}.norms.\1.gain.weight"),
            (rf"{theirs}\.bn_(\d)\.offset\.weight", rf"{ours}.norms.\1.offset.weight"),
            (rf"{theirs}\.conv_(\d)\.(weight|bias)", rf"{ours}.convs.\1.\2"),
        ]
    for i, place in zip(before, attention, strict=True):
        table += _attention(rf"generator\.layers\.{place}\.", f"attention.{i}", "snconv1x1_", "snconv1x1_o_conv")
    return config, _scalar_amounts(renamed(plain, table, layout=HF))


# ------------------------------------------------------------------ ajbrock


def read_ajbrock(state: Tensors, arguments: Arguments) -> tuple[Config, dict[str, Tensor]]:
    """BigGAN and BigGAN-deep of BigGAN-PyTorch; ``arguments`` are the options of its training script, as JSON.

    Without a table of shared embeddings, norms look the class up themselves: then blocks are told one-hot numbers. Statistics of the norms
    stand in the norm itself, or in a part of it where they are shared over devices (``cross_replica``) or may be accumulated (``mybn``).

    Raises:
        ValueError: keys missing or unknown, or arguments that the tensors contradict.
    """
    activation = arguments.get("G_nl", "relu")
    if activation not in ("relu", "inplace_relu"):
        raise ValueError(f'G_nl is "{activation}": BigGANs are read with ReLU only.')
    style = arguments.get("norm_style", "bn")
    if style not in ("bn", "in", "nonorm"):  # "in" is a batch norm in eval mode: it uses the stored statistics
        raise ValueError(f'norm_style is "{style}": BigGANs are read with "bn", "in" or "nonorm".')
    sn_eps = _number(arguments, "SN_eps", 1e-6)
    state, replicated = _statistics(state, arguments, without=style == "nonorm")
    plain = _divided(state, "weight", r"(?:u|sv)\d+", lambda matrix, vectors: _by_one_step(matrix, vectors, sn_eps), layout=AJBROCK)
    head = _sized(plain, "linear.weight", 2, AJBROCK)
    indices = _numbered(plain, r"blocks\.(\d+)\.0\.", AJBROCK)
    deep = "blocks.0.0.conv4.weight" in plain
    widths = []
    for i in indices:
        into, out = (_sized(plain, f"blocks.{i}.0.conv{j}.weight", 4, AJBROCK) for j in (1, 4 if deep else 2))
        widths.append((into.shape[1], into.shape[0], out.shape[0]))
    attention = _numbers(plain, r"blocks\.(\d+)\.1\.")
    if "shared.weight" not in plain:  # a table (classes, channels) in every norm
        for key in [key for key in plain if re.fullmatch(r"blocks\.\d+\.0\.bn\d\.(gain|bias)\.weight", key)]:
            plain[key] = _sized(plain, key, 2, AJBROCK).T
        plain["shared.weight"] = torch.eye(_sized(plain, "blocks.0.0.bn1.gain.weight", 2, AJBROCK).shape[1])
    classes, embedding = _sized(plain, "shared.weight", 2, AJBROCK).shape
    told, heard = _sized(plain, "blocks.0.0.bn1.gain.weight", 2, AJBROCK).shape[1], head.shape[1]
    if told == embedding:
        condition, latent = "class", heard
    elif deep and told == heard:
        condition, latent = "whole", heard - embedding
    elif not deep and told == heard + embedding:
        condition, latent = "split", heard * (len(indices) + 1)
    else:
        raise ValueError(f"blocks are told {told} numbers, the class embedding has {embedding}, the first layer takes {heard}: no BigGAN.")
    first = _side(head, widths[0][0])
    depth = _depth(widths, attention, first, arguments) if deep else 1
    ups = [i % depth == depth - 1 for i in indices]
    slots = len(indices) + 1
    stated_z = _number(arguments, "dim_z", latent)
    dim_z = stated_z if condition == "split" and stated_z // slots * slots == latent else latent  # rounded down to equal slices
    seen = {"n_classes": classes, "resolution": first * 2 ** sum(ups), "bottom_width": first, "dim_z": dim_z, "hier": condition != "class"}
    _agree(arguments, seen if condition == "class" else {**seen, "shared_dim": embedding}, "the arguments")
    config = {
        "latent": latent,
        "classes": classes,
        "embedding": embedding,
        "condition": condition,
        "blocks": [[up, *width] for up, width in zip(ups, widths, strict=True)],
        "deep": deep,
        "attention": [i + 1 for i in attention],
        "first": first,
        "channels": len(_sized(plain, "output_layer.2.weight", 4, AJBROCK)),
        "rows": 1,
        "eps": _number(arguments, "BN_eps", 1e-5),
        "last_eps": 1e-5,  # whatever BN_eps is
        "truncation": 1.0,
        "replicated": replicated,
    }
    for key in [key for key in plain if key.endswith((".stored_mean", ".stored_var"))]:
        plain[key] = plain[key][None]
    table: list[tuple[str, str | None]] = [
        (r"shared\.weight", "embedding.weight"),
        (r"linear\.(weight|bias)", r"linear.\1"),
        (r"(blocks\.\d+)\.0\.conv_sc\.(weight|bias)", r"\1.shortcut.\2"),
        (r"output_layer\.0\.stored_mean", "norm.means"),
        (r"output_layer\.0\.stored_var", "norm.variances"),
        (r"output_layer\.0\.gain", "norm.gain"),
        (r"output_layer\.0\.bias", "norm.offset"),
        (r"output_layer\.2\.(weight|bias)", r"to_rgb.\1"),
    ]
    for j in range(4 if deep else 2):  # they count from 1
        table += [
            (rf"(blocks\.\d+)\.0\.bn{j + 1}\.stored_mean", rf"\1.norms.{j}.means"),
            (rf"(blocks\.\d+)\.0\.bn{j + 1}\.stored_var", rf"\1.norms.{j}.variances"),
            (rf"(blocks\.\d+)\.0\.bn{j + 1}\.gain\.weight", rf"\1.norms.{j}.gain.weight"),
            (rf"(blocks\.\d+)\.0\.bn{j + 1}\.bias\.weight", rf"\1.norms.{j}.offset.weight"),
            (rf"(blocks\.\d+)\.0\.conv{j + 1}\.(weight|bias)", rf"\1.convs.{j}.\2"),
        ]
    for i in attention:
        table += _attention(rf"blocks\.{i}\.1\.", f"attention.{i + 1}", "", "o")
    return config, _scalar_amounts(renamed(plain, table, layout=AJBROCK))


def _statistics(state: Tensors, arguments: Arguments, *, without: bool) -> tuple[dict[str, Tensor], bool]:
    """The tensors with the statistics of every norm as ``stored_mean`` and ``stored_var``, and whether they were shared over devices.

    Standing statistics are stored as sums, beside the number of batches in them.

    Args:
        without: whether norms of the blocks may have no statistics: they only scale and shift.
    """
    plain: dict[str, Tensor] = {}
    counts = {key.rpartition(".")[0]: tensor for key, tensor in state.items() if key.endswith(".bn.accumulation_counter")}
    replicated = any(key.endswith(".bn.running_mean") for key in state)
    if arguments.get("cross_replica", replicated) != replicated:
        raise ValueError(f"cross_replica is {arguments['cross_replica']}, the statistics of its norms say {replicated}.")
    for key, tensor in state.items():
        owner, _, name = key.rpartition(".")
        if not owner.endswith(".bn"):
            plain[key] = tensor
        elif name in ("running_mean", "running_var", "stored_mean", "stored_var"):
            batches = counts.get(owner, torch.zeros(1))
            if batches.numel() != 1 or not 0 <= float(batches) < float("inf"):
                raise ValueError(f"{owner}.accumulation_counter is no count of batches: {str(batches.tolist())[:60]}.")
            plain[f"{owner.removesuffix('.bn')}.stored_{name.partition('_')[2]}"] = tensor.float() / (float(batches) or 1.0)
        elif name not in ("num_batches_tracked", "accumulation_counter"):
            plain[key] = tensor  # renamed() lists it
    if without:
        eps = _number(arguments, "BN_eps", 1e-5)
        for key in [key for key in state if re.fullmatch(r"blocks\.\d+\.0\.bn\d\.gain\.weight", key)]:
            gain, owner = state[key], key.removesuffix(".gain.weight")
            channels = gain.shape[0] if "shared.weight" in state else gain.shape[-1]
            plain.setdefault(f"{owner}.stored_mean", torch.zeros(channels))
            plain.setdefault(f"{owner}.stored_var", torch.full((channels,), 1 - eps))
    return plain, replicated


def _depth(widths: Sequence[tuple[int, int, int]], attention: Sequence[int], first: int, arguments: Arguments) -> int:
    """Blocks for each resolution. The last of them doubles; only it changes the width, and only it is attended after."""
    blocks = len(widths)
    ends = {*(i + 1 for i in attention), *(i + 1 for i, (wide, _, out) in enumerate(widths) if wide != out)}
    fits = [depth for depth in range(1, blocks + 1) if blocks % depth == 0 and all(end % depth == 0 for end in ends)]
    if "resolution" in arguments:
        fits = [depth for depth in fits if first * 2 ** (blocks // depth) == arguments["resolution"]]
    stated = arguments.get("G_depth")
    if not fits or stated not in (None, *fits):
        said = ", ".join(f"{key} {arguments[key]}" for key in ("G_depth", "resolution") if key in arguments)
        raise ValueError(f"the arguments say {said}, which the {blocks} blocks of the tensors cannot be.")
    return stated or (2 if 2 in fits else fits[-1] if ends else 1)  # 2 is what was published


# ------------------------------------------------------------------ both


def _divided(
    state: Tensors, weight: str, vectors: str, norm: Callable[[Tensor, Mapping[str, Tensor]], Tensor], *, layout: str
) -> dict[str, Tensor]:
    """The tensors, each weight divided by its spectral norm, without the vectors that the norm comes from."""
    owned: dict[str, dict[str, Tensor]] = {}
    plain: dict[str, Tensor] = {}
    for key, tensor in state.items():
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        owner, _, name = key.rpartition(".")
        if re.fullmatch(vectors, name):
            owned.setdefault(owner, {})[name] = tensor
        else:
            plain[key] = tensor
    for owner, own in owned.items():
        matrix = need(plain, f"{owner}.{weight}", layout=layout)
        try:
            sigma = norm(matrix.flatten(1), own)
        except (KeyError, RuntimeError, IndexError) as error:
            sizes = ", ".join(f"{name} {tuple(vector.shape)}" for name, vector in own.items())
            raise ValueError(f"{owner}.{weight} {tuple(matrix.shape)} has no spectral norm from {sizes}.") from error
        plain[f"{owner}.weight"] = plain.pop(f"{owner}.{weight}") / sigma
    return plain


def _by_stored_vectors(matrix: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
    u, v = vectors["weight_u"].reshape(matrix.shape[0]), vectors["weight_v"].reshape(matrix.shape[1])
    return u @ (matrix @ v)


def _by_one_step(matrix: Tensor, vectors: Mapping[str, Tensor], eps: float) -> Tensor:
    v = F.normalize(vectors["u0"].reshape(1, matrix.shape[0]) @ matrix, eps=eps)  # (1, columns)
    u = F.normalize(v @ matrix.T, eps=eps)
    return (v @ matrix.T @ u.T).squeeze()


def _sized(tensors: Tensors, key: str, ndim: int, layout: str) -> Tensor:
    tensor = need(tensors, key, layout=layout)
    if tensor.ndim != ndim or not tensor.numel():
        raise ValueError(f"{key} is {tuple(tensor.shape)}, expected {ndim} dimensions that are not empty.")
    return tensor


def _columns(tensors: Tensors, key: str, order: list[int]) -> Tensor:
    tensor = _sized(tensors, key, 2, HF)
    if tensor.shape[1] != len(order):
        raise ValueError(f"{key} takes {tensor.shape[1]} numbers, z and the class embedding are {len(order)}.")
    return tensor[:, order]


def _numbers(tensors: Tensors, pattern: str) -> list[int]:
    return sorted({int(match[1]) for key in tensors if (match := re.match(pattern, key))})


def _numbered(tensors: Tensors, pattern: str, layout: str) -> list[int]:
    found = _numbers(tensors, pattern)
    if not found or found != list(range(len(found))):
        raise ValueError(f"this {layout} checkpoint has the blocks {found}: they have to be numbered from 0 without gaps.")
    return found


def _side(head: Tensor, channels: int) -> int:
    side = math.isqrt(len(head) // channels)
    if side * side * channels != len(head):
        raise ValueError(f"the first layer makes {len(head)} numbers, which is no square map of {channels} channels.")
    return side


def _agree(arguments: Arguments, seen: Mapping[str, Any], what: str) -> None:
    for key, value in seen.items():
        if arguments.get(key, value) != value:
            raise ValueError(f"{what} says {key} {arguments[key]}, the tensors {value}.")


def _number(arguments: Arguments, key: str, default: float) -> float:
    value = arguments.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} has to be a number, got {value!r}.")
    return value


def _attention(theirs: str, ours: str, prefix: str, out: str) -> Table:
    names = {f"{prefix}theta": "query", f"{prefix}phi": "key", f"{prefix}g": "value", out: "out"}
    return [(rf"{theirs}gamma", f"{ours}.amount"), *((rf"{theirs}{a}\.weight", f"{ours}.{b}.weight") for a, b in names.items())]


def _scalar_amounts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.reshape(()) if key.endswith(".amount") and value.numel() == 1 else value for key, value in tensors.items()}


HF_SIGNS = (r"embeddings\.weight", r"generator\.gen_z\.weight_orig", r"generator\.conv_to_rgb\.weight_orig")
AJBROCK_SIGNS = (r"linear\.weight", r"blocks\.0\.0\.conv1\.weight", r"output_layer\.2\.weight")
LAYOUTS = (Layout(HF, "biggan", HF_SIGNS, read_hugging_face), Layout(AJBROCK, "biggan", AJBROCK_SIGNS, read_ajbrock))
