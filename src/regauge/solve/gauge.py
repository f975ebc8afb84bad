"""The answer: the gauge group of a model as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from regauge.errors import InputError
from regauge.solve import sampling
from regauge.solve.bonds import Bond, Touch, bonds
from regauge.solve.codec import decode, encode
from regauge.solve.element import Element
from regauge.solve.explain import Trail, trail
from regauge.solve.obstructions import Obstruction, obstructions
from regauge.solve.passes import absorbed, dimension, doubled, solve, unread
from regauge.solve.plan import Plan, frame_dim
from regauge.solve.ranks import shortfalls

UNREAD = "table rows that inputs of this length never read (elements keep them as they are)"
KINDS = {
    "GL": "SL({n})",
    "O": "O({n})",
    "O1": "O({m})",
    "SO2": "SO(2)",
    "GLv": "Aff({m})",
    "GLc": "Aff({m})",
    "GLvc": "GL({m})",
}


@dataclass(frozen=True)
class Term:
    """A part of the dimension: `count` times `each`."""

    label: str
    count: int
    each: int

    @property
    def dim(self) -> int:
        return self.count * self.each

    def __str__(self) -> str:
        return f"{self.label}: {self.count} x {self.each} = {self.dim}"


@dataclass(frozen=True)
class Axis:
    """One axis of a parameter: the bonds on it, and the group each has."""

    bonds: tuple[Bond, ...]
    side: str

    def __str__(self) -> str:
        if not self.bonds:
            return "fixed"
        star = "*" if self.side == "dual" else ""
        return " + ".join(f"{b.group}{star} of {b.name}" for b in self.bonds)


@dataclass(frozen=True)
class Type:
    """The types of a parameter's axes."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]

    def __str__(self) -> str:
        return f"{self.name}{list(self.shape)}: " + ", ".join(str(a) for a in self.axes)

    __repr__ = __str__


