"""How much two balanced states overlap along one class of leaves, whatever the classes that are still unknown do.

An unknown frame inside a slice is maximised over (a nuclear norm for O(n), a modulus for a plane), an unknown sign is an
absolute value; a piece with any other unknown leaf is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regauge.align.freedoms import Freedoms
from regauge.align.held import Held
from regauge.align.leaves import Layout, Piece
from regauge.solve.matrices import multiply

Key = tuple[str, int]  # ("frame" | "order" | "sign", number)


@dataclass
class Problem:
    """Two states in balance, and what is known of the compact element that takes a to b. seen: for frames that are known
    on a subspace only, the projector on it, shape (*places, n, n). free_frames: those without a balanced form."""

    a: Held
    b: Held
    layout: Layout
    free: Freedoms
    free_frames: frozenset[int] = frozenset()
    known: set[Key] = field(default_factory=set)
    seen: dict[int, Tensor] = field(default_factory=dict)
    sign_on: dict[int, list[tuple[int, tuple[int, ...]]]] = field(default_factory=dict)  # block -> (sign, leaves)
    sign_at: dict[int, list[tuple[Piece, tuple[int, ...]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_block = {p.block.id: p for p in self.layout.pieces}
        for i, f in enumerate(self.free.signs):
            for block, leaves, _ in f.on:
                self.sign_on.setdefault(block, []).append((i, leaves))
                self.sign_at.setdefault(i, []).append((by_block[block], leaves))

    def classes(self) -> list[Key]:
        return [*self.layout.at, *(("sign", i) for i in self.sign_at)]

    def read(self, piece: Piece, but: int | None = None) -> tuple[Tensor, Tensor]:
        """The piece in both states, on the known subspaces (not of the leaf `but`, nor of its class)."""
        x, y = self.a.read(piece.block), self.b.read(piece.block)
        spared = piece.leaves[but].frame if but is not None else None
        for k, leaf in enumerate(piece.leaves):
            if leaf.frame in self.seen and leaf.frame != spared:
                projector = self.seen[leaf.frame].to(x)
                x = multiply(x, projector, k, list(leaf.places))
                y = multiply(y, projector, k, list(leaf.places))
        return x, y

    def open_signs(self, piece: Piece) -> list[tuple[int, tuple[int, ...]]]:
        return [(i, leaves) for i, leaves in self.sign_on.get(piece.block.id, ()) if ("sign", i) not in self.known]


@dataclass(frozen=True)
class Use:
    """A piece that says something about a class: `inner` is the unknown frame inside a slice, `signs` unknown signs."""

    piece: Piece
    leaf: int
    inner: int | None
    signs: frozenset[int]


def uses(problem: Problem, key: Key) -> Iterator[Use]:
    """The pieces that can tell something about an order or a frame, given what is known."""
    for piece, k in problem.layout.at[key]:
        mine = piece.leaves[k]
        if any(
            piece.leaves[p].key is not None and piece.leaves[p].key not in problem.known for p in mine.places
        ):  # its places must be matched first
            continue
        inner, blocked = None, False
        for j, leaf in enumerate(piece.leaves):
            if j == k or leaf.key is None or leaf.key in problem.known:
                continue
            if key[0] == "order" and leaf.frame is not None and inner is None and k in leaf.places:
                inner = j
                others = [q for q in leaf.places if q != k and piece.leaves[q].key is not None]
                blocked = blocked or any(piece.leaves[q].key not in problem.known for q in others)
            else:
                blocked = True
        signs = problem.open_signs(piece)
        within = {k, *mine.places} if key[0] == "order" else set(mine.places)
        if inner is not None:
            within |= set(piece.leaves[inner].places)
        if blocked or any(not set(leaves) <= within for _, leaves in signs):
            continue
        if key == mine.key:
            yield Use(piece, k, inner, frozenset(i for i, _ in signs))


def scores(problem: Problem, root: int, found: list[Use]) -> Tensor:
    """(*places, n, n): overlap of entry i of a with entry j of b, the unknown inside maximised over."""
    sums: dict[tuple[int | None, frozenset[int]], Tensor] = {}
    for u in found:
        x = _crossed(problem, u)
        frame = None if u.inner is None else u.piece.leaves[u.inner].frame
        key = (frame, u.signs)
        if key in sums and sums[key].shape == x.shape:
            sums[key] = sums[key] + x
        elif key in sums:
            x = _reduced(problem, frame, x, len(u.piece.leaves[u.leaf].places))
            old = sums[key]
            if old.ndim != x.ndim:
                old = _reduced(problem, frame, old, len(u.piece.leaves[u.leaf].places))
            sums[key] = old + x
        else:
            sums[key] = x
    total: Tensor | None = None
    for (frame, signs), x in sums.items():
        places = len(problem.layout.plan.shuffles[root].places)
        if frame is not None and x.ndim > places + 2:
            x = _reduced(problem, frame, x, places)
        elif frame is None and signs:
            x = x.abs()
        total = x if total is None else total + x
    assert total is not None
    return total


def _crossed(problem: Problem, u: Use) -> Tensor:
    """sum over the rest of a[.., i, ..] b[.., j, ..]: (*places, i, j), and (*more places, u, v) with a frame inside."""
    piece, k = u.piece, u.leaf
    x, y = problem.read(piece, k)
    mine = piece.leaves[k].places
    n = len(piece.leaves)
    left, right = list(range(n)), list(range(n))
    right[k] = n
    out = [*mine, k, n]
    if u.inner is not None:
        right[u.inner] = n + 1
        out += [q for q in piece.leaves[u.inner].places if q != k and q not in mine]
        out += [u.inner, n + 1]
    return torch.einsum(x, left, y, right, out).double()


def _reduced(problem: Problem, frame: int | None, x: Tensor, places: int) -> Tensor:
    """Maximum over the frame, summed over what it is local over besides."""
    assert frame is not None
    kind = problem.layout.plan.sources[frame].kind
    best = plane_modulus(x) if kind == "SO2" else torch.linalg.svdvals(x).sum(-1)
    rest = list(range(places + 2, best.ndim))
    return best.sum(rest) if rest else best


def plane_modulus(x: Tensor) -> Tensor:
    """max over rotations r of tr(r x) for 2 x 2 matrices."""
    return torch.hypot(x[..., 0, 0] + x[..., 1, 1], x[..., 0, 1] - x[..., 1, 0])


def frame_overlap(problem: Problem, root: int, found: list[Use]) -> Tensor:
    """(*places, n, n): sum of a b^T along the frame's leaves, from pieces with one and the same unknown sign."""
    groups: dict[frozenset[int], list[Use]] = {}
    for u in found:
        groups.setdefault(u.signs, []).append(u)
    chosen = groups.get(frozenset()) or max(groups.values(), key=lambda us: sum(weight(problem, u.piece) for u in us))
    total: Tensor | None = None
    for u in chosen:
        x, y = problem.read(u.piece, u.leaf)
        n, k = len(u.piece.leaves), u.leaf
        left, right = list(range(n)), list(range(n))
        right[k] = n
        part = torch.einsum(x, left, y, right, [*u.piece.leaves[k].places, k, n]).double()
        total = part if total is None else total + part
    assert total is not None
    return total


def tells_sign(problem: Problem, piece: Piece, index: int) -> bool:
    """The piece carries this sign on one of its leaves, and nothing else that is unknown."""
    return (
        all(i == index for i, _ in problem.open_signs(piece))
        and sum(i == index for i, _ in problem.sign_on[piece.block.id]) == 1
        and all(leaf.key is None or leaf.key in problem.known for leaf in piece.leaves)
    )


def sign_overlap(problem: Problem, index: int) -> Tensor | None:
    """The overlap of the pieces that carry this sign and no other unknown, shape of the sign's function."""
    total: Tensor | None = None
    for piece, leaves in problem.sign_at[index]:
        if not tells_sign(problem, piece, index):
            continue
        x, y = problem.read(piece)
        rest = [a for a in range(x.ndim) if a not in leaves]
        part = (x * y).double()
        part = part.sum(rest, keepdim=True) if rest else part
        ranks = sorted(leaves)
        part = part.reshape([part.shape[a] for a in ranks]).permute([ranks.index(a) for a in leaves])
        total = part if total is None else total + part
    return total


def weight(problem: Problem, piece: Piece) -> float:
    """Squared norm of a piece in b: how much it has to say."""
    return float(problem.b.read(piece.block).double().square().sum())
