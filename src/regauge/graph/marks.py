"""Events that integers made from tokens show: the token here is p.

Positions that are counted from the tokens stand still at padding: cumsum(t != p) * (t != p) + p is p there and nowhere else.
So one row of the table of positions is only read together with one row of the table of tokens. Bounds at one place, for
tokens that are p there and for those that are not, tell whether an integer shows the event.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, fx

from regauge.graph.bounds import COMBINED, Bounds, Reach, fitted

COMPARED = {"aten.ne.Scalar": 0, "aten.eq.Scalar": 1}  # -> the comparison's value where the token is p
PLACEWISE = "_to_copy to type_as clone alias detach contiguous lift_fresh_copy".split()

OR, AND = ("bitwise_or", "logical_or", "__or__"), ("bitwise_and", "logical_and", "__and__")
LOGICAL = dict.fromkeys(OR, COMBINED["maximum"]) | dict.fromkeys(AND, COMBINED["minimum"])  # of bounds that are 0 and 1

Marks = tuple[tuple[str, int], ...]  # an event, and the value that an integer has where it happens and nowhere else


@dataclass(frozen=True)
class Event:
    """The token is p. shown: comparisons, with their values where it happens; made: all that depends on them."""

    tokens: fx.Node
    p: int
    shown: dict[fx.Node, int]
    made: frozenset[fx.Node]

    @property
    def name(self) -> str:
        return f"{self.tokens.name}=={self.p}"


class Marked:
    """The events that the integers of one traced graph show."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach

    @cached_property
    def events(self) -> tuple[Event, ...]:
        shown: dict[tuple[fx.Node, int], dict[fx.Node, int]] = {}
        for node in self.reach.captured.graph.nodes:
            if str(node.target) in COMPARED and node in self.reach.given and node.args[0].op == "placeholder":
                tokens, p = node.args
                if type(p) is int and _shape(tokens):
                    shown.setdefault((tokens, p), {})[node] = COMPARED[str(node.target)]
        return tuple(Event(tokens, p, found, _behind(found)) for (tokens, p), found in shown.items())

    def of(self, node: fx.Node) -> Marks:
        """The events that these integers show, each at the place where it happens."""
        found = []
        for event in self.events:
            if node is event.tokens:
                found.append((event.name, event.p))
            elif node in event.made and _shape(node) == _shape(event.tokens):
                here, elsewhere = (self._at(node, event, happens) for happens in (True, False))
                if here and elsewhere and here[0] == here[1] and not elsewhere[0] <= here[0] <= elsewhere[1]:
                    found.append((event.name, here[0]))
        return tuple(found)

    def misses(self, node: fx.Node) -> tuple[int, ...]:
        """Tokens that these integers never are: those that an event replaces."""
        found = []
        for event in self.events:
            if node in event.made and _shape(node) == _shape(event.tokens):
                if not any(self._may_be(node, event, happens) for happens in (True, False)):
                    found.append(event.p)
        return tuple(found)

    def _may_be(self, x: object, event: Event, happens: bool) -> bool:
        """Whether x may be p at a place where the token is p, or is not."""
        if x is event.tokens:
            return happens
        if not isinstance(x, fx.Node):
            return type(x) is not int or x == event.p
        name = str(x.target).split(".")[1] if "." in str(x.target) else ""
        if _shape(x) == _shape(event.tokens):
            if name in PLACEWISE and not (x.kwargs or x.args[1:]):
                return self._may_be(x.args[0], event, happens)
            if name in ("where", "masked_fill") and len(x.args) == 3:
                condition, yes, no = x.args if name == "where" else (x.args[1], x.args[2], x.args[0])
                held = self._at(condition, event, happens)
                taken = [no] if held == (0, 0) else [yes] if held == (1, 1) else [yes, no]
                return any(self._may_be(a, event, happens) for a in taken)
        bounds = self._at(x, event, happens)
        return bounds is None or bounds[0] <= event.p <= bounds[1]

    def _at(self, x: object, event: Event, happens: bool) -> Bounds:
        """Bounds at a place where the event happens, or does not."""
        if not isinstance(x, fx.Node):
            return (x, x) if type(x) is int else None
        if x in event.shown:
            value = event.shown[x] if happens else 1 - event.shown[x]
            return value, value
        everywhere = self.reach.of(x)
        if x not in event.made or x.kwargs and "dtype" not in x.kwargs or _shape(x) != _shape(event.tokens):
            return everywhere
        name = str(x.target).split(".")[1] if "." in str(x.target) else ""
        if name in PLACEWISE or name == "cumsum" and isinstance(x.args[1], int):
            here, any_ = self._at(x.args[0], event, happens), self.reach.of(x.args[0])  # type: ignore[arg-type]
            if name in PLACEWISE or here is None or any_ is None:
                return fitted(here, x) if name in PLACEWISE else None
            others = _shape(x)[x.args[1]] - 1  # type: ignore[index]
            return fitted((here[0] + others * min(0, any_[0]), here[1] + others * max(0, any_[1])), x)
        combine = COMBINED.get(name) or LOGICAL.get(name)
        if combine and len(x.args) == 2:
            first, second = (self._at(a, event, happens) for a in x.args)
            if not first or not second:
                return None
            truths = all(0 <= low and high <= 1 for low, high in (first, second))
            return fitted(combine(first, second), x) if name in COMBINED or truths else everywhere
        return everywhere


def _shape(node: object) -> tuple[int, ...]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) and not value.is_floating_point() else ()


def _behind(nodes: dict[fx.Node, int]) -> frozenset[fx.Node]:
    found: set[fx.Node] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(node.users)
    return frozenset(found)
