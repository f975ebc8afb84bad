"""Why a group is what it is: the operators that made it so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regauge.graph.ir import Along, Einsum, Mix, Param, Pointwise
from regauge.solve.blocks import Relation
from regauge.solve.bonds import Bond
from regauge.solve.frames import COVECTOR, MONOMIAL, ORTHOGONAL, PLANE, VECTOR
from regauge.solve.plan import Plan

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
