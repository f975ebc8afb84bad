"""The values of a graph one after the other, its weights read a few rows at a time.

What stands in memory is activations and a few pieces of weights. A weight that one contraction reads is split along its
first axis: each of a few threads reads a piece into memory of its own that is used again, and contracts it while it is in
the processor's cache and the others read theirs. Where the processor multiplies bfloat16, a matrix that is stored so meets
its vectors in bfloat16 (rounded as the weights are, summed in float32); otherwise it is widened. Of a weight that is
contracted with a constant (a table with the rows that the inputs ask for), only the rows that the constant names are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import prod
from threading import Lock, local
from types import TracebackType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from regauge.graph.ir import Einsum, Free, Graph, Param, Value, evaluate
from regauge.solve.plan import Plan

PIECE = 1 << 21  # entries of a weight that are read and used at once, at most
LEAST = 1 << 20  # and at least, where there are more: below, handing them to a thread takes as long
LARGE = 1 << 14  # entries from which a weight is used in pieces
ROOM = 1 << 12  # bytes more, for how the rows lie in their page
THREADS = 2  # at least: one multiplies while the other one reads


@runtime_checkable
class Rowwise(Protocol):
    """A state dict that can give some rows of a tensor without the others."""

    def rows(self, name: str, first: int, last: int, into: Tensor | None = None) -> Tensor:
        """into: bytes that may be used for them."""
        ...


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
    with Source(plan, state) as source:
        for v in order:
            match v.op:
                case Param(name, chart=chart, updates=updates):
                    held[v.id] = chart.forward(source.whole(name))
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
                        held[v.id] = _contracted(v, k, named.get(v.id), held, source)
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


class Source:
    """The state dict, whole tensors in float32 or some of their rows as they are stored, and the threads that use these. A
    state that cannot give rows gives each tensor once, as a whole."""

    def __init__(self, plan: Plan, state: Mapping[str, Tensor]) -> None:
        self.plan, self.state = plan, state
        self.one = Lock()  # at a time, of whole tensors
        self.last: tuple[str, Tensor] | None = None
        self.mine = local()
        self.threads = torch.get_num_threads()
        self.helpers = max(THREADS, self.threads) - 1
        self.crew = ThreadPoolExecutor(self.helpers, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.crew.shutdown()
        torch.set_num_threads(self.threads)  # parts of torch keep one number for all threads

    def whole(self, name: str) -> Tensor:
        return self._stored(self._known(name)).float()

    def named(self, name: str, which: Tensor) -> Tensor:
        """The rows of these numbers."""
        name, state = self._known(name), self.state
        if isinstance(state, Rowwise):
            return torch.cat([state.rows(name, i, i + 1) for i in which.tolist()])
        return self._stored(name)[which]

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows in memory of this thread, until it reads the next ones."""
        name, state = self._known(name), self.state
        if not isinstance(state, Rowwise):
            return self._stored(name)[first:last]
        if not hasattr(self.mine, "buffer"):
            self.mine.buffer = torch.empty(PIECE * torch.float32.itemsize + ROOM, dtype=torch.uint8)
        return state.rows(name, first, last, self.mine.buffer)

    def shared(self, call: Callable[[int], Tensor], over: Sequence[int]) -> list[Tensor]:
        """The results in order; this thread and its helpers take the calls one by one."""
        left, made = deque(over), dict[int, Tensor]()

        def work() -> None:
            while left:
                try:
                    i = left.popleft()
                except IndexError:  # another one took the last
                    return
                made[i] = call(i)

        helped = [self.crew.submit(work) for _ in range(min(self.helpers, len(over) - 1))]
        work()
        for h in helped:
            h.result()
        return [made[i] for i in over]

    def _known(self, name: str) -> str:
        return next(n for n in (name, *self.plan.aliases.get(name, ())) if n in self.state)

    def _stored(self, name: str) -> Tensor:
        with self.one:
            if self.last is None or self.last[0] != name:
                self.last = name, self.state[name].detach()
            return self.last[1]


def _contracted(v: Value, cut: int, named: Tensor | None, held: Mapping[int, Tensor], source: Source) -> Tensor:
    """The contraction, piece by piece: side by side along the first label of the weight, or summed over it."""
    op, weight = v.op, v.args[cut]
    assert isinstance(op, Einsum) and isinstance(weight.op, Param)
    name, label, (total, *rest) = weight.op.name, op.ins[cut][0], weight.shape

    def product(rows: Tensor, which: Tensor | None) -> Tensor:
        args = [
            rows if j == cut else _narrowed(held[a.id], labels, label, which)
            for j, (a, labels) in enumerate(zip(v.args, op.ins, strict=True))
        ]
        return _product(op, cut, args, [len(rows) if l == label else n for l, n in zip(op.out, v.shape, strict=True)])

    if named is not None:
        return product(source.named(name, named), named)
    row = max(prod(rest), 1)
    step = max(1, min(PIECE // row, max(LEAST // row, -(-total // THREADS))))

    @torch.no_grad()
    def one(at: int) -> Tensor:
        last = min(at + step, total)
        return product(source.rows(name, at, last), torch.arange(at, last) if last - at < total else None)

    parts = source.shared(one, range(0, total, step))
    if label in op.out:
        return torch.cat(parts, op.out.index(label)) if len(parts) > 1 else parts[0]
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
