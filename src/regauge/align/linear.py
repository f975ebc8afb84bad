"""Frames by least squares, without the help of balance: for frames that have no balanced form, and to polish others.

Vectors obey M a = b, dual ones M^T b = a, and what stands between two frames M a = N^T b: linear in all of them at once.
One frame alone is a Sylvester equation, D (sum a a^T) + (sum b b^T) D = ..., sums over vectors and over duals; it
preconditions the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.align.balance import gram
from regauge.align.conjugate import least_squares, norm
from regauge.align.leaves import Piece
from regauge.align.overlap import Problem, weight
from regauge.align.tangent import Turn, keeping

TOLD = 0.5  # of the norm may be left by equations that hold


@dataclass(frozen=True)
class _Equation:
    """A piece: what of x and of y is turned, for left(x) = right(y), up to unknown signs."""

    piece: Piece
    turns: tuple[Turn, ...]
    signs: frozenset[int]


def linked(problem: Problem, root: int) -> set[int]:
    """The unknown frames without a balanced form that pieces join to this one."""
    group = {root}
    unknown = {r for r in problem.free_frames if ("frame", r) not in problem.known}
    joints = [{t.root for t in e.turns} for e in _equations(problem, unknown | group)]
    while more := set().union(*(j for j in joints if j & group)) - group:
        group |= more
    return group


def _equations(problem: Problem, roots: set[int]) -> list[_Equation]:
    """What the pieces say about these frames, at most one vector and one dual in each; the heaviest first, and first those
    that speak of one frame."""
    found = []
    for piece in problem.layout.pieces:
        turns = [Turn(x.frame, k, x.dual, x.places, None) for k, x in enumerate(piece.leaves) if x.frame in roots]
        others = [x.key for x in piece.leaves if x.frame not in roots and x.key is not None]
        signs = problem.open_signs(piece)
        if (
            len(turns) == len({t.dual for t in turns}) > 0
            and all(key in problem.known for key in others)
            and all(set(leaves) <= set(t.places) for _, leaves in signs for t in turns)
        ):
            found.append(_Equation(piece, tuple(turns), frozenset(i for i, _ in signs)))
    return sorted(found, key=lambda e: (len(e.turns), -weight(problem, e.piece)))


def _agreeing(equations: list[_Equation]) -> list[_Equation]:
    """Those that hold at once if every frame takes in some unknown signs: M a = s b is (s M) a = b."""
    taken: dict[int, frozenset[int]] = {}
    kept: list[_Equation] = []
    left = equations
    while left:
        e = next((e for e in left if len({t.root for t in e.turns} - set(taken)) <= 1), None)
        if e is None:
            taken[left[0].turns[0].root] = frozenset()
            continue
        left = [x for x in left if x is not e]
        new = {t.root for t in e.turns} - set(taken)
        rest = e.signs
        for t in e.turns:
            rest ^= taken.get(t.root, frozenset())
        if new and len(e.turns) == len({t.root for t in e.turns}):
            taken[new.pop()] = rest
            kept.append(e)
        elif not rest and not new:
            kept.append(e)
        elif not rest:  # one frame on both sides: its signs cancel
            taken[new.pop()] = frozenset()
            kept.append(e)
    return kept


def frames_by_least_squares(problem: Problem, roots: set[int], tolerance: float) -> dict[int, Tensor]:
    """(*places, n, n) for each: of all solutions the one nearest to the identity. Where they contradict one another, as for two
    states that have nothing to do with each other, rotations: what shrinks once would shrink with every pass."""
    sources = problem.layout.plan.sources
    equations = {e.piece.block.id: (e.turns, *problem.read(e.piece)) for e in _agreeing(_equations(problem, roots))}

    def zero() -> dict[int, Tensor]:
        shapes = {r: (*[n for _, n in sources[r].places], sources[r].n, sources[r].n) for r in sorted(roots)}
        return {r: torch.zeros(s, dtype=torch.float64) for r, s in shapes.items()}

    def push(d: Mapping[int, Tensor]) -> dict[int, Tensor]:
        d = {r: keeping(sources[r], t) for r, t in d.items()}
        return {
            b: sum(t.push(y if t.dual else x, d[t.root]) for t in turns)  # type: ignore[misc]
            for b, (turns, x, y) in equations.items()
        }

    def pull(left: Mapping[int, Tensor]) -> dict[int, Tensor]:
        out = zero()
        for b, (turns, x, y) in equations.items():
            for t in turns:
                out[t.root] += t.pull(y if t.dual else x, left[b])
        return {r: keeping(sources[r], t) for r, t in out.items()}

    sums = {r: torch.stack([t, t]) for r, t in zero().items()}
    for turns, x, y in equations.values():
        for t in turns:
            sums[t.root][int(t.dual)] += gram(y if t.dual else x, t.leaf, t.places)

    def alone(s: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {r: keeping(sources[r], sylvester(sums[r][0], sums[r][1], t, tolerance)) for r, t in s.items()}

    wanted = {b: y - x for b, (_, x, y) in equations.items()}
    found, left = least_squares(push, pull, alone, wanted)
    told = norm(left) <= TOLD * norm({b: y for b, (_, _, y) in equations.items()})
    out = {}
    for r, d in found.items():
        m = torch.eye(sources[r].n, dtype=torch.float64) + keeping(sources[r], d)
        if not told:
            m = m + keeping(sources[r], polar(m) - m)
        out[r] = invertible(m, tolerance)
    return out


def polar(m: Tensor) -> Tensor:
    """The nearest rotation."""
    u, _, vt = torch.linalg.svd(m)
    return u @ vt


def invertible(m: Tensor, tolerance: float) -> Tensor:
    """The nearest matrix of a bounded condition."""
    u, s, vt = torch.linalg.svd(m)
    bounded = s.clamp_min(tolerance * float(s.max()))
    return m if torch.equal(s, bounded) else (u * bounded[..., None, :]) @ vt


def sylvester(p: Tensor, q: Tensor, r: Tensor, tolerance: float) -> Tensor:
    """M with M p + q M = r for p, q >= 0, and zero where both vanish."""
    pv, pu = torch.linalg.eigh(p)
    qv, qu = torch.linalg.eigh(q)
    size = torch.maximum(pv[..., -1], qv[..., -1])[..., None]
    pv, qv = (torch.where(v > tolerance**2 * size, v, 0.0) for v in (pv, qv))
    weights = pv[..., None, :] + qv[..., :, None]
    m = qu.mT @ r @ pu / torch.where(weights > 0, weights, 1.0)
    return qu @ torch.where(weights > 0, m, 0.0) @ pu.mT
