"""Puts the tensors of a parity case into the file or folder that its family is published as, with what stands beside them there.

Whole pickles of NVIDIA's are written without their code: the classes are stand-ins that exist while the pickle is written.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

CODE = "with open('CANARY_EXECUTED', 'w') as f:\n    f.write('executed')\n"


class Exec:
    """Code that a careless reader would run: it makes a file in the current folder."""

    def __reduce__(self) -> Any:
        return exec, (CODE,)


def published(family: str, state: dict[str, Tensor], constructor: dict[str, Any], folder: Path, **facts: Any) -> Path:
    """The path to give to a reader."""
    folder.mkdir(parents=True, exist_ok=True)
    other = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    if "genforce" in family:
        return saved({"generator": other, "discriminator": discriminator(), "generator_smooth": state}, folder / "network.pth")
    if "rosinality" in family:
        args = argparse.Namespace(path="data", size=32, code=Exec())
        parts = {
            "g": other,
            "d": discriminator(),
            "g_ema": state,
            "g_optim": optimiser(other),
            "d_optim": {},
            "args": args,
            "ada_aug_p": 0.2,
        }
        return saved(
            parts if "latent_avg" in state else {**parts, "latent_avg": torch.zeros(constructor["style_dim"])}, folder / "550000.pt"
        )
    if family == "gan-control":
        (folder / "generator" / "checkpoint").mkdir(parents=True, exist_ok=True)
        told = {"training_config": {"sub_groups_dict": facts["sub_groups_dict"]}, "model_config": constructor}
        (folder / "generator" / "args.json").write_text(json.dumps(told))
        saved({"g": other, "d": discriminator(), "g_ema": other}, folder / "generator" / "checkpoint" / "9000.pt")
        saved({"g": other, "d": discriminator(), "g_ema": state}, folder / "generator" / "checkpoint" / "10000.pt")
        return folder
    if family.endswith("-hf"):
        (folder / "config.json").write_text(json.dumps(constructor))
        saved(state, folder / "pytorch_model.bin")
        return folder
    if "ajbrock" in family:
        (folder / "generator_config.json").write_text(json.dumps(constructor))
        saved(state, folder / "G_ema.pth")
        saved(other, folder / "G.pth")
        saved(discriminator(), folder / "D.pth")
        saved({"config": {"G_activation": Exec()}}, folder / "state_dict.pth")
        return folder
    if "dcgan" in family:
        return saved({f"module.{key}": tensor for key, tensor in state.items()}, folder / "netG_epoch_24.pth")
    return nvidia(state, constructor, folder / "network-snapshot.pkl", other=other)


def saved(value: Any, path: Path, *, legacy: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def discriminator() -> dict[str, Tensor]:
    return {"convs.1.conv1.0.weight": torch.ones(3, 3, 3, 3), "final_linear.0.weight": torch.ones(3, 3)}


def optimiser(state: dict[str, Tensor]) -> dict[str, Any]:
    moments = {i: {"step": 3, "exp_avg": tensor} for i, tensor in enumerate(state.values())}
    return {"state": moments, "param_groups": [{"lr": 0.002, "betas": (0.0, 0.99), "params": list(moments)}]}


# ------------------------------------------------------------------ pickles of NVIDIA's


class _Call:
    """Pickled as a call of a name, with a state and entries if there are some."""

    def __init__(self, name: str, *args: Any, state: Any = None, entries: dict[str, Any] | None = None) -> None:
        self.parts = (name, args, state, entries)

    def __reduce__(self) -> Any:
        name, args, state, entries = self.parts
        return getattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2]), args, state, None, iter((entries or {}).items())


def dumped(value: Any, names: list[str], path: Path, protocol: int = 4) -> Path:
    """A pickle of calls to names that need to exist only while it is written."""
    stand_ins: dict[str, types.ModuleType] = {}
    for name in names:
        module, _, last = name.rpartition(".")
        for i in range(1, module.count(".") + 2):
            parent = ".".join(module.split(".")[:i])
            stand_ins.setdefault(parent, types.ModuleType(parent))
        thing = types.FunctionType((lambda *a: None).__code__, {}, last)
        thing.__module__, thing.__qualname__ = module, last
        setattr(stand_ins[module], last, thing)
    with mock.patch.dict(sys.modules, stand_ins):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


PERSISTENT, EASY = "torch_utils.persistence._reconstruct_persistent_obj", "dnnlib.util.EasyDict"


def persistent(state: dict[str, Tensor], arguments: dict[str, Any], name: str = "Generator") -> _Call:
    """A flat state dict as nested persistent classes; what is known to be a buffer is one, and one more buffer is not persistent."""
    buffers = ("filter", "noise_const", "w_avg", "freqs", "phases", "transform", "magnitude_ema")
    here = {key: tensor for key, tensor in state.items() if "." not in key}
    children = OrderedDict.fromkeys(key.partition(".")[0] for key in state if "." in key)
    inner: dict[str, Any] = {
        "training": False,
        "_parameters": {key: torch.nn.Parameter(tensor, requires_grad=False) for key, tensor in here.items() if not key.endswith(buffers)},
        "_buffers": {**{key: tensor for key, tensor in here.items() if key.endswith(buffers)}, "scratch": torch.zeros(2)},
        "_non_persistent_buffers_set": {"scratch"},
        "_modules": OrderedDict(
            (one, persistent({k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{one}.")}, {}, "Part")) for one in children
        ),
        "_init_args": (),
        "_init_kwargs": _easy(arguments),
    }
    meta = {"type": "class", "version": 6, "module_src": CODE, "class_name": name, "state": inner}
    return _Call(PERSISTENT, _easy(meta))


def _easy(values: dict[str, Any]) -> _Call:
    return _Call(
        EASY, entries={key: _easy(value) if isinstance(value, dict) and "_" not in key[:1] else value for key, value in values.items()}
    )


def nvidia(state: dict[str, Tensor], arguments: dict[str, Any], path: Path, *, other: dict[str, Tensor], protocol: int = 4) -> Path:
    parts = {
        "training_set_kwargs": {"path": "data"},
        "G": persistent(other, arguments),
        "D": persistent(discriminator(), {}, "Discriminator"),
        "G_ema": persistent(state, arguments),
        "augment_pipe": None,
    }
    return dumped(parts, [PERSISTENT, EASY], path, protocol)


# ------------------------------------------------------------------ pickles of TensorFlow's day


def tensorflow(
    variables: dict[str, Any], path: Path, *, arguments: dict[str, Any], parts: dict[str, dict[str, Any]], protocol: int = 2
) -> Path:
    """(G, D, Gs), each with its variables, its parts and source code; only Gs has these variables."""
    name = "dnnlib.tflib.network.Network"

    def network(title: str, own: dict[str, Any], parts: dict[str, dict[str, Any]]) -> _Call:
        state = {
            "version": 4,
            "name": title,
            "static_kwargs": arguments,
            "components": {key: network(key, inner, {}) for key, inner in parts.items()},
            "build_module_src": CODE,
            "build_func_name": "G_style",
            "variables": list(own.items()),
        }
        return _Call(name, state=state)

    wrong = {key: value + 1 for key, value in variables.items()}
    return dumped((network("G", wrong, parts), network("D", wrong, {}), network("Gs", variables, parts)), [name], path, protocol)
