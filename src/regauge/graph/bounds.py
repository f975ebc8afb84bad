"""Which integers a value without parameters may hold, for every input: arithmetic of intervals, and of sets where they are
few, over the traced graph.

Positions that are counted from the tokens (a running sum of a mask) lie between the first and the last row that they can
reach, and what is read out of a table of zeros is zero, whatever the tokens are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from regauge.graph.capture import Captured

Bounds = tuple[int, int] | None  # the least and the greatest; None: unknown

LARGEST = 1 << 22  # entries that a look at a constant may cost
FEW = 256  # integers that are followed one by one
INTEGERS = (torch.bool, torch.int32, torch.int64)
WIDE = 1 << 31  # beyond this an integer may not fit
FILLED = {"zeros_like": 0, "new_zeros": 0, "ones_like": 1, "new_ones": 1}
SAME = (
    "_to_copy to type_as clone alias detach detach_ contiguous view _unsafe_view reshape expand unsqueeze squeeze slice "
    "select transpose permute t repeat repeat_interleave flip roll gather index index_select unbind unfold lift_fresh_copy"
).split()


class Reach:
    """Bounds of the nodes of one traced graph, each found once."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.found: dict[fx.Node, Bounds] = {}
        self.sets: dict[fx.Node, frozenset[int] | None] = {}
        self.given: set[fx.Node] = set()  # nodes that depend on an input
        for node in captured.graph.nodes:
            enters = node.op == "placeholder" and node.name not in captured.constants
            if enters or any(n in self.given for n in node.all_input_nodes):
                self.given.add(node)

    def of(self, node: fx.Node) -> Bounds:
        if node not in self.found:
            self.found[node] = fitted(self._of(node), node)
        return self.found[node]

    def among(self, node: fx.Node) -> frozenset[int] | None:
        """All integers that it may hold, where they are few."""
        if node not in self.sets:
            bounds, found = self.of(node), self._among(node)
            if found is None and bounds is not None and bounds[1] - bounds[0] < FEW:
                found = frozenset(range(bounds[0], bounds[1] + 1))
            each = [fitted((x, x), node) for x in found or ()]
            fits = found is not None and len(found) <= FEW and all(b is not None and abs(b[0]) < WIDE for b in each)
            self.sets[node] = frozenset(b[0] for b in each if b is not None) if fits else None
        return self.sets[node]

    def _among(self, node: fx.Node) -> frozenset[int] | None:
        if self.of(node) is None:
            return None
        if node not in self.given:
            return frozenset(self.captured.evaluate(node).unique().tolist())
        if self._entrywise(node):
            return self._together(node)
        if node.op != "call_function" or "." not in str(node.target):
            return None
        name, args = str(node.target).split(".")[1], node.args
        if name in ("cat", "stack"):
            parts = [self._few(x) for x in args[0]]  # type: ignore[union-attr]
            return None if None in parts else frozenset().union(*(p for p in parts if p is not None))
        return self._few(args[0]) if name in SAME else None

    def _together(self, node: fx.Node) -> frozenset[int] | None:
        """Of what is computed entry by entry: from all that the values it is made of hold together, each the same throughout."""
        made_of = self._parts(node)
        if made_of is None or prod(map(len, made_of.values())) > LARGEST >> 8:
            return None

        def entry(x: Any, at: dict[fx.Node, int]) -> int:
            if not isinstance(x, fx.Node):
                return int(x)
            if x not in at:
                made = int(ENTRYWISE[str(x.target).split(".")[1]](*(entry(y, at) for y in x.args)))
                held = fitted((made, made), x)
                if held is None:
                    raise OverflowError
                at[x] = held[0]
            return at[x]

        try:
            return frozenset(entry(node, dict(zip(made_of, at, strict=True))) for at in product(*made_of.values()))
        except OverflowError:
            return None

    def _parts(self, x: fx.Node) -> dict[fx.Node, frozenset[int]] | None:
        """What a value is made of entry by entry; of comparisons with what may be anything it is told that they are 0 or 1."""
        if not self._entrywise(x):
            found = self.among(x)
            return None if found is None else {x: found}
        made_of: dict[fx.Node, frozenset[int]] = {}
        for y in x.all_input_nodes:
            parts = self._parts(y)
            if parts is None:
                return {x: frozenset({0, 1})} if x.meta["val"].dtype == torch.bool else None
            made_of |= parts
        return made_of

    def _entrywise(self, node: fx.Node) -> bool:
        known = node in self.given and node.op == "call_function" and "." in str(node.target) and not node.kwargs
        known = known and node.meta["val"].dtype in INTEGERS
        whole = all(isinstance(x, fx.Node) or isinstance(x, int | float) and int(x) == x for x in node.args)
        return known and whole and str(node.target).split(".")[1] in ENTRYWISE

    def _few(self, x: Any) -> frozenset[int] | None:
        if isinstance(x, fx.Node):
            return self.among(x)
        return frozenset({int(x)}) if isinstance(x, int | float) and int(x) == x else None

    def _of(self, node: fx.Node) -> Bounds:
        value = node.meta.get("val")
        if not isinstance(value, Tensor) or value.dtype not in INTEGERS:
            return None
        if value.dtype == torch.bool:
            return 0, 1
        if node not in self.given:
            return self._evaluated(node) if value.numel() <= LARGEST else None
        if node.op != "call_function" or "." not in str(node.target):
            return None
        return self._called(str(node.target).split(".")[1], node, value)

    def _evaluated(self, node: fx.Node) -> Bounds:
        try:
            t = self.captured.evaluate(node)
        except KeyError:
            return None
        return (int(t.min()), int(t.max())) if isinstance(t, Tensor) and t.numel() else None

    def _operand(self, x: Any) -> Bounds:
        if isinstance(x, fx.Node):
            return self.of(x)
        return (int(x), int(x)) if isinstance(x, int | float) and int(x) == x else None

    def _called(self, name: str, node: fx.Node, value: Tensor) -> Bounds:
        args = node.args
        if name in FILLED:
            return FILLED[name], FILLED[name]
        if name in ("cat", "stack"):
            return _union([self._operand(x) for x in args[0]])  # type: ignore[union-attr]
        if name == "where" and len(args) == 3:
            return _union([self._operand(x) for x in args[1:]])
        if name == "masked_fill":
            return _union([self._operand(args[0]), self._operand(args[2])])
        if name == "remainder" and len(args) == 2 and isinstance(args[1], int) and args[1] > 0:
            return 0, args[1] - 1
        first = self._operand(args[0]) if args else None
        if first is None:
            return None
        if name in SAME:
            return first
        if name in ("cumsum", "sum"):
            (operand, *_), count = node.all_input_nodes, 0
            whole = operand.meta["val"]
            count = whole.shape[args[1]] if name == "cumsum" else whole.numel() // max(1, value.numel())
            return min(first[0], count * first[0]), max(first[1], count * first[1])
        if name == "neg":
            return -first[1], -first[0]
        combine = COMBINED.get(name)
        second = self._operand(args[1]) if combine and len(args) == 2 and not node.kwargs else None
        if combine is None or second is None:
            return None
        return combine(first, second)


