"""The rule table. `rule` is the only act of registration, and a rule without samples cannot be registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regauge.graph.build import Builder

Lowering = Callable[..., Any]
Draw = Callable[..., Tensor]
Samples = Callable[[Draw], Iterable[tuple[Any, ...] | tuple[tuple[Any, ...], dict[str, Any]]]]


@dataclass(frozen=True)
class Rule:
    """One operator, written in the core graph.

    lower(b, *args, **kwargs): the operator's own arguments, tensors replaced by values of the graph; returns a value, or a
    tuple for operators with several results. samples(draw): calls to test the rule on; `draw(*shape)` is a random tensor.
    statistics: positions of arguments that are running statistics of the data: buffers that follow the parameters.
    indices: whether the rule reads an index that depends on parameters as one-hot rows; others get it as numbers.
    """

    operator: str
    lower: Lowering
    samples: Samples
    statistics: tuple[int, ...] = ()
    indices: bool = False

    @property
    def name(self) -> str:
        return self.lower.__name__


RULES: dict[str, Rule] = {}


def rule(
    *operators: str, samples: Samples, statistics: tuple[int, ...] = (), indices: bool = False
) -> Callable[[Lowering], Lowering]:
    """Register a lowering for operators, named as torch prints them: "aten.relu.default", "mylib.op.default"."""

    def register(lower: Lowering) -> Lowering:
        for operator in operators:
            if operator in RULES:
                raise ValueError(f"{operator} already has the rule {RULES[operator].name}; remove one of the two")
            RULES[operator] = Rule(operator, lower, samples, statistics, indices)
        return lower

    return register


def operator(name: str) -> Any:
    """The callable of an operator name, or None where this torch does not have it."""
    space, packet, overload = name.split(".")
    try:
        return getattr(getattr(getattr(torch.ops, space), packet), overload)
    except (AttributeError, RuntimeError):
        return None


__all__ = ["RULES", "Builder", "Rule", "operator", "rule"]
