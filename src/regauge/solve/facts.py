"""What the passes need to know about values that carry no parameter: are they zero, along which axes constant?"""

from __future__ import annotations

from dataclasses import replace

from regauge.graph.ir import Add, Concat, Free, Value
from regauge.solve.blocks import Blocks, Relation, Term

LARGEST = 1 << 22  # entries that a look at a constant may cost


def zero(v: Value) -> bool:
    if not isinstance(v.op, Free) or v.data or v.numel > LARGEST:
        return False
    try:
        return not bool(v.op.thunk().any())
    except KeyError:
        return False


def uniform_axes(v: Value) -> frozenset[int]:
    """Axes along which a constant does not change."""
    if not isinstance(v.op, Free) or v.data or v.numel > LARGEST:
        return frozenset()
    try:
        t = v.op.thunk()
    except KeyError:
        return frozenset()
    return frozenset(a for a in range(t.ndim) if t.shape[a] > 1 and bool((t == t.narrow(a, 0, 1)).all()))


def plain_relations(blocks: Blocks) -> list[Relation]:
    """Relations without terms that are zero, and without labels along which a constant does not change."""
    uniform: dict[int, frozenset[int]] = {}
    zeros: dict[int, bool] = {}

    def simpler(t: Term) -> Term:
        v = t.block.value
        if not isinstance(v.op, Free) or not t.labels or v.op.total is not None:
            return t
        axes = uniform.setdefault(v.id, uniform_axes(v)) if v.id not in uniform else uniform[v.id]
        if not axes:
            return t
        keep = [k for k, (a, _, _) in enumerate(t.block.leaves) if a not in axes]
        block = replace(t.block, leaves=tuple(t.block.leaves[k] for k in keep))
        return Term(block, tuple(t.labels[k] for k in keep))

    out = []
    for r in blocks.relations:
        ins = list(r.ins)
        op = r.op
        if isinstance(op, Add | Concat):
            alive = []
            for i, t in enumerate(ins):
                v = t.block.value
                if isinstance(v.op, Free):
                    if v.id not in zeros:
                        zeros[v.id] = zero(v)
                    if zeros[v.id]:
                        continue
                alive.append(i)
            ins = [ins[i] for i in alive]
            if isinstance(op, Add):
                op = Add(tuple(op.coefs[i] for i in alive), tuple(op.ins[i] for i in alive), op.out)
            if not ins:
                continue
        out.append(replace(r, op=op, ins=tuple(map(simpler, ins))))
    return out
