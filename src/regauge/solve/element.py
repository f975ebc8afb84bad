"""Elements: one member of the gauge group, as moves that each keep the function.

An element is a sequence of moves (frames, charges, permutations, translations), applied from the first to the last. Each
move is stored in the shape of its group; composing joins the sequences, the inverse reverses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from regauge.solve.acts import Act, Multiply, Reorder, Times
from regauge.solve.blocks import Block
from regauge.solve.frames import Derived
from regauge.solve.matrices import Matrices, dual, inverse
from regauge.solve.plan import Plan
from regauge.solve.state import Image, Moved, State, gather


@dataclass(frozen=True)
class Rotate:
    """A matrix for every frame, dense (*places, n, n) or in factors: cells of a class see it, or its inverse transpose."""

    matrices: Mapping[int, Matrices]

    def inverse(self) -> Rotate:
        return Rotate({r: inverse(m) for r, m in self.matrices.items()})

    def on(self, before: State) -> Image:
        return Image(before, _Turns(before, self.matrices).block)


class _Turns:
    """One rotation of one state: the matrices of dual cells and the gains of links, each made when it is first needed."""

    def __init__(self, state: State, matrices: Mapping[int, Matrices]) -> None:
        self.state, self.matrices = state, matrices
        self.duals: dict[int, Matrices] = {}
        self.gains: dict[int, Tensor] = {}

    def block(self, block: Block) -> tuple[Act, ...]:
        plan = self.state.plan
        frames = plan.frames
        acts: list[Act] = []
        for k in range(len(block.leaves)):
            c = frames.cells.cell(block, k)
            root = frames.root[c]
            if not frames.monomial(root) and self._top(plan, root) in self.matrices:
                acts += self._turn(len(block.leaves), c, root, frames.sign[c])
        return tuple(acts)

    def _top(self, plan: Plan, root: int) -> int:
        while root in plan.frames.derived:
            root = plan.frames.root[plan.frames.derived[root].other]
        return root

    def _dual(self, root: int) -> Matrices:
        if root not in self.duals:
            orthogonal = self.state.plan.sources[root].kind in ("O", "O1", "SO2")
            self.duals[root] = self.matrices[root] if orthogonal else dual(self.matrices[root])
        return self.duals[root]

    def _turn(self, ndim: int, c: int, root: int, sign: int) -> list[Act]:
        """Multiply the leaf of cell c by its class's matrix: M, or D^p M D^-p along links."""
        plan, frames = self.state.plan, self.state.plan.frames
        places = plan.frame_places[plan.component(root)]
        leaf = frames.cells.owner[c][1]
        if root not in frames.derived:
            m = self._dual(root) if sign else self.matrices[root]
            return [Multiply(m, leaf, tuple(places[s][c] for s, _ in plan.sources[root].places))]
        d = frames.derived[root]
        relative = sign ^ frames.sign[d.cell]
        power = -d.power if relative else d.power
        gain = self._gain(d, c, ndim).double()
        there, back = Times((1 / gain,)), Times((gain,))
        if power <= 0:
            there, back = back, there
        return [there, *self._turn(ndim, c, frames.root[d.other], frames.sign[d.other] ^ relative), back]

    def _gain(self, derived: Derived, c: int, ndim: int) -> Tensor:
        """The diagonal of a link, shaped to multiply the array of cell c."""
        link = derived.link
        block = link.gain.block
        if block.id not in self.gains:
            self.gains[block.id] = gather(self.state.value(block.value), block)
        d = self.gains[block.id].reshape([n for _, n, _ in block.leaves])
        leaf = self.state.plan.frames.cells.owner[c][1]
        target = [leaf if l == link.label else derived.along[l][c] for l in link.gain.labels]
        order = sorted(range(len(target)), key=target.__getitem__)
        shape = [1] * ndim
        for i in order:
            shape[target[i]] = d.shape[i]
        return d.permute(order).reshape(shape)


