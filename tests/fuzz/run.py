"""A drawn network as a module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.fuzz.networks import BATCH, TIME, TOKENS, Network, Step

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": lambda x: torch.exp(torch.tanh(x)),
    "cube": lambda x: x**3,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "square": lambda x: x * x,
    "relu_square": lambda x: torch.relu(x) ** 2,
    "abs": torch.abs,
    "neg": torch.neg,
    "double": lambda x: 2 * x,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "log_abs": lambda x: torch.log(x.abs() + 1),
}


class Net(nn.Module):
    """The network with random parameters; constants are buffers that the state does not hold."""

    def __init__(self, network: Network, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.network = network
        for name, shape in network.parameters:
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=g)))
        for i, s in enumerate(network.steps):
            if s.op in ("constant_bias", "constant_gain"):
                self.register_buffer(f"c{i}", torch.randn(s.of, generator=g), persistent=False)
            elif s.op == "constant_map":
                self.register_buffer(f"c{i}", torch.randn(s.of[0], s.of[0], generator=g), persistent=False)
            elif s.op == "batch_norm":
                n = s.shape[-1]
                self.register_buffer(f"mean{i}", torch.zeros(n))
                self.register_buffer(f"var{i}", torch.ones(n))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = [x]
        for i, s in enumerate(self.network.steps):
            y = self.step(i, s, [values[a] for a in s.args])
            assert tuple(y.shape[1:]) == s.shape, f"{s} gave {list(y.shape[1:])}"
            values.append(y)
        return tuple(values[o] for o in self.network.outputs)

    def step(self, i: int, s: Step, xs: list[Tensor]) -> Tensor:
        of = [getattr(self, a) if isinstance(a, str) and a in self._parameters else a for a in s.of]
        if s.op == "function":
            return FUNCTIONS[s.of[0]](xs[0])
        if s.op == "split":
            return xs[0].reshape(len(xs[0]), *s.shape)
        if s.op in ("constant_bias", "constant_gain", "constant_map"):
            of = [getattr(self, f"c{i}")]
        if s.op == "batch_norm":
            of = [getattr(self, f"mean{i}"), getattr(self, f"var{i}"), *of]
        return globals()[f"do_{s.op}"](*xs, *of)


def do_embed(x: Tensor, w: Tensor) -> Tensor:
    return F.embedding(x, w)


def do_linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return F.linear(x, w, b)


def do_matmul_weight(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


def do_low_rank(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x @ (a @ b).T


def do_weight_norm(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    return F.linear(x, g[:, None] * w / w.norm(dim=1, keepdim=True))


def do_prelu(x: Tensor, a: Tensor) -> Tensor:
    return torch.where(x > 0, x, a * x)


def do_add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


def do_sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


def do_mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


def do_gate(x: Tensor, y: Tensor) -> Tensor:
    return x * torch.sigmoid(y)


def do_maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


def do_mean_of(x: Tensor, y: Tensor) -> Tensor:
    return (x + y) / 2


def do_divide(x: Tensor, y: Tensor) -> Tensor:
    return x / (y * y + 1)


def do_bias(x: Tensor, b: Tensor) -> Tensor:
    return x + b


def do_gain(x: Tensor, g: Tensor) -> Tensor:
    return x * g


def do_gain_plus_one(x: Tensor, g: Tensor) -> Tensor:
    return x * (1 + g)


def do_exp_gain(x: Tensor, g: Tensor) -> Tensor:
    return x * torch.exp(g)


do_constant_bias, do_constant_gain = do_bias, do_gain


def do_constant_map(x: Tensor, m: Tensor) -> Tensor:
    return x @ m


def do_layer_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w, b)


def do_layer_norm_bare(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def do_rms_norm(x: Tensor, w: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], w, 1e-3)


def do_rms_norm_eps0(x: Tensor, w: Tensor) -> Tensor:
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)))


def do_centre(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def do_normalise(x: Tensor) -> Tensor:
    return x / (x.norm(dim=-1, keepdim=True) + 0.1)


def do_unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def do_batch_norm(x: Tensor, mean: Tensor, var: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.batch_norm(x.reshape(-1, x.shape[-1]), mean, var, w, b, False).reshape(x.shape)


def do_group_norm(x: Tensor, groups: int, w: Tensor, b: Tensor) -> Tensor:
    return F.group_norm(x.reshape(-1, x.shape[-1]), groups, w, b).reshape(x.shape)


def do_softmax(x: Tensor, axis: int) -> Tensor:
    return torch.softmax(x, axis)


def do_log_softmax(x: Tensor, axis: int) -> Tensor:
    return torch.log_softmax(x, axis)


def do_winner(x: Tensor) -> Tensor:
    """The largest entry in its place, zeros elsewhere."""
    return F.one_hot(x.argmax(-1), x.shape[-1]).to(x.dtype) * x


def do_logsumexp(x: Tensor, axis: int) -> Tensor:
    return x - torch.logsumexp(x, axis, keepdim=True)


def do_cumsum(x: Tensor, axis: int) -> Tensor:
    return torch.cumsum(x, axis)


def do_sort(x: Tensor, axis: int) -> Tensor:
    return torch.sort(x, axis).values


def do_swap(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def do_swap_join(x: Tensor) -> Tensor:
    return x.transpose(-1, -2).flatten(-2)


def do_join(x: Tensor) -> Tensor:
    return x.flatten(-2)


def do_narrow(x: Tensor, start: int, size: int) -> Tensor:
    return x[..., start : start + size]


def do_flip(x: Tensor) -> Tensor:
    return x.flip(-1)


def do_roll(x: Tensor) -> Tensor:
    return x.roll(1, -1)


def do_permuted(x: Tensor) -> Tensor:
    n = x.shape[-1]
    return x[..., [(2 * i + 1) % n if n % 2 else n - 1 - i for i in range(n)]]


def do_repeat(x: Tensor) -> Tensor:
    return x.repeat(*([1] * (x.ndim - 1)), 2)


def do_interleave(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1)


def do_pad(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1))


def do_every_second(x: Tensor) -> Tensor:
    return x[..., ::2]


def do_cat(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], -1)


def do_stack(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x, y], -2)


def do_sum_last(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def do_mean_last(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def do_max_last(x: Tensor) -> Tensor:
    return x.amax(-1, keepdim=True)


def do_var_last(x: Tensor) -> Tensor:
    return x.var(-1, keepdim=True, unbiased=False)


def do_norm_last(x: Tensor) -> Tensor:
    return (x * x).sum(-1, keepdim=True)


def do_mean_time(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True).expand(x.shape)


def do_sum_time(x: Tensor) -> Tensor:
    return x + x.sum(1, keepdim=True)


def do_max_time(x: Tensor) -> Tensor:
    return x - x.amax(1, keepdim=True)


def do_dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("...i,...i->...", x, y)[..., None]


def do_outer(x: Tensor, y: Tensor) -> Tensor:
    return (x[..., :, None] * y[..., None, :]).flatten(-2)


def do_gram(x: Tensor, y: Tensor) -> Tensor:
    return x @ y.transpose(1, 2)


def do_contract(x: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("bthi,bthj->btij", x, y)


def do_time_mix(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("st,bt...->bs...", w, x)


def do_quadratic(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("...i,ij,...j->...", x, w, y)[..., None]


def do_where_positive(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x > 0, x, y)


def do_where_mask(x: Tensor, y: Tensor) -> Tensor:
    mask = torch.arange(x.shape[-1], device=x.device) % 2 == 0
    return torch.where(mask, x, y)


def do_clamp(x: Tensor, y: Tensor) -> Tensor:
    return x.clamp(-0.5, 1.0) + y


def do_conv(x: Tensor, groups: int, w: Tensor, b: Tensor) -> Tensor:
    return F.conv1d(x.transpose(1, 2), w, b, padding=1, groups=groups).transpose(1, 2)


def do_recurrence(x: Tensor, kind: str, w: Tensor) -> Tensor:
    f = {"tanh": torch.tanh, "relu": torch.relu, "none": lambda h: h}[kind]
    h, out = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = f(h @ w + x[:, t])
        out.append(h)
    return torch.stack(out, 1)


def do_mixture(x: Tensor, router: Tensor, experts: Tensor, kind: str) -> Tensor:
    scores = x @ router.T
    if kind == "top":
        top, index = torch.topk(torch.softmax(scores, -1), 2, -1)
        weights = torch.zeros_like(scores).scatter(-1, index, top)
    else:
        weights = torch.softmax(scores, -1) if kind == "softmax" else torch.sigmoid(scores)
    return torch.einsum("...e,eoi,...i->...o", weights, experts, x)


def do_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, groups: int, size: int, kind: str, pose: str, *gains: Any
) -> Tensor:
    b, t = q.shape[:2]
    q, k, v = (x.view(b, t, -1, size).transpose(1, 2) for x in (q, k, v))
    if gains:
        q, k = (F.rms_norm(x, (size,), g, 1e-3) for x, g in zip((q, k), gains, strict=True))
    if "rotary" in pose:
        part = size if pose != "rotary half" or size < 4 else size // 2
        q, k = rotated(q, part), rotated(k, part)
    k, v = (x.repeat_interleave(heads // groups, 1) for x in (k, v))
    if kind == "sdpa":
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        scores = q @ k.transpose(-1, -2) / math.sqrt(size)
        if kind == "causal":
            scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf"))
        f = {"relu": torch.relu, "linear": lambda s: s, "sigmoid": torch.sigmoid}.get(kind)
        y = (f(scores) if f else torch.softmax(scores, -1)) @ v
    return y.transpose(1, 2).reshape(b, t, heads * size)


def rotated(x: Tensor, part: int) -> Tensor:
    """Rotary positions on the first `part` coordinates, in halves."""
    half = part // 2
    speed = 1.0 / 10.0 ** (torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(x.shape[2], dtype=torch.float64)[:, None] * speed).to(x.dtype)
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    turn, rest = x[..., :part], x[..., part:]
    other = torch.cat([-turn[..., half:], turn[..., :half]], -1)
    return torch.cat([turn * cos + other * sin, rest], -1)


def example(network: Network, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    if network.tokens:
        ids = torch.randint(0, TOKENS, (BATCH, TIME), generator=g)
        ids[0, 0], ids[0, 1] = 0, TOKENS - 1
        return ids
    return torch.randn(BATCH, TIME, network.width, generator=g)
