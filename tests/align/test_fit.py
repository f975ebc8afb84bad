"""Scales and signs fitted to sizes: against a search over all numbers, and where balance is led astray."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

pytest.importorskip("transformers")

import regauge  # noqa: E402
from regauge.align import DERIVED, align  # noqa: E402
from regauge.align.fit import _factor  # noqa: E402
from regauge.align.freedoms import Freedom  # noqa: E402
from tests.align.families import build  # noqa: E402

BOTH_SIDES = Freedom((5,), (), ((0, (0,), Fraction(1)), (1, (1,), Fraction(-1))))


@pytest.mark.parametrize("signed", [True, False])
def test_a_factor_is_the_best_of_all_numbers(signed: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = ({0: torch.randn(5, generator=g).double(), 1: torch.randn(7, 5, generator=g).double()} for _ in "xy")
    found = _factor(BOTH_SIDES, x, y, signed)
    assert found is not None
    tried = torch.logspace(-3, 3, 100001, dtype=torch.float64)
    tried = torch.cat([-tried, tried]) if signed else tried
    w, v = 1 / y[0].square().mean(), 1 / y[1].square().mean()

    def cost(c: torch.Tensor) -> torch.Tensor:
        return w * (x[0] * c - y[0]) ** 2 + v * ((x[1] / c - y[1]) ** 2).sum(0)

    assert bool((cost(found) <= torch.stack([cost(c) for c in tried]).amin(0) + 1e-9).all())


def test_a_factor_is_found_however_far_it_is() -> None:
    g = torch.Generator().manual_seed(1)
    x = {0: torch.randn(5, generator=g).double(), 1: torch.randn(7, 5, generator=g).double()}
    c = torch.tensor([1e-13, -2.0, 3.0, -1e5, 1.0], dtype=torch.float64)
    found = _factor(BOTH_SIDES, x, {0: x[0] * c, 1: x[1] / c}, True)
    assert found is not None and torch.allclose(found / c, torch.ones(5, dtype=torch.float64), rtol=1e-6)


@pytest.mark.parametrize("after", [-3e-8, 1e-9])
def test_a_gain_that_training_took_through_zero_stretches_nothing(after: float) -> None:
    model, given = build("llama-tied")
    gauge = regauge.infer(model, (), given)
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    gain, head = "model.layers.1.post_attention_layernorm.weight", "lm_head.weight"
    state[gain][3] = 2e-5
    g = torch.Generator().manual_seed(0)
    further = {k: v + 1e-3 * v.abs().mean() * torch.randn(v.shape, generator=g) for k, v in state.items()}
    further[gain][3] = after
    further[head] = further["model.embed_tokens.weight"]
    found = align(gauge, state, gauge.sample(3).apply(further))
    assert found.verdict == DERIVED and found.residual < 3e-3
    assert max(r.relative for r in found.rows) < 2e-2
