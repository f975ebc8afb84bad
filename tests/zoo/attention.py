"""Attention on its own: softmax, un-normalised, wide keys, biases, PyTorch's modules."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.registry import Call, add, case, floats


class Attention(nn.Module):
    """x (batch, time, d) -> (batch, time, d): H heads of size dk for queries and keys, dv for values."""

    def __init__(
        self,
        d: int,
        heads: int,
        dk: int,
        dv: int,
        normalise,
        bias: str = "",
        kv_heads: int | None = None,
        fused: bool = False,
    ):
        super().__init__()
        self.heads, self.groups, self.dk, self.dv = heads, kv_heads or heads, dk, dv
        self.normalise, self.fused = normalise, fused
        self.q = nn.Linear(d, heads * dk, bias="q" in bias)
        self.k = nn.Linear(d, self.groups * dk, bias="k" in bias)
        self.v = nn.Linear(d, self.groups * dv, bias="v" in bias)
        self.o = nn.Linear(heads * dv, d, bias="o" in bias)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.dk).transpose(1, 2)
        k = self.k(x).view(b, t, self.groups, self.dk).transpose(1, 2)
        v = self.v(x).view(b, t, self.groups, self.dv).transpose(1, 2)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.groups != self.heads)
        else:
            repeat = self.heads // self.groups
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
            y = self.normalise(q @ k.transpose(-1, -2) / math.sqrt(self.dk)) @ v
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


def softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def attention(*shape, **options) -> Call:
    return Call(Attention(*shape, **options), (floats(3, 11, shape[0]),))


add("attn-softmax", 2 * (9 + 9), lambda: attention(7, 2, 3, 3, softmax))
add("attn-softmax-fused", 2 * (9 + 9), lambda: attention(7, 2, 3, 3, softmax, fused=True))
# key bias dk, value bias into the output bias dv
add("attn-softmax-bias", 2 * (9 + 9 + 3 + 3), lambda: attention(7, 2, 3, 3, softmax, bias="qkvo"))
add("attn-softmax-bias-fused", 2 * (9 + 9 + 3 + 3), lambda: attention(7, 2, 3, 3, softmax, bias="qkvo", fused=True))
add("attn-softmax-key-bias", 2 * (9 + 9 + 3), lambda: attention(7, 2, 3, 3, softmax, bias="k"))
add("attn-softmax-value-bias", 2 * (9 + 9), lambda: attention(7, 2, 3, 3, softmax, bias="v"))
add(
    "attn-softmax-value-bias-wide",
    3 * (9 + 9) + max(0, 3 * 3 - 7),
    lambda: attention(7, 3, 3, 3, softmax, bias="v"),
    why="value biases beyond the width of the output",
)


class CentredStream(nn.Module):
    """A stream of 6 that only layer norms read; attention of full width writes into it. No linear map has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(7, 6, bias=False), nn.Linear(6, 8, bias=False)
        self.norm, self.attention, self.last = nn.LayerNorm(6), Attention(6, 2, 3, 3, softmax), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(self.last(x + self.attention(self.norm(x))))


add(
    "attn-values-into-the-mean",
    10 + 2 * (9 + 9) + 2 * 6 + (6 + 6) + 6 + (7 + 6) + (6 - 5),
    lambda: Call(CentredStream(), (floats(3, 11, 7),)),
    why="O(5), heads, gains, a shift that readers take up and their key rows, the last shift, the mean that is written; and "
    "one constant in the values that becomes nothing but a mean",
)
add("attn-softmax-gqa", 2 * (9 + 9), lambda: attention(7, 4, 3, 3, softmax, kv_heads=2))
add("attn-softmax-gqa-fused", 2 * (9 + 9), lambda: attention(7, 4, 3, 3, softmax, kv_heads=2, fused=True))
add("attn-softmax-mqa-bias", 9 + 9 + 3 + 3, lambda: attention(7, 3, 3, 3, softmax, bias="qkvo", kv_heads=1))
add("attn-softmax-gqa-value-bias", 2 * (9 + 9), lambda: attention(7, 4, 3, 3, softmax, bias="v", kv_heads=2))
add(
    "attn-wide-keys",
    2 * (2 * 4 * 6 - 16 + 9),
    lambda: attention(4, 2, 6, 3, softmax),
    why="dk > d: 2 d dk - d^2 per head",
)
add(
    "attn-norm-shift",
    2 * (9 + 9) + 7 + 7 + 2 * 3,
    lambda: Call(nn.Sequential(nn.LayerNorm(7), Attention(7, 2, 3, 3, softmax)), (floats(3, 11, 7),)),
    why="no bias absorbs the shift of the norm: its readers do, the values' where they are read and not behind attention",
)
add("attn-sigmoid", 2 * (9 + 9), lambda: attention(7, 2, 3, 3, torch.sigmoid))
add("attn-relu", 2 * (9 + 9 + 1), lambda: attention(7, 2, 3, 3, torch.relu))
add("attn-relu-bias", 2 * (9 + 9 + 1), lambda: attention(7, 2, 3, 3, torch.relu, bias="qkvo"))
add("attn-linear", 2 * (9 + 9 + 1), lambda: attention(7, 2, 3, 3, lambda s: s))


