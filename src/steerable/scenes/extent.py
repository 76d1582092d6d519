"""How far walks go and what ends them (figure 5 of the paper), and whether classes that vary more go further (figure 6)."""

from __future__ import annotations

from steerable import plots, progress, render
from steerable.controls.directions import Directions
from steerable.edits import ImageEdit
from steerable.evaluation.limits import Limits, limits, table
from steerable.evaluation.variability import Variability, variability
from steerable.fitting.walks import fit_directions
from steerable.generators.module import ModuleGenerator
from steerable.report import Block, Figure, Table, Text, number, signed
from steerable.scenes.steerability import Plan, Subject

FIRST = ("brightness", "zoom", "shift-x", "shift-y", "rotate", "contrast", "red")  # of more walks than are looked at


def how_far(subject: Subject) -> tuple[tuple[Block, ...], Directions]:
    """The limits of some walks; and all walks with the ranges that these imply."""
    names = sorted(subject.walks, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))[: subject.plan.limit_knobs]
    control, results = subject.calibrated(), []
    for name in progress.track(names, "limits"):
        results.append(limits(subject.generator, control, subject.attribute(name), knob=name, n=subject.plan.limits, seed=subject.seed + 1))
    for result in results:
        control = result.written(control)
    n, seed = results[0].n, results[0].seed
    figure = plots.limits_plot(results, title=f"How far the walks of {subject.generator.name} go (n {n}, seed {seed})")
    caption = (
        f"From above: where the attribute is at each amount (grey: unsteered images); how much of its distribution is still that of "
        f"unsteered images; how far the images are from unsteered ones of other latents (kernel distance, by the backbone); and how much "
        "each step still changes the picture (perceptual distance to the amount before). Amounts are those of the calibrated walk. "
        f"n = {n}, "
        f"seed {seed}; judges of the attributes: {', '.join(sorted({one.judge for one in results}))}."
    )
    blocks: list[Block] = [
        Text(
            "A walk ends in one of two ways: the picture changes no further, or it stops looking like one of the generator's. The "
            "threshold "
            f"is a picture that everybody can imagine: {results[0].threshold_from}."
        ),
        Text(" ".join(_ends(one) for one in results) + f" (n = {n}, seed {seed}.)", "result"),
        Figure("limits", render.figure_png(figure), caption),
        _limits_table(results),
    ]
    return tuple(blocks), control


def _ends(result: Limits) -> str:
    usable, knob = result.usable, result.knob
    if usable.low == usable.high:
        return f"{knob.name} has no usable range ({usable.high_ends})."
    return (
        f"{knob.name} can be used from {signed(usable.low)} ({usable.low_ends}) to {signed(usable.high)} {knob.unit} ({usable.high_ends})."
    )


def _limits_table(results: list[Limits]) -> Table:
    header = (
        "walk",
        "amount",
        "mean",
        "sd",
        "intersection",
        "kernel distance",
        "Fréchet",
        "step",
        "found",
        "usable",
        "judge",
        "n",
        "seeds",
    )
    rows = []
    for result in results:
        for name, amount, mean, sd, overlap, kernel, frechet, step, _, found, usable in table(result):
            cells = ["–" if cell is None else number(cell, 2) for cell in (mean, sd, overlap, kernel, frechet, step)]
            share = "–" if found is None else f"{100 * found:.0f} %"
            rows.append((name, signed(amount), *cells, share, "yes" if usable else "no", result.judge, str(result.n), str(result.seed)))
    caption = (
        "Mean and standard deviation of the attribute; intersection with the unsteered distribution; kernel and Fréchet distance to "
        "unsteered "
        "images (the latter only where n allows it); perceptual distance to the amount before; share of images in which the "
        "attribute was found."
    )
    return Table(caption, header, tuple(rows))


def why(generator: ModuleGenerator, edit: ImageEdit, plan: Plan, seed: int) -> tuple[Block, ...]:
    """Delta mu of every class against the class's own spread."""
    classes = list(range(generator.classes or 0))[: plan.classes]
    about = Text(
        "Why does a walk end where it does? If the generator only knows what varied in its data, classes that vary more can be moved "
        "further. Every class is walked to the same two ends, the furthest at which the pictures of all classes stay plausible."
    )
    walk = fit_directions(generator, edit, n=plan.trained_fit, seed=seed, calibration=0)
    try:
        result = variability(generator, walk, classes=classes, n=plan.spread, seed=seed + 1, quality_n=max(plan.limits, 16))
    except ValueError as error:  # a finding: no amount is plausible, or too few classes
        return about, Text(f"On {generator.name}, nothing can be said: {error} (n = {plan.spread} a class, seed {seed + 1}.)", "result")
    figure = plots.variability_plot([result], title=f"{generator.name}: what classes can be moved, against how much they vary")
    caption = (
        f"One point a class: standard deviation of {result.attribute} over {result.sigma_from}, and how far its mean moves between "
        f"−{number(result.amount, 2)} and +{number(result.amount, 2)} {result.knob.unit} of the walk, the same for all classes. "
        f"n = {result.n} latents a class, seed {result.seed}; judge: {result.judge}."
    )
    return (
        about,
        Text(_related(result), "result"),
        Figure("variability", render.figure_png(figure), caption),
    )


def _related(result: Variability) -> str:
    try:
        line = result.relation
    except ValueError as error:
        return f"{result.knob.name}: {error} (n = {len(result.names)} classes of {result.n} latents, seed {result.seed})"
    follows = "follows" if line.p < 0.05 and line.r > 0 else "does not follow"
    return (
        f"{result.knob.name}: how far a class moves {follows} how much it varies: Pearson's r = {line.r:.2f} (95 % interval "
        f"{line.low:.2f} to "
        f"{line.high:.2f}), slope {number(line.slope, 2)}, p = {line.p:.2g}; n = {line.n} classes of {result.n} latents, seed "
        f"{result.seed}; "
        f"judge: {result.judge}. The paper has r = .28 to .59 over 100 classes of ImageNet."
    )
