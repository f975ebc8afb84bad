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


@pytest.mark.parametrize("part", PART)
@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_not_read_still_counts(whole: str, part: str) -> None:
    torch.manual_seed(0)
    model, x = InPart(whole, part), torch.randn(40, 5, 7)
    proof = regauge.check.sound(model, (x,), regauge.infer(model, (x,)))
    assert proof.ok, proof
