"""The ImageNet features."""

from __future__ import annotations

import pytest
import torch

from steerable import zoo
from steerable.features.backbone import EfficientNetLite0

IMAGES = torch.rand(18, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_features_are_1280_non_negative_numbers() -> None:
    values = zoo.load_backbone()(IMAGES)
    assert values.shape == (18, EfficientNetLite0.num_features)
    assert values.min() >= 0
    assert values.std() > 0


@torch.no_grad()
def test_rows_do_not_depend_on_the_batch() -> None:
    backbone = zoo.load_backbone()
    torch.testing.assert_close(backbone(IMAGES)[4:6], backbone(IMAGES[4:6]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_activations_get_coarser_stage_by_stage() -> None:
    maps = zoo.load_backbone().activations(IMAGES[:1])
    assert [tuple(one.shape[1:]) for one in maps] == [
        *((16, 32, 32), (24, 16, 16), (40, 8, 8), (80, 4, 4), (112, 4, 4), (192, 2, 2), (320, 2, 2)),
    ]


def test_gradients_reach_the_pixels() -> None:
    images = IMAGES[:1].clone().requires_grad_()
    zoo.load_backbone()(images).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.any()


@torch.no_grad()
def test_other_sizes_are_resized() -> None:
    backbone = zoo.load_backbone(size=96)
    assert backbone.activations(IMAGES[:1])[0].shape[-1] == 48
    assert backbone(IMAGES[:1, :1, :50]).shape == (1, 1280)


def test_a_size_that_does_not_halve_five_times_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        EfficientNetLite0(size=100)
