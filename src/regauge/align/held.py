"""A state held in memory while it is brought, move by move, to where it can be compared with another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from regauge.graph.ir import Param
from regauge.solve.blocks import Block
from regauge.solve.element import Move
from regauge.solve.plan import Plan
from regauge.solve.state import State, gather
from regauge.solve.translate import Shift

LARGE = 30_000_000  # parameters: from here on single precision, to halve the memory


def working_dtype(plan: Plan) -> torch.dtype:
    """What a whole state is held in."""
    return torch.float32 if sum(v.numel for v in plan.parameters()) > LARGE else torch.float64


class Held(State):
    """Every parameter in one floating dtype and in its chart; `apply` replaces what a move changes."""

    def __init__(self, plan: Plan, source: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
        super().__init__(plan, source, dtype or working_dtype(plan))
        self.tensors: dict[str, Tensor] = {}
        for name, v in self.params.items():
            assert isinstance(v.op, Param)
            wide = self.stored(name).to(self.dtype)
            self.tensors[name] = v.op.chart.forward(wide) if v.op.chart.steps else wide
        for name, v in self.params.items():
            for update in v.op.updates:  # type: ignore[union-attr]
                self.tensors[name] = self.tensors[name] + update.value(self.tensor)

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]

    start = tensor

    def kept(self, name: str) -> Tensor:
        return self.tensors[name]

    def apply(self, move: Move) -> None:
        image = move.on(self)
        if isinstance(move, Shift):  # its translations are read off the whole state as it was
            self.tensors.update({n: y.to(self.dtype) for n, v in self.params.items() if (y := image(v)) is not None})
            return
        for name, v in self.params.items():
            y = image(v)
            if y is not None:
                self.tensors[name] = y.to(self.dtype)

    def read(self, block: Block) -> Tensor:
        """The block as an array with one axis a leaf."""
        assert isinstance(block.value.op, Param)
        return gather(self.tensors[block.value.op.name], block)
