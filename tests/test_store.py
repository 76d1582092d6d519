"""Files are judged by what they hold, nothing in them is executed, and what is wrong is said in one line."""

import io
import json
import os
import pickle
import shutil
import tarfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from toys import linear_generator

from steerable import zoo
from steerable.controls.directions import Directions
from steerable.features.network import feature
from steerable.fitting.labels import fit_feature
from steerable.generators.dcgan import from_state_dict
from steerable.generators.module import wrap
from steerable.protocols import Knob
from steerable.store import load_control, load_feature, load_generator_file, save_control, save_feature, save_generator


@pytest.fixture(scope="module")
def generator():
    rng = torch.Generator().manual_seed(0)
    state = {"main.0.weight": torch.randn(6, 4, 4, 4, generator=rng), "main.2.weight": torch.randn(4, 3, 4, 4, generator=rng) / 4}
    return from_state_dict(state, name="tiny")


@pytest.fixture
def control():
    toy = linear_generator(6, (3, 4, 4))
    knobs = (Knob("yaw", "deg", -20, 20.5, percentiles=((5, -12.5), (50, 0.25), (95, 13.0))), Knob("ümlaut", "", -1, 1, neutral=None))
    return Directions(knobs, toy.spaces["z"], torch.eye(6)[:2], 2 * torch.eye(6)[:2], {"method": "by hand", "scores": {"yaw": {"R2": 0.7}}})


