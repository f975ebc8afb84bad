"""Every dimension in the zoo is a formula, and the formula is the measured nullity. No compiler is involved."""

from __future__ import annotations

import pytest

from tests.zoo.registry import Case, load, measure

CASES = load().values()
MARKED = [pytest.param(c, id=c.name, marks=[] if c.quick else [pytest.mark.slow]) for c in CASES]


@pytest.mark.parametrize("case", MARKED)
def test_formula_is_the_nullity(case: Case):
    space = measure(case, case.make())
    assert space.clear, f"no gap in the singular values: {space.above:.1e} | {space.below:.1e}"
    assert space.nullity == case.dim
