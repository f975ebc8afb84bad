"""Plain torch modules: one small network around each activation, norm, convolution, recurrent and attention module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .build import Subject, randomise

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "CELU": nn.CELU,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "GELUTanh": lambda: nn.GELU(approximate="tanh"),
    "Hardshrink": nn.Hardshrink,
    "Hardsigmoid": nn.Hardsigmoid,
    "Hardswish": nn.Hardswish,
    "Hardtanh": nn.Hardtanh,
    "Identity": nn.Identity,
    "LeakyReLU": nn.LeakyReLU,
    "LogSigmoid": nn.LogSigmoid,
    "Mish": nn.Mish,
    "PReLU": nn.PReLU,
    "PReLUChannels": lambda: nn.PReLU(12),
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "RReLU": nn.RReLU,
    "SELU": nn.SELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
    "Softmax": lambda: nn.Softmax(-1),
    "Softmin": lambda: nn.Softmin(-1),
    "Softplus": nn.Softplus,
    "Softshrink": nn.Softshrink,
    "Softsign": nn.Softsign,
    "Tanh": nn.Tanh,
    "Tanhshrink": nn.Tanhshrink,
    "Threshold": lambda: nn.Threshold(0.1, 0.0),
}
WHOLE: dict[str, Callable[[], nn.Module]] = {
    "LogSoftmax": lambda: nn.LogSoftmax(-1),
    "LayerNorm": lambda: nn.LayerNorm(12),
    "LayerNormBare": lambda: nn.LayerNorm(12, elementwise_affine=False),
    "LayerNormNoBias": lambda: nn.LayerNorm(12, bias=False),
    "RMSNorm": lambda: nn.RMSNorm(12, eps=1e-6),
    "RMSNormBare": lambda: nn.RMSNorm(12, eps=1e-6, elementwise_affine=False),
    "BatchNorm1d": lambda: nn.Sequential(nn.BatchNorm1d(12), nn.Tanh()),
    "GroupNorm": lambda: nn.GroupNorm(3, 12),
}


class LastState(nn.Module):
    """A recurrent network with a linear readout of its outputs."""

    def __init__(self, cell: nn.Module, size: int) -> None:
        super().__init__()
        self.cell, self.readout = cell, nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.cell(x)[0])


class SelfAttention(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.attention, self.readout = nn.MultiheadAttention(12, 3, batch_first=True, **options), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.attention(x, x, x, need_weights=False)[0])


class GatedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(5, 12), nn.GLU(-1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.gate(self.up(x)))


def _cells(dimension: int) -> dict[str, nn.Module]:
    """Convolutions of one dimension between two pointwise ones, with the pools and norms that go with them."""
    d = dimension
    conv, up = getattr(nn, f"Conv{d}d"), getattr(nn, f"ConvTranspose{d}d")

    def chain(*middle: nn.Module, width: int = 6) -> nn.Module:
        return nn.Sequential(conv(2, 6, 3), *middle, conv(width, 3, 1))

    nets = {
        f"Conv{d}d": chain(nn.ReLU(), conv(6, 8, 2), nn.Tanh(), width=8),
        f"Conv{d}dGrouped": chain(nn.ReLU(), conv(6, 8, 2, groups=2), nn.SiLU(), width=8),
        f"Conv{d}dDepthwise": chain(nn.ReLU(), conv(6, 6, 3, groups=6, padding=1), nn.ReLU()),
        f"Conv{d}dStrided": chain(nn.GELU(), conv(6, 8, 3, stride=2, dilation=2, padding=2), nn.ReLU(), width=8),
        f"ConvTranspose{d}d": chain(nn.ReLU(), up(6, 8, 2, stride=2), nn.Tanh(), width=8),
        f"ConvTranspose{d}dGrouped": chain(nn.ReLU(), up(6, 8, 2, groups=2), nn.Tanh(), width=8),
        f"BatchNorm{d}dConv": chain(getattr(nn, f"BatchNorm{d}d")(6), nn.ReLU()),
        f"InstanceNorm{d}d": chain(getattr(nn, f"InstanceNorm{d}d")(6, affine=True), nn.ReLU()),
        f"GroupNorm{d}d": chain(nn.GroupNorm(3, 6), nn.SiLU()),
        f"LocalResponseNorm{d}d": chain(nn.LocalResponseNorm(3), nn.ReLU()),
        f"MaxPool{d}d": chain(getattr(nn, f"MaxPool{d}d")(2)),
        f"AvgPool{d}d": chain(nn.GELU(), getattr(nn, f"AvgPool{d}d")(2)),
        f"AdaptiveAvgPool{d}d": nn.Sequential(
            conv(2, 6, 3), nn.ReLU(), getattr(nn, f"AdaptiveAvgPool{d}d")(1), nn.Flatten(), nn.Linear(6, 3)
        ),
        f"Flatten{d}d": nn.Sequential(conv(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 5**d, 3)),
    }
    return nets


def plain_modules() -> dict[str, tuple[nn.Module, Tensor]]:
    """Every subject of this kind: the module and its input."""
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    wide = torch.randn(7, 13, generator=torch.Generator().manual_seed(5))
    steps = torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(2))
    stream = torch.randn(7, 4, 12, generator=torch.Generator().manual_seed(3))
    nets: dict[str, tuple[nn.Module, Tensor]] = {}
    for name, make in ACTIVATIONS.items():
        nets[name] = (nn.Sequential(nn.Linear(5, 12), make(), nn.Linear(12, 3)), rows)
    for name, make in WHOLE.items():  # which keep a part of a map linear: as wide as the maps around them
        nets[name] = (nn.Sequential(nn.Linear(13, 12), make(), nn.Linear(12, 13)), wide)
    nets["GLU"] = (GatedLinear(), rows)
    nets["Bilinear"] = (_Bilinear(), wide)
    nets["Embedding"] = (nn.Sequential(nn.Embedding(12, 6), nn.Linear(6, 7)), torch.arange(12).view(3, 4))
    nets["Dropout"] = (nn.Sequential(nn.Linear(5, 12), nn.Dropout(), nn.Linear(12, 3)), rows)
    for cell, width in ((nn.RNN, 6), (nn.LSTM, 6), (nn.GRU, 6)):
        for extra, options, size in (
            ("", {}, width),
            ("NoBias", {"bias": False}, width),
            ("Deep", {"num_layers": 2}, width),
            ("Bidirectional", {"bidirectional": True}, 2 * width),
        ):
            nets[cell.__name__ + extra] = (LastState(cell(5, width, batch_first=True, **options), size), steps)
    nets["RNNReLU"] = (LastState(nn.RNN(5, 6, nonlinearity="relu", batch_first=True), 6), steps)
    nets["LSTMProjected"] = (LastState(nn.LSTM(5, 6, proj_size=4, batch_first=True), 4), steps)
    nets["MultiheadAttention"] = (SelfAttention(), stream)
    nets["MultiheadAttentionNoBias"] = (SelfAttention(bias=False), stream)
    for first in (False, True):
        for act in ("relu", "gelu"):
            layer = nn.TransformerEncoderLayer(12, 3, 19, 0.0, act, batch_first=True, norm_first=first)
            name = f"TransformerEncoder{'Pre' if first else 'Post'}Norm{act.title()}"
            encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            nets[name] = (nn.Sequential(encoder, nn.Linear(12, 13)), stream)
    nets["Transformer"] = (_Transformer(), stream)
    for dimension in (1, 2, 3):
        shape = (2, 2) + (7,) * dimension
        image = torch.randn(shape, generator=torch.Generator().manual_seed(4))
        nets |= {name: (net, image) for name, net in _cells(dimension).items()}
    return nets


class _Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.form = nn.Linear(6, 4), nn.Linear(7, 6), nn.Bilinear(4, 6, 25)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self.left(x[..., :6]), self.right(x[..., 6:]))


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.readout = nn.Transformer(12, 3, 1, 1, 14, 0.0, batch_first=True), nn.Linear(12, 13)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.body(x, x.flip(1)))


def build_plain(name: str, seed: int = 0) -> Subject:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, x = plain_modules()[name]
    randomise(module, torch.Generator().manual_seed(seed))
    return Subject(name, module.eval(), (x,), {})
