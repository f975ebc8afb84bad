"""A rule written outside the package, wrong in one way each: `assert_rule` refuses it, and says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from regauge.rules import Rule
from regauge.testing import assert_rule


def checked(operator: str, lower: Callable[..., Any], **options: Any) -> None:
    assert_rule(Rule(operator, lower, lambda draw: [(draw(3, 5),)]), **options)


def squared(b: Any, x: Any) -> Any:
    return b.pointwise("mine", torch.square, x, degree=2, parity="even")


@pytest.mark.parametrize(
    ("operator", "lower"),
    [
        ("aten.square.default", lambda b, x: b.pointwise("mine", torch.square, x, degree=1, parity="even")),
        ("aten.tanh.default", lambda b, x: b.pointwise("mine", torch.tanh, x, degree=1, parity="odd")),
        ("aten.sigmoid.default", lambda b, x: b.pointwise("mine", torch.sigmoid, x, parity="odd")),
        ("aten.cos.default", lambda b, x: b.pointwise("mine", torch.cos, x, parity="odd")),
        ("aten.sinh.default", lambda b, x: b.along("mine", torch.sinh, x, [1], linear=True, equivariant=True)),
        ("aten.sinh.default", lambda b, x: b.along("mine", torch.sinh, x, [1], blind=True)),
    ],
    ids=["degree", "degree of none", "parity", "parity of even", "linear", "blind"],
)
def test_what_is_not_so_is_refused(operator: str, lower: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=rf"{operator}, sample 0: a sampled element changes the function by"):
        checked(operator, lower)


def test_what_moves_places_is_refused_as_equivariant() -> None:
    with pytest.raises(AssertionError, match="a sampled element changes the function by"):
        rule = Rule(
            "aten.cumsum.default",
            lambda b, x, axis: b.along("mine", lambda x: torch.cumsum(x, 1), x, [1], equivariant=True),
            lambda draw: [(draw(3, 5), 1)],
        )
        assert_rule(rule)


@pytest.mark.parametrize(
    ("operator", "lower"),
    [
        ("aten.square.default", lambda b, x: b.pointwise("mine", torch.square, x)),
        ("aten.neg.default", lambda b, x: b.pointwise("mine", torch.neg, x)),
        ("aten.relu.default", lambda b, x: b.along("mine", torch.relu, x, [0, 1], equivariant=True)),
    ],
    ids=["no degree", "not linear", "along axes without need"],
)
def test_what_is_too_weak_is_refused(operator: str, lower: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=rf"{operator}, sample 0: inference finds \d+ of \d+ dimensions; 0 may be"):
        checked(operator, lower)


def test_the_right_rule_passes() -> None:
    checked("aten.square.default", squared)
