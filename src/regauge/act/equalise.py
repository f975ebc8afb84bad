"""Equal ranges on both sides of a scale: the largest entry, or the largest singular value, in as out.

The l-infinity form is the cross-layer equalisation of Nagel et al., Data-Free Quantization Through Weight Equalization and
Bias Correction (2019), for any charge.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from regauge.act.slices import Part, pure
from regauge.solve.plan import Plan


def equalise(plan: Plan, part: Part, arrays: dict[int, Tensor], i: int, norm: str) -> dict[int, Tensor]:
    """The step of charge i (and of the charges of fewer index sets that move the same tensors alike) after which, at every
    index, the largest slice norm among the tensors that it raises equals the largest among those that it lowers. Indices
    with a side that is zero stay."""
    c = plan.charges.scales[i]
    up: list[tuple[float, Tensor]] = []
    down: list[tuple[float, Tensor]] = []
    for b, entries in part.entries.items():
        for e in entries:
            if e.charge == i:
                size = torch.log(slice_norms(arrays[b], e.leaves, norm))
                (up if e.coefficient > 0 else down).append((e.coefficient, size))
    f = _meeting(up, down, c.shape)
    out: dict[int, Tensor] = {}
    family = {tuple(plan.charges.scales[j].classes): j for j in part.charges if _alike(plan, i, j)}
    rest = f
    for k in range(f.ndim + 1):
        shown = []
        for s in combinations(range(f.ndim), k):
            others = [a for a in range(f.ndim) if a not in s]
            mean = rest.mean(others, keepdim=True) if others else rest
            j = family.get(tuple(c.classes[a] for a in s))
            if j is not None:
                out[j] = pure(plan.charges.scales[j], mean.reshape([f.shape[a] for a in s]))
            shown.append(mean)
        for mean in shown:
            rest = rest - mean
    return out


def leading(plan: Plan, part: Part, free: list[int]) -> list[int]:
    """Charges that are no part of another one's function."""
    return [
        i
        for i in free
        if not any(
            j != i and _alike(plan, j, i) and (not _alike(plan, i, j) or j < i) for j in part.charges if j in free
        )
    ]


def _alike(plan: Plan, i: int, j: int) -> bool:
    """Whether charge j moves the same blocks by the same powers, as a function of some of the index sets of charge i."""
    a, b = plan.charges.scales[i], plan.charges.scales[j]
    return set(b.classes) <= set(a.classes) and {(x, c) for x, _, c in a.on} == {(x, c) for x, _, c in b.on}


def _meeting(up: list[tuple[float, Tensor]], down: list[tuple[float, Tensor]], shape: tuple[int, ...]) -> Tensor:
    """f with max_up (c f + m) = max_down (c f + m), by bisection: the left side rises with f, the right side falls."""
    low, high = torch.full(shape, -100.0, dtype=torch.float64), torch.full(shape, 100.0, dtype=torch.float64)

    def largest(side: list[tuple[float, Tensor]], f: Tensor) -> Tensor:
        return torch.stack([c * f + m for c, m in side]).amax(0)

    if not up or not down:
        return torch.zeros(shape, dtype=torch.float64)
    powers = {abs(c) for c, _ in (*up, *down)}
    if len(powers) == 1:
        f = (largest(down, torch.zeros_like(low)) - largest(up, torch.zeros_like(low))) / (2 * powers.pop())
        return torch.where(torch.isfinite(f), f, 0.0)
    known = torch.isfinite(largest(up, torch.zeros_like(low))) & torch.isfinite(largest(down, torch.zeros_like(low)))
    for _ in range(70):
        middle = (low + high) / 2
        left = largest(up, middle) < largest(down, middle)
        low, high = torch.where(left, middle, low), torch.where(left, high, middle)
    return torch.where(known, (low + high) / 2, 0.0)


def slice_norms(x: Tensor, leaves: tuple[int, ...], norm: str) -> Tensor:
    """A norm of every slice of x at fixed indices of `leaves`, with axes in their order."""
    rest = [a for a in range(x.ndim) if a not in leaves]
    moved = x.permute([*leaves, *rest])
    lead = moved.shape[: len(leaves)]
    if norm == "linf":
        return moved.reshape(*lead, -1).abs().amax(-1)
    if len(rest) < 2:
        return moved.reshape(*lead, -1).norm(dim=-1)
    return torch.linalg.matrix_norm(moved.reshape(*lead, moved.shape[len(leaves)], -1), 2)
