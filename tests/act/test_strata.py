"""Strata and redundant units: found where they were put, and gone without a trace in the function."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from regauge import act
from regauge.act.removal import Removal
from tests.act.models import Subject, distance, module_subject, subject


def mlp(width: int = 9) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 7), nn.Tanh(), nn.Linear(7, 3))


class Conv(nn.Module):
    """Channels through a batch norm, then flattened: 6 pixels for every channel."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Linear(width * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu().flatten(1))


class Gated(nn.Module):
    """A gated layer whose gate and up maps are one tensor."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.both = nn.Linear(6, 2 * width)
        self.down = nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.both(self.norm(x)).chunk(2, -1)
        return x + self.down(nn.functional.silu(gate) * up)


class Recurrent(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter = nn.Linear(3, width)
        self.step = nn.Linear(width, width)
        self.leave = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.enter(x))
        for _ in range(3):
            h = torch.tanh(self.step(h) + self.enter(x))
        return self.leave(h)


def changed(s: Subject, edit: Callable[[dict[str, Tensor]], None]) -> dict[str, Tensor]:
    state = {n: t.clone() for n, t in s.state.items()}
    with torch.no_grad():
        for n, t in state.items():
            if t.is_floating_point() and "running_var" not in n:
                t.add_(0.3 * torch.randn(t.shape, dtype=t.dtype, generator=torch.Generator().manual_seed(len(n))))
        edit(state)
    return state


def same_function(s: Subject, state: dict[str, Tensor], small: nn.Module, pruned: act.Pruned) -> float:
    expected = s.run(state)
    small = small.double().eval()
    small.load_state_dict(dict(pruned.state))
    args, _ = s.inputs
    with torch.no_grad():
        found = small(*args)
    (name,) = expected
    return distance({name: found}, expected)


def twins_in_mlp(t: dict[str, Tensor]) -> None:
    for n in ("0.weight", "0.bias"):
        t[n][5] = 2.5 * t[n][2]  # parallel: ReLU makes it 2.5 times the value
        t[n][6] = t[n][2]
    t["2.weight"][:, 8] = 0  # nobody reads it
    for n in ("2.weight", "2.bias"):
        t[n][4] = -t[n][1]  # opposite: tanh is odd
    t["2.weight"][6], t["2.bias"][6] = 0, 0  # the value is 0


def test_mlp() -> None:
    s = module_subject(mlp(), torch.randn(11, 4))
    state = changed(s, twins_in_mlp)
    pruned = act.prune_redundant(s.gauge, state)
    assert {r.bond: (len(r.dead), r.merged) for r in pruned.removals} == {
        "0.weight[0]": (1, ((2, 5), (6, 5)))
        if pruned.removals[0].merged[0] == (2, 5)
        else (1, pruned.removals[0].merged),
        "2.weight[0]": (1, ((4, 1),) if pruned.removals[1].merged == ((4, 1),) else ((1, 4),)),
    }
    small = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    assert same_function(s, state, small, pruned) < 1e-12
    assert {str(a) for a in pruned.axes} == {
        "0.weight[0]: 9 -> 6",
        "0.bias[0]: 9 -> 6",
        "2.weight[1]: 9 -> 6",
        "2.weight[0]: 7 -> 5",
        "2.bias[0]: 7 -> 5",
        "4.weight[1]: 7 -> 5",
    }


def test_convolution_with_batch_norm_and_pixels() -> None:
    s = module_subject(Conv(), torch.randn(3, 2, 4, 5))

    def edit(t: dict[str, Tensor]) -> None:
        for n in ("first.weight", "first.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
            t[n][3] = t[n][0]
        t["norm.weight"][5], t["norm.bias"][5] = 0, 0

    state = changed(s, edit)
    pruned = act.prune_redundant(s.gauge, state)
    assert sum(r.count for r in pruned.removals) == 2
    assert pruned.state["last.weight"].shape == (5, 36)
    assert same_function(s, state, Conv(6), pruned) < 1e-12


def test_fused_gated_feed_forward() -> None:
    s = module_subject(Gated(), torch.randn(7, 6))

    def edit(t: dict[str, Tensor]) -> None:
        for n in ("both.weight", "both.bias"):
            t[n][4] = t[n][1]
            t[n][14] = -3 * t[n][11]  # the up branch is linear: any factor
        t["down.weight"][:, 7] = 0

    state = changed(s, edit)
    pruned = act.prune_redundant(s.gauge, state)
    assert pruned.state["both.weight"].shape == (16, 6)
    assert same_function(s, state, Gated(8), pruned) < 1e-12


def test_a_unit_that_feeds_itself() -> None:
    s = module_subject(Recurrent(), torch.randn(5, 3))

    def edit(t: dict[str, Tensor]) -> None:
        for n in ("enter.weight", "enter.bias", "step.weight", "step.bias"):
            t[n][6] = t[n][2]

    state = changed(s, edit)
    pruned = act.prune_redundant(s.gauge, state)
    assert pruned.state["step.weight"].shape == (7, 7)
    assert same_function(s, state, Recurrent(7), pruned) < 1e-12


def test_transformer_feed_forward() -> None:
    """In a model of the hub's kind: the feed-forward width of one layer of one."""
    from tests.zoo.registry import load

    s = subject("llama-one-layer")
    layer = "model.layers.0.mlp."

    def edit(t: dict[str, Tensor]) -> None:
        t[layer + "gate_proj.weight"][9] = t[layer + "gate_proj.weight"][3]
        t[layer + "up_proj.weight"][9] = 0.5 * t[layer + "up_proj.weight"][3]

    state = changed(s, edit)
    pruned = act.prune_redundant(s.gauge, state)
    (removal,) = pruned.removals
    assert removal.count == 1 and len(pruned.axes) == 3
    expected = s.run(state)
    model = load()["llama-one-layer"].make().model.double()
    mlp_ = model.model.layers[0].mlp
    mlp_.gate_proj, mlp_.up_proj, mlp_.down_proj = (
        nn.Linear(6, 10, bias=False),
        nn.Linear(6, 10, bias=False),
        nn.Linear(10, 6, bias=False),
    )
    twin = Subject.__new__(Subject)
    twin.call, twin.model, twin.inputs, twin.state = (
        s.call,
        model.double().requires_grad_(False),
        s.inputs,
        dict(pruned.state),
    )
    assert distance(twin.run(pruned.state), expected) < 1e-12