class Canary:
    """Code that a careless reader would run: it touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Sign in</body></html>"


# ------------------------------------------------------------------ what goes in comes out


def test_a_control_comes_back_whole(control, tmp_path):
    loaded = load_control(save_control(control, tmp_path / "one.safetensors"))
    assert loaded.knobs == control.knobs and loaded.space == control.space and loaded.space.generator == "toy"
    assert torch.equal(loaded.vectors, control.vectors) and torch.equal(loaded.normals, control.normals) and loaded.fit == control.fit


def test_a_control_without_normals_comes_back_without(control, tmp_path):
    bare = Directions(control.knobs, control.space, control.vectors)
    assert load_control(save_control(bare, tmp_path / "one.safetensors")).normals is None


def test_a_control_is_a_plain_safetensors_file_with_json_inside(control, tmp_path):
    path = save_control(control, tmp_path / "one.safetensors")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"vectors", "normals"}
        description = json.loads(file.metadata()["steerable"])
    assert description["kind"] == "directions" and description["space"]["fingerprint"] == control.space.fingerprint
    assert [knob["name"] for knob in description["knobs"]] == ["yaw", "ümlaut"] and description["fit"]["method"] == "by hand"


def test_parent_folders_are_made(control, tmp_path):
    assert save_control(control, tmp_path / "new" / "folder" / "one.safetensors").exists()


def test_a_save_that_fails_leaves_what_was_there(control, tmp_path):
    path = save_control(control, tmp_path / "one.safetensors")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_control(Directions(control.knobs, control.space, control.vectors, fit={"not": object()}), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_generator_comes_back_as_it_was(generator, tmp_path):
    loaded = load_generator_file(save_generator(generator, tmp_path / "g.safetensors"))
    latents = generator.sample(2, seed=0)
    assert loaded.name == "tiny" and loaded.fingerprint == generator.fingerprint
    assert torch.equal(loaded(latents), generator(latents))


def test_a_torch_checkpoint_of_tensors_is_read(generator, tmp_path):
    torch.save({"epoch": 3, "netG": generator.network.state_dict()}, tmp_path / "netG_epoch_3.pth")
    loaded = load_generator_file(tmp_path / "netG_epoch_3.pth")
    assert loaded.fingerprint == generator.fingerprint and loaded.name == "netG_epoch_3"


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_a_torch_file_from_before_zip_archives_is_read(generator, tmp_path, suffix):
    path = tmp_path / f"old{suffix}"
    torch.save({"epoch": 3, "netG": generator.network.state_dict()}, path, _use_new_zipfile_serialization=False)
    loaded = load_generator_file(path)
    assert loaded.fingerprint == generator.fingerprint and loaded.name == "old"


def test_a_wrapped_network_of_ones_own_cannot_be_rebuilt_from_tensors(tmp_path):
    class Mine(torch.nn.Module):
        def forward(self, z):
            return z.tanh()[:, :, None, None].expand(-1, 3, 4, 4) * torch.tensor([1.0, 0.5, -0.5])[:, None, None]

    mine = wrap(Mine(), latent_size=3, name="mine")
    with pytest.raises(
        TypeError, match=r"^mine is a Mine: only networks of the families .* can be rebuilt from a file\. Save its module yourself\.$"
    ):
        save_generator(mine, tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ content, not suffix


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".txt", ""])
def test_a_control_loads_under_any_suffix(control, tmp_path, suffix):
    assert load_control(save_control(control, tmp_path / f"one{suffix}")).knobs == control.knobs


@pytest.mark.parametrize("suffix", [".safetensors", ".pkl", ".zip"])
def test_a_torch_file_loads_under_any_suffix(generator, tmp_path, suffix):
    torch.save(generator.network.state_dict(), tmp_path / f"weights{suffix}")
    assert load_generator_file(tmp_path / f"weights{suffix}").fingerprint == generator.fingerprint


def test_safetensors_load_as_pth(generator, tmp_path):
    shutil.move(save_generator(generator, tmp_path / "g.safetensors"), tmp_path / "g.pth")
    assert load_generator_file(tmp_path / "g.pth").fingerprint == generator.fingerprint


# ------------------------------------------------------------------ what is refused


BAD = {
    "a web page": (PAGE, r"is an HTML page.*The download went to a web page: fetch the file itself\."),
    "text": (b"seed,label\n1,0\n", r"is text"),
    "an empty file": (b"", r"is an empty file"),
    "noise": (bytes(range(256)) * 8, r"is unknown data"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), r"is a PNG image"),
    "a pickle": (
        pickle.dumps({"main.0.weight": [1.0]}),
        r"is a pickle(: it holds a dict without tensors|.*Pickled code is never executed here)",
    ),
}


@pytest.mark.parametrize("load", [load_generator_file, load_control])
@pytest.mark.parametrize(("content", "say"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_something_else_is_refused_by_what_it_is(tmp_path, load, content, say, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^.*weights{suffix} {say}") as refusal:
        load(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("load", [load_generator_file, load_control])
def test_a_file_that_is_not_there_is_refused(tmp_path, load):
    with pytest.raises(ValueError, match=r"gone\.safetensors does not exist\. Check the path"):
        load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("load", [load_generator_file, load_control])
def test_a_folder_is_refused(tmp_path, load):
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize("load", [load_generator_file, load_control])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused(generator, tmp_path, load, share):
    path = save_generator(generator, tmp_path / "g.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"g\.safetensors is a truncated safetensors file.*The download stopped early: fetch it again\."):
        load(path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_truncated_torch_file_is_refused(generator, tmp_path, share):
    path = tmp_path / "g.pth"
    torch.save(generator.network.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        ValueError, match=r"g\.pth is a zip / torch file: it is a damaged zip .*, or the file stops early\. Fetch it again\.$"
    ):
        load_generator_file(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_truncated_torch_file_from_before_zip_archives_is_refused(generator, tmp_path, share):
    path = tmp_path / "old.pth"
    torch.save(generator.network.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        ValueError,
        match=r"old\.pth(: \S+:| is a (torch file|pickle):) it ends (in the middle of its pickle|before its tensors do)(\. Fetch.*)?\.$",
    ) as refusal:
        load_generator_file(path)
    assert "\n" not in str(refusal.value)


def test_a_damaged_header_is_refused(generator, tmp_path):
    path = save_generator(generator, tmp_path / "g.safetensors")
    content = bytearray(path.read_bytes())
    content[20:30] = b"??????????"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"g\.safetensors is (a )?damaged"):
        load_generator_file(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_the_tensors_name(generator, tmp_path, bad):
    state = {key: value.clone() for key, value in generator.network.state_dict().items()}
    state["main.0.weight"][0, 0, 0, 0] = bad
    save_file(state, tmp_path / "g.safetensors")
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(ValueError, match=r"g\.safetensors: main\.0\.weight: 1 of 384 numbers are NaN or infinite"):
        load_generator_file(tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinite weights in main\.0\.weight"):
        load_generator_file(tmp_path / "g.pth")


def test_weights_of_another_network_say_what_they_are(tmp_path):
    save_file({"fc.weight": torch.zeros(3, 4)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: other has the keys of no known generator \(fc\.weight\)"):
        load_generator_file(tmp_path / "other.safetensors")


def test_a_torch_file_of_one_tensor_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "one.pth")
    with pytest.raises(ValueError, match=r"one\.pth is a torch archive: it holds a Tensor, expected a state dict"):
        load_generator_file(tmp_path / "one.pth")


def test_any_other_zip_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a.txt").write_text("hello")
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "inside")
    with pytest.raises(ValueError, match=r"archive\.zip is a zip archive, and not one of torch; expected weights"):
        load_generator_file(archive)


# ------------------------------------------------------------------ nothing is executed


def test_code_in_a_torch_file_is_refused_and_not_executed(tmp_path):
    canary = tmp_path / "executed"
    torch.save({"main.0.weight": torch.zeros(3, 3, 4, 4), "code": Canary(canary)}, tmp_path / "g.pth")
    with pytest.raises(ValueError, match=r"g\.pth: .*It also names posix\.system, which was not executed\.$"):
        load_generator_file(tmp_path / "g.pth")
    assert not canary.exists()


@pytest.mark.parametrize("protocol", [2, 5])
def test_code_in_a_torch_file_from_before_zip_archives_is_refused_and_not_executed(tmp_path, protocol):
    canary, path = tmp_path / "executed", tmp_path / "g.pth"
    state = {"main.0.weight": torch.zeros(3, 3, 4, 4), "code": Canary(canary)}
    torch.save(state, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    with pytest.raises(ValueError, match=r"g\.pth: .*It also names posix\.system, which was not executed\.$") as refusal:
        load_generator_file(path)
    assert not canary.exists() and "\n" not in str(refusal.value)


def test_code_in_a_tar_that_looks_like_a_pickle_is_refused_and_not_executed(tmp_path):
    """Torch's oldest format is a tar, whose first bytes are a name that anybody may choose."""
    canary = tmp_path / "executed"
    content = pickle.dumps(Canary(canary), protocol=2)
    with tarfile.open(tmp_path / "g.pth", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        for name in ("\x80\x02first", "sys_info", "storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"g\.pth is a pickle: it has an unknown opcode"):
        load_generator_file(tmp_path / "g.pth")
    assert not canary.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
@pytest.mark.parametrize("load", [load_generator_file, load_control])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path, load, protocol):
    canary = tmp_path / "executed"
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(Canary(canary), protocol=protocol))
    with pytest.raises(ValueError, match=r"g\.pkl is "):
        load(tmp_path / "g.pkl")
    assert not canary.exists()