class PaperAttention(nn.Module):
    """h_i = sum_j ReLU((x Wq)_i (x Wk)_j^T) (x Wv)_j, then a linear read-out."""

    def __init__(self, d: int = 5, dk: int = 3, dv: int = 4):
        super().__init__()
        self.wq, self.wk = nn.Parameter(torch.randn(d, dk)), nn.Parameter(torch.randn(d, dk))
        self.wv = nn.Parameter(torch.randn(d, dv))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu((x @ self.wq) @ (x @ self.wk).transpose(-1, -2)) @ (x @ self.wv)


@case("attn-paper", 3 * 3 + 1, why="GL(dk), and alpha_q alpha_k alpha_v = 1 with alpha_q alpha_k > 0")
def paper() -> Call:
    return Call(PaperAttention(), (floats(3, 11, 5),))


class WithMHA(nn.Module):
    def __init__(self, d: int = 6, heads: int = 2, bias: bool = True, batch_first: bool = True):
        super().__init__()
        self.attention = nn.MultiheadAttention(d, heads, bias=bias, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


add("mha-module", 2 * (9 + 9 + 3 + 3), lambda: Call(WithMHA(), (floats(3, 11, 6),)))
add("mha-module-nobias", 2 * (9 + 9), lambda: Call(WithMHA(bias=False), (floats(3, 11, 6),)))
add("mha-module-time-first", 2 * (9 + 9 + 3 + 3), lambda: Call(WithMHA(batch_first=False), (floats(11, 3, 6),)))


class CrossMHA(nn.Module):
    """Queries from one input, keys and values of other widths from another; the weights are returned too."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, kdim=5, vdim=7, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(x, memory, values, need_weights=True)


add(
    "mha-cross-weights",
    2 * (9 + 9 + 3 + 3),
    lambda: Call(CrossMHA(), (floats(3, 11, 6), floats(3, 13, 5), floats(3, 13, 7))),
)


def encoder(pre: bool, activation: str, d: int = 6, heads: int = 2, f: int = 7) -> Call:
    layer = nn.TransformerEncoderLayer(d, heads, f, 0.0, activation, batch_first=True, norm_first=pre)
    return Call(layer.eval(), (floats(3, 11, d),))


for _act, _p in (("relu", 1), ("gelu", 0)):
    _qkvo = 2 * (2 * 9 + 2 * 3)
    add(f"encoder-pre-{_act}", _qkvo + 4 * 6 + 3 * 6 + 7 + 7 * _p + 1, lambda a=_act: encoder(True, a))
    add(f"encoder-post-{_act}", _qkvo + (6 + 1) + (7 + 1) + 6 + 7 + 7 * _p, lambda a=_act: encoder(False, a))


@case(
    "encoder-stack",
    2 * (2 * (2 * 9 + 2 * 3) + (6 + 1) + (7 + 1) + 6 + 7) + 3 * 6 + 6,
    why="the second layer also reads a normalised stream: 3 d more, and its entering shift d",
)
def encoder_stack() -> Call:
    layer = nn.TransformerEncoderLayer(6, 2, 7, 0.0, "gelu", batch_first=True)
    return Call(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), (floats(3, 11, 6),))


# two attentions; the means of three writers; two inner shifts; the readers of two normalised streams
@case("decoder-layer", 2 * 2 * (2 * 9 + 2 * 3) + (6 + 1) + (6 + 1) + (7 + 1) + 2 * 6 + 6 + 7)
def decoder_layer() -> Call:
    layer = nn.TransformerDecoderLayer(6, 2, 7, 0.0, "gelu", batch_first=True)
    return Call(layer.eval(), (floats(3, 11, 6), floats(3, 13, 6)))
