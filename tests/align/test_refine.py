"""The action to first order against differences of finite elements; least squares against a dense solver; what the joint
solve tells apart when rounding is carried far."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

import regauge  # noqa: E402
import regauge.align.refine as refining  # noqa: E402
from regauge.align import DERIVED, GAUGE_EQUAL, align  # noqa: E402
from regauge.align.conjugate import least_squares  # noqa: E402
from regauge.align.leaves import layout  # noqa: E402
from regauge.align.refine import refine  # noqa: E402
from regauge.align.tangent import Tangent, Vector  # noqa: E402
from regauge.solve.element import Element  # noqa: E402
from regauge.solve.gauge import Gauge  # noqa: E402
from regauge.solve.state import State  # noqa: E402
from tests.align.changes import nudged, stored  # noqa: E402
from tests.align.heldout import build, gauge_of  # noqa: E402
from tests.zoo.registry import load  # noqa: E402

ZOO = load()
# frames with gains between them, that fix the ones, of planes; charges on several leaves; translations of both kinds
KINDS = [
    "qknorm-rotary-gqa",
    "attn-softmax-gqa-fused",
    "centred-not-divided",
    "tied-layernorm-positions",
    "conv-bn-eval-relu-bias",
]


@cache
def stablelm() -> Gauge:
    return gauge_of("stablelm")


def made(name: str) -> tuple[Gauge, dict[str, Tensor]]:
    if name == "stablelm":
        return stablelm(), build(name, 1, True).state_dict()
    call = ZOO[name].make(0)
    return regauge.infer(call.model, call.args, call.kwargs, observe=call.observe), call.model.state_dict()


def inner(x: dict, y: dict) -> float:
    return sum(float((t * y[k]).sum()) for k, t in x.items())


@pytest.mark.parametrize("name", ["stablelm", *KINDS])
def test_the_tangent_is_the_derivative_of_finite_elements(name: str) -> None:
    gauge, state = made(name)
    start = State(gauge.plan, state)
    tangent = Tangent(layout(gauge.plan), start, torch.float64)
    g = torch.Generator().manual_seed(0)

    def drawn(shapes: dict) -> dict:
        return {k: torch.randn(t.shape, generator=g, dtype=torch.float64) for k, t in shapes.items()}

    v: Vector = tangent.admissible(drawn(tangent.zero()))
    along, r = tangent.push(v), drawn(tangent.arrays)
    assert inner(along, r) == pytest.approx(inner(v, tangent.pull(r)), rel=1e-9)

    def at(step: float) -> State:
        return Element(gauge.plan, tuple(tangent.moves({k: step * t for k, t in v.items()}))).moved(start)

    up, down = at(1e-5), at(-1e-5)
    slope = tangent.visible({i: (up.read(b) - down.read(b)) / 2e-5 for i, b in tangent.blocks.items()})
    for i, x in slope.items():
        assert float((x - along[i]).norm()) <= 1e-5 * float(x.norm()) + 1e-9


def test_least_squares_against_a_dense_solver() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(30, 12, generator=g, dtype=torch.float64) * torch.logspace(0, 3, 12, dtype=torch.float64)
    a[:, 5] = a[:, 4]  # one direction that nothing tells
    y = torch.randn(30, generator=g, dtype=torch.float64)
    sizes = a.square().sum(0)
    found, left = least_squares(
        lambda v: {0: a @ v["x"]}, lambda r: {"x": a.mT @ r[0]}, lambda s: {"x": s["x"] / sizes}, {0: y}, goal=1.0
    )
    x = found["x"]
    assert torch.allclose(left[0], y - a @ x, atol=1e-9)
    best = torch.linalg.lstsq(a, y, driver="gelsd").solution
    assert float((a @ x - a @ best).norm()) <= 1e-6 * float(y.norm())


@pytest.mark.parametrize("seed", [1, 5])
def test_rounding_that_a_small_constant_carries_far_is_told_from_a_change(seed: int) -> None:
    """Norms with a shift whose readers have no biases divide by a constant of the weights: near zero in layer 1 of seed 5."""
    gauge, state = stablelm(), build("stablelm", seed, True).state_dict()
    g = gauge.sample(10 * seed + 1)
    assert align(gauge, state, g.apply(state)).verdict == GAUGE_EQUAL
    for changed in (nudged(state, 8.0), nudged(state, 24.0, "model.layers.1.self_attn.o_proj.weight")):
        found = align(gauge, state, g.apply(changed))
        assert found.verdict == DERIVED, str(found)


def test_a_true_element_is_left_where_it_is_and_one_beside_it_comes_back() -> None:
    gauge, state = stablelm(), build("stablelm", 2, True).state_dict()
    plan, wide = gauge.plan, stored(state, torch.float64)
    g = gauge.sample(3)
    b = stored(g.apply(wide), torch.float32)
    tangent = Tangent(layout(plan), g.moved(State(plan, wide)), torch.float64)
    random = torch.Generator().manual_seed(1)
    aside = {k: 1e-3 * torch.randn(t.shape, generator=random, dtype=torch.float64) for k, t in tangent.zero().items()}
    wrong = Element(plan, (*g.moves, *tangent.moves(aside)))

    def away(element: Element) -> float:
        image, wanted = element.apply(wide), g.apply(wide)
        return max(
            float((image[k] - wanted[k]).norm() / wanted[k].norm()) for k in wanted if wanted[k].is_floating_point()
        )

    assert away(refine(g, state, b, layout(plan))) < 1e-6
    assert away(wrong) > 1e-4 and away(refine(wrong, state, b, layout(plan))) < 1e-6


@pytest.mark.parametrize("name", ["linear-wide", "linear-wide-nobias", "centred-not-divided"])
def test_frames_that_are_solved_together_are_found_and_make_no_strangers_related(name: str) -> None:
    """The equations of an underdetermined frame always have a solution; of two models that is no relation."""
    gauge, state = made(name)
    for seed in range(1, 4):
        assert align(gauge, state, gauge.sample(seed).apply(state)).verdict == GAUGE_EQUAL
        changed = gauge.sample(seed).apply(nudged(state, 24.0))
        assert align(gauge, state, changed).verdict == DERIVED
        other = ZOO[name].make(10 + seed).model.state_dict()
        assert align(gauge, state, other).verdict != GAUGE_EQUAL


def test_a_part_of_the_model_tells_what_no_element_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    """What training did to a large model is told from a few neighbouring tensors, without a round over the whole."""
    monkeypatch.setattr(refining, "LARGE", 1 << 8)
    monkeypatch.setattr(refining, "SAMPLE", 1 << 12)
    seen: list[int] = []
    solved = refining._Round.solved

    def counted(self: refining._Round) -> refining._Solved:
        seen.append(len(self.left))
        return solved(self)

    monkeypatch.setattr(refining._Round, "solved", counted)
    gauge, state = gauge_of("mistral"), build("mistral", 1, True).state_dict()
    draw = torch.Generator().manual_seed(0)
    further = {k: v + 1e-3 * v.abs().mean() * torch.randn(v.shape, generator=draw) for k, v in state.items()}
    assert align(gauge, state, gauge.sample(3).apply(further)).verdict == DERIVED
    assert len(seen) == 1 and 0 < seen[0] < len(layout(gauge.plan).pieces)
