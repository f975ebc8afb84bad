"""What keeps the group of an axis from being larger, read off the passes: the operators that restrict it, by their kind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from regauge.graph.ir import Add, Along, Concat, Einsum, Free, Frozen, Mix, Param, Pointwise, Value
from regauge.solve.blocks import Relation
from regauge.solve.bonds import Bond, sides
from regauge.solve.frames import MONOMIAL, ORTHOGONAL, Link
from regauge.solve.plan import Plan

LARGEST = 1 << 24  # entries of a fixed table that one might learn


@dataclass(frozen=True)
class Break:
    """One obstruction on one axis. kind: see `breaks`. bond: its name, or that of an axis which does not move at all.

    values: what is at fault: the operations, and for ties, gains and tables the tensors. what: in words.
    """

    kind: str
    bond: str
    group: str
    values: tuple[Value, ...]
    what: tuple[str, ...]


def breaks(plan: Plan, bonds: Sequence[Bond]) -> list[Break]:
    """Every obstruction. Kinds, with what stands between the axis and a larger group:

    tie: a parameter with several roles. shared: parameters with several readers. gain: factors that no reader can take
    up, between places that are restricted already; "gain on a loop": before and behind it is one axis; "gains that meet":
    in one product. table: something
    fixed that is added. positions: planes that turn with the position. norm: x . x. softmax: scores without a scale.
    entrywise: functions and products of single entries.
    """
    return [*_ties(plan, bonds), *_softmaxes(plan, bonds), *_axes(plan, bonds)]


@dataclass
class _Axis:
    """A class of linked frames that parameters carry."""

    bond: str
    group: str
    nodes: frozenset[int]
    innermost: bool  # not the axis of heads, or of other copies


def _axes(plan: Plan, bonds: Sequence[Bond]) -> Iterator[Break]:
    marks: dict[int, list[tuple[int, str, Relation | None]]] = {}
    for cell, flag, why in plan.frames.marks:
        root = plan.frames.root[cell]
        marks.setdefault(plan.component(root), []).append((root, flag, why))
    links: dict[int, list[Link]] = {}
    for link in plan.frames.links:
        links.setdefault(plan.component(plan.frames.root[link.cell_in]), []).append(link)
    entrywise: dict[str, Break] = {}
    for component, axis in _carried(plan, bonds).items():
        for b in _axis(plan, axis, marks.get(component, []), links.get(component, [])):
            if b.kind != "entrywise":
                yield b
            elif axis.innermost:
                old = entrywise.get(b.bond, Break(b.kind, b.bond, b.group, (), ()))
                entrywise[b.bond] = replace(b, values=old.values + b.values, what=_once(old.what + b.what))
    yield from entrywise.values()


def _axis(plan: Plan, axis: _Axis, marks: list[tuple[int, str, Relation | None]], links: list[Link]) -> Iterator[Break]:
    entrywise = [why for _, flag, why in marks if flag == MONOMIAL]
    kinds = {_nature(why) for why in entrywise}
    relations = [why for why in entrywise if why is not None]

    def found(kind: str, values: Iterable[Value], what: Iterable[str] = ()) -> Break:
        return Break(kind, axis.bond, axis.group, tuple({v.id: v for v in values}.values()), _once(what))

    if kinds == {"table"}:
        tables = [t.block.value for r in relations for t in r.ins if _table(t.block.value)]
        yield found("table", tables, ("x".join(map(str, t.shape)) for t in tables))
        return
    if kinds - {"gain", "positions", "function", "product"}:
        return
    core = _core(plan, links, {root for root, _, _ in marks})
    if core and any(plan.frames.monomial(n) for n in axis.nodes):
        names = [n for k in core for n in above(k.gain.block.value)]
        ends = [(plan.frames.root[k.cell_in], plan.frames.root[k.cell_out]) for k in core]
        normed = {root for root, flag, _ in marks if flag == ORTHOGONAL}
        loop, meet = all(a == b for a, b in ends), any(not {a, b} <= normed for a, b in ends)
        kind = "gain on a loop" if loop else "gains that meet" if meet else "gain"
        yield found(kind, (k.relation.out.block.value for k in core), names)
    acting = [r for r in relations if _nature(r) in ("function", "product")]
    if acting:
        yield found("entrywise", (r.out.block.value for r in acting), map(_word, acting))
        return
    mixes = [r.out.block.value for _, _, r in marks if r is not None and isinstance(r.op, Mix)]
    squares = [r.out.block.value for _, flag, r in marks if flag == ORTHOGONAL and r is not None and _square(r)]
    if mixes:
        yield found("positions", mixes)
    elif squares and not core:
        yield found("norm", squares)


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _nature(why: Relation | None) -> str:
    """What kind of thing acts on single entries here."""
    if why is None:
        return "observed"
    free = [t.block.value for t in why.ins if isinstance(t.block.value.op, Free)]
    match why.op:
        case Frozen():
            return "frozen"
        case Mix():
            return "positions"
        case Add() | Concat() if free:
            return "table" if all(_table(v) for v in free) else "input"
        case Einsum() if any(len(set(t.labels)) < len(t.labels) for t in why.terms):
            return "product"
        case Einsum() if free:
            return "input"
        case Einsum() if sum(t.block.value.data for t in why.ins) > 1:
            return "product"
        case Einsum():
            return "gain" if len(why.ins) == 2 else "product"
        case Pointwise() | Along() if not why.op.linear:
            return "function"
    return "input"


def _table(v: Value) -> bool:
    return isinstance(v.op, Free) and not v.data and v.numel <= LARGEST


def _square(r: Relation) -> bool:
    return isinstance(r.op, Einsum) and len(r.ins) == 2 and r.ins[0].block.value is r.ins[1].block.value


def _word(r: Relation) -> str:
    match r.op:
        case Pointwise(name=name) | Along(name=name):
            return name.split(" of ")[-1].removeprefix("aten.").split(".")[0].split(":")[0].strip("_")
    return "a product"


def above(v: Value) -> list[str]:
    """The parameters that a value is made of, nearest first."""
    found: dict[str, None] = {}
    todo, seen = deque([v]), {v.id}
    while todo:
        x = todo.popleft()
        if isinstance(x.op, Param):
            found[x.op.name] = None
        for a in x.args:
            if a.id not in seen:
                seen.add(a.id)
                todo.append(a)
    return list(found)


def _core(plan: Plan, links: list[Link], restricted: set[int]) -> list[Link]:
    """Links that no single end can take up: what is left after cutting off unrestricted ends."""
    root = plan.frames.root
    left = list(links)
    while True:
        degree: dict[int, set[tuple[int, int]]] = {}
        for k in left:
            a, b = root[k.cell_in], root[k.cell_out]
            for n in (a, b):
                degree.setdefault(n, set()).add((min(a, b), max(a, b)))
        loops = {n for n, edges in degree.items() for a, b in edges if a == b}
        ends = {n for n, edges in degree.items() if len(edges) == 1 and n not in restricted and n not in loops}
        keep = [k for k in left if root[k.cell_in] not in ends and root[k.cell_out] not in ends]
        if len(keep) == len(left):
            return keep
        left = keep


def _carried(plan: Plan, bonds: Sequence[Bond]) -> dict[int, _Axis]:
    """Classes of frames by component, for axes of parameters."""
    cells = plan.frames.cells
    by_key = {key: b for b in bonds for key in b.keys}
    nodes: dict[int, set[int]] = {}
    for root, component in plan.frames.component.items():
        nodes.setdefault(component, set()).add(root)
    found: dict[int, _Axis] = {}
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        for block in plan.blocks.of[v.id]:
            for k, (axis, n, _) in enumerate(block.leaves):
                c = cells.cell(block, k)
                component = plan.component(plan.frames.root[c])
                bond = by_key.get(plan.indices.root[c])
                old = found.get(component)
                if n == 1 or v.op.statistic or (old is not None and (old.group != "1" or bond is None)):
                    continue
                name = bond.name if bond is not None else f"{v.op.name}[{axis}]"
                innermost = bond is None or bond.key == plan.indices.root[c]
                own = frozenset(nodes.get(component, set()) | {component})
                found[component] = _Axis(name, str(bond.group) if bond is not None else "1", own, innermost)
    return found


def _ties(plan: Plan, bonds: Sequence[Bond]) -> Iterator[Break]:
    """Parameters with several readers: alone if it has several roles (embedding and head), together if they are merely
    shared (by layers, by steps in time)."""
    role = sides(plan)
    users = plan.graph.consumers()
    shared: dict[int, list[tuple[Value, list[Value]]]] = {}
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        readers = [u for u in users[v.id] if isinstance(u.op, Einsum | Pointwise | Add) and u.data]
        if v.op.statistic or len(readers) < 2:
            continue
        roles = [role.get((b.id, k), set()) for b in plan.blocks.of[v.id] for k in range(len(b.leaves))]
        if any(len(r) > 1 for r in roles):
            yield Break("tie", *_bond_of(v, bonds), (v, *readers), (v.op.name,))
        else:
            shared.setdefault(len(readers), []).append((v, readers))
    for found in shared.values():
        first, readers = found[0]
        names = tuple(v.op.name for v, _ in found if isinstance(v.op, Param))
        yield Break("shared", *_bond_of(first, bonds), (*(v for v, _ in found), *readers), names)


def _bond_of(v: Value, bonds: Sequence[Bond]) -> tuple[str, str]:
    assert isinstance(v.op, Param)
    bond = next((b for b in bonds for t in b.touches if t.parameter == v.op.name), None)
    return (bond.name, str(bond.group)) if bond is not None else (f"{v.op.name}[0]", "1")


def _softmaxes(plan: Plan, bonds: Sequence[Bond]) -> Iterator[Break]:
    """Softmax over scores: queries and keys cannot trade a scale with the values."""
    observed = {v.id for v in plan.graph.outputs}
    written = {t.parameter: b for b in reversed(bonds) for t in b.touches if t.side == "vector"}
    for v in plan.graph.values:
        if isinstance(v.op, Along) and v.op.name == "softmax" and v.learned and v.id not in observed:
            nearest = next((n for n in above(v) if n in written), None)
            if nearest is not None:
                yield Break("softmax", written[nearest].name, str(written[nearest].group), (v,), ())
