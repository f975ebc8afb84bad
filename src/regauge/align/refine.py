"""All of an element at once: Gauss-Newton for the least squares of g.a - b, each block weighed by its rounding error.

What a frame, a scale or a translation is read off one tensor carries that tensor's rounding; where a reader divides by a
small constant it is made large, and whatever is solved next fits the error instead of the model. Here every tensor has its
say on everything: min over v of |W (J v - (b - g.a))| by conjugate gradients, then g <- exp(v) g. No member of the group
fits better, to first order, so what rounding explains is found however the errors are carried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

import torch
from torch import Tensor

from regauge.align.affine import settle
from regauge.align.conjugate import least_squares, norm
from regauge.align.held import working_dtype
from regauge.align.leaves import Layout
from regauge.align.redrawn import Dithered
from regauge.align.tangent import CHARGE, FRAME, Arrays, Tangent, Vector
from regauge.align.verdict import WIDE
from regauge.errors import CheckError
from regauge.solve.element import Element
from regauge.solve.state import State

ROUNDS = 9
BETTER = 0.99  # a round must leave less than this part
PROBES = 8  # of the size of a column
LONG = 0.5  # the largest logarithm of one round


def refine(element: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor], layout: Layout) -> Element:
    """The element nearby that takes a nearest to b, each block measured by its rounding error."""
    plan, target = element.plan, State(element.plan, b)
    weights, dtype = _weights(element, a, b, layout), working_dtype(element.plan)
    size, nearest = inf, element
    for _ in range(ROUNDS):
        state = element.moved(State(plan, a))
        tangent = Tangent(layout, state, dtype)
        left = {}
        for i, block in tangent.blocks.items():
            away = weights[i] * (target.read(block) - state.read(block))
            left[i] = away.to(dtype)
        left = tangent.visible(left)
        last, size = size, norm(left)
        nearest = element if size < last else nearest
        if not size < BETTER * last:
            break
        moves = tangent.moves(_bounded(_step(tangent, weights, left)))
        element = Element(plan, (*element.moves, *moves))
        try:
            element = Element(plan, (*element.moves, *settle(element.moved(State(plan, a)), target)))
        except CheckError:  # the step leads to where its translations have no answer
            break
    return nearest


def _bounded(v: Vector) -> Vector:
    """Shortened to where the group's exponential is near its first order."""
    logs = [t for (kind, _), t in v.items() if kind in (FRAME, CHARGE) and t.numel()]
    longest = max((float(t.abs().max()) for t in logs), default=0.0)
    return {k: t * (LONG / max(longest, LONG)) for k, t in v.items()}


def _weights(element: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor], layout: Layout) -> dict[int, float]:
    """One over the size that rounding errors of a and b have in an entry of a block: one number for each parameter."""
    plan = element.plan
    x, y = element.moved(State(plan, a)), State(plan, b)
    near, far = element.moved(State(plan, Dithered(a))), State(plan, Dithered(b))
    squares: dict[str, float] = {}
    numel: dict[str, int] = {}
    for p in layout.pieces:
        there = y.read(p.block)
        errors = (near.read(p.block) - x.read(p.block), far.read(p.block) - there, WIDE * there)
        squares[p.name] = squares.get(p.name, 0.0) + sum(float(e.square().sum()) for e in errors)
        numel[p.name] = numel.get(p.name, 0) + there.numel()
    sizes = {n: (s / max(numel[n], 1)) ** 0.5 for n, s in squares.items()}
    least = min((s for s in sizes.values() if s > 0), default=1.0)
    return {p.block.id: 1 / max(sizes[p.name], 1e-3 * least) for p in layout.pieces}


def _step(tangent: Tangent, weights: Mapping[int, float], left: Arrays) -> Vector:
    """v that minimises |left - W J v|."""

    def push(v: Vector) -> Arrays:
        return {b: weights[b] * x for b, x in tangent.push(v).items()}

    def pull(x: Mapping[int, Tensor]) -> Vector:
        return tangent.pull({b: weights[b] * t for b, t in x.items()})

    columns = _columns(tangent, pull)
    goal = sum(x.numel() for x in left.values()) ** 0.5
    return least_squares(
        push, pull, lambda s: tangent.admissible({k: t / columns[k] for k, t in s.items()}), left, goal
    )


def _columns(tangent: Tangent, pull: Callable[[Arrays], Vector]) -> Vector:
    """Squared norms of the columns of W J, estimated: E |J^T z|^2 over random signs z is the diagonal of J^T J."""
    g = torch.Generator().manual_seed(0)
    total = tangent.zero()
    for _ in range(PROBES):
        signs = {b: (2 * torch.randint(0, 2, x.shape, generator=g) - 1).to(x) for b, x in tangent.arrays.items()}
        total = {k: total[k] + t.square() / PROBES for k, t in pull(signs).items()}
    return {k: t.clamp_min(1e-12 * float(t.max()) + 1e-300) if t.numel() else t for k, t in total.items()}
