"""Canonical representatives: from wherever on an orbit one starts, the same weights."""

import pytest
import torch

from regauge import act
from tests.act.models import assert_keeps, distance, subject

NAMES = """mlp-relu mlp-tanh reglu lora linear-narrow linear-ode gain-chain res-layernorm res-rmsnorm-nobias
conv-bn-eval-relu-bias squeeze-excite attn-softmax-gqa-fused attn-paper encoder-post-gelu weight-norm
llama-gqa-tied llama-one-layer qknorm-rotary-gqa-eps0""".split()
SLOW = "llama-gqa gpt2 gpt2-tied bert-classifier neox-parallel qwen2 opt resnet-block-eval lstm unet-concat-bn".split()


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_one_representative_for_the_whole_orbit(name: str) -> None:
    s = subject(name)
    element, report = act.canonical(s.gauge, s.state)
    assert report.sharp, str(report)
    image = assert_keeps(s, element)
    for seed in (1, 2):
        elsewhere = s.gauge.sample(seed).apply(s.state)
        if s.gauge.dim:
            assert distance(elsewhere, s.state) > 1e-2
        again, _ = act.canonical(s.gauge, elsewhere)
        assert distance(again.apply(elsewhere), image) < 1e-7


def test_is_its_own_representative() -> None:
    s = subject("llama-one-layer")
    image = act.canonical(s.gauge, s.state)[0].apply(s.state)
    assert distance(act.canonical(s.gauge, image)[0].apply(image), image) < 1e-9


def test_other_functions_have_other_representatives() -> None:
    s = subject("mlp-tanh")
    image = act.canonical(s.gauge, s.state)[0].apply(s.state)
    other = {n: t.clone() for n, t in s.state.items()}
    other["0.weight"][2, 1] += 0.3
    assert distance(act.canonical(s.gauge, other)[0].apply(other), image) > 1e-2


def test_degeneracies_are_reported() -> None:
    s = subject("mlp-tanh")
    twins = {n: t.clone() for n, t in s.state.items()}
    for n in ("0.weight", "0.bias"):
        twins[n][4] = twins[n][1]
    twins["2.weight"][:, 4] = twins["2.weight"][:, 1]
    element, report = act.canonical(s.gauge, twins)
    assert not report.sharp and any("order" in what for what in report.near())
    elsewhere = s.gauge.sample(3).apply(twins)
    again = act.canonical(s.gauge, elsewhere)[0].apply(elsewhere)
    assert distance(again, element.apply(twins)) < 1e-9  # equal units are interchangeable
    wide = subject("attn-wide-keys")
    assert any("wider" in text for text in act.canonical(wide.gauge, wide.state)[1].open)


def test_in_low_precision_up_to_rounding() -> None:
    s = subject("lora")
    low = {n: t.float() for n, t in s.state.items()}
    image = act.canonical(s.gauge, low)[0].apply(low)
    elsewhere = s.gauge.sample(1).apply(low)
    assert distance(act.canonical(s.gauge, elsewhere)[0].apply(elsewhere), image) < 1e-4
    assert all(t.dtype == torch.float32 for t in image.values())
