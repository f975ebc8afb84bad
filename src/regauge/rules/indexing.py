"""Reading and writing by index. An index is a selection matrix: one-hot rows, contracted with what is read."""

from __future__ import annotations

from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.registry import rule


def one_hot(b: Builder, index: Value, n: int) -> Value:
    """(..., n) rows of the identity, for an index without parameters above it. Entry -1 stands for n - 1."""
    if index.learned:
        raise NotImplementedError("an index that depends on parameters")
    thunk = index.op.thunk  # type: ignore[union-attr]

    def rows() -> torch.Tensor:
        return torch.nn.functional.one_hot(thunk().long() % n, n).to(torch.get_default_dtype())

    return b.free(f"one_hot:{index.id}:{n}", [*index.shape, n], rows, index.data, total=(index.ndim, 1.0))


@rule("aten.embedding.default", samples=lambda t: [])
def embedding(b: Builder, weight: Value, index: Value, *_: Any, **__: Any) -> Value:
    rows = one_hot(b, index, weight.shape[0])
    return b.contract(rows, weight, [-1], [0])


@rule("aten.index_select.default", samples=lambda t: [])
def index_select(b: Builder, x: Value, axis: int, index: Value) -> Value:
    axis = axis % x.ndim
    rows = one_hot(b, index, x.shape[axis])
    y = b.contract(rows, x, [-1], [axis])
    return b.permute(y, [*range(1, axis + 1), 0, *range(axis + 1, x.ndim)])
