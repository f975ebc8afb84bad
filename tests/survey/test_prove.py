"""The survey's own measure of both sides, against groups that are known in closed form."""

import copy
import math

import pytest
import torch
from survey_parts.build import Subject
from survey_parts.nullity import nullity
from survey_parts.plain import build_plain
from survey_parts.prove import InDouble, unsoundness
from survey_parts.rank import rank
from survey_parts.workers import run_all


class Permutation:
    """A gauge with one kind of element: hidden units permuted, as it is sound, or in one layer alone, as it is not."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def sample(self, rng):
        order = torch.randperm(12, generator=rng)
        return _Element(order, self.whole)


class _Element:
    def __init__(self, order, whole):
        self.order, self.whole = order, whole

    def apply(self, state):
        after = dict(state)
        after["0.weight"], after["0.bias"] = state["0.weight"][self.order], state["0.bias"][self.order]
        if self.whole:
            after["2.weight"] = state["2.weight"][:, self.order]
        return after


def test_unsoundness_tells_a_symmetry_from_a_change():
    subject = build_plain("Tanh")
    assert unsoundness(subject, Permutation(whole=True)) < 1e-13
    assert unsoundness(subject, Permutation(whole=False)) > 1e-3


def test_nullity_of_known_networks():
    # linear after linear: all but the map itself; a bilinear form of two maps: a change of basis behind each
    expected = {"Tanh": 0, "Identity": 5 * 12 + 12 + 12 * 3 + 3 - (5 * 3 + 3), "Bilinear": 4 * 4 + 6 * 6}
    expected |= {
        "ReLU6": 0,
        "Hardsigmoid": 0,
        "Threshold": 0,
        "Conv2dStrided": 8,
    }  # units saturated, dead, or with a jump
    for name, directions in expected.items():
        assert nullity(build_plain(name)).directions == directions, name


def test_upcasts_are_lifted():
    x = torch.randn(5, dtype=torch.float64)
    with InDouble():
        assert x.float().dtype == x.to(torch.float32).dtype == torch.softmax(x, 0, dtype=torch.float32).dtype == x.dtype


def test_nullity_counts_what_one_row_of_a_relu_hides():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    torch.manual_seed(1)
    subject = Subject("relu", copy.deepcopy(net), (torch.randn(64, 3),), {})
    assert nullity(subject).directions == 4


class CutGradients(torch.nn.Module):
    """Two maps of which one runs without gradients, and a norm with an eps that is as good as none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(5, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
        self.norm = torch.nn.LayerNorm(4, eps=1e-12, elementwise_affine=False)

    def forward(self, x):
        with torch.no_grad():
            x = torch.tanh(self.first(x))
        return self.norm(self.second(x.detach()) + x)


def test_nullity_is_of_the_function_not_of_the_tape():
    torch.manual_seed(2)
    subject = Subject("cut", CutGradients(), (torch.randn(7, 5),), {})
    assert nullity(subject).directions == 4  # the mean of each column of the second map; no scale


def _job(name):
    if name == "bad":
        raise ValueError("no")
    if name == "dead":
        raise SystemExit(3)
    return {"name": name}


def test_workers_survive_failures():
    results = dict(run_all(_job, ["a", "bad", "dead", "b"], 2, 60.0))
    assert results["a"] == {"name": "a"} and results["b"] == {"name": "b"}
    assert "ValueError" in results["bad"]["error"] and "ended" in results["dead"]["error"]


@pytest.mark.parametrize(("n", "null", "least"), [(40, 0, 1e-3), (300, 37, 1e-3), (300, 1, 1e-8), (300, 80, 3e-10)])
def test_rank_by_a_plain_factorisation(n, null, least):
    """Null vectors that sit on few columns, and singular values down to those that a norm's eps leaves."""
    rng = torch.Generator().manual_seed(n + null)
    left = torch.linalg.qr(torch.randn(2 * n, n, generator=rng, dtype=torch.float64)).Q
    right = torch.eye(n, dtype=torch.float64)
    right[:100, :100] = torch.linalg.qr(torch.randn(100, 100, generator=rng, dtype=torch.float64)).Q[:n, :n]
    values = torch.cat([torch.zeros(null), torch.logspace(0, math.log10(least), n - null)]).double()
    matrix = (left * values) @ right
    found = rank(matrix.clone())
    assert found.rank == n - null and found.null.shape == (n, null) and found.gap > least / 1e-13
    torch.testing.assert_close(matrix @ found.null, torch.zeros(2 * n, null).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(found.null.T @ found.null, torch.eye(null).double(), rtol=0, atol=1e-12)


def test_the_padding_row_counts():
    """Autograd reports no gradient for it, and the function depends on it like on any other."""
    found = []
    for padding in (None, 2):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Embedding(5, 3, padding_idx=padding), torch.nn.Tanh(), torch.nn.Linear(3, 2))
        torch.nn.init.normal_(net[0].weight)
        found.append(nullity(Subject("padded", net, (torch.arange(5).repeat(3, 1),), {}, 5)).directions)
    assert found[0] == found[1]
