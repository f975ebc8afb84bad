"""Pooling and interpolation over the last axes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.registry import Draw, Samples, operator, rule


def _image(t: Draw, dims: int) -> Tensor:
    return t(1, 2, *[6, 4, 4][:dims])


def resample(name: str, packet: str, dims: int, fn: Any, linear: bool, samples: Samples) -> None:
    """Register an operator that maps the last axes as a whole, the same for every channel."""

    def lower(b: Builder, x: Value, *args: Any, **kwargs: Any) -> Value:
        def call(x: Tensor) -> Tensor:
            return fn(x, *args, **kwargs)

        sizes = list(fn(torch.empty(x.shape, device="meta"), *args, **kwargs).shape[-dims:])
        axes = range(x.ndim - dims, x.ndim)
        ones = torch.ones(1, 1, *x.shape[-dims:], dtype=torch.float64)
        kept = not linear or bool(
            ((call(ones) - 1).abs() < 1e-12).all()
        )  # a mean that pads with zeros keeps no constant
        return b.along(packet, call, x, axes, out_axes=axes, sizes=sizes, linear=linear, degree=1, constants=kept)

    lower.__name__ = packet
    rule(name, samples=samples)(lower)


for _dims in (1, 2, 3):
    for _kind, _linear in (("avg_pool", True), ("adaptive_avg_pool", True), ("max_pool", False)):
        _packet = f"{_kind}{_dims}d"
        _draw = lambda t, n=_dims: [(_image(t, n), [2] * n)]  # noqa: E731
        resample(f"aten.{_packet}.default", _packet, _dims, getattr(F, _packet), _linear, _draw)
resample(
    "aten._adaptive_avg_pool2d.default",
    "adaptive_avg_pool2d",
    2,
    F.adaptive_avg_pool2d,
    True,
    lambda t: [(_image(t, 2), [2, 2])],
)


def _pool_with_places(dims: int) -> None:
    fn = getattr(F, f"max_pool{dims}d")

    @rule(f"aten.max_pool{dims}d_with_indices.default", samples=lambda t: [(_image(t, dims), [2] * dims, [2] * dims)])
    def pool(b: Builder, x: Value, *args: Any, **kwargs: Any) -> tuple[Value, Value]:
        """The largest entries, and where they are: places do not change when all entries are scaled."""
        sizes = list(fn(torch.empty(x.shape, device="meta"), *args, **kwargs).shape[-dims:])
        axes = range(x.ndim - dims, x.ndim)

        def places(x: Tensor) -> Tensor:
            return fn(x, *args, return_indices=True, **kwargs)[1].to(x.dtype)

        y = b.along(
            f"max_pool{dims}d",
            lambda x: fn(x, *args, **kwargs),
            x,
            axes,
            out_axes=axes,
            sizes=sizes,
            degree=1,
            constants=True,
        )
        return y, b.along("argmax_pool", places, x, axes, out_axes=axes, sizes=sizes, degree=0)


for _dims in (2, 3):
    _pool_with_places(_dims)
for _mode, _dims in (("nearest1d", 1), ("nearest2d", 2), ("nearest3d", 3)):
    _repeat = lambda t, n=_dims: [(_image(t, n), None, [2.0] * n), (_image(t, n), [3] * n, None)]  # noqa: E731
    resample(f"aten.upsample_{_mode}.vec", "upsample", _dims, operator(f"aten.upsample_{_mode}.vec"), True, _repeat)
for _mode, _dims in (("linear1d", 1), ("bilinear2d", 2), ("bicubic2d", 2), ("trilinear3d", 3)):
    _stretch = lambda t, n=_dims: [(_image(t, n), [3] * n, False, None), (_image(t, n), None, True, [2.0] * n)]  # noqa: E731
    resample(f"aten.upsample_{_mode}.vec", "upsample", _dims, operator(f"aten.upsample_{_mode}.vec"), True, _stretch)
