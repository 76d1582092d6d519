"""Whatever is sent: no answer of 500, and no error but one line. The requests come from the description, the recipes from hypothesis."""

from __future__ import annotations

import base64
import json
import os

import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steerable import recipe
from steerable.controls.chain import Chain
from steerable.studio import limits, links, server, session, sharing
from steerable.studio.session import State

MANY = os.environ.get("STEERABLE_EXAMPLES", "")  # make fuzz: other requests every time
FEW = settings(
    max_examples=int(MANY or 40),
    deadline=None,
    derandomize=not MANY,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
CHECKS = (
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
)


@pytest.fixture(scope="module")
def api(workshop):
    return schemathesis.openapi.from_asgi("/openapi.json", limits.Door(server.requests(workshop), hosts=("testserver", *limits.LOCAL)))


@pytest.mark.parametrize(
    ("path", "method"), [("/api/health", "GET"), ("/api/controls", "GET"), ("/api/render", "POST"), ("/api/measure", "POST")]
)
@pytest.mark.usefixtures("no_annotation_checks")
def test_every_request_of_the_description_is_answered_as_described(api, path, method):
    @FEW
    @given(api[path][method].as_strategy())
    def asked(case):
        case.call_and_validate(checks=CHECKS)

    asked()


# ------------------------------------------------------------------ recipes that look right

finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(finite, st.sampled_from([0.0, -0.0, 1e30, -1e308, 5e-324, 1.0]))
knobs = st.sampled_from(["brightness", "red", "dance", "nothing", ""])


def carried(bench, kind):
    straight = bench.straight
    control = {"straight": straight, "chain": Chain((straight[["dance"]], straight[["red"]]))}[kind]
    return base64.b64encode(recipe.store.control_bytes(control)).decode()


def offset(values):
    return base64.b64encode(torch.tensor(values, dtype=torch.float32).numpy().tobytes()).decode()


@st.composite
def recipes(draw):
    """Recipes of the small generator, most of them sensible."""
    one = {"version": 1, "generator": "painted", "seeds": draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4))}
    maybe = lambda name, strategy: one.update({name: draw(strategy)}) if draw(st.booleans()) else None  # noqa: E731
    maybe("psi", st.floats(0, 2))
    maybe("label", st.integers(-1, 3))
    maybe("cutoff", st.integers(0, 3))
    maybe("scale", st.integers(1, 32))
    maybe("offset", st.lists(st.floats(width=32), min_size=5, max_size=7).map(offset) | st.text(max_size=8))
    maybe("sweep", st.fixed_dictionaries({"knob": knobs, "amounts": st.lists(numbers, min_size=1, max_size=18)}))
    maybe(
        "turn",
        st.fixed_dictionaries(
            {"control": st.sampled_from(["straight", "chain", "AAAA"]), "amounts": st.dictionaries(knobs, numbers, max_size=3)},
            optional={"values": st.dictionaries(knobs, numbers, max_size=1), "hold": st.lists(knobs, max_size=2)},
        ),
    )
    return one


@FEW
@given(recipes(), st.sampled_from(["render", "measure"]))
def test_every_recipe_is_followed_or_refused(bench, client, no_annotation_checks, one, operation):
    if "turn" in one and one["turn"]["control"] != "AAAA":
        one = {**one, "turn": {**one["turn"], "control": carried(bench, one["turn"]["control"])}}
    answer = client.post(f"/api/{operation}", json={**one, "fingerprint": bench.generator.fingerprint})
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert "\n" not in answer.json()["detail"]
    elif operation == "measure":
        assert len(answer.json()["rows"]) == len(one["seeds"])


# ------------------------------------------------------------------ states, recipes and links

states = st.fixed_dictionaries(  # a State is made of it in the test: checked annotations draw random numbers
    {
        "seed": st.integers(0, 2**53),
        "psi": st.floats(0, 2),
        "amounts": st.dictionaries(st.sampled_from(["brightness", "red", "dance"]), st.floats(-4, 4).filter(bool), max_size=3),
        "locks": st.lists(st.sampled_from(["brightness", "red"]), unique=True, max_size=1).map(tuple),
        "offset": st.just("") | st.lists(st.floats(-2, 2, width=32), min_size=6, max_size=6).map(offset),
    }
)


@FEW
@given(states)
def test_a_link_restores_the_very_state(bench, chosen):
    state = State(**chosen)
    found, _ = links.restored(links.link_of(state, bench, bench), bench)
    assert found == state


@FEW
@given(states)
def test_a_recipe_leads_where_the_state_leads(bench, chosen):
    state = State(**chosen)
    one = session.recipe_of(state, bench)
    there, back = session.state_of(recipe.parse(one.model_dump_json(), what="this test"), bench)
    assert torch.equal(recipe.steer(one, bench.generator)[0].values, session.latents(state, bench).values)
    assert torch.equal(session.latents(there, back).values, session.latents(state, bench).values)


@FEW
@given(states, st.data())
def test_a_link_that_was_changed_is_restored_or_refused(bench, no_annotation_checks, chosen, data):
    text = links.link_of(State(**chosen), bench, bench)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.text(max_size=3)) + text[place + data.draw(st.integers(0, 4)) :]
    try:
        found, there = links.restored(changed, bench)
    except ValueError as error:
        refused = str(error)
        assert "\n" not in refused
    else:
        session.latents(found, there)


@FEW
@given(st.text() | st.text("AQab0_-=", min_size=1, max_size=60))
def test_a_link_of_anything_is_refused(bench, text):
    with pytest.raises(ValueError, match="link"):
        links.restored(text, bench)


@FEW
@given(st.binary(max_size=200) | recipes().map(lambda one: json.dumps(one).encode()))
def test_a_file_of_anything_is_refused_in_one_line(bench, no_annotation_checks, content):
    with pytest.raises(ValueError, match=r".") as caught:
        sharing.opened(content, bench)
    assert "\n" not in str(caught.value)
