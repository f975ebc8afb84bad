"""Translations on numbers: the plan of `shifts.py` replayed on a state dict, and what nobody sees moved at will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from regauge.errors import CheckError
from regauge.graph.ir import Add, Along, Einsum, Mix, evaluate
from regauge.solve.acts import SMALL, Act, Plus
from regauge.solve.blocks import Block, Relation, Term
from regauge.solve.frames import evaluable
from regauge.solve.known import Known
from regauge.solve.plan import Plan
from regauge.solve.sources import SCALAR, Demand, Shifts, Source
from regauge.solve.state import Image, State, gather, positions
from regauge.solve.together import Joint


@dataclass(frozen=True)
class Shift:
    """A constant translation: u for every free source; the other sources follow. level: which of the two plans."""

    free: dict[int, Tensor]
    level: bool = False

    def inverse(self) -> Shift:
        return Shift({s: -u for s, u in self.free.items()}, self.level)

    def on(self, before: State) -> Image:
        steps = _Replay(before, before.plan.levels if self.level else before.plan.shifts, self.free).run()

        def shifted(block: Block) -> tuple[Act, ...]:
            # what cancels up to rounding is gone, and leaves no trace in lower precision
            return (Plus(tuple(steps[block.id]), cancels=True),) if block.id in steps else ()

        return Image(before, shifted)


@dataclass(frozen=True)
class Hide:
    """Directions that nobody sees: for every parameter block one array a set, constant along that set."""

    parts: dict[int, tuple[Tensor, ...]]

    @classmethod
    def nearest(cls, plan: Plan, wanted: Callable[[Block], Tensor]) -> Hide:
        """The unseen part of changes that are wanted of the blocks. The projections commute, so one goes after another."""
        blocks = {b.id: b for b in (*(u.block for u in plan.unseen), *(b for j in plan.joint for b in j.blocks))}
        left = {i: wanted(b) for i, b in blocks.items()}
        parts: dict[int, tuple[Tensor, ...]] = {}
        for u in plan.unseen:
            for along in u.sets:
                rest = left[u.block.id]
                part = rest.mean(along, keepdim=True) if along else rest
                left[u.block.id] = rest - part
                parts[u.block.id] = (*parts.get(u.block.id, ()), part)
        found = []
        for j in plan.joint:
            held = [(left[b.id], along) for b, along in zip(j.blocks, j.along, strict=True)]
            sums = [(x.sum(along) if along else x).reshape(j.shape) for x, along in held]
            found.append(torch.stack(sums).sum(0) / j.size)
            for i, b in enumerate(j.blocks):
                left[b.id] = left[b.id] - found[-1].reshape(j.spread(i))
        return cls(parts).also(plan.joint, found)

    def also(self, joint: Sequence[Joint], directions: Sequence[Tensor]) -> Hide:
        """With what is the same in several blocks, one array for each family of blocks."""
        parts = dict(self.parts)
        for j, a in zip(joint, directions, strict=True):
            for i, b in enumerate(j.blocks):
                parts[b.id] = (*parts.get(b.id, ()), a.reshape(j.spread(i)))
        return Hide(parts)

    def inverse(self) -> Hide:
        return Hide({b: tuple(-t for t in ts) for b, ts in self.parts.items()})

    def on(self, before: State) -> Image:
        def hidden(block: Block) -> tuple[Act, ...]:
            return tuple(Plus((partial(_same, a),)) for a in self.parts.get(block.id, ()))

        return Image(before, hidden)


@dataclass(frozen=True)
class Wander:
    """Parameters that another one makes up for, moved at will: what is added to each, by name."""

    parts: dict[str, Tensor]

    def inverse(self) -> Wander:
        return Wander({n: -t for n, t in self.parts.items()})

    def on(self, before: State) -> Image:
        return Image(before, beside={n: (Plus((partial(_same, a),)),) for n, a in self.parts.items()})


def _same(t: Tensor) -> Tensor:
    return t


class _Replay:
    """Pushes numbers along the plan: translations of blocks, with one axis a leaf (size 1 where they do not vary)."""

    def __init__(self, state: State, plan: Shifts, free: dict[int, Tensor]) -> None:
        self.state = state
        self.plan = plan
        self.values: dict[int, Tensor] = dict(free)
        self.tau: dict[int, Tensor] = {}
        self.cache: dict[int, Tensor] = {}
        self.by_out: dict[int, list[Relation]] = {}
        for r in self.plan.region:
            self.by_out.setdefault(r.out.block.id, []).append(r)
        self.order = [i for i in self.by_out]
        self.readers = {}
        for s in self.plan.sources:
            self.readers[s.block.id] = s
        self.users: dict[int, list[int]] = {}
        for out, made in self.by_out.items():
            for r in made:
                for t in r.ins:
                    self.users.setdefault(t.block.id, []).append(out)

    def run(self) -> dict[int, list[Callable[[], Tensor]]]:
        """What is added to each parameter block.

        Goes along the values; a demand that is not met moves its pivot, and the way from there is walked again."""
        demands = {d.block.id: d for d in self.plan.demands}
        for s in self.plan.sources:
            if not s.roles and s.id in self.values:
                self.tau[s.block.id] = self._placed(s)
        position = {b: i for i, b in enumerate(self.order)}
        scale = max((float(u.abs().max()) for u in self.values.values() if u.numel()), default=0.0)
        i = steps = 0
        while i < len(self.order):
            steps += 1
            if steps > 200 * (len(self.order) + 10):
                raise CheckError("translations do not settle: the parameters are not generic (a gain may be zero)")
            b = self.order[i]
            self._compute(b)
            d = demands.get(b)
            tau = self.tau.get(b)
            i += 1
            if d is None or tau is None:
                continue
            if float(tau.abs().max()) <= 1e-12 * scale:
                self.tau.pop(b)
                continue
            self._solve(d)
            source = self.plan.sources[d.pivot]
            if not source.roles:
                self.tau[source.block.id] = self._placed(source)
            i = min((position[o] for o in self.users.get(source.block.id, []) if o in position), default=i)
        return self._steps()

    def _placed(self, s: Source) -> Tensor:
        return self.values[s.id].reshape([1 if k in s.along else n for k, n in enumerate(s.block.sizes)])

    def _compute(self, b: int) -> None:
        total: Tensor | None = None
        for r in self.by_out[b]:
            step = None if isinstance(r.op, Along) and r.op.blind else self._relation(r)
            if step is not None:
                total = step if total is None else total + step
        if total is None or b not in self.plan.kept:
            self.tau.pop(b, None)
        else:
            self.tau[b] = total

    def _relation(self, r: Relation) -> Tensor | None:
        total: Tensor | None = None

        def add(t: Tensor) -> None:
            nonlocal total
            total = t if total is None else total + t

        for i, t in enumerate(r.ins):
            tau = self.tau.get(t.block.id)
            others = [o for o in r.ins if o is not t]
            if tau is not None:
                if isinstance(r.op, Mix):
                    add(self._mixed(r, t, tau))
                elif not isinstance(r.op, Einsum):
                    factor = r.op.coefs[i] if isinstance(r.op, Add) else 1.0
                    add(self._spread(tau, t.labels, r.out.labels) * factor)
                elif others and not all(evaluable(o.block.value) for o in others):
                    k = self.plan.known[others[0].block.id]
                    if others[0].block.id not in self.plan.seconds:
                        add(self._spread(tau, t.labels, r.out.labels) * k.constant)
                else:
                    add(self._contract(r, t, tau, others))
            source = self.readers.get(t.block.id)
            if source is not None and source.roles and source.id in self.values:
                (other,) = others
                summed = frozenset(j for j, l in enumerate(t.labels) if l in other.labels and l not in r.out.labels)
                held = self.plan.known.get(other.block.id)
                if source.role(summed) is not None and held is not None:
                    kappa = self.kappa(other.block, held)
                    labels = tuple(t.labels[j] for j in source.leaves)
                    values = self.values[source.id]
                    if len(source.roles) > 1:
                        labels = tuple(l for j, l in enumerate(t.labels) if j not in summed)
                        values = self._step(source, values, summed)
                        values = values.reshape([n for j, n in enumerate(values.shape) if j not in summed])
                    add(self._spread(values, labels, r.out.labels) * kappa)
        return total

    def _mixed(self, r: Relation, t: Term, tau: Tensor) -> Tensor:
        """A translation after a mixing of positions; on a part of a value it is none of those that turn."""
        if positions(t.block) is not None or positions(r.out.block) is not None:
            return self._spread(tau, t.labels, r.out.labels)
        full = tau.expand(t.block.sizes).reshape(t.block.value.shape)
        out = evaluate(r.op, [full], r.out.block.value.shape).reshape(r.out.block.sizes)
        constant = {l for l, n in zip(t.labels, tau.shape, strict=True) if n == 1} - r.planes - r.fixed
        for k, l in enumerate(r.out.labels):
            out = out.narrow(k, 0, 1) if l in constant else out
        return out

    def _spread(self, x: Tensor, labels: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        keep = [i for i, l in enumerate(labels) if l in out]
        x = x.reshape([x.shape[i] for i in keep])
        kept = [labels[i] for i in keep]
        order = sorted(range(len(kept)), key=lambda i: out.index(kept[i]))
        x = x.permute(order) if order else x
        it = iter(x.shape)
        return x.reshape([next(it) if l in kept else 1 for l in out])

    def _contract(self, r: Relation, t: Term, tau: Tensor, others: list[Term]) -> Tensor:
        tensors, names = [], []
        sizes = {l: n for o in r.terms for l, n in zip(o.labels, o.block.sizes, strict=True)}
        summed = {l for o in r.ins for l in o.labels} - set(r.out.labels)
        held = {l for o in others for l in o.labels}
        widths = [sizes[l] if l in summed and l not in held else n for l, n in zip(t.labels, tau.shape, strict=True)]
        tau = tau.expand(widths) if widths else tau
        tau = (
            tau.expand([sizes[l] if l in summed else n for l, n in zip(t.labels, tau.shape, strict=True)])
            if widths
            else tau
        )
        keep = [i for i, l in enumerate(t.labels) if tau.shape[i] > 1 or sizes[l] == 1]
        tensors.append(tau.reshape([tau.shape[i] for i in keep]))
        names.append([t.labels[i] for i in keep])
        for o in others:
            tensors.append(gather(self._value(o.block), o.block))
            names.append(list(o.labels))
        present = {l for n in names for l in n}
        inner = [l for l in r.out.labels if l in present]
        code = {l: i for i, l in enumerate(sorted(present))}
        flat: list[object] = []
        for x, n in zip(tensors, names, strict=True):
            flat += [x, [code[l] for l in n]]
        y = torch.einsum(*flat, [code[l] for l in inner])
        it = iter(y.shape)
        return y.reshape([next(it) if l in inner else 1 for l in r.out.labels])

    def _value(self, block: Block) -> Tensor:
        if block.value.id in self.cache:
            return self.cache[block.value.id]
        found = self.state.value(block.value).double()
        if found.numel() <= SMALL:
            self.cache[block.value.id] = found
        return found

    def phi(self, block: Block, k: Known, gains: int | None = None) -> Tensor:
        """The covector on the leaves of the block, size 1 elsewhere."""
        shape = [n if i in k.along else 1 for i, n in enumerate(block.sizes)]
        out = torch.ones(shape, dtype=torch.float64)
        for g in k.gains[:gains]:
            out = out / gather(self._value(g), g).reshape(shape)
        return out

    def kappa(self, block: Block, k: Known) -> Tensor:
        """The constant of the relation after the translations found so far."""
        total = torch.as_tensor(k.constant, dtype=torch.float64)
        shape = [n if i in k.along else 1 for i, n in enumerate(block.sizes)]
        for c, b, gains in k.shifts:
            total = total + c * (self.phi(block, k, gains) * gather(self._value(b), b).reshape(shape)).sum()
        tau = self.tau.get(block.id)
        if tau is not None:
            total = total + (self.phi(block, k) * tau).sum()
        return total

    def _solve(self, d: Demand) -> None:
        source = self.plan.sources[d.pivot]
        tau = self.tau[d.block.id]
        wide = [n if i in d.part.leaves else 1 for i, n in enumerate(d.block.sizes)]
        tau = tau.expand(torch.broadcast_shapes(tau.shape, tuple(wide)))
        rest = tau.reshape([tau.shape[i] for i in range(tau.ndim) if i in d.part.leaves])
        ranks = sorted(range(len(d.part.leaves)), key=lambda i: d.part.leaves[i])
        back = [ranks.index(i) for i in range(len(ranks))]
        u = rest.permute(back) if back else rest
        factor: Tensor | float = d.part.factor
        if d.part.kind == SCALAR:
            reader = next(
                r for made in self.by_out.values() for r in made if any(t.block.id == source.block.id for t in r.ins)
            )
            mine = next(t for t in reader.ins if t.block.id == source.block.id)
            (other,) = [t for t in reader.ins if t is not mine]
            factor = factor * self.kappa(other.block, self.plan.known[other.block.id])
        step = u.reshape(source.shape) / factor
        self.values[d.pivot] = self.values[d.pivot] - step if d.pivot in self.values else -step

    def _steps(self) -> dict[int, list[Callable[[], Tensor]]]:
        """block -> what is added to it, spelled out when it is needed: u phi^T may be as large as the parameter."""
        out: dict[int, list[Callable[[], Tensor]]] = {}
        for s in self.plan.sources:
            u = self.values.get(s.id)
            if u is not None:
                out.setdefault(s.block.id, []).append(partial(self._step, s, u))
        return out

    def _step(self, s: Source, u: Tensor, without: frozenset[int] = frozenset()) -> Tensor:
        """u times the covectors of all roles, but for the one that sums over `without`."""
        out = u.reshape([n if k in s.leaves else 1 for k, n in enumerate(s.block.sizes)])
        for where, known in s.roles:
            if where != without:
                out = out * self._covector(s, where, known)
        return out

    def _covector(self, s: Source, where: frozenset[int], known: Known) -> Tensor:
        sizes = [n if k in where else 1 for k, n in enumerate(s.block.sizes)]
        out = torch.ones(sizes, dtype=torch.float64).reshape(-1)
        for g in known.gains:
            out = out / gather(self._value(g), g).reshape(-1)
        return out.reshape(sizes)
