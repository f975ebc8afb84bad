"""Generic members of the groups: matrices, scales, signs and orders."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Generator, Tensor

from regauge.solve.charges import Charge
from regauge.solve.element import Permute, Rotate, Scale
from regauge.solve.plan import Plan, Shuffle, Source
from regauge.solve.translate import Hide, Shift, Wander

SPREAD = 0.3  # standard deviation of log-scales: generic, yet well conditioned
STEP = 0.02  # standard deviation of translations: the size of a trained weight, so that low precision can follow


def rotate(plan: Plan, generator: Generator) -> Rotate:
    return Rotate({s.root: matrices(s, generator) for s in plan.sources.values()})


def scale(plan: Plan, generator: Generator) -> Scale:
    scales = tuple(function(c, SPREAD * normal(generator, *c.shape)) for c in plan.charges.scales)
    signs = tuple(coin(generator, *c.shape) for c in plan.charges.signs)
    return Scale(scales, signs)


def permute(plan: Plan, generator: Generator) -> Permute:
    inner_first = sorted(plan.shuffles.values(), key=lambda s: -len(s.places))
    return Permute({s.root: orders(s, generator) for s in inner_first})


def shift(plan: Plan, generator: Generator, level: bool = False) -> Shift:
    shifts = plan.levels if level else plan.shifts
    return Shift({i: STEP * normal(generator, *shifts.sources[i].shape) for i in shifts.free}, level)


def hide(plan: Plan, generator: Generator) -> Hide:
    parts = {}
    for u in plan.unseen:
        sizes = u.block.sizes
        shapes = [[1 if k in along else n for k, n in enumerate(sizes)] for along in u.sets]
        parts[u.block.id] = tuple(STEP * normal(generator, *shape) for shape in shapes)
    return Hide(parts).also(plan.joint, [STEP * normal(generator, *j.shape) for j in plan.joint])


def wander(plan: Plan, generator: Generator) -> Wander:
    return Wander({v.op.name: STEP * normal(generator, *v.shape) for v in plan.absorbed})  # type: ignore[union-attr]


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def coin(generator: Generator, *shape: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator).double()


def function(charge: Charge, f: Tensor) -> Tensor:
    """Without the parts that depend on fewer index sets."""
    for a in range(len(charge.shape)):
        f = f - f.mean(a, keepdim=True)
    return f


def orders(s: Shuffle, generator: Generator) -> Tensor:
    shape = [n for _, n in s.places]
    keys = torch.rand((*shape, s.n), generator=generator)
    return torch.argsort(keys, -1)


def orthogonal(n: int, generator: Generator) -> Tensor:
    """Haar measure on O(n): QR of a Gaussian matrix with the signs of R fixed (Mezzadri 2007)."""
    q, r = torch.linalg.qr(normal(generator, n, n))
    return q * torch.sign(torch.diagonal(r))


def special(n: int, generator: Generator) -> Tensor:
    """A well-conditioned matrix with determinant 1 or -1."""
    logs = SPREAD * normal(generator, n)
    logs = logs - logs.mean()
    return orthogonal(n, generator) @ (torch.exp(logs)[:, None] * orthogonal(n, generator))


def ones_basis(n: int) -> Tensor:
    """An orthogonal matrix whose first column is ones / sqrt(n) (a Householder reflection)."""
    v = torch.full((n,), 1.0 / math.sqrt(n), dtype=torch.float64)
    v[0] -= 1.0
    if float(v.norm()) < 1e-12:
        return torch.eye(n, dtype=torch.float64)
    return torch.eye(n, dtype=torch.float64) - 2.0 * torch.outer(v, v) / v.dot(v)


def matrices(s: Source, generator: Generator) -> Tensor:
    shape = [n for _, n in s.places]
    out = torch.empty(*shape, s.n, s.n, dtype=torch.float64)
    for index in product(*map(range, shape)):
        out[index] = matrix(s.kind, s.n, generator)
    return out


def matrix(kind: str, n: int, generator: Generator) -> Tensor:
    match kind:
        case "GL":
            return special(n, generator)
        case "O":
            return orthogonal(n, generator)
        case "SO2":
            a = 2 * math.pi * torch.rand((), generator=generator, dtype=torch.float64)
            return torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])])
    basis = ones_basis(n)
    inner = torch.eye(n, dtype=torch.float64)
    if n > 1:
        inner[1:, 1:] = (
            orthogonal(n - 1, generator)
            if kind == "O1"
            else special(n - 1, generator) * torch.exp(SPREAD * normal(generator))
        )
    if kind == "GLv":  # fixes the vector of ones: anything may be added to it from elsewhere
        inner[0, 1:] = SPREAD * normal(generator, n - 1)
    if kind == "GLc":  # fixes the sum
        inner[1:, 0] = SPREAD * normal(generator, n - 1)
    return basis @ inner @ basis.mT
