"""Meta parameters, real buffers, and tracing the two together."""

from __future__ import annotations

import torch
from torch import nn

from regauge.checkpoint.skeleton import parameters_on_meta
from regauge.graph.posing import posing_as_cpu


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.arange(4.0), persistent=False)

    def forward(self, ids: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(ids) * self.table + shift))


def build() -> Tied:
    with parameters_on_meta():
        return Tied().eval()


def test_parameters_are_meta_and_buffers_are_computed() -> None:
    model = build()
    assert all(p.is_meta for p in model.parameters())
    assert torch.equal(model.table, torch.arange(4.0))
    assert model.head.weight is model.embed.weight


def test_posing_traces_with_real_buffers_and_inputs_and_is_undone() -> None:
    model = build()
    before = dict(model.named_parameters(remove_duplicate=False))
    inputs = (torch.zeros(5, dtype=torch.long), torch.ones(5, 4))
    with posing_as_cpu(model):
        assert model.head.weight is model.embed.weight
        graph = torch.export.export(model, inputs, strict=False).graph
    assert {n.meta["val"].device.type for n in graph.nodes if n.op == "call_function" and "val" in n.meta} == {"cpu"}
    assert all(before[name] is p for name, p in model.named_parameters(remove_duplicate=False))


def test_parameters_land_where_they_belong_after_the_context() -> None:
    build()
    assert not nn.Linear(2, 2).weight.is_meta


def test_zeros_are_zeros_whoever_pays_for_them() -> None:
    with parameters_on_meta():
        large, small = torch.zeros(3, 1 << 19, dtype=torch.bfloat16), torch.zeros((2, 3))
        large[1, 7] = 2.0
    assert large.shape == (3, 1 << 19) and large.dtype == torch.bfloat16 and large.device.type == "cpu"
    assert large.sum() == 2.0 and large[1, 7] == 2.0
    assert torch.equal(small, torch.zeros(2, 3)) and small.dtype == torch.float32
