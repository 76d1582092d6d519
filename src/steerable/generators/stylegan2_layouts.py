"""How NVIDIA, rosinality, genforce and GAN-Control store a StyleGAN 2.

Each layout is a table of names and what its code does to a stored tensor when it runs: genforce adds 1 to the bias of a
style and flips the kernels of its doubling convolutions, the others do not. Sizes are read from the tensors; constructor
arguments are only needed for what tensors cannot tell, and must agree with them otherwise:

- NVIDIA's ``conv_clamp``: without arguments it is taken as None, no clamp. Networks trained in half precision have 256,
  which their activations hardly ever reach.
- the order of GAN-Control's groups in the latent, ``sub_groups_dict``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steerable.generators.layouts import HOW, Arguments, Layout, Tensors, need, renamed
from steerable.generators.modulation import TAPS
from steerable.generators.progan_layouts import refuse

Read = tuple[dict[str, Any], dict[str, Tensor]]
LINEAR = r"\.(weight|bias)"


def _nvidia(tensors: Tensors, arguments: Arguments) -> Read:
    """stylegan2-ada-pytorch, and the StyleGAN 2 of the stylegan3 repository."""
    synthesis = {**arguments, **(arguments.get("synthesis_kwargs") or {})}
    mapping = {**arguments, **(arguments.get("mapping_kwargs") or {})}
    for part, settings in (("mapping", mapping), ("synthesis", synthesis)):
        if settings.get("activation", "lrelu") != "lrelu":
            raise ValueError(f'its {part} has the activation "{settings["activation"]}", only "lrelu" is known here.')
    layer = r"synthesis\.(b\d+\.(?:conv0|conv1|torgb))"
    ours = renamed(
        tensors,
        (
            (rf"mapping\.fc(\d+){LINEAR}", r"mapping.0.\1.\2"),
            (rf"mapping\.embed{LINEAR}", r"embed.\1"),
            (r"mapping\.label_weight", "embed.weight"),  # of the first code, see ``tensorflow_layouts``
            (r"mapping\.w_avg", "w_avg"),
            (r"synthesis\.b4\.const", "const"),
            (rf"{layer}\.(weight|bias|affine\.weight|affine\.bias)", r"\1.\2"),
            (rf"{layer}\.noise_const", r"\1.noise"),
            (rf"{layer}\.noise_strength", r"\1.strength"),
            (r"synthesis\.(b\d+)\.skip\.weight", r"\1.skip.weight"),
            (r"synthesis\.b\d+\.(conv[01]\.|torgb\.|skip\.)?resample_filter", None),
        ),
        layout="NVIDIA",
    )
    config, ours = _finished(tensors, ours, [("z", 0)], layout="NVIDIA")
    config.update(rate=float(mapping.get("lr_multiplier", 0.01)), scaled=False)
    clamp = synthesis.get("conv_clamp")
    config["clamp"] = None if clamp is None else float(clamp)
    if synthesis.get("architecture", config["architecture"]) != config["architecture"] and len(config["widths"]) > 1:
        raise ValueError(
            f'the arguments say architecture="{synthesis["architecture"]}", the tensors are those of "{config["architecture"]}".'
        )
    stated = {name: arguments.get(name) for name in ("z_dim", "w_dim", "c_dim", "img_resolution", "img_channels")}
    _agree(
        config,
        {**stated, "num_layers": mapping.get("num_layers")},
        ("z_dim", "w_dim", "c_dim", "img_resolution", "img_channels", "num_layers"),
    )
    return config, ours


def _rosinality(tensors: Tensors, arguments: Arguments) -> Read:
    """stylegan2-pytorch, with or without ``latent_avg``, noises and filters."""
    table = ((rf"style\.(\d+){LINEAR}", r"mapping.0.\1.\2"), *_rosinality_synthesis(tensors))
    ours = renamed(tensors, table, layout="rosinality")
    config, ours = _finished(tensors, ours, [("z", 0)], layout="rosinality", first=1)
    config["rate"] = float(arguments.get("lr_mlp", 0.01))
    stated = {**arguments, "latent": arguments.get("style_dim", arguments.get("latent"))}
    _agree(config, stated, ("latent", "latent", None, "size", None, "n_mlp"))
    return config, ours


def _gan_control(tensors: Tensors, arguments: Arguments) -> Read:
    """GAN-Control: an MLP for each group of z. Groups stand in the latent in the order of their slices, however they are listed."""
    names = list(dict.fromkeys(match[1] for key in tensors if (match := re.fullmatch(rf"style\.(.+)\.\d+{LINEAR}", key))))
    arguments = {**arguments, **(arguments.get("model_config") or {}), **(arguments.get("training_config") or {})}
    if arguments.get("conv_transpose") is False:
        raise ValueError("its doubling convolutions are not transposed ones (conv_transpose=false), which is not known here.")
    places = _places(arguments, names)
    order = sorted(names, key=lambda name: places[name])
    rows = [(rf"style\.{re.escape(name)}\.(\d+){LINEAR}", rf"mapping.{i}.\1.\2") for i, name in enumerate(order)]
    ours = renamed(tensors, (*rows, *_rosinality_synthesis(tensors)), layout="GAN-Control")
    config, ours = _finished(tensors, ours, [(name, i) for i, name in enumerate(order)], layout="GAN-Control", first=1)
    config["rate"] = float(arguments.get("lr_mlp", 0.01))
    end = 0
    for name, widths in config["mapping"]:
        if places[name] != (end, end + widths[0]) or widths[-1] != widths[0]:
            got = f"{widths[0]} numbers in and {widths[-1]} out"
            raise ValueError(
                f'the group "{name}" has {got}, sub_groups_dict says {list(places[name])} after {end} of the groups before it.'
            )
        end += widths[0]
    stated = {**arguments, "latent": arguments.get("style_dim", arguments.get("latent_size")), "channels": arguments.get("out_channels")}
    _agree(config, stated, ("latent", "latent", None, "size", "channels", "n_mlp"))
    return config, ours


def _genforce(tensors: Tensors, arguments: Arguments) -> Read:
    """genforce and SeFa: style biases without their 1, doubling kernels in TensorFlow's orientation."""
    refuse(arguments, {"use_wscale": True, "demodulate": True, "final_tanh": False})
    rows: list[tuple[str, str | None]] = [
        (rf"mapping\.dense(\d+){LINEAR}", r"mapping.0.\1.\2"),
        (r"mapping\.label_weight", "embed.weight"),
        (r"truncation\.w_avg|latent_avg", "w_avg"),
        (r"synthesis\.early_layer\.const", "const"),
        (r"synthesis\.lod", None),
        (r"synthesis\.(layer\d+\.filter|upsample)\.kernel", None),
    ]
    for i, name in enumerate(_convolutions(tensors, r"synthesis\.output(\d+)\.weight", 1)):
        theirs = rf"synthesis\.layer{i}\."
        rows += [(rf"{theirs}(weight|bias|noise)", rf"{name}.\1"), (rf"{theirs}noise_strength", f"{name}.strength")]
        rows.append((rf"{theirs}style{LINEAR}", rf"{name}.affine.\1"))
        if name.endswith("conv1"):
            colours = name.replace("conv1", "torgb")
            rows += [(rf"synthesis\.output{i // 2}{LINEAR}", rf"{colours}.\1")]
            rows += [(rf"synthesis\.output{i // 2}\.style{LINEAR}", rf"{colours}.affine.\1")]
    ours = renamed(tensors, rows, layout="genforce")
    for key, tensor in ours.items():
        if key.endswith("affine.bias"):
            ours[key] = tensor + 1
        elif key.endswith("conv0.weight"):
            ours[key] = tensor.flip(-1, -2)
    config, ours = _finished(tensors, ours, [("z", 0)], layout="genforce")
    config["rate"] = float(arguments.get("mapping_lr_mul", 0.01))
    _agree(config, arguments, ("z_space_dim", "w_space_dim", "label_size", "resolution", "image_channels", "mapping_layers"))
    return config, ours


