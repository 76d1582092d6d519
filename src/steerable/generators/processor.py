"""What a processor does fast, where that decides between two ways to the same numbers.

Half of today's processors have no instructions for bfloat16; there it is emulated, and a StyleGAN 2 takes fifteen times
as long as in float32. So ``precision="bfloat16"`` means: bfloat16 where that is faster, float32 elsewhere.
"""

from __future__ import annotations

import logging
import platform
from functools import lru_cache

import torch

from steerable import checks

LOG = logging.getLogger(__name__)


def has_bfloat16(device: str) -> bool:
    """Whether a kind of device ("cpu", "cuda", ...) has instructions for bfloat16."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return True
    if platform.machine().lower() in {"x86_64", "amd64"}:
        return torch.cpu._is_avx512_bf16_supported()  # AVX-512 alone emulates it
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def has_tiles(device: str) -> bool:
    """Whether it multiplies whole tiles of bfloat16 (AMX), many times as fast as vectors of float32: then only memory counts."""
    return device == "cpu" and has_bfloat16(device) and torch.cpu._is_amx_tile_supported()


@lru_cache
def half(device: str) -> bool:
    """Whether what may be rounded to bfloat16 is: the answer of ``has_bfloat16``; a no is logged, once."""
    if not has_bfloat16(device):
        LOG.info("this processor has no instructions for bfloat16: float32 is used, which is faster here.")
        return False
    return True


def chosen(precision: str, device: str) -> str:
    """A training's precision, "float32" or "bfloat16", of "auto" too. What will be slow is said and done: precision is part of a result.

    Raises:
        ValueError: neither of the three.
    """
    checks.known(precision, ("auto", "float32", "bfloat16"), "precision")
    native = has_bfloat16(device)
    if precision == "bfloat16" and not native:
        LOG.warning(
            "this processor has no instructions for bfloat16 and takes many times as long with it: precision auto or float32 is faster."
        )
    return precision if precision != "auto" else "bfloat16" if native else "float32"
