"""Programs of torch.export, run here: a list of aten operators over named values, read from the archive's JSON.

``torch.export.load`` evaluates expressions and unpickles what it finds in an archive. This reads the same JSON, allows
only operators that compute tensors from tensors, reads weights as plain bytes or by torch's tensors-only unpickler, and
calls the operators one after the other, so the program is differentiable like any other network.
"""

from __future__ import annotations

import io
import json
import operator
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Members = Mapping[str, bytes]
MOST_BYTES = 8 * 2**30
MOST_RATIO = 20  # of the unpacked size to the file's
DTYPES = dict(enumerate(("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"), start=1))
DTYPES |= {9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16"}
MEMORY = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
ARITHMETIC = {"add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem"}
FORBIDDEN = {"from_file", "save", "set_", "set_data", "resize_", "resize_as_", "record_stream"}
PRIVATE = {  # operators with an underscore that only compute
    "_softmax",
    "_log_softmax",
    "_unsafe_view",
    "_to_copy",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_adaptive_avg_pool2d",
    "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "_weight_norm",
    "_conj",
}
UNREADABLE = (KeyError, TypeError, IndexError, AttributeError, RuntimeError, UnicodeDecodeError, json.JSONDecodeError, zipfile.BadZipFile)
CHECKS = r"torch\.ops\.aten\.(_assert_\w+|sym_constrain_range\w*)\.default"  # of sizes; they compute nothing


class Graph(nn.Module):
    """A program: its weights, and its operators as (function, arguments, names of the results).

    Args:
        members: the archive's files by their names without the archive's own.

    Raises:
        ValueError: no program, an operator that is not allowed, weights or sizes that do not fit.
    """

    def __init__(self, members: Members) -> None:
        super().__init__()
        try:
            self._read(members)
        except UNREADABLE as error:
            detail = " ".join(str(error).split())[:120]
            raise ValueError(f"its program cannot be read ({type(error).__name__}: {detail}): export it again with this torch.") from error

    def _read(self, members: Members) -> None:
        text = members.get("models/model.json", members.get("serialized_exported_program.json"))
        if text is None:
            raise ValueError("it holds no program named models/model.json.")
        module = json.loads(text)["graph_module"]
        graph, signature = module["graph"], module["signature"]
        stored = {**_tensors(members, "weights"), **_tensors(members, "constants")}
        self.weights: list[tuple[str, str]] = []  # (name in the graph, name here)
        self.inputs: list[str] = []
        for spec in signature["input_specs"]:
            ((kind, told),) = spec.items()
            if kind == "user_input":
                if "as_tensor" not in told["arg"]:
                    raise ValueError(f"it takes an input that is no tensor ({', '.join(told['arg'])}): export it with tensors alone.")
                self.inputs.append(told["arg"]["as_tensor"]["name"])
            elif kind in ("parameter", "buffer", "tensor_constant"):
                self._keep(told["arg"]["name"], stored[told[f"{kind}_name"]])
            else:
                raise ValueError(f"it takes a {kind}, which only torch.export itself can make.")
        outputs = [next(iter(spec)) for spec in signature["output_specs"]]
        if outputs != ["user_output"]:
            raise ValueError(f"it gives {', '.join(outputs)}; one batch of images was expected. Export it in eval mode.")
        self.output = graph["outputs"][0]["as_tensor"]["name"]
        self.steps = [step for node in graph["nodes"] if (step := _step(node)) is not None]
        self.shapes = [[size.get("as_int") for size in graph["tensor_values"][name]["sizes"]] for name in self.inputs]

    def _keep(self, name: str, tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor) or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"the weight {name} is no tensor, or larger than what the file holds of it.")
        tensor = tensor.detach().clone()
        here = f"weight_{len(self.weights)}"
        self.weights.append((name, here))
        if tensor.is_floating_point():
            self.register_parameter(here, nn.Parameter(tensor, requires_grad=False))
        else:
            self.register_buffer(here, tensor)

    def forward(self, *inputs: Tensor) -> Tensor:
        values: dict[str, Any] = {name: getattr(self, here) for name, here in self.weights}
        values.update(zip(self.inputs, inputs, strict=True))
        for function, positional, named, results in self.steps:
            made = function(*(_value(arg, values) for arg in positional), **{key: _value(arg, values) for key, arg in named.items()})
            if len(results) == 1 and isinstance(results[0], str):
                values[results[0]] = made
            else:
                names = results[0] if len(results) == 1 else results
                values.update((name, value) for name, value in zip(names, made, strict=False) if name)
        return values[self.output]


Step = tuple[Callable[..., Any], list[Any], dict[str, Any], list[Any]]


