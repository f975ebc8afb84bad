"""Which samples are fitted: an unbiased choice that misses none of the hard ones."""

import pytest
import torch

from regauge.flow.hard_samples import hard_samples

RNG = torch.Generator().manual_seed(0)
# a heavy tail, like the errors of a solver near a watershed
ERROR = torch.exp(2 * torch.randn(4000, generator=RNG, dtype=torch.float64))


def test_all_samples_where_few_are_there():
    index, weights = hard_samples(ERROR[:50], 50)
    assert index.tolist() == list(range(50)) and bool((weights == 1).all())


def test_the_hardest_are_always_there_and_the_count_is_kept():
    for seed in range(5):
        index, weights = hard_samples(ERROR, 400, torch.Generator().manual_seed(seed))
        assert abs(len(index) - 400) < 80 and float(weights.mean()) == pytest.approx(1.0)
        assert set(ERROR.topk(20).indices.tolist()) <= set(index.tolist())


def test_weighted_means_are_those_of_all_samples_with_less_noise():
    def spread(estimates):
        return float((torch.tensor(estimates) / ERROR.square().mean() - 1).square().mean().sqrt())

    picked, plain = [], []
    for seed in range(40):
        rng = torch.Generator().manual_seed(seed)
        index, weights = hard_samples(ERROR, 400, rng)
        picked.append(float((weights * ERROR[index].square()).mean()))
        plain.append(float(ERROR[torch.randperm(len(ERROR), generator=rng)[:400]].square().mean()))
    assert spread(picked) < 0.1
    assert spread(picked) < 0.2 * spread(plain)


def test_errors_that_are_no_numbers_count_as_large():
    error = torch.ones(1000)
    error[7], error[8] = torch.nan, torch.inf
    index, weights = hard_samples(error, 100, torch.Generator().manual_seed(0))
    assert bool(weights.isfinite().all()) and len(index) > 50
