"""What a controllable generator reaches: disentanglement, precision, what is held, collapse, realism.

    python benchmarks/control_precision.py [GENERATOR ...] [--plain FOLDER] [--data FOLDER] [--n 1000] [--seed 11] [--quick] [--out FOLDER]

GENERATOR is the name of a shipped controllable generator or a folder with generator.safetensors and controllers.safetensors; by default all
that ship. --plain is a folder of the same training with --contrast 0, to compare with: its groups, axes with projection on it, its realism;
once for each domain. --data is the folder with the pictures, of which those that no training saw are compared with (the split "test" or
"t10k" of idx files); heads are rendered anew.
What the judges are stands in every table: networks of other seeds than those in the loss, and pixels where the measurement is a moment of
them. The last line is all figures as JSON; what the issue asks for is written beside each.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from steerable import files, fit_axes, load_generator, shipped, store, zoo
from steerable.cli.controlled import show_shares, write_grid
from steerable.controls.groups import Controllers
from steerable.evaluation.precision import alike, class_changes, class_frequencies, precision
from steerable.evaluation.quality import kernel_distance, pooled
from steerable.evaluation.shares import Shares, along, shares
from steerable.features.perceptual import shipped as perceptual
from steerable.generators.module import ModuleGenerator
from steerable.protocols import Images
from steerable.rendered import rendered_heads
from steerable.sources import read_source
from steerable.training import domains
from steerable.training.groups import Groups

REAL, UNSEEN = 2000, 1_000_001  # held-out pictures; the seed of which, or of those that are rendered
DRAWS = 5  # of as many latents as pictures, for the kernel distance: single ones differ by a tenth and more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="*", metavar="GENERATOR")
    parser.add_argument("--plain", type=Path, action="append", default=[], help="may be repeated")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--n", type=int, default=1000, help="latents of every table")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="n 200, and no comparison of pictures")
    parser.add_argument("--out", type=Path, help="folder for the grid of every generator, and for the figures as JSON")
    asked = parser.parse_args()
    n = 200 if asked.quick else asked.n
    names = asked.generators or [name for name in shipped.entries() if f"{name}-controllers" in shipped.entries()]
    everything: dict[str, Any] = {"benchmark": "control_precision", "n": n, "seed": asked.seed}
    if asked.data and not asked.data.is_dir():
        parser.error(f"--data is the folder with the pictures, and {asked.data} is none")
    try:
        plains = {str(origin.get("domain")): made for made, _, origin in (opened(str(folder), bare=True) for folder in asked.plain)}
        all_opened = {name: opened(name) for name in names}
    except ValueError as wrong:
        parser.error(str(wrong))
    for name, (generator, controllers, origin) in all_opened.items():
        judged, domain = domains.trained_with(origin, judged=True, find=zoo.load_feature)
        judge = "networks of another seed, pixels" if domain else "the features of the training"
        plain, real = plains.get(str(origin.get("domain"))), None if asked.quick else held_out(domain, asked.data)
        print(f"\n=== {generator.name}, domain {domain or 'of its own'}, judge: {judge}")
        found = {"shares": all_shares(generator, plain, judged, judge, n, asked.seed)}
        if controllers is not None:
            found["precision"] = all_precision(generator, controllers, judged, n, asked.seed)
            found["classes"] = all_classes(generator, controllers, judged, n, asked.seed)
            if real is not None:
                found["alike"] = all_alike(generator, controllers, judged, real, n, asked.seed)
        if real is not None:
            found["kernel distance"] = realism(generator, plain, real, asked.seed)
        elif not asked.quick:
            print("distances to real pictures: not measured, give --data FOLDER")
        everything[name] = found
        if asked.out and controllers is not None:
            write_grid(generator, controllers, asked.out / f"{generator.name}-grid.png", seed=asked.seed)
    if asked.out:
        files.write_text(asked.out / "control_precision.json", json.dumps(everything, indent=1) + "\n")
    print(json.dumps(everything))


def opened(name: str, *, bare: bool = False) -> tuple[ModuleGenerator, Controllers | None, dict[str, Any]]:
    """A shipped generator or that of a folder, its controllers where there are some, and what its file says of its training.

    Raises:
        ValueError: no such file, or one without groups.
    """
    entry = shipped.entries().get(name)
    path = shipped.WEIGHTS / entry.file if entry is not None else Path(name) / "generator.safetensors"
    made = load_generator(name if entry is not None else str(path))
    origin = store.described(path).get("origin", {})
    if "groups" not in origin:
        raise ValueError(
            f"{name} was trained without groups: name one that steer train controllable made, or leave it out for all that ship"
        )
    if entry is not None:
        return made, made.controllers, origin  # type: ignore[return-value]
    beside = path.with_name("controllers.safetensors")
    controllers = store.load_control(beside, generator=made) if beside.is_file() else None
    if controllers is None and not bare:
        print(f"{beside} is not there: steer fit controllers --generator {path} --out {beside}")
    return made, controllers, origin


def held_out(domain: str, data: Path | None) -> Images | None:
    """Pictures that no training saw, where there are any to be had; any of them, for MNIST's first are of other writers than its last."""
    if domain in domains.RENDERED:
        return rendered_heads(REAL, seed=UNSEEN)[0].batch(torch.arange(REAL))[0]
    if data is None:
        return None
    split = "t10k" if any(path.name.startswith("t10k") for path in data.iterdir()) else "test"
    pictures = read_source(data, size=32, split=split)
    return pictures.batch(torch.randperm(len(pictures), generator=torch.Generator().manual_seed(UNSEEN))[:REAL])[0]


