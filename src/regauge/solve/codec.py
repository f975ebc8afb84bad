"""A gauge as JSON: a summary, and the core graph without weights, from which the same gauge is read back."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from regauge.errors import InputError
from regauge.graph.ir import (
    Add,
    Along,
    Chart,
    Concat,
    Einsum,
    Free,
    Frozen,
    Graph,
    Mix,
    Param,
    Pointwise,
    Reshape,
    Slice,
    Source,
    Update,
    Value,
)
from regauge.rules.pointwise import keyed

SCHEMA = 5
PATTERN = 1 << 22


def encode(graph: Graph, aliases: dict[str, tuple[str, ...]], answer: dict[str, Any]) -> str:
    """The core graph, the other names of its parameters, and beside them what a reader of the file wants to know.

    answer: plain data; "observe", "frozen" and "dim" are read back by `decode`."""
    return json.dumps(
        {"schema": SCHEMA, **answer, "aliases": {k: list(v) for k, v in aliases.items()}, "graph": _graph(graph)}
    )


def _graph(graph: Graph) -> dict[str, Any]:
    number = {v.id: i for i, v in enumerate(graph.values)}
    return {
        "values": [
            [
                _op(v),
                [number[a.id] for a in v.args],
                list(v.shape),
                int(v.learned) + 2 * int(v.data),
                v.source.operator,
                v.source.place,
            ]
            for v in graph.values
        ],
        "outputs": [number[v.id] for v in graph.outputs],
        "followers": [number[v.id] for v in graph.followers],
    }


def _op(v: Value) -> list[Any]:
    match v.op:
        case Param(name, chart, statistic, updates):
            added = [_graph(Graph(u.values, (u.made,))) for u in updates]
            return ["param", name, [list(s) for s in chart.steps], statistic, added]
        case Free(key, _, data, total, reach, marks, among, misses):
            bounds = [list(pair) if pair else None for pair in (total, reach)]
            known = [[list(m) for m in marks], list(among), list(misses)]
            return ["free", key, data, *bounds, *known, _constant(v)]
        case Einsum(ins, out):
            return ["einsum", [list(i) for i in ins], list(out)]
        case Add(coefs, ins, out):
            return ["add", list(coefs), [list(i) for i in ins], list(out)]
        case Pointwise() as o:
            return [
                "pointwise",
                o.name,
                [list(i) for i in o.ins],
                list(o.out),
                o.degree,
                o.parity,
                list(o.fixed),
                o.linear,
                o.call,
            ]
        case Along() as f:
            return [
                "along",
                f.name,
                [list(i) for i in f.ins],
                list(f.out),
                sorted(f.touched),
                f.linear,
                f.degree,
                f.parity,
                f.equivariant,
                f.blind,
                f.total,
                f.constants,
            ]
        case Mix(axis, matrix, key) as mix:
            few = matrix
            if not mix.small:  # which leading axes it varies along matters, not how
                for a in range(matrix.ndim - 2):
                    few = few.narrow(a, 0, min(4, few.shape[a]))
            return ["mix", axis, key, few.tolist()]
        case Reshape():
            return ["reshape"]
        case Slice(axis, start):
            return ["slice", axis, start]
        case Concat(axis):
            return ["concat", axis]
        case Frozen(name, _):
            return ["frozen", name]
    raise TypeError(v.op)


def _constant(v: Value) -> Any:
    """A constant by value if it is small, else what the passes ask of it."""
    assert isinstance(v.op, Free)
    if v.op.data or v.numel > PATTERN:
        return None
    try:
        t = v.op.thunk()
    except KeyError:
        return None
    flat = t.flatten()
    if v.numel and bool((flat == flat[0]).all()):
        return {"fill": float(flat[0])}
    if v.numel <= 64:
        return {"data": t.double().tolist()}
    if v.op.total is not None and v.op.total[1] == 1.0 and v.op.total[0] == v.ndim - 1:
        rows = t.argmax(-1)
        if int(t.count_nonzero()) == rows.numel():
            return {"rows": rows.flatten().tolist()}
    from regauge.solve.facts import uniform_axes

    return {"uniform": sorted(uniform_axes(v))}


def decode(text: str) -> tuple[Graph, dict[str, tuple[str, ...]], str | None, tuple[str, ...], int]:
    try:
        data = json.loads(text)
        schema = data["schema"]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "this is not a gauge file: expected JSON with a schema number, as Gauge.to_json() writes it"
        ) from None
    if schema != SCHEMA:
        raise InputError(f"the gauge file has schema {schema}, this version reads {SCHEMA}: infer the gauge again")
    aliases = {k: tuple(v) for k, v in data["aliases"].items()}
    return _read(data["graph"]), aliases, data["observe"], tuple(data["frozen"]), data["dim"]


def _read(data: dict[str, Any]) -> Graph:
    values: list[Value] = []
    for i, (op, args, shape, flags, operator, place) in enumerate(data["values"]):
        made = _made(op, tuple(shape))
        values.append(
            Value(
                i,
                made,
                tuple(values[a] for a in args),
                tuple(shape),
                bool(flags & 1),
                bool(flags & 2),
                Source(operator, place),
            )
        )
    return Graph(tuple(values), tuple(values[i] for i in data["outputs"]), tuple(values[i] for i in data["followers"]))


def _made(op: list[Any], shape: tuple[int, ...]) -> Any:
    match op:
        case ["param", name, steps, statistic, added]:
            updates = tuple(Update(_read(graph).outputs[0]) for graph in added)
            return Param(name, Chart(tuple((s, float(c)) for s, c in steps)), statistic, updates)
        case ["free", key, data, total, reach, marks, among, misses, constant]:
            total, reach = (tuple(pair) if pair else None for pair in (total, reach))
            shown = tuple((e, k) for e, k in marks)
            return Free(key, _thunk(constant, shape), data, total, reach, shown, tuple(among), tuple(misses))
        case ["einsum", ins, out]:
            return Einsum(tuple(map(tuple, ins)), tuple(out))
        case ["add", coefs, ins, out]:
            return Add(tuple(coefs), tuple(map(tuple, ins)), tuple(out))
        case ["pointwise", name, ins, out, degree, parity, fixed, linear, call]:
            fn = _lost if call is None else keyed(call[0], *call[1])
            return Pointwise(name, fn, tuple(map(tuple, ins)), tuple(out), degree, parity, tuple(fixed), linear)
        case ["along", name, ins, out, touched, linear, degree, parity, equivariant, blind, total, constants]:
            return Along(
                name,
                _lost,
                tuple(map(tuple, ins)),
                tuple(out),
                frozenset(touched),
                linear,
                degree,
                parity,
                equivariant,
                blind,
                total,
                constants,
            )
        case ["mix", axis, key, few]:
            return Mix(axis, torch.tensor(few, dtype=torch.float64), key)
        case ["reshape"]:
            return Reshape()
        case ["slice", axis, start]:
            return Slice(axis, start)
        case ["concat", axis]:
            return Concat(axis)
        case ["frozen", name]:
            return Frozen(name, _lost)
    raise InputError(f"the gauge file holds an unknown operation {op[0]!r}")


def _lost(*_: Tensor) -> Tensor:
    raise KeyError("this function was not stored")


def _thunk(constant: Any, shape: tuple[int, ...]) -> Any:
    if constant is None:
        return _lost
    if "fill" in constant:
        return lambda: torch.full(shape, constant["fill"], dtype=torch.float64)
    if "data" in constant:
        return lambda: torch.tensor(constant["data"], dtype=torch.float64).reshape(shape)

    if "rows" in constant:
        rows = torch.tensor(constant["rows"], dtype=torch.int64)
        return lambda: torch.nn.functional.one_hot(rows, shape[-1]).double().reshape(shape)

    def pattern() -> Tensor:
        """Any values that are constant along the same axes."""
        small = [1 if a in constant["uniform"] else n for a, n in enumerate(shape)]
        count = int(torch.tensor(small).prod()) if small else 1
        return torch.arange(1.0, count + 1, dtype=torch.float64).reshape(small).expand(shape)

    return pattern
