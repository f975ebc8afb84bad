"""Drives the rules over a traced model: FX graph in, core graph out."""

from __future__ import annotations

import operator as py
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from regauge.errors import UnknownOperatorError
from regauge.graph.bounds import Reach
from regauge.graph.build import Builder, subgraph
from regauge.graph.capture import Captured, source_of
from regauge.graph.ir import Graph, Source, Value
from regauge.graph.marks import Marked
from regauge.rules.complex import Complex
from regauge.rules.indexing import Index
from regauge.rules.registry import RULES
from regauge.rules.structure import call

SHAPE_ONLY = ("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like")
IGNORED = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range")


@dataclass
class Missing:
    """An operator without a rule, with how often it occurs and where first."""

    operator: str
    count: int
    source: Source
    reason: str = ""


@dataclass(frozen=True)
class Lowered:
    graph: Graph
    frozen: tuple[Missing, ...] = ()


def _expanded(node: fx.Node) -> frozenset[int]:
    """Axes over which a tensor was expanded."""
    while str(node.target) in ("aten.clone.default", "aten._to_copy.default", "aten.alias.default"):
        node = node.all_input_nodes[0]
    if str(node.target) != "aten.expand.default":
        return frozenset()
    before, after = (n.meta["val"].shape for n in (node.all_input_nodes[0], node))
    new = len(after) - len(before)
    return frozenset(a for a, n in enumerate(after) if n > 1 and (a < new or before[a - new] == 1))


def lower(captured: Captured, unknown: str = "raise") -> Lowered:
    """Write every operator in the core graph.

    Raises UnknownOperatorError, which lists every operator without a rule, unless unknown="freeze".
    """
    driver = _Driver(captured, Builder(), unknown)
    return driver.run()


@dataclass
class _Driver:
    captured: Captured
    builder: Builder
    unknown: str
    env: dict[fx.Node, Any] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    fixed: dict[object, Value] = field(default_factory=dict)
    learned: set[fx.Node] = field(default_factory=set)

    @cached_property
    def reach(self) -> Reach:
        return Reach(self.captured)

    @cached_property
    def marked(self) -> Marked:
        return Marked(self.reach)

    def run(self) -> Lowered:
        c = self.captured
        statistics = self._statistics()
        needed = self._needed(statistics)
        for node in c.graph.nodes:
            if node.name in c.parameters or any(n in self.learned for n in node.all_input_nodes):
                self.learned.add(node)
            if node.op == "placeholder":
                self.env[node] = self._placeholder(node, statistics)
            elif node.op == "call_function" and node in needed:
                self.builder.source = source_of(node)
                self.env[node] = self._call(node)
            elif node.op == "get_attr":
                raise UnknownOperatorError(f"higher-order operator with a sub-graph ({node.target}): no rule reads it")
        if self.missing and self.unknown != "freeze":
            raise UnknownOperatorError(_message(list(self.missing.values())))
        outputs = [self._value(self.env[n]) for n in c.outputs]
        followers = []
        for name, node in c.updates.items():
            update = self.env.get(node)
            if name in statistics and isinstance(update, Value) and update.learned:
                followers.append(update)
        graph = subgraph(self.builder.values, outputs, followers)
        return Lowered(graph, tuple(self.missing.values()))

    def _needed(self, statistics: set[str]) -> set[fx.Node]:
        todo = [*self.captured.outputs, *(n for name, n in self.captured.updates.items() if name in statistics)]
        seen: set[fx.Node] = set()
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo.extend(node.all_input_nodes)
        return seen

    def _statistics(self) -> set[str]:
        """Buffers that a rule reads as running statistics."""
        c = self.captured
        found = set()
        for node in c.graph.nodes:
            known = RULES.get(str(node.target)) if node.op == "call_function" else None
            for position in known.statistics if known else ():
                arg = node.args[position] if position < len(node.args) else None
                if isinstance(arg, fx.Node) and arg.name in c.buffers:
                    found.add(c.buffers[arg.name])
        return found

    def _placeholder(self, node: fx.Node, statistics: set[str]) -> Any:
        c = self.captured
        value = node.meta.get("val")
        if node.name in c.parameters:
            name = c.parameters[node.name]
            return self.builder.param(name, c.tensors[name].shape)
        if c.buffers.get(node.name) in statistics:
            name = c.buffers[node.name]
            return self.builder.param(name, c.tensors[name].shape, statistic=True)
        if isinstance(value, Tensor):
            return self._free(node, node.name not in c.constants)
        return c.inputs.get(node.name)

    def _free(self, node: fx.Node, data: bool) -> Value:
        evaluate, shape = self.captured.evaluate, tuple(map(int, node.meta["val"].shape))
        reach = self.reach.of(node) if data else None
        if reach is not None and reach[0] == reach[1]:  # the same for every input
            dtype = node.meta["val"].dtype
            return self.builder.free(node.name, shape, lambda: torch.full(shape, reach[0], dtype=dtype), False)
        marks, misses = (self.marked.of(node), self.marked.misses(node)) if data else ((), ())
        among = tuple(sorted(self.reach.among(node) or ())) if data else ()
        return self.builder.free(
            node.name, shape, lambda: evaluate(node), data, None, reach, _expanded(node), marks, among, misses
        )

    def _from_operands(self, node: fx.Node, data: bool) -> Value:
        """A constant computed from constants that came out of parameters (the zeros of zeros_like(weight))."""

        def thunk() -> Tensor:
            def resolve(n: fx.Node) -> Any:
                v = self.env[n]
                return v.op.thunk() if isinstance(v, Value) else v  # type: ignore[union-attr]

            args, kwargs = fx.map_arg((node.args, node.kwargs), resolve)
            return node.target(*args, **{k: v for k, v in kwargs.items() if k != "device"})  # type: ignore[operator]

        shape = tuple(map(int, node.meta["val"].shape))
        return self.builder.free(f"{node.name}:operands", shape, thunk, data)

    def _call(self, node: fx.Node) -> Any:
        name = str(node.target)
        if any(i in name for i in IGNORED):
            return None
        if node.target is py.getitem:
            source, index = node.args
            whole = self.env[source]  # type: ignore[index]
            return self._free(node, whole.data) if isinstance(whole, _Tuple) else whole[index]
        args = fx.map_arg(node.args, lambda n: self.env[n])
        kwargs = fx.map_arg(node.kwargs, lambda n: self.env[n])
        tensors = _values((args, kwargs))
        if not any(_learned(v) for v in tensors):
            data = any(v.data for v in tensors) and not any(i in name for i in SHAPE_ONLY)
            value = node.meta.get("val")
            if not isinstance(value, Tensor):
                return _Tuple(data) if isinstance(value, tuple | list) else value
            key = _call_key(name, args, kwargs)
            if key not in self.fixed:
                pure = not any(n in self.learned for n in node.all_input_nodes)
                self.fixed[key] = self._free(node, data) if pure else self._from_operands(node, data)
            return self.fixed[key]
        known = RULES.get(name)
        if known is None:
            return self._freeze(node, name, tensors, "")
        try:
            return call(known, self.builder, args, kwargs)
        except NotImplementedError as reason:
            return self._freeze(node, name, tensors, str(reason))

    def _freeze(self, node: fx.Node, name: str, tensors: list[Any], reason: str) -> Any:
        entry = self.missing.setdefault(name, Missing(name, 0, source_of(node), reason))
        entry.count += 1
        if any(isinstance(v, Complex) for v in tensors):
            raise UnknownOperatorError(
                f"{name}, first {entry.source}: {reason or 'no rule'}, and complex numbers cannot be frozen"
            )
        values = [v.numbers(self.builder) if isinstance(v, Index) else v for v in tensors if not isinstance(v, _Tuple)]

        def make(meta: Tensor, item: Callable[[Any], Tensor]) -> Value:
            fn = _Replay(node, item)
            return self.builder.frozen(name, fn, values, tuple(map(int, meta.shape)))

        meta = node.meta["val"]
        if not isinstance(meta, Tensor | tuple | list):
            raise UnknownOperatorError(
                f"{name}, first {entry.source}: a number read from parameters steers the model; no rule reads it"
            )
        if isinstance(meta, Tensor):
            return make(meta, lambda y: y)
        return tuple(make(m, py.itemgetter(i)) if isinstance(m, Tensor) else m for i, m in enumerate(meta))

    def _value(self, v: Any) -> Value:
        if not isinstance(v, Value):
            raise UnknownOperatorError("an output of the model is not a tensor")
        return v


