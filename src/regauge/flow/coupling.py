"""General spatial diffeomorphisms as small invertible networks: time-dependent affine coupling layers.

One layer keeps half of the coordinates (in a chosen orthogonal frame) and moves the other half by a scale and a shift
that are smooth functions of (r, kept half): inverse and log-determinant in closed form, the tangent by one forward-mode
pass. All activations are smooth, so that a gauge never lowers the order of a Runge-Kutta method.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import jvp

from regauge.errors import InputError
from regauge.flow.diffeos import Diffeo, column


class CouplingLayer(Diffeo):
    """y_a = x_a, y_b = exp(s(r, x_a)) x_b + m(r, x_a), with |s| < bound. Fresh layers are the identity."""

    def __init__(self, dim: int, keep: Tensor, hidden: int = 32, bound: float = 2.0, depth: int = 2) -> None:
        super().__init__()
        if dim < 2:
            raise InputError("CouplingLayer: one coordinate has no other half to depend on; use BernsteinScale")
        mask = torch.zeros(dim, dtype=torch.bool)
        mask[keep] = True
        self.kept: Tensor
        self.moved: Tensor
        self.order: Tensor
        self.register_buffer("kept", torch.nonzero(mask).squeeze(-1))
        self.register_buffer("moved", torch.nonzero(~mask).squeeze(-1))
        self.register_buffer("order", torch.argsort(torch.cat([self.kept, self.moved])))
        self.bound = bound
        widths = [len(self.kept) + 3] + [hidden] * depth
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(a, b), nn.SiLU()]
        last = nn.Linear(hidden, 2 * len(self.moved))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(*layers, last)

    def _scale_shift(self, r: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        time = column(r, kept).expand(*kept.shape[:-1], 1).to(kept.dtype)
        wave = torch.pi * time
        raw = self.net(torch.cat([kept, time, wave.cos(), wave.sin()], -1))
        log_scale, shift = raw.chunk(2, -1)
        return self.bound * torch.tanh(log_scale / self.bound), shift

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., self.kept], x[..., self.moved]

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([kept, moved], -1)[..., self.order]

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        kept, moved = self._split(x)
        log_scale, shift = self._scale_shift(r, kept)
        return self._join(kept, log_scale.exp() * moved + shift)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        kept, moved = self._split(y)
        log_scale, shift = self._scale_shift(r, kept)
        return self._join(kept, (-log_scale).exp() * (moved - shift))

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        (kept, moved), (kept_v, moved_v) = self._split(x), self._split(v)
        speed = rdot.expand_as(r).to(r.dtype)
        (log_scale, _), (scale_v, shift_v) = jvp(self._scale_shift, (r, kept), (speed, kept_v))[:2]
        return self._join(kept_v, log_scale.exp() * (moved_v + scale_v * moved) + shift_v)

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return self._scale_shift(r, self._split(x)[0])[0].sum(-1)


class CouplingDiffeo(Diffeo):
    """`layers` coupling layers that keep alternating halves, in the orthogonal frame Q (columns; None: the axes)."""

    def __init__(
        self, dim: int, layers: int = 4, hidden: int = 32, frame: Tensor | None = None, depth: int = 2
    ) -> None:
        super().__init__()
        index = torch.arange(dim)
        halves = [index[index % 2 == 0], index[index % 2 == 1]]
        self.layers = nn.ModuleList(CouplingLayer(dim, halves[k % 2], hidden, depth=depth) for k in range(layers))
        self.frame: Tensor | None
        self.register_buffer("frame", frame)

    def _stack(self) -> list[CouplingLayer]:
        return cast(list[CouplingLayer], list(self.layers))

    def _into(self, x: Tensor) -> Tensor:
        return x if self.frame is None else x @ self.frame.to(x.dtype)

    def _out(self, x: Tensor) -> Tensor:
        return x if self.frame is None else x @ self.frame.to(x.dtype).T

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        x = self._into(x)
        for layer in self._stack():
            x = layer.push(r, x)
        return self._out(x)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        y = self._into(y)
        for layer in reversed(self._stack()):
            y = layer.pull(r, y)
        return self._out(y)

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        x, v = self._into(x), self._into(v)
        for layer in self._stack():
            x, v = layer.push(r, x), layer.tangent(r, x, v, rdot)
        return self._out(v)

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        x, total = self._into(x), x.new_zeros(x.shape[:-1])
        for layer in self._stack():
            total = total + layer.log_det(r, x)
            x = layer.push(r, x)
        return total
