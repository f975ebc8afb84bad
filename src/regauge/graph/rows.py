"""Rows that are fixed whatever the input: of a table they are selected, of what was computed they are cut out.

A table whose first rows an input of this length reads moves as a whole; what was computed has nothing outside the cut that
would move with it. Tables that were stored as one are cut apart: each is read at rows of its own, whatever the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Einsum, Free, Param, Slice, Value

New = Mapping[int, Value]  # what has become of a value


def rows_of_table(b: Builder, v: Value, new: New, users: Mapping[int, Sequence[Value]]) -> Value | None:
    """A slice of a table of vectors that nothing else reads, as a selection of its rows: so that the whole table moves
    together. Of a stack of matrices those that are left out have nothing to do with the others."""
    (x,) = v.args
    assert isinstance(v.op, Slice)
    if len(users[x.id]) != 1 or x.ndim < 2 or v.op.axis != x.ndim - 2:
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


def read_in_part(b: Builder, v: Value, new: New, users: Mapping[int, Sequence[Value]]) -> Value | None:
    """A lookup in one of several tables that one parameter holds, no reader of which reaches into another's rows."""
    assert isinstance(v.op, Einsum)
    for i, x in enumerate(v.args):
        if not isinstance(x.op, Param):
            continue
        spans = {_span(u, x) for u in users[x.id]}
        first = sorted(s for s in spans if s is not None)
        mine = _span(v, x)
        if mine is None or None in spans or len(first) < 2 or not _apart(first):
            continue
        axis, low, high = mine
        hot, rows = _within(b, v.args[1 - i], low, high), b.slice(new[x.id], axis, low, high)
        return b.op(v.op, [rows, hot] if i == 0 else [hot, rows], v.shape)
    return None


def _apart(spans: Sequence[tuple[int, int, int]]) -> bool:
    """Along one axis, each behind the one before."""
    return all(s[0] == t[0] and s[2] <= t[1] for s, t in pairwise(spans))


def _within(b: Builder, hot: Value, low: int, high: int) -> Value:
    """One-hot rows without the places outside of their reach."""
    assert isinstance(hot.op, Free) and hot.op.total is not None
    (axis, total), thunk = hot.op.total, hot.op.thunk
    return b.free(
        f"{hot.op.key}:{low}:{high}",
        [high - low if a == axis else n for a, n in enumerate(hot.shape)],
        lambda: thunk().narrow(axis, low, high - low),
        hot.op.data,
        total=(axis, total),
        reach=(0, high - low - 1),
        marks=tuple((event, row - low) for event, row in hot.op.marks if low <= row < high),
        among=tuple(row - low for row in hot.op.among),
        misses=tuple(row - low for row in hot.op.misses if low <= row < high),
    )


def _span(reader: Value, table: Value) -> tuple[int, int, int] | None:
    """The axis of a table from which a reader chooses, the first row that it may choose, and the one after the last."""
    if not isinstance(reader.op, Einsum) or len(reader.args) != 2 or reader.args.count(table) != 1:
        return None
    i = reader.args.index(table)
    hot, labels = reader.args[1 - i], reader.op.ins[i]
    if not isinstance(hot.op, Free) or hot.op.reach is None or hot.op.total is None or hot.op.total[1] != 1.0:
        return None
    chosen = reader.op.ins[1 - i][hot.op.total[0]]
    if labels.count(chosen) != 1 or chosen in reader.op.out or reader.op.ins[1 - i].count(chosen) != 1:
        return None
    return labels.index(chosen), hot.op.reach[0], hot.op.reach[1] + 1


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
