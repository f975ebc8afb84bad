"""Relations as the passes read them: without zeros, without axes along which a constant does not change, and with parts of
a parameter read where they are."""

from __future__ import annotations

from dataclasses import replace

from regauge.graph.ir import Add, Concat, Einsum, Free, Param, Reshape, Slice, Value
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
    """The relations in their simplest words; see above."""
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
    return _direct(blocks, out)


def _direct(blocks: Blocks, relations: list[Relation]) -> list[Relation]:
    """A block that only copies a block of a parameter (a slice, a view) is read as that block in products and sums."""
    written: dict[int, int] = {}
    for r in relations:
        written[r.out.block.id] = written.get(r.out.block.id, 0) + 1
    observed = {b.id for v in blocks.graph.outputs for b in blocks.of[v.id]}
    copies: dict[int, Relation] = {}
    origin: dict[int, Term] = {}  # the block of the parameter, with the leaves of the copy as labels
    for r in relations:
        b = r.out.block
        if not _copies(r) or written[b.id] != 1 or b.id in observed:
            continue
        (t,) = r.ins
        first = origin.get(t.block.id) or Term(t.block, tuple(range(len(t.labels))))
        if isinstance(first.block.value.op, Param):
            origin[b.id] = Term(first.block, tuple(r.out.labels.index(t.labels[k]) for k in first.labels))
            copies[b.id] = r

    def source(t: Term) -> Term:
        found = origin.get(t.block.id)
        return t if found is None else Term(found.block, tuple(t.labels[k] for k in found.labels))

    out: list[Relation] = []
    still: set[int] = set()
    for r in relations:
        if isinstance(r.op, Einsum | Add) and r.out.block.id not in copies:
            r = replace(r, ins=tuple(map(source, r.ins)))
        out.append(r)
    for r in reversed(out):  # a copy stays where something reads it
        if r.out.block.id not in copies or r.out.block.id in still:
            still.update(t.block.id for t in r.ins)
    return [r for r in out if r.out.block.id not in copies or r.out.block.id in still]


def _copies(r: Relation) -> bool:
    if not isinstance(r.op, Reshape | Slice | Einsum) or len(r.ins) != 1 or r.touched or r.planes or r.fixed:
        return False
    labels = r.ins[0].labels
    return len(set(labels)) == len(labels) and sorted(labels) == sorted(r.out.labels)


def turns(r: Relation, labels: tuple[int, ...]) -> bool:
    """A translation that varies along these labels is not the same after a mixing of positions: it varies there, or the
    block is a part that turns."""
    marked = r.planes | r.fixed
    return any(l in marked for l in labels) or bool(r.planes) or any(l in r.fixed for l in r.out.labels)
