"""The doctor finds what is wrong with a generator that is wrong, says what a module lacks, and finds nothing where all is well."""

import json
import re
from dataclasses import dataclass, replace

import pytest
import torch
from generators.parity import cases, load
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from toys import layered_generator, linear_generator

from steerable import doctor, provenance, recipe, store, zoo
from steerable.cli import execute
from steerable.generators import processor
from steerable.generators.dcgan import from_state_dict
from steerable.generators.exported import load_exported
from steerable.generators.families import from_tensors
from steerable.generators.module import wrap
from steerable.protocols import Latents


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "REPEATED", 0.01)


@pytest.fixture(scope="module")
def tiny():
    rng = torch.Generator().manual_seed(0)
    state = {"main.0.weight": torch.randn(6, 4, 4, 4, generator=rng), "main.2.weight": torch.randn(4, 3, 4, 4, generator=rng) / 4}
    return from_state_dict(state, name="tiny")


def outcome(report, name):
    return next(check for check in report.checks if check.name == name)


def failed(report):
    return [check.name for check in report.checks if check.ok is False]


# ------------------------------------------------------------------ healthy ones


@pytest.mark.parametrize("make", [linear_generator, layered_generator, lambda: layered_generator(3)], ids=["linear", "layered", "classes"])
def test_nothing_is_found_where_all_is_well(make):
    report = doctor.examine(make())
    assert report.healthy and not failed(report), report.checks
    assert report.fingerprint == make().fingerprint and set(report.spaces) == set(make().spaces)


def test_the_report_says_what_it_is(tiny):
    facts = dict(doctor.examine(tiny, stated={"licence": "mit", "layout": "DCGAN"}).facts())
    assert facts["family"] == "dcgan" and facts["images"] == "3 x 8 x 8" and facts["classes"] == "none" and facts["licence"] == "mit"
    assert facts["space z"] == "(6,), the one to steer in" and facts["source"] == "not stated" and facts["layout"] == "DCGAN"
    assert facts["fingerprint"] == tiny.fingerprint[:16]


def test_spaces_are_told_with_their_layers_and_parts():
    facts = dict(doctor.examine(layered_generator()).facts())
    assert facts["space z"] == "(4,); 1 sphere (z)" and facts["space w"] == "(4,), the one to steer in; 2 parts (left, right)"
    assert facts["space w+"].startswith("(3, 4); 3 layers (layer0, layer1") and facts["options"] == "gain=1.0"


def test_gradients_are_checked_from_every_space():
    assert re.search(r"z \S+, w \S+, w\+ \S+, s \S+ \(relative\)", outcome(doctor.examine(layered_generator()), "gradients").measured)


def test_the_value_range_is_that_of_sixteen_images():
    generator = linear_generator(scale=2.0)
    report = doctor.examine(generator)
    images = torch.cat([generator(generator.sample(1, seed=seed)) for seed in range(16)])
    assert report.values == pytest.approx((float(images.min()), float(images.max())))
    assert report.outside == pytest.approx(float((images.abs() > 1).float().mean())) and report.outside > 0.1
    assert torch.allclose(report.images, images, atol=1e-5)


# ------------------------------------------------------------------ sick ones


@dataclass(frozen=True)
class Sick:
    """A generator with one of its methods replaced."""

    well: object
    classes: int | None = None
    draw: object = None
    paint: object = None

    @property
    def spaces(self):
        return self.well.spaces

    @property
    def image_shape(self):
        return self.well.image_shape

    @property
    def fingerprint(self):
        return self.well.fingerprint

    def sample(self, n, *, seed, space="z", labels=None, psi=1.0):
        found = self.well.sample(n, seed=seed, space=space, labels=labels, psi=psi)
        return found if self.draw is None else self.draw(found, seed, psi)

    def to_space(self, latents, name):
        return self.well.to_space(latents, name)

    def __call__(self, latents):
        images = self.well(latents)
        return images if self.paint is None else self.paint(images, latents)


counter = iter(range(10**9))
noise = torch.Generator().manual_seed(0)

SICK = {
    "sampling": {"draw": lambda latents, seed, psi: latents.at(latents.values + next(counter))},
    "sampling ": {"draw": lambda latents, seed, psi: latents.at(latents.values * (1 + 0.1 * len(latents)))},
    "sampling  ": {"draw": lambda latents, seed, psi: latents.at(torch.ones_like(latents.values))},
    "one latent, one image": {"paint": lambda images, latents: images + 0.1 * torch.randn(images.shape, generator=noise)},
    "rows of a batch": {"paint": lambda images, latents: images - images.mean(0) + 0.5 * images},
    "gradients": {"paint": lambda images, latents: (images * 20).round() / 20},
    "gradients ": {"paint": lambda images, latents: images.detach()},
    "gradients  ": {"paint": lambda images, latents: images + (latents.values[:, :1, None, None] * 0).abs().sqrt()},
    "truncation": {"draw": lambda latents, seed, psi: latents.at(latents.values / psi if psi else latents.values)},
    "images": {"paint": lambda images, latents: images / 4 + 0.5 + 2},
    "images ": {"paint": lambda images, latents: torch.full_like(images, float("nan"))},
    "images  ": {"paint": lambda images, latents: images[:, :, :2]},
    "images   ": {"paint": lambda images, latents: images[0]},
}


