"""Rows that are fixed whatever the input: of a table they are selected, of what was computed they are cut out.

A table whose first rows an input of this length reads moves as a whole; what was computed has nothing outside the cut that
would move with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Einsum, Free, Param, Slice, Value

New = Mapping[int, Value]  # what has become of a value


def rows_of_table(b: Builder, v: Value, new: New, users: Mapping[int, Sequence[Value]]) -> Value | None:
    """A slice of a table that nothing else reads, as a selection of its rows: so that the whole table moves together."""
    (x,) = v.args
    assert isinstance(v.op, Slice)
    if len(users[x.id]) != 1 or x.ndim < 2 or v.op.axis >= x.ndim - 1:
        return None
    n, start, count = x.shape[v.op.axis], v.op.start, v.shape[v.op.axis]
    key = f"rows:{n}:{start}:{count}"
    rows = b.free(key, (count, n), lambda: torch.eye(n)[start : start + count], total=(1, 1.0))
    labels = list(range(x.ndim))
    out = [100 if i == v.op.axis else i for i in labels]
    return b.einsum([[100, v.op.axis], labels], out, rows, new[x.id])


def read_in_place(b: Builder, v: Value, new: New) -> Value | None:
    """Neighbouring rows in their order: a slice of what was computed; the whole, of a table of which every row is read."""
    assert isinstance(v.op, Einsum)
    if len(v.args) != 2:
        return None
    for (here, there), (hot, x) in zip((v.op.ins, v.op.ins[::-1]), (v.args, tuple(reversed(v.args))), strict=True):
        computed = x.learned and x.data
        if len(here) != 2 or not (computed or isinstance(x.op, Param)):
            continue
        out, row = here
        if there.count(row) != 1 or row in v.op.out or out in there:
            continue
        run = _run(hot)
        if run is None or not computed and run != (0, hot.shape[1]):
            continue
        part = b.slice(new[x.id], there.index(row), *run)
        return b.op(Einsum((tuple(out if l == row else l for l in there),), v.op.out), [part], v.shape)
    return None


def _run(hot: Value) -> tuple[int, int] | None:
    """The first place, and the one after the last, that fixed one-hot rows hit one after another."""
    if not isinstance(hot.op, Free) or hot.data or hot.op.total != (1, 1.0) or hot.ndim != 2 or not hot.numel:
        return None
    try:
        rows = hot.op.thunk()
    except KeyError:
        return None
    count, first = hot.shape[0], int(rows[0].argmax())
    places = torch.eye(hot.shape[1]).to(rows)[first : first + count]
    return (first, first + count) if torch.equal(rows, places) else None
