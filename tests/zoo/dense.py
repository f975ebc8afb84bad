"""Dense networks: activations, linear chains, gates, residual streams, low-rank adapters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.registry import Call, add, case, floats


class Apply(nn.Module):
    """An activation given as a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def square(x: Tensor) -> Tensor:
    return x * x


def relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


def mlp(widths: tuple[int, ...], activation, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [nn.Linear(n, m, bias=bias)] + ([activation()] if i < len(widths) - 2 else [])
    return nn.Sequential(*layers)


def linear_chain(widths: tuple[int, ...], bias: bool = True) -> int:
    """Parameters minus the dimension of the matrices of rank r = min(widths), and of one bias."""
    rank, inputs, outputs = min(widths), widths[0], widths[-1]
    held = sum(n * m + bias * m for n, m in zip(widths, widths[1:], strict=False))
    return held - rank * (inputs + outputs - rank) - bias * outputs


HOMOGENEOUS = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "prelu": nn.PReLU,
    "square": lambda: Apply(square),
    "relu2": lambda: Apply(relu_squared),
}
RIGID = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "sin": lambda: Apply(torch.sin),
}
WIDTHS = (5, 7, 6, 3)

for _bias in (True, False):
    _tag = "" if _bias else "-nobias"
    for _name, _act in HOMOGENEOUS.items():
        add(f"mlp-{_name}{_tag}", 7 + 6, lambda a=_act, b=_bias: Call(mlp(WIDTHS, a, b), (floats(23, 5),)))
    for _name, _act in RIGID.items():
        add(f"mlp-{_name}{_tag}", 0, lambda a=_act, b=_bias: Call(mlp(WIDTHS, a, b), (floats(23, 5),)))
    for _name, _widths in {"narrow": (6, 3, 7), "wide": (5, 7, 6, 3), "bottleneck": (7, 4, 2, 5, 6)}.items():
        add(
            f"linear-{_name}{_tag}",
            linear_chain(_widths, _bias),
            lambda w=_widths, b=_bias: Call(mlp(w, nn.Identity, b), (floats(23, w[0]),)),
        )
add("mlp-relu-wide", 17, lambda: Call(mlp((3, 17, 2), nn.ReLU), (floats(23, 3),)))
add("mlp-leaky-deep", 3 * 6, lambda: Call(mlp((5, 6, 6, 6, 3), lambda: nn.LeakyReLU(0.2)), (floats(101, 5),)))
add(
    "mlp-tanh-linear-tail",
    3 * 3 + 3,
    lambda: Call(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(3, 6)), (floats(23, 5),)),
)


class Residual(nn.Module):
    """in -> stream -> (+ MLP) x blocks -> [norm] -> out."""

    def __init__(
        self,
        d_in: int,
        d: int,
        f: int,
        d_out: int,
        blocks: int = 2,
        norm=None,
        bias: bool = True,
        activation=F.relu,
        final: bool = True,
    ):
        super().__init__()
        self.enter = nn.Linear(d_in, d, bias=bias)
        self.norms = nn.ModuleList((norm or (lambda _: nn.Identity()))(d) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(d, f, bias=bias) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(f, d, bias=bias) for _ in range(blocks))
        self.final = norm(d) if norm and final else nn.Identity()
        self.leave = nn.Linear(d, d_out, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(self.activation(up(norm(x))))
        return self.leave(self.final(x))


class RMSNorm(nn.Module):
    """Written out, as model libraries do."""

    def __init__(self, d: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d)), eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def residual(d_in, d, f, d_out, **options) -> Call:
    return Call(Residual(d_in, d, f, d_out, **options), (floats(101, d_in),))


