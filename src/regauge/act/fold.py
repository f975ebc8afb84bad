"""Folding: gains become 1 and the shifts after them 0; their readers (or writers) take them up.

A gain is a parameter that multiplies data entry by entry; where the charges of the group reach it, a scale by 1/gain and a
sign make it exactly 1. What reads it (the next linear maps) or writes into it (the map before a layer scale) moves with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from itertools import combinations

import torch
from torch import Tensor

from regauge.act.held import Held
from regauge.act.select import bonds_named
from regauge.graph.ir import Add, Along, Einsum, Param, Reshape, Value
from regauge.solve.blocks import Block, Relation
from regauge.solve.charges import Charge
from regauge.solve.element import Element, Scale
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan
from regauge.solve.sources import SCALAR, Source
from regauge.solve.state import State
from regauge.solve.translate import Shift

Key = tuple[int, tuple[int, ...]]  # (block, its leaves in rising order)


def fold(gauge: Gauge, state: Mapping[str, Tensor], *, bonds: Collection[str] | None = None) -> Element:
    """The element that sets every gain that the group reaches to 1, and every shift behind one to 0 where all readers have
    a bias to take it up. bonds: only these gains (names of tensors), or all gains on these
    bonds.

    A gain that the group cannot reach (a norm on queries and keys, a norm whose output is added to the stream) stays.
    Entries that are exactly zero stay zero: nothing can make them 1. Reads only the gains and shifts of `state`.
    """
    plan = gauge.plan
    only = None if bonds is None else {p for n in bonds for p in _parameters(gauge, n)}
    wide = State(plan, state)
    scale, _ = gain_solver(plan, wide, only)
    scaled = Element(plan, (scale,))
    return fold_shifts(plan, scaled.moved(wide), only) @ scaled


def fold_shifts(plan: Plan, state: State, only: Collection[str] | None = None) -> Element:
    """The translation that sets every shift behind a gain to 0 where biases take it up."""
    free: dict[int, Tensor] = {}
    for v in shifts(plan):
        if only is not None and _name(v) not in only:
            continue
        for s in plan.shifts.sources:
            if (
                s.block.value is v
                and s.known is None
                and not s.along
                and s.id in plan.shifts.free
                and absorbed(plan, s)
            ):
                free[s.id] = -state.read(s.block)
    return Element(plan, (Shift(free),) if free else ())


def _parameters(gauge: Gauge, name: str) -> set[str]:
    """The tensor itself, or the tensors on a bond."""
    tensor = gauge.canonical_name(name)
    return (
        {tensor} if tensor in gauge.parameters else {t.parameter for b in bonds_named(gauge, name) for t in b.touches}
    )


def _name(v: Value) -> str:
    assert isinstance(v.op, Param)
    return v.op.name


def parameter_of(v: Value) -> Value | None:
    """The parameter that a value shows under another shape."""
    while isinstance(v.op, Reshape) or isinstance(v.op, Einsum) and len(v.args) == 1 and v.op.ins[0] == v.op.out:
        (v,) = v.args
    return v if isinstance(v.op, Param) else None


def gains(plan: Plan) -> list[Value]:
    """Parameters all of whose uses multiply data entry by entry."""
    uses: dict[int, list[bool]] = {}
    found: dict[int, Value] = {}
    for v in plan.graph.values:
        for i, a in enumerate(v.args):
            p = parameter_of(a)
            if p is None or isinstance(v.op, Reshape):
                continue
            uses.setdefault(p.id, []).append(_is_gain(v, i))
            found[p.id] = p
    return [v for v in found.values() if all(uses[v.id]) and not v.op.statistic]  # type: ignore[union-attr]


def _is_gain(v: Value, i: int) -> bool:
    if not isinstance(v.op, Einsum) or len(v.args) != 2:
        return False
    other = v.op.ins[1 - i]
    return v.args[1 - i].data and set(v.op.ins[i]) <= set(v.op.out) and set(v.op.ins[i]) <= set(other)


def shifts(plan: Plan) -> list[Value]:
    """Parameters that are added right behind a gain."""
    multiplied = {
        v.id for v in plan.graph.values if any(_is_gain(v, i) and parameter_of(a) for i, a in enumerate(v.args))
    }
    found: dict[int, Value] = {}
    for v in plan.graph.values:
        if isinstance(v.op, Add) and len(v.args) == 2:
            for a, b in (v.args, v.args[::-1]):
                p = parameter_of(b)
                if a.id in multiplied and p is not None:
                    found[p.id] = p
    return list(found.values())


def absorbed(plan: Plan, s: Source) -> bool:
    """Whether biases take this translation up whole. A reader without one can do so too, through a relation that its operand
    satisfies with a constant that the shift itself supplies: then the shift cannot be 0."""
    demands = {d.block.id: d for d in plan.shifts.demands}
    users: dict[int, list[Relation]] = {}
    for r in plan.shifts.region:
        for t in r.ins:
            users.setdefault(t.block.id, []).append(r)
    seen, todo = {s.block.id}, [s.block.id]
    while todo:
        for r in users.get(todo.pop(), ()):
            b = r.out.block.id
            if b in seen or b not in plan.shifts.kept or isinstance(r.op, Along) and r.op.blind:
                continue
            seen.add(b)
            d = demands.get(b)
            if d is None:
                todo.append(b)
            elif d.part.kind == SCALAR:
                return False
            else:
                pivot = plan.shifts.sources[d.pivot]
                if pivot.known is None and pivot.block.id not in seen:
                    seen.add(pivot.block.id)
                    todo.append(pivot.block.id)
    return True


def gain_solver(plan: Plan, state: State, only: Collection[str] | None = None) -> tuple[Scale, Held]:
    """The scale that makes gains 1 where the charges allow; and what keeps these gains fixed from then on."""
    logs = _Solver(plan, plan.charges.scales, 0)
    odds = _Solver(plan, plan.charges.signs, 2)
    for v in gains(plan):
        if only is not None and _name(v) not in only:
            continue
        wanted: dict[Key, Tensor] = {}
        flips: dict[Key, Tensor] = {}
        for block in plan.blocks.of[v.id]:
            g = state.read(block)
            size = torch.where(g == 0, torch.ones_like(g), g.abs())
            wanted.update(parts(-torch.log(size), block))
            flips[(block.id, tuple(range(g.ndim)))] = (g < 0).double()
        if logs.meet(wanted):
            odds.meet(flips)
    return Scale(tuple(logs.functions()), tuple(odds.functions())), Held(logs.held(), odds.held())


def parts(f: Tensor, block: Block) -> dict[Key, Tensor]:
    """A function of the leaves as a sum of functions of fewer leaves, each without the parts of those before it."""
    out: dict[Key, Tensor] = {}
    rest = f
    for k in range(f.ndim + 1):
        made = []
        for s in combinations(range(f.ndim), k):
            others = [a for a in range(f.ndim) if a not in s]
            made.append((s, rest.mean(others, keepdim=True) if others else rest))
        for s, part in made:
            out[(block.id, s)] = part.reshape([f.shape[a] for a in s])
        for _, part in made:
            rest = rest - part
    return out


class _Solver:
    """Finds functions for the charges, one equation after another; each is met by the charge that moves least else."""

    def __init__(self, plan: Plan, charges: tuple[Charge, ...], modulus: int) -> None:
        self.charges = charges
        self.modulus = modulus
        self.entries: dict[Key, list[tuple[int, Fraction, tuple[int, ...]]]] = {}
        for i, c in enumerate(charges):
            for block, leaves, coefficient in c.on:
                self.entries.setdefault((block, tuple(sorted(leaves))), []).append((i, coefficient, leaves))
        self.solved: dict[int, tuple[dict[int, Fraction], Tensor]] = {}  # pivot = target - sum of the rest

    def meet(self, wanted: dict[Key, Tensor]) -> bool:
        """Add these equations if all of them can be met; else none."""
        saved = {i: (dict(row), value) for i, (row, value) in self.solved.items()}
        for key, target in wanted.items():
            if not self._add(key, target):
                self.solved = saved
                return False
        return True

    def _add(self, key: Key, target: Tensor) -> bool:
        row: dict[int, Fraction] = {}
        for i, coefficient, leaves in self.entries.get(key, ()):
            order = [sorted(leaves).index(k) for k in leaves]
            oriented = target.permute(order) if order else target
            row[i] = row.get(i, Fraction(0)) + coefficient
        if not row:
            return bool((target.abs() <= 1e-12).all())
        target = oriented
        for pivot, (rest, value) in self.solved.items():
            if pivot in row:
                c = row.pop(pivot)
                target = target - float(c) * value
                for j, d in rest.items():
                    row[j] = row.get(j, Fraction(0)) - c * d
        row = {i: c for i, c in row.items() if (c % self.modulus if self.modulus else c)}
        if self.modulus:
            target = torch.remainder(target, self.modulus)
        if not row:
            return bool((target.abs() <= 1e-12 * (1 + target.abs().max())).all()) if target.numel() else True
        pivot = min(row, key=lambda i: (len(self.charges[i].on), i))
        c = row.pop(pivot)
        rest = {j: d / c for j, d in row.items()}
        value = target / float(c)
        for other, (held, known) in list(self.solved.items()):
            if pivot in held:
                e = held.pop(pivot)
                for j, d in rest.items():
                    held[j] = held.get(j, Fraction(0)) - e * d
                self.solved[other] = ({j: d for j, d in held.items() if d}, known - float(e) * value)
        self.solved[pivot] = (rest, value)
        return True

    def held(self) -> dict[int, dict[int, Fraction]]:
        """How the charges that meet the equations must follow the others."""
        return {pivot: dict(rest) for pivot, (rest, _) in self.solved.items()}

    def functions(self) -> list[Tensor]:
        """One function a charge; what no equation asks for is zero."""
        out = []
        for i, c in enumerate(self.charges):
            f = self.solved[i][1] if i in self.solved else torch.zeros(c.shape, dtype=torch.float64)
            out.append(torch.remainder(f, self.modulus) if self.modulus else f)
        return out
