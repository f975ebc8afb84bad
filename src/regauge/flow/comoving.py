"""Per-step gauges: a smooth gauge for the whole interval, refined inside every step, in a frame that moves along.

With z(r) the state in the smooth gauge (clock t(r), scales b(r); identity at both ends), step k has its own local time
u in [0, 1], r = r_k(u), and the local gauge

    y(u) = exp(a_k(u)) [ z(r_k(u)) - sum_j p_kj(u) V_j ],    a_k(0) = p_kj(0) = 0,

an affine gauge transformation whose translation runs along velocities V_j = dz/du that have been evaluated: in earlier
steps, and in this one. It costs no evaluation. The chosen Runge-Kutta method integrates y; at the step's end the frame
is undone exactly. Zero parameters are the plain method. A method sees p only at its nodes, so p is given by its values
and rates there (a Hermite polynomial has them). Causality: p along the velocity of stage j is flat at every node that
was used before V_j was known.

Seen from z, a step of the given method in such a gauge is a step of some other explicit method that also remembers
earlier velocities: the gauge freedom contains the multistep methods (Euler contains Adams-Bashforth). The price: the
smooth part keeps the method's order as steps are added, but a local gauge is as rough as the steps are short, so it
belongs to the number of steps that it was tuned for.
"""

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.flow.affine import BernsteinScale
from regauge.flow.clocks import BernsteinClock, bernstein, bernstein_rate
from regauge.flow.fields import Field
from regauge.flow.gauge import Gauge
from regauge.flow.solvers import method_named


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
        # enough coefficients that every stage has its own value and rate
        inner = 4 if stages <= 2 else 5
        self.local_logits = nn.Parameter(torch.zeros(steps, inner))
        self.local_scales = nn.Parameter(torch.zeros(steps, inner, channels))
        slots = stages + min(memory, stages * (steps - 1))
        self.points = sorted({*self.rk.nodes, 1.0})
        self.values = nn.Parameter(torch.zeros(steps, len(self.points), slots))
        self.rates = nn.Parameter(torch.zeros(steps, len(self.points), slots))
        value_mask, rate_mask = self._causal(slots)
        self.register_buffer("value_mask", value_mask, persistent=False)
        self.register_buffer("rate_mask", rate_mask, persistent=False)

    def _causal(self, slots: int) -> tuple[Tensor, Tensor]:
        """Where p and its rate may differ from zero: (points, slots); slot j < stages is this step's V_j."""
        value, rate = torch.ones(len(self.points), slots), torch.ones(len(self.points), slots)
        value[0] = 0
        for j in range(self.rk.stages):
            for i, point in enumerate(self.points):
                value[i, j] *= float(point not in self.rk.nodes[: j + 1] and point > self.rk.nodes[j])
                rate[i, j] *= float(point not in self.rk.nodes[:j] and point >= self.rk.nodes[j])
        return value, rate

    @property
    def evaluations(self) -> int:
        return self.steps * self.rk.stages

    def smooth_parameters(self) -> list[nn.Parameter]:
        return [self.logits, self.scales]

    def local_parameters(self) -> list[nn.Parameter]:
        return [self.local_logits, self.local_scales, self.values, self.rates]

    def _scale_coefficients(self) -> Tensor:
        zero = torch.zeros_like(self.scales[:1])
        return torch.cat([zero, self.scales, zero])

    def gauge(self) -> Gauge:
        """The smooth part as a gauge on [0, 1] that is the identity at both ends: for any other solver library."""
        channels = self.scales.shape[1]
        space = BernsteinScale(len(self._scale_coefficients()) - 1, channels, self.frame)
        space.log_scale = nn.Parameter(self._scale_coefficients().detach().clone())
        return Gauge(space, BernsteinClock(self.degree, logits=nn.Parameter(self.logits.detach().clone())))

    def _tables(self) -> dict[str, Tensor]:
        """All scalars of all stages (K, S + 1, ...) at once; the last column is u = 1."""
        nodes = self.logits.new_tensor([*self.rk.nodes, 1.0])
        zero = self.logits.new_zeros(self.steps, 1)
        local = torch.cat([zero, torch.softmax(self.local_logits, 1).cumsum(1)], 1).T
        ones = torch.arange(self.steps).to(self.logits)[:, None]
        r = (ones + bernstein(local, nodes).T) / self.steps
        speed = bernstein_rate(local, nodes).T / self.steps
        clock = torch.cat([self.logits.new_zeros(1), torch.softmax(self.logits, 0).cumsum(0)])
        b = self._scale_coefficients()
        a = torch.cat([torch.zeros_like(self.local_scales[:, :1]), self.local_scales], 1).movedim(1, 0)
        where = [self.points.index(node) for node in (*self.rk.nodes, 1.0)]
        return {
            "t": bernstein(clock, r),
            "rate": speed * bernstein_rate(clock, r),
            "b": bernstein(b, r),
            "b_rate": speed[..., None] * bernstein_rate(b, r),
            "a": bernstein(a, nodes).movedim(0, 1),
            "a_rate": bernstein_rate(a, nodes).movedim(0, 1),
            "p": (self.values * self.value_mask)[:, where],
            "p_rate": (self.rates * self.rate_mask)[:, where],
        }

    def forward(self, field: Field, x: Tensor) -> Tensor:
        """x(1), differentiable in the sampler's parameters."""
        z = x if self.frame is None else x @ self.frame
        table = self._tables()
        past: list[Tensor] = []
        for k in range(self.steps):
            z = self._step(field, z, k, {name: value[k] for name, value in table.items()}, past)
        return z if self.frame is None else z @ self.frame.T

    def _step(self, field: Field, z: Tensor, k: int, at: dict[str, Tensor], past: list[Tensor]) -> Tensor:
        stages, slots = self.rk.stages, self.values.shape[2]
        earlier = past[-(slots - stages) :] if slots > stages else []
        slopes: list[Tensor] = []
        own: list[Tensor] = []
        start = z

        def along(weights: Tensor) -> Tensor | float:
            """sum_j weights_j V_j over what is known by now."""
            if not self.local or not (own or earlier):
                return 0.0
            used = torch.cat([weights[: len(own)], weights[stages : stages + len(earlier)]])
            return torch.tensordot(used, torch.stack([*own, *earlier]), dims=1)

        for i, row in enumerate(self.rk.matrix):
            y = start
            for weight, slope in zip(row, slopes, strict=True):
                if weight:
                    y = y + weight * slope
            z_here = (-at["a"][i]).exp() * y + along(at["p"][i])
            velocity = self._velocity(field, z_here, at, i)
            own.append(velocity)
            slopes.append(at["a_rate"][i] * y + at["a"][i].exp() * (velocity - along(at["p_rate"][i])))
        y = start
        for weight, slope in zip(self.rk.weights, slopes, strict=True):
            if weight:
                y = y + weight * slope
        past.extend(own)
        return (-at["a"][-1]).exp() * y + along(at["p"][-1])

    def _velocity(self, field: Field, z: Tensor, at: dict[str, Tensor], i: int) -> Tensor:
        """dz/du = b' z + e^b tdot F(t, e^-b z), in the frame."""
        x = (-at["b"][i]).exp() * z
        v = field(at["t"][i], x if self.frame is None else x @ self.frame.T)
        return at["b_rate"][i] * z + at["b"][i].exp() * at["rate"][i] * (v if self.frame is None else v @ self.frame)

    def degrees_of_freedom(self, smooth_only: bool = False) -> int:
        """Parameters that act: the causal mask and unused rates are not counted."""
        count = self.logits.numel() - 1 + self.scales.numel()
        if smooth_only:
            return count
        slots = self.values.shape[2] - self.rk.stages
        for k in range(self.steps):
            known = min(slots, k * self.rk.stages)
            columns = [*range(self.rk.stages), *range(self.rk.stages, self.rk.stages + known)]
            count += int(self.value_mask[:, columns].sum())
            count += sum(int(self.rate_mask[i, columns].sum()) for i, u in enumerate(self.points) if u in self.rk.nodes)
        return count + self.local_logits.numel() - self.steps + self.local_scales.numel()
