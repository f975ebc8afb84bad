"""Units: entries of an index set that are computed alike and read linearly, so that one may stand for several.

An index set qualifies if its entries may be permuted as a whole, every operation on it treats them one by one, and it is
summed over only together with a parameter (the reader). Then two entries with equal writers carry equal values whatever the
input, and the readers' columns add.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from regauge.graph.ir import Add, Along, Einsum, Frozen, Mix
from regauge.solve.blocks import Block
from regauge.solve.bonds import sides
from regauge.solve.facts import plain_relations
from regauge.solve.frames import evaluable
from regauge.solve.plan import Plan
from regauge.solve.state import State


@dataclass(frozen=True)
class Units:
    """One index set. writers, readers: (block, leaf). scales, signs: for each charge of its entries, block -> power."""

    root: int
    n: int
    writers: tuple[tuple[Block, int], ...]
    readers: tuple[tuple[Block, int], ...]
    scales: tuple[dict[int, Fraction], ...]
    signs: tuple[frozenset[int], ...]

    @property
    def name(self) -> str:
        block, leaf = self.writers[0]
        return f"{block.value.op.name}[{block.leaves[leaf][0]}]"  # type: ignore[union-attr]


def units(plan: Plan) -> Iterator[Units]:
    """The index sets of units."""
    barred, constants = _barred(plan), _Constants(plan)
    roles = sides(plan)
    cells = plan.indices.cells
    for s in plan.shuffles.values():
        if s.places or s.n < 2 or s.root in barred:
            continue
        writers: list[tuple[Block, int]] = []
        readers: list[tuple[Block, int]] = []
        clear = True
        for v in plan.parameters():
            for block in plan.blocks.of[v.id]:
                for k in range(len(block.leaves)):
                    if plan.indices.root[cells.cell(block, k)] != s.root:
                        continue
                    role = roles.get((block.id, k), {"vector"})
                    clear = clear and len(role) == 1 and not _framed(plan, block, k)
                    (readers if role == {"dual"} else writers).append((block, k))
        if clear and writers and readers:
            held = {b.id for b, _ in (*writers, *readers)}
            twice = len(held) < len(writers) + len(readers)
            scales = () if twice else tuple(_powers(plan, s.root, held, constants))
            signs = () if twice else tuple(_odd(plan, s.root))
            yield Units(s.root, s.n, tuple(writers), tuple(readers), scales, signs)


def _powers(plan: Plan, root: int, held: set[int], constants: _Constants) -> Iterator[dict[int, Fraction]]:
    """Scales that each entry has for itself: a function on this index set, with its constant part."""
    for c in plan.charges.scales:
        if c.classes == (root,):
            on = {b: power for b, _, power in c.on}
            if on.keys() <= held and constants.hold(on):
                yield on


class _Constants:
    """Which powers of blocks a scale of whole tensors may have: the span of the charges without index sets."""

    def __init__(self, plan: Plan) -> None:
        found = [{b: float(power) for b, _, power in c.on} for c in plan.charges.scales if not c.classes]
        self.place = {b: i for i, b in enumerate(sorted({b for on in found for b in on}))}
        self.matrix = np.zeros((len(self.place), len(found)))
        for j, on in enumerate(found):
            for b, power in on.items():
                self.matrix[self.place[b], j] = power

    def hold(self, on: dict[int, Fraction]) -> bool:
        if not on.keys() <= self.place.keys():
            return False
        wanted = np.zeros(len(self.place))
        for b, power in on.items():
            wanted[self.place[b]] = float(power)
        near = np.linalg.lstsq(self.matrix, wanted, rcond=None)[0]
        return bool(np.abs(self.matrix @ near - wanted).max() < 1e-9)


def _odd(plan: Plan, root: int) -> Iterator[frozenset[int]]:
    for c in plan.charges.signs:
        if c.classes == (root,):
            yield frozenset(b for b, _, power in c.on if power % 2)


def _barred(plan: Plan) -> set[int]:
    """Index sets whose entries are mixed by something else than a linear reader."""
    root, cells = plan.indices.root, plan.indices.cells
    out: set[int] = set()
    for r in plain_relations(plan.blocks):
        classes = {l: root[cells.of(t, l)] for t in r.terms for l in t.labels}
        match r.op:
            case Along() | Mix() | Frozen():
                out |= {c for l, c in classes.items() if l in r.touched or l in r.planes or l in r.fixed}
                if isinstance(r.op, Frozen):
                    out |= set(classes.values())
            case Einsum():
                for l in set(classes) - set(r.out.labels):
                    if not any(l in t.labels and evaluable(t.block.value) for t in r.ins):
                        out.add(classes[l])
                    if sum(l in t.labels for t in r.ins) != 2:
                        out.add(classes[l])
            case Add():
                out |= {classes[l] for l in r.touched if l in classes}
            case _:
                out |= {classes[l] for l in r.touched if l in classes}
    for v in plan.graph.outputs:
        for b in plan.blocks.of[v.id]:
            out |= {root[cells.cell(b, k)] for k in range(len(b.leaves))}
    return out


def _framed(plan: Plan, block: Block, leaf: int) -> bool:
    """The axis also holds a frame: these are heads, not units."""
    axis = block.leaves[leaf][0]
    cells = plan.frames.cells
    return any(
        a == axis and not plan.frames.monomial(plan.frames.root[cells.cell(block, k)])
        for k, (a, _, _) in enumerate(block.leaves)
    )


@dataclass(frozen=True)
class Normal:
    """Units brought to comparable size: `log` and `flip` (n,) for each block that a charge moves; unit i of block b is
    multiplied by exp(log[b][i]) * flip[b][i]. vectors: (n, width), the writers of each unit as one row of norm 1."""

    log: dict[int, Tensor]
    flip: dict[int, Tensor]
    vectors: Tensor


def rows(state: State, block: Block, leaf: int) -> Tensor:
    """The slices of a block, one row for each unit."""
    x = state.read(block)
    return torch.movedim(x, leaf, 0).reshape(x.shape[leaf], -1)


def normal(u: Units, state: State) -> Normal:
    """Writers at norm 1 for each scale that a unit has, with their strongest entries positive."""
    held = [(b, rows(state, b, k)) for b, k in u.writers]
    log = {b.id: torch.zeros(u.n, dtype=torch.float64) for b, _ in (*u.writers, *u.readers)}
    flip = {b.id: torch.ones(u.n, dtype=torch.float64) for b, _ in (*u.writers, *u.readers)}
    for powers in u.scales:
        mine = [(b.id, powers[b.id], x) for b, x in held if powers.get(b.id)]
        if not mine:
            continue
        power = mine[0][1]
        size = sum(((x * torch.exp(log[b])[:, None]) ** 2).sum(1) for b, p, x in mine if p == power)
        assert isinstance(size, Tensor)
        f = torch.where(size > 0, -torch.log(size.clamp_min(1e-300)) / (2 * float(power)), 0.0)
        for b, p in powers.items():
            log[b] = log[b] + float(p) * f
    for odd in u.signs:
        mine_odd = [x * (torch.exp(log[b.id]) * flip[b.id])[:, None] for b, x in held if b.id in odd]
        if not mine_odd:
            continue
        joined = torch.cat(mine_odd, 1)
        strongest = torch.take_along_dim(joined, joined.abs().argmax(1, keepdim=True), 1).squeeze(1)
        s = torch.where(strongest < 0, -1.0, 1.0)
        for b in odd & flip.keys():
            flip[b] = flip[b] * s
    vectors = torch.cat([x * (torch.exp(log[b.id]) * flip[b.id])[:, None] for b, x in held], 1)
    return Normal(log, flip, vectors / vectors.norm(dim=1).max().clamp_min(1e-300))


def asleep(u: Units, state: State) -> Tensor:
    """How far each unit is from having no effect, (n,): the smaller of what it reads and what reads it, relative to the
    largest of its kind. Zero: it can go."""
    read = _strength(state, u.readers, u.n)
    for powers in u.scales:
        readers = {b.id for b, _ in u.readers}
        for sign in (1, -1):
            up = [(b, k) for b, k in (*u.writers, *u.readers) if powers.get(b.id, 0) * sign > 0]
            down = {b for b, p in powers.items() if p * sign < 0}
            if up and readers <= down:  # if all that this scale raises is zero, what it lowers may shrink to nothing
                read = torch.minimum(read, _strength(state, tuple(up), u.n))
    for odd in u.signs:
        flipped = [(b, k) for b, k in u.writers if b.id in odd]
        if flipped and {b.id for b, _ in u.readers} <= odd:  # an odd unit of nothing is nothing
            read = torch.minimum(read, _strength(state, tuple(flipped), u.n))
    return read


def _strength(state: State, where: tuple[tuple[Block, int], ...], n: int) -> Tensor:
    total = torch.zeros(n, dtype=torch.float64)
    for b, k in where:
        x = rows(state, b, k).norm(dim=1)
        total = torch.maximum(total, x / x.max().clamp_min(1e-300))
    return total