def test_nothing_redundant_nothing_changed() -> None:
    s = module_subject(mlp(), torch.randn(11, 4))
    pruned = act.prune_redundant(s.gauge, s.state)
    assert not pruned.changed and all(pruned.state[n] is t for n, t in s.state.items())


def test_what_a_norm_mixes_is_no_unit() -> None:
    """Two equal entries of a normed value may not be merged: the norm counts both."""
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    s = module_subject(model, torch.randn(5, 4))

    def edit(t: dict[str, Tensor]) -> None:
        for n in ("0.weight", "0.bias", "1.weight", "1.bias"):
            t[n][3] = t[n][1]

    assert not act.prune_redundant(s.gauge, changed(s, edit)).changed


def test_strata_are_measured() -> None:
    s = module_subject(mlp(), torch.randn(11, 4))

    def nearly(t: dict[str, Tensor]) -> None:
        twins_in_mlp(t)
        t["0.weight"][5, 0] *= 1 + 1e-5

    state = changed(s, nearly)
    found = {(x.kind, x.bond): x for x in act.strata(s.gauge, state)}
    twins = found["coincide", "0.weight[0]"]
    assert set(twins.units) == {2, 6} and twins.distance < 1e-12 and twins.count == 3
    assert found["dead", "0.weight[0]"].units == (8,) and found["dead", "0.weight[0]"].distance == 0
    assert set(found["coincide", "2.weight[0]"].units) == {1, 4}
    assert found["dead", "2.weight[0]"].units == (6,)
    generic = act.strata(s.gauge, s.state)
    assert min(x.distance for x in generic) > 1e-2
    state["0.weight"][6] = state["0.weight"][6] * (1 + 3e-4)  # off the line: its bias does not follow
    near = next(x for x in act.strata(s.gauge, state) if (x.kind, x.bond) == ("coincide", "0.weight[0]"))
    assert 1e-7 < near.distance < 1e-3


