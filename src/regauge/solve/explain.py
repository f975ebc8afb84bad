"""Why a group is what it is, and what keeps it from being larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from regauge.graph.build import subgraph
from regauge.graph.ir import Along, Einsum, Free, Graph, Mix, Param, Pointwise, Value
from regauge.solve.blocks import Relation
from regauge.solve.bonds import Bond, sides
from regauge.solve.frames import COVECTOR, MONOMIAL, ORTHOGONAL, PLANE, VECTOR
from regauge.solve.plan import Plan, frame_dim, kind_of

MEANING = {
    ORTHOGONAL: "contracted with itself (x . x): orthogonal",
    VECTOR: "something equal in all entries is added: the vector of ones is fixed",
    COVECTOR: "summed over: the sum is fixed",
    PLANE: "rotated by position in planes: only what commutes with the rotations",
    MONOMIAL: "acted on entry by entry: permutations and scales",
}


@dataclass(frozen=True)
class Step:
    """One reason, with the operator and the line of the model's source."""

    reason: str
    source: str

    def __str__(self) -> str:
        return f"{self.reason}  <- {self.source}" if self.source else self.reason


@dataclass(frozen=True)
class Trail:
    """The steps that made the group on one axis of one parameter."""

    parameter: str
    axis: int
    group: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.parameter}, axis {self.axis}: {self.group}", *(f"  {s}" for s in self.steps)])

    __repr__ = __str__


@dataclass(frozen=True)
class Obstruction:
    """What keeps a bond from a larger group. text: one line; source: place; cost: what lifting it costs or gives."""

    bond: str
    text: str
    source: str
    cost: str = ""
    lost: int = 0

    def __str__(self) -> str:
        return (
            f"{self.bond}: {self.text}"
            + (f" [{self.source}]" if self.source else "")
            + (f"; {self.cost}" if self.cost else "")
        )


def _source(r: Relation | None) -> str:
    return str(r.out.block.value.source) if r is not None else ""


def _what(r: Relation | None) -> str:
    """The operation in words."""
    if r is None:
        return "the output"
    match r.op:
        case Pointwise(name=name) | Along(name=name):
            return name.removeprefix("aten.").split(".")[0]
        case Einsum() if sum(t.block.value.learned for t in r.ins) > 1:
            return "an elementwise product"
        case Einsum():
            return "a product with a constant"
        case Mix():
            return "a rotation by position"
    return type(r.op).__name__.lower()


def trail(plan: Plan, bonds: Sequence[Bond], name: str, axis: int) -> Trail:
    value = next((v for v in plan.parameters() if isinstance(v.op, Param) and v.op.name == name), None)
    if value is None:
        raise KeyError(f"{name}: the observed function reads no such parameter")
    if not 0 <= axis < value.ndim:
        raise IndexError(f"{name} has {value.ndim} axes, not an axis {axis}")
    group = (
        " + ".join(str(b.group) for b in bonds if any((t.parameter, t.axis) == (name, axis) for t in b.touches))
        or "fixed"
    )
    steps: dict[Step, None] = {}
    cells = plan.frames.cells
    readers = [v for v in plan.graph.values if value in v.args]
    for r in readers[:4]:
        steps[Step("read by", str(r.source))] = None
    for block in plan.blocks.of[value.id]:
        for k, (a, n, _) in enumerate(block.leaves):
            if a != axis:
                continue
            c = cells.cell(block, k)
            f, i = plan.frames.root[c], plan.indices.root[c]
            related = {f, *(x for x, top in plan.frames.component.items() if top == plan.component(f))}
            for root in sorted(related):
                for flag, why in plan.frames.causes.get(root, {}).items():
                    if why is None and flag == MONOMIAL:
                        continue
                    steps[Step(f"index set of {n}: {MEANING[flag]} ({_what(why)})", _source(why))] = None
            if i in plan.indices.fixed:
                why = plan.indices.causes.get(i)
                steps[Step(f"index set of {n}: not permuted ({_what(why)} tells its entries apart)", _source(why))] = (
                    None
                )
    for (block_id, classes), why in plan.charges.zeros.items():
        if cells.blocks[block_id].value is value and not classes:
            steps[Step(f"no overall scale ({_what(why)})", _source(why))] = None
    return Trail(name, axis, group, tuple(steps))


def obstructions(plan: Plan, bonds: Sequence[Bond], dim: int) -> tuple[Obstruction, ...]:
    out = [*_ties(plan, bonds, dim), *_restrictions(plan, bonds)]
    best: dict[tuple[str, str], Obstruction] = {}
    for o in out:
        key = (o.bond, o.text)
        if key not in best or best[key].lost < o.lost:
            best[key] = o
    return tuple(sorted(best.values(), key=lambda o: -o.lost))


