"""Your own network as a generator, your own measurement as a feature, your own edit as a knob. A few seconds.

    python examples/own_generator.py [FOLDER]

The network here draws a soft disc from four numbers, so that every answer is known; any ``nn.Module`` that makes images from a
Gaussian latent comes in through the same door.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import steerable as st

out = Path(sys.argv[1] if len(sys.argv) > 1 else "own-generator")
out.mkdir(parents=True, exist_ok=True)


class Disc(nn.Module):
    """z (n, 4) -> grey images (n, 1, 32, 32) in [0, 1]: the latent mixes place, size and brightness of a disc."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0])

    def forward(self, z: Tensor) -> Tensor:
        x, y, size, light = (z @ self.mix).T[..., None, None]
        grid = torch.linspace(-1, 1, 32)
        distance = ((grid[None, None] - 0.2 * x) ** 2 + (grid[None, :, None] - 0.2 * y) ** 2).sqrt()
        disc = torch.sigmoid((0.4 * torch.exp(0.2 * size) - distance) * 12)
        return (disc * (0.5 + 0.1 * light.tanh()))[:, None]


def width(images: Tensor) -> Tensor:
    """Images (n, c, h, w) in [-1, 1] -> (n,): the root of the lit area, in image widths."""
    shown = (images.mean(1) + 1) / 2
    return (shown / shown.amax((1, 2), keepdim=True)).mean((1, 2)).sqrt()


# wrap() tries the network: it has to be deterministic, independent of the batch, finite, and of a known range.
discs = st.wrap(Disc(), latent_size=4, name="discs", value_range=(0, 1))
size = st.feature(width, name="disc-width", unit="image widths")
assert isinstance(discs, st.Generator) and isinstance(size, st.Feature)

# An axis of what you measure, as for the shipped features.
axes = st.fit_axes(discs, [size], n=400, calibration=64)
print("held-out", axes.fit["axes"]["disc-width"])

# A walk towards what you can draw: "add" has no label and no measurement, only a target image.
lighter = st.as_edit(
    lambda images, amounts: images + amounts[:, None, None, None] * (images > -0.9), st.Knob("lighter", "of [-1, 1]", -0.1, 0.1)
)
assert isinstance(lighter, st.Edit) and [one.knob.name for one in st.edit("zoom")] == ["zoom"]
walk = st.fit_directions(discs, lighter, n=256, calibration=0)

# A direction of yours gets its unit by measuring it: one unit of amount is then one unit of measured change, on average.
space = discs.spaces["z"]
assert isinstance(space, st.LatentSpace)
guess = st.Directions((st.Knob("disc-width", "image widths", -1, 1),), space, vectors=Disc().mix[:, 2].detach()[None])
control = st.calibrate(discs, guess, [size])
assert isinstance(control, st.Control)
knob = control.knobs[0]
print(f"{knob.name}: usable {knob.low:.2f} to {knob.high:.2f} {knob.unit}; median {knob.value_at(50):.2f}")

# Latents know where they live: these are the mean latent three times, and the control moves each by its own amount.
middle = st.Latents(torch.zeros(3, 4), space)
steered = control.steer(middle, torch.tensor([[-0.1], [0.0], [0.1]]))
with torch.no_grad():
    before, after = size(discs(middle))[:, 0], size(discs(steered))[:, 0]
    rows = [discs(steered), discs(walk.steer(middle, torch.tensor([[-0.1], [0.0], [0.1]])))]
print("asked -0.1, 0, 0.1; measured", *(f"{change:+.3f}" for change in (after - before)))
picture = st.strip(rows, row_labels=["width", "lighter"], column_labels=["-0.1", "0", "+0.1"], scale=3)
picture.save(out / "strip.png")

st.save_control(control, out / "width.safetensors")
print(f"written: {out / 'strip.png'}, width.safetensors")
