"""Scales with tensors on one side only, such as a direction that is divided by its norm: the slices get norm 1."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from regauge.act.slices import Part, collect, parts, pure, zeros
from regauge.solve.plan import Plan
from regauge.solve.state import State


def one_sided(plan: Plan, state: State) -> tuple[frozenset[int], list[Tensor]]:
    """The charges that only raise or only lower, and the step of each that makes its slices' norms 1."""
    found: set[int] = set()
    steps = zeros(plan)
    for part in parts(plan, state, ()):
        mine = [i for i in part.charges if _one_sided(part, i)]
        found |= set(mine)
        for i in mine:
            if any(
                _inside(plan, i, j) for j in mine
            ):  # goes with the larger one, also where that has nothing left to do
                continue
            for j, f in _unit(plan, part, state, i, mine).items():
                steps[j] = f
    return frozenset(found), steps


def _one_sided(part: Part, i: int) -> bool:
    signs = {e.coefficient > 0 for es in part.entries.values() for e in es if e.charge == i}
    return len(signs) == 1


def _inside(plan: Plan, i: int, j: int) -> bool:
    """Charge i is a part of the function of which charge j is another part."""
    a, b = plan.charges.scales[i], plan.charges.scales[j]
    same = {(x, c) for x, _, c in a.on} == {(x, c) for x, _, c in b.on}
    return i != j and same and set(a.classes) < set(b.classes)


def _unit(plan: Plan, part: Part, state: State, i: int, mine: list[int]) -> dict[int, Tensor]:
    c = plan.charges.scales[i]
    size = torch.zeros(c.shape, dtype=torch.float64)
    power = 1.0
    for block in part.blocks:
        for e in part.entries[block.id]:
            if e.charge == i:
                size = size + collect(state.read(block) ** 2, e.leaves)
                power = e.coefficient
    f = torch.where(size > 0, -torch.log(size.clamp_min(1e-300)) / (2 * power), 0.0)
    family = {tuple(plan.charges.scales[j].classes): j for j in mine if j == i or _inside(plan, j, i)}
    out: dict[int, Tensor] = {}
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
