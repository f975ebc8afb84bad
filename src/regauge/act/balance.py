"""Balance: the representative of the orbit with the smallest norm, as far as scales and general linear frames move it.

    minimise  sum |theta|^2  over scales exp(f) and positive matrices P = M^T M

The sum is convex along geodesics of the group, so the minimum is unique up to the compact part (Kempf and Ness 1979). For one
bond between A and B it is the balanced factorisation A^T A = B B^T: equal norms in and out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regauge.act.equalise import equalise, leading
from regauge.act.slices import Part, collect, gram, no_signs, parts, pure, spread, zeros
from regauge.errors import CheckError, InputError
from regauge.solve.element import Element, Rotate, Scale
from regauge.solve.gauge import Gauge
from regauge.solve.matrices import dual, multiply
from regauge.solve.plan import Plan
from regauge.solve.state import State

NORMS = ("l2", "linf", "spectral")
TIGHT = 1e-11  # gradient along the orbit, relative to the norm of what moves
ROUNDS = 400


@dataclass
class Balance:
    """What was found: functions of the charges, matrices of the frames, and what has no minimum."""

    scales: list[Tensor]
    matrices: dict[int, Tensor] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def element(self, plan: Plan) -> Element:
        turns = (Rotate(dict(self.matrices)),) if self.matrices else ()
        return Element(plan, (*turns, Scale(tuple(self.scales), no_signs(plan))))


def balance(gauge: Gauge, state: Mapping[str, Tensor], *, norm: str = "l2") -> Element:
    """The element that carries `state` to equal norms in and out.

    norm: "l2": the least sum of squares over all scales and general linear frames, unique up to rotations. "linf",
    "spectral": for every scale, the largest entry (the largest singular value of the slice) on the one side equals that on
    the other (units: up to a common factor, which the norms of whole tensors fix); "spectral" first balances the singular
    values of general linear frames. A scale with tensors on one side only, and a unit that is zero on one side, have no
    minimum and stay. Gains take part: what `fold` put into the readers of a norm moves out again in part.

    Raises InputError for another norm, CheckError where the iteration does not settle.
    """
    return solve(gauge.plan, State(gauge.plan, state), norm).element(gauge.plan)


def solve(plan: Plan, wide: State, norm: str = "l2", held: frozenset[int] = frozenset()) -> Balance:
    """The balance; charges in `held` are not moved."""
    if norm not in NORMS:
        raise InputError(f"norm={norm!r}: expected one of {', '.join(NORMS)}")
    found = Balance(zeros(plan))
    for part in parts(plan, wide, () if norm == "linf" else ("GL",)):
        if norm == "l2":
            _least(plan, part, wide, held, found)
        else:
            _equal(plan, part, wide, norm, held, found)
    return found


def _least(plan: Plan, part: Part, wide: State, held: frozenset[int], found: Balance) -> None:
    arrays = {b.id: wide.read(b) for b in part.blocks}
    free = _two_sided(plan, part, arrays, held, found)
    roots = [r for r in part.sources if _balanceable(part, arrays, r, found, plan)]
    if not free and not roots:
        return
    for _ in range(ROUNDS):
        moved = 0.0
        if free:
            step = _Scales(plan, part, arrays, free).minimise()
            for i, f in step.items():
                found.scales[i] = found.scales[i] + f
                moved = max(moved, float(f.abs().max())) if f.numel() else moved
            _scale(part, arrays, step)
        for root in roots:
            m = _frame(part, arrays, root)
            old = found.matrices.get(root)
            found.matrices[root] = m if old is None else m @ old
            moved = max(moved, float((m - torch.eye(m.shape[-1], dtype=m.dtype)).abs().max()))
            _turn(part, arrays, root, m)
        if not (free and roots) and len(roots) < 2 or moved < TIGHT:
            return
    raise CheckError(
        "balancing does not settle: some scale has no finite best value; check for units that are nearly dead"
    )


def _two_sided(
    plan: Plan, part: Part, arrays: dict[int, Tensor], held: frozenset[int], found: Balance
) -> dict[int, Tensor]:
    """Charges that have a minimum, with a barrier for the places where one side is zero."""
    free: dict[int, Tensor] = {}
    for i in part.charges:
        if i in held:
            continue
        c = plan.charges.scales[i]
        up, down = torch.zeros(c.shape, dtype=torch.float64), torch.zeros(c.shape, dtype=torch.float64)
        for b, entries in part.entries.items():
            for e in entries:
                if e.charge == i:
                    size = collect(arrays[b] ** 2, e.leaves)
                    if e.coefficient > 0:
                        up = up + size
                    else:
                        down = down + size
        dead = (up == 0) | (down == 0)
        if bool(dead.all()):
            found.open.append(f"a scale on {_name(part, i)} has tensors on one side only")
            continue
        if bool(dead.any()):
            found.open.append(f"{int(dead.sum())} of {dead.numel()} units of {_name(part, i)} are zero on one side")
        free[i] = torch.where(dead, (up + down).mean(), 0.0)
    return free


def _name(part: Part, charge: int) -> str:
    return next(
        b.value.op.name  # type: ignore[union-attr]
        for b in part.blocks
        if any(e.charge == charge for e in part.entries[b.id])
    )


def _scale(part: Part, arrays: dict[int, Tensor], step: dict[int, Tensor]) -> None:
    for b, entries in part.entries.items():
        mine = [e for e in entries if e.charge in step]
        if mine:
            log = sum(e.coefficient * spread(step[e.charge], e.leaves, arrays[b].ndim) for e in mine)
            assert isinstance(log, Tensor)
            arrays[b] = arrays[b] * torch.exp(log)


def _turn(part: Part, arrays: dict[int, Tensor], root: int, m: Tensor) -> None:
    inverse = dual(m)
    for b, cells in part.cells.items():
        for c in cells:
            if c.source == root:
                arrays[b] = multiply(arrays[b], inverse if c.dual else m, c.leaf, list(c.places))


def _balanceable(part: Part, arrays: dict[int, Tensor], root: int, found: Balance, plan: Plan) -> bool:
    """Both sides span all directions; else the norm has no least value on the orbit."""
    for g in grams(part, arrays, root):
        values = torch.linalg.eigvalsh(g)
        if not bool((values[..., 0] > 1e-12 * values[..., -1]).all()):
            names = [b.value.op.name for b in part.blocks if any(c.source == root for c in part.cells[b.id])]  # type: ignore[union-attr]
            found.open.append(f"a frame of {plan.sources[root].n} on {names[0]} is wider than the maps around it")
            return False
    return True


def grams(part: Part, arrays: dict[int, Tensor], root: int) -> tuple[Tensor, Tensor]:
    """Second moments of what a frame turns: of vectors, and of duals."""
    sides: list[Tensor | None] = [None, None]
    for b, cells in part.cells.items():
        for c in cells:
            if c.source == root:
                g, old = gram(arrays[b], c), sides[int(c.dual)]
                sides[int(c.dual)] = g if old is None else old + g
    known = next(g for g in sides if g is not None)
    up, down = (torch.zeros_like(known) if g is None else g for g in sides)
    return up, down


def _frame(part: Part, arrays: dict[int, Tensor], root: int) -> Tensor:
    """M = P^(1/2) with P G P = D: tr(P G) + tr(P^-1 D) is least at the geometric mean of G^-1 and D."""
    up, down = grams(part, arrays, root)
    half, back = _power(up, 0.5), _power(up, -0.5)
    return _power(back @ _power(half @ down @ half, 0.5) @ back, 0.5)


def _power(g: Tensor, p: float) -> Tensor:
    values, vectors = torch.linalg.eigh((g + g.mT) / 2)
    return (vectors * values.clamp_min(1e-300).pow(p).unsqueeze(-2)) @ vectors.mT


class _Scales:
    """Newton's method for sum_b w_b exp(2 L_b(f)), L linear: conjugate gradients inside, halving steps outside."""

    def __init__(self, plan: Plan, part: Part, arrays: dict[int, Tensor], free: dict[int, Tensor]) -> None:
        self.charges = {i: plan.charges.scales[i] for i in free}
        self.barrier = free
        self.entries = {b: [e for e in es if e.charge in free] for b, es in part.entries.items()}
        self.entries = {b: es for b, es in self.entries.items() if es}
        self.weights: dict[int, tuple[Tensor, list[tuple[int, tuple[int, ...], float]]]] = {}
        for b, es in self.entries.items():
            keep = sorted({k for e in es for k in e.leaves})
            w = collect(arrays[b] ** 2, keep)
            self.weights[b] = (w, [(e.charge, tuple(keep.index(k) for k in e.leaves), e.coefficient) for e in es])

    def logs(self, f: dict[int, Tensor], b: int) -> Tensor:
        w, es = self.weights[b]
        total = torch.zeros((), dtype=torch.float64)
        for i, leaves, c in es:
            total = total + c * spread(f[i], leaves, w.ndim)
        return total

    def adjoint(self, xs: dict[int, Tensor]) -> dict[int, Tensor]:
        out = {i: torch.zeros(c.shape, dtype=torch.float64) for i, c in self.charges.items()}
        for b, x in xs.items():
            for i, leaves, c in self.weights[b][1]:
                out[i] = out[i] + c * collect(x, leaves)
        return out

    def pure(self, f: dict[int, Tensor]) -> dict[int, Tensor]:
        return {i: pure(self.charges[i], x) for i, x in f.items()}

    def value(self, f: dict[int, Tensor]) -> tuple[float, dict[int, Tensor]]:
        sizes = {b: w * torch.exp(2 * self.logs(f, b)) for b, (w, _) in self.weights.items()}
        wall = sum(float((self.barrier[i] * torch.cosh(2 * x)).sum()) for i, x in f.items())
        return sum(float(x.sum()) for x in sizes.values()) + wall, sizes

    def minimise(self) -> dict[int, Tensor]:
        f = {i: torch.zeros(c.shape, dtype=torch.float64) for i, c in self.charges.items()}
        value, sizes = self.value(f)
        for _ in range(100):
            gradient = self.adjoint(sizes)
            gradient = self.pure({i: g + self.barrier[i] * torch.sinh(2 * f[i]) for i, g in gradient.items()})
            slope = max((float(g.abs().max()) for g in gradient.values() if g.numel()), default=0.0)
            if slope <= 1e-14 * value:
                break
            step = self.newton(f, sizes, gradient)
            descent = -sum(float((gradient[i] * s).sum()) for i, s in step.items())
            t = 1.0
            while True:
                trial = {i: f[i] - t * s for i, s in step.items()}
                new, new_sizes = self.value(trial)
                if new <= value + 1e-4 * t * 2 * descent or t < 1e-8:
                    break
                t /= 2
            if t < 1e-8:
                break
            if any(float(x.abs().max()) > 200 for x in trial.values() if x.numel()):
                raise CheckError("balancing does not settle: a scale has no finite best value")
            done = value - new <= 1e-15 * value and slope <= 1e-11 * value
            f, value, sizes = trial, new, new_sizes
            if done:
                break
        return f

    def newton(self, f: dict[int, Tensor], sizes: dict[int, Tensor], gradient: dict[int, Tensor]) -> dict[int, Tensor]:
        """The Newton step by preconditioned conjugate gradients, in the space of pure functions."""
        diagonal = {i: 2 * self.barrier[i] * torch.cosh(2 * f[i]) for i in f}
        for b, x in sizes.items():
            for i, leaves, c in self.weights[b][1]:
                diagonal[i] = diagonal[i] + 2 * c * c * collect(x, leaves)

        def hessian(p: dict[int, Tensor]) -> dict[int, Tensor]:
            h = self.adjoint({b: 2 * x * self.logs(p, b) for b, x in sizes.items()})
            return self.pure({i: h[i] + 2 * self.barrier[i] * torch.cosh(2 * f[i]) * p[i] for i in h})

        def precondition(r: dict[int, Tensor]) -> dict[int, Tensor]:
            return self.pure({i: x / diagonal[i].clamp_min(1e-300) for i, x in r.items()})

        total = {i: torch.zeros_like(g) for i, g in gradient.items()}
        r = gradient
        z = precondition(r)
        p, rz = z, _dot(r, z)
        start = _dot(r, r)
        for _ in range(250):
            if _dot(r, r) <= 1e-16 * start or rz <= 0:
                break
            hp = hessian(p)
            a = rz / max(_dot(p, hp), 1e-300)
            total = {i: total[i] + a * p[i] for i in total}
            r = {i: r[i] - a * hp[i] for i in r}
            z = precondition(r)
            new = _dot(r, z)
            p = {i: z[i] + (new / rz) * p[i] for i in z}
            rz = new
        return total


def _dot(a: dict[int, Tensor], b: dict[int, Tensor]) -> float:
    return sum(float((a[i] * b[i]).sum()) for i in a)


def _equal(plan: Plan, part: Part, wide: State, norm: str, held: frozenset[int], found: Balance) -> None:
    arrays = {b.id: wide.read(b) for b in part.blocks}
    free = leading(plan, part, list(_two_sided(plan, part, arrays, held, found)))
    roots = [r for r in part.sources if _balanceable(part, arrays, r, found, plan)]
    for root in roots:
        found.matrices[root] = _frame(part, arrays, root)
        _turn(part, arrays, root, found.matrices[root])
    for _ in range(ROUNDS):
        moved = 0.0
        for i in free:
            step = equalise(plan, part, arrays, i, norm)
            for j, g in step.items():
                found.scales[j] = found.scales[j] + g
                moved = max(moved, float(g.abs().max())) if g.numel() else moved
            _scale(part, arrays, step)
        if moved < 1e-10:
            return
    raise CheckError(f"equalising {norm} norms does not settle: units pull one another in a circle")
