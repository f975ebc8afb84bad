"""Balance: no element near the identity makes the norm smaller, and both sides of every bond are equal."""

import pytest
import torch
from torch import Tensor

from regauge import act
from regauge.act.balance import solve
from regauge.errors import InputError
from regauge.solve import sampling
from regauge.solve.element import Element, Rotate, Scale
from regauge.solve.state import State
from tests.act.models import Subject, assert_keeps, subject


def square(s: Subject, state: dict[str, Tensor]) -> float:
    held = {n: v.op.chart.forward(state[n].double()) for v in s.gauge.plan.parameters() for n in [v.op.name]}
    still = {v.op.name for v in s.gauge.plan.parameters() if v.op.statistic}
    return sum(float((t**2).sum()) for n, t in held.items() if n not in still)


def scales_and_frames(s: Subject, seed: int, size: float, inverse: bool = False) -> Element:
    """A random element of what balance works on: scales with a minimum, and general linear frames."""
    plan, g = s.gauge.plan, torch.Generator().manual_seed(seed)
    scales = tuple(sampling.function(c, size * sampling.normal(g, *c.shape)) for c in plan.charges.scales)
    frames = {}
    for f in plan.sources.values():
        if f.kind == "GL":
            log = size * sampling.normal(g, *(n for _, n in f.places), f.n, f.n)
            frames[f.root] = torch.linalg.matrix_exp(log)
    signs = tuple(torch.zeros(c.shape, dtype=torch.float64) for c in plan.charges.signs)
    element = Element(plan, (Rotate(frames), Scale(scales, signs)))
    return element.inverse() if inverse else element


NAMES = "mlp-relu swiglu reglu lora attn-softmax-gqa-fused attn-relu conv-bn-eval-relu-bias llama-one-layer".split()


@pytest.mark.parametrize("name", NAMES)
def test_the_norm_is_stationary_along_the_orbit(name: str) -> None:
    s = subject(name)
    image = assert_keeps(s, act.balance(s.gauge, s.state))
    least = square(s, image)
    assert least < square(s, s.state) * (1 - 1e-3)
    for seed in range(3):
        h = 1e-4
        up = square(s, scales_and_frames(s, seed, h).apply(image))
        down = square(s, scales_and_frames(s, seed, h, inverse=True).apply(image))
        assert abs(up - down) / (2 * h) < 1e-5 * least
        assert up + down > 2 * least * (1 - 1e-12)


@pytest.mark.parametrize("name", ["reglu", "attn-softmax-gqa-fused"])
def test_one_minimum_for_the_whole_orbit(name: str) -> None:
    s = subject(name)
    image = act.balance(s.gauge, s.state).apply(s.state)
    elsewhere = scales_and_frames(s, 5, 0.4).apply(s.state)
    other = act.balance(s.gauge, elsewhere).apply(elsewhere)
    assert square(s, other) == pytest.approx(square(s, image), rel=1e-9)


def test_units_have_equal_norms_in_and_out() -> None:
    s = subject("mlp-relu")
    image = act.balance(s.gauge, s.state).apply(s.state)
    first, bias, last = (image[n] for n in ("0.weight", "0.bias", "2.weight"))
    assert torch.allclose((first**2).sum(1) + bias**2, (last**2).sum(0), rtol=1e-9)


def test_low_rank_factors_are_balanced() -> None:
    """The balanced factorisation of B A has A A^T = B^T B, with the singular values of B A."""
    s = subject("lora")
    image = act.balance(s.gauge, s.state).apply(s.state)
    names = [n for n, t in image.items() if t.ndim == 2 and 2 in t.shape]
    a, b = (image[n] if image[n].shape[0] == 2 else image[n].mT for n in names)
    assert torch.allclose(a @ a.mT, b @ b.mT, atol=1e-9)
    left, right = (s.state[n] if s.state[n].shape[0] == 2 else s.state[n].mT for n in names)
    expected = torch.linalg.svdvals(left.mT @ right)[:2]
    assert torch.allclose(torch.linalg.eigvalsh(a @ a.mT).flip(0), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["mlp-relu", "llama-one-layer"])
@pytest.mark.parametrize("norm", ["linf", "spectral"])
def test_other_norms_keep_the_function(name: str, norm: str) -> None:
    s = subject(name)
    assert_keeps(s, act.balance(s.gauge, s.state, norm=norm))


def test_largest_entries_are_equal() -> None:
    s = subject("mlp-relu")
    image = act.balance(s.gauge, s.state, norm="linf").apply(s.state)
    into = torch.maximum(image["0.weight"].abs().amax(1), image["0.bias"].abs())
    assert torch.allclose(into, image["2.weight"].abs().amax(0), rtol=1e-9)


def test_what_has_no_minimum_is_named_and_stays() -> None:
    s = subject("mlp-relu")
    state = {n: t.clone() for n, t in s.state.items()}
    state["2.weight"][:, 3] = 0
    found = solve(s.gauge.plan, State(s.gauge.plan, state))
    assert any("1 of" in text and "zero on one side" in text for text in found.open)
    image = found.element(s.gauge.plan).apply(state)
    assert all(bool(torch.isfinite(t).all()) for t in image.values())
    wide = subject("linear-bottleneck")
    assert any("wider" in text for text in solve(wide.gauge.plan, State(wide.gauge.plan, wide.state)).open)
    with pytest.raises(InputError, match="l2, linf, spectral"):
        act.balance(s.gauge, s.state, norm="l1")
