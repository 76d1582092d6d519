"""Any checkpoint is read as named tensors and arguments; nothing that it carries is executed, and what is wrong is one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints.containers import CODE, Exec, discriminator, dumped, nvidia, persistent, published, saved, tensorflow
from generators import parity
from safetensors.torch import save_file

from steerable.checkpoints.machine import Machine
from steerable.checkpoints.reading import read_checkpoint
from steerable.checkpoints.records import Made

STATE = {
    "main.0.weight": torch.arange(12.0).reshape(3, 4),
    "main.1.running_mean": torch.ones(4),
    "main.1.num_batches_tracked": torch.tensor(3),
}
NAMED = sorted(path.stem for path in parity.FOLDER.glob("*.json") if path.stem != "MANIFEST")
ABSENT = pytest.mark.skipif(not NAMED, reason=f"no parity cases in {parity.FOLDER}: set STEERABLE_PARITY to their folder")


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    """Every canary writes into the current folder, if it is ever run."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield
    assert not list(here.iterdir()), "a canary was executed"


def tensors_of(path, network=None):
    checkpoint = read_checkpoint(path)
    (one,) = checkpoint.candidates(network)
    return checkpoint.tensors(one)


def same(found, expected):
    return set(found) == set(expected) and all(
        torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype and found[key].shape == tensor.shape
        for key, tensor in expected.items()
    )


def refusal(path, match, network=None):
    with pytest.raises(ValueError, match=match) as error:
        tensors_of(path, network)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------ what is published is read


@ABSENT
@pytest.mark.parametrize("name", NAMED or ["absent"])
def test_the_published_container_of_every_family_gives_back_its_tensors(name, tmp_path):
    case = parity.load(name)
    facts = {key: case.facts[key] for key in ("sub_groups_dict",) if key in case.facts}
    path = published(case.facts["family"], case.state, case.facts["constructor"], tmp_path / "published", **facts)
    checkpoint = read_checkpoint(path)
    (picked,) = checkpoint.candidates()
    found = checkpoint.tensors(picked)
    prefix = "module." if "dcgan" in case.facts["family"] else ""
    assert same({k.removeprefix(prefix): v for k, v in found.items() if k != "latent_avg"}, case.state)
    told = {**picked.arguments, **checkpoint.arguments}
    if picked.name == "G_ema" or path.is_dir():
        assert json.loads(json.dumps(told))


@ABSENT
@pytest.mark.parametrize("path", sorted(parity.FOLDER.glob("nvidia_style*.pkl")), ids=lambda path: path.stem)
def test_a_pickle_of_nvidias_gives_the_averaged_network_bit_for_bit(path):
    found = tensors_of(path)
    assert any(same(found, parity.load(name).state) for name in NAMED)
    checkpoint = read_checkpoint(path)
    (picked,) = checkpoint.candidates()
    told = [parity.load(name).facts["constructor"] for name in NAMED if same(found, parity.load(name).state)]
    assert picked.name == "G_ema" and picked.class_name == "Generator"
    assert any(all(picked.arguments.get(key) == value for key, value in one.items() if not isinstance(value, dict)) for one in told)
    (other,) = checkpoint.candidates("G")
    assert not same(checkpoint.tensors(other), found)


