"""Removing what is exactly redundant: units without effect, constant units, and all but one of several that are equal.

The function stays; the tensors become smaller. If unit k carries c times the value of unit j, its readers' columns are added
to those of j, times c; if it carries a constant, what its readers make of that is added to the biases behind them.
What goes is decided once, bond by bond (`redundant`); then each tensor is cut by itself (`Smaller`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from regauge.act.constant import Constants, distance
from regauge.act.removal import Removal
from regauge.act.units import Units, asleep, normal, units
from regauge.errors import InputError
from regauge.graph.ir import Param
from regauge.solve.blocks import Block
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan
from regauge.solve.state import State, positions

EXACT = 1e-12  # relative: double precision on the numbers as they are stored


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
    """state: the smaller state dict, every name with its dtype. removals, axes: what went, bond by bond and axis by axis.
    left: constant units that stay, with the reason, one sentence each."""

    state: Mapping[str, Tensor]
    removals: tuple[Removal, ...]
    axes: tuple[Axis, ...]
    left: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.axes)


def prune_redundant(gauge: Gauge, state: Mapping[str, Tensor], *, tolerance: float | None = None) -> Pruned:
    """A state of smaller shapes with the same function. tolerance: how equal is equal, relative to the size of a unit; the
    default asks for equality in double precision, since then the function does not change beyond rounding, whatever the
    dtype. At least one unit stays on every bond.

    Units are entries that nothing but linear readers mixes: of a hidden layer, a channel, a gated feed-forward layer. A unit
    whose value is the same whatever the input goes where biases behind its readers take that up exactly (a convolution that
    pads mixes zeros into it, so none can); else it stays, and `left` says why. Raises InputError where a fused tensor holds a
    unit only in part.
    """
    plan = gauge.plan
    found = redundant(gauge, state, tolerance=tolerance)
    smaller, wide = Smaller(plan, found.removals), State(plan, state)
    out: dict[str, Tensor] = dict(state)
    for name in smaller.tensors:
        for alias in dict.fromkeys((name, *plan.aliases.get(name, ()))):
            if alias in state:
                out[alias] = smaller.result(wide, name).to(state[alias])
    return Pruned(out, found.removals, smaller.axes, found.left)


@dataclass(frozen=True)
class Redundant:
    """removals: what can go, for every bond where something can. left: constant units that cannot, and why."""

    removals: tuple[Removal, ...]
    left: tuple[str, ...]


def redundant(gauge: Gauge, state: Mapping[str, Tensor], *, tolerance: float | None = None) -> Redundant:
    """What can go. Reads one bond at a time, in float64."""
    wide = State(gauge.plan, state)
    left: list[str] = []
    found = [
        _redundant(gauge.plan, u, wide, EXACT if tolerance is None else tolerance, left) for u in units(gauge.plan)
    ]
    return Redundant(tuple(r for r in found if r is not None), tuple(left))


def _redundant(plan: Plan, u: Units, state: State, limit: float, left: list[str]) -> Removal | None:
    quiet = asleep(u, state) <= limit
    dead = quiet.nonzero().flatten().tolist()
    still = ((distance(plan, u, state) <= limit) & ~quiet).nonzero().flatten().tolist()
    constant: dict[int, dict[str, Tensor]] = {}
    constants = Constants(plan, u, state, limit)
    for k in still:
        fate = constants.fate(k)
        if fate.stays:
            left.append(f"{u.name}: unit {k} is constant, and stays: {fate.stays}")
        elif fate.shifts:
            constant[k] = fate.shifts
        else:
            dead.append(k)
    if len(dead) + len(constant) == u.n:
        if dead:
            dead = dead[1:]
        else:
            del constant[min(constant)]
    dead.sort()
    unit = normal(u, state)
    x = unit.vectors
    gone = {*dead, *constant}
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
    if not gone and not merged:
        return None
    merged.sort()
    factors = {}
    for b, _ in u.readers:
        f = torch.exp(unit.log[b.id]) * unit.flip[b.id]  # a unit's column, times f, is that of a normal unit
        factors[b.id] = tuple(float(f[k] / f[j]) for k, j in merged)
    taking = dict.fromkeys(name for shifts in constant.values() for name in shifts)
    shifts = {
        name: tuple(
            tuple(held[name].reshape(-1).tolist() if name in held else [0.0] * prod(plan.shapes[name]))
            for held in constant.values()
        )
        for name in taking
    }
    return Removal(u.name, u.root, u.n, tuple(dead), tuple(merged), factors, tuple(constant), shifts)


def _twin(x: Tensor, k: int, near: list[int], limit: float) -> int | None:
    """The unit among those near that equals unit k."""
    if not near:
        return None
    distance = (x[near] - x[k]).norm(dim=1)
    best = int(distance.argmin())
    return near[best] if float(distance[best]) <= limit * float(x[k].norm()) else None


class Smaller:
    """The tensors without the units that go, each computed from its own numbers alone.

    Raises InputError where a fused tensor holds a unit only in part, or an adapter is added to one that holds units."""

    def __init__(self, plan: Plan, removals: Iterable[Removal]) -> None:
        self.plan = plan
        self.removals = {r.root: r for r in removals}
        self.units = [u for u in units(plan) if u.root in self.removals]
        self.gone: dict[str, dict[int, set[int]]] = {}  # tensor -> axis -> positions that go
        self.unread: dict[str, dict[int, set[int]]] = {}  # the same, where the tensor reads the units
        for u in self.units:
            self._mark(u, self.removals[u.root].gone)

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Canonical names of those that become smaller, or take up a constant."""
        return tuple(dict.fromkeys((*self.gone, *(p for r in self.removals.values() for p in r.shifts))))

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(
            Axis(name, a, n, tuple(i for i in range(n) if i not in went[a]))
            for name, went in self.gone.items()
            for a, n in enumerate(self.plan.shapes[name])
            if a in went
        )

    def shape(self, name: str) -> tuple[int, ...]:
        went = self.gone.get(name, {})
        return tuple(n - len(went.get(a, ())) for a, n in enumerate(self.plan.shapes[name]))

    def result(self, state: State, name: str) -> Tensor:
        """The smaller tensor: the bits that were stored where nothing else happens to it, else in wide dtype."""
        changed = self._changed(state, name)
        if changed is None:
            moved = state.result(name)
            return self.cut(name, state.stored(name) if moved is None else moved)
        return self.cut(name, self._op(name).chart.inverse(changed))

    def tensor(self, state: State, name: str) -> Tensor:
        """The smaller tensor, wide and in its chart."""
        changed = self._changed(state, name)
        return self.cut(name, state.tensor(name) if changed is None else changed)

    def cut(self, name: str, t: Tensor) -> Tensor:
        for a in self._axes_of(name):
            t = t.index_select(a.axis, torch.tensor(a.kept, device=t.device))
        return t

    def padded(self, name: str, small: Tensor, old: Tensor) -> Tensor:
        """The smaller tensor at its old size: units that went keep the writers that they have in `old`, and nothing reads
        them. It computes what the smaller one does, as far as units are what `units` takes them for."""
        out = old.clone()
        kept = {a.axis: a.kept for a in self._axes_of(name)}
        where = [torch.tensor(kept.get(a, range(n))) for a, n in enumerate(out.shape)]
        out[torch.meshgrid(*where, indexing="ij")] = small
        for axis, at in self.unread.get(name, {}).items():
            out.index_fill_(axis, torch.tensor(sorted(at)), 0)
        return out

    def _axes_of(self, name: str) -> tuple[Axis, ...]:
        return tuple(a for a in self.axes if a.tensor == name)

    def axes_of(self, removal: Removal) -> list[Axis]:
        """Those on the bond of one removal."""
        held = {key for u in self.units if u.root == removal.root for key in footprint(u)}
        return [a for a in self.axes if (a.tensor, a.axis) in held]

    def _op(self, name: str) -> Param:
        return next(v.op for v in self.plan.parameters() if isinstance(v.op, Param) and v.op.name == name)

    def _changed(self, state: State, name: str) -> Tensor | None:
        """The tensor with the columns of merged units added to those that stand for them, and with the constants that it
        takes up; None if there are none."""
        whole: Tensor | None = None
        for u in self.units:
            removal = self.removals[u.root]
            for b, leaf in u.readers:
                assert isinstance(b.value.op, Param)
                if b.value.op.name == name and removal.merged:
                    whole = state.tensor(name).clone() if whole is None else whole
                    _add(whole, b, leaf, removal)
            for taken in removal.shifts.get(name, ()):
                whole = state.tensor(name) if whole is None else whole
                whole = whole + torch.tensor(taken, dtype=whole.dtype).reshape(whole.shape)
        return whole

    def _mark(self, u: Units, drop: list[int]) -> None:
        """Positions of every axis that go with these units."""
        read = {(b.id, leaf) for b, leaf in u.readers}
        for b, leaf in (*u.writers, *u.readers):
            assert isinstance(b.value.op, Param)
            name, axis = b.value.op.name, b.leaves[leaf][0]
            if b.value.op.updates:
                raise InputError(
                    f"{name}: an adapter is added to it, which would have to shrink too: merge the adapter first"
                )
            mine = set(_places(b, leaf, drop))
            for other in self.plan.blocks.of[b.value.id]:
                shared = mine & set(_axis_positions(other, axis))
                held = [
                    k for block, k in (*u.writers, *u.readers) if block.id == other.id and block.leaves[k][0] == axis
                ]
                if shared and not held:
                    raise InputError(
                        f"{name}: units of {u.name} fill only a part of its axis {axis}; they cannot be removed"
                    )
            self.gone.setdefault(name, {}).setdefault(axis, set()).update(mine)
            if (b.id, leaf) in read:
                self.unread.setdefault(name, {}).setdefault(axis, set()).update(mine)


