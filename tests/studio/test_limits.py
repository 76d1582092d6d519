"""The door: who may come in, and with how much."""

from __future__ import annotations

import io
import json
import struct
import zlib

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from steerable import render
from steerable.studio import limits, session, sharing
from steerable.studio.session import State

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """Counts the bytes that it is sent."""
    app = FastAPI()

    @app.get("/")
    async def page() -> str:
        return "page"

    @app.post("/api/count")
    async def count(request: Request) -> int:
        return len(await request.body())

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("come in")

    return app


def visitor(app, base="http://127.0.0.1:8080", **options):
    return TestClient(limits.Door(app, **options), base_url=base, follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "localhost"])
def test_this_machine_is_answered(app, host):
    assert visitor(app, f"http://{host}").get("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "192.168.0.7:8080", "", "[::2]"])
def test_a_name_that_leads_here_is_no_way_in(app, host):
    answer = visitor(app).get("/", headers={"host": host})
    assert answer.status_code == 403 and "this machine only" in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9090", "https://localhost:8080"])
def test_the_page_of_another_site_is_no_way_in(app, origin):
    assert visitor(app).post("/api/count", content=b"x", headers={"origin": origin}).status_code == 403
    with pytest.raises(WebSocketDisconnect), visitor(app).websocket_connect("/socket", headers={"origin": origin}):
        pass


def test_the_page_itself_is_a_way_in(app):
    origin = {"origin": "http://127.0.0.1:8080"}
    assert visitor(app).post("/api/count", content=b"four", headers=origin).json() == 4
    with visitor(app).websocket_connect("/socket", headers={**origin, "host": "127.0.0.1:8080"}) as socket:
        assert socket.receive_text() == "come in"


def test_elsewhere_the_token_is_asked_for(app):
    asked = visitor(app, "http://studio.example", token=TOKEN)
    assert asked.get("/").status_code == 401
    assert asked.get("/?token=wrong").status_code == 401
    assert asked.get("/", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert asked.get("/", headers={"cookie": "steerable-token=wrong; x=\x7f"}).status_code == 401
    assert asked.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    with pytest.raises(WebSocketDisconnect), asked.websocket_connect("/socket"):
        pass


def test_the_token_goes_from_the_address_into_a_cookie(app):
    asked = visitor(app, "http://studio.example", token=TOKEN)
    answer = asked.get(f"/?token={TOKEN}&state=abc")
    assert answer.status_code == 303 and answer.headers["location"] == "/?state=abc"
    assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Lax" in answer.headers["set-cookie"]
    assert asked.get("/").status_code == 200, "the cookie is enough from then on"
    with asked.websocket_connect("/socket", headers={"cookie": f"steerable-token={TOKEN}"}) as socket:
        assert socket.receive_text() == "come in"


def test_no_address_sends_a_visitor_elsewhere(app):
    asked = visitor(app, "http://studio.example", token=TOKEN)
    assert asked.get(f"http://studio.example//evil.example/?token={TOKEN}").headers["location"] == "/evil.example/"


def test_the_page_cannot_be_framed_and_tells_nobody_its_address(app):
    headers = visitor(app).get("/").headers
    assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("stated", [True, False])
def test_a_request_that_is_too_large_is_refused(app, stated):
    large = b"x" * (limits.BODY + 1)
    content = large if stated else (large[i : i + 65536] for i in range(0, len(large), 65536))
    answer = visitor(app).post("/api/count", content=content)
    assert answer.status_code == 413 and "at most" in answer.json()["detail"]


def test_a_file_may_be_larger_than_a_request(app):
    assert visitor(app).post("/upload", content=b"x" * (limits.BODY + 1)).json() == limits.BODY + 1


def test_a_length_that_lies_is_no_way_round(app):
    answer = visitor(app).post("/api/count", content=b"x" * 10, headers={"content-length": "9" * 40})
    assert answer.status_code == 413


# ------------------------------------------------------------------ what is dropped


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int, text: bytes = b"") -> bytes:
    """A PNG that claims to be enormous, or whose text unpacks to 64 MiB."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    if text:
        parts.append(chunk(b"zTXt", b"steerable\0\0" + zlib.compress(text, 9)))
    parts += [chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width)) if width * height < 10_000 else b"")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def dropped(bench, change):
    one = json.loads(session.recipe_of(State(seed=1), bench).model_dump_json(exclude_defaults=True))
    return json.dumps({**one, **change}).encode()


BROKEN = {
    "nothing": lambda _: b"",
    "noise": lambda _: bytes(range(256)) * 20,
    "a pickle": lambda _: b"\x80\x04c__builtin__\neval\n(V1/0\ntR.",
    "a zip bomb": lambda _: b"PK\x03\x04" + bytes(60),
    "a picture without a recipe": lambda _: render.png(Image.new("RGB", (8, 8))),
    "a picture that is cut": lambda bench: render.png(Image.new("RGB", (8, 8)), recipe=dropped(bench, {}).decode())[:-40],
    "an enormous picture": lambda _: bomb(60_000, 60_000),
    "a text that unpacks without end": lambda _: bomb(8, 8, bytes(64 * 2**20)),
    "a recipe of another generator": lambda bench: dropped(bench, {"fingerprint": "ab" * 32}),
    "a recipe with a path": lambda bench: dropped(bench, {"turn": {"control": "/etc/passwd", "amounts": {"a": 1}}}),
    "a recipe of 65 seeds": lambda bench: dropped(bench, {"seeds": list(range(65))}),
    "a deep text": lambda _: b"[" * 100_000,
    "a long text": lambda _: b'{"version": 1, "generator": "' + b"x" * (limits.BODY + 1) + b'"}',
    "tensors that are cut": lambda _: struct.pack("<Q", 2**40) + b"{}",
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_in_one_line(bench, make):
    with pytest.raises(ValueError, match=r".") as caught:
        sharing.opened(make(bench), bench)
    words = str(caught.value)
    assert "\n" not in words and "/tmp" not in words and len(words) < 600


def test_a_picture_that_carries_its_recipe_is_opened(bench):
    state = State(seed=5, amounts={"dance": 0.5})
    image = sharing.image_file(state, bench)
    assert Image.open(io.BytesIO(image)).size == (8, 8)
    _, found, _ = sharing.opened(image, bench)
    assert found == state
