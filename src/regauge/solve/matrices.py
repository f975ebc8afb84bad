"""Matrices of frames in two forms: dense, or a product of factors that is never multiplied out.

A dense one is a tensor (*places, n, n). A `Product` holds factors that act one after another on an axis of n entries; a
Hadamard matrix of order 576 is 12 x 12 x 4 and costs 28 multiplications an entry instead of 576.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker product of small matrices, the first the slowest index; the same at every place."""

    blocks: tuple[Tensor, ...]

    def act(self, x: Tensor) -> Tensor:
        shape, after = x.shape, 1
        for block in reversed(self.blocks):
            m, b = block.shape[-1], block.to(x)
            x = x.reshape(-1, m) @ b.mT if after == 1 else b @ x.reshape(-1, m, after)
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
        return x * self.values.to(x).unsqueeze(-2)

    def inverse(self) -> Diagonal:
        return Diagonal(1.0 / self.values)

    dual = inverse


@dataclass(frozen=True)
class Order:
    """A permutation: entry i of the result is entry order[..., i] of the operand; order: (*places, n)."""

    order: Tensor

    def act(self, x: Tensor) -> Tensor:
        return torch.take_along_dim(x, self.order.to(x.device).unsqueeze(-2).expand(x.shape), -1)

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
        """x: (*places, rows, n), multiplied along its last axis."""
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
    unit = torch.eye(m.n, dtype=torch.float64).expand(*m.places, m.n, m.n)
    return m.act(unit).mT.contiguous()


def multiply(array: Tensor, matrices: Matrices, axis: int, places: list[int]) -> Tensor:
    """matrices[place] @ array along an axis, one matrix for each index of the places."""
    if not isinstance(matrices, Product) and (not places or [*places, axis] == list(range(len(places) + 1))):
        # the array as it lies in memory: what stands before the axis, and behind it, are batches and columns
        lead = array.shape[: len(places)] if places else (prod(array.shape[:axis]),)
        columns = array.reshape(*lead, array.shape[axis], prod(array.shape[axis + 1 :]))
        m = matrices.to(array)
        if not places and columns.shape[-1] == 1:
            return (columns.squeeze(-1) @ m.mT).reshape(array.shape)
        return (m @ columns).reshape(array.shape)
    rest = [a for a in range(array.ndim) if a != axis and a not in places]
    order = [*places, *rest, axis]
    moved = array.permute(order)
    lead = moved.shape[: len(places)]
    flat = moved.reshape(*lead, prod(array.shape[a] for a in rest), moved.shape[-1])
    out = matrices.act(flat) if isinstance(matrices, Product) else flat @ matrices.to(array).mT
    return out.reshape(moved.shape).permute([order.index(a) for a in range(array.ndim)])