def _rosinality_synthesis(tensors: Tensors) -> Iterator[tuple[str, str | None]]:
    """Rows of the table that rosinality and GAN-Control share: convs.0 doubles, convs.1 does not, and so on."""
    yield from (
        (r"input\.input", "const"),
        (r"latent_avg|mean_w_latent", "w_avg"),
        (r"convs\.\d+\.conv\.blur\.kernel|to_rgbs\.\d+\.upsample\.kernel", None),
    )
    for i, name in enumerate(_convolutions(tensors, r"to_rgbs\.(\d+)\.conv\.weight", 2)):
        theirs, colours = (rf"convs\.{i - 1}", rf"to_rgbs\.{i // 2 - 1}") if i else ("conv1", "to_rgb1")
        yield rf"{theirs}\.conv\.weight", f"{name}.weight"
        yield rf"{theirs}\.conv\.modulation{LINEAR}", rf"{name}.affine.\1"
        yield rf"{theirs}\.activate\.bias", f"{name}.bias"
        yield rf"{theirs}\.noise\.weight", f"{name}.strength"
        yield rf"noises\.noise_{i}", f"{name}.noise"
        if name.endswith("conv1"):
            name = name.replace("conv1", "torgb")
            yield rf"{colours}\.conv\.weight", f"{name}.weight"
            yield rf"{colours}\.conv\.modulation{LINEAR}", rf"{name}.affine.\1"
            yield rf"{colours}\.bias", f"{name}.bias"


