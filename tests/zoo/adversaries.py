"""Graphs that are not models: each has broken a plausible rule."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.dense import RMSNorm
from tests.zoo.registry import Call, add, case, floats, tokens


class SharedTwice(nn.Module):
    """out(act(W act(W act(in x)))): the shared square W reads and writes one bond."""

    def __init__(self, activation, bias: bool = True, d: int = 5):
        super().__init__()
        self.enter, self.shared, self.leave = nn.Linear(3, d, bias=bias), nn.Linear(d, d, bias=bias), nn.Linear(d, 4)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.enter(x))
        x = self.activation(self.shared(x))
        return self.leave(self.activation(self.shared(x)))


def dense(model: nn.Module, width: int = 3, batch: int = 101) -> Call:
    return Call(model, (floats(batch, width),))


add("shared-twice-relu", 5, lambda: dense(SharedTwice(F.relu)))
add(
    "shared-twice-relu-nobias",
    5 + 1,
    lambda: dense(SharedTwice(F.relu, False)),
    why="without biases W scales as a whole against the last layer",
)
add("shared-twice-square-nobias", 5 + 1, lambda: dense(SharedTwice(torch.square, False)))


class SharedSeen(nn.Module):
    """A linear recurrence h <- W h + b whose every state is read: GL(d) and a translation."""

    def __init__(self, d: int = 3):
        super().__init__()
        self.enter, self.shared, self.leave = nn.Linear(6, d), nn.Linear(d, d), nn.Linear(d, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        states = [h, h := self.shared(h), self.shared(h)]
        return self.leave(torch.stack(states, 1))


add("shared-twice-linear-seen", 3 * 3 + 3, lambda: dense(SharedSeen(), 6))
add(
    "shared-twice-linear",
    74 - (3 * 4 + 4),
    lambda: dense(SharedTwice(lambda x: x)),
    why="the whole is one affine map from 3 to 4: everything else is redundant",
)
add("shared-twice-tanh", 0, lambda: dense(SharedTwice(torch.tanh)))


class SharedGain(nn.Module):
    """Two RMS norms with one gain, read by two linear maps."""

    def __init__(self, shared: bool = True, d: int = 5):
        super().__init__()
        self.n1 = RMSNorm(d)
        self.n2 = self.n1 if shared else RMSNorm(d)
        self.a, self.b, self.out = nn.Linear(d, 7), nn.Linear(7, d), nn.Linear(d, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.b(F.gelu(self.a(self.n1(x))))
        return self.out(self.n2(x))


add("gain-shared", 5, lambda: dense(SharedGain(), 5))
add("gain-own", 5 + 5, lambda: dense(SharedGain(False), 5))


class GainChain(nn.Module):
    """Linear, gain, gain, gain, linear: one frame seen through three diagonal links."""

    def __init__(self, links: int = 3, d: int = 5, activation=None):
        super().__init__()
        self.a, self.b = nn.Linear(6, d), nn.Linear(d, 7)
        self.gains = nn.ParameterList(torch.ones(d) for _ in range(links))
        self.activation = activation or (lambda x: x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.a(x))
        for gain in self.gains:
            x = x * gain
        return self.b(x)


add("gain-chain", 5 * 5 + 5 + 3 * 5, lambda: dense(GainChain(), 6), why="GL(d), d for the bias, d for each gain")
add("gain-chain-relu", 5 + 3 * 5, lambda: dense(GainChain(activation=F.relu), 6))
add("gain-chain-tanh", 3 * 5, lambda: dense(GainChain(activation=torch.tanh), 6))


class NormGainChain(nn.Module):
    """RMS norm's gain and a second gain behind it, then two readers."""

    def __init__(self, d: int = 5):
        super().__init__()
        self.enter, self.norm, self.gain = nn.Linear(6, d), RMSNorm(d), nn.Parameter(torch.ones(d))
        self.a, self.b = nn.Linear(d, 7), nn.Linear(d, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.enter(x)) * self.gain
        return torch.cat([torch.tanh(self.a(x)), self.b(x)], -1)


