"""The operations over HTTP: the bytes of the library, and one line for whatever cannot be followed."""

from __future__ import annotations

import base64
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from steerable import drawing, recipe, render
from steerable.controls.chain import Chain
from steerable.studio import session
from steerable.studio.session import State

JSON, RDF = {"content-type": "application/json"}, "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
TURNED = State(seed=3, amounts={"brightness": 0.5, "dance": -0.25}, locks=("red",))


def body(bench, state=TURNED, **more):
    one = session.recipe_of(state, bench)
    return {**json.loads(one.model_dump_json(exclude_defaults=True)), **more}


def test_the_picture_has_the_bytes_that_the_library_draws(client, bench):
    asked = body(bench)
    answer = client.post("/api/render", json=asked)
    one = recipe.parse(json.dumps(asked), what="this test")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert answer.content == render.png(drawing.draw(one, bench.generator), recipe=one.model_dump_json(exclude_defaults=True))


def test_the_picture_shows_what_the_page_shows(client, bench):
    answer = client.post("/api/render", json=body(bench))
    shown = session.pixels(session.latents(TURNED, bench), bench)[0]
    assert (np.array(Image.open(io.BytesIO(answer.content))) == shown).all()


def test_the_picture_carries_the_recipe_that_draws_it_again(client, bench, tmp_path):
    first = client.post("/api/render", json=body(bench)).content
    (tmp_path / "first.png").write_bytes(first)
    carried = recipe.read(tmp_path / "first.png")
    assert client.post("/api/render", content=carried.model_dump_json(), headers=JSON).content == first


def test_the_picture_says_that_a_trained_model_made_it(client, bench):
    picture = Image.open(io.BytesIO(client.post("/api/render", json=body(bench)).content))
    (described,) = ElementTree.fromstring(picture.info["XML:com.adobe.xmp"].split("?>", 1)[1].rsplit("<?", 1)[0]).iter(
        f"{{{RDF}}}Description"
    )
    (kind,) = (value for name, value in described.attrib.items() if name.endswith("}DigitalSourceType"))
    assert kind == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def test_measured_values_are_those_of_the_session(client, bench):
    answer = client.post("/api/measure", json=body(bench, seeds=[3, 4])).json()
    assert [row["seed"] for row in answer["rows"]] == [3, 4] and answer["units"] == bench.columns
    assert answer["rows"][0]["before"] == session.measure(session.start(TURNED, bench), bench)
    assert answer["rows"][0]["after"] == session.measure(session.latents(TURNED, bench), bench)


def test_controls_are_described(client, bench):
    (entry,) = client.get("/api/controls").json()
    assert entry["name"] == "painted" and entry["fingerprint"] == bench.generator.fingerprint and entry["image_shape"] == [3, 8, 8]
    assert [(knob["name"], knob["group"], knob["lockable"]) for knob in entry["knobs"]] == [
        ("brightness", "axes", True),
        ("red", "axes", True),
        ("dance", "axes", False),
    ]


def test_the_studio_says_that_it_is_there(client):
    answer = client.get("/api/health").json()
    assert answer["status"] == "ok" and answer["generators"] == ["painted"]


