"""Rebuilding a graph value by value."""

from __future__ import annotations

from regauge.graph.build import Builder, subgraph
from regauge.graph.ir import Add, Free, Graph, Value


class Rewriter:
    """Rebuilds a graph value by value; `visit` may return another value than the copy."""

    def __init__(self, graph: Graph, builder: Builder) -> None:
        self.graph = graph
        self.b = builder
        self.users = graph.consumers()
        self.observed = {v.id for v in (*graph.outputs, *graph.followers)}
        self.new: dict[int, Value] = {}

    def single(self, v: Value) -> bool:
        return len(self.users[v.id]) == 1 and v.id not in self.observed

    def terms(self, v: Value, c: float = 1.0) -> list[tuple[float, Value]]:
        """A sum written out, through inner sums that nothing else reads: coefficients and terms."""
        out = []
        assert isinstance(v.op, Add)
        for k, a in zip(v.op.coefs, v.args, strict=True):
            inner = isinstance(a.op, Add) and self.single(a) and a.shape == v.shape and a.learned
            out += self.terms(a, c * k) if inner else [(c * k, a)]
        return out

    def copy(self, v: Value) -> Value:
        args = tuple(self.new[a.id] for a in v.args)
        if args and v.learned and not any(a.learned for a in args):
            return self.b.op(v.op, args, v.shape)  # a product with zero was learned before
        return self.b._make(v.op, args, v.shape, v.learned, v.data)

    def visit(self, v: Value) -> Value:
        return self.copy(v)


def rewrite(graph: Graph, kind: type[Rewriter]) -> Graph:
    b = Builder()
    rewriter = kind(graph, b)
    for v in graph.values:
        b.source = v.source
        rewriter.new[v.id] = rewriter.visit(v)
    outputs = [rewriter.new[v.id] for v in graph.outputs]
    return subgraph(b.values, outputs, [rewriter.new[v.id] for v in graph.followers])


def number(v: Value) -> float | None:
    """The one number that a constant is; None if it is anything else."""
    if not isinstance(v.op, Free) or v.numel != 1 or v.data:
        return None
    try:
        return float(v.op.thunk().flatten()[0])
    except (KeyError, RuntimeError):
        return None