# GL(d) on the stream, one translation for each of the three writers, one scale for each hidden unit
add("res-none", 6 * 6 + 3 * 6 + 2 * 9, lambda: residual(7, 6, 9, 8))
add("res-none-nobias", 6 * 6 + 2 * 9, lambda: residual(7, 6, 9, 8, bias=False))
# gains d each; shifts d each (all readers have biases); a direction for each row that reads a normalised value; the
# mean: per input column and bias of each writer; O(d - 1)
add(
    "res-layernorm",
    3 * 6 + 3 * 6 + (2 * 9 + 8) + (8 + 2 * 10) + 5 * 4 // 2 + 2 * 9,
    lambda: residual(7, 6, 9, 8, norm=nn.LayerNorm),
)
add("res-rmsnorm", 3 * 6 + 6 * 5 // 2 + 2 * 9, lambda: residual(7, 6, 9, 8, norm=RMSNorm))
add("res-rmsnorm-nobias", 3 * 6 + 6 * 5 // 2 + 2 * 9, lambda: residual(7, 6, 9, 8, norm=RMSNorm, bias=False))
add(
    "res-rmsnorm-module",
    3 * 6 + 6 * 5 // 2 + 2 * 9,
    lambda: residual(7, 6, 9, 8, norm=lambda d: nn.RMSNorm(d, eps=1e-5)),
)
add(
    "res-layernorm-gelu",
    3 * 6 + 3 * 6 + (2 * 9 + 8) + (8 + 2 * 10) + 5 * 4 // 2,
    lambda: residual(7, 6, 9, 8, norm=nn.LayerNorm, activation=F.gelu),
)


class Gated(nn.Module):
    """down(act(gate x) * up x)."""

    def __init__(self, activation, d: int = 5, f: int = 11, out: int = 4, bias: bool = False):
        super().__init__()
        self.gate, self.up = nn.Linear(d, f, bias=bias), nn.Linear(d, f, bias=bias)
        self.down, self.activation = nn.Linear(f, out, bias=bias), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))


for _name, _act, _each in (
    ("swiglu", F.silu, 1),
    ("geglu", F.gelu, 1),
    ("glu", torch.sigmoid, 1),
    ("reglu", F.relu, 2),
    ("bilinear", Apply(lambda x: x), 2),
):
    for _bias in (False, True):
        add(
            f"{_name}{'-bias' if _bias else ''}",
            _each * 7,
            lambda a=_act, b=_bias: Call(Gated(a, 8, 7, 6, b), (floats(23, 8),)),
        )


class Adapted(nn.Module):
    """A frozen linear map with a low-rank update of it."""

    def __init__(self, n: int = 7, m: int = 6, rank: int = 2):
        super().__init__()
        self.down, self.up = nn.Linear(n, rank, bias=False), nn.Linear(rank, m, bias=False)
        self.register_buffer("base", torch.randn(m, n))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, self.base) + 0.5 * self.up(self.down(x)))


@case("lora", 2 * 2)
def lora() -> Call:
    return Call(Adapted(), (floats(23, 7),))


@case("lora-trained-base", 2 * (7 + 6), why="the base absorbs the whole update")
def lora_trained_base() -> Call:
    model = Adapted()
    base = model.base
    del model.base
    model.base = nn.Parameter(base)
    return Call(model, (floats(23, 7),))


class Merged(Adapted):
    """The update is added to the trained map before it is read."""

    def __init__(self):
        super().__init__()
        base = self.base
        del self.base
        self.base = nn.Parameter(base)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, self.base + 0.5 * (self.up.weight @ self.down.weight)))


@case("lora-merged", 2 * (7 + 6), why="the base absorbs the whole update")
def lora_merged() -> Call:
    return Call(Merged(), (floats(23, 7),))


class Euler(nn.Module):
    """x' = A(t) x + b(t), piecewise constant in K pieces, one Euler step each."""

    def __init__(self, d: int = 4, pieces: int = 3):
        super().__init__()
        self.pieces = nn.ModuleList(nn.Linear(d, d) for _ in range(pieces))

    def forward(self, x: Tensor) -> Tensor:
        for piece in self.pieces:
            x = x + piece(x) / len(self.pieces)
        return x


@case("linear-ode", 2 * (4 * 4 + 4), why="the interior affine gauge: (K - 1)(d^2 + d)")
def linear_ode() -> Call:
    return Call(Euler(), (floats(23, 4),))


class WeightNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.utils.parametrizations.weight_norm(nn.Linear(5, 7))
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


@case("weight-norm", 7, why="one scale for each row of the direction")
def weight_norm() -> Call:
    return Call(WeightNormed(), (floats(23, 5),))
