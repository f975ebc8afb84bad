"""Directions that nobody sees if several blocks share them: brought to rest, and found between two states."""

import pytest
import torch
from tests.zoo.registry import load

import regauge
from regauge.act.still import rest
from regauge.align.affine import between
from regauge.solve import sampling
from regauge.solve.element import Element
from regauge.solve.state import State


@pytest.mark.parametrize("name", ["cut-behind-a-norm", "cut-behind-a-norm-narrow", "centred-strided"])
def test_shared_directions_are_fixed_and_found(name):
    call = load()[name].make()
    plan = regauge.infer(call.model, call.args, call.kwargs, observe=call.observe).plan
    assert plan.joint
    here = {k: v.double() for k, v in call.model.state_dict().items()}
    there = Element(plan, (sampling.hide(plan, torch.Generator().manual_seed(1)),)).apply(here)
    assert max(float((there[k] - here[k]).abs().max()) for k in here) > 1e-3

    one, other = (rest(plan, State(plan, s)).apply(s) for s in (here, there))
    found = Element(plan, tuple(between(State(plan, here), State(plan, there)))).apply(here)
    for k in here:
        assert torch.allclose(one[k], other[k], atol=1e-12, rtol=0)
        assert torch.allclose(found[k], there[k], atol=1e-12, rtol=0)
