"""Generators and controls for others: a repository on the Hugging Face Hub with a model card that says what is inside.

``push_to_hub`` writes three files and uploads them as one commit: the safetensors file, ``steerable.json`` with its SHA-256 and
fingerprint, which ``hub.fetch`` checks on the way down, and the card.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steerable import hub, store
from steerable.controls.directions import Directions
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Control, Knob

VERSION = 1
KNOBS = 200  # rows of the table of knobs in a card, at most


def push_to_hub(
    thing: ModuleGenerator | Control,
    repo: str,
    *,
    licence: str,
    description: str = "",
    tags: Sequence[str] = (),
    generator: str = "",
    private: bool = False,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a generator or a control, with a card. The repository is made if it is not there.

    Args:
        repo: "owner/name", with or without hf:// before it.
        licence: its short name as the Hub knows it: "apache-2.0", "cc-by-nc-4.0", "other". It has to be said: weights mostly carry
            the licence of the data and code that they came from.
        description: a paragraph for the card: what it was trained or fitted on, what it is not for.
        tags: beside "steerable" and what is known about the thing itself.
        generator: for a control, where its generator is: the address or name that ``load_generator`` takes.
        private: of a repository that is made here.
        revision: the branch to commit to; the main one by default.

    Returns:
        The address of exactly this upload, ``hf://owner/name@commit``.

    Raises:
        TypeError: neither a generator nor a control, or one that no file can rebuild.
        ValueError: a licence or repository that is none, no right to write, no network.
    """
    from huggingface_hub import HfApi

    where = hub.parse(repo if hub.is_address(repo) else f"hf://{repo}")
    if where.file is not None or where.revision != "main":
        raise ValueError(f'a repository is owner/name, got "{repo}". A branch is given by revision=.')
    if not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", licence):
        raise ValueError(f'licence is a short name in small letters such as "apache-2.0", "cc-by-nc-4.0" or "other"; got "{licence}".')
    if not isinstance(thing, ModuleGenerator) and not hasattr(thing, "steer"):
        raise TypeError(f"push_to_hub takes a generator or a control, got a {type(thing).__name__}.")
    api = HfApi(endpoint=endpoint, token=token, library_name="steerable")
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_folder(
            thing, Path(folder), repo=where.repo, licence=licence, description=description, tags=tags, generator=generator
        )

        def upload() -> Any:
            api.create_repo(where.repo, private=private, exist_ok=True)
            return api.upload_folder(
                repo_id=where.repo,
                folder_path=folder,
                revision=revision,
                commit_message=f"Upload {manifest['kind']} {manifest['fingerprint'][:12]} with steerable {manifest['steerable']}",
            )

        try:
            done = hub.answered(where, upload)
        except hub.Unreachable as reason:
            raise ValueError(f"{where} cannot be reached ({reason}): nothing was uploaded.") from None
    return f"hf://{where.repo}@{done.oid}"


def write_folder(
    thing: ModuleGenerator | Control,
    folder: Path,
    *,
    repo: str,
    licence: str,
    description: str = "",
    tags: Sequence[str] = (),
    generator: str = "",
) -> dict[str, Any]:
    """The three files of a repository in a folder; returns what ``steerable.json`` holds."""
    import steerable

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(thing, ModuleGenerator):
        kind, fingerprint, of = "generator", thing.fingerprint, _generator_card(thing)
    else:
        kind, fingerprint, of = "control", thing.space.fingerprint, _control_card(thing, generator)
    path = store.save(thing, folder / f"{kind}.safetensors")
    manifest = {
        "version": VERSION,
        "kind": kind,
        "file": path.name,
        "sha256": store.digest(path.read_bytes()),
        "size": path.stat().st_size,
        "fingerprint": fingerprint,
        "licence": licence,
        "steerable": steerable.__version__,
    }
    (folder / hub.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    header, title, body = of(repo)
    card = _card({"license": licence, "fingerprint": fingerprint, **header}, tags, title, description, body, manifest)
    (folder / hub.CARD).write_text(card, encoding="utf-8")
    return manifest


def _card(
    header: Mapping[str, Any], tags: Sequence[str], title: str, description: str, body: Sequence[str], manifest: Mapping[str, Any]
) -> str:
    """A model card: a YAML header (values as JSON, which YAML reads), and Markdown."""
    every = list(dict.fromkeys(["steerable", *header.get("tags", ()), *tags]))
    fields = {"library_name": "steerable", **header, "tags": every}
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()), "---", "", f"# {title}", ""]
    lines += [description.strip() or "*No description was given.*", "", *body, "", "## The file", ""]
    lines += [
        f"`{manifest['file']}`, {manifest['size']:,} bytes, SHA-256 `{manifest['sha256']}`: tensors and a description in JSON, no code. "
        f"The checksum is verified when it is fetched. Licence: {manifest['licence']}.",
        "",
    ]
    return "\n".join(lines)