def test_the_canary_is_alive(tmp_path):
    """A careless reader would have run it: otherwise the two tests above would show nothing."""
    pickle.loads(pickle.dumps(Canary(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


# ------------------------------------------------------------------ controls


def test_plain_tensors_are_no_control(tmp_path):
    save_file({"vectors": torch.zeros(1, 6)}, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=r"v\.safetensors holds plain tensors, not a control\. Make one with: steer fit"):
        load_control(tmp_path / "v.safetensors")


def test_a_generator_is_no_control(generator, tmp_path):
    with pytest.raises(ValueError, match=r"g\.safetensors holds a generator, not a control"):
        load_control(save_generator(generator, tmp_path / "g.safetensors"))


def test_a_control_is_no_generator(control, tmp_path):
    with pytest.raises(ValueError, match=r"c\.safetensors holds a control, not a generator\.$"):
        load_generator_file(save_control(control, tmp_path / "c.safetensors"))


def rewritten(path, change):
    """The same file with another description."""
    with safe_open(path, "pt") as file:
        tensors, description = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["steerable"])  # noqa: SIM118
    change(tensors, description)
    save_file(tensors, path, metadata={"steerable": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, said: said.pop("knobs"),
        lambda tensors, said: said.pop("space"),
        lambda tensors, said: said.pop("fit"),
        lambda tensors, said: tensors.pop("vectors"),
        lambda tensors, said: said["knobs"][0].pop("unit"),
        lambda tensors, said: said["knobs"][0].update(colour="red"),
        lambda tensors, said: said["space"].pop("fingerprint"),
        lambda tensors, said: said.update(knobs=3),
    ],
    ids=["no knobs", "no space", "no fit", "no vectors", "a knob without unit", "an unknown field", "no fingerprint", "a number for knobs"],
)
def test_a_control_with_a_part_missing_is_refused_by_the_files_name(control, tmp_path, change):
    path = rewritten(save_control(control, tmp_path / "c.safetensors"), change)
    with pytest.raises(ValueError, match=r"c\.safetensors is a control with a part missing or wrong \(.*\): save it again"):
        load_control(path)


def test_a_control_with_other_shapes_than_it_says_is_refused(control, tmp_path):
    path = rewritten(save_control(control, tmp_path / "c.safetensors"), lambda tensors, said: tensors.update(vectors=torch.zeros(2, 7)))
    with pytest.raises(ValueError, match=r"c\.safetensors: vectors of 2 directions in z of toy \(00to…\) are \(2, 6\), got \(2, 7\)"):
        load_control(path)


def test_a_control_that_is_no_numbers_is_refused(control, tmp_path):
    path = rewritten(
        save_control(control, tmp_path / "c.safetensors"), lambda tensors, said: tensors.update(vectors=torch.full((2, 6), torch.nan))
    )
    with pytest.raises(ValueError, match=r"c\.safetensors: vectors: 12 of 12 numbers are NaN or infinite"):
        load_control(path)


def test_a_description_that_is_no_mapping_is_refused(tmp_path):
    for said in ("[1, 2]", "{half"):
        save_file({"vectors": torch.zeros(1, 6)}, tmp_path / "c.safetensors", metadata={"steerable": said})
        with pytest.raises(ValueError, match=r"c\.safetensors (has a description that is no mapping|is damaged)"):
            load_control(tmp_path / "c.safetensors")


def test_a_control_of_the_generator_loads(control, tmp_path):
    path = save_control(control, tmp_path / "c.safetensors")
    assert load_control(path, generator=linear_generator(6, (3, 4, 4))).knobs == control.knobs


def test_a_control_of_another_generator_is_refused_by_both_names(control, tmp_path):
    path = save_control(control, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match=r"c\.safetensors was fitted on toy \(00to…\), this generator is faces64 \(.{4}…\)\.$"):
        load_control(path, generator=zoo.load_generator("faces64"))


# ------------------------------------------------------------------ features


def backbone(images):
    return images.flatten(1)


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A head fitted on the mean of a toy's images."""
    toy, path = linear_generator(5, (3, 4, 4), scale=0.3), tmp_path_factory.mktemp("labels") / "labels.csv"
    rows = [f"{seed},{toy(toy.sample(1, seed=seed)).mean().item()}" for seed in range(60)]
    path.write_text("\n".join(["seed,label", *rows]))
    return fit_feature(path, backbone=backbone, generator=toy, name="light", unit="levels")


def test_a_feature_comes_back_whole(light, tmp_path):
    loaded = load_feature(save_feature(light, tmp_path / "light.safetensors"), backbone)
    images = torch.rand(4, 3, 4, 4) * 2 - 1
    assert (loaded.name, loaded.columns, loaded.unit, loaded.metric) == ("light", ("light",), "levels", "l2")
    assert torch.equal(loaded(images), light(images)) and loaded.report == light.report


def test_a_feature_is_read_onto_the_backbone_it_is_given(light, tmp_path):
    loaded = load_feature(save_feature(light, tmp_path / "light.safetensors"), lambda images: -backbone(images))
    images = torch.rand(4, 3, 4, 4)
    assert torch.allclose(loaded(images) + light(images), 2 * light.read.bias.expand(4, 1), atol=1e-5)


def test_the_file_of_a_feature_holds_its_head_alone(light, tmp_path):
    with safe_open(save_feature(light, tmp_path / "light.safetensors"), "pt") as file:
        assert set(file.keys()) == {"weight", "bias"} and json.loads(file.metadata()["steerable"])["kind"] == "feature"


def test_a_feature_that_was_not_fitted_has_no_head_to_save(tmp_path):
    mean = feature(lambda images: images.mean((1, 2, 3)), name="mean")
    with pytest.raises((TypeError, ValueError), match="mean"):
        save_feature(mean, tmp_path / "mean.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_control_is_no_feature_and_a_feature_no_control_and_no_generator(control, light, tmp_path):
    with pytest.raises(ValueError, match=r"c\.safetensors holds a control, not a feature\. Make one with: steer fit label"):
        load_feature(save_control(control, tmp_path / "c.safetensors"), backbone)
    path = save_feature(light, tmp_path / "light.safetensors")
    with pytest.raises(ValueError, match=r"light\.safetensors holds a feature, not a control"):
        load_control(path)
    with pytest.raises(ValueError, match=r"light\.safetensors holds a feature, not a generator"):
        load_generator_file(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, said: tensors.pop("bias"),
        lambda tensors, said: said.pop("columns"),
        lambda tensors, said: said.pop("report"),
        lambda tensors, said: said.update(columns=3),
    ],
    ids=["no bias", "no columns", "no report", "a number for columns"],
)
def test_a_feature_with_a_part_missing_is_refused_by_the_files_name(light, tmp_path, change):
    path = rewritten(save_feature(light, tmp_path / "f.safetensors"), change)
    with pytest.raises(ValueError, match=r"f\.safetensors is a feature with a part missing or wrong \(.*\): save it again"):
        load_feature(path, backbone)


def test_a_pickle_is_no_feature(tmp_path):
    canary = tmp_path / "executed"
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match=r"f\.pkl is a pickle, expected a safetensors file"):
        load_feature(tmp_path / "f.pkl", backbone)
    assert not canary.exists()
