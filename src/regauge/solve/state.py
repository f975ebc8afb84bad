"""A state dict on its way through an element: parameters under canonical names, wide, in their charts, made on demand.

A stage stands for the state after a move. It computes a parameter when it is asked for it, from the stage before and from
the few small tensors that the move needs; so one parameter can be transformed without the others in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from regauge.errors import InputError
from regauge.graph.ir import Free, Param, Value, evaluate
from regauge.solve.blocks import Block

if TYPE_CHECKING:
    from regauge.solve.plan import Plan

SMALL = 1 << 16  # entries: tensors up to this size are kept once they are computed (gains, biases)
KEPT = 1 << 28  # bytes of larger tensors that are kept, the last ones used

Read = Callable[[], Tensor]
Image = Callable[
    [Value], Tensor | None
]  # the parameter after a move, wide and in its chart; None where it does not change


class Cache:
    """Tensors by (depth, name): the small ones for good, of the large ones those used last."""

    def __init__(self, limit: int = KEPT) -> None:
        self.limit = limit
        self.small: dict[tuple[int, str], Tensor] = {}
        self.large: OrderedDict[tuple[int, str], Tensor] = OrderedDict()
        self.held = 0

    def get(self, key: tuple[int, str]) -> Tensor | None:
        if key in self.small:
            return self.small[key]
        if key in self.large:
            self.large.move_to_end(key)
            return self.large[key]
        return None

    def put(self, key: tuple[int, str], t: Tensor) -> None:
        if t.numel() <= SMALL:
            self.small[key] = t
            return
        size = t.numel() * t.element_size()
        if size > self.limit or key in self.large:
            return
        self.large[key] = t
        self.held += size
        while self.held > self.limit:
            _, old = self.large.popitem(last=False)
            self.held -= old.numel() * old.element_size()


class State:
    """The state dict that comes in. `dtype`: what everything is computed in; `source` may load its tensors lazily."""

    depth = 0

    def __init__(
        self,
        plan: Plan,
        source: Mapping[str, Tensor],
        dtype: torch.dtype = torch.float64,
        cache: Cache | None = None,
    ) -> None:
        self.plan = plan
        self.source = source
        self.dtype = dtype
        self.cache = cache or Cache()
        self.params: dict[str, Value] = {
            v.op.name: v for v in (*plan.parameters(), *plan.absorbed) if isinstance(v.op, Param)
        }
        self.base = self
        self.names: dict[str, str] = {}
        for name in self.params:
            found = next((n for n in (name, *plan.aliases.get(name, ())) if n in source), None)
            if found is None:
                raise InputError(
                    f"the state dict has no tensor {name}: the gauge was inferred from a model that has one"
                )
            self.names[name] = found

    def stored(self, name: str) -> Tensor:
        """The tensor as it came in. Raises InputError where it has not the shape that the gauge expects."""
        found = self.source[self.names[name]].detach()
        if tuple(found.shape) != self.params[name].shape:
            raise InputError(f"{name} has the shape {tuple(found.shape)}, the gauge expects {self.params[name].shape}")
        return found

    def changed(self, name: str) -> Tensor | None:
        """The parameter, wide and in its chart, if some move changed it."""
        return None

    def tensor(self, name: str) -> Tensor:
        """The parameter under this canonical name, wide and in its chart."""
        held = self.cache.get((self.depth, name))
        if held is not None:
            return held
        moved = self.changed(name)
        if moved is not None:
            return moved
        op = self.params[name].op
        assert isinstance(op, Param)
        wide = self.stored(name).to(self.dtype)
        wide = op.chart.forward(wide) if op.chart.steps else wide
        for update in op.updates:
            wide = wide + update.value(self.base.tensor)
        return wide

    def kept(self, name: str) -> Tensor:
        """As `tensor`, and remembered: for what several parameters depend on."""
        t = self.tensor(name)
        self.cache.put((self.depth, name), t)
        return t

    def read(self, block: Block) -> Tensor:
        """The block as an array with one axis a leaf."""
        return gather(self.tensor(block.value.op.name), block)  # type: ignore[union-attr]

    def value(self, v: Value) -> Tensor:
        """A value that is made of parameters alone, from their present state."""
        memo: dict[int, Tensor] = {}

        def go(v: Value) -> Tensor:
            if v.id not in memo:
                match v.op:
                    case Param(name):
                        memo[v.id] = self.kept(name)
                    case Free():
                        t = v.op.thunk()
                        memo[v.id] = t.to(self.dtype) if t.is_floating_point() else t
                    case op:
                        memo[v.id] = evaluate(op, [go(a) for a in v.args], v.shape)
            return memo[v.id]

        return go(v)

    def rewritten(self, v: Value, turn: Callable[[Block, Read], Tensor | None]) -> Tensor | None:
        """The parameter with the blocks that `turn` gives in place of the old ones; None if it gives none. `turn` is
        given the block and what reads it."""
        name = v.op.name  # type: ignore[union-attr]
        old: Tensor | None = None  # one evaluation for all blocks: the way back through the stages may be long
        out: Tensor | None = None

        def whole() -> Tensor:
            nonlocal old
            old = self.tensor(name) if old is None else old
            return old

        for block in self.plan.blocks.of.get(v.id, ()):  # none: no part of the graph
            array = turn(block, lambda b=block: gather(whole(), b))  # type: ignore[misc]
            if array is None:
                continue
            where = positions(block)
            if where is None:
                return array.reshape(v.shape)
            out = whole().clone() if out is None else out
            scatter(out, where, array.reshape([len(w) for w in where]))
        return out

    def result(self, name: str) -> Tensor | None:
        """The parameter in wide dtype, out of its chart; None if no move changed it."""
        op = self.params[name].op
        assert isinstance(op, Param)
        y = self.changed(name)
        if any(self.changed(f.name) is not None for update in op.updates for f in update.factors):
            y = self.tensor(name)
        if y is None:
            return None
        for update in op.updates:
            y = y - update.value(self.tensor)
        return op.chart.inverse(y) if op.chart.steps else y


class Moved(State):
    """The state after a move. `on(before)` gives the move's image; it is called when the first parameter is asked for."""

    def __init__(self, before: State, on: Callable[[State], Image]) -> None:
        self.before = before
        self.on = on
        self.image: Image | None = None
        self.depth = before.depth + 1
        self.plan, self.source, self.dtype, self.cache = before.plan, before.source, before.dtype, before.cache
        self.params, self.names, self.base = before.params, before.names, before.base

    def changed(self, name: str) -> Tensor | None:
        if self.image is None:
            self.image = self.on(self.before)
        moved = self.image(self.params[name])
        return self.before.changed(name) if moved is None else moved


