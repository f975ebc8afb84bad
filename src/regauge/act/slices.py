"""How scales enter the parameters: the arrays that a set of charges and frames move, cut into independent parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.graph.ir import Param
from regauge.solve.blocks import Block
from regauge.solve.charges import Charge
from regauge.solve.plan import Plan
from regauge.solve.sampling import ones_basis
from regauge.solve.state import State


@dataclass(frozen=True)
class Entry:
    """A charge on a block: the function on `leaves`, times the coefficient, is added to the logarithm of the block."""

    charge: int
    leaves: tuple[int, ...]
    coefficient: float


@dataclass(frozen=True)
class Cell:
    """A frame on a leaf of a block; dual: it sees the inverse transpose. places: leaves of the frame's places."""

    source: int
    leaf: int
    dual: bool
    places: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Charges and frames that share parameter blocks, directly or through others."""

    charges: tuple[int, ...]
    sources: tuple[int, ...]
    blocks: tuple[Block, ...]
    entries: dict[int, tuple[Entry, ...]]  # block -> charges on it
    cells: dict[int, tuple[Cell, ...]]  # block -> frames on it


def parts(plan: Plan, state: State, kinds: Sequence[str] = ("GL",)) -> Iterator[Part]:
    """The independent parts of the scales and of the frames of these kinds. Statistics that follow are left out, and so are
    frames that are seen through gains other than 1."""
    entries: dict[int, list[Entry]] = {}
    blocks = plan.frames.cells.blocks
    for i, c in enumerate(plan.charges.scales):
        for b, leaves, coefficient in c.on:
            if not _statistic(blocks[b]):
                entries.setdefault(b, []).append(Entry(i, leaves, float(coefficient)))
    cells: dict[int, list[Cell]] = {}
    hidden = veiled(plan, state) if kinds else set()
    for b, cell in frame_cells(plan, kinds, state):
        if plan.component(cell.source) not in hidden:
            cells.setdefault(b, []).append(cell)
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def find(x: tuple[str, int]) -> tuple[str, int]:
        parent.setdefault(x, x)
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for b in entries.keys() | cells.keys():
        for e in entries.get(b, ()):
            parent[find(("charge", e.charge))] = find(("block", b))
        for cell in cells.get(b, ()):
            parent[find(("source", cell.source))] = find(("block", b))
    groups: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for x in sorted(parent):
        groups.setdefault(find(x), []).append(x)
    for members in groups.values():
        mine = [i for kind, i in members if kind == "block"]
        yield Part(
            tuple(i for kind, i in members if kind == "charge"),
            tuple(i for kind, i in members if kind == "source"),
            tuple(blocks[b] for b in mine),
            {b: tuple(entries.get(b, ())) for b in mine},
            {b: tuple(cells.get(b, ())) for b in mine},
        )


def _statistic(block: Block) -> bool:
    return isinstance(block.value.op, Param) and block.value.op.statistic


def frame_cells(plan: Plan, kinds: Sequence[str], state: State) -> Iterator[tuple[int, Cell]]:
    """(block, cell) of every parameter leaf on which a frame of these kinds acts as the matrix itself: directly, or through
    gains that are 1."""
    cells, frames = plan.frames.cells, plan.frames
    plain: dict[int, bool] = {}

    def through(root: int, sign: int) -> tuple[int, int] | None:
        """The class that is followed, and the side that this one sees of it."""
        while root in frames.derived:
            d = frames.derived[root]
            gain = d.link.gain.block
            if gain.id not in plain:
                plain[gain.id] = bool((state.value(gain.value) == 1).all())
            if not plain[gain.id]:
                return None
            sign = frames.sign[d.other] ^ sign ^ frames.sign[d.cell]
            root = frames.root[d.other]
        return root, sign

    for v in plan.parameters():
        for block in plan.blocks.of[v.id]:
            if _statistic(block):
                continue
            for k in range(len(block.leaves)):
                c = cells.cell(block, k)
                root = frames.root[c]
                found = None if frames.monomial(root) else through(root, frames.sign[c])
                s = plan.sources.get(found[0]) if found else None
                if s is not None and found is not None and s.kind in kinds:
                    places = plan.frame_places[plan.component(root)]
                    yield block.id, Cell(s.root, k, bool(found[1]), tuple(places[p][c] for p, _ in s.places))


def beside_ones(plan: Plan, state: State) -> dict[int, list[int]]:
    """Block -> leaves whose frame fixes the vector of ones."""
    out: dict[int, list[int]] = {}
    for b, cell in frame_cells(plan, ("O1",), state):
        out.setdefault(b, []).append(cell.leaf)
    return out


def tilted(x: Tensor, leaves: Sequence[int]) -> Tensor:
    """In an orthonormal basis along these leaves whose first vector is ones / sqrt(n): there, signs that fix the ones are
    diagonal."""
    for leaf in leaves:
        x = torch.movedim(torch.movedim(x, leaf, -1) @ ones_basis(x.shape[leaf]), -1, leaf)
    return x


def veiled(plan: Plan, state: State) -> set[int]:
    """Frames that some tensor sees through a gain that is not 1: what they do to norms depends on it."""
    out = set()
    for d in plan.frames.derived.values():
        if not bool((state.value(d.link.gain.block.value) == 1).all()):
            out.add(plan.component(plan.frames.root[d.cell]))
    return out


def spread(f: Tensor, leaves: Sequence[int], ndim: int) -> Tensor:
    """A function on some leaves as a tensor with an axis for every leaf, of size 1 elsewhere."""
    order = sorted(range(len(leaves)), key=leaves.__getitem__)
    shape = [1] * ndim
    for i in order:
        shape[leaves[i]] = f.shape[i]
    return f.permute(order).reshape(shape) if order else f.reshape(shape)


def collect(x: Tensor, leaves: Sequence[int]) -> Tensor:
    """The sum over all other leaves, with axes in the order of `leaves`: the adjoint of `spread`."""
    others = [a for a in range(x.ndim) if a not in leaves]
    total = x.sum(others) if others else x
    rest = sorted(leaves)
    return total.permute([rest.index(a) for a in leaves]) if leaves else total


def pure(c: Charge, f: Tensor) -> Tensor:
    """Without the parts that depend on fewer index sets: those belong to other charges."""
    for a in range(len(c.shape)):
        f = f - f.mean(a, keepdim=True)
    return f


def gram(x: Tensor, cell: Cell) -> Tensor:
    """sum x x^T along the cell's leaf, one for each place: (*places, n, n)."""
    order = [*cell.places, cell.leaf, *(a for a in range(x.ndim) if a != cell.leaf and a not in cell.places)]
    lead = len(cell.places)
    flat = x.permute(order).reshape(*(x.shape[a] for a in cell.places), x.shape[cell.leaf], -1)
    assert flat.ndim == lead + 2
    return flat @ flat.mT


def zeros(plan: Plan) -> list[Tensor]:
    """No scale at all: one function for each charge."""
    return [torch.zeros(c.shape, dtype=torch.float64) for c in plan.charges.scales]


def no_signs(plan: Plan) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(c.shape, dtype=torch.float64) for c in plan.charges.signs)