@pytest.mark.parametrize("name", SICK)
def test_each_illness_is_found_by_its_check(name):
    report = doctor.examine(Sick(linear_generator(), **SICK[name]))
    assert not report.healthy and name.strip() in failed(report), report.checks


def test_a_batch_of_statistics_is_named():
    report = doctor.examine(Sick(linear_generator(), **SICK["rows of a batch"]))
    assert "statistics of the batch are in use" in outcome(report, "rows of a batch").measured


def test_images_between_0_and_1_are_told_how_to_be_wrapped():
    report = doctor.examine(Sick(linear_generator(scale=0.02), paint=lambda images, latents: images + 0.5))
    assert failed(report) == ["images"] and "value_range=(0, 1)" in outcome(report, "images").measured


def test_what_it_raises_is_a_finding_and_the_other_checks_go_on():
    def broken(images, latents):
        if len(latents) > 1:
            raise RuntimeError("only one image at a time\nand more")
        return images

    report = doctor.examine(Sick(linear_generator(), paint=broken))
    assert outcome(report, "rows of a batch").measured == "RuntimeError: only one image at a time"
    assert outcome(report, "one latent, one image").ok


def test_a_generator_without_a_mean_latent_is_not_ill():
    generator = layered_generator()
    sphere = replace(generator, stages={"z": replace(generator.stages["z"], step=lambda z, y: z[:, :3, None, None].expand(-1, 3, 2, 2))})
    only_z = replace(sphere, spaces={"z": generator.spaces["z"]})
    report = doctor.examine(only_z)
    assert outcome(report, "truncation").ok is None and "no mean latent" in outcome(report, "truncation").measured
    assert report.healthy, report.checks


def test_a_slow_batch_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 0.0)
    assert "batch 8 not measured, it would take about" in outcome(doctor.examine(linear_generator()), "speed").measured


# ------------------------------------------------------------------ no generators


def test_of_a_module_it_says_what_is_missing_and_what_to_write():
    report = doctor.examine(nn.Sequential(nn.Linear(100, 48), nn.Unflatten(1, (3, 4, 4))))
    assert report.missing == ("spaces", "sample", "to_space", "__call__", "image_shape", "fingerprint")
    assert report.advice.startswith("steerable.wrap(module, latent_size=100)") and not report.healthy and not report.checks
    assert dict(report.facts())["missing"].startswith("spaces, sample, to_space, __call__")


def test_what_the_advice_says_works():
    module = nn.Sequential(nn.Linear(5, 48), nn.Unflatten(1, (3, 4, 4)))
    assert "latent_size=5" in doctor.examine(module).advice
    assert doctor.examine(wrap(module, latent_size=5)).healthy


def test_the_latent_of_a_convolutional_module_is_guessed_with_its_dimensions():
    assert "latent_size=(7, 1, 1)" in doctor.examine(nn.ConvTranspose2d(7, 3, 4)).advice


def test_only_the_methods_that_lack_are_missing():
    class Half:
        spaces, image_shape, fingerprint = {}, (3, 4, 4), "f"

        def __call__(self, latents: Latents):
            return latents.values

    report = doctor.examine(Half())
    assert report.missing == ("sample", "to_space") and "sample, to_space" in report.advice


@pytest.mark.parametrize("thing", [None, 3, "faces64", nn.Linear, {"G": 1}])
def test_anything_at_all_gets_a_report(thing):
    report = doctor.examine(thing)
    assert report.missing and report.advice and not report.healthy and report.facts()


# ------------------------------------------------------------------ what files state


def test_a_shipped_generator_states_licence_and_source():
    assert provenance.stated("faces64") == {"licence": zoo.entries()["faces64"].licence, "source": "PyPI gan-face-generate 1.1.1"}


def test_licences_are_read_from_the_description_a_json_and_a_card(tiny, tmp_path):
    path = store.save_generator(tiny, tmp_path / "tiny.safetensors")
    assert "licence" not in provenance.stated(path)
    (tmp_path / "README.md").write_text('---\nlibrary_name: steerable\nlicense: "cc0-1.0"\n---\n# Tiny\n', encoding="utf-8")
    assert provenance.stated(path)["licence"] == "cc0-1.0"
    (tmp_path / "config.json").write_text(json.dumps({"license": "apache-2.0"}), encoding="utf-8")
    assert provenance.stated(path)["licence"] == "apache-2.0"
    save_file(tiny.network.state_dict(), path, metadata={"license": "mit"})
    assert provenance.stated(path)["licence"] == "mit"


def test_a_layout_is_known_from_an_import(tiny, tmp_path):
    torch.save({f"module.{key}": value for key, value in tiny.network.state_dict().items()}, tmp_path / "netG.pth")
    assert provenance.stated(tmp_path / "netG.pth")["layout"] == "DCGAN"
    store.import_generator(tmp_path / "netG.pth", tmp_path / "out.safetensors")
    assert provenance.stated(tmp_path / "out.safetensors")["layout"] == "DCGAN"