def _restrictions(plan: Plan, bonds: Sequence[Bond]) -> list[Obstruction]:
    """Bonds whose frame is smaller than what the rest of their readers and writers would allow."""
    out = []
    cells = plan.frames.cells
    for bond in bonds:
        roots: dict[int, int] = {}
        for v in plan.parameters():
            for block in plan.blocks.of[v.id]:
                for k, n in enumerate(block.sizes):
                    c = cells.cell(block, k)
                    if plan.indices.root[c] == bond.key and n > 1:
                        roots.setdefault(plan.frames.root[c], n)
        for root, n in roots.items():
            flags = plan.frames.flags.get(root, frozenset())
            causes = plan.frames.causes.get(root, {})
            if MONOMIAL in flags:
                would = kind_of(flags - {MONOMIAL})
                why = causes.get(MONOMIAL)
                if (
                    would is None
                    or why is None
                    or isinstance(why.op, Einsum)
                    and any(isinstance(t.block.value.op, Free) for t in why.ins)
                ):
                    continue
                before = {"GL": f"GL({n})", "O": f"O({n})", "O1": f"O({n - 1})"}.get(would, would)
                lost = frame_dim(would, n) - (n if would == "GL" else 0)
                text = f"{bond.group} instead of {before}: {_what(why)} acts entry by entry"
                out.append(Obstruction(bond.name, text, _source(why), "", max(0, lost)))
            elif PLANE in flags:
                continue
            elif ORTHOGONAL in flags:
                why = causes[ORTHOGONAL]
                lost = n * n - frame_dim(kind_of(flags) or "O", n)
                out.append(
                    Obstruction(bond.name, f"{bond.group} instead of GL({n}): a norm x . x", _source(why), "", lost)
                )
        if bond.group.base in ("C*", "SO(2)"):
            planes = bond.group.copies[0][0] if bond.group.copies else 1
            why = next((f.get(PLANE) for f in plan.frames.causes.values() if PLANE in f), None)
            text = f"{bond.group} instead of GL({2 * planes}) per head: rotary positions tell the planes apart"
            out.append(Obstruction(bond.name, text, _source(why), "", (2 * planes) ** 2 - 2 * planes))
    return out


def _ties(plan: Plan, bonds: Sequence[Bond], dim: int) -> list[Obstruction]:
    """Tensors used in two roles; what untying gives is found by inferring the untied graph."""
    from regauge.solve.passes import dimension, solve

    role = sides(plan)
    out = []
    users = plan.graph.consumers()
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        roles = [r for b in plan.blocks.of[v.id] for k in range(len(b.leaves)) for r in [role.get((b.id, k), set())]]
        if len(users[v.id]) < 2 or not any(len(r) > 1 for r in roles):
            continue
        gain = dimension(solve(untied(plan.graph, v), plan.aliases)) - dim
        copies = len(users[v.id]) - 1
        names = sorted({b.name for b in bonds for t in b.touches if t.parameter == v.op.name})
        places = " and ".join(str(u.source) for u in users[v.id][:2])
        cost = f"untie: + {copies * prod(v.shape):,} parameters, {gain:+,} dimensions".replace(",", " ")
        out.append(
            Obstruction(
                ", ".join(names[:1]) or v.op.name,
                f"{v.op.name} is tied: one tensor in {copies + 1} roles",
                places,
                cost,
                max(gain, 0),
            )
        )
    return out


def untied(graph: Graph, v: Value) -> Graph:
    """The graph with a copy of one parameter for every reader of it."""
    assert isinstance(v.op, Param)
    new: dict[int, Value] = {}
    values: list[Value] = []
    count = 0
    top = len(graph.values)
    fresh = max(x.id for x in graph.values) + 1
    for x in graph.values:
        args = []
        for a in x.args:
            if a is v:
                count += 1
                op = replace(v.op, name=f"{v.op.name}~{count}")
                copy = Value(-fresh - count, op, (), v.shape, True, False, v.source)
                values.append(copy)
                args.append(copy)
            else:
                args.append(new[a.id])
        made = replace(x, args=tuple(args))
        new[x.id] = made
        values.append(made)
    del top
    renumber = {x.id: i for i, x in enumerate(values)}
    final: dict[int, Value] = {}
    for x in values:
        final[x.id] = replace(x, id=renumber[x.id], args=tuple(final[a.id] for a in x.args))
    return subgraph(list(final.values()), [final[o.id] for o in graph.outputs], [final[o.id] for o in graph.followers])
