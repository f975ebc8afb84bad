"""Scales and signs that leave least of g.a - b, each tensor relative to its size: for two states that differ by more than
rounding. Balance reads a scale off norms, so a gain that training took through zero stretches all that it is read with; here
a number that is nearly nothing says nearly nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from regauge.align.balance import parts
from regauge.align.freedoms import Freedom, Freedoms
from regauge.align.leaves import Layout
from regauge.align.polish import LOCAL, by_size, polish
from regauge.align.scales import on_leaves, spread
from regauge.solve.element import Element, Move
from regauge.solve.state import State

ROUNDS = 4  # over the scales of a part, one after the other
TINY = 1e-280  # a sum of squares below this is none
Arrays = dict[int, Tensor]


def nearer(
    element: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor], layout: Layout, free: Freedoms
) -> Element:
    """The element with scales, signs and local frames fitted to the sizes of the tensors of b."""
    plan = element.plan
    x, y = element.moved(State(plan, a)), State(plan, b)
    pieces = {p.block.id: p for p in layout.pieces}
    functions: dict[int, Tensor] = {}
    signs: dict[int, Tensor] = {}
    for part in parts(layout, free, LOCAL):
        near = {i: x.read(pieces[i].block).double() for i in part.blocks}
        target = {i: y.read(pieces[i].block).double() for i in part.blocks}
        for _ in range(ROUNDS):
            for i in part.scales:
                f = free.scales[i]
                sign = _sign(free, f)
                factor = _factor(f, near, target, sign is not None)
                if factor is None:
                    continue
                log, odd = factor.abs().log(), factor.lt(0).double()
                for axis in range(log.ndim):
                    log = log - log.mean(axis, keepdim=True)
                functions[i] = functions[i] + log if i in functions else log
                if sign is not None:
                    signs[sign] = torch.remainder(signs[sign] + odd, 2) if sign in signs else odd
                step = log.exp() * (1 - 2 * odd)
                for k, leaves, c in f.on:
                    near[k] = near[k] * spread(step if c > 0 else 1 / step, leaves, near[k].ndim)
    moves: list[Move] = [*([free.scale(functions)] if functions else []), *([free.sign(signs)] if signs else [])]
    fitted = Element(plan, (*element.moves, *moves))
    return Element(plan, (*fitted.moves, *polish(fitted, a, b, layout, free, by_size)))


def _sign(free: Freedoms, f: Freedom) -> int | None:
    """The free sign that changes the same blocks on the same leaves."""
    wanted = {(b, leaves) for b, leaves, c in f.on if c % 2}
    found = (i for i, s in enumerate(free.signs) if {(b, leaves) for b, leaves, _ in s.on} == wanted)
    return next(found, None) if len(wanted) == len(f.on) else None


def _factor(f: Freedom, x: Mapping[int, Tensor], y: Mapping[int, Tensor], signed: bool) -> Tensor | None:
    """c for every place of the function, that minimises the sum of |x c - y|^2 over the blocks that it multiplies and of
    |x / c - y|^2 over those that it divides, each relative to |y|^2: the best root of a quartic. None where it enters in
    another power, or on one side alone."""
    if any(abs(c) != 1 for _, _, c in f.on) or len({c > 0 for _, _, c in f.on}) < 2:
        return None
    zero = torch.zeros(f.shape, dtype=torch.float64)
    squares, products = {True: zero, False: zero}, {True: zero, False: zero}
    for b, leaves, c in f.on:
        w = by_size(x[b], y[b], y[b].dtype)
        squares[c > 0] = squares[c > 0] + w * on_leaves(x[b] * x[b], leaves)
        products[c > 0] = products[c > 0] + w * on_leaves(x[b] * y[b], leaves)
    held = torch.stack([*squares.values(), *products.values()])
    told = (squares[True] > TINY) & (squares[False] > TINY) & torch.isfinite(held).all(0)
    p, q = (torch.where(told, squares[k], 1.0) for k in (True, False))
    r, s = (torch.where(told, products[k], 1.0) for k in (True, False))
    unit = (q / p) ** 0.25  # c = unit t, with t^4 - (r / p unit) t^3 + (s unit / q) t - 1 = 0
    cubic, linear = r / (p * unit), s * unit / q
    companion = torch.zeros(*f.shape, 4, 4, dtype=torch.float64)
    companion[..., 1:, :3] = torch.eye(3, dtype=torch.float64)
    companion[..., 0, 3], companion[..., 1, 3], companion[..., 3, 3] = 1.0, -linear, cubic
    t = torch.linalg.eigvals(companion)
    real = (t.imag.abs() <= 1e-9 * (1 + t.real.abs())) & (t.real != 0) & (signed | (t.real > 0))
    u = torch.where(real, t.real, 1.0)
    cost = u**2 - 2 * cubic[..., None] * u + 1 / u**2 - 2 * linear[..., None] / u
    best = torch.where(real, cost, torch.inf).argmin(-1, keepdim=True)
    return torch.where(told, unit * u.gather(-1, best)[..., 0], 1.0)
