"""A Hub on a thread of its own: the few endpoints that fetching and uploading need, and the ways in which networks fail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REFUSAL = {"repo": "RepoNotFound", "revision": "RevisionNotFound", "entry": "EntryNotFound", "gated": "GatedRepo"}


@dataclass
class ToyHub:
    """Repositories as {name: {commit: {file: bytes}}} with branches, and switches for what goes wrong.

    Attributes:
        stop_after: bytes of a file that are sent before the line is cut, once.
        down: whether the Hub is gone after that.
        ranges: whether it heeds a Range.
        status: what every request is answered with, where it is not None.
        lies: what is sent instead of a file's content.
        gated: repositories that ask for access.
        log: (method, path, Range header) of every request.
    """

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    heads: dict[tuple[str, str], str] = field(default_factory=dict)
    stop_after: int | None = None
    status: int | None = None
    lies: dict[str, bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    down: bool = True
    ranges: bool = True
    private: dict[str, bool] = field(default_factory=dict)

    def __enter__(self) -> ToyHub:
        hub = self

        class Bound(Answers):
            toy = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def commit(self, repo: str, content: dict[str, bytes], branch: str = "main") -> str:
        """Files on top of a branch; their commit."""
        before = self.repos.setdefault(repo, {}).get(self.heads.get((repo, branch), ""), {})
        after = {**before, **content}
        name = hashlib.sha1(repr([repo, branch, len(self.repos[repo]), sorted(after)]).encode()).hexdigest()
        self.repos[repo][name] = after
        self.heads[repo, branch] = name
        return name

    def requests(self, part: str) -> list[tuple[str, str, str | None]]:
        return [one for one in self.log if part in one[1]]


class Answers(BaseHTTPRequestHandler):
    toy: ToyHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.get(body=False)

    def do_GET(self) -> None:
        self.get(body=True)

    def noted(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.toy.log.append((self.command, path, self.headers.get("Range")))
        return path

    def get(self, *, body: bool) -> None:
        path = self.noted()
        if self.toy.status is not None:
            return self.answer(self.toy.status, b"{}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.listing(match[1], match[2] or "main")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(match[1], match[2], match[3], body=body)
        return self.answer(404, b"{}")

    def resolved(self, repo: str, revision: str) -> str | None:
        if repo in self.toy.gated:
            self.refuse("gated", 403)
            return None
        if repo not in self.toy.repos:
            self.refuse("repo", 401)
            return None
        commit = self.toy.heads.get((repo, revision), revision)
        if commit not in self.toy.repos[repo]:
            self.refuse("revision", 404)
            return None
        return commit

    def listing(self, repo: str, revision: str) -> None:
        if (commit := self.resolved(repo, revision)) is None:
            return
        siblings = []
        for name, content in self.toy.repos[repo][commit].items():
            one = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
            if name.endswith((".safetensors", ".pth", ".bin")):
                one["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(one)
        self.answer(200, json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode())

    def file(self, repo: str, revision: str, name: str, *, body: bool) -> None:
        if (commit := self.resolved(repo, revision)) is None:
            return
        content = self.toy.repos[repo][commit].get(name)
        if content is None:
            return self.refuse("entry", 404)
        etag = hashlib.sha256(content).hexdigest()
        content = self.toy.lies.get(name, content)
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-(?:\d*)", self.headers.get("Range") or "") if self.toy.ranges else None:
            start = int(asked[1])
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        if self.toy.stop_after is not None and len(content) > self.toy.stop_after:
            self.wfile.write(content[start : start + self.toy.stop_after])
            self.toy.stop_after, self.toy.status = None, 503 if self.toy.down else None
        else:
            self.wfile.write(content[start:])

    def do_POST(self) -> None:
        path = self.noted()
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.toy.status is not None:
            return self.answer(self.toy.status, b"{}")
        if path == "/api/validate-yaml":
            return self.answer(200, b'{"errors": [], "warnings": []}')
        if path == "/api/repos/create":
            asked = json.loads(sent)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in self.toy.repos:
                return self.answer(409, json.dumps({"url": f"{self.toy.endpoint}/{repo}", "error": "exists"}).encode())
            self.toy.private[repo] = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.toy.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
            return self.answer(200, json.dumps({"url": f"{self.toy.endpoint}/{repo}"}).encode())
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/(.+)", path):
            return self.preupload(sent) if match[2] == "preupload" else self.take(match[1], match[3], sent)
        return self.answer(404, b"{}")

    def preupload(self, sent: bytes) -> None:
        files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for one in json.loads(sent)["files"]]
        self.answer(200, json.dumps({"files": files}).encode())

    def take(self, repo: str, branch: str, sent: bytes) -> None:
        """A commit in lines of JSON, files in base64."""
        lines = [json.loads(line) for line in sent.splitlines()]
        content = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"}
        name = self.toy.commit(repo, content, branch)
        self.answer(200, json.dumps({"commitUrl": f"{self.toy.endpoint}/{repo}/commit/{name}", "commitOid": name}).encode())

    def refuse(self, why: str, status: int) -> None:
        self.answer(status, b'{"error": "no"}', {"X-Error-Code": REFUSAL[why], "X-Error-Message": "no"})

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