@pytest.mark.parametrize("name", ["nowhere.safetensors", "noname"])
def test_nothing_is_stated_where_nothing_is(name):
    assert provenance.stated(name) == {}


# ------------------------------------------------------------------ the verb


def test_the_verb_shows_both_tables_and_writes_the_sheet(tiny, tmp_path, capsys):
    path = store.save_generator(tiny, tmp_path / "tiny.safetensors")
    assert execute(["doctor", str(path), "--out", str(tmp_path / "sheet.png")]) == 0
    shown = capsys.readouterr().out
    assert "tiny is healthy" in shown and "licence      not stated" in shown and "rows of a batch" in shown
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 8 * 8
    inside = recipe.read(tmp_path / "sheet.png")
    assert inside.seeds == tuple(range(16)) and inside.fingerprint == tiny.fingerprint
    before = (tmp_path / "sheet.png").read_bytes()
    assert execute(["apply", "--recipe", str(tmp_path / "sheet.png"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "sheet.png").read_bytes() == before


def test_a_failed_check_is_exit_code_1(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "load_generator", lambda *a, **k: Sick(linear_generator(), **SICK["gradients"]))
    assert execute(["doctor", "faces64"]) == 1
    assert "toy failed: gradients" in capsys.readouterr().out


def scripted(path, *layers):
    torch.jit.script(nn.Sequential(*layers)).save(path)
    return path


def test_a_program_that_keeps_its_latents_to_itself_is_told_what_is_missing(tmp_path, capsys):
    path = scripted(tmp_path / "mine.pt", nn.Linear(8, 48), nn.Unflatten(1, (3, 4, 4)), nn.Tanh())
    assert execute(["doctor", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "spaces, sample, to_space, __call__, image_shape, fingerprint" in shown and "mine is no generator yet" in shown
    assert "load_exported('mine.pt', latent_size=...)" in shown
    assert "latent_size=8" in doctor.examine(torch.jit.script(nn.Sequential(nn.Linear(8, 48)))).advice
    assert doctor.examine(load_exported(path, latent_size=8)).healthy


def test_weights_without_a_known_network_are_told_what_their_module_lacks(tmp_path, capsys):
    torch.save({"mine.weight": torch.zeros(3, 3)}, tmp_path / "mine.pt")
    assert execute(["doctor", str(tmp_path / "mine.pt")]) == 1
    shown = capsys.readouterr().out
    assert "spaces, sample, to_space, __call__" in shown and "steerable.wrap(module, ...)" in shown and "mine.weight" in shown


def test_where_bfloat16_is_float32_the_report_says_so(monkeypatch):
    made = layered_generator()
    generator = replace(made, options={**made.options, "precision": "float32"})
    for has, told in ((False, True), (True, False)):
        monkeypatch.setattr(processor, "half", lambda device, has=has: has)
        assert ("precision=bfloat16 is float32 here" in outcome(doctor.examine(generator), "speed").measured) == told
    assert "bfloat16" not in outcome(doctor.examine(linear_generator()), "speed").measured


def test_a_program_that_is_broken_is_bad_input(tmp_path, capsys):
    path = scripted(tmp_path / "mine.pt", nn.Linear(8, 48))
    path.write_bytes(path.read_bytes()[:-200])
    assert execute(["doctor", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", cases("stylegan2-ada"))
def test_a_style_based_generator_is_healthy_in_all_its_spaces(name):
    case = load(name)
    report = doctor.examine(from_tensors(case.state, case.facts["constructor"], name=name))
    assert report.healthy, report.checks
    assert list(report.spaces) == ["z", "w", "w+", "s"] and report.family == "stylegan2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("doctor nowhere.pt", "does not exist"),
        ("doctor faces46", 'did you mean "faces64"'),
        ("doctor faces64 --out sheet.jpg", "a contact sheet is written as .png"),
        ("doctor hf://one", "is no address on the Hub"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line(line, message, capsys):
    assert execute(line.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("name", cases("stylegan2-ada"))
def test_options_are_in_force_and_in_the_sheet(name, tmp_path, capsys):
    case = load(name)
    path = store.save_generator(from_tensors(case.state, case.facts["constructor"], name=name), tmp_path / "g.safetensors")
    assert execute(["doctor", str(path), "--with", "noise=none", "--out", str(tmp_path / "sheet.png")]) == 0
    assert "noise=none" in capsys.readouterr().out
    assert recipe.read(tmp_path / "sheet.png").options == {"noise": "none"}


def test_large_images_are_shown_small(tmp_path, monkeypatch, capsys):
    big = linear_generator(2, (1, 512, 512))
    monkeypatch.setattr(zoo, "load_generator", lambda *a, **k: big)
    assert execute(["doctor", "--out", str(tmp_path / "sheet.png")]) == 0, capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width < 8 * 300
