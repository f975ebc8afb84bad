"""Functions of a whole axis of which a part is read: what is not read still counts."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regauge

WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda y: y.softmax(-1),
    "log_softmax": lambda y: y.log_softmax(-1),
    "largest": lambda y: F.one_hot(y.argmax(-1), y.shape[-1]).to(y.dtype) * y,
    "layer_norm": lambda y: F.layer_norm(y, y.shape[-1:]),
    "rms_norm": lambda y: F.rms_norm(y, y.shape[-1:]),
    "cumsum": lambda y: y.cumsum(-1),
    "centred": lambda y: y - y.mean(-1, keepdim=True),
    "over_positions": lambda y: y.softmax(1),
}
PART: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda z: z[..., :2],
    "middle": lambda z: z[..., 1:4],
    "apart": lambda z: torch.cat([z[..., :3].tanh(), z[..., 3:].sum(-1, keepdim=True)], -1),
}


class InPart(nn.Module):
    def __init__(self, whole: str, part: str) -> None:
        super().__init__()
        self.whole, self.part = WHOLE[whole], PART[part]
        self.w, self.gain, self.bias = (nn.Parameter(torch.randn(*s)) for s in ((6, 7), (6,), (6,)))

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.whole(F.linear(x, self.w) * self.gain + self.bias))


class ReadWholeToo(InPart):
    """The same beside a reader of all of it, for which a part's own sum says nothing."""

    def __init__(self, whole: str, part: str) -> None:
        super().__init__(whole, part)
        self.read, self.back = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.whole(F.linear(x, self.w) * self.gain + self.bias)
        return self.part(y + F.linear(F.linear(y, self.read), self.back))


@pytest.mark.parametrize("build", (InPart, ReadWholeToo))
@pytest.mark.parametrize("part", PART)
@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_not_read_still_counts(whole: str, part: str, build: type[InPart]) -> None:
    torch.manual_seed(0)
    model, x = build(whole, part), torch.randn(40, 5, 7)
    proof = regauge.check.sound(model, (x,), regauge.infer(model, (x,)))
    assert proof.ok, proof


class PartlyRead(nn.Module):
    """Of both weights only a part is read; nothing is on an axis that another tensor fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.read = nn.Parameter(torch.randn(6, 7)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.w[:4]).tanh(), self.read[:, :4])


def test_what_is_not_read_of_a_parameter_is_counted_once() -> None:
    torch.manual_seed(0)
    model, x = PartlyRead(), torch.randn(20, 7)
    gauge = regauge.infer(model, (x,))
    assert gauge.dim == 2 * 7 + 3 * 2
    assert regauge.check.sound(model, (x,), gauge).ok
    assert regauge.check.tight(model, (x,), gauge).ok


class PositionsOneByOne(nn.Module):
    """A recurrence cuts the axis of positions into single ones, of which each turns by an angle of its own."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"w": (3, 3), "u": (3, 3), "q": (2, 6), "k": (2, 6), "v": (2, 6), "bias": (2,)}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(0.5 * torch.randn(*shape)))

    def forward(self, x: Tensor) -> Tensor:
        z = F.linear(x, self.u)
        states = [z[:, 0]]
        for i in range(1, x.shape[1]):
            states.append(F.linear(states[-1], self.w) + z[:, i])
        y = torch.cat([torch.stack(states, 1) @ z.mT, z], -1)
        q, k = turned(F.linear(y, self.q)), turned(F.linear(y, self.k, self.bias))
        return torch.softmax(q @ k.mT, -1) @ F.linear(y, self.v)


def turned(x: Tensor) -> Tensor:
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None].expand(-1, 2)
    return x * angle.cos() + torch.cat([-x[..., 1:], x[..., :1]], -1) * angle.sin()


def test_a_key_bias_counts_where_single_positions_turn() -> None:
    torch.manual_seed(0)
    model, x = PositionsOneByOne(), torch.randn(20, 3, 3)
    proof = regauge.check.sound(model, (x,), regauge.infer(model, (x,)))
    assert proof.ok, proof
