"""Contractions: linear maps, matrix products, convolutions and embeddings are all sums of products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.registry import Draw, rule


@rule("aten.linear.default", samples=lambda t: [(t(2, 3, 5), t(4, 5), t(4)), (t(3, 5), t(4, 5))])
def linear(b: Builder, x: Value, weight: Value, bias: Value | None = None) -> Value:
    y = b.contract(x, weight, [-1], [-1])
    return y if bias is None else b.add([y, bias])


@rule(
    "aten.matmul.default",
    samples=lambda t: [
        (t(2, 3, 5), t(2, 5, 2)),
        (t(2, 1, 2, 3), t(2, 3, 2)),
        (t(3, 5), t(5)),
        (t(5), t(5, 2)),
        (t(5), t(5)),
    ],
)
@rule("aten.bmm.default", samples=lambda t: [(t(2, 3, 4), t(2, 4, 2))])
@rule("aten.mm.default", samples=lambda t: [(t(3, 5), t(5, 4))])
@rule("aten.mv.default", samples=lambda t: [(t(3, 5), t(5))])
@rule("aten.dot.default", "aten.vdot.default", samples=lambda t: [(t(5), t(5))])
def matmul(b: Builder, x: Value, y: Value) -> Value:
    if x.ndim == 1:
        return b.squeeze(matmul(b, b.unsqueeze(x, 0), y), [-2 if y.ndim > 1 else -1])
    if y.ndim == 1:
        return b.squeeze(matmul(b, x, b.unsqueeze(y, 1)), [-1])
    batch = max(x.ndim, y.ndim) - 2
    shape = [1] * batch
    for v in (x, y):
        for i, n in enumerate(v.shape[:-2]):
            p = batch - (v.ndim - 2) + i
            shape[p] = n if n != 1 else shape[p]

    def labels(v: Value, tag: int) -> list[int]:
        lead = batch - (v.ndim - 2)
        return [lead + i if n == shape[lead + i] else tag + i for i, n in enumerate(v.shape[:-2])]

    m, k, n = 500, 501, 502
    ins = [[*labels(x, 600), m, k], [*labels(y, 700), k, n]]
    return b.einsum(ins, [*range(batch), m, n], x, y, sizes=dict(enumerate(shape)))


@rule(
    "aten.addmm.default",
    samples=lambda t: [(t(4), t(3, 5), t(5, 4)), ((t(4), t(3, 5), t(5, 4)), dict(beta=0.5, alpha=2.0))],
)
@rule("aten.baddbmm.default", samples=lambda t: [(t(2, 3, 2), t(2, 3, 4), t(2, 4, 2))])
@rule("aten.addmv.default", samples=lambda t: [(t(3), t(3, 5), t(5))])
def addmm(b: Builder, bias: Value, x: Value, y: Value, beta: float = 1.0, alpha: float = 1.0) -> Value:
    return b.add([bias, matmul(b, x, y)], [beta, alpha]) if beta != 0 else b.scale(matmul(b, x, y), alpha)


@rule("aten.outer.default", samples=lambda t: [(t(3), t(4))])
def outer(b: Builder, x: Value, y: Value) -> Value:
    return b.einsum([[0], [1]], [0, 1], x, y)


@rule("aten.kron.default", samples=lambda t: [(t(2, 3), t(2, 2)), (t(2), t(3))])
def kron(b: Builder, x: Value, y: Value) -> Value:
    if x.ndim != y.ndim:
        raise NotImplementedError("a Kronecker product of tensors with different numbers of axes")
    ins = [[2 * a for a in range(x.ndim)], [2 * a + 1 for a in range(x.ndim)]]
    return b.reshape(b.einsum(ins, range(2 * x.ndim), x, y), [m * n for m, n in zip(x.shape, y.shape, strict=True)])


@rule("aten.cosine_similarity.default", samples=lambda t: [(t(3, 5), t(3, 5)), (t(3, 1, 5), t(1, 2, 5), -1)])
def cosine_similarity(b: Builder, x: Value, y: Value, axis: int = 1, eps: float = 1e-8) -> Value:
    def inverse_norm(v: Value) -> Value:
        square = b.sum(b.mul(v, v), [axis])
        return b.pointwise("inverse norm", lambda s: s.clamp_min(eps * eps).rsqrt(), square, parity="")

    return b.mul(b.sum(b.mul(x, y), [axis]), inverse_norm(x), inverse_norm(y))


@rule("aten.bilinear.default", samples=lambda t: [(t(2, 3), t(2, 2), t(2, 3, 2), t(2))])
def bilinear(b: Builder, x: Value, y: Value, weight: Value, bias: Value | None = None) -> Value:
    lead = list(range(x.ndim - 1))
    z = b.einsum([[*lead, 50], [60, 50, 51]], [*lead, 60, 51], x, weight)
    z = b.einsum([[*lead, 60, 51], [*lead, 51]], [*lead, 60], z, y)
    return z if bias is None else b.add([z, bias])


@rule(
    "aten.einsum.default",
    samples=lambda t: [("bij,bjk->bik", [t(2, 3, 4), t(2, 4, 2)]), ("...i,oi->...o", [t(2, 3, 4), t(5, 4)])],
)
def einsum(b: Builder, equation: str, xs: Sequence[Value], path: Any = None) -> Value:
    """Pairwise from the left: an intermediate keeps what later operands or the result still need."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = max((x.ndim - len(t.replace("...", "")) for t, x in zip(terms, xs, strict=True) if "..." in t), default=0)

    def labels(term: str, ndim: int | None = None) -> list[int]:
        dots = free if ndim is None else ndim - len(term.replace("...", ""))
        head, _, tail = term.partition("...")
        return (
            [ord(c) for c in head]
            + ([-(free - dots + i) - 1 for i in range(dots)] if "..." in term else [])
            + [ord(c) for c in tail]
        )

    ins = [labels(t, x.ndim) for t, x in zip(terms, xs, strict=True)]
    if arrow:
        out = labels(right)
    else:
        flat = [l for i in ins for l in i]
        out = [-i - 1 for i in range(free)] + sorted(l for l in set(flat) if l > 0 and flat.count(l) == 1)
    y, have = xs[0], ins[0]
    if len(xs) == 1:
        return b.einsum([have], out, y)
    for k in range(1, len(xs)):
        later = set(out).union(*ins[k + 1 :])
        keep = out if k == len(xs) - 1 else [l for l in dict.fromkeys([*have, *ins[k]]) if l in later]
        y, have = b.einsum([have, ins[k]], keep, y, xs[k]), list(keep)
    return y


