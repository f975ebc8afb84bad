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
from regauge.solve.parts import Part, parts
from regauge.solve.passes import solve
from regauge.solve.plan import Plan


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
        return sum(p.dim for p in self.terms)

    @cached_property
    def bonds(self) -> tuple[Bond, ...]:
        return bonds(self.plan)

    @cached_property
    def terms(self) -> tuple[Part, ...]:
        """What the dimension is made of."""
        return parts(self.plan)

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


__all__ = ["Bond", "Gauge", "Obstruction", "Part", "Touch", "Type"]
