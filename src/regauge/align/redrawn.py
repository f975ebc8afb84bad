"""A state dict with other random numbers: the yardsticks of a comparison, made tensor by tensor on demand.

Other rounding errors tell what rounding does; the entries in another order, what chance does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

EXPONENT = 0x7FF << 52  # bits of a float64


class Redrawn(Mapping[str, Tensor]):
    """The same at every reading: every tensor has a seed of its own."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.seeds = {name: i for i, name in enumerate(state)}

    @abstractmethod
    def redrawn(self, x: Tensor, seed: int) -> Tensor: ...

    def __getitem__(self, name: str) -> Tensor:
        return self.redrawn(self.state[name], self.seeds[name])

    def __contains__(self, name: object) -> bool:
        return name in self.state

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


class Dithered(Redrawn):
    """With rounding errors of its own dtype added."""

    def redrawn(self, x: Tensor, seed: int) -> Tensor:
        if not x.is_floating_point():
            return x
        g = torch.Generator().manual_seed(seed)
        wide = x.detach().double()
        return wide + (torch.rand(x.shape, generator=g, dtype=torch.float64) - 0.5) * spacing(wide, x.dtype)


class Shuffled(Redrawn):
    """With the entries of every tensor in random order: what has the same numbers and no relation."""

    def redrawn(self, x: Tensor, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(7919 + seed)
        return x.flatten()[torch.randperm(x.numel(), generator=g)].reshape(x.shape)


def rounding(x: Tensor, dtype: torch.dtype) -> float:
    """Norm of the error of rounding numbers of this size to dtype: a twelfth of the squared spacing each."""
    return float(spacing(x, dtype).norm()) / 12**0.5


def spacing(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Distance between neighbouring numbers of dtype at x."""
    info = torch.finfo(dtype)
    exponent = x.double().abs().clamp_min(info.tiny).view(torch.int64) & EXPONENT  # the power of two below
    return exponent.view(torch.float64) * info.eps
