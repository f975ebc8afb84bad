"""Random elements of the whole group are found again; what training or compression did is told from a gauge."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import regauge
from regauge.align import DERIVED, GAUGE_EQUAL, IDENTICAL, UNRELATED, Alignment, affine, align
from regauge.check.generic import randomise
from regauge.errors import CheckError, InputError
from tests.zoo.registry import load

pytest.importorskip("transformers")

from tests.align.changes import merged, pruned, quantised, stored, trained  # noqa: E402
from tests.align.families import FAMILIES, build  # noqa: E402

FAST = ("llama", "gpt2")
FLOAT = torch.float32
SMALL = torch.bfloat16
ZOO = load()
QUICK = """mlp-relu mlp-tanh swiglu reglu conv-bn-eval-relu-bias squeeze-excite attn-softmax-gqa-fused mha-module rnn-tanh lstm
attn-relu tied-layernorm-positions final-layernorm-nobias shared-twice-tanh sum-features-linear linear-wide
linear-wide-nobias centred-not-divided lora-merged""".split()


def names(fast: tuple[str, ...]) -> list:
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]


@cache
def family(name: str) -> tuple[regauge.solve.gauge.Gauge, dict[str, torch.Tensor]]:
    model, kwargs = build(name)
    return regauge.infer(model, (), kwargs), model.state_dict()


def recovered(found: Alignment, element: regauge.solve.element.Element, state: dict[str, torch.Tensor]) -> float:
    """Relative distance between the images under the element found and the true one, in double precision."""
    wide = stored(state, torch.float64)
    x, y = found.element.apply(wide), element.apply(wide)
    away = sum(float((x[k] - y[k]).square().sum()) for k in x if x[k].is_floating_point())
    return (away / sum(float(v.square().sum()) for v in y.values() if v.is_floating_point())) ** 0.5


@pytest.mark.parametrize("dtype", [FLOAT, SMALL], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", names(FAST))
def test_an_element_of_the_whole_group_is_found_again(name: str, dtype: torch.dtype) -> None:
    gauge, state = family(name)
    a = stored(state, dtype)
    for seed in (1,) if name in FAST else (1, 2):
        g = gauge.sample(seed)
        found = align(gauge, a, g.apply(a))
        assert found.verdict == GAUGE_EQUAL, str(found)
        assert not found.undetermined
        assert found.residual <= torch.finfo(dtype).eps, "the residual is rounding"
        assert recovered(found, g, a) <= torch.finfo(dtype).eps


@pytest.mark.parametrize("name", names(FAST[:1]))
def test_the_same_after_training_pruning_quantising_merging_is_derived(name: str) -> None:
    gauge, state = family(name)
    one, two = trained(name), trained(name, seed=50)
    g = gauge.sample(3)
    for b in (one, g.apply(one), g.apply(pruned(state)), g.apply(quantised(state)), g.apply(merged(one, two))):
        found = align(gauge, state, b)
        assert found.verdict == DERIVED, str(found)
    assert align(gauge, state, g.apply(one)).residual < 0.2


@pytest.mark.parametrize("name", names(FAST[:1]))
def test_models_from_different_seeds_are_unrelated(name: str) -> None:
    gauge, state = family(name)
    for seed, dtype in ((5, FLOAT), (6, SMALL)):
        other = build(name, seed)[0].state_dict()
        found = align(gauge, stored(state, dtype), stored(other, dtype))
        assert found.verdict == UNRELATED, str(found)
        assert found.chance is not None and abs(found.similarity - found.chance) < 0.1


def test_a_stranger_with_zeros_where_this_one_has_numbers_is_unrelated() -> None:
    """As a library initialises it: biases at zero, which no rounding error measures."""
    gauge, state = family("gpt2")
    other = {k: v.clone() for k, v in build("gpt2", 5)[0].state_dict().items()}
    for k, v in other.items():
        if k.endswith("bias"):
            other[k] = torch.zeros_like(v)
    assert align(gauge, state, other).verdict == UNRELATED


def test_a_copy_is_identical_and_a_reordering_is_found_bit_by_bit() -> None:
    gauge, state = family("llama")
    assert align(gauge, state, {k: v.clone() for k, v in state.items()}).verdict == IDENTICAL
    moved = gauge.sample_permutation(4).apply(state)
    found = align(gauge, state, moved)
    assert found.verdict == GAUGE_EQUAL and found.residual == 0.0
    image = found.element.apply(state)
    assert all(torch.equal(image[k], moved[k]) for k in moved)


def test_a_change_in_the_last_bit_of_one_tensor_is_no_gauge() -> None:
    gauge, state = family("llama")
    b = {k: v.clone() for k, v in state.items()}
    name = next(k for k in b if b[k].ndim == 2)
    b[name] = torch.nextafter(b[name], b[name] + 1)
    assert align(gauge, state, b).verdict == DERIVED


def test_an_adapter_shows_as_a_small_rank_at_its_bonds() -> None:
    gauge, state = family("llama")
    b = {k: v.clone() for k, v in state.items()}
    name = "model.layers.0.mlp.down_proj.weight"
    g = torch.Generator().manual_seed(0)
    b[name] = b[name] + 0.02 * torch.randn(32, 2, generator=g) @ torch.randn(2, 56, generator=g)
    found = align(gauge, state, b)
    assert found.verdict == DERIVED
    touched = {t.parameter for bond in gauge.bonds for t in bond.touches if bond.name.startswith("model.layers.0.mlp")}
    assert name in touched
    bond = next(x for x in found.bonds if x.name.startswith("model.layers.0.mlp"))
    other = next(x for x in found.bonds if x.name.startswith("model.layers.1.mlp"))
    assert bond.rank <= 2 and bond.delta > 0 and other.delta == 0


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ZOO])
def test_every_model_of_the_zoo_is_found_again(name: str) -> None:
    call = ZOO[name].make(0)
    gauge = regauge.infer(call.model, call.args, call.kwargs, observe=call.observe)
    state = call.model.state_dict()
    found = align(gauge, state, gauge.sample(1).apply(state))
    assert found.verdict in (GAUGE_EQUAL, IDENTICAL), str(found)


class Tied(torch.nn.Module):
    """A table that is read by its tokens, and again behind a norm by what it answers; what one role moves, positions and
    the last bias take up."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = torch.nn.Embedding(13, 5), torch.nn.Embedding(7, 5)
        self.first, self.inner, self.last = torch.nn.LayerNorm(5), torch.nn.Linear(5, 5), torch.nn.LayerNorm(5)
        self.bias = torch.nn.Parameter(torch.zeros(13))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.first(self.embed(ids) + self.positions.weight)
        return torch.nn.functional.linear(self.last(torch.tanh(self.inner(x))), self.embed.weight, self.bias)


