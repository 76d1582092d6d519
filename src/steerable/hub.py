"""Files on the Hugging Face Hub by address, ``hf://owner/repo``: fetched once, checked, and still there when the network is not.

    hf://owner/repo                    what its steerable.json names, or its only file of weights
    hf://owner/repo@revision           a branch, tag or commit
    hf://owner/repo/file.safetensors   one file of several

A download goes to a ``.part`` file that is named after the content's checksum, so that an interrupted one goes on where it stopped,
and gets its own name when the checksum agrees. What has a name in the cache is therefore whole. The endpoint, the token and
offline mode are huggingface_hub's (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE). ``cards`` has the way up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from steerable import checks, files, importing, progress

logger = logging.getLogger(__name__)

MANIFEST = "steerable.json"  # in a repository of ours: kind, file, sha256, fingerprint, licence
CARD = "README.md"
COMPANIONS = (MANIFEST, CARD, "config.json", "generator_config.json", "args.json")  # small ones that say more about the weights
WEIGHTS = (".safetensors", ".pkl", ".pt", ".pth", ".bin")
SMALL = 2**20  # bytes of a companion, at most
TIMEOUT = 10.0  # seconds to wait for an answer of the Hub, or for more of one
ATTEMPTS, PAUSE = 3, 1.0  # at one file in one call, and seconds between them
BLOCK = 2**14  # bytes that are written at a time, and lost at most where the line breaks
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>\w[\w.-]*))?(/(?P<file>.+))?")


@dataclass(frozen=True)
class Address:
    """A repository, a revision of it, and a file in it or None for the one that it is about."""

    repo: str
    revision: str = "main"
    file: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repo}{'' if self.revision == 'main' else f'@{self.revision}'}{f'/{self.file}' if self.file else ''}"


@dataclass(frozen=True)
class Remote:
    """A file of a repository: ``digest`` is its SHA-256 where the Hub keeps large files by it, its git id otherwise."""

    name: str
    size: int | None
    digest: str


class Unreachable(Exception):
    """The Hub gave no answer: no network, offline mode, or it is down."""


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether a name leads to the Hub; a ``Path`` made of an address still does, though it has lost a slash."""
    return os.fspath(name).startswith("hf:/")


def parse(name: str | os.PathLike[str]) -> Address:
    """The parts of an address.

    Raises:
        ValueError: it is none.
    """
    match = _ADDRESS.fullmatch(os.fspath(name).rstrip("/"))
    if not match or ".." in PurePosixPath(match["file"] or "").parts:
        raise ValueError(f'"{name}" is no address on the Hub: write hf://owner/repo, hf://owner/repo@revision or hf://owner/repo/file.')
    return Address(match["repo"], match["revision"] or "main", match["file"])


def fetch(
    name: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Path:
    """The file behind an address, in the cache. The files that say more about it (configuration, card) lie beside it.

    Without a network the copy that was fetched last is used, and the log says so.

    Args:
        cache: another folder than "hub" in ``importing.cache_folder()``.
        endpoint, token: others than huggingface_hub's own.

    Raises:
        ValueError: no address, no such repository, revision or file, several files to choose from, a checksum that does not agree,
            a download that stopped, or no network and nothing in the cache.
    """
    where, root = parse(name), Path(cache) if cache is not None else importing.cache_folder() / "hub"
    folder = root / where.repo.replace("/", "--")
    try:
        return _online(where, folder, endpoint, token)
    except Unreachable as reason:
        path = _cached(where, folder)
        if path is None:
            raise ValueError(
                f"{where} cannot be reached ({reason}), and no copy of it is in {folder}: fetch it once where there is a network."
            ) from None
        logger.warning("%s cannot be reached (%s): using the copy in the cache, %s.", where, reason, path)
        return path


def _online(where: Address, folder: Path, endpoint: str | None, token: str | None) -> Path:
    from filelock import FileLock

    commit, there = _listing(where, endpoint, token)
    place = folder / commit

    def bring(remote: Remote, expected: str | None = None) -> Path:
        return _download(where, remote, commit, place / remote.name, expected, endpoint, token)

    place.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / ".lock")):  # a second process waits and finds the file
        manifest = _manifest(bring(there[MANIFEST]).parent) if MANIFEST in there else {}
        chosen = _chosen(where, manifest, there)
        for one in (str(parent / name) for parent in PurePosixPath(chosen).parents for name in COMPANIONS):
            if one in there and (there[one].size or 0) <= SMALL:
                bring(there[one])
        path = bring(there[chosen], str(manifest.get("sha256")) if manifest.get("file") == chosen else None)
        files.write_text(folder / "refs" / where.revision.replace("/", "--"), commit)
    return path


def _cached(where: Address, folder: Path) -> Path | None:
    """What the cache has for an address, ours or huggingface_hub's own."""
    ref = folder / "refs" / where.revision.replace("/", "--")
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else where.revision
    places = [path for path in folder.glob(f"{commit}*") if path.is_dir() and len(commit) >= 7]
    places += [] if (theirs := _their_copy(where)) is None else [theirs]
    for place in places:
        names = [str(path.relative_to(place).as_posix()) for path in place.rglob("*") if path.is_file() and path.suffix != ".part"]
        try:
            return place / _chosen(where, _manifest(place), names)
        except ValueError:
            continue
    return None