def _convolutions(tensors: Tensors, colours: str, offset: int) -> list[str]:
    """Our names of all convolutions in their order, as many as the highest number among a code base's colour layers says."""
    last = max((int(match[1]) for key in tensors if (match := re.fullmatch(colours, key))), default=0)
    sides = [4 * 2**i for i in range(last + offset)]
    return ["b4.conv1", *(f"b{side}.conv{k}" for side in sides[1:] for k in (0, 1))]


def _finished(tensors: Tensors, ours: dict[str, Tensor], groups: Sequence[tuple[str, int]], *, layout: str, first: int = 0) -> Read:
    """The config that the tensors tell, and the tensors in our shapes; fixed noise where a file has none.

    Args:
        groups: name and number of each group of the mapping.
        first: the number that a code base gives to the first layer of its mapping.
    """
    _check_filters(tensors)
    joined = "mapping.label_weight" in tensors  # a table (classes, embedding), used as it is
    labels = ours.get("embed.weight")
    if labels is not None and labels.ndim != 2:
        raise ValueError(f"the label's embedding is {tuple(labels.shape)}, expected a matrix.")
    if joined:
        ours["embed.weight"] = labels = ours["embed.weight"].t()
    embedding, classes = (0, None) if labels is None else labels.shape  # the embedding is a part of the mapping's input
    ours = {
        re.sub(r"^(mapping\.\d+\.)(\d+)", lambda match: f"{match[1]}{int(match[2]) - first}", key): _shaped(key, t)
        for key, t in ours.items()
    }
    mapping = []
    for name, i in groups:
        depth = 1 + max((int(key.split(".")[2]) for key in ours if key.startswith(f"mapping.{i}.")), default=0)
        weights = [need(ours, f"mapping.{i}.{k}.weight", layout=layout) for k in range(depth)]
        mapping.append([name, [weights[0].shape[1], *(len(weight) for weight in weights)]])
    last = max(int(match[1]) for key in ours if (match := re.match(r"b(\d+)\.", key)))
    sides = [4 * 2**i for i in range(last.bit_length() - 2)]
    weights = {side: need(ours, f"b{side}.conv1.weight", layout=layout) for side in sides}
    colours = [side for side in sides if f"b{side}.torgb.weight" in ours]
    around = any(f"b{side}.skip.weight" in ours for side in sides)
    if mapping[0][1][0] <= embedding:
        raise ValueError(f"the mapping takes {mapping[0][1][0]} numbers and the label's embedding {embedding}: nothing is left for z.")
    for i, side in enumerate(sides):
        for name in (f"b{side}.conv0", f"b{side}.conv1")[i == 0 :]:
            rng = torch.Generator().manual_seed(sides.index(side) * 2 + int(name[-1]))
            if f"{name}.strength" not in ours:  # a network that was built without noise
                ours[f"{name}.strength"] = torch.zeros(())
            if f"{name}.noise" not in ours:  # drawn anew at every image there
                ours[f"{name}.noise"] = torch.randn((side, side), generator=rng)
    config: dict[str, Any] = {
        "mapping": mapping,
        "widths": [len(weights[side]) for side in sides],
        "channels": len(need(ours, f"b{sides[-1]}.torgb.weight", layout=layout)),
        "classes": classes,
        "embedding": embedding,
        "scaled": True,
        "averaged": "w_avg" in ours,
        "architecture": "resnet" if around else "skip" if len(colours) > 1 or len(sides) == 1 else "orig",
        "joined": joined,
    }
    return config, ours


