"""Checks of one rule: it computes what the operator computes, its symmetries hold, and none that is linear is missed.

    assert_rule("mylib.op.default")

With x the float arguments of a sample, y = op(x), and one more parameter z of the shape of y, the function checked is

    f(x, z) = sum y z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from regauge.graph.build import Builder
from regauge.graph.canonical import canonical
from regauge.graph.evaluate import run
from regauge.graph.ir import Free, Graph, Value
from regauge.rules import RULES, Rule
from regauge.rules.complex import Complex
from regauge.rules.indexing import Index
from regauge.rules.registry import operator
from regauge.rules.structure import call
from regauge.solve.gauge import Gauge
from regauge.solve.passes import solve
from regauge.solve.ranks import shortfalls

State = dict[str, Tensor]
EQUAL = 1e-10  # relative error of the core graph in float64
SOUND = 1e-9  # relative change of f under a sampled element
RANK = 1e-7  # singular values below this times the largest are zeros
LARGEST = 350  # unknowns that the search for linear symmetries may have


@dataclass(frozen=True)
class Report:
    """What was measured on one sample. expected: dimension of the linear and constant symmetries; None: not measured."""

    operator: str
    sample: int
    error: float
    change: float
    dim: int
    expected: int | None

    @property
    def gap(self) -> int:
        """Dimensions that inference missed."""
        return 0 if self.expected is None else max(0, self.expected - self.dim)


@dataclass(frozen=True)
class Sample:
    """One call of an operator. state: the arguments that may be transformed; the other tensors are data."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: State
    statistics: frozenset[str]

    def call(self, state: State) -> list[Tensor]:
        """The operator's results, as float64."""

        def given(name: str, x: Tensor) -> Tensor:
            y = state[name] if name in state else x
            return (torch.view_as_complex(y.contiguous()) if x.is_complex() else y).clone()

        args, kwargs = _mapped((self.args, self.kwargs), given)
        return [_real(y) for y in _leaves(self.target(*args, **kwargs)) if isinstance(y, Tensor) and y.numel()]


def _real(y: Tensor) -> Tensor:
    return torch.view_as_real(y).double() if y.is_complex() else y.double()


def assert_rule(rule: str | Rule, *, seed: int = 0, gaps: Sequence[int] = ()) -> list[Report]:
    """Check a rule on each of its samples; returns what was measured.

    gaps: how many dimensions inference is known to miss, sample by sample (none by default). Raises AssertionError where
    the core graph differs from the operator, where a sampled element changes f, where more is missed than `gaps` says,
    and where the rule has no samples; KeyError for an operator without a rule.
    """
    known = RULES[rule] if isinstance(rule, str) else rule
    size = sum(1 for _ in known.samples(_draw(seed)))
    assert size, f"{known.operator}: the rule {known.name} has no samples; a rule that is not tried cannot be trusted"
    reports = [check(known, i, seed) for i in range(size)]
    for r in reports:
        where = f"{r.operator}, sample {r.sample}"
        assert r.error <= EQUAL, f"{where}: the core graph differs from the operator by {r.error:.1e}"
        assert r.change <= SOUND, f"{where}: a sampled element changes the function by {r.change:.1e}"
        allowed = gaps[r.sample] if r.sample < len(gaps) else 0
        assert r.gap <= allowed, f"{where}: inference finds {r.dim} of {r.expected} dimensions; {allowed} may be missed"
    return reports


def check(rule: Rule, index: int, seed: int = 0) -> Report:
    """Measure one sample of a rule."""
    sample = draw_sample(rule, index, seed)
    builder = Builder()
    results = lowered(rule, sample, builder)
    expected = sample.call(sample.state)
    assert len(results) == len(expected), f"{rule.operator}: {len(results)} results, the operator has {len(expected)}"
    if not any(r.learned for r in results):
        fixed = [r.op.thunk() for r in results if isinstance(r.op, Free)]
        error = max((_distance(_real(t), y) for t, y in zip(fixed, expected, strict=True)), default=0.0)
        return Report(rule.operator, index, error, 0.0, 0, None)
    graph, state = _scalar(builder, results, sample.state, seed)
    values = _run(graph, results, state)
    error = max(_distance(values[r.id], y) for r, y in zip(results, expected, strict=True))
    gauge = Gauge(solve(canonical(graph), {name: (name,) for name in state}))
    (out,) = graph.outputs
    f = values[out.id]
    size = sum(float((values[a.id] * 1.0).abs().sum()) for a in out.args) if not out.shape else 1.0
    change = max(float((run(graph, gauge.sample(s).apply(state))[out.id] - f).abs()) for s in range(seed, seed + 3))
    beyond = (
        sum(s.dim for s in shortfalls(gauge.plan)) + gauge.plan.shifts.beyond
    )  # there is no network around the operator
    return Report(
        rule.operator, index, error, change / max(size, 1e-300), gauge.dim - beyond, linear_dimension(rule, index, seed)
    )


