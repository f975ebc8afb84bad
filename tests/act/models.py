"""Small models of several families, with the means to ask whether a new state is the same function."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import regauge
from regauge.check.generic import double_copy, widened
from regauge.check.lift import lifted
from regauge.check.observe import run
from regauge.solve.element import Element
from tests.zoo.registry import Call, load

ZOO = load()


class Subject:
    """A model of the zoo in float64, with its gauge."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.gauge = regauge.infer(call.model, call.args, call.kwargs, observe=call.observe)
        self.model = double_copy(call.model).requires_grad_(False)
        self.inputs = widened((call.args, call.kwargs))
        self.state: dict[str, Tensor] = {n: t.clone() for n, t in self.model.state_dict().items()}
        self.outputs = self.run(self.state)

    def run(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.model.load_state_dict(dict(state))
        args, kwargs = self.inputs
        with torch.no_grad(), lifted():
            found = {n: t.clone() for n, t in run(self.model, args, kwargs, self.call.observe).items()}
        self.model.load_state_dict(self.state if hasattr(self, "outputs") else dict(state))
        return found

    def change(self, state: Mapping[str, Tensor]) -> float:
        """Relative change of the outputs when the model has this state."""
        return distance(self.run(state), self.outputs)


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest relative difference; infinite where something is not finite."""
    worst = 0.0
    for n, x in b.items():
        d = (a[n].double() - x.double()).abs().max() / x.double().abs().max().clamp_min(1e-300)
        worst = max(worst, float(d) if torch.isfinite(d) else float("inf"))
    return worst


@cache
def subject(name: str) -> Subject:
    return Subject(ZOO[name].make())


def module_subject(model: nn.Module, *args: Any) -> Subject:
    return Subject(Call(model.eval(), args))


def assert_keeps(s: Subject, element: Element, bound: float = 1e-9) -> dict[str, Tensor]:
    """The state after the element, once it is known to be the same function."""
    image = element.apply(s.state)
    change = s.change(image)
    assert change < bound, change
    return image