@dataclass(frozen=True)
class Scale:
    """Multiply by exp(scale) and (-1)^sign; one function for each free charge, shape: the charge's."""

    scales: tuple[Tensor, ...]
    signs: tuple[Tensor, ...]

    def inverse(self) -> Scale:
        return Scale(tuple(-s for s in self.scales), self.signs)

    def factors(self, plan: Plan) -> dict[int, tuple[Tensor, ...]]:
        """What each parameter block is multiplied by, one factor for each set of leaves that charges depend on: the product
        spelled out would be as large as the parameter."""
        logs: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        odd: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        for functions, charges, into in (
            (self.scales, plan.charges.scales, logs),
            (self.signs, plan.charges.signs, odd),
        ):
            for f, charge in zip(functions, charges, strict=True):
                if not bool(f.any()):  # of a large model most charges stand still in most moves
                    continue
                for block_id, leaves, coefficient in charge.on:
                    term = self._spread(plan, block_id, leaves, f) * float(coefficient)
                    key = (block_id, tuple(sorted(leaves)))
                    into[key] = into[key] + term if key in into else term
        out: dict[int, tuple[Tensor, ...]] = {}
        for key in sorted(logs.keys() | odd.keys()):
            factor = torch.exp(logs[key]) if key in logs else torch.ones((), dtype=torch.float64)
            if key in odd:
                factor = factor * (1 - 2 * torch.remainder(odd[key], 2))
            if not bool((factor == 1).all()):
                out[key[0]] = (*out.get(key[0], ()), factor)
        return out

    def on(self, before: State) -> Image:
        factors = self.factors(before.plan)
        return Image(before, lambda block: (Times(factors[block.id]),) if block.id in factors else ())

    def _spread(self, plan: Plan, block_id: int, leaves: tuple[int, ...], f: Tensor) -> Tensor:
        """The function as a factor for the block's array, size 1 where it does not vary."""
        order = sorted(range(len(leaves)), key=leaves.__getitem__)
        shape = [1] * len(plan.frames.cells.blocks[block_id].leaves)
        for i in order:
            shape[leaves[i]] = f.shape[i]
        return f.permute(order).reshape(shape) if order else f.reshape(shape)


@dataclass(frozen=True)
class Permute:
    """An order for every index set, shape (*places, n): entry i of the result is entry order[..., i] of the operand.

    Index sets are taken in the order of the dict: one that is local over another does not commute with it.
    """

    orders: dict[int, Tensor]

    def inverse(self) -> Permute:
        return Permute({r: torch.argsort(p, -1) for r, p in reversed(self.orders.items())})

    def on(self, before: State) -> Image:
        plan = before.plan
        cells = plan.indices.cells
        rank = {root: i for i, root in enumerate(self.orders)}

        def ordered(block: Block) -> tuple[Act, ...]:
            held = [(plan.indices.root[cells.cell(block, k)], k) for k in range(len(block.leaves))]
            acts = []
            for root, k in sorted((rk for rk in held if rk[0] in rank), key=lambda rk: rank[rk[0]]):
                c, places = cells.cell(block, k), plan.index_places[root]
                acts.append(Reorder(self.orders[root], k, tuple(places[s][c] for s, _ in plan.shuffles[root].places)))
            return tuple(acts)

        return Image(before, ordered)


class Move(Protocol):
    """One step of an element. `on(before)` prepares it for a state and gives what computes one parameter after it."""

    def inverse(self) -> Move: ...

    def on(self, before: State) -> Image: ...


@dataclass(frozen=True)
class Element:
    """A gauge transformation. `apply` is pure; `g @ h` applies h first, then g."""

    plan: Plan
    moves: tuple[Move, ...] = ()

    def apply(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The transformed state dict: same keys, shapes, dtypes and ties; what no move changes is the tensor that came in.
        Computed in float64, rounded once.

        Raises InputError where a tensor is missing or has another shape than the gauge expects."""
        state = self.moved(State(self.plan, state_dict))
        out = dict(state_dict)
        for name in state.params:
            state.stored(name)
            made: dict[tuple[torch.dtype, torch.device], Tensor] = {}
            y = state.result(name)
            if y is None:
                continue
            for alias in dict.fromkeys((name, *self.plan.aliases.get(name, ()))):
                if alias in state_dict:
                    old = state_dict[alias]
                    key = (old.dtype, old.device)
                    made.setdefault(key, y.to(device=old.device, dtype=old.dtype).reshape(old.shape))
                    out[alias] = made[key]
        return out

    def moved(self, state: State) -> State:
        """The state after all moves; each of its parameters is computed when it is asked for."""
        for move in self.moves:
            state = Moved(state, move.on)
        return state

    def __matmul__(self, other: Element) -> Element:
        if other.plan is not self.plan and other.plan.shapes != self.plan.shapes:
            raise ValueError("these elements belong to gauges of different models")
        return Element(self.plan, (*other.moves, *self.moves))

    def inverse(self) -> Element:
        return Element(self.plan, tuple(m.inverse() for m in reversed(self.moves)))

    def __repr__(self) -> str:
        return f"Element({', '.join(type(m).__name__.lower() for m in self.moves) or 'identity'})"
