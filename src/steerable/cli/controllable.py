"""``steer train controllable``: a generator whose latent has groups, each of which one measurement decides; and its thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerable.cli import options, terminal, training
from steerable.cli.terminal import parse_pairs, say, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from steerable.protocols import Feature
    from steerable.training.contrastive import Watch
    from steerable.training.groups import Groups

BINS, BARS = 32, " ▁▂▃▄▅▆▇█"
UPTO = 2.5  # mean distances shown in a histogram

Domain = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="A ready list of groups: digits, heads. By default digits for data called mnist; else none, and --groups names features.",
    ),
]
GroupList = Annotated[
    str,
    typer.Option(
        metavar="NAME:WIDTH,...",
        help="The groups in order: brightness:8,colour:16,rest:40. A name is a group of the domain, a feature or a column (see: steer zoo) "
        "or one of --feature; rest measures nothing. By default those of the domain.",
    ),
]
Own = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        metavar="FILE.py:NAME",
        help="A differentiable feature of your own, for --groups to name; may be repeated, none by default.",
    ),
]


def controllable(
    data: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="A folder with idx files, with pictures or with a Hugging Face data set; an idx, .npz or .npy file; or hf:OWNER/NAME. "
            "None by default: the domain heads renders its own.",
        ),
    ] = "",
    domain: Domain = "",
    groups: GroupList = "",
    feature: Own = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Only measure 1,000 real pictures: histograms of distances, thresholds from them. By default it trains."
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the results; with a checkpoint in it the training goes on from there.")
    ] = Path("trained"),
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the generator; the folder's by default.")] = "",
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="The networks: dcgan, dcgan-bounded (slower to learn, and does not diverge) or stylegan2.")
    ] = "dcgan",
    start: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Begin with the weights of a plain generator of the backbone's kind, where they fit; none by default."
        ),
    ] = "",
    in_front_of: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Train no generator: only learn groups in front of this one, which stays as it is. Needs no --data; the groups add up to "
            "its latent, 100 for faces64. By default a generator is trained.",
        ),
    ] = "",
    moments: Annotated[
        float,
        typer.Option(metavar="NUMBER", help="With --in-front-of: weight of the term that keeps latents where the generator expects them."),
    ] = 1.0,
    steps: training.Steps = 14000,
    batch: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Real pictures a step; two or more for every group.")] = 64,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Side of the pictures: 8, 16, 32, 64, ...")] = 32,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which part of idx files and Hugging Face data sets.")] = "train",
    latent: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="Numbers of the latent, that the groups have to add up to; their sum by default."),
    ] = None,
    width: Annotated[
        int, typer.Option(metavar="CHANNELS", min=1, help="At half the pictures' side; each smaller map has twice as many.")
    ] = 48,
    hidden: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Width inside the mapping networks, one a group.")] = 64,
    contrast: Annotated[
        float, typer.Option(metavar="NUMBER", help="Weight of the contrastive losses; 0 trains the plain generator to compare with.")
    ] = 0.4,
    variety: Annotated[
        float, typer.Option(metavar="NUMBER", help="Weight of the term that keeps groups alive that measure nothing.")
    ] = 1.0,
    population: Annotated[
        float,
        typer.Option(
            metavar="NUMBER", help="Weight of the term that keeps what is measured spread as in the real pictures; 0 leaves it out."
        ),
    ] = 3.0,
    agreement: Annotated[
        float, typer.Option(metavar="NUMBER", help="Weight of the term for pictures that share a group of classes and are told apart.")
    ] = 8.0,
    warm_up: Annotated[int, typer.Option(metavar="STEPS", min=0, help="Over which --contrast grows from 0.")] = 500,
    near: Annotated[float, typer.Option(metavar="PERCENT", help="Percentile of the distances to the nearest picture, for tau+.")] = 50.0,
    far: Annotated[float, typer.Option(metavar="PERCENT", help="Percentile of the distances to all pictures, for tau-.")] = 5.0,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=NEAR:FAR", help="tau+ and tau- of one group, in mean distances of two real pictures; measured by default."
        ),
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="GROUP=NUMBER", help="Weight of one group's loss beside the others'; 1 by default.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=NAME", help="How a group's readings are compared: l1, squared-l2 or cosine; the feature's own by default."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(metavar="NUMBER", help="Step size of Adam; the backbone's by default.")] = None,
    r1: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Weight of the gradient penalty on real pictures; the backbone's by default.")
    ] = None,
    path_length: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Weight of the path length; the backbone's by default.")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="Decay of the averaged generator, which is the result; the backbone's by default."),
    ] = None,
    precision: options.Precision = "float32",
    save_every: training.SaveEvery = 250,
    log_every: training.LogEvery = 50,
    sample_every: training.SampleEvery = 500,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Train a generator whose latent has groups: each decides one measurement, and no other does.

    The same command goes on after an interrupt, to the same weights. On several devices: accelerate launch --no_python
    steer train controllable ... Written are generator.safetensors, log.jsonl, samples/ (two rows a group, in which that group alone
    varies), tensorboard/, checkpoint.safetensors and options.json. Then: steer fit controllers, steer evaluate.
    """
    if not domain and not groups and Path(data).name.lower() == "mnist":  # hf:ylecun/mnist too
        domain = "digits"
    resolved = dict(locals())
    from steerable import sources, store
    from steerable.rendered import rendered_heads
    from steerable.training import controllable as trainings
    from steerable.training import domains

    options.folder(out)
    chosen = _changed(listed(domain, groups, feature, latent), threshold or [], weight or [], metric or [])
    frozen = options.generator(in_front_of, device) if in_front_of else None
    if frozen is not None:
        if data or start:
            raise ValueError("--in-front-of learns from the generator's own pictures: leave out --data and --start.")
        size, pictures = frozen.image_shape[-1], trainings.pictures_of(frozen, seed=seed)
    elif data:
        pictures = sources.read_source(data, size=size, split=split)
    elif domain in domains.RENDERED:
        pictures, _ = rendered_heads(seed=seed, size=size)
    else:
        raise ValueError("name the pictures: --data FOLDER. Only the domain heads renders its own, and --in-front-of needs none.")
    if calibrate:
        watches = trainings.calibrate(pictures, chosen, size=size, near=near, far=far, seed=seed)
        return show_thresholds(watches, pictures.name, min(len(pictures), trainings.CALIBRATED_ON), seed)
    begin = options.generator(start, device) if start else None
    trained = trainings.train_controllable(
        pictures,
        chosen,
        out=out,
        backbone=backbone,
        steps=steps,
        batch=batch,
        size=size,
        width=width,
        hidden=hidden,
        contrast=contrast,
        variety=variety,
        population=population,
        agreement=agreement,
        warm_up=warm_up,
        near=near,
        far=far,
        lr=lr,
        r1=r1,
        path_length=path_length,
        ema=ema,
        precision=precision,
        start=begin,
        frozen=frozen,
        moments=moments,
        seed=seed,
        device=options.device(device),
        name=name or None,
        log_every=log_every,
        save_every=save_every,
        sample_every=sample_every,
    )
    if not trained.writes:
        return
    origin = {
        "made_by": "steer train controllable",
        **{key: value for key, value in resolved.items() if key not in LEFT_OUT},
        "groups": [[group.name, group.width] for group in chosen],
        "features": {name: one.name for name, one in domains.measured(chosen).items()},
    }
    store.save_generator(trained.generator, out / "generator.safetensors", half=trained.half, origin=origin)
    options.write(out / "options.json", "train controllable", resolved)
    show_thresholds(trained.watches, pictures.name, min(len(pictures), trainings.CALIBRATED_ON), seed, histograms=False)
    _show(trained, len(trained.generator.network.state_dict()))
    say(f"written: generator.safetensors, options.json, log.jsonl in {out}")


