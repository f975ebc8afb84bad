"""What is known of values whatever the input: constant propagation, entry by entry, on the values that carry given units.

Of other data nothing is known. A sum of products is known where every product is: all its factors known, or one known to be 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regauge.act.units import Units, rows
from regauge.graph.ir import Add, Along, Concat, Einsum, Free, Mix, Param, Pointwise, Reshape, Slice, Value, evaluate
from regauge.solve.plan import Plan
from regauge.solve.state import State, gather, positions, scatter


def strength(u: Units, state: State) -> dict[tuple[int, int], Tensor]:
    """(block, leaf) of a writer -> the norm of each unit's slice, relative to the largest."""
    norms = {(b.id, k): rows(state, b, k).norm(dim=1) for b, k in u.writers}
    return {key: x / x.max().clamp_min(1e-300) for key, x in norms.items()}


@dataclass(frozen=True)
class Known:
    """What holds of a value whatever the input: where `at`, it is `value`, which is 0 elsewhere."""

    value: Tensor
    at: Tensor

    @property
    def whole(self) -> bool:
        return bool(self.at.all())


class Sight:
    """What is known of the values that carry the units of one index set. limit: writers that multiply data count as zero up to
    it, relative to the largest."""

    def __init__(self, plan: Plan, u: Units, state: State, limit: float) -> None:
        self.plan, self.u, self.state = plan, u, state
        self.weak = {key: x <= limit for key, x in strength(u, state).items()}
        self.kept: dict[int, Known] = {}

    @cached_property
    def region(self) -> dict[int, list[tuple[list[Tensor], int, int]]]:
        """Value -> where its blocks hold the units: the positions on each axis, the axis, and the leaf's place on it."""
        cells, root = self.plan.indices.cells, self.plan.indices.root
        out: dict[int, list[tuple[list[Tensor], int, int]]] = {}
        for v in self.plan.graph.values:
            for b in self.plan.blocks.of[v.id]:
                for k in range(len(b.leaves)):
                    if root[cells.cell(b, k)] != self.u.root:
                        continue
                    where = positions(b)
                    at = [torch.arange(n) for n in v.shape] if where is None else [torch.from_numpy(w) for w in where]
                    axis = b.leaves[k][0]
                    mine = [i for i, (a, _, _) in enumerate(b.leaves) if a == axis]
                    unit = torch.arange(self.u.n).reshape([-1 if i == k else 1 for i in mine])
                    unit = unit.expand([b.leaves[i][1] for i in mine]).reshape(-1)
                    out.setdefault(v.id, []).append((at, axis, unit))  # type: ignore[arg-type]
        return out

    def mask(self, v: Value, unit: int, axes: set[int]) -> Tensor:
        """The entries of a value that belong to a unit along these axes."""
        out = torch.zeros(v.shape, dtype=torch.bool)
        for at, axis, held in self.region[v.id]:
            if axis in axes:
                mine = [w[held == unit] if a == axis else w for a, w in enumerate(at)]
                out[torch.meshgrid(*mine, indexing="ij")] = True
        return out

    def known(self, v: Value) -> Known:
        """What is known of a value from its own units' writers; nothing of other data."""
        if v.id not in self.kept:
            todo = [v]
            while todo:  # not by recursion: a stream is as deep as the network
                w = todo[-1]
                needs = [a for a in w.args if a.id not in self.kept] if not w.data or w.id in self.region else []
                if needs and not isinstance(w.op, Free):
                    todo += needs
                else:
                    self.kept.setdefault(w.id, self._known(w))
                    todo.pop()
        return self.kept[v.id]

    def _known(self, v: Value) -> Known:
        nothing = Known(torch.zeros((), dtype=torch.float64).expand(v.shape), torch.tensor(False).expand(v.shape))
        if v.data and v.id not in self.region:
            return nothing
        args = [] if isinstance(v.op, Free) else [self.kept[a.id] for a in v.args]
        match v.op:
            case Param():
                return _all(self._cleaned(v))
            case Free():
                try:
                    t = v.op.thunk()
                except KeyError:
                    return nothing
                return _all(t.to(self.state.dtype) if t.is_floating_point() else t)
            case Einsum():
                return product(v.op, args, v.shape)
            case Along() if v.data:
                return _along(v.op, args[0], v.shape) if len(args) == 1 else nothing
            case Along() | Mix():
                return _all(evaluate(v.op, [a.value for a in args], v.shape)) if all(a.whole for a in args) else nothing
            case Reshape() | Slice() | Concat():
                return Known(
                    *(evaluate(v.op, side, v.shape) for side in zip(*((a.value, a.at) for a in args), strict=True))
                )
            case Add(ins=ins, out=out) | Pointwise(ins=ins, out=out) if all(bool(a.at.any()) for a in args):
                counted = evaluate(Add((1.0,) * len(args), ins, out), [a.at.double() for a in args], v.shape)
                value, at = evaluate(v.op, [a.value for a in args], v.shape), counted == len(args)
                return Known(torch.where(at, value, torch.zeros_like(value)), at)
        return nothing

    @cached_property
    def multipliers(self) -> set[int]:
        """Blocks of writers that multiply data."""
        return {
            t.block.id
            for r in self.plan.touching.get(self.u.root, ())
            if isinstance(r.op, Einsum) and any(t.block.value.data for t in r.ins)
            for t in r.ins
            if not t.block.value.data
        }

    def _cleaned(self, v: Value) -> Tensor:
        """A parameter without what its units have that counts as zero."""
        assert isinstance(v.op, Param)
        t = self.state.tensor(v.op.name)
        for b, k in self.u.writers:
            weak = self.weak[b.id, k]
            if b.value.id == v.id and b.id in self.multipliers and bool(weak.any()):
                part = torch.movedim(gather(t, b).clone(), k, 0)
                part[weak] = 0
                part, where = torch.movedim(part, 0, k), positions(b)
                if where is None:
                    t = part.reshape(t.shape)
                else:
                    t = t.clone()
                    scatter(t, where, part.reshape([len(w) for w in where]))
        return t


