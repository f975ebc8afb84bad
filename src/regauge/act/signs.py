"""Signs: the last freedom of scales and of frames on their principal axes. The strongest entries become positive.

Every sign is a bit; an entry of a tensor sees the sum of some bits. Where all but one of them are settled, the strongest entry
that sees the last one settles it; what is left over is settled by elimination modulo 2, strongest entries first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.act.axes import COMPACT
from regauge.act.rotate import fixing_ones
from regauge.act.slices import Cell, beside_ones, frame_cells, spread, tilted
from regauge.solve.element import Rotate
from regauge.solve.matrices import Matrices
from regauge.solve.plan import Plan
from regauge.solve.state import State

LEFT_OVER = 1 << 21  # entries that elimination may look at
BITS = 4096


Seen = tuple[int, tuple[int, ...]]  # (block, leaves)


@dataclass(frozen=True)
class Bits:
    """One family of signs, a function on the index sets `classes`, and where it is seen. with_: families that move along,
    each with the axes of its function that this one is spread over."""

    classes: tuple[int, ...]
    shape: tuple[int, ...]
    on: tuple[Seen, ...]
    charge: int | None = None
    frame: int | None = None
    with_: tuple[tuple[int, tuple[int, ...]], ...] = ()


def positive(plan: Plan, state: State) -> tuple[Rotate, list[Tensor], list[str]]:
    """The signs that make the strongest entries positive, as functions of the charges and of the frames, and
    what stayed open."""
    families, arrays = _families(plan, state)
    values: dict[int, Tensor] = {}
    pending = set(range(len(families)))
    progress = True
    while progress and pending:
        progress = False
        for i in sorted(pending):
            found = _settle(i, families, values, pending, arrays)
            if found is not None:
                values[i] = found
                pending.discard(i)
                progress = True
    open_ = []
    if pending:
        rest = _eliminate(sorted(pending), families, values, arrays)
        if rest is None:
            open_.append(f"{len(pending)} families of signs that see only one another")
            rest = {i: torch.zeros(families[i].shape, dtype=torch.float64) for i in pending}
        values.update(rest)
    total = dict(values)
    for i, family in enumerate(families):
        for j, axes in family.with_:
            total[j] = torch.remainder(total[j] + spread(values[i], axes, len(families[j].shape)), 2)
    matrices: dict[int, Matrices] = {}
    signs = [torch.zeros(c.shape, dtype=torch.float64) for c in plan.charges.signs]
    for i, family in enumerate(families):
        flip = 1 - 2 * total[i]
        if family.charge is not None:
            signs[family.charge] = total[i]
        elif family.frame is not None:
            s = plan.sources[family.frame]
            if s.kind == "SO2":
                matrices[s.root] = flip[..., None, None] * torch.eye(2, dtype=torch.float64)
            elif s.kind == "O1":
                matrices[s.root] = fixing_ones(torch.diag_embed(flip))
            else:
                matrices[s.root] = torch.diag_embed(flip)
    return Rotate(matrices), signs, open_


def _families(plan: Plan, state: State) -> tuple[list[Bits], dict[int, Tensor]]:
    """Independent families of signs; and the blocks that they act on, on frames that fix the vector of ones in coordinates
    beside it."""
    frames: dict[int, list[tuple[int, Cell]]] = {}
    turned = beside_ones(plan, state)
    blocks = plan.frames.cells.blocks
    cells = plan.indices.cells
    for b, cell in frame_cells(plan, COMPACT, state):
        frames.setdefault(cell.source, []).append((b, cell))
    found = []
    for root, held in frames.items():
        s = plan.sources[root]
        places = tuple(n for _, n in s.places)
        b, c = held[0]
        leaves = c.places if s.kind == "SO2" else (*c.places, c.leaf)
        classes = tuple(plan.indices.root[cells.cell(blocks[b], k)] for k in leaves)
        if s.kind == "SO2":
            found.append(Bits(classes, places, tuple(dict.fromkeys((b, c.places) for b, c in held)), frame=root))
        else:
            n = s.n - 1 if s.kind == "O1" else s.n
            found.append(Bits(classes, (*places, n), tuple((b, (*c.places, c.leaf)) for b, c in held), frame=root))
    for i, charge in enumerate(plan.charges.signs):
        on = tuple((b, leaves) for b, leaves, power in charge.on if power % 2)
        found.append(Bits(charge.classes, charge.shape, on, charge=i))
    out = _independent(sorted(found, key=lambda f: -len(f.classes)))
    arrays = {}
    for b in dict.fromkeys(b for f in out for b, _ in f.on):
        x = tilted(state.read(blocks[b]), turned.get(b, ()))
        for leaf in turned.get(b, ()):
            x = x.narrow(leaf, 1, x.shape[leaf] - 1)
        arrays[b] = x / x.abs().max().clamp_min(1e-300)
    return out, arrays


def _independent(found: list[Bits]) -> list[Bits]:
    """Families without what larger ones do already: each is reduced, as a pattern of what it is seen on, by those larger
    families that may be taken constant along the rest of their index sets."""
    out: list[Bits] = []
    for f in found:
        rows: dict[Seen, tuple[frozenset[Seen], dict[tuple[int, tuple[int, ...]], None]]] = {}
        for j, g in enumerate(out):
            if not set(f.classes) <= set(g.classes) or len(set(g.classes)) < len(g.classes):
                continue
            axes = tuple(g.classes.index(c) for c in f.classes)
            seen: frozenset[Seen] = frozenset()
            for b, leaves in g.on:
                seen ^= {(b, tuple(leaves[a] for a in axes))}
            _reduce(rows, seen, {(j, axes): None}, keep=True)
        pattern: frozenset[Seen] = frozenset()
        for item in f.on:
            pattern ^= {item}
        rest, along = _reduce(rows, pattern, {}, keep=False)
        if rest:
            on = tuple(sorted(rest))
            out.append(Bits(f.classes, f.shape, on, f.charge, f.frame, tuple(along)))
    return out


def _reduce(
    rows: dict[Seen, tuple[frozenset[Seen], dict[tuple[int, tuple[int, ...]], None]]],
    pattern: frozenset[Seen],
    along: dict[tuple[int, tuple[int, ...]], None],
    keep: bool,
) -> tuple[frozenset[Seen], dict[tuple[int, tuple[int, ...]], None]]:
    """A pattern modulo the rows, with the families that were added; kept as a row if there is something left."""
    for pivot, (row, held) in rows.items():
        if pivot in pattern:
            pattern = pattern ^ row
            along = {k: None for k in (along.keys() ^ held.keys())}
    if keep and pattern:
        pivot = min(pattern)
        for other, (row, held) in list(rows.items()):
            if pivot in row:
                rows[other] = (row ^ pattern, {k: None for k in (held.keys() ^ along.keys())})
        rows[pivot] = (pattern, along)
    return pattern, along


def _settle(
    i: int, families: list[Bits], values: dict[int, Tensor], pending: set[int], arrays: dict[int, Tensor]
) -> Tensor | None:
    """The bits of family i from the blocks on which it is the only open one; None while some entry has none."""
    open_on = {b for j in pending if j != i for b, _ in families[j].on}
    best = torch.zeros(families[i].shape, dtype=torch.float64)
    seen: dict[int, int] = {}
    for b, _ in families[i].on:
        seen[b] = seen.get(b, 0) + 1
    for b, leaves in families[i].on:
        if b in open_on or seen[b] > 1:
            continue
        x = arrays[b] * _known(b, families, values, arrays[b].ndim)
        rest = [a for a in range(x.ndim) if a not in leaves]
        flat = x.permute([*leaves, *rest]).reshape(*(x.shape[a] for a in leaves), -1)
        strongest = torch.take_along_dim(flat, flat.abs().argmax(-1, keepdim=True), -1).squeeze(-1)
        best = torch.where(strongest.abs() > best.abs() * (1 + 1e-9), strongest, best)
    if best.numel() and bool((best == 0).any()) and any(b in open_on for b, _ in families[i].on):
        return None
    return (best < 0).double()


def _known(b: int, families: list[Bits], values: dict[int, Tensor], ndim: int) -> Tensor:
    """The sign that the settled families give each entry."""
    out = torch.ones((), dtype=torch.float64)
    for j, v in values.items():
        for other, leaves in families[j].on:
            if other == b:
                out = out * spread(1 - 2 * v, leaves, ndim)
    return out


def _eliminate(
    pending: list[int], families: list[Bits], values: dict[int, Tensor], arrays: dict[int, Tensor]
) -> dict[int, Tensor] | None:
    """Equations entry by entry, strongest first; None where there are too many."""
    start, count = {}, 0
    for i in pending:
        start[i] = count
        count += max(1, int(torch.tensor(families[i].shape).prod()) if families[i].shape else 1)
    blocks = sorted({b for i in pending for b, _ in families[i].on})
    if count > BITS or sum(arrays[b].numel() for b in blocks) > LEFT_OVER:
        return None
    strengths, masks, bits = [], [], []
    for b in blocks:
        x = arrays[b] * _known(b, families, values, arrays[b].ndim)
        columns = []
        for i in pending:
            shape = families[i].shape
            number = torch.arange(start[i], start[i] + max(1, x.new_ones(shape).numel())).reshape(shape)
            for other, leaves in families[i].on:
                if other == b:
                    columns.append(spread(number, leaves, x.ndim).expand(x.shape).reshape(-1))
        strengths.append(x.abs().reshape(-1))
        bits.append((x < 0).reshape(-1))
        masks.append(torch.stack(columns, -1).tolist())
    flat = torch.cat(strengths)
    negative = torch.cat(bits).tolist()
    entries = [m for held in masks for m in held]
    pivots: dict[int, tuple[int, int]] = {}
    for e in torch.argsort(flat, descending=True, stable=True).tolist():
        if len(pivots) == count or float(flat[e]) == 0:
            break
        row, bit = 0, int(negative[e])
        for n in entries[e]:
            row ^= 1 << n
        while row:
            lead = row.bit_length() - 1
            if lead not in pivots:
                pivots[lead] = (row, bit)
                break
            row ^= pivots[lead][0]
            bit ^= pivots[lead][1]
    solution = [0] * count
    for lead in sorted(pivots):  # rows hold lower bits only, which are known by then
        row, bit = pivots[lead]
        row ^= 1 << lead
        while row:
            low = row.bit_length() - 1
            bit ^= solution[low]
            row ^= 1 << low
        solution[lead] = bit
    out = {}
    for i in pending:
        size = max(1, torch.ones(families[i].shape).numel())
        out[i] = torch.tensor(solution[start[i] : start[i] + size], dtype=torch.float64).reshape(families[i].shape)
    return out
