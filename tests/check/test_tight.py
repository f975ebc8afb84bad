"""The tightness check counts what is there: known nullities, gaps, dead entries, and traps of counting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regauge import check
from regauge.check.jacobian import cut, null_space
from regauge.check.lift import leaky
from regauge.errors import CheckError, InputError
from tests.check.fakes import HiddenUnits

ARGS = (torch.randn(23, 5, generator=torch.Generator().manual_seed(2)),)


def model(activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), activation or nn.ReLU(), nn.Linear(7, 3))


def test_the_whole_group_is_tight():
    result = check.tight(model(), ARGS, HiddenUnits(7)).raise_if_failed()
    assert (result.nullity, result.gap, result.dead) == (7, 0, 0)
    assert result.above > 1e-6 and result.below < 1e-13


def test_missing_directions_are_counted_and_located():
    result = check.tight(model(), ARGS, HiddenUnits(7, claimed=5))
    assert result.gap == 2 and result.explained and not result.ok
    assert sum(s.unexplained for s in result.shares) == pytest.approx(2, abs=1e-6)
    with pytest.raises(CheckError, match="2 missing"):
        result.raise_if_failed()


def test_too_large_a_group_is_called_unsound():
    result = check.tight(model(nn.Tanh()), ARGS, HiddenUnits(7))
    assert result.gap == -7 and "NOT sound" in str(result)


def test_nullity_agrees_with_plain_svd():
    """An independent route: torch.func on the model itself, full SVD, no scaling."""
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(101, 4, dtype=torch.float64)
    params = dict(network.named_parameters())
    jac = torch.func.jacrev(lambda p: torch.func.functional_call(network, p, (x,)))(params)
    matrix = torch.cat([j.reshape(202, -1) for j in jac.values()], 1)
    values = torch.linalg.svdvals(matrix)
    expected = matrix.shape[1] - int((values > 1e-10 * values[0]).sum())
    assert expected == 3 * 3 + 3
    assert null_space(network, (x,)).nullity == expected


def test_null_vectors_are_null():
    space = null_space(model(), ARGS, seed=3)
    vectors = space.basis / space.scale[:, None]
    residual = (space.jacobian @ vectors).norm() / (space.jacobian.norm() * vectors.norm())
    assert residual < 1e-14


def test_ties_count_once():
    network = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Tanh(), nn.Linear(5, 5, bias=False))
    network[2].weight = network[0].weight
    space = null_space(network, ARGS)
    assert sum(space.sizes) == 25 and space.nullity == 0


def test_gains_of_one_are_no_symmetry():
    """Two norms whose outputs add: at the gains' initial value a rotation seems free."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.RMSNorm(5), nn.Linear(5, 4)
            self.enter = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            h = self.enter(x)
            return torch.cat([self.norm(h) + h, self.head(h)], -1)

    assert null_space(Net(), ARGS).nullity == 0


@pytest.mark.parametrize("eps, extra", [(0.0, 1), (1e-12, 0), (1e-5, 0)])
def test_eps_is_told_from_zero(eps: float, extra: int):
    """eps = 1e-12 leaves a singular value of 1e-12 times the scale: it must not be called null."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 4, bias=False), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            return self.b(torch.tanh(h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)))

    assert null_space(Net(), ARGS).nullity == extra


def test_dead_entries_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(9, 3), nn.Linear(3, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(torch.tanh(self.table(ids) + self.table.weight[:4].sum(0)))

    ids = torch.tensor([[0, 1, 2, 3, 4, 5, 6]])
    result = check.tight(Net(), (ids,), HiddenUnits(0))
    assert result.dead == 6 and "table.weight 6" in str(result)


def test_tensors_that_are_never_read_are_left_out_and_named():
    network = model()
    network.register_parameter("spare", nn.Parameter(torch.randn(4)))
    result = check.tight(network, ARGS, HiddenUnits(7)).raise_if_failed()
    assert result.unread == ("spare",) and result.nullity == 7 and "spare" in str(result)


def test_padding_rows_are_read():
    network = nn.Sequential(nn.Embedding(7, 3, padding_idx=0), nn.Tanh(), nn.Linear(3, 4))
    space = null_space(network, (torch.arange(7)[None],))
    assert not space.dead.any() and space.nullity == 3 * 3 + 3  # a table of tokens absorbs any map through the tanh


def test_upcasts_are_lifted():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x).to(torch.bfloat16).float()
            return self.b(h.to(torch.float32)).type(torch.float16).to(x.dtype)

    space = null_space(Net(), ARGS)
    assert space.nullity == 4 * 4 + 4 and space.below < 1e-14


def test_dead_relu_units_do_not_count():
    """Some relu of a deep net is always off at a sampled point, which adds directions; its leaky stand-in is not."""
    network = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(6, 6), nn.ReLU())], nn.Linear(6, 6))
    result = check.tight(network, (torch.randn(23, 6),), HiddenUnits(0))
    assert max(result.nullities) > result.nullity == 4 * 6


def test_the_smaller_of_two_counts_where_the_other_is_always_larger():
    """Far below a bound the scale of what is bounded and of what the bound divides make up for one another: at a point."""

    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.a * x / torch.maximum(self.b * x.abs(), torch.full_like(x, 1e4))

    assert null_space(Bounded(), ARGS).nullity == 1
    assert null_space(Bounded(), ARGS, leaks=True).nullity == 0
    low = torch.full((3,), -torch.inf)
    with leaky():
        assert torch.equal(torch.maximum(low, low), low)
        assert torch.equal(torch.maximum(torch.full((3,), -1e38), torch.zeros(3)), torch.zeros(3))


def test_cut_finds_the_gap():
    assert cut(torch.tensor([1.0, 1e-3, 1e-9, 1e-15, 1e-16])) == 3
    assert cut(torch.tensor([1.0, 1e-3, 1e-5])) == 3
    assert cut(torch.tensor([1.0, 0.0])) == 1
    assert cut(torch.tensor([0.0, 0.0])) == 0


def test_models_without_parameters_are_refused():
    with pytest.raises(InputError, match="no floating parameters"):
        null_space(nn.ReLU(), ARGS)
    with pytest.raises(InputError, match="does not depend"):

        class Constant(nn.Module):
            def __init__(self):
                super().__init__()
                self.unused = nn.Parameter(torch.randn(3))

            def forward(self, x: Tensor) -> Tensor:
                return F.relu(x)

        null_space(Constant(), ARGS)
