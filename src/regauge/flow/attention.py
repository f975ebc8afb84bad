"""One attention head as open Wilson lines, and what the lattice keeps there. Row-vector convention, X (n, dm).

Queries and keys are lines from the stream to the head's space and back: only W_q W_k^T enters, so g in GL(dk) acts
on the site between them, W_q -> W_q A, W_k -> W_k A^-T. Values and output: W_v -> W_v B, W_o -> B^-1 W_o, g in GL(dv).
With ReLU scores there is one more: queries times a and values divided by a, a > 0 (a softmax fixes the scale). Negative
a fails, although two negative factors on queries and keys cancel: they are the centre of GL(dk).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regauge.errors import InputError


@dataclass(frozen=True)
class Head:
    """W_q, W_k (dm, dk), W_v (dm, dv), W_o (dv, dm); scores "softmax" or "relu"."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    scores: str = "softmax"

    def __call__(self, x: Tensor) -> Tensor:
        """(n, dm) -> (n, dm), causality and scaling left out: they do not touch the symmetry."""
        product = (x @ self.query) @ (x @ self.key).T
        if self.scores == "softmax":
            weights = torch.softmax(product, -1)
        elif self.scores == "relu":
            weights = torch.relu(product)
        else:
            raise InputError(f"Head: scores {self.scores!r} are unknown; choose 'softmax' or 'relu'")
        return weights @ (x @ self.value) @ self.output

    def transformed(self, inner: Tensor | None = None, outer: Tensor | None = None, scale: float = 1.0) -> "Head":
        """inner A in GL(dk), outer B in GL(dv), scale a on queries and 1/a on values (ReLU scores, a > 0)."""
        if scale != 1.0 and (self.scores != "relu" or scale <= 0):
            raise InputError(f"Head: a scale of {scale} is a symmetry for ReLU scores and positive numbers only")
        head = replace(self, query=scale * self.query, value=self.value / scale)
        if inner is not None:
            head = replace(head, query=head.query @ inner, key=head.key @ torch.linalg.inv(inner).T)
        if outer is not None:
            head = replace(head, value=head.value @ outer, output=torch.linalg.inv(outer) @ head.output)
        return head


def rotary_element(real: Tensor, imaginary: Tensor) -> Tensor:
    """[[a, b], [-b, a]] in each rotary plane (half-split), a, b (dk/2,): what rotary positions leave of GL(dk)."""
    return torch.cat(
        [
            torch.cat([torch.diag(real), torch.diag(imaginary)], 1),
            torch.cat([torch.diag(-imaginary), torch.diag(real)], 1),
        ]
    )
