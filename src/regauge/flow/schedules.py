"""Closed-form scale-time gauges between the noise schedules of generative models.

A schedule (alpha, sigma) writes a state as alpha(r) data + sigma(r) noise, data at r = 1. From the straight (CondOT)
schedule alpha = t, sigma = 1 - t the gauge is

    t = alpha / (alpha + sigma),  s = alpha + sigma,  tdot = (alpha' sigma - alpha sigma') / (alpha + sigma)^2

which is regular wherever alpha' and sigma' are finite: nothing is divided by t, 1 - t, alpha or sigma, so solvers may
evaluate both ends. Between any two schedules, go through CondOT (`between`).

Variance preserving schedules have sigma ~ sqrt(1 - r): in their *own* time the velocity is infinite at the data end,
for every library. The default is therefore the same path in root time r = 1 - (1 - q)^2, smooth at both ends.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from regauge.errors import InputError
from regauge.flow.affine import ScaleDiffeo
from regauge.flow.clocks import Clock
from regauge.flow.fields import Field
from regauge.flow.gauge import Gauge


class Schedule(ABC):
    """alpha(r), sigma(r) and their derivatives, r in [0, 1], data at r = 1."""

    @abstractmethod
    def at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma)."""

    @abstractmethod
    def rates(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """(d alpha / dr, d sigma / dr)."""


class CondOT(Schedule):
    """alpha = r, sigma = 1 - r: straight lines between noise and data."""

    def at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return r, 1 - r

    def rates(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(r), -torch.ones_like(r)


class Cosine(Schedule):
    """alpha = sin(pi r / 2), sigma = cos(pi r / 2)."""

    def at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(math.pi / 2 * r), torch.cos(math.pi / 2 * r)

    def rates(self, r: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.at(r)
        return math.pi / 2 * sigma, -math.pi / 2 * alpha


class Polynomial(Schedule):
    """alpha = r^n, sigma = 1 - r^n."""

    def __init__(self, power: float) -> None:
        if power < 1:
            raise InputError(f"Polynomial: power {power} has an infinite rate at r = 0; give at least 1")
        self.power = float(power)

    def at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        alpha = r**self.power
        return alpha, 1 - alpha

    def rates(self, r: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.power * r ** (self.power - 1)
        return rate, -rate


class EDM(Schedule):
    """alpha = 1, sigma = sigma_max (1 - r)^rho: the variance-exploding gauge with the rho clock, down to sigma = 0."""

    def __init__(self, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        self.sigma_max, self.rho = float(sigma_max), float(rho)

    def at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(r), self.sigma_max * (1 - r) ** self.rho

    def rates(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(r), -self.sigma_max * self.rho * (1 - r) ** (self.rho - 1)


class VariancePreserving(Schedule):
    """alpha = exp(-B/2), sigma = sqrt(1 - exp(-B)), B(u) = u^2 (beta_max - beta_min)/2 + u beta_min, u = 1 - r.

    root_time (default): u = (1 - r)^2 instead, so that sigma is proportional to 1 - r at the data end and every rate is
    finite. In its own time (root_time=False) rates at r = 1 raise InputError instead of returning NaN.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, root_time: bool = True) -> None:
        self.beta_min, self.beta_max, self.root_time = float(beta_min), float(beta_max), root_time

    def _age(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """(u, square root of u)."""
        return ((1 - r) ** 2, 1 - r) if self.root_time else (1 - r, (1 - r).clamp_min(0).sqrt())

    def at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        u, root = self._age(r)
        per = 0.5 * u * (self.beta_max - self.beta_min) + self.beta_min
        return torch.exp(-0.5 * u * per), root * (per * _expm1_over(u * per)).sqrt()

    def rates(self, r: Tensor) -> tuple[Tensor, Tensor]:
        u, root = self._age(r)
        slope = self.beta_min + u * (self.beta_max - self.beta_min)
        alpha, _ = self.at(r)
        per = 0.5 * u * (self.beta_max - self.beta_min) + self.beta_min
        unit_sigma = (per * _expm1_over(u * per)).sqrt()
        if self.root_time:
            return alpha * slope * root, -(alpha**2) * slope / unit_sigma
        if bool((root == 0).any()):
            raise InputError(
                "VariancePreserving(root_time=False): the rate of sigma = sqrt(1 - alpha^2) is infinite at r = 1; "
                "use root_time=True, or a solver that never evaluates the last time (euler, midpoint)"
            )
        return 0.5 * alpha * slope, -0.5 * alpha**2 * slope / (root * unit_sigma)


def _expm1_over(z: Tensor) -> Tensor:
    """(1 - e^-z) / z, with its limit 1 at z = 0."""
    safe = torch.where(z.abs() < 1e-12, torch.ones_like(z), z)
    return torch.where(z.abs() < 1e-12, torch.ones_like(z), -torch.expm1(-safe) / safe)


class ScheduleClock(Clock):
    """t(r) = alpha / (alpha + sigma): the CondOT time with the same signal-to-noise ratio."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, r: Tensor) -> Tensor:
        alpha, sigma = self.schedule.at(r)
        return alpha / (alpha + sigma)

    def rate(self, r: Tensor) -> Tensor:
        (alpha, sigma), (alpha_rate, sigma_rate) = self.schedule.at(r), self.schedule.rates(r)
        return (alpha_rate * sigma - alpha * sigma_rate) / (alpha + sigma) ** 2


class StretchedClock(Clock):
    """An affine stretch of a clock, so that its ends are exactly [low, high]."""

    def __init__(self, clock: Clock, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.clock = clock
        self.start, self.end = clock.start, clock.end
        first, last = clock.ends()
        self.factor = (high - low) / (last - first)
        self.offset = low - self.factor * first

    def forward(self, r: Tensor) -> Tensor:
        return self.offset + self.factor * self.clock(r)

    def rate(self, r: Tensor) -> Tensor:
        return self.factor * self.clock.rate(r)


def from_condot(schedule: Schedule, stretch: bool = False) -> Gauge:
    """The gauge that takes the CondOT schedule to `schedule`.

    Schedules that begin with a little signal (variance preserving: alpha(0) = 0.0066; EDM) start at a CondOT time
    t(0) > 0, as `gauge.ends` says. stretch=True stretches the clock so that t(0) = 0 and t(1) = 1 and nothing of the
    flow is left out.
    """

    def log_scale(r: Tensor) -> Tensor:
        alpha, sigma = schedule.at(r)
        return (alpha + sigma).log()

    def log_rate(r: Tensor) -> Tensor:
        (alpha, sigma), (alpha_rate, sigma_rate) = schedule.at(r), schedule.rates(r)
        return (alpha_rate + sigma_rate) / (alpha + sigma)

    clock: Clock = ScheduleClock(schedule)
    return Gauge(ScaleDiffeo(log_scale, log_rate), StretchedClock(clock) if stretch else clock)


def between(source: Schedule, target: Schedule) -> Gauge:
    """The gauge from one schedule to another, by way of CondOT."""
    if isinstance(source, CondOT):
        return from_condot(target)
    return from_condot(target) @ from_condot(source).inverse()


class EpsilonField:
    """Probability flow of a noise-predicting model eps(r, x): u = alpha' (x - sigma eps)/alpha + sigma' eps.

    Needs alpha > 0 on the whole interval (a diffusion schedule), and raises where that fails.
    """

    def __init__(self, epsilon: Field, schedule: Schedule) -> None:
        self.epsilon, self.schedule = epsilon, schedule

    def __call__(self, r: Tensor, x: Tensor) -> Tensor:
        (alpha, sigma), (alpha_rate, sigma_rate) = self.schedule.at(r), self.schedule.rates(r)
        if not bool((alpha > 0).all()):
            raise InputError("EpsilonField: alpha is 0 at this time, so data cannot be read off the noise; start later")
        noise = self.epsilon(r, x)
        drift, push = alpha_rate / alpha, sigma_rate - sigma * alpha_rate / alpha
        return _column(drift) * x + _column(push) * noise


def _column(r: Tensor) -> Tensor:
    return r if r.dim() == 0 else r.unsqueeze(-1)


SCHEDULES: dict[str, Schedule] = {
    "condot": CondOT(),
    "cosine": Cosine(),
    "vp": VariancePreserving(),
    "edm": EDM(),
}
