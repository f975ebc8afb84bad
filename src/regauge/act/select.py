"""Which bonds a user means: by name, by a tensor that carries it, or by kind."""

from __future__ import annotations

from regauge.errors import InputError
from regauge.solve.bonds import Bond
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan, Source

ORTHOGONAL = ("O", "O1")
KINDS = {
    "stream": "the widest orthogonal frames that are the same at every place",
    "heads": "matrix frames that may differ by place: per head, per group",
    "linear": "general linear frames",
    "orthogonal": "orthogonal frames",
    "planes": "rotations in planes: what positions leave of a head",
    "all": "every frame",
}


def top(plan: Plan, root: int) -> int:
    """The class that a frame follows through its links."""
    while root in plan.frames.derived:
        root = plan.frames.root[plan.frames.derived[root].other]
    return root


def sources(gauge: Gauge, which: str) -> tuple[Source, ...]:
    """The frames that `which` names: a bond, `tensor[axis]`, `tensor`, or one of `KINDS`.

    Raises InputError where it names nothing, or a bond that has no frame.
    """
    held = gauge.plan.sources.values()
    match which:
        case "stream":
            free = [s for s in held if not s.places and s.kind in ORTHOGONAL]
            wide = max((s.n for s in free), default=0)
            found = [s for s in free if s.n == wide]
        case "heads":
            found = [s for s in held if s.places and s.kind in ("GL", *ORTHOGONAL)]
        case "linear":
            found = [s for s in held if s.kind.startswith("GL")]
        case "orthogonal":
            found = [s for s in held if s.kind in ORTHOGONAL]
        case "planes":
            found = [s for s in held if s.kind == "SO2"]
        case "all":
            found = list(held)
        case _:
            return _named(gauge, which)
    if not found:
        raise InputError(f"no bond of this model is of the kind {which} ({KINDS[which]}){_hint(gauge, which)}")
    return tuple(found)


def _hint(gauge: Gauge, which: str) -> str:
    tied = next((o for o in gauge.obstructions if which == "stream" and "tied" in o.text), None)
    if tied is not None:
        return f": {tied.text}; untie it first"
    return f"; its bonds are {_few([f'{b.name} ({b.group})' for b in gauge.bonds])}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")


def bonds_named(gauge: Gauge, which: str) -> tuple[Bond, ...]:
    """Bonds by name, by `tensor[axis]`, or by a tensor that carries them. Raises InputError where there is none."""
    exact = [b for b in gauge.bonds if b.name == which]
    found = exact or [
        b for b in gauge.bonds if any(which in (f"{t.parameter}[{t.axis}]", t.parameter) for t in b.touches)
    ]
    if not found:
        raise InputError(
            f"{which!r} is neither a bond nor a kind; kinds: {', '.join(KINDS)}; bonds: {_few([b.name for b in gauge.bonds])}"
        )
    return tuple(found)


def _named(gauge: Gauge, which: str) -> tuple[Source, ...]:
    bonds = bonds_named(gauge, which)
    on = frames_of(gauge)
    roots = dict.fromkeys(r for b in bonds for r in on.get(b.name, ()))
    if not roots:
        raise InputError(f"{which} has the group {bonds[0].group}: nothing on it rotates")
    return tuple(gauge.plan.sources[r] for r in roots)


def frames_of(gauge: Gauge) -> dict[str, tuple[int, ...]]:
    """Bond -> the frames that turn on its axes."""
    plan = gauge.plan
    cells = plan.frames.cells
    homes: dict[tuple[str, int], list[Bond]] = {}
    for b in gauge.bonds:
        for t in b.touches:
            homes.setdefault((t.parameter, t.axis), []).append(b)
    found: dict[str, dict[int, None]] = {}
    for v in plan.parameters():
        for block in plan.blocks.of[v.id]:
            for k, (axis, _, _) in enumerate(block.leaves):
                root = plan.frames.root[cells.cell(block, k)]
                if plan.frames.monomial(root) or top(plan, root) not in plan.sources:
                    continue
                mine = {
                    plan.indices.root[plan.indices.cells.cell(block, j)]
                    for j, (a, _, _) in enumerate(block.leaves)
                    if a == axis
                }
                for b in homes.get((v.op.name, axis), ()):  # type: ignore[union-attr]
                    if b.key in mine:
                        found.setdefault(b.name, {})[top(plan, root)] = None
    return {name: tuple(roots) for name, roots in found.items()}
