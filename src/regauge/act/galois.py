"""Finite fields, as far as Paley's matrices need them: differences and the quadratic character."""

from __future__ import annotations

from itertools import product
from math import isqrt

import numpy as np


def prime_power(q: int) -> tuple[int, int] | None:
    """(p, k) with q = p^k, p prime; None if there is none."""
    if q < 2:
        return None
    p = next((d for d in range(2, isqrt(q) + 1) if q % d == 0), q)
    k = 0
    while q % p == 0:
        q //= p
        k += 1
    return (p, k) if q == 1 else None


def characters(q: int) -> np.ndarray:
    """chi(a_i - a_j) over the elements a of the field with q elements, q odd: (q, q), with 0 on the diagonal.

    chi is 1 for nonzero squares, -1 for what is no square.
    """
    found = prime_power(q)
    assert found is not None and q % 2
    p, k = found
    digits = np.array(list(product(range(p), repeat=k)))  # row i: the digits of element i, the constant one last
    weight = p ** np.arange(k - 1, -1, -1)
    chi = np.full(q, -1)
    chi[_squares(digits, p, k) @ weight] = 1
    chi[0] = 0
    difference = (digits[:, None, :] - digits[None, :, :]) % p
    return chi[difference @ weight]


def _squares(digits: np.ndarray, p: int, k: int) -> np.ndarray:
    """The square of every element, modulo a polynomial for which the result is a field: half of the units are squares."""
    for low in product(range(p), repeat=k):
        reduction = -np.array(low)  # x^k = reduction
        squares = _reduce(digits, reduction, p)
        images = {tuple(s) for s in squares.tolist()}
        nonzero = (squares.any(1) == digits.any(1)).all()
        if nonzero and len(images) == (len(digits) + 1) // 2 and _field(digits, reduction, p):
            return squares
    raise AssertionError("every order has an irreducible polynomial")


def _reduce(a: np.ndarray, reduction: np.ndarray, p: int, b: np.ndarray | None = None) -> np.ndarray:
    """a b (or a^2), row by row; digits with the constant one last."""
    b = a if b is None else b
    k = a.shape[1]
    wide = np.zeros((len(a), 2 * k - 1), dtype=np.int64)
    for i in range(k):
        wide[:, i : i + k] += a[:, i : i + 1] * b
    for i in range(k - 1):
        wide[:, i + 1 : i + 1 + k] += wide[:, i : i + 1] * reduction
        wide[:, i] = 0
    return wide[:, k - 1 :] % p


def _field(digits: np.ndarray, reduction: np.ndarray, p: int) -> bool:
    """x^(q-1) = 1 for every unit, q - 1 by repeated squaring: then every element but 0 is invertible."""
    units = digits[1:]
    power = np.zeros_like(units)
    power[:, -1] = 1
    one = power.copy()
    for bit in bin(len(units))[2:]:
        power = _reduce(power, reduction, p)
        if bit == "1":
            power = _reduce(power, reduction, p, units)
    return bool((power == one).all())
