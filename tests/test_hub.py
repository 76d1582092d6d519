"""The Hub: what is uploaded comes back the same, interrupted downloads go on, damaged ones leave nothing, and the cache works alone.

Everything is asked of ``toy_hub``, a server on this machine; huggingface_hub is the real one.
"""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_hub import ToyHub
from toys import OnePixel, layered_generator, linear_generator

import steerable
from steerable import cards, hub, store, zoo
from steerable.controls.chain import Chain
from steerable.controls.directions import Directions, join
from steerable.controls.walk import Step, Walk
from steerable.fitting.axes import fit_axes
from steerable.fitting.walks import fit_directions
from steerable.generators.dcgan import from_state_dict
from steerable.protocols import Knob


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A Hub that huggingface_hub and this package ask by default, with caches of its own."""
    from huggingface_hub import constants

    with ToyHub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "theirs"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_toy")
        yield running


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "hub"


@pytest.fixture(scope="module")
def generator():
    rng = torch.Generator().manual_seed(0)
    state = {"main.0.weight": torch.randn(6, 64, 4, 4, generator=rng), "main.2.weight": torch.randn(64, 3, 4, 4, generator=rng) / 8}
    return from_state_dict(state, name="tiny")


@pytest.fixture
def control(generator):
    knobs = (Knob("yaw", "deg", -20, 20.5, percentiles=((5, -12.5), (50, 0.25), (95, 13.0))), Knob("a|b", "", -1, 1))
    return Directions(knobs, generator.spaces["z"], torch.eye(6)[:2], fit={"method": "axes", "axes": {"yaw": {"R2": 0.73}}})


def whole(folder: Path) -> list[str]:
    """Names of finished files, without those of the bookkeeping."""
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return sorted(path.name for path in found if not path.name.startswith(".") and "refs" not in path.parts)


# ------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://a/b", ("a/b", "main", None)),
        ("hf://a/b/", ("a/b", "main", None)),
        ("hf://a-1/b.c_d", ("a-1/b.c_d", "main", None)),
        ("hf://a/b@v1.0", ("a/b", "v1.0", None)),
        ("hf://a/b/sub/c.safetensors", ("a/b", "main", "sub/c.safetensors")),
        ("hf://a/b@v1/c.pt", ("a/b", "v1", "c.pt")),
        (Path("hf://a/b/c.pt"), ("a/b", "main", "c.pt")),
    ],
)
def test_an_address_has_a_repository_a_revision_and_a_file(text, parts):
    where = hub.parse(text)
    assert (where.repo, where.revision, where.file) == parts
    assert hub.is_address(text) and hub.parse(str(where)) == where


@pytest.mark.parametrize("text", ["hf://a", "hf://", "hf://a/b/../c", "hf://a b/c", "a/b", "hf://a/b@", "hf://a/b@..", "hf://a/b@*"])
def test_what_is_no_address_says_how_to_write_one(text):
    with pytest.raises(ValueError, match=r"is no address on the Hub: write hf://owner/repo, hf://owner/repo@revision or"):
        hub.parse(text)


# ------------------------------------------------------------------ there and back


def test_a_generator_comes_back_from_the_hub_as_it_was(toy, generator):
    address = steerable.push_to_hub(generator, "me/tiny", licence="cc0-1.0")
    assert re.fullmatch(r"hf://me/tiny@[0-9a-f]{40}", address)
    for name in ("hf://me/tiny", address, "hf://me/tiny/generator.safetensors"):
        loaded = steerable.load_generator(name)
        latents = generator.sample(2, seed=0)
        assert loaded.fingerprint == generator.fingerprint and torch.equal(loaded(latents), generator(latents))


def test_a_control_comes_back_and_fits_its_generator_only(toy, generator, control):
    steerable.push_to_hub(control, "hf://me/yaw", licence="other")
    loaded = steerable.load_control("hf://me/yaw", generator=generator)
    assert loaded.knobs == control.knobs and loaded.space == control.space and torch.equal(loaded.vectors, control.vectors)
    with pytest.raises(ValueError, match="was fitted on tiny .*, this generator is toy"):
        steerable.load_control("hf://me/yaw", generator=linear_generator())


def test_an_upload_is_one_commit_of_three_files(toy, generator):
    steerable.push_to_hub(generator, "me/tiny", licence="mit", private=True)
    assert len(toy.requests("/commit/main")) == 1 and toy.private["me/tiny"]
    assert set(toy.repos["me/tiny"][toy.heads["me/tiny", "main"]]) >= {"README.md", "generator.safetensors", "steerable.json"}


def test_an_upload_into_a_repository_that_is_there_replaces_it(toy, generator, control):
    steerable.push_to_hub(control, "me/one", licence="mit")
    steerable.push_to_hub(control["yaw"], "me/one", licence="mit")
    assert [knob.name for knob in steerable.load_control("hf://me/one").knobs] == ["yaw"]


def test_a_branch_can_be_written_and_read(toy, generator):
    toy.commit("me/tiny", {"x.txt": b"x"})
    toy.commit("me/tiny", {"x.txt": b"x"}, branch="next")
    steerable.push_to_hub(generator, "me/tiny", licence="mit", revision="next")
    assert steerable.load_generator("hf://me/tiny@next").fingerprint == generator.fingerprint
    with pytest.raises(ValueError, match="no file of weights"):
        hub.fetch("hf://me/tiny")


# ------------------------------------------------------------------ cards


def card_of(toy, repo):
    text = toy.repos[repo][toy.heads[repo, "main"]]["README.md"].decode()
    header = text.split("---\n")[1]
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in header.splitlines())}, text


def test_the_card_of_a_generator_states_what_it_is(toy, generator):
    steerable.push_to_hub(generator, "me/tiny", licence="cc0-1.0", description="Trained on nothing.", tags=("toy",))
    header, text = card_of(toy, "me/tiny")
    assert header["library_name"] == "steerable" and header["license"] == "cc0-1.0" and header["spaces"] == {"z": [6]}
    assert header["fingerprint"] == generator.fingerprint and {"steerable", "dcgan", "toy"} <= set(header["tags"])
    assert "Trained on nothing." in text and 'load_generator("hf://me/tiny")' in text and "3 x 8 x 8" in text


def test_the_card_is_yaml_as_the_hub_reads_it(generator, tmp_path):
    from huggingface_hub import ModelCard

    cards.write_folder(generator, tmp_path, repo="me/tiny", licence="cc0-1.0", tags=("a: b",))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "cc0-1.0" and card.data.library_name == "steerable" and "a: b" in card.data.tags


def test_the_card_of_a_control_has_a_row_a_knob(control, tmp_path):
    cards.write_folder(control, tmp_path, repo="me/yaw", licence="mit", generator="hf://me/tiny")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| yaw | deg | -20 to 20.5 | -12.5, 0.25, 13 | R2 0.73 held out |" in text
    assert "| a\\|b | – | -1 to 1 | – | – |" in text  # nobody's name breaks the table
    assert 'load_control("hf://me/yaw", generator=generator)' in text and 'load_generator("hf://me/tiny")' in text


def test_scores_are_those_of_the_fit(tmp_path):
    toy = linear_generator()
    axes = fit_axes(toy, [OnePixel()], n=60, seed=0)
    walk = fit_directions(toy, "brightness", n=16, seed=0)
    cards.write_folder(join([axes, walk]), tmp_path, repo="me/both", licence="mit")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| pixel-0-0-0 \| levels \| .* \| R2 \d\.\d\d held out \|", text)
    assert re.search(r"\| brightness \| .* \| relative loss \d\.\d\d held out \|", text)


def test_the_code_on_a_card_runs(toy, generator, control):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    steerable.push_to_hub(control, "me/yaw", licence="mit", generator="hf://me/tiny")
    for repo in ("me/tiny", "me/yaw"):
        _, text = card_of(toy, repo)
        names: dict[str, object] = {}
        exec(text.split("```python\n")[1].split("```")[0], names)
        assert names["images"].shape == (4, 3, 8, 8)


def test_controls_of_every_kind_that_is_saved_come_back_with_a_card_that_runs(toy, generator):
    space = generator.spaces["z"]
    step = Step(torch.eye(6)[None] / 9, torch.zeros(1, 6), torch.eye(6)[None] / 9, torch.zeros(1, 6))
    walk = Walk((Knob("zoom", "log2", -1, 1),), space, step, step, (0.5, 0.5), {"method": "walk"})
    straight = Directions((Knob("yaw", "deg", -9, 9),), space, torch.eye(6)[:1])
    for made in (walk, Chain((straight, walk))):
        steerable.push_to_hub(generator, "me/tiny", licence="mit")
        steerable.push_to_hub(made, "me/walk", licence="mit", generator="hf://me/tiny")
        _, text = card_of(toy, "me/walk")
        names: dict[str, object] = {}
        exec(text.split("```python\n")[1].split("```")[0], names)
        assert type(names["control"]) is type(made) and names["images"].shape == (4, 3, 8, 8)
        assert "| zoom | log2 | -1 to 1 |" in text


def test_save_writes_either_and_nothing_else(generator, control, tmp_path, no_annotation_checks):
    steerable.save(generator, tmp_path / "g.safetensors")
    steerable.save(control, tmp_path / "c.safetensors")
    assert steerable.load_generator(tmp_path / "g.safetensors").fingerprint == generator.fingerprint
    assert torch.equal(steerable.load_control(tmp_path / "c.safetensors").vectors, control.vectors)
    with pytest.raises(TypeError, match="save takes a generator or a control, got a dict"):
        steerable.save({}, tmp_path / "d.safetensors")


@pytest.mark.parametrize("licence", ["", "Apache 2.0", "MIT!"])
def test_a_licence_has_to_be_said(licence, generator):
    with pytest.raises(ValueError, match=r'licence is a short name in small letters such as "apache-2\.0"'):
        steerable.push_to_hub(generator, "me/tiny", licence=licence)


@pytest.mark.parametrize("repo", ["tiny", "me/tiny@v1", "me/tiny/file"])
def test_a_repository_has_an_owner_and_a_name(repo, generator):
    with pytest.raises(ValueError, match=r"is no address on the Hub|a repository is owner/name"):
        steerable.push_to_hub(generator, repo, licence="mit")


def test_only_generators_and_controls_can_be_shared(no_annotation_checks):
    with pytest.raises(TypeError, match="takes a generator or a control, got a dict"):
        steerable.push_to_hub({}, "me/tiny", licence="mit")


def test_a_network_that_no_file_can_rebuild_is_not_shared():
    with pytest.raises(TypeError, match="can be rebuilt from a file"):
        steerable.push_to_hub(layered_generator(), "me/tiny", licence="mit")


# ------------------------------------------------------------------ whose download stops, whose is damaged


def test_an_interrupted_download_goes_on_where_it_stopped(toy, generator, cache):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    size = len(toy.repos["me/tiny"][toy.heads["me/tiny", "main"]]["generator.safetensors"])
    toy.stop_after = 20_000  # more than the small files have
    with pytest.raises(ValueError, match=rf"the download of generator\.safetensors stopped after 16384 of {size} bytes .*it goes on there"):
        hub.fetch("hf://me/tiny")
    (part,) = cache.rglob("*.part")
    assert part.stat().st_size == 16_384 and "generator.safetensors" not in whole(cache)
    toy.status = None
    toy.log.clear()
    path = hub.fetch("hf://me/tiny")
    assert toy.requests("generator.safetensors")[-1][2] == "bytes=16384-" and not list(cache.rglob("*.part"))
    assert store.load_generator_file(path).fingerprint == generator.fingerprint


def test_a_short_break_is_bridged_within_one_call(toy, generator, monkeypatch):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    toy.stop_after, toy.down = 20_000, False
    assert store.load_generator_file(hub.fetch("hf://me/tiny")).fingerprint == generator.fingerprint
    assert toy.requests("generator.safetensors")[-1][2] == "bytes=16384-"


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(toy, generator):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    toy.stop_after, toy.down, toy.ranges = 20_000, False, False
    assert store.load_generator_file(hub.fetch("hf://me/tiny")).fingerprint == generator.fingerprint


@pytest.mark.parametrize("lie", ["other bytes", "a web page"])
def test_a_wrong_checksum_is_refused_and_nothing_is_left(toy, generator, cache, lie):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    right = toy.repos["me/tiny"][toy.heads["me/tiny", "main"]]["generator.safetensors"]
    page = b"<!DOCTYPE html><html>Sign in</html>".ljust(len(right))
    toy.lies["generator.safetensors"] = page if lie == "a web page" else right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(ValueError, match=r"^checksum mismatch: generator\.safetensors of hf://me/tiny is .*, expected .*") as error:
        hub.fetch("hf://me/tiny")
    assert ("an HTML page" in str(error.value)) == (lie == "a web page") and "\n" not in str(error.value)
    assert "generator.safetensors" not in whole(cache) and not list(cache.rglob("*.part"))
    toy.lies.clear()
    assert store.load_generator_file(hub.fetch("hf://me/tiny")).fingerprint == generator.fingerprint


def test_the_checksum_of_the_manifest_counts_too(toy, generator, cache):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    files = toy.repos["me/tiny"][toy.heads["me/tiny", "main"]]
    manifest = json.loads(files["steerable.json"])
    assert manifest["sha256"] == hashlib.sha256(files["generator.safetensors"]).hexdigest()
    files["steerable.json"] = json.dumps({**manifest, "sha256": "0" * 64}).encode()
    with pytest.raises(ValueError, match="checksum mismatch: generator.safetensors .* expected 000000000000…"):
        hub.fetch("hf://me/tiny")
    assert "generator.safetensors" not in whole(cache)


def test_small_files_are_checked_by_their_git_id(toy, generator, cache):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    files = toy.repos["me/tiny"][toy.heads["me/tiny", "main"]]
    toy.lies["steerable.json"] = files["steerable.json"].replace(b'"kind"', b'"kond"')
    with pytest.raises(ValueError, match=r"checksum mismatch: steerable\.json"):
        hub.fetch("hf://me/tiny")
    assert whole(cache) == []


# ------------------------------------------------------------------ the cache


def test_a_file_is_fetched_once(toy, generator):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    hub.fetch("hf://me/tiny")
    toy.log.clear()
    hub.fetch("hf://me/tiny")
    assert [method for method, path, _ in toy.log if "resolve" in path] == []


def test_a_new_commit_is_fetched_and_the_old_one_stays(toy, control):
    first = steerable.push_to_hub(control, "me/one", licence="mit")
    assert len(steerable.load_control("hf://me/one").knobs) == 2
    steerable.push_to_hub(control["yaw"], "me/one", licence="mit")
    assert len(steerable.load_control("hf://me/one").knobs) == 1 and len(steerable.load_control(first).knobs) == 2


@pytest.mark.parametrize("trouble", ["no server", "an error of the server", "offline mode"])
def test_without_the_hub_the_copy_in_the_cache_is_used_and_the_log_says_so(toy, generator, monkeypatch, caplog, trouble):
    address = steerable.push_to_hub(generator, "me/tiny", licence="mit")
    hub.fetch("hf://me/tiny")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if trouble == "offline mode":
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        fresh_session()
    elif trouble == "no server":
        toy.server.shutdown()
        toy.server.server_close()
    else:
        toy.status = 503
    with caplog.at_level(logging.WARNING, logger="steerable.hub"):
        for name in ("hf://me/tiny", address, "hf://me/tiny/generator.safetensors"):
            assert steerable.load_generator(name).fingerprint == generator.fingerprint
    assert "cannot be reached" in caplog.text and "using the copy in the cache" in caplog.text
    with pytest.raises(ValueError, match=r"hf://me/other cannot be reached \(.*\), and no copy of it is in .*: fetch it once"):
        hub.fetch("hf://me/other")
    if trouble == "offline mode":
        monkeypatch.undo()
        fresh_session()


def fresh_session():
    from huggingface_hub import close_session

    close_session()


def test_an_unfinished_download_is_no_copy(toy, generator):
    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    toy.stop_after = 20_000
    with pytest.raises(ValueError, match="stopped after"):
        hub.fetch("hf://me/tiny")
    with pytest.raises(ValueError, match="no copy of it is in"):  # the Hub is down now
        hub.fetch("hf://me/tiny")


def test_what_other_programs_fetched_is_found_without_a_network(toy, generator, tmp_path):
    from huggingface_hub import snapshot_download

    steerable.push_to_hub(generator, "me/tiny", licence="mit")
    commit, theirs = toy.heads["me/tiny", "main"], tmp_path / "theirs" / "models--me--tiny"
    for name, content in toy.repos["me/tiny"][commit].items():
        path = theirs / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (theirs / "refs").mkdir()
    (theirs / "refs" / "main").write_text(commit)
    assert snapshot_download("me/tiny", local_files_only=True)
    toy.status = 503
    assert steerable.load_generator("hf://me/tiny").fingerprint == generator.fingerprint


# ------------------------------------------------------------------ other people's repositories


def test_the_only_file_of_weights_is_taken_with_its_configuration(toy, generator, tmp_path):
    torch.save(generator.network.state_dict(), tmp_path / "netG.pth")
    toy.commit("them/gan", {"sub/netG.pth": (tmp_path / "netG.pth").read_bytes(), "sub/config.json": b"{}", "LICENSE": b"MIT"})
    path = hub.fetch("hf://them/gan")
    assert path.name == "netG.pth" and (path.parent / "config.json").is_file()
    assert steerable.load_generator("hf://them/gan").fingerprint == generator.fingerprint


def test_of_several_files_one_has_to_be_named(toy):
    toy.commit("them/gan", {"a.pth": b"a", "b.pth": b"b"})
    with pytest.raises(
        ValueError, match=r"hf://them/gan holds several files of weights \(a\.pth, b\.pth\): name one, hf://them/gan/a\.pth"
    ):
        hub.fetch("hf://them/gan")
    assert hub.fetch("hf://them/gan/b.pth").read_bytes() == b"b"


def test_safetensors_go_before_the_same_weights_in_a_pickle(toy):
    toy.commit("them/gan", {"model.safetensors": b"s", "pytorch_model.bin": b"p"})
    assert hub.fetch("hf://them/gan").name == "model.safetensors"


def test_a_name_that_leads_out_of_the_cache_is_not_followed(toy, cache):
    toy.commit("them/gan", {"../../out.pth": b"evil", "good.pth": b"good"})
    assert hub.fetch("hf://them/gan").name == "good.pth" and not list(cache.parent.rglob("out.pth"))


REFUSED = {
    "hf://me/nowhere": r"hf://me/nowhere: no such repository, or it is private\. Check the name, or log in",
    "hf://me/there@v9": r"hf://me/there@v9: no such revision\. Give a branch",
    "hf://me/there/generater.pth": r'unknown file in me/there "generater\.pth": did you mean "generator\.pth"',
    "hf://me/gated": r"hf://me/gated is gated: ask for access",
    "hf://me/there": r"holds several files",
}


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_there_is_said_in_one_line(toy, address):
    toy.commit("me/there", {"generator.pth": b"a", "other.pth": b"b"})
    toy.commit("me/gated", {"generator.pth": b"a"})
    toy.gated.add("me/gated")
    with pytest.raises(ValueError, match=REFUSED[address]) as error:
        zoo.load_generator(address)
    assert "\n" not in str(error.value)


def test_an_upload_that_is_not_allowed_is_one_line(toy, generator):
    toy.status = 403
    with pytest.raises(ValueError, match=r"hf://me/tiny: the Hub refuses \(403\)") as error:
        steerable.push_to_hub(generator, "me/tiny", licence="mit")
    assert "\n" not in str(error.value)


def test_an_upload_without_a_network_is_one_line(toy, generator):
    toy.server.shutdown()
    toy.server.server_close()
    with pytest.raises(ValueError, match=r"hf://me/tiny cannot be reached \(.*\): nothing was uploaded"):
        steerable.push_to_hub(generator, "me/tiny", licence="mit")


# ------------------------------------------------------------------ as a user runs it


def test_the_command_line_takes_addresses_and_works_offline_afterwards(toy, generator, project, tmp_path):
    steerable.push_to_hub(generator, "me/tiny", licence="cc0-1.0")
    base = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1", "HF_ENDPOINT": toy.endpoint}
    base |= {"STEERABLE_CACHE": str(tmp_path / "c"), "HF_HUB_CACHE": str(tmp_path / "t"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def steer(line: str, **environment: str):
        code = "from steerable.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *line.split()], env=base | environment, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        return done.returncode, done.stdout, done.stderr

    code, shown, error = steer("doctor hf://me/tiny")
    assert code == 0 and "cc0-1.0" in shown and "tiny is healthy" in shown, error
    code, shown, error = steer("sample --generator hf://me/tiny --seeds 0 --out s", HF_HUB_OFFLINE="1")
    assert code == 0 and (tmp_path / "s" / "seed-000000.png").exists() and "using the copy in the cache" in error
    code, shown, error = steer("sample --generator hf://me/other --seeds 0 --out s", HF_HUB_OFFLINE="1")
    assert code == 2 and error.count("\n") == 1 and "no copy of it is in" in error
