"""Removing what is exactly redundant: units without effect, and all but one of several units that are equal.

The function stays; the tensors become smaller. If unit k carries c times the value of unit j, its readers' columns are added
to those of j, times c.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.act.units import Units, asleep, normal, units
from regauge.errors import InputError
from regauge.graph.ir import Param
from regauge.solve.blocks import Block
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan
from regauge.solve.state import State, positions

MARGIN = 64  # units of the last place that two equal units may differ by


@dataclass(frozen=True)
class Removal:
    """On one bond: units without effect, and for each unit that was merged the one that stands for it."""

    bond: str
    dead: tuple[int, ...]
    merged: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        return len(self.dead) + len(self.merged)

    def __str__(self) -> str:
        return f"{self.bond}: {self.count} units removed ({len(self.dead)} dead, {len(self.merged)} merged)"


@dataclass(frozen=True)
class Axis:
    """An axis that became shorter, and the positions that stayed."""

    tensor: str
    axis: int
    before: int
    kept: tuple[int, ...]

    @property
    def after(self) -> int:
        return len(self.kept)

    def __str__(self) -> str:
        return f"{self.tensor}[{self.axis}]: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Pruned:
    """state: the smaller state dict, every name with its dtype. removals, axes: what went, bond by bond and axis by axis."""

    state: Mapping[str, Tensor]
    removals: tuple[Removal, ...]
    axes: tuple[Axis, ...]

    @property
    def changed(self) -> bool:
        return bool(self.axes)


def prune_redundant(gauge: Gauge, state: Mapping[str, Tensor], *, tolerance: float | None = None) -> Pruned:
    """A state of smaller shapes with the same function. tolerance: how equal is equal, relative to the size of a unit; the
    default is some units of the last place of the tensors' dtype. At least one unit stays on every bond.

    Units are entries that nothing but linear readers mixes: of a hidden layer, a channel, a gated feed-forward layer. Raises
    InputError where a fused tensor holds a unit only in part.
    """
    plan = gauge.plan
    wide = State(plan, state)
    arrays: dict[str, Tensor] = {}
    gone: dict[tuple[str, int], dict[int, None]] = {}
    removals = []
    for u in units(plan):
        limit = _precision(u, wide) if tolerance is None else tolerance
        found = _redundant(u, wide, limit)
        if found is None:
            continue
        removal, factors = found
        removals.append(removal)
        if removal.merged:
            _add_readers(u, removal, factors, wide, arrays)
        drop = [*removal.dead, *(k for k, _ in removal.merged)]
        _mark(plan, u, drop, gone)
    return _cut(plan, state, wide, arrays, gone, tuple(removals))


def _precision(u: Units, state: State) -> float:
    kinds = [state.stored(b.value.op.name).dtype for b, _ in u.writers if isinstance(b.value.op, Param)]
    return MARGIN * max(torch.finfo(d).eps for d in kinds if d.is_floating_point)


def _redundant(u: Units, state: State, limit: float) -> tuple[Removal, dict[int, Tensor]] | None:
    """What can go, and by block of the readers the factor (n,) that makes a unit's column that of a normal unit."""
    dead = (asleep(u, state) <= limit).nonzero().flatten().tolist()
    if len(dead) == u.n:
        dead = dead[1:]
    unit = normal(u, state)
    x = unit.vectors
    gone = set(dead)
    merged: list[tuple[int, int]] = []
    norms = x.norm(dim=1)
    order = torch.argsort(norms, descending=True, stable=True).tolist()
    direction = torch.linspace(1.0, 2.0, x.shape[1], dtype=x.dtype).cos()
    shadow = x @ (direction / direction.norm())  # what is near is near in its shadow: a cheap sieve
    size, place = norms.tolist(), shadow.tolist()
    by_shadow: list[tuple[float, int]] = []
    for k in order:
        if k in gone:
            continue
        reach = 1.01 * limit * size[k] + 1e-15
        low = bisect_left(by_shadow, (place[k] - reach, -1))
        high = bisect_right(by_shadow, (place[k] + reach, len(x)))
        twin = _twin(x, k, [j for _, j in by_shadow[low:high]], limit)
        if twin is None:
            insort(by_shadow, (place[k], k))
        else:
            merged.append((k, twin))
    if not dead and not merged:
        return None
    factors = {b.id: torch.exp(unit.log[b.id]) * unit.flip[b.id] for b, _ in u.readers}
    return Removal(u.name, tuple(dead), tuple(sorted(merged))), factors


