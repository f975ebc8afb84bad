"""Per-step gauges: a smooth gauge for the whole interval, refined inside every step, in a frame that moves along.

With z(r) the state in the smooth gauge (clock t(r), scales b(r); identity at both ends), step k has its own local time
u in [0, 1] and the local gauge of *spacetime*, the time r being one more coordinate (dr/du is constant along a step):

    y(u) = exp(a_k(u)) [ z - sum_j p_kj(u) V_j ],   y^0(u) = r - q_k(u),   all zero at u = 0,

an affine gauge transformation whose translation runs along velocities V_j = dz/dr that have been evaluated, in earlier
steps and in this one, and along time itself. It costs no evaluation. The method integrates (y^0, y); at the step's end
the frame is undone exactly. Causality: p along V_j is flat at every node that was used before V_j was known.

Seen from z, every such gauge turns the method into an explicit method with memory,

    z_i = alpha_i z(0) + sum_{j < i} c_ij V_j,   V_i = dz/dr at (r_i, z_i),   z(1) = z_N,

and near the method itself they are all of them: times, scales and weights are as many independent numbers as the gauges
can change (`tests/flow/test_flow_orbit.py`). So the orbit of the method is searched directly, by (r, alpha, c): the same
answers as with (a, p, q), whose many redundant numbers make the search ill conditioned. Zero parameters are the plain
method; Euler's orbit contains Adams-Bashforth. Orbits of methods with equally many evaluations meet, so what a method
decides is where the search starts.

With `invariants`, the frame may also move along velocities times bounded functions of |z|^2 and |V|^2 where V was
evaluated: a translation that depends on the state, a nonlinear gauge.

The price: the smooth part keeps the method's order as steps are added, but a local gauge is as rough as the steps are
short, so it belongs to the number of steps that it was tuned for.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.flow.affine import BernsteinScale
from regauge.flow.clocks import BernsteinClock, bernstein, bernstein_rate
from regauge.flow.fields import Field
from regauge.flow.gauge import Gauge
from regauge.flow.solvers import RungeKutta, method_named

# of the central difference for dF/dt; its error only bends the search direction
TIME_STEP = 1e-3
# (rows, k) for every stage by name: one row for all samples, or one each
Table = Mapping[str, list[Tensor]]


class ComovingSampler(nn.Module):
    """x(1) from x(0) in `steps` steps of `method`: evaluations = steps x stages. States (batch, d).

    frame: orthogonal (d, d) for one scale per channel, None for a common one. memory: how many of the latest velocities
    a stage weighs anew; older ones keep the method's weights. unit: the mean square of a state, for the invariants.
    """

    def __init__(
        self,
        method: str,
        steps: int,
        frame: Tensor | None = None,
        degree: int = 8,
        memory: int = 64,
        invariants: bool = False,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"{steps} steps do not cross an interval; give at least 1")
        self.method, self.rk, self.steps = method, method_named(method), steps
        self.degree, self.memory, self.invariants, self.unit = degree, memory, invariants, unit
        channels = 1 if frame is None else len(frame)
        self.frame: Tensor | None
        self.free: Tensor
        self.register_buffer("frame", frame)
        self.logits = nn.Parameter(torch.zeros(degree))
        self.scales = nn.Parameter(torch.zeros(max(degree - 1, 1), channels))
        self.plain = tableau(self.rk, steps)
        late = torch.arange(self.evaluations + 1)[:, None] - torch.arange(self.evaluations)
        self.register_buffer("free", ((late > 0) & (late <= memory)).float(), persistent=False)
        self.times = nn.Parameter(torch.zeros(self.evaluations))
        self.local_scales = nn.Parameter(torch.zeros(self.evaluations + 1, channels))
        self.weights = nn.Parameter(torch.zeros(self.evaluations + 1, self.evaluations, 3 if invariants else 1))

    @property
    def evaluations(self) -> int:
        return self.steps * self.rk.stages

    def smooth_parameters(self) -> list[str]:
        """Names of the parameters of the smooth gauge."""
        return ["logits", "scales"]

    def local_parameters(self) -> list[str]:
        """Names of the parameters of the per-step gauges."""
        return ["times", "local_scales", "weights"]

    def take_smooth(self, other: "ComovingSampler") -> None:
        """The smooth gauge of a sampler that has as many scales, or one for all channels."""
        with torch.no_grad():
            self.logits.copy_(other.logits)
            self.scales.copy_(other.scales)

    def scatter(self, size: float, rng: torch.Generator) -> None:
        """Move the local gauges by normal numbers of that size over sqrt(evaluations): another start for a search."""
        with torch.no_grad():
            for name in self.local_parameters():
                p = self.get_parameter(name)
                draw = torch.randn(p.shape, generator=rng, dtype=torch.float64).to(p)
                p.add_(draw * size / self.evaluations**0.5)

    def _scale_coefficients(self) -> Tensor:
        zero = torch.zeros_like(self.scales[:1])
        return torch.cat([zero, self.scales, zero])

    def gauge(self) -> Gauge:
        """The smooth part as a gauge on [0, 1] that is the identity at both ends: for any other solver library."""
        channels = self.scales.shape[1]
        space = BernsteinScale(len(self._scale_coefficients()) - 1, channels, self.frame)
        space.log_scale = nn.Parameter(self._scale_coefficients().detach().clone())
        return Gauge(space, BernsteinClock(self.degree, logits=nn.Parameter(self.logits.detach().clone())))

    def tables(self) -> dict[str, list[Tensor]]:
        """The numbers of every stage, (1, k) each: t, dt/dr, b, db/dr (N stages), alpha, c (N stages and the end)."""
        plain_times, plain_weights = (numbers.to(self.times) for numbers in self.plain)
        moved = torch.cat([torch.zeros_like(self.times[:1]), self.times[1:]])
        r = (plain_times + moved).clamp(0, 1)
        clock = torch.cat([self.logits.new_zeros(1), torch.softmax(self.logits, 0).cumsum(0)])
        b = self._scale_coefficients()
        alpha = 1 + torch.cat([torch.zeros_like(self.local_scales[:1]), self.local_scales[1:]])
        c = self.weights * self.free.unsqueeze(-1)
        c = torch.cat([plain_weights.unsqueeze(-1) + c[..., :1], c[..., 1:]], -1)
        return {
            "t": list(bernstein(clock, r).view(-1, 1, 1)),
            "t_rate": list(bernstein_rate(clock, r).view(-1, 1, 1)),
            "b": list(bernstein(b, r).unsqueeze(1)),
            "b_rate": list(bernstein_rate(b, r).unsqueeze(1)),
            "alpha": list(alpha.unsqueeze(1)),
            "c": [row[:i].reshape(1, -1) for i, row in enumerate(c)],
        }

    def forward(self, field: Field, x: Tensor, table: Table | None = None) -> Tensor:
        """x(1), differentiable in the sampler's parameters.

        table: like `tables`, with one row for each sample. Then the gradient of one component of x(1), summed over
        samples, holds that row of every sample's Jacobian; field still sees one time per call.
        """
        at = self.tables() if table is None else table
        start = x if self.frame is None else x @ self.frame
        known: list[Tensor] = []
        for i in range(self.evaluations):
            z = _combine(at, i, start, known)
            velocity = self._velocity(field, z, at, i)
            known += [velocity, *(self._companions(z, velocity) if self.invariants else ())]
        z = _combine(at, self.evaluations, start, known)
        return z if self.frame is None else z @ self.frame.T

    def _companions(self, z: Tensor, velocity: Tensor) -> list[Tensor]:
        """The velocity times s / (1 + s), s = |z|^2 and |V|^2 in units of a typical state's."""
        sizes = (vector.square().sum(-1, keepdim=True) for vector in (z, velocity))
        return [size / (self.unit + size) * velocity for size in sizes]

    def _velocity(self, field: Field, z: Tensor, at: Table, i: int) -> Tensor:
        """dz/dr = b' z + e^b tdot F(t, e^-b z), in the frame."""
        x = (-at["b"][i]).exp() * z
        v = _at_time(field, at["t"][i].squeeze(-1), x if self.frame is None else x @ self.frame.T)
        v = v if self.frame is None else v @ self.frame
        return at["b_rate"][i] * z + at["b"][i].exp() * at["t_rate"][i] * v

    def degrees_of_freedom(self, smooth_only: bool = False) -> int:
        """Parameters that act."""
        count = self.logits.numel() - 1 + self.scales.numel()
        if smooth_only:
            return count
        weights = int(self.free.sum()) * self.weights.shape[2]
        return count + self.times.numel() - 1 + self.local_scales[1:].numel() + weights


