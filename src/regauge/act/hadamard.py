"""Hadamard matrices in factored form, of every order that the known constructions reach.

Sylvester (powers of 2), Paley I (q + 1 for prime powers q = 3 mod 4), Paley II (2 q + 2 for q = 1 mod 4), Williamson (four
symmetric circulants), and Kronecker products of these. Constructions: Horadam, Hadamard Matrices and Their Applications
(2007), chapter 2.
"""

from __future__ import annotations

from functools import cache
from math import prod, sqrt

import numpy as np
import torch
from torch import Generator, Tensor

from regauge.act.galois import characters, prime_power
from regauge.errors import InputError
from regauge.solve.matrices import Diagonal, Kronecker, Order, Product

# first halves (entries 0 .. (m-1)/2) of four symmetric circulants of order m whose spectra sum to 4 m, as bits
WILLIAMSON: dict[int, tuple[str, str, str, str]] = {
    23: ("110100111001", "111110000101", "100000110101", "110101110110"),
    29: ("101011000100111", "101010000110110", "100101100011111", "111011011110001"),
}
LARGEST_DENSE = 64  # factors are joined up to this size: one small product is faster than many passes over the data


def order_exists(n: int) -> bool:
    """Whether `factors(n)` succeeds."""
    return _split(n) is not None


@cache
def factors(n: int) -> tuple[Tensor, ...]:
    """Small matrices with entries +-1 whose Kronecker product H satisfies H H^T = n; chosen with few multiplications.

    Raises InputError for orders that no construction reaches (n must be 1, 2 or a multiple of 4).
    """
    sizes = _split(n)
    if sizes is None:
        raise InputError(
            f"no known construction gives a Hadamard matrix of order {n}: use how='orthogonal' for this bond"
        )
    small: list[np.ndarray] = []
    for m in sorted(sizes, reverse=True):
        home = next((k for k, h in enumerate(small) if len(h) * m <= LARGEST_DENSE), None)
        if home is None:
            small.append(base(m))
        else:
            small[home] = np.kron(small[home], base(m))
    return tuple(torch.from_numpy(h).double() for h in small)


@cache
def _split(n: int) -> tuple[int, ...] | None:
    """Orders of base matrices with product n and the smallest sum."""
    if n == 1:
        return ()
    if n < 1 or n % 2:
        return None
    best: tuple[int, ...] | None = None
    for m in (d for d in range(2, n + 1) if n % d == 0 and _has_base(d)):
        rest = _split(n // m) if n % m == 0 else None
        if rest is not None and (best is None or m + sum(rest) < sum(best)):
            best = (m, *rest)
    return best


def _has_base(m: int) -> bool:
    return m == 2 or _paley_1(m) or _paley_2(m) or m in {4 * w for w in WILLIAMSON}


def _paley_1(m: int) -> bool:
    return m % 4 == 0 and prime_power(m - 1) is not None


def _paley_2(m: int) -> bool:
    q = m // 2 - 1
    return m % 4 == 0 and q % 4 == 1 and prime_power(q) is not None


@cache
def base(m: int) -> np.ndarray:
    """A Hadamard matrix of order m that is no product of smaller ones."""
    if m == 2:
        return _sylvester(1)
    if _paley_1(m):
        bordered = np.ones((m, m), dtype=np.int64)
        bordered[1:, 1:] = characters(m - 1)
        bordered[1:, 0] = -1
        bordered[0, 0] = 0
        return bordered + np.eye(m, dtype=np.int64)  # S + 1 with S skew and S S^T = m - 1
    if _paley_2(m):
        q = m // 2 - 1
        s = np.ones((q + 1, q + 1), dtype=np.int64)
        s[1:, 1:] = characters(q)
        s[0, 0] = 0  # symmetric conference matrix
        one = np.eye(q + 1, dtype=np.int64)
        return np.kron(s, np.array([[1, 1], [1, -1]])) + np.kron(one, np.array([[1, -1], [-1, -1]]))
    a, b, c, d = (_circulant(bits, m // 4) for bits in WILLIAMSON[m // 4])
    return np.block([[a, b, c, d], [-b, a, -d, c], [-c, d, a, -b], [-d, -c, b, a]])


def _sylvester(k: int) -> np.ndarray:
    h = np.ones((1, 1), dtype=np.int64)
    for _ in range(k):
        h = np.kron(h, np.array([[1, 1], [1, -1]]))
    return h


def _circulant(bits: str, m: int) -> np.ndarray:
    half = [1 if b == "1" else -1 for b in bits]
    row = np.array(half + half[:0:-1])
    return np.stack([np.roll(row, i) for i in range(m)])


def randomised(n: int, places: tuple[int, ...], generator: Generator) -> Product:
    """H D / sqrt(n), D random signs of its own at every place: orthogonal, (*places, n, n)."""
    h = Kronecker(tuple(b / sqrt(b.shape[-1]) for b in factors(n)))
    return Product(places, n, (Diagonal(_signs(generator, *places, n)), h))


def randomised_fixing_ones(n: int, places: tuple[int, ...], generator: Generator) -> Product:
    """H D P H^T / n with the first column of H ones, and 1 in D at its place: orthogonal, and keeps the vector of ones."""
    h = tuple(b * b[:, :1] for b in factors(n))  # rows times their first entry: the first column becomes ones
    unit = tuple(b / sqrt(b.shape[-1]) for b in h)
    order = torch.zeros(prod(places), n, dtype=torch.int64)
    for row in order:
        row[1:] = 1 + torch.randperm(n - 1, generator=generator)
    signs = _signs(generator, *places, n)
    signs[..., 0] = 1.0
    back = Kronecker(tuple(b.mT.contiguous() for b in unit))
    return Product(places, n, (back, Order(order.reshape(*places, n)), Diagonal(signs), Kronecker(unit)))


def _signs(generator: Generator, *shape: int) -> Tensor:
    return 1.0 - 2.0 * torch.randint(0, 2, shape, generator=generator).double()
