"""What is not compact taken away: gains of links at one, GL frames and scales at the least norm.

The sum of squares is convex along GL frames and scales (Kempf and Ness), so its minimum on an orbit is one point up to
the compact part: two balanced states of one orbit differ by rotations, orders and signs. A scale that nothing
opposes has no minimum; there the norm is brought to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.align.freedoms import Freedoms, pin
from regauge.align.held import Held
from regauge.align.leaves import Layout
from regauge.align.scales import least_scales, spread
from regauge.solve.element import Move, Rotate
from regauge.solve.matrices import multiply
from regauge.solve.plan import Source

ROUNDS = 40


@dataclass(frozen=True)
class Part:
    """Frames and free scales that meet in some block, directly or through others; and the blocks."""

    frames: tuple[int, ...]
    scales: tuple[int, ...]
    blocks: tuple[int, ...]


def balance(held: Held, layout: Layout, free: Freedoms, noise: float) -> list[Move]:
    """Bring the state there; the moves that did it. Call `fold` first: then frames and scales commute.

    noise: relative size of what rounding does to the entries; what is smaller counts as absent."""
    tiny = max(1e-12, (8 * noise) ** 2)
    settled = max(1e-11 if held.dtype == torch.float64 else 1e-6, noise / 100)
    blocks, scaled = held.plan.frames.cells.blocks, free_multiples(layout, free)
    matrices: dict[int, Tensor] = {}
    functions: dict[int, Tensor] = {}
    for part in parts(layout, free):
        arrays = {b: held.read(blocks[b]) for b in part.blocks}
        for _ in range(ROUNDS):
            away = moved = 0.0
            for root in part.frames:
                m, off = _frame(arrays, layout, root, root in scaled, tiny)
                away = max(away, off)
                matrices[root] = m @ matrices[root] if root in matrices else m
                turn(arrays, layout, root, m)
            for i, f in least_scales(arrays, free, part.scales).items():
                moved = max(moved, float(f.abs().max()))
                functions[i] = functions[i] + f if i in functions else f
                for b, leaves, x in free.scales[i].on:
                    arrays[b] = arrays[b] * spread((float(x) * f).exp(), leaves, arrays[b].ndim).to(arrays[b])
            if away < settled and (moved < settled or not part.frames):
                break
    moves: list[Move] = [*([Rotate(matrices)] if matrices else []), *([free.scale(functions)] if functions else [])]
    for move in moves:
        held.apply(move)
    return moves


def turn(arrays: dict[int, Tensor], layout: Layout, root: int, m: Tensor) -> None:
    """Turn a frame whose links have gains of one."""
    inverse = torch.linalg.inv(m).mT
    for piece, k in layout.at.get(("frame", root), ()):
        leaf, b = piece.leaves[k], piece.block.id
        arrays[b] = multiply(arrays[b], inverse if leaf.dual else m, k, list(leaf.places))


def parts(layout: Layout, free: Freedoms, kinds: tuple[str, ...] = ("GL",)) -> list[Part]:
    """What can be moved without regard to the rest, by frames of these kinds and by scales."""
    above: dict[int, int] = {}

    def top(b: int) -> int:
        while above.setdefault(b, b) != b:
            b = above[b]
        return b

    sources = layout.plan.sources
    where = {
        ("frame", r): [p.block.id for p, _ in layout.at.get(("frame", r), ())] for r, s in sources.items() if _bent(s)
    }
    where |= {("scale", i): [b for b, _, _ in f.on] for i, f in enumerate(free.scales)}
    for blocks in where.values():
        for b in blocks[1:]:
            above[top(b)] = top(blocks[0])
    found: dict[int, list[tuple[str, int]]] = {}
    for key, blocks in where.items():
        if blocks:
            found.setdefault(top(blocks[0]), []).append(key)
    return [
        Part(
            tuple(n for kind, n in keys if kind == "frame"),
            tuple(n for kind, n in keys if kind == "scale"),
            tuple(dict.fromkeys(b for key in keys for b in where[key])),
        )
        for keys in found.values()
    ]


def _bent(source: Source) -> bool:
    """A frame that the norm can see."""
    return source.kind == "GL" and source.n > 1


def fold(held: Held, free: Freedoms) -> list[Move]:
    """Bring the gains of links to one."""
    move = pin(free, held)
    held.apply(move)
    return [move]


def _frame(arrays: Mapping[int, Tensor], layout: Layout, root: int, scaled: bool, tiny: float) -> tuple[Tensor, float]:
    """The rotation of a frame to least norm, and how far from the identity it is."""
    s = _least(*_sums(arrays, layout, root), scaled, tiny)
    values, vectors = torch.linalg.eigh(s)
    m = (vectors * values.clamp_min(1e-300).sqrt()[..., None, :]) @ vectors.mT
    return m, float((s - torch.eye(s.shape[-1], dtype=s.dtype)).abs().max())


def free_multiples(layout: Layout, free: Freedoms) -> set[int]:
    """Frames whose multiples of one are combinations of free scales."""
    out = set()
    for (kind, root), where in layout.at.items():
        if kind != "frame":
            continue
        wanted = {(p.block.id, frozenset(p.leaves[k].places)): -1.0 if p.leaves[k].dual else 1.0 for p, k in where}
        near = [f for f in free.scales if any((b, frozenset(l)) in wanted for b, l, _ in f.on)]
        keys = list(dict.fromkeys([*wanted, *((b, frozenset(l)) for f in near for b, l, _ in f.on)]))
        system = torch.zeros(len(keys), len(near), dtype=torch.float64)
        for i, f in enumerate(near):
            for b, leaves, x in f.on:
                system[keys.index((b, frozenset(leaves))), i] += float(x)
        target = torch.tensor([wanted.get(k, 0.0) for k in keys], dtype=torch.float64)
        if near and float((system @ (torch.linalg.pinv(system) @ target) - target).abs().max()) < 1e-9:
            out.add(root)
    return out


def gram(array: Tensor, axis: int, places: tuple[int, ...]) -> Tensor:
    """a a^T over an axis, one matrix for each index of the places; in float64."""
    rest = [a for a in range(array.ndim) if a != axis and a not in places]
    flat = array.permute([*places, axis, *rest])
    flat = flat.reshape(*flat.shape[: len(places) + 1], -1)
    return (flat @ flat.mT).double()


def unbalanced(held: Held, layout: Layout, noise: float) -> frozenset[int]:
    """Frames without a balanced form: neither side spans the axis, or they fix a vector; and those that meet such a one in
    some block, since what balances them depends on it."""
    tiny = max(1e-12, (8 * noise) ** 2)
    out: set[int] = set()
    for root, source in held.plan.sources.items():
        if source.kind in ("GLv", "GLc", "GLvc"):
            out.add(root)
        elif _bent(source):
            arrays = {p.block.id: held.read(p.block) for p, _ in layout.at.get(("frame", root), ())}
            if all(_deficient(x, tiny) for x in _sums(arrays, layout, root)):
                out.add(root)
    met = [{x.frame for x in p.leaves if x.frame is not None} for p in layout.pieces]
    bent = {r for r, s in held.plan.sources.items() if _bent(s)}
    while more := set().union(*(m & bent for m in met if m & out)) - out:
        out |= more
    return frozenset(out)


def _sums(arrays: Mapping[int, Tensor], layout: Layout, root: int) -> tuple[Tensor, Tensor]:
    """sum of a a^T over the vectors of a frame, and over its duals."""
    source = layout.plan.sources[root]
    shape = [n for _, n in source.places]
    sums = [torch.zeros(*shape, source.n, source.n, dtype=torch.float64) for _ in range(2)]
    for piece, k in layout.at.get(("frame", root), ()):
        leaf = piece.leaves[k]
        sums[leaf.dual] += gram(arrays[piece.block.id], k, leaf.places)
    return sums[0], sums[1]


def _deficient(p: Tensor, tiny: float) -> bool:
    values = torch.linalg.eigvalsh(p)
    return bool((values[..., 0] <= tiny * values[..., -1]).any())


def _filled(p: Tensor) -> Tensor:
    size = p.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return p + torch.eye(p.shape[-1], dtype=p.dtype) * (1e-9 * size + 1e-300)


def _least(p: Tensor, q: Tensor, scaled: bool, tiny: float) -> Tensor:
    """S > 0 with det S = 1 that minimises tr(S P) + tr(S^-1 Q): S P S - t S = Q, t chosen for the determinant; or the
    least of all (t = 0) over its scale, where scales take care of that."""
    n = p.shape[-1]
    blank_p, blank_q = _deficient(p, tiny), _deficient(q, tiny)
    if blank_p and blank_q:  # nothing to go by
        return torch.eye(n, dtype=p.dtype).expand(p.shape)
    if blank_p or blank_q:  # no minimum: the whole metric from the side that has one
        s = _filled(q) if blank_p else torch.linalg.inv(_filled(p))
        return s / torch.exp(torch.logdet(s) / n)[..., None, None]
    pv, pu = torch.linalg.eigh(p)
    root = (pu * pv.sqrt()[..., None, :]) @ pu.mT
    back = (pu * pv.rsqrt()[..., None, :]) @ pu.mT
    mv, mu = torch.linalg.eigh(root @ q @ root)
    mv = mv.clamp_min(1e-300)
    if scaled:
        s = back @ ((mu * mv.sqrt()[..., None, :]) @ mu.mT) @ back
        return s / torch.exp((mv.log().sum(-1) / 2 - pv.log().sum(-1)) / n)[..., None, None]
    target = pv.log().sum(-1)  # log det of what stands between the two roots
    size = mv.sqrt().amax(-1)
    low, high = -1e6 * size, 1e6 * size
    for _ in range(200):
        t = (low + high) / 2
        half = t[..., None] / 2
        root_t = (half * half + mv).sqrt()
        s = torch.where(half > 0, half + root_t, mv / (root_t - half))
        big = s.log().sum(-1) > target
        high, low = torch.where(big, t, high), torch.where(big, low, t)
    return back @ ((mu * s[..., None, :]) @ mu.mT) @ back
