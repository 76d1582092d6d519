"""What files state about a generator, and nothing that they do not: its licence, where it comes from, who wrote files like this."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from steerable import files, importing, zoo


def stated(name: str | os.PathLike[str]) -> dict[str, str]:
    """What a file, or the files beside it, state about a generator: "layout", "source", "licence"; only what was found.

    Looked for in the zoo's manifest, in the description inside safetensors, in what an import of the file tells, in the file's own
    JSON and ``config.json``, and in the header of a model card (``README.md``) beside it.
    """
    text = os.fspath(name)
    if text in zoo.entries():
        entry = zoo.entries()[text]
        return {"licence": entry.licence, "source": f"{entry.registry} {entry.package} {entry.version}"}
    path = Path(text)
    if not path.exists():
        return {}
    folder = path if path.is_dir() else path.parent
    found: dict[str, str] = {}
    for place in (_inside(path), _json(path.with_suffix(".json")), _json(folder / "config.json"), _card(folder / "README.md")):
        origin: Any = place.get("origin")
        origin = origin if isinstance(origin, dict) else {}
        for key, names in {"licence": ("licence", "license"), "layout": ("layout",), "source": ("source",)}.items():
            told = [one[name] for one in (place, origin) for name in names if isinstance(one.get(name), str) and one[name].strip()]
            if told and key not in found:
                found[key] = " ".join(told[0].split())
    return found


def _inside(path: Path) -> dict[str, Any]:
    """The description in a file of ours; of anybody else's, what importing it tells."""
    described, metadata = {}, {}
    try:
        if path.is_file() and files.sniff(path) == "a safetensors file":
            with safe_open(path, "pt") as file:
                metadata = dict(file.metadata() or {})
            described = json.loads(metadata.get("steerable", "{}"))
        if not described:
            described = {"origin": dict(importing.imported(path).origin)}
    except (SafetensorError, ValueError, OSError):
        return metadata
    return {**metadata, **described} if isinstance(described, dict) else metadata


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _card(path: Path) -> dict[str, Any]:
    """Plain ``key: value`` lines of a model card's YAML header."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    header = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    return dict(re.findall(r"^(\w+): *[\"']?(.+?)[\"']?$", header[1], re.MULTILINE)) if header else {}
