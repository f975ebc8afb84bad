"""What breaks the rest of a group, in one line each: the break, its place, and what lifting it costs and gives.

The gain is computed: the dimension of the neighbouring model's group, in which the break is lifted in all layers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from regauge.graph.ir import Free, Graph, Param, Value
from regauge.solve.bonds import Bond, bonds
from regauge.solve.breaks import Break, breaks
from regauge.solve.edits import (
    Changes,
    learned_tables,
    rebuilt,
    scalable,
    untied,
    without_gains,
    without_rotations,
    without_squares,
)
from regauge.solve.fold import alike, fold, folded_text
from regauge.solve.parts import dimension
from regauge.solve.plan import Plan

# What one may lift and keep the kind of network comes first, then what makes it that kind, then functions of entries.
RANK = {"positions": 1, "norm": 1, "softmax": 1, "entrywise": 2}


@dataclass(frozen=True)
class Obstruction:
    """What keeps a bond from a larger group. text: one line; source: place; cost: what lifting it costs and gives.

    count: alike bonds, folded into the one name. lost: dimensions that lifting it gives; 0 where only functions of single
    entries stand in the way, without which there would be no network. kind: as in `regauge.solve.breaks.breaks`.
    """

    bond: str
    text: str
    source: str
    cost: str = ""
    lost: int = 0
    count: int = 1
    kind: str = ""

    @property
    def rank(self) -> int:
        """0: a choice (a tie, a gain, a shared layer, a fixed table). 1: the kind of network (rotations, norms, softmax).
        2: its functions of single entries."""
        return RANK.get(self.kind, 0)

    def __str__(self) -> str:
        return (
            f"{self.bond}{f' (x{self.count})' if self.count > 1 else ''}: {self.text}"
            + (f" [{self.source}]" if self.source else "")
            + (f"; {self.cost}" if self.cost else "")
        )


def obstructions(plan: Plan, held: Sequence[Bond], dim: int) -> tuple[Obstruction, ...]:
    """By rank, then the largest loss first; layers that are alike are one entry."""
    families = _families(breaks(plan, held))
    start = _Model(plan, held, dim)
    found = [_entrywise(f) for f in families if f[0].kind == "entrywise"]
    liftable = [f for f in families if f[0].kind != "entrywise"]
    models = [start.lifted(f) for f in liftable]
    for k, family in enumerate(liftable):
        o = _lift(start, start, models[k], family)
        if o is None or (family[0].kind.startswith("gain") and " instead of " not in o.text):
            others = [j for j, f in enumerate(liftable) if j != k and models[j].dim > dim and _near(f, family)]
            if others:
                joint = _lift(start, models[others[0]], models[others[0]].lifted(family), family, liftable[others[0]])
                o = joint if joint is not None and (o is None or " instead of " in joint.text) else o
        if o is not None:
            found.append(o)
    return tuple(sorted(found, key=lambda o: (o.rank, -o.lost)))


@dataclass(frozen=True)
class _Model:
    """A model, or a neighbour of one: changes are relative to the same first graph."""

    plan: Plan
    bonds: Sequence[Bond]
    dim: int
    first: Graph | None = None
    changes: Changes = field(default_factory=dict)

    def lifted(self, family: list[Break]) -> _Model:
        from regauge.solve.passes import solve

        first = self.first or self.plan.graph
        changes = {**self.changes, **_changes(first, family[0].kind, _values(family))}
        plan = solve(rebuilt(first, changes), self.plan.aliases)
        return _Model(plan, bonds(plan), dimension(plan), first, changes)

    def group(self, touched: set[tuple[str, int]]) -> str:
        """The group of the bond on most of these axes."""
        found = [
            (sum((t.parameter.split("~")[0], t.axis) in touched for t in b.touches), b.size, str(b.group))
            for b in self.bonds
        ]
        best = max(found, default=(0, 0, ""))
        return best[2] if best[0] else ""


def _values(family: list[Break]) -> list[Value]:
    return list({v.id: v for b in family for v in b.values}.values())


def _near(a: list[Break], b: list[Break]) -> bool:
    """Do two families of breaks restrict the same bonds?"""
    return bool({x.bond for x in a} & {x.bond for x in b})


def _families(found: list[Break]) -> list[list[Break]]:
    """Breaks that are one in the eyes of a reader: alike but for layer numbers."""
    groups: dict[object, list[Break]] = {}
    for b in found:
        place = b.values[-1].source if b.values else ""
        key: tuple[object, ...] = (
            (b.kind, b.what) if b.kind == "entrywise" else (b.kind, alike(b.bond), b.group, alike(str(place)))
        )
        groups.setdefault(key, []).append(b)
    return list(groups.values())


def _name(family: list[Break]) -> str:
    names = list(dict.fromkeys(b.bond for b in family))
    folded = fold(names, lambda name: name, lambda _: None)
    return folded[0].name if len(folded) == 1 else f"{folded[0].name} and {len(names) - len(folded[0].items)} more"


def _places(values: Sequence[Value]) -> str:
    """Where: the first two places that differ in more than layer numbers."""
    texts = dict.fromkeys(str(v.source) for v in values if str(v.source))
    kinds: dict[str, list[str]] = {}
    for t in texts:
        kinds.setdefault(alike(t), []).append(t)
    return " and ".join(folded_text(same) for same in list(kinds.values())[:2])


def _entrywise(family: list[Break]) -> Obstruction:
    groups = list(dict.fromkeys(b.group for b in family))
    shown = groups[0] if len(groups) == 1 else f"{groups[0]} and others"
    words = family[0].what
    acts = "acts" if len(words) == 1 else "act"
    kept = "only the identity" if shown == "1" else f"{shown}, no more"
    text = f"{kept}: {_listed(words)} {acts} entry by entry"
    return Obstruction(_name(family), text, _places(_values(family)), count=_count(family), kind=family[0].kind)


def _listed(words: Sequence[str], most: int = 3) -> str:
    if len(words) > most:
        return f"{', '.join(words[: most - 1])} and {len(words) - most + 1} more"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _lift(
    start: _Model, before: _Model, after: _Model, family: list[Break], given: list[Break] | None = None
) -> Obstruction | None:
    """What lifting a break in all layers gives; None if that is nothing. given: what was lifted before it."""
    gained = after.dim - before.dim
    if gained <= 0:
        return None
    names, values = _once(n for b in family for n in b.what), _values(family)
    tensors = [v for v in values if isinstance(v.op, Param)]
    acting = [v for v in values if not isinstance(v.op, Param | Free)]
    where = _places(acting)
    learned = {v.op.name: prod(v.shape) for v in before.plan.parameters() if isinstance(v.op, Param)}
    match family[0].kind:
        case "tie":
            what, cost = f"{_named(names)} is tied, one tensor in {len(acting)} roles", "untie"
            more = sum(prod(v.shape) for v in tensors) * (len(acting) - 1)
        case "shared":
            what = f"{_named(names)} {'is' if len(names) == 1 else 'are'} shared by {len(acting)} readers"
            cost, more = "untie", sum(prod(v.shape) for v in tensors) * (len(acting) - 1)
        case "gain":
            what = f"the {_gains(names)} between norms (post-norm), where no reader can take {'them' if len(names) > 1 else 'it'} up"
            cost, more = "fix at one", -sum(learned.get(n, 0) for n in names)
        case "gains that meet":
            what = f"the {_gains(names)} that meet in one product"
            cost, more = "fix at one", -sum(learned.get(n, 0) for n in names)
        case "gain on a loop":
            what = f"the {_gains(names)} between two uses of this axis"
            cost, more = "fix at one", -sum(learned.get(n, 0) for n in names)
        case "table":
            what, cost, more = (
                f"a fixed table of {_listed(names)} is added",
                "learn it",
                sum(prod(v.shape) for v in values),
            )
            readers = before.plan.graph.consumers()
            where = _places([u for v in values for u in readers.get(v.id, ())])
        case "positions":
            what, cost, more = "rotary positions turn planes of coordinates", "without rotations", 0
        case "norm":
            what, cost, more = (
                f"norm{'s' if len(values) > 1 else ''}, x . x",
                f"without {'them' if len(values) > 1 else 'it'}",
                0,
            )
        case _:
            what, cost, more = "softmax fixes the scale of its scores", "if scores could scale", 0
    numbers = [f"{n:+,} {unit}" for n, unit in ((more, "parameters"), (gained, "dimensions")) if n]
    price = f"{cost}: {', '.join(numbers)}".replace("+", "+ ").replace("-", "- ")
    if given is not None:
        price = f"with {_given(given)}, {price}"
    text = _change(start, before, after, family[0]) + what
    return Obstruction(_name(family), text, where, price, gained, _count(family), family[0].kind)


def _change(start: _Model, before: _Model, after: _Model, b: Break) -> str:
    """The group with the break, and the group without it; nothing where they are one, and what is gained is elsewhere."""
    touched = {(t.parameter, t.axis) for held in start.bonds if held.name == b.bond for t in held.touches}
    if not touched:
        parameter, _, axis = b.bond[:-1].rpartition("[")
        touched = {(parameter, int(axis))}
    group = b.group if before is start else before.group(touched)
    if b.kind == "softmax":
        return f"{group}: "
    would = after.group(touched)
    return f"{group} instead of {would}: " if would and would != group else ""


def _given(family: list[Break]) -> str:
    names = _named(_once(n for b in family for n in b.what))
    return {
        "tie": f"{names} untied",
        "shared": f"{names} untied",
        "gain": f"{names} fixed at one",
        "gain on a loop": f"{names} fixed at one",
        "gains that meet": f"{names} fixed at one",
        "table": "the table learned",
        "positions": "no rotations",
    }.get(family[0].kind, "no norms")


def _changes(graph: Graph, kind: str, values: list[Value]) -> Changes:
    match kind:
        case "tie" | "shared":
            return untied(graph, [v for v in values if isinstance(v.op, Param)])
        case "gain" | "gain on a loop" | "gains that meet":
            return without_gains(values)
        case "table":
            return learned_tables(values)
        case "positions":
            return without_rotations(values)
        case "norm":
            return without_squares(values)
    return scalable(values)


def _named(names: Sequence[str]) -> str:
    """Names of tensors, folded over layers."""
    folded = fold(list(names), lambda name: name, lambda _: None)
    return _listed([f.name for f in folded], 2)


def _gains(names: Sequence[str]) -> str:
    return f"gain{'s' if len(names) > 1 else ''} {_named(names)}"


def _once(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _count(family: list[Break]) -> int:
    return len({b.bond for b in family})
