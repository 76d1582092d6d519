"""Which networks an object of a checkpoint holds: state dicts, whole modules, NVIDIA's persistent classes, TensorFlow's networks.

The object comes from ``machine``: plain containers, records of tensors, inert objects. A network is a flat dict of tensors under the
names of the file, with the constructor arguments that stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from steerable.checkpoints.records import Array, Made, Packed, Storage, Stored, shown
from steerable.checkpoints.torch_files import Budget, tensor_of

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
DEPTH, NODES = 40, 100_000  # of nested modules; of everything that is walked through
SPARE = 1 << 20  # bytes that tensors may take beyond twice the file

AVERAGED = (
    *("g_ema", "gema", "generator_ema", "netg_ema", "ema_generator", "g_smooth", "generator_smooth", "gs", "g_s", "g_running"),
    *("ema", "ema_model", "model_ema", "params_ema"),
)
PLAIN = ("generator", "g", "netg", "gen", "g_net", "net_g", "generator_state_dict", "g_state_dict", "state_dict", "model", "params", "net")
OTHERS = ("d", "discriminator", "netd", "disc", "d_ema", "net_d", "d_net", "discriminator_state_dict", "critic", "augment_pipe", "ada")
WRAPPERS = ("module.", "_orig_mod.")  # in front of all keys, by ``DataParallel`` and ``torch.compile``
POSITIONAL = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")  # how NVIDIA's generators take them


@dataclass(frozen=True)
class StoredNetwork:
    """One network of a checkpoint; its tensors are read when they are asked for.

    Attributes:
        name: where it stands in the file: "G_ema", "" for a file that is nothing else.
        entries: key -> its tensor, or a record of it.
        arguments: of its constructor, JSON only; empty where the file has none.
        class_name: in the words of the file, "" where it has none.
        trouble: why it cannot be read, for one that cannot.
    """

    name: str
    entries: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    class_name: str = ""
    trouble: str = ""

    def tensors(self, size: int) -> dict[str, Tensor]:
        """The tensors of a file of ``size`` bytes, in memory of their own: torch's sums depend on how numbers are aligned.

        Raises:
            ValueError: damaged ones, or more numbers than the file has bytes for.
        """
        if self.trouble:
            raise ValueError(f"{shown(self.name)}: {self.trouble}")
        budget, found = Budget(4 * size + SPARE), {}
        for key, entry in self.entries.items():
            try:
                found[key] = entry.clone() if isinstance(entry, Tensor) else tensor_of(entry, budget)
            except ValueError as error:
                raise ValueError(f"{f'{self.name}: ' if self.name else ''}{shown(key)}: {error}") from error
        return found


class Walk:
    """Counts the objects that are looked at, so that one that stands in itself, or many times over, comes to an end."""

    def __init__(self) -> None:
        self.left = NODES

    def step(self, depth: int = 0) -> None:
        self.left -= 1
        if self.left < 0 or depth > DEPTH:
            raise ValueError("it has objects that are nested too deeply, or refer to each other too often")


def networks_in(value: Any) -> tuple[list[StoredNetwork], dict[str, Any]]:
    """The networks of an object, and the tensors that stand beside them."""
    walk = Walk()
    if _is_tensor(value):
        raise ValueError("it holds a Tensor, expected a state dict: torch.save(netG.state_dict(), FILE)")
    names: Iterable[str] = ()
    if isinstance(value, tuple | list):
        if len(value) == 3 and all(_tensorflow(one) is not None for one in value):
            names = ("G", "D", "Gs")  # the order of every TensorFlow pickle of NVIDIA's
        else:
            names = (str(i) for i in range(len(value)))
        value = dict(zip(names, value, strict=True))
    loose: dict[str, Any] = {}
    found = list(_networks(value, "", walk, loose, 0))
    if not found and loose:
        mean = {key: tensor for key, tensor in loose.items() if key == "latent_avg"}  # it stands beside a network, whatever that is called
        return _by_prefix({key: tensor for key, tensor in loose.items() if key not in mean} or loose), mean
    return found, loose


def _networks(value: Any, name: str, walk: Walk, loose: dict[str, Any], depth: int) -> Iterator[StoredNetwork]:
    walk.step()
    if (state := _tensorflow(value)) is not None:
        yield _tried(
            name,
            lambda: _variables(state, "", walk, 0),
            lambda: plain(_dict(state.get("static_kwargs")), walk),
            _text(state, "build_func_name"),
        )
    elif (module := _module(value)) is not None:
        class_name, inner = module
        yield _tried(name, lambda: _flattened(inner, "", walk, 0), lambda: _arguments(inner, walk), class_name)
    elif isinstance(value, dict) and "param_groups" not in value and depth < 5:  # that is an optimiser
        tensors = {str(key): one for key, one in value.items() if isinstance(key, str) and _is_tensor(one)}
        inside: list[StoredNetwork] = []
        for key, one in value.items():
            if isinstance(key, str) and isinstance(one, dict | Made):
                inside += _networks(one, f"{name}.{key}" if name else key, walk, loose, depth + 1)
        if tensors and name:
            yield from _by_prefix(tensors, name)
        elif tensors:
            loose.update(tensors)
        yield from inside


def _tried(
    name: str, entries: Callable[[], Iterator[tuple[str, Any]]], arguments: Callable[[], dict[str, Any]], kind: str
) -> StoredNetwork:
    """A network; one that cannot be read is no trouble until it is asked for."""
    try:
        return StoredNetwork(name, dict(entries()), arguments(), kind)
    except ValueError as error:
        return StoredNetwork(name, {}, {}, kind, str(error))


def _by_prefix(tensors: Mapping[str, Any], name: str = "") -> list[StoredNetwork]:
    """One flat state dict; more, or one without its prefix, if all keys begin with the names of networks ("G.", "D.")."""
    for wrapper in WRAPPERS:
        if all(key.startswith(wrapper) for key in tensors):
            tensors = {key.removeprefix(wrapper): tensor for key, tensor in tensors.items()}
    known = {*AVERAGED, *PLAIN, *OTHERS} - {"net", "model", "params"}
    owners = dict.fromkeys(key.partition(".")[0] for key in tensors)
    if not all(owner.lower() in known for owner in owners) or not all("." in key for key in tensors):
        return [StoredNetwork(name, tensors)]
    own = {owner: {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{owner}.")} for owner in owners}
    if name and len(own) == 1:
        return [StoredNetwork(name, next(iter(own.values())))]
    return [StoredNetwork(f"{name}.{owner}" if name else owner, entries) for owner, entries in own.items()]


def chosen(networks: Iterable[StoredNetwork], network: str | None = None) -> list[StoredNetwork]:
    """The generator among networks, by name: averaged weights before others. More than one, where the names do not tell.

    Raises:
        ValueError: no network of that name, or nothing but discriminators.
    """
    by_name = {one.name: one for one in networks}
    if network is not None:
        if network not in by_name:
            raise ValueError(f'it has no network "{network}"; it has {_list(by_name) or "none"}')
        return [by_name[network]]
    path = {name: name.lower().split(".") for name in by_name}
    last = {name: parts[-1] for name, parts in path.items()}
    averaged = [name for name in by_name if last[name] in AVERAGED or (last[name] in PLAIN and set(path[name]) & set(AVERAGED))]
    for fit in (averaged, [name for name in by_name if last[name] in PLAIN]):
        if fit:
            return [by_name[name] for name in fit]
    rest = [name for name in by_name if last[name] not in OTHERS]
    if by_name and not rest:
        raise ValueError(f"it holds a discriminator ({_list(by_name)}) and no generator: pass the generator of the same run")
    return [by_name[name] for name in rest]


def _list(names: Iterable[str]) -> str:
    names = [shown(name, 40) or "(nameless)" for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def ambiguous(networks: Iterable[StoredNetwork]) -> str:
    """What to say where names do not tell which network is the generator."""
    names = [one.name for one in networks]
    return f'it holds several networks ({_list(names)}): say which, --network NAME or network="NAME"'


# ------------------------------------------------------------------ modules of torch


def _module(value: Any) -> tuple[str, dict[str, Any]] | None:
    """Class and state of an inert module: one of NVIDIA's persistent classes, or one saved whole."""
    if not isinstance(value, Made):
        return None
    if value.path == PERSISTENT:
        meta = value.args[0] if value.args and isinstance(value.args[0], dict) else {}
        state = meta.get("state")
        return (_text(meta, "class_name"), state) if isinstance(state, dict) and "_parameters" in state else None
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    return (value.path.rpartition(".")[2], state) if isinstance(state, dict) and "_parameters" in state and "_modules" in state else None


