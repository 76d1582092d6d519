"""A held box: the face stays and everything around it moves. And the picture on top of the README, whose last row is such a path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steerable import progress, recipe, render
from steerable.controls.trajectory import Path as Way
from steerable.controls.trajectory import Trajectory
from steerable.protocols import Images, Latents
from steerable.report import Figure, Table, Text, number
from steerable.sampling import latents_of
from steerable.scenes.cast import FIRST, MOVES, PORTRAITS, Cast, Scene, saved, seeds_text
from steerable.scenes.people import degrees

if TYPE_CHECKING:
    import PIL.Image

BOX = (16, 18, 52, 46)  # top, left, bottom, right of the face
LENGTHS = torch.linspace(0, 8, 33)  # along the straight direction
STATIONS = 7  # pictures of a path ...
STRIDE = 0.15  # ... and steps short enough to have that many, in deviations


@dataclass(frozen=True, eq=False)
class Boxed:
    """The walked paths, and the straight line along each one's first direction; the last two rows are a portrait
    for the picture on top, moved to both sides.

    Attributes:
        seeds: n of them.
        way: n paths.
        outside, inside: (s, n) squared pixel change along the straight line.
        straight_end: n latents on that line, at the change outside with which the path ended.
    """

    seeds: tuple[int, ...]
    way: Way
    outside: Tensor
    inside: Tensor
    straight_end: Latents


def box_paths(cast: Cast) -> Boxed:
    """Move everything outside the box by the plan's ``outside``: the first held-out seeds; and a portrait by its ``beyond``."""
    seeds = (*range(FIRST, FIRST + cast.plan.box), PORTRAITS[0], PORTRAITS[0])
    amounts = torch.tensor([*[cast.plan.outside**0.5] * cast.plan.box, -(cast.plan.beyond**0.5), cast.plan.beyond**0.5])
    people = latents_of(cast.generator, seeds)
    pair = recipe.trajectory(cast.generator, recipe.Drive(box=BOX, amount=0.0))
    trajectory = Trajectory(cast.generator, move=pair.move, hold=pair.hold, stride=STRIDE)
    way = trajectory.path(people, amounts[:, None])
    first = torch.stack([_first_step(way, i) for i in range(len(people))])

    def pixels(images: Images) -> list[Tensor]:
        return [feature(images) for feature in (*trajectory.move, *trajectory.hold)]

    start = pixels(cast.images(people))
    ledger = []
    for length in progress.track(LENGTHS.tolist(), "the straight direction"):
        there = pixels(cast.images(people.at(people.values + length * first)))
        ledger.append(torch.stack([(now - then).square().mean(1).cpu() for now, then in zip(there, start, strict=True)]))
    outside, inside = torch.stack(ledger).unbind(1)
    ends = [between(way.moved[-1, i].cpu().square(), outside[:, i], LENGTHS) for i in range(len(people))]
    lengths = torch.stack(ends).to(people.values).view(-1, *[1] * (people.values.ndim - 1))
    return Boxed(seeds, way, outside, inside, people.at(people.values + lengths * first))


def _first_step(way: Way, row: int) -> Tensor:
    """The unit direction in which a row of the path first moved."""
    moves = (point.values[row] - way.waypoints[0].values[row] for point in way.waypoints[1:])
    first = next((move for move in moves if float(move.norm()) > 0), torch.zeros_like(way.end.values[row]))
    return first / first.norm().clamp(min=1e-12)


