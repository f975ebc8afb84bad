"""The continuum: gauge transformations of neural ODEs, as values.

The convention, once: ACTIVE. y(r) = phi(r, x(t(r))) and F'(r, y) = d_r phi + D phi . tdot F(t(r), chi(r, y)). Formulas
have column vectors; states in code are batches of rows (..., d).
"""

from regauge.flow.affine import AffineDiffeo, BernsteinScale, LowRankDiffeo, ScaleDiffeo
from regauge.flow.breaking import BreakingReport, breaking_order, euler_coefficient, leading_breaking
from regauge.flow.clocks import (
    BernsteinClock,
    Clock,
    ComposedClock,
    IdentityClock,
    InverseClock,
    NetworkClock,
    PowerClock,
    ShiftClock,
)
from regauge.flow.comoving import ComovingSampler
from regauge.flow.coupling import CouplingDiffeo, CouplingLayer
from regauge.flow.diffeos import (
    CallableDiffeo,
    ComposedDiffeo,
    Diffeo,
    IdentityDiffeo,
    InverseDiffeo,
    PullDiffeo,
    ReclockedDiffeo,
)
from regauge.flow.fields import LogDensityField, divergence, divergence_estimate, from_xt, to_jax, to_torchdyn, to_xt
from regauge.flow.gauge import EndReport, Gauge, identity
from regauge.flow.knots import KnotClock, knot_gauge
from regauge.flow.lattice import LinkBlock, LinkNet, linear_chain, link_net
from regauge.flow.linear import LinearField, piecewise_wilson_line, wilson_line
from regauge.flow.penalties import acceleration, gauge_mass, kinetic, lorenz_penalty, straightness
from regauge.flow.samplers import TunedModel, load_tuned
from regauge.flow.schedules import (
    EDM,
    CondOT,
    Cosine,
    EpsilonField,
    Polynomial,
    VariancePreserving,
    between,
    from_condot,
)
from regauge.flow.solvers import METHODS, RungeKutta, conjugated, exact_flow, integrate
from regauge.flow.straight import LinearTransport, StraightLines, straight_field, straightening, to_linear_transport
from regauge.flow.transport import TransportedField, dress, log_det_correction, stabiliser_defect, transport
from regauge.flow.tune import Candidate, Tuned, TuneOptions, tune

__all__ = [
    "AffineDiffeo",
    "BernsteinClock",
    "BernsteinScale",
    "BreakingReport",
    "CallableDiffeo",
    "Candidate",
    "Clock",
    "ComovingSampler",
    "ComposedClock",
    "ComposedDiffeo",
    "CondOT",
    "Cosine",
    "CouplingDiffeo",
    "CouplingLayer",
    "Diffeo",
    "EDM",
    "EndReport",
    "EpsilonField",
    "Gauge",
    "IdentityClock",
    "IdentityDiffeo",
    "InverseClock",
    "InverseDiffeo",
    "KnotClock",
    "LinearField",
    "LinearTransport",
    "LinkBlock",
    "LinkNet",
    "LogDensityField",
    "LowRankDiffeo",
    "METHODS",
    "NetworkClock",
    "Polynomial",
    "PowerClock",
    "PullDiffeo",
    "ReclockedDiffeo",
    "RungeKutta",
    "ScaleDiffeo",
    "ShiftClock",
    "StraightLines",
    "Tuned",
    "TuneOptions",
    "TunedModel",
    "TransportedField",
    "VariancePreserving",
    "acceleration",
    "between",
    "breaking_order",
    "conjugated",
    "divergence",
    "divergence_estimate",
    "dress",
    "euler_coefficient",
    "exact_flow",
    "from_condot",
    "from_xt",
    "gauge_mass",
    "identity",
    "integrate",
    "kinetic",
    "knot_gauge",
    "leading_breaking",
    "linear_chain",
    "link_net",
    "load_tuned",
    "log_det_correction",
    "lorenz_penalty",
    "piecewise_wilson_line",
    "stabiliser_defect",
    "straight_field",
    "straightening",
    "straightness",
    "to_jax",
    "to_linear_transport",
    "to_torchdyn",
    "to_xt",
    "transport",
    "tune",
    "wilson_line",
]