def _flattened(state: dict[str, Any], prefix: str, walk: Walk, depth: int) -> Iterator[tuple[str, Any]]:
    """The state dict of a module: parameters and persistent buffers, depth first."""
    walk.step(depth)
    dropped = state.get("_non_persistent_buffers_set")
    dropped = {one for one in dropped if isinstance(one, str)} if isinstance(dropped, list) else set()
    for kind in ("_parameters", "_buffers"):
        for key, value in _dict(state.get(kind)).items():
            walk.step(depth)
            if value is None or (kind == "_buffers" and key in dropped):
                continue
            if not _is_tensor(value):
                raise ValueError(f"{shown(prefix + str(key))} is {what_is(value)}, expected a tensor; nothing was executed")
            yield f"{prefix}{key}", value
    for key, value in _dict(state.get("_modules")).items():
        inner = _module(value)
        if inner is not None:
            yield from _flattened(inner[1], f"{prefix}{key}.", walk, depth + 1)
        elif value is not None:
            raise ValueError(f"{shown(prefix + str(key))} is {what_is(value)}, expected a module; nothing was executed")


def _arguments(state: dict[str, Any], walk: Walk) -> dict[str, Any]:
    """What a module was constructed with, and what its own source made of it where the arguments were silent."""
    given = state.get("_init_args")
    found = plain(dict(zip(POSITIONAL, given, strict=False)) if isinstance(given, tuple | list) else {}, walk)
    found.update(plain(_dict(state.get("_init_kwargs")), walk))
    synthesis = _module(_dict(state.get("_modules")).get("synthesis"))
    if synthesis is None:
        return found
    own = plain(
        {key: value for key, value in synthesis[1].items() if key in ("num_layers", "num_critical", "margin_size", "output_scale")}, walk
    )
    own.update(_clamp(synthesis[1], walk, 0))
    inner = found.get("synthesis_kwargs") if isinstance(found.get("synthesis_kwargs"), dict) else found
    for key, value in own.items():
        if key not in found and key not in inner:
            inner[key] = value
    return found


