"""A state dict on its way through an element: parameters under canonical names, wide, in their charts, made on demand.

A stage stands for the state after a move. When it is asked for a parameter it collects what every move so far does to it,
and carries that out at once on the tensor that came in; a move needs only a few small tensors of the stage before. So one
parameter can be transformed without the others in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from regauge.errors import InputError
from regauge.graph.ir import Free, Param, Value, evaluate
from regauge.solve.acts import SMALL, Act
from regauge.solve.blocks import Block
from regauge.solve.slabs import carry_out, parts

if TYPE_CHECKING:
    from regauge.solve.plan import Plan

KEPT = 1 << 28  # bytes of tensors above SMALL that are kept, the last ones used

Program = dict[int, tuple[Block, tuple[Act, ...]]]  # what is done to each block of a parameter; id -> block and acts


class Cache:
    """Tensors by (stage, name): the small ones for good, of the large ones those used last."""

    def __init__(self, limit: int = KEPT) -> None:
        self.limit = limit
        self.small: dict[tuple[object, str], Tensor] = {}
        self.large: OrderedDict[tuple[object, str], Tensor] = OrderedDict()
        self.held = 0

    def get(self, key: tuple[object, str]) -> Tensor | None:
        if key in self.small:
            return self.small[key]
        if key in self.large:
            self.large.move_to_end(key)
            return self.large[key]
        return None

    def put(self, key: tuple[object, str], t: Tensor) -> None:
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
    """The state dict that comes in. `dtype`: what everything is computed in; `source` may load its tensors lazily. `crew`:
    threads that share the work on large tensors; the bits of the result do not depend on their number."""

    def __init__(
        self,
        plan: Plan,
        source: Mapping[str, Tensor],
        dtype: torch.dtype = torch.float64,
        cache: Cache | None = None,
        crew: Executor | None = None,
    ) -> None:
        self.plan = plan
        self.source = source
        self.dtype = dtype
        self.cache = cache or Cache()
        self.stage = object()  # in the cache, which stages share
        self.crew = crew
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

    def program(self, name: str) -> Program:
        """What the moves so far do to this parameter: nothing."""
        return {}

    def tensor(self, name: str) -> Tensor:
        """The parameter under this canonical name, wide and in its chart."""
        held = self.cache.get((self.stage, name))
        if held is not None:
            return held
        program = self.program(name)
        if program:
            return self.carried(self.base.start(name), program, self.dtype)
        if self.base is not self:
            return self.base.tensor(name)
        op = self.params[name].op
        assert isinstance(op, Param)
        wide = self.stored(name).to(self.dtype)
        wide = op.chart.forward(wide) if op.chart.steps else wide
        for update in op.updates:
            wide = wide + update.value(self.tensor)
        return wide

    def start(self, name: str) -> Tensor:
        """What programs are carried out on: the parameter in its chart, in the dtype that it came in where that can be."""
        op = self.params[name].op
        assert isinstance(op, Param)
        return self.tensor(name) if op.chart.steps or op.updates else self.stored(name)

    def carried(self, t: Tensor, program: Program, dtype: torch.dtype) -> Tensor:
        """A tensor after a program, computed wide and rounded once to `dtype`."""
        out: Tensor | None = None
        for block, acts in program.values():
            where = positions(block)
            if where is None:
                return carry_out(acts, t.reshape(block.sizes), self.dtype, dtype, self.crew).reshape(t.shape)
            if out is None:
                out = t.to(dtype, copy=True)
            part = carry_out(acts, gather(t, block), self.dtype, dtype, self.crew)
            scatter(out, where, part.reshape([len(w) for w in where]))
        assert out is not None
        return out

    def kept(self, name: str) -> Tensor:
        """As `tensor`, and remembered: for what several parameters depend on."""
        held = self.cache.get((self.stage, name))
        if held is None:
            held = self.tensor(name).clone()  # what came in may lie in memory that is used again
            self.cache.put((self.stage, name), held)
        return held

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

    def result(self, name: str, dtype: torch.dtype | None = None) -> Tensor | None:
        """The parameter out of its chart, rounded once to `dtype` (wide by default); None if no move changed it."""
        dtype = dtype or self.dtype
        op = self.params[name].op
        assert isinstance(op, Param)
        program = self.program(name)
        if not op.updates and not op.chart.steps:
            return self.carried(self.base.start(name), program, dtype) if program else None
        if not program and not any(self.program(other) for update in op.updates for other in update.reads):
            return None
        y = self.tensor(name)
        for update in op.updates:
            y = y - update.value(self.tensor)
        y = op.chart.inverse(y) if op.chart.steps else y
        return y.to(dtype)

    def parts(self, name: str, dtype: torch.dtype) -> Iterator[Tensor] | None:
        """The entries of `result` in flat parts one after another, each as soon as it is computed."""
        op = self.params[name].op
        assert isinstance(op, Param)
        held = list(self.program(name).values())
        if len(held) == 1 and not op.updates and not op.chart.steps and positions(held[0][0]) is None:
            ((block, acts),) = held
            return parts(acts, self.base.start(name).reshape(block.sizes), self.dtype, dtype, self.crew)
        whole = self.result(name, dtype)
        return None if whole is None else iter((whole.reshape(-1),))


class Image:
    """What a move does to the parameters of the state before it. acts: those on a block of the graph, made anew each time;
    beside: those on whole parameters that are in no graph, by name."""

    def __init__(
        self,
        before: State,
        acts: Callable[[Block], tuple[Act, ...]] = lambda _: (),
        beside: Mapping[str, tuple[Act, ...]] | None = None,
    ) -> None:
        self.before, self.acts, self.beside = before, acts, beside or {}

    def program(self, v: Value) -> Program:
        assert isinstance(v.op, Param)
        if v.op.name in self.beside:
            whole = Block(-1, v, (None,) * len(v.shape), tuple((a, n, 1) for a, n in enumerate(v.shape)))
            return {whole.id: (whole, self.beside[v.op.name])}
        made = {b.id: (b, self.acts(b)) for b in self.before.plan.blocks.of.get(v.id, ())}  # none: no part of the graph
        return {i: held for i, held in made.items() if held[1]}

    def __call__(self, v: Value) -> Tensor | None:
        """The parameter after the move, wide and in its chart; None where it does not change."""
        assert isinstance(v.op, Param)
        program = self.program(v)
        if not program:
            return None
        before = self.before
        start = before.start(v.op.name) if before.base is before else before.tensor(v.op.name)
        return before.carried(start, program, before.dtype)


class Moved(State):
    """The state after a move. `on(before)` gives the move's image; it is called when the first parameter is asked for."""

    def __init__(self, before: State, on: Callable[[State], Image]) -> None:
        self.before = before
        self.on = on
        self.done: Image | None = None
        self.stage = object()
        self.plan, self.source, self.dtype, self.cache = before.plan, before.source, before.dtype, before.cache
        self.params, self.names, self.base, self.crew = before.params, before.names, before.base, before.crew

    def program(self, name: str) -> Program:
        if self.done is None:
            self.done = self.on(self.before)
        so_far = dict(self.before.program(name))
        for i, (block, acts) in self.done.program(self.params[name]).items():
            so_far[i] = (block, (*(so_far[i][1] if i in so_far else ()), *acts))
        return so_far


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