def _step(node: Mapping[str, Any]) -> Step | None:
    target = node["target"]
    if re.fullmatch(CHECKS, target):
        return None
    function = _function(target)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    schema = getattr(function, "_schema", None)
    keywords = {a.name for a in schema.arguments if a.kwarg_only} if schema is not None else set()
    for given in node["inputs"]:
        if given.get("kind") == 2 or given["name"] in keywords:
            named[given["name"]] = given["arg"]
        elif given.get("kind") == 1 or not hasattr(function, "_schema"):
            positional.append(given["arg"])
        else:
            named[given["name"]] = given["arg"]
    for arg in [*positional, *named.values()]:
        ((kind, _),) = arg.items()
        if kind not in READERS:
            raise ValueError(f"{target} takes {kind}, which is not supported.")
    return function, positional, named, [_result(output) for output in node["outputs"]]


def _function(target: str) -> Callable[..., Any]:
    """The operator of a name, if it may be called."""
    if match := re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target):
        name, overload = match.groups()
        allowed = name not in FORBIDDEN and (not name.startswith("_") or name in PRIVATE)
        packet = getattr(torch.ops.aten, name, None) if allowed else None
        if packet is not None and overload in packet.overloads():
            return getattr(packet, overload)
    elif (match := re.fullmatch(r"_operator\.(\w+)", target)) and match[1] in ARITHMETIC:
        return getattr(operator, match[1])
    raise ValueError(f"it calls {target[:80]}, and only operators of torch.ops.aten that compute are run here.")


def _result(output: Mapping[str, Any]) -> Any:
    ((kind, told),) = output.items()
    if kind in ("as_tensor", "as_optional_tensor"):
        return told.get("name") or told.get("as_tensor", {}).get("name")
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return told["as_name"]
    if kind == "as_tensors":
        return [one["name"] for one in told]
    if kind == "as_none":
        return None
    raise ValueError(f"an operator gives {kind}, which is not supported.")


def _value(arg: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    ((kind, told),) = arg.items()
    return READERS[kind](told, values)


def _symbol(told: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    return values[told["as_name"]] if "as_name" in told else next(iter(told.values()))


READERS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "as_none": lambda told, values: None,
    "as_tensor": lambda told, values: values[told["name"]],
    "as_tensors": lambda told, values: [values[one["name"]] for one in told],
    "as_optional_tensor": lambda told, values: values[told["as_tensor"]["name"]] if "as_tensor" in told else None,
    "as_optional_tensors": lambda told, values: [values[one["as_tensor"]["name"]] if "as_tensor" in one else None for one in told],
    "as_sym_int": _symbol,
    "as_sym_float": _symbol,
    "as_sym_bool": _symbol,
    "as_sym_ints": lambda told, values: [_symbol(one, values) for one in told],
    "as_sym_floats": lambda told, values: [_symbol(one, values) for one in told],
    "as_scalar_type": lambda told, values: getattr(torch, DTYPES[told]),
    "as_memory_format": lambda told, values: MEMORY[told],
    "as_layout": lambda told, values: torch.strided,
    "as_device": lambda told, values: next((v.device for v in values.values() if isinstance(v, Tensor)), torch.device("cpu")),
    **{
        f"as_{kind}": lambda told, values: float(told) if told in ("Infinity", "-Infinity", "NaN") else told
        for kind in ("int", "ints", "float", "floats", "bool", "bools", "string", "strings")
    },
}


def _tensors(members: Members, what: str) -> dict[str, Tensor]:
    """Weights or constants by their names, in any of the ways that torch has written them."""
    old = {"weights": "serialized_state_dict.pt", "constants": "serialized_constants.pt"}[what]
    for name in (f"data/{what}/model.pt", old):
        if name in members:
            return dict(only_tensors(members[name], name))
    config = members.get(f"data/{what}/model_{what}_config.json")
    if config is None:
        return {}
    return {key: _stored(told, members, f"data/{what}/") for key, told in json.loads(config)["config"].items()}


def _stored(told: Mapping[str, Any], members: Members, folder: str) -> Tensor:
    name = folder + told["path_name"]
    if told.get("tensor_meta") is None:
        raise ValueError(f"{name} is an object and no tensor.")
    if told["use_pickle"]:
        return only_tensors(members[name], name)
    meta = told["tensor_meta"]
    sizes, strides = ([int(one["as_int"]) for one in meta[key]] for key in ("sizes", "strides"))
    flat = torch.frombuffer(bytearray(members[name]) or bytearray(8), dtype=getattr(torch, DTYPES[meta["dtype"]]))
    return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))


def refuse_bomb(infos: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Refuse an archive of ``size`` bytes that unpacks to many times as much, from its table of contents alone."""
    total = sum(info.file_size for info in infos)
    if total > min(MOST_RATIO * size, MOST_BYTES):
        raise ValueError(f"it unpacks to {total:,} bytes, more than {MOST_RATIO} times its size or 8 GB: it is refused unread.")


def only_tensors(content: bytes, name: str) -> Any:
    """What ``torch.save`` wrote, if it is tensors and containers of them.

    Raises:
        ValueError: anything else, which would have to be executed.
    """
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            refuse_bomb(inner.infolist(), len(content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about the age of pickles that it then refuses
            return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} in it holds more than tensors, or is damaged; nothing of it was executed.") from error
