"""Random networks around single operators reach the whole rule table, and find a rule that says what is not so."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from regauge.graph.build import Builder
from regauge.rules.registry import RULES
from tests.fuzz.table import around
from tests.fuzz.verdict import Verdict, judged

# no floating argument (logic on bits, numbers drawn from indices), and an operation in place on a view that torch refuses
WITHOUT_DATA = "__and__ __or__ __xor__ bitwise_and bitwise_not bitwise_or bitwise_xor detach_ one_hot".split()
CHOOSY = {"aten.logical_and.default", "aten.where.Scalar"}  # samples of both kinds
REACHED = sorted(n for n in RULES if n.split(".")[1] not in WITHOUT_DATA and n not in CHOOSY)


def drawn(name: str, seed: int) -> Verdict:
    torch.manual_seed(0)
    net = around(name, Random(f"{seed}:{name}").choice)
    return judged(net, net.example(), tight=False) if seed else judged(net, net.example())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if k % 12 else []) for k, n in enumerate(REACHED)]
)
def test_operator(name: str) -> None:
    found = drawn(name, 0)
    assert not found.bad, f"{name}: {found}"


def test_nearly_all_rules_are_reached() -> None:
    assert len(REACHED) >= len(RULES) - 12


def lying(monkeypatch: pytest.MonkeyPatch, verb: str, part: str, **facts: Any) -> None:
    """The builder's verb believes these facts of all functions whose name has this part."""
    honest = getattr(Builder, verb)

    def lie(self: Builder, name: str, *args: Any, **said: Any) -> Any:
        return honest(self, name, *args, **(said | facts if part in name else said))

    monkeypatch.setattr(Builder, verb, lie)


@pytest.mark.parametrize(
    ("operator", "verb", "part", "facts"),
    [
        ("aten.gelu.default", "pointwise", "gelu", {"degree": 1.0}),
        ("aten.relu.default", "pointwise", "relu", {"degree": 2.0}),
        ("aten.sigmoid.default", "pointwise", "sigmoid", {"parity": "odd"}),
        ("aten.cumsum.default", "along", "cumsum", {"equivariant": True}),
        ("aten.softmax.int", "along", "softmax", {"linear": True}),
        ("aten.abs.default", "pointwise", "abs", {"parity": "odd"}),
    ],
)
def test_a_wrong_rule_is_found(
    monkeypatch: pytest.MonkeyPatch, operator: str, verb: str, part: str, facts: dict[str, Any]
) -> None:
    assert not any(drawn(operator, seed).kind == "UNSOUND" for seed in range(1, 4))
    lying(monkeypatch, verb, part, **facts)
    assert any(drawn(operator, seed).kind == "UNSOUND" for seed in range(1, 25))
