"""Constant units: whose value is the same whatever the input, so that the next bias can take it up.

A unit is constant if every path from the data to it crosses a writer that is zero. How near that is, is a fold over the
relations (`distance`): a product is small if one factor is, a sum if all terms are. What the constant is, and which
parameters take it up exactly, is found on the graph itself (`fate`), entry by entry: padding, for one, mixes zeros into a
constant channel, so that what reads it sees no constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from regauge.act.fold import parameter_of
from regauge.act.known import Known, Sight, keeps_zero, product, strength
from regauge.act.units import Units
from regauge.graph.ir import Add, Along, Concat, Einsum, Mix, Param, Pointwise, Reshape, Slice, Value, evaluate
from regauge.solve.blocks import Relation, Term
from regauge.solve.plan import Plan
from regauge.solve.state import State

ROUNDING = 1e-12  # relative: two ways of adding up the same numbers


def distance(plan: Plan, u: Units, state: State) -> Tensor:
    """How far each unit is from being constant, (n,): the relative norm of what has to vanish, in the cheapest way. Infinite
    where data reach it without a writer that could."""
    return _Distance(plan, u, state).run()


class _Distance:
    """far: how large the writers are that carry data to a block, zero: how large those are that keep it from being 0."""

    def __init__(self, plan: Plan, u: Units, state: State) -> None:
        self.plan, self.u = plan, u
        self.strength = strength(u, state)
        self.far: dict[int, Tensor] = {}
        self.zero: dict[int, Tensor] = {}
        self.never = torch.full((u.n,), inf, dtype=torch.float64)

    def run(self) -> Tensor:
        found = torch.zeros(self.u.n, dtype=torch.float64)
        for r in self.plan.touching.get(self.u.root, ()):
            for t in r.ins:
                if t.block.value.data and self._labels(t) - set(r.out.labels):
                    found = torch.maximum(found, self.far.get(t.block.id, self.never))
            mine = self._labels(r.out)
            if len(mine) == 1:
                far, zero = self._step(r, *mine)
                b = r.out.block.id
                self.far[b] = torch.maximum(self.far[b], far) if b in self.far else far
                self.zero[b] = torch.maximum(self.zero[b], zero) if b in self.zero else zero
        return found

    def _labels(self, t: Term) -> set[int]:
        cells, root = self.plan.indices.cells, self.plan.indices.root
        return {l for l in t.labels if root[cells.of(t, l)] == self.u.root}

    def _step(self, r: Relation, label: int) -> tuple[Tensor, Tensor]:
        terms = [self._term(t, label) for t in r.ins]
        far = torch.stack([f for f, _ in terms]).amax(0)
        zeros = torch.stack([z for _, z in terms])
        match r.op:
            case Einsum():
                zero = zeros.amin(0)
                return torch.minimum(far, zero), zero
            case Add() | Reshape() | Slice() | Concat():
                return far, zeros.amax(0)
            case Pointwise() if len(terms) == 1:
                return far, zeros[0] if _fixes_zero(r.op) else self.never
            case Along() if label not in r.touched:
                return far, zeros[0] if keeps_zero(r.op) else self.never
            case Pointwise():
                return far, self.never
        return self.never, self.never

    def _term(self, t: Term, label: int) -> tuple[Tensor, Tensor]:
        v, b = t.block.value, t.block.id
        here = label in t.labels
        if isinstance(v.op, Param) and here:
            return torch.zeros_like(self.never), self.strength.get((b, t.labels.index(label)), self.never)
        far = (self.far.get(b, self.never) if here else self.never) if v.data else torch.zeros_like(self.never)
        return far, self.zero.get(b, self.never) if here else self.never


def _fixes_zero(op: Pointwise) -> bool:
    return bool((op.fn(torch.zeros(1, dtype=torch.float64)) == 0).all())


@dataclass(frozen=True)
class Fate:
    """Where the value of a constant unit can go.

    shifts: what is added to which parameter, in its chart, when the unit goes; none if the unit is always zero. stays: why it
    cannot go; empty if it can.
    """

    shifts: dict[str, Tensor]
    stays: str = ""


class _Stays(Exception):
    """Nothing takes the constant up; says why."""


class Constants:
    """The fates of the units of one index set. limit: writers that multiply data count as zero up to it, relative."""

    def __init__(self, plan: Plan, u: Units, state: State, limit: float) -> None:
        self.plan = plan
        self.sight = Sight(plan, u, state, limit)

    @cached_property
    def users(self) -> dict[int, list[Value]]:
        return self.plan.graph.consumers()

    @cached_property
    def ends(self) -> set[int]:
        return {v.id for v in (*self.plan.graph.outputs, *self.plan.graph.followers)}

    def fate(self, unit: int) -> Fate:
        """What happens to the readers of this unit when it goes."""
        given: dict[int, dict[tuple[int, int], Tensor]] = {}
        try:
            for v in self.plan.graph.values:
                if isinstance(v.op, Einsum) and v.data:
                    self._leave(v, v.op, unit, given)
            return Fate(self._agreed(given))
        except _Stays as reason:
            return Fate({}, str(reason))

    def _leave(self, v: Value, op: Einsum, unit: int, given: dict[int, dict[tuple[int, int], Tensor]]) -> None:
        """What a reader loses with the unit, on its way to the biases."""
        for i, x in enumerate(v.args):
            summed = {a for a, l in enumerate(op.ins[i]) if l not in op.out}
            if not x.data or not any(axis in summed for _, axis, _ in self.sight.region.get(x.id, ())):
                continue
            mine = self.sight.mask(x, unit, summed)
            known = self.sight.known(x)
            args = [self.sight.known(a) for a in v.args]
            args[i] = Known(torch.where(mine, known.value, 0.0), known.at | ~mine)
            lost = product(op, args, v.shape)
            if not lost.whole:
                raise _Stays(f"its value differs from place to place, or with the data, where {v.source} reads it")
            self._follow(v, lost.value, given)

    def _follow(self, v: Value, change: Tensor, given: dict[int, dict[tuple[int, int], Tensor]]) -> None:
        """A constant change of a value, followed through linear operations to the biases that make up for it."""
        if not bool(change.any()):
            return
        if v.id in self.ends:
            raise _Stays("no bias comes before the output")
        for c in self.users[v.id]:
            (j, *more) = [i for i, a in enumerate(c.args) if a.id == v.id]
            others = [a for i, a in enumerate(c.args) if i != j]
            match c.op:
                case Add(coefs, ins, out) if not more:
                    change_ = evaluate(Add((coefs[j],), (ins[j],), out), [change], c.shape)
                    bias = next((i for i, a in enumerate(c.args) if coefs[i] and parameter_of(a) is not None), None)
                    if bias is None:
                        self._follow(c, change_, given)
                    else:
                        p = parameter_of(c.args[bias])
                        assert p is not None
                        held = given.setdefault(p.id, {})
                        share = _at_bias(p, change_ / coefs[bias], ins[bias], out)
                        held[c.id, bias] = held[c.id, bias] + share if (c.id, bias) in held else share
                case Reshape() | Slice() | Mix():
                    self._follow(c, evaluate(c.op, [change], c.shape), given)
                case Concat() if not more:
                    parts = [change if i == j else change.new_zeros(a.shape) for i, a in enumerate(c.args)]
                    self._follow(c, evaluate(c.op, parts, c.shape), given)
                case Einsum(ins, out) if (
                    not more
                    and set(ins[j]) <= set(out)
                    and all(not a.data and self.sight.known(a).whole for a in others)
                ):
                    # no sum over the change: units that go further on would be counted twice
                    parts = [change if i == j else self.sight.known(a).value for i, a in enumerate(c.args)]
                    self._follow(c, evaluate(c.op, parts, c.shape), given)
                case Along() if c.op.linear and len(c.args) == 1:
                    self._follow(c, evaluate(c.op, [change], c.shape), given)
                case _:
                    raise _Stays(f"{c.source} comes before any bias that could take it up")

    def _agreed(self, given: dict[int, dict[tuple[int, int], Tensor]]) -> dict[str, Tensor]:
        """One change for each parameter, if all its uses ask for the same."""
        out = {}
        for p in self.plan.parameters():
            if p.id not in given:
                continue
            assert isinstance(p.op, Param)
            uses = set(self._uses(p))
            first, *rest = given[p.id].values()
            if uses != given[p.id].keys() or any(not _close(x, first) for x in rest):
                raise _Stays(f"{p.op.name} could take it up, but has other uses, which would change")
            if p.op.updates:
                raise _Stays(f"{p.op.name} could take it up, but an adapter is added to it")
            out[p.op.name] = first
        return out

    def _uses(self, v: Value) -> list[tuple[int, int]]:
        out = []
        for c in self.users[v.id]:
            if parameter_of(c) is not None:
                out += self._uses(c)
            else:
                out += [(c.id, i) for i, a in enumerate(c.args) if a.id == v.id]
        return out if v.id not in self.ends else [*out, (-1, 0)]


def _at_bias(p: Value, change: Tensor, labels: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
    """A change of a sum as one of the parameter that is added there, over the axes that this has."""
    kept = [out.index(l) for l in labels if l in out]
    for a in set(range(len(out))) - set(kept):
        first = change.narrow(a, 0, 1)
        if not _close(change, first):
            raise _Stays(f"{p.op.name} cannot take it up: it differs from place to place")  # type: ignore[union-attr]
        change = first
    rest = [a for a in range(len(out)) if a not in kept]
    change = change.permute(*kept, *rest)
    if change.numel() != p.numel:
        raise _Stays(f"{p.op.name} is spread over places where it differs")  # type: ignore[union-attr]
    return change.reshape(p.shape)


def _close(x: Tensor, y: Tensor) -> bool:
    return bool((x - y).abs().max() <= ROUNDING * y.abs().max())
