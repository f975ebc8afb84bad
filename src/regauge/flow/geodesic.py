"""The neural geodesic equation xdot = v, vdot^i = -Gamma^i_jk(x) v^j v^k and what diffeomorphisms do to it.

Under y = phi(x) (no time in phi), w = D phi v, the connection transforms inhomogeneously:

    Gamma'^a_bc = J^a_i Gamma^i_jk K^j_b K^k_c - H^a_jk K^j_b K^k_c,   J = dy/dx, K = J^-1, H^a_jk = d_j d_k y^a.

A connection is a callable x (batch, d) -> (batch, d, d, d), indices [i, j, k]. Only its symmetric part is visible: the
antisymmetric part drops out of the equation. Affine time changes keep the form (v scales); other clocks add an
acceleration along v, and so does a projective change (`projective`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import hessian, jacfwd, vmap

Connection = Callable[[Tensor], Tensor]
PointMap = Callable[[Tensor], Tensor]


class GeodesicField(nn.Module):
    """The first-order field of the state (x, v), packed as (batch, 2 d)."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        x, v = state.chunk(2, -1)
        return torch.cat([v, -torch.einsum("...ijk,...j,...k->...i", self.connection(x), v, v)], -1)


def symmetric_part(gamma: Tensor) -> Tensor:
    """(Gamma^i_jk + Gamma^i_kj) / 2: all that geodesics see."""
    return (gamma + gamma.mT) / 2


def transport_connection(connection: Connection, push: PointMap, pull: PointMap) -> Connection:
    """The connection in coordinates y = push(x), x = pull(y); maps act on batches (batch, d), best in float64."""

    def one(map_: PointMap) -> PointMap:
        return lambda z: map_(z.unsqueeze(0)).squeeze(0)

    def transported(y: Tensor) -> Tensor:
        x = pull(y)
        jac, hess = vmap(jacfwd(one(push)))(x), vmap(hessian(one(push)))(x)
        back = torch.linalg.inv(jac)
        inner = torch.einsum("nai,nijk->najk", jac, connection(x)) - hess
        return torch.einsum("najk,njb,nkc->nabc", inner, back, back)

    return transported


def push_velocity(push: PointMap, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(y, w) = (phi(x), D phi v)."""
    y, w = torch.func.jvp(push, (x,), (v,))[:2]
    return y, w


def levi_civita(metric: Callable[[Tensor], Tensor]) -> Connection:
    """Gamma^i_jk = g^il (d_j g_lk + d_k g_lj - d_l g_jk) / 2 of a metric (batch, d) -> (batch, d, d), any signature."""

    def connection(x: Tensor) -> Tensor:
        slope = vmap(jacfwd(lambda z: metric(z.unsqueeze(0)).squeeze(0)))(x)  # [n, l, k, j] = d_j g_lk
        lowered = (slope.transpose(-1, -2) + slope - slope.permute(0, 3, 1, 2)) / 2
        return torch.einsum("nil,nljk->nijk", torch.linalg.inv(metric(x)), lowered)

    return connection


def projective(connection: Connection, form: PointMap) -> Connection:
    """Gamma + delta^i_j psi_k + delta^i_k psi_j: the same unparametrised geodesics, another clock on each."""

    def changed(x: Tensor) -> Tensor:
        psi = form(x)
        one = torch.eye(x.shape[-1], dtype=x.dtype)
        return connection(x) + torch.einsum("ij,nk->nijk", one, psi) + torch.einsum("ik,nj->nijk", one, psi)

    return changed


def curvature(connection: Connection, x: Tensor) -> Tensor:
    """R^i_jkl = d_k G^i_lj - d_l G^i_kj + G^i_km G^m_lj - G^i_lm G^m_kj, (batch, d, d, d, d)."""
    gamma = connection(x)
    slope = vmap(jacfwd(lambda z: connection(z.unsqueeze(0)).squeeze(0)))(x)  # [n, i, j, k, m] = d_m Gamma^i_jk
    first = torch.einsum("niljk->nijkl", slope)
    square = torch.einsum("nikm,nmlj->nijkl", gamma, gamma)
    half = first + square
    return half - half.transpose(-1, -2)


def sphere_polar(x: Tensor) -> Tensor:
    """Unit sphere, x = (theta, phi)."""
    theta = x[..., 0]
    gamma = x.new_zeros(*x.shape, 2, 2)
    gamma[..., 0, 1, 1] = -theta.sin() * theta.cos()
    gamma[..., 1, 0, 1] = gamma[..., 1, 1, 0] = theta.cos() / theta.sin()
    return gamma


def _conformal(x: Tensor, factor: Tensor) -> Tensor:
    """factor * (delta_ij x_k + delta_ik x_j - delta_jk x_i)."""
    one = torch.eye(x.shape[-1], dtype=x.dtype)
    terms = (
        torch.einsum("ij,...k->...ijk", one, x)
        + torch.einsum("ik,...j->...ijk", one, x)
        - torch.einsum("jk,...i->...ijk", one, x)
    )
    return factor[..., None, None, None] * terms


def sphere_stereographic(x: Tensor) -> Tensor:
    """Unit sphere with ds^2 = 4 dx^2 / (1 + |x|^2)^2."""
    return _conformal(x, -2 / (1 + x.square().sum(-1)))


def poincare_disc(x: Tensor) -> Tensor:
    """Hyperbolic plane (curvature -1) with ds^2 = 4 dx^2 / (1 - |x|^2)^2, |x| < 1."""
    return _conformal(x, 2 / (1 - x.square().sum(-1)))


def half_plane(x: Tensor) -> Tensor:
    """Hyperbolic plane, ds^2 = (dx^2 + dy^2) / y^2, y > 0."""
    gamma = x.new_zeros(*x.shape, 2, 2)
    inverse = 1 / x[..., 1]
    gamma[..., 0, 0, 1] = gamma[..., 0, 1, 0] = gamma[..., 1, 1, 1] = -inverse
    gamma[..., 1, 0, 0] = inverse
    return gamma


def schwarzschild_metric(mass: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The equatorial Schwarzschild metric on x = (t, r, phi): diag(-(1 - 2M/r), 1/(1 - 2M/r), r^2), r > 2M."""

    def metric(x: Tensor) -> Tensor:
        lapse = 1 - 2 * mass / x[..., 1]
        return torch.diag_embed(torch.stack([-lapse, 1 / lapse, x[..., 1] ** 2], -1))

    return metric


def schwarzschild(x: Tensor, mass: float = 1.0) -> Tensor:
    """In closed form: G^t_tr = M/(r^2 f), G^r_tt = M f/r^2, G^r_rr = -M/(r^2 f), G^r_pp = -r f, G^p_rp = 1/r."""
    r = x[..., 1]
    lapse = 1 - 2 * mass / r
    gamma = x.new_zeros(*x.shape, 3, 3)
    gamma[..., 0, 0, 1] = gamma[..., 0, 1, 0] = mass / (r**2 * lapse)
    gamma[..., 1, 0, 0] = mass * lapse / r**2
    gamma[..., 1, 1, 1] = -mass / (r**2 * lapse)
    gamma[..., 1, 2, 2] = -r * lapse
    gamma[..., 2, 1, 2] = gamma[..., 2, 2, 1] = 1 / r
    return gamma
