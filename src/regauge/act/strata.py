"""Strata: where the group enlarges. Two units coincide, a unit has no effect or is constant, a product of maps loses rank.

On such a stratum the weights have more symmetries than the generic gauge (at two equal units their outgoing weights may be
shared in any proportion), the Jacobian loses rank, and training slows down. This file measures how near a given state is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.act.balance import grams
from regauge.act.constant import Constants, distance
from regauge.act.slices import parts
from regauge.act.units import Units, asleep, normal, units
from regauge.graph.ir import Param
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan
from regauge.solve.state import State

CHUNK = 1024


@dataclass(frozen=True)
class Stratum:
    """The nearest stratum of one kind on one bond.

    kind: "coincide" (two units are equal up to their scale and sign), "dead" (a unit has no effect), "constant" (its value is
    the same whatever the input), "rank" (a product of two maps loses rank). distance: relative to the size of a unit, or the
    smallest singular value over the largest; 0 on the stratum. units: which; count: how many units are within `near` of it.
    gain: dimensions that the group has more there, at least. note: of a constant, where it can go; stays: it cannot.
    """

    kind: str
    bond: str
    distance: float
    units: tuple[int, ...]
    count: int = 0
    gain: int = 0
    note: str = ""
    stays: bool = False

    def __str__(self) -> str:
        match self.kind:
            case "coincide":
                what = f"units {self.units[0]} and {self.units[1]} coincide up to {self.distance:.1e}"
            case "dead":
                what = f"unit {self.units[0]} is dead up to {self.distance:.1e}"
            case "constant":
                what = f"unit {self.units[0]} is constant up to {self.distance:.1e}"
                what += f", {self.note}" if self.note else ""
            case _:
                what = f"the product of its maps loses rank up to {self.distance:.1e}"
        return f"{self.bond}: {what}" + (f" ({self.count} such)" if self.count > 1 else "")


def strata(gauge: Gauge, state: Mapping[str, Tensor], *, near: float = 1e-3) -> tuple[Stratum, ...]:
    """For every bond the nearest stratum of each kind, the nearest first. near: what counts as near, relative.

    Reads every tensor on a bond of units or on a general linear frame, one bond at a time, in float64.
    """
    plan = gauge.plan
    wide = State(plan, state)
    found = [s for u in units(plan) for s in _units(plan, u, wide, near)]
    found += _ranks(plan, wide, near)
    return tuple(sorted(found, key=lambda s: s.distance))


def _units(plan: Plan, u: Units, state: State, near: float) -> list[Stratum]:
    width = sum(int(torch.tensor(b.sizes).prod()) // u.n for b, _ in u.readers)
    quiet = asleep(u, state)
    weakest = int(quiet.argmin())
    count = int((quiet <= near).sum())
    dead = Stratum("dead", u.name, float(quiet[weakest]), (weakest,), count, count * _written(u))
    found = [dead, *_constant(plan, u, state, near, quiet > near, width)]
    i, j, apart, close = nearest(normal(u, state).vectors, quiet > near, near)
    if i >= 0:
        found.append(Stratum("coincide", u.name, apart, (i, j), close, close * width))
    return found


def _constant(plan: Plan, u: Units, state: State, near: float, awake: Tensor, width: int) -> list[Stratum]:
    """The unit that is nearest to a constant, of those that have an effect; what becomes of it if it is near. Its readers
    trade against the biases that take it up."""
    far = torch.where(awake, distance(plan, u, state), torch.inf)
    k, count = int(far.argmin()), int((far <= near).sum())
    if not bool(torch.isfinite(far[k])):
        return []
    if not count:
        return [Stratum("constant", u.name, float(far[k]), (k,))]
    fate = Constants(plan, u, state, near).fate(k)
    if fate.stays:
        return [Stratum("constant", u.name, float(far[k]), (k,), count, 0, f"and stays: {fate.stays}", True)]
    note = f"which {' and '.join(fate.shifts)} can take up" if fate.shifts else "always zero"
    return [Stratum("constant", u.name, float(far[k]), (k,), count, count * width, note)]


def _written(u: Units) -> int:
    """Parameters of one unit's writers: free once nothing reads it."""
    return sum(int(torch.tensor(b.sizes).prod()) // u.n for b, _ in u.writers)


def nearest(vectors: Tensor, awake: Tensor, near: float) -> tuple[int, int, float, int]:
    """The nearest pair of rows among those awake, its distance, and how many pairs are within `near`. (-1, -1, inf, 0) for
    fewer than two. Distances are relative to the larger of the two norms."""
    at = awake.nonzero().flatten()
    if len(at) < 2:
        return -1, -1, float("inf"), 0
    x = vectors[at]
    norms = (x * x).sum(1)
    best, close = (-1, -1, float("inf")), 0
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        squared = norms[rows, None] + norms[None, :] - 2 * x[rows] @ x.mT
        relative = squared / torch.maximum(norms[rows, None], norms[None, :])
        later = torch.arange(len(x))[None, :] > torch.arange(start, start + len(relative))[:, None]
        relative = torch.where(later, relative, torch.inf)
        # the difference of squares is exact to about 1e-14 only: look at what is near once more
        for i, j in (relative < max(near * near, 1e-13) * 4).nonzero().tolist():
            d = float((x[start + i] - x[j]).norm() / torch.maximum(norms[start + i], norms[j]).sqrt())
            close += d <= near
            best = min(best, (start + i, j, d), key=lambda b: b[2])
        k = int(relative.argmin())
        i, j = divmod(k, len(x))
        if float(relative[i, j]) < float("inf"):
            d = float((x[start + i] - x[j]).norm() / torch.maximum(norms[start + i], norms[j]).sqrt())
            best = min(best, (start + i, j, d), key=lambda b: b[2])
    i, j, d = best
    return (int(at[i]), int(at[j]), d, close) if i >= 0 else (-1, -1, float("inf"), 0)


def _ranks(plan: Plan, state: State, near: float) -> list[Stratum]:
    """For every general linear frame the singular values of the product of what it joins."""
    out = []
    for part in parts(plan, state):
        if not part.sources:
            continue
        arrays = {b.id: state.read(b) for b in part.blocks if part.cells[b.id]}
        for root in part.sources:
            up, down = grams(part, arrays, root)
            values, vectors = torch.linalg.eigh(up)
            half = (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
            squared = torch.linalg.eigvalsh(half @ down @ half).clamp_min(0)
            ratio = (squared[..., 0] / squared[..., -1].clamp_min(1e-300)).sqrt().reshape(-1)
            worst = int(ratio.argmin())
            names = [b.value.op.name for b in part.blocks if any(c.source == root for c in part.cells[b.id])]  # type: ignore[union-attr]
            out.append(Stratum("rank", names[0], float(ratio[worst]), (worst,), int((ratio <= near).sum())))
    return out


def tensors(u: Units) -> tuple[str, ...]:
    """The tensors that carry these units."""
    held = [b.value.op for b, _ in (*u.writers, *u.readers)]
    return tuple(dict.fromkeys(op.name for op in held if isinstance(op, Param)))
