"""The survey's own measure of both sides, against groups that are known in closed form."""

import copy

import torch
from survey_parts.build import Subject
from survey_parts.plain import build_plain
from survey_parts.prove import InDouble, nullity, unsoundness
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
    # linear after linear: all but the map itself; a bilinear form of two maps of one input: all but its quadratic forms
    expected = {"Tanh": 0, "Identity": 5 * 12 + 12 + 12 * 3 + 3 - (5 * 3 + 3), "Bilinear": 135 - 3 * 21}
    for name, directions in expected.items():
        assert nullity(build_plain(name))[0] == directions, name


def test_upcasts_are_lifted():
    x = torch.randn(5, dtype=torch.float64)
    with InDouble():
        assert x.float().dtype == x.to(torch.float32).dtype == torch.softmax(x, 0, dtype=torch.float32).dtype == x.dtype


def test_nullity_counts_what_one_row_of_a_relu_hides():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    torch.manual_seed(1)
    subject = Subject("relu", copy.deepcopy(net), (torch.randn(64, 3),), {})
    assert nullity(subject)[0] == 4


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
