"""Random networks: whatever is inferred holds, and never more than there is. `make fuzz` is the long version."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.networks import MAKERS, Network, Step, random_network
from tests.fuzz.run import Net, example
from tests.fuzz.shrink import shrunk
from tests.fuzz.verdict import Verdict, change, verdict

networks = st.builds(lambda r: random_network(r.choice), st.randoms(use_true_random=False))
quiet = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@given(networks)
@settings(max_examples=45, **quiet)
def test_what_is_inferred_holds(network: Network) -> None:
    found = verdict(network, tight=False)
    assert not found.bad, f"{found}\n{network}"


@given(networks)
@settings(max_examples=15, **quiet)
def test_no_more_is_inferred_than_there_is(network: Network) -> None:
    found = verdict(network)
    assert not found.bad, f"{found}\n{network}"


@pytest.mark.slow
@given(networks)
@settings(max_examples=400, **quiet)
def test_many(network: Network) -> None:
    found = verdict(network, tight=False)
    assert not found.bad, f"{found}\n{network}"


def test_every_maker_is_drawn() -> None:
    """The strategy reaches all its operations, and most of what it draws can be traced and inferred."""
    drawn = [random_network(Random(n).choice) for n in range(600)]
    ops = {s.op for network in drawn for s in network.steps}
    assert {"linear", "attention", "cat", "narrow", "layer_norm", "rms_norm", "mixture", "recurrence", "conv"} <= ops
    assert len(ops) > 60 and len(MAKERS) > 25
    for network in drawn[:200]:
        Net(network)(example(network))


def test_a_number_is_one_network() -> None:
    assert random_network(Random("1:7").choice) == random_network(Random("1:7").choice)


def chain(*steps: Step) -> Network:
    return Network(3, False, steps, (len(steps),), (("a", (4, 3)), ("b", (2, 4))))


def test_a_wrong_group_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tanh that is declared homogeneous, the verdict is UNSOUND and shrinking finds the three steps that matter."""
    from regauge.graph.build import Builder

    honest = Builder.pointwise

    def lying(self, name, fn, *xs, **facts):  # type: ignore[no-untyped-def]
        return honest(self, name, fn, *xs, **(facts | {"degree": 1.0} if "tanh" in name else facts))

    monkeypatch.setattr(Builder, "pointwise", lying)
    up, act, down = Step("linear", (0,), ("a",), (3, 4)), Step("function", (1,), ("tanh",), (3, 4)), ("b",)
    noise = [Step("function", (2,), ("neg",), (3, 4)), Step("flip", (3,), (), (3, 4))]
    network = chain(up, act, *noise, Step("linear", (4,), down, (3, 2)))
    assert verdict(network, tight=False).kind == "UNSOUND"
    small = shrunk(network, lambda n: verdict(n, tight=False).kind == "UNSOUND")
    assert [s.op for s in small.steps] == ["linear", "function", "linear"]


def test_a_fault_in_counting_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import regauge

    monkeypatch.setattr(regauge.Gauge, "dim", property(lambda self: 10_000))
    network = chain(Step("linear", (0,), ("a",), (3, 4)), Step("linear", (1,), ("b",), (3, 2)))
    assert verdict(network).kind == "OVERCOUNTED"


def test_what_is_not_finite_is_no_verdict() -> None:
    network = chain(
        Step("linear", (0,), ("a",), (3, 4)), *[Step("function", (k,), ("cube",), (3, 4)) for k in range(1, 9)]
    )
    assert verdict(network).kind == "skipped"
    assert not Verdict("skipped").bad


def test_the_measure_of_change_is_relative() -> None:
    import regauge

    network = chain(Step("linear", (0,), ("a",), (3, 4)), Step("linear", (1,), ("b",), (3, 2)))
    model, x = Net(network).eval(), example(network)
    assert 0 < change(model, x, regauge.infer(model, (x,)), 2) < 1e-12
    assert torch.equal(x, example(network))
