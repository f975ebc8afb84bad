"""The linear regions of a network: a fan on whose cones f is linear, with f on every ray.

Units are taken layer by layer. What a layer reads is linear on every cone of the fan so far, so a unit's
preactivation is known from its values on the rays, and `fan.split` cuts all cones at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.linalg import qr

from regauge.errors import CheckError, InputError
from regauge.polytope.arrangement import distinct, sphere
from regauge.polytope.fan import MEETING, Fan, orthants, split
from regauge.polytope.net import Array, Layer, Maxout, Network, Slopes

LARGEST_DIM = 10  # 3^10 faces before the first cut


@dataclass(frozen=True, eq=False)
class Regions:
    """`rays`: (n, d), unit length, or primitive integers in the certified mode; `values`: f on them, times scale."""

    fan: Fan
    rays: Array
    values: Array


def regions(net: Network, tolerance: float) -> Regions:
    """The fan of linear regions of `net`. Signs closer to 0 than `tolerance`, relative to the weights, count as 0.

    Raises InputError when the dimension is above 10.
    """
    if net.dim > LARGEST_DIM:
        raise InputError(
            f"input dimension {net.dim} is too large: extraction starts from 3^d faces, d <= {LARGEST_DIM}; "
            "extract a section (network.section) instead."
        )
    first = net.layers[0]
    flat = sphere(_planes(first, tolerance), tolerance) if net.dim == 3 and not net.exact else None
    fan, rays = flat or _start(first.weight, net.exact)
    h = rays
    for i, layer in enumerate(net.layers):
        size = 0.0 if net.exact else float(np.linalg.norm(h, axis=1).max())
        if i > 0 or flat is None:
            fan, rays, h = _cut(layer, fan, rays, h, tolerance * size)
        last = i == len(net.layers) - 1
        h = _written(layer, h, tolerance * size, net.out if last else None)
    if sum((-1) ** k * count for k, count in enumerate(fan.counts)) != 1 - (-1) ** net.dim:
        raise CheckError(MEETING)
    return Regions(fan, rays, h)


def _written(layer: Layer, h: Array, tolerance: float, out: Array | None) -> Array:
    """What the layer writes on the rays, or `out` of it, a block of rays at a time."""
    block = max(1, 2**18 // len(layer.weight))
    parts = []
    for i in range(0, len(h), block):
        if out is None:
            parts.append(layer.activate(_snapped(h[i : i + block] @ layer.weight.T, layer.weight, tolerance)))
        else:
            parts.append(layer.combined(h[i : i + block], out))
    return np.concatenate(parts)


def _planes(layer: Layer, tolerance: float) -> Array:
    """Unit normals of the planes where the layer bends, each plane once."""
    match layer.activation:
        case Slopes(positive, negative):
            rows = layer.weight[positive != negative]
        case Maxout():
            return np.empty((0, layer.weight.shape[1]))
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return distinct(rows[length[:, 0] > 0] / length[length[:, 0] > 0], tolerance)


def _start(weight: Array, exact: bool) -> tuple[Fan, Array]:
    """The orthants of a basis of R^d made of rows of `weight`, as far as they go, so that few walls are artificial."""
    dim = weight.shape[1]
    rows = weight.astype(float)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    _, r, order = qr(rows.T, mode="economic", pivoting=True)
    rank = int((np.abs(np.diag(r)) > 1e-6).sum())
    basis = list(weight[order[:rank]])
    for axis in np.eye(dim, dtype=int):
        if len(basis) < dim and np.linalg.matrix_rank(np.array([*basis, axis], dtype=float)) > len(basis):
            basis.append(axis)
    fan, signed = orthants(dim)
    dual = _inverse(np.array(basis)) if exact else np.linalg.inv(np.array(basis, dtype=float)).T
    rays = dual[signed[:, 0]] * signed[:, 1:]
    return fan, rays if exact else rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _inverse(matrix: Array) -> Array:
    """The rows dual to those of an integer matrix, as primitive integer vectors."""
    n = len(matrix)
    work = [[Fraction(int(v)) for v in row] + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(matrix)]
    for c in range(n):
        pivot = next(r for r in range(c, n) if work[r][c])
        work[c], work[pivot] = work[pivot], work[c]
        work[c] = [v / work[c][c] for v in work[c]]
        for r in range(n):
            if r != c and work[r][c]:
                work[r] = [v - work[r][c] * u for v, u in zip(work[r], work[c], strict=True)]
    columns = [[work[r][n + c] for r in range(n)] for c in range(n)]
    whole = [[int(v * math.lcm(*(u.denominator for u in column))) for v in column] for column in columns]
    return np.array([[v // math.gcd(*column) for v in column] for column in whole], dtype=object)


class _Growing:
    """Rows that others are appended to, in place; room grows by half, so many small appends stay cheap."""

    def __init__(self, rows: Array) -> None:
        self._room, self._size = rows, len(rows)

    @property
    def rows(self) -> Array:
        return self._room[: self._size]

    def append(self, new: Array) -> None:
        size = self._size + len(new)
        if size > len(self._room):
            room = np.empty((max(size, 3 * self._size // 2), *new.shape[1:]), dtype=new.dtype)
            room[: self._size] = self.rows
            self._room = room
        self._room[self._size : size] = new
        self._size = size


def _cut(layer: Layer, fan: Fan, rays: Array, h: Array, tolerance: float) -> tuple[Fan, Array, Array]:
    """The fan cut by every unit of one layer. `h`: what the layer reads, on the rays."""
    at, read = _Growing(rays), _Growing(h)
    match layer.activation:
        case Slopes(positive, negative):
            for unit in np.flatnonzero(positive != negative):
                w = layer.weight[unit]
                fan = _refined(fan, _snapped(read.rows @ w, w, tolerance), at, read)
        case Maxout(pieces):
            for group in range(layer.units):
                rows = layer.weight[group * pieces : (group + 1) * pieces]
                best = read.rows @ rows[0]
                for k in range(1, pieces):
                    z, kept = _snapped(read.rows @ rows[k] - best, rows[: k + 1].reshape(-1), tolerance), _Growing(best)
                    fan = _refined(fan, z, at, read, kept)
                    z = _snapped(read.rows @ rows[k] - kept.rows, rows[: k + 1].reshape(-1), tolerance)
                    best = kept.rows + np.maximum(z, 0)
    return fan, at.rows, read.rows


def _snapped(z: Array, weight: Array, tolerance: float) -> Array:
    if z.dtype == object:
        return z
    return np.where(np.abs(z) <= tolerance * np.linalg.norm(weight, axis=-1), 0.0, z)


def _refined(fan: Fan, z: Array, rays: _Growing, *attached: _Growing) -> Fan:
    """The fan cut where z changes sign; rays, and whatever is linear on its cones, are continued to the new rays."""
    sign = (z > 0).astype(np.int8) - (z < 0).astype(np.int8)
    fan, parents = split(fan, sign)
    low, high = z[parents[:, 1]], -z[parents[:, 0]]  # both positive: z vanishes on low * negative + high * positive
    between = [_mix(grown.rows, parents, low, high) for grown in (rays, *attached)]
    if z.dtype == object:
        factor = np.array([math.gcd(*row) for row in between[0]], dtype=object)
        between = [values // (factor if values.ndim == 1 else factor[:, None]) for values in between]
    else:
        factor = np.linalg.norm(between[0], axis=1)
        between = [values / (factor if values.ndim == 1 else factor[:, None]) for values in between]
    for grown, values in zip((rays, *attached), between, strict=True):
        grown.append(values)
    return fan


def _mix(values: Array, parents: Array, low: Array, high: Array) -> Array:
    if values.ndim == 2:
        low, high = low[:, None], high[:, None]
    return values[parents[:, 0]] * low + values[parents[:, 1]] * high
