"""Families and seeds that no threshold was chosen on; `python -m tests.align` prints the scores of the same pairs."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from regauge.align import DERIVED, GAUGE_EQUAL, UNRELATED, align  # noqa: E402
from tests.align.heldout import FAMILIES, gauge_of, pairs  # noqa: E402

WANTED = {"equal": GAUGE_EQUAL, "derived": DERIVED, "unrelated": UNRELATED}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_pair_is_called_what_it_is(name: str) -> None:
    gauge = gauge_of(name)
    for p in pairs(name, gauge, 3):
        found = align(gauge, p.a, p.b)
        assert found.verdict == WANTED[p.relation], f"{p.what}: {found}"
