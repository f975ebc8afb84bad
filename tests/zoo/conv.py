"""Convolutions: batch norm in both modes, depthwise and pointwise, groups, concatenation, flattening."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.registry import Call, add, case, floats


def normed(norm, activation, bias: bool, train: bool = False) -> Call:
    model = nn.Sequential(nn.Conv2d(3, 5, 3, bias=bias), norm(5), activation(), nn.Conv2d(5, 4, 3, bias=bias))
    return Call(model.train(train), (floats(17, 3, 5, 7),))


for _name, _act, _p in (("relu", nn.ReLU, 1), ("silu", nn.SiLU, 0)):
    for _bias in (False, True):
        _tag = f"{_name}{'-bias' if _bias else ''}"
        # weight against gain, convolution bias against shift, the activation
        add(f"conv-bn-eval-{_tag}", 5 * (1 + _bias + _p), lambda a=_act, b=_bias: normed(nn.BatchNorm2d, a, b))
        add(f"conv-bn-train-{_tag}", 5 * (_bias + _p), lambda a=_act, b=_bias: normed(nn.BatchNorm2d, a, b, train=True))
add(
    "conv-groupnorm",
    1,
    lambda: normed(lambda n: nn.GroupNorm(1, n), nn.SiLU, True),
    why="the mean of the convolution's bias, once for each group",
)
add(
    "conv-groupnorm-per-channel",
    5 + 5,
    lambda: normed(lambda n: nn.GroupNorm(n, n), nn.ReLU, True),
    why="one channel a group: each bias is subtracted; each gain and shift against the next filter",
)
add("conv-plain", 5, lambda: normed(lambda n: nn.Identity(), nn.ReLU, True))


class DepthPoint(nn.Module):
    """Pointwise up, depthwise, pointwise down, each but the last followed by an activation or by nothing."""

    def __init__(self, activation, bias: bool = False):
        super().__init__()
        self.up, self.depth = nn.Conv2d(3, 5, 1, bias=bias), nn.Conv2d(5, 5, 3, groups=5, bias=bias)
        self.down, self.activation = nn.Conv2d(5, 4, 1, bias=bias), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.depth(self.activation(self.up(x)))))


add("depthwise-relu", 5 + 5, lambda: Call(DepthPoint(nn.ReLU()), (floats(17, 3, 5, 7),)))
add("depthwise-relu-bias", 5 + 5, lambda: Call(DepthPoint(nn.ReLU(), True), (floats(17, 3, 5, 7),)))
add("depthwise-linear", 5 + 5, lambda: Call(DepthPoint(nn.Identity()), (floats(17, 3, 5, 7),)))
add("depthwise-silu", 0, lambda: Call(DepthPoint(nn.SiLU()), (floats(17, 3, 5, 7),)))


class Separable(nn.Module):
    """Depthwise, batch norm, relu, pointwise, batch norm, relu, pointwise."""

    def __init__(self):
        super().__init__()
        self.depth, self.bn1 = nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)
        self.point, self.bn2 = nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5)
        self.out = nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.bn2(self.point(F.relu(self.bn1(self.depth(x)))))))


add("separable-bn", 2 * 4 + 2 * 5, lambda: Call(Separable().eval(), (floats(7, 4, 11, 13),)))


class Groups(nn.Module):
    """A grouped convolution in the middle: channels scale, and permute within and among groups."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(3, 6, 1), nn.Conv1d(6, 4, 3, groups=2), nn.Conv1d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


add("conv-groups", 6 + 4, lambda: Call(Groups(), (floats(7, 3, 13),)))


class ConvLinear(nn.Module):
    """Convolution after convolution with nothing between: GL of the channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(5, 3, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


add("conv-conv", 3 * 3 + 3, lambda: Call(ConvLinear(), (floats(7, 5, 11, 13),)))


class Flatten(nn.Module):
    """Convolution, relu, pool, flatten, linear: the last input axis is channels by pixels."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 5, 3), nn.Linear(5 * 2 * 3, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


add("conv-flatten-linear", 5 + 7, lambda: Call(Flatten(), (floats(101, 3, 6, 8),)))


class UNet(nn.Module):
    """Down, up, and a concatenation with the skip."""

    def __init__(self, norm: bool = False):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 7, 3, padding=1, stride=2)
        self.c, self.d = nn.ConvTranspose2d(7, 4, 2, stride=2), nn.Conv2d(9, 6, 3, padding=1)
        self.e = nn.Conv2d(6, 3, 1)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.norm(self.a(x)))
        up = F.relu(self.c(F.relu(self.b(skip))))
        return self.e(F.relu(self.d(torch.cat([up, skip], 1))))


