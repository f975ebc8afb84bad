"""A prior over the weights of a step network that knows of wells and of tunnelling between them.

A periodic path is drawn site by site: q_0 from a mixture, then each step with the rest of the path in view,

    p(q_{k+1} | q_k, q_0) = K(q_k, q_{k+1}) psi(q_{k+1}; q_0, tau) / N(q_k; q_0, tau),   tau = the time left to return,
    psi(x; y, tau) = sum_j exp(-tau v_j) Mehler_j(x, y; tau)  +  (1 - exp(-delta tau)) sum_ij phi_i(x) c_ij phi_j(y):

either the path stays about well j as an oscillator does, or it tunnels at the rate delta and forgets where in the
well it began. psi is a mixture of Gaussians in x, so each step is drawn exactly and N is known in closed form:
independent paths with a normalised density. The few numbers of psi (centres, frequencies, rates) are fitted by the
cross-entropy method: maximum likelihood on annealed paths, then once more on its own reweighted paths. Nothing here
looks at the transfer matrix; what psi misses, the weights correct.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from regauge.errors import InputError
from regauge.pathsum.independent import MixturePrior, reweight
from regauge.pathsum.lattice import Array, Lattice
from regauge.pathsum.potential import Potential
from regauge.pathsum.reference import covering
from regauge.pathsum.sample import resample
from regauge.pathsum.target import Target
from regauge.pathsum.tempering import annealed

Numbers = dict[str, Tensor]
CHUNK = 1000
ENOUGH = 0.7


@dataclass(frozen=True, eq=False)
class InstantonPrior:
    """`numbers`: first_share (J,), first_mean, first_logvar (J, D): the mixture for q_0; centre, logfreq (J, D),
    offset (J,): the wells; far_mean, far_logvar (J, D), far_share (J, J), lograte (): tunnelling. `evaluations` of
    the action spent on the fit."""

    lattice: Lattice
    numbers: Numbers = field(repr=False)
    evaluations: float = 0.0

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """n paths, (n, D, sites)."""
        source = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with torch.no_grad():
            return _draw(self.numbers, self.lattice, n, source).numpy()

    def heated(self, heat: float = 10.0) -> "InstantonPrior":
        """The same prior with tunnelling `heat` times as fast, wells as much more alike and wider: for paths that
        the fit saw too few of."""
        warmer = {
            "lograte": self.numbers["lograte"] + math.log(heat),
            "offset": self.numbers["offset"] / heat,
            "logfreq": self.numbers["logfreq"] - math.log(1.3),
            "first_logvar": self.numbers["first_logvar"] + math.log(1.5),
            "far_logvar": self.numbers["far_logvar"] + math.log(1.5),
        }
        return replace(self, numbers=self.numbers | warmer)

    def log_density(self, q: Array) -> Array:
        """log p(q), (n,), exact."""
        with torch.no_grad():
            parts = [
                _log_density(self.numbers, self.lattice, torch.as_tensor(q[a : a + CHUNK]))
                for a in range(0, len(q), CHUNK)
            ]
        return torch.cat(parts).numpy()


def fit_instantons(
    lattice: Lattice,
    v: Potential,
    rng: np.random.Generator,
    wells: int | None = None,
    paths: int = 2000,
    rounds: int = 4,
    steps: int = 120,
) -> InstantonPrior:
    """Fit the prior to a potential on a periodic path lattice: `wells` components (default 3 for each coordinate, at
    most 9: some for the tops of barriers); `steps` of Adam in the first round and half as many in the others; rounds
    end early once the weights are even."""
    if len(lattice.axes) != 1 or lattice.time.ends != "periodic":
        raise InputError("the instanton prior draws closed paths in time: for fields and open ends use annealed()")
    wells = min(3**lattice.dim, 9) if wells is None else wells
    if wells < 1 or paths < 10 * wells or rounds < 1:
        raise InputError(
            f"instanton prior with {wells} wells, {paths} paths, {rounds} rounds: give at least 1, 10 per well, 1"
        )
    target = Target(lattice, v, covering(lattice, v).map(lattice))
    pilot = annealed(target, paths, rng)
    used, q = pilot.evaluations * paths, resample(pilot, paths, rng)
    numbers = _start(q, lattice, wells, rng)
    for turn in range(rounds):
        if turn:
            found = reweight(lattice, v, InstantonPrior(lattice, numbers), 2 * paths, rng)
            used, q = used + 2 * paths, resample(found, paths, rng)
            if turn > 1 and found.efficiency > ENOUGH:
                break
        numbers = _likeliest(numbers, lattice, q, steps if turn == 0 else steps // 2, rng)
    return InstantonPrior(lattice, numbers, used)


def defended(prior: InstantonPrior, share: float = 0.1) -> MixturePrior:
    """A `share` of heated paths mixed in: rare tunnelling then meets small weights rather than none (defensive
    importance sampling)."""
    return MixturePrior((prior, prior.heated()), (1 - share, share))


def _start(q: Array, lattice: Lattice, wells: int, rng: np.random.Generator) -> Numbers:
    sites = np.moveaxis(q, 1, 2).reshape(-1, lattice.dim)
    sites = sites[rng.integers(len(sites), size=min(len(sites), 5000))]
    centre, label = kmeans2(sites, wells, minit="++", rng=rng)
    spread = (
        np.stack([sites[label == j].var(0) if (label == j).sum() > 1 else sites.var(0) for j in range(wells)]) + 1e-3
    )
    share = np.array([max((label == j).mean(), 1e-3) for j in range(wells)])
    start = {
        "first_share": np.log(share),
        "first_mean": centre,
        "first_logvar": np.log(spread),
        "centre": centre,
        "logfreq": np.log(1 / (2 * lattice.mass * spread)),
        "offset": np.zeros(wells),
        "far_mean": centre,
        "far_logvar": np.log(2 * spread),
        "far_share": np.full((wells, wells), -1.0),
        "lograte": np.array(-1.0),
    }
    return {name: torch.tensor(value) for name, value in start.items()}


def _likeliest(numbers: Numbers, lattice: Lattice, q: Array, steps: int, rng: np.random.Generator) -> Numbers:
    numbers = {name: value.clone().requires_grad_(True) for name, value in numbers.items()}
    search = torch.optim.Adam(numbers.values(), lr=0.05)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(search, steps, 0.005)
    for _ in range(steps):
        batch = torch.as_tensor(q[rng.integers(len(q), size=256)])
        search.zero_grad()
        (-_log_density(numbers, lattice, batch).mean()).backward()
        search.step()
        falling.step()
    return {name: value.detach() for name, value in numbers.items()}


@dataclass(frozen=True)
class Mixture:
    """log weights (..., C), means and variances (..., C, D) of Gaussians."""

    logs: Tensor
    means: Tensor
    variances: Tensor

    def __call__(self, x: Tensor, wider: Tensor | float = 0.0) -> Tensor:
        """log of the sum at x (..., D), with `wider` added to the variances."""
        return torch.logsumexp(self.each(x, wider), -1)

    def each(self, x: Tensor, wider: Tensor | float = 0.0) -> Tensor:
        variance = self.variances + wider
        z = (x[..., None, :] - self.means) ** 2 / variance + torch.log(2 * math.pi * variance)
        return self.logs - 0.5 * z.sum(-1)


def _first(p: Numbers) -> Mixture:
    return Mixture(torch.log_softmax(p["first_share"], -1), p["first_mean"], p["first_logvar"].exp())


def _ahead(p: Numbers, mass: Tensor, y: Tensor, tau: Tensor) -> Mixture:
    """psi(.; y, tau) for y (..., D) and tau (..., ) that broadcast together."""
    freq = p["logfreq"].exp()
    t = tau[..., None, None] * freq
    away = y[..., None, :] - p["centre"]
    level = p["offset"] + 0.5 * freq.sum(-1)
    # Mehler's kernel in x: mean centre + away / cosh, variance tanh / (m omega); cosh = exp(t) (1 + exp(-2t)) / 2
    log_cosh = t + torch.log1p(torch.exp(-2 * t)) - math.log(2)
    near = -(0.5 * mass * freq * away**2 * torch.tanh(t) + 0.5 * (log_cosh - t)).sum(-1) - tau[..., None] * level
    spread = p["far_logvar"].exp()
    begin = -0.5 * ((y[..., None, :] - p["far_mean"]) ** 2 / spread + p["far_logvar"]).sum(-1)
    share = p["far_share"] + p["far_share"].T
    tunnelled = torch.log(-torch.expm1(-tau * p["lograte"].exp())) - tau * level.min()
    far = torch.logsumexp(share + begin[..., None, :], -1) + tunnelled[..., None]
    logs = torch.cat(torch.broadcast_tensors(near, far), -1)
    means = p["centre"] + away * torch.exp(-log_cosh)
    shape = (*logs.shape[:-1], *spread.shape)
    variances = torch.tanh(t) / (mass * freq)
    return Mixture(
        logs,
        torch.cat([means.expand(shape), p["far_mean"].expand(shape)], -2),
        torch.cat([variances.expand(shape), spread.expand(shape)], -2),
    )


def _step(lattice: Lattice) -> tuple[Tensor, Tensor, Tensor]:
    """mass (D,), eps/m (D,), and the time left after each of the steps 1 .. sites-1."""
    mass, eps = torch.tensor(lattice.mass), lattice.time.spacing
    return mass, eps / mass, eps * torch.arange(lattice.sites - 1, 0, -1, dtype=mass.dtype)


def _log_density(p: Numbers, lattice: Lattice, q: Tensor) -> Tensor:
    mass, width, left = _step(lattice)
    x = q.transpose(1, 2)
    here, there = x[:, :-1], x[:, 1:]
    psi = _ahead(p, mass, x[:, :1], left)
    free = -0.5 * ((there - here) ** 2 / width + torch.log(2 * math.pi * width)).sum(-1)
    return _first(p)(x[:, 0]) + (free + psi(there) - psi(here, width)).sum(1)


def _draw(p: Numbers, lattice: Lattice, n: int, source: torch.Generator) -> Tensor:
    mass, width, left = _step(lattice)

    def normal() -> Tensor:
        return torch.randn(n, lattice.dim, generator=source, dtype=mass.dtype)

    first = _first(p)
    pick = torch.multinomial(first.logs.exp(), n, True, generator=source)
    x = first.means[pick] + first.variances[pick].sqrt() * normal()
    path, begin, row = [x], x, torch.arange(n)
    for tau in left:
        psi = _ahead(p, mass, begin, tau.expand(n))
        pick = torch.multinomial(torch.softmax(psi.each(x, width), -1), 1, generator=source)[:, 0]
        mean, variance = psi.means[row, pick], psi.variances[row, pick]
        narrow = 1 / (1 / variance + 1 / width)
        x = narrow * (mean / variance + x / width) + narrow.sqrt() * normal()
        path.append(x)
    return torch.stack(path, -1)