def draw_sample(rule: Rule, index: int, seed: int) -> Sample:
    call = list(rule.samples(_draw(seed)))[index]
    args, kwargs = call if len(call) == 2 and isinstance(call[0], tuple) and isinstance(call[1], dict) else (call, {})
    target = operator(rule.operator)
    assert target is not None, f"{rule.operator}: this torch has no such operator"
    state: State = {}

    def note(name: str, x: Tensor) -> Tensor:
        if x.is_floating_point() or x.is_complex():
            state[name] = torch.view_as_real(x) if x.is_complex() else x
        return x

    _mapped((args, kwargs), note)
    fixed = frozenset(
        name
        for p in rule.statistics
        if p < len(args) and isinstance(args[p], Tensor)
        for name, x in state.items()
        if x is args[p]
    )
    return Sample(target, tuple(args), kwargs, state, fixed)


def lowered(rule: Rule, sample: Sample, b: Builder) -> list[Value]:
    """The results of the rule as values; an index is read back as numbers."""

    def value(name: str, x: Tensor) -> Value | Complex:
        if x.is_complex():
            return Complex(b.param(name, sample.state[name].shape))
        if name in sample.state:
            return b.param(name, x.shape, statistic=name in sample.statistics)
        return b.free(name, x.shape, lambda: x, data=True)

    args, kwargs = _mapped((sample.args, sample.kwargs), value)
    result = call(rule, b, args, kwargs)
    found = [r for r in _leaves(result) if isinstance(r, Value | Index | Complex) and 0 not in r.shape]
    return [r.numbers(b) if isinstance(r, Index) else r.inner if isinstance(r, Complex) else r for r in found]


