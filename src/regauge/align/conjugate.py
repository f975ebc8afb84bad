"""Least squares without a matrix: conjugate gradients on the normal equations (Hestenes and Stiefel 1952), preconditioned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

STEPS = 300
LOOK = 10  # steps between two looks at the residual
SLOW, STILL = 0.99, 0.999  # it ends where they leave more than this part of it; near the goal, than that
EXACT = 1e-14  # of the first residual

K = TypeVar("K")
Vector = dict[K, Tensor]


def least_squares(
    push: Callable[[Vector], dict[int, Tensor]],
    pull: Callable[[Mapping[int, Tensor]], Vector],
    precondition: Callable[[Vector], Vector],
    r: Mapping[int, Tensor],
    goal: float = 0.0,
) -> tuple[Vector, dict[int, Tensor]]:
    """v that minimises |r - push(v)|, of the least norm in the metric of the preconditioner; and r - push(v).

    pull: the transpose of push. precondition: positive, about the inverse of pull(push(.)). goal: a residual that is as good
    as none; near it the search is more patient.
    """
    left = dict(r)
    s = pull(left)
    p = precondition(s)
    v = {k: torch.zeros_like(t) for k, t in p.items()}
    gamma, history = dot(s, p), [norm(left)]
    for step in range(1, STEPS + 1):
        if gamma <= 0 or history[-1] <= EXACT * history[0]:
            break
        q = push(p)
        alpha = gamma / max(norm(q) ** 2, 1e-300)
        v = {k: t + alpha * p[k] for k, t in v.items()}
        left = {k: t - alpha * q[k] for k, t in left.items()}
        history.append(norm(left))
        if step >= LOOK and history[-1] > (STILL if history[-1] < 2 * goal else SLOW) * history[-1 - LOOK]:
            break
        s = pull(left)
        z = precondition(s)
        gamma, last = dot(s, z), gamma
        p = {k: t + gamma / last * p[k] for k, t in z.items()}
    return v, left


def dot(x: Mapping[K, Tensor], y: Mapping[K, Tensor]) -> float:
    return sum(float((t * y[k]).sum(dtype=torch.float64)) for k, t in x.items())


def norm(x: Mapping[K, Tensor]) -> float:
    return sum(float(t.square().sum(dtype=torch.float64)) for t in x.values()) ** 0.5
