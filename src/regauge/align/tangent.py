"""The action of the whole group to first order at one state: J, and its transpose.

A vector of the Lie algebra has one array for every frame, charge and free translation. `push` says how each block moves,
`pull` is the transpose; <pull(r), v> = <r, push(v)>. Frames and charges act by products that are spelled out; translations
are replayed once, and what follows them is differentiated (twice for `push`: a pull is linear in what it pulls).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regauge.align.leaves import Layout
from regauge.align.scales import on_leaves, spread
from regauge.solve.acts import Multiply, Plus, Times
from regauge.solve.blocks import Block
from regauge.solve.element import Move, Rotate, Scale
from regauge.solve.matrices import multiply
from regauge.solve.plan import Plan, Source
from regauge.solve.state import State
from regauge.solve.translate import Hide, Shift

FRAME, CHARGE, SHIFT, LEVEL = "frame", "charge", "shift", "level"
Key = tuple[str, int]
Vector = dict[Key, Tensor]  # float64
Arrays = dict[int, Tensor]  # by block
SMALL = 1e-8  # translations at which the plan is replayed: it drops those that vanish


@dataclass(frozen=True)
class Turn:
    """A frame on a leaf: D (or -D^T for a dual), between what the gains of links divide and multiply by."""

    root: int
    leaf: int
    dual: bool
    places: tuple[int, ...]
    gain: Tensor | None

    def push(self, array: Tensor, d: Tensor) -> Tensor:
        d = -d.mT if self.dual else d
        if self.gain is None:
            return multiply(array, d, self.leaf, self.places)
        return multiply(array / self.gain, d, self.leaf, self.places) * self.gain

    def pull(self, array: Tensor, r: Tensor) -> Tensor:
        if self.gain is not None:
            array, r = array / self.gain, r * self.gain
        left, right = (array, -r) if self.dual else (r, array)
        n, k = array.ndim, self.leaf
        ours, theirs = list(range(n)), list(range(n))
        theirs[k] = n
        return torch.einsum(left, ours, right, theirs, [*self.places, k, n]).double()


class Tangent:
    """J at a state. arrays: the state's blocks, in `dtype`; all products are taken in it."""

    def __init__(self, layout: Layout, state: State, dtype: torch.dtype) -> None:
        self.layout, self.plan, self.dtype = layout, layout.plan, dtype
        self.blocks: dict[int, Block] = {p.block.id: p.block for p in layout.pieces}
        self.arrays: Arrays = {i: state.read(b).to(dtype) for i, b in self.blocks.items()}
        self.shifts = [t for level in (False, True) if (t := _Translations.at(state, self.blocks.values(), level))]
        self.turns = self._turns(state)

    def _turns(self, state: State) -> dict[int, list[Turn]]:
        still = {
            r: torch.eye(s.n, dtype=torch.float64).expand(*[n for _, n in s.places], s.n, s.n)
            for r, s in self.plan.sources.items()
        }
        image = Rotate(still).on(state)
        out: dict[int, list[Turn]] = {}
        for piece in self.layout.pieces:
            gains: list[Tensor] = []
            closing = 0
            for act in image.acts(piece.block):
                match act:
                    case Times((f,)) if closing:
                        closing -= 1
                    case Times((f,)):
                        gains.append(1 / f)
                    case Multiply(_, k, places):
                        leaf = piece.leaves[k]
                        gain = None
                        for g in gains:
                            gain = g if gain is None else gain * g
                        assert leaf.frame is not None
                        gain = None if gain is None else gain.to(self.dtype)
                        out.setdefault(piece.block.id, []).append(Turn(leaf.frame, k, leaf.dual, places, gain))
                        gains, closing = [], len(gains)
        return out

    @cached_property
    def hidden(self) -> bool:
        """Whether there is something that nobody sees."""
        return bool(unnoticed(self.plan) & self.blocks.keys())

    @cached_property
    def charged(self) -> dict[int, dict[tuple[int, ...], list[tuple[int, float]]]]:
        """block -> leaves -> the charges that vary over them, with their coefficients."""
        out: dict[int, dict[tuple[int, ...], list[tuple[int, float]]]] = {}
        for i, charge in enumerate(self.plan.charges.scales):
            for b, leaves, x in charge.on:
                if b in self.blocks:
                    out.setdefault(b, {}).setdefault(leaves, []).append((i, float(x)))
        return out

    def zero(self) -> Vector:
        out: Vector = {}
        for r, s in self.plan.sources.items():
            out[FRAME, r] = torch.zeros(*[n for _, n in s.places], s.n, s.n, dtype=torch.float64)
        for i, c in enumerate(self.plan.charges.scales):
            out[CHARGE, i] = torch.zeros(c.shape, dtype=torch.float64)
        for t in self.shifts:
            out.update({t.key(i): torch.zeros(u.shape, dtype=torch.float64) for i, u in t.free.items()})
        return out

    def push(self, v: Mapping[Key, Tensor]) -> Arrays:
        """J v, of the part of v that lies in the Lie algebra; what nobody sees of it is left out."""
        v = self.admissible(v)
        shifted: Arrays = {}
        for t in self.shifts:
            for b, s in t.push(v).items():
                shifted[b] = shifted[b] + s if b in shifted else s
        out = {}
        for b, array in self.arrays.items():
            total = torch.zeros_like(array)
            for turn in self.turns.get(b, ()):
                total += turn.push(array, v[FRAME, turn.root].to(self.dtype))
            factor: Tensor | None = None
            for leaves, held in self.charged.get(b, {}).items():
                f = spread(sum(x * v[CHARGE, i] for i, x in held), leaves, array.ndim)  # type: ignore[arg-type]
                factor = f if factor is None else factor + f
            if factor is not None:
                total += array * factor.to(self.dtype)
            if b in shifted:
                total += shifted[b].to(self.dtype)
            out[b] = total
        return self.visible(out)

    def pull(self, r: Mapping[int, Tensor]) -> Vector:
        """J^T r."""
        out = self.zero()
        seen = self.visible(r)
        for b, array in self.arrays.items():
            for turn in self.turns.get(b, ()):
                out[FRAME, turn.root] += turn.pull(array, seen[b])
            charged = self.charged.get(b, {})
            if charged:
                both = array * seen[b]
                for leaves, held in charged.items():
                    part = on_leaves(both, leaves).double()
                    for i, x in held:
                        out[CHARGE, i] += x * part
        for t in self.shifts:
            out.update(t.pull(seen))
        return self.admissible(out)

    def visible(self, arrays: Mapping[int, Tensor]) -> Arrays:
        """Without what nobody sees."""
        out = dict(arrays)
        if not self.hidden:
            return out
        for b, parts in Hide.nearest(self.plan, lambda block: out[block.id]).parts.items():
            for part in parts:
                out[b] = out[b] - part
        return out

    def admissible(self, v: Mapping[Key, Tensor]) -> Vector:
        """The part that lies in the Lie algebra."""
        return {key: self._part(key, t) for key, t in v.items()}

    def _part(self, key: Key, t: Tensor) -> Tensor:
        if key[0] == FRAME:
            return algebra(self.plan.sources[key[1]], t)
        if key[0] == CHARGE:
            for a in range(t.ndim):
                t = t - t.mean(a, keepdim=True)
        return t

    def moves(self, v: Mapping[Key, Tensor]) -> list[Move]:
        """The finite moves with these logarithms."""
        v = self.admissible(v)
        charges = self.plan.charges
        logs = tuple(v[CHARGE, i] for i in range(len(charges.scales)))
        odd = tuple(torch.zeros(c.shape, dtype=torch.float64) for c in charges.signs)
        matrices = {i: torch.linalg.matrix_exp(t) for (kind, i), t in v.items() if kind == FRAME}
        moves: list[Move] = [*([Rotate(matrices)] if matrices else []), *([Scale(logs, odd)] if logs else [])]
        return moves + [Shift({i: v[t.key(i)] for i in t.free}, t.level) for t in self.shifts]


