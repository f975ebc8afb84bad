"""Where a bond is wider than the maps around it: what its group really moves, and what no map can see.

Data that come through maps of rank s span only s of the n directions of a bond, and readers of rank r see only r of them.
Whatever carries the frame of a bond is left alone by all that leaves its writers alone, so it lies in what they span. Of a map
W between two bonds then only its r x s part is visible: GL(n) moves the visible parts by s r dimensions (not n^2), and the
invisible rest of every W is free. For a chain of linear maps the sum is the dimension of the determinantal variety's fibre.
A norm sees all that is written (x . x has every angle), so O(n) is short of directions on the written side alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from regauge.graph.ir import Add, Einsum, Param, Reshape, Slice, Value
from regauge.solve.blocks import Block
from regauge.solve.bonds import sides
from regauge.solve.plan import Plan, frame_dim
from regauge.solve.together import span_dim
from regauge.solve.unread import unread_rows


@dataclass(frozen=True)
class Shortfall:
    """A frame of n directions of which `span` are filled and `seen` are read, in `copies`; or the free part of a map."""

    name: str
    dim: int


Users = Mapping[int, Sequence[Value]]
FIXES_ONES, FIXES_SUM, ORTHOGONAL = ("GLv", "GLvc", "O1"), ("GLc", "GLvc"), ("O", "O1")


@dataclass
class _Width:
    kind: str
    n: int
    copies: int
    span: int
    seen: int

    @property
    def ones(self) -> int:
        return int(self.kind in FIXES_ONES)

    @property
    def sum(self) -> int:
        return int(self.kind in FIXES_SUM)

    @property
    def short(self) -> bool:
        return self.span < self.n or self.seen < self.n

    @property
    def dim(self) -> int:
        """Dimensions in which one copy moves what is visible; a full GL's scale is a charge, counted with the charges."""
        match self.kind:
            case "O" | "O1":
                return frame_dim("O", self.n - self.ones) - frame_dim("O", self.n - self.span)
            case _:
                return (self.span - self.ones) * (self.seen - self.sum) - (self.kind == "GL")


@dataclass(frozen=True)
class _Map:
    """A parameter block. into: leaves that are summed over with data; out: leaves that it writes; both: in turn.

    less: directions on the side of `into` along which it absorbs a relation of its operand. unseen: sets of leaves along
    which what is constant is seen by nobody.
    """

    block: Block
    into: tuple[int, ...]
    out: tuple[int, ...]
    both: frozenset[int] = frozenset()
    less: int = 0
    unseen: tuple[tuple[int, ...], ...] = ()
    shared: frozenset[int] | None = None  # leaves along which what it shares with other blocks is constant, and unseen
    rows: int = 0  # of the first leaf, that are never read
    moved: frozenset[int] | None = None  # leaves over which a translation of it varies that is free to choose
    taken: bool = False  # all of it is a translation


def shortfalls(plan: Plan) -> tuple[Shortfall, ...]:
    """Corrections to the dimension, one for each bond (negative) and each map (positive) that falls short."""
    return _Ranks(plan).run() if any(s.kind != "SO2" for s in plan.sources.values()) else ()