def test_a_tied_table_that_a_norm_with_small_gains_reads() -> None:
    """Its translation is u 1 (1/gain)^T, far longer than along the ones."""
    model = Tied().eval()
    generator = torch.Generator().manual_seed(0)
    randomise(model, generator)
    with torch.no_grad():
        model.last.weight.copy_(torch.linspace(0.1, 0.3, 5))
    gauge = regauge.infer(model, (torch.randint(0, 13, (5, 7), generator=generator),))
    assert any(len(gauge.plan.shifts.sources[i].roles) == 2 for i in gauge.plan.shifts.free)
    state = model.state_dict()
    for seed in (1, 2):
        found = align(gauge, state, gauge.sample(seed).apply(state))
        assert found.verdict == GAUGE_EQUAL, str(found)


def test_a_search_that_goes_astray_does_not_end_in_unrelated(monkeypatch: pytest.MonkeyPatch) -> None:
    gauge, state = family("llama")
    b = gauge.sample(2).apply(state)
    true = regauge.align.api.element_between

    def astray(*args):  # type: ignore[no-untyped-def]
        _, found = true(*args)
        return gauge.sample(7), found

    monkeypatch.setattr(regauge.align.api, "element_between", astray)
    found = align(gauge, state, b)
    assert found.chance is not None and found.similarity < 0.5
    assert found.verdict == DERIVED and found.answers is not None and found.answers > 0.99
    assert not found.near and "|g.a - b|" not in str(found)


def test_translations_that_grow_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    call = ZOO["tied-layernorm-positions"].make(0)
    gauge = regauge.infer(call.model, call.args, call.kwargs)
    state = call.model.state_dict()
    monkeypatch.setattr(affine, "_component", lambda state, s, true=affine._component: -2.0 * true(state, s))
    with pytest.raises(CheckError, match="do not settle"):
        align(gauge, state, gauge.sample(1).apply(state))


def test_entries_that_are_no_numbers_are_an_error_that_names_the_tensor() -> None:
    gauge, state = family("llama")
    name = "model.layers.0.mlp.down_proj.weight"
    b = {**state, name: state[name].clone()}
    b[name][0, 0] = float("nan")
    with pytest.raises(InputError, match=name):
        align(gauge, state, b)


def test_another_shape_is_an_error_that_names_the_tensor() -> None:
    gauge, state = family("llama")
    name = next(iter(state))
    with pytest.raises(InputError, match=name):
        align(gauge, state, {**state, name: state[name][:-1]})