@dataclass(frozen=True)
class _Tuple:
    """Several results of an operator without parameters above it."""

    data: bool
    learned: bool = False


@dataclass
class _Replay:
    """A frozen operator, run as the model runs it."""

    node: fx.Node
    item: Callable[[Any], Tensor]

    def __call__(self, *xs: Tensor) -> Tensor:
        it = iter(xs)
        inputs: dict[fx.Node, Any] = {n: next(it) for n in self.node.all_input_nodes}
        args, kwargs = fx.map_arg((self.node.args, self.node.kwargs), lambda n: inputs[n])
        return self.item(self.node.target(*args, **kwargs))  # type: ignore[operator]


def _call_key(name: str, args: Any, kwargs: Any) -> object:
    """Equal for calls that give equal constants; random operators are never equal."""
    if any(r in name for r in ("rand", "bernoulli", "dropout", "multinomial", "empty")):
        return object()
    flat, spec = torch.utils._pytree.tree_flatten((args, kwargs))
    return name, tuple(f"%{v.id}" if isinstance(v, Value) else repr(v) for v in flat), repr(spec)


def _values(tree: Any) -> list[Any]:
    flat, _ = torch.utils._pytree.tree_flatten(tree)
    return [v for v in flat if isinstance(v, Value | Index | Complex | _Tuple)]


def _learned(v: Any) -> bool:
    return bool(v.learned)


def _message(missing: list[Missing]) -> str:
    lines = [
        f"  {m.operator}: {m.count} time{'s' if m.count > 1 else ''}, first {m.source}"
        + (f" [{m.reason}]" if m.reason else "")
        for m in sorted(missing, key=lambda m: -m.count)
    ]
    total = sum(m.count for m in missing)
    return (
        f"{len(missing)} operator{'s' if len(missing) > 1 else ''} without a rule ({total} calls):\n"
        + "\n".join(lines)
        + "\nAdd a rule for each (see docs/adding-a-rule.md), or pass unknown='freeze' (--unknown freeze): what touches them then stays fixed."
    )