def footprint(u: Units) -> dict[tuple[str, int], int]:
    """(tensor, axis) -> how many of its positions one unit takes."""
    found: dict[tuple[str, int], int] = {}
    for b, leaf in (*u.writers, *u.readers):
        assert isinstance(b.value.op, Param)
        key = (b.value.op.name, b.leaves[leaf][0])
        found[key] = found.get(key, 0) + len(_places(b, leaf, [0]))
    return found


def _add(whole: Tensor, b: Block, leaf: int, removal: Removal) -> None:
    where = positions(b)
    grid = None if where is None else torch.meshgrid(*map(torch.from_numpy, where), indexing="ij")
    part = whole if grid is None else whole[grid]
    columns = torch.movedim(part.reshape(b.sizes).clone(), leaf, 0)
    for (k, j), f in zip(removal.merged, removal.factors[b.id], strict=True):
        columns[j] += columns[k] * f
    whole[grid if grid is not None else ...] = torch.movedim(columns, 0, leaf).reshape(part.shape)


def _axis_positions(b: Block, axis: int) -> list[int]:
    where = positions(b)
    return list(range(b.value.shape[axis])) if where is None else where[axis].tolist()


def _places(b: Block, leaf: int, drop: list[int]) -> list[int]:
    """Positions along the leaf's axis at which the leaf's index is one of `drop`."""
    axis = b.leaves[leaf][0]
    mine = [k for k, (a, _, _) in enumerate(b.leaves) if a == axis]
    grid = torch.tensor(_axis_positions(b, axis)).reshape([b.leaves[k][1] for k in mine])
    return torch.index_select(grid, mine.index(leaf), torch.tensor(drop)).reshape(-1).tolist()
