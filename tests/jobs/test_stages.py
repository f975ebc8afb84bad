"""One parameter can be transformed without the others in memory, to the same bits as all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

import regauge
from regauge.solve.gauge import Gauge
from regauge.solve.state import State


class Watched(Mapping[str, Tensor]):
    """A state dict that notes which tensors are read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self.read.append(name)
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def causal() -> tuple[Gauge, dict[str, Tensor]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=96, tie_word_embeddings=False)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    gauge = regauge.infer(model, (), {"input_ids": torch.arange(21).reshape(3, 7), "use_cache": False})
    return gauge, model.state_dict()


def encoder() -> tuple[Gauge, dict[str, Tensor]]:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True)
    model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.TransformerEncoder(layer, 2), torch.nn.Linear(16, 3))
    return regauge.infer(model.eval(), (torch.randn(3, 7, 5),)), model.state_dict()


@pytest.mark.parametrize("make", [causal, encoder])
def test_one_by_one_gives_the_same_bits(make: object) -> None:
    gauge, state = make()  # type: ignore[operator]
    g = gauge.sample(0)
    whole = g.apply(state)
    for name in gauge.parameters:
        alone = g.moved(State(gauge.plan, state)).result(name)
        if alone is None:
            assert whole[name] is state[name]
        else:
            assert torch.equal(alone.to(state[name].dtype), whole[name])


def test_only_small_tensors_are_read_beside_the_one_that_is_asked_for() -> None:
    gauge, state = causal()
    g = gauge.sample(0)
    for name in ("model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.o_proj.weight", "lm_head.weight"):
        watched = Watched(state)
        assert g.moved(State(gauge.plan, watched)).result(name) is not None
        large = {n for n in watched.read if state[n].numel() > 32}
        assert large == {name}
        assert watched.read.count(name) == 1


def test_single_precision_stays_single() -> None:
    gauge, state = causal()
    moved = gauge.sample(0).moved(State(gauge.plan, state, torch.float32))
    exact = gauge.sample(0).apply({n: t.double() for n, t in state.items()})
    for name in gauge.parameters:
        y = moved.result(name)
        assert y is not None and y.dtype == torch.float32
        assert float((y - exact[name]).abs().max()) < 1e-5 * float(exact[name].abs().max())