def test_rank_drops_are_measured() -> None:
    s = subject("lora")
    low = [n for n, t in s.state.items() if t.ndim == 2 and 2 in t.shape]
    generic = next(x for x in act.strata(s.gauge, s.state) if x.kind == "rank")
    a, b = (s.state[n] if s.state[n].shape[0] == 2 else s.state[n].mT for n in low)
    values = torch.linalg.svdvals(a.mT @ b)
    assert generic.distance == pytest.approx(float(values[1] / values[0]), rel=1e-6)
    state = {n: t.clone() for n, t in s.state.items()}
    first = state[low[0]] if state[low[0]].shape[0] == 2 else state[low[0]].mT
    first[1] = 2 * first[0]
    dropped = next(x for x in act.strata(s.gauge, state) if x.kind == "rank")
    assert dropped.distance < 1e-7 and dropped.count == 1


def test_constant_units_go_into_the_next_bias() -> None:
    s = module_subject(mlp(), torch.randn(11, 4))

    def edit(t: dict[str, Tensor]) -> None:
        t["0.weight"][[3, 7]] = 0
        t["0.bias"][3], t["0.bias"][7] = 0.7, -0.7  # on, and always off
        t["2.weight"][5] = 0

    state = changed(s, edit)
    pruned = act.prune_redundant(s.gauge, state)
    assert [(r.bond, r.dead, r.constant) for r in pruned.removals] == [
        ("0.weight[0]", (7,), (3,)),
        ("2.weight[0]", (), (5,)),
    ]
    small = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))
    assert same_function(s, state, small, pruned) < 1e-12
    assert not pruned.left
    removal = pruned.removals[0]
    assert Removal.of(json.loads(json.dumps(removal.plain()))) == removal


def test_a_constant_channel_before_a_padded_convolution_is_none() -> None:
    def model(first: int = 5, second: int = 4) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, first, 3),
            nn.ReLU(),
            nn.Conv2d(first, second, 2, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, 3, 3, padding=1),
        )

    s = module_subject(model(), torch.randn(3, 2, 6, 7))

    def edit(t: dict[str, Tensor]) -> None:
        t["0.weight"][1], t["0.bias"][1] = 0, 0.7
        t["2.weight"][2], t["3.bias"][2] = 0, 5.0  # its bias carries it over zero
        t["2.weight"][0], t["3.bias"][0] = 0, -5.0  # always off: padding with zeros changes nothing

    state = changed(s, edit)
    found = {(x.kind, x.bond): x for x in act.strata(s.gauge, state)}
    assert found["constant", "0.weight[0]"].distance == 0 and not found["constant", "0.weight[0]"].stays
    pruned = act.prune_redundant(s.gauge, state)
    assert [(r.dead, r.constant) for r in pruned.removals] == [((), (1,)), ((0,), ())]
    assert len(pruned.left) == 1 and "unit 2 is constant, and stays" in pruned.left[0] and "conv2d" in pruned.left[0]
    assert same_function(s, state, model(4, 3), pruned) < 1e-12
    assert not torch.equal(pruned.state["3.running_mean"], state["3.running_mean"][1:])


def test_a_channel_whose_gain_is_zero_is_constant() -> None:
    s = module_subject(Conv(), torch.randn(3, 2, 4, 5))

    def edit(t: dict[str, Tensor]) -> None:
        t["norm.weight"][5], t["norm.bias"][5] = 0, 0.4

    state = changed(s, edit)
    pruned = act.prune_redundant(s.gauge, state)
    assert [(r.dead, r.constant) for r in pruned.removals] == [((), (5,))]
    assert same_function(s, state, Conv(7), pruned) < 1e-12