LEFT_OUT = ("data", "out", "name", "device", "save_every", "log_every", "sample_every", "calibrate", "groups")


def listed(domain: str, text: str, own: Sequence[str] | None, latent: int | None = None) -> Groups:
    """The groups of a domain or of a text, or of a text that chooses among a domain's.

    Raises:
        ValueError: neither is given, an unknown name, widths that do not add up, a file without that feature.
    """
    from steerable.training import domains
    from steerable.training.groups import check_total, parse_groups

    found = domains.domain(domain) if domain else None
    if found is None and not text.strip():
        raise ValueError("name the groups: --domain digits, or --groups brightness:8,colour:16,rest:40 with names of features.")
    if text.strip():
        given = {feature.name: feature for feature in map(_own, own or ())}
        known = {group.name: group for group in found or ()}
        found = parse_groups(text, known, find=lambda name: given[name] if name in given else _feature(name, [*known, *given]))
    assert found is not None
    check_total(found, latent)
    return found


def groups_of(name: str, own: Sequence[str] | None, *, judged: bool = False) -> tuple[Groups, str]:
    """The groups that a generator was trained with, and its domain, as its file says.

    Args:
        name: of a shipped generator, or its file.
        own: files with features of the user's that it was trained with.
        judged: measured by networks of other seeds, where the domain has such.

    Raises:
        ValueError: a file that is no controllable generator.
    """
    from steerable import shipped, store
    from steerable.training import domains

    entry = shipped.entries().get(name)
    origin = store.described(Path(name) if entry is None else shipped.WEIGHTS / entry.file).get("origin", {})
    given = {feature.name: feature for feature in map(_own, own or ())}
    try:
        return domains.trained_with(origin, judged=judged, find=lambda one: given[one] if one in given else _feature(one, list(given)))
    except KeyError:
        raise ValueError(f"{name} was not trained with groups: make one that was with steer train controllable.") from None


