"""Networks as linear feature maps q = shift + F (Phi theta): output weights theta, fixed hidden layer Phi, path q.

With the hidden layer fixed, a flat sum over the output weights *is* the flat sum over paths up to a constant,

    integral dtheta exp(-|P theta|^2/2) f(Phi theta) = (2 pi)^(r/2) exp(-log_volume) integral dq f(q),
    log_volume = log det(Phi Phi^T) / 2,   P the projector on the kernel of Phi, r its dimension:

log_volume is log|det Phi| for a square map; where there are more weights than sites the Gaussian on the kernel fixes
the gauge, and its Faddeev-Popov factor is this constant. If hidden parameters are summed too, log_volume is no
longer constant and the flat parameter sum is another measure: see `regauge.pathsum.measure`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.lattice import Array, Lattice


@dataclass(frozen=True, eq=False)
class LinearMap:
    """`matrix` (D, sites, weights) per coordinate, `frame` (D, D) mixing coordinates, `shift` (D,) added at every
    site."""

    name: str
    matrix: Array = field(repr=False)
    frame: Array = field(repr=False)
    shift: Array = field(repr=False)

    @property
    def dim(self) -> int:
        return self.matrix.shape[0]

    @property
    def sites(self) -> int:
        return self.matrix.shape[1]

    @property
    def weights(self) -> int:
        return self.matrix.shape[2]

    @property
    def redundancy(self) -> int:
        """Dimension of the kernel: weights that change no path."""
        return self.dim * (self.weights - self.sites)

    @cached_property
    def log_volume(self) -> float:
        """log det(J J^T) / 2 of the whole map, J = dq/dtheta."""
        if self.redundancy == 0:
            each = np.linalg.slogdet(self.matrix)[1].sum()
        else:
            each = 0.5 * np.linalg.slogdet(self.matrix @ self.matrix.transpose(0, 2, 1))[1].sum()
        return float(each + self.sites * np.linalg.slogdet(self.frame)[1])

    @cached_property
    def inverse(self) -> Array:
        """The right inverse, (D, weights, sites): the smallest weights for a path."""
        return np.linalg.pinv(self.matrix) if self.redundancy else np.linalg.inv(self.matrix)

    def __call__(self, theta: Array) -> Array:
        """Paths (samples, D, sites) of weights (samples, D, weights)."""
        each = np.matmul(theta.transpose(1, 0, 2), self.matrix.transpose(0, 2, 1)).transpose(1, 0, 2)
        return np.matmul(self.frame, each) + self.shift[:, None]

    def solve(self, q: Array) -> Array:
        """The smallest weights theta with self(theta) == q."""
        each = np.linalg.solve(self.frame, q - self.shift[:, None])
        return np.matmul(each.transpose(1, 0, 2), self.inverse.transpose(0, 2, 1)).transpose(1, 0, 2)

    def pull_back(self, slope: Array) -> Array:
        """J^T slope: a gradient over paths as a gradient over weights."""
        each = np.matmul(self.frame.T, slope)
        return np.matmul(each.transpose(1, 0, 2), self.matrix).transpose(1, 0, 2)

    def kernel_part(self, theta: Array) -> Array:
        """P theta: what of the weights no path sees."""
        if self.redundancy == 0:
            return np.zeros_like(theta)
        seen = np.matmul(theta.transpose(1, 0, 2), self.matrix.transpose(0, 2, 1))
        return theta - np.matmul(seen, self.inverse.transpose(0, 2, 1)).transpose(1, 0, 2)

    def log_density(self, q: Array) -> Array:
        """log of the density of paths when the weights are iid N(0, 1), (samples,)."""
        theta = self.solve(q)
        return -0.5 * (theta**2).sum((1, 2)) - 0.5 * q[0].size * np.log(2 * np.pi) - self.log_volume


def whitened(lattice: Lattice, mu2: Array, frame: Array | None = None, shift: Array | None = None) -> LinearMap:
    """Cosine units: theta_n sits on mode n over sqrt(v m (rate_n + mu^2)), so iid N(0, 1) weights are the Gaussian
    theory of frequency mu. `mu2` (D,) must be positive; `frame` mixes mass-weighted coordinates into physical ones
    (default 1/sqrt m).
    """
    mu2 = np.broadcast_to(np.asarray(mu2, float), (lattice.dim,))
    if not (mu2 > 0).all():
        raise InputError(f"whitened map with mu^2 = {mu2}: the zero mode needs positive mu^2; take the gap equation's")
    scale = 1 / np.sqrt(lattice.volume * (lattice.rates() + mu2[:, None]))
    return _build("whitened", lattice, lattice.modes() * scale[:, None, :], frame, shift)


def step(lattice: Lattice, spread: float = 1.0) -> LinearMap:
    """Step units at the sites: q_k = c + sum of a_i for i <= k, a_i = sqrt(eps/m) theta_i, c = spread * theta_0: iid
    N(0, 1) weights are Brownian motion. In units of (c, a) the determinant is 1."""
    _one_axis(lattice, "step")
    scale = np.full(lattice.sites, np.sqrt(lattice.time.spacing))
    scale[0] = spread
    return _build("step", lattice, np.tril(np.ones((lattice.sites, lattice.sites))) * scale)


def relu(lattice: Lattice, spread: float = 1.0) -> LinearMap:
    """ReLU units at the sites: weights are the kinks of the velocity. Exact, but its condition number grows as
    sites^4."""
    _one_axis(lattice, "relu")
    t = np.arange(lattice.sites) * lattice.time.spacing
    ramps = np.maximum(t[:, None] - t[None, :-1], 0)
    ramps = ramps / np.linalg.norm(ramps, axis=0) * np.sqrt(lattice.sites)
    return _build("relu", lattice, np.concatenate([np.full((lattice.sites, 1), spread), ramps], 1))


def bridge(lattice: Lattice, mu2: float | Array = 1.0, fixing: float = 1.0) -> LinearMap:
    """Periodic steps: q_k = c + sqrt(eps/m) sum_{i<=k} (xi_i - mean xi), weights (c, xi), one more than sites.

    The shift xi -> xi + const is the redundancy. With gauge-fixing strength `fixing` = 1 the xi are iid N(0, 1); other
    strengths scale that one direction (the weight along it is sqrt(fixing) * sqrt(sites) * mean xi).
    """
    _one_axis(lattice, "bridge")
    if lattice.time.ends != "periodic":
        raise InputError("bridge map on an open lattice: its paths must close; use the step map")
    if not fixing > 0:
        raise InputError(f"bridge map with gauge fixing {fixing}: the strength must be positive, or the sum diverges")
    m, eps = lattice.sites, lattice.time.spacing
    centred = np.tril(np.ones((m, m))) @ (np.eye(m) - 1 / m)
    centred -= centred.mean(0)  # c is the mean of the path: the zero mode decouples
    mu2 = np.broadcast_to(np.asarray(mu2, float), (lattice.dim,))
    rows = [np.concatenate([np.full((m, 1), 1 / np.sqrt(eps * m * w)), np.sqrt(eps) * centred], 1) for w in mu2]
    return _build("bridge", lattice, np.stack(rows))


def random_cosine(lattice: Lattice, units: int, omega: float, rng: np.random.Generator) -> LinearMap:
    """Cosine units with a quenched random hidden layer: w ~ Cauchy(0, omega), b ~ U(0, 2 pi), A^2 = 1/(2 omega):
    q(t) = A sqrt(2/units) sum theta_i cos(w_i t + b_i). Needs units >= sites, or some paths are out of reach."""
    _one_axis(lattice, "random cosine")
    if units < lattice.sites:
        raise InputError(
            f"random cosine map of {units} units on {lattice.sites} sites reaches only a {units}-dimensional set "
            f"of paths, "
            f"which is no path sum: take at least {lattice.sites} units, or coarser time"
        )
    t = np.arange(lattice.sites) * lattice.time.spacing
    w, b = omega * rng.standard_cauchy(units), rng.uniform(0, 2 * np.pi, units)
    return _build("random cosine", lattice, np.cos(t[:, None] * w + b) / np.sqrt(omega * units))


def _build(
    name: str, lattice: Lattice, matrix: Array, frame: Array | None = None, shift: Array | None = None
) -> LinearMap:
    d = lattice.dim
    matrix = np.ascontiguousarray(np.broadcast_to(matrix, (d, *matrix.shape[-2:])))
    frame = np.diag(1 / np.sqrt(lattice.mass)) if frame is None else np.asarray(frame, float)
    return LinearMap(name, matrix, frame, np.zeros(d) if shift is None else np.asarray(shift, float))


def _one_axis(lattice: Lattice, name: str) -> None:
    if len(lattice.axes) > 1:
        raise InputError(
            f"{name} map on a lattice of {len(lattice.axes)} axes: its units are steps in time; use whitened"
        )


MAPS: dict[str, Callable[..., LinearMap]] = {"whitened": whitened, "step": step, "relu": relu, "bridge": bridge}