def _twin(x: Tensor, k: int, near: list[int], limit: float) -> int | None:
    """The unit among those near that equals unit k."""
    if not near:
        return None
    distance = (x[near] - x[k]).norm(dim=1)
    best = int(distance.argmin())
    return near[best] if float(distance[best]) <= limit * float(x[k].norm()) else None


def _add_readers(
    u: Units, removal: Removal, factors: dict[int, Tensor], state: State, arrays: dict[str, Tensor]
) -> None:
    for b, leaf in u.readers:
        assert isinstance(b.value.op, Param)
        name = b.value.op.name
        whole = arrays.get(name)
        whole = state.tensor(name).clone() if whole is None else whole
        where = positions(b)
        part = whole if where is None else whole[tuple(torch.meshgrid(*map(torch.from_numpy, where), indexing="ij"))]
        columns = torch.movedim(part.reshape(b.sizes).clone(), leaf, 0)
        f = factors[b.id]
        for k, j in removal.merged:
            columns[j] += columns[k] * (f[k] / f[j])
        back = torch.movedim(columns, 0, leaf).reshape(part.shape)
        if where is None:
            whole = back
        else:
            whole[tuple(torch.meshgrid(*map(torch.from_numpy, where), indexing="ij"))] = back
        arrays[name] = whole


def _mark(plan: Plan, u: Units, drop: list[int], gone: dict[tuple[str, int], dict[int, None]]) -> None:
    """Positions of every axis that go with these units."""
    for b, leaf in (*u.writers, *u.readers):
        assert isinstance(b.value.op, Param)
        axis = b.leaves[leaf][0]
        mine = set(_places(b, leaf, drop))
        for other in plan.blocks.of[b.value.id]:
            shared = mine & set(_axis_positions(other, axis))
            held = [k for block, k in (*u.writers, *u.readers) if block.id == other.id and block.leaves[k][0] == axis]
            if shared and not held:
                raise InputError(
                    f"{b.value.op.name}: units of {u.name} fill only a part of its axis {axis}; they cannot be removed"
                )
        gone.setdefault((b.value.op.name, axis), {}).update(dict.fromkeys(sorted(mine)))


def _axis_positions(b: Block, axis: int) -> list[int]:
    where = positions(b)
    return list(range(b.value.shape[axis])) if where is None else where[axis].tolist()


def _places(b: Block, leaf: int, drop: list[int]) -> list[int]:
    """Positions along the leaf's axis at which the leaf's index is one of `drop`."""
    axis = b.leaves[leaf][0]
    mine = [k for k, (a, _, _) in enumerate(b.leaves) if a == axis]
    grid = torch.tensor(_axis_positions(b, axis)).reshape([b.leaves[k][1] for k in mine])
    return torch.index_select(grid, mine.index(leaf), torch.tensor(drop)).reshape(-1).tolist()


def _cut(
    plan: Plan,
    state: Mapping[str, Tensor],
    wide: State,
    arrays: dict[str, Tensor],
    gone: dict[tuple[str, int], dict[int, None]],
    removals: tuple[Removal, ...],
) -> Pruned:
    out: dict[str, Tensor] = dict(state)
    axes: list[Axis] = []
    for name in dict.fromkeys(n for n, _ in gone):
        value = wide.params[name]
        assert isinstance(value.op, Param)
        kept = {a: [i for i in range(n) if i not in gone.get((name, a), ())] for a, n in enumerate(value.shape)}
        axes += [Axis(name, a, value.shape[a], tuple(k)) for a, k in kept.items() if len(k) < value.shape[a]]
        made: dict[torch.dtype, Tensor] = {}
        for alias in dict.fromkeys((name, *plan.aliases.get(name, ()))):
            if alias not in state:
                continue
            old = state[alias]
            if old.dtype not in made:
                new = value.op.chart.inverse(arrays[name]).to(old.dtype) if name in arrays else old
                for a, k in kept.items():
                    if len(k) < value.shape[a]:
                        new = new.index_select(a, torch.tensor(k, device=new.device))
                made[old.dtype] = new.to(old.device)
            out[alias] = made[old.dtype]
    return Pruned(out, removals, tuple(axes))
