"""Gauges written by hand, to test the checks without the compiler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Element:
    scale: Tensor
    order: Tensor
    wrong: float = 0.0

    def apply(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        out = dict(state)
        s = self.scale.to(state["0.weight"].dtype)
        out["0.weight"] = (state["0.weight"] * s[:, None])[self.order]
        out["0.bias"] = (state["0.bias"] * s)[self.order]
        out["2.weight"] = (state["2.weight"] / s * (1 + self.wrong))[:, self.order]
        return out


@dataclass(frozen=True)
class HiddenUnits:
    """Scales and permutations of the hidden units of Sequential(Linear, ReLU, Linear)."""

    width: int
    wrong: float = 0.0
    claimed: int | None = None

    @property
    def dim(self) -> int:
        return self.width if self.claimed is None else self.claimed

    def sample(self, seed: int) -> Element:
        generator = torch.Generator().manual_seed(seed)
        scale = torch.exp(torch.randn(self.width, generator=generator, dtype=torch.float64))
        return Element(scale, torch.randperm(self.width, generator=generator), self.wrong)

    def sample_permutation(self, seed: int) -> Element:
        generator = torch.Generator().manual_seed(seed)
        return Element(torch.ones(self.width, dtype=torch.float64), torch.randperm(self.width, generator=generator))

    def tangents(self, state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        vectors = []
        for unit in range(self.dim):
            vector = {n: torch.zeros_like(t) for n, t in state.items()}
            vector["0.weight"][unit] = state["0.weight"][unit]
            vector["0.bias"][unit] = state["0.bias"][unit]
            vector["2.weight"][:, unit] = -state["2.weight"][:, unit]
            vectors.append(vector)
        return vectors
