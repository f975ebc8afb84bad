"""Free log-scales at the least norm: x that minimises sum_b |a_b exp(c_b x)|^2, one function after the other.

What a function needs to know of a block is its sum of squares over all leaves but its own, a marginal. A block keeps its
squares as they were, the log-scales on it, and its marginals; a marginal is summed again, one matrix-vector product, only
when a function on other leaves has moved. So a sweep costs a few passes over the weights, not one for each function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from regauge.align.freedoms import Freedom, Freedoms

SWEEPS = 100
STILL = {torch.float64: 1e-12, torch.float32: 3e-7}  # a step below this is none

Leaves = tuple[int, ...]


class Marginals:
    """Sums of squares of one block under log-scales on sets of its leaves."""

    def __init__(self, array: Tensor, sets: Iterable[Leaves]) -> None:
        """array: one axis a leaf. sets: the leaves that some function depends on."""
        self.ndim = array.ndim
        self.largest = largest(sets)
        self.squares = summed(array.square(), frozenset().union(*self.largest))
        self.logs = {s: torch.zeros([1] * self.ndim, dtype=torch.float64) for s in self.largest}
        self.sums: dict[frozenset[int], Tensor] = {}

    def on(self, leaves: Leaves) -> Tensor:
        """The sum over all other leaves; axes in the order of `leaves`."""
        home = next(s for s in self.largest if s >= set(leaves))
        if home not in self.sums:
            self.sums[home] = self._sum(home)
        return on_leaves(self.sums[home], leaves)

    def _sum(self, home: frozenset[int]) -> Tensor:
        """sum over the others of squares exp(2 logs), size 1 on the leaves that are summed over."""
        operands: list[object] = [self.squares, list(range(self.ndim))]
        for s, logs in self.logs.items():
            if s != home and logs.numel() > 1:
                operands += folded((2 * logs).exp().to(self.squares))
        out = sorted(home)
        total = torch.einsum(*operands, out).double() if len(operands) > 2 else summed(self.squares, home).double()
        for s, logs in self.logs.items():
            if s != home and logs.numel() == 1:
                total = total * (2 * logs.reshape(())).exp()
        shape = [self.squares.shape[k] if k in home else 1 for k in range(self.ndim)]
        return total.reshape(shape) * (2 * self.logs[home]).exp()

    def scale(self, logs: Tensor, leaves: Leaves) -> None:
        """Multiply the block by exp of a function of these leaves."""
        factor = spread(logs, leaves, self.ndim)
        home = next(s for s in self.largest if s >= set(leaves))
        self.logs[home] = self.logs[home] + factor
        self.sums = {s: n * (2 * factor).exp() for s, n in self.sums.items() if s >= set(leaves)}


def least_scales(arrays: Mapping[int, Tensor], free: Freedoms, members: Iterable[int]) -> dict[int, Tensor]:
    """Log-scales to least norm, by number of the free scale. arrays: the blocks that they enter."""
    chosen = {i: free.scales[i] for i in members if free.scales[i].on}
    sets: dict[int, list[Leaves]] = {}
    for f in chosen.values():
        for b, leaves, _ in f.on:
            sets.setdefault(b, []).append(leaves)
    norms = {b: Marginals(arrays[b], s) for b, s in sets.items()}
    total = {i: torch.zeros(f.shape, dtype=torch.float64) for i, f in chosen.items()}
    still = max((STILL[arrays[b].dtype] for b in sets), default=0.0)
    for _ in range(SWEEPS):
        largest = 0.0
        for i, f in chosen.items():
            step = _step(f, norms)
            for a in range(step.ndim):
                step = step - step.mean(a, keepdim=True)
            size = float(step.abs().max())
            if size < still:
                continue
            largest = max(largest, size)
            total[i] += step
            for b, leaves, x in f.on:
                norms[b].scale(float(x) * step, leaves)
        if largest < still:
            break
    return total


def largest(sets: Iterable[Leaves]) -> list[frozenset[int]]:
    """Those that no other one holds."""
    found = {frozenset(s) for s in sets}
    return [s for s in found if not any(s < t for t in found)]


def summed(t: Tensor, kept: frozenset[int]) -> Tensor:
    """Over all leaves but these; size 1 there."""
    rest = [a for a in range(t.ndim) if a not in kept]
    return t.sum(rest, keepdim=True) if rest else t


def folded(f: Tensor) -> list[object]:
    """A factor as an operand of einsum: without its axes of size 1."""
    held = [k for k in range(f.ndim) if f.shape[k] > 1]
    return [f.reshape([f.shape[k] for k in held]), held]


def on_leaves(t: Tensor, leaves: Leaves) -> Tensor:
    """Summed over all other leaves; axes in the order of `leaves`."""
    t = summed(t, frozenset(leaves))
    ranks = sorted(leaves)
    return t.reshape([t.shape[a] for a in ranks]).permute([ranks.index(a) for a in leaves])


def spread(f: Tensor, leaves: Leaves, ndim: int) -> Tensor:
    """A function on leaves as a factor for the whole array, size 1 where it does not vary."""
    order = sorted(range(len(leaves)), key=leaves.__getitem__)
    shape = [1] * ndim
    for i in order:
        shape[leaves[i]] = f.shape[i]
    return f.permute(order).reshape(shape) if order else f.reshape(shape)


def _step(f: Freedom, norms: dict[int, Marginals]) -> Tensor:
    """d that minimises sum_b N_b exp(2 x_b d), by Newton on the log of its two halves; norm one where one half is empty."""
    sums: dict[float, Tensor] = {}
    for b, leaves, x in f.on:
        n = norms[b].on(leaves)
        c = float(x)
        sums[c] = sums[c] + n if c in sums else n
    floor = 1e-30 * max(float(n.max()) for n in sums.values()) + 1e-300
    sums = {c: n.clamp_min(floor) for c, n in sums.items()}
    up = {c: (c * n).log() for c, n in sums.items() if c > 0}
    down = {c: (-c * n).log() for c, n in sums.items() if c < 0}
    if len(up) == len(down) == 1:
        (c, rise), (e, fall) = next(iter(up.items())), next(iter(down.items()))
        return ((fall - rise) / (2 * (c - e))).clamp(-40, 40)
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
