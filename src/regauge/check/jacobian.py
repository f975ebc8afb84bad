"""The Jacobian of the observed outputs with respect to all parameters, and its null space.

    J : parameters -> outputs,   nullity(J) = dimension of the set of first-order symmetries at this point.

Everything runs in float64 with upcasts lifted, at generic parameters. Rows are normalised per input and columns by
their norm: neither changes the rank, both make the singular values comparable. Many batches of inputs give a few random
combinations of their outputs each, 1.25 P + 32 rows in all, so that the cost is one backward pass a parameter and one
pivoted QR of a square matrix: J Pi = Q [R11 R12; 0 R22] with R22 = 0 up to rounding, and

    null(J) = Pi [-R11^-1 R12; 1].
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import scipy.linalg
import torch
from torch import Tensor, nn

from regauge.check.generic import double_copy, randomise, resample
from regauge.check.lift import leaky, lifted, plain_eps
from regauge.check.observe import Observe, run
from regauge.errors import InputError

NULL = 1e-10  # no singular value above this, relative to the largest, is called null
NOISE = 1e-13  # none below this is called non-null: rounding leaves 1e-16 .. 1e-14
DROWNED = 1e-12  # a column this small beside the largest is rounding: its parameter has no effect on its own
CLEAR = 30.0  # the two values around the cut differ by at least this factor, or the measurement is called unclear
SPREAD = 16  # batches of inputs that share the rows of J among them
BATCHES = 400
CHUNK = 256


@dataclass(frozen=True, eq=False)
class NullSpace:
    """Null vectors of J at one generic point.

    `names` and `sizes` lay the parameters out in one vector of length P; `basis` is (P, nullity) with orthonormal
    columns in the coordinates scaled by `scale` (P), so that basis[:, i] / scale is a null vector itself. `above` and
    `below` are the smallest singular value that counts and the largest that does not, relative to the largest.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    nullity: int
    above: float
    below: float
    spectrum: tuple[float, ...]
    jacobian: Tensor
    basis: Tensor
    scale: Tensor
    point: dict[str, Tensor]

    @property
    def ratio(self) -> float:
        return self.above / max(self.below, 1e-16)

    @property
    def clear(self) -> bool:
        return self.ratio >= CLEAR

    @property
    def dead(self) -> Tensor:
        """Which parameters never reach the output, (P,): their columns of J are exactly zero."""
        return (self.jacobian == 0).all(0)

    def alone(self) -> tuple[int, ...]:
        """For each parameter tensor, the nullity of J restricted to it: directions that need no partner."""
        blocks = (self.jacobian / self.scale).split(self.sizes, 1)
        return tuple(n - _rank(block) for n, block in zip(self.sizes, blocks, strict=True))


def null_space(
    model: nn.Module,
    args: tuple,
    kwargs: dict | None = None,
    *,
    observe: Observe = None,
    seed: int = 0,
    leaks: bool = False,
) -> NullSpace:
    """Measure the null space of J at random parameters and inputs.

    The parameters' values are replaced (their shapes, ties and the model's mode are kept), inputs are drawn anew in the
    shapes of `args` until further ones leave the rank unchanged. With `leaks`, relu is measured by its leaky stand-in,
    whose units are alive everywhere.

    Raises InputError for a model on meta, without parameters, or whose output does not depend on them.
    """
    generator = torch.Generator().manual_seed(seed)
    twin = double_copy(model)
    randomise(twin, generator)
    named: dict[str, Tensor] = {n: p for n, p in twin.named_parameters() if p.requires_grad}
    total = sum(p.numel() for p in named.values())
    if not total:
        raise InputError("the model has no floating parameters: there is nothing to count")
    block = partial(_rows, twin, named, args, kwargs or {}, observe, leaks, generator, total)
    rows: list[Tensor] = []
    wanted = total + total // 4 + 32
    while sum(len(r) for r in rows) < wanted:
        rows.append(block())
        if len(rows) >= BATCHES:
            break
    jacobian = torch.cat(rows)
    for _ in range(4):
        split = _Split.of(jacobian)
        fresh = [block() for _ in range(3)]
        if not split.sees(torch.cat(fresh)):
            break
        jacobian = torch.cat([jacobian, *fresh, *(block() for _ in rows)])
    if split.rank == 0:
        raise InputError("the observed output does not depend on any parameter")
    values = split.values()
    return NullSpace(
        names=tuple(named),
        sizes=tuple(p.numel() for p in named.values()),
        nullity=total - split.rank,
        above=values[3],
        below=values[4],
        spectrum=values,
        jacobian=jacobian,
        basis=split.basis,
        scale=split.scale,
        point={n: t.detach().clone() for n, t in twin.state_dict().items()},
    )


