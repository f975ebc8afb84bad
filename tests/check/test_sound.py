"""The soundness check holds for true symmetries, fails for everything else, and says where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regauge import check
from regauge.errors import CheckError, InputError
from tests.check.fakes import HiddenUnits


def model(width: int = 7) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))


ARGS = (torch.randn(11, 5, generator=torch.Generator().manual_seed(2)),)


def test_a_symmetry_is_sound():
    result = check.sound(model(), ARGS, HiddenUnits(7)).raise_if_failed()
    assert result.error < 1e-13 and result.control > 1e-3
    assert 0 < result.floor < 1e-5 and result.native < 10 * result.floor
    assert "does not change" in str(result)


def test_the_model_is_not_touched():
    network = model()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    check.sound(network, ARGS, HiddenUnits(7))
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())


@pytest.mark.parametrize("wrong", [1e-3, 1e-8])
def test_an_error_above_the_bound_fails(wrong: float):
    result = check.sound(model(), ARGS, HiddenUnits(7, wrong=wrong))
    assert not result.ok and 0.01 * wrong < result.error < 100 * wrong
    with pytest.raises(CheckError, match="NOT proved"):
        result.raise_if_failed()


def test_half_precision_is_compared_with_its_own_floor():
    network = model().to(torch.bfloat16)
    result = check.sound(network, (ARGS[0].to(torch.bfloat16),), HiddenUnits(7))
    assert result.ok and result.dtype == "bfloat16" and result.floor > 1e-4


def test_upcasts_do_not_hide_behind_float32():
    class Upcasting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model()

        def forward(self, x: Tensor) -> Tensor:
            y = self.layers(x.float())
            return torch.softmax(y, -1, dtype=torch.float32).to(torch.float32).type_as(x)

    class Prefixed:
        dim = 7

        def sample(self, seed: int):
            inner = HiddenUnits(7).sample(seed)

            class Element:
                def apply(self, state):
                    image = inner.apply({n.removeprefix("layers."): t for n, t in state.items()})
                    return {f"layers.{n}": t for n, t in image.items()}

            return Element()

    assert check.sound(Upcasting(), ARGS, Prefixed()).error < 1e-13


def test_a_gauge_that_moves_nothing_is_sound_and_says_so():
    class Nothing:
        dim = 0

        def sample(self, seed: int):
            class Identity:
                def apply(self, state):
                    return dict(state)

            return Identity()

    result = check.sound(model(), ARGS, Nothing())
    assert result.ok and result.moved == 0 and result.error == 0


def test_a_broken_tie_is_an_error():
    network = nn.Sequential(nn.Linear(5, 5, bias=False), nn.ReLU(), nn.Linear(5, 5, bias=False))
    network[2].weight = network[0].weight

    class Half:
        def sample(self, seed: int):
            class Element:
                def apply(self, state):
                    return {**state, "0.weight": 2 * state["0.weight"]}

            return Element()

    with pytest.raises(CheckError, match="tie of `2.weight` and `0.weight`"):
        check.sound(network, ARGS, Half())


def test_wrong_keys_and_shapes_are_errors():
    class Bad:
        def __init__(self, change):
            self.change = change

        def sample(self, seed: int):
            bad = self

            class Element:
                def apply(self, state):
                    return bad.change(dict(state))

            return Element()

    with pytest.raises(CheckError, match="keys"):
        check.sound(model(), ARGS, Bad(lambda s: {n: t for n, t in s.items() if n != "0.bias"}))
    with pytest.raises(CheckError, match="0.weight"):
        check.sound(model(), ARGS, Bad(lambda s: {**s, "0.weight": s["0.weight"].T}))


def test_nan_weights_are_named():
    network = model()
    with torch.no_grad():
        network[0].weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="`0.weight` holds NaN"):
        check.sound(network, ARGS, HiddenUnits(7))


def test_meta_models_are_refused():
    with torch.device("meta"):
        network = nn.Linear(5, 3)
    with pytest.raises(InputError, match="meta device"):
        check.sound(network, ARGS, HiddenUnits(7))
