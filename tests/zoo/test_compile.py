"""The compiler on every model of the zoo: sound, tight up to known gaps, and a group of pure functions."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import regauge
from regauge.check.sound import sound
from tests.zoo.gaps import GAPS, ONE_ROUTE
from tests.zoo.registry import Call, Case, load

ZOO = load()
NOTHING_SEEN = {
    "unread-rows",
    "scale-of-nothing",
}  # all that elements move is out of sight, and so is any other move of it
CASES = [pytest.param(c, id=c.name, marks=[] if c.quick else [pytest.mark.slow]) for c in ZOO.values()]
everywhere = pytest.mark.parametrize("case", CASES)


@cache
def compiled(name: str) -> tuple[Call, regauge.Gauge]:
    call = ZOO[name].make()
    return call, regauge.infer(call.model, call.args, call.kwargs, observe=call.observe)


def doubled(call: Call) -> dict[str, Tensor]:
    return {n: t.double() if t.is_floating_point() else t for n, t in call.model.state_dict().items()}


def relative(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """The largest difference of two states, relative to the largest entry of each tensor."""
    assert left.keys() == right.keys()
    pairs = [(left[n].double(), right[n].double()) for n in left if left[n].numel()]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)


@everywhere
def test_sound(case: Case):
    call, gauge = compiled(case.name)
    result = sound(call.model, call.args, gauge, call.kwargs, observe=call.observe)
    assert result.error <= 1e-9, str(result)
    assert result.native <= 10 * result.floor, str(result)
    assert result.sensitive or gauge.dim == 0 or case.name in NOTHING_SEEN, str(result)


@everywhere
def test_dimension_is_the_nullity(case: Case):
    """case.dim is the measured nullity: see test_nullity."""
    _, gauge = compiled(case.name)
    assert case.dim - gauge.dim == GAPS.get(case.name, 0), "\n".join(map(str, gauge.terms))
    assert gauge.dim == sum(t.dim for t in gauge.terms)


def test_known_gaps_are_of_the_zoo():
    assert GAPS.keys() | ONE_ROUTE.keys() <= ZOO.keys() and all(GAPS.values())


@everywhere
def test_elements_are_a_group(case: Case):
    call, gauge = compiled(case.name)
    state = doubled(call)
    g, h = gauge.sample(1), gauge.sample(2)
    once = h.apply(state)
    assert relative((g @ h).apply(state), g.apply(once)) < 1e-9
    assert relative(g.inverse().apply(g.apply(state)), state) < 1e-9
    image = gauge.identity().apply(state)
    assert all(torch.equal(image[n], t) for n, t in state.items())


@everywhere
def test_apply_is_pure_and_keeps_the_form(case: Case):
    call, gauge = compiled(case.name)
    state = call.model.state_dict()
    before = {n: t.clone() for n, t in state.items()}
    image = gauge.sample(3).apply(state)
    assert list(image) == list(state)
    for name, tensor in state.items():
        assert torch.equal(tensor, before[name])
        assert image[name].shape == tensor.shape and image[name].dtype == tensor.dtype
    places: dict[int, str] = {}
    for name, tensor in state.items():
        first = places.setdefault(tensor.data_ptr(), name)
        if tensor.numel() and state[first].shape == tensor.shape:
            assert torch.equal(image[name], image[first]), f"the tie of {name} and {first} broke"


@everywhere
def test_equal_seeds_give_equal_elements(case: Case):
    call, gauge = compiled(case.name)
    state = call.model.state_dict()
    one, two = gauge.sample(5).apply(state), gauge.sample(torch.Generator().manual_seed(5)).apply(state)
    assert all(torch.equal(one[n], two[n]) for n in state)


@everywhere
def test_json_round_trip(case: Case):
    call, gauge = compiled(case.name)
    text = gauge.to_json()
    again = regauge.Gauge.from_json(text)
    assert again.to_json() == text
    assert (again.dim, again.bonds) == (gauge.dim, gauge.bonds)
    state = doubled(call)
    assert relative(again.sample(7).apply(state), gauge.sample(7).apply(state)) < 1e-12


def decomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    try:
        return program.run_decompositions()
    except ValueError as error:  # torch's own expansion of attention returns strides that the model's next view refuses
        assert "Cannot view a tensor" in str(error)
        table = torch.export.default_decompositions()
        table.pop(torch.ops.aten.scaled_dot_product_attention.default)
        return program.run_decompositions(table)


@everywhere
def test_decomposed_gives_the_same_gauge(case: Case, request: pytest.FixtureRequest):
    """The second route: every composite operator expanded into primitives."""
    if case.name in ONE_ROUTE:
        request.applymarker(pytest.mark.xfail(strict=True, reason=f"known: {ONE_ROUTE[case.name]}"))
    call, gauge = compiled(case.name)
    if not isinstance(call.observe, str) and call.observe is not None:
        pytest.skip("a callable observes the module's output")
    program = decomposed(torch.export.export(call.model, call.args, call.kwargs, strict=False))
    second = regauge.infer(program, call.args, call.kwargs, observe=call.observe)
    assert second.dim == gauge.dim
    groups = sorted((b.size, str(b.group), b.dim) for b in gauge.bonds)
    assert sorted((b.size, str(b.group), b.dim) for b in second.bonds) == groups
