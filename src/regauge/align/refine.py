"""All of an element at once: Gauss-Newton for the least squares of g.a - b, each block weighed by its rounding error.

What a frame, a scale or a translation is read off one tensor carries that tensor's rounding; where a reader divides by a
small constant it is made large, and whatever is solved next fits the error instead of the model. Here every tensor has its
say on everything: min over v of |W (J v - (b - g.a))| by conjugate gradients, then g <- exp(v) g. No member of the group
fits better, to first order, so what rounding explains is found however the errors are carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, prod

import torch
from torch import Tensor

from regauge.align.affine import settle
from regauge.align.conjugate import least_squares, norm
from regauge.align.held import working_dtype
from regauge.align.leaves import Layout, Piece
from regauge.align.redrawn import Dithered
from regauge.align.tangent import CHARGE, FRAME, Arrays, Tangent, Vector, unnoticed
from regauge.align.verdict import WIDE
from regauge.errors import CheckError
from regauge.solve.element import Element
from regauge.solve.state import State

ROUNDS = 9
BETTER = 0.99  # a round must leave less than this part
PROBES = 8  # of the size of a column
TOLD = 0.5  # of the distance: where the whole group, to first order, leaves more than this, what is left is no gauge,
EXPLAINED = 3.0  # unless it is no more than so many times the rounding errors
LARGE, SAMPLE = 1 << 24, 1 << 23  # entries of a model of which a part is looked at first, and of the part, at most
LONG = 0.5  # the largest logarithm of one round


def refine(element: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor], layout: Layout) -> Element:
    """The element nearby that takes a nearest to b, each block measured by its rounding error; the same where a part of the
    model shows already that no element explains the rest."""
    some = _part(layout)
    if some is not None and _Round.at(element, a, b, some).solved().hopeless:
        return element
    size, nearest, hopeless = inf, element, False
    weights = _weights(element, a, b, layout)
    for _ in range(ROUNDS):
        here = _Round.at(element, a, b, layout, weights)
        last, size = size, norm(here.left)
        nearest = element if size < last else nearest
        if hopeless or not size < BETTER * last:
            break
        found = here.solved()
        element = Element(element.plan, (*element.moves, *here.tangent.moves(_bounded(found.step))))
        try:
            settled = settle(element.moved(State(element.plan, a)), State(element.plan, b))
        except CheckError:  # the step leads to where its translations have no answer
            break
        element = Element(element.plan, (*element.moves, *settled))
        hopeless = found.hopeless
    return nearest


def _part(layout: Layout) -> Layout | None:
    """Neighbouring pieces of a large model, with many more entries than the group has directions there; None for a small one.

    What the group cannot explain of them it cannot explain of all."""
    if sum(_numel(p) for p in layout.pieces) < LARGE:
        return None
    hidden = unnoticed(layout.plan)
    best: tuple[Piece, ...] = ()
    run: list[Piece] = []
    for p in layout.pieces:
        run.append(p)
        while run and (p.block.id in hidden or sum(_numel(x) for x in run) > SAMPLE):
            run.pop(0)
        best = max(best, tuple(run), key=lambda r: sum(_numel(x) for x in r))
    return replace(layout, pieces=best) if best else None


def _numel(p: Piece) -> int:
    return prod(p.block.sizes)


@dataclass(frozen=True)
class _Solved:
    """step: v that minimises |left - W J v|; hopeless: what is left then is no rounding, and not less by much."""

    step: Vector
    hopeless: bool


@dataclass(frozen=True)
class _Round:
    """W (b - g.a) at an element, without what nobody sees, and how the group moves it."""

    tangent: Tangent
    weights: Mapping[int, float]
    left: Arrays

    @classmethod
    def at(
        cls,
        element: Element,
        a: Mapping[str, Tensor],
        b: Mapping[str, Tensor],
        layout: Layout,
        weights: Mapping[int, float] | None = None,
    ) -> _Round:
        weights = _weights(element, a, b, layout) if weights is None else weights
        state, target = element.moved(State(element.plan, a)), State(element.plan, b)
        tangent = Tangent(layout, state, working_dtype(element.plan))
        left = {}
        for i, block in tangent.blocks.items():
            away = weights[i] * (target.read(block) - state.read(block))
            left[i] = away.to(tangent.dtype)
        return cls(tangent, weights, tangent.visible(left))

    def solved(self) -> _Solved:
        def precondition(s: Vector) -> Vector:
            return self.tangent.admissible({k: t / columns[k] for k, t in s.items()})

        columns = self._columns()
        goal = float(sum(x.numel() for x in self.left.values())) ** 0.5  # every rounding error counts as one
        step, rest = least_squares(self._push, self._pull, precondition, self.left, goal)
        return _Solved(step, norm(rest) > max(TOLD * norm(self.left), EXPLAINED * goal))

    def _push(self, v: Vector) -> Arrays:
        return {b: self.weights[b] * x for b, x in self.tangent.push(v).items()}

    def _pull(self, x: Mapping[int, Tensor]) -> Vector:
        return self.tangent.pull({b: self.weights[b] * t for b, t in x.items()})

    def _columns(self) -> Vector:
        """Squared norms of the columns of W J, estimated: E |J^T z|^2 over random signs z is the diagonal of J^T J."""
        g = torch.Generator().manual_seed(0)
        total = self.tangent.zero()
        for _ in range(PROBES):
            signs = {b: (2 * torch.randint(0, 2, x.shape, generator=g) - 1).to(x) for b, x in self.left.items()}
            total = {k: total[k] + t.square() / PROBES for k, t in self._pull(signs).items()}
        return {k: t.clamp_min(1e-12 * float(t.max()) + 1e-300) if t.numel() else t for k, t in total.items()}


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