def tableau(rk: RungeKutta, steps: int) -> tuple[Tensor, Tensor]:
    """(times (N,), weights (N + 1, N)) of N = steps x stages evaluations on [0, 1]; the last row makes the end."""
    stages, total = rk.stages, steps * rk.stages
    times, weights = torch.zeros(total, dtype=torch.float64), torch.zeros(total + 1, total, dtype=torch.float64)
    whole = torch.tensor(rk.weights, dtype=torch.float64) / steps
    for k in range(steps):
        first = k * stages
        weights[first + 1 :, first : first + stages] = whole
        for i, row in enumerate(rk.matrix):
            times[first + i] = (k + rk.nodes[i]) / steps
            weights[first + i, first : first + stages] = 0
            weights[first + i, first : first + len(row)] = torch.tensor(row, dtype=torch.float64) / steps
    return times, weights


def _combine(at: Table, i: int, start: Tensor, known: list[Tensor]) -> Tensor:
    """alpha_i z(0) + sum_j c_ij V_j."""
    z = at["alpha"][i] * start
    return z + (at["c"][i].unsqueeze(1) @ torch.stack(known, 1)).squeeze(1) if known else z


def _at_time(field: Field, t: Tensor, x: Tensor) -> Tensor:
    """F(t, x) at one time t (1,); or at equal times (batch,) that are told apart by their gradients only.

    Not every model takes one time per sample, and dF/dt is wanted for each: a central difference, no gradient through
    the model's own time.
    """
    if len(t) == 1:
        return field(t[0], x)
    here = t[0].detach()
    with torch.no_grad():
        rate = (field(here + TIME_STEP, x) - field(here - TIME_STEP, x)) / (2 * TIME_STEP)
    return field(here, x) + rate * (t - t.detach()).unsqueeze(-1)
