"""A function's value at a point and its derivative there, as products from both sides.

``sensitivity.derived`` makes one of any differentiable function, ``differences.black_box`` of any function at all, and a network
that knows better (``generators.dcgan``) makes its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Linear:
    """A value and the linear map around it.

    Attributes:
        value: (n, *out) at the point (n, *in).
        push: ``J v``, tangents (t, n, *in) -> (t, n, *out).
        pull: ``J' u``, cotangents (t, n, *out) -> (t, n, *in).
        push_passes, pull_passes: what one product costs, in passes of the function itself.
        kind: how it is made, in words.
    """

    value: Tensor
    push: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor], Tensor]
    push_passes: int = 1
    pull_passes: int = 1
    kind: str = "a linear pass of its own"

    def then(self, after: Linear) -> Linear:
        """``after`` of this one, by the chain rule; it counts as many passes as this one, which is taken to be the dearer."""
        return Linear(
            after.value,
            lambda tangents: after.push(self.push(tangents)),
            lambda cotangents: self.pull(after.pull(cotangents)),
            self.push_passes,
            self.pull_passes,
            self.kind,
        )
