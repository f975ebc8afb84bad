"""A gauge from a lattice of sites: times and scales at knots, straight between them.

With N pieces, N Euler steps of the transported field are x += (s_k / s_{k+1}) (t_{k+1} - t_k) F(t_k, x) seen in the
chart: a step of their own length at sites of their own, for one evaluation each. Where such a lattice comes from is
another matter: `regauge.polytope.fit_lattice` lets a network generate it.
"""

from torch import Tensor

from regauge.errors import InputError
from regauge.flow.affine import ScaleDiffeo
from regauge.flow.clocks import Clock
from regauge.flow.gauge import Gauge

ROUNDING = 1e-5  # of a piece: a grid point that falls short of its knot belongs to the piece that starts there


class KnotClock(Clock):
    """t(r) through `times` (N + 1,), increasing, at r = 0, 1/N, ..., 1, straight between; rates are from the right."""

    def __init__(self, times: Tensor) -> None:
        super().__init__()
        if times.dim() != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
            raise InputError("KnotClock: times must be at least two increasing numbers, so that time runs forward")
        self.times: Tensor
        self.register_buffer("times", times)

    def forward(self, r: Tensor) -> Tensor:
        return _straight(self.times, r)

    def rate(self, r: Tensor) -> Tensor:
        return _slope(self.times, r)


def knot_gauge(times: Tensor, scales: Tensor) -> Gauge:
    """The gauge with clock through `times` and chart y = s(r) x through `scales`, both (N + 1,).

    Where the scales are 1 at both ends and the times run from 0 to 1 it keeps the ends, so that the transported field
    has the same map from x(0) to x(1). Rates jump at the knots, so a method that looks at the end of a step (rk4, heun)
    falls to first order there. Raises InputError for times that do not increase or scales that are not positive.
    """
    if scales.shape != times.shape or not bool((scales > 0).all()):
        raise InputError(f"knot_gauge: {tuple(scales.shape)} scales for {tuple(times.shape)} times; one positive each")

    def log_scale(r: Tensor) -> Tensor:
        return _straight(scales, r).log()

    def log_rate(r: Tensor) -> Tensor:
        return _slope(scales, r) / _straight(scales, r)

    return Gauge(ScaleDiffeo(log_scale, log_rate), KnotClock(times))


def _piece(values: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The piece that r is in, and how far, in pieces."""
    pieces = len(values) - 1
    at = r * pieces
    piece = (at + ROUNDING).floor().clamp(0, pieces - 1)
    return piece.long(), at - piece


def _straight(values: Tensor, r: Tensor) -> Tensor:
    piece, along = _piece(values, r)
    values = values.to(r.dtype)
    return values[piece] + along * (values[piece + 1] - values[piece])


def _slope(values: Tensor, r: Tensor) -> Tensor:
    piece, _ = _piece(values, r)
    return values.to(r.dtype).diff()[piece] * (len(values) - 1)
