"""`match`: many sketches compared with one another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from regauge.errors import InputError
from regauge.jobs.fingerprint import Fingerprint, read_fingerprint


@dataclass(frozen=True)
class Pair:
    """Two sketches by their files; verdict: "near", "related", "unrelated", or "not comparable" (of other inputs)."""

    a: str
    b: str
    similarity: float
    verdict: str


def match(paths: list[Path]) -> list[Pair]:
    """Every pair, the most similar first. Raises InputError where there are fewer than two, or one cannot be read."""
    if len(paths) < 2:
        raise InputError("match compares sketches with one another: name two or more files")
    found = {str(p): read_fingerprint(p) for p in dict.fromkeys(paths)}
    pairs = [_pair(a, b, found[a], found[b]) for a, b in combinations(found, 2)]
    return sorted(pairs, key=lambda p: -p.similarity)


def _pair(a: str, b: str, x: Fingerprint, y: Fingerprint) -> Pair:
    if x.sketch.make != y.sketch.make:
        return Pair(a, b, 0.0, "not comparable")
    return Pair(a, b, x.similarity(y), x.sketch.verdict(y.sketch))
