"""Which samples to fit on, where a mean square error is carried by a few of them.

Near a watershed between two modes small errors of a solver grow, so a handful of samples decides the mean square, and
a plain subsample of moderate size hardly holds any. Here a sample is drawn with a probability that grows with its
present error and counts with the inverse probability, so weighted means stay means over all samples (Horvitz and
Thompson 1952; normalised to weights of mean one, Hajek).
"""

import torch
from torch import Tensor


def hard_samples(error: Tensor, count: int, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """(indices, weights) of about `count` samples, given the error (n,) of each; all with weight one if n <= count.

    The probability is proportional to the error plus its mean and at most one. Errors that are not finite count as the
    largest finite one.
    """
    if len(error) <= count:
        return torch.arange(len(error), device=error.device), torch.ones_like(error)
    finite = error[error.isfinite()]
    score = error.double().nan_to_num(nan=torch.inf).clamp(max=float(finite.max()) if len(finite) else 1.0)
    score = score + score.mean() + 1e-30
    low, high = 0.0, count / float(score.min())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if float((middle * score).clamp(max=1).sum()) > count else (middle, high)
    chance = (low * score).clamp(max=1)
    kept = (torch.rand(len(error), generator=rng, dtype=torch.float64).to(chance.device) < chance).nonzero().squeeze(-1)
    weights = 1 / chance[kept]
    return kept, (weights / weights.mean()).to(error.dtype)
