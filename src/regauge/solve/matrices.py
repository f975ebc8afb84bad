"""Matrices of frames in two forms: dense, or a product of factors that is never multiplied out.

A dense one is a tensor (*places, n, n). A `Product` holds factors that act one after another on an axis of n entries; a
Hadamard matrix of order 576 is 12 x 12 x 4 and costs 28 multiplications an entry instead of 576.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker product of small matrices, the first the slowest index; the same at every place."""

    blocks: tuple[Tensor, ...]

    def act(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 1 and x.shape[-2] < x.numel():  # products of few long columns, not of many short rows
            turned = x.reshape(-1, x.shape[-2]).mT.contiguous()
            return self.act(turned).mT.reshape(x.shape)
        shape, after = x.shape, x.shape[-1]
        for block in reversed(self.blocks):
            m = block.shape[-1]
            x = block.to(x) @ x.reshape(-1, m, after)
            after *= m
        return x.reshape(shape)

    def inverse(self) -> Kronecker:
        return Kronecker(tuple(torch.linalg.inv(b) for b in self.blocks))

    def dual(self) -> Kronecker:
        return Kronecker(tuple(torch.linalg.inv(b).mT.contiguous() for b in self.blocks))


@dataclass(frozen=True)
class Diagonal:
    """Entry by entry; values: (*places, n)."""

    values: Tensor

    def act(self, x: Tensor) -> Tensor:
        return x * self.values.to(x)[..., None, :, None]

    def inverse(self) -> Diagonal:
        return Diagonal(1.0 / self.values)

    dual = inverse


@dataclass(frozen=True)
class Order:
    """A permutation: entry i of the result is entry order[..., i] of the operand; order: (*places, n)."""

    order: Tensor

    def act(self, x: Tensor) -> Tensor:
        order = self.order.to(x.device)
        if order.ndim == 1:
            return x.index_select(-2, order)
        return torch.take_along_dim(x, order[..., None, :, None].expand(x.shape), -2)

    def inverse(self) -> Order:
        return Order(torch.argsort(self.order, -1))

    def dual(self) -> Order:
        return self


Factor = Kronecker | Diagonal | Order


@dataclass(frozen=True)
class Product:
    """factors[-1] @ ... @ factors[0], of order n at each of the places."""

    places: tuple[int, ...]
    n: int
    factors: tuple[Factor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.places, self.n, self.n)

    def act(self, x: Tensor) -> Tensor:
        """x: (*places, rows, n, columns), multiplied along its axis of n entries."""
        for f in self.factors:
            x = f.act(x)
        return x


Matrices = Tensor | Product


def inverse(m: Matrices) -> Matrices:
    if isinstance(m, Product):
        return Product(m.places, m.n, tuple(f.inverse() for f in reversed(m.factors)))
    return torch.linalg.inv(m)


def dual(m: Matrices) -> Matrices:
    """The inverse transpose."""
    if isinstance(m, Product):
        return Product(m.places, m.n, tuple(f.dual() for f in m.factors))
    return torch.linalg.inv(m).mT.contiguous()


def dense(m: Matrices) -> Tensor:
    """(*places, n, n) in float64."""
    if not isinstance(m, Product):
        return m.double()
    unit = torch.eye(m.n, dtype=torch.float64).expand(*m.places, 1, m.n, m.n)
    return m.act(unit).squeeze(-3).contiguous()


def multiply(array: Tensor, matrices: Matrices, axis: int, places: Sequence[int]) -> Tensor:
    """matrices[place] @ array along an axis, one matrix for each index of the places."""
    rest = [a for a in range(array.ndim) if a != axis and a not in places]
    before, after = [a for a in rest if a < axis], [a for a in rest if a > axis]
    order = [*places, *before, axis, *after]  # as it lies in memory, where no place stands behind another axis
    moved = array.permute(order)
    lead = moved.shape[: len(places)]
    rows, columns = (prod(array.shape[a] for a in part) for part in (before, after))
    x = moved.reshape(*lead, rows, array.shape[axis], columns)
    if isinstance(matrices, Product):
        out = matrices.act(x)
    else:
        m = matrices.to(array).contiguous()  # the bits of a product depend on how its operands lie
        if columns == 1:
            out = x.squeeze(-1) @ m.mT
        else:
            out = m @ x.squeeze(-3) if rows == 1 else m.unsqueeze(-3) @ x
    return out.reshape(moved.shape).permute([order.index(a) for a in range(array.ndim)])
