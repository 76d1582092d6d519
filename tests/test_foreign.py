"""Directions that others published: each layout lands in the right space and layers, with its unit; everything else is one clear line."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from generators.parity import cases, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from toys import OnePixel, layered_generator, linear_generator

from steerable import store
from steerable.cli import execute
from steerable.controls.directions import amounts
from steerable.fitting.calibrate import calibrate
from steerable.foreign import load_directions
from steerable.generators.families import from_tensors


@pytest.fixture(scope="module")
def generator():
    return layered_generator()  # z and w of 4 numbers, w+ of 3 rows, s of 6


@pytest.fixture(scope="module")
def toy():
    return linear_generator(6, (3, 4, 4))


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def npy(path, array, **options):
    np.save(path, array, **options)
    return path


def pt(path, content, **options):
    torch.save(content, path, **options)
    return path


# ------------------------------------------------------------------ layouts


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
def test_an_interfacegan_boundary_is_one_knob_of_unit_length(toy, tmp_path, shape):
    control = load_directions(npy(tmp_path / "smile.npy", unit(6).reshape(shape)), toy)
    assert [knob.name for knob in control.knobs] == ["smile"] and control.space == toy.spaces["z"]
    assert torch.equal(control.vectors[0], torch.from_numpy(unit(6)))
    assert control.knobs[0].unit == "steps of the file" and (control.knobs[0].low, control.knobs[0].high) == (-3, 3)
    assert control.fit["calibrated"] is False and len(control.fit["sha256"]) == 64


def test_a_direction_moves_latents_by_what_the_file_says(toy, tmp_path):
    control = load_directions(npy(tmp_path / "smile.npy", unit(1, 6)), toy)
    latents = toy.sample(2, seed=0)
    moved = control.steer(latents, amounts(control, 2, smile=2.0))
    assert torch.allclose(moved.values - latents.values, 2 * torch.from_numpy(unit(1, 6)).expand(2, -1), atol=1e-6)


def test_z_and_w_of_one_size_have_to_be_told_apart(generator, tmp_path):
    path = npy(tmp_path / "age.npy", unit(1, 4))
    with pytest.raises(ValueError, match=r'holds \(1, 4\), which fits z and w of layered \(.*\): say which, --space w or space="w"\.$'):
        load_directions(path, generator)
    assert load_directions(path, generator, space="z").space == generator.spaces["z"]
    assert load_directions(path, generator, space="w").space == generator.spaces["w"]


@pytest.mark.parametrize("layers", ["1-2", range(1, 3), [1, "layer2"]])
def test_a_direction_of_w_in_some_layers_is_zero_in_the_others(generator, tmp_path, layers):
    control = load_directions(npy(tmp_path / "age.npy", unit(1, 4)), generator, layers=layers)  # layers have a meaning from w on
    assert control.space == generator.spaces["w+"]
    expected = torch.from_numpy(unit(1, 4)).expand(3, -1).clone()
    expected[0] = 0
    assert torch.allclose(control.vectors[0], expected, atol=1e-6)


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt", "safetensors"])
def test_eigenvectors_in_rows_are_a_knob_each(toy, tmp_path, suffix):
    rows, path = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0].astype(np.float32)[:4], tmp_path / f"sefa.{suffix}"
    save = {
        "npy": lambda: np.save(path, rows),
        "npz": lambda: np.savez(path, vectors=rows),
        "pt": lambda: torch.save(torch.from_numpy(rows), path),
        "safetensors": lambda: save_file({"eigenvectors": torch.from_numpy(rows)}, path),
    }
    save[suffix]()
    control = load_directions(path, toy)
    assert [knob.name for knob in control.knobs] == ["sefa-0", "sefa-1", "sefa-2", "sefa-3"]
    assert torch.equal(control.vectors, torch.from_numpy(rows))


def test_rosinality_keeps_eigenvectors_in_columns_and_means_w(generator, tmp_path):
    columns = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    control = load_directions(pt(tmp_path / "factor.pt", {"ckpt": "some.pt", "eigvec": columns}), generator, name="factor")
    assert control.space == generator.spaces["w"] and torch.equal(control.vectors, columns.T)
    assert control.knobs[3].name == "factor-3"


def ganspace(path, *, lat, act=None, lat_stdev=None, act_stdev=None):
    """As decomposition.compute writes it: components with a dimension of one in their middle."""
    k = len(lat)
    act = lat if act is None else act
    np.savez_compressed(
        path,
        act_comp=act[:, None],
        act_mean=np.zeros((1, act.shape[1]), np.float32),
        act_stdev=np.ones(k, np.float32) if act_stdev is None else act_stdev,
        lat_comp=lat[:, None],
        lat_mean=np.zeros((1, lat.shape[1]), np.float32),
        lat_stdev=np.ones(k, np.float32) if lat_stdev is None else lat_stdev,
        var_ratio=np.full(k, 0.1, np.float32),
        random_stdevs=np.full(k, 0.1, np.float32),
    )
    return path


def test_ganspace_components_are_knobs_in_standard_deviations(generator, tmp_path):
    deviations = np.array([3.0, 0.5], np.float32)
    control = load_directions(ganspace(tmp_path / "pca.npz", lat=unit(2, 4), lat_stdev=deviations), generator, layers="0-1")
    assert control.space == generator.spaces["w+"] and {knob.unit for knob in control.knobs} == {"standard deviations"}
    expected = torch.from_numpy(unit(2, 4) * deviations[:, None])
    assert torch.allclose(control.vectors[:, 0], expected, atol=1e-6) and torch.allclose(control.vectors[:, 1], expected, atol=1e-6)
    assert not control.vectors[:, 2].any()


def test_ganspace_says_by_its_deviations_whether_the_latents_are_z_or_w(generator, tmp_path):
    in_w = ganspace(tmp_path / "w.npz", lat=unit(2, 4), lat_stdev=np.array([3.0, 0.5], np.float32))
    in_z = ganspace(tmp_path / "z.npz", lat=unit(2, 4), act=unit(2, 9))
    assert load_directions(in_w, generator).space.name == "w"
    assert load_directions(in_z, generator).space.name == "z"


def test_ganspace_components_of_the_layer_are_used_where_the_layer_is_asked_for(generator, tmp_path):
    path = ganspace(tmp_path / "z.npz", lat=unit(2, 4), act=unit(2, 4, seed=1), act_stdev=np.array([2.0, 1.0], np.float32))
    control = load_directions(path, generator, space="w")
    assert torch.allclose(control.vectors, torch.from_numpy(unit(2, 4, seed=1)) * torch.tensor([[2.0], [1.0]]), atol=1e-6)


@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_e4e_components_are_in_w_and_in_standard_deviations(generator, tmp_path, arrays):
    content = {"comp": unit(3, 1, 4), "mean": np.zeros((1, 4), np.float32), "std": np.array([[2.0], [1.0], [0.5]], np.float32)}
    if arrays == "torch":
        content = {key: torch.from_numpy(value) for key, value in content.items()}
    control = load_directions(pt(tmp_path / "pca.pt", content), generator)
    assert control.space.name == "w" and control.knobs[0].unit == "standard deviations"
    assert torch.allclose(control.vectors.norm(dim=1), torch.tensor([2.0, 1.0, 0.5]))


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
def test_an_e4e_direction_with_a_row_a_layer_lives_in_w_plus(generator, tmp_path, shape):
    control = load_directions(pt(tmp_path / "age.pt", torch.from_numpy(unit(*shape))), generator)
    assert control.space == generator.spaces["w+"] and len(control.knobs) == 1
    first = load_directions(tmp_path / "age.pt", generator, layers="0")
    assert torch.equal(first.vectors[0, 0], control.vectors[0, 0]) and not first.vectors[0, 1:].any()


def test_as_many_rows_as_layers_are_directions_of_w_where_w_is_asked_for(generator, tmp_path):
    control = load_directions(npy(tmp_path / "three.npy", unit(3, 4)), generator, space="w")
    assert len(control.knobs) == 3 and control.space == generator.spaces["w"]


def test_directions_that_have_names_keep_them(toy, tmp_path):
    path = pt(tmp_path / "several.pt", {"age": torch.from_numpy(unit(1, 6)), "pose": torch.from_numpy(unit(6, seed=1))})
    assert [knob.name for knob in load_directions(path, toy).knobs] == ["age", "pose"]


def test_styles_are_a_space_like_any_other(generator, tmp_path):
    control = load_directions(npy(tmp_path / "s.npy", unit(6)), generator, layers="style1")
    assert control.space == generator.spaces["s"] and control.vectors[0].nonzero().flatten().tolist() == [2, 3]


def test_a_unit_can_be_said(toy, tmp_path):
    assert load_directions(npy(tmp_path / "a.npy", unit(6)), toy, unit="boundary distances").knobs[0].unit == "boundary distances"


def test_they_come_back_from_a_control_file(generator, tmp_path):
    control = load_directions(npy(tmp_path / "age.npy", unit(1, 4)), generator, layers="1-2")
    loaded = store.load_control(store.save_control(control, tmp_path / "age.safetensors"), generator=generator)
    assert loaded.knobs == control.knobs and loaded.space == control.space and loaded.fit == control.fit
    assert torch.equal(loaded.vectors, control.vectors)


def test_they_can_be_calibrated(toy, tmp_path):
    control = load_directions(npy(tmp_path / "bright.npy", toy.matrix[0].numpy()), toy, unit="levels")
    pixel = calibrate(toy, control, {"bright": OnePixel()}, n=8)
    assert float(pixel.vectors[0] @ toy.matrix[0]) == pytest.approx(1, rel=1e-3)  # one unit is one level of the pixel
    assert pixel.knobs[0].unit == "levels" and "calibration" in pixel.fit


@pytest.mark.parametrize("case", cases("stylegan2-ada"))
def test_a_direction_in_some_layers_of_a_stylegan_moves_their_styles_and_no_others(tmp_path, case):
    stylegan = from_tensors(load(case).state, load(case).facts["constructor"], name=case)
    size, rows = stylegan.spaces["w"].shape[0], stylegan.spaces["w+"].shape[0]
    control = load_directions(npy(tmp_path / "age.npy", unit(1, size)), stylegan, space="w", layers=f"{rows - 2}-{rows - 1}", name="age")
    latents = stylegan.sample(2, seed=0, space="w+", labels=0 if stylegan.classes else None)
    moved = control.steer(latents, amounts(control, 2, age=3.0))
    before, after = (stylegan.to_space(one, "s").values for one in (latents, moved))
    driven = [bool(((after - before)[:, start:end] != 0).any()) for _, start, end in stylegan.spaces["s"].layers]
    assert driven[-1] and not any(driven[: rows - 2]), driven
    assert (stylegan(moved) - stylegan(latents)).abs().max() > 1e-3


# ------------------------------------------------------------------ bad input


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2**20))
        archive.filelist[0].file_size = 2**31  # what the directory at its end will claim
    return path


BAD = {
    "another size": (lambda p: npy(p / "a.npy", unit(1, 5)), r"holds \(1, 5\), which fits no space of toy \(.*\): z \(6,\)\. Was it found"),
    "numbers that are not": (lambda p: npy(p / "a.npy", np.full((1, 6), np.nan, np.float32)), r"6 of 6 numbers are NaN or infinite"),
    "nothing": (lambda p: npy(p / "a.npy", np.zeros((0, 6), np.float32)), r"\(0, 6\): there is no direction|cannot be read as arrays"),
    "zeros": (lambda p: npy(p / "a.npy", np.stack([unit(6), np.zeros(6, np.float32)])), r"direction 1 of 2 is zero everywhere"),
    "integers": (lambda p: npy(p / "a.npy", np.ones((1, 6), np.int64)), r"has int64 numbers: directions are floats"),
    "complex numbers": (lambda p: npy(p / "a.npy", unit(1, 6) * 1j), r"has complex numbers"),
    "pickled objects": (
        lambda p: npy(p / "a.npy", np.array([{}], dtype=object), allow_pickle=True),
        r"pickled objects, which are never loaded",
    ),
    "a checkpoint": (
        lambda p: pt(p / "a.pt", {"a.weight": torch.ones(3, 3), "b.weight": torch.ones(6)}),
        r"holds a\.weight \(3, 3\), b\.weight",
    ),
    "no tensors": (lambda p: pt(p / "a.pt", {"epoch": 3}), r"holds no arrays: expected one array"),
    "a list": (lambda p: pt(p / "a.pt", [torch.ones(6)]), r"holds a list, expected a tensor or a dict of tensors"),
    "too few deviations": (
        lambda p: pt(p / "a.pt", {"comp": torch.ones(3, 6), "std": torch.ones(2)}),
        r"has 3 components .* and 2 standard deviations",
    ),
    "a zip bomb": (lambda p: bomb(p / "a.npz"), r"unpacks to over 1 GB"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name, toy, tmp_path):
    make, message = BAD[name]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load_directions(path, toy)
    assert "\n" not in str(error.value) and path.name in str(error.value)


RAW = {
    "a web page": (b"<!doctype html><html>Sign in</html>", "is an HTML page"),
    "text": (b"0.1,0.2\n", "is text"),
    "an empty file": (b"", "is an empty file"),
    "a cut array": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }", "cannot be read as arrays"),
    "half an archive": (b"PK\x03\x04" + bytes(100), "cannot be read as arrays"),
}


@pytest.mark.parametrize("name", RAW)
def test_other_files_are_named_by_their_content(name, toy, tmp_path):
    content, message = RAW[name]
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_directions(tmp_path / "a.npy", toy)


@pytest.mark.parametrize("write", ["pickle", "torch", "npy"])
def test_code_in_a_file_is_never_executed(write, toy, tmp_path):
    canary, path = Canary(tmp_path / "executed"), tmp_path / "a.pt"
    if write == "pickle":
        path.write_bytes(pickle.dumps({"comp": canary}))
    elif write == "torch":
        torch.save({"comp": torch.ones(1, 6), "args": canary}, path)
    else:
        with path.open("wb") as file:
            np.save(file, np.array([canary], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"never loaded|nothing in it was executed"):
        load_directions(path, toy)
    assert not (tmp_path / "executed").exists()


GOOD = {
    "npy": lambda path: np.save(path, unit(2, 6)),
    "npz": lambda path: ganspace(path, lat=unit(2, 6)),
    "pt": lambda path: torch.save({"comp": torch.ones(2, 6), "std": torch.ones(2)}, path),
    "safetensors": lambda path: save_file({"v": torch.ones(2, 6)}, path),
}


@pytest.mark.parametrize("suffix", GOOD)
@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_file_is_read_or_refused_in_one_line(suffix, data, toy, tmp_path):
    path = tmp_path / f"good.{suffix}"
    if not path.exists():
        GOOD[suffix](path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    changed = tmp_path / f"changed.{suffix}"
    changed.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content))
    try:
        refusal, control = "", load_directions(changed, toy)
    except ValueError as error:
        refusal, control = str(error), None
    assert "\n" not in refusal and (control is None or control.space == toy.spaces["z"])


def test_a_header_that_promises_more_than_the_file_has_takes_no_memory(toy, tmp_path):
    path = npy(tmp_path / "a.npy", unit(1, 6))
    path.write_bytes(path.read_bytes().replace(b"(1, 6)", b"(9999999999, 6)".ljust(6))[:200])
    with pytest.raises(ValueError, match="cannot be read as arrays"):
        load_directions(path, toy)


def test_a_space_that_is_not_there_or_does_not_fit_is_refused(generator, toy, tmp_path):
    path = npy(tmp_path / "a.npy", unit(1, 6))
    with pytest.raises(ValueError, match='unknown latent space "w"'):
        load_directions(path, toy, space="w")
    with pytest.raises(ValueError, match=r"holds \(1, 6\), which is no direction in w of layered .*: one there is \(4,\)"):
        load_directions(path, generator, space="w")


def test_layers_need_a_space_that_has_some(toy, generator, tmp_path):
    with pytest.raises(ValueError, match="drives all layers at once, and no space with layers follows it: leave layers out"):
        load_directions(npy(tmp_path / "a.npy", unit(1, 6)), toy, layers="0")
    with pytest.raises(ValueError, match="layers are 0 to 2"):
        load_directions(npy(tmp_path / "b.npy", unit(1, 4)), generator, layers="2-5")


def test_a_missing_file_and_a_control_of_ours_say_so(toy, tmp_path):
    with pytest.raises(ValueError, match="does not exist: name a file of directions"):
        load_directions(tmp_path / "gone.npy", toy)
    ours = store.save_control(load_directions(npy(tmp_path / "a.npy", unit(1, 6)), toy), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="is a control already"):
        load_directions(ours, toy)


# ------------------------------------------------------------------ the verb


def test_the_verb_writes_a_control_that_the_other_verbs_take(tmp_path, capsys):
    path = npy(tmp_path / "light.npy", unit(1, 100))
    out = tmp_path / "light.safetensors"
    assert execute(["import-directions", str(path), "--out", str(out), "--name", "light"]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "light" in shown and "steps of the file" in shown and "not calibrated" in shown
    assert store.load_control(out).knobs[0].name == "light" and out.with_suffix(".json").exists()
    line = ["apply", str(out), "--turn", "light=1", "--seeds", "0", "--features", "brightness", "--out", str(tmp_path / "turned")]
    assert execute(line) == 0, capsys.readouterr().err


def test_the_verb_refuses_in_one_line(tmp_path, capsys):
    path = npy(tmp_path / "light.npy", unit(1, 5))
    assert execute(["import-directions", str(path), "--out", str(tmp_path / "o.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "fits no space of faces64" in error
