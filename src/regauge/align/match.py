"""The compact element between two balanced states, class by class, from fixed axes inwards.

What a class does follows from pieces whose other leaves are known (least squares: Procrustes, assignment, a sign). The
class with the largest part of its weight in such pieces goes first; when all are known, each is found again from all the
others until nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from regauge.align.linear import frames_by_least_squares, linked, polar
from regauge.align.overlap import (
    Key,
    Problem,
    frame_overlap,
    plane_modulus,
    scores,
    sign_overlap,
    tells_sign,
    uses,
    weight,
)
from regauge.solve.element import Move, Permute, Rotate
from regauge.solve.sampling import ones_basis

PASSES = 8


@dataclass
class Matched:
    """The moves that take a to b, the classes that nothing could tell, and how many passes it took."""

    moves: list[Move] = field(default_factory=list)
    undetermined: list[Key] = field(default_factory=list)
    passes: int = 0


def match(problem: Problem, tolerance: float) -> Matched:
    """Find the element. tolerance: singular values of an overlap below this part of the largest are noise."""
    out = Matched()
    weights = {p.block.id: weight(problem, p) for p in problem.layout.pieces}
    while True:
        key = _next(problem, weights)
        if key is None:
            pair = _pair(problem)
            if pair is not None:
                problem.known.update(("frame", root) for root in pair.matrices)
                problem.a.apply(pair)
                out.moves.append(pair)
                continue
            spare = _spare(problem)
            if spare is None:
                break
            problem.known.add(spare)
            continue
        move = _solve(problem, key, tolerance)
        problem.known.update(("frame", r) for r in move.matrices) if isinstance(move, Rotate) else problem.known.add(
            key
        )
        if move is not None:
            problem.a.apply(move)
            out.moves.append(move)
    out.undetermined = [k for k in problem.classes() if k not in problem.known]
    problem.known.update(out.undetermined)
    for out.passes in range(1, PASSES + 1):
        if not _again(problem, out, tolerance):
            break
    return out


def _next(problem: Problem, weights: dict[int, float]) -> Key | None:
    """The unknown class with the largest part of its weight in pieces that can tell."""
    best: tuple[float, Key] | None = None
    for key in problem.classes():
        if key in problem.known:
            continue
        if key[0] == "sign":
            held = [p for p, _ in problem.sign_at[key[1]]]
            told = [p for p in held if tells_sign(problem, p, key[1])]
        else:
            held = [p for p, _ in problem.layout.at[key]]
            told = [u.piece for u in uses(problem, key)]
        if not told:
            continue
        part = sum(weights[p.block.id] for p in told) / max(sum(weights[p.block.id] for p in held), 1e-300)
        if best is None or part > best[0] + 1e-12:
            best = (part, key)
    return None if best is None else best[1]


def _spare(problem: Problem) -> Key | None:
    """An unknown sign to be taken as plus, where signs wait for one another: the one on the fewest places."""
    signs = problem.free.signs
    waiting = [i for i in problem.sign_at if ("sign", i) not in problem.known]
    return ("sign", min(waiting, key=lambda i: (prod(signs[i].shape), i))) if waiting else None


def _pair(problem: Problem) -> Rotate | None:
    """Two unknown frames that only stand side by side, found as one: the matrix that turns both leaves together is their
    Kronecker product, which is a matrix of rank one once rows and columns of each are brought together."""
    found: dict[tuple[int, int], Tensor] = {}
    for piece in problem.layout.pieces:
        unknown = [k for k, leaf in enumerate(piece.leaves) if leaf.key is not None and leaf.key not in problem.known]
        if len(unknown) != 2 or problem.open_signs(piece):
            continue
        (i, first), (j, second) = ((k, piece.leaves[k]) for k in unknown)
        roots = first.frame, second.frame
        if None in roots or roots[0] == roots[1] or first.places != second.places or set(roots) & problem.free_frames:
            continue
        x, y = problem.read(piece)
        n = x.ndim
        right = [n if k == i else n + 1 if k == j else k for k in range(n)]
        cross = torch.einsum(x, list(range(n)), y, right, [*first.places, i, j, n, n + 1]).double()
        found[roots] = found[roots] + cross if roots in found else cross  # type: ignore[index]
    for (one, two), cross in found.items():
        a, b = cross.shape[-4:-2]
        if not a * b or {problem.layout.plan.sources[r].kind for r in (one, two)} - {"GL", "O"}:
            continue
        u, _, vt = torch.linalg.svd(cross.reshape(*cross.shape[:-4], a * b, a * b))
        both = (vt.mT @ u.mT).unflatten(-2, (a, b)).unflatten(-1, (a, b)).transpose(-3, -2)
        w, _, zt = torch.linalg.svd(both.reshape(*cross.shape[:-4], a * a, b * b))
        left = polar(w[..., :, 0].unflatten(-1, (a, a)))
        mate = torch.einsum("...abcd,...ab->...cd", both, left)
        return Rotate({one: left, two: polar(mate)})
    return None


def _solve(problem: Problem, key: Key, tolerance: float) -> Move | None:
    kind, number = key
    if kind == "sign":
        overlap = sign_overlap(problem, number)
        if overlap is None or not bool((overlap < 0).any()):
            return None
        return problem.free.sign({number: (overlap < 0).double()})
    found = list(uses(problem, key))
    if not found:
        return None
    if kind == "frame" and number in problem.free_frames:
        return Rotate(frames_by_least_squares(problem, linked(problem, number), tolerance))
    if kind == "frame":
        return Rotate({number: _frame(problem, number, frame_overlap(problem, number, found), tolerance)})
    orders = _orders(scores(problem, number, found))
    plain = torch.arange(orders.shape[-1]).expand(orders.shape)
    return None if bool((orders == plain).all()) else Permute({number: orders})


def _orders(score: Tensor) -> Tensor:
    """(*places, n): entry j of the result is the entry of a that goes to j; the best total overlap."""
    flat = score.reshape(-1, *score.shape[-2:])
    out = torch.empty(flat.shape[:2], dtype=torch.int64)
    for p, s in enumerate(flat):
        out[p] = _assigned(s)
    return out.reshape(score.shape[:-1])


def _assigned(score: Tensor) -> Tensor:
    best = score.argmax(0)  # where the best choices of all do not clash, they are the best assignment
    if len(best.unique()) == len(best):
        return best
    rows, cols = linear_sum_assignment(score.numpy(), maximize=True)
    order = np.empty(len(rows), dtype=np.int64)
    order[cols] = rows
    return torch.from_numpy(order)


def _frame(problem: Problem, root: int, x: Tensor, tolerance: float) -> Tensor:
    """The member of the frame's compact group that maximises tr(M x); notes the subspace where x tells it."""
    source = problem.layout.plan.sources[root]
    problem.seen.pop(root, None)
    if source.kind == "SO2":
        c, s = x[..., 0, 0] + x[..., 1, 1], x[..., 0, 1] - x[..., 1, 0]
        size = plane_modulus(x).clamp_min(1e-300)
        c, s = torch.where(size > 1e-290, c / size, 1.0), torch.where(size > 1e-290, s / size, 0.0)
        return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    if source.kind in ("GL", "O"):
        return _rotation(problem, root, x, tolerance, None)
    basis = ones_basis(source.n).to(x)
    inner = (basis.mT @ x @ basis)[..., 1:, 1:]
    out = torch.zeros_like(x)
    out[..., 0, 0] = 1.0
    out[..., 1:, 1:] = _rotation(problem, root, inner, tolerance, basis)
    return basis @ out @ basis.mT


