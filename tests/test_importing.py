"""Published checkpoints of every family become generators and files of ours: the same images, the same fingerprint, nothing executed."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from checkpoints.containers import Exec, discriminator, published, saved
from generators import parity
from safetensors.torch import save_file

from steerable import importing, store, zoo
from steerable.checkpoints.reading import read_checkpoint
from steerable.cli import execute
from steerable.generators import families
from steerable.generators.dcgan import from_state_dict
from steerable.store import import_generator, load_generator_file, save_generator

NAMED = sorted(path.stem for path in parity.FOLDER.glob("*.json") if path.stem != "MANIFEST")
ABSENT = pytest.mark.skipif(not NAMED, reason=f"no parity cases in {parity.FOLDER}: set STEERABLE_PARITY to their folder")


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    """Every canary writes into the current folder, if it is ever run; the cache is a new one."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "cache"))
    yield
    assert not (here / "CANARY_EXECUTED").exists(), "a canary was executed"


def state(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {"main.0.weight": torch.randn(6, 4, 4, 4, generator=rng), "main.2.weight": torch.randn(4, 3, 4, 4, generator=rng) / 4}


def cached(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.safetensors"))


def images_of(generator):
    return generator(generator.sample(2, seed=3))


# ------------------------------------------------------------------ every family


@ABSENT
@pytest.mark.parametrize("name", NAMED or ["absent"])
def test_the_published_file_of_every_family_becomes_the_generator_of_its_tensors(name, tmp_path):
    case = parity.load(name)
    facts = {key: case.facts[key] for key in ("sub_groups_dict",) if key in case.facts}
    path = published(case.facts["family"], case.state, case.facts["constructor"], tmp_path / "mine", **facts)
    tensors = {key: tensor.clone() for key, tensor in case.state.items()}  # aligned as torch does it, which sums depend on
    if "rosinality" in case.facts["family"]:
        tensors.setdefault("latent_avg", torch.zeros(case.facts["constructor"]["style_dim"]))
    direct = families.from_tensors(tensors, {**case.facts["constructor"], **facts}, name=name)
    generator = load_generator_file(path)
    assert generator.fingerprint == direct.fingerprint and generator.name == path.stem
    assert torch.equal(images_of(generator), images_of(direct))
    written = import_generator(path, tmp_path / "out.safetensors", name="ours")
    again = load_generator_file(written)
    assert again.fingerprint == direct.fingerprint and again.name == "ours" and torch.equal(images_of(again), images_of(direct))
    told = json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))
    assert told == store.described(written) and told["family"] == direct.network.family and told["origin"]["source"] == path.name
    assert told["fingerprint"] == direct.fingerprint and told["image"] == list(direct.image_shape)


@ABSENT
@pytest.mark.parametrize("path", sorted(parity.FOLDER.glob("nvidia_style*.pkl")), ids=lambda path: path.stem)
def test_a_pickle_of_nvidias_gives_the_images_of_its_parity_case(path, tmp_path):
    generator = load_generator_file(path)
    twins = [case for case in map(parity.load, NAMED) if case.facts["family"].startswith(("stylegan2-ada", "stylegan3"))]
    made = [families.from_tensors(case.state, case.facts["constructor"]) for case in twins]
    (twin,) = [one for one in made if one.fingerprint == generator.fingerprint]
    assert twin.network.config == generator.network.config and torch.equal(images_of(twin), images_of(generator))
    assert importing.imported(path, network="G").generator.fingerprint != generator.fingerprint


@ABSENT
@pytest.mark.parametrize("path", sorted(parity.FOLDER.glob("canary*")), ids=lambda path: path.stem)
def test_canaries_become_no_generator(path):
    for load in (load_generator_file, import_generator, zoo.load_generator):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            load(path)


def test_a_shipped_generator_goes_out_and_comes_in(tmp_path):
    faces = zoo.load_generator("faces64")
    again = load_generator_file(save_generator(faces, tmp_path / "faces.safetensors"))
    assert again.fingerprint == faces.fingerprint and torch.equal(images_of(again), images_of(faces))


# ------------------------------------------------------------------ the cache


