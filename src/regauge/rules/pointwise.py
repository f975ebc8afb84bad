"""Elementwise functions: the degree of homogeneity and the parity are all that symmetry asks of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Concat, Einsum, Free, Pointwise, Reshape, Slice, Value
from regauge.rules.registry import Draw, Samples, operator, rule

aten = torch.ops.aten
UNREACHED = -1e30  # no score is as low, but those that a mask has closed


def keyed(name: str, *args: Any, at: int = 0, **kwargs: Any) -> Any:
    """The operator with its further arguments bound, comparable by them, so that equal calls become one value."""
    target = operator(name)

    def call(*xs: torch.Tensor) -> torch.Tensor:
        return target(*xs, *args, **kwargs)

    call.__regauge_key__ = (name, repr(args), repr(sorted(kwargs.items())))  # type: ignore[attr-defined]
    return call


def truth(name: str, *args: Any) -> Any:
    """The operator with its truth values as 1 and 0 of the type of its operands."""
    inner = keyed(name, *args)

    def call(*xs: torch.Tensor) -> torch.Tensor:
        wide = [x.dtype for x in xs if x.is_floating_point()]
        y = inner(*xs)
        return y.to(wide[0]) if wide else y

    call.__regauge_key__ = inner.__regauge_key__  # type: ignore[attr-defined]
    return call


def _matrix(draw: Draw) -> list[tuple[Any, ...]]:
    return [(draw(3, 5),)]


def _positive(draw: Draw) -> list[tuple[Any, ...]]:
    return [(draw(3, 5).abs() + 0.5,)]


def _unit(draw: Draw) -> list[tuple[Any, ...]]:
    return [(draw(3, 5).sigmoid() * 0.9 + 0.05,)]


def unary(name: str, degree: float | None = None, parity: str = "", samples: Samples = _matrix) -> None:
    """Register an elementwise function of one tensor; further arguments of the operator are kept."""

    def lower(b: Builder, x: Value, *args: Any, **kwargs: Any) -> Value:
        return b.pointwise(name, keyed(name, *args, **kwargs), x, degree=degree, parity=parity)

    lower.__name__ = name.split(".")[1]
    rule(name, samples=samples)(lower)


for _name in ("relu", "leaky_relu", "rrelu"):
    unary(f"aten.{_name}.default", degree=1)
for _name in (
    "elu selu celu gelu silu mish softplus sigmoid log_sigmoid relu6 hardswish hardsigmoid exp exp2 expm1 erfc"
).split():
    unary(f"aten.{_name}.default")
for _name in ("log", "log2", "log10", "log1p", "digamma", "lgamma"):
    unary(f"aten.{_name}.default", samples=_positive)
for _name in "tanh sin tan sinh asinh atan erf trunc round hardshrink softshrink special_i1".split():
    unary(f"aten.{_name}.default", parity="odd")
for _name in ("asin", "atanh", "erfinv"):
    unary(f"aten.{_name}.default", parity="odd", samples=_unit)
for _name in ("acos", "logit"):
    unary(f"aten.{_name}.default", samples=_unit)
unary("aten.acosh.default", samples=lambda t: [(t(3, 5).abs() + 1.5,)])
for _name in ("cos", "cosh", "sinc"):
    unary(f"aten.{_name}.default", parity="even")
for _name in ("floor", "ceil", "frac"):
    unary(f"aten.{_name}.default")
unary("aten.round.decimals", parity="odd", samples=lambda t: [((t(3, 5),), dict(decimals=1))])
unary("aten.abs.default", degree=1, parity="even")
unary("aten.sign.default", degree=0, parity="odd")
unary("aten.sgn.default", degree=0, parity="odd")
unary("aten.reciprocal.default", degree=-1, parity="odd", samples=_positive)
unary("aten.sqrt.default", degree=0.5, samples=_positive)
unary("aten.rsqrt.default", degree=-0.5, samples=_positive)


@rule("aten.hardtanh.default", samples=lambda t: [(t(3, 5),), (t(3, 5), -1.0, 2.0)])
def hardtanh(b: Builder, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    return b.pointwise("hardtanh", keyed("aten.hardtanh.default", low, high), x, parity="odd" if low == -high else "")


@rule("aten.clamp.default", samples=lambda t: [(t(3, 5), 0.0), (t(3, 5), -1.0, 1.0), (t(3, 5), None, 0.5)])
def clamp(b: Builder, x: Value, low: float | None = None, high: float | None = None) -> Value:
    if low is not None and low <= UNREACHED and high is None:
        return x
    conic = all(c is None or c == 0 or abs(c) == float("inf") for c in (low, high))
    odd = low is not None and high is not None and low == -high
    fn = keyed("aten.clamp.default", low, high)
    return b.pointwise("clamp", fn, x, degree=1 if conic else None, parity="odd" if odd else "")


@rule("aten.clamp_min.default", samples=lambda t: [(t(3, 5), 0.0), (t(3, 5), 0.3)])
def clamp_min(b: Builder, x: Value, low: float) -> Value:
    return clamp(b, x, low, None)


@rule("aten.clamp_max.default", samples=lambda t: [(t(3, 5), 0.0), (t(3, 5), 0.3)])
def clamp_max(b: Builder, x: Value, high: float) -> Value:
    return clamp(b, x, None, high)


@rule("aten.clamp.Tensor", samples=lambda t: [(t(3, 5), t(5) - 2.0, t(5) + 2.0)])
def clamp_tensor(b: Builder, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    x = x if low is None else maximum(b, x, low)
    return x if high is None else minimum(b, x, high)


@rule("aten.clamp_min.Tensor", samples=lambda t: [(t(3, 5), t(5))])
def clamp_min_tensor(b: Builder, x: Value, low: Value) -> Value:
    return maximum(b, x, low)


@rule(
    "aten.maximum.default",
    "aten.max.other",
    "aten.fmax.default",
    samples=lambda t: [(t(3, 5), t(3, 5)), (t(3, 5), t(5))],
)
def maximum(b: Builder, x: Value, y: Value) -> Value:
    """Bounded below by the least number, a value is itself: masks that add up would else exceed what the type holds."""
    for here, other in ((x, y), (y, x)):
        if other.shape == torch.broadcast_shapes(x.shape, y.shape) and _unreached(here):
            return other
    return b.pointwise("maximum", aten.maximum.default, x, y, degree=1)


def _unreached(v: Value) -> bool:
    """A constant that bounds no value from below."""
    if not isinstance(v.op, Free) or v.data or not 0 < v.numel <= 1 << 16:
        return False
    try:
        return bool((v.op.thunk() <= UNREACHED).all())
    except (KeyError, RuntimeError):
        return False


@rule("aten.minimum.default", "aten.min.other", "aten.fmin.default", samples=lambda t: [(t(3, 5), t(3, 5))])
def minimum(b: Builder, x: Value, y: Value) -> Value:
    return b.pointwise("minimum", aten.minimum.default, x, y, degree=1)


@rule("aten.threshold.default", samples=lambda t: [(t(3, 5), 0.0, 0.0), (t(3, 5), 0.2, 0.0)])
def threshold(b: Builder, x: Value, at: float, value: float) -> Value:
    fn = keyed("aten.threshold.default", at, value)
    return b.pointwise("threshold", fn, x, degree=1 if at == value == 0 else None)


@rule("aten.atan2.default", samples=lambda t: [(t(3, 5), t(3, 5))])
def atan2(b: Builder, y: Value, x: Value) -> Value:
    return b.pointwise("atan2", aten.atan2.default, y, x)


@rule("aten.prelu.default", "aten._prelu_kernel.default", samples=lambda t: [(t(3, 5), t(5)), (t(3, 5), t(1))])
def prelu(b: Builder, x: Value, slope: Value) -> Value:
    """max(x, 0) + slope * min(x, 0)."""
    if x.ndim > 2 and slope.numel > 1 and slope.ndim == 1:
        slope = b.reshape(slope, [slope.numel, *[1] * (x.ndim - 2)])
    return b.add([clamp(b, x, 0.0, None), b.mul(slope, clamp(b, x, None, 0.0))])


@rule("aten.glu.default", samples=lambda t: [(t(3, 8),), (t(4, 3), 0)])
def glu(b: Builder, x: Value, axis: int = -1) -> Value:
    half = x.shape[axis] // 2
    gate = b.slice(x, axis, half, 2 * half)
    return b.mul(b.slice(x, axis, 0, half), b.pointwise("sigmoid", keyed("aten.sigmoid.default"), gate))


@rule(
    "aten.pow.Tensor_Scalar",
    samples=lambda t: [
        (t(3, 5), 2),
        (t(3, 5), 3),
        (t(3, 5), 4),
        (t(3, 5).abs() + 0.5, 0.5),
        (t(3, 5).abs() + 0.5, -0.5),
    ],
)
def power(b: Builder, x: Value, p: float) -> Value:
    if p == 0:
        return b.expand(b.constant(1.0), x.shape)
    if p in (1, 2):
        return x if p == 1 else b.mul(x, x)
    whole = float(p).is_integer()
    parity = ("odd" if int(p) % 2 else "even") if whole else ""
    return b.pointwise("pow", keyed("aten.pow.Tensor_Scalar", p), x, degree=float(p), parity=parity)


@rule("aten.pow.Scalar", samples=lambda t: [(2.0, t(3, 5))])
def power_of(b: Builder, base: float, x: Value) -> Value:
    return b.pointwise("exponential", partial(aten.pow.Scalar, base), x)


@rule("aten.pow.Tensor_Tensor", samples=lambda t: [(t(3, 5).abs() + 0.5, t(5))])
def power_tensor(b: Builder, x: Value, p: Value) -> Value:
    return b.pointwise("pow", aten.pow.Tensor_Tensor, x, p)


@rule("aten.square.default", samples=_matrix)
def square(b: Builder, x: Value) -> Value:
    return b.mul(x, x)


@rule("aten.nan_to_num.default", samples=_matrix)
def nan_to_num(b: Builder, x: Value, *_: Any) -> Value:
    return x


def _comparison(name: str, packet: str) -> None:
    @rule(f"aten.{packet}.Tensor", samples=lambda t: [(t(3, 5), t(3, 5))])
    def compare(b: Builder, x: Value, y: Value) -> Value:
        return b.pointwise(name, truth(f"aten.{packet}.Tensor"), x, y)

    @rule(f"aten.{packet}.Scalar", samples=lambda t: [(t(3, 5), 0.0), (t(3, 5), 0.5)])
    def compare_scalar(b: Builder, x: Value, c: float) -> Value:
        named = "minus_infinite" if packet == "eq" and c == float("-inf") else name
        return b.pointwise(named, truth(f"aten.{packet}.Scalar", c), x, degree=0 if c == 0 else None)


for _name, _packet in (
    ("greater", "gt"),
    ("greater_equal", "ge"),
    ("less", "lt"),
    ("less_equal", "le"),
    ("equal", "eq"),
    ("not_equal", "ne"),
):
    _comparison(_name, _packet)
for _name in ("logical_and", "logical_or", "logical_xor"):

    def _logical(name: str) -> None:
        @rule(f"aten.{name}.default", samples=lambda t: [(t(3, 5) > 0, t(3, 5) > 0), (t(3, 5), t(3, 5) > 0)])
        def logical(b: Builder, x: Value, y: Value) -> Value:
            return b.pointwise(name, truth(f"aten.{name}.default"), x, y)

    _logical(_name)
for _name in ("logical_not", "isnan", "isinf", "isfinite"):

    def _asked(name: str) -> None:
        @rule(f"aten.{name}.default", samples=lambda t: [(t(3, 5),)])
        def asked(b: Builder, x: Value) -> Value:
            return b.pointwise(name, truth(f"aten.{name}.default"), x)

    _asked(_name)

_TRUTHS = (
    "greater", "greater_equal", "less", "less_equal", "equal", "minus_infinite", "not_equal", "not_zero",
    "logical_and", "logical_or", "logical_xor", "logical_not", "choose_truth", "isnan", "isinf", "isfinite",
)  # fmt: skip


def is_truth(x: Value) -> bool:
    """Whether a value is known to hold truth values."""
    match x.op:
        case Pointwise(name=name):
            return name in _TRUTHS
        case Reshape() | Slice() | Concat():
            return all(is_truth(a) for a in x.args)
        case Einsum(ins, out) if len(ins) == 1 and set(ins[0]) <= set(out):
            return is_truth(x.args[0])
        case Free(thunk=thunk):
            try:
                return thunk().dtype == torch.bool
            except KeyError:
                return False
    return False


def _bitwise(operators: tuple[str, ...], name: str) -> None:
    @rule(*operators, samples=lambda t: [(t(3, 5) > 0, t(3, 5) > 0)])
    def bitwise(b: Builder, x: Value, y: Value) -> Value:
        if not (is_truth(x) and is_truth(y)):
            raise NotImplementedError("bits of integers that depend on parameters")
        return b.pointwise(name, truth(f"aten.{name}.default"), x, y)


_bitwise(("aten.__and__.Tensor", "aten.bitwise_and.Tensor"), "logical_and")
_bitwise(("aten.__or__.Tensor", "aten.bitwise_or.Tensor"), "logical_or")
_bitwise(("aten.bitwise_xor.Tensor",), "logical_xor")


@rule("aten.bitwise_not.default", samples=lambda t: [(t(3, 5) > 0,)])
def bitwise_not(b: Builder, x: Value) -> Value:
    if not is_truth(x):
        raise NotImplementedError("bits of integers that depend on parameters")
    return b.pointwise("logical_not", truth("aten.logical_not.default"), x)