def _clamp(state: dict[str, Any], walk: Walk, depth: int) -> dict[str, Any]:
    """``conv_clamp`` of the first layer that has one: some releases pass it, others have it as a default."""
    walk.step(depth)
    if "conv_clamp" in state:
        return plain({"conv_clamp": state["conv_clamp"]}, walk)
    for value in _dict(state.get("_modules")).values():
        inner = _module(value)
        if inner is not None and (found := _clamp(inner[1], walk, depth + 1)):
            return found
    return {}


# ------------------------------------------------------------------ networks of TensorFlow


def _tensorflow(value: Any) -> dict[str, Any] | None:
    """The state of an inert ``tfutil.Network`` or ``dnnlib.tflib.Network``."""
    state = value.state if isinstance(value, Made) else None
    return state if isinstance(state, dict) and "variables" in state and ("build_func_name" in state or "static_kwargs" in state) else None


def _variables(state: dict[str, Any], prefix: str, walk: Walk, depth: int) -> Iterator[tuple[str, Any]]:
    """Its arrays by name; those of a component follow under the component's name."""
    walk.step(depth)
    given = state["variables"]
    pairs = given.items() if isinstance(given, dict) else given if isinstance(given, tuple | list) else ()
    for pair in pairs:
        walk.step(depth)
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError("a variable of its network is no pair of a name and an array")
        if isinstance(pair[1], bool | int | float):  # the level of detail may be a plain number
            yield f"{prefix}{pair[0]}", _number(pair[1])
        elif not _is_tensor(pair[1]):
            raise ValueError(f"{shown(prefix + pair[0])} is no array; nothing was executed")
        else:
            yield f"{prefix}{pair[0]}", pair[1]
    for key, value in _dict(state.get("components")).items():
        inner = _tensorflow(value)
        if inner is not None:
            owner = f"G_{key}" if key in ("mapping", "synthesis") else key
            yield from _variables(inner, f"{prefix}{owner}/", walk, depth + 1)


def _number(value: float) -> Tensor:
    import torch

    return torch.tensor(float(value))


# ------------------------------------------------------------------ small questions


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Stored | Array | Tensor)


def what_is(value: Any) -> str:
    """An object of the file in words that fit an error."""
    if isinstance(value, Made):
        return f"a call of {value.path}"
    return "a Tensor" if _is_tensor(value) else "a bare storage" if isinstance(value, Storage | Packed) else f"a {type(value).__name__}"


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else value.entries if isinstance(value, Made) else {}


def _text(state: Mapping[str, Any], key: str) -> str:
    return shown(str(state.get(key))) if isinstance(state.get(key), str) else ""


def plain(value: Any, walk: Walk, depth: int = 0) -> Any:
    """Arguments as JSON: what is neither number, text, list nor dict is left out."""
    walk.step(depth)
    if isinstance(value, dict):
        kept = ((key, one) for key, one in value.items() if isinstance(key, str) and _sayable(one))
        return {key: plain(one, walk, depth + 1) for key, one in kept}
    if isinstance(value, tuple | list):
        return [plain(one, walk, depth + 1) for one in value if _sayable(one)]
    return value


def _sayable(value: Any) -> bool:
    return value is None or isinstance(value, dict | tuple | list | bool | float | str) or (isinstance(value, int) and abs(value) < 2**53)
