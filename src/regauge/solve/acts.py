"""What an element does to one block of a parameter, as data: a few instructions, one after another.

A block is an array with one axis a leaf. `on` carries an instruction out, as plainly as can be; `slabs.py` carries out many
at once, and in little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.solve.matrices import Matrices, multiply

SMALL = 1 << 16  # entries: on arrays up to this size (gains, biases) what cancels up to rounding cancels exactly


@dataclass(frozen=True, eq=False)
class Times:
    """Multiply by the product of factors, each with an axis for every leaf, of size 1 where it is constant."""

    factors: tuple[Tensor, ...]

    def on(self, array: Tensor) -> Tensor:
        return scaled(array, self.factors)


@dataclass(frozen=True, eq=False)
class Reorder:
    """Entry i along a leaf is entry order[*places, i] of the operand; order: (*places, n)."""

    order: Tensor
    leaf: int
    places: tuple[int, ...] = ()

    def on(self, array: Tensor) -> Tensor:
        return reorder(array, self.order, self.leaf, self.places)


@dataclass(frozen=True, eq=False)
class Multiply:
    """A matrix along a leaf, one for each index of the places; dense (*places, n, n) or in factors."""

    matrices: Matrices
    leaf: int
    places: tuple[int, ...] = ()

    def on(self, array: Tensor) -> Tensor:
        return multiply(array, self.matrices, self.leaf, self.places)


@dataclass(frozen=True, eq=False)
class Plus:
    """Add terms that broadcast to the array; each is spelled out when it is needed, since u phi^T may be as large as the
    parameter. cancels: what the sum leaves of a number by rounding alone is 0."""

    terms: tuple[Callable[[], Tensor], ...]
    cancels: bool = False

    def on(self, array: Tensor) -> Tensor:
        new = array
        for term in self.terms:
            new = new + term().to(new)
        if self.cancels and array.numel() <= SMALL:
            new = torch.where(new.abs() <= 8 * torch.finfo(new.dtype).eps * array.abs(), 0.0, new)
        return new


Act = Times | Reorder | Multiply | Plus


def scaled(array: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """The array times all factors. Where every entry has a factor of its own, a product that misses 1 or -1 by rounding is
    exactly that: a gain that is scaled away leaves no trace in lower precision."""
    if array.numel() > SMALL:
        for f in factors:
            array = array * f.to(array)
        return array
    whole = factors[0]  # the product of the factors is rounded once
    for f in factors[1:]:
        whole = whole * f
    out = array * whole.to(array)
    if whole.numel() == array.numel():
        out = torch.where((out.abs() - 1).abs() <= 8 * torch.finfo(out.dtype).eps, torch.sign(out), out)
    return out


def reorder(array: Tensor, order: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    """Entries of an axis in another order, one order for each index of the places; whole rows are copied at once."""
    if not places:
        return array.index_select(axis, order.to(array.device))
    target = [*places, axis]
    rest = [a for a in range(array.ndim) if a not in target]
    before = [a for a in rest if a < min(target)]
    moved = [*before, *target, *(a for a in rest if a not in before)]
    n, count = order.shape[-1], order[..., 0].numel()
    flat = (torch.arange(count).reshape(*order.shape[:-1], 1) * n + order.cpu()).reshape(-1).to(array.device)
    shape = [array.shape[a] for a in moved]
    lead = shape[: len(before)]
    out = array.permute(moved).reshape(*lead, count * n, *shape[len(before) + len(target) :])
    out = out.index_select(len(before), flat).reshape(shape)
    return out.permute([moved.index(a) for a in range(array.ndim)])
