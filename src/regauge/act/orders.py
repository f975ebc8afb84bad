"""Index sets in a canonical order: by invariants of their entries under everything that is still free."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regauge.act.slices import beside_ones, collect, spread, tilted
from regauge.graph.ir import Param
from regauge.solve.element import Permute
from regauge.solve.plan import Plan
from regauge.solve.state import State

REFINEMENTS = 2
GOLDEN = (math.sqrt(5) - 1) / 2


def sorted_orders(plan: Plan, state: State) -> tuple[Permute, dict[int, float]]:
    """The permutation that sorts every index set, largest key first, and the smallest gap between neighbours, relative.

    Keys: sums of squares and of fourth powers of an entry's slices, weighted block by block; then, as in the refinement of
    colours, the same sums weighted by the keys of the other axes, so that entries of equal norm are told apart by whom they
    are connected to. Entries that remain equal are interchangeable in every second and fourth moment.
    """
    keys: dict[int, Tensor] = {}
    for _ in range(1 + REFINEMENTS):
        keys = _keys(plan, state, keys)
    orders, gaps = {}, {}
    for s in sorted(plan.shuffles.values(), key=lambda s: (-len(s.places), s.root)):
        if s.root not in keys:
            continue
        key = keys[s.root]
        orders[s.root] = torch.argsort(key, dim=-1, descending=True, stable=True)
        ranked = key.sort(-1).values
        if s.n > 1:
            gaps[s.root] = float((ranked[..., 1:] - ranked[..., :-1]).min() / ranked.abs().max().clamp_min(1e-300))
    return Permute(orders), gaps


def _keys(plan: Plan, state: State, old: dict[int, Tensor]) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    cells = plan.indices.cells
    weight = 0.0
    rigid = beside_ones(plan, state)
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        for block in plan.blocks.of[v.id]:
            weight = (weight + GOLDEN) % 1.0
            mine = []
            for k in range(len(block.leaves)):
                root = plan.indices.root[cells.cell(block, k)]
                if root in plan.shuffles:
                    c = cells.cell(block, k)
                    places = plan.index_places[root]
                    mine.append((k, root, tuple(places[p][c] for p, _ in plan.shuffles[root].places)))
            if not mine:
                continue
            x = tilted(state.read(block), rigid.get(block.id, ()))
            square = x * x
            mean = square.mean().clamp_min(1e-300)
            size = (1 + weight) * square / mean + (1 - weight) * (square / mean) ** 2 / 8
            for k, root, within in mine:
                weighted = size
                for other, r, at in mine:
                    if r in old and other != k and other not in within:
                        tone = torch.cos(3 * old[r] / old[r].abs().mean().clamp_min(1e-300))
                        weighted = weighted * (1 + spread(tone, (*at, other), x.ndim) / 2)
                key = collect(weighted, (*within, k)) * (block_size(plan, root) / x.numel())
                found[root] = found[root] + key if root in found else key
    return found


def block_size(plan: Plan, root: int) -> int:
    s = plan.shuffles[root]
    return s.n * math.prod(n for _, n in s.places)
