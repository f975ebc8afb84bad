"""Elements: one member of the gauge group, as moves that each keep the function.

An element is a sequence of moves (frames, charges, permutations, translations), applied from the first to the last. Each
move is stored in the shape of its group; composing joins the sequences, the inverse reverses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.solve.plan import Plan, State, gather


@dataclass(frozen=True)
class Rotate:
    """A matrix for every frame, shape (*places, n, n): cells of a class see it, or its inverse transpose."""

    matrices: dict[int, Tensor]

    def inverse(self) -> Rotate:
        return Rotate({r: torch.linalg.inv(m) for r, m in self.matrices.items()})

    def act(self, state: State) -> None:
        plan = state.plan
        cells, frames = plan.frames.cells, plan.frames
        dual = {r: torch.linalg.inv(m).mT.contiguous() for r, m in self.matrices.items()}
        gains: dict[int, Tensor] = {}
        for v in plan.parameters():
            for block in plan.blocks.of[v.id]:
                array = None
                for k in range(len(block.leaves)):
                    c = cells.cell(block, k)
                    root = frames.root[c]
                    if frames.monomial(root) or self._top(plan, root) not in self.matrices:
                        continue
                    array = state.read(block) if array is None else array
                    array = self._turn(state, array, c, root, frames.sign[c], dual, gains)
                if array is not None:
                    state.write(block, array)

    def _top(self, plan: Plan, root: int) -> int:
        while root in plan.frames.derived:
            root = plan.frames.root[plan.frames.derived[root].other]
        return root

    def _turn(
        self,
        state: State,
        array: Tensor,
        c: int,
        root: int,
        sign: int,
        dual: dict[int, Tensor],
        gains: dict[int, Tensor],
    ) -> Tensor:
        """Multiply the leaf of cell c by its class's matrix: M, or D^p M D^-p along links."""
        plan, frames = state.plan, state.plan.frames
        places = plan.frame_places[plan.component(root)]
        leaf = frames.cells.owner[c][1]
        if root not in frames.derived:
            m = dual[root] if sign else self.matrices[root]
            return multiply(array, m.to(array), leaf, [places[s][c] for s, _ in plan.sources[root].places])
        d = frames.derived[root]
        relative = sign ^ frames.sign[d.cell]
        power = -d.power if relative else d.power
        gain = self._gain(state, d.link, c, array.ndim, places, gains)
        other = frames.root[d.other]
        array = array / gain if power > 0 else array * gain
        array = self._turn(state, array, c, other, frames.sign[d.other] ^ relative, dual, gains)
        return array * gain if power > 0 else array / gain

    def _gain(
        self, state: State, link: object, c: int, ndim: int, places: dict[int, dict[int, int]], gains: dict[int, Tensor]
    ) -> Tensor:
        """The diagonal of a link, shaped to multiply the array of cell c."""
        block = link.gain.block  # type: ignore[attr-defined]
        if block.id not in gains:
            gains[block.id] = gather(state.value(block.value), block)
        d = gains[block.id].reshape([n for _, n, _ in block.leaves])
        leaf = state.plan.frames.cells.owner[c][1]
        target = []
        for l in link.gain.labels:  # type: ignore[attr-defined]
            if l == link.label:  # type: ignore[attr-defined]
                target.append(leaf)
            else:
                at = link.out.labels.index(l)  # type: ignore[attr-defined]
                where = next(w for w in places.values() if w.get(link.cell_out) == at)  # type: ignore[attr-defined]
                target.append(where[c])
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

    def act(self, state: State) -> None:
        plan = state.plan
        logs: dict[int, Tensor] = {}
        odd: dict[int, Tensor] = {}
        for functions, charges, into in (
            (self.scales, plan.charges.scales, logs),
            (self.signs, plan.charges.signs, odd),
        ):
            for f, charge in zip(functions, charges, strict=True):
                for block_id, leaves, coefficient in charge.on:
                    term = self._spread(plan, block_id, leaves, f) * float(coefficient)
                    into[block_id] = into[block_id] + term if block_id in into else term
        for block_id in sorted(logs.keys() | odd.keys()):
            block = plan.frames.cells.blocks[block_id]
            factor = torch.exp(logs[block_id]) if block_id in logs else torch.ones((), dtype=torch.float64)
            if block_id in odd:
                factor = factor * (1 - 2 * torch.remainder(odd[block_id], 2))
            if bool((factor == 1).all()):
                continue
            array = state.read(block)
            state.write(block, array * factor.to(array.device))

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

    def act(self, state: State) -> None:
        plan = state.plan
        cells = plan.indices.cells
        rank = {root: i for i, root in enumerate(self.orders)}
        for v in plan.parameters():
            for block in plan.blocks.of[v.id]:
                array = None
                held = [(plan.indices.root[cells.cell(block, k)], k) for k in range(len(block.leaves))]
                for root, k in sorted((rk for rk in held if rk[0] in rank), key=lambda rk: rank[rk[0]]):
                    c = cells.cell(block, k)
                    array = state.read(block) if array is None else array
                    places = plan.index_places[root]
                    at = [places[s][c] for s, _ in plan.shuffles[root].places]
                    array = reorder(array, self.orders[root], k, at)
                if array is not None:
                    state.write(block, array)


Move = Rotate | Scale | Permute


def multiply(array: Tensor, matrices: Tensor, axis: int, places: list[int]) -> Tensor:
    """matrices[place] @ array along an axis, one matrix for each index of the places."""
    rest = [a for a in range(array.ndim) if a != axis and a not in places]
    order = [*places, *rest, axis]
    moved = array.permute(order)
    lead = moved.shape[: len(places)]
    flat = moved.reshape(*lead, -1, moved.shape[-1])
    out = (flat @ matrices.mT).reshape(moved.shape)
    return out.permute([order.index(a) for a in range(array.ndim)])


def reorder(array: Tensor, order: Tensor, axis: int, places: list[int]) -> Tensor:
    shape = [1] * array.ndim
    for i, p in enumerate(places):
        shape[p] = order.shape[i]
    shape[axis] = order.shape[-1]
    target = [*places, axis]
    ranks = sorted(range(len(target)), key=target.__getitem__)
    index = order.permute(ranks).reshape(shape).to(array.device)
    return torch.take_along_dim(array, index.expand(array.shape), axis)


@dataclass(frozen=True)
class Element:
    """A gauge transformation. `apply` is pure; `g @ h` applies h first, then g."""

    plan: Plan
    moves: tuple[object, ...] = ()

    def apply(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The transformed state dict: same keys, shapes, dtypes and ties. Computed in float64, rounded once."""
        state = State(self.plan, state_dict)
        for move in self.moves:
            move.act(state)  # type: ignore[attr-defined]
        return state.result(state_dict)

    def __matmul__(self, other: Element) -> Element:
        if other.plan is not self.plan and other.plan.shapes != self.plan.shapes:
            raise ValueError("these elements belong to gauges of different models")
        return Element(self.plan, (*other.moves, *self.moves))

    def inverse(self) -> Element:
        return Element(self.plan, tuple(m.inverse() for m in reversed(self.moves)))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"Element({', '.join(type(m).__name__.lower() for m in self.moves) or 'identity'})"
