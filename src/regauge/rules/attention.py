"""Softmax and attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.arithmetic import where
from regauge.rules.contract import matmul
from regauge.rules.pointwise import keyed
from regauge.rules.registry import rule


@rule("aten._softmax.default", samples=lambda t: [(t(3, 5), -1, False)])
@rule("aten.softmax.int", "aten._safe_softmax.default", samples=lambda t: [(t(3, 5), -1), (t(2, 3, 4), 1)])
def softmax(b: Builder, x: Value, axis: int, *_: Any, **__: Any) -> Value:
    fn = keyed("aten.softmax.int", axis)
    return b.along("softmax", fn, x, [axis], equivariant=True, blind=True, total=1.0)


@rule("aten._log_softmax.default", samples=lambda t: [(t(3, 5), -1, False)])
@rule("aten.log_softmax.int", samples=lambda t: [(t(3, 5), -1)])
def log_softmax(b: Builder, x: Value, axis: int, *_: Any, **__: Any) -> Value:
    return b.along("log_softmax", keyed("aten.log_softmax.int", axis), x, [axis], equivariant=True, blind=True)


@rule("aten.scaled_dot_product_attention.default",
      samples=lambda t: [(t(1, 2, 2, 3), t(1, 2, 3, 3), t(1, 2, 3, 2)), 
                         ((t(1, 2, 2, 3), t(1, 1, 2, 3), t(1, 1, 2, 2), None, 0.0, True), dict(enable_gqa=True)),
                         (t(1, 1, 2, 3), t(1, 1, 3, 3), t(1, 1, 3, 2), torch.tensor([[True, True, False], [True, True, True]]))])  # fmt: skip
def attention(
    b: Builder,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """softmax(q k^T scale + mask) v, with query heads in groups when there are fewer key heads."""
    grouped = enable_gqa and q.shape[-3] != k.shape[-3]
    shape = q.shape
    if grouped:
        heads = k.shape[-3]
        group = shape[-3] // heads
        q = b.reshape(q, [*shape[:-3], heads, group, *shape[-2:]])
        k, v = b.unsqueeze(k, -3), b.unsqueeze(v, -3)
        if mask is not None and mask.ndim >= 3:
            m = mask.shape[-3]
            mask = (
                b.unsqueeze(mask, -3) if m == 1 else b.reshape(mask, [*mask.shape[:-3], heads, group, *mask.shape[-2:]])
            )
    scores = matmul(b, q, b.transpose(k, -1, -2))
    scores = b.scale(scores, 1.0 / math.sqrt(shape[-1]) if scale is None else float(scale))
    if is_causal:
        t, s = scores.shape[-2:]
        mask = b.free(f"causal:{t}:{s}", (t, s), lambda: torch.ones(t, s, dtype=torch.bool).tril())
        scores = where(b, mask, scores, float("-inf"))
    elif mask is not None:
        scores = where(b, mask, scores, float("-inf")) if _is_bool(mask) else b.add([scores, mask])
    y = matmul(b, softmax(b, scores, -1), v)
    return b.reshape(y, [*shape[:-1], v.shape[-1]]) if grouped else y


def _is_bool(mask: Value) -> bool:
    if mask.learned:
        return False
    try:
        return mask.op.thunk().dtype == torch.bool  # type: ignore[union-attr]
    except KeyError:
        return True
