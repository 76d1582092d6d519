"""What a stranger may ask: how large, how many, and with which token. No request names a file, and nothing that is sent is unpickled.

A recipe that comes from outside is one of ``recipe.Recipe``, which pydantic checks, and ``bounded`` here; a file that is sent is looked
at by content and only ever read as PNG, JSON or safetensors. ``Door`` stands before every request and every socket.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote

from steerable import named
from steerable.recipe import Recipe
from steerable.studio.session import Bench

BODY = 4 * 2**20  # bytes of a request, and of a picture that is dropped
UPLOAD = 256 * 2**20  # bytes of a control or a generator that is dropped
SEEDS, DRIVEN = 64, 2  # seeds of one recipe; of one with a trajectory, which costs a thousand times as much
SET = 16  # values that are set in one recipe, each of every seed; a value takes a search
PIXELS = 32 * 2**20  # of one picture
COLUMNS = 16  # of a sweep
KNOBS = 64  # that are held, and labels that are carried, in one recipe
CONTROL = 2**20  # bytes of a control inside a recipe, in base64
VISITS = 64  # open pages
LOCAL = ("127.0.0.1", "localhost", "[::1]", "::1")
COOKIE = "steerable-token"
Scope = dict[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


def bounded(one: Recipe, bench: Bench) -> Recipe:
    """The recipe, if it asks for no more than one request may.

    Raises:
        ValueError: too many seeds, amounts or pixels, or options of the generator, which are the server's to set.
    """
    seeds, columns = len(one.seeds), len(one.sweep.amounts) if one.sweep else len(one.film.keyframes) if one.film else 1
    if seeds > SEEDS:
        raise ValueError(f"one request has at most {SEEDS} seeds, got {seeds}.")
    if columns > COLUMNS:
        raise ValueError(f"a strip has at most {COLUMNS} columns here, got {columns}.")
    if one.drive is not None:
        if seeds * columns > DRIVEN:
            raise ValueError(f"a trajectory takes seconds: at most {DRIVEN} seeds and no sweep in one request.")
        for text in (*one.drive.move, *one.drive.hold):
            _names_no_file(text)
    if one.turn is not None:
        if len(one.turn.values) * seeds > SET:
            raise ValueError(f"at most {SET} values are set in one request, got {len(one.turn.values)} for each of {seeds} seeds.")
        if (size := max(map(len, (one.turn.control, *one.turn.heads)))) > CONTROL:
            raise ValueError(f"the control inside a recipe has at most {CONTROL} characters here, got {size}.")
        if (count := max(len(one.turn.heads), len(one.turn.hold))) > KNOBS:
            raise ValueError(f"at most {KNOBS} features are held or carried here, got {count}.")
    _, height, width = bench.generator.image_shape
    pixels = seeds * columns * max(one.scale, 2) ** 2 * height * width
    if pixels > PIXELS:
        raise ValueError(f"a picture has at most {PIXELS} pixels here, this recipe makes about {pixels}: fewer seeds or a smaller scale.")
    if one.options and dict(one.options) != dict(bench.generator.options):
        raise ValueError(f"options of the generator are set where the studio starts, got {', '.join(list(one.options)[:5])[:80]}.")
    return one.model_copy(update={"options": {}})


def _names_no_file(text: str) -> None:
    """On the command line a mask or a label may be a file; a recipe brings them inside, and one that was sent never names any.

    Raises:
        ValueError: it does.
    """
    for part in named.split(text):
        if part.partition("=")[0].strip().lower().endswith((".png", ".safetensors")):
            raise ValueError("a recipe that is sent names no file: masks and labels travel inside it, as steer apply writes them.")


class Door:
    """Before the application: who may come in, and with how much.

    Without a token only requests to this very machine are answered (the Host header, so that no other site's page can reach it through
    the visitor's browser). With one, it is given once in the address, ``?token=...``, kept in a cookie from then on and taken out of the
    address; a program sends it as ``Authorization: Bearer ...``.
    """

    def __init__(self, app: Application, *, token: str | None = None, hosts: Iterable[str] = LOCAL) -> None:
        self.app, self.token, self.hosts = app, token, set(hosts)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        if self.token is None and _host(headers.get("host", "")) not in self.hosts:
            return await _refuse(scope, send, 403, "this studio answers to this machine only: open it at http://127.0.0.1.")
        if not self._same_site(headers):
            return await _refuse(scope, send, 403, "this request comes from another site's page.")
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if self.token is not None and not self._known(headers, asked):
            return await _refuse(scope, send, 401, "this studio needs its token: open the address that steer studio printed.")
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)
        if self.token is not None and asked and scope["method"] == "GET":
            return await _settle(scope, send, self.token)
        most = BODY if scope["path"].startswith("/api/") else UPLOAD + BODY
        if (length := headers.get("content-length", "0")).isascii() and length.isdigit() and int(length[:20]) > most:
            return await _refuse(scope, send, 413, f"a request has at most {most} bytes.")
        counted = _Counted(receive, send, most)
        try:
            await self.app(scope, counted.receive, counted.send)
        except Exception:
            if not counted.over:
                raise
        if counted.over and not counted.answered:
            await _refuse(scope, send, 413, f"a request has at most {most} bytes.")

    def _known(self, headers: dict[str, str], asked: str) -> bool:
        assert self.token is not None
        cookie = SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except Exception:
            cookie = SimpleCookie()
        kept = cookie[COOKIE].value if COOKIE in cookie else ""
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        bearer = bearer.strip() if kind.lower() == "bearer" else ""
        fits = [_same(given, self.token) for given in (asked, kept, bearer)]
        return any(fits)

    @staticmethod
    def _same_site(headers: dict[str, str]) -> bool:
        origin = headers.get("origin", "")
        return not origin or origin.partition("://")[2] == headers.get("host", "")


def new_token() -> str:
    return secrets.token_urlsafe(24)


def _same(one: str, two: str) -> bool:
    """Compared in constant time."""
    return secrets.compare_digest(hashlib.sha256(one.encode()).digest(), hashlib.sha256(two.encode()).digest())


def _host(host: str) -> str:
    """``127.0.0.1`` of ``127.0.0.1:8080``, ``[::1]`` of ``[::1]:8080``."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


class _Counted:
    """Receives no more than so many bytes: more is as if the sender had gone, and what the application says to that is not sent.

    What is sent says besides that nobody may frame the page, guess at the type of a file, or learn the address.
    """

    def __init__(self, receive: Any, send: Any, most: int) -> None:
        self._receive, self._send, self.left = receive, send, most
        self.over = self.answered = False

    async def receive(self) -> Any:
        message = await self._receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            self.over = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: dict[str, Any]) -> None:
        if self.over and not self.answered:
            return
        if message["type"] == "http.response.start":
            self.answered = True
            message = {**message, "headers": [*message.get("headers", ()), *GUARDS]}
        await self._send(message)


GUARDS = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


async def _settle(scope: Scope, send: Any, token: str) -> None:
    """The token goes from the address into a cookie."""
    rest = [pair for pair in scope["query_string"].split(b"&") if pair and not pair.startswith(b"token=")]
    place = quote(scope["path"]).encode() + (b"?" + b"&".join(rest) if rest else b"")
    place = b"/" + place.lstrip(b"/")  # two strokes would be the address of another machine
    cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/".encode()
    headers = [(b"location", place), (b"set-cookie", cookie), (b"content-length", b"0"), *GUARDS]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, send: Any, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": words[:100]})
        return
    asked = scope["path"].startswith("/api/")  # by a program
    body = json.dumps({"detail": words}).encode() if asked else words.encode()
    headers = [
        (b"content-type", b"application/json" if asked else b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *GUARDS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
