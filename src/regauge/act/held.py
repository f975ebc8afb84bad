"""The charges that are left once gains are fixed: each free one takes along what keeps the gains where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from regauge.solve.charges import Charge
from regauge.solve.plan import Plan

Rows = dict[int, dict[int, Fraction]]  # pivot = - sum of coefficient x free charge


@dataclass(frozen=True)
class Held:
    """What fixed gains ask of the functions of the charges: scales, and signs modulo 2."""

    scales: Rows
    signs: Rows

    def reduced(self, plan: Plan) -> Plan:
        """The plan with the remaining charges under their old numbers; those that follow others move nothing themselves."""
        charges = replace(
            plan.charges,
            scales=tuple(_reduced(plan.charges.scales, self.scales)),
            signs=tuple(_reduced(plan.charges.signs, self.signs)),
        )
        return replace(plan, charges=charges)

    def with_scales(self, functions: Sequence[Tensor]) -> list[Tensor]:
        """Functions of the remaining charges, and of those that follow."""
        return _followed(functions, self.scales)

    def with_signs(self, functions: Sequence[Tensor]) -> list[Tensor]:
        return [torch.remainder(f, 2) for f in _followed(functions, self.signs)]


def _reduced(charges: Sequence[Charge], rows: Rows) -> list[Charge]:
    out = []
    for i, c in enumerate(charges):
        on: dict[tuple[int, tuple[int, ...]], Fraction] = {}
        if i not in rows:
            on = {(b, leaves): power for b, leaves, power in c.on}
            for pivot, row in rows.items():
                for b, leaves, power in charges[pivot].on if row.get(i) else ():
                    on[b, leaves] = on.get((b, leaves), Fraction(0)) - row[i] * power
        out.append(replace(c, on=tuple((b, leaves, power) for (b, leaves), power in on.items() if power)))
    return out


def _followed(functions: Sequence[Tensor], rows: Rows) -> list[Tensor]:
    out = list(functions)
    for pivot, row in rows.items():
        total = torch.zeros_like(functions[pivot])
        for i, c in row.items():
            total = total - float(c) * functions[i]
        out[pivot] = total
    return out