def test_an_import_is_kept_and_found_again(tmp_path, monkeypatch):
    path = saved({"netG": state()}, tmp_path / "g.pth")
    first = load_generator_file(path)
    assert len(cached(tmp_path)) == 1
    monkeypatch.setattr(importing, "imported", lambda *a, **k: pytest.fail("imported twice"))
    path = path.rename(tmp_path / "renamed.pth")
    again = load_generator_file(path)
    assert again.fingerprint == first.fingerprint and again.name == "renamed" and torch.equal(images_of(again), images_of(first))


def test_another_content_or_network_is_imported_anew(tmp_path):
    path = saved({"G": state(), "G_ema": state(1)}, tmp_path / "g.pth")
    prints = {load_generator_file(path).fingerprint, load_generator_file(path, network="G").fingerprint}
    saved({"G": state(2)}, path)
    assert len(prints | {load_generator_file(path).fingerprint}) == 3 and len(cached(tmp_path)) == 3


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: b"", lambda content: content[:-4] + b"\x00\x00\x80\x3f"])
def test_a_damaged_cache_is_replaced(tmp_path, damage):
    path = saved(state(), tmp_path / "g.pth")
    first = load_generator_file(path)
    (kept,) = cached(tmp_path)
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert load_generator_file(path).fingerprint == first.fingerprint and kept.read_bytes() == whole


def test_without_a_place_for_a_cache_the_import_is_not_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "file" / "cache"))
    assert load_generator_file(saved(state(), tmp_path / "g.pth")).image_shape == (3, 8, 8)


def test_the_cache_is_the_users_own(monkeypatch):
    assert importing.cache_folder().name == "cache"
    monkeypatch.delenv("STEERABLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "place")
    assert importing.cache_folder() == Path("place/steerable")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert importing.cache_folder() == Path.home() / ".cache" / "steerable"


def test_plain_safetensors_are_read_without_a_cache(tmp_path):
    save_file(state(), tmp_path / "g.safetensors")
    assert load_generator_file(tmp_path / "g.safetensors").fingerprint == from_state_dict(state()).fingerprint and not cached(tmp_path)


# ------------------------------------------------------------------ files of ours


def rewritten(path, **changes):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors, said = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["steerable"])  # noqa: SIM118
    save_file(tensors, path, metadata={"steerable": json.dumps({**said, **changes})})
    return path


def test_options_come_back(tmp_path):
    path = save_generator(from_state_dict(state(), name="mine"), tmp_path / "g.safetensors")
    assert load_generator_file(path).name == "mine" and store.described(path)["options"] == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"widths": [6, 4, 1000000]}},
        {"family": "nothing"},
        {"config": 3},
        {"config_sha256": ""},
        {"fingerprint": "0"},
        {"family": 7},
    ],
    ids=["another size", "no family", "no config", "no digest", "another fingerprint", "a number"],
)
def test_a_description_that_is_not_the_written_one_is_refused(tmp_path, changes):
    path = rewritten(save_generator(from_state_dict(state()), tmp_path / "g.safetensors"), **changes)
    with pytest.raises(
        ValueError, match=r"^[^\n]*g\.safetensors: its (description|tensors) (is|are) not th[^\n]*that (was|were) written: import or save"
    ):
        load_generator_file(path)


def test_files_of_the_first_version_are_read(tmp_path):
    said = {"kind": "generator", "version": 1, "family": "dcgan", "name": "old"}
    save_file(state(), tmp_path / "g.safetensors", metadata={"steerable": json.dumps(said)})
    assert load_generator_file(tmp_path / "g.safetensors").name == "old"


def test_the_same_generator_gives_the_same_bytes(tmp_path):
    made = from_state_dict(state())
    assert save_generator(made, tmp_path / "a").read_bytes() == save_generator(made, tmp_path / "b").read_bytes()


# ------------------------------------------------------------------ what is wrong is one line


def refused(path, match, **arguments):
    with pytest.raises(ValueError, match=match) as error:
        load_generator_file(path, **arguments)
    assert "\n" not in str(error.value)


def test_networks_that_names_do_not_tell_apart_are_listed(tmp_path):
    refused(
        saved({"one": state(), "two": state(1)}, tmp_path / "g.pt"),
        r'several networks \(one, two\): say which, --network NAME or network="NAME"',
    )
    assert load_generator_file(tmp_path / "g.pt", network="two").fingerprint == from_state_dict(state(1)).fingerprint