def unnoticed(plan: Plan) -> set[int]:
    """Blocks that can move, alone or together with others, so that nobody sees it."""
    return {u.block.id for u in plan.unseen} | {b.id for j in plan.joint for b in j.blocks}


def algebra(source: Source, d: Tensor) -> Tensor:
    """The part of a matrix that lies in the Lie algebra of a frame's scale-free group."""
    if source.kind in ("O", "O1", "SO2"):
        d = (d - d.mT) / 2
    if source.kind == "GL":
        return d - torch.eye(source.n, dtype=d.dtype) * d.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return keeping(source, d)


def keeping(source: Source, d: Tensor) -> Tensor:
    """The part of a change of a frame that leaves alone the vector, and the covector, of ones that the frame fixes."""
    if source.kind in ("O1", "GLv", "GLvc"):  # D 1 = 0
        d = d - d.mean(-1, keepdim=True)
    if source.kind in ("O1", "GLc", "GLvc"):  # 1^T D = 0
        d = d - d.mean(-2, keepdim=True)
    return d


@dataclass(frozen=True)
class _Translations:
    """The free translations of one plan, replayed near zero. out: what is added to the blocks; duals: what stands for the
    vectors that are pulled; back: J^T of them."""

    level: bool
    free: dict[int, Tensor]
    out: dict[int, Tensor]
    duals: dict[int, Tensor]
    back: dict[int, Tensor]

    @staticmethod
    def at(state: State, blocks: Iterable[Block], level: bool) -> _Translations | None:
        plan = state.plan.levels if level else state.plan.shifts
        g = torch.Generator().manual_seed(0)
        free = {}
        for i in plan.free:
            u = SMALL * torch.randn(plan.sources[i].shape, generator=g, dtype=torch.float64)
            free[i] = u.requires_grad_()
        if not free:
            return None
        with torch.enable_grad():
            image = Shift(free, level).on(state)
            out = {}
            for block in blocks:
                terms = [term() for act in image.acts(block) if isinstance(act, Plus) for term in act.terms]
                if terms and (total := sum(terms[1:], terms[0])).requires_grad:
                    out[block.id] = total
            duals = {b: torch.zeros_like(t, requires_grad=True) for b, t in out.items()}
            found = _gradients(out, free, duals, create=True)
        return _Translations(level, free, out, duals, found)

    def key(self, i: int) -> Key:
        return (LEVEL if self.level else SHIFT, i)

    def push(self, v: Mapping[Key, Tensor]) -> Arrays:
        return _gradients(self.back, self.duals, {i: v[self.key(i)] for i in self.back})

    def pull(self, r: Mapping[int, Tensor]) -> Vector:
        found = _gradients(self.out, self.free, {b: r[b].double().sum_to_size(t.shape) for b, t in self.out.items()})
        return {self.key(i): g for i, g in found.items()}


def _gradients(
    of: Mapping[int, Tensor], by: Mapping[int, Tensor], weights: Mapping[int, Tensor], create: bool = False
) -> dict[int, Tensor]:
    """d sum_k <of_k, weights_k> / d by."""
    if not of:
        return {}
    found = torch.autograd.grad(
        list(of.values()),
        list(by.values()),
        [weights[k] for k in of],
        retain_graph=True,
        create_graph=create,
        allow_unused=True,
    )
    return {k: g for k, g in zip(by, found, strict=True) if g is not None}


__all__ = ["CHARGE", "FRAME", "Arrays", "Tangent", "Turn", "Vector", "keeping", "unnoticed"]