def keeps_zero(op: Along) -> bool:
    return op.linear or op.parity == "odd" or (op.degree or 0) > 0


def _all(t: Tensor) -> Known:
    return Known(t, torch.tensor(True).expand(t.shape))


def product(op: Einsum, args: Sequence[Known], shape: tuple[int, ...]) -> Known:
    """A sum of products: a product is known if all factors are, or if one is known to be 0."""
    value = evaluate(op, [a.value.double() for a in args], shape)
    if all(a.whole for a in args):
        return _all(value)
    perhaps = evaluate(op, [(~a.at | (a.value != 0)).double() for a in args], shape)
    surely = evaluate(op, [(a.at & (a.value != 0)).double() for a in args], shape)
    at = perhaps - surely < 0.5
    return Known(torch.where(at, value, 0.0), at)


def _along(op: Along, x: Known, shape: tuple[int, ...]) -> Known:
    """A function along axes: where the operand is one constant along them, a function that keeps constants is that, and one
    that keeps zero is 0 if that is. No more than that: how a border changes a constant depends on how large the input is."""
    labels = op.ins[0]
    rest = tuple(l for l in labels if l not in op.touched)
    value, at = x.value, x.at
    for a in reversed([a for a, l in enumerate(labels) if l in op.touched]):
        first = value.narrow(a, 0, 1)
        at = (at & (value == first)).all(a)
        value = first.squeeze(a)
    if not op.constants:
        at = at & (value == 0) & keeps_zero(op)
    spread = Einsum((rest,), op.out)
    known = evaluate(spread, [at.double()], shape) == 1
    return Known(torch.where(known, evaluate(spread, [value.double()], shape), 0.0), known)