def _shaped(key: str, tensor: Tensor) -> Tensor:
    """Without the dimensions of length 1 that some code bases put in front."""
    part = key.rpartition(".")[2]
    lengths = {"weight": 4, "const": 3, "noise": 2, "strength": 0, "bias": 1, "w_avg": 1}
    if part == "bias" and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        tensor = tensor[..., 0, 0]
    while tensor.ndim > lengths.get(part, tensor.ndim) and len(tensor) == 1:
        tensor = tensor[0]
    return tensor


def _check_filters(tensors: Tensors) -> None:
    expected = torch.outer(torch.tensor(TAPS), torch.tensor(TAPS)) / 64
    for key, kernel in tensors.items():
        if key.endswith(("resample_filter", ".kernel")):
            kernel = kernel.float().reshape(kernel.shape[-2:]) if kernel.ndim >= 2 else kernel.float()
            if kernel.shape != expected.shape or not torch.allclose(kernel / kernel.sum(), expected, atol=1e-5):
                raise ValueError(f"{key} is another filter than [1, 3, 3, 1], the only one known here.")


def _places(arguments: Arguments, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Where each group stands in the latent."""
    groups: Mapping[str, Any] | None = arguments.get("sub_groups_dict")
    if groups is None:
        raise ValueError(
            f"it has the groups {', '.join(names)}, and their order in the latent is in its args.json only: "
            'pass that too, or {"sub_groups_dict": {"' + names[0] + f'": {{"place_in_latent": [0, 64]}}, ...}}}}, {HOW}.'
        )
    unknown = sorted(set(names) ^ set(groups))
    if unknown:
        raise ValueError(f"sub_groups_dict has the groups {', '.join(groups)}, the tensors have {', '.join(names)}.")
    places = {name: group["place_in_latent"] if isinstance(group, Mapping) else group for name, group in groups.items()}
    return {name: (int(place[0]), int(place[1])) for name, place in places.items()}


def _agree(config: Mapping[str, Any], stated: Arguments, names: Sequence[str | None]) -> None:
    """Refuse constructor arguments that contradict the tensors.

    Args:
        names: how a code base calls the widths of z and w, the number of classes, the image's side and channels, and
            the number of mapping layers; None for what it does not say.
    """
    mapping, embedding = config["mapping"], config.get("embedding", 0)
    read = (
        sum(widths[0] for _, widths in mapping) - embedding,
        sum(widths[-1] for _, widths in mapping),
        config.get("classes") or 0,
        4 * 2 ** (len(config["widths"]) - 1),
        config["channels"],
        len(mapping[0][1]) - 1,
    )
    for name, value in zip(names, read, strict=True):
        if name is not None and stated.get(name) is not None and stated[name] != value:
            raise ValueError(f"the arguments say {name}={stated[name]}, the tensors {value}: they belong to two different networks.")


LAYOUTS = (
    Layout("NVIDIA", "stylegan2", (r"mapping\.fc0\.weight", r"synthesis\.b4\.const", r"synthesis\.b4\.conv1\.affine\.weight"), _nvidia),
    Layout("rosinality", "stylegan2", (r"style\.1\.weight", r"input\.input", r"convs\.0\.conv\.modulation\.weight"), _rosinality),
    Layout("GAN-Control", "stylegan2", (r"style\..+\.1\.weight", r"input\.input", r"convs\.0\.conv\.modulation\.weight"), _gan_control),
    Layout(
        "genforce",
        "stylegan2",
        (r"mapping\.dense0\.weight", r"synthesis\.early_layer\.const", r"synthesis\.layer0\.style\.weight"),
        _genforce,
    ),
)