def fitted(bounds: Bounds, node: fx.Node) -> Bounds:
    """Bounds as the type of a value holds them: of truths 0 and 1, whatever was added up; None where integers wrap around."""
    dtype = None if bounds is None else node.meta["val"].dtype
    if bounds is None or dtype is None or dtype.is_floating_point or dtype.is_complex:
        return None
    low, high = bounds
    if dtype == torch.bool:
        return int(low > 0 or high < 0), int((low, high) != (0, 0))
    info = torch.iinfo(dtype)
    return bounds if info.min <= low and high <= info.max else None


def _union(bounds: list[Bounds]) -> Bounds:
    known = [b for b in bounds if b is not None]
    return (min(b[0] for b in known), max(b[1] for b in known)) if known and len(known) == len(bounds) else None


def _product(a: tuple[int, int], b: tuple[int, int]) -> Bounds:
    ends = [x * y for x in a for y in b]
    return min(ends), max(ends)


COMBINED: dict[str, Callable[[tuple[int, int], tuple[int, int]], Bounds]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "rsub": lambda a, b: (b[0] - a[1], b[1] - a[0]),
    "mul": _product,
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
}
ENTRYWISE: dict[str, Callable[..., int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "rsub": lambda x, y: y - x,
    "mul": operator.mul,
    "neg": operator.neg,
    "minimum": min,
    "maximum": max,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "logical_not": operator.not_,
    "where": lambda c, x, y: x if c else y,
    "masked_fill": lambda x, c, y: y if c else x,
}