@ABSENT
@pytest.mark.parametrize("path", sorted(parity.FOLDER.glob("canary*")), ids=lambda path: path.stem)
def test_canaries_are_refused_or_inert(path):
    refused, found = "", {}
    try:
        found = tensors_of(path)
    except ValueError as error:
        refused = str(error)
    inert = set() if refused else set(read_checkpoint(path).inert)
    assert (str(path) in refused and "\n" not in refused) or (found and inert & {"builtins.exec", "posix.system", "os.system"})


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]
)
def test_a_torch_file_is_read_as_weights_only_reads_it(tmp_path, legacy, dtype):
    rng = torch.Generator().manual_seed(0)
    whole = (10 * torch.rand(4, 5, 6, generator=rng)).to(dtype)
    state = {"whole": whole, "turned": whole.permute(2, 0, 1), "part": whole[1:3, ::2], "one": whole[0, 0, 0], "none": whole[:0]}
    state["parameter"] = torch.nn.Parameter(whole, requires_grad=False)
    path = saved({"generator": state, "epoch": 3}, tmp_path / "g.pth", legacy=legacy)
    expected = torch.load(path, weights_only=True)["generator"]
    assert same(tensors_of(path), {key: value.detach() for key, value in expected.items()})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_torch_file_of_any_protocol_is_read(tmp_path, protocol):
    for legacy in (True, False):
        torch.save(STATE, tmp_path / "g.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
        assert same(tensors_of(tmp_path / "g.pth"), STATE)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_the_machine_agrees_with_pythons_own(protocol):
    value = {
        "a": [1, -3, 2**40, -(2**70), 2.5, True, None, "ümlaut\n'\"\\", b"bytes" * 100, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        7: {"x": [[]]},
    }
    value["again"] = value["a"]
    content = pickle.dumps(value, protocol=protocol)
    if protocol == 0 or protocol == 1 or protocol == 2:  # bytes are spelt as text there
        value["a"][8] = value["a"][8].decode("latin-1")
    found = Machine(content).run()
    found["a"] = [bytes(one) if isinstance(one, memoryview) else one for one in found["a"]]
    assert {**found, "again": 0} == {**value, "again": 0} and found["again"] is not None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("code", ["f4", "<f8", ">f4", "i8", "u1", "f2"])
def test_arrays_of_a_pickle_are_tensors(tmp_path, protocol, code):
    arrays = {
        "c": np.arange(24, dtype=code).reshape(2, 3, 4),
        "f": np.asfortranarray(np.arange(6, dtype=code).reshape(2, 3)),
        "one": np.ones((), code),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
    native = {key: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for key, array in arrays.items()}
    assert same(tensors_of(tmp_path / "a.pkl"), native)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_tensorflow_networks_give_their_variables_under_the_names_of_their_parts(tmp_path, protocol):
    own, mapping = {"lod": np.float32(0), "dlatent_avg": np.ones(4, "f4")}, {"Dense0/weight": np.eye(4, dtype="f4")}
    synthesis = {"4x4/Const/const": np.zeros((1, 2, 4, 4), "f4")}
    told = {"num_channels": 3, "resolution": 32, "func": "x"}
    path = tensorflow(own, tmp_path / "karras.pkl", arguments=told, parts={"synthesis": synthesis, "mapping": mapping}, protocol=protocol)
    checkpoint = read_checkpoint(path)
    assert [one.name for one in checkpoint.networks] == ["G", "D", "Gs"]
    (picked,) = checkpoint.candidates()
    assert picked.name == "Gs" and picked.arguments == told and picked.class_name == "G_style"
    found = checkpoint.tensors(picked)
    assert set(found) == {"lod", "dlatent_avg", "G_mapping/Dense0/weight", "G_synthesis/4x4/Const/const"}
    assert torch.equal(found["dlatent_avg"], torch.ones(4)) and checkpoint.inert == ("dnnlib.tflib.network.Network",)


def test_positional_arguments_of_nvidias_get_their_names(tmp_path):
    network = persistent(STATE, {"w_dim": 8})
    network.parts[1][0].parts[3]["state"].parts[3]["_init_args"] = (16, 3)
    dumped({"G_ema": network}, ["torch_utils.persistence._reconstruct_persistent_obj", "dnnlib.util.EasyDict"], tmp_path / "n.pkl")
    assert read_checkpoint(tmp_path / "n.pkl").candidates()[0].arguments == {"z_dim": 16, "c_dim": 3, "w_dim": 8}


class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.main = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_module_that_was_saved_whole_gives_its_state_dict(tmp_path, legacy):
    whole = Whole()
    path = saved(whole, tmp_path / "whole.pt", legacy=legacy)
    checkpoint = read_checkpoint(path)
    assert same(tensors_of(path), whole.state_dict()) and checkpoint.networks[0].class_name == "Whole"
    assert any(name.endswith("test_reading.Whole") for name in checkpoint.inert)


def test_shared_tensors_are_read_once_and_given_twice(tmp_path):
    shared = torch.ones(500, 500)
    path = saved({f"key{i}": shared for i in range(3)}, tmp_path / "g.pt")
    assert len(tensors_of(path)) == 3


# ------------------------------------------------------------------ which network it is


@pytest.mark.parametrize(
    ("names", "picked"),
    [
        (["G", "D", "G_ema"], "G_ema"),
        (["generator", "discriminator", "generator_smooth"], "generator_smooth"),
        (["netG", "netD"], "netG"),
        (["g", "d", "g_ema"], "g_ema"),
        (["mine", "D"], "mine"),
        (["discriminator", "state_dict"], "state_dict"),
    ],
)
def test_the_generator_is_picked_by_its_name_averaged_weights_first(tmp_path, names, picked):
    path = saved({name: {"w": torch.full((2,), float(i))} for i, name in enumerate(names)}, tmp_path / "g.pt")
    (one,) = read_checkpoint(path).candidates()
    assert one.name == picked and torch.equal(tensors_of(path)["w"], torch.full((2,), float(names.index(picked))))
    assert torch.equal(tensors_of(path, names[0])["w"], torch.zeros(2))


def test_flat_keys_of_two_networks_are_told_apart(tmp_path):
    path = saved({"G.w": torch.ones(2), "D.w": torch.zeros(3)}, tmp_path / "g.pt")
    assert same(tensors_of(path), {"w": torch.ones(2)})


def test_discriminators_alone_are_refused(tmp_path):
    refusal(
        saved({"D": {"w": torch.ones(2)}, "d_ema": {"w": torch.ones(2)}}, tmp_path / "d.pt"),
        r"holds a discriminator \(D, d_ema\) and no generator",
    )


def test_an_unknown_network_is_refused_with_the_known_ones(tmp_path):
    refusal(saved({"G": STATE, "D": STATE}, tmp_path / "g.pt"), r'no network "G_ema"; it has G, D', network="G_ema")


def test_a_mean_latent_beside_the_network_comes_with_it(tmp_path):
    assert torch.equal(tensors_of(saved({"g_ema": STATE, "latent_avg": torch.ones(5)}, tmp_path / "g.pt"))["latent_avg"], torch.ones(5))


def test_what_is_wrong_with_one_network_is_no_matter_for_another(tmp_path):
    bad = persistent({"w": torch.ones(1)}, {})
    bad.parts[1][0].parts[3]["state"].parts[3]["_parameters"] = {"w": Exec()}
    names = ["torch_utils.persistence._reconstruct_persistent_obj", "dnnlib.util.EasyDict"]
    path = dumped({"D": bad, "G_ema": persistent(STATE, {})}, names, tmp_path / "n.pkl")
    assert same(tensors_of(path), STATE)
    refusal(path, r"D: w is a call of builtins\.exec, expected a tensor; nothing was executed", network="D")


# ------------------------------------------------------------------ nothing is executed


CALLS = {
    "exec": Exec(),
    "a call of a call": type("Deep", (), {"__reduce__": lambda self: (getattr, (Exec(), "x"))})(),
    "a state": type("State", (), {"__reduce__": lambda self: (dict, (), Exec())})(),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("where", ["pickle", "zip", "legacy"])
def test_calls_beside_the_tensors_are_inert_and_named(tmp_path, what, protocol, where):
    value, path = {"g_ema": {"w": np.ones(2) if where == "pickle" else torch.ones(2)}, "args": CALLS[what]}, tmp_path / "g.bin"
    if where == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=protocol))
    else:
        torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=where == "zip")
    assert torch.equal(tensors_of(path)["w"].float(), torch.ones(2)) and "builtins.exec" in read_checkpoint(path).inert


@pytest.mark.parametrize(
    "value", [Exec(), [Exec()], {"G": Exec()}, {"a": {"b": Exec()}}], ids=["itself", "in a list", "as a network", "deep"]
)
def test_calls_alone_are_refused_by_their_names(tmp_path, value):
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(value))
    refusal(
        tmp_path / "c.pkl",
        r"c\.pkl is a pickle: it holds no tensors that can be read without calling builtins\.exec; nothing was executed\.$",
    )
    refusal(saved(value, tmp_path / "c.pt"), r"without calling builtins\.exec")


