"""What may have happened to a model: a few real steps of training, pruning, quantising, merging."""

from __future__ import annotations

import torch
from torch import Tensor

from regauge.align.redrawn import spacing
from tests.align.families import build, inputs

State = dict[str, Tensor]


def trained(name: str, *, steps: int = 5, rate: float = 1e-2, seed: int = 0) -> State:
    """The family's model after a few steps of gradient descent on random targets."""
    model, _ = build(name)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(steps):
        output = model(**inputs(name, seed=100 + step))
        y = output.logits if hasattr(output, "logits") else output[0]
        target = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed + step))
        loss = (y - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def pruned(state: State, part: float = 0.5) -> State:
    return {k: v * (v.abs() > v.abs().flatten().quantile(part)) if matrix(v) else v for k, v in state.items()}


def quantised(state: State, bits: int = 4) -> State:
    def rounded(v: Tensor) -> Tensor:
        step = v.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
        return (v / step).round() * step

    return {k: rounded(v) if matrix(v) else v for k, v in state.items()}


def merged(a: State, b: State, share: float = 0.5) -> State:
    return {k: (1 - share) * v + share * b[k] if v.is_floating_point() else v for k, v in a.items()}


def stored(state: State, dtype: torch.dtype) -> State:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


def nudged(state: State, roundings: float, only: str | None = None, seed: int = 0) -> State:
    """Every entry (of one tensor) moved by up to half of so many steps of its dtype: a change as small as can be told."""
    g = torch.Generator().manual_seed(seed)
    out = dict(state)
    for k, v in state.items():
        if v.is_floating_point() and only in (None, k):
            step = spacing(v.double(), v.dtype)
            noise = torch.rand(v.shape, generator=g, dtype=torch.float64) - 0.5
            out[k] = (v.double() + roundings * noise * step).to(v.dtype)
    return out


def matrix(v: Tensor) -> bool:
    return v.ndim >= 2 and v.is_floating_point()
