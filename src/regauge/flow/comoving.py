"""Per-step gauges: a smooth gauge for the whole interval, refined inside every step, in a frame that moves along.

With z(r) the state in the smooth gauge (clock t(r), scales b(r); identity at both ends), step k has its own local time
u in [0, 1] and the local gauge of *spacetime*, the time r being one more coordinate (dr/du is constant along a step):

    y(u) = exp(a_k(u)) [ z - sum_j p_kj(u) V_j ],   y^0(u) = r - q_k(u),   all zero at u = 0,

an affine gauge transformation whose translation runs along velocities V_j = dz/du that have been evaluated, in earlier
steps and in this one, and along time itself. It costs no evaluation. The chosen Runge-Kutta method integrates
(y^0, y); at the step's end the frame is undone exactly. Zero parameters are the plain method.

A method sees a gauge at its nodes only, so p is given there: by its value, and by its rate where a node is visited
twice (a Hermite polynomial has them). Causality: p along the velocity of stage j is flat at every node that was used
before V_j was known. Time's own coordinate needs no bookkeeping: values and rates of q at the nodes make the times of
all stages free, so these are the parameters, even where two stages of the method share a node.

Seen from z, a step of the given method in such a gauge is a step of some other explicit method that also remembers
earlier velocities: the gauge freedom contains the multistep methods (Euler contains Adams-Bashforth). The price: the
smooth part keeps the method's order as steps are added, but a local gauge is as rough as the steps are short, so it
belongs to the number of steps that it was tuned for.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from regauge.errors import InputError
from regauge.flow.affine import BernsteinScale
from regauge.flow.clocks import BernsteinClock, bernstein, bernstein_rate
from regauge.flow.fields import Field
from regauge.flow.gauge import Gauge
from regauge.flow.solvers import method_named

# of the central difference for dF/dt; its error only bends the search direction
TIME_STEP = 1e-3


class ComovingSampler(nn.Module):
    """x(1) from x(0) in `steps` steps of `method`: evaluations = steps x stages. States (batch, d).

    frame: orthogonal (d, d) for one scale per channel, None for a common one. local=False: the smooth gauge only.
    """

    def __init__(
        self,
        method: str,
        steps: int,
        frame: Tensor | None = None,
        degree: int = 8,
        local: bool = True,
        memory: int = 64,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"{steps} steps do not cross an interval; give at least 1")
        self.method, self.rk, self.steps, self.local = method, method_named(method), steps, local
        self.degree, self.memory = degree, memory
        channels = 1 if frame is None else len(frame)
        stages = self.rk.stages
        self.frame: Tensor | None
        self.value_mask: Tensor
        self.rate_mask: Tensor
        self.register_buffer("frame", frame)
        self.logits = nn.Parameter(torch.zeros(degree))
        self.scales = nn.Parameter(torch.zeros(max(degree - 1, 1), channels))
        slots = stages + min(memory, stages * (steps - 1))
        self.visits = (*self.rk.nodes, 1.0)
        self.points = sorted(set(self.visits))
        self.knots = nn.Parameter(torch.zeros(steps))
        self.times = nn.Parameter(torch.zeros(steps, stages))
        self.local_scales = nn.Parameter(torch.zeros(steps, len(self.points), channels))
        self.local_rates = nn.Parameter(torch.zeros(steps, len(self.points), channels))
        self.values = nn.Parameter(torch.zeros(steps, len(self.points), slots))
        self.rates = nn.Parameter(torch.zeros(steps, len(self.points), slots))
        value_mask, rate_mask = self._causal(slots)
        self.register_buffer("value_mask", value_mask, persistent=False)
        self.register_buffer("rate_mask", rate_mask, persistent=False)

    def _causal(self, slots: int) -> tuple[Tensor, Tensor]:
        """Where p and its rate may differ from zero: (points, slots); slot j < stages is this step's V_j."""
        value, rate = torch.ones(len(self.points), slots), torch.ones(len(self.points), slots)
        value[0] = 0
        for i, point in enumerate(self.points):
            rate[i] *= float(self.visits.count(point) > 1)
            for j in range(self.rk.stages):
                value[i, j] *= float(point not in self.rk.nodes[: j + 1] and point > self.rk.nodes[j])
                rate[i, j] *= float(point not in self.rk.nodes[:j] and point >= self.rk.nodes[j])
        return value, rate

    @property
    def evaluations(self) -> int:
        return self.steps * self.rk.stages

    def smooth_parameters(self) -> list[str]:
        """Names of the parameters of the smooth gauge."""
        return ["logits", "scales"]

    def local_parameters(self) -> list[str]:
        """Names of the parameters of the per-step gauges."""
        return ["knots", "times", "local_scales", "local_rates", "values", "rates"]

    def scatter(self, size: float, rng: torch.Generator) -> None:
        """Move the local gauges by normal numbers of that size, times by a third of it: another start for a search."""
        with torch.no_grad():
            for name in ("times", "local_scales", "local_rates", "values", "rates"):
                p = self.get_parameter(name)
                draw = torch.randn(p.shape, generator=rng, dtype=torch.float64).to(p)
                p.add_(draw * (size / 3 if name == "times" else size))

    def _scale_coefficients(self) -> Tensor:
        zero = torch.zeros_like(self.scales[:1])
        return torch.cat([zero, self.scales, zero])

    def gauge(self) -> Gauge:
        """The smooth part as a gauge on [0, 1] that is the identity at both ends: for any other solver library."""
        channels = self.scales.shape[1]
        space = BernsteinScale(len(self._scale_coefficients()) - 1, channels, self.frame)
        space.log_scale = nn.Parameter(self._scale_coefficients().detach().clone())
        return Gauge(space, BernsteinClock(self.degree, logits=nn.Parameter(self.logits.detach().clone())))

    def tables(self) -> dict[str, Tensor]:
        """All numbers of all stages (K, S + 1, ...) at once; the last column is u = 1."""
        widths = torch.softmax(self.knots, 0)
        ends = widths.cumsum(0)
        nodes = self.logits.new_tensor(self.visits)
        stages = nodes + torch.cat([torch.zeros_like(self.times[:, :1]), self.times[:, 1:], 0 * self.times[:, :1]], 1)
        r = ((ends - widths)[:, None] + widths[:, None] * stages).clamp(0, 1)
        clock = torch.cat([self.logits.new_zeros(1), torch.softmax(self.logits, 0).cumsum(0)])
        b = self._scale_coefficients()
        where = [self.points.index(node) for node in self.visits]
        at_zero = torch.cat([torch.zeros_like(self.local_scales[:, :1]), self.local_scales[:, 1:]], 1)
        return {
            "t": bernstein(clock, r),
            "rate": widths[:, None] * bernstein_rate(clock, r),
            "b": bernstein(b, r),
            "b_rate": widths[:, None, None] * bernstein_rate(b, r),
            "a": at_zero[:, where],
            "a_rate": self.local_rates[:, where],
            "p": (self.values * self.value_mask)[:, where],
            "p_rate": (self.rates * self.rate_mask)[:, where],
        }

    def forward(self, field: Field, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """x(1), differentiable in the sampler's parameters.

        parameters: one setting per sample, (batch, ...) each, in place of the sampler's own. Then the gradient of one
        row of x(1) is that sample's Jacobian; field still sees one time per call.
        """
        z = x if self.frame is None else x @ self.frame
        if parameters is None:
            table = {name: value.unsqueeze(0) for name, value in self.tables().items()}
        else:
            table = vmap(lambda own: functional_call(_Tables(self), {f"of.{n}": v for n, v in own.items()}, ()))(
                dict(parameters)
            )
        past: list[Tensor] = []
        for k in range(self.steps):
            z = self._step(field, z, {name: value[:, k] for name, value in table.items()}, past)
        return z if self.frame is None else z @ self.frame.T

    def _step(self, field: Field, z: Tensor, at: Mapping[str, Tensor], past: list[Tensor]) -> Tensor:
        stages, slots = self.rk.stages, self.values.shape[2]
        earlier = past[-(slots - stages) :] if slots > stages else []
        slopes: list[Tensor] = []
        own: list[Tensor] = []
        start = z

        def along(weights: Tensor) -> Tensor | float:
            """sum_j weights_j V_j over what is known by now; weights (1 or batch, slots)."""
            if not self.local or not (own or earlier):
                return 0.0
            used = torch.cat([weights[:, : len(own)], weights[:, stages : stages + len(earlier)]], 1)
            return (used.T.unsqueeze(-1) * torch.stack([*own, *earlier])).sum(0)

        for i, row in enumerate(self.rk.matrix):
            y = start
            for weight, slope in zip(row, slopes, strict=True):
                if weight:
                    y = y + weight * slope
            z_here = (-at["a"][:, i]).exp() * y + along(at["p"][:, i])
            velocity = self._velocity(field, z_here, at, i)
            own.append(velocity)
            slopes.append(at["a_rate"][:, i] * y + at["a"][:, i].exp() * (velocity - along(at["p_rate"][:, i])))
        y = start
        for weight, slope in zip(self.rk.weights, slopes, strict=True):
            if weight:
                y = y + weight * slope
        past.extend(own)
        return (-at["a"][:, -1]).exp() * y + along(at["p"][:, -1])

    def _velocity(self, field: Field, z: Tensor, at: Mapping[str, Tensor], i: int) -> Tensor:
        """dz/du = b' z + e^b tdot F(t, e^-b z), in the frame."""
        x = (-at["b"][:, i]).exp() * z
        v = _at_time(field, at["t"][:, i], x if self.frame is None else x @ self.frame.T)
        v = v if self.frame is None else v @ self.frame
        return at["b_rate"][:, i] * z + at["b"][:, i].exp() * at["rate"][:, i].unsqueeze(-1) * v

    def degrees_of_freedom(self, smooth_only: bool = False) -> int:
        """Parameters that act: the causal mask and unused rates are not counted."""
        count = self.logits.numel() - 1 + self.scales.numel()
        if smooth_only:
            return count
        slots = self.values.shape[2] - self.rk.stages
        for k in range(self.steps):
            known = min(slots, k * self.rk.stages)
            columns = [*range(self.rk.stages), *range(self.rk.stages, self.rk.stages + known)]
            count += int(self.value_mask[:, columns].sum()) + int(self.rate_mask[:, columns].sum())
        channels = self.local_scales.shape[2]
        scales = (len(self.points) - 1 + len(set(self.rk.nodes))) * channels
        return count + self.steps * (scales + self.rk.stages - 1) + self.steps - 1


class _Tables(nn.Module):
    """`tables` as a forward, for functional_call."""

    def __init__(self, of: ComovingSampler) -> None:
        super().__init__()
        self.of = of

    def forward(self) -> dict[str, Tensor]:
        return self.of.tables()


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
