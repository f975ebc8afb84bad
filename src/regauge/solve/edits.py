"""Graphs of neighbouring models: a tie, gain, norm, rotation, fixed table or softmax lifted. They are never run; what
lifting an obstruction gives is the dimension of the neighbour's group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import Tensor

from regauge.graph.build import Builder, subgraph
from regauge.graph.ir import Add, Along, Einsum, Free, Graph, Param, Pointwise, Value

Change = Callable[[Builder, Value, tuple[Value, ...]], Value]
Changes = dict[int, Change]  # id of a value -> how it is made instead, from its old self and its new arguments


def rebuilt(graph: Graph, changes: Changes) -> Graph:
    """The graph with some values made in another way; constants are folded again."""
    b = Builder()
    new: dict[int, Value] = {}
    for v in graph.values:
        b.source = v.source
        args = tuple(new[a.id] for a in v.args)
        new[v.id] = changes[v.id](b, v, args) if v.id in changes else _copy(b, v, args)
    return subgraph(b.values, [new[v.id] for v in graph.outputs], [new[v.id] for v in graph.followers])


def _copy(b: Builder, v: Value, args: tuple[Value, ...]) -> Value:
    if isinstance(v.op, Param | Free):
        return b._make(v.op, (), v.shape, v.learned, v.data)
    return b.op(v.op, args, v.shape)


def untied(graph: Graph, tied: Iterable[Value]) -> Changes:
    """A copy of its own for every reader of these parameters."""
    users = graph.consumers()
    ids = {v.id for v in tied}

    def fresh(b: Builder, x: Value, args: tuple[Value, ...]) -> Value:
        own = []
        for old, a in zip(x.args, args, strict=True):
            if old.id in ids:
                assert isinstance(old.op, Param)
                op = replace(old.op, name=f"{old.op.name}~{len(b.values)}")
                a = b._make(op, (), old.shape, True, False)
            own.append(a)
        return b.op(x.op, own, x.shape)

    return {user.id: fresh for i in ids for user in users[i]}


def without_gains(products: Iterable[Value]) -> Changes:
    """Products of data with a value made of parameters, without the latter."""

    def drop(b: Builder, v: Value, args: tuple[Value, ...]) -> Value:
        assert isinstance(v.op, Einsum)
        keep = [i for i, a in enumerate(v.args) if a.data]
        sizes = dict(zip(v.op.out, v.shape, strict=True))
        return b.einsum([v.op.ins[i] for i in keep], v.op.out, *[args[i] for i in keep], sizes=sizes)

    return {v.id: drop for v in products}


def without_rotations(mixes: Iterable[Value]) -> Changes:
    return {v.id: lambda b, v, args: args[0] for v in mixes}


def without_squares(squares: Iterable[Value]) -> Changes:
    """x . x taken as a factor that nobody knows: a norm that no longer divides by it."""

    def unknown(b: Builder, v: Value, args: tuple[Value, ...]) -> Value:
        return b.free(f"square {v.id}", v.shape, _no_value, data=True)

    return {v.id: unknown for v in squares}


def _no_value() -> Tensor:
    raise KeyError("a neighbouring model is not run")


def learned_tables(tables: Iterable[Value]) -> Changes:
    """Fixed tables as parameters."""
    return {v.id: lambda b, v, args: b.param(f"~{v.id}", v.shape) for v in tables}


def scalable(softmaxes: Iterable[Value]) -> Changes:
    """Each softmax as if it were of degree one, without the mask before it."""
    changes: Changes = {}

    def degree_one(b: Builder, v: Value, args: tuple[Value, ...]) -> Value:
        assert isinstance(v.op, Along)
        return b.op(replace(v.op, degree=1.0), args, v.shape)

    def unmasked(b: Builder, v: Value, args: tuple[Value, ...]) -> Value:
        keep = [i for i, a in enumerate(v.args) if a.learned]
        assert isinstance(v.op, Add | Pointwise)
        ins = tuple(v.op.ins[i] for i in keep)
        coefs = tuple(v.op.coefs[i] for i in keep) if isinstance(v.op, Add) else (1.0,) * len(keep)
        return b.op(Add(coefs, ins, v.op.out), [args[i] for i in keep], v.shape)

    for s in softmaxes:
        changes[s.id] = degree_one
        scores = s.args[0]
        masked = isinstance(scores.op, Add) or (isinstance(scores.op, Pointwise) and bool(scores.op.fixed))
        if masked and any(not a.learned for a in scores.args):
            changes[scores.id] = unmasked
    return changes