def test_the_canary_is_alive(tmp_path):
    pickle.loads(pickle.dumps(Exec()))
    Path("CANARY_EXECUTED").unlink()


def test_code_in_the_bytes_of_a_storage_is_not_executed(tmp_path):
    inside = io.BytesIO()
    torch.save(Exec(), inside, _use_new_zipfile_serialization=False)

    class Packed:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, (2,), (1,), False, {})

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (inside.getvalue(),)

    (tmp_path / "n.pkl").write_bytes(pickle.dumps({"G_ema": {"w": Packed()}}))
    refusal(tmp_path / "n.pkl", r"G_ema: w: where a storage should be packed, it has a call of builtins\.exec; nothing was executed")


# ------------------------------------------------------------------ other content, damage, bombs


OTHER = {
    "a web page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", r"is an HTML page; expected weights.*fetch the file itself"),
    "text": (b"seed,label\n1,0\n", r"is text; expected weights"),
    "nothing": (b"", r"is an empty file; expected weights"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", r"is a Git LFS pointer.*git lfs pull"),
    "noise": (bytes(range(256)) * 8, r"is unknown data"),
}


@pytest.mark.parametrize("what", OTHER)
def test_other_content_is_named_for_what_it_is(tmp_path, what):
    (tmp_path / "g.pkl").write_bytes(OTHER[what][0])
    refusal(tmp_path / "g.pkl", OTHER[what][1])