def patches(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Value:
    """(B, C, *S) -> (B, C, *O, *K): what each tap of a kernel sees."""
    dims = len(kernel)
    if all(k == 1 for k in kernel) and all(s == 1 for s in stride) and not any(p + q for p, q in padding):
        return b.reshape(x, [*x.shape, *[1] * dims])
    out = [
        (n + p + q - d * (k - 1) - 1) // s + 1
        for n, k, s, (p, q), d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    flat = [v for p, q in reversed(padding) for v in (p, q)]

    def unfold(x: Tensor) -> Tensor:
        x = F.pad(x, flat)
        for i in range(dims):
            x = x.unfold(2 + i, dilation[i] * (kernel[i] - 1) + 1, stride[i])[..., :: dilation[i]]
        return x

    unfold.__regauge_key__ = ("unfold", tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))  # type: ignore[attr-defined]
    axes = range(2, 2 + dims)
    bare = not any(flat)
    return b.along(
        "unfold", unfold, x, axes, out_axes=range(2, 2 + 2 * dims), sizes=[*out, *kernel], linear=True, constants=bare
    )


def _each(v: int | Sequence[int], n: int) -> list[int]:
    v = [v] if isinstance(v, int) else list(v)
    return v * n if len(v) == 1 else v


def _operands(t: Draw, dims: int, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias of a small convolution."""
    return t(1, 2, *[4, 3, 2][:dims]), t(2, 2 // groups, *[2, 2, 1][:dims]), t(2)


@rule(
    "aten.conv1d.default",
    samples=lambda t: [
        _operands(t, 1),
        (*_operands(t, 1), [2], [1], [2]),
        (*_operands(t, 1, 2), [1], [0], [1], 2),
        (t(2, 4), t(2, 2, 2)),
    ],
)
@rule(
    "aten.conv2d.default",
    samples=lambda t: [(*_operands(t, 2), [2, 1], [1, 0]), (*_operands(t, 2, 2), [1, 1], [0, 0], [1, 1], 2)],
)
@rule("aten.conv3d.default", samples=lambda t: [_operands(t, 3)])
@rule("aten.conv1d.padding", samples=lambda t: [(*_operands(t, 1), [1], "same"), (*_operands(t, 1), [2], "valid")])
@rule("aten.conv2d.padding", samples=lambda t: [(*_operands(t, 2), [1, 1], "same")])
@rule("aten.conv3d.padding", samples=lambda t: [(*_operands(t, 3), [1, 1, 1], "same")])
def conv(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """Patches, then a contraction over input channels and taps, group by group."""
    dims = weight.ndim - 2
    if x.ndim == dims + 1:
        return b.squeeze(conv(b, b.unsqueeze(x, 0), weight, bias, stride, padding, dilation, groups), [0])
    kernel = weight.shape[2:]
    stride, dilation = _each(stride, dims), _each(dilation, dims)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(p, p) for p in ([0] * dims if padding == "valid" else _each(padding, dims))]
    x = patches(b, x, kernel, stride, pads, dilation)
    batch, channels, *rest = x.shape
    spatial = rest[:dims]
    g, c, o, s, k = 1, 2, 3, list(range(10, 10 + dims)), list(range(20, 20 + dims))
    if groups == 1:
        y = b.einsum([[0, c, *s, *k], [o, c, *k]], [0, o, *s], x, weight)
    else:
        x = b.reshape(x, [batch, groups, channels // groups, *rest])
        w = b.reshape(weight, [groups, weight.shape[0] // groups, *weight.shape[1:]])
        y = b.einsum([[0, g, c, *s, *k], [g, o, c, *k]], [0, g, o, *s], x, w)
        y = b.reshape(y, [batch, weight.shape[0], *spatial])
    return y if bias is None else b.add([y, b.reshape(bias, [bias.numel, *[1] * dims])])


@rule("aten.convolution.default", samples=lambda t: [
    (*_operands(t, 1), [1], [0], [1], False, [0], 1), (*_operands(t, 1), [2], [1], [1], True, [1], 1)])  # fmt: skip
def convolution(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Value:
    if transposed:
        return conv_transpose(b, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(b, x, weight, bias, stride, padding, dilation, groups)


@rule("aten.conv_transpose1d.default", samples=lambda t: [(*_operands(t, 1), [2], [1], [1])])
@rule("aten.conv_transpose2d.input", samples=lambda t: [(*_operands(t, 2), [2, 2])])
@rule("aten.conv_transpose3d.input", samples=lambda t: [_operands(t, 3)])
def conv_transpose(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """A contraction over input channels, then overlapping taps are summed."""
    dims = weight.ndim - 2
    kernel = list(weight.shape[2:])
    stride, padding, dilation, extra = (_each(v, dims) for v in (stride, padding, dilation, output_padding))
    batch, channels, *spatial = x.shape
    x = b.reshape(x, [batch, groups, channels // groups, *spatial])
    w = b.reshape(weight, [groups, channels // groups, *weight.shape[1:]])
    s, k = list(range(10, 10 + dims)), list(range(20, 20 + dims))
    y = b.einsum([[0, 1, 2, *s], [1, 2, 3, *k]], [0, 1, 3, *s, *k], x, w)
    out_channels = groups * weight.shape[1]
    y = b.reshape(y, [batch, out_channels, *spatial, *kernel])
    out = [
        (n - 1) * st - 2 * p + d * (kk - 1) + e + 1
        for n, st, p, d, kk, e in zip(spatial, stride, padding, dilation, kernel, extra, strict=True)
    ]
    taps = int(torch.tensor(kernel).prod())
    fold_fn = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]

    def fold(y: Tensor) -> Tensor:
        lead = y.shape[:2]
        z = y.reshape(lead[0] * lead[1], *y.shape[2:]).reshape(lead[0] * lead[1], *spatial, taps).movedim(-1, 1)
        one = torch.eye(taps, dtype=y.dtype).reshape(taps, 1, *kernel)
        z = fold_fn(z, one, None, stride, padding, extra, 1, dilation)
        return z.reshape(*lead, *z.shape[2:])

    y = b.along("fold", fold, y, range(2, 2 + 2 * dims), out_axes=range(2, 2 + dims), sizes=out, linear=True)
    return y if bias is None else b.add([y, b.reshape(bias, [bias.numel, *[1] * dims])])


@rule(
    "aten.im2col.default",
    samples=lambda t: [(t(2, 3, 4, 3), [3, 1], [1, 1], [1, 0], [1, 1]), (t(3, 4, 5), [2, 2], [1, 2], [0, 1], [2, 1])],
)
def im2col(
    b: Builder, x: Value, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Value:
    """(B, C, H, W) -> (B, C kh kw, places): patches as columns."""
    batched = x if x.ndim == 4 else b.unsqueeze(x, 0)
    seen = patches(b, batched, kernel, stride, [(p, p) for p in padding], dilation)
    seen = b.permute(seen, [0, 1, 4, 5, 2, 3])  # (B, C, kh, kw, oh, ow)
    return b.reshape(seen, [*x.shape[:-3], prod(seen.shape[1:4]), prod(seen.shape[4:])])
