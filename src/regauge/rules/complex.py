"""Complex numbers as pairs of real ones; a product with given numbers turns each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.registry import rule


@dataclass(frozen=True)
class Complex:
    """Complex numbers that depend on parameters. inner: (*shape, 2), real and imaginary parts."""

    inner: Value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape[:-1]

    @property
    def ndim(self) -> int:
        return self.inner.ndim - 1

    @property
    def learned(self) -> bool:
        return self.inner.learned

    @property
    def data(self) -> bool:
        return self.inner.data


@rule("aten.view_as_complex.default", samples=lambda t: [(t(3, 4, 2),)])
def view_as_complex(b: Builder, x: Value) -> Complex:
    return Complex(x)


@rule("aten.view_as_real.default", samples=lambda t: [(torch.view_as_complex(t(3, 4, 2)),)])
def view_as_real(b: Builder, x: Complex) -> Value:
    if not isinstance(x, Complex):
        raise NotImplementedError("complex numbers that a parameter holds")
    return x.inner


def turned(b: Builder, x: Complex, c: Value | float) -> Complex:
    """c x, with (re, im) -> (a re - b im, b re + a im) for c = a + i b: a Mix of the last axis with pairs side by side."""
    if isinstance(c, int | float):
        return Complex(b.scale(x.inner, float(c)))
    if not isinstance(c, Value) or c.learned:
        raise NotImplementedError("a product of complex numbers that both depend on parameters")
    if tuple(torch.broadcast_shapes(x.shape, c.shape)) != x.shape:
        raise NotImplementedError("complex numbers that a product makes larger")
    try:
        given = c.op.thunk()  # type: ignore[union-attr]
    except KeyError as error:
        raise NotImplementedError("a product with complex numbers whose values are not known") from error
    n = x.shape[-1]
    flat = b.reshape(x.inner, [*x.shape[:-1], 2 * n])
    y = b.mix(flat, -1, turns(given, n), f"turn:{c.id}:{n}")
    return Complex(b.reshape(y, x.inner.shape))


def turns(c: Tensor, n: int) -> Tensor:
    """(.., 2n, 2n): blocks [[a, -b], [b, a]] on the diagonal."""
    c = c.expand(*c.shape[:-1], n) if c.ndim else c.expand(n)
    real, imaginary = (c.real, c.imag) if c.is_complex() else (c, torch.zeros_like(c))
    m = torch.zeros(*c.shape[:-1], 2 * n, 2 * n, dtype=real.dtype)
    even = torch.arange(0, 2 * n, 2)
    m[..., even, even] = real
    m[..., even + 1, even + 1] = real
    m[..., even, even + 1] = -imaginary
    m[..., even + 1, even] = imaginary
    return m


def multiply(b: Builder, x: Any, y: Any) -> Complex:
    return turned(b, x, y) if isinstance(x, Complex) else turned(b, y, x)


@rule(
    "aten.fft_fftn.default", samples=lambda t: [(t(3, 4, 5), None, [-2, -1]), (t(3, 4), None, [0], "ortho"), (t(3, 4),)]
)
def fftn(
    b: Builder, x: Value, sizes: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = None
) -> Complex:
    """Linear along the transformed axes, and a real and an imaginary part for each place."""
    if sizes is not None or not isinstance(x, Value):
        raise NotImplementedError("a Fourier transform of complex numbers, or one that pads or cuts")
    along = [a % x.ndim for a in axes] if axes is not None else list(range(x.ndim))

    def transform(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.fftn(x, dim=along, norm=norm))

    transform.__regauge_key__ = ("fftn", tuple(along), norm)  # type: ignore[attr-defined]
    out, sizes = [*along, x.ndim], [*(x.shape[a] for a in along), 2]
    return Complex(b.along("fftn", transform, x, along, out_axes=out, sizes=sizes, linear=True))