def positions(block: Block) -> list[np.ndarray] | None:
    """For each axis, its indices in leaf order; None if the block is the whole tensor in its own order."""
    plain = True
    out = []
    for n, lattice in zip(block.value.shape, block.box, strict=True):
        if lattice is None:
            out.append(np.arange(n))
            continue
        at = np.array([lattice[0]], dtype=np.int64)
        for m, s in lattice[1]:
            at = (at[:, None] + np.arange(m, dtype=np.int64) * s).ravel()
        out.append(at)
        plain = plain and len(at) == n and bool((at == np.arange(n)).all())
    return None if plain else out


def consecutive(at: np.ndarray) -> bool:
    return len(at) > 0 and bool((np.diff(at) == 1).all())


def gather(t: Tensor, block: Block) -> Tensor:
    """A block of a tensor as an array with one axis a leaf."""
    where = positions(block)
    if where is not None:
        for axis, at in enumerate(where):
            if consecutive(at):
                t = t.narrow(axis, int(at[0]), len(at))
            else:
                t = t.index_select(axis, torch.from_numpy(at).to(t.device))
    return t.reshape(block.sizes)


def scatter(t: Tensor, where: list[np.ndarray], part: Tensor) -> None:
    """Put `part` at these positions of every axis of t, in place."""
    if all(consecutive(at) for at in where):
        for axis, at in enumerate(where):
            t = t.narrow(axis, int(at[0]), len(at))
        t.copy_(part)
    else:
        t[np.ix_(*where)] = part