def _generator_card(generator: ModuleGenerator):
    spaces = {name: list(space.shape) for name, space in generator.spaces.items()}
    network: Any = generator.network

    def card(repo: str) -> tuple[dict[str, Any], str, list[str]]:
        header = {"pipeline_tag": "unconditional-image-generation", "tags": ["gan", "image-generation", network.family], "spaces": spaces}
        channels, height, width = generator.image_shape
        rows = [
            ("family", network.family),
            ("images", f"{channels} x {height} x {width}, in [-1, 1]"),
            ("classes", str(generator.classes or "none")),
            ("spaces", ", ".join(f"{name} {tuple(shape)}" for name, shape in spaces.items())),
            ("options", ", ".join(generator.options) or "none"),
            ("fingerprint", f"`{generator.fingerprint}`"),
        ]
        use = [
            "```python",
            "import steerable",
            "",
            f'generator = steerable.load_generator("hf://{repo}")',
            "images = generator(generator.sample(4, seed=0))  # (4, c, h, w) in [-1, 1]",
            "```",
        ]
        return header, _plain(generator.name), [*_table(("what", "value"), rows), "", "## Use", "", *use]

    return card


def _control_card(control: Control, generator: str):
    space, fit = control.space, getattr(control, "fit", {})
    names = [knob.name for knob in control.knobs]
    turned = {knob.name: float(f"{(knob.low + knob.high) / 2:.3g}") for knob in control.knobs if knob.neutral is None} or {names[0]: 1.0}
    straight = ["latent-direction"] if isinstance(control, Directions) else []

    def card(repo: str) -> tuple[dict[str, Any], str, list[str]]:
        header = {"tags": ["gan", "latent-control", *straight], "spaces": {space.name: list(space.shape)}, "knobs": names[:KNOBS]}
        rows = [
            (knob.name, knob.unit or "–", f"{knob.low:.3g} to {knob.high:.3g}", _middle(knob), _score(fit, knob.name))
            for knob in control.knobs[:KNOBS]
        ]
        table = _table(("knob", "unit", "range", "population p5, p50, p95", "score"), rows)
        more = [f"… and {len(names) - KNOBS} more.", ""] if len(names) > KNOBS else []
        ranges = "not measured" if fit.get("calibrated") is False and "calibration" not in fit else "measured, usable"
        origin = [
            f"Moves latents in {space.name} {tuple(space.shape)} of the generator {space.generator or 'with the fingerprint'} "
            f"(`{space.fingerprint}`), and of no other: another one is refused.",
            f"Method: {fit.get('method') or 'not stated'}. Ranges: {ranges}.",
        ]
        use = [
            "```python",
            "import steerable",
            "",
            f"generator = steerable.load_generator({json.dumps(generator or 'the generator of this fingerprint', ensure_ascii=False)})",
            f'control = steerable.load_control("hf://{repo}", generator=generator)',
            f"latents = generator.sample(4, seed=0, space={json.dumps(space.name)})",
            f"moved = control.steer(latents, steerable.amounts(control, 4, {json.dumps(turned, ensure_ascii=False)}))",
            "images = generator(moved)",
            "```",
        ]
        return header, f"Controls of {_plain(space.generator) or 'a generator'}", [*origin, "", *table, "", *more, "## Use", "", *use]

    return card


def _middle(knob: Knob) -> str:
    return ", ".join(f"{knob.value_at(rank):.3g}" for rank in (5, 50, 95)) if knob.percentiles else "–"


def _score(fit: Mapping[str, Any], name: str) -> str:
    """How well a knob was fitted, as its method measures it: held-out R2 or AUC of an axis, relative loss of a walk."""
    for part in (fit, *fit.get("parts", ())):
        record = part.get("axes", {}).get(name, {})
        for kind in ("R2", "AUC"):
            if isinstance(record.get(kind), int | float):
                return f"{kind} {record[kind]:.2f} held out"
        lost = part.get("held_out", {}).get(name, {}) if isinstance(part.get("held_out"), Mapping) else {}
        if isinstance(lost, Mapping) and isinstance(lost.get("mean"), int | float):
            return f"relative loss {lost['mean']:.2f} held out"
    return "–"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[_plain(cell) for cell in row] for row in (columns, ["---"] * len(columns), *rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _plain(text: str) -> str:
    """Text that cannot break out of its cell or line."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
