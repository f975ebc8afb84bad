"""What is not compact taken away: gains of links at one, GL frames and scales at the least norm.

The sum of squares is convex along GL frames and scales (Kempf and Ness), so its minimum on an orbit is one point up to
the compact part: two balanced states of one orbit differ by rotations, orders and signs. A scale that nothing
opposes has no minimum; there the norm is brought to one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regauge.align.freedoms import Freedom, Freedoms, pin
from regauge.align.held import Held
from regauge.align.leaves import Layout
from regauge.solve.element import Move, Rotate

SWEEPS = 100
ROUNDS = 40


def balance(held: Held, layout: Layout, free: Freedoms, noise: float) -> list[Move]:
    """Bring the state there; the moves that did it. Call `fold` first: then frames and scales commute.

    noise: relative size of what rounding does to the entries; what is smaller counts as absent."""
    tiny = max(1e-12, (8 * noise) ** 2)
    matrices: dict[int, Tensor] = {}
    functions: dict[int, Tensor] = {}
    settled = 1e-11 if held.dtype == torch.float64 else 1e-6
    for _ in range(ROUNDS):
        turns, away = _frames(held, layout, free, tiny)
        if turns:
            held.apply(Rotate(turns))
            matrices = {r: m @ matrices[r] if r in matrices else m for r, m in turns.items()}
        logs, moved = _scales(held, free)
        if logs:
            held.apply(free.scale(logs))
            functions = {i: f + functions[i] if i in functions else f for i, f in logs.items()}
        if away < settled and (moved < settled or not turns):
            break
    return [*([Rotate(matrices)] if matrices else []), *([free.scale(functions)] if functions else [])]


def fold(held: Held, free: Freedoms) -> list[Move]:
    """Bring the gains of links to one."""
    move = pin(free, held)
    held.apply(move)
    return [move]


def _frames(held: Held, layout: Layout, free: Freedoms, tiny: float) -> tuple[dict[int, Tensor], float]:
    """The rotation to least norm for every frame that is not orthogonal, and how far it is from the identity."""
    matrices: dict[int, Tensor] = {}
    away = 0.0
    scaled = free_multiples(layout, free)
    for root, source in held.plan.sources.items():
        if source.kind != "GL" or source.n == 1:
            continue
        s = _least(*_sums(held, layout, root), root in scaled, tiny)
        values, vectors = torch.linalg.eigh(s)
        matrices[root] = (vectors * values.clamp_min(1e-300).sqrt()[..., None, :]) @ vectors.mT
        away = max(away, float((s - torch.eye(source.n, dtype=s.dtype)).abs().max()))
    return matrices, away


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
    """Frames without a balanced form: neither side spans the axis, or they fix a vector."""
    tiny = max(1e-12, (8 * noise) ** 2)
    out = set()
    for root, source in held.plan.sources.items():
        if source.kind in ("GLv", "GLc", "GLvc"):
            out.add(root)
        elif source.kind == "GL" and source.n > 1:
            if all(_deficient(x, tiny) for x in _sums(held, layout, root)):
                out.add(root)
    return frozenset(out)


def _sums(held: Held, layout: Layout, root: int) -> tuple[Tensor, Tensor]:
    """sum of a a^T over the vectors of a frame, and over its duals."""
    source = held.plan.sources[root]
    shape = [n for _, n in source.places]
    sums = [torch.zeros(*shape, source.n, source.n, dtype=torch.float64) for _ in range(2)]
    for piece, k in layout.at.get(("frame", root), ()):
        leaf = piece.leaves[k]
        sums[leaf.dual] += gram(held.read(piece.block), k, leaf.places)
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


def _scales(held: Held, free: Freedoms) -> tuple[dict[int, Tensor], float]:
    """Log-scales to least norm, one after the other until none moves; and how far the largest moved."""
    blocks = held.plan.frames.cells.blocks
    axes: dict[int, set[int]] = {}
    for f in free.scales:
        for b, leaves, _ in f.on:
            axes.setdefault(b, set()).update(leaves)
    norms = {b: _squares(held.read(blocks[b]), kept) for b, kept in axes.items()}
    total = {i: torch.zeros(f.shape, dtype=torch.float64) for i, f in enumerate(free.scales)}
    for _ in range(SWEEPS):
        largest = 0.0
        for i, f in enumerate(free.scales):
            if not f.on:
                continue
            step = _step(f, norms)
            for a in range(step.ndim):
                step = step - step.mean(a, keepdim=True)
            total[i] += step
            largest = max(largest, float(step.abs().max()))
            for b, leaves, x in f.on:
                norms[b] = norms[b] * torch.exp(2 * float(x) * spread(step, leaves, norms[b].ndim))
        if largest < 1e-12:
            break
    return total, max((float(t.abs().max()) for t in total.values()), default=0.0)


def _squares(array: Tensor, kept: set[int]) -> Tensor:
    rest = [a for a in range(array.ndim) if a not in kept]
    squares = array.double().square()
    return squares.sum(rest, keepdim=True) if rest else squares


def on_leaves(t: Tensor, leaves: tuple[int, ...]) -> Tensor:
    """Summed over all other leaves; axes in the order of `leaves`."""
    rest = [a for a in range(t.ndim) if a not in leaves]
    t = t.sum(rest, keepdim=True) if rest else t
    ranks = sorted(leaves)
    return t.reshape([t.shape[a] for a in ranks]).permute([ranks.index(a) for a in leaves])


def spread(f: Tensor, leaves: tuple[int, ...], ndim: int) -> Tensor:
    """A function on leaves as a factor for the whole array, size 1 where it does not vary."""
    order = sorted(range(len(leaves)), key=leaves.__getitem__)
    shape = [1] * ndim
    for i in order:
        shape[leaves[i]] = f.shape[i]
    return f.permute(order).reshape(shape) if order else f.reshape(shape)


def _step(f: Freedom, norms: dict[int, Tensor]) -> Tensor:
    """d that minimises sum_b N_b exp(2 x_b d), by Newton on the log of its two halves; norm one where one half is empty."""
    sums: dict[float, Tensor] = {}
    for b, leaves, x in f.on:
        n = on_leaves(norms[b], leaves)
        c = float(x)
        sums[c] = sums[c] + n if c in sums else n
    floor = 1e-30 * max(float(n.max()) for n in sums.values()) + 1e-300
    sums = {c: n.clamp_min(floor) for c, n in sums.items()}
    up = {c: (c * n).log() for c, n in sums.items() if c > 0}
    down = {c: (-c * n).log() for c, n in sums.items() if c < 0}
    d = torch.zeros(f.shape, dtype=torch.float64)
    for _ in range(30):
        value, slope = torch.zeros_like(d), torch.zeros_like(d)
        for half, sign in ((up, 1.0), (down, -1.0)):
            if not half:
                continue
            terms = torch.stack([l + 2 * c * d for c, l in half.items()])
            weights = torch.softmax(terms, 0)
            rates = torch.tensor(list(half), dtype=torch.float64).reshape(-1, *[1] * d.ndim)
            value = value + sign * torch.logsumexp(terms, 0)
            slope = slope + sign * 2 * (weights * rates).sum(0)
        step = (value / slope).clamp(-20, 20)
        d = d - step
        if float(step.abs().max()) < 1e-13:
            break
    return d.clamp(-40, 40)