def test_constant_branches_of_gated_units() -> None:
    s = module_subject(Gated(), torch.randn(7, 6))

    def edit(t: dict[str, Tensor]) -> None:
        t["both.weight"][[1, 2]], t["both.bias"][1], t["both.bias"][2] = 0, 0.0, 0.5  # gates: off, and open
        t["both.weight"][[13, 14]], t["both.bias"][13], t["both.bias"][14] = 0, 0.0, 0.5  # up: zero, and only the gate
        t["both.weight"][[5, 15]] = 0  # both: a constant

    state = changed(s, edit)
    pruned = act.prune_redundant(s.gauge, state)
    assert [(r.dead, r.constant, r.merged) for r in pruned.removals] == [((1, 3), (5,), ())]
    assert same_function(s, state, Gated(7), pruned) < 1e-12


def test_constant_units_of_a_transformer_layer() -> None:
    def layer(width: int) -> nn.Module:
        return nn.TransformerEncoderLayer(6, 2, width, activation="gelu", batch_first=True, norm_first=True)

    s = module_subject(layer(8), torch.randn(2, 5, 6))
    state = changed(s, lambda t: t["linear1.weight"][3].zero_())
    pruned = act.prune_redundant(s.gauge, state)
    assert [(r.bond, r.constant) for r in pruned.removals] == [("linear1.weight[0]", (3,))]
    assert same_function(s, state, layer(7), pruned) < 1e-12


def test_a_constant_that_nothing_takes_up_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))
    s = module_subject(model, torch.randn(6, 4))
    state = changed(s, lambda t: t["0.weight"][2].zero_())
    pruned = act.prune_redundant(s.gauge, state)
    assert not pruned.changed and pruned.left == (
        "0.weight[0]: unit 2 is constant, and stays: no bias comes before the output",
    )
    found = next(x for x in act.strata(s.gauge, state) if x.kind == "constant")
    assert found.stays and found.gain == 0 and found.distance == 0


def test_a_bias_with_other_uses_takes_nothing_up() -> None:
    """The step's bias is added three times, to a unit that is constant with two values."""
    s = module_subject(Recurrent(), torch.randn(5, 3))

    def edit(t: dict[str, Tensor]) -> None:
        for n in ("enter.weight", "step.weight"):
            t[n][6] = 0

    pruned = act.prune_redundant(s.gauge, changed(s, edit))
    assert not pruned.changed and "unit 6 is constant, and stays: step.bias" in pruned.left[0]


def nullity(s: Subject, state: dict[str, Tensor]) -> int:
    (x,), _ = s.inputs
    names = [n for n, t in state.items() if t.is_floating_point()]

    def f(*tensors: Tensor) -> Tensor:
        return torch.func.functional_call(s.model, dict(zip(names, tensors, strict=True)), (x,)).reshape(-1)

    values = tuple(state[n] for n in names)
    rows = torch.autograd.functional.jacobian(f, values)
    jacobian = torch.cat([r.reshape(r.shape[0], -1) for r in rows], 1)
    return jacobian.shape[1] - int(torch.linalg.matrix_rank(jacobian, rtol=1e-10))


def test_how_near_a_constant_and_what_the_group_gains() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    s = module_subject(model, torch.randn(60, 4))
    s.state = changed(s, lambda t: t["0.bias"].fill_(0.6))

    def distance_of(factor: float) -> act.Stratum:
        state = {n: t.clone() for n, t in s.state.items()}
        state["0.weight"][4] *= factor
        return next(x for x in act.strata(s.gauge, state) if x.kind == "constant")

    norms = s.state["0.weight"].norm(dim=1)
    largest = torch.cat([norms[:4], norms[5:]]).max()
    assert distance_of(1e-5).units == (4,)
    assert distance_of(1e-5).distance == pytest.approx(1e-5 * float(norms[4] / largest), rel=1e-9)
    state = {n: t.clone() for n, t in s.state.items()}
    state["0.weight"][4] = 0
    assert nullity(s, s.state) == s.gauge.dim == 6
    assert nullity(s, state) - nullity(s, s.state) == distance_of(0.0).gain == 3