def _their_copy(where: Address) -> Path | None:
    """The folder of a snapshot that another program fetched with huggingface_hub."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(where.repo, revision=where.revision, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None


def _chosen(where: Address, manifest: dict[str, Any], names: Iterable[str]) -> str:
    """The file that an address means."""
    names = list(names)
    if where.file is not None:
        if where.file not in names:
            checks.known(where.file, [name for name in names if not name.startswith(".")], f"file in {where.repo}")
        return where.file
    if manifest.get("file") in names:
        return manifest["file"]
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if len(weights) > 1:
        weights = [name for name in weights if name.endswith(".safetensors")] or weights
    if len(weights) != 1:
        held = ", ".join((weights or names)[:6]) or "nothing"
        what = "several files of weights" if weights else "no file of weights"
        raise ValueError(f"{where} holds {what} ({held}): name one, hf://{where.repo}/{weights[0] if weights else 'FILE'}.")
    return weights[0]


def _manifest(place: Path) -> dict[str, Any]:
    try:
        content = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _listing(where: Address, endpoint: str | None, token: str | None) -> tuple[str, dict[str, Remote]]:
    """The commit behind a revision, and its files."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="steerable")
    info = answered(where, lambda: api.model_info(where.repo, revision=where.revision, files_metadata=True, timeout=TIMEOUT))
    found = {}
    for one in info.siblings or ():
        digest = one.lfs.sha256 if one.lfs is not None else one.blob_id
        if digest and ".." not in PurePosixPath(one.rfilename).parts and not one.rfilename.startswith("/"):
            found[one.rfilename] = Remote(one.rfilename, one.size, digest)
    if not info.sha or not re.fullmatch(r"[0-9a-f]{7,64}", info.sha):
        raise ValueError(f"{where}: the answer names no commit. Is HF_ENDPOINT a Hub?")
    return info.sha, found


def answered(where: Address | str, ask: Callable[[], Any]) -> Any:
    """What the Hub answers, its refusals as one line.

    Raises:
        Unreachable: no answer.
        ValueError: no such repository or revision, no right to it, another refusal.
    """
    from huggingface_hub import errors

    try:
        return ask()
    except errors.GatedRepoError:
        raise ValueError(f"{where} is gated: ask for access on its page, then log in with: hf auth login.") from None
    except errors.RepositoryNotFoundError:
        raise ValueError(f"{where}: no such repository, or it is private. Check the name, or log in with: hf auth login.") from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{where}: no such revision. Give a branch, tag or commit after the @.") from None
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", 0)
        if code >= 500 or code == 429:
            raise Unreachable(f"the Hub answers {code}") from None
        raise ValueError(f"{where}: the Hub refuses ({code}): {first_line(error)}") from None
    except errors.HFValidationError as error:
        raise ValueError(f"{where} is no name of a repository: {first_line(error)}") from None
    except (OSError, errors.HTTPError) as error:  # pyright: ignore[reportPrivateImportUsage] - no connection, a timeout
        raise Unreachable(first_line(error)) from None


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")


def _download(where: Address, remote: Remote, commit: str, path: Path, sha256: str | None, endpoint: str | None, token: str | None) -> Path:
    """One file, in full and checked, at ``path``; what came of an interrupted attempt is kept and continued."""
    from huggingface_hub import errors

    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{remote.digest[:16]}.part")
    for left in reversed(range(ATTEMPTS)):
        try:
            _receive(where, remote, commit, part, endpoint, token)
            break
        except (OSError, errors.HTTPError) as error:  # pyright: ignore[reportPrivateImportUsage]
            if left and not isinstance(error, errors.HfHubHTTPError):  # the line broke: the Hub has not refused
                logger.info("%s: %s; going on", remote.name, first_line(error))
                time.sleep(PAUSE)
                continue
            done, of = part.stat().st_size if part.exists() else 0, f" of {remote.size}" if remote.size else ""
            raise ValueError(
                f"{where}: the download of {remote.name} stopped after {done}{of} bytes ({first_line(error)}). "
                "Run it again: it goes on there."
            ) from None
    for expected in (remote.digest, *([] if sha256 is None else [sha256])):
        found = _digest(part, len(expected))
        if found != expected:
            kind = files.sniff(part)
            part.unlink()
            raise ValueError(
                f"checksum mismatch: {remote.name} of {where} is {found[:12]}… ({kind}), expected {expected[:12]}…. "
                "It was removed; fetch it again, and if this stays, the repository is damaged."
            )
    os.replace(part, path)
    return path


def _receive(where: Address, remote: Remote, commit: str, part: Path, endpoint: str | None, token: str | None) -> None:
    """What is missing of a file, appended to ``part`` as it arrives."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    start = part.stat().st_size if part.exists() else 0
    if remote.size is not None and start > remote.size:
        part.unlink()
        start = 0
    if start and start == remote.size:
        return
    headers = {**build_hf_headers(token=token, library_name="steerable"), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    url = hf_hub_url(where.repo, remote.name, revision=commit, endpoint=endpoint)
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
        hf_raise_for_status(response)
        start = start if response.status_code == 206 else 0  # 200: the range was not heeded, and this is all of it
        blocks = math.ceil(((remote.size or 0) - start) / BLOCK)
        with part.open("ab" if start else "wb") as file:
            for block in progress.track(response.iter_bytes(BLOCK), f"fetch {remote.name}", total=blocks):
                file.write(block)
    got = part.stat().st_size
    if remote.size is not None and got < remote.size:
        raise ConnectionError(f"the line was cut after {got} bytes")


def _digest(path: Path, length: int) -> str:
    """SHA-256 of a file; for the 40 letters of a git id, what git would call it."""
    digest = hashlib.sha256() if length == 64 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
