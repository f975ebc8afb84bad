"""Autocorrelation, R-hat and weights on series whose answers are known."""

import numpy as np
import pytest

from regauge.pathsum import ChainSample, WeightedSample, average, derived, statistics
from regauge.pathsum.sample import resample


def ar1(rho, chains, steps, rng):
    x = np.empty((chains, steps))
    x[:, 0] = rng.standard_normal(chains)
    noise = rng.standard_normal((chains, steps)) * np.sqrt(1 - rho**2)
    for t in range(1, steps):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_a_first_order_process(rho):
    x = ar1(rho, 40, 3000, np.random.default_rng(0))
    assert statistics.autocorrelation_time(x) == pytest.approx(0.5 * (1 + rho) / (1 - rho), rel=0.05)


def test_standard_errors_are_right_by_repetition():
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(300):
        x = ar1(0.8, 8, 400, rng)
        pulls.append(x.mean() / statistics.standard_error(x))
    assert 0.88 < np.std(pulls) < 1.12


def test_errors_of_derived_numbers_by_repetition():
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(300):
        x = ar1(0.6, 8, 300, rng)
        pair = np.stack([x + 3, x**2], -1)
        found = derived(ChainSample("", x, 1.0), pair, lambda m: float(np.log(m[0]) + m[1]))
        pulls.append(found.pull(np.log(3) + 1))
    assert 0.88 < np.std(pulls) < 1.15


def test_weighted_errors_by_repetition():
    rng = np.random.default_rng(3)
    pulls = []
    for _ in range(400):
        x = rng.standard_normal(500) * 1.3
        sample = WeightedSample("", x, -0.5 * x**2 + 0.5 * (x / 1.3) ** 2, 1.0)
        pulls.append(average(sample, x**2).pull(1.0))
    assert 0.88 < np.std(pulls) < 1.12 and abs(np.mean(pulls)) < 0.25


def test_r_hat_sees_disagreement():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((4, 1000))
    assert statistics.r_hat(x) < 1.01
    assert statistics.r_hat(x + 0.5 * np.arange(4)[:, None]) > 1.1
    assert statistics.r_hat(x * np.array([1, 1, 1, 3])[:, None]) > 1.05
    assert statistics.r_hat(np.arange(4.0)[:, None] + np.zeros((4, 10))) == np.inf


def test_pareto_index_of_known_tails():
    rng = np.random.default_rng(5)
    for k in (0.3, 0.9):
        found = [statistics.tail_index(np.log((rng.random(40000) ** -k - 1) / k)) for _ in range(12)]
        assert np.mean(found) == pytest.approx(k, abs=0.08)  # one estimate spreads by 0.08
    assert statistics.tail_index(np.log(rng.random(5000))) < 0.0


def test_efficiency_and_log_z():
    x = np.random.default_rng(6).standard_normal(200_000)
    sample = WeightedSample("", x, 0.3 * x, 1.0)
    assert sample.efficiency == pytest.approx(np.exp(-0.09), abs=0.01)
    value, error = sample.log_z
    assert abs(value - 0.045) < 4 * error


def test_resampling_follows_the_weights():
    paths = np.arange(10.0)[:, None, None]
    sample = WeightedSample("", paths, np.log(np.arange(1, 11)), 1.0)
    picked = resample(sample, 5500, np.random.default_rng(0)).ravel()
    assert np.abs(np.bincount(picked.astype(int)) - 100 * np.arange(1, 11)).max() <= 1


def test_a_series_that_never_moves_has_no_information():
    assert statistics.effective_size(np.ones((4, 10))) == 0