def linear_dimension(rule: Rule, index: int, seed: int = 0) -> int | None:
    """Dimension of the orbit of the vector fields that conserve f, among those of the form

        dx = A x + a,   dz = B z + b

    where A and B couple entries whose places differ in at most one axis. None where there are too many unknowns.

    The unknowns solve B' y(x) + Dy(x) (A x + a) = 0 and b . y(x) = 0 for all x, a linear system that random x sample.
    """
    first = draw_sample(rule, index, seed)
    results = first.call(first.state)
    inner = [_neighbours(tuple(x.shape)) for x in first.state.values()]
    outer = [_neighbours(tuple(y.shape)) for y in results]
    nx, ny = sum(x.numel() for x in first.state.values()), sum(y.numel() for y in results)
    pairs_x, pairs_y = (
        _joined(inner, [x.numel() for x in first.state.values()]),
        _joined(outer, [y.numel() for y in results]),
    )
    unknowns = len(pairs_x) + nx + len(pairs_y)
    if unknowns > LARGEST:
        return None
    gram = torch.zeros(unknowns, unknowns, dtype=torch.float64)
    flat = torch.zeros(ny, ny, dtype=torch.float64)
    for k in range(4 + unknowns * 2 // ny):  # half of the entries may be cut off at a kink
        x, y, slope = _derivative(draw_sample(rule, index, seed + 1000 + k))
        rows = torch.zeros(ny, unknowns, dtype=torch.float64)
        rows[:, : len(pairs_x)] = slope[:, pairs_x[:, 0]] * x[pairs_x[:, 1]]
        rows[:, len(pairs_x) : len(pairs_x) + nx] = slope
        columns = torch.arange(len(pairs_x) + nx, unknowns)
        rows[pairs_y[:, 0], columns] = y[pairs_y[:, 1]]
        rows = rows / rows.norm().clamp_min(1e-300)
        gram += rows.T @ rows
        flat += torch.outer(y, y) / (y @ y).clamp_min(1e-300)
    x, y, _ = _derivative(draw_sample(rule, index, seed))
    z = torch.randn(ny, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    null = _kernel(gram)
    moves = torch.zeros(nx + ny, null.shape[1], dtype=torch.float64)
    moves.index_add_(0, pairs_x[:, 0], x[pairs_x[:, 1], None] * null[: len(pairs_x)])
    moves[:nx] += null[len(pairs_x) : len(pairs_x) + nx]
    moves.index_add_(0, nx + pairs_y[:, 1], z[pairs_y[:, 0], None] * null[len(pairs_x) + nx :])
    hidden = torch.cat([torch.zeros(nx, ny, dtype=torch.float64), torch.eye(ny, dtype=torch.float64)]) @ _kernel(flat)
    moves = torch.cat([moves, hidden], 1)
    # null vectors lean by rounding over the gap, 1e-16 over 1e-11, towards what a norm's eps all but hides
    return int((torch.linalg.svdvals(moves) > 1e-4).sum()) if moves.shape[1] else 0


def _kernel(gram: Tensor) -> Tensor:
    """An orthonormal basis of the null space; squares of singular values stand in a Gram matrix."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, values <= 1e-11 * values.abs().max().clamp_min(1e-300)]


def _derivative(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and Dy(x) by central differences; operators need not have a derivative formula."""

    def f(x: Tensor) -> Tensor:
        parts = x.split([t.numel() for t in sample.state.values()])
        state = {n: p.reshape(t.shape) for (n, t), p in zip(sample.state.items(), parts, strict=True)}
        return torch.cat([y.reshape(-1) for y in sample.call(state)])

    x = torch.cat([t.reshape(-1) for t in sample.state.values()])
    step = 1e-5 * torch.eye(len(x), dtype=x.dtype)
    slope = torch.stack([(f(x + h) - f(x - h)) / 2e-5 for h in step], 1)
    return x, f(x), slope


def _neighbours(shape: tuple[int, ...]) -> Tensor:
    """Pairs of entries whose places differ in at most one axis."""
    size = int(torch.tensor(shape).prod()) if shape else 1
    places = torch.cartesian_prod(*[torch.arange(n) for n in shape]).reshape(size, -1) if shape else torch.zeros(1, 0)
    return ((places[:, None] != places[None]).sum(-1) <= 1).nonzero()


def _joined(pairs: list[Tensor], sizes: list[int]) -> Tensor:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return torch.cat([p + s for p, s in zip(pairs, starts, strict=True)]).long()


def _scalar(b: Builder, results: list[Value], state: State, seed: int) -> tuple[Graph, State]:
    """f(x, z) as a graph, and the state with z."""
    g = torch.Generator().manual_seed(seed + 1)
    state = dict(state)
    terms = []
    for k, y in enumerate(results):
        state[f"z{k}"] = torch.randn(y.shape, generator=g, dtype=torch.float64)
        z = b.param(f"z{k}", y.shape)
        terms.append(b.einsum([range(y.ndim)] * 2, [], y, z))
    total = b.add(terms)
    live, todo = set(), [total, *results]
    while todo:
        v = todo.pop()
        if v.id not in live:
            live.add(v.id)
            todo.extend(v.args)
    return Graph(tuple(v for v in b.values if v.id in live), (total,)), state


def _run(graph: Graph, results: list[Value], state: State) -> dict[int, Tensor]:
    values = run(graph, state)
    return {k: v.double() for k, v in values.items()}


def _distance(x: Tensor, y: Tensor) -> float:
    if x.shape != y.shape:
        raise AssertionError(f"the core graph gives shape {tuple(x.shape)}, the operator {tuple(y.shape)}")
    if not y.numel():
        return 0.0
    same = (x == y) | (x.isnan() & y.isnan())
    change = torch.where(same, torch.zeros_like(y), (x - y).abs())
    finite = y[torch.isfinite(y)]
    return float(change.max()) / max(float(finite.abs().max()) if finite.numel() else 1.0, 1e-300)


def _draw(seed: int) -> Any:
    g = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)


def _mapped(tree: Any, f: Any) -> Any:
    """f(name, tensor) at every tensor; names count the tensors in order."""
    names = count()
    return torch.utils._pytree.tree_map(lambda x: f(f"x{next(names)}", x) if isinstance(x, Tensor) else x, tree)


def _leaves(result: Any) -> list[Any]:
    return [x for r in result for x in _leaves(r)] if isinstance(result, tuple | list) else [result]


__all__ = ["Report", "assert_rule", "check"]
