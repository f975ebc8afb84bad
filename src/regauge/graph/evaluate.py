"""Runs a core graph on real tensors: the test that lowering kept the function."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from regauge.graph.ir import Free, Graph, Param, evaluate


def run(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Every value of the graph, by id. `tensors`: the state dict, by canonical name; fixed values keep their dtype."""
    values: dict[int, Tensor] = {}
    for v in graph.values:
        match v.op:
            case Param(name, chart, updates=updates):
                values[v.id] = sum((u.value(tensors.__getitem__) for u in updates), chart.forward(tensors[name]))
            case Free():
                t = v.op.thunk()
                wide = next(iter(tensors.values())).dtype
                values[v.id] = t.to(wide) if t.is_floating_point() else t
            case op:
                values[v.id] = evaluate(op, [values[a.id] for a in v.args], v.shape)
    return values
