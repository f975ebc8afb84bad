"""The core graph: a few operations on labelled axes, to which every PyTorch operator is lowered.

All that inference knows about tensors is in this file. An operation on labelled axes names each axis of its operands and
of its result by an integer; axes with one label run together, as in an einsum. Every operation can be evaluated, so a
lowered graph can be compared with the model that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from math import prod

import torch
from torch import Tensor

Labels = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where a value comes from: the operator, and the line of the model that called it."""

    operator: str = ""
    place: str = ""

    def __str__(self) -> str:
        return f"{self.operator} ({self.place})" if self.place else self.operator


@dataclass(frozen=True)
class Chart:
    """An invertible elementwise coordinate on a parameter: the graph sees `forward(parameter)`.

    `signed` tells whether the coordinate takes both signs (1 + gamma does, exp(A_log) does not). The step "eye" adds a
    multiple of the unit matrix: x + W x is read by the one matrix 1 + W. The step "tap 3 -1" adds to place 3 of the last axis.
    """

    steps: tuple[tuple[str, float], ...] = ()

    @property
    def signed(self) -> bool:
        return all(name.split()[0] in ("add", "mul", "eye", "tap") for name, _ in self.steps)

    def forward(self, x: Tensor) -> Tensor:
        for name, c in self.steps:
            kind, *place = name.split()
            x = _CHARTS[kind][0](x, c, *map(int, place))
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for name, c in reversed(self.steps):
            kind, *place = name.split()
            y = _CHARTS[kind][1](y, c, *map(int, place))
        return y


def _eye(x: Tensor, c: float) -> Tensor:
    return x + c * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)


def _tap(x: Tensor, c: float, place: int, axis: int) -> Tensor:
    y = x.clone()
    y.select(axis, place).add_(c)
    return y


_CHARTS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "add": (lambda x, c: x + c, lambda y, c: y - c),
    "mul": (lambda x, c: x * c, lambda y, c: y / c),
    "exp": (lambda x, c: torch.exp(x), lambda y, c: torch.log(y)),
    "eye": (_eye, lambda y, c: _eye(y, -c)),
    "tap": (_tap, lambda y, c, place, axis: _tap(y, -c, place, axis)),
}


@dataclass(frozen=True, eq=False)
class Update:
    """What other parameters add to one: a value made of them alone, by operations that can be done again."""

    made: Value

    @cached_property
    def reads(self) -> dict[str, tuple[int, ...]]:
        """The names of those parameters, and their shapes."""
        return {v.op.name: v.shape for v in self.values if isinstance(v.op, Param)}

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """All that it is made of, in the order of the work."""
        found: dict[Value, None] = {}

        def go(v: Value) -> None:
            if v not in found:
                for a in v.args:
                    go(a)
                found[v] = None

        go(self.made)
        return tuple(found)

    def value(self, read: Callable[[str], Tensor]) -> Tensor:
        """The tensor, from what `read` gives for the names of the parameters."""
        given = {v: read(v.op.name) for v in self.values if isinstance(v.op, Param)}
        wide = next(iter(given.values()))
        done: dict[Value, Tensor] = {}
        for v in self.values:
            if isinstance(v.op, Param):
                done[v] = given[v]
            elif isinstance(v.op, Free):
                done[v] = v.op.thunk().to(wide)
            else:
                done[v] = evaluate(v.op, [done[a] for a in v.args], v.shape)
        return done[self.made]


@dataclass(frozen=True)
class Param:
    """A tensor of the state dict that may be transformed: a parameter, or a statistic that follows one.

    updates: what the graph sees is the parameter, in its chart, and what these add to it.
    """

    name: str
    chart: Chart = Chart()
    statistic: bool = False
    updates: tuple[Update, ...] = ()


@dataclass(frozen=True)
class Free:
    """A value without parameters above it: a constant, an input, or made of these. Symmetries leave it alone.

    `thunk` computes it from the example inputs; it may fail (KeyError) where those have no values. `data` tells whether
    an input is above it. total: (axis, sum over it) where that is known for every input (one-hot rows, centred values).
    reach: the least and the greatest integer that it may hold, for every input; of one-hot rows, the first and the last
    place that they may hit. among: all of these integers, in order, where they are known to be few. marks: (event, integer)
    where it holds this integer wherever the event happens and nowhere else; of one-hot rows, which place they then hit.
    misses: integers that it never holds; of one-hot rows, places that none hits.
    """

    key: str
    thunk: Callable[[], Tensor] = field(compare=False, repr=False)
    data: bool = False
    total: tuple[int, float] | None = None
    reach: tuple[int, int] | None = None
    marks: tuple[tuple[str, int], ...] = ()
    among: tuple[int, ...] = ()
    misses: tuple[int, ...] = ()


