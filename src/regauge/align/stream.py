"""The values of a graph one after the other, its weights read ahead and a few rows at a time.

What stands in memory is activations and a few pieces of weights. A weight that one contraction reads is split along its
first axis: each piece is read into memory that is used again, and contracted while it is in the processor's cache and the
next one is on its way. Where the processor multiplies bfloat16, a matrix that is stored so meets its vectors in bfloat16
(rounded as the weights are, summed in float32); otherwise it is widened. Of a weight that is contracted with a constant (a
table with the rows that the inputs ask for), only the rows that the constant names are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from queue import SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from regauge.graph.ir import Einsum, Free, Graph, Param, Value, evaluate
from regauge.solve.plan import Plan

PIECE = 1 << 20  # entries of a weight that are read and used at once
LARGE = 1 << 14  # entries from which a weight is used in pieces
AHEAD = 4  # pieces that are read before they are asked for


@runtime_checkable
class Rowwise(Protocol):
    """A state dict that can give some rows of a tensor without the others."""

    def rows(self, name: str, first: int, last: int, into: Tensor | None = None) -> Tensor:
        """into: bytes that may be used for them."""
        ...


@dataclass(frozen=True)
class Piece:
    """A stored tensor in float32, or some of its rows as they are stored: from first to last, or of the numbers `which`."""

    name: str
    first: int = 0
    last: int | None = None
    which: Tensor | None = None


def values(plan: Plan, state: Mapping[str, Tensor], wanted: set[int]) -> Iterator[tuple[int, Tensor]]:
    """The wanted values in order, each as soon as it is known; in float32."""
    graph = plan.graph
    order, left = _order(graph), _readers(graph)
    cut = {v.id: k for v in order if (k := _cut(v, left)) is not None}
    named = {v.id: found for v in order if v.id in cut and (found := _named(v, cut[v.id])) is not None}
    used = {v.args[k].id for v in order if (k := cut.get(v.id)) is not None}
    whole = {a.id for v in order for j, a in enumerate(v.args) if a.id in used and cut.get(v.id) != j}
    order = [v for v in order if v.id not in used or v.id in whole]
    held: dict[int, Tensor] = {}
    pieces = [p for v in order for p in _pieces(v, cut.get(v.id), named.get(v.id))]
    with Ahead(Source(plan, state), pieces) as ahead:
        for v in order:
            match v.op:
                case Param(chart=chart, updates=updates):
                    held[v.id] = chart.forward(ahead.next())
                    for u in updates:
                        held[v.id] = held[v.id] + u.value(ahead.source.whole)
                case Free():
                    t = v.op.thunk()
                    held[v.id] = t.float() if t.is_floating_point() else t
                case op:
                    k = cut.get(v.id)
                    if k is None:
                        held[v.id] = evaluate(op, [held[a.id] for a in v.args], v.shape)
                    else:
                        held[v.id] = _contracted(v, k, named.get(v.id), held, ahead)
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


def _cut(v: Value, readers: Mapping[int, int]) -> int | None:
    """The operand that is read in pieces."""
    if not isinstance(v.op, Einsum):
        return None
    for k, (a, labels) in enumerate(zip(v.args, v.op.ins, strict=True)):
        op = a.op
        large = a.numel > (LARGE if readers[a.id] == 1 else PIECE)
        if (
            large
            and isinstance(op, Param)
            and not op.chart.steps
            and not op.updates
            and len(set(labels)) == len(labels)
        ):
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


class Ahead:
    """The pieces in order, read by a thread of its own: whole tensors in memory of theirs, rows in one of a few buffers,
    until they are given back."""

    def __init__(self, source: Source, pieces: list[Piece]) -> None:
        self.source, self.pieces = source, pieces
        self.ready: SimpleQueue[tuple[Tensor, Tensor | None] | BaseException] = SimpleQueue()
        self.free: SimpleQueue[Tensor | None] = SimpleQueue()
        self.thread = Thread(target=self._read_all, daemon=True)

    def __enter__(self) -> Ahead:
        for _ in range(AHEAD):
            self.free.put(torch.empty(PIECE * torch.float32.itemsize, dtype=torch.uint8))
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.free.put(None)
        self.thread.join()

    def lent(self) -> tuple[Tensor, Tensor | None]:
        """The next piece, and the buffer that has to be given back after use."""
        found = self.ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def next(self) -> Tensor:
        """The next piece, a whole tensor."""
        found, buffer = self.lent()
        assert buffer is None
        return found

    def _read_all(self) -> None:
        try:
            for piece in self.pieces:
                buffer = None
                if piece.last is not None and (buffer := self.free.get()) is None:
                    return
                self.ready.put((self.source.read(piece, buffer), buffer))
        except BaseException as error:
            self.ready.put(error)


class Source:
    """The state dict by pieces. One that cannot give rows gives each tensor once, as a whole."""

    def __init__(self, plan: Plan, state: Mapping[str, Tensor]) -> None:
        self.plan, self.state = plan, state
        self.one = Lock()  # at a time
        self.last: tuple[str, Tensor] | None = None

    def whole(self, name: str) -> Tensor:
        return self.read(Piece(name))

    @torch.no_grad()
    def read(self, piece: Piece, into: Tensor | None = None) -> Tensor:
        with self.one:
            return self._read(piece, into)

    def _read(self, piece: Piece, into: Tensor | None) -> Tensor:
        state, known = self.state, (piece.name, *self.plan.aliases.get(piece.name, ()))
        name = next(n for n in known if n in state)
        if isinstance(state, Rowwise) and (piece.which is not None or piece.last is not None):
            if piece.which is not None:
                return torch.cat([state.rows(name, i, i + 1) for i in piece.which.tolist()])
            return state.rows(name, piece.first, piece.last or 0, into)
        if self.last is None or self.last[0] != name:
            self.last = name, state[name].detach()
        whole = self.last[1]
        if piece.which is not None:
            return whole[piece.which]
        return whole.float() if piece.last is None else whole[piece.first : piece.last]


def _contracted(v: Value, cut: int, named: Tensor | None, held: Mapping[int, Tensor], ahead: Ahead) -> Tensor:
    """The contraction, piece by piece: side by side along the first label of the weight, or summed over it."""
    assert isinstance(v.op, Einsum)
    label, total = v.op.ins[cut][0], v.args[cut].shape[0]
    parts: list[Tensor] = []
    at = 0
    while at < total:
        rows, buffer = ahead.lent()
        last = total if named is not None else at + len(rows)
        which = named if named is not None else torch.arange(at, last) if len(rows) < total else None
        at = last
        args = [
            rows if j == cut else _narrowed(held[a.id], labels, label, which)
            for j, (a, labels) in enumerate(zip(v.args, v.op.ins, strict=True))
        ]
        shape = [len(rows) if l == label else n for l, n in zip(v.op.out, v.shape, strict=True)]
        parts.append(_product(v.op, cut, args, shape))
        if buffer is not None:
            ahead.free.put(buffer)
    if label in v.op.out:
        return torch.cat(parts, v.op.out.index(label)) if len(parts) > 1 else parts[0]
    return sum(parts[1:], parts[0])


def _narrowed(x: Tensor, labels: tuple[int, ...], label: int, which: Tensor | None) -> Tensor:
    for axis, l in enumerate(labels):
        if l == label and which is not None:
            x = x.index_select(axis, which)
    return x


def _product(op: Einsum, cut: int, args: list[Tensor], shape: list[int]) -> Tensor:
    """One piece of a contraction, in float32 and in memory of its own; in the dtype of the weight where that is native."""
    weight, labels = args[cut], op.ins[cut]
    if len(args) == 2 and weight.ndim == 2:
        x, of = args[1 - cut], op.ins[1 - cut]
        summed = [l for l in labels if l in of and l not in op.out]
        kept = [l for l in labels if l in op.out and l not in of]
        rest = [l for l in of if l not in labels]
        if summed and kept and len(set(of)) == len(of) and {*rest, *kept} == set(op.out) and len(op.out) == x.ndim:
            dtype = weight.dtype if weight.dtype in native() else torch.float32
            x = x.permute([of.index(l) for l in (*rest, *summed)])
            columns = weight.mT if labels[1] == summed[0] else weight
            y = torch.mm(x.reshape(-1, x.shape[-1]).to(dtype), columns.to(dtype)).float()
            y = y.reshape(*x.shape[:-1], y.shape[-1])
            return y.permute([(*rest, *kept).index(l) for l in op.out])
    args[cut] = weight.to(torch.float32, copy=True)
    return evaluate(op, args, shape)


@cache
def native() -> frozenset[torch.dtype]:
    """Narrow dtypes that the processor multiplies as they are, faster than float32."""
    can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return frozenset({torch.bfloat16} if can.get("avx512_bf16") or can.get("amx_bf16") else ())
