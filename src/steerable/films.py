"""Films: a course through keyframes, and its pictures as MP4 or GIF, written whole or not at all.

What a keyframe is made of is the caller's business: amounts of knobs (``recipe``), latents (the studio's way), anything that can be
interpolated. ``render`` draws the pictures. A film carries the recipe that made it, as a PNG does, in the container's comment.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerable import checks, files

if TYPE_CHECKING:
    import PIL.Image

KINDS = ("mp4", "gif")
LOOPS = ("once", "return", "boomerang")
EASINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda share: share,
    "ease": lambda share: share * share * (3 - 2 * share),
    "ease-in": lambda share: share * share,
    "ease-out": lambda share: share * (2 - share),
    "hold": torch.zeros_like,
}
LONGEST = 20_000  # frames
QUALITY = "17"  # x264's constant rate factor: faces at which no blocks are seen
PREFIX = "steerable "  # of the comment that holds a recipe


@dataclass(frozen=True)
class Pace:
    """How a film goes through its keyframes.

    Attributes:
        seconds: from one keyframe to the next.
        fps: pictures a second. A GIF counts in hundredths of a second, so its pictures take turns at the nearest two.
        easing: of every stretch: "linear"; "ease" starts and ends slowly; "ease-in" and "ease-out" do one of both; "hold" stays until
            the next keyframe, and jumps.
        loop: "once" ends at the last keyframe; "return" goes on to the first one; "boomerang" goes back the way it came. A GIF
            of the last two repeats for ever, and both join without a repeated picture.

    Raises:
        ValueError: an unknown word, or numbers that make no film.
    """

    seconds: float = 1.0
    fps: int = 24
    easing: str = "ease"
    loop: str = "once"

    def __post_init__(self) -> None:
        checks.known(self.easing, EASINGS, "easing")
        checks.known(self.loop, LOOPS, "loop")
        if not 0 < self.seconds <= 3600 or not 1 <= self.fps <= 100:
            raise ValueError(f"a film has more than 0 seconds a stretch and 1 to 100 pictures a second, got {self.seconds} and {self.fps}.")


def course(keyframes: Float[Tensor, "k ..."], pace: Pace | None = None) -> Float[Tensor, "f ..."]:
    """Every frame between the keyframes; each keyframe itself is one of them.

    Args:
        keyframes: (k, ...) amounts, latents, or anything else that may be mixed. Two equal ones in a row are a pause.

    Raises:
        ValueError: fewer than two keyframes, or more than 20,000 frames.

    Example:
        >>> course(torch.tensor([[0.0], [1.0]]), Pace(seconds=2, fps=2, easing="linear"))[:, 0]
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    pace = pace or Pace()
    if len(keyframes) < 2:
        raise ValueError(f"a film goes from one keyframe to another, got {len(keyframes)}.")
    between = max(1, round(pace.seconds * pace.fps))
    stops = torch.cat([keyframes, keyframes[:1]]) if pace.loop == "return" else keyframes
    if (long := between * (len(stops) - 1) * (2 if pace.loop == "boomerang" else 1)) > LONGEST:
        raise ValueError(f"this film would have {long} frames, at most {LONGEST} are possible: take fewer seconds or pictures a second.")
    shares = EASINGS[pace.easing](torch.arange(between, dtype=keyframes.dtype, device=keyframes.device) / between)
    shares = shares.view(-1, *[1] * (keyframes.ndim - 1))
    parts = [a + shares * (b - a) for a, b in itertools.pairwise(stops)]
    if pace.loop == "return":
        return torch.cat(parts)
    there = torch.cat([*parts, stops[-1:]])
    return torch.cat([there, there[1:-1].flip(0)]) if pace.loop == "boomerang" else there


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind of film that a name asks for.

    Raises:
        ValueError: neither ``.mp4`` nor ``.gif``.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in KINDS:
        example = Path(path).with_suffix(".mp4") if Path(path).name else "film.mp4"
        raise ValueError(f"a film is written as .mp4 or .gif, got {path}. Use {example}.")
    return suffix


def write(
    path: str | os.PathLike[str], pictures: Iterable[PIL.Image.Image], pace: Pace | None = None, *, recipe: str | None = None
) -> Path:
    """Write a film whole or not at all; an interrupt leaves what stood there before.

    Args:
        path: ends in ``.mp4`` (H.264, plays everywhere) or ``.gif``.
        pictures: of one size, drawn one after the other while they are written.
        recipe: travels inside, see ``read_recipe``.

    Raises:
        ValueError: another suffix, no picture, or pictures of several sizes.
    """
    return files.write_bytes(path, content(pictures, kind_of(path), pace, recipe=recipe))