def _feature(name: str, others: Sequence[str]) -> Feature:
    """A shipped feature, or one column of one, by name."""
    from steerable import checks, zoo
    from steerable.features.network import column

    known = {*zoo.feature_names()["all"], *zoo.HOLDS, *zoo.OF_DIGITS}
    if name in known:
        return zoo.load_feature(name)
    parts = {one: feature for feature in zoo.load_features("all") for one in feature.columns}
    checks.known(name, {*known, *parts, *others, "rest"}, "group")
    return column(parts[name], name)


def _own(text: str) -> Feature:
    """The feature ``NAME`` of ``FILE.py``, which runs as ``python FILE.py`` would: it is the user's own."""
    import runpy

    from steerable.protocols import Feature

    path, _, name = text.rpartition(":")
    how = "A feature of your own is FILE.py:NAME with NAME = st.feature(function, name=...)"
    if not path or not Path(path).is_file():
        raise ValueError(f"{path or text} does not exist. {how}.")
    try:
        there = runpy.run_path(path)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} does not run: {type(error).__name__}: {error}.") from error
    found = there.get(name)
    if not isinstance(found, Feature) or isinstance(found, type):
        features = [key for key, value in there.items() if isinstance(value, Feature) and not isinstance(value, type)]
        raise ValueError(f'{path} has no feature "{name}"; its features: {", ".join(features) or "none"}. {how}.')
    return found


def _changed(groups: Groups, thresholds: Sequence[str], weights: Sequence[str], metrics: Sequence[str]) -> Groups:
    """The groups with what --threshold, --weight and --metric say of them."""
    from dataclasses import replace

    from steerable import checks
    from steerable.training.groups import Groups as Made

    changes: dict[str, dict[str, Any]] = {}
    for flag, given, read in (
        ("--threshold", thresholds, _ends),
        ("--weight", weights, lambda text: {"weight": _number(text, "--weight")}),
        ("--metric", metrics, lambda text: {"metric": text}),
    ):
        for name, text in parse_pairs(given, flag).items():
            checks.known(name, [group.name for group in groups.watched], "group that measures something")
            changes.setdefault(name, {}).update(read(text))
    return Made(
        tuple(
            replace(group, contrast=replace(group.contrast, **changes[group.name])) if group.name in changes and group.contrast else group
            for group in groups
        )
    )


def _ends(text: str) -> dict[str, float]:
    near, colon, far = text.partition(":")
    if not colon:
        raise ValueError(f'--threshold takes GROUP=NEAR:FAR, for example slant=0.02:0.5; got "{text}".')
    return {"near": _number(near, "--threshold"), "far": _number(far, "--threshold")}


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{flag} takes numbers, got "{text}".') from None


def show_thresholds(watches: Mapping[str, Watch], data: str, n: int, seed: int, *, histograms: bool = True) -> None:
    """The distances of real pictures, and the thresholds that were set by them."""
    rows = []
    for name, watch in watches.items():
        nearest, others = (" ".join(short(value) for value in ranks) for ranks in watch.ranks())
        metric = watch.contrast.comparison
        rows.append((name, watch.contrast.feature.name, metric, nearest, others, short(watch.near), short(watch.far)))
    title = f"distances of n {n} pictures of {data}, seed {seed}; 1 is the mean distance of two of them; percentiles 20, 50, 80"
    terminal.table(title, ("group", "measured by", "metric", "nearest", "all others", "tau+", "tau-"), rows)
    for name, watch in watches.items() if histograms else ():
        for what, distances in (("nearest", watch.nearest), ("others", watch.others)):
            say(f"{name:>12} {what:>8} |{_bars(distances)}| 0 to {UPTO:g}")


def _bars(distances: Any) -> str:
    """A histogram in one line of text; the last bar has everything beyond."""
    counts = distances.clamp(0, UPTO).histc(BINS, 0, UPTO)
    heights = (counts / counts.max() * (len(BARS) - 1)).ceil().int().tolist()
    return "".join(BARS[height] for height in heights)


def _show(trained: Any, tensors: int) -> None:
    import json

    last = json.loads(trained.log.read_text(encoding="utf-8").splitlines()[-1])
    losses = [(key, short(value)) for key, value in last.items() if key not in ("step", "seconds")]
    title = f"{trained.generator.name}: {trained.steps} steps in {last.get('seconds', 0):.0f} s; mean losses of the last log line"
    terminal.table(title, ("loss", "value"), losses)
    if trained.taken:
        say(f"begun with {trained.taken} of {tensors} tensors of another generator")
