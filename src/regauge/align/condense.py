"""Many moves as few: a move slides towards the front past those that it commutes with, and joins its like."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from regauge.align.freedoms import link_gains
from regauge.align.leaves import Layout
from regauge.solve.element import Element, Move, Permute, Rotate, Scale


class Condenser:
    """What the classes of a plan are local over, and the moves so far."""

    def __init__(self, layout: Layout) -> None:
        self.plan = layout.plan
        self.gains = set(link_gains(layout.plan))
        self.local: dict[tuple[str, int], set[int]] = {}
        for key, where in layout.at.items():
            held = {p.leaves[q].order for p, k in where for q in p.leaves[k].places}
            self.local[key] = {order for order in held if order is not None}
        self.moves: list[Move] = []

    def add(self, move: Move) -> None:
        for i in range(len(self.moves) - 1, -1, -1):
            joined = self._joined(self.moves[i], move)
            if joined is not None:
                self.moves[i] = joined
                return
            if not self._commute(self.moves[i], move):
                break
        self.moves.append(move)

    def _joined(self, first: Move, then: Move) -> Move | None:
        match first, then:
            case Scale(), Scale():
                logs = tuple(a + b for a, b in zip(first.scales, then.scales, strict=True))
                odd = tuple(torch.remainder(a + b, 2) for a, b in zip(first.signs, then.signs, strict=True))
                return Scale(logs, odd)
            case Rotate(), Rotate():
                both = dict(first.matrices)
                for root, m in then.matrices.items():
                    old = both.get(root)
                    if old is None:
                        both[root] = m
                    elif isinstance(old, Tensor) and isinstance(m, Tensor):
                        both[root] = m @ old
                    else:
                        return None
                return Rotate(both)
            case Permute(), Permute():
                orders = dict(first.orders)
                for root, order in then.orders.items():
                    if root not in orders:
                        orders[root] = order
                        continue
                    later = list(orders)[list(orders).index(root) + 1 :]
                    if any(self._nested(root, other) for other in later):
                        return None
                    orders[root] = torch.take_along_dim(orders[root], order, -1)
                return Permute(orders)
        return None

    def _nested(self, a: int, b: int) -> bool:
        return a in self.local.get(("order", b), ()) or b in self.local.get(("order", a), ())

    def _commute(self, a: Move, b: Move) -> bool:
        match a, b:
            case (Rotate(), Rotate()) | (Scale(), Scale()):
                return True
            case (Permute(), Permute()):
                return not any(x == y or self._nested(x, y) for x in a.orders for y in b.orders)
            case (Rotate(), Permute()):
                return self._still(b, a)
            case (Permute(), Rotate()):
                return self._still(a, b)
            case (Scale(), Permute()):
                return not (self._varies(a) & set(b.orders))
            case (Permute(), Scale()):
                return not (self._varies(b) & set(a.orders))
            case (Scale(), Rotate()):
                return not self._moves_gains(a)
            case (Rotate(), Scale()):
                return not self._moves_gains(b)
        return False

    def _still(self, orders: Permute, turn: Rotate) -> bool:
        return not any(self.local.get(("frame", r), set()) & set(orders.orders) for r in turn.matrices)

    def _on(self, move: Scale) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Classes and blocks of the charges that the move changes."""
        charges = self.plan.charges
        for functions, held in ((move.scales, charges.scales), (move.signs, charges.signs)):
            for f, charge in zip(functions, held, strict=True):
                if bool(f.any()):
                    yield charge.classes, tuple(b for b, _, _ in charge.on)

    def _varies(self, move: Scale) -> set[int]:
        return {c for classes, _ in self._on(move) for c in classes}

    def _moves_gains(self, move: Scale) -> bool:
        return any(self.gains & set(blocks) for _, blocks in self._on(move))


def condensed(layout: Layout, moves: Iterable[Move]) -> Element:
    """The element of these moves, in as few as this finds."""
    condenser = Condenser(layout)
    for move in moves:
        condenser.add(move)
    return Element(layout.plan, tuple(condenser.moves))
