"""Gains and shifts behind a norm that a table takes up.

n(x) = x / sqrt(mean x^2 + eps) with eps > 0 can be inverted: its values fill a ball. Where the rows of a table are read by such a
norm and by nothing else, y[t] = g n(E[t]) + b stays what it is under any small change of g and b: E moves to where it must.
A norm that centres loses a direction, so that g and b are as free only where no reader of y sees its mean; else g may be
scaled, and b moved along what stays centred. Counted, not sampled: how far g may go depends on E.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regauge.graph.ir import Add, Along, Einsum, Free, Param, Pointwise, Reshape, Value
from regauge.solve.plan import Plan

Users = Mapping[int, Sequence[Value]]


def inverted(plan: Plan) -> dict[str, int]:
    """Gain or shift -> in how many directions it moves while a table makes up for it, beyond those that nobody sees."""
    users = plan.graph.consumers()
    observed = {v.id for v in (*plan.graph.outputs, *plan.graph.followers)}
    hidden: dict[int, int] = {}
    for u in plan.unseen:
        hidden[u.block.value.id] = hidden.get(u.block.value.id, 0) + u.dim
    found: dict[str, int] = {}
    for table in plan.parameters():
        row = _row(table, users)
        norm = None if row is None else _normed(row, users)
        if row is None or norm is None or row.id in observed:
            continue
        y, centred = norm
        gain, shift = _behind(y, users, observed)
        blind = not centred or shift is not None and any(u.block.value is shift and (0,) in u.sets for u in plan.unseen)
        for v, seen in ((gain, 1), (shift, y.shape[-1] - 1)):
            if v is not None:
                assert isinstance(v.op, Param)
                found[v.op.name] = v.numel - hidden.get(v.id, 0) if blind else seen
    return {name: n for name, n in found.items() if n > 0}


def _row(table: Value, users: Users) -> Value | None:
    """What is read of a table of vectors at rows that the input chooses, if that is all that is read."""
    if not isinstance(table.op, Param) or table.op.statistic or table.ndim != 2 or len(users[table.id]) != 1:
        return None
    (x,) = users[table.id]
    if not isinstance(x.op, Einsum) or len(x.args) != 2:
        return None
    i = x.args.index(table)
    hot, mine = x.args[1 - i], x.op.ins[i]
    chosen = isinstance(hot.op, Free) and hot.op.total is not None and hot.op.total[1] == 1.0 and hot.op.data
    whole = chosen and x.op.out[-1] == mine[1] and mine[0] == x.op.ins[1 - i][hot.op.total[0]]  # type: ignore[union-attr,index]
    return x if whole and mine[0] not in x.op.out else None


def _normed(x: Value, users: Users) -> tuple[Value, bool] | None:
    """x, centred or not, over its length, where nothing else reads it; and whether it is centred."""
    centred = False
    if len(users[x.id]) == 1 and isinstance(users[x.id][0].op, Along):
        (c,) = users[x.id]
        assert isinstance(c.op, Along)
        if c.op.name != "centre" or c.op.touched != {c.op.out[-1]} or c.shape != x.shape:
            return None
        x, centred = c, True
    squares = [u for u in users[x.id] if isinstance(u.op, Einsum) and u.args == (x, x)]
    quotients = [u for u in users[x.id] if u not in squares]
    if len(squares) != 1 or len(quotients) != 1 or not _over(quotients[0], x):
        return None
    (square,), (y,) = squares, quotients
    assert isinstance(square.op, Einsum)
    if square.op.ins[0] != square.op.ins[1] or square.op.out != square.op.ins[0][:-1]:
        return None
    steps: list[Value] = []
    (r,) = [a for a in y.args if a is not x]
    while r is not square:
        learned = [a for a in r.args if a.learned]
        if len(learned) != 1 or len(users[r.id]) != 1:
            return None
        steps.append(r)
        (r,) = learned
    return (y, centred) if len(users[square.id]) == 1 and _inverse_root(steps[::-1]) else None


def _over(y: Value, x: Value) -> bool:
    """x times one number for each place."""
    if not isinstance(y.op, Einsum) or len(y.args) != 2 or y.args.count(x) != 1 or y.shape != x.shape:
        return False
    i = y.args.index(x)
    return y.op.ins[i] == y.op.out and y.op.out[-1] not in y.op.ins[1 - i]


def _inverse_root(steps: Sequence[Value]) -> bool:
    """Scaled, with a positive constant added, and then the inverse of its root: nothing else but views."""
    kinds = []
    for v in steps:
        match v.op:
            case Reshape() | Einsum((_,), _):
                continue
            case Add(coefs) if len(v.args) == 1 and coefs[0] > 0:
                continue
            case Add(coefs) if len(v.args) == 2 and min(coefs) > 0 and any(_positive(a) for a in v.args):
                kinds.append("eps")
            case Pointwise(name="aten.rsqrt.default"):
                kinds.append("root")
            case _:
                return False
    return kinds == ["eps", "root"]


def _positive(v: Value) -> bool:
    if not isinstance(v.op, Free) or v.data or v.numel != 1:
        return False
    try:
        return float(v.op.thunk().flatten()[0]) > 0
    except KeyError:
        return False


def _behind(y: Value, users: Users, observed: set[int]) -> list[Value | None]:
    """The gain that multiplies y alone, and the shift that is added then, where these are parameters that nothing else reads."""
    found: list[Value | None] = []
    for kind in (Einsum, Add):
        found.append(None)
        user = users[y.id][0] if len(users[y.id]) == 1 and y.id not in observed else y
        if not isinstance(user.op, kind) or user is y or len(user.args) != 2 or user.shape != y.shape:
            continue
        assert isinstance(user.op, Einsum | Add)
        i = user.args.index(y)
        v, labels = user.args[1 - i], user.op.ins[1 - i]
        plain = isinstance(v.op, Param) and not v.op.statistic and v.op.chart.signed and len(users[v.id]) == 1
        if plain and user.op.ins[i] == user.op.out and labels == user.op.out[-1:]:
            found[-1], y = v, user
    return found


__all__ = ["inverted"]