def all_shares(
    generator: ModuleGenerator, plain: ModuleGenerator | None, judged: Groups, judge: str, n: int, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The table of the generator, of the plain one, and of axes with projection on that one."""
    measured, held = domains.measured(judged), max(16, n // 12)
    found = {"groups": shares(generator, measured, held=held, each=12, seed=seed)}
    print("own share: .80 or more asked; any other single group: .20 or less")
    show_shares(found["groups"], judge)
    if plain is not None:
        print("\nthe same of the generator that was trained without the contrastive losses:")
        found["plain groups"] = shares(plain, measured, held=held, each=12, seed=seed)
        show_shares(found["plain groups"], judge)
        numbers = {name: one for name, one in measured.items() if one.columns == (name,)}
        if len(numbers) > 1:
            print("\nand of axes on that one, each held from moving the others (classes have no axis):")
            axes = fit_axes(plain, list(numbers.values()), n=2000, seed=0, hold=list(numbers))
            vectors = {knob.name: axes.vectors[i].flatten() for i, knob in enumerate(axes.knobs)}
            normals = {name: vector / vector.square().sum() for name, vector in vectors.items()}
            found["axes"] = shares(
                plain, measured, held=held, each=12, seed=seed, groups=list(numbers), vary=along(plain, vectors, normals)
            )
            rows(found["axes"])
    return {name: as_rows(one) for name, one in found.items()}


def rows(found: Shares) -> None:
    print(f"{'measured':>10}" + "".join(f"{f'along {name}':>18}" for name in found.groups))
    for feature, row in zip(found.features, found.values.tolist(), strict=True):
        print(f"{feature:>10}" + "".join(f"{share:>18.2f}" for share in row))


def as_rows(found: Shares) -> dict[str, dict[str, float]]:
    return {
        feature: {group: round(share, 4) for group, share in zip(found.groups, row, strict=True)}
        for feature, row in zip(found.features, found.values.tolist(), strict=True)
    }


def all_precision(generator: ModuleGenerator, controllers: Controllers, judged: Groups, n: int, seed: int) -> dict[str, Any]:
    """Every value alone, by the many answers and by the one, and every two and three together."""
    readings, found = domains.readings(judged), {}
    heads = {part.group: part.knobs[0].name for part in controllers.parts}
    kinds = {knob.name: part.classes for part in controllers.parts for knob in part.knobs}
    print(f"\nrequested against measured, the central 90 %, n {n}, seed {seed}; .90 or more asked on digits, .95 on heads")
    print(f"{'set':>28}{'value':>12}{'correlation':>14}{'mean error':>14}{'to alone':>10}{'one answer':>12}")
    alone: dict[str, float] = {}
    for size in (1, 2, 3):
        for together in combinations(heads.values(), size):
            result = precision(generator, controllers, readings, together, n=n, seed=seed)
            once = precision(generator, controllers, readings, together, n=n, seed=seed, one_answer=True) if size == 1 else None
            for knob in result.knobs:
                value, error = result.correlation(knob.name), result.error(knob.name)
                alone.setdefault(knob.name, error)
                ratio = error / max(alone[knob.name], 1e-9)
                unit = "wrong" if kinds[knob.name] else knob.unit[:8]
                one = f"{once.error(knob.name):12.3g}" if once else ""
                what = " + ".join(together)
                print(f"{what:>28}{knob.name:>12}{value:14.3f}{error:>9.3g} {unit:<5}{ratio:10.2f}{one}")
                found[f"{what}: {knob.name}"] = {"correlation": round(value, 4), "error": round(error, 5), "to alone": round(ratio, 3)}
    print("for classes: the share that came out; to alone: error when set together over error alone, 1.3 or less asked")
    return found


def all_classes(generator: ModuleGenerator, controllers: Controllers, judged: Groups, n: int, seed: int) -> dict[str, Any]:
    """How often setting another value changes the class, and how even the classes are."""
    readings = domains.readings(judged)
    classes = [part for part in controllers.parts if part.classes]
    if not classes:
        return {}
    judge, others = readings[classes[0].group], [knob.name for part in controllers.parts if not part.classes for knob in part.knobs]
    changed = class_changes(generator, controllers, judge, others, n=n, seed=seed)
    even = class_frequencies(generator, judge, n=2 * n, seed=seed)
    print(
        f"\n{classes[0].group} changed by setting another value (.05 or less asked): "
        + ", ".join(f"{k} {v:.3f}" for k, v in changed.items())
    )
    print("classes over their even share (.5 to 2 asked): " + " ".join(f"{value:.2f}" for value in even.tolist()))
    return {"changed": {k: round(v, 4) for k, v in changed.items()}, "over even share": [round(v, 3) for v in even.tolist()]}


def all_alike(generator: ModuleGenerator, controllers: Controllers, judged: Groups, real: Images, n: int, seed: int) -> dict[str, float]:
    distance = perceptual()
    with torch.inference_mode():
        made, kept = alike(generator, controllers, domains.readings(judged), real, distance, n=min(n, 400), seed=seed)
    print(f"\nperceptual distance of two samples that share all values {made:.4f}, of real pictures that measure alike {kept:.4f}: "
          f"{made / kept:.2f} (.5 or more asked)")  # fmt: skip
    return {"samples": round(made, 5), "real": round(kept, 5), "ratio": round(made / kept, 3)}


def realism(generator: ModuleGenerator, plain: ModuleGenerator | None, real: Images, seed: int) -> dict[str, float]:
    """Kernel distance to pictures that no training saw, beside that of the plain generator and of two halves of them: means over draws."""
    network = zoo.load_backbone()
    with torch.inference_mode():
        held = torch.cat([network(part) for part in real.split(50)])
    count = len(held) // 2
    found, between = {"two halves of the pictures": kernel_distance(held[:count], held[count:])}, ""
    for name, one in (("controllable", generator), ("plain", plain)):
        if one is not None:
            draws = [kernel_distance(held[:count], pooled(one, network, one.sample(count, seed=seed + i))) for i in range(DRAWS)]
            found[name] = sum(draws) / DRAWS
            between += f"; single draws of {name} {min(draws):.4f} to {max(draws):.4f}"
    print(
        f"\nkernel distance to {count} held-out pictures, means over {DRAWS} draws of {count} samples, seeds {seed} to {seed + DRAWS - 1}: "
        + ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        + between
    )
    if "plain" in found:
        print(f"controllable over plain {found['controllable'] / found['plain']:.2f} (1.25 or less asked)")
    return {name: round(value, 5) for name, value in found.items()}


if __name__ == "__main__":
    main()
