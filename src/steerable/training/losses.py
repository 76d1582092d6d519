"""The terms of adversarial and joint training: scalars, smaller is better. ``steerable`` adds them up.

Scores are those of a discriminator before its sigmoid, so that softplus(-score) is the cross entropy of "real" and
softplus(score) that of "generated".

Sources: Goodfellow et al., "Generative adversarial nets", NeurIPS 2014, section 3, for the losses; Mescheder, Geiger & Nowozin, "Which
training methods for GANs do actually converge?", ICML 2018, eq. 9, for the penalty. The error of a walk is ``edits.masked_error``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steerable.protocols import Images

Scores = Float[Tensor, " n"]
Scalar = Float[Tensor, ""]


def called_real(scores: Scores) -> Scalar:
    """Cross entropy of saying that these are real: the discriminator's of real images, the generator's (non-saturating) of its own."""
    return F.softplus(-scores).mean()


def called_generated(scores: Scores) -> Scalar:
    """Cross entropy of saying that these are generated."""
    return F.softplus(scores).mean()


def gradient_penalty(scores: Scores, images: Images) -> Scalar:
    """R1 without its weight: half the squared length of the score's gradient in each real image, mean over them.

    ``scores`` must have been computed from ``images`` alone, row by row, with gradients.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2
