"""Scales and signs with the gains of links pinned to one: what is left free, as combinations of the plan's charges.

A link conjugates a frame by the diagonal of its gain, X_out = D X_in D^-1. With D = 1 the frame is the same matrix on
both sides, and orthogonal frames act orthogonally; with phi = 1 what a reader of a centred value holds along it is its
row mean. So the charges that can bring a gain to one are spent on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from regauge.graph.ir import Param
from regauge.solve.blocks import Block
from regauge.solve.charges import Charge
from regauge.solve.element import Scale
from regauge.solve.plan import Plan
from regauge.solve.state import State, gather

On = tuple[int, tuple[int, ...], Fraction]  # block, leaves in the order of the function's axes, coefficient


@dataclass(frozen=True)
class Freedom:
    """A free function on places: `mix` says how much of it each charge of the plan takes; on: where it enters."""

    shape: tuple[int, ...]
    mix: tuple[tuple[int, Fraction], ...]
    on: tuple[On, ...]


@dataclass(frozen=True)
class Pin:
    """Charges of one type that bring gains to one: entry r of the gains is undone by `solve` applied to their logs."""

    members: tuple[int, ...]
    gains: tuple[tuple[Block, tuple[int, ...]], ...]  # with the leaf for each axis of the function
    solve: Tensor  # (members, gains)


@dataclass(frozen=True)
class Freedoms:
    plan: Plan
    scales: tuple[Freedom, ...]
    signs: tuple[Freedom, ...]
    scale_pins: tuple[Pin, ...]
    sign_pins: tuple[Pin, ...]

    def zero(self) -> tuple[list[Tensor], list[Tensor]]:
        c = self.plan.charges
        return (
            [torch.zeros(x.shape, dtype=torch.float64) for x in c.scales],
            [torch.zeros(x.shape, dtype=torch.float64) for x in c.signs],
        )

    def scale(self, functions: dict[int, Tensor]) -> Scale:
        """The move of these functions: index of a free scale -> log-scale."""
        logs, odd = self.zero()
        for i, f in functions.items():
            for c, x in self.scales[i].mix:
                logs[c] = logs[c] + float(x) * f
        return Scale(tuple(logs), tuple(odd))

    def sign(self, functions: dict[int, Tensor]) -> Scale:
        """The move of these functions: index of a free sign -> 0 or 1."""
        logs, odd = self.zero()
        for i, f in functions.items():
            for c, _ in self.signs[i].mix:
                odd[c] = torch.remainder(odd[c] + f, 2)
        return Scale(tuple(logs), tuple(odd))


def freedoms(plan: Plan) -> Freedoms:
    gains = link_gains(plan)
    scales, scale_pins = _split(plan.charges.scales, gains, False)
    signs, sign_pins = _split(plan.charges.signs, gains, True)
    return Freedoms(plan, scales, signs, scale_pins, sign_pins)


def link_gains(plan: Plan) -> dict[int, Block]:
    """Parameter blocks that are the diagonal of a link which turns a frame, or of a known relation that a reader uses."""
    found = {}
    turned = [d.link.gain.block for d in plan.frames.derived.values()]
    told = [g for shifts in (plan.shifts, plan.levels) for s in shifts.sources if s.known for g in s.known.gains]
    for block in (*turned, *told):
        if isinstance(block.value.op, Param):
            found[block.id] = block
    return found


def _split(
    charges: tuple[Charge, ...], gains: dict[int, Block], binary: bool
) -> tuple[tuple[Freedom, ...], tuple[Pin, ...]]:
    types: dict[tuple[int, ...], list[int]] = {}
    for i, c in enumerate(charges):
        types.setdefault(c.classes, []).append(i)
    free: list[Freedom] = []
    pins: list[Pin] = []
    for members in types.values():
        rows: dict[tuple[int, tuple[int, ...]], list[Fraction]] = {}
        for k, i in enumerate(members):
            for block, leaves, x in charges[i].on:
                if block in gains and (not binary or len(leaves) == len(gains[block].leaves)):
                    rows.setdefault((block, leaves), [Fraction(0)] * len(members))[k] += x
        chosen, pivots, basis = _eliminate(list(rows.values()), len(members), binary)
        if chosen:
            keys = [list(rows)[r] for r in chosen]
            square = _inverse([[rows[k][p] for p in pivots] for k in keys], binary)
            solve = torch.zeros(len(members), len(keys), dtype=torch.float64)
            solve[pivots] = torch.tensor([[float(x) for x in row] for row in square], dtype=torch.float64)
            pins.append(Pin(tuple(members), tuple((gains[b], leaves) for b, leaves in keys), solve))
        for vector in basis:
            mix = tuple((members[k], x) for k, x in enumerate(vector) if x)
            on: dict[tuple[int, tuple[int, ...]], Fraction] = {}
            for i, x in mix:
                for block, leaves, y in charges[i].on:
                    on[(block, leaves)] = on.get((block, leaves), Fraction(0)) + x * y
            kept = tuple((b, l, x) for (b, l), x in on.items() if (x % 2 if binary else x))
            free.append(Freedom(charges[members[0]].shape, mix, kept))
    return tuple(free), tuple(pins)


def _eliminate(rows: list[list[Fraction]], n: int, binary: bool) -> tuple[list[int], list[int], list[list[Fraction]]]:
    """Independent rows, their pivot columns, and a basis of what all rows send to zero; modulo 2 if binary."""

    def norm(row: list[Fraction]) -> list[Fraction]:
        return [x % 2 for x in row] if binary else row

    reduced: list[tuple[int, list[Fraction]]] = []
    chosen: list[int] = []
    for r, row in enumerate(rows):
        row = norm(list(row))
        for p, other in reduced:
            if row[p]:
                row = norm([x - row[p] * y for x, y in zip(row, other, strict=True)])
        pivot = next((k for k, x in enumerate(row) if x), None)
        if pivot is None:
            continue
        row = [x / row[pivot] for x in row]
        reduced = [
            (p, norm([x - other[pivot] * y for x, y in zip(other, row, strict=True)]) if other[pivot] else other)
            for p, other in reduced
        ]
        reduced.append((pivot, row))
        chosen.append(r)
    pivots = [p for p, _ in reduced]
    basis = []
    for k in range(n):
        if k in pivots:
            continue
        vector = [Fraction(0)] * n
        vector[k] = Fraction(1)
        for p, row in reduced:
            vector[p] = norm([-row[k]])[0]
        basis.append(vector)
    return chosen, pivots, basis


def _inverse(rows: list[list[Fraction]], binary: bool) -> list[list[Fraction]]:
    """The inverse of a square matrix over the rationals, or modulo 2."""
    n = len(rows)
    wide = [[*row, *(Fraction(int(i == k)) for i in range(n))] for k, row in enumerate(rows)]
    for k in range(n):
        pivot = next(r for r in range(k, n) if (wide[r][k] % 2 if binary else wide[r][k]))
        wide[k], wide[pivot] = wide[pivot], wide[k]
        wide[k] = [x / wide[k][k] for x in wide[k]]
        for r in range(n):
            if r != k and wide[r][k]:
                c = wide[r][k]
                wide[r] = [(x - c * y) % 2 if binary else x - c * y for x, y in zip(wide[r], wide[k], strict=True)]
    return [row[n:] for row in wide]


def pin(free: Freedoms, state: State) -> Scale:
    """The scales and signs that bring the gains of links to one."""
    logs, odd = free.zero()
    for p in free.scale_pins:
        parts = torch.stack([_part(state, b, leaves) for b, leaves in p.gains])
        for m, f in zip(p.members, torch.tensordot(p.solve, -parts, 1), strict=True):
            logs[m] = logs[m] + f
    for p in free.sign_pins:
        parts = torch.stack([_axes(_array(state, b), leaves).lt(0).double() for b, leaves in p.gains])
        for m, f in zip(p.members, torch.tensordot(p.solve, parts, 1), strict=True):
            odd[m] = torch.remainder(odd[m] + torch.round(f), 2)
    return Scale(tuple(logs), tuple(odd))


def _array(state: State, block: Block) -> Tensor:
    return gather(state.value(block.value), block).double()


def _axes(array: Tensor, leaves: tuple[int, ...]) -> Tensor:
    rest = [a for a in range(array.ndim) if a not in leaves]
    return array.permute([*leaves, *rest])


def _part(state: State, block: Block, leaves: tuple[int, ...]) -> Tensor:
    """The part of the log of a gain that depends on these leaves and on no fewer."""
    logs = _axes(_array(state, block).abs().clamp_min(1e-30).log(), leaves)
    part = logs.reshape(*logs.shape[: len(leaves)], -1).mean(-1)
    for a in range(len(leaves)):
        part = part - part.mean(a, keepdim=True)
    return part


__all__ = ["Freedom", "Freedoms", "Pin", "freedoms", "link_gains", "pin"]
