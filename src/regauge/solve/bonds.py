"""Bonds: the hidden axes of a model with their groups, read off the passes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

from regauge.graph.ir import Einsum, Param
from regauge.solve.blocks import Block
from regauge.solve.group import Group
from regauge.solve.plan import Plan, frame_dim


@dataclass(frozen=True)
class Touch:
    """A parameter axis that sees a bond, as a vector (g) or as its dual (the inverse transpose)."""

    parameter: str
    axis: int
    side: str

    def __str__(self) -> str:
        return f"{self.parameter}[{self.axis}]{'*' if self.side == 'dual' else ''}"


@dataclass(frozen=True)
class Bond:
    """One hidden axis shared by several tensors. size: entries on it; dim: of frames and scales, without translations."""

    name: str
    size: int
    group: Group
    dim: int
    touches: tuple[Touch, ...]
    key: int = field(default=-1, compare=False, repr=False)
    keys: frozenset[int] = field(default=frozenset(), compare=False, repr=False)  # all index sets that move on it

    def __str__(self) -> str:
        return f"{self.name}: {self.group}, {self.size} wide, dimension {self.dim}"


@dataclass
class _Draft:
    key: int
    touches: dict[tuple[str, int], str] = field(default_factory=dict)
    size: int = 0
    group: Group | None = None
    dim: int = 0


def sides(plan: Plan) -> dict[tuple[int, int], set[str]]:
    """(block, leaf) -> roles in which parameters are read there: contracted with data (dual) or written (vector)."""
    from regauge.solve.facts import plain_relations

    out: dict[tuple[int, int], set[str]] = {}
    for r in plain_relations(plan.blocks):
        for t in r.ins:
            if not isinstance(t.block.value.op, Param):
                continue
            for k, l in enumerate(t.labels):
                dual = isinstance(r.op, Einsum) and l not in r.out.labels
                out.setdefault((t.block.id, k), set()).add("dual" if dual else "vector")
    return out


class _Reader:
    """Answers, for a leaf of a parameter block: what moves there?"""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scaled = self._on(plan.charges.scales)
        self.signed = self._on(plan.charges.signs)

    def _on(self, charges: object) -> dict[int, set[tuple[int, ...]]]:
        out: dict[int, set[tuple[int, ...]]] = {}
        for c in charges:  # type: ignore[attr-defined]
            for block, _, _ in c.on:
                out.setdefault(block, set()).add(c.classes)
        return out

    def roots(self, block: Block, leaf: int) -> tuple[int, int]:
        cells = self.plan.indices.cells
        c = cells.cell(block, leaf)
        return self.plan.indices.root[c], self.plan.frames.root[c]

    def kind(self, block: Block, leaf: int) -> str | None:
        """Frame kind on the leaf, through links; None if monomial."""
        _, f = self.roots(block, leaf)
        frames = self.plan.frames
        if frames.monomial(f):
            return None
        while f in frames.derived:
            f = frames.root[frames.derived[f].other]
        source = self.plan.sources.get(f)
        return source.kind if source else None

    def free(self, block: Block, leaf: int) -> bool:
        index, _ = self.roots(block, leaf)
        if self.kind(block, leaf) is not None or index in self.plan.shuffles:
            return True
        return any(index in s for on in (self.scaled, self.signed) for s in on.get(block.id, ()))


def bonds(plan: Plan) -> tuple[Bond, ...]:
    read, role = _Reader(plan), sides(plan)
    drafts: dict[int, _Draft] = {}
    home: dict[int, int] = {}
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        for block in plan.blocks.of[v.id]:
            for axis in range(v.ndim):
                mine = [k for k, (a, _, _) in enumerate(block.leaves) if a == axis]
                moving = [k for k in mine if read.free(block, k)]
                if not moving:
                    continue
                last = _innermost(read, block, moving)
                key = read.roots(block, last)[0]
                draft = drafts.setdefault(key, _Draft(key))
                how = role.get((block.id, last), {"vector"})
                side = "dual" if how == {"dual"} else "vector"
                old = draft.touches.get((v.op.name, axis))
                draft.touches[(v.op.name, axis)] = side if old is None else old
                size = prod(block.sizes[k] for k in mine)
                group = _group(read, block, mine, last)
                if draft.group is None or _telling(group, size) > _telling(draft.group, draft.size):
                    draft.size, draft.group = max(size, draft.size), group
                for k in moving:
                    home.setdefault(read.roots(block, k)[0], key)
    _dims(plan, drafts, home)
    inside: dict[int, set[int]] = {}
    for root, key in home.items():
        inside.setdefault(key, set()).add(root)
    made = []
    for d in drafts.values():
        touches = tuple(Touch(p, a, s) for (p, a), s in d.touches.items())
        first = next((t for t in touches if t.side == "vector"), touches[0])
        assert d.group is not None
        made.append(
            Bond(
                f"{first.parameter}[{first.axis}]",
                d.size,
                d.group,
                d.dim,
                touches,
                d.key,
                frozenset(inside.get(d.key, set()) | {d.key}),
            )
        )
    names: dict[str, int] = {}
    out = []
    for b in made:
        n = names[b.name] = names.get(b.name, 0) + 1
        out.append(b if n == 1 else replace(b, name=f"{b.name}#{n}"))
    return tuple(out)


def _telling(group: Group, size: int) -> tuple[bool, bool, int, int]:
    """Which of two views of one bond says more: one with matrices, one with anything at all, the larger, the longer."""
    return "(" in group.base or group.base == "C*", group.base != "1", size, len(str(group))


def _innermost(read: _Reader, block: Block, moving: list[int]) -> int:
    """The leaf that names the bond: a rotated pair stands for its planes."""
    last = moving[-1]
    if read.kind(block, last) == "SO2" and len(moving) > 1:
        return moving[-2]
    return last


def _group(read: _Reader, block: Block, mine: list[int], last: int) -> Group:
    plan = read.plan
    kinds = {k: read.kind(block, k) for k in mine}
    framed = [k for k in mine if kinds[k] is not None]
    classes = {read.roots(block, k)[0] for k in mine}

    def charged(on: dict[int, set[tuple[int, ...]]], inside: int) -> bool:
        """Some free function on this block lives on this axis, and on that leaf unless it is a frame."""
        index = read.roots(block, inside)[0]
        for s in on.get(block.id, ()):
            if set(s) <= classes and (kinds[inside] is not None or index in s or block.sizes[inside] == 1):
                return True
        return False

    if framed:
        k = framed[-1]
        n, scale = block.sizes[k], charged(read.scaled, k)
        base = {
            "GL": f"GL({n})" if scale else f"SL({n})",
            "O": f"O({n})",
            "O1": f"O({n - 1})",
            "SO2": "C*" if scale else "SO(2)",
            "GLv": f"Aff({n - 1})",
            "GLc": f"Aff({n - 1})",
            "GLvc": f"GL({n - 1})",
        }[str(kinds[k])]
    else:
        k = last
        scale, sign = charged(read.scaled, k), charged(read.signed, k)
        base = "R*" if scale and sign else "R+" if scale else "Z2" if sign else "1"
    copies: list[tuple[int, bool]] = []
    beside: list[int] = []
    local = _local(read, block, k, bool(framed))
    order = [j for j in reversed(mine) if not (framed and j == k)]
    for j in order:
        index = read.roots(block, j)[0]
        shuffled = index in plan.shuffles
        if kinds[j] is not None:
            continue
        if j in local or (not framed and j == k):
            if shuffled or base != "1":
                copies.append((block.sizes[j], shuffled))
        elif shuffled:
            beside.append(block.sizes[j])
    return Group(base, tuple(copies), tuple(beside))


def _local(read: _Reader, block: Block, leaf: int, framed: bool) -> set[int]:
    """Leaves over which what moves at this leaf may differ."""
    plan = read.plan
    cells = plan.indices.cells
    c = cells.cell(block, leaf)
    index, frame = read.roots(block, leaf)
    out: set[int] = set()
    if framed:
        places = plan.frame_places.get(plan.component(frame), {})
        out |= {where[c] for where in places.values() if c in where}
    else:
        out |= {where[c] for where in plan.index_places.get(index, {}).values() if c in where}
        classes = {read.roots(block, k)[0]: k for k in range(len(block.leaves))}
        for on in (read.scaled, read.signed):
            for s in on.get(block.id, ()):
                if index in s:
                    out |= {classes[r] for r in s if r in classes and r != index}
    return out


def _dims(plan: Plan, drafts: dict[int, _Draft], home: dict[int, int]) -> None:
    cells = plan.indices.cells
    component_key: dict[int, int] = {}
    for v in plan.parameters():
        for block in plan.blocks.of[v.id]:
            for k in range(len(block.leaves)):
                c = cells.cell(block, k)
                key = home.get(plan.indices.root[c])
                if key is not None:
                    component_key.setdefault(plan.component(plan.frames.root[c]), key)
    for s in plan.sources.values():
        key = component_key.get(plan.component(s.root))
        if key is not None:
            drafts[key].dim += frame_dim(s.kind, s.n) * s.copies
    spread: dict[frozenset[int], int] = {}
    for charge in plan.charges.scales:
        on = frozenset(b for b, _, _ in charge.on)
        keys = [home[r] for r in charge.classes if r in home]
        if keys:
            spread[on] = keys[-1]
    for charge in plan.charges.scales:
        on = frozenset(b for b, _, _ in charge.on)
        key = spread.get(on)
        if key is None:
            key = next(
                (
                    home[r]
                    for b, _, _ in charge.on
                    for k in range(len(cells.blocks[b].leaves))
                    for r in [plan.indices.root[cells.cell(cells.blocks[b], k)]]
                    if r in home
                ),
                None,
            )
        if key is not None:
            drafts[key].dim += charge.dim