def content(pictures: Iterable[PIL.Image.Image], kind: str, pace: Pace | None = None, *, recipe: str | None = None) -> bytes:
    """The bytes of a film; see ``write``."""
    pace = pace or Pace()
    frames = _of_one_size(pictures)
    make = {"mp4": _mp4, "gif": _gif}[checks.known(kind, KINDS, "kind of film")]
    return make(frames, pace, None if recipe is None else PREFIX + recipe)


def _of_one_size(pictures: Iterable[PIL.Image.Image]) -> Iterator[PIL.Image.Image]:
    size = None
    for number, picture in enumerate(pictures):
        size = size or picture.size
        if picture.size != size:
            raise ValueError(f"the pictures of a film have one size: the first is {size}, number {number} is {picture.size}.")
        yield picture.convert("RGB")
    if size is None:
        raise ValueError("a film has at least one picture, got none.")


def _mp4(frames: Iterator[PIL.Image.Image], pace: Pace, comment: str | None) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        if comment is not None:
            container.metadata["comment"] = comment
        stream = None
        for frame in frames:
            frame = _even(frame)
            if stream is None:
                stream = container.add_stream("libx264", rate=pace.fps, options={"crf": QUALITY, "threads": "1"})
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_planes(frame), format="yuv420p")))
        assert stream is not None  # _of_one_size refuses a film without pictures
        container.mux(stream.encode())
    return buffer.getvalue()


def _planes(picture: PIL.Image.Image) -> np.ndarray:
    """Light, and colours at half the resolution (ITU-R BT.601, 16 to 235), one after the other: (3 h / 2, w) bytes.

    FFmpeg's own conversion rounds otherwise where its memory lies otherwise; a film is to be the same bytes again.
    """
    r, g, b = np.asarray(picture, np.float32).transpose(2, 0, 1)
    height, width = r.shape
    light = 16 + 0.256788 * r + 0.504129 * g + 0.097906 * b
    blue, red = (
        (128 + one).reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        for one in (0.439216 * b - 0.148223 * r - 0.290993 * g, 0.439216 * r - 0.367788 * g - 0.071427 * b)
    )
    return np.concatenate([one.ravel() for one in (light, blue, red)]).round().astype(np.uint8).reshape(-1, width)


def _even(picture: PIL.Image.Image) -> PIL.Image.Image:
    """With a row and a column repeated where there is an odd number: the format halves the colours' resolution."""
    from PIL import Image

    width, height = picture.width + picture.width % 2, picture.height + picture.height % 2
    if (width, height) == picture.size:
        return picture
    wider = Image.new("RGB", (width, height))
    for x, y in ((width - picture.width, height - picture.height), (0, height - picture.height), (width - picture.width, 0), (0, 0)):
        wider.paste(picture, (x, y))
    return wider


def _gif(frames: Iterator[PIL.Image.Image], pace: Pace, comment: str | None) -> bytes:
    from PIL import Image

    shown = [frame.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE) for frame in frames]
    ends = [round(100 * number / pace.fps) for number in range(len(shown) + 1)]  # hundredths of a second
    options = {"duration": [10 * max(b - a, 1) for a, b in itertools.pairwise(ends)], "optimize": False, "disposal": 1}
    options |= {} if pace.loop == "once" else {"loop": 0}
    options |= {} if comment is None else {"comment": comment.encode()}
    buffer = io.BytesIO()
    shown[0].save(buffer, format="GIF", save_all=True, append_images=shown[1:], **options)
    return buffer.getvalue()


def read_recipe(path: str | os.PathLike[str]) -> str:
    """The recipe inside a film, as it was written.

    Raises:
        ValueError: another kind of file, a damaged one, or a film without a recipe; says which.
    """
    kind = files.sniff(path)
    try:
        if kind == "a GIF image":
            from PIL import Image

            with Image.open(path) as picture:
                found = picture.info.get("comment", b"").decode("utf-8", "replace")
        elif kind == "an MP4 film":
            import av

            with av.open(os.fspath(path)) as container:
                found = container.metadata.get("comment", "")
        else:
            raise ValueError(f"{path} is {kind}, expected a film that steer wrote, MP4 or GIF.")
    except (OSError, SyntaxError) as error:  # what libraries say of damaged files
        raise ValueError(f"{path} is a damaged film: {' '.join(str(error).split())}.") from error
    if not found.startswith(PREFIX):
        raise ValueError(f"{path} is a film without a recipe: it was not written by steer, or another program saved it again.")
    return found.removeprefix(PREFIX)
