"""The ratchet: zoo models on which the inferred dimension is not the nullity, with nullity - dimension.

It may only shrink: a test fails when an entry no longer holds, and then the entry goes or its number gets smaller.
"""

from __future__ import annotations

GAPS: dict[str, int] = {}
