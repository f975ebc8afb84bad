"""A zoo of small models: what each is, how to call it, and the dimension that counting gives.

Every expected dimension is written as the sum of its reasons. Batch and sequence lengths are distinct primes that
collide with no width.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from regauge.check.generic import randomise as _randomise
from regauge.check.jacobian import NullSpace, calls_relu, null_space


@dataclass(frozen=True)
class Call:
    """A model with the arguments to trace and call it by."""

    model: nn.Module
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    observe: Any = None


@dataclass(frozen=True)
class Case:
    """One entry: `dim` is the expected dimension, `why` says what is special about it."""

    name: str
    build: Callable[[], Call]
    dim: int
    why: str = ""

    @property
    def quick(self) -> bool:
        """Whether it is one of the few that the fast tests take; the slow ones take all."""
        return self.name in QUICK

    def __str__(self) -> str:
        return self.name

    def make(self, seed: int = 0) -> Call:
        """The model at generic random parameters, float32."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            call = self.build()
        randomise(call.model, seed)
        return call


ZOO: dict[str, Case] = {}
QUICK = frozenset(
    """mlp-relu mlp-tanh linear-narrow res-layernorm res-rmsnorm-nobias swiglu reglu lora conv-bn-eval-relu-bias
    squeeze-excite attn-softmax-bias attn-softmax-gqa-fused attn-paper mha-module encoder-post-gelu llama-one-layer
    shared-twice-relu-nobias gain-chain qknorm-rotary-gqa-eps0 tied-layernorm-positions final-layernorm-nobias
    interleaved-partial-rotary merged-heads attn-values-into-the-mean padded-positions-tied softmax-strided""".split()
)


def add(name: str, dim: int, build: Callable[[], Call], *, why: str = "") -> None:
    """Register a case; names are unique."""
    if name in ZOO:
        raise ValueError(f"zoo: {name} is registered twice")
    ZOO[name] = Case(name, build, dim, why)


def case(name: str, dim: int, *, why: str = "") -> Callable:
    """Decorator form of `add` for a factory without arguments."""

    def register(build: Callable[[], Call]) -> Callable[[], Call]:
        add(name, dim, build, why=why)
        return build

    return register


def randomise(model: nn.Module, seed: int) -> None:
    """Generic random parameters and batch statistics, in place."""
    _randomise(model, torch.Generator().manual_seed(seed))


def measure(case: Case, call: Call, seeds: int = 3) -> NullSpace:
    """The null space with the least nullity over up to `seeds` generic points, stopping at the formula's value.

    Dead or always-on ReLU units only add directions at a point, so the least is the generic one.
    """
    kinds = (False, True) if calls_relu(call.model, call.args, call.kwargs) else (False,)
    best = None
    for seed, leaks in itertools.product(range(seeds), kinds):
        space = null_space(call.model, call.args, call.kwargs, observe=call.observe, seed=seed, leaks=leaks)
        best = space if best is None or space.nullity < best.nullity else best
        if best.nullity <= case.dim:
            break
    return best


def floats(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def tokens(vocabulary: int, batch: int = 5, length: int = 11) -> torch.Tensor:
    """Random token numbers with the smallest and the largest among them, so that resampling in the range covers all."""
    ids = torch.randint(0, vocabulary, (batch, length))
    ids[0, 0], ids[0, 1] = 0, vocabulary - 1
    return ids


def load() -> dict[str, Case]:
    """The whole zoo."""
    for module in (
        "dense",
        "conv",
        "attention",
        "recurrent",
        "language",
        "vision",
        "adversaries",
        "found",
        "gains",
        "masks",
        "tables",
    ):
        importlib.import_module(f"tests.zoo.{module}")
    return ZOO