def test_folders_without_known_content_are_refused(tmp_path):
    refusal(tmp_path, r"is a folder: without any of model\.safetensors, pytorch_model\.bin")
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    refusal(tmp_path, r"TensorFlow SavedModel, whose graph needs TensorFlow to run: load it there and steerable\.wrap")


def test_a_folder_with_a_damaged_configuration_is_refused(tmp_path):
    saved(STATE, tmp_path / "G_ema.pth")
    for content in ("{half", "[1]", '{"a":' * 100_000):
        (tmp_path / "config.json").write_text(content)
        refusal(tmp_path, r"config\.json is (damaged|no mapping)")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "nvidia", "safetensors"])
def test_a_file_that_stops_early_is_refused(tmp_path, kind, share):
    path = tmp_path / "g.bin"
    if kind == "nvidia":
        nvidia(STATE, {}, path, other=STATE)
    elif kind == "safetensors":
        save_file(STATE, path)
    else:
        saved({"G": STATE}, path, legacy=kind == "legacy")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refusal(path, r"g\.bin")


BOMBS = {
    "nested lists": b"\x80\x02" + b"]" * 199_000 + b"a" * 198_999 + b".",
    "nested calls": b"\x80\x02" + b"cos\nsystem\n" * 50_000 + b"(" * 50_000 + b"tR" * 50_000 + b".",
    "too many steps": b"\x80\x02" + b"N0" * 500_000 + b"N.",
    "a huge memo": b"\x80\x02]r\xff\xff\xff\xff.",
    "a huge string": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0f" + b"x.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "a huge integer": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"1.",
    "a negative length": b"\x80\x02T" + struct.pack("<i", -5) + b"x.",
    "a long decimal": b"\x80\x02L" + b"9" * 90_000 + b"L\n.",
    "a huge frame": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"N.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dict in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "laughs": b"\x80\x02}q\x00"
    + b"".join(b"}q%c(" % (i + 1) + b"".join(b"X\x01\x00\x00\x00%ch%c" % (97 + j, i) for j in range(16)) + b"u" for i in range(20))
    + b".",
    "tuples that double": b"\x80\x02)" + b"2\x86" * 190_000 + b".",
    "sets copied": b"\x80\x02c__builtin__\nset\nq\x01]q\x00(" + b"N" * 100_000 + b"e" + b"0h\x01h\x00\x85R" * 50_000 + b".",
    "keys that are deep": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "nothing to pop": b"\x80\x02.",
    "no end": b"\x80\x02" + b"N" * 1000,
}