@dataclass(frozen=True)
class Einsum:
    """sum over the labels missing in `out` of the product of all operands; labels new in `out` are broadcast."""

    ins: tuple[Labels, ...]
    out: Labels


@dataclass(frozen=True)
class Add:
    """sum_i coefs[i] * operand_i, operands broadcast over the labels that they lack."""

    coefs: tuple[float, ...]
    ins: tuple[Labels, ...]
    out: Labels


@dataclass(frozen=True)
class Pointwise:
    """An elementwise function.

    degree: f(c x) = c^degree f(x) for c > 0, all operands outside `fixed` scaled together; None: no such law.
    parity: "odd", "even" or "" under x -> -x. linear: linear in the operands outside `fixed` (masks are fixed operands).
    """

    name: str
    fn: Callable[..., Tensor] = field(compare=False, repr=False)
    ins: tuple[Labels, ...] = ()
    out: Labels = ()
    degree: float | None = None
    parity: str = ""
    fixed: tuple[int, ...] = ()
    linear: bool = False

    @property
    def call(self) -> tuple[str, tuple[float, ...]] | None:
        """The operator that it is, with its further arguments; None where it is not one that its name tells."""
        key = getattr(self.fn, "__regauge_key__", (None,))
        if self.name.startswith("aten.") and key[1:] == ("()", "[]"):
            return self.name, ()
        if key[0] == "aten.pow.Tensor_Scalar" and self.name == "pow" and self.degree is not None:
            return key[0], (self.degree,)
        return None


@dataclass(frozen=True)
class Along:
    """A function of the first operand along the `touched` labels, the same at every place of the others.

    touched: labels of the operand that are mixed, and labels of the result that come out of it.
    linear: linear in the first operand. degree, parity: as in Pointwise. equivariant: commutes with permutations along
    the touched labels. blind: unchanged when a constant along the touched labels is added. total: the sum of the result
    over the touched labels, if that is known. constants: a constant along the touched labels that is
    added to the operand is added to the result.
    """

    name: str
    fn: Callable[..., Tensor] = field(compare=False, repr=False)
    ins: tuple[Labels, ...] = ()
    out: Labels = ()
    touched: frozenset[int] = frozenset()
    linear: bool = False
    degree: float | None = None
    parity: str = ""
    equivariant: bool = False
    blind: bool = False
    total: float | None = None
    constants: bool = False
    choice: bool = False


@dataclass(frozen=True)
class Mix:
    """y[.., i, ..] = sum_j M[.., i, j] x[.., j, ..] along one axis, with M free of parameters (rotary positions)."""

    axis: int
    matrix: Tensor = field(compare=False, repr=False)
    key: str = ""

    @property
    def small(self) -> bool:
        """Small enough to be kept by value."""
        return self.matrix.numel() <= 4096


@dataclass(frozen=True)
class Reshape:
    """The same entries in row-major order, under another shape."""


@dataclass(frozen=True)
class Slice:
    """Entries start .. start + size of one axis."""

    axis: int
    start: int


@dataclass(frozen=True)
class Concat:
    """Operands one after another along an axis."""

    axis: int


@dataclass(frozen=True)
class Frozen:
    """An operator without a rule: nothing that touches it may move."""

    name: str
    fn: Callable[..., Tensor] = field(compare=False, repr=False)


Op = Param | Free | Einsum | Add | Pointwise | Along | Mix | Reshape | Slice | Concat | Frozen


@dataclass(frozen=True, eq=False)
class Value:
    """One node of the core graph. `learned`: a parameter is above it. `data`: an input is above it."""

    id: int
    op: Op
    args: tuple[Value, ...]
    shape: tuple[int, ...]
    learned: bool
    data: bool
    source: Source = Source()

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> int:
        return prod(self.shape)

    def __repr__(self) -> str:
        return f"%{self.id}{list(self.shape)} = {self.op}({', '.join(f'%{a.id}' for a in self.args)})"


