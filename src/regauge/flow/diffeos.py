"""Time-dependent diffeomorphisms y = phi(r, x) of the state space, active, with tangents and log-determinants.

States are batches of *rows*, shape (..., d): row i is the column vector x_i of the formulas, so a matrix g acts as
`x @ g.T`. The time r is a scalar tensor or has the batch shape of x (one time per sample).

push(r, x)              y = phi(r, x)
pull(r, y)              x = chi(r, y), the inverse of phi at the same r
tangent(r, x, v, rdot)  rdot d_r phi + D_x phi v: what a moving point's velocity becomes
log_det(r, x)           log |det D_x phi|, shape (...)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jacfwd, jvp, vmap

from regauge.errors import CheckError
from regauge.flow.clocks import Clock

StateMap = Callable[[Tensor, Tensor], Tensor]


def column(r: Tensor, x: Tensor) -> Tensor:
    """A time of shape () or of x's batch shape, made to multiply states (..., d)."""
    return r if r.dim() == 0 else r.unsqueeze(-1)


def solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix^-1 vector on (..., d, d) and (..., d).

    By the inverse: torch.linalg.solve returns wrong tangents under vmap(jacfwd(...)), silently (seen with torch 2.13).
    """
    return (torch.linalg.inv(matrix) @ vector.unsqueeze(-1)).squeeze(-1)


def _jacobian(map_: StateMap, r: Tensor, x: Tensor) -> Tensor:
    """D_x map at every sample, (..., d, d)."""
    flat = x.reshape(-1, x.shape[-1])
    if r.dim() == 0:
        jac = vmap(jacfwd(lambda z: map_(r, z.unsqueeze(0)).squeeze(0)))(flat)
    else:
        jac = vmap(jacfwd(lambda q, z: map_(q.unsqueeze(0), z.unsqueeze(0)).squeeze(0), argnums=1))(r.reshape(-1), flat)
    return jac.reshape(*x.shape, x.shape[-1])


class Diffeo(nn.Module, ABC):
    """Base class: only push and pull are needed, the rest follows by automatic differentiation."""

    @abstractmethod
    def push(self, r: Tensor, x: Tensor) -> Tensor:
        """y = phi(r, x)."""

    @abstractmethod
    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        """x = chi(r, y)."""

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        y, moved = jvp(self.push, (r, x), (rdot.expand_as(r).to(r.dtype), v))[:2]
        return moved.to(y.dtype)

    def jacobian(self, r: Tensor, x: Tensor) -> Tensor:
        """D_x phi, (..., d, d)."""
        return _jacobian(self.push, r, x)

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return torch.linalg.slogdet(self.jacobian(r, x)).logabsdet

    def inverse(self) -> "Diffeo":
        return InverseDiffeo(self)


class IdentityDiffeo(Diffeo):
    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return x

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return y

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        return v

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])

    def inverse(self) -> Diffeo:
        return self


class CallableDiffeo(Diffeo):
    """From a pair of functions: push(r, x) and its inverse pull(r, y). Modules among them are registered."""

    def __init__(self, push: StateMap, pull: StateMap) -> None:
        super().__init__()
        self._push, self._pull = push, pull

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return self._push(r, x)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return self._pull(r, y)


class PullDiffeo(Diffeo):
    """From chi alone (x = chi(r, y)); nobody has to invert it in the field: F' = (D chi)^-1 [F - d_r chi].

    `push` is needed only to dress the ends: Newton's method from the guess y = x, which raises CheckError where it
    does not converge. A cost of one d x d solve per sample and call.
    """

    def __init__(self, pull: StateMap, iterations: int = 40, tolerance: float = 1e-5) -> None:
        super().__init__()
        self._pull, self.iterations, self.tolerance = pull, iterations, tolerance

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return self._pull(r, y)

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x.clone()
            for _ in range(self.iterations):
                step = solve(_jacobian(self._pull, r, y), self._pull(r, y) - x)
                y = y - step
            gap = float((self._pull(r, y) - x).abs().max())
            if not gap <= self.tolerance:
                raise CheckError(
                    f"PullDiffeo.push at r={r.flatten()[0].item():.4g}: Newton stopped at |chi(y) - x| = {gap:.2g}, so "
                    "chi is not invertible there or the guess is too far; give the inverse with CallableDiffeo"
                )
            jac = _jacobian(self._pull, r, y)
        return y - solve(jac, self._pull(r, y) - x)

    def tangent_at_image(self, r: Tensor, y: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        """(D chi)^-1 [v - rdot d_r chi] at y: the pull form, no inverse of chi."""
        drift = jvp(lambda q: self._pull(q, y), (r,), (rdot.expand_as(r).to(r.dtype),))[1]
        return solve(_jacobian(self._pull, r, y), v - drift.to(v.dtype))

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        return self.tangent_at_image(r, self.push(r, x), v, rdot)

    def jacobian(self, r: Tensor, x: Tensor) -> Tensor:
        return torch.linalg.inv(_jacobian(self._pull, r, self.push(r, x)))


class InverseDiffeo(Diffeo):
    """chi as an active map: push and pull change places."""

    def __init__(self, diffeo: Diffeo) -> None:
        super().__init__()
        self.diffeo = diffeo

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return self.diffeo.pull(r, x)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return self.diffeo.push(r, y)

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return -self.diffeo.log_det(r, self.diffeo.pull(r, x))

    def inverse(self) -> Diffeo:
        return self.diffeo


class ComposedDiffeo(Diffeo):
    """psi(r, phi(r, x)): `first` acts first."""

    def __init__(self, second: Diffeo, first: Diffeo) -> None:
        super().__init__()
        self.second, self.first = second, first

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return self.second.push(r, self.first.push(r, x))

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return self.first.pull(r, self.second.pull(r, y))

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        return self.second.tangent(r, self.first.push(r, x), self.first.tangent(r, x, v, rdot), rdot)

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return self.first.log_det(r, x) + self.second.log_det(r, self.first.push(r, x))

    def inverse(self) -> Diffeo:
        return ComposedDiffeo(self.first.inverse(), self.second.inverse())


class ReclockedDiffeo(Diffeo):
    """phi at another time: q -> phi(r(q), .)."""

    def __init__(self, diffeo: Diffeo, clock: Clock) -> None:
        super().__init__()
        self.diffeo, self.clock = diffeo, clock

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return self.diffeo.push(self.clock(r), x)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return self.diffeo.pull(self.clock(r), y)

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        return self.diffeo.tangent(self.clock(r), x, v, rdot * self.clock.rate(r))

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return self.diffeo.log_det(self.clock(r), x)

    def inverse(self) -> Diffeo:
        return ReclockedDiffeo(self.diffeo.inverse(), self.clock)