def test_the_description_names_every_operation_and_what_a_refusal_looks_like(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/api/health", "/api/controls", "/api/render", "/api/measure"}
    assert "image/png" in described["paths"]["/api/render"]["post"]["responses"]["200"]["content"]
    assert described["paths"]["/api/render"]["post"]["responses"]["422"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Refusal"
    }


WRONG = {
    "another generator": ({"fingerprint": "0" * 64}, "no generator here has the fingerprint"),
    "no seeds": ({"seeds": []}, "seeds"),
    "too many seeds": ({"seeds": list(range(65))}, "at most 64 seeds"),
    "too large": ({"seeds": list(range(64)), "scale": 32, "image": 1}, "image"),
    "too many pixels": ({"seeds": list(range(64)), "sweep": {"knob": "dance", "amounts": [0.0] * 16}, "scale": 32}, "pixels"),
    "a negative seed": ({"seeds": [-1]}, "seeds.0"),
    "an unknown field": ({"path": "/etc/passwd"}, "path"),
    "options": ({"options": {"noise": "none"}}, "options of the generator are set where the studio starts"),
    "psi": ({"psi": 3}, "psi"),
    "a class": ({"label": 7}, "classes"),
    "a cutoff": ({"cutoff": 4}, ""),
    "a control that is none": ({"turn": {"control": "AAAA", "amounts": {"dance": 1}}}, "control inside this recipe"),
    "a control that is no base64": ({"turn": {"control": "?", "amounts": {"dance": 1}}}, "not base64"),
    "an offset that is cut": ({"offset": "AAAA"}, "offset"),
    "an offset that is not finite": ({"offset": base64.b64encode(torch.full((6,), torch.nan).numpy().tobytes()).decode()}, "finite"),
    "a box outside": ({"drive": {"box": [0, 0, 90, 90], "amount": 0.1}}, "Box"),
    "a picture on this disk": ({"drive": {"move": ["pixels"], "hold": ["low:4, inside:/etc/mask.PNG=2"], "amount": 1}}, "names no file"),
    "a label on this disk": ({"drive": {"move": ["/srv/beard.safetensors"], "hold": ["pixels"], "amount": 1}}, "names no file"),
    "a long film": ({"film": {"keyframes": [{"dance": 0}, {"dance": 1}] * 9}}, "at most 16 columns"),
    "a film of no knob": ({"film": {"keyframes": [{"nothing": 0}, {"nothing": 1}]}}, "nothing"),
    "many trajectories": ({"drive": {"box": [0, 0, 4, 4], "amount": 0.1}, "seeds": [0, 1, 2]}, "a trajectory takes seconds"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("operation", ["render", "measure"])
@pytest.mark.usefixtures("no_annotation_checks")
def test_what_cannot_be_followed_is_refused_in_one_line(client, bench, operation, change, words):
    if operation == "measure" and {"sweep", "film"} & set(change):
        words = "drawn, not measured"
    answer = client.post(f"/api/{operation}", json=body(bench, **change))
    detail = answer.json()["detail"]
    assert answer.status_code == 422 and words in detail and "\n" not in detail and "/" not in detail.replace("steer", "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"seeds": [1e999]}',
        b'{"psi": NaN}',
        b'{"seeds": [' + b"9" * 5000 + b"]}",
        b'{"generator": "\\ud800"}',
        b'{"\\ud800": 1}',
        b"\xff\xfe",
        b'"text"',
    ],
    ids=["empty", "cut", "deep", "infinite", "nan", "digits", "surrogate", "surrogate key", "bytes", "text"],
)
def test_what_is_no_recipe_is_refused(client, content):
    answer = client.post("/api/render", content=content, headers=JSON)
    assert answer.status_code in (400, 422) and isinstance(answer.json()["detail"], str)


def test_what_is_sent_as_a_form_is_told_how_to_be_sent(client):
    answer = client.post("/api/render", content="{}", headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 422 and "content-type: application/json" in answer.json()["detail"]


def test_a_name_in_a_recipe_is_never_opened(client, bench, tmp_path):
    trap = tmp_path / "trap.safetensors"
    trap.write_bytes(b"nothing")
    answer = client.post("/api/render", json=body(bench, generator=str(trap)))
    assert answer.status_code == 200, "the generator is looked up by fingerprint, whatever it is called"


def test_curved_knobs_are_drawn_too(client, bench):
    straight = bench.straight
    both = Chain((straight[["dance"]], straight[["brightness"]]))
    other = session.Bench(bench.generator, {"both": both}, bench.features, "painted")
    asked = body(other, State(seed=1, amounts={"dance": 0.5, "brightness": 0.1}))
    assert client.post("/api/render", json=asked).status_code == 200