@dataclass(frozen=True)
class Graph:
    """Values in topological order; `outputs` are observed; `followers` are kept but not observed (updated statistics)."""

    values: tuple[Value, ...]
    outputs: tuple[Value, ...]
    followers: tuple[Value, ...] = ()

    def consumers(self) -> dict[int, list[Value]]:
        users: dict[int, list[Value]] = {v.id: [] for v in self.values}
        for v in self.values:
            for a in dict.fromkeys(a.id for a in v.args):
                users[a].append(v)
        return users

    def text(self) -> str:
        return "\n".join(repr(v) for v in self.values)


def labels_of(op: Op) -> tuple[tuple[Labels, ...], Labels] | None:
    """The labels of the operands and of the result, for the operations that have any."""
    match op:
        case Einsum(ins, out) | Add(_, ins, out):
            return ins, out
        case Pointwise() | Along():
            return op.ins, op.out
    return None


def evaluate(op: Op, args: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """The value of one operation on real tensors."""
    match op:
        case Einsum(ins, out):
            return _einsum(ins, out, args, shape)
        case Add(coefs, ins, out):
            sizes = dict(zip(out, shape, strict=True))
            terms = [_scaled(c, _align(a, i, out, sizes)) for c, a, i in zip(coefs, args, ins, strict=True)]
            return sum(terms[1:], terms[0]).expand(*shape) if shape else sum(terms[1:], terms[0])
        case Pointwise() | Along():
            if isinstance(op, Pointwise):
                sizes = dict(zip(op.out, shape, strict=True))
                args = [_align(a, i, op.out, sizes) for a, i in zip(args, op.ins, strict=True)]
            return op.fn(*args).reshape(tuple(shape))
        case Mix(axis, matrix):
            y = torch.movedim(args[0], axis, -1)
            return torch.movedim(_mixed(matrix.to(y), y), -1, axis)
        case Reshape():
            return args[0].reshape(tuple(shape))
        case Slice(axis, start):
            return args[0].narrow(axis, start, shape[axis])
        case Concat(axis):
            return torch.cat(list(args), axis)
        case Frozen():
            return op.fn(*args)
        case Free():
            return op.thunk()
    raise TypeError(f"cannot evaluate {op}")


def _scaled(c: float, x: Tensor) -> Tensor:
    return x if c == 1 and x.is_floating_point() else c * x


def _mixed(m: Tensor, y: Tensor) -> Tensor:
    """m y along the last axis of y; the axes before the last two of m, of size 1 or as in y, stand before the last of y.

    Each matrix meets all vectors that it is meant for at once."""
    last = y.ndim - 1
    lead = [(a, n) for a, n in zip(range(y.ndim + 1 - m.ndim, last), m.shape[:-2], strict=True) if n > 1]
    m = m.reshape(*(n for _, n in lead), *m.shape[-2:])
    return torch.einsum(m, [*(a for a, _ in lead), last + 1, last], y, range(y.ndim), [*range(last), last + 1])


def _align(x: Tensor, labels: Labels, out: Labels, sizes: dict[int, int]) -> Tensor:
    """Permute and unsqueeze x so that its axes stand where `out` has their labels; axes without a place are of size 1."""
    if labels == out:
        return x
    keep = [i for i, l in enumerate(labels) if l in sizes]
    x = x.reshape([x.shape[i] for i in keep])
    labels = tuple(labels[i] for i in keep)
    order = sorted(range(len(labels)), key=lambda i: out.index(labels[i]))
    x = x.permute(order) if order else x
    placed = iter(x.shape)
    return x.reshape([next(placed) if l in labels else 1 for l in out])


def _einsum(ins: tuple[Labels, ...], out: Labels, args: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    present = set().union(*ins)
    inner = [l for l in out if l in present]
    if present == set(inner) and all(len(set(i)) == len(i) for i in ins):  # nothing is summed
        one = dict.fromkeys(present, 1)
        y = reduce(torch.mul, [_align(a, i, tuple(inner), one) for a, i in zip(args, ins, strict=True)])
    else:
        names = {l: n for n, l in enumerate(sorted(present))}
        operands: list[object] = []
        for a, i in zip(args, ins, strict=True):
            operands += [a, [names[l] for l in i]]
        y = torch.einsum(*operands, [names[l] for l in inner])
    sizes = [n if l in present else 1 for l, n in zip(out, shape, strict=True)]
    return y.reshape(sizes).expand(*shape) if shape else y