def between(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """y where a path first gets to x: linear between its points, its last y beyond them."""
    reached = (xs >= x).nonzero()
    if not len(reached):
        return ys[-1]
    i = int(reached[0])
    return ys[0] if i == 0 else ys[i - 1] + (ys[i] - ys[i - 1]) * ((x - xs[i - 1]) / (xs[i] - xs[i - 1]))


def walked(cast: Cast, boxed: Boxed, row: int, count: int = STATIONS) -> tuple[Latents, Tensor, Tensor]:
    """The way-points of a row nearest to equal parts of its way, and their squared changes outside and inside."""
    moved = boxed.way.moved[:, row]
    picked = [int((moved - float(moved[-1]) * i / (count - 1)).abs().argmin()) for i in range(count)]
    points = torch.stack([boxed.way.waypoints[s].values[row] for s in picked])
    same = latents_of(cast.generator, [boxed.seeds[row]] * count)
    return same.at(points), moved[picked].cpu().square(), boxed.way.drift[picked, row].cpu().square()


def held_box(cast: Cast, boxed: Boxed) -> Scene:
    """Way-points with the box drawn in, and the ledger: what moved inside against outside."""
    n, way = cast.plan.box, boxed.way
    outside, inside = way.moved[-1, :n].cpu().square(), way.drift[-1, :n].cpu().square()
    straight = torch.stack([between(outside[i], boxed.outside[:, i], boxed.inside[:, i]) for i in range(n)])
    batches, labels, captions, rows = [], [], [], []
    for i in range(n):
        points, moved, drift = walked(cast, boxed, i)
        batches.append(torch.cat([cast.images(points), cast.images(boxed.straight_end[[i]])]))
        labels.append(f"seed {FIRST + i}\n{'reached' if way.reached[i] else 'not reached'}")
        ends = [*zip(moved.tolist(), drift.tolist(), strict=True), (float(outside[i]), float(straight[i]))]
        captions.append([f"outside {number(a, 2)}\ninside {number(b, 2)}" for a, b in ends])
        rows += [_row(FIRST + i, cast.plan.outside, a, b) for a, b in ends[:-1]]
    columns = ["start", *[""] * (STATIONS - 2), "end", "straight"]
    sheet = render.strip(batches, row_labels=labels, column_labels=columns, captions=captions, boxes=[BOX])
    told = (
        f"The box (rows {BOX[0]} to {BOX[2] - 1}, columns {BOX[1]} to {BOX[3] - 1}) is held while everything outside moves; below each "
        f"picture the mean squared pixel change on the scale [-1, 1]. Last column: straight on along the path's first direction, to the "
        f"same change outside. Seeds {seeds_text(n)}, the first held-out ones (n = {n}); judge: the pixels."
    )
    verdict = (
        f"Asked for a squared change of {cast.plan.outside:.2f} outside: {int(way.reached[:n].sum())} of {n} reached it. At the end, on "
        f"average, {number(float(outside.mean()), 2)} outside and {number(float(inside.mean()), 2)} inside; along the first "
        f"direction kept straight, the same change outside costs {number(float(straight.mean()), 2)} inside "
        f"(n = {n}, seeds {seeds_text(n)}; judge: the pixels themselves, which are also what the path optimises)."
    )
    cells = [
        (
            str(FIRST + i),
            "yes" if way.reached[i] else "no",
            str(int((way.moved[1:, i] != way.moved[:-1, i]).sum())),
            *(number(float(value)) for value in (outside[i], inside[i], straight[i])),
            *("pixels", "1", str(FIRST + i)),
        )
        for i in range(n)
    ]
    header = ("face", "reached", "steps", "outside", "inside", "inside, straight", "judge", "n", "seeds")
    table = Table("Squared pixel change at the end of each path.", header, tuple(cells))
    return Scene((Text(verdict, "result"), saved("held-box", sheet, told), _ledger(boxed, n), table), tuple(rows))


def _row(seed: int, asked: float, outside: float, inside: float) -> dict[str, Any]:
    row = {"scene": "held box", "seed": seed, "knob": "outside", "control": "recomputed", "unit": "squared, of [-1, 1]", "asked": asked}
    return {**row, "judge": "outside", "measured": outside, "second_judge": "inside", "second": inside}


def _ledger(boxed: Boxed, n: int) -> Figure:
    moved, drift = boxed.way.moved[:, :n].cpu().square(), boxed.way.drift[:, :n].cpu().square()
    x = torch.linspace(0, float(moved[-1].max()), 21)

    def series(outside: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        each = torch.stack([torch.stack([between(value, outside[:, i], inside[:, i]) for value in x]) for i in range(n)])
        return each.mean(0), each.amin(0), each.amax(0)

    lines = {"recomputed at every step": series(moved, drift), "first direction kept": series(boxed.outside[:, :n], boxed.inside[:, :n])}
    plot = render.curves(
        x,
        lines,
        x_label="squared change outside the box",
        y_label="squared change inside",
        title="What moving the background costs the face",
    )
    caption = f"Mean over the faces, bands from the lowest to the highest (n = {n}, seeds {seeds_text(n)}; judge: pixels)."
    return Figure("held-box-ledger", render.figure_png(plot), caption)


def picture(cast: Cast, boxed: Boxed) -> tuple[PIL.Image.Image, str]:
    """One person turning, smiling, lit, and with a moving background: the picture on top of the README, and its caption."""
    ranks = (5, 10, 25, 50, 75, 90, 95)
    values = {move.name: [cast.axes[[move.name]].knobs[0].value_at(rank) for rank in ranks] for move in MOVES}
    values["yaw"] = [6.0 * i for i in range(-3, 4)]
    seed = boxed.seeds[-1]
    same = latents_of(cast.generator, [seed] * len(ranks))
    ends = {}
    for move in progress.track(MOVES, "the picture on top"):
        ends[move.name] = cast.set_to(move.name, cast.axis(move.name, move.hold), same, torch.tensor(values[move.name]), points=9)
    second = cast.read(ends["yaw"].latents, ["yaw68"])["yaw68"]
    (back, *left), (there, *right) = (walked(cast, boxed, len(boxed.seeds) - side, 4) for side in (2, 1))
    points = back.at(torch.cat([back.values.flip(0), there.values[1:]]))
    outside, inside = (torch.cat([a.flip(0), b[1:]]) for a, b in zip(left, right, strict=True))
    rows = {
        "turn: degrees of yaw by face mesh (68 landmarks)": ends["yaw"].latents,
        "smile: logits of happy over neutral": ends["smile"].latents,
        "light: brightness of the skin, of full scale": ends["skin-brightness"].latents,
        "background: squared pixel change outside (inside) the held box": points,
    }
    captions = [
        [f"{degrees(a)} ({degrees(b)})" for a, b in zip(ends["yaw"].reached, second, strict=True)],
        [f"{float(value):+.1f}".replace("-", "−") for value in ends["smile"].reached],
        [number(float(value), 2) for value in ends["skin-brightness"].reached],
        [f"{a:.3f} ({b:.4f})" for a, b in zip(outside.tolist(), inside.tolist(), strict=True)],
    ]
    sheet = render.strip([cast.images(latents) for latents in rows.values()], row_labels=list(rows), captions=captions)
    missed = sum(int((~end.found).sum()) for end in ends.values()) + int((~boxed.way.reached[-2:]).sum())
    reach = f"{missed} of these were not reached." if missed else "All of it was reached."
    caption = (
        f"Seed {seed}, each row one control with other attributes held; what was measured stands below each face. Asked: yaw −18° to 18° "
        f"by sixes; smile and light at the percentiles {', '.join(map(str, ranks))} of the population (n = {len(cast.table)}, seed "
        f"{cast.seed}); a squared change of {cast.plan.beyond:.2f} outside the box of the face, to both sides of its start. {reach}"
    )
    return sheet, caption