@dataclass
class _Ranks:
    plan: Plan
    widths: dict[int, _Width] = field(default_factory=dict)
    maps: list[_Map] = field(default_factory=list)
    unclear: set[int] = field(default_factory=set)

    def run(self) -> tuple[Shortfall, ...]:
        sources = self.plan.sources.values()
        self.widths = {s.root: _Width(s.kind, s.n, s.copies, s.n, s.n) for s in sources if s.kind != "SO2"}
        self._collect()
        self._settle()
        found = [
            Shortfall(
                f"{w.kind} frame {w.n} filled {w.span} seen {w.seen}", w.copies * (w.dim - frame_dim(w.kind, w.n))
            )
            for w in self.widths.values()
            if w.short
        ]
        found += [Shortfall(f"map {m.block.value.op.name}", self._free(m)) for m in self.maps]  # type: ignore[union-attr]
        return tuple(s for s in found if s.dim)

    def _rooted(self, b: Block, k: int) -> tuple[int, bool]:
        """The frame that moves a leaf, through gains, and whether it does so as its dual."""
        frames = self.plan.frames
        c = frames.cells.cell(b, k)
        dual = frames.sign[c]
        while frames.root[c] in frames.derived:
            d = frames.derived[frames.root[c]]
            c, dual = d.other, dual ^ frames.sign[d.cell] ^ frames.sign[d.other]
        return frames.root[c], bool(dual)

    def _width(self, b: Block, k: int) -> _Width | None:
        return self.widths.get(self._rooted(b, k)[0])

    def _places(self, b: Block, k: int) -> set[int]:
        """Leaves over which the frame at leaf k has its copies."""
        c = self.plan.frames.cells.cell(b, k)
        found = self.plan.frame_places.get(self.plan.component(self._rooted(b, k)[0]), {})
        return {where[c] for where in found.values() if c in where}

    def _collect(self) -> None:
        """What writes each bond and what reads it. A frame with a parameter that is used in no such way stays full."""
        role = sides(self.plan)
        users = self.plan.graph.consumers()
        lost = {u.block.id for u in self.plan.unseen if u.tolerance.everything} | self.plan.silent
        sets = {u.block.id: u.sets for u in self.plan.unseen}
        shared = {j.blocks[0].id: frozenset(j.along[0]) for j in self.plan.joint}  # counted at the first
        shifts = self.plan.shifts
        chosen = [shifts.sources[i] for i in {*shifts.free, *shifts.together}]
        moved = {s.block.id: frozenset(s.leaves) for s in chosen if s.id not in shifts.together}  # else out of sight
        less = {
            s.block.id: [where for where, _ in s.roles]
            for s in shifts.sources
            if s.roles and s.id in shifts.moving | shifts.together
        }
        taken = {s.block.id for s in chosen if not s.roles}
        rows = unread_rows(self.plan)
        for v in self.plan.parameters():
            assert isinstance(v.op, Param)
            for b in self.plan.blocks.of[v.id]:
                leaves = range(len(b.leaves))
                framed = [k for k in leaves if self._width(b, k)]
                if not framed or b.id in lost:
                    continue
                if not all(_plain(r, v, users) for r in users[v.id]):
                    self.unclear.update(self._rooted(b, k)[0] for k in framed)
                    continue
                into = tuple(k for k in leaves if role.get((b.id, k)) == {"dual"})
                out = tuple(k for k in leaves if k not in into)
                both = frozenset(k for k in out if "dual" in role.get((b.id, k), ()))
                apart = [prod(b.sizes[k] for k in into if k not in w) for w in less.get(b.id, ()) if w <= set(into)]
                self.maps.append(
                    _Map(
                        b,
                        into,
                        out,
                        both,
                        sum(apart),
                        sets.get(b.id, ()),
                        shared.get(b.id),
                        rows.get(v.id, 0),
                        moved.get(b.id),
                        b.id in taken,
                    )
                )

    def _settle(self) -> None:
        for _ in range(len(self.widths) + 2):
            fresh = {r: [0, 0] for r in self.widths}
            met: set[tuple[int, int]] = set()  # frame, side: some map is there; where none is, nothing is known
            for m in self.maps:
                for k in range(len(m.block.leaves)):
                    r, dual = self._rooted(m.block, k)
                    if r not in self.widths:
                        continue
                    for side in self._sides(m, k, self.widths[r], dual):
                        met.add((r, side))
                        fresh[r][side] += self._amount(m, k)
                        if m.moved and k in m.out and k in m.moved:
                            fresh[r][side] -= self._amount(m, k, m.moved)  # a translation takes these
            changed = False
            for r, (filled, read) in fresh.items():
                w = self.widths[r]
                span = min(w.n, max(0, filled) + w.ones) if (r, 0) in met or w.ones else w.n
                seen = min(w.n, max(0, read) + w.sum) if (r, 1) in met or w.sum else w.n
                if w.kind in ORTHOGONAL:
                    span, seen = (span if (r, 0) in met else w.n), w.n
                if r not in self.unclear and (span, seen) != (w.span, w.seen):
                    w.span, w.seen, changed = span, seen, True
            if not changed:
                break

    def _sides(self, m: _Map, k: int, w: _Width, dual: bool) -> tuple[int, ...]:
        """Whether the map fills (0) or reads (1) a frame. Vectors fill, duals read; of two that meet either may be called so."""
        if w.kind in ORTHOGONAL:
            return (0,) if k in m.out else ()
        return (0, 1) if k in m.both else (int(dual),)

    def _visible(self, m: _Map, leaves: Iterable[int]) -> list[int]:
        """For each leaf the directions that something meets: of frames those of the other role, of other leaves all."""
        return [self._met(m, k) for k in leaves]

    def _met(self, m: _Map, k: int) -> int:
        w = self._width(m.block, k)
        if w is None:
            return m.block.sizes[k] - (m.rows if k == 0 else 0)
        if k in m.both:
            return w.n
        if w.kind in ORTHOGONAL:
            return w.span if k in m.into else w.n
        return w.span if self._rooted(m.block, k)[1] else w.seen

    def _amount(self, m: _Map, k: int, among: frozenset[int] | None = None) -> int:
        """Directions of the frame at leaf k that the map reaches: one for each index of its other leaves (of those `among`),
        but for those over which the frame has its copies."""
        places = self._places(m.block, k)
        rest = (j for j in range(len(m.block.leaves)) if j != k and j not in places and (among is None or j in among))
        return prod(self._visible(m, rest))

    def _free(self, m: _Map) -> int:
        """The part of a map that takes what no data fill, or gives what no reader sees, beyond what is counted as unseen,
        unread or as a translation."""
        if m.both or m.taken or not any(w.short for k in (*m.into, *m.out) if (w := self._width(m.block, k))):
            return 0
        sizes = list(m.block.sizes)
        sizes[0] -= m.rows
        met = self._visible(m, range(len(sizes)))
        return self._held(m, sizes) - self._held(m, met)

    def _held(self, m: _Map, sizes: list[int]) -> int:
        """Entries of the map, less what relations of its operand and blind readers take."""
        out = [sizes[k] for k in m.out]
        inside = tuple(tuple(m.out.index(k) for k in s) for s in m.unseen if set(s) <= set(m.out))
        hidden = span_dim(tuple(out), inside) if inside else 0
        if m.shared is not None and m.shared <= set(m.out):
            hidden += prod(n for k, n in zip(m.out, out, strict=True) if k not in m.shared)
        return (prod(sizes[k] for k in m.into) - m.less) * (prod(out) - hidden)


def _plain(reader: Value, v: Value, users: Users) -> bool:
    """A product with something else, or a sum; of the parameter itself or of a part or view of it."""
    match reader.op:
        case Einsum():
            return reader.args.count(v) == 1 and (
                len(reader.args) > 1 or all(_plain(r, reader, users) for r in users[reader.id])
            )
        case Reshape() | Slice():
            return all(_plain(r, reader, users) for r in users[reader.id])
    return isinstance(reader.op, Add)