def _rotation(problem: Problem, root: int, x: Tensor, tolerance: float, basis: Tensor | None) -> Tensor:
    """Procrustes: V U^T for x = U S V^T. Directions without overlap are filled up and not relied on."""
    if not x.shape[-1]:
        return x
    u, s, vt = torch.linalg.svd(x)
    told = s > tolerance * s.amax((-1, -2) if s.ndim > 1 else -1, keepdim=True).clamp_min(1e-300)
    if not bool(told.all()):
        v = vt.mT * told[..., None, :]
        projector = v @ v.mT
        if basis is not None:
            wide = torch.zeros(*x.shape[:-2], x.shape[-1] + 1, x.shape[-1] + 1, dtype=x.dtype)
            wide[..., 0, 0] = 1.0
            wide[..., 1:, 1:] = projector
            projector = basis @ wide @ basis.mT
        problem.seen[root] = projector
    return vt.mT @ u.mT


def _again(problem: Problem, out: Matched, tolerance: float) -> bool:
    """Find every class again, all others known; whether an order, a sign or a subspace changed."""
    changed = False
    for key in problem.classes():
        if key[0] == "order" and not any(True for _ in uses(problem, key)):
            continue
        before = len(problem.seen)
        move = _solve(problem, key, tolerance)
        changed = changed or len(problem.seen) < before or (move is not None and key[0] != "frame")
        if move is not None:
            problem.a.apply(move)
            out.moves.append(move)
    return changed