@dataclass(frozen=True)
class Gauge:
    """Every bond of a model with its group. Made by `regauge.infer`; holds no weights."""

    plan: Plan = field(repr=False)
    observe: str | None = None
    frozen: tuple[str, ...] = ()

    @cached_property
    def dim(self) -> int:
        """Dimension of the continuous part: of the orbit of generic parameters."""
        return dimension(self.plan)

    @cached_property
    def bonds(self) -> tuple[Bond, ...]:
        return bonds(self.plan)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """What the dimension is made of."""
        p = self.plan
        counts: dict[tuple[str, int], int] = {}
        for s in p.sources.values():
            label = KINDS[s.kind].format(n=s.n, m=s.n - 1)
            key = (label, frame_dim(s.kind, s.n))
            counts[key] = counts.get(key, 0) + s.copies
        terms = [Term(f"{label} on a bond", n, each) for (label, each), n in counts.items() if each]
        parts = (
            ("scales of units, heads, gains", sum(c.dim for c in p.charges.scales) - doubled(p)),
            ("parameters that no reader sees", sum(u.dim for u in p.unseen if u.tolerance.everything)),
            ("parameters that another one makes up for", absorbed(p)),
            (
                "directions that every reader removes (a mean, a softmax)",
                sum(u.dim for u in p.unseen if not u.tolerance.everything),
            ),
            (
                "translations that other biases absorb",
                sum(d for s, d in p.shifts.dims.items() if p.shifts.sources[s].known is None),
            ),
            (
                "readers of values with a known linear relation",
                sum(d for s, d in p.shifts.dims.items() if p.shifts.sources[s].known is not None),
            ),
            ("beyond the rank of neighbouring maps (counted, not sampled)", sum(s.dim for s in shortfalls(p))),
            (UNREAD, sum(unread(p).values())),
            ("levels that centring readers remove", p.levels.dim - p.overlap),
        )
        return tuple(terms + [Term(label, 1, dim) for label, dim in parts if dim])

    @cached_property
    def obstructions(self) -> tuple[Obstruction, ...]:
        """What keeps bonds from the larger group that they would have, largest loss first."""
        return obstructions(self.plan, self.bonds, self.dim)

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors that the observed function reads."""
        return dict(self.plan.shapes)

    def __getitem__(self, name: str) -> Type:
        shape = self.plan.shapes.get(self.canonical_name(name))
        if shape is None:
            raise KeyError(
                f"{name}: the observed function reads no such parameter; it reads {', '.join(list(self.plan.shapes)[:4])} ..."
            )
        axes = []
        for a in range(len(shape)):
            here = [
                (b, t) for b in self.bonds for t in b.touches if (t.parameter, t.axis) == (self.canonical_name(name), a)
            ]
            axes.append(Axis(tuple(b for b, _ in here), here[0][1].side if here else "vector"))
        return Type(name, shape, tuple(axes))

    def why(self, name: str, axis: int) -> Trail:
        """Which operators, at which lines of the model's source, made the group on this axis what it is."""
        return trail(self.plan, self.bonds, self.canonical_name(name), axis)

    def canonical_name(self, name: str) -> str:
        """The name under which the graph knows a tensor that has several."""
        if name in self.plan.shapes:
            return name
        return next((c for c, names in self.plan.aliases.items() if name in names and c in self.plan.shapes), name)

    def identity(self) -> Element:
        return Element(self.plan)

    def sample(self, rng: torch.Generator | int) -> Element:
        """A generic element of the whole group: frames, scales and signs, permutations, translations."""
        g = torch.Generator().manual_seed(rng) if isinstance(rng, int) else rng
        p = self.plan
        moves = (
            sampling.rotate(p, g),
            sampling.scale(p, g),
            sampling.permute(p, g),
            sampling.shift(p, g),
            sampling.shift(p, g, level=True),
            sampling.hide(p, g),
            *((sampling.wander(p, g),) if p.absorbed else ()),
        )
        return Element(p, moves)

    def sample_permutation(self, rng: torch.Generator | int) -> Element:
        """An element that only reorders: it changes no entry, so what the function changes by is rounding."""
        g = torch.Generator().manual_seed(rng) if isinstance(rng, int) else rng
        return Element(self.plan, (sampling.permute(self.plan, g),))

    def to_json(self) -> str:
        """The gauge as text: a summary for other tools, and the core graph from which it is read back."""
        plan = self.plan
        answer = {
            "dim": self.dim,
            "observe": self.observe,
            "frozen": list(self.frozen),
            "terms": [{"label": t.label, "count": t.count, "each": t.each} for t in self.terms],
            "bonds": [
                {
                    "name": b.name,
                    "size": b.size,
                    "group": str(b.group),
                    "dim": b.dim,
                    "touches": [{"parameter": t.parameter, "axis": t.axis, "side": t.side} for t in b.touches],
                }
                for b in self.bonds
            ],
        }
        return encode(plan.graph, {k: v for k, v in plan.aliases.items() if k in plan.shapes}, answer)

    @staticmethod
    def from_json(text: str) -> Gauge:
        graph, aliases, observe, frozen, dim = decode(text)
        gauge = Gauge(solve(graph, aliases), observe, frozen)
        if gauge.dim != dim:
            raise InputError(
                f"the gauge file says dimension {dim}, reading it back gives {gauge.dim}: the file was changed or is of another version"
            )
        return gauge

    def __str__(self) -> str:
        lines = [f"Gauge group of dimension {self.dim:,}".replace(",", " ")]
        lines += [f"  {t}" for t in self.terms]
        lines += [f"  {b}" for b in self.bonds]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(b.name)}</td><td>{escape(str(b.group))}</td><td>{b.size}</td><td>{b.dim}</td></tr>"
            for b in self.bonds
        )
        return f"<p>Gauge group of dimension {self.dim}</p><table><tr><th>bond</th><th>group</th><th>size</th><th>dim</th></tr>{rows}</table>"


__all__ = ["Bond", "Gauge", "Obstruction", "Term", "Touch", "Type"]