@dataclass(frozen=True, eq=False)
class _Split:
    """A Jacobian's rank and null basis, in columns scaled by `scale`."""

    scaled: Tensor
    scale: Tensor
    rank: int
    diagonal: Tensor
    r11: Tensor
    basis: Tensor

    @staticmethod
    def of(jacobian: Tensor) -> _Split:
        scale = jacobian.norm(dim=0)
        # never scale noise up: a drowned column keeps its smallness
        scale = torch.where(scale > DROWNED * scale.max(), scale, scale.max().clamp_min(1e-300))
        scaled, total = jacobian / scale, jacobian.shape[1]
        factor, order = scipy.linalg.qr(scaled.numpy(), mode="r", pivoting=True, check_finite=False)
        r, order = torch.from_numpy(factor), torch.from_numpy(order).long()
        diagonal = r.diagonal().abs()
        rank = cut(diagonal)
        r11, r12 = r[:rank, :rank], r[:rank, rank:]
        vectors = torch.zeros(total, total - rank, dtype=torch.float64)
        vectors[order[:rank]] = -torch.linalg.solve_triangular(r11, r12, upper=True)
        vectors[order[rank:]] = torch.eye(total - rank, dtype=torch.float64)
        return _Split(scaled, scale, rank, diagonal, r11, torch.linalg.qr(vectors).Q)

    def sees(self, rows: Tensor) -> bool:
        """Whether new rows of J move along vectors that the old ones did not."""
        if not self.basis.shape[1]:
            return False
        vectors = self.basis / self.scale[:, None]
        return bool((rows @ (vectors / vectors.norm(dim=0))).norm() / rows.norm() > NULL)

    def values(self) -> tuple[float, ...]:
        """The four smallest singular values that count and the four largest that do not, relative to the largest."""
        top = torch.linalg.vector_norm(self.scaled @ _leading(self.scaled))
        kept = _smallest(self.r11, 4) / top
        null = torch.linalg.svdvals(self.scaled @ self.basis) / top if self.basis.shape[1] else kept.new_zeros(0)
        pad = (*kept.tolist(), *null[:4].tolist())
        return (*([1.0] * (4 - len(kept))), *pad, *([0.0] * (4 - min(4, len(null)))))


def _leading(matrix: Tensor, steps: int = 20) -> Tensor:
    """The leading right singular vector by power iteration (two digits suffice for a scale)."""
    vector = torch.ones(matrix.shape[1], dtype=torch.float64)
    for _ in range(steps):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / vector.norm()
    return vector


def _smallest(r: Tensor, count: int, steps: int = 4) -> Tensor:
    """The smallest singular values of an upper triangular matrix, descending, by inverse subspace iteration."""
    n = len(r)
    if n <= 64:
        return torch.linalg.svdvals(r)[-count:]
    block = torch.randn(n, 2 * count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(steps):
        block = torch.linalg.qr(torch.linalg.solve_triangular(r.T, block, upper=False)).Q
        block = torch.linalg.qr(torch.linalg.solve_triangular(r, block, upper=True)).Q
    return torch.linalg.svdvals(r @ block)[-count:]


def _rows(
    model: nn.Module,
    named: dict[str, Tensor],
    args: tuple,
    kwargs: dict,
    observe: Observe,
    leaks: bool,
    generator: torch.Generator,
    total: int,
) -> Tensor:
    """J's rows for one batch of inputs, (m, P): random combinations of the outputs, or all outputs if they are few."""
    args, kwargs = resample((args, kwargs), generator)
    # the backward pass needs no lift: it follows the dtypes that the forward pass really had
    with lifted(), plain_eps(), leaky() if leaks else nullcontext():
        outputs = run(model, args, kwargs, observe)
    flat = torch.cat([(torch.view_as_real(t) if t.is_complex() else t).reshape(-1) for t in outputs.values()])
    if not flat.requires_grad:
        raise InputError("the observed output does not depend on any parameter")
    if not bool(torch.isfinite(flat).all()):
        raise InputError("the model returns NaN or infinity at generic parameters: observe something finite")
    m, few = len(flat), ceil((1.25 * total + 32) / SPREAD)
    if m > few:
        seeds = torch.randn(few, m, generator=generator, dtype=torch.float64) / m**0.5
    else:
        seeds = torch.eye(m, dtype=torch.float64)
    rows = torch.cat([_pull(flat, named, chunk) for chunk in seeds.split(CHUNK)])
    return rows / rows.norm().clamp_min(1e-300) * len(rows) ** 0.5


def calls_relu(model: nn.Module, args: tuple, kwargs: dict | None = None) -> bool:
    """Whether the model's code calls relu, so that the leaky stand-in says something new."""
    mode = leaky()
    with torch.no_grad(), mode:
        model(*args, **(kwargs or {}))
    return mode.calls > 0


def _pull(flat: Tensor, named: dict[str, Tensor], cotangents: Tensor) -> Tensor:
    """cotangents @ J by one batched backward pass, or row by row where an operator has no batched one."""
    parameters = tuple(named.values())
    options = {"retain_graph": True, "allow_unused": True}
    try:
        grads: Any = torch.autograd.grad(flat, parameters, cotangents, is_grads_batched=True, **options)
    except RuntimeError:
        each = [torch.autograd.grad(flat, parameters, c, **options) for c in cotangents]
        grads = tuple(None if g[0] is None else torch.stack(g) for g in zip(*each, strict=True))
    pieces = [
        torch.zeros(len(cotangents), p.numel(), dtype=torch.float64) if g is None else g.reshape(len(g), -1)
        for p, g in zip(parameters, grads, strict=True)
    ]
    return torch.cat(pieces, 1).detach()


def _rank(block: Tensor) -> int:
    if len(block) > block.shape[1]:
        block = torch.linalg.qr(block, mode="r").R
    return cut(torch.linalg.svdvals(block))


def cut(values: Tensor) -> int:
    """The rank that descending singular values (or pivots) show: the widest ratio between a value above NOISE and one
    below NULL, relative to the largest; a value that is absent counts as 1e-16."""
    if not len(values) or values[0] == 0:
        return 0
    top = (values / values[0]).clamp_min(1e-16)
    below = torch.cat([top[1:], top.new_tensor([1e-16])])
    ratio = torch.where((below < NULL) & (top > NOISE), top / below, 0.0)
    return int(ratio.argmax()) + 1
