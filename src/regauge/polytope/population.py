"""The exact loss of one hidden layer against the round ball: no sampling.

    L(a, w) = E_x (sum_i a_i phi(w_i . x) - 1)^2 = a'Ka - 2 b'a + 1,   x uniform on the sphere S^{d-1}

With phi(z) = z for z > 0 and slope z below, phi = p|z| + q z, p = (1 - slope)/2, q = (1 + slope)/2, and

    E |u.x| = c_d |u|,  E |u.x||v.x| = (2 / pi d) |u||v| (sin t + (pi/2 - t) cos t),  E (u.x)(v.x) = u.v / d

where t is the angle between u and v: the arc-cosine kernel of degree 1 (Cho and Saul, 2009).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from regauge.errors import InputError
from regauge.polytope.net import Array

SLOPE = {"abs": -1.0, "relu": 0.0, "leaky": 0.01}


def slope_of(activation: str, slope: float | None = None) -> float:
    """The slope below zero of "abs", "relu" or "leaky"."""
    if activation not in SLOPE:
        raise InputError(f"activation {activation!r} has no closed population loss; say one of {', '.join(SLOPE)}.")
    return SLOPE[activation] if slope is None or activation != "leaky" else slope


def mean_modulus(dim: int) -> float:
    """c_d = E |x_1| on the unit sphere of R^d."""
    return math.gamma(dim / 2) / (math.sqrt(math.pi) * math.gamma((dim + 1) / 2))


@dataclass(frozen=True, eq=False)
class _Angles:
    length: Array
    unit: Array
    cos: Array
    sin: Array
    asin: Array  # pi/2 - angle


def _angles(w: Array) -> _Angles:
    length = np.linalg.norm(w, axis=1)
    unit = w / np.maximum(length, 1e-300)[:, None]
    minus = ((unit[:, None] - unit[None]) ** 2).sum(-1) / 2  # 1 - cos, without cancellation
    plus = ((unit[:, None] + unit[None]) ** 2).sum(-1) / 2
    cos, sin = (plus - minus) / 2, np.sqrt(plus * minus)
    np.fill_diagonal(cos, 1.0)
    np.fill_diagonal(sin, 0.0)
    return _Angles(length, unit, cos, sin, np.arctan2(cos, sin))


def loss(a: Array, w: Array, slope: float) -> float:
    """L for output weights a (N,) and hidden weights w (N, d)."""
    n, d = w.shape
    p, q, t = (1 - slope) / 2, (1 + slope) / 2, _angles(w)
    kernel = 2 / (math.pi * d) * np.outer(t.length, t.length) * (t.sin + t.asin * t.cos)
    both = p * p * kernel + q * q / d * (w @ w.T)
    return float(a @ both @ a - 2 * p * mean_modulus(d) * (t.length @ a) + 1)


def gradient(a: Array, w: Array, slope: float) -> tuple[Array, Array]:
    """(dL/da (N,), dL/dw (N, d))."""
    n, d = w.shape
    p, q, t = (1 - slope) / 2, (1 + slope) / 2, _angles(w)
    k, c = 2 / (math.pi * d), mean_modulus(d)
    kernel = k * np.outer(t.length, t.length) * (t.sin + t.asin * t.cos)
    da = 2 * (p * p * kernel + q * q / d * (w @ w.T)) @ a - 2 * p * c * t.length
    pull = k * (((t.sin * t.length) @ a)[:, None] * t.unit + (t.asin * a) @ w)
    dw = 2 * a[:, None] * (p * p * pull + q * q / d * (a @ w) - p * c * t.unit)
    return da, dw


def hessian(a: Array, w: Array, slope: float) -> Array:
    """The second derivatives in (a, w), (N + N d, N + N d), w row by row."""
    n, d = w.shape
    p, q, t = (1 - slope) / 2, (1 + slope) / 2, _angles(w)
    k, c, eye = 2 / (math.pi * d), mean_modulus(d), np.eye(d)
    kernel = k * np.outer(t.length, t.length) * (t.sin + t.asin * t.cos)
    aa = 2 * (p * p * kernel + q * q / d * (w @ w.T))

    # first[i, j] = dK_ij / dw_i (through the first argument only; the diagonal is |w|^2 / d in all)
    first = p * p * k * ((t.sin * t.length)[:, :, None] * t.unit[:, None] + t.asin[:, :, None] * w[None])
    first += q * q / d * w[None]
    aw = 2 * a[None, :, None] * first.transpose(1, 0, 2)  # d^2 L / da_i dw_j, j != i
    own = 2 * np.einsum("ijd,j->id", first, a) - 2 * p * c * t.unit
    aw[np.arange(n), np.arange(n)] += own

    over = 1 / np.where(t.sin > 0, t.sin, np.inf)
    across = t.unit[None] - t.cos[:, :, None] * t.unit[:, None]  # [i, j]: u_j - cos u_i, orthogonal to u_i
    project = eye - t.unit[:, :, None] * t.unit[:, None]
    same = (
        t.sin[:, :, None, None] * project[:, None] + (over[:, :, None] * across)[..., None] * across[:, :, None]
    ) * (t.length[None] / np.maximum(t.length[:, None], 1e-300))[:, :, None, None]
    mixed = (
        t.sin[:, :, None, None] * t.unit[:, None, :, None] * t.unit[None, :, None, :]
        + t.asin[:, :, None, None] * eye
        + (over[:, :, None] * across)[..., None] * across.transpose(1, 0, 2)[:, :, None]
    )
    ww = 2 * a[:, None, None, None] * a[None, :, None, None] * (p * p * k * mixed + q * q / d * eye)
    bent = 2 * a[:, None, None] * (p * p * k * np.einsum("ijde,j->ide", same, a))
    bent -= 2 * a[:, None, None] * p * c * project / np.maximum(t.length, 1e-300)[:, None, None]
    ww[np.arange(n), np.arange(n)] += bent
    top = np.concatenate([aa, aw.reshape(n, n * d)], axis=1)
    side = np.concatenate([aw.reshape(n, n * d).T, ww.transpose(0, 2, 1, 3).reshape(n * d, n * d)], axis=1)
    return np.concatenate([top, side])
