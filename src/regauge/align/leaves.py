"""What moves at each leaf of each parameter block: a frame, an order, or nothing; and over which places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from regauge.graph.ir import Param
from regauge.solve.blocks import Block
from regauge.solve.plan import Plan


@dataclass(frozen=True)
class Leaf:
    """frame: the sampled frame that turns this leaf, through links; order: the index set that may be reordered; both
    None: a fixed axis. places: the leaves of the same block over whose indices it is local, in the order of the plan."""

    size: int
    frame: int | None
    order: int | None
    dual: bool
    places: tuple[int, ...]

    @property
    def key(self) -> tuple[str, int] | None:
        """The class that moves here."""
        if self.frame is not None:
            return ("frame", self.frame)
        return None if self.order is None else ("order", self.order)


@dataclass(frozen=True)
class Piece:
    """A parameter block with its leaves."""

    name: str
    block: Block
    leaves: tuple[Leaf, ...]


def pieces(plan: Plan) -> tuple[Piece, ...]:
    """Every parameter block that elements may move, and every one that holds still."""
    out = []
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        for block in plan.blocks.of[v.id]:
            out.append(Piece(v.op.name, block, tuple(_leaf(plan, block, k) for k in range(len(block.leaves)))))
    return tuple(out)


def _leaf(plan: Plan, block: Block, k: int) -> Leaf:
    frames, size = plan.frames, block.sizes[k]
    c = frames.cells.cell(block, k)
    root = frames.root[c]
    if not frames.monomial(root):
        top, dual = root, bool(frames.sign[c])
        while top in frames.derived:
            link = frames.derived[top]
            dual = dual ^ bool(frames.sign[link.cell]) ^ bool(frames.sign[link.other])
            top = frames.root[link.other]
        if top in plan.sources:
            where = plan.frame_places[plan.component(root)]
            return Leaf(size, top, None, dual, tuple(where[s][c] for s, _ in plan.sources[top].places))
        return Leaf(size, None, None, False, ())
    order = plan.indices.root[plan.indices.cells.cell(block, k)]
    if order in plan.shuffles:
        ic = plan.indices.cells.cell(block, k)
        places = tuple(plan.index_places[order][s][ic] for s, _ in plan.shuffles[order].places)
        return Leaf(size, None, order, False, places)
    return Leaf(size, None, None, False, ())


@dataclass(frozen=True)
class Layout:
    """The pieces of a plan, and where each class occurs: key -> (piece, leaf)."""

    plan: Plan
    pieces: tuple[Piece, ...]

    @cached_property
    def at(self) -> dict[tuple[str, int], tuple[tuple[Piece, int], ...]]:
        found: dict[tuple[str, int], list[tuple[Piece, int]]] = {}
        for p in self.pieces:
            for k, leaf in enumerate(p.leaves):
                if leaf.key is not None:
                    found.setdefault(leaf.key, []).append((p, k))
        return {key: tuple(where) for key, where in found.items()}


def layout(plan: Plan) -> Layout:
    return Layout(plan, pieces(plan))
