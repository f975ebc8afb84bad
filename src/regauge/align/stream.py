"""The values of a graph one after the other, its weights read ahead and a few rows at a time.

What stands in memory is activations and a few pieces of weights. A large weight that a contraction reads is split along
its first axis: each piece is read, widened and contracted while the next one is on its way. Of a weight that is
contracted with a constant (a table with the rows that the inputs ask for), only the rows that the constant names are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from regauge.graph.ir import Einsum, Free, Graph, Param, Value, evaluate
from regauge.solve.plan import Plan

PIECE = 1 << 19  # entries of a weight that are widened and used at once
AHEAD = 3  # pieces


@runtime_checkable
class Rowwise(Protocol):
    """A state dict that can give some rows of a tensor without the others."""

    def rows(self, name: str, first: int, last: int) -> Tensor: ...


@dataclass(frozen=True)
class Piece:
    """A stored tensor, or some of its rows: from first to last, or those of the numbers `which`."""

    name: str
    first: int = 0
    last: int | None = None
    which: Tensor | None = None


def values(plan: Plan, state: Mapping[str, Tensor], wanted: set[int]) -> Iterator[tuple[int, Tensor]]:
    """The wanted values in order, each as soon as it is known; in float32."""
    graph = plan.graph
    order = _order(graph)
    cut = {v.id: k for v in order if (k := _cut(v)) is not None}
    named = {v.id: found for v in order if v.id in cut and (found := _named(v, cut[v.id])) is not None}
    used = {v.args[k].id for v in order if (k := cut.get(v.id)) is not None}
    whole = {a.id for v in order for j, a in enumerate(v.args) if a.id in used and cut.get(v.id) != j}
    order = [v for v in order if v.id not in used or v.id in whole]
    left = _readers(graph)
    held: dict[int, Tensor] = {}
    pieces = [p for v in order for p in _pieces(v, cut.get(v.id), named.get(v.id))]
    source = Source(plan, state)
    with ThreadPoolExecutor(1) as pool:
        ready = _ahead(pool, source, pieces)
        for v in order:
            match v.op:
                case Param(chart=chart, updates=updates):
                    held[v.id] = chart.forward(next(ready))
                    for u in updates:
                        held[v.id] = held[v.id] + u.value(source.whole)
                case Free():
                    t = v.op.thunk()
                    held[v.id] = t.float() if t.is_floating_point() else t
                case op:
                    k = cut.get(v.id)
                    if k is None:
                        held[v.id] = evaluate(op, [held[a.id] for a in v.args], v.shape)
                    else:
                        held[v.id] = _contracted(v, k, named.get(v.id), held, ready)
                    for a in v.args:
                        left[a.id] -= 1
                        if not left[a.id]:
                            held.pop(a.id, None)
            if v.id in wanted:
                yield v.id, held[v.id]
            if not left[v.id]:
                held.pop(v.id, None)


def _order(graph: Graph) -> list[Value]:
    """Values that lead to an output; a parameter or a constant stands right before its first reader."""
    left, seen, out = _readers(graph), set[int](), list[Value]()

    def visit(v: Value) -> None:
        if v.id not in seen:
            seen.add(v.id)
            for a in v.args:
                visit(a)
            out.append(v)

    for v in graph.values:
        if v.id in left and v.data and v.learned:
            visit(v)
    return out


def _readers(graph: Graph) -> dict[int, int]:
    """How often each value that leads to an output is read."""
    left: dict[int, int] = {v.id: 0 for v in graph.outputs}
    for v in reversed(graph.values):
        if v.id in left:
            for a in v.args:
                left[a.id] = left.get(a.id, 0) + 1
    return left


def _cut(v: Value) -> int | None:
    """The operand that is read in pieces."""
    if not isinstance(v.op, Einsum):
        return None
    for k, (a, labels) in enumerate(zip(v.args, v.op.ins, strict=True)):
        op = a.op
        large = isinstance(op, Param) and a.numel > PIECE and not op.chart.steps and not op.updates
        if large and len(set(labels)) == len(labels):
            return k
    return None


def _pieces(v: Value, cut: int | None, named: Tensor | None) -> Iterator[Piece]:
    """What has to be read for a value, in order."""
    if isinstance(v.op, Param):
        yield Piece(v.op.name)
    elif cut is not None:
        weight = v.args[cut]
        assert isinstance(weight.op, Param)
        name, (n, *rest) = weight.op.name, weight.shape
        if named is not None:
            yield Piece(name, which=named)
            return
        step = max(1, PIECE // max(prod(rest), 1))
        yield from (Piece(name, i, min(i + step, n)) for i in range(0, n, step))


def _named(v: Value, cut: int) -> Tensor | None:
    """Rows of the operand that a constant does not multiply by zero, where that spares most of them."""
    assert isinstance(v.op, Einsum)
    label = v.op.ins[cut][0]
    if label in v.op.out:
        return None
    for a, labels in zip(v.args, v.op.ins, strict=True):
        if isinstance(a.op, Free) and label in labels:
            axis = labels.index(label)
            found = a.op.thunk().movedim(axis, 0).reshape(a.shape[axis], -1).ne(0).any(1).nonzero().reshape(-1)
            if 4 * len(found) < a.shape[axis]:
                return found
    return None


def _ahead(pool: ThreadPoolExecutor, source: Source, pieces: list[Piece]) -> Iterator[Tensor]:
    """The pieces in order, some of them read before they are asked for."""
    waiting: deque[Future[Tensor]] = deque()
    for p in pieces:
        waiting.append(pool.submit(source.read, p))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class Source:
    """The state dict by pieces. One that cannot give rows gives each tensor once, as a whole."""

    def __init__(self, plan: Plan, state: Mapping[str, Tensor]) -> None:
        self.plan, self.state = plan, state
        self.last: tuple[str, Tensor] | None = None

    def whole(self, name: str) -> Tensor:
        return self.read(Piece(name))

    @torch.no_grad()
    def read(self, piece: Piece) -> Tensor:
        """In float32."""
        state, known = self.state, (piece.name, *self.plan.aliases.get(piece.name, ()))
        name = next(n for n in known if n in state)
        if isinstance(state, Rowwise) and (piece.which is not None or piece.last is not None):
            if piece.which is not None:
                return torch.cat([state.rows(name, i, i + 1) for i in piece.which.tolist()]).float()
            return state.rows(name, piece.first, piece.last or 0).float()
        if self.last is None or self.last[0] != name:
            self.last = name, state[name].detach()
        whole = self.last[1]
        if piece.which is not None:
            return whole[piece.which].float()
        return (whole if piece.last is None else whole[piece.first : piece.last]).float()


def _contracted(
    v: Value, cut: int, named: Tensor | None, held: Mapping[int, Tensor], ready: Iterator[Tensor]
) -> Tensor:
    """The contraction, piece by piece: side by side along the first label of the weight, or summed over it."""
    assert isinstance(v.op, Einsum)
    label, total = v.op.ins[cut][0], v.args[cut].shape[0]
    parts: list[Tensor] = []
    at = 0
    while at < total:
        rows = next(ready)
        which = torch.arange(at, at + len(rows)) if named is None else named
        at = total if named is not None else at + len(rows)
        args = [
            rows if j == cut else _narrowed(held[a.id], labels, label, which)
            for j, (a, labels) in enumerate(zip(v.args, v.op.ins, strict=True))
        ]
        shape = [len(rows) if l == label else n for l, n in zip(v.op.out, v.shape, strict=True)]
        parts.append(evaluate(v.op, args, shape))
    if label in v.op.out:
        return torch.cat(parts, v.op.out.index(label)) if len(parts) > 1 else parts[0]
    return sum(parts[1:], parts[0])


def _narrowed(x: Tensor, labels: tuple[int, ...], label: int, which: Tensor) -> Tensor:
    for axis, l in enumerate(labels):
        if l == label:
            x = x.index_select(axis, which)
    return x
