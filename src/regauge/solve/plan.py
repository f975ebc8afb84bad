"""What elements need of the passes: frames to sample, index sets to permute, charges, translations, and their places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from regauge.graph.ir import Graph, Param, Value
from regauge.graph.ir import Source as Place
from regauge.solve.blocks import Blocks, Relation
from regauge.solve.cells import Cells
from regauge.solve.charges import Charges
from regauge.solve.facts import plain_relations
from regauge.solve.frames import Derived, Frames
from regauge.solve.indices import Indices


@dataclass(frozen=True)
class Source:
    """A frame that is sampled: kind, size, the places that it is local over (slot -> size), and its cells in parameters."""

    root: int
    kind: str
    n: int
    places: tuple[tuple[int, int], ...]

    @property
    def copies(self) -> int:
        return int(np.prod([n for _, n in self.places], dtype=np.int64))


@dataclass(frozen=True)
class Shuffle:
    """An index set that may be permuted, with the places that it is local over."""

    root: int
    n: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Plan:
    """Everything that elements need, computed once per gauge."""

    graph: Graph
    blocks: Blocks
    indices: Indices
    frames: Frames
    charges: Charges
    sources: dict[int, Source]
    shuffles: dict[int, Shuffle]
    frame_places: dict[int, dict[int, dict[int, int]]]  # component -> slot -> cell -> leaf
    index_places: dict[int, dict[int, dict[int, int]]]
    aliases: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    shifts: Any = None
    levels: Any = None
    overlap: int = 0
    unseen: tuple[Any, ...] = ()
    joint: tuple[Any, ...] = ()
    silent: frozenset[int] = frozenset()  # parts of parameters (ids of blocks) that nothing reads
    paired: dict[str, int] = field(default_factory=dict)  # table -> directions of rows that are read with others

    @cached_property
    def absorbed(self) -> tuple[Value, ...]:
        """Parameters of which another one takes in all that they do: not in the graph, free to be anything."""
        held = {v.op.name for v in self.parameters() if isinstance(v.op, Param)}
        return tuple(
            Value(-1, Param(name), (), shape, True, False, Place())
            for name, shape in _added(self.parameters()).items()
            if name not in held
        )

    @cached_property
    def touching(self) -> dict[int, list[Relation]]:
        """Index set -> the relations that it takes part in."""
        out: dict[int, list[Relation]] = {}
        for r in plain_relations(self.blocks):
            for root in dict.fromkeys(
                self.indices.root[self.indices.cells.of(t, l)] for t in r.terms for l in t.labels
            ):
                out.setdefault(root, []).append(r)
        return out

    def parameters(self) -> list[Value]:
        return [v for v in self.graph.values if isinstance(v.op, Param)]

    def component(self, root: int) -> int:
        return self.frames.component.get(root, root)


def kind_of(flags: frozenset[str]) -> str | None:
    """The name of a frame group by what it must respect; None where only permutations and charges are left."""
    match sorted(flags):
        case []:
            return "GL"
        case ["orthogonal"]:
            return "O"
        case ["plane"] | ["orthogonal", "plane"]:
            return "SO2"
        case ["ones", "orthogonal", "sum"] | ["ones", "orthogonal"] | ["orthogonal", "sum"]:
            return "O1"
        case ["ones"]:
            return "GLv"
        case ["sum"]:
            return "GLc"
        case ["ones", "sum"]:
            return "GLvc"
    return None


def frame_dim(kind: str, n: int) -> int:
    """Dimension of the scale-free group on a leaf of size n."""
    return {
        "GL": n * n - 1,
        "O": n * (n - 1) // 2,
        "O1": (n - 1) * (n - 2) // 2,
        "SO2": 1,
        "GLv": n * (n - 1),
        "GLc": n * (n - 1),
        "GLvc": (n - 1) * (n - 1),
    }[kind]


def plan(
    graph: Graph,
    blocks: Blocks,
    indices: Indices,
    frames: Frames,
    charges: Charges,
    aliases: dict[str, tuple[str, ...]],
) -> Plan:
    """Collect the classes that parameters carry, with their places."""
    cells = frames.cells
    sizes = [n for b in blocks.all() for n in b.sizes]
    held: set[int] = set()
    for v in graph.values:
        if isinstance(v.op, Param):
            for b in blocks.of[v.id]:
                held.update(cells.cell(b, k) for k in range(len(b.leaves)))
    members: dict[int, list[int]] = {}
    in_component: dict[int, list[int]] = {}
    orders: dict[int, list[int]] = {}
    for c in range(len(cells.owner)):
        members.setdefault(frames.root[c], []).append(c)
        in_component.setdefault(frames.component.get(frames.root[c], frames.root[c]), []).append(c)
        orders.setdefault(indices.root[c], []).append(c)

    def monomial(c: int) -> bool:
        return frames.monomial(frames.root[c])

    def keep(places: dict[int, dict[int, int]]) -> dict[int, dict[int, int]]:
        """Only places over index sets, not over axes that are themselves rotated."""
        kept = {}
        for slot, where in places.items():
            if all(monomial(_neighbour(cells, c, leaf)) for c, leaf in where.items()):
                kept[slot] = where
        return kept

    def extent(where: dict[int, int]) -> int:
        c, leaf = next(iter(where.items()))
        return sizes[_neighbour(cells, c, leaf)]

    sources, frame_places = {}, {}
    for root, cs in members.items():
        if (
            frames.monomial(root)
            or root in frames.derived
            or not any(c in held for c in in_component[frames.component.get(root, root)])
        ):
            continue
        kind = kind_of(frames.flags.get(root, frozenset()))
        component = frames.component.get(root, root)
        if kind is None or not (any(c in held for c in cs) or component in frames.component.values()):
            continue
        places = keep(cells.places(in_component[component]))
        places = {s: w for s, w in places.items() if indices.root[_first(cells, w)] in indices.learned}
        frame_places[component] = places
        sources[root] = Source(root, kind, sizes[cs[0]], tuple((s, extent(w)) for s, w in places.items()))
    shuffles, index_places = {}, {}
    for root, cs in orders.items():
        if root in indices.fixed or root not in indices.learned or not all(monomial(c) for c in cs):
            continue
        places = keep(indices.cells.places(cs))
        places = {s: w for s, w in places.items() if indices.root[_first(cells, w)] in indices.learned}
        index_places[root] = places
        shuffles[root] = Shuffle(root, sizes[cs[0]], tuple((s, extent(w)) for s, w in places.items()))
    leaves = [v for v in graph.values if isinstance(v.op, Param)]
    shapes = {v.op.name: v.shape for v in leaves if isinstance(v.op, Param)}
    shapes |= _added(leaves)
    return Plan(graph, blocks, indices, frames, charges, sources, shuffles, frame_places, index_places, aliases, shapes)


def _added(parameters: Iterable[Value]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what is read to be added to other parameters."""
    updates = [u for v in parameters if isinstance(v.op, Param) for u in v.op.updates]
    return {name: shape for u in updates for name, shape in u.reads.items()}


def _neighbour(cells: Cells, cell: int, leaf: int) -> int:
    block, _ = cells.owner[cell]
    return cells.first[block] + leaf


def _first(cells: Cells, where: dict[int, int]) -> int:
    c, leaf = next(iter(where.items()))
    return _neighbour(cells, c, leaf)


__all__ = ["Derived", "Plan", "Shuffle", "Source", "frame_dim", "kind_of", "plan"]