@pytest.mark.parametrize("what", BOMBS)
@pytest.mark.usefixtures("no_annotation_checks")
def test_bombs_are_refused_within_two_seconds(tmp_path, what):
    (tmp_path / "bomb.pkl").write_bytes(BOMBS[what])
    began = time.process_time()
    refusal(tmp_path / "bomb.pkl", r"bomb\.pkl is a pickle: it ")
    assert time.process_time() - began < 2


def test_a_deep_object_is_let_go_without_a_crash():
    made = Made(None)
    for _ in range(200_000):
        made = Made(made)
    del made


def archive(path, members, *, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_zip_bombs_are_refused(tmp_path):
    refusal(
        archive(tmp_path / "z.pt", {"a/data.pkl": bytes(50_000_000)}, kind=zipfile.ZIP_DEFLATED),
        r"compressed or encrypted, which torch never writes",
    )
    refusal(archive(tmp_path / "y.pt", {"a/data.pkl": b"N.", "a/data/0": b"x"}), r"it holds a NoneType without tensors")
    refusal(archive(tmp_path / "x.pt", {"readme.txt": b"no weights"}), r"x\.pt is a zip archive, and not one of torch")


@pytest.mark.parametrize("legacy", [False, True])
def test_sizes_that_the_file_has_no_bytes_for_are_refused(tmp_path, legacy):
    class Huge:
        def __init__(self, size, stride, numel=None):
            self.parts = torch.ones(4).untyped_storage(), size, stride

        def __reduce__(self):
            storage, size, stride = self.parts
            return torch._utils._rebuild_tensor_v2, (
                torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True),
                0,
                size,
                stride,
                False,
                {},
            )

    for size, stride, say in (
        ((2**40,), (1,), "lie in a storage of 4"),
        ((2**40,), (0,), "far larger than the file"),
        ((2**20, 2**20), (0, 0), "far larger than the file"),
        ((-1,), (1,), "no plain size"),
        ((2**60,), (1,), "no plain size"),
        ((2,) * 9, (0,) * 9, "no plain size"),
        (("a",), (1,), "no plain size"),
        ((2,), (1, 1), "no plain size"),
        ((5,), (1,), "lie in a storage of 4"),
    ):
        refusal(saved({"G": {"w": Huge(size, stride)}}, tmp_path / "g.pt", legacy=legacy), say)


def test_headers_of_safetensors_that_lie_are_refused(tmp_path):
    for header in (
        {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**50]}},
        {"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"__metadata__": {"steerable": "[" * 100_000}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"steerable": "[1]"}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    ):
        text = json.dumps(header).encode()
        (tmp_path / "g.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
        refusal(tmp_path / "g.safetensors", r"g\.safetensors")


def test_a_damaged_storage_is_noticed(tmp_path):
    path = saved({"G": {"w": torch.ones(100)}}, tmp_path / "g.pt")
    content = path.read_bytes()
    path.write_bytes(content.replace(torch.ones(100).numpy().tobytes(), torch.zeros(100).numpy().tobytes()))
    refusal(path, r"G: w: its member '.*data/0' is damaged")


def test_code_stays_text(tmp_path):
    path = nvidia(STATE, {}, tmp_path / "n.pkl", other=STATE)
    assert CODE.encode() in path.read_bytes() and same(tensors_of(path), STATE) and not os.path.exists("CANARY_EXECUTED")


def test_a_discriminators_keys_are_left_to_the_families(tmp_path):
    assert same(tensors_of(saved(discriminator(), tmp_path / "d.pt")), discriminator())