add("unet-concat", 5 + 7 + 4 + 6, lambda: Call(UNet(), (floats(23, 3, 4, 6),)))
add("unet-concat-bn", 3 * 5 + 7 + 4 + 6, lambda: Call(UNet(norm=True).eval(), (floats(23, 3, 4, 6),)))


class SqueezeExcite(nn.Module):
    """A channel gate computed from the channels' means: the index set occurs twice."""

    def __init__(self, activation=F.relu):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)
        self.squeeze, self.excite = nn.Linear(5, 2), nn.Linear(2, 5)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.a(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.b(x * gate[:, :, None, None])


add("squeeze-excite", 5 + 2, lambda: Call(SqueezeExcite(), (floats(23, 3, 7, 8),)))
add(
    "squeeze-excite-linear",
    5 + 2,
    lambda: Call(SqueezeExcite(lambda x: x), (floats(23, 3, 7, 8),)),
    why="the gate keeps the channels apart though nothing else does",
)


class BasicBlock(nn.Module):
    """ResNet's block, eval or train batch norm, with a relu after the sum: the stream is monomial."""

    def __init__(self, n: int = 4):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, n, 3, bias=False), nn.BatchNorm2d(n)
        self.a, self.bn1 = nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n)
        self.b, self.bn2 = nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n)
        self.fc = nn.Linear(n, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.b(F.relu(self.bn1(self.a(x))))))
        return self.fc(x.mean((2, 3)))


# per normed channel: weight against gain; per inner channel: relu; per stream channel: relu
add("resnet-block-eval", 3 * 4 + 4 + 4, lambda: Call(BasicBlock().eval(), (floats(23, 3, 7, 8),)))
add("resnet-block-train", 4 + 4, lambda: Call(BasicBlock().train(), (floats(23, 3, 7, 8),)))


@case("conv-transpose-gelu", 0)
def conv_transpose() -> Call:
    return Call(nn.Sequential(nn.ConvTranspose2d(3, 5, 3), nn.GELU(), nn.Conv2d(5, 4, 3)), (floats(7, 3, 5, 6),))


class ShortMemory(nn.Module):
    """A stream to which a causal convolution of each channel is added, between two linear maps."""

    def __init__(self, mixed):
        super().__init__()
        self.enter, self.leave = nn.Conv1d(3, 5, 1, bias=False), nn.Conv1d(5, 7, 1, bias=False)
        self.taps, self.mixed = nn.Conv1d(5, 5, 4, padding=3, groups=5, bias=False), mixed

    def remembered(self, x: Tensor) -> Tensor:
        return self.taps(x)[..., : x.shape[-1]]

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.mixed(self.enter(x), self.remembered))


def add_memory(name: str, dim: int, mixed, why: str) -> None:
    add(f"short-memory-{name}", dim, lambda: Call(ShortMemory(mixed), (floats(23, 3, 7),)), why=why)


add_memory(
    "residual",
    5 + 5,
    lambda x, f: x + f(x),
    "what is added is one more at the last tap, so that taps and maps share scales",
)
add_memory("weighed", 5 + 5, lambda x, f: 0.3 * x - 2 * f(x), "the same with factors")
add_memory(
    "ahead",
    5,
    lambda x, f: F.pad(x, (0, 1))[..., 1:] + f(x),
    "no tap reaches what comes next: the taps keep their scale",
)
add_memory(
    "twice", 0, lambda x, f: x + f(x) + torch.tanh(f(x)), "what else reads the convolution sees it without the one"
)
add_memory("bent", 0, lambda x, f: x + f(torch.tanh(x)), "what is added is not what the taps read")


class TokenMemory(nn.Module):
    """The same with taps to which every place adds its own, made from the input and shared by all channels."""

    def __init__(self, kept: float, bent=lambda h: h):
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 5, bias=False), nn.Linear(5, 7, bias=False)
        self.taps, self.made, self.kept, self.bent = (
            nn.Parameter(torch.zeros(3, 5)),
            nn.Linear(4, 3, bias=False),
            kept,
            bent,
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        seen = F.pad(self.bent(h), (0, 0, 2, 0)).unfold(1, 3, 1)
        remembered = (seen * (self.taps.T + self.made(x)[..., None, :])).sum(-1)
        return self.leave(remembered + self.kept * h)


add(
    "token-memory",
    5 + 1,
    lambda: Call(TokenMemory(0.0), (floats(23, 7, 4),)),
    why="scales of channels, and of all taps",
)
add(
    "token-memory-residual",
    5 + 1,
    lambda: Call(TokenMemory(1.0), (floats(23, 7, 4),)),
    why="what is added is one more at the last tap",
)
add(
    "token-memory-bent",
    0,
    lambda: Call(TokenMemory(1.0, torch.tanh), (floats(23, 7, 4),)),
    why="what is added is not what the taps read",
)