add("norm-gain-chain", 5 * 4 // 2 + 2 * 5, lambda: dense(NormGainChain(), 6))


class LayerScale(nn.Module):
    """Residual branches end in a learned gain: the writer's side absorbs it."""

    def __init__(self, norm, d: int = 5, f: int = 7):
        super().__init__()
        self.enter, self.leave = nn.Linear(6, d), nn.Linear(d, 8)
        self.norms = nn.ModuleList(norm(d) for _ in range(2))
        self.up, self.down = (
            nn.ModuleList(m) for m in ([nn.Linear(d, f) for _ in range(2)], [nn.Linear(f, d) for _ in range(2)])
        )
        self.scale = nn.ParameterList(torch.ones(d) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for norm, up, down, scale in zip(self.norms, self.up, self.down, self.scale, strict=True):
            x = x + scale * down(F.gelu(up(norm(x))))
        return self.leave(x)


# O(d); the norms' gains; the layer scales; the last writer's bias, which only the bare read-out sees
add("layerscale-rmsnorm", 5 * 4 // 2 + 2 * 5 + 2 * 5 + 5, lambda: dense(LayerScale(RMSNorm), 6))
add("layerscale-none", 5 * 5 + 2 * 5 + 3 * 5, lambda: dense(LayerScale(lambda d: nn.Identity()), 6))


class ConstantBeforeBias(nn.Module):
    """A constant vector is added before (or behind) an absorbing bias."""

    def __init__(self, absorb: bool, d: int = 4):
        super().__init__()
        self.a, self.b = nn.Linear(6, d, bias=absorb), nn.Linear(d, 7, bias=absorb)
        self.register_buffer("constant", torch.randn(d))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + self.constant)


add("constant-vector-absorbed", 4 * 4 + 4, lambda: dense(ConstantBeforeBias(True), 6))
add("constant-vector-bare", 4 * 3, lambda: dense(ConstantBeforeBias(False), 6), why="GL(d) fixing one vector")


class ConstantMap(nn.Module):
    """A constant matrix between two linear maps: regular, singular, or diagonal."""

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.a = nn.Linear(7, matrix.shape[1], bias=False)
        self.b = nn.Linear(matrix.shape[0], 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.linear(self.a(x), self.matrix))


def of_rank(n: int, rank: int) -> Tensor:
    """An n x n matrix of integers, of that rank exactly in any precision."""
    generator = torch.Generator().manual_seed(5)
    left, right = (torch.randint(-3, 4, shape, generator=generator) for shape in ((n, rank), (rank, n)))
    return (left @ right).float()


# rank r of n: a's rows in the kernel and b's columns off the image are free, GL(r) within
add("constant-map-regular", 4 * 4, lambda: dense(ConstantMap(of_rank(4, 4)), 7))
add("constant-map-singular", 2 * 2 + 2 * 7 + 2 * 8, lambda: dense(ConstantMap(of_rank(4, 2)), 7))
add("constant-map-diagonal", 4 * 4, lambda: dense(ConstantMap(torch.diag(torch.tensor([1.0, 2.0, -3.0, 4.0]))), 7))


class ConstantMapRelu(nn.Module):
    """relu behind a constant map: only what commutes through it to a scaling stays."""

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.a, self.b = nn.Linear(7, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(F.linear(self.a(x), self.matrix)))


add(
    "constant-map-relu",
    4,
    lambda: dense(ConstantMapRelu(of_rank(4, 4)), 7),
    why="a regular map is absorbed by the first layer: one scale for each unit behind it",
)
add(
    "softmax-output",
    7 + 1,
    lambda: dense(nn.Sequential(nn.Linear(7, 4), nn.Softmax(-1)), 7),
    why="softmax as output: all rows and biases += u",
)


class QKNorm(nn.Module):
    """Attention with norms on queries and keys, rotary positions and grouped queries."""

    def __init__(
        self,
        rotary: bool = True,
        eps: float = 1e-5,
        d: int = 7,
        heads: int = 4,
        groups: int = 2,
        dh: int = 4,
        turning: int | None = None,
    ):
        super().__init__()
        self.heads, self.groups, self.dh, self.rotary = heads, groups, dh, rotary
        self.turning = dh // 2 if turning is None else turning
        self.q, self.k = nn.Linear(d, heads * dh, bias=False), nn.Linear(d, groups * dh, bias=False)
        self.v, self.o = nn.Linear(d, groups * dh, bias=False), nn.Linear(heads * dh, d, bias=False)
        self.q_norm, self.k_norm = RMSNorm(dh, eps), RMSNorm(dh, eps)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_norm(self.q(x).view(b, t, self.heads, self.dh)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(b, t, self.groups, self.dh)).transpose(1, 2)
        v = self.v(x).view(b, t, self.groups, self.dh).transpose(1, 2)
        if self.rotary:
            planes = torch.arange(self.dh // 2)
            speed = 0.3**planes * (planes < self.turning)
            angle = torch.outer(torch.arange(t), speed).repeat(1, 2).to(x.dtype)
            q, k = (z * angle.cos() + half_turned(z) * angle.sin() for z in (q, k))
        k, v = (z.repeat_interleave(self.heads // self.groups, 1) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


def half_turned(z: Tensor) -> Tensor:
    first, second = z.chunk(2, -1)
    return torch.cat([-second, first], -1)


# dh / 2 for the planes' gains, shared by all heads; VO as ever; at eps = 0 one scale for each query and key head
add("qknorm-rotary-gqa", 2 + 2 * 16, lambda: Call(QKNorm(), (floats(3, 11, 7),)))
add("qknorm-rotary-gqa-eps0", 2 + 2 * 16 + 4 + 2, lambda: Call(QKNorm(eps=0.0), (floats(3, 11, 7),)))
add(
    "qknorm-still-planes",
    1 + 2 + 2 * 16,
    lambda: Call(QKNorm(turning=1), (floats(3, 11, 7),)),
    why="a plane that turns by nothing lies beside one that turns: two coordinates, each with a scale of its gains",
)
add("qknorm-gqa", 4 + 2 * 16, lambda: Call(QKNorm(rotary=False), (floats(3, 11, 7),)))


class TiedLanguage(nn.Module):
    """Embedding, residual RMS-norm MLP, final norm, the embedding again as the head."""

    def __init__(self, norm=RMSNorm, v: int = 13, d: int = 5, f: int = 7, positions: int = 0, final: bool = True):
        super().__init__()
        self.embed = nn.Embedding(v, d)
        self.positions = nn.Embedding(positions, d) if positions else None
        self.norm, self.up, self.down = norm(d), nn.Linear(d, f), nn.Linear(f, d)
        self.final = norm(d) if final else nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + 0.3 * x.cumsum(1)
        if self.positions is not None:
            x = x + self.positions(torch.arange(ids.shape[1]))
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return F.linear(self.final(x), self.embed.weight)


def language(model: nn.Module, observe: str = "logits", v: int = 13) -> Call:
    return Call(model, (tokens(v, 5, 7),), {}, observe)


add("tied-rmsnorm", 5, lambda: language(TiedLanguage()))
add("tied-rmsnorm-positions", 5, lambda: language(TiedLanguage(positions=7)))
add(
    "tied-rmsnorm-positions-probabilities",
    5 + 5,
    lambda: language(TiedLanguage(positions=7), "probabilities"),
    why="all tokens shift against all positions: every logit of a position moves alike",
)
add(
    "tied-no-final",
    5 + 5 * 4 // 2,
    lambda: language(TiedLanguage(final=False)),
    why="without a final gain the tie keeps O(d)",
)
add("tied-layernorm-positions", 5 + 5 + 7 + (7 + 1) + 7, lambda: language(TiedLanguage(nn.LayerNorm, positions=7)))


class FinalLayerNorm(nn.Module):
    """Untied head behind a LayerNorm, with or without a bias; `bare`: a linear map also reads the stream itself."""

    def __init__(self, bias: bool, bare: bool = False, v: int = 13, d: int = 5):
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(v, d), nn.LayerNorm(d), nn.Linear(d, 11, bias=bias)
        self.mix = nn.Linear(d, d) if bare else None

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + (x if self.mix is None else torch.tanh(self.mix(x))).cumsum(1)
        return self.head(self.norm(x))


# gain and shift, O(d - 1), the mean of each row; with a bias also one direction for each row of the head
add("final-layernorm-nobias", 2 * 5 + 4 * 3 // 2 + 13, lambda: language(FinalLayerNorm(False)))
add("final-layernorm-bias", 2 * 5 + 4 * 3 // 2 + 13 + 11, lambda: language(FinalLayerNorm(True)))
add(
    "final-layernorm-bare-reader",
    2 * 5 + 11 + 5 + 1,
    lambda: language(FinalLayerNorm(True, True)),
    why="x += 1 (l.x + c) for any l, c: the norm does not see it, the bare reader undoes it",
)


class UnreadRows(nn.Module):
    """A position table longer than the sequence: rows that are never read."""

    def __init__(self, v: int = 13, d: int = 5, rows: int = 11):
        super().__init__()
        self.embed, self.positions, self.out = nn.Embedding(v, d), nn.Embedding(rows, d), nn.Linear(d, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.embed(ids) + self.positions.weight[: ids.shape[1]]))


add(
    "unread-rows",
    5 + 4 * 5,
    lambda: Call(UnreadRows(), (tokens(13, 5, 7),)),
    why="tokens against positions d; 4 rows that are never read",
)


class MergedHeads(nn.Module):
    """Batch and heads in one axis, as nn.MultiheadAttention does it, un-normalised scores."""

    def __init__(self, d: int = 6, heads: int = 2):
        super().__init__()
        self.heads, self.packed, self.out = heads, nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        packed = self.packed(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = packed.reshape(3, b * self.heads, t, d // self.heads)
        y = torch.bmm(torch.relu(torch.bmm(q, k.transpose(1, 2))), v)
        return self.out(y.view(b, self.heads, t, -1).transpose(1, 2).reshape(b, t, d))


add("merged-heads", 2 * (9 + 9 + 1), lambda: Call(MergedHeads(), (floats(3, 11, 6),)))


class InterleavedQKV(nn.Module):
    """Packed projection laid out head by head [q k v], partial rotary on the first half of q and k."""

    def __init__(self, d: int = 7, heads: int = 2, dh: int = 4, r: int = 2):
        super().__init__()
        self.heads, self.dh, self.r = heads, dh, r
        self.packed, self.out = nn.Linear(d, heads * 3 * dh), nn.Linear(heads * dh, d)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.packed(x).view(b, t, self.heads, 3 * self.dh).transpose(1, 2).chunk(3, -1)
        angle = torch.arange(t, dtype=x.dtype)[:, None] * 0.7

        def turn(z: Tensor) -> Tensor:
            turned = z[..., : self.r] * angle.cos() + half_turned(z[..., : self.r]) * angle.sin()
            return torch.cat([turned, z[..., self.r :]], -1)

        y = torch.softmax(turn(q) @ turn(k).transpose(-1, -2) / math.sqrt(self.dh), -1) @ v
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


add("interleaved-partial-rotary", 2 * (2 + 4 + 2 + 16 + 4), lambda: Call(InterleavedQKV(), (floats(3, 11, 7),)))


class LearnedQueries(nn.Module):
    """Learned queries read a sequence: pooling by attention, then a read-out."""

    def __init__(self, d: int = 7, n: int = 3, dk: int = 4):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(n, dk))
        self.k, self.v, self.o = nn.Linear(d, dk), nn.Linear(d, dk), nn.Linear(dk, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(torch.softmax(self.queries @ self.k(x).transpose(-1, -2), -1) @ self.v(x))


# three queries span three of the four dimensions: 3 x 4 and 4 x 7 parameters for a 3 x 7 product; key bias; values
add("learned-queries", (3 * 4 + 4 * 7 - 3 * 7) + 4 + 4 * 4 + 4, lambda: Call(LearnedQueries(), (floats(5, 11, 7),)))
add("learned-queries-wide", 4 * 4 + 4 + 4 * 4 + 4, lambda: Call(LearnedQueries(n=6), (floats(5, 11, 7),)))


class MeanPool(nn.Module):
    """Mean over time between two linear maps: it does not touch features."""

    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(5, 4), nn.Linear(4, 6), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.activation(self.a(x)).mean(1))


add("mean-pool-linear", 4 * 4 + 4, lambda: Call(MeanPool(lambda x: x), (floats(31, 7, 5),)))
add("mean-pool-relu", 4, lambda: Call(MeanPool(F.relu), (floats(31, 7, 5),)))


class SumFeatures(nn.Module):
    """A sum over the features themselves beside a linear reader."""

    def __init__(self, activation, both: bool):
        super().__init__()
        self.a, self.b, self.activation, self.both = nn.Linear(7, 4), nn.Linear(4, 6), activation, both

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.a(x))
        total = h.sum(-1, keepdim=True)
        return torch.cat([self.b(h), total], -1) if self.both else total


add(
    "sum-features-linear",
    4 * 3 + 3,
    lambda: dense(SumFeatures(lambda x: x, True), 7),
    why="GL fixing the ones, and translations along what the ones do not see",
)
add("sum-features-relu", 0, lambda: dense(SumFeatures(F.relu, True), 7))


class SumFeaturesOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).sum(-1)


add("sum-features-only", 3 * 7 + 3, lambda: dense(SumFeaturesOnly(), 7), why="only the sum of the rows is seen")


class EpsZero(nn.Module):
    """Residual stream with RMS norms without eps: one global scale of the stream more."""

    def __init__(self, eps: float, final: bool = True, d: int = 5, f: int = 7):
        super().__init__()
        self.enter, self.n1, self.n2 = nn.Linear(6, d), RMSNorm(d, eps), RMSNorm(d, eps)
        self.up, self.down, self.leave = nn.Linear(d, f), nn.Linear(f, d), nn.Linear(d, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.down(F.gelu(self.up(self.n1(x))))
        return self.leave(self.n2(x))


add("rmsnorm-eps0", 5 * 4 // 2 + 2 * 5 + 1, lambda: dense(EpsZero(0.0), 6))
add("rmsnorm-eps", 5 * 4 // 2 + 2 * 5, lambda: dense(EpsZero(1e-6), 6))


class NormAbsorbsEps(nn.Module):
    """A linear map with a bias and n >= inputs + 1 outputs before a norm absorbs eps exactly."""

    def __init__(self, inputs: int, d: int = 5):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(inputs, d), RMSNorm(d), nn.Linear(d, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)))


# gain, O(d), the reader's columns off the 4-dimensional image, and the scale
add("norm-narrow-input", 5 + 5 * 4 // 2 + 7 + 1, lambda: dense(NormAbsorbsEps(3), 3))
add("norm-wide-input", 5 * 4 // 2 + 5, lambda: dense(NormAbsorbsEps(6), 6))


class Diamond(nn.Module):
    """Two activations of different kind read one hidden value."""

    def __init__(self, f, g):
        super().__init__()
        self.a, self.b, self.c, self.f, self.g = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 4), f, g

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(self.f(h)) + self.c(self.g(h))


add("diamond-relu-square", 6 + 4, lambda: dense(Diamond(F.relu, torch.square), 5), why="scale; two output biases")
add("diamond-relu-tanh", 4, lambda: dense(Diamond(F.relu, torch.tanh), 5))


class Outer(nn.Module):
    """One bond against itself: x_i x_j read by a linear map."""

    def __init__(self, d: int = 3):
        super().__init__()
        self.a, self.b = nn.Linear(5, d, bias=False), nn.Linear(d * d, 7, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(torch.einsum("bi,bj->bij", h, h).flatten(1))


add("outer-square", 3 * 3 + 3 * 7, lambda: dense(Outer(), 5), why="GL(d); the reader's antisymmetric part is unseen")


@case("two-heads-one-bond", 6 + 6)
def two_heads() -> Call:
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = F.relu(self.b(F.relu(self.a(x))))
            return self.c(h), self.c(h.roll(1, 0))

    return dense(Two(), 5)


class Kronecker(nn.Module):
    """A weight that is a Kronecker product: one scale between its factors, whatever the sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ torch.kron(self.a, self.b))


add("kronecker-weight", 1, lambda: dense(Kronecker(), 4))


class CosineToCentres(nn.Module):
    """Angles between data and centres; the clamp of a length near zero is no scale."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(6, 5, bias=False), nn.Parameter(torch.zeros(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return F.cosine_similarity(self.a(x)[:, None], self.c[None], dim=-1)


add(
    "cosine-to-centres",
    5 * 4 // 2 + 1 + 4,
    lambda: dense(CosineToCentres(), 6),
    why="O(5), and the lengths of both sides",
)