def test_of_unnamed_networks_the_only_generator_is_taken(tmp_path):
    path = saved({"one": {"fc.weight": torch.ones(2, 3)}, "two": state()}, tmp_path / "g.pt")
    assert load_generator_file(path).fingerprint == from_state_dict(state()).fingerprint


def under(prefix, tensors):
    return {f"{prefix}.{key}": tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda good, other: under("generator", good),
        lambda good, other: under("module.g_ema", good),
        lambda good, other: {**under("G_ema", good), **under("G", other), **under("D", discriminator())},
        lambda good, other: {"state_dict": {**under("generator", good), **under("discriminator", discriminator())}, "epoch": 3},
        lambda good, other: {"model": {"netG": other, "netD": discriminator()}, "ema": {"netG": good, "netD": discriminator()}},
        lambda good, other: {"params": other, "params_ema": good},
        lambda good, other: {"g": under("module", other), "g_ema": under("module", good)},
    ],
)
def test_the_generator_is_found_wherever_trainers_put_it(wrap, tmp_path):
    path = saved(wrap(state(), state(1)), tmp_path / "g.pt")
    assert load_generator_file(path).fingerprint == from_state_dict(state()).fingerprint


def test_a_mean_latent_may_stand_beside_a_prefixed_network(tmp_path):
    save_file({**under("g_ema", state()), "latent_avg": torch.ones(6)}, tmp_path / "g.safetensors")
    checkpoint = read_checkpoint(tmp_path / "g.safetensors")
    (network,) = checkpoint.candidates()
    assert network.name == "g_ema" and set(checkpoint.tensors(network)) == {*state(), "latent_avg"}


def test_a_discriminator_is_refused(tmp_path):
    refused(saved(discriminator(), tmp_path / "d.pt"), r"d\.pt: d is a discriminator .*: pass the generator of the same run\.$")
    refused(saved({"D": discriminator()}, tmp_path / "e.pt"), r"holds a discriminator \(D\) and no generator")


@ABSENT
def test_keys_missing_and_left_over_are_listed(tmp_path):
    case = next(parity.load(name) for name in NAMED if "genforce" in parity.load(name).facts["family"])
    victim = next(key for key in case.state if key.endswith("layer3.weight"))
    refused(
        saved({"generator_smooth": {k: v for k, v in case.state.items() if k != victim}}, tmp_path / "g.pth"),
        r"g\.pth: .*(missing|incomplete)",
    )
    refused(saved({"generator_smooth": {**case.state, "surplus": torch.ones(2)}}, tmp_path / "h.pth"), r"h\.pth: .*surplus")


def test_numbers_that_are_none_are_refused(tmp_path):
    refused(saved({k: v * torch.nan for k, v in state().items()}, tmp_path / "g.pt"), r"NaN or infinite weights in main\.0\.weight")


@pytest.mark.parametrize(
    ("content", "say"),
    [
        (b"<!DOCTYPE html><html></html>", "is an HTML page"),
        (b"", "is an empty file"),
        (b"a,b\n", "is text"),
        (pickle.dumps(Exec()), "builtins.exec"),
    ],
)
def test_the_command_line_says_what_a_file_is_and_ends_with_2(tmp_path, capsys, content, say):
    (tmp_path / "g.pkl").write_bytes(content)
    assert execute(["import", str(tmp_path / "g.pkl")]) == 2
    shown = capsys.readouterr()
    assert say in shown.err and shown.err.count("\n") == 1 and not shown.out and not list(Path().iterdir())


def test_the_command_line_imports_and_says_what_it_found(tmp_path, capsys):
    path = saved({"netG": state(), "netD": discriminator(), "args": Exec()}, tmp_path / "mine.pth")
    assert execute(["import", str(path)]) == 0
    shown = capsys.readouterr().out
    made = load_generator_file("mine.safetensors")
    for part in ("torch archive, network netG", "dcgan in the DCGAN layout", "8 x 8, 3 channels", "z 6", made.fingerprint, "builtins.exec"):
        assert part in shown
    assert sorted(path.name for path in Path().iterdir()) == ["mine.json", "mine.safetensors"]


