"""Every rule of the table, on its samples: right value, sound, and no less complete than `gaps.json` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regauge.rules import RULES
from regauge.rules.registry import Rule
from regauge.testing import Report, assert_rule

KNOWN = json.loads(Path(__file__).with_name("gaps.json").read_text(encoding="utf-8"))
MISSED: dict[str, list[int]] = KNOWN["missed"]
UNSOUND: dict[str, str] = KNOWN["unsound alone"]


@pytest.mark.parametrize("name", sorted(RULES))
def test_rule(name: str, request: pytest.FixtureRequest) -> None:
    if name in UNSOUND:
        request.applymarker(pytest.mark.xfail(reason=UNSOUND[name], strict=True, raises=AssertionError))
    reports = assert_rule(name, gaps=MISSED.get(name, []))
    missed = [r.gap for r in reports]
    recorded = MISSED.get(name, [0] * len(missed))
    assert missed == recorded, f"{name}: {missed} dimensions missed, gaps.json has {recorded}: lower its entry"


def test_ratchet_names_rules() -> None:
    assert set(MISSED) | set(UNSOUND) <= set(RULES)
    assert all(any(gaps) and min(gaps) >= 0 for gaps in MISSED.values())


def test_no_samples_is_an_error() -> None:
    relu = RULES["aten.relu.default"]
    with pytest.raises(AssertionError, match="no samples"):
        assert_rule(Rule(relu.operator, relu.lower, lambda draw: []))


def test_wrong_value_is_found() -> None:
    tanh = RULES["aten.tanh.default"]
    with pytest.raises(AssertionError, match="differs from the operator"):
        assert_rule(Rule("aten.relu.default", tanh.lower, tanh.samples))


def test_wrong_symmetry_is_found() -> None:
    def lower(b, x):  # tanh declared homogeneous
        import torch

        return b.pointwise("tanh", torch.tanh, x, degree=1)

    with pytest.raises(AssertionError, match="changes the function"):
        assert_rule(Rule("aten.tanh.default", lower, lambda t: [(t(3, 5),)]))


def test_a_missed_symmetry_is_found() -> None:
    def lower(b, x):
        import torch

        return b.pointwise("relu", torch.relu, x)  # its degree is not declared

    with pytest.raises(AssertionError, match="may be missed"):
        assert_rule(Rule("aten.relu.default", lower, lambda t: [(t(3, 5),)]))


def test_report_counts_the_gap() -> None:
    assert Report("op", 0, 0.0, 0.0, 3, 5).gap == 2 and Report("op", 0, 0.0, 0.0, 5, 3).gap == 0