def test_the_command_line_takes_a_name_a_place_and_a_network(tmp_path):
    path = saved({"one": state(), "two": state(1)}, tmp_path / "g.pth")
    assert execute(["import", str(path)]) == 2
    assert execute(["import", str(path), "--network", "two", "--name", "other", "--out", "new/place.safetensors"]) == 0
    made = load_generator_file("new/place.safetensors")
    assert made.name == "other" and made.fingerprint == from_state_dict(state(1)).fingerprint
    assert execute(["import", str(path), "--network", "two", "--out", "place.pt"]) == 2


def test_a_file_is_not_written_over_itself(tmp_path):
    save_file(state(), "g.safetensors")
    with pytest.raises(ValueError, match="would be written over itself"):
        import_generator("g.safetensors")
    save_generator(from_state_dict(state()), "ours.safetensors")
    with pytest.raises(ValueError, match=r"ours\.safetensors is a file of steerable's already: use it as it is"):
        import_generator("ours.safetensors", "other.safetensors")


@ABSENT
def test_arguments_that_are_anything_are_refused(tmp_path):
    case = next(parity.load(name) for name in NAMED if parity.load(name).facts["family"] == "gan-control")
    path = published("gan-control", case.state, case.facts["constructor"], tmp_path / "g", sub_groups_dict=case.facts["sub_groups_dict"])
    for told in (
        {"training_config": 3},
        {"sub_groups_dict": {"age": {}}},
        {"sub_groups_dict": [1]},
        {"training_config": {"sub_groups_dict": None}},
    ):
        (path / "generator" / "args.json").write_text(json.dumps(told))
        try:
            load_generator_file(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some of them may be read


class Script(torch.nn.Module):
    def forward(self, z):
        return (2 * z[:, :, None, None]).tanh().expand(-1, 3, 4, 4) * 0.9


def test_a_program_of_torch_is_run_as_it_is(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Script(), torch.zeros(2, 3)).save(str(tmp_path / "t.pt"))
        torch.jit.script(Script()).save(str(tmp_path / "s.pt"))
    assert load_generator_file(tmp_path / "t.pt").spaces["z"].shape == (3,) and not cached(tmp_path)
    refused(
        tmp_path / "s.pt",
        r"does not store the shape of its latents.*steerable\.generators\.exported\.load_exported\('.*s\.pt', \.\.\.\)\.$",
    )


def test_a_program_of_torch_is_not_imported(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)).save(str(tmp_path / "p.pt"))
    with pytest.raises(ValueError, match=r"p\.pt is a program of torch, which has no weights to import: load it as it is"):
        import_generator(tmp_path / "p.pt")
    with pytest.raises(ValueError, match=r"p\.pt is a program of TorchScript"):
        read_checkpoint(tmp_path / "p.pt")


@ABSENT
def test_arguments_that_a_file_lacks_can_be_given(tmp_path, capsys):
    case = parity.load(next(name for name in NAMED if name.startswith("gancontrol")))
    path, told = saved({"g_ema": case.state}, tmp_path / "mine.pt"), {"sub_groups_dict": case.facts["sub_groups_dict"]}
    assert execute(["import", str(path)]) == 2
    said = capsys.readouterr().err
    assert "their order in the latent" in said and "steer import FILE --arguments args.json" in said and said.count("\n") == 1
    (tmp_path / "args.json").write_text(json.dumps(told), encoding="utf-8")
    assert execute(["import", str(path), "--arguments", str(tmp_path / "args.json"), "--out", str(tmp_path / "out.safetensors")]) == 0
    given = zoo.load_generator(path, arguments=told)
    assert zoo.load_generator(tmp_path / "out.safetensors").network.config == given.network.config
    with pytest.raises(ValueError, match="their order in the latent"):  # what is kept in the cache is that of its arguments
        zoo.load_generator(path)
    for bad, say in (("nowhere.json", "is no file"), ("mine.pt", "damaged")):
        capsys.readouterr()
        assert execute(["import", str(path), "--arguments", str(tmp_path / bad), "--out", str(tmp_path / "bad.safetensors")]) == 2
        assert say in (said := capsys.readouterr().err) and said.count("\n") == 1 and not (tmp_path / "bad.safetensors").exists()
